"""Money that is held before it is spent: reserve, then capture or void."""

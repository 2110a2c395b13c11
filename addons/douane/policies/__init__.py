"""One policy a file; found by name in :func:`douane.policy.registry`."""

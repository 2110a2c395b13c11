"""What placeholders stand for in histories that a provider keeps: sealed, by the provider's own ids, for a time."""

"""What shows and tests Douane without a key or a network: a local TLS provider and its certificate."""

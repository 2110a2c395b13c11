"""What a call costs on the road: see README.md and ``python -m bench.road --help``."""

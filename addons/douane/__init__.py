"""Douane: the customs house for AI traffic."""

__version__ = "0.1.0"

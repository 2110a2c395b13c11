"""The certificate authority: a root that clients trust and that can be kept elsewhere, a short-lived intermediate that
can only speak for governed names, and leaves made in memory. ``docs/ca.md`` says what this protects and what not."""

from douane.ca.admin import Facts, Overview, init, issue, rotate, show
from douane.ca.authority import Authority, Leaf
from douane.ca.trust import bundle, truststore

__all__ = ["Authority", "Facts", "Leaf", "Overview", "bundle", "init", "issue", "rotate", "show", "truststore"]

"""The rules of the door: what a policy file's ``edge:`` says."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["EdgeRules"]


@dataclass(frozen=True, slots=True)
class EdgeRules:
    """``edge:`` in a policy file; the fields are its schema."""

    unknown_hosts: Literal["tunnel", "deny"] = "tunnel"
    unknown_operations: Literal["deny", "allow"] = "deny"
    unparsed_ai_hosts: Literal["deny", "tunnel"] = "deny"
    uninspectable: Literal["allow", "deny"] = "allow"
    max_body: int = 32 * 1024 * 1024
    """Bytes, of a request body both as sent and decoded, and of an answer that must be held whole. YAML: ``32MB``."""

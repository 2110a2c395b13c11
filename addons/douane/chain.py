"""The chain: which policies judge a call, in which order, under which revision. Immutable; a reload makes a new one."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from douane.call import Call, Outcome
from douane.edge import EdgeRules
from douane.policy import BodyFilter, Traits
from douane.providers.by_host import ByHost
from douane.verdict import Verdict

__all__ = ["AuditRules", "Chain", "Entry"]

type Condition = Callable[[Call], bool]
"""A compiled ``when``. Raises where the expression cannot be evaluated; the entry's ``on_error`` decides then."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ``chain:``."""

    name: str
    policy: Any
    """Bound: implements Admits, Filters, Settles or several."""
    traits: Traits
    when: Condition | None = None
    observe: bool = False
    on_error: Literal["deny", "allow"] = "deny"
    place: str = ""
    """``file:line``."""
    admit: Callable[[Call], Coroutine[Any, Any, Verdict]] | None = field(init=False)
    filter: Callable[[Call], BodyFilter | None] | None = field(init=False)
    settle: Callable[[Call, Outcome], Coroutine[Any, Any, None]] | None = field(init=False)
    """What the policy has of the protocols."""

    def __post_init__(self) -> None:
        for name in ("admit", "filter", "settle"):
            object.__setattr__(self, name, getattr(self.policy, name, None))


@dataclass(frozen=True, slots=True)
class AuditRules:
    """``audit:`` in a policy file. ``full`` is refused until it exists."""

    level: Literal["metadata", "redacted"] = "redacted"


@dataclass(frozen=True, slots=True)
class Chain:
    revision: str
    """sha256 of the canonical policy source, hex."""
    entries: tuple[Entry, ...]
    edge: EdgeRules
    providers: ByHost
    """The governed hosts."""
    audit: AuditRules
    files: tuple[str, ...] = ()
    """The policy files it was read from, for the banner and ``check``."""
    ca: str = ""
    """Path of a PEM file with the roots trusted for providers without their own; empty for the system's."""
    laws: tuple[Entry, ...] = ()
    """What acts after the entries on every call, and stands in no policy file (``objects/law.py``)."""

"""What a policy answers: allow, rewrite or deny."""

from dataclasses import dataclass

from douane.call import Call, Finding
from douane.frozen import made_fast
from douane.ledger.base import Rate, Slots
from douane.ledger.claim import Claim
from douane.providers.room import Room

__all__ = ["ALLOW", "Allow", "Deny", "Rewrite", "Verdict"]


@dataclass(frozen=True, slots=True)
class Allow:
    findings: tuple[Finding, ...] = ()
    claims: tuple[Claim, ...] = ()
    """Budgets that the call must fit: what it may come to is held in all of them at once, when every policy has spoken."""
    rates: tuple[Rate | Slots, ...] = ()
    """Rate limits that it must fit, now: all of them or none."""


@made_fast
@dataclass(frozen=True, slots=True)
class Rewrite:
    """Go on with *call* in place of the one that was shown."""

    call: Call
    findings: tuple[Finding, ...] = ()
    claims: tuple[Claim, ...] = ()
    rates: tuple[Rate | Slots, ...] = ()


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse. *code* is one of ``errors.DENIALS``; *reason* is shown to the caller and recorded: no values in it."""

    code: str
    reason: str
    retry_after: float | None = None
    """Seconds."""
    findings: tuple[Finding, ...] = ()
    room: Room | None = None
    """Of the limit that was met."""


type Verdict = Allow | Rewrite | Deny

ALLOW = Allow()

"""What a policy answers: allow, rewrite or deny."""

from dataclasses import dataclass

from douane.call import Call, Finding

__all__ = ["ALLOW", "Allow", "Deny", "Rewrite", "Verdict"]


@dataclass(frozen=True, slots=True)
class Allow:
    findings: tuple[Finding, ...] = ()
    reserved_usd: float | None = None
    """What a budget holds for this call; recorded."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Go on with *call* in place of the one that was shown."""

    call: Call
    findings: tuple[Finding, ...] = ()
    reserved_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse. *code* is one of ``errors.DENIALS``; *reason* is shown to the caller and recorded: no values in it."""

    code: str
    reason: str
    retry_after: float | None = None
    """Seconds."""
    findings: tuple[Finding, ...] = ()


type Verdict = Allow | Rewrite | Deny

ALLOW = Allow()

"""What a call is charged in the end.

Law: it follows from the call's record alone: ``cost_usd`` where the answer told its whole usage, nothing where it was never
forwarded or the provider refused it, and otherwise what was reserved, or seen if that is more: a price taken at the ceiling,
missing usage, an answer that was cut off (the usage that such an answer has told by then is a floor: Anthropic's first event
says one token). So a gateway that died between the outcome and the booking books the same when it starts again.
"""

from collections.abc import Mapping
from typing import Any

from douane.call import Outcome
from douane.ledger.base import nano

__all__ = ["charge", "recorded"]


def charge(outcome: Outcome, reserved: int) -> int | None:
    """Nano-USD that a call is charged; None: what was held for it. *reserved*: how much that was."""
    if outcome.ended == "denied":
        return 0
    if outcome.cost_usd is not None:
        seen = nano(outcome.cost_usd)
        return None if outcome.estimated and not outcome.counted and seen < reserved else seen
    if outcome.status >= 300 or (outcome.status == 0 and outcome.ended == "upstream_error"):
        return 0  # the provider refused it, or was never reached
    return None


def recorded(said: Mapping[str, Any]) -> int | None:
    """:func:`charge` of an outcome as the audit log has it; None for one that nobody saw the end of (``unknown``)."""
    seen = Outcome(said["ended"], said["status"], None, said["estimated"], said["cost_usd"], counted=said.get("counted", False))
    return charge(seen, nano(said.get("reserved_usd") or 0.0))

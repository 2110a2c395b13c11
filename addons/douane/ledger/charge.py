"""What a call is charged in the end.

Law: it follows from the call's record alone: ``cost_usd`` where the answer told its whole usage, nothing where it was never
forwarded or the provider refused it, and otherwise what was reserved, or seen if that is more: a price taken at the ceiling,
missing usage, an answer that was cut off (the usage that such an answer has told by then is a floor: Anthropic's first event
says one token). So a gateway that died between the outcome and the booking books the same when it starts again.
"""

from collections.abc import Mapping
from typing import Any

from douane.call import Outcome, Usage
from douane.ledger.base import NOTHING_SPENT, Spent, nano

__all__ = ["UNKNOWN", "charge", "recorded"]

UNKNOWN = Spent(0, 0, 1, usd_floor=True, tokens_floor=True)
"""Of a call whose end nobody saw: what it holds stays charged."""


def charge(outcome: Outcome) -> Spent:
    """What *outcome* comes to."""
    if outcome.ended == "denied":
        return NOTHING_SPENT
    usage = outcome.usage
    tokens = 0 if usage is None else usage.input + usage.output
    told = usage is not None and (outcome.told or outcome.counted or not outcome.estimated)
    if outcome.cost_usd is not None:
        exact = outcome.counted or not outcome.estimated
        usd = nano(outcome.cost_usd)
        if exact and not usd and usage is None:  # never forwarded, or nothing that is billed
            return NOTHING_SPENT
        return Spent(usd, tokens, 1, usd_floor=not exact, tokens_floor=not told)
    if outcome.status >= 300 or (outcome.status == 0 and outcome.ended == "upstream_error"):
        return NOTHING_SPENT  # the provider refused it, or was never reached
    return Spent(0, tokens, 1, usd_floor=True, tokens_floor=not told)


def recorded(said: Mapping[str, Any]) -> Spent:
    """:func:`charge` of an outcome as the audit log has it."""
    usage = said["usage"]
    seen = Outcome(said["ended"], said["status"], None if usage is None else Usage(usage["input"], usage["output"]),
                   said["estimated"], said["cost_usd"], counted=said.get("counted", False), told=said.get("told", False))
    return charge(seen)

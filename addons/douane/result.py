"""What came of a call: its usage and what that cost.

Law 6: what the provider told counts. Where it told nothing, or broke off, what was seen is counted and the record says so; of
an answer that was not seen whole the reservation stays."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from douane.answer import Capture
from douane.call import Call, Ended, Outcome, Usage
from douane.counted import MOST_AHEAD, ahead, counted, shows_all
from douane.frozen import made_fast
from douane.gate import Pricing
from douane.logs import where
from douane.providers.base import Reading, Wire

__all__ = ["Seen", "result_of"]

log = logging.getLogger("douane.exchange")


@made_fast
@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of an answer at its end."""

    ended: Ended
    status: int
    reading: Reading
    """What the meter read."""
    wire: Wire | None
    capture: Capture | None
    whole: bool
    """Its own end has come."""
    unread: Callable[[], float]
    """Seconds in which the provider may have made something that nobody read."""
    request_id: str


def result_of(call: Call, seen: Seen, prices: Pricing, *, forwarded: bool) -> Outcome:
    """*forwarded*: it went upstream, and may cost something."""
    reading = seen.reading
    cost, guessed, usage, whole = reading.cost_usd, False, reading.usage, False
    if not forwarded:
        cost = 0.0
    elif cost is None:
        if usage is None or reading.partial:
            usage, whole = _counted(call, seen)
        if usage is not None:
            bill = prices.bill(call.provider, (reading.model, call.model), usage, call.at, reading.tier)
            cost, guessed = bill.usd, bill.ceiling
    told = usage is not None and usage is reading.usage and not reading.partial
    estimated = reading.partial or guessed or usage is not reading.usage
    return Outcome(seen.ended, seen.status, usage, estimated, cost, reading.model, seen.request_id,
                   counted=whole and not guessed, told=told)


def _counted(call: Call, seen: Seen) -> tuple[Usage | None, bool]:
    """The usage of an answer that did not tell it, or not to its end, by what was seen of it, and whether that is all that can
    have been billed."""
    reading, capture, wire = seen.reading, seen.capture, seen.wire
    if wire is None or not wire.bound.stated or capture is None or capture.lost or not capture.size:
        return reading.usage, False
    if seen.status >= 300:  # the provider refused it
        return reading.usage, False
    if call.session:  # its sound is not kept, nor what the provider held before
        return reading.usage, False
    try:
        usage = counted(call, wire, reading.usage, capture.raw(), capture.framing)
    except Exception as error:  # noqa: BLE001 - the outcome must be written all the same
        log.error("an answer could not be counted: %s", where(error), extra={"douane_id": call.id})
        return reading.usage, False
    unread = ahead(seen.unread())
    model = reading.model or call.model
    whole = (capture.framing is not None and unread <= MOST_AHEAD and shows_all(model, call.document)
             and shows_all(call.model, call.document) and not usage.reasoning)
    if whole and not seen.whole:
        usage = replace(usage, output=usage.output + unread)
    return usage, whole

"""What an answer used that does not tell it: the text that was seen is counted.

Law 6: it is an estimate and the record says so. It lowers what is charged only where nothing can have been billed unseen:
a stream, a model known not to think unless it is asked to, no tools that the provider runs; and with a margin for what the
provider had made by the time it learned that nobody listens. Of anything else the reservation stays.
"""

import re
from dataclasses import replace
from typing import Any

from douane.call import Call, Usage
from douane.ledger.estimate import count, family, input_bound, unseen
from douane.policy import positions
from douane.providers.base import Wire
from douane.providers.framing import Framing
from douane.providers.wires import read_json

__all__ = ["MOST_AHEAD", "ahead", "counted", "shows_all"]

_AHEAD, _PER_SECOND = 256, 500
"""Tokens: made before the provider learns that nobody listens; made in a second in which nothing was read, at most."""
MOST_AHEAD = 4096
"""Tokens; of who read nothing for longer than that takes, what was made meanwhile is not guessed."""
_DATED = r"(?:[-@]20[0-9]{2}-?[0-9]{2}-?[0-9]{2})?"
_PLAIN = re.compile(
    rf"(?:openai/|anthropic/)?(?:gpt-4o(?:-mini)?{_DATED}|gpt-4\.1(?:-mini|-nano)?{_DATED}|gpt-4-turbo{_DATED}|gpt-3\.5-turbo(?:-[0-9]{{4}})?"
    rf"|claude-3(?:[-.][57])?-(?:haiku|sonnet|opus){_DATED}|claude-(?:haiku|sonnet|opus)-4(?:[-.][015])?{_DATED})")
"""Models that do not think unless asked to. Names that are not here may: the list is what is known, not a guess."""
_THINKING = ("thinking", "reasoning", "reasoning_effort", "web_search_options", "modalities", "audio")


def ahead(silent: float) -> int:
    """Tokens that may have been made and not seen, after *silent* seconds without a byte."""
    return _AHEAD + int(silent * _PER_SECOND)


def shows_all(model: str, document: Any) -> bool:
    """Whether all the output that such a call is billed for stands in its stream."""
    return (isinstance(document, dict) and _PLAIN.fullmatch(model) is not None and not any(map(document.get, _THINKING))
            and (document.get("best_of") or 1) == 1 and not unseen(document))


def counted(call: Call, wire: Wire, told: Usage | None, answer: bytes, framing: Framing | None) -> Usage:
    """The usage of an answer that told none, or only what it had *told* when it broke off: no count is below that."""
    document = wire.assembled(answer, framing) if framing is not None else _read(answer)
    texts = [] if document is None else [one.text for one in wire.answered(document)]
    output = int(count(texts) * family(call.provider, call.model).factor) if texts else 0
    if told is not None and told.input:
        return replace(told, output=max(told.output, output))
    given = 0 if call.document is None else input_bound(call.provider, call.document,
                                                        (one.text for one in positions(call, wire)), call.model)
    return Usage(given + call.context, output)


def _read(answer: bytes) -> Any:
    try:
        return read_json(answer)
    except ValueError:
        return None

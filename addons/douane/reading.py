"""What of a call is searched: its texts, read once, and the keys by which a searched text is known again, made once for all who
search: the policies and the log.

Law: what is kept of a call goes with it, but for the keys of texts that are no more than they look."""

from douane.call import Call
from douane.detect.memory import Keys, Memory
from douane.pauses import Paused, with_pauses
from douane.policy import positions
from douane.providers.base import Position, Wire
from douane.redaction import Text, reading

__all__ = ["read_texts", "text_keys"]

_LONG = 512
"""Characters of a text that takes longer to be read than to be known again."""
_plain = Memory(50_000)
"""Texts that hold no other text."""


async def read_texts(call: Call, wire: Wire) -> tuple[Text, ...]:
    """What of each of the *call*'s :func:`~douane.policy.positions` must be searched."""
    found, walked = positions(call, wire), call.walked
    texts: tuple[Text, ...] | None = walked.texts
    if texts is None:
        texts = await with_pauses(_reading(found, text_keys(call)))
        walked.texts = texts
    return texts


def _reading(found: tuple[Position, ...], keys: Keys) -> Paused[tuple[Text, ...]]:
    texts: list[Text] = []
    for one in found:
        text = one.text
        long = len(text) >= _LONG
        if long and _plain.get(keys[text]) is not None:
            texts.append(Text(text, (text,)))
            continue
        read = yield from reading(text)
        if long and not read.inner and not read.coded:
            _plain.put(keys[text], ())
        texts.append(read)
        yield
    return tuple(texts)


def text_keys(call: Call) -> Keys:
    """The keys of its texts, for its tenant."""
    tenant = call.principal.tenant
    found: Keys | None = call.walked.keys
    if found is None or found.tenant != tenant:
        found = call.walked.keys = Keys(tenant)
    return found

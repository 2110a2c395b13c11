"""Reading usage off an answer, in JSON and in streams.

A meter never breaks an answer: what it cannot read it leaves unread, and a reading without usage keeps the reservation
(law 6). Of a stream it parses only the events that can tell something: about one in five hundred.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from douane.call import Usage
from douane.errors import RefusedError
from douane.providers.base import Reading
from douane.providers.framing import Framing
from douane.providers.framing import Splitter as AnySplitter
from douane.providers.sse import Splitter, parse

__all__ = ["ANSWER_LIMIT", "Answers", "FrameMeter", "FreeMeter", "JsonMeter", "Seen", "StreamMeter", "tokens"]

ANSWER_LIMIT = 32 * 1024 * 1024
"""Bytes of a JSON answer that a meter holds; of a longer one the usage stays unknown."""


@dataclass(slots=True)
class Seen:
    """What has been read so far. ``usage`` is the provider's own object."""

    model: str = ""
    tier: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    cost: float | None = None
    """USD, where the provider says it."""
    searches: int = 0
    """Web searches that are told outside of ``usage``."""
    done: bool = False
    """The event that carries the final usage has come."""
    ended: bool = False
    """The event that ends the stream has come, or the one that reports its failure."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How the answers of one format tell their usage."""

    note: Callable[[Seen, dict[str, Any]], None]
    """Take in one JSON object: a whole answer, or the data of one event."""
    usage: Callable[[Seen], Usage]
    """Normalise ``Seen.usage``. Raises ValueError where it is not as the format says."""
    marks: tuple[bytes, ...]
    """An event that ends a stream holds one of them. What else holds one is parsed in vain, no more."""
    billed: bool = True
    """False: the answer tells the usage of another call, to which it was billed."""


def tokens(usage: dict[str, Any], name: str, part: str = "") -> int:
    """A count in a usage object, or in the object under *name* in it where *part* is given; 0 where it is absent or null.
    Raises ValueError for anything but a count."""
    value: Any = usage.get(name)
    if part and value is not None:
        if not isinstance(value, dict):
            raise ValueError(f"usage.{name} is no object")
        value = value.get(part)
    if value is None:
        return 0
    if isinstance(value, int) and value >= 0 and value is not True and value is not False:
        return value
    raise ValueError(f"usage.{name}{'.' if part else ''}{part} is no count")


def _has_usage(block: bytes) -> bool:
    """Not for ``"usage":null``, which with ``include_usage`` stands in every event but the last."""
    return b'"usage"' in block and (b'"usage":{' in block or b'"usage":null' not in block)


_STRANGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a format's own rules may raise on JSON that is not of the format."""


def _note(answers: Answers, seen: Seen, document: dict[str, Any]) -> None:
    try:  # contextlib.suppress takes a tenth of what it guards
        answers.note(seen, document)
    except _STRANGE:
        return


def _reading(answers: Answers, seen: Seen, *, json: bool = False) -> Reading:
    usage = None
    if seen.usage:
        try:
            usage = answers.usage(seen)
        except _STRANGE:
            usage = None  # not as the format says: as if there were none
    cost = seen.cost if answers.billed else 0.0
    return Reading(usage, seen.model, cost, partial=usage is not None and not seen.done, tier=seen.tier,
                   json=json)


class JsonMeter:
    """Holds the answer, up to *limit* bytes, and parses it when asked."""

    __slots__ = ("_answers", "_chunks", "_held", "_limit")
    ended = False

    def __init__(self, answers: Answers, limit: int = ANSWER_LIMIT) -> None:
        self._answers = answers
        self._limit = limit
        self._chunks: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> None:
        self._held += len(chunk)
        if self._held <= self._limit:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def reading(self) -> Reading:
        seen = Seen(done=True)
        try:
            document = orjson.loads(b"".join(self._chunks))
        except orjson.JSONDecodeError:
            return Reading()
        if isinstance(document, dict):
            _note(self._answers, seen, document)
        return _reading(self._answers, seen, json=True)


class FrameMeter:
    """Reads a stream in any framing, each frame of it; holds one frame at most."""

    __slots__ = ("_answers", "_seen", "_splitter")

    def __init__(self, answers: Answers, framing: Framing) -> None:
        self._answers = answers
        self._splitter: AnySplitter | None = framing.splitter()
        self._seen = Seen()

    def feed(self, chunk: bytes) -> None:
        if self._splitter is None:
            return
        try:
            for frame in self._splitter.feed(chunk):
                _take(self._answers, self._seen, frame.data)
        except RefusedError:
            self._splitter = None  # too large or broken: what was seen before it stands, unfinished

    def reading(self) -> Reading:
        if self._splitter is not None:
            for frame in self._splitter.close():
                _take(self._answers, self._seen, frame.data)
        return _reading(self._answers, self._seen)

    @property
    def ended(self) -> bool:
        return self._seen.ended


def _take(answers: Answers, seen: Seen, data: bytes) -> None:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    if isinstance(document, dict):
        _note(answers, seen, document)


class StreamMeter:
    """Reads a stream of server-sent events; holds one event at most, and parses those that can tell something."""

    __slots__ = ("_answers", "_seen", "_splitter")

    def __init__(self, answers: Answers, limit: int | None = None) -> None:
        self._answers = answers
        self._splitter: Splitter | None = Splitter() if limit is None else Splitter(limit)
        self._seen = Seen()

    def feed(self, chunk: bytes) -> None:
        if self._splitter is None:
            return
        try:
            blocks = self._splitter.blocks(chunk)
        except RefusedError:
            self._splitter = None  # an event too large to hold: what was seen before it stands, unfinished
            return
        for block in blocks:
            if _has_usage(block) or (not self._seen.model and b'"model"' in block):
                self._take(block)
                continue
            for mark in self._answers.marks:
                if mark in block:
                    self._take(block)
                    break

    def _take(self, block: bytes) -> None:
        data = parse(block).data
        if data.startswith(b"[DONE]"):
            self._seen.done = self._seen.ended = True
            return
        _take(self._answers, self._seen, data)

    def reading(self) -> Reading:
        return _reading(self._answers, self._seen)

    @property
    def ended(self) -> bool:
        return self._seen.ended


class FreeMeter:
    """For operations that the provider does not bill, whatever they answer."""

    __slots__ = ()
    ended = False

    def feed(self, chunk: bytes) -> None:
        pass

    def reading(self) -> Reading:
        return Reading(Usage(), cost_usd=0.0)

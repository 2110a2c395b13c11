"""The one :class:`~douane.providers.base.Wire` that JSON formats share: what tells them apart is data."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jiter

from douane.call import Headers
from douane.providers.assemble import Assembler, assemble, events_of
from douane.providers.base import Bound, Meter, Position, Unseen
from douane.providers.deltas import COMMON, Deltas
from douane.providers.edit import Path, Place, replace_once, rewrite_bytes
from douane.providers.framing import SSE, Framing
from douane.providers.meters import Answers, FrameMeter, FreeMeter, JsonMeter, StreamMeter
from douane.providers.unseen import unseen
from douane.providers.walk import ANSWER, Grammar, walk

__all__ = ["JsonWire", "read_json"]


def read_json(body: bytes) -> Any:
    """Raises ValueError; a duplicate key is one, for who reads which of the two, nobody knows."""
    return jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")


_NO_BOUND = Bound()


@dataclass(frozen=True, slots=True)
class JsonWire:
    """One operation: a JSON object in, JSON or a stream of JSON out."""

    grammar: Grammar
    answers: Answers | None
    """None: the provider does not bill this operation."""
    answer: Grammar = ANSWER
    assembler: Callable[[], Assembler] | None = None
    """None: the operation has no streams."""
    deltas: Deltas = COMMON
    array: bool = False
    """Every answer is a stream: of events, or of the elements of a JSON array."""
    bound: Bound = _NO_BOUND
    media: tuple[bytes, ...] = (b"application/json",)
    named: str = "model"
    """The member that names the model."""

    def read(self, body: bytes, content_type: bytes) -> Any:
        return read_json(body)

    def rewrite(self, body: bytes, content_type: bytes, document: Any, changes: Mapping[Place, str]) -> tuple[bytes, Any]:
        done = _at_sight(body, document, changes)
        if done is None:
            body = rewrite_bytes(body, changes)
            done = body, read_json(body)
        return done

    def model(self, document: Any) -> str:
        """What the body names, or empty where there is no such string."""
        value = document.get(self.named) if isinstance(document, dict) else None
        return value if isinstance(value, str) else ""

    def stream(self, document: Any) -> bool:
        """Whether a stream was asked for. Anything but false, null or nothing counts as yes."""
        return self.array or (bool(document.get("stream")) if isinstance(document, dict) else False)

    def walk(self, document: Any) -> Iterator[Position]:
        return walk(self.grammar, document)

    def unseen(self, document: Any) -> Iterator[Unseen]:
        return unseen(document)

    def answered(self, document: Any) -> Iterator[Position]:
        return walk(self.answer, document)

    def assembled(self, stream: bytes, framing: Framing = SSE) -> Any | None:
        return None if self.assembler is None else assemble(self.assembler(), events_of(stream, framing))

    def meter(self, framing: Framing | None, headers: Headers = ()) -> Meter:
        """*framing* should be that of the answer (its content type), not what was asked for."""
        if self.answers is None:
            return FreeMeter()
        if framing is None:
            return JsonMeter(self.answers)
        return StreamMeter(self.answers) if framing is SSE else FrameMeter(self.answers, framing)


def _at_sight(body: bytes, document: Any, changes: Mapping[Place, str]) -> tuple[bytes, Any] | None:
    """The new body and its document, where each string that changes is the first one written so after the one before: most
    are written once, and in one way. None where it is not, which shows when as many strings were replaced as were to
    change, and not each of these is the new one."""
    if any(key for _, key in changes):
        return None
    new_body = replace_once(body, [(_at(document, path), new) for (path, _), new in changes.items()])
    if new_body is None:
        return None
    read = read_json(new_body)
    return (new_body, read) if all(_at(read, path) == new for (path, _), new in changes.items()) else None


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document

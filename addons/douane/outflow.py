"""How much a stream has said so far, in tokens, of a call that states no bound.

Law: never less than was said, by the rule of ``ledger/estimate.py``: a text is taken at its bytes until it is worth a closer
look. What a provider bills and does not show (thinking that it keeps to itself) is not seen here either.
"""

from typing import Any

import orjson

from douane.errors import RefusedError
from douane.ledger.estimate import count, family
from douane.providers.deltas import Deltas
from douane.providers.framing import Frame, Framing

__all__ = ["AHEAD", "STEP", "Outflow"]

AHEAD = 768
"""Tokens that are held beyond what was said, at most: what may come in one piece, and what a provider may make before it
learns that nobody listens (``counted.ahead``). A quarter of what is held, where that is less: who assumes little wants a short
answer to pass."""
STEP = 1024
"""Tokens by which a hold grows."""
_FRAME = count(("",))
_CLOSER = 512
"""Bytes that are worth a closer look."""


class Outflow:
    """Feed it the decoded bytes of an answer. *provider* and *model*: whose tokens."""

    __slots__ = ("_counted", "_deltas", "_factor", "_pending", "_pieces", "_splitter", "held")

    def __init__(self, deltas: Deltas, framing: Framing, provider: str, model: str, held: int) -> None:
        self._deltas = deltas
        self._splitter = framing.splitter()
        self._factor = family(provider, model).factor
        self._pieces: list[str] = []
        self._pending = 0
        """Bytes, at most, of what has not been counted."""
        self._counted = 0
        self.held = held
        """Tokens that are held for all of it."""

    def feed(self, chunk: bytes) -> None:
        """Never raises: what cannot be read counts as text."""
        try:
            frames = self._splitter.feed(chunk)
        except RefusedError:  # a frame without end
            self._add(chunk.decode("utf-8", "replace"))
            return
        for frame in frames:
            self._frame(frame)

    @property
    def short(self) -> bool:
        """Whether more must be held before more is said."""
        ahead = min(AHEAD, self.held // 4)
        return self._counted + self._pending + ahead > self.held and self.tokens + ahead > self.held

    @property
    def tokens(self) -> int:
        if self._pending >= _CLOSER or self._counted + self._pending + min(AHEAD, self.held // 4) > self.held:
            self._counted += int((count(("".join(self._pieces),)) - _FRAME) * self._factor)
            self._pieces.clear()
            self._pending = 0
        return self._counted + self._pending

    def _frame(self, frame: Frame) -> None:
        data = frame.data
        if not data:
            return
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._add(data.decode("utf-8", "replace"))
            return
        for delta in self._deltas.pieces(document):
            self._add(delta.text)
        for path in self._deltas.signed(document):
            self._signed(document, path)

    def _signed(self, document: Any, path: tuple[str | int, ...]) -> None:
        for step in path:
            document = document[step]
        for name, value in document.items() if isinstance(document, dict) else ():
            if isinstance(value, str) and name not in ("type", "signature", "data"):
                self._add(value)

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        self._pending += len(text) * 4 if not text.isascii() else len(text)

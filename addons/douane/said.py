"""What was said in a WebSocket session, as far as it must be kept: for the log what came since the last turn, for the
filters of the answers whose words may name a host.

Law: both are bounded, whatever comes. Sound is counted, not kept; what does not fit is counted too.
"""

from collections import deque
from typing import Any

import orjson

__all__ = ["MOST", "Said"]

MOST = 512 * 1024
"""Bytes of frames that one turn keeps for the log, and again of those that the session keeps for its filters. The log holds
half of that."""


class Said:
    """``add`` each frame that went upstream; ``take`` what a turn was asked with."""

    __slots__ = ("_documents", "_dropped", "_frames", "_held", "_size", "_sound")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._sound = 0
        self._documents: deque[tuple[int, Any]] = deque()
        self._held = 0

    def add(self, frame: bytes, document: Any) -> None:
        self.hear(frame)
        self._documents.append((len(frame), document))
        self._held += len(frame)
        while self._held > MOST and len(self._documents) > 1:
            self._held -= self._documents.popleft()[0]

    def hear(self, frame: bytes) -> None:
        """For the log alone: what the provider understood of the sound."""
        if self._size + len(frame) > MOST and self._frames:
            self._dropped += 1
            return
        self._frames.append(frame)
        self._size += len(frame) + 1

    def add_sound(self, size: int) -> None:
        self._sound += size

    def documents(self, *, last: bool) -> Any:
        """Every frame that is kept of the session, or the *last* alone."""
        return self._documents[-1][1] if last and self._documents else [document for _, document in self._documents]

    def take(self) -> bytes:
        """A JSON array of the frames since the last time."""
        rest = {name: count for name, count in (("frames", self._dropped), ("sound_bytes", self._sound)) if count}
        frames = [*self._frames, orjson.dumps({"left_out": rest})] if rest else self._frames
        body = b"[" + b",".join(frames) + b"]"
        self._frames, self._size, self._dropped, self._sound = [], 0, 0, 0
        return body

"""Server-sent events, split as they come: sans-io, and every byte accounted for.

Law 5: however a stream is cut, the same blocks come out, and joined they are the stream. Grammar:
https://html.spec.whatwg.org/multipage/server-sent-events.html. Lines end in LF, CR or CRLF (mixed too), an empty line
ends an event, a BOM may stand at the start, a line that begins with a colon is a comment.
"""

import re
from dataclasses import dataclass

from douane.errors import RefusedError

__all__ = ["EVENT_LIMIT", "Event", "Splitter", "parse"]

EVENT_LIMIT = 8 * 1024 * 1024
"""Bytes of one event. The largest legitimate ones carry a base64 image of some megabytes."""

_BOM = b"\xef\xbb\xbf"
_DATA_FIELD = re.compile("\ufeff?data: ?")
_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""Two line ends in a row. Atomic groups: a CRLF must not be taken for two."""


@dataclass(frozen=True, slots=True)
class Event:
    """*raw* is the event as it came, empty line included; *data* is empty for a comment or a stray empty line."""

    raw: bytes
    name: str
    data: bytes

    def with_data(self, data: bytes) -> bytes:
        """The event's bytes with other data of as many lines; every other byte as it was."""
        lines = iter(data.decode("utf-8", "surrogateescape").split("\n"))
        out = []
        for content, end in _LINE.findall(self.raw.decode("utf-8", "surrogateescape")):
            field = _DATA_FIELD.match(content)
            out.append((field[0] + next(lines) if field else content) + end)
        return "".join(out).encode("utf-8", "surrogateescape")

    again = with_data


def parse(block: bytes) -> Event:
    """The event in one block of :meth:`Splitter.blocks`."""
    if block.startswith(b"data: ") and block.find(b"\n") == len(block) - 2 and b"\r" not in block:
        return Event(block, "", block[6:-2])
    text = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in block else block
    name = b""
    data = []
    for line in text.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(block, name.decode("utf-8", "replace"), b"\n".join(data))


class Splitter:
    """Feed it a stream's bytes, get its events. Raises RefusedError ``too_large`` where one exceeds *limit* bytes."""

    __slots__ = ("_held", "_limit", "_pieces", "_start")

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._held = 0
        self._start = True

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that *chunk* completes."""
        return [self.event(block) for block in self.blocks(chunk)]

    def close(self) -> list[Event]:
        """What is left at the end of the stream, as one event, though a reader of the standard would drop it."""
        rest = b"".join(self._pieces)
        self._pieces, self._held = [], 0
        return [self.event(rest)] if rest else []

    def blocks(self, chunk: bytes) -> list[bytes]:
        """As ``feed``, unparsed: for who looks at few of many events. The first block may begin with a BOM."""
        pieces = self._pieces
        if pieces:
            probe = b"".join(pieces[-3:])[-3:] + chunk
            pieces.append(chunk)
            if b"\n\n" not in probe and (b"\r" not in probe or _END.search(probe) is None):
                return self._hold(len(chunk), [])
            chunk = b"".join(pieces)
            pieces.clear()
            self._held = 0
        elif chunk.find(b"\n\n") == len(chunk) - 2 and b"\r" not in chunk and 2 <= len(chunk) <= self._limit:
            return [chunk]  # most often a chunk is one event
        if b"\r" in chunk:
            blocks, rest = _split_mixed(chunk)
        else:
            blocks = [part + b"\n\n" for part in chunk.split(b"\n\n")]
            rest = blocks.pop()[:-2]
        if rest:
            pieces.append(rest)
        if len(chunk) > self._limit and any(len(block) > self._limit for block in blocks):
            raise self._too_large()
        return self._hold(len(rest), blocks)

    def _hold(self, more: int, blocks: list[bytes]) -> list[bytes]:
        self._held += more
        if self._held > self._limit:
            raise self._too_large()
        return blocks

    def _too_large(self) -> RefusedError:
        return RefusedError("too_large", f"an event of the stream is larger than {self._limit} bytes")

    def event(self, block: bytes) -> Event:
        """What is in one of ``blocks``; they are asked in their order, though not each need be."""
        if self._start:
            self._start = False
            if block.startswith(_BOM):
                event = parse(block[len(_BOM):])
                return Event(block, event.name, event.data)
        return parse(block)


def _split_mixed(data: bytes) -> tuple[list[bytes], bytes]:
    """Blocks and rest where CR occurs. An end in CR at the very end waits: an LF that belongs to it may follow."""
    blocks = []
    start = 0
    for match in _END.finditer(data):
        if match.end() == len(data) and data.endswith(b"\r"):
            break
        blocks.append(data[start:match.end()])
        start = match.end()
    return blocks, data[start:]

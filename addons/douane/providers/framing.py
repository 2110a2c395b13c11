"""How an answer that streams is cut into frames, each with one JSON document: server-sent events, NDJSON, a JSON array in
pieces, the AWS event stream.

Law 5: however a stream is cut, the same frames come out, and joined they are the stream. What a splitter does not
understand it gives as a frame without data, or raises RefusedError; it never drops a byte.
"""

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import orjson

from douane.errors import RefusedError
from douane.providers import sse

__all__ = ["ARRAY", "AWS", "FRAME_LIMIT", "MESSAGES", "MESSAGES_MEDIA", "NDJSON", "SSE", "Frame", "Framing", "Splitter",
           "aws_message", "framing_of"]

FRAME_LIMIT = sse.EVENT_LIMIT
"""Bytes of one frame."""


class Frame(Protocol):
    """One frame. *raw*: as it came; *data*: its JSON, empty where it carries none."""

    @property
    def raw(self) -> bytes: ...
    @property
    def data(self) -> bytes: ...
    def with_data(self, data: bytes) -> bytes:
        """The frame's bytes with other JSON; all else as it came, lengths and checksums recomputed."""
        ...

    def again(self, data: bytes) -> bytes:
        """One more such frame, with other JSON, to follow this one."""
        ...


class Splitter(Protocol):
    """Feed it a stream's bytes, get its frames. Raises RefusedError ``too_large`` for a frame over ``FRAME_LIMIT``."""

    def feed(self, chunk: bytes) -> Sequence[Frame]: ...
    def close(self) -> Sequence[Frame]:
        """What is left at the end of the stream, as one frame."""
        ...


@dataclass(frozen=True, slots=True)
class Framing:
    name: Literal["sse", "ndjson", "array", "aws", "messages"]
    splitter: Callable[[], Splitter]
    whole: Callable[[bytes], int]
    """Of the bytes from where a frame begins: how many of them are whole frames."""
    extendable: bool = True
    """Whether a frame of ours can follow at any time: not in an array, whose end the app waits for."""


def framing_of(content_type: bytes, *, array: bool = False) -> Framing | None:
    """The framing that an answer's Content-Type says; None: it is one document. *array*: JSON comes as a list in pieces."""
    media = content_type.partition(b";")[0].strip().lower()
    known = _BY_MEDIA.get(media)
    if known is None and array and media == b"application/json":
        return ARRAY
    return known


# -- lines and arrays --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A frame that is its JSON between two runs of other bytes."""

    raw: bytes
    start: int
    end: int

    @property
    def data(self) -> bytes:
        return self.raw[self.start:self.end]

    def with_data(self, data: bytes) -> bytes:
        return self.raw[:self.start] + data + self.raw[self.end:]

    def again(self, data: bytes) -> bytes:
        head = self.raw[:self.start]
        return (b",\n" if b"[" in head else head) + data + self.raw[self.end:]


def _part(raw: bytes, start: int = 0) -> Part:
    """The whole of *raw* from *start*, without white space and separators around it."""
    body = raw[start:]
    left = len(body) - len(body.lstrip(b" \t\r\n,["))
    right = len(body.rstrip(b" \t\r\n"))
    return Part(raw, start + min(left, right), start + right)


class LineSplitter:
    """NDJSON: a document a line. Blank lines are frames without data."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        text = self._held + chunk if self._held else chunk
        end = text.rfind(b"\n") + 1
        self._held = _within(text[end:])
        return [_line(line) for line in text[:end].splitlines(keepends=True)] if end else []

    def close(self) -> Sequence[Frame]:
        rest, self._held = self._held, b""
        return [_line(rest)] if rest else []


def _line(raw: bytes) -> Part:
    stripped = raw.strip()
    start = raw.find(stripped) if stripped else 0
    return Part(raw, start, start + len(stripped))


_STRUCTURE = re.compile(rb'[{}\[\]]|"(?:[^"\\]|\\.)*"|"', re.DOTALL)


class ArraySplitter:
    """A JSON array in pieces (Gemini without ``alt=sse``): a frame an element; the brackets and commas go with the element
    that they stand before, the last bracket by itself. What is no array is one frame at the end."""

    __slots__ = ("_at", "_depth", "_held")

    def __init__(self) -> None:
        self._held = b""
        self._at = 0
        """How far ``_held`` has been read."""
        self._depth = 0

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        text = self._held + chunk if self._held else chunk
        found: list[Frame] = []
        start = 0
        at = self._at
        for match in _STRUCTURE.finditer(text, at):
            mark = match[0]
            if mark == b'"':  # a string whose end has not come
                at = match.start()
                break
            at = match.end()
            if mark in (b"{", b"["):
                self._depth += 1
            elif mark in (b"}", b"]"):
                self._depth -= 1
                if self._depth == 1 and mark == b"}":
                    found.append(_part(text[start:at]))
                    start = at
        self._held = _within(text[start:])
        self._at = max(0, at - start)
        return found

    def close(self) -> Sequence[Frame]:
        rest, self._held, self._at = self._held, b"", 0
        if not rest:
            return []
        return [Part(rest, 0, 0) if rest.strip(b" \t\r\n,[]") == b"" else _part(rest)]


def _within(held: bytes) -> bytes:
    if len(held) > FRAME_LIMIT:
        raise RefusedError("too_large", f"a frame of the stream is larger than {FRAME_LIMIT} bytes")
    return held


# -- a WebSocket's messages --------------------------------------------------------------------------------------------

_END = b"\x1e"
"""After each message: no JSON text holds this byte (RFC 7464 §2.2 builds on the same)."""


@dataclass(frozen=True, slots=True)
class Message:
    raw: bytes

    @property
    def data(self) -> bytes:
        return self.raw.removesuffix(_END)

    def with_data(self, data: bytes) -> bytes:
        return data + _END

    again = with_data


class MessageSplitter:
    """What came through a WebSocket, as one stream."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        text = self._held + chunk if self._held else chunk
        *whole, self._held = text.split(_END)
        return [Message(one + _END) for one in whole]

    def close(self) -> Sequence[Frame]:
        rest, self._held = self._held, b""
        return [Message(rest)] if rest else []


def _messages_whole(text: bytes) -> int:
    return text.rfind(_END) + 1


# -- AWS event stream --------------------------------------------------------------------------------------------------

_PRELUDE = struct.Struct("!III")
"""Length of the message, length of its headers, CRC of both: https://smithy.io/2.0/aws/amazon-eventstream.html."""
_CRC = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class AwsFrame:
    """*inner*: the payload is ``{"bytes": BASE64 …}`` round the document (``invoke-with-response-stream``), or round a text
    (agents), which *inner* then has in its place: ``{"bytes": TEXT …}``."""

    raw: bytes
    payload: bytes
    inner: bytes | None
    texts: bool = False

    @property
    def data(self) -> bytes:
        return self.payload if self.inner is None else self.inner

    @property
    def headers(self) -> bytes:
        return self.raw[_PRELUDE.size:len(self.raw) - len(self.payload) - _CRC.size]

    def with_data(self, data: bytes) -> bytes:
        if self.inner is not None:
            held = orjson.loads(data if self.texts else self.payload)
            inside = held["bytes"].encode() if self.texts else data
            data = orjson.dumps({**held, "bytes": base64.b64encode(inside).decode()})
        return aws_message(self.headers, data)

    again = with_data


def aws_message(headers: bytes, payload: bytes) -> bytes:
    """One message; *headers* already encoded."""
    prelude = struct.pack("!II", _PRELUDE.size + len(headers) + len(payload) + _CRC.size, len(headers))
    body = b"%b%b%b%b" % (prelude, _CRC.pack(zlib.crc32(prelude)), headers, payload)
    return body + _CRC.pack(zlib.crc32(body))


class AwsSplitter:
    """Raises RefusedError ``bad_request`` where a length or a checksum is wrong."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> Sequence[Frame]:
        text = self._held + chunk if self._held else chunk
        found: list[Frame] = []
        start = 0
        while (size := _aws_size(text, start)) and len(text) - start >= size:
            found.append(_aws_frame(text[start:start + size]))
            start += size
        self._held = text[start:]
        return found

    def close(self) -> Sequence[Frame]:
        rest, self._held = self._held, b""
        return [Part(rest, 0, 0)] if rest else []


def _aws_size(text: bytes, start: int) -> int:
    """Of the message that begins there; 0 where too little of it has come."""
    if len(text) - start < _PRELUDE.size:
        return 0
    size, headers, crc = _PRELUDE.unpack_from(text, start)
    if zlib.crc32(text[start:start + 8]) != crc or size < headers + _PRELUDE.size + _CRC.size:
        raise RefusedError("bad_request", "the event stream is broken: a prelude's checksum or length is wrong")
    if size > FRAME_LIMIT:
        raise RefusedError("too_large", f"a frame of the stream is larger than {FRAME_LIMIT} bytes")
    return int(size)


def _aws_frame(raw: bytes) -> AwsFrame:
    if zlib.crc32(raw[:-_CRC.size]) != _CRC.unpack_from(raw, len(raw) - _CRC.size)[0]:
        raise RefusedError("bad_request", "the event stream is broken: a message's checksum is wrong")
    headers = int(_PRELUDE.unpack_from(raw)[1])
    payload = raw[_PRELUDE.size + headers:-_CRC.size]
    return AwsFrame(raw, payload, *_inner(payload))


def _inner(payload: bytes) -> tuple[bytes | None, bool]:
    if b'"bytes"' not in payload:
        return None, False
    try:
        document = orjson.loads(payload)
        inside = base64.b64decode(document["bytes"], validate=True)
        if _is_object(inside):
            return inside, False
        return orjson.dumps({**document, "bytes": inside.decode()}), True
    except (orjson.JSONDecodeError, KeyError, TypeError, binascii.Error, ValueError):
        return None, False


def _is_object(data: bytes) -> bool:
    if not data.startswith(b"{"):
        return False
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _aws_whole(text: bytes) -> int:
    at = 0
    while (size := _aws_size(text, at)) and len(text) - at >= size:
        at += size
    return at


_SSE_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")


def _sse_whole(text: bytes) -> int:
    return max((at + len(end) for end in _SSE_ENDS if (at := text.rfind(end)) >= 0), default=0)


def _line_whole(text: bytes) -> int:
    return text.rfind(b"\n") + 1


SSE = Framing("sse", sse.Splitter, _sse_whole)
NDJSON = Framing("ndjson", LineSplitter, _line_whole)
ARRAY = Framing("array", ArraySplitter, len, extendable=False)
AWS = Framing("aws", AwsSplitter, _aws_whole)
MESSAGES = Framing("messages", MessageSplitter, _messages_whole)
"""Text messages, each ended by a byte that JSON cannot hold."""
MESSAGES_MEDIA = b"application/x-douane-messages"
_BY_MEDIA = {b"text/event-stream": SSE, b"application/x-ndjson": NDJSON, b"application/ndjson": NDJSON,
             b"application/jsonl": NDJSON, b"application/x-jsonl": NDJSON,
             b"application/stream+json": NDJSON,
             b"application/vnd.amazon.eventstream": AWS, MESSAGES_MEDIA: MESSAGES}

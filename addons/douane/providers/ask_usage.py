"""``stream_options.include_usage``, asked for where the app did not, and what it brings taken out of the answer again.

Law: the app gets the bytes that it would have got, however the stream is cut. Only what our asking adds is taken out:
``"usage":null`` in the chunks, and the last one, which has a usage and no choices.
"""

import re
from typing import Any

import orjson

from douane.call import Headers
from douane.providers.edit import put
from douane.providers.framing import SSE, framing_of
from douane.providers.sse import Splitter, parse

__all__ = ["UsageFilter", "asking"]

_NULL = re.compile(rb',[ \t]*"usage"[ \t]*:[ \t]*null|"usage"[ \t]*:[ \t]*null[ \t]*,[ \t]*')
"""Inside of a string the quotes would be escaped."""
_COMPACT = b',"usage":null'
"""As most write it."""


def asking(body: bytes, document: Any) -> tuple[bytes, Any] | None:
    """The *body* (JSON in UTF-8, uncompressed) of a call for a stream, and its *document*, with the usage asked for and no
    other byte changed; None where the app asks itself, wants no stream, or says what is no ``stream_options``."""
    if not isinstance(document, dict) or document.get("stream") is not True:
        return None
    options = document.get("stream_options")
    if options is None:
        options = {}
    if not isinstance(options, dict) or options.get("include_usage") not in (None, False):
        return None
    told = {**document, "stream_options": {**options, "include_usage": True}}
    return put(body, ("stream_options", "include_usage"), b"true"), told


class UsageFilter:
    """Takes out of one answer what was asked for on top. Holds one event at most."""

    __slots__ = ("_splitter",)
    rewrites = True

    def __init__(self) -> None:
        self._splitter: Splitter | None = None

    def headers(self, headers: Headers) -> Headers:
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        if framing_of(kind) is SSE:
            self._splitter = Splitter()
        return headers

    def feed(self, chunk: bytes) -> bytes:
        if self._splitter is None:
            return chunk
        blocks = self._splitter.blocks(chunk)
        if b'"usage"' not in chunk and not any(b'"usage"' in block for block in blocks):
            return blocks[0] if len(blocks) == 1 else b"".join(blocks)
        return b"".join(map(_without, blocks))

    def close(self) -> bytes:
        return b"" if self._splitter is None else b"".join(_without(event.raw) for event in self._splitter.close())


def _without(block: bytes) -> bytes:
    if b'"usage"' not in block:
        return block
    at = block.find(_COMPACT)
    if at >= 0:
        return block[:at] + block[at + len(_COMPACT):]
    bare = _NULL.sub(b"", block, count=1)
    return b"" if bare == block and _is_extra(block) else bare


def _is_extra(block: bytes) -> bool:
    if b'"choices"' not in block:
        return False
    try:
        document = orjson.loads(parse(block).data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and document.get("choices") == [] and isinstance(document.get("usage"), dict)

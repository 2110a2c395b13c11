"""The filter that gives an answer its values back: JSON string by string, streams frame by frame.

Laws: every byte that is not of a restored string passes as it came. Law 5: however the answer is cut, the same text comes
out. A piece of text waits only while its end may become a placeholder of this exchange, and leaves before the frame that
ends its block, in a copy of the block's last frame. Signed reasoning stays as it is; so does what is no JSON.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import jiter

from douane.call import Headers
from douane.errors import RefusedError
from douane.providers.deltas import COMMON, Channel, Delta, Deltas
from douane.providers.edit import Path, Place, quoted, rewrite, strings_with, tokens
from douane.providers.framing import FRAME_LIMIT, Frame, Splitter, framing_of
from douane.providers.sse import Splitter as Events
from douane.rehydrate import Piecewise, Restorer

__all__ = ["ANSWER_LIMIT", "RestoreFilter"]

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of a JSON answer, which must be whole before its strings can be told."""
_PASSED = 256 * 1024
"""Bytes of events that are kept unread."""


class RestoreFilter:
    """A BodyFilter. *json_text*: the request asked for JSON as the answer's text, so that values are escaped there too.
    *deltas* and *array*: the wire's. *lines*: the answer is a document a line, whatever its media type says; a line of over
    ``FRAME_LIMIT`` bytes passes unread.

    Raises RefusedError ``too_large``."""

    __slots__ = ("_array", "_channels", "_deltas", "_held", "_json_text", "_last", "_lines", "_parts", "_passed", "_rest",
                 "_restorer", "_size", "_splitter", "_waiting", "_words")

    rewrites = True

    def __init__(self, restorer: Restorer, *, json_text: bool = False, deltas: Deltas = COMMON, array: bool = False,
                 lines: bool = False) -> None:
        self._restorer = restorer
        self._words = tuple(word.encode() for word in restorer.words)
        self._lines = lines
        self._rest = b""
        """Of *lines*: one that has begun."""
        self._deltas = deltas
        self._array = array
        self._json_text = json_text or lines
        self._splitter: Splitter | None = None
        self._parts: list[bytes] | None = None
        """Of a JSON answer; None for a stream and for what is neither."""
        self._held = 0
        self._channels: dict[Channel, Piecewise] = {}
        self._last: dict[Channel, tuple[Frame, list[Delta]]] = {}
        self._waiting = False
        """Whether a text waits for its next piece."""
        self._passed: list[bytes] = []
        """Events that left unread. They are read before the first that may hold something: what a placeholder stands in is
        the text that they began."""
        self._size = 0

    def headers(self, headers: Headers) -> Headers:
        kind = next((value.lower() for name, value in headers if name == b"content-type"), b"")
        framing = framing_of(kind, array=self._array)
        if self._lines:
            return headers
        if framing is not None:
            self._splitter = framing.splitter()
        elif b"json" in kind.partition(b";")[0]:
            self._parts = []
        return headers

    def feed(self, chunk: bytes) -> bytes:
        if self._lines:
            return self._of_lines(chunk)
        if isinstance(self._splitter, Events):
            return b"".join([self._block(block, self._splitter) for block in self._splitter.blocks(chunk)])
        if self._splitter is not None:
            return b"".join([self._frame(frame) for frame in self._splitter.feed(chunk)])
        if self._parts is None:
            return chunk
        self._held += len(chunk)
        if self._held > ANSWER_LIMIT:
            raise RefusedError("too_large", f"the answer is larger than {ANSWER_LIMIT} bytes")
        self._parts.append(chunk)
        return b""

    def close(self) -> bytes:
        if self._lines:
            rest, self._rest = self._rest, b""
            return self._whole(rest)
        if self._splitter is not None:
            if isinstance(self._splitter, Events):
                self._catch_up(self._splitter)
            left = self._splitter.close()
            return self._flush([()]) + b"".join([self._frame(frame) for frame in left])
        if self._parts is None:
            return b""
        body, self._parts = b"".join(self._parts), []
        return self._whole(body)

    def _of_lines(self, chunk: bytes) -> bytes:
        text = self._rest + chunk
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        lines = text[:end].splitlines(keepends=True)
        out = b"".join([line if len(line) > FRAME_LIMIT else self._whole(line) for line in lines])
        if len(self._rest) > FRAME_LIMIT:
            out, self._rest = out + self._rest, b""
        return out

    # -- streams ---------------------------------------------------------------------------------------------------

    def _block(self, block: bytes, splitter: Events) -> bytes:
        """An event. One in which nothing is a placeholder's, nor may become one, leaves unread."""
        if not self._waiting and len(block) < _PASSED - self._size and not self._restorer.may_concern(block):
            self._passed.append(block)
            self._size += len(block)
            return block
        self._catch_up(splitter)
        out = self._frame(splitter.event(block))
        self._waiting = any(channel.held for channel in self._channels.values())
        return out

    def _catch_up(self, splitter: Events) -> None:
        passed, self._passed, self._size = self._passed, [], 0
        for one in passed:
            self._frame(splitter.event(one))

    def _frame(self, frame: Frame) -> bytes:
        data = frame.data
        if not data:
            return frame.raw
        document = _parsed(data)
        deltas = self._deltas.pieces(document)
        over = self._deltas.ends(document)
        before = self._flush(over, besides={delta.channel for delta in deltas}) if over else b""
        if not deltas:
            new = self._whole(data)
            return before + (frame.raw if new is data else frame.with_data(new))
        changes = self._besides(data, document, deltas)
        last = {delta.channel: delta for delta in deltas}
        for delta in deltas:
            is_last = last[delta.channel] is delta and _begins(delta.channel, over)
            text = self._channel(delta).feed(delta.text, last=is_last)
            if text != delta.text:
                changes[delta.path, False] = text
            self._last[delta.channel] = (frame, deltas)
        return before + (frame.with_data(rewrite(data.decode(), changes).encode()) if changes else frame.raw)

    def _besides(self, data: bytes, document: Any, deltas: Sequence[Delta]) -> dict[Place, str]:
        """What changes in the texts that stand whole beside the pieces of a frame."""
        folded = data.lower().decode()
        words = self._restorer.words
        marked = sum(1 for _ in strings_with(folded, words)) if any(word in folded for word in words) else 0
        if marked <= sum(any(word in delta.text.lower() for word in words) for delta in deltas):
            return {}
        return self._strings(data.decode(), [*self._deltas.signed(document), *(delta.path for delta in deltas)])

    def _channel(self, delta: Delta) -> Piecewise:
        channel = self._channels.get(delta.channel)
        if channel is None:
            json = delta.arguments or (self._json_text and _is_json(delta.text))
            channel = self._channels[delta.channel] = Piecewise(self._restorer, json=json)
        return channel

    def _flush(self, over: list[Channel], besides: AbstractSet[Channel] = frozenset()) -> bytes:
        """Events with what waits in the texts that end."""
        out = []
        for name, channel in self._channels.items():
            if channel.held and name not in besides and _begins(name, over):
                frame, deltas = self._last[name]
                rest = channel.feed("", last=True)
                changes = {(delta.path, False): "" for delta in deltas}
                changes[next(delta.path for delta in reversed(deltas) if delta.channel == name), False] = rest
                out.append(frame.again(rewrite(frame.data.decode(), changes).encode()))
        return b"".join(out)

    # -- whole documents -------------------------------------------------------------------------------------------

    def _whole(self, body: bytes) -> bytes:
        """*body* with every string restored; the same object where nothing is or where it is no JSON."""
        folded = body.lower()  # ASCII letters only: what stands in it stands where it stood
        if not any(word in folded for word in self._words):
            return body
        document = _parsed(body)
        if document is None:
            return body
        text, signed = body.decode(), self._deltas.signed(document)
        if not signed and (new := self._at_sight(text, folded.decode())) is not None:
            return body if new is text else new.encode("utf-8")
        changes = self._strings(text, signed)
        return rewrite(text, changes).encode("utf-8") if changes else body

    def _strings(self, text: str, besides: Collection[Path]) -> dict[Place, str]:
        """What changes in the JSON *text*, but at and below the paths *besides*."""
        changes: dict[Place, str] = {}
        for token in tokens(text):
            if not token.string or any(token.path[:len(path)] == path for path in besides):
                continue
            old = str(jiter.from_json(text[token.start:token.end].encode()))
            json = not token.key and self._holds_json(token.path, old)
            new = self._restorer.restore(old, json=json)
            if new != old:
                changes[token.path, token.key] = new
        return changes

    def _at_sight(self, text: str, folded: str) -> str | None:
        """*text* with every string restored, without a look at where each stands; None where that must be known."""
        out, at = [], 0
        for start, end in strings_with(folded, self._restorer.words):
            written = text[start:end]
            old = str(jiter.from_json(written.encode())) if "\\" in written else written[1:-1]
            if _is_json(old):
                return None
            new = self._restorer.restore(old)
            if new != old:
                out += [text[at:start], quoted(new)]
                at = end
        return "".join([*out, text[at:]]) if out else text

    def _holds_json(self, path: Path, text: str) -> bool:
        return (self._json_text or path[-1:] == ("arguments",)) and _is_json(text)


def _parsed(data: bytes) -> Any:
    """The JSON value, or None."""
    try:
        return jiter.from_json(data, cache_mode="keys")
    except ValueError:
        return None


def _is_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[", '"')


def _begins(channel: Channel, over: list[Channel]) -> bool:
    return any(channel[:len(one)] == one for one in over)

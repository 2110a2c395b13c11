"""The way of an answer's bytes: decoded for the meter and the filters, passed on as they came where nothing changed.

Law: what no filter changed leaves with the very bytes that came, compressed or not. A filter that means to rewrite
(``rewrites``) had the answer asked for uncompressed; one that comes compressed all the same leaves uncompressed. Where a
filter that does not mean to changes a compressed answer, that is refused or cut: bytes that have left cannot be taken back.
"""

from collections.abc import Sequence

from douane.call import Headers
from douane.coding import Decoder
from douane.errors import RefusedError, UpstreamError
from douane.policy import BodyFilter
from douane.providers.base import Meter

__all__ = ["AnswerPipe"]

_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
"""An empty line, whichever way its line breaks are written."""
LONGEST_EVENT = 1 << 20
"""Bytes; of a longer event the pieces leave as they come."""


class AnswerPipe:
    """One answer. ``start`` once, ``feed`` for each piece, ``close`` once; each returns what may leave now.

    *limit*: bytes that a compressed answer may decode to. Beyond it the meter stops reading; where a filter must see
    the text, the answer is refused. Raises UpstreamError where the answer cannot be read."""

    __slots__ = ("_decoder", "_events", "_filters", "_held", "_limit", "_meter", "_opened", "_pending",
                 "_unfinished")

    def __init__(self, meter: Meter | None, filters: Sequence[BodyFilter], limit: int) -> None:
        self._meter = meter
        self._filters = filters
        self._limit = limit
        self._decoder: Decoder | None = None
        self._events = False
        self._opened = False
        """The answer came compressed and leaves uncompressed."""
        self._unfinished = b""
        """The beginning of an event whose end has not come."""
        self._held = b""
        """Raw bytes that came and have not left."""
        self._pending = b""
        """Decoded bytes that went into the filters and have not come out."""

    def start(self, headers: Headers, coding: bytes, *, events: bool) -> Headers:
        """*coding*: every Content-Encoding of *headers*, joined by commas. *events*: the body is a stream of uncompressed
        server-sent events, of which only whole ones leave: where the stream breaks off, one of ours can follow."""
        self._events = events
        if coding == b"identity":
            coding = b""
        if coding and (self._filters or self._meter is not None):
            try:
                self._decoder = Decoder(coding.decode("latin-1"), self._limit)
            except RefusedError as error:
                raise UpstreamError("upstream_error",
                                    f"the provider answered in a coding that we do not read: {error.reason}") from None
        for one in self._filters:
            headers = one.headers(headers)
        if any(one.rewrites for one in self._filters):
            self._opened = self._decoder is not None
            headers = tuple(h for h in headers if h[0] != b"content-length"
                            and not (self._opened and h[0] == b"content-encoding"))
        return headers

    def feed(self, raw: bytes) -> bytes:
        text = raw if self._decoder is None else self._decoded(raw)
        if self._meter is not None and text:
            self._meter.feed(text)
        out = text
        for one in self._filters:
            out = one.feed(out)
        if self._events:
            return self._whole_events(out)
        if not self._filters:
            return raw
        return out if self._decoder is None or self._opened else self._release(raw, text, out)

    def close(self) -> bytes:
        """The rest. Raises UpstreamError where a filter did not see a compressed answer whole."""
        if self._decoder is not None:
            try:
                self._decoder.close()
            except RefusedError as error:
                self._unreadable(error)
        out = b""
        for index, one in enumerate(self._filters):
            tail = one.close()
            for later in self._filters[index + 1 :]:
                tail = later.feed(tail)
            out += tail
        if self._decoder is None or self._opened:
            return self._unfinished + out
        return self._release(b"", b"", out)

    def _whole_events(self, out: bytes) -> bytes:
        if self._unfinished:
            out = self._unfinished + out
        whole = max((at + len(end) for end in _EVENT_ENDS if (at := out.rfind(end)) >= 0), default=0)
        if not whole and len(out) >= LONGEST_EVENT:
            whole = len(out)
        self._unfinished = out[whole:]
        return out[:whole] if self._unfinished else out

    def _decoded(self, raw: bytes) -> bytes:
        if self._decoder is None:
            return raw
        try:
            return self._decoder.feed(raw)
        except RefusedError as error:
            self._unreadable(error)
            return b""

    def _unreadable(self, error: RefusedError) -> None:
        """What only the meter would have read passes all the same, and its usage stays unknown."""
        if self._filters:
            raise UpstreamError("upstream_error", f"the provider's answer cannot be read: {error.reason}") from None
        self._meter = self._decoder = None

    def _release(self, raw: bytes, text: bytes, out: bytes) -> bytes:
        """Compressed pieces leave whole, once every decoded byte in them came out of the filters unchanged."""
        self._held += raw
        if len(self._held) > self._limit:
            raise UpstreamError("upstream_error", "the provider's compressed answer is too large to be inspected")
        self._pending += text
        if not self._pending.startswith(out):
            raise UpstreamError("upstream_error", "the provider's compressed answer held something that must not pass")
        self._pending = self._pending[len(out) :]
        if self._pending:
            return b""
        held, self._held = self._held, b""
        return held

"""The way of an answer's bytes: decoded for the meter and the filters, passed on as they came where nothing changed.

Law: what no filter changed leaves with the very bytes that came, compressed or not. A filter that means to rewrite
(``rewrites``) had the answer asked for uncompressed; one that comes compressed all the same leaves uncompressed. Where a
filter that does not mean to changes a compressed answer, that is refused or cut: bytes that have left cannot be taken back.
"""

from collections.abc import Sequence

from douane.call import Headers
from douane.coding import Decoder
from douane.echo import EchoMask
from douane.errors import RefusedError, UpstreamError
from douane.outflow import Outflow
from douane.policy import BodyFilter
from douane.providers.base import Meter
from douane.providers.framing import Framing

__all__ = ["CAPTURED", "AnswerPipe", "Capture"]

LONGEST_EVENT = 1 << 20
"""Bytes; of a longer event the pieces leave as they come."""
CAPTURED = 8 * 1024 * 1024
"""Decoded bytes of an answer that are held for the log; a longer one is left out of it."""


class Capture:
    """An answer's decoded bytes as they came, before any filter, for the log."""

    __slots__ = ("_chunks", "_mask", "framing", "lost", "size")

    def __init__(self, mask: EchoMask | None = None) -> None:
        self._chunks: list[bytes] = []
        self._mask = mask
        """What hides the key that the call was sent with, should the provider echo it."""
        self.framing: Framing | None = None
        """Of a stream; None: one document."""
        self.size = 0
        self.lost = ""
        """Why they are not all here; empty where they are."""

    def feed(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > CAPTURED:
            self.lose(f"longer than {CAPTURED} bytes")
        elif not self.lost:
            self._chunks.append(chunk)

    def lose(self, why: str) -> None:
        self._chunks.clear()
        self.lost = self.lost or why

    def raw(self) -> bytes:
        """What was fed, the key in it: for counting, not for keeping."""
        return b"".join(self._chunks)

    def text(self) -> bytes:
        """What was fed, the key hidden."""
        raw = b"".join(self._chunks)
        return raw if self._mask is None else self._mask.whole(raw)


class AnswerPipe:
    """One answer. ``start`` once, ``feed`` for each piece, ``close`` once; each returns what may leave now.

    *limit*: bytes that a compressed answer may decode to. Beyond it the meter stops reading; where a filter must see
    the text, the answer is refused. Raises UpstreamError where the answer cannot be read."""

    __slots__ = (
        "_capture",
        "_decoder",
        "_filters",
        "_framing",
        "_held",
        "_limit",
        "_meter",
        "_opened",
        "_pending",
        "_unfinished",
        "outflow",
    )

    def __init__(self, meter: Meter | None, filters: Sequence[BodyFilter], limit: int, capture: Capture | None = None) -> None:
        self._meter = meter
        self._capture = capture
        self.outflow: Outflow | None = None
        """Counts what a stream says, where that must be known as it is said."""
        self._filters = filters
        self._limit = limit
        self._decoder: Decoder | None = None
        self._framing: Framing | None = None
        self._opened = False
        """The answer came compressed and leaves uncompressed."""
        self._unfinished = b""
        """The beginning of an event whose end has not come."""
        self._held = b""
        """Raw bytes that came and have not left."""
        self._pending = b""
        """Decoded bytes that went into the filters and have not come out."""

    def start(self, headers: Headers, coding: bytes, *, framing: Framing | None) -> Headers:
        """*coding*: every Content-Encoding of *headers*, joined by commas. *framing*: of an uncompressed stream, of which only
        whole frames leave: where the stream breaks off, one of ours can follow."""
        self._framing = framing
        if coding == b"identity":
            coding = b""
        if coding and (self._filters or self._meter is not None or self._capture is not None):
            try:
                self._decoder = Decoder(coding.decode("latin-1"), self._limit)
            except RefusedError as error:
                if self._filters or self._meter is not None:
                    raise UpstreamError("upstream_error", "the provider answered in a coding that we do not read: "
                                                          f"{error.reason}") from None
                self._unreadable(error)
        for one in self._filters:
            headers = one.headers(headers)
        if any(one.rewrites for one in self._filters):
            self._opened = self._decoder is not None
            headers = tuple(h for h in headers if h[0] != b"content-length"
                            and not (self._opened and h[0] == b"content-encoding"))
        return headers

    @property
    def compressed(self) -> bool:
        """Whether what leaves is compressed: more of its coding may follow what was the answer's last word."""
        return self._decoder is not None and not self._opened

    def feed(self, raw: bytes) -> bytes:
        text = raw if self._decoder is None else self._decoded(raw)
        if text:
            if self._meter is not None:
                self._meter.feed(text)
            if self._capture is not None:
                self._capture.feed(text)
            if self.outflow is not None:
                self.outflow.feed(text)
        out = text
        for one in self._filters:
            out = one.feed(out)
        if self._framing is not None:
            return self._whole_frames(out, self._framing)
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

    def _whole_frames(self, out: bytes, framing: Framing) -> bytes:
        if self._unfinished:
            out = self._unfinished + out
        whole = framing.whole(out)
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
        if self._capture is not None:
            self._capture.lose("its coding cannot be read")
        self._meter = self._capture = self._decoder = None

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

"""Content codings, decoded within bounds.

Law: a coding that is not on the list is refused, never passed, and so are stacked ones; no body makes us hold more than
its limit and one block (2 MB at most), whatever it promises. Codings: RFC 9110 §8.4.1, RFC 7932 (br), RFC 9659 (zstd).
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import brotli  # type: ignore[import-untyped]
import zstandard

from douane.call import Headers
from douane.errors import RefusedError

__all__ = ["CODINGS", "Decoder", "coding_of", "decode"]

CODINGS = ("gzip", "br", "zstd", "deflate")
"""What we decode. ``x-gzip`` is gzip (RFC 9110 §8.4.1.3)."""

_ZSTD_WINDOW = 8 * 1024 * 1024
"""Bytes: what a zstd sender on HTTP may ask of a reader (RFC 9659)."""
_ZSTD_SLICE = 64
"""Input bytes at a time: at most 16 blocks of 128 KB each come of them."""


class _Work(Protocol):
    def feed(self, chunk: bytes) -> bytes: ...
    def close(self) -> None: ...


class Decoder:
    """One body's decoder. *coding* is the value of its Content-Encoding, *limit* counts decoded bytes.

    Raises RefusedError: ``unsupported_coding`` at once, ``too_large`` beyond the limit, ``bad_request`` for bytes that
    are no such coding."""

    __slots__ = ("close", "feed")

    feed: Callable[[bytes], bytes]
    """What a piece of the body decodes to."""
    close: Callable[[], None]
    """The body has ended; refused where it stops half-way. A body without a single byte is whole."""

    def __init__(self, coding: str, limit: int) -> None:
        work = _WORKS[_named(coding)](limit)
        self.feed, self.close = work.feed, work.close


def coding_of(headers: Headers) -> str:
    """The coding of a body, from *every* Content-Encoding field: ``identity`` or one of :data:`CODINGS`.

    Raises RefusedError ``unsupported_coding``, also for several."""
    fields = [value for name, value in headers if name == b"content-encoding"]
    return _named(b",".join(fields).decode("latin-1")) if fields else "identity"


def decode(body: bytes, coding: str, limit: int) -> bytes:
    """A whole body, decoded; *body* itself for ``identity``. Raises as :class:`Decoder` does."""
    if _named(coding) == "identity":
        if len(body) > limit:
            raise _too_large(limit)
        return body
    work = Decoder(coding, limit)
    decoded = work.feed(body)
    work.close()
    return decoded


def _named(value: str) -> str:
    name = value.strip(" \t").lower()
    name = {"x-gzip": "gzip", "": "identity"}.get(name, name)
    if name not in _WORKS:
        raise RefusedError("unsupported_coding", f"content-encoding must be one of identity, {', '.join(CODINGS)}")
    return name


def _too_large(limit: int) -> RefusedError:
    return RefusedError("too_large", f"the body decodes to more than {limit} bytes")


def _garbage(coding: str) -> RefusedError:
    return RefusedError("bad_request", f"the body is not {coding}, though its content-encoding says so")


def _truncated(coding: str) -> RefusedError:
    return RefusedError("bad_request", f"the {coding} body stops before its end")


class _Identity:
    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def feed(self, chunk: bytes) -> bytes:
        self._left -= len(chunk)
        if self._left < 0:
            raise _too_large(self._limit)
        return chunk

    def close(self) -> None:
        pass


class _Zlib:
    """gzip, of one member or several, and deflate, in zlib's wrapping or (as some senders have it) raw."""

    __slots__ = ("_begun", "_gzip", "_head", "_left", "_limit", "_work")

    def __init__(self, limit: int, *, gzip: bool) -> None:
        self._limit = self._left = limit
        self._gzip = gzip
        self._head = b""
        self._begun = False
        self._work = zlib.decompressobj(31) if gzip else None

    @property
    def _name(self) -> str:
        return "gzip" if self._gzip else "deflate"

    def feed(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        self._begun = True
        if self._work is None:
            self._head += chunk
            if len(self._head) < 2:
                return b""
            wrapped = self._head[0] & 15 == 8 and int.from_bytes(self._head[:2], "big") % 31 == 0
            self._work = zlib.decompressobj(15 if wrapped else -15)
            chunk, self._head = self._head, b""
        out = []
        work = self._work
        while chunk:
            if work.eof:
                if not self._gzip:
                    raise _garbage(self._name)  # bytes after the end
                work = self._work = zlib.decompressobj(31)
            out.append(self._step(work, chunk))
            chunk = work.unused_data
        return b"".join(out)

    def _step(self, work: "zlib._Decompress", chunk: bytes) -> bytes:
        try:
            piece = work.decompress(chunk, self._left + 1)
        except zlib.error as error:
            raise _garbage(self._name) from error
        self._left -= len(piece)
        if self._left < 0:
            raise _too_large(self._limit)
        return piece

    def close(self) -> None:
        if self._begun and (self._work is None or not self._work.eof):
            raise _truncated(self._name)


class _Brotli:
    __slots__ = ("_begun", "_left", "_limit", "_work")

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._begun = False
        self._work = brotli.Decompressor()

    def feed(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        self._begun = True
        if self._work.is_finished():
            raise _garbage("br")  # bytes after the end
        out = []
        while True:
            try:
                piece = self._work.process(chunk, output_buffer_limit=self._left + 1)
            except brotli.error as error:
                raise _garbage("br") from error
            self._left -= len(piece)
            if self._left < 0:
                raise _too_large(self._limit)
            out.append(piece)
            chunk = b""
            if self._work.can_accept_more_data() or self._work.is_finished():
                return b"".join(out)

    def close(self) -> None:
        if self._begun and not self._work.is_finished():
            raise _truncated("br")


class _Zstd:
    """One frame or several. Fed in small slices, since the library has no limit on what one call gives."""

    __slots__ = ("_begun", "_left", "_limit", "_work")

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._begun = False
        self._work = _zstd()

    def feed(self, chunk: bytes) -> bytes:
        out = []
        rest = memoryview(chunk)
        while rest:
            self._begun = True
            if self._work.eof:
                self._work = _zstd()
            piece = rest[:_ZSTD_SLICE]
            out.append(self._step(piece))
            rest = rest[len(piece) - len(self._work.unused_data) if self._work.eof else len(piece):]
        return b"".join(out)

    def _step(self, piece: memoryview) -> bytes:
        try:
            decoded = self._work.decompress(piece)
        except zstandard.ZstdError as error:
            raise _garbage("zstd") from error
        self._left -= len(decoded)
        if self._left < 0:
            raise _too_large(self._limit)
        return decoded

    def close(self) -> None:
        if self._begun and not self._work.eof:
            raise _truncated("zstd")


def _zstd() -> "zstandard.ZstdDecompressionObj":
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()


_WORKS: Mapping[str, Callable[[int], _Work]] = {
    "identity": _Identity, "br": _Brotli, "zstd": _Zstd,
    "gzip": lambda limit: _Zlib(limit, gzip=True), "deflate": lambda limit: _Zlib(limit, gzip=False),
}

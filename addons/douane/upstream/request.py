"""A request's head, and the refusal of anything that would not stay one head.

Law: **what goes out is exactly one request.** Framing and hop-by-hop fields are written here and nowhere else;
whatever the caller gives for them is dropped, and a byte that could end a line early is an error, never escaped or
removed.
"""

import re
from collections.abc import AsyncIterable, Iterable
from functools import lru_cache

from douane.call import Target

__all__ = ["encode", "is_hop_by_hop", "repeatable"]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 §5.6.2: a method, a field name."""
_PATH = re.compile(rb"/[^\x00-\x20\x7f]*")
"""Raw path and query: no space (an HTTP/2 ``:path`` with one would become a second request line) and no controls."""

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
"""RFC 9110 §7.6.1; with every ``proxy-…`` field."""
_OURS = frozenset({b"host", b"content-length", b"expect"})
"""Fields of the connection we make: ``expect`` has been answered by whoever took the request in."""
_BODYLESS = frozenset({b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE"})
"""Methods for which an empty body needs no ``content-length: 0`` (RFC 9110 §8.6)."""
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


def is_hop_by_hop(name: bytes) -> bool:
    """Whether a field (*name* in lower case) ends at this connection."""
    return name in _HOP_BY_HOP or name.startswith(b"proxy-")


def encode(target: Target, method: bytes, path: bytes, headers: Iterable[tuple[bytes, bytes]],
           body: bytes | AsyncIterable[bytes]) -> bytes:
    """The request line and fields, up to and including the empty line.

    Writes ``host`` from *target*, ``content-length`` for bytes and ``transfer-encoding: chunked`` for an iterable.
    Drops what *headers* say of these, every hop-by-hop field, those that a given ``connection`` names, and
    ``expect``. All else goes out as given and in order. Raises ValueError, without the value, for a byte that
    HTTP/1.1 has no room for.
    """
    if not _TOKEN.fullmatch(method):
        raise ValueError("the request's method is not an HTTP token")
    if not _PATH.fullmatch(path):
        raise ValueError("the request's path does not begin with / or holds a space or control character")
    lines = [b"%b %b HTTP/1.1" % (method, path), b"host: " + target.authority.encode("ascii")]
    named: set[bytes] = set()
    for name, value in headers:
        if _kept(name):
            lines.append(name + b": " + value)
        elif name.lower() == b"connection":
            named |= _tokens(value)
    if named:
        lines[2:] = [line for line in lines[2:] if line.partition(b":")[0].lower() not in named]
    if not isinstance(body, bytes):
        lines.append(b"transfer-encoding: chunked")
    elif body or method not in _BODYLESS:
        lines.append(b"content-length: %d" % len(body))
    head = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise ValueError(f"{_culprit(lines)} holds a line break or NUL")
    return head + b"\r\n\r\n"


def repeatable(method: bytes, head: bytes) -> bool:
    """Whether a request may be sent again without knowing what became of the first (RFC 9110 §9.2.2, and the caller's
    own word: an ``idempotency-key``)."""
    lowered = head.lower()
    return method in _IDEMPOTENT or b"\r\nidempotency-key:" in lowered or b"\r\nx-idempotency-key:" in lowered


@lru_cache(256)
def _kept(name: bytes) -> bool:
    if not _TOKEN.fullmatch(name):
        raise ValueError("a header's name is not an HTTP token")
    lowered = name.lower()
    return lowered not in _OURS and not is_hop_by_hop(lowered)


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip().lower() for token in value.split(b",")} - {b""}


def _culprit(lines: list[bytes]) -> str:
    """Which line is broken: a field's name has been checked, its value is not repeated."""
    for line in lines:
        if b"\n" in line or b"\r" in line or b"\0" in line:
            return f"the header {line.partition(b':')[0].decode('ascii')}"
    return "a header"

"""``multipart/form-data`` (RFC 7578, RFC 2046 §5.1): its bytes as parts, and where each stands.

Law: what two parsers could read in two ways is refused (ValueError): a boundary inside a part, line ends other than CRLF, a
preamble, a field given twice, a parameter given twice or in another encoding, parts within parts. So every byte belongs to
one part, and what is put in the place of a text leaves all others as they are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Part", "parts", "replaced"]

_MOST = 1000
"""Parts."""
_BOUNDARY = re.compile(rb"[A-Za-z0-9'()+_,./:=?-]{1,70}")
_PARAMETER = re.compile(rb';[ \t]*([A-Za-z0-9*_-]+)=(?:"([^"\\\r\n\x00]*)"|([^\s;"\\\x00]+))[ \t]*')
_HEADER = re.compile(rb"([A-Za-z-]+):[ \t]*([^\r\n\x00]*)")
_READ = frozenset({b"content-disposition", b"content-type", b"content-length", b"content-transfer-encoding"})
_PLAIN = frozenset({b"", b"7bit", b"8bit", b"binary"})


@dataclass(frozen=True, slots=True)
class Part:
    """One part; *start* to *end* is its content in the body, *named* where its file name stands, within its quotes."""

    name: str
    filename: str | None
    content_type: str
    start: int
    end: int
    named: tuple[int, int] | None


def parts(body: bytes, content_type: bytes) -> tuple[Part, ...]:
    """Raises ValueError."""
    mark = b"--" + _boundary(content_type)
    if not body.startswith(mark):
        raise ValueError("the form does not begin with its boundary")
    found: list[Part] = []
    at, marks = len(mark), 1
    while not body.startswith(b"--", at):
        if not body.startswith(b"\r\n", at) or len(found) >= _MOST:
            raise ValueError("a boundary of the form has no line end, or there are too many parts")
        end = body.find(b"\r\n" + mark, at)
        blank = body.find(b"\r\n\r\n", at, end + 2 if end >= 0 else None)
        if end < 0 or blank < 0:
            raise ValueError("the form has no last boundary, or a part of it no content")
        found.append(_part(body, at + 2, blank, end))
        at, marks = end + 2 + len(mark), marks + 1
    if body[at + 2:] not in (b"", b"\r\n") or body.count(mark) != marks:
        raise ValueError("the form goes on after its end, or holds its boundary within a part")
    names = [part.name for part in found]
    if any(names.count(name) > 1 for name in set(names) if not name.endswith("[]")):
        raise ValueError("a field of the form is given twice")
    return tuple(found)


def replaced(body: bytes, pieces: Mapping[tuple[int, int], bytes]) -> bytes:
    """*body* with other bytes at these spans, which do not overlap."""
    out, at = [], 0
    for (start, end), new in sorted(pieces.items()):
        out += [body[at:start], new]
        at = end
    return b"".join([*out, body[at:]])


def _boundary(content_type: bytes) -> bytes:
    media, _, _ = content_type.partition(b";")
    if media.strip().lower() != b"multipart/form-data":
        raise ValueError("the body is no multipart/form-data")
    given = _parameters(content_type, len(media))
    boundary, _ = given.pop("boundary", (b"", 0))
    if given or not _BOUNDARY.fullmatch(boundary):
        raise ValueError("the Content-Type of the form names no boundary, or more than that")
    return boundary


def _parameters(value: bytes, at: int) -> dict[str, tuple[bytes, int]]:
    """Name → value, and where it begins."""
    found: dict[str, tuple[bytes, int]] = {}
    while at < len(value):
        match = _PARAMETER.match(value, at)
        name = match[1].decode().lower() if match else ""
        if match is None or name in found or "*" in name:
            raise ValueError("a parameter in the form's headers is given twice, or written in a way that is not read")
        group = 2 if match[2] is not None else 3
        found[name] = match[group], match.start(group)
        at = match.end()
    return found


def _part(body: bytes, start: int, blank: int, end: int) -> Part:
    """*start*: where its headers begin; *blank*: where the empty line after them does; *end*: of its content."""
    headers: dict[bytes, tuple[bytes, int]] = {}
    at = start
    for line in body[start:blank].split(b"\r\n"):
        match = _HEADER.fullmatch(line)
        name = match[1].lower() if match else b""
        if match is None or name in headers or name not in _READ:
            raise ValueError("a part of the form has a header that is not read, or has one twice")
        headers[name] = match[2], at + match.start(2)
        at += len(line) + 2
    value, begins = _given(headers, b"content-disposition")
    media = value.partition(b";")[0]
    given = _parameters(value, len(media))
    called = given.pop("name", None)
    filename = given.pop("filename", None)
    if media.strip().lower() != b"form-data" or called is None or given:
        raise ValueError("a part of the form is no form-data with a name")
    _check(headers)
    kind = _given(headers, b"content-type")[0]
    if filename is None:
        return Part(called[0].decode(), None, kind.decode(), blank + 4, end, None)
    told, offset = filename
    named = begins + offset, begins + offset + len(told)
    return Part(called[0].decode(), told.decode(), kind.decode(), blank + 4, end, named)


def _given(headers: Mapping[bytes, tuple[bytes, int]], name: bytes) -> tuple[bytes, int]:
    return headers.get(name, (b"", 0))


def _check(headers: Mapping[bytes, tuple[bytes, int]]) -> None:
    kind = _given(headers, b"content-type")[0]
    media = kind.partition(b";")[0].strip().lower()
    charset = _parameters(kind, len(kind.partition(b";")[0])).get("charset", (b"utf-8", 0))[0].lower()
    if media.startswith((b"multipart/", b"message/")) or charset not in (b"utf-8", b"us-ascii"):
        raise ValueError("a part of the form is itself made of parts, or of another charset than UTF-8")
    if _given(headers, b"content-transfer-encoding")[0].strip().lower() not in _PLAIN:
        raise ValueError("a part of the form has a transfer encoding that is not read")

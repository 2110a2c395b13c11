"""Which stored objects a request's body names, whether or not its operation is one that is read otherwise.

Law: a body that a provider could read and we cannot is refused (ValueError). The lines of a file count too: a batch is made
of requests.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from douane.call import Call
from douane.coding import coding_of, decode
from douane.errors import RefusedError
from douane.providers.multipart import parts
from douane.providers.objects import Spot, named
from douane.providers.wires import read_json

__all__ = ["names_in"]

_NO_LIMIT = 1 << 40
"""Bytes; the body was read within ``edge.max_body`` before."""
_MARKS = (b"_id", b'"conversation"', b'"container"', b'"audio"', b'"video"', b'Content"', b'_content"', b'Uri"', b'uri"',
          b'"file', b'_file"', b"_files", b'"id"', b"ame", b"\\u")
"""One of these is in any line of a file that names an object."""


def names_in(call: Call, place: Spot | None, *, google: bool) -> tuple[set[str], Any]:
    """``collection/id`` of each, and the body's JSON: None where it is none. Raises ValueError."""
    if not call.body:
        return set(), None
    kind = (call.header(b"content-type") or b"").strip().lower()
    if kind.startswith(b"multipart/form-data"):
        document: Any = _form(_plain(call), call.header(b"content-type") or b"", google)
        found = document.pop("")
    elif call.document is not None:
        document, found = call.document, set()
    elif kind.startswith(b"application/x-www-form-urlencoded"):
        given = parse_qsl(_plain(call).decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000)
        document, found = _fields(given), set()
    elif place is not None and place.collection == "files" and b"json" not in kind:
        return _lines(_plain(call), google), None  # a file, as it is
    else:
        document, found = _json(_plain(call), kind), set()
    uploads = place is not None and place.collection == "uploads"
    if uploads and isinstance(document, dict) and document.get("purpose") == "batch":
        raise ValueError("a batch's file must come in one piece here (POST /v1/files)")
    return found.union(named(document, google=google)), document


def _plain(call: Call) -> bytes:
    try:
        return decode(call.body, coding_of(call.headers), _NO_LIMIT)
    except RefusedError as error:
        raise ValueError(error.reason) from None


def _json(body: bytes, kind: bytes) -> Any:
    looks = b"json" in kind or not kind or body.lstrip()[:1] in (b"{", b"[")
    if b"multipart/" in kind or kind.startswith(b"text/"):
        looks = True  # Google's uploads hold JSON beside the media; text may be taken for JSON
    if not looks:
        return None
    try:
        return read_json(body)
    except ValueError:
        raise ValueError("its body is no JSON that is read here") from None


def _form(body: bytes, content_type: bytes, google: bool) -> dict[str, Any]:
    """Fields by name; under the empty name the objects that the lines of its files name."""
    given, found = [], set()
    for part in parts(body, content_type):
        content = body[part.start:part.end]
        if part.filename is None:
            given.append((part.name, content.decode("utf-8", "replace")))
        if part.filename is not None or content.lstrip()[:1] in (b"{", b"["):
            found |= _lines(content, google)
    return {**_fields(given), "": found}


def _fields(given: list[tuple[str, str]]) -> dict[str, Any]:
    """``tools[0][file_ids][]=x`` names a file as ``file_ids`` does."""
    fields: dict[str, Any] = {}
    for name, value in given:
        for step in re.split(r"[\[\].]+", name):
            if step:
                fields.setdefault(step, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _lines(content: bytes, google: bool) -> set[str]:
    found: set[str] = set()
    for line in _json_lines(content):
        try:
            document = read_json(line)
        except ValueError:
            continue  # the provider cannot read it as a request, either
        found.update(named(document, google=google))
    return found


def _json_lines(content: bytes) -> Iterator[bytes]:
    for line in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        text = line.strip()
        if text[:1] == b"{" and any(mark in text for mark in _MARKS):
            yield text

"""Text within text: runs of base64 that are text themselves, and how they are written again.

Law: what is taken for base64 is what a decoder would give text for, up to 64 KB of it: UTF-8 or UTF-16 without control
characters. Written again, it is in the same alphabet, with the same padding or none. Most texts have no run that is long
enough, which two loops of C tell."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from douane.pauses import OFTEN, Paused

__all__ = ["Coded", "coded_in"]

_SHORTEST = 20
"""Characters: fifteen bytes, of which an address of e-mail has not many fewer."""
_LONGEST = 87_400
_IN_RUN = re.compile(r"[A-Za-z0-9+/_-]")
_RUNS = bytes(ord("a" if _IN_RUN.match(chr(code)) else " ") for code in range(256))
_LONG = b"a" * _SHORTEST
_RUN = re.compile(r"[A-Za-z0-9+/_-]{20,}+(?:\r?\n[A-Za-z0-9+/_-]{4,}+)*+={0,2}")
_PART = re.compile(r"[A-Za-z0-9+_-]{20,}+={0,2}")
_LINE = re.compile(r"\r?\n")
_IS_LETTERS = re.compile(r"[a-z_-]++|[A-Z_]++|[0-9a-f-]++|[0-9]++")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")


@dataclass(frozen=True, slots=True)
class Coded:
    """At *start* to *end* of a text stands what means *text*."""

    start: int
    end: int
    text: str
    write: Callable[[str], str]
    """Another text → what then stands there."""


def coded_in(text: str) -> Paused[tuple[Coded, ...]]:
    """In order, nowhere overlapping. Linear time."""
    if len(text) < _SHORTEST:
        return ()
    found: list[Coded] = []
    runs, end, tried = text.encode("latin-1", "replace").translate(_RUNS), 0, 0
    while (at := runs.find(_LONG, end)) >= 0 and (run := _RUN.match(text, at)) is not None:
        end = run.end()
        whole = _decoded(run[0], run.start())
        if whole is not None:
            found.append(whole)
            continue
        for part in _PART.finditer(text, run.start(), run.end()):  # a step of a path, a line of a list
            one = _decoded(part[0], part.start()) if part.span() != run.span() else None
            if one is not None:
                found.append(one)
            tried += 1
            if tried % OFTEN == 0:
                yield
    return tuple(found)


def _decoded(run: str, start: int) -> Coded | None:
    if len(run) > _LONGEST or _IS_LETTERS.fullmatch(run):
        return None
    plain = _LINE.sub("", run)
    body = plain.rstrip("=")
    urlsafe = "-" in body or "_" in body
    if len(body) % 4 == 1 or (urlsafe and ("+" in body or "/" in body)):
        return None
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), b"-_" if urlsafe else None, validate=True)
    except (binascii.Error, ValueError):
        return None
    coding = "utf-16-le" if raw[1:8:2] == b"\0" * 4 and len(raw) % 2 == 0 else "utf-8"
    try:
        text = raw.decode(coding)
    except UnicodeDecodeError:
        return None
    if _CONTROL.search(text):
        return None
    padded = "=" in plain or len(body) % 4 == 0

    def write(new: str) -> str:
        coded = base64.b64encode(new.encode(coding), b"-_" if urlsafe else None).decode()
        return coded if padded else coded.rstrip("=")

    return Coded(start, start + len(run), text, write)

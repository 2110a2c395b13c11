"""A key that is known, in whatever form it may be written.

Law: what is looked for is the key itself and what the common encodings make of it: a URL, JSON, hexadecimal, and base64
wherever it stands in what was encoded. A key shorter than :data:`CODED` is looked for as it is, in a URL and in JSON only: of
so few characters, half might stand anywhere.

A text is read by C loops alone, but for its runs of characters that could be a key.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

__all__ = ["CODED", "Forms", "forms_of"]

CODED = 12
"""Characters of a key from which on it is looked for in every encoding."""
_HEAD = 4
"""Bytes by which the forms are told apart that may begin at a place."""
_LONG = 2048
"""Bytes of a run in which each form is looked for by itself: the pattern of all takes ten times as long."""


def forms_of(key: str) -> frozenset[bytes]:
    """How *key* may be written."""
    raw = key.encode()
    forms = {raw, quote(key, safe="").encode(), key.replace("/", "\\/").encode()}
    if len(raw) < CODED:
        return frozenset(forms)
    forms |= {raw.hex().encode(), raw.hex().upper().encode(), quote(key).encode(), quote_plus(key).encode()}
    forms.add("".join(char if char.isalnum() else f"\\u{ord(char):04x}" for char in key).encode())
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    forms |= {escaped.encode(), escaped.replace("/", "\\/").encode()}
    for shift in range(3):  # the characters of base64 that are the key's alone, whatever stands before and after it
        coded = base64.b64encode(b"." * shift + raw)[-(-8 * shift // 6):8 * (shift + len(raw)) // 6]
        forms |= {coded, coded.translate(bytes.maketrans(b"+/", b"-_"))}
    return frozenset(forms)


class Forms:
    """All forms of some *keys*, to be found in bytes."""

    __slots__ = ("_by_head", "_forms", "_heads", "_longest", "_pattern", "_run", "_runs", "_signs")

    def __init__(self, keys: Iterable[str]) -> None:
        self._forms = sorted({form for key in keys for form in forms_of(key)}, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(re.escape(form) for form in self._forms))
        self._longest = max(map(len, self._forms), default=0)
        self._signs = bytes(sorted(set(b"".join(self._forms))))
        self._runs = bytes(1 if code in self._signs else 0 for code in range(256))
        self._run = b"\1" * min(map(len, self._forms), default=1)
        self._heads = frozenset(form[:size] for form in self._forms for size in range(1, min(_HEAD, len(form))))
        self._by_head: dict[bytes, list[bytes]] = {}
        for form in self._forms:
            self._by_head.setdefault(form[:_HEAD], []).append(form)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def __repr__(self) -> str:
        return f"Forms({len(self._forms)})"

    def find(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Where one stands: from the left, the longest that begins there."""
        if not self._forms or len(text) < len(self._run):
            return
        runs = text.translate(self._runs)
        at = runs.find(self._run)
        while at >= 0:
            end = runs.find(b"\0", at + len(self._run))
            if end < 0:
                end = len(runs)
            if end - at < _LONG or any(text.find(form, at, end) >= 0 for form in self._forms):
                for match in self._pattern.finditer(text, at, end):
                    yield match.span()
            at = runs.find(self._run, end)

    def begins(self, text: bytes, start: int) -> int:
        """Where, at *start* or later, the first unfinished form begins that reaches to the end of *text*; else the end."""
        first = max(start, len(text) - self._longest + 1, len(text.rstrip(self._signs)))
        for at in range(first, len(text)):
            rest = text[at:]
            if len(rest) < _HEAD:
                if rest in self._heads:
                    return at
            elif any(len(rest) < len(form) and form.startswith(rest) for form in self._by_head.get(rest[:_HEAD], ())):
                return at
        return len(text)

"""A key that a provider echoes, out of its answer: header, body, stream, however that is cut."""

import re
from functools import lru_cache
from urllib.parse import quote

from douane.call import Headers

__all__ = ["EchoMask"]


class EchoMask:
    """Masks a key in an answer by as many ``*``, so that no length changes, however the answer is cut: from the left, the
    longest form of the key that stands there. What may yet become one waits."""

    __slots__ = ("_any", "_forms", "_tail")

    rewrites = False

    def __init__(self, key: str) -> None:
        self._forms, self._any = _forms(key)
        self._tail = b""

    def whole(self, text: bytes) -> bytes:
        """*text*, which is all there is."""
        return self._any.sub(_stars, text) if self._in(text) else text

    def headers(self, headers: Headers) -> Headers:
        if not any(self._in(value) for _, value in headers):
            return headers
        return tuple((name, self._any.sub(_stars, value)) for name, value in headers)

    def feed(self, chunk: bytes) -> bytes:
        text = self._tail + chunk if self._tail else chunk
        end = self._begins(text, 0)
        if not self._in(text):
            self._tail = text[end:]
            return text[:end] if self._tail else text
        out, at = [], 0
        for match in self._any.finditer(text):
            if end <= match.start():
                break  # a longer form, or one that begins before this one, may yet come of it
            out += [text[at:match.start()], _stars(match)]
            at = match.end()
            end = self._begins(text, at)
        out.append(text[at:end])
        self._tail = text[end:]
        return b"".join(out)

    def close(self) -> bytes:
        tail, self._tail = self._tail, b""
        return self._any.sub(_stars, tail)

    def _in(self, text: bytes) -> bool:
        return any(form in text for form in self._forms)  # a tenth of what the pattern's search costs

    def _begins(self, text: bytes, start: int) -> int:
        """Where, at *start* or later, the first unfinished form begins that reaches to the end; else the end."""
        first = len(text)
        for form in self._forms:
            at = text.find(form[:1], max(start, len(text) - len(form) + 1))
            while at != -1:
                if form.startswith(text[at:]):
                    first = min(first, at)
                    break
                at = text.find(form[:1], at + 1)
        return first


@lru_cache(64)
def _forms(key: str) -> tuple[tuple[bytes, ...], re.Pattern[bytes]]:
    """How *key* may be written, the longest first, and the pattern of all."""
    forms = {key, quote(key, safe=""), key.replace("/", "\\/")}
    found = tuple(form.encode() for form in sorted(forms, key=len, reverse=True))
    return found, re.compile(b"|".join(re.escape(form) for form in found))


def _stars(match: re.Match[bytes]) -> bytes:
    return b"*" * len(match[0])

"""A key that a provider echoes, out of its answer: header, body, stream, however that is cut."""

from functools import lru_cache
from typing import Self

from douane.call import Headers
from douane.keyforms import Forms

__all__ = ["EchoMask"]


class EchoMask:
    """Masks a key in an answer by as many ``*``, so that no length changes, however the answer is cut: from the left, the
    longest form of the key that stands there. What may yet become one waits."""

    __slots__ = ("_forms", "_tail")

    rewrites = False

    def __init__(self, key: str) -> None:
        self._forms = _forms(key)
        self._tail = b""

    @classmethod
    def of(cls, forms: Forms) -> Self:
        """For keys whose forms are known already."""
        made = cls.__new__(cls)
        made._forms, made._tail = forms, b""
        return made

    def whole(self, text: bytes) -> bytes:
        """*text*, which is all there is."""
        out, at = [], 0
        for start, end in self._forms.find(text):
            out += [text[at:start], b"*" * (end - start)]
            at = end
        return b"".join([*out, text[at:]]) if out else text

    def headers(self, headers: Headers) -> Headers:
        masked = tuple((name, self.whole(value)) for name, value in headers)
        return headers if masked == headers else masked

    def feed(self, chunk: bytes) -> bytes:
        text = self._tail + chunk if self._tail else chunk
        end = self._forms.begins(text, 0)
        out, at = [], 0
        for start, stop in self._forms.find(text):
            if end <= start:
                break  # a longer form, or one that begins before this one, may yet come of it
            out += [text[at:start], b"*" * (stop - start)]
            at = stop
            end = self._forms.begins(text, at)
        self._tail = text[end:]
        if not out:
            return text[:end] if self._tail else text
        out.append(text[at:end])
        return b"".join(out)

    def close(self) -> bytes:
        tail, self._tail = self._tail, b""
        return self.whole(tail)


@lru_cache(64)
def _forms(key: str) -> Forms:
    return Forms((key,))

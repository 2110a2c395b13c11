"""The filter that tells under which name the provider keeps an answer, as soon as that has come.

Law: it changes no byte: what leaves is what the filter within it gave. In a stream the name stands in the first event, so
that what is kept under it is on its way to the disk while the text still comes.
"""

from collections.abc import Callable, Sequence

import jiter

from douane.call import Headers
from douane.providers.framing import Frame, Splitter, framing_of
from douane.providers.kept import answer_names
from douane.restore import RestoreFilter

__all__ = ["Remembering"]

_EVENTS = 16
"""Events of a stream in which the name is looked for."""


class Remembering:
    """A BodyFilter: *inner*, and *told* is called with the answer's ids, once at most. Raises what *inner* does."""

    __slots__ = ("_inner", "_left", "_splitter", "_told", "_whole")

    rewrites = True

    def __init__(self, inner: RestoreFilter, told: Callable[[tuple[str, ...]], None]) -> None:
        self._inner = inner
        self._told = told
        self._splitter: Splitter | None = None
        self._left = _EVENTS
        self._whole = False
        """The answer is a document, which *inner* gives when it is whole."""

    def headers(self, headers: Headers) -> Headers:
        framing = framing_of(next((value for name, value in headers if name == b"content-type"), b""))
        if framing is not None:
            self._splitter = framing.splitter()
        else:
            self._whole = True
        return self._inner.headers(headers)

    def feed(self, chunk: bytes) -> bytes:
        if self._splitter is not None:
            self._listen(self._splitter.feed(chunk))
        return self._inner.feed(chunk)

    def close(self) -> bytes:
        rest = self._inner.close()
        if self._whole and rest:
            self._look(rest)
        return rest

    def _listen(self, events: Sequence[Frame]) -> None:
        for event in events:
            self._left -= bool(event.data)
            if self._look(event.data) or self._left == 0:
                self._splitter = None
                return

    def _look(self, data: bytes) -> bool:
        try:
            names = answer_names(jiter.from_json(data, cache_mode="keys"))
        except ValueError:
            return False
        if names:
            self._told(names)
        return bool(names)

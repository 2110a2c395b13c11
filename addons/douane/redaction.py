"""A text and what was found in it → the text as it may leave.

Law: what stands in JSON inside a text (tool-call arguments) is looked for both as written and as meant, and replaced so that
it stays JSON. What already is a placeholder stays one: a redacted history is redacted to itself.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import jiter

from douane.placeholders import LOOKS_LIKE
from douane.providers.edit import Place, Token, rewrite, tokens

__all__ = ["Found", "Text", "Written", "read_text"]


class Found(Protocol):
    """What a scanner says: *type* stands at ``text[start:end]``."""

    @property
    def type(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


type Replace = Callable[[str, str], str]
"""Type and value → what goes in their place."""


@dataclass(frozen=True, slots=True)
class Written:
    """A text after its findings were replaced, and the type of each."""

    text: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """*scanned* are the texts to be scanned: the text itself, then the strings in it whose JSON has escapes."""

    text: str
    scanned: tuple[str, ...]
    inner: tuple[tuple[Token, int], ...] = ()
    """Of JSON: its scalars, each with the index of its meaning in *scanned*; 0: it reads as written."""

    def write(self, found: Sequence[Sequence[Found]], replace: Replace) -> Written:
        """*found*: what stands in each of *scanned*."""
        if not any(found):
            return Written(self.text, ())
        if not self.inner:
            return _spliced(self.text, _outside(self.text, [(one.type, one.start, one.end) for one in found[0]]), replace)
        changes: dict[Place, str] = {}
        types: list[str] = []
        whole = _outside(self.text, [(one.type, one.start, one.end) for one in found[0]])
        starts, ends = [at for _, at, _ in whole], [to for _, _, to in whole]
        for token, meaning in self.inner:
            start, end = (token.start + 1, token.end - 1) if token.string else (token.start, token.end)
            text = self.scanned[meaning] if meaning else self.text[start:end]
            spans = ([(one.type, one.start, one.end) for one in found[meaning]] if meaning else
                     [(kind, max(at, start) - start, min(to, end) - start)
                      for kind, at, to in whole[bisect_right(ends, start):bisect_left(starts, end)]])
            if spans and not token.string:
                spans = [(spans[0][0], 0, len(text))]  # a number goes as a whole, and becomes a string
            if spans:
                written = _spliced(text, _outside(text, spans), replace)
                types += written.types
                if written.text != text:
                    changes[token.path, token.key] = written.text
        return Written(rewrite(self.text, changes), tuple(types))


def read_text(text: str) -> Text:
    """What of *text* must be scanned."""
    if text.lstrip()[:1] not in ("{", "["):
        return Text(text, (text,))
    try:
        jiter.from_json(text.encode(), catch_duplicate_keys=True, cache_mode="none")
    except ValueError:
        return Text(text, (text,))
    scanned, inner = [text], []
    for token in tokens(text):
        written = text[token.start:token.end]
        if token.string and "\\" in written:
            inner.append((token, len(scanned)))
            scanned.append(str(jiter.from_json(written.encode())))
        else:
            inner.append((token, 0))
    return Text(text, tuple(scanned), tuple(inner))


type _Span = tuple[str, int, int]


def _outside(text: str, spans: list[_Span]) -> list[_Span]:
    """*spans* but for those within a placeholder."""
    if "<" not in text or not spans:
        return spans
    taken = [match.span() for match in LOOKS_LIKE.finditer(text)]
    starts = [start for start, _ in taken]
    return [one for one in spans if not (at := bisect_right(starts, one[1])) or one[2] > taken[at - 1][1]]


def _spliced(text: str, spans: list[_Span], replace: Replace) -> Written:
    out, at = [], 0
    for kind, start, end in spans:
        out += [text[at:start], replace(kind, text[start:end])]
        at = end
    return Written("".join([*out, text[at:]]), tuple(kind for kind, _, _ in spans))

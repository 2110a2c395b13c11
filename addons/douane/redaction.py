"""A text and what was found in it → the text as it may leave.

Law: what stands in JSON inside a text (tool-call arguments) is looked for both as written and as meant, and replaced so that
it stays JSON; so is text in base64, which stays base64. What already is a placeholder stays one: a redacted history is
redacted to itself.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import jiter

from douane.coded import Coded, coded_in
from douane.frozen import made_fast
from douane.pauses import OFTEN, Paused, at_once
from douane.placeholders import LOOKS_LIKE
from douane.providers.edit import Place, Token, rewrite, tokens

__all__ = ["Found", "Replace", "Text", "Written", "outside", "read_text", "reading"]


class Found(Protocol):
    """What a scanner says: *type* stands at ``text[start:end]``."""

    @property
    def type(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


_DEEPEST = 2
"""Base64 within base64."""

type Replace = Callable[[str, str], str]
"""Type and value → what goes in their place."""


@dataclass(frozen=True, slots=True)
class Written:
    """A text after its findings were replaced, and the type of each."""

    text: str
    types: tuple[str, ...]


@made_fast
@dataclass(frozen=True, slots=True)
class Text:
    """*scanned* are the texts to be scanned: the text itself, then what it holds in another writing."""

    text: str
    scanned: tuple[str, ...]
    inner: tuple[tuple[Token, "Text | None"], ...] = ()
    """Of JSON: its scalars, each with what it means; None: it reads as written."""
    coded: tuple[tuple[Coded, "Text"], ...] = ()
    """Runs of base64, and what they mean."""

    def write(self, found: Sequence[Sequence[Found]], replace: Replace) -> Written:
        """*found*: what stands in each of *scanned*."""
        return at_once(self.writing(found, replace))

    def writing(self, found: Sequence[Sequence[Found]], replace: Replace) -> Paused[Written]:
        """As :meth:`write`, for a text in which there may be much."""
        if not any(found):
            return Written(self.text, ())
        rest = iter(found)
        whole = [(one.type, one.start, one.end) for one in next(rest)]
        yield
        return (yield from self._json(whole, rest, replace) if self.inner else self._plain(whole, rest, replace))

    def _plain(self, whole: list["_Span"], rest: Iterator[Sequence[Found]], replace: Replace) -> Paused[Written]:
        edits: list[_Edit] = []
        types: list[str] = []
        for run, meaning in self.coded:
            written = yield from meaning.writing([next(rest) for _ in meaning.scanned], replace)
            if written.types:
                changed = written.text != meaning.text
                edits.append((run.start, run.end, run.write(written.text) if changed else self.text[run.start:run.end]))
                types += written.types
        runs = list(edits)  # what was found in the letters of one is no finding
        for number, (kind, start, end) in enumerate(outside(self.text, whole), 1):
            if not runs or not any(start < to and at < end for at, to, _ in runs):
                edits.append((start, end, replace(kind, self.text[start:end])))
                types.append(kind)
            if number % OFTEN == 0:
                yield
        edits.sort()
        yield
        return Written(_spliced(self.text, edits), tuple(types))

    def _json(self, spans: list["_Span"], rest: Iterator[Sequence[Found]], replace: Replace) -> Paused[Written]:
        changes: dict[Place, str] = {}
        types: list[str] = []
        whole = outside(self.text, spans)
        starts, ends = [at for _, at, _ in whole], [to for _, _, to in whole]
        for number, (token, meaning) in enumerate(self.inner, 1):
            start, end = (token.start + 1, token.end - 1) if token.string else (token.start, token.end)
            text = self.text[start:end] if meaning is None else meaning.text
            if meaning is not None:
                written = yield from meaning.writing([next(rest) for _ in meaning.scanned], replace)
            else:
                within = [(kind, max(at, start) - start, min(to, end) - start)
                          for kind, at, to in whole[bisect_right(ends, start):bisect_left(starts, end)]]
                if within and not token.string:
                    within = [(within[0][0], 0, len(text))]  # a number goes as a whole, and becomes a string
                written = yield from Text(text, (text,))._plain(within, rest, replace)
            types += written.types
            if written.text != text:
                changes[token.path, token.key] = written.text
            if number % OFTEN == 0:
                yield
        return Written(rewrite(self.text, changes), tuple(types))


def read_text(text: str) -> Text:
    """What of *text* must be scanned."""
    return at_once(reading(text))


def reading(text: str) -> Paused[Text]:
    """As :func:`read_text`, for a text in which there may be much."""
    return _read(text, _DEEPEST)


def _read(text: str, deep: int) -> Paused[Text]:
    if text.lstrip()[:1] not in ("{", "["):
        return (yield from _read_plain(text, deep))
    try:
        jiter.from_json(text.encode(), catch_duplicate_keys=True, cache_mode="none")
    except ValueError:
        return (yield from _read_plain(text, deep))
    scanned: list[str] = [text]
    inner: list[tuple[Token, Text | None]] = []
    for token in tokens(text):
        written = text[token.start:token.end]
        meaning = None
        if token.string:
            escaped = "\\" in written
            meaning = yield from _read_plain(str(jiter.from_json(written.encode())) if escaped else written[1:-1], deep)
            if not escaped and not meaning.coded:
                meaning = None
        if meaning is not None:
            scanned += meaning.scanned
        inner.append((token, meaning))
        if len(inner) % OFTEN == 0:
            yield
    return Text(text, tuple(scanned), tuple(inner))


def _read_plain(text: str, deep: int) -> Paused[Text]:
    runs = (yield from coded_in(text)) if deep else ()
    if not runs:
        return Text(text, (text,))
    scanned: list[str] = [text]
    coded: list[tuple[Coded, Text]] = []
    for run in runs:
        meaning = yield from _read(run.text, deep - 1)
        scanned += meaning.scanned
        coded.append((run, meaning))
    return Text(text, tuple(scanned), coded=tuple(coded))


type _Edit = tuple[int, int, str]
type _Span = tuple[str, int, int]


def outside(text: str, spans: list[_Span]) -> list[_Span]:
    """*spans* but for those within a placeholder."""
    if "<" not in text or not spans:
        return spans
    taken = [match.span() for match in LOOKS_LIKE.finditer(text)]
    if not taken:
        return spans
    starts = [start for start, _ in taken]
    return [one for one in spans if not (at := bisect_right(starts, one[1])) or one[2] > taken[at - 1][1]]


def _spliced(text: str, edits: Sequence[_Edit]) -> str:
    if not edits:
        return text
    out, at = [], 0
    for start, end, new in edits:
        out += [text[at:start], new]
        at = end
    return "".join([*out, text[at:]])

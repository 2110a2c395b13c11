"""A name that was found once is found again, and so is its surname: what a recognizer of names needs words around it for
stands bare in the answer that comes back as history, or is read by nobody there; and who was named in full goes by the surname
after it.

Laws: a text takes names from itself and from the texts before it alone, so that a turn that is added changes no byte of the
earlier ones. Only whole words in the same letters count. Linear in the texts for each of a bounded number of names."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter

from douane.detect.memory import Memory
from douane.detect.namelists import is_word, lists
from douane.detect.names import FULL, may_stand_alone
from douane.detect.spans import resolving
from douane.detect.values import BY_MODEL, Span
from douane.pauses import OFTEN, Paused

__all__ = ["carried"]

_PERSON = "PERSON"
_KINDS, _TYPE = frozenset(BY_MODEL), attrgetter("type")
_START = attrgetter("start")
_NAMES = 64
"""So many are carried on, the first ones."""
_KEPT = 1000
"""Spans of a text that are worth remembering: a larger one is rare, and takes a megabyte."""
_LONG = 8192
"""Characters of a text that take some microseconds to be looked through for one name."""
_LEAST = 3
"""Characters of a name that is."""
_LEAST_SURNAME = 4
"""Characters of a surname that is carried on without the given name."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NOT_SAID = frozenset({"schema", "metadata"})
"""Roles of texts that are no part of what is said: their words are an interface's."""


def carried(texts: Sequence[str], roles: Sequence[str], found: Sequence[tuple[Span, ...]], keys: Mapping[str, bytes],
            memory: Memory, allowed: Callable[[str, str], bool] | None = None) -> Paused[list[tuple[Span, ...]]]:
    """*found* in each of *texts*, and where what was found as a name stands besides, but for what is *allowed* to stay. *keys*:
    of the texts; *memory*, for one *allowed*: what was found in which of them by which names; so a history costs a look."""
    yield
    if all(_KINDS.isdisjoint(map(_TYPE, spans)) for spans in found):
        return list(found)
    known = _Known()
    every = []
    for text, role, spans in zip(texts, roles, found, strict=True):
        if role in _NOT_SAID:
            every.append(spans)
            continue
        for one in spans:
            if one.type in _KINDS and not (allowed is not None and allowed(one.type, text[one.start:one.end])):
                known.add(text[one.start:one.end], one)
        if not known.names:
            every.append(spans)
            continue
        mark = keys[text] + hash((known.mark, spans)).to_bytes(8, signed=True)
        again = memory.get(mark)
        if again is None:
            more = yield from _again(text, known, spans)
            again = (yield from resolving([*spans, *more])) if more else spans
            if len(again) < _KEPT:
                memory.put(mark, again)
        every.append(again)
        yield
    return every


class _Known:
    """Names so far, and their surnames, by what they were found as; and a number that tells them from others."""

    __slots__ = ("mark", "names", "surnames")

    def __init__(self) -> None:
        self.names: dict[str, Span] = {}
        self.surnames: dict[str, Span] = {}
        self.mark = 0

    def add(self, name: str, span: Span) -> None:
        if name in self.names or len(self.names) >= _NAMES or len(name) < _LEAST or name.islower():
            return
        self.names[name] = span
        self.mark = hash((self.mark, name, span))
        if span.type == _PERSON and (surname := _surname(name, span.score)):
            self.surnames.setdefault(surname, span)


def _again(text: str, known: _Known, spans: tuple[Span, ...]) -> Paused[list[Span]]:
    """Where names stand in *text* that are in none of *spans*, in order."""
    starts = [one.start for one in spans]
    found: list[Span] = []
    for values, alone in ((known.names, False), (known.surnames, True)):
        for value, one in values.items():
            for number, (at, whole) in enumerate(_places(text, value), 1):
                end = at + len(value)
                before = spans[index] if (index := bisect_right(starts, at) - 1) >= 0 else None
                if whole and (before is None or before.end < end) and (not alone or may_stand_alone(text, at, end)):
                    found.append(Span(one.type, at, end, one.score))
                if number % OFTEN == 0:
                    yield
            if len(text) > _LONG:
                yield
    found.sort(key=_START)
    return found


def _surname(name: str, score: float) -> str:
    """The last word of a *name* of two and more that is hardly anything else; empty where there is none. Of a name that was
    taken for one by what stands beside it, it must be a surname that is known."""
    words = _WORD.findall(name)
    last = words[-1] if len(words) > 1 else ""
    named = len(last) >= _LEAST_SURNAME and not last.isupper() and last[:1].isupper() and not is_word(last)
    return last if named and (score >= FULL or last in lists().surnames) else ""


def _places(text: str, value: str) -> Iterator[tuple[int, bool]]:
    """Where *value* stands, nowhere overlapping itself, and whether as a whole word. (``re`` takes a hundred times as long, for
    it does not look for the letters first.)"""
    at = text.find(value)
    while at >= 0:
        end = at + len(value)
        whole = not (at and _is_of_word(text[at - 1])) and not _is_of_word(text[end:end + 1])
        yield at, whole
        at = text.find(value, end if whole else at + 1)


def _is_of_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_"

"""A name that was found once is found again: what a recognizer of names needs words around it for stands bare in the answer
that comes back as history, or is read by nobody there.

Laws: a text takes names from itself and from the texts before it alone, so that a turn that is added changes no byte of the
earlier ones. Only whole words in the same letters count. Linear in the texts for each of a bounded number of names."""

from collections.abc import Iterator, Sequence
from operator import attrgetter

from douane.detect.spans import resolve
from douane.detect.values import BY_MODEL, Span
from douane.pauses import Paused

__all__ = ["carried"]

_KINDS, _TYPE = frozenset(BY_MODEL), attrgetter("type")
_NAMES = 64
"""So many are carried on, the first ones."""
_LONG = 8192
"""Characters of a text that take some microseconds to be looked through for one name."""
_LEAST = 3
"""Characters of a name that is."""
_NOT_SAID = frozenset({"schema", "metadata"})
"""Roles of texts that are no part of what is said: their words are an interface's."""


def carried(texts: Sequence[str], roles: Sequence[str], found: Sequence[tuple[Span, ...]]) -> Paused[list[tuple[Span, ...]]]:
    """*found* in each of *texts*, and where what was found as a name stands besides."""
    yield
    if all(_KINDS.isdisjoint(map(_TYPE, spans)) for spans in found):
        return list(found)
    known: dict[str, Span] = {}
    every = []
    for text, role, spans in zip(texts, roles, found, strict=True):
        if role in _NOT_SAID:
            every.append(spans)
            continue
        for one in spans:
            value = text[one.start:one.end]
            if one.type in BY_MODEL and len(known) < _NAMES and len(value) >= _LEAST and not value.islower():
                known.setdefault(value, one)
        again: list[Span] = []
        for value, one in known.items():
            again += [Span(one.type, at, at + len(value), one.score) for at in _words(text, value)]
            if len(text) > _LONG:
                yield
        every.append(resolve([*spans, *again]) if len(again) > sum(one.type in BY_MODEL for one in spans) else spans)
    return every


def _words(text: str, value: str) -> Iterator[int]:
    """Where *value* stands as a whole word, nowhere overlapping itself. (``re`` takes a hundred times as long, for it does not
    look for the letters first.)"""
    at = text.find(value)
    while at >= 0:
        end = at + len(value)
        whole = not (at and _is_of_word(text[at - 1])) and not _is_of_word(text[end:end + 1])
        if whole:
            yield at
        at = text.find(value, end if whole else at + 1)


def _is_of_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_"

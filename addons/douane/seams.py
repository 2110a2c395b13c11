"""Values that are split over neighbouring text parts of one message: ``4111 1111`` in one, ``1111 1111`` in the next.

Law: where two text parts of a message meet, what stands at both sides is looked at once more as the model reads it, as one
text. What is found across the seam goes as a whole into the part in which it begins; all else stays where it is. What a part
holds by itself is no more across a seam (``Bye`` before ``ann@example.com`` is another word)."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from douane.providers.base import Position
from douane.redaction import Found, Replace, Text, Written, outside

__all__ = ["Seams", "across", "join", "seams_in"]

_REACH = 100
"""Characters to both sides of a seam."""

type Piece = tuple[str, int, int]
"""Type, start and end, in the parts laid end to end."""


@dataclass(frozen=True, slots=True)
class Seams:
    """Neighbouring parts, by their index among the positions, of which *text* is what is read where they meet."""

    parts: tuple[int, ...]
    ends: tuple[int, ...]
    """Where each part ends, laid end to end."""
    windows: tuple[tuple[int, int], ...]
    """What is looked at, likewise."""
    texts: tuple[str, ...]


def seams_in(positions: Sequence[Position], texts: Sequence[Text]) -> list[Seams]:
    """Of a walk's *positions*, which *texts* are read from."""
    found, run = [], [0]
    for at in range(1, len(positions) + 1):
        if at < len(positions) and _neighbours(positions[at - 1], positions[at]) and _is_plain(texts[at - 1]) \
                and _is_plain(texts[at]):
            run.append(at)
            continue
        if len(run) > 1:
            found.append(_seams([texts[one].text for one in run], tuple(run)))
        run = [at]
    return found


def _neighbours(one: Position, other: Position) -> bool:
    """Whether both are text parts of one message, with no other text between."""
    return (one.path[-1:] == other.path[-1:] == ("text",) and one.path[:-2] == other.path[:-2] and one.path != other.path
            and isinstance(one.path[-2:-1][0], int) and not (one.key or other.key or one.sealed or other.sealed))


def _is_plain(text: Text) -> bool:
    return not text.inner and not text.coded


def _seams(parts: list[str], indexes: tuple[int, ...]) -> Seams:
    whole, ends = "".join(parts), tuple(accumulate(map(len, parts)))
    windows: list[tuple[int, int]] = []
    for end in ends[:-1]:
        low, high = max(0, end - _REACH), min(len(whole), end + _REACH)
        if windows and low <= windows[-1][1]:
            low = windows.pop()[0]
        windows.append((low, high))
    return Seams(indexes, ends, tuple(windows), tuple(whole[low:high] for low, high in windows))


def across(seams: Seams, own: Sequence[Sequence[Found]], found: Iterator[Sequence[Found]]) -> list[Piece]:
    """What of *found*, the spans of each of the windows, stands on both sides of a seam; *own*: what each part holds."""
    alone, pieces = _laid(seams, own), []
    for (low, _), spans in zip(seams.windows, found, strict=False):
        for one in spans:
            start, end = one.start + low, one.end + low
            if bisect_right(seams.ends, start) != bisect_left(seams.ends, end) and not any(
                    kind == one.type and at < end and start < to for kind, at, to in alone):
                pieces.append((one.type, start, end))
    return pieces


def _laid(seams: Seams, own: Sequence[Sequence[Found]]) -> list[Piece]:
    return [(one.type, one.start + begin, one.end + begin)
            for begin, spans in zip((0, *seams.ends[:-1]), own, strict=True) for one in spans]


def join(seams: Seams, parts: Sequence[str], own: Sequence[Sequence[Found]], split: Sequence[Piece],
         replace: Replace) -> list[Written]:
    """The *parts*, with what was found in each (*own*) and across them (*split*) replaced."""
    whole = "".join(parts)
    out: list[list[str]] = [[] for _ in parts]
    types: list[list[str]] = [[] for _ in parts]
    at = 0
    for kind, start, end in outside(whole, _widened(_laid(seams, own), split)):
        _copy(out, seams.ends, whole, at, start)
        part = bisect_right(seams.ends, start)
        new = replace(kind, whole[start:end])
        types[part].append(kind)
        if new == whole[start:end]:
            _copy(out, seams.ends, whole, start, end)
        else:
            out[part].append(new)
        at = end
    _copy(out, seams.ends, whole, at, len(whole))
    return [Written("".join(one), tuple(kinds)) for one, kinds in zip(out, types, strict=True)]


def _widened(pieces: Sequence[Piece], split: Sequence[Piece]) -> list[Piece]:
    """Both, sorted; what overlaps with one of *split* is taken into it."""
    kept: list[Piece] = []
    for one in sorted([*((start, 0, end, kind) for kind, start, end in split),
                       *((start, 1, end, kind) for kind, start, end in pieces)]):
        start, own, end, kind = one
        if kept and start < kept[-1][2]:
            last, low, high = kept.pop()
            kept.append((last if own else kind, low, max(high, end)))
        else:
            kept.append((kind, start, end))
    return kept


def _copy(out: list[list[str]], ends: Sequence[int], whole: str, start: int, end: int) -> None:
    """What stands there, each piece into its own part."""
    while start < end:
        part = bisect_right(ends, start)
        stop = min(end, ends[part])
        out[part].append(whole[start:stop])
        start = stop

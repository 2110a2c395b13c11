"""Spans laid together: overlaps resolved, long texts cut into chunks and put together again. Pure functions.

Law: what a whole text would give, its chunks give, for everything up to ``OVERLAP - 2 * EDGE`` characters long."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from douane.detect.values import Span, priority
from douane.pauses import OFTEN, Paused, at_once

__all__ = ["CHUNK", "EDGE", "OVERLAP", "cut", "join", "joined", "resolve", "resolving"]

CHUNK = 32_768
"""Characters of the largest piece that is scanned at once."""
OVERLAP = 1024
_START = attrgetter("start")
EDGE = 64
"""So near to a cut, a chunk may have seen only a part of what stands there."""


def resolve(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Of spans that overlap, the one whose type comes first in ``ENTITIES`` stays, of one type the longest, then the surest.
    What stays is sorted and overlaps nowhere."""
    return at_once(resolving(spans))


def resolving(spans: Iterable[Span]) -> Paused[tuple[Span, ...]]:
    """As :func:`resolve`, for thousands."""
    kept: list[Span] = []
    for number, group in enumerate(_groups(spans), 1):
        kept += _of_group(group)
        if number % OFTEN == 0:
            yield
    return tuple(kept)


def _groups(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Those that hang together, from left to right: nothing of one group overlaps with anything of another."""
    group: list[Span] = []
    reach = 0
    for span in sorted(spans, key=_START):
        if group and span.start >= reach:
            yield group
            group, reach = [], 0
        group.append(span)
        reach = max(reach, span.end)
    if group:
        yield group


def _of_group(spans: list[Span]) -> list[Span]:
    if len(spans) == 1:
        return spans
    low = spans[0].start
    taken = bytearray(max(span.end for span in spans) - low)
    kept = []
    for span in sorted(spans, key=lambda span: (priority(span.type), span.start - span.end, -span.score, span.start)):
        start, end = span.start - low, span.end - low
        if not any(taken[start:end]):
            taken[start:end] = b"\1" * (end - start)
            kept.append(span)
    return sorted(kept, key=_START)


def cut(length: int) -> list[tuple[int, int]]:
    """Start and end of the chunks of a text so long; one chunk where it is short."""
    starts = [0, *range(CHUNK - OVERLAP, length - OVERLAP, CHUNK - OVERLAP)]
    return [(start, min(start + CHUNK, length)) for start in starts]


def join(chunks: Sequence[tuple[int, int]], found: Sequence[Iterable[Span]]) -> tuple[Span, ...]:
    """The spans of the whole text from those of its chunks. Where a span lies at a cut and the neighbour saw all around it,
    the neighbour's word counts."""
    return tuple(span for part in joined(chunks, found) for span in part)


def joined(chunks: Sequence[tuple[int, int]], found: Sequence[Iterable[Span]]) -> Iterator[Sequence[Span]]:
    """What :func:`join` gives, in as many parts as there are chunks, so that who has other things to do may do them between."""
    if len(chunks) == 1:
        yield resolve(found[0])
        return
    open_: list[Span] = []
    """What the next chunk may know better."""
    for at, ((start, end), spans) in enumerate(zip(chunks, found, strict=True)):
        before = chunks[at - 1][1] if at else start
        after = chunks[at + 1][0] if at + 1 < len(chunks) else end
        for span in spans:
            low, high = span.start + start, span.end + start
            doubtful = (at and low - start < EDGE and high + EDGE <= before) or (
                after < end and end - high < EDGE and low - EDGE >= after)
            if not doubtful:
                open_.append(Span(span.type, low, high, span.score))
        done: list[Span] = []
        groups, open_ = list(_groups(open_)), []
        for group in groups:
            if max(span.end for span in group) <= after:
                done += _of_group(group)
            else:
                open_ += group
        yield done

"""Spans laid together: overlaps resolved, long texts cut into chunks and put together again. Pure functions.

Law: what a whole text would give, its chunks give, for everything up to ``OVERLAP - 2 * EDGE`` characters long."""

from collections.abc import Iterable, Sequence

from douane.detect.values import Span, priority

__all__ = ["CHUNK", "EDGE", "OVERLAP", "cut", "join", "resolve"]

CHUNK = 32_768
"""Characters of the largest piece that is scanned at once."""
OVERLAP = 1024
EDGE = 64
"""So near to a cut, a chunk may have seen only a part of what stands there."""


def resolve(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Of spans that overlap, the one whose type comes first in ``ENTITIES`` stays, of one type the longest, then the surest.
    What stays is sorted and overlaps nowhere."""
    ordered = sorted(spans, key=lambda span: (priority(span.type), span.start - span.end, -span.score, span.start))
    if len(ordered) < 2:
        return tuple(ordered)
    taken = bytearray(max(span.end for span in ordered))
    kept = []
    for span in ordered:
        if not any(taken[span.start:span.end]):
            taken[span.start:span.end] = b"\1" * (span.end - span.start)
            kept.append(span)
    return tuple(sorted(kept, key=lambda span: span.start))


def cut(length: int) -> list[tuple[int, int]]:
    """Start and end of the chunks of a text so long; one chunk where it is short."""
    starts = [0, *range(CHUNK - OVERLAP, length - OVERLAP, CHUNK - OVERLAP)]
    return [(start, min(start + CHUNK, length)) for start in starts]


def join(chunks: Sequence[tuple[int, int]], found: Sequence[Iterable[Span]]) -> tuple[Span, ...]:
    """The spans of the whole text from those of its chunks. Where a span lies at a cut and the neighbour saw all around it,
    the neighbour's word counts."""
    if len(chunks) == 1:
        return resolve(found[0])
    kept = []
    for at, ((start, end), spans) in enumerate(zip(chunks, found, strict=True)):
        before = chunks[at - 1][1] if at else start
        after = chunks[at + 1][0] if at + 1 < len(chunks) else end
        for span in spans:
            low, high = span.start + start, span.end + start
            doubtful = (at and low - start < EDGE and high + EDGE <= before) or (
                after < end and end - high < EDGE and low - EDGE >= after)
            if not doubtful:
                kept.append(Span(span.type, low, high, span.score))
    return resolve(kept)

"""Parts of a text on which a recognizer is run in place of the whole, and the way back from them.

Each is as long as it takes for word borders and look-arounds to see what they would see in the text: whole to the next blank
or quote, which stands in nothing that is looked for here but for blanks within the reach that a part has to both sides. A NUL
between blanks, which no pattern crosses, holds the parts apart."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import regex  # type: ignore[import-untyped]

__all__ = ["Shadow", "shadow"]

_BETWEEN = " \0 "
_BREAK = regex.compile(r'[\s"]')
_BREAK_BEFORE = regex.compile(r'(?r)[\s"]')


@dataclass(frozen=True, slots=True)
class Shadow:
    text: str
    starts: tuple[int, ...] = (0,)
    """Where each part begins in the shadow …"""
    origins: tuple[int, ...] = (0,)
    """… and in the text."""

    def back(self, at: int) -> int:
        """The offset in the text of an offset in the shadow."""
        part = bisect_right(self.starts, at) - 1
        return at - self.starts[part] + self.origins[part]


def shadow(text: str, spans: Iterable[tuple[int, int]], most: int | None = None) -> Shadow:
    """*spans*, sorted, each widened and joined where they meet. Linear in the length of *text* and the number of spans. *most*:
    characters by which one is widened to either side, though there be no blank."""
    parts: list[tuple[int, int]] = []
    floor = 0
    for low, high in spans:
        if high <= floor and parts:
            continue
        start = _start(text, floor if most is None else max(floor, low - most), low)
        if parts and start <= floor:
            start = parts.pop()[0]
        stop = len(text) if most is None else min(len(text), high + most)
        found = _BREAK.search(text, high, stop, concurrent=False) if high < stop else None
        floor = found.start() if found is not None else max(stop, min(high, len(text)))
        parts.append((start, floor))
    starts, at = [], 0
    for start, end in parts:
        starts.append(at)
        at += end - start + len(_BETWEEN)
    return Shadow(_BETWEEN.join(text[start:end] for start, end in parts), tuple(starts) or (0,),
                  tuple(start for start, _ in parts) or (0,))


def _start(text: str, floor: int, low: int) -> int:
    """Behind the last blank or quote before *low*; *floor* where there is none above it."""
    found = _BREAK_BEFORE.search(text, floor, low, concurrent=False) if low > floor else None
    return found.end() if found is not None else floor

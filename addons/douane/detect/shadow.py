"""The part of a text in which anything can stand, and the way back from it.

All that is found by pattern holds a digit, an ``@``, ``::`` or ``://``, or three groups of hex letters between colons, within
16 characters of any of its own and with no gap in it. So presidio is run on those places only, each whole to
the next blank, so that word borders and look-arounds see what they would see in the text. A NUL between blanks, which no
pattern crosses, holds the places apart."""

import re
from bisect import bisect_right
from dataclasses import dataclass

__all__ = ["SEED", "SEED_SIGNS", "Shadow", "shadow"]

SEED = re.compile(r"\d+|@|:(?:[:/]|[A-Fa-f]{1,4}:)")
"""A text without it holds nothing that a pattern finds."""
SEED_SIGNS = b"0123456789@:"
"""One of them stands in each match within ASCII."""

_REACH = 16
_BETWEEN = " \0 "
_WORTH = 0.7
"""Where the places are more of a text than this, the text itself is taken."""


@dataclass(frozen=True, slots=True)
class Shadow:
    text: str
    starts: tuple[int, ...] = (0,)
    """Where each place begins in the shadow …"""
    origins: tuple[int, ...] = (0,)
    """… and in the text."""

    def back(self, at: int) -> int:
        """The offset in the text of an offset in the shadow."""
        place = bisect_right(self.starts, at) - 1
        return at - self.starts[place] + self.origins[place]


def shadow(text: str) -> Shadow:
    """Linear in the length of *text*: no character is looked at more than a few times."""
    places: list[tuple[int, int]] = []
    length = len(text)
    low = high = -1
    for hit in SEED.finditer(text):
        start, end = hit.start() - _REACH, hit.end() + _REACH
        if start > high >= 0:
            _add(places, text, low, high)
            low = start
        elif high < 0:
            low = max(0, start)
        high = min(end, length)
    if high >= 0:
        _add(places, text, low, high)
    if sum(end - start for start, end in places) > _WORTH * length:
        return Shadow(text)
    starts, at = [], 0
    for start, end in places:
        starts.append(at)
        at += end - start + len(_BETWEEN)
    return Shadow(_BETWEEN.join(text[start:end] for start, end in places), tuple(starts) or (0,),
                  tuple(start for start, _ in places) or (0,))


def _add(places: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    """The place, widened to the blanks around it, as one with the last where they meet."""
    floor = places[-1][1] if places else 0
    start = max(start, floor)
    while start > floor and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    if end <= floor:
        return
    if places and start == floor:
        places[-1] = (places[-1][0], end)
    else:
        places.append((start, end))

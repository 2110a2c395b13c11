"""Texts in disguise: what reads as one thing and is written as another. Pure functions over plain ``re``.

Law: what a reader (or a model) takes for a value is looked for as that: without what cannot be seen in it, its full-width,
circled and look-alike letters as the letters they stand for, its escapes (``\\u0040``, ``&#64;``, ``%40``) as what they say.
What is found so covers, in the text as it is, every character that took part. A text in which nothing of the kind stands
beside a letter or digit is told by one look, and most are.
"""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass

__all__ = ["Plain", "may_be_disguised", "undisguised"]

_UNSEEN = ("\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
           "\ufeff\uffa0")
"""Soft hyphens, joiners, marks of direction, variation selectors, fillers: nothing that is seen. (Sets of what is below U+10000
are looked for ten times as fast as others.)"""
_TAGS = range(0xE0000, 0xE1000)
_DASHES, _BLANKS = "\u2010-\u2015\u2212\ufe63", "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_LOOK_ALIKE = {
    **dict(zip("АВЕЅІЈКМНОРСТУХаеѕіјорсухԁһԛԝѵь", "ABESIJKMHOPCTYXaesijopcyxdhqwvb", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορτυχϲ", "ABEZHIKMNOPTYXaiknoptuxc", strict=True)),
    **dict(zip("мнтпгкӏ", "mhtnrkl", strict=True)),
}
"""Of Cyrillic and Greek."""


def _other_forms() -> dict[str, str]:
    """Letters, digits and signs of addresses in forms that Unicode itself says are only another form of an ASCII one."""
    ranges = ((0xFF0B, 0xFF0E), (0xFF10, 0xFF19), (0xFF20, 0xFF3A), (0xFF41, 0xFF5A), (0x1D400, 0x1D7FF), (0x2460, 0x2468),
              (0x24B6, 0x24EA), (0xFE6B, 0xFE6B), (0x2024, 0x2024))
    found = {}
    for low, high in ranges:
        for code in range(low, high + 1):
            plain = unicodedata.normalize("NFKC", chr(code))
            if len(plain) == 1 and plain.isascii() and (plain.isalnum() or plain in "@.-+"):
                found[chr(code)] = plain
    return found


_OTHER_FORMS = _other_forms()
_AS_MEANT = str.maketrans({
    **_OTHER_FORMS, **_LOOK_ALIKE, **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63", "-"),
    **dict.fromkeys(map(chr, (0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)), " "),
    **dict.fromkeys(map(chr, _TAGS), "\u200b")})
"""One character for one."""
_FORMS, _LOOKS = "".join(sign for sign in _OTHER_FORMS if sign <= "\uffff"), "".join(_LOOK_ALIKE)
_HERE = "0-9A-Za-z@"
_STRANGE = re.compile(
    f"[{_FORMS}{_UNSEEN}{_DASHES}{_BLANKS}{_LOOKS}]"  # one set, first: the rest is asked only behind such a character
    f"(?:(?<=[{_FORMS}])|(?<=[{_UNSEEN}])(?=[{_HERE}.])|(?<=[{_HERE}.][{_UNSEEN}])|(?<=[0-9][{_DASHES}{_BLANKS}])(?=[0-9])"
    f"|(?<=[{_LOOKS}])(?=[.@_-]?[{_HERE}])|(?<=[{_HERE}][{_LOOKS}])|(?<=[{_HERE}][.@_-][{_LOOKS}]))")
_BEYOND = re.compile(r"[^\x00-\x7f]+")
_FAR = re.compile("[\U0001d400-\U0001d7ff\U000e0000-\U000e0fff]")
_NAMED = {"commat": "@", "period": ".", "colon": ":", "lowbar": "_", "plus": "+", "hyphen": "-", "dash": "-", "nbsp": " ",
          "shy": "", "zwj": "", "zwnj": "", "ZeroWidthSpace": "", "NoBreak": ""}
_WRITTEN = {
    "&": r"(?:amp;)?(?:#(?:[xX](?P<hex>[0-9a-fA-F]{2,6})|(?P<number>[0-9]{2,7}));?|(?P<named>" + "|".join(_NAMED) + r");)",
    "%": r"(?P<percent>[2-7][0-9a-fA-F])",
    "\\": r"(?<!\\\\)\\*+(?:u(?P<unit>[0-9a-fA-F]{4})|u\{(?P<braced>[0-9a-fA-F]{2,6})\}|x(?P<byte>[2-7][0-9a-fA-F]))"}
_ESCAPES = {sign: re.compile(re.escape(sign) + form) for sign, form in _WRITTEN.items()}
_LEFT_OUT = re.compile(rf"[&%\\{_UNSEEN}](?:" + "|".join(
    f"(?<={re.escape(sign)}){form}" for sign, form in _WRITTEN.items()) + f"|(?<=[{_UNSEEN}])(?P<unseen>[{_UNSEEN}]*+))")


@dataclass(frozen=True, slots=True)
class Plain:
    """A text as it is meant, and the way back to the one that it was."""

    text: str
    starts: tuple[int, ...]
    """Where each piece begins in the text …"""
    origins: tuple[int, ...]
    """… and in the one before …"""
    widths: tuple[int, ...]
    """… and how long each of its characters was there: 1, or of an escape, which is a piece by itself, more."""
    changed: tuple[int, ...]
    """Where, in the text, something else stood before, ascending."""

    def back(self, start: int, end: int) -> tuple[int, int]:
        """Start and end, in the text before, of what stands at *start* to *end* (more than nothing)."""
        first, last = bisect_right(self.starts, start) - 1, bisect_right(self.starts, end - 1) - 1
        return (self.origins[first] + start - self.starts[first],
                self.origins[last] + end - 1 - self.starts[last] + self.widths[last])


def may_be_disguised(text: str) -> bool:
    """Whether :func:`undisguised` would give anything."""
    for sign, escape in _ESCAPES.items():
        if sign in text and any(_meant(found) is not None for found in escape.finditer(text)):
            return True
    if text.isascii():
        return False
    far = len(text.encode("utf-16-le", "surrogatepass")) > 2 * len(text)
    return _STRANGE.search(text) is not None or (far and _FAR.search(text) is not None)


def undisguised(text: str) -> Plain | None:
    """*text* as it is meant; None where it is written so."""
    if not may_be_disguised(text):
        return None
    same = text if text.isascii() else text.translate(_AS_MEANT)
    out: list[str] = []
    starts, origins, widths = [0], [0], [1]
    at = length = 0
    for found in _LEFT_OUT.finditer(same):
        meant = "" if found["unseen"] is not None else _meant(found)
        if meant is None:
            continue
        start, end = found.span()
        out += [same[at:start], meant]
        length += start - at
        if meant:
            starts.append(length)
            origins.append(start)
            widths.append(end - start)
            length += 1
        starts.append(length)
        origins.append(end)
        widths.append(1)
        at = end
    plain = "".join([*out, same[at:]])
    changed = set(starts[1:]) if same is text else {*starts[1:], *(_there(found.start(), starts, origins)
                                                                   for found in _BEYOND.finditer(text))}
    return Plain(plain, tuple(starts), tuple(origins), tuple(widths), tuple(sorted(changed)))


def _there(at: int, starts: list[int], origins: list[int]) -> int:
    """About where in the new text stands what stood at *at*."""
    piece = bisect_right(origins, at) - 1
    return starts[piece] + at - origins[piece]


def _meant(found: re.Match[str]) -> str | None:
    """The character that an escape stands for: none, where it cannot be seen; None for one that hides nothing."""
    said = found.groupdict()
    if said.get("named") is not None:
        return _NAMED[said["named"]]
    digits = said.get("hex") or said.get("unit") or said.get("braced") or said.get("byte") or said.get("percent")
    code = int(digits, 16) if digits else int(said["number"])
    if code > 0x10FFFF:
        return None
    sign = chr(code).translate(_AS_MEANT)
    if sign.isascii():
        return sign if sign.isalnum() or sign in " @.:-+_/" else None
    return "" if _LEFT_OUT.fullmatch(sign) else None

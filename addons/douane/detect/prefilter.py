"""Whether anything can stand in a text, and where: one pass over it for all that the recognizers look for.

Law: what a recognizer would find ends where the pass says that something of its kind does. Every pattern is compiled as a
*prefilter*: it may see too much, never too little. hyperscan reads bytes, so what is beyond ASCII is read as what patterns take
it for: a digit as that digit, a letter as a letter, a blank as a blank, one byte for each character.

Hyperscan reads 20 KB in 0.2 ms, where the recognizers' own patterns one by one take fifteen. It has no wheel for some
platforms; without one the worker looks for what each needs by itself (``engine.py``), and the answers are the same.
"""

import codecs
import importlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

try:
    hyperscan: Any = importlib.import_module("hyperscan")
except ImportError:  # a platform without a wheel
    hyperscan = None

__all__ = ["SEED", "SEED_SIGNS", "Prefilter"]

_Refused: type[Exception] = RuntimeError if hyperscan is None else hyperscan.error

SEED = re.compile(r"\d+|@|:(?:[:/]|[A-Fa-f]{1,4}:)")
"""A text without it holds nothing that a pattern finds."""
SEED_SIGNS = b"0123456789@:"
"""One of them stands in each match within ASCII."""
_DASHES = frozenset("\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2053\u2212\u223c\u30fc\uff0d\uff5e")
"""What phonenumbers takes for a dash or a tilde; other punctuation of its own is read as a blank."""
_BLANKS = frozenset("\u200b\u2060\uff08\uff09\uff0e\uff0f\uff3b\uff3d")
_OF_WORDS = (("\u200c", "\u200d"), ("\u24b6", "\u24e9"), ("\U0001f130", "\U0001f149"),
             ("\U0001f150", "\U0001f169"), ("\U0001f170", "\U0001f189"))
"""Joiners, and letters in circles and squares: of words, whatever their kind."""
_ASCII_BY_CASE = {"\u017f": "s", "\u212a": "k"}
"""Letters that a pattern without case takes for one of ASCII."""


def _meant(sign: str) -> str:
    """The ASCII character that patterns take *sign* for. Words are what ``regex`` says (UTS 18: letters, marks, digits and
    connectors), which leaves out what ``str.isalnum`` takes for a number: a superscript ends a word."""
    digit = unicodedata.decimal(sign, None)
    if digit is not None:
        return str(digit)
    if sign in _DASHES:
        return "-"
    if sign.isspace() or sign in _BLANKS:
        return " "
    kind = unicodedata.category(sign)
    is_word = kind[0] in "LM" or kind in ("Nl", "Pc") or any(low <= sign <= high for low, high in _OF_WORDS)
    return _ASCII_BY_CASE.get(sign) or ("a" if is_word else "?")


class _Meant(dict[int, str]):
    """For ``str.translate``: filled as characters come, up to all there are."""

    def __missing__(self, code: int) -> str:
        sign = chr(code)
        found = self[code] = sign if sign.isascii() else _meant(sign)
        return found


_MEANT = _Meant()
_WITHIN_LATIN = bytes(code if code < 128 else ord(_meant(chr(code))) for code in range(256))
_RARE = 8
"""Of so many characters less than one byte more in UTF-8: then what is beyond Latin-1 is met one by one, else each character
is looked at."""


def _beyond_latin(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return error.object[error.start:error.end].translate(_MEANT), error.end


codecs.register_error("douane.meant", _beyond_latin)


def _ascii(text: str) -> bytes:
    """*text* as patterns take it, a byte a character."""
    if text.isascii():
        return text.encode()
    if (len(text.encode("utf-8", "surrogatepass")) - len(text)) * _RARE > len(text):
        return text.translate(_MEANT).encode()
    return text.encode("latin-1", "douane.meant").translate(_WITHIN_LATIN)


class Prefilter:
    """For one thread: hyperscan's scratch space is not shared."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._database.scratch = hyperscan.Scratch(database)

    @staticmethod
    def can(patterns: Sequence[str]) -> bool:
        """Whether hyperscan takes all of *patterns*; also where there is none."""
        try:
            Prefilter.compile({0: [(pattern, True) for pattern in patterns]})
        except _Refused:
            return False
        return True

    @classmethod
    def compile(cls, patterns: Mapping[int, Sequence[tuple[str, bool]]]) -> Self | None:
        """*patterns*: by a number of the caller's, regular expressions and whether their case counts. None where there is no
        hyperscan."""
        if hyperscan is None:
            return None
        rows = tuple((number, pattern, cased) for number, each in patterns.items() for pattern, cased in each)
        return cls.load(_compiled(rows))

    @classmethod
    def load(cls, dumped: bytes) -> Self | None:
        """What :meth:`dump` gave on this machine; None where there is no hyperscan."""
        return None if hyperscan is None else cls(hyperscan.loadb(dumped, hyperscan.HS_MODE_BLOCK))

    def dump(self) -> bytes:
        dumped: bytes = hyperscan.dumpb(self._database)
        return dumped

    def ends(self, text: str) -> dict[int, list[int]]:
        """By number, where in *text* something ends that its patterns may find, ascending."""
        found: dict[int, list[int]] = {}
        self._database.scan(_ascii(text), match_event_handler=_note, context=found)
        return found

    def sees(self, text: str) -> bool:
        """Whether *text* may hold anything."""
        try:
            self._database.scan(_ascii(text), match_event_handler=_stop)
        except hyperscan.ScanTerminated:
            return True
        return False


@lru_cache(4)
def _compiled(rows: tuple[tuple[int, str, bool], ...]) -> bytes:
    """A database of these numbers, patterns and whether their case counts: a fifth of a second, of which a process that has
    paid once and is forked is spared."""
    common = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_MULTILINE | hyperscan.HS_FLAG_DOTALL
    flags = [common if cased else common | hyperscan.HS_FLAG_CASELESS for _, _, cased in rows]
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=[pattern.encode() for _, pattern, _ in rows], ids=[number for number, _, _ in rows],
                     elements=len(rows), flags=flags)
    dumped: bytes = hyperscan.dumpb(database)
    return dumped


def _note(number: int, _start: int, end: int, _flags: int, found: dict[int, list[int]]) -> None:
    ends = found.setdefault(number, [])
    if not ends or ends[-1] != end:
        ends.append(end)


def _stop(*_: object) -> bool:
    return True

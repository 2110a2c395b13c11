"""The forms in which models give placeholders back: another case, no brackets or one, brackets escaped for HTML, markdown or
JSON, underscores escaped for markdown.

Law: whatever the form, the type and the digest are those of a placeholder that is known, letter by letter but for their case;
with a letter or digit more at either end it is another word."""

import importlib
import re
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

__all__ = ["FORM", "Form", "first_words", "forms_in", "opening_at", "watcher"]

try:
    _hyperscan: Any = importlib.import_module("hyperscan")
except ImportError:  # a platform without a wheel
    _hyperscan = None

_NO_WORD = r"(?<![A-Za-z0-9])(?<![A-Za-z0-9]_)(?<![A-Za-z0-9]__)(?<![A-Za-z0-9]\\_)(?<![A-Za-z0-9]\\\\_)"
_OPEN = r"<|&(?:lt|\#60|\#[xX]3[cC]);|(?P<slashes>\\+)u003[cC]|(?P<escaped>\\{1,2})<"
_CLOSE = r">|&(?:gt|\#62|\#[xX]3[eE]);|\\+u003[eE]"
FORM = re.compile(
    rf"(?:(?P<open>{_OPEN})|{_NO_WORD}|(?<=\\[nrtbf])|(?<=\\u[0-9A-Fa-f]{{4}})(?<!u003[cC]))(?P<body>[A-Za-z][A-Za-z0-9]*+(?:\\{{0,2}}_[A-Za-z0-9]++)++)"
    rf"(?(escaped)(?P=escaped)>|(?:(?(open)(?:{_CLOSE})|(?!))|(?!_{{0,2}}[A-Za-z0-9])))", re.VERBOSE)
"""Anything that might be one. A backslash before ``<`` belongs to it where the closing one has it too: it may be a path's."""
_JSON_ESCAPE = re.compile(r"[nrtbf]|u[0-9A-Fa-f]{4}")
_SLASHES = re.compile(r"\\+")


class Form(NamedTuple):
    start: int
    end: int
    body: str
    """Type and digest, in lower case, without escapes."""
    escape: str | None
    """The backslashes of a JSON writer's ``\\u003c``."""


def forms_in(text: str, start: int) -> Iterator[Form]:
    """Whatever might be a placeholder from *start* on; what stands before is only looked at for where a word begins."""
    for found in FORM.finditer(text, start):
        at, body = found.start(), found["body"]
        if found["open"] is None and text[at - 1:at] == "\\" and (escape := _JSON_ESCAPE.match(body)) is not None:
            at, body = at + escape.end(), body[escape.end():]  # a line break, of JSON, before it
        yield Form(at, found.end(), _SLASHES.sub("", body).lower(), found["slashes"])


# -- the end of a text that goes on ------------------------------------------------------------------------------------

_IN_FORM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_<&;#\\"
_MAY_BEGIN = re.compile(rf"(?<!\\)\\|[<&]|{_NO_WORD}[A-Za-z]|(?<=\\[nrtbf])[A-Za-z]|(?<=\\u[0-9A-Fa-f]{{4}})[A-Za-z]")
_BEGUN = re.compile(
    r"(?P<open><|&(?:lt|\#60|\#[xX]3[cC]);|\\+u003[cC]|\\+<)?(?P<body>[A-Za-z](?:[A-Za-z0-9]|\\{0,2}_)*+)?"
    r"(?P<rest>\\+(?:u(?:0(?:0(?:3[eE]?)?)?)?)?|&(?:gt?|\#(?:62?|[xX](?:3[eE]?)?)?)?)?\Z", re.VERBOSE)
_OPENING = re.compile(r"(?:&(?:lt?|\#(?:60?|[xX](?:3[cC]?)?)?)?|\\+(?:u(?:0(?:03?)?)?)?)\Z", re.VERBOSE)
_WINDOW = 256
"""Characters of a text's end in which a placeholder may have begun."""


def opening_at(text: str, begins: Callable[[str], bool], is_whole: Callable[[str], bool]) -> int:
    """Where in *text* a placeholder may have begun that is not over; its length where none has. *begins* and *is_whole* say of
    a type and digest in lower case whether a known one begins so, or is that."""
    floor = max(0, len(text) - _WINDOW)
    end = text[floor:]
    stem = len(end.rstrip(_IN_FORM))
    if stem == len(end):
        return len(text)
    for found in _MAY_BEGIN.finditer(end, stem):
        if _may_become(end, found.start(), begins, is_whole):
            return floor + found.start()
    return len(text)


def _may_become(text: str, at: int, begins: Callable[[str], bool], is_whole: Callable[[str], bool]) -> bool:
    if _OPENING.match(text, at):
        return True
    found = _BEGUN.match(text, at)
    if found is None:
        return False
    body, rest = _SLASHES.sub("", found["body"] or "").lower(), found["rest"] or ""
    if rest[:1] == "&":
        return found["open"] is not None and is_whole(body)
    if begins(body):
        return True
    less = body.rstrip("_")  # a mark of markdown behind it, or a longer word
    return not rest and len(body) - len(less) <= 2 and is_whole(less)


# -- a look at an event ------------------------------------------------------------------------------------------------


def first_words(bodies: Collection[str]) -> frozenset[str]:
    """What each form of placeholders with these bodies holds, in lower case: the first word of the type."""
    return frozenset(body.partition("_")[0] for body in bodies)


_here = threading.local()


def watcher(words: frozenset[str]) -> Callable[[bytes], bool]:
    """Says of an event whether a placeholder whose type begins with one of *words* may stand, begin or go on in it. One pass of
    hyperscan: half a microsecond, which Python's own patterns take three times. There is one for all the words that came so
    far, for it takes some milliseconds to make: what it sees too much is looked at again."""
    known: frozenset[str] = getattr(_here, "words", frozenset())
    if not words <= known:
        _here.words = known | words
        _here.watcher = _watcher(_here.words)
    made: Callable[[bytes], bool] = _here.watcher if known or words else _nothing
    return made


def _nothing(_: bytes) -> bool:
    return False


def _watcher(words: frozenset[str]) -> Callable[[bytes], bool]:
    begun = sorted({word[:length] for word in words for length in range(1, len(word) + 1)}, key=len, reverse=True)
    patterns = [rb"<|&|u00|\\\\", rf"(?:{'|'.join(sorted(words))})[_\\]".encode(),
                rf'(?:[^A-Za-z0-9]|\\[nrtbf])(?:{"|".join(begun)})"'.encode()]
    if _hyperscan is None:
        search = re.compile(b"|".join(patterns), re.IGNORECASE).search
        return lambda event: search(event) is not None
    database = _hyperscan.Database(mode=_hyperscan.HS_MODE_BLOCK)
    flags = _hyperscan.HS_FLAG_CASELESS | _hyperscan.HS_FLAG_SINGLEMATCH | _hyperscan.HS_FLAG_DOTALL
    database.compile(expressions=patterns, ids=list(range(len(patterns))), elements=len(patterns),
                     flags=[flags] * len(patterns))
    database.scratch = _hyperscan.Scratch(database)
    terminated = _hyperscan.ScanTerminated

    def sees(event: bytes) -> bool:
        try:
            database.scan(event, match_event_handler=_stop)
        except terminated:
            return True
        return False

    return sees


def _stop(*_: object) -> bool:
    return True

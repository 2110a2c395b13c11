"""Strings of a JSON text, found and replaced where they stand.

Law: **only the bytes of the strings that change are other bytes afterwards**. Key order, white space, the spelling of
numbers and the escapes of everything else stay; no change at all gives the same object back. The text must have been
read by a JSON parser before: what is not JSON is not noticed here.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

__all__ = ["Path", "Place", "Token", "member_at", "put", "quoted", "replace_once", "rewrite", "rewrite_bytes", "strings_with",
           "tokens"]

type Path = tuple[str | int, ...]
"""Object keys and array indexes from the root, as in ``providers.base.Position.path``."""
type Place = tuple[Path, bool]
"""A path, and whether the name of the member is meant (``Position.key``) rather than its value."""

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)

_TO_ITS_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_AFTER_A_STRING = b",:}] \t\r\n"
"""What may follow the quote that ends a string."""
_COLON = re.compile(rb"\s*:")
_BEGIN = 40


@dataclass(frozen=True, slots=True)
class Token:
    """One string, number or word of a JSON text: *start* to *end* in characters, quotes included."""

    path: Path
    key: bool
    start: int
    end: int
    string: bool = True


def tokens(text: str) -> Iterator[Token]:
    """Every scalar of *text*, in order. Raises IndexError or ValueError where *text* is no JSON at all."""
    for path, key, start, end, string in _scalars(text):
        yield Token(tuple(path), key, start, end, string)


def _scalars(text: str) -> Iterator[tuple[list[str | int], bool, int, int, bool]]:
    """As :class:`Token`'s fields; the path is the one list that goes along."""
    path: list[str | int] = []
    objects: list[bool] = []
    naming = False
    """Whether the next string is the name of a member."""
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        first = text[start]
        if first == '"':
            if naming:
                path[-1] = _plain(match[0])
            yield path, naming, start, end, True
        elif first == "{" or first == "[":
            naming = first == "{"
            objects.append(naming)
            path.append("" if naming else 0)
        elif first == "}" or first == "]":
            naming = False
            objects.pop()
            path.pop()
        elif first == ",":
            naming = objects[-1]
            if not naming:
                path[-1] += 1  # type: ignore[operator]
        elif first == ":":
            naming = False
        else:
            yield path, False, start, end, False


def rewrite(text: str, changes: Mapping[Place, str]) -> str:
    """*text* with the strings at the places of *changes* replaced. A number at such a place becomes a string.

    Keys of *changes* name places of *text* as it was, also below a member that is renamed. Raises ValueError where a
    place is not there."""
    if not changes:
        return text
    out, at, left = [], 0, len(changes)
    steps = {path[-1:] for path, _ in changes}
    for path, key, start, end, _ in _scalars(text):
        if tuple(path[-1:]) not in steps:
            continue
        new = changes.get((tuple(path), key))
        if new is None:
            continue
        left -= 1
        out += [text[at:start], quoted(new)]
        at = end
        if not left:
            break
    if left:
        raise ValueError("a place to be rewritten is not in the text")
    out.append(text[at:])
    return "".join(out)


def rewrite_bytes(body: bytes, changes: Mapping[Place, str]) -> bytes:
    """As :func:`rewrite`, for a body in UTF-8."""
    return rewrite(body.decode(), changes).encode() if changes else body


def strings_with(text: str, marks: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end, quotes included, of every string of the JSON *text* that holds one of *marks* as it is written; names of
    members too. For marks that can stand in strings only: the rest of the text is not read, so this is fast."""
    at, length = 0, len(text)
    hits = [-1] * len(marks)
    while True:
        for index, mark in enumerate(marks):
            if hits[index] < at:
                found = text.find(mark, at)
                hits[index] = length if found < 0 else found
        if (hit := min(hits)) == length:
            return
        start = text.rindex('"', at, hit)
        while _is_escaped(text, start, at):
            start = text.rindex('"', at, start)
        at = _end(text, start)
        yield start, at


def _is_escaped(text: str, at: int, floor: int) -> bool:
    first = at
    while first > floor and text[first - 1] == "\\":
        first -= 1
    return bool((at - first) % 2)


def _end(text: str, start: int) -> int:
    match = _TO_ITS_END.match(text, start + 1)
    if match is None:
        raise ValueError("the text is no JSON")
    return match.end()


def replace_once(body: bytes, pairs: Sequence[tuple[str, str]]) -> bytes | None:
    """*body* with the old strings of *pairs* as their new ones: each the first one that is written, as :func:`quoted` writes
    it, after the one before. None where one is not. Whether these were the ones that are meant, is not asked: look there
    afterwards. The body is read through once at most."""
    out, at = [], 0
    for old, new in pairs:
        token = _written(old)
        start = _find(body, token, at)
        # a quote that ends a string, or is part of one, begins none; and what a colon follows is a name
        if start < 0 or token[1] in _AFTER_A_STRING or body[start - 1 : start] == b"\\":
            return None
        out += [body[at:start], _written(new)]
        at = start + len(token)
        if _COLON.match(body, at):
            return None
    return b"".join([*out, body[at:]])


def _find(body: bytes, token: bytes, at: int) -> int:
    """``bytes.find`` by the token's beginning: what that does to look for a long one fast takes longer than the search."""
    begin = token[:_BEGIN]
    while (at := body.find(begin, at)) >= 0 and not body.startswith(token, at):
        at += 1
    return at


def quoted(text: str) -> str:
    """*text* as a JSON string, quotes included; characters beyond ASCII as they are, lone surrogates escaped."""
    return _written(text).decode()


def _written(text: str) -> bytes:
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:  # a lone surrogate
        return json.dumps(text).encode()


def _plain(token: str) -> str:
    return str(json.loads(token)) if "\\" in token else token[1:-1]


def member_at(document: object, path: Path) -> object:
    """What stands at *path*, names of members all along; None where nothing does."""
    for name in path:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def put(body: bytes, path: Path, value: bytes) -> bytes:
    """*body* (UTF-8, a JSON object, its names unique) with the JSON *value* at *path*, which is names all along: in place of
    what stands there; else as the first member of the last object on the way, the missing ones made. Every other byte stays.
    Raises ValueError where something else than an object (or null) is in the way."""
    text, at = body.decode(), 0
    at = text.find("{")
    if at < 0 or text[:at].strip():
        raise ValueError("the body is no JSON object")
    for index, name in enumerate(path):
        made = value.decode()
        for step in reversed(path[index + 1:]):
            made = f"{{{quoted(str(step))}:{made}}}"
        found = _member(text, at, str(name))
        if found is None:
            comma = "" if text[at + 1:].lstrip().startswith("}") else ","
            return f"{text[:at + 1]}{quoted(str(name))}:{made}{comma}{text[at + 1:]}".encode()
        start, end = found
        if index == len(path) - 1 or text[start:end] == "null":
            return (text[:start] + made + text[end:]).encode()
        if text[start] != "{":
            raise ValueError(f"{name} is no object")
        at = start
    raise ValueError("no path")


def _member(text: str, at: int, name: str) -> tuple[int, int] | None:
    """Where the value of *name* stands in the object that begins at *at*."""
    depth, naming, meant, start = 0, True, False, -1
    for match in _TOKEN.finditer(text, at):
        first = text[match.start()]
        if first in "}]":
            depth -= 1
            if not depth:
                return None
        elif first in ",:":
            if depth == 1:
                naming = first == ","
            continue
        elif depth == 1 and naming:
            meant = _plain(match[0]) == name
            continue
        elif meant and depth == 1:
            start = match.start()
        if first in "{[":
            depth += 1
            if depth == 1:
                continue
        if start >= 0 and depth == 1:
            return start, match.end()
    return None

"""Strings of a JSON text, found and replaced where they stand.

Law: **only the bytes of the strings that change are other bytes afterwards**. Key order, white space, the spelling of
numbers and the escapes of everything else stay; no change at all gives the same object back. The text must have been
read by a JSON parser before: what is not JSON is not noticed here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Path", "Place", "Token", "quoted", "rewrite", "rewrite_bytes", "tokens"]

type Path = tuple[str | int, ...]
"""Object keys and array indexes from the root, as in ``providers.base.Position.path``."""
type Place = tuple[Path, bool]
"""A path, and whether the name of the member is meant (``Position.key``) rather than its value."""

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


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


def quoted(text: str) -> str:
    """*text* as a JSON string, quotes included; characters beyond ASCII as they are, lone surrogates escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)


def _plain(token: str) -> str:
    return str(json.loads(token)) if "\\" in token else token[1:-1]

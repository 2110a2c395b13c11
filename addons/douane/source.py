"""Policy files as text: bytes → nodes that know their place.

Law 9: nothing in YAML runs. We read PyYAML's *events* and build three frozen shapes from them; no constructor of
PyYAML's is ever called. Refused, each with its line: tags, anchors and aliases (so no billion laughs), merge keys, a
key given twice, more than one document, nesting beyond 20, files beyond 1 MB. Scalars are those of YAML 1.2's core
schema (https://yaml.org/spec/1.2.2/#103-core-schema): ``no``, ``yes``, ``on`` and ``off`` are text.

All mistakes of all files are collected in :class:`Problems`, so that one look shows them all.
"""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import yaml

from douane.errors import ConfigError

__all__ = ["MAX_BYTES", "Entry", "Items", "Node", "Place", "Problems", "Scalar", "Table", "kind", "parse", "plain",
           "suggest"]

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 20
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_OCTAL = re.compile(r"0o[0-7]{1,100}")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)(\.inf|\.Inf|\.INF)")
_NAN = (".nan", ".NaN", ".NAN")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    file: str
    line: int
    """From 1."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Problems:
    """Mistakes gathered on the way; raised together as one ConfigError."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, str]] = []

    def add(self, place: Place, text: str) -> None:
        """*text*: what is wrong, then what is allowed; one line, no secret in it. Control characters are masked: a
        quoted ``"\\e"`` must not command the terminal that shows it."""
        line = "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))
        self._found.append((place, line))

    def extend(self, other: "Problems") -> None:
        self._found.extend(other._found)

    def __len__(self) -> int:
        return len(self._found)

    def lines(self) -> tuple[str, ...]:
        """``file:line: text``, by file name and line, each once."""
        return tuple(f"{place}: {text}" for place, text in sorted(set(self._found)))

    def raise_any(self) -> None:
        """Raises ConfigError with every line, where there is one."""
        if self._found:
            raise ConfigError("\n".join(self.lines()))


@dataclass(frozen=True, slots=True)
class Scalar:
    place: Place
    text: str
    """As it was written, without its quotes."""
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Items:
    place: Place
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's place, and its value."""

    place: Place
    node: "Node"


@dataclass(frozen=True, slots=True)
class Table:
    place: Place
    entries: Mapping[str, Entry]
    """In the order of the file."""

    def place_of(self, key: str) -> Place:
        """Where *key* stands, else the table."""
        entry = self.entries.get(key) or self.entries.get(key.replace("_", "-"))
        return entry.place if entry else self.place


type Node = Scalar | Items | Table


def kind(node: Node) -> str:
    """What a node is, in words. Never its value: that may be a key in the wrong place."""
    if isinstance(node, Table):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return "true or false"
    return "text" if isinstance(node.value, str) else "a number"


def plain(node: Node) -> object:
    """Dicts, lists and scalars: the content without its places."""
    if isinstance(node, Table):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return node.value


def suggest(word: str, allowed: Iterable[str]) -> str:
    """``; did you mean `x`? allowed: x, y``, as far as there is anything to say."""
    names = list(allowed)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ";" if names else ""
    return f"{hint} allowed: {', '.join(names)}" if names else ""


def parse(file: str, data: bytes, problems: Problems) -> Table | None:
    """The one document of a file, which must be a mapping; None where it is not (the reason is in *problems*) or where
    there is nothing but comments (which is for the caller to judge)."""
    if len(data) > MAX_BYTES:
        problems.add(Place(file, 1), f"is larger than {MAX_BYTES // 1024} KB")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add(Place(file, data.count(b"\n", 0, error.start) + 1), "is not UTF-8 text")
        return None
    try:
        root = _Builder(file, yaml.parse(text, Loader=_Loader), problems).document()
    except yaml.YAMLError as error:
        problems.add(_failed_at(file, text, error), f"is not YAML: {_reason(error)}")
        return None
    except _Refused as error:
        problems.add(error.place, str(error))
        return None
    if root is None or isinstance(root, Table):
        return root
    problems.add(root.place, f"a policy file is a mapping of sections, not {kind(root)}")
    return None


class _Refused(Exception):  # noqa: N818 - a way out of the recursion
    """What ends the reading of a file."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.place = place


class _Builder:
    """Events → nodes, one document."""

    def __init__(self, file: str, events: Iterator[yaml.Event], problems: Problems) -> None:
        self._file = file
        self._events = events
        self._problems = problems

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Refused(self._place(event), "a second document (`---`): one file holds one")
                root = self._node(next(self._events), 0)
        if isinstance(root, Scalar) and root.value is None:
            return None
        return root

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1 if mark else 1)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        place = self._place(event)
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(place, f"`*{anchor}`: aliases are not read here: write the value out")
        if anchor is not None:
            self._problems.add(place, f"`&{anchor}`: anchors are not read here")
        if getattr(event, "tag", None) is not None:
            self._problems.add(place, "tags (`!…`) are not read here: quote a value to make it text")
        if depth > _MAX_DEPTH:
            raise _Refused(place, f"is nested deeper than {_MAX_DEPTH}")
        if isinstance(event, yaml.ScalarEvent):
            text: str = event.value
            return Scalar(place, text, self._scalar(place, text) if event.implicit[0] else text)
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(place, tuple(self._items(depth)))
        return Table(place, self._entries(depth))

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar) or key.value is None:
                self._problems.add(key.place, f"a key is a name, not {kind(key)}")
            elif key.text == "<<":
                self._problems.add(key.place, "merge keys (`<<`) are not read here: write the keys out")
            elif key.text in entries:
                first = entries[key.text].place
                self._problems.add(key.place, f"`{key.text}` is given twice: first at {first}")
            else:
                entries[key.text] = Entry(key.place, value)
        return entries

    def _scalar(self, place: Place, text: str) -> str | int | float | bool | None:
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INT.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
        if text in _NAN:
            return math.nan
        if _INFINITE.fullmatch(text):
            return -math.inf if text[0] == "-" else math.inf
        return text


def _failed_at(file: str, text: str, error: yaml.YAMLError) -> Place:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return Place(file, mark.line + 1)
    return Place(file, text.count("\n", 0, getattr(error, "position", None) or 0) + 1)


def _reason(error: yaml.YAMLError) -> str:
    """PyYAML's own words without its excerpt of the file, which may hold what should not be shown."""
    words = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    return ", ".join(word for word in words if isinstance(word, str)) or "it cannot be read"

"""JSON values that come in pieces, joined: what the assemblers of :mod:`douane.providers.assemble` build in.

Law: time and memory grow with what is put in, never with a number in it (an index of 10⁹ is one element) and never with the
square of a text's pieces. Nothing here raises, and no string that was put in is lost: where two pieces do not fit together,
both stand.
"""

from collections.abc import Iterable
from typing import Any

import orjson

__all__ = ["JsonText", "Rows", "later", "merge", "plain", "read", "rows_of"]

_LEVELS = 64
"""Of nesting. What goes deeper is kept as its text: the result stays one that every JSON writer can write."""
_MANY = 200_000
"""Objects and lists in one JSON text; one with more is kept as its text."""
_ONCE = frozenset({"role", "type", "id", "object", "format", "channel", "provider"})
"""Members that some providers repeat in each piece; any other string continues the one before."""
_PARTS = frozenset({"content", "thinking", "reasoning_details"})
"""Lists of parts without an index, in which a part continues the one before it where the types are the same."""


def read(data: bytes) -> Any:
    """The JSON of *data*, or its text where it is too deep or too much. Raises JSONDecodeError."""
    containers = data.count(b"{") + data.count(b"[")
    if containers > _MANY:
        return data.decode("utf-8", "replace")
    value = orjson.loads(data)
    return data.decode() if containers > _LEVELS and _is_deep(value) else value


def _is_deep(value: Any) -> bool:
    layer = [value]
    for _ in range(_LEVELS):
        layer = [item for one in layer for item in (one.values() if type(one) is dict else one)
                 if type(item) is dict or type(item) is list]
        if not layer:
            return False
    return True


class _Text(list[str]):
    """The pieces of a string."""


class JsonText(list[str]):
    """The pieces of a JSON text that stands as what it says once it is whole, as its text before."""


class Rows:
    """A list that is filled by index. Whatever the indexes are, it is as long as it has elements."""

    __slots__ = ("_at", "_name", "_order", "_rows")

    def __init__(self, name: str, values: Iterable[Any] = ()) -> None:
        """*name*: the member that the list is."""
        self._name = name
        self._rows: list[Any] = []
        self._order: list[int] = []
        self._at: dict[int, int] = {}
        for value in values:
            self.put(len(self._rows), value)

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, index: int, value: Any) -> None:
        """A new element; what stood at *index* stays before it."""
        self._at[index] = len(self._rows)
        self._rows.append(value)
        self._order.append(index)

    def set(self, index: int, value: Any) -> None:
        """In place of what stands at *index*."""
        if index in self._at:
            self._rows[self._at[index]] = value
        else:
            self.put(index, value)

    def at(self, index: int) -> dict[str, Any]:
        """The object at *index*, made where there is none."""
        held = self._rows[self._at[index]] if index in self._at else None
        if type(held) is dict:
            return held
        made: dict[str, Any] = {}
        self.put(index, made)
        return made

    def extend(self, pieces: list[Any]) -> None:
        """Put in the pieces of elements, each to its own."""
        for place, piece in enumerate(pieces):
            if type(piece) is not dict:
                self.put(len(self._rows), piece)
                continue
            given = piece.get("index")
            held = self._continued(place, given, piece)
            if held is None:
                self.put(given if type(given) is int else len(self._rows), merge({}, piece))
            else:
                merge(held, piece)

    def _continued(self, place: int, given: Any, piece: dict[str, Any]) -> dict[str, Any] | None:
        """The element that *piece* is a piece of."""
        if type(given) is int:
            at = self._at.get(given)
        elif self._name == "tool_calls":
            at = self._at.get(place)
        elif self._name in _PARTS and type(piece.get("type")) is str:
            at = len(self._rows) - 1
        else:
            return None
        held = self._rows[at] if at is not None and at >= 0 else None
        if type(held) is not dict:
            return None
        other = any(piece.get(name) and held.get(name) and piece[name] != held[name] for name in ("id", "type"))
        return None if other else held

    def plain(self) -> list[Any]:
        found = [plain(self._rows[at]) for at in sorted(range(len(self._rows)), key=self._order.__getitem__)]
        if self._name == "tool_calls":  # only a stream has the index in them
            for row in found:
                if type(row) is dict:
                    row.pop("index", None)
        return found


def rows_of(owner: dict[str, Any], name: str) -> Rows:
    """The list that is the member *name*, made where there is none."""
    held = owner.get(name)
    if type(held) is Rows:
        return held
    made = owner[name] = Rows(name, held if type(held) is list else () if held is None else (held,))
    return made


def merge(held: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """*held*, with *delta* put to it: strings are joined, objects merged, lists filled; of numbers the last stands."""
    for name, value in delta.items():
        before = held.get(name)
        if value is None:
            held.setdefault(name, None)
        elif type(before) is _Text and type(value) is str:
            before.append(value)
        else:
            held[name] = _joined(name, before, value)
    return held


def _joined(name: str, before: Any, value: Any) -> Any:
    was, kind = type(before), type(value)
    if before is None or was is int or was is float or was is bool:
        if kind is dict:
            return merge({}, value)
        if kind is not list:
            return value
        before, was = Rows(name), Rows
    if was is list:
        before, was = Rows(name, before), Rows
    if kind is str and was is str:
        return before if name in _ONCE and before == value else _Text((before, value))
    if kind is dict and was is dict:
        return merge(before, value)
    if kind is int or kind is float or kind is bool:
        return before
    rows = before if was is Rows else Rows(name, [before])
    rows.extend(value if kind is list else [value])
    return rows


def later(held: dict[str, Any], more: dict[str, Any]) -> None:
    """Put in members that are said whole each time: the last stands, but null takes nothing away."""
    for name, value in more.items():
        if value is None:
            held.setdefault(name, None)
        elif type(value) is dict and type(held.get(name)) is dict:
            later(held[name], value)
        else:
            held[name] = value


def plain(value: Any) -> Any:
    """*value* as JSON has it."""
    kind = type(value)
    if kind is _Text:
        return "".join(value)
    if kind is dict:
        return {name: plain(item) for name, item in value.items()}
    if kind is Rows:
        return value.plain()
    if kind is JsonText:
        text = "".join(value)
        try:
            return read(text.encode())
        except orjson.JSONDecodeError:
            return text
    return value

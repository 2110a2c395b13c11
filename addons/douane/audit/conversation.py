"""The bodies of a call's records, read as what they are: who said what, in which order.

Law: this only reads what the log holds; what it cannot read as a conversation it gives as it stands, never nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jiter

from douane.providers.base import Position, Wire
from douane.providers.table import builtin

__all__ = ["Turn", "conversation"]

_SIDE = frozenset({"schema", "metadata"})
"""Roles of texts that nobody says: they are told last."""


@dataclass(frozen=True, slots=True)
class Turn:
    """*role* says *text*; ``request`` and ``response`` are the roles of a body that could not be read as turns."""

    role: str
    text: str
    note: str = ""
    """What a reader must know of it: that it is cut, or left out."""


def conversation(records: Sequence[dict[str, Any]]) -> list[Turn]:
    """The turns of one call, from its *records* in the order written."""
    turns: list[Turn] = []
    for record in records:
        wire = _wire(record.get("provider"), record.get("operation"))
        for name in ("request", "response"):
            body = record.get(name)
            if isinstance(body, dict):
                turns += _turns(name, body, wire)
    return turns


def _wire(provider: Any, operation: Any) -> Wire | None:
    """That of the provider; for one that policy files name, that of any provider with such an operation."""
    table = builtin()
    own = [table[provider]] if provider in table else []
    rows = [row for one in (*own, *table.values()) for row in one.operations if row.name == operation]
    return next((row.wire for row in rows if row.wire is not None), None)


def _turns(name: str, body: dict[str, Any], wire: Wire | None) -> Iterator[Turn]:
    text = body.get("text")
    if not isinstance(text, str):
        yield Turn(name, "", f"left out ({body.get('left_out')}), {body.get('bytes')} bytes")
        return
    if body.get("cut"):
        yield Turn(name, text, f"cut: the first {len(text.encode())} of {body.get('bytes')} bytes")
        return
    try:
        document = jiter.from_json(text.encode())
    except ValueError:
        document = None
    if document is None or wire is None:
        yield Turn(name, text)
        return
    positions = [one for one in (wire.walk if name == "request" else wire.answered)(document) if not one.key]
    spoken = [one for one in positions if one.role not in _SIDE]
    found = False
    for role, texts in _together([*spoken, *(one for one in positions if one.role in _SIDE)]):
        found = True
        yield Turn(role, "\n".join(texts))
    if not found:
        yield Turn(name, text)


def _together(positions: Sequence[Position]) -> Iterator[tuple[str, list[str]]]:
    """Role and texts, of positions that follow each other in one message."""
    last: tuple[Any, ...] = ()
    texts: list[str] = []
    for one in positions:
        here = (one.role, *(one.path[:1] if one.role in _SIDE else one.path[:2]))
        if texts and here != last:
            yield last[0], texts
            texts = []
        last = here
        texts.append(one.text)
    if texts:
        yield last[0], texts

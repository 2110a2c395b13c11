"""Balances for people and for programs: ``douane budget``."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from douane.ledger.base import NANO, Balance

__all__ = ["as_json", "table"]

_HEADS = ("ORG", "SCOPE", "NAME", "BOOK", "WINDOW", "ENDS (UTC)", "LIMIT", "SPENT", "RESERVED", "LEFT", "UNIT")
_LEFT = 6
"""So many columns hold words; but for the last, the others are numbers."""


def as_json(balances: Sequence[Balance]) -> str:
    """A JSON array; money in USD, times in RFC 3339."""
    return json.dumps([_fields(one) for one in balances], indent=1)


def table(balances: Sequence[Balance]) -> str:
    """Columns for a terminal."""
    rows = [_HEADS, *(_row(one) for one in balances)]
    if not any(one.account.org for one in balances):
        rows = [row[1:] for row in rows]
    left = _LEFT - (len(_HEADS) - len(rows[0]))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) if at < left or at == len(row) - 1 else cell.rjust(width)
                               for at, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows)


def _fields(one: Balance) -> dict[str, Any]:
    of = one.account
    return {"org": of.org or None, "scope": of.scope, "name": of.name or None, "book": of.book or None, "window": of.period,
            "begins": _time(of.start) if of.end is not None else None, "ends": _time(of.end), "unit": of.unit,
            "limit": _amount(one.limit, of.unit), "spent": _amount(one.captured, of.unit),
            "reserved": _amount(one.reserved, of.unit), "left": _amount(one.left, of.unit)}


def _row(one: Balance) -> tuple[str, ...]:
    of = one.account
    ends = "never" if of.end is None else datetime.fromtimestamp(of.end, UTC).strftime("%Y-%m-%d %H:%M")
    amounts = (one.limit, one.captured, one.reserved, one.left)
    shown = ("-" if amount is None else f"{amount / NANO:.6f}" if of.unit == "usd" else str(amount) for amount in amounts)
    return (_printable(of.org) or "-", of.scope, _printable(of.name) or "(none)", _printable(of.book) or "-", of.period, ends,
            *shown, of.unit.upper() if of.unit == "usd" else of.unit)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _amount(amount: int | None, unit: str) -> float | int | None:
    return amount if amount is None or unit != "usd" else amount / NANO


def _time(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")

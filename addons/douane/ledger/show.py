"""Balances for people and for programs: ``douane budget``."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from douane.ledger.base import NANO, Balance

__all__ = ["as_json", "table"]

_HEADS = ("SCOPE", "NAME", "BOOK", "WINDOW", "ENDS (UTC)", "LIMIT", "SPENT", "RESERVED", "LEFT")


def as_json(balances: Sequence[Balance]) -> str:
    """A JSON array; money in USD, times in RFC 3339."""
    return json.dumps([_fields(one) for one in balances], indent=1)


def table(balances: Sequence[Balance]) -> str:
    """Columns for a terminal; USD."""
    rows = [_HEADS, *(_row(one) for one in balances)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADS))]
    return "\n".join("  ".join(cell.ljust(width) if at < 5 else cell.rjust(width)
                               for at, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows)


def _fields(one: Balance) -> dict[str, Any]:
    of = one.account
    return {"scope": of.scope, "name": of.name or None, "book": of.book or None, "window": of.period,
            "begins": _time(of.start) if of.end is not None else None, "ends": _time(of.end),
            "limit_usd": _usd(one.limit), "spent_usd": _usd(one.captured), "reserved_usd": _usd(one.reserved),
            "left_usd": _usd(one.left)}


def _row(one: Balance) -> tuple[str, ...]:
    of = one.account
    ends = "never" if of.end is None else datetime.fromtimestamp(of.end, UTC).strftime("%Y-%m-%d %H:%M")
    money = (one.limit, one.captured, one.reserved, one.left)
    return (of.scope, _printable(of.name) or "(none)", _printable(of.book) or "-", of.period, ends,
            *("-" if amount is None else f"{amount / NANO:.6f}" for amount in money))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _usd(amount: int | None) -> float | None:
    return None if amount is None else amount / NANO


def _time(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")

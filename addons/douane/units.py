"""Values that policy files spell in their own way: sizes such as ``32MB``, money such as ``50 USD/day``.

A field says so in its type, ``limit: Annotated[int, Spelled(parse, "32MB")]``; the loader finds the parser there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from douane.ledger.base import LARGEST, Unit
from douane.ledger.windows import PERIODS, Period

__all__ = ["Bytes", "Limit", "Rated", "Spelled", "parse_bytes", "parse_count", "parse_duration", "parse_limit", "parse_rate",
           "parse_usd"]


@dataclass(frozen=True, slots=True)
class Spelled:
    """*parse*: text → value, ValueError where it is wrong; *example*: what a right one looks like."""

    parse: Callable[[str], Any]
    example: str


_SIZE = re.compile(r"([0-9]{1,12}) ?([KMG]?)i?B?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


def parse_bytes(text: str) -> int:
    """``512KB``, ``32MB``, ``1GiB``, ``1048576`` → bytes. KB is 1024 bytes, with or without the ``i``, as in nginx and
    haproxy. Raises ValueError for anything else and for nothing at all."""
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * 1024 ** _POWERS[match[2].lower()] if match else 0
    if size < 1:
        raise ValueError("a size is a whole number above 0, with B, KB, MB or GB")
    return size


Bytes = Annotated[int, Spelled(parse_bytes, "32MB")]


@dataclass(frozen=True, slots=True)
class Limit:
    """How much there is in a window; *period* None: for each call by itself."""

    amount: int
    unit: Unit
    period: Period | None


@dataclass(frozen=True, slots=True)
class Rated:
    """So many a period."""

    limit: int
    period: int
    """Seconds."""


_USD = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?USD")
_COUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?) ?([kM]?)")
_UNITS = {"token": "tokens", "tokens": "tokens", "call": "calls", "calls": "calls"}
_RATE_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


def parse_usd(text: str) -> int:
    """``0.25 USD`` → nano-USD (1e-9 USD). Digits are taken as they stand: no float is in between. Raises ValueError."""
    match = _USD.fullmatch(text.strip())
    if match is None:
        raise ValueError("an amount is a number of USD, with up to nine digits after the point")
    whole, _, part = match[1].partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0") or 0)


def parse_count(text: str) -> int:
    """``60``, ``100k``, ``1.5M``. Raises ValueError for what is no whole number."""
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError("a count is a whole number, or one with k or M")
    whole, _, part = match[1].partition(".")
    thousandths = (int(whole) * 1000 + int(part.ljust(3, "0") or 0)) * {"": 1, "k": 1000, "M": 1_000_000}[match[2]]
    if thousandths % 1000:
        raise ValueError("a count is a whole number")
    return thousandths // 1000


def parse_limit(text: str) -> Limit:
    """``50 USD/day``, ``1000 USD total``, ``2M tokens/hour``, ``500 calls/month``, ``0.50 USD/call``. Raises ValueError."""
    amount, slash, period = text.partition("/")
    if not slash and text.rstrip().endswith("total"):
        amount, period = text.rstrip().removesuffix("total"), "total"
    period = period.strip()
    if period not in (*PERIODS, "call"):
        raise ValueError(f"a limit is an amount and a window ({', '.join(PERIODS)}, call)")
    number, _, word = amount.strip().rpartition(" ")
    unit = _UNITS.get(word, "usd")
    value = parse_usd(amount) if unit == "usd" else parse_count(number)
    if value > LARGEST:
        raise ValueError("a limit is below 4.5 million USD, and below 4,500 billion tokens or calls")
    if unit == "calls" and period == "call":
        raise ValueError("a call is one call; a limit for each is one of USD or tokens")
    return Limit(value, cast(Unit, unit), None if period == "call" else cast(Period, period))


def parse_rate(text: str) -> Rated:
    """``60/minute``, ``100k/minute``, ``5/second``. Raises ValueError."""
    amount, _, period = text.partition("/")
    if period.strip() not in _RATE_SECONDS:
        raise ValueError(f"a rate is a count and a period ({', '.join(_RATE_SECONDS)})")
    limit = parse_count(amount)
    if not 0 < limit <= 10**9:
        raise ValueError("a rate is a count from 1 to 1,000M")
    return Rated(limit, _RATE_SECONDS[period.strip()])


_DURATION = re.compile(r"([1-9][0-9]{0,4}) ?([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> int:
    """``90s``, ``15m``, ``12h``, ``30d``, ``4w`` → seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a duration is a whole number above 0 and s, m, h, d or w")
    return int(match[1]) * _SECONDS[match[2]]

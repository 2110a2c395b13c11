"""Tiers: named sets of limits, which principals are given by name (``tier: low``).

Law: a principal has exactly one; who is given none has ``standard``. Used where a policy says so: ``limit: tier``.
"""

from dataclasses import dataclass
from typing import Annotated

from douane.units import Limit, Rated, Spelled, parse_count, parse_limit, parse_rate

__all__ = ["STANDARD", "Tier"]

STANDARD = "standard"
"""The tier of who is given none."""

type _Limit = Annotated[Limit, Spelled(parse_limit, "50 USD/day")]


@dataclass(frozen=True, slots=True)
class Tier:
    """An entry of ``tiers:``; the fields are its schema."""

    limit: _Limit | tuple[_Limit, ...] = ()
    """For ``budget``."""
    requests: Annotated[Rated, Spelled(parse_rate, "60/minute")] | None = None
    """For ``rate_limit``, as the following."""
    tokens: Annotated[Rated, Spelled(parse_rate, "100k/minute")] | None = None
    concurrent: Annotated[int, Spelled(parse_count, "10")] | None = None

    @property
    def limits(self) -> tuple[Limit, ...]:
        return (self.limit,) if isinstance(self.limit, Limit) else self.limit

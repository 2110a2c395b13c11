"""The windows of a budget: calendar ones in a time zone, and ``total``, which never ends.

Law: a moment lies in exactly one window of each period; the end of one is the start of the next. So a day has 23 or 25 hours
where the clocks are changed.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, get_args

__all__ = ["PERIODS", "Period", "window"]

type Period = Literal["minute", "hour", "day", "week", "month", "total"]

PERIODS: tuple[str, ...] = get_args(Period.__value__)

_SECONDS = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_MONDAY = 4 * 86400
"""The epoch began on a Thursday; the first Monday (ISO 8601 weeks begin there) came four days later."""
_LONGEST = {"day": 1, "week": 7, "month": 32}
"""Days after which the next one has begun: 32 days on from a first is always in the next month."""


def window(period: Period, at: float, zone: tzinfo = UTC) -> tuple[int, int | None]:
    """[start, end) of the window that holds *at*, all in seconds since the epoch; ``total`` is (0, None). Minutes and hours
    are those of UTC in every *zone*."""
    if period == "total":
        return 0, None
    if period in ("minute", "hour") or (zone is UTC and period != "month"):
        length = _SECONDS[period]
        origin = _MONDAY if period == "week" else 0
        start = origin + (int(at // 1) - origin) // length * length
        return start, start + length
    first = _first(period, datetime.fromtimestamp(at, zone))
    following = _first(period, first + timedelta(days=_LONGEST[period]))
    return int(first.timestamp()), int(following.timestamp())


def _first(period: Period, moment: datetime) -> datetime:
    """The midnight at which *moment*'s window begins, by the wall clock."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period == "month":
        return midnight.replace(day=1)
    return midnight - timedelta(days=midnight.weekday()) if period == "week" else midnight

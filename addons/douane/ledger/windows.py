"""The windows of a budget: calendar ones in UTC, and ``total``, which never ends.

Law: a moment lies in exactly one window of each period; the end of one is the start of the next.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

__all__ = ["PERIODS", "Period", "window"]

type Period = Literal["minute", "hour", "day", "week", "month", "total"]

PERIODS: tuple[str, ...] = get_args(Period.__value__)

_SECONDS = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_MONDAY = 4 * 86400
"""The epoch began on a Thursday; the first Monday (ISO 8601 weeks begin there) came four days later."""


def window(period: Period, at: float) -> tuple[int, int | None]:
    """[start, end) of the window that holds *at*, all in seconds since the epoch; ``total`` is (0, None)."""
    if period == "total":
        return 0, None
    if period == "month":
        first = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        following = (first + timedelta(days=32)).replace(day=1)  # 32 days on from a first is always in the next month
        return int(first.timestamp()), int(following.timestamp())
    length = _SECONDS[period]
    origin = _MONDAY if period == "week" else 0
    start = origin + (int(at // 1) - origin) // length * length
    return start, start + length

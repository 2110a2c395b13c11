"""Calendar windows in UTC, at their edges."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from douane.ledger.windows import PERIODS, Period, window


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("period", "moment", "begins", "ends"), [
    ("minute", "2026-02-28T23:59:59.999", "2026-02-28T23:59:00", "2026-03-01T00:00:00"),
    ("hour", "2026-03-29T01:00:00", "2026-03-29T01:00:00", "2026-03-29T02:00:00"),  # summer time begins elsewhere, not in UTC
    ("day", "2024-02-29T12:00:00", "2024-02-29", "2024-03-01"),
    ("week", "2026-01-04T23:59:59", "2025-12-29", "2026-01-05"),  # a Sunday
    ("week", "2026-01-05T00:00:00", "2026-01-05", "2026-01-12"),  # a Monday
    ("month", "2026-01-31T23:59:59.999", "2026-01-01", "2026-02-01"),
    ("month", "2026-02-28T23:59:59", "2026-02-01", "2026-03-01"),
    ("month", "2024-02-29T00:00:00", "2024-02-01", "2024-03-01"),
    ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
])
def test_edges(period: Period, moment: str, begins: str, ends: str) -> None:
    assert window(period, at(moment)) == (at(begins), at(ends))


def test_total_has_no_end() -> None:
    assert window("total", 1e9) == (0, None)


@given(st.floats(0, 4e9), st.sampled_from([one for one in PERIODS if one != "total"]))
def test_a_moment_lies_in_its_window_and_the_end_in_the_next(moment: float, period: Period) -> None:
    start, end = window(period, moment)
    assert end is not None
    assert start <= moment < end
    assert window(period, end)[0] == end
    assert window(period, end - 1) == (start, end)

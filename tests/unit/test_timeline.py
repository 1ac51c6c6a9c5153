"""Days and nights: where a snapshot belongs, when a night starts, how a replay's clock runs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrid.timeline import Timeline, night_of, night_start, snapshot_day

MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-03-31T11:59:59.999999+00:00", date(2026, 3, 30)),
        ("2026-03-31T12:00:00+00:00", date(2026, 3, 31)),
        ("2026-03-31T23:59:59.999999+00:00", date(2026, 3, 31)),
        ("2026-04-01T00:00:00+00:00", date(2026, 3, 31)),
        ("2026-04-01T05:00:00+00:00", date(2026, 3, 31)),
        ("2026-04-01T11:59:59.999999+00:00", date(2026, 3, 31)),
        ("2026-04-01T12:00:00+00:00", date(2026, 4, 1)),
        ("2026-04-01T13:59:00+02:00", date(2026, 3, 31)),
        ("2026-04-01T14:00:00+02:00", date(2026, 4, 1)),
        ("2026-03-31T23:00:00-13:00", date(2026, 4, 1)),
        ("2024-03-01T00:30:00+00:00", date(2024, 2, 29)),
        ("2026-01-01T11:00:00+00:00", date(2025, 12, 31)),
    ],
)
def test_borders_of_a_snapshot_day(now: str, day: date) -> None:
    assert snapshot_day(datetime.fromisoformat(now)) == day


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_the_nearest_close_whatever_the_zone(now: datetime, minutes: int) -> None:
    day = snapshot_day(now.astimezone(timezone(timedelta(minutes=minutes))))
    close = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    assert -timedelta(hours=12) <= now - close < timedelta(hours=12)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_a_night_reads_its_own_day(day: date) -> None:
    start = night_start(day)
    assert start.utcoffset() == timedelta(0)
    assert night_of(start) == snapshot_day(start) == day
    assert snapshot_day(start + timedelta(hours=7)) == day + timedelta(days=1)
    assert night_of(start - timedelta(hours=5, microseconds=1)) == day - timedelta(days=1)


@given(MOMENTS, st.floats(0, 2e9), st.floats(0.01, 1e5), st.floats(0, 1e4))
def test_a_replays_clock(anchor: datetime, clock_s: float, speed: float, real_s: float) -> None:
    timeline = Timeline(anchor, clock_s, speed)
    assert timeline.at(clock_s) == anchor
    passed_s = (timeline.at(clock_s + real_s) - anchor).total_seconds()
    assert passed_s == pytest.approx(real_s * speed, rel=1e-6, abs=1e-6 + speed * 1e-6)
    assert timeline.real_s(real_s * speed) == pytest.approx(real_s)

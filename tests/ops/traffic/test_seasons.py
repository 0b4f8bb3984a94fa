"""Payments follow the hours, weekdays and paydays of Brazil."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from ops.traffic.seasons import DAY_MS, FLOW_SHARES, HOUR_MS, hour_of_day, intensity, is_payday

SUNDAY_MS = 1_789_873_200_000
"""2026-09-20 00:00 in Brasília; the 21st is a Monday. The week from 6 September would hold a payday."""


def hourly(day_ms: int) -> list[float]:
    """Return the total intensity in the middle of each hour of a day."""
    return [float(total) for total in intensity(day_ms + np.arange(24) * HOUR_MS + HOUR_MS // 2).sum(axis=1)]


def test_hours_peak_at_noon_and_after_18h() -> None:
    """The two local maxima of a weekday are the published ones, and the night is nearly silent."""
    hours = hourly(SUNDAY_MS + 2 * DAY_MS)
    peaks = [hour for hour in range(1, 23) if hours[hour - 1] < hours[hour] >= hours[hour + 1]]
    assert 12 in peaks
    assert 18 in peaks
    assert set(peaks) <= {11, 12, 17, 18, 19}
    assert max(hours[:5]) < 0.2 * max(hours)


def test_an_ordinary_week_has_the_asked_rate_and_mix() -> None:
    """Intensity averages 1 over seven days without a payday, in the published shares."""
    week = intensity(SUNDAY_MS + DAY_MS + np.arange(0, 7 * DAY_MS, 10 * 60_000))
    assert week.sum(axis=1).mean() == pytest.approx(1.0, abs=0.02)
    assert week.mean(axis=0) == pytest.approx(np.array(FLOW_SHARES), rel=0.03)


def test_companies_rest_on_sundays() -> None:
    """Payments between companies nearly stop when people still pay."""
    sunday, tuesday = (
        intensity(day + np.arange(24) * HOUR_MS).mean(axis=0) for day in (SUNDAY_MS, SUNDAY_MS + 2 * DAY_MS)
    )
    assert sunday[3] < 0.3 * tuesday[3]
    assert sunday[1] > 0.6 * tuesday[1]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (date(2026, 9, 7), True),  # fifth weekday of September 2026
        (date(2026, 9, 5), False),  # a Saturday
        (date(2026, 9, 4), False),
        (date(2026, 9, 20), True),
        (date(2026, 9, 30), True),
        (date(2026, 9, 21), False),
    ],
)
def test_salaries_fall_on_the_fifth_business_day_the_20th_and_the_30th(when: date, expected: bool) -> None:  # noqa: FBT001 (parametrized)
    """Only these days are paydays."""
    assert is_payday(when) is expected


def test_payday_multiplies_what_companies_pay_people() -> None:
    """The 30th carries at least twice the payroll of the day before."""
    wednesday, tuesday = (intensity(SUNDAY_MS + day * DAY_MS + np.arange(24) * HOUR_MS).mean(axis=0) for day in (10, 9))
    assert wednesday[2] > 2 * tuesday[2]


def test_hours_are_those_of_brasilia() -> None:
    """UTC minus three."""
    assert hour_of_day(SUNDAY_MS) == 0
    assert hour_of_day(SUNDAY_MS - 1) == 23

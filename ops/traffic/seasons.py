"""When Pix happens: hour of day, weekday and payday profiles, in Brasília time.

Peaks about noon and after 18 h are the press figures of pix-domain.md section 5; the shape between them is ours.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BRASILIA_OFFSET_MS", "DAY_MS", "FLOWS", "FLOW_SHARES", "HOUR_MS", "MINUTE_MS", "hour_of_day", "intensity"]

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
BRASILIA_OFFSET_MS = -3 * HOUR_MS
"""Brazil has had no summer time since 2019."""

FLOWS = ("P2B", "P2P", "B2P", "B2B")
FLOW_SHARES = (0.462, 0.400, 0.0965, 0.0415)
"""June 2026 by count (46.0, 39.8, 9.6, 4.1 %), with the unclassified 0.5 % spread."""

_PEOPLE = (22, 13, 9, 7, 8, 14, 34, 65, 88, 105, 120, 140, 158, 138, 122, 118, 122, 136, 160, 152, 130, 104, 74, 44)
_BUSINESS = (3, 2, 2, 2, 3, 8, 25, 70, 150, 220, 240, 215, 170, 190, 215, 215, 200, 160, 90, 45, 25, 15, 8, 5)

_WEEKDAY_PEOPLE = (0.97, 0.98, 1.0, 1.02, 1.16, 1.05, 0.82)
_WEEKDAY_BUSINESS = (1.25, 1.25, 1.25, 1.25, 1.35, 0.40, 0.25)
_PAYDAY_PEOPLE, _PAYDAY_PAYROLL = 1.25, 2.5


def _profiles() -> NDArray[np.float64]:
    """Shape (24, 4): relative intensity of each flow in each hour, mean 1 over the day."""
    people, business = np.array(_PEOPLE, float), np.array(_BUSINESS, float)
    columns = [people, people, 0.3 * people + 0.7 * business, business]
    return np.stack([column / column.mean() for column in columns], axis=1)


_HOURLY = _profiles()


@lru_cache(maxsize=64)
def _day_factors(day: int) -> tuple[float, float, float, float]:
    """Factor of each flow on a day, counted since 1970-01-01 in Brasília."""
    when = datetime.fromtimestamp(day * 86_400, UTC).date()
    people, business = _WEEKDAY_PEOPLE[when.weekday()], _WEEKDAY_BUSINESS[when.weekday()]
    payday = is_payday(when)
    if payday:
        people *= _PAYDAY_PEOPLE
    return people, people, business * (_PAYDAY_PAYROLL if payday else 1.0), business


def is_payday(when: date) -> bool:
    """Whether salaries fall on this date: the fifth business day (holidays ignored), the 20th or the 30th."""
    if when.day in {20, 30}:
        return True
    days = (when.replace(day=1) + timedelta(days=offset) for offset in range(when.day))
    return when.weekday() < 5 and sum(day.weekday() < 5 for day in days) == 5


def intensity(at_ms: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the relative intensity of each flow at each instant.

    Parameters
    ----------
    at_ms
        Shape (n,), epoch milliseconds.

    Returns
    -------
    NDArray[np.float64]
        Shape (n, 4), in the order of `FLOWS`. Over an ordinary week the rows sum to 1 on average.
    """
    local = at_ms + BRASILIA_OFFSET_MS
    day, of_day = np.divmod(local, DAY_MS)
    position = of_day / HOUR_MS - 0.5  # a profile's value stands at the middle of its hour
    hour = np.floor(position).astype(np.int64)
    fraction = (position - hour)[:, None]
    profile = _HOURLY[hour % 24] * (1 - fraction) + _HOURLY[(hour + 1) % 24] * fraction
    days, inverse = np.unique(day, return_inverse=True)
    factors = np.array([_day_factors(int(each)) for each in days])
    return np.asarray(profile * factors[inverse] * np.array(FLOW_SHARES), dtype=np.float64)


def hour_of_day(at_ms: int) -> int:
    """Return the hour in Brasília, 0 to 23."""
    return (at_ms + BRASILIA_OFFSET_MS) // HOUR_MS % 24

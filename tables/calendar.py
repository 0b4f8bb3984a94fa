"""What the calendar says of a timestamp, as columns that expressions may read. Brasilia's clock, UTC-3 all year."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tables.layout import DAY_MS, HOUR_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tables.layout import Array

__all__ = ["BRASILIA_MS", "CALENDAR", "NIGHT_FROM", "NIGHT_TO"]

BRASILIA_MS = -3 * HOUR_MS
"""No daylight saving time since 2019, and Pix began in 2020."""

NIGHT_FROM, NIGHT_TO = 20, 6
"""Hours of the regulatory night (Res. BCB 142)."""


def _turn(timestamp: Array) -> Array:
    """Return the time of day as an angle."""
    return (timestamp + BRASILIA_MS) % DAY_MS * (2.0 * np.pi / DAY_MS)


def hour_sin(timestamp: Array) -> Array:
    """Return the sine of the time of day: 1 at 06:00, -1 at 18:00; timestamps int64 ms, shape (n,)."""
    return np.sin(_turn(timestamp))


def hour_cos(timestamp: Array) -> Array:
    """Return the cosine of the time of day: 1 at midnight, -1 at noon."""
    return np.cos(_turn(timestamp))


def day_of_month(timestamp: Array) -> Array:
    """Return the day of the month, 1 to 31: salaries arrive around the 5th working day."""
    days = (timestamp + BRASILIA_MS) // DAY_MS
    dates = days.astype("datetime64[D]")
    since_first: Array = (dates - dates.astype("datetime64[M]").astype("datetime64[D]")).astype(np.float64)
    return since_first + 1.0


CALENDAR: dict[str, Callable[[Array], Array]] = {
    "hour_sin": hour_sin,
    "hour_cos": hour_cos,
    "day_of_month": day_of_month,
}
"""Columns by name, each a function of the timestamp."""

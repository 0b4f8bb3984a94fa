"""Array code of the expression language: arithmetic, comparisons, and the functions, each documented in one line.

Numbers and timestamps are float64 arrays with NaN for missing. Everything here works value by value, so that a row's
result does not depend on the batch that it came in.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from app.domain.columns import Array, ColumnKind

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ARITHMETIC", "COMPARISONS", "FORMS", "FUNCTIONS", "Function", "finite", "hour"]

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_BRASILIA_OFFSET_MS = -3 * _HOUR_MS
"""No daylight saving time since 2019, and Pix began in 2020."""


def finite(values: Array) -> Array:
    """Return the values with NaN, missing, for whatever is not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def hour(epoch_ms: Array) -> Array:
    """Return the hour of the day in Brasília, 0 to 23."""
    return np.mod(np.floor((epoch_ms + _BRASILIA_OFFSET_MS) / _HOUR_MS), 24.0)


def _weekday(epoch_ms: Array) -> Array:
    # 1970-01-01 was a Thursday: 3 where Monday is 0.
    return np.mod(np.floor((epoch_ms + _BRASILIA_OFFSET_MS) / _DAY_MS) + 3.0, 7.0)


def _clip(values: Array, low: Array, high: Array) -> Array:
    return np.minimum(np.maximum(values, low), high)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the language that is missing where an argument is.

    Parameters
    ----------
    takes
        Kinds of the arguments.
    apply
        Array code, float64 in and out.
    why
        One line for the documentation.
    variadic
        Whether the last argument may be repeated.
    """

    takes: tuple[ColumnKind, ...]
    apply: Callable[..., Array]
    why: str
    variadic: bool = False


_X = ColumnKind.NUMBER
_T = ColumnKind.TIMESTAMP

FUNCTIONS: dict[str, Function] = {
    "min": Function((_X, _X), lambda *xs: reduce(np.minimum, xs), "the least of its arguments", variadic=True),
    "max": Function((_X, _X), lambda *xs: reduce(np.maximum, xs), "the greatest of its arguments", variadic=True),
    "abs": Function((_X,), np.abs, "absolute value"),
    "floor": Function((_X,), np.floor, "the greatest integer not above x"),
    "log1p": Function((_X,), np.log1p, "natural logarithm of 1 + x; missing for x <= -1"),
    "sqrt": Function((_X,), np.sqrt, "square root; missing below 0"),
    "clip": Function((_X, _X, _X), _clip, "x held between low and high"),
    "minutes": Function((_X,), lambda x: x * 60_000.0, "x minutes in milliseconds"),
    "hours": Function((_X,), lambda x: x * float(_HOUR_MS), "x hours in milliseconds"),
    "days": Function((_X,), lambda x: x * float(_DAY_MS), "x days in milliseconds"),
    "hour": Function((_T,), hour, "hour of the day in Brasília, 0 to 23"),
    "weekday": Function((_T,), _weekday, "day of the week in Brasília, Monday 0 to Sunday 6"),
    "length": Function((ColumnKind.LENGTH,), np.positive, "length of a text in characters"),
}

FORMS: dict[str, str] = {
    "missing": "missing(x): whether x has no value; never unknown itself",
    "coalesce": "coalesce(x, default): x, or the default where x is missing",
    "indicator": "indicator(condition): 1 or 0, missing where the condition is unknown",
    "is_night": "is_night(timestamp): from 20:00 to 06:00 in Brasília",
    "listed": 'listed("deny", receiver_account): whether the account, key or device is on the list at the time',
}
"""Functions that treat missing in their own way, or take something else than values."""

ARITHMETIC: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Mod: np.mod,
}


def _differ(left: Array, right: Array) -> Array:
    # Unlike `!=`, False on NaN.
    return (left < right) | (left > right)


COMPARISONS: dict[type[ast.cmpop], tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    ast.Lt: (np.less, np.greater_equal),
    ast.LtE: (np.less_equal, np.greater),
    ast.Gt: (np.greater, np.less_equal),
    ast.GtE: (np.greater_equal, np.less),
    ast.Eq: (np.equal, _differ),
    ast.NotEq: (_differ, np.equal),
}
"""Each comparison with its opposite. Both are False on NaN: that is how "unknown" needs no value of its own."""

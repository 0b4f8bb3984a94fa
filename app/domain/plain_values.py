"""Column values as a person reads and writes them: in explanations, and in the examples of a rule pack."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from app.domain.columns import ColumnKind, ColumnType

__all__ = ["Plain", "plain_value", "stored_value"]

Plain = float | str | bool | list[str] | None


def plain_value(stored: Any, column: ColumnType) -> Plain:  # noqa: ANN401 (any scalar)
    """Return a stored value as a person reads it: names for codes and bits, hexadecimal for a hash, None for missing.

    Parameters
    ----------
    stored
        One element of the column.
    column
        Its type.

    Examples
    --------
    >>> import numpy as np
    >>> from app.domain.columns import transaction_columns
    >>> plain_value(np.uint8(1), transaction_columns()["initiation"])
    'MANU'
    """
    value = stored.item()
    if value == column.missing or value != value:  # noqa: PLR0124 (NaN)
        return None
    return _PLAIN[column.kind](value, column)


def _number(value: float, _column: ColumnType) -> Plain:
    return value


_PLAIN: dict[ColumnKind, Callable[[Any, ColumnType], Plain]] = {
    ColumnKind.NUMBER: _number,
    ColumnKind.LENGTH: _number,
    ColumnKind.TIMESTAMP: _number,
    ColumnKind.CONDITION: lambda value, _: bool(value),
    ColumnKind.ENUM: lambda value, column: column.values[value - 1],
    ColumnKind.FLAGS: lambda value, column: [flag for bit, flag in enumerate(column.values) if value >> bit & 1],
    ColumnKind.TEXT: lambda value, _: str(value.decode("ascii", "replace")),
    ColumnKind.IDENTIFIER: lambda value, _: f"{value:016x}",
}


def stored_value(plain: object, column: ColumnType) -> float | bytes:
    """Return what a column holds for a value as a person writes it: the inverse of `plain_value`.

    Parameters
    ----------
    plain
        None for missing; a name for an enum, names for flags, text; a number, or a time with its zone, for the rest.
        An identifier may be any number or text.
    column
        Its type.

    Raises
    ------
    ValueError
        Where the value is none of the column's.
    """
    if plain is None:
        return math.nan if column.missing is None else column.missing
    try:
        return _STORED[column.kind](plain, column)
    except (TypeError, ValueError, AttributeError):
        expected = f"one of {', '.join(column.values)}" if column.values else f"a {column.kind}"
        raise ValueError(f"expected {expected}, got {plain!r}") from None


def _stored_condition(plain: Any, _column: ColumnType) -> float:  # noqa: ANN401 (checked here)
    if not isinstance(plain, bool):
        raise TypeError
    return int(plain)


def _stored_number(plain: Any, _column: ColumnType) -> float:  # noqa: ANN401 (checked here)
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise TypeError
    return plain


def _stored_timestamp(plain: Any, column: ColumnType) -> float:  # noqa: ANN401 (checked here)
    if not isinstance(plain, datetime):
        return _stored_number(plain, column)
    if plain.tzinfo is None:
        raise ValueError
    return round(plain.timestamp() * 1_000)


_STORED: dict[ColumnKind, Callable[[Any, ColumnType], float | bytes]] = {
    ColumnKind.NUMBER: _stored_number,
    ColumnKind.LENGTH: _stored_number,
    ColumnKind.TIMESTAMP: _stored_timestamp,
    ColumnKind.CONDITION: _stored_condition,
    ColumnKind.ENUM: lambda plain, column: column.values.index(plain) + 1,
    ColumnKind.FLAGS: lambda plain, column: sum({1 << column.values.index(flag) for flag in plain}),
    ColumnKind.TEXT: lambda plain, _: plain.encode("ascii"),
    ColumnKind.IDENTIFIER: lambda plain, _: plain if isinstance(plain, int) else zlib.crc32(plain.encode()) | 1 << 32,
}

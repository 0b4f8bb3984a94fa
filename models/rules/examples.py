"""Examples of rules: values as a person writes them, turned into one row of columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from app.domain.columns import Array, Batch, ColumnKind, ColumnType
from app.domain.compiler import LISTS
from app.domain.plain_values import stored_value

__all__ = ["example_batch"]

EXAMPLE_TIMESTAMP_MS = 1_781_535_600_000
"""2026-06-15, a Monday, 12:00 in Brasília: the time of an example that names none."""


def example_batch(example: Mapping[str, object], columns: Mapping[str, ColumnType]) -> Batch:
    """Return an example as a batch of one row, with the lists that it presumes.

    Parameters
    ----------
    example
        Values by column; a column that is not named is missing, but the timestamp is a Monday noon. `lists` names the
        columns whose identifiers stand on a list: ``{deny: [receiver_account]}``.
    columns
        Types of all columns.

    Raises
    ------
    ValueError
        Where a column is unknown or a value is none of its own.
    """
    plain: dict[str, object] = {"timestamp": EXAMPLE_TIMESTAMP_MS, **example}
    lists = plain.pop("lists", {})
    for name in plain:
        if name not in columns:
            raise ValueError(f"{name}: expected a known column")
    row = {}
    for name, column in columns.items():
        try:
            row[name] = np.array([stored_value(plain.get(name), column)], _dtype(column))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    members = _members(lists, row, columns)
    return Batch(row, 1, lambda name, sort, hashes, _ms: np.isin(hashes, members.get((name, sort), [])))


def _dtype(column: ColumnType) -> str | None:
    if column.kind in (ColumnKind.NUMBER, ColumnKind.TIMESTAMP, ColumnKind.LENGTH, ColumnKind.CONDITION):
        return "f8"
    return "u8" if column.kind is ColumnKind.IDENTIFIER else None


def _members(
    lists: object, row: Mapping[str, Array], columns: Mapping[str, ColumnType]
) -> dict[tuple[str, str], list[int]]:
    if not isinstance(lists, dict) or not set(lists) <= set(LISTS):
        raise ValueError(f"lists: expected columns by list ({', '.join(LISTS)})")
    members: dict[tuple[str, str], list[int]] = {}
    for name, listed in lists.items():
        for column in listed:
            if column not in columns:
                raise ValueError(f"lists: {column}: expected a known column")
            members.setdefault((name, columns[column].identifies), []).extend(row[column].tolist())
    return members

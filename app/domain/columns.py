"""Typed columns of a batch: what the expression language may read, and how a missing value looks in each.

A batch is anything that answers `batch["name"]` with an array of n values: a structured array, a dict, a dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.domain.fields import DERIVED_COLUMNS, FIELDS, MISSING, Field, Kind

__all__ = [
    "Array",
    "Batch",
    "ColumnKind",
    "ColumnType",
    "Columns",
    "Membership",
    "transaction_columns",
]

Array = NDArray[Any]


class Columns(Protocol):
    """Whatever holds columns by name."""

    def __getitem__(self, name: str, /) -> Any:  # noqa: ANN401 (a structured array answers any; Batch checks it)
        """Return the column of that name, shape (n,)."""


Membership = Callable[[str, str, Array, Array], Array]
"""(name of the list, what it holds, hashes (n,), event times in ms (n,)) -> whether each is on it (n,)."""


class ColumnKind(StrEnum):
    """What may be done with a column, or with the value of an expression."""

    NUMBER = "number"
    CONDITION = "condition"  # true, false or unknown
    TIMESTAMP = "timestamp"
    ENUM = "enum"
    FLAGS = "flags"
    TEXT = "text"  # bytes, compared only
    LENGTH = "length of a text"  # the text itself is not kept
    IDENTIFIER = "identifier"  # a keyed hash, compared and looked up only


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of one column.

    Parameters
    ----------
    kind
        What may be done with it.
    missing
        The sentinel that stands for a missing value; a number that is not finite is missing in any case.
    values
        ENUM: the names of the codes 1, 2, ...; FLAGS: the names of the bits 0, 1, ...
    identifies
        IDENTIFIER: what it names (account, key, device, ...). Only identifiers of one sort can be equal.
    """

    kind: ColumnKind
    missing: int | bytes | None = None
    values: tuple[str, ...] = ()
    identifies: str = ""

    def __post_init__(self) -> None:
        if self.missing is None and self.kind in _NEED_SENTINEL:
            raise ValueError(f"a column of kind {self.kind}: expected the sentinel of a missing value, got None")


_NEED_SENTINEL = (ColumnKind.ENUM, ColumnKind.FLAGS, ColumnKind.TEXT, ColumnKind.IDENTIFIER)

_KINDS: dict[Kind, ColumnKind] = {
    Kind.END_TO_END_ID: ColumnKind.TEXT,
    Kind.TIMESTAMP: ColumnKind.TIMESTAMP,
    Kind.CENTAVOS: ColumnKind.NUMBER,
    Kind.ISPB: ColumnKind.TEXT,
    Kind.IDENTIFIER: ColumnKind.IDENTIFIER,
    Kind.TAX_ID: ColumnKind.IDENTIFIER,
    Kind.PIX_KEY: ColumnKind.IDENTIFIER,
    Kind.ENUM: ColumnKind.ENUM,
    Kind.FLAGS: ColumnKind.FLAGS,
    Kind.BOOLEAN: ColumnKind.CONDITION,
    Kind.NUMBER: ColumnKind.NUMBER,
    Kind.COUNT: ColumnKind.NUMBER,
    Kind.TEXT: ColumnKind.LENGTH,
}


def _identifies(transaction_field: Field) -> str:
    if transaction_field.kind is Kind.TAX_ID:
        return "tax_id"
    if transaction_field.kind is Kind.PIX_KEY:
        return "key"
    return "account" if transaction_field.name.endswith("_account") else transaction_field.name.removesuffix("_id")


def _column_type(transaction_field: Field) -> ColumnType:
    kind = _KINDS[transaction_field.kind]
    sentinel = MISSING[transaction_field.kind]
    return ColumnType(
        kind,
        missing=sentinel if isinstance(sentinel, int | bytes) else None,
        values=transaction_field.values,
        identifies=_identifies(transaction_field) if kind is ColumnKind.IDENTIFIER else "",
    )


def transaction_columns() -> dict[str, ColumnType]:
    """Return the types of a transaction's columns, in the order of `TRANSACTION_DTYPE`.

    Examples
    --------
    >>> transaction_columns()["amount_centavos"]
    ColumnType(kind=<ColumnKind.NUMBER: 'number'>, missing=-1, values=(), identifies='')
    """
    columns = {transaction_field.name: _column_type(transaction_field) for transaction_field in FIELDS}
    for name, dtype in DERIVED_COLUMNS:
        columns[name] = (
            ColumnType(ColumnKind.IDENTIFIER, missing=0, identifies=name)
            if dtype == "u8"
            else ColumnType(ColumnKind.NUMBER)
        )
    return columns


def nobody_listed(_list: str, _identifies: str, hashes: Array, _event_ms: Array) -> Array:
    """Answer for empty lists: no identifier is on any."""
    return np.zeros(hashes.shape, np.bool_)


@dataclass(slots=True)
class Batch:
    """n rows under evaluation, shared by expressions that were compiled with the same column types.

    Each column is converted once, and each subexpression evaluated once, whatever the number of expressions.

    Parameters
    ----------
    columns
        The columns by name, each of shape (n,).
    n
        Number of rows.
    listed
        Membership of identifiers in the allow, deny and watch lists.
    """

    columns: Columns
    n: int
    listed: Membership = nobody_listed
    results: dict[str, Array] = field(default_factory=dict)
    _loaded: dict[str, Array] = field(default_factory=dict)

    def load(self, name: str, column: ColumnType) -> Array:
        """Return the column: numbers and timestamps as float64 with NaN for missing, others as they are stored.

        Raises
        ------
        ValueError
            Where the column's shape is not (n,).
        """
        values = self._loaded.get(name)
        if values is None:
            stored = np.asarray(self.columns[name])
            if stored.shape != (self.n,):
                raise ValueError(f"column {name}: expected shape ({self.n},), got {stored.shape}")
            values = self._loaded[name] = _converted(stored, column)
        return values


def _converted(stored: Array, column: ColumnType) -> Array:
    if column.kind not in (ColumnKind.NUMBER, ColumnKind.TIMESTAMP, ColumnKind.LENGTH):
        return np.ascontiguousarray(stored)
    values = stored.astype(np.float64)
    if stored.dtype.kind == "f":
        values[~np.isfinite(values)] = np.nan
    if column.missing is not None:
        values[values == column.missing] = np.nan
    return values

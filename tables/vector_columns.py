"""Vectors and their transactions as columns by name, that a program may also read where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.columns import Array, Columns
from app.domain.program import Addressed, Places, storage_of
from app.domain.program_kernel import Load
from tables.calendar import CALENDAR

__all__ = ["VectorColumns", "VectorLayout"]

_VECTORS, _CALENDAR, _TRANSACTIONS = range(3)
_DATES = tuple(CALENDAR)


class VectorLayout:
    """Where each feature lies in a vector.

    Parameters
    ----------
    names
        Of the features, in the vector's order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.position = {name: position for position, name in enumerate(names)}
        self._places: dict[tuple[tuple[str, ...], np.dtype[np.void]], Places | None] = {}

    def places(self, names: tuple[str, ...], transactions: np.dtype[np.void]) -> Places | None:
        """Return where columns lie; None where one of them is stored in a way of its own."""
        key = (names, transactions)
        if key not in self._places:
            found = [self._place(name, transactions.fields or {}) for name in names]
            readable = all(form is not None for _, _, form in found)
            columns = np.array(found, np.int64).reshape(-1, 3).T if readable else None
            self._places[key] = Places(*columns) if columns is not None else None
        return self._places[key]

    def _place(self, name: str, fields: Mapping[str, Any]) -> tuple[int, int, Load | None]:
        position = self.position.get(name)
        if position is not None:
            return _VECTORS, 4 * position, Load.FLOAT32
        if name in CALENDAR:
            return _CALENDAR, 8 * _DATES.index(name), Load.FLOAT64
        dtype, offset = fields[name][:2]
        return _TRANSACTIONS, offset, storage_of(dtype)


class VectorColumns(Addressed):
    """Features, calendar and transaction by name.

    Parameters
    ----------
    layout
        Of the vectors.
    vectors
        float32, shape (n, features).
    transactions
        `TRANSACTION_DTYPE`, shape (n,), or its columns by name.
    """

    def __init__(self, layout: VectorLayout, vectors: NDArray[np.float32], transactions: Columns) -> None:
        self._layout = layout
        self._vectors = vectors
        self._transactions = transactions
        self._calendar: Array | None = None

    def __getitem__(self, name: str) -> Array:
        position = self._layout.position.get(name)
        if position is not None:
            return self._vectors[:, position]
        if name in CALENDAR:
            return self._dates()[:, _DATES.index(name)]
        return np.asarray(self._transactions[name])

    def places(self, names: tuple[str, ...]) -> Places | None:
        """Return where columns lie; None where the transactions are no structured array."""
        if not isinstance(self._transactions, np.ndarray):
            return None
        return self._layout.places(names, self._transactions.dtype)

    def blocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return address and row stride of each block."""
        blocks = (self._vectors, self._dates(), np.asarray(self._transactions))
        addresses = [block.ctypes.data for block in blocks]
        return np.array(addresses, np.int64), np.array([block.strides[0] for block in blocks], np.int64)

    def _dates(self) -> Array:
        if self._calendar is None:
            times_ms = np.asarray(self._transactions["timestamp"])
            self._calendar = np.stack([column(times_ms) for column in CALENDAR.values()], axis=1).astype(np.float64)
        return self._calendar

"""What a model's training window looked like, column by column, small enough to be kept with the model."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.drift.stability import equal_rows, informed_rows, psi
from tables.layout import DAY_MS, HOUR_MS

__all__ = ["REFERENCE_ARTIFACT", "Column", "DriftError", "Reference", "Sample", "by_column"]

REFERENCE_ARTIFACT = "reference.pxgr"
"""Name of the file in the registry."""

_BINS = 10
_STRETCHES_MS = (HOUR_MS, 6 * HOUR_MS, DAY_MS)
_STRETCH_ROWS = 200
"""Rows of a stretch of the training window that is taken for its like."""
_MAGIC = b"PXGR1"

_Floats = NDArray[np.float64]


class DriftError(ValueError):
    """Bytes that are no reference, or data that none can be made of; the message says what was expected."""


class Sample(NamedTuple):
    """Columns of payments.

    Parameters
    ----------
    names
        Of k features or scores.
    matrix
        Shape (n, k), NaN for missing; compared in single precision.
    times
        Of the payments' events, epoch ms, shape (n,).
    weights
        Payments that each row stands for; None: one each. Shape (n,).
    """

    names: Sequence[str]
    matrix: NDArray[np.floating[Any]]
    times: NDArray[np.int64]
    weights: _Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One feature or score in the training window.

    Parameters
    ----------
    name
        Of the feature or score.
    edges
        float32, ascending, shape (c - 1,): between c cells, each closed above.
    bins
        The bin of each cell, uint8, shape (c,). Of few values each is a bin, and all others share the last one.
    shares
        Of the values that are there, by bin, float64, shape (b,).
    rows
        Independent rows that know as much of the shares as the weighted ones.
    missing, all_rows
        Share of missing values, and the rows that this is known from.
    strayed
        By stretch length in ms: the greatest PSI, and the greatest change of the missing share, of any such stretch of
        the window's later half against the whole window, beyond chance.
    """

    name: str
    edges: NDArray[np.float32]
    bins: NDArray[np.uint8]
    shares: _Floats
    rows: float
    missing: float
    all_rows: float
    strayed: dict[int, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, values: NDArray[Any], weights: _Floats, times: NDArray[np.int64], bins: int) -> Column:
        """Describe values, shape (n,), NaN for missing, of rows with weights and times."""
        values = np.asarray(values, np.float32)
        present = ~np.isnan(values)
        edges, cells = _cells(values[present], weights[present], bins)
        column = cls(name, edges, cells, np.zeros(int(cells.max()) + 1), 0.0, 1.0, equal_rows(weights))
        mass, squares = column.counts(values[present], weights[present])
        total = float(mass.sum())
        if total > 0:
            missing = 1.0 - total / float(weights.sum())
            column = replace(column, shares=mass / total, rows=informed_rows(mass, squares), missing=missing)
        return replace(column, strayed=_strayed(column, values, weights, times))

    @property
    def freedom(self) -> int:
        """Shares that may vary on their own."""
        return max(int((self.shares > 0).sum()) - 1, 1)

    def places(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the bin of each value, none missing."""
        return np.asarray(self.bins[np.searchsorted(self.edges, values, "left")], np.uint8)

    def counts(self, values: NDArray[np.float32], weights: _Floats) -> tuple[_Floats, _Floats]:
        """Return the sums of the weights, and of their squares, by bin; none of the values missing."""
        where = self.places(values)
        mass, squares = (
            np.asarray(np.bincount(where, each, len(self.shares)), np.float64) for each in (weights, weights**2)
        )
        return mass, squares


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A training window, small enough to be kept with the model.

    Parameters
    ----------
    fingerprint
        Of the catalog that gave the features their meaning.
    begin, until
        Of the window, epoch ms.
    columns
        Of features and scores.
    """

    fingerprint: str
    begin: int
    until: int
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, fingerprint: str, samples: Iterable[Sample], bins: int = _BINS) -> Reference:
        """Describe samples, which may be of other rows each: features of what was learned from, scores of what was not.

        Raises
        ------
        DriftError
            When the first sample has no rows.
        """
        columns: list[Column] = []
        span: tuple[int, int] | None = None
        for names, matrix, times, weights in samples:
            if not len(times):
                raise DriftError("reference: expected payments to compare with, got none")
            span = span or (int(times.min()), int(times.max()) + 1)
            mass = np.ones(len(times)) if weights is None else np.asarray(weights, np.float64)
            columns += [
                Column.of(name, values, mass, times, bins)
                for name, values in zip(names, by_column(matrix), strict=True)
            ]
        if span is None:
            raise DriftError("reference: expected a sample at least, got none")
        return cls(fingerprint, *span, tuple(columns))

    def to_bytes(self) -> bytes:
        """Return it as bytes; some 20 kB."""
        columns = [
            _Packed(
                each.name,
                each.edges.astype("<f4").tobytes(),
                each.bins.tobytes(),
                each.shares.astype("<f8").tobytes(),
                each.rows,
                each.missing,
                each.all_rows,
                each.strayed,
            )
            for each in self.columns
        ]
        packed = msgspec.msgpack.encode(_PackedReference(self.fingerprint, self.begin, self.until, columns))
        return _MAGIC + zlib.compress(packed)

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """Read what `to_bytes` wrote.

        Raises
        ------
        DriftError
            For anything else.
        """
        if data[: len(_MAGIC)] != _MAGIC:
            raise DriftError(f"reference: expected bytes that start with {_MAGIC!r}, got {data[: len(_MAGIC)]!r}")
        try:
            packed = _unpack(zlib.decompress(data[len(_MAGIC) :]))
        except (zlib.error, msgspec.DecodeError) as error:
            raise DriftError(f"reference: expected what to_bytes writes, got {error!r}") from error
        columns = tuple(
            Column(
                each.name,
                np.frombuffer(each.edges, "<f4"),
                np.frombuffer(each.bins, np.uint8),
                np.frombuffer(each.shares, "<f8"),
                each.rows,
                each.missing,
                each.all_rows,
                each.strayed,
            )
            for each in packed.columns
        )
        return cls(packed.fingerprint, packed.begin, packed.until, columns)


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    name: str
    edges: bytes
    bins: bytes
    shares: bytes
    rows: float
    missing: float
    all_rows: float
    strayed: dict[int, tuple[float, float]]


class _PackedReference(msgspec.Struct, frozen=True, array_like=True):
    fingerprint: str
    begin: int
    until: int
    columns: list[_Packed]


_unpack = msgspec.msgpack.Decoder(_PackedReference).decode


def by_column(matrix: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return columns as they are read: in a row-wise matrix each value of a column is a cache miss."""
    return np.ascontiguousarray(np.asarray(matrix, np.float32).T)


def _cells(values: NDArray[np.float32], weights: _Floats, bins: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return edges and bins of values, none missing: of few distinct ones a bin each, else quantiles."""
    levels, places = np.unique(values, return_inverse=True)
    if len(levels) <= bins:
        # A cell for each value, and one before each: what falls there was never seen.
        edges = np.column_stack([np.nextafter(levels, np.float32(-np.inf)), levels]).ravel()
        cells = np.full(len(edges) + 1, len(levels))
        cells[1::2] = np.arange(len(levels))
        return edges.astype(np.float32), cells.astype(np.uint8)
    reached = np.cumsum(np.bincount(places, weights, len(levels)))
    wanted = np.arange(1, bins) / bins * reached[-1]
    # A value that is more than a quantile is one edge.
    edges = np.unique(levels[np.searchsorted(reached, wanted * (1.0 - 1e-12))])
    edges = edges[edges < levels[-1]]
    return edges, np.arange(len(edges) + 1, dtype=np.uint8)


def _strayed(
    column: Column, values: NDArray[np.float32], weights: _Floats, times: NDArray[np.int64]
) -> dict[int, tuple[float, float]]:
    """Return how far stretches of the window lie from all of it, by their length; see `Column`.

    Only of its later half: in a young installation the first payments are of accounts without a history.
    """
    present = ~np.isnan(values)
    begin, middle = int(times.min()), (int(times.min()) + int(times.max())) // 2
    shortest = _STRETCHES_MS[0]
    number = (times - begin) // shortest
    count, size = int(number.max()) + 1, len(column.shares)
    here, weights_here = number[present], weights[present]
    mass = np.bincount(here * size + column.places(values[present]), weights_here, count * size).reshape(count, size)
    sums = np.column_stack(  # of the shortest stretches, of which the longer ones are made
        [
            mass,
            np.bincount(here, weights_here**2, count),
            np.bincount(number, weights, count),
            np.bincount(number, minlength=count),
        ]
    )
    found: dict[int, tuple[float, float]] = {}
    for length in _STRETCHES_MS:
        starts = np.arange(0, count, length // shortest)
        stretches = np.add.reduceat(sums, starts)
        whole = (begin + starts * shortest >= middle) & (starts + length // shortest <= count)
        full = whole & (stretches[:, -1] >= _STRETCH_ROWS)
        strays = [_stray(column, each[:size], *each[size:-1].tolist()) for each in stretches[full]]
        if len(strays) > 1:
            found[length] = (max(each[0] for each in strays), max(each[1] for each in strays))
    return found


def _stray(column: Column, mass: _Floats, squares: float, all_mass: float) -> tuple[float, float]:
    """Return PSI, less what chance makes of it on average, and change of the missing share of one stretch."""
    present = float(mass.sum())
    missing = abs(1.0 - present / all_mass - column.missing)
    if present <= 0 or column.rows <= 0:
        return 0.0, missing
    rows = present**2 / squares
    by_chance = column.freedom / rows
    return max(0.0, psi(column.shares, column.rows, mass / present * rows) - by_chance), missing

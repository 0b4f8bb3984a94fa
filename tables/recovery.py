"""How far a recovery is: told to people, probes and Prometheus while a worker reads its state back.

Rows are counted by offsets, since nobody knows beforehand how many of them compaction has left: one that it has removed
counts as read once the reader is past it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["RecoveryMeter", "RecoveryProgress", "TableRecovery"]


class TableRecovery(msgspec.Struct, frozen=True, kw_only=True):
    """One table's part of a recovery."""

    table: str
    partitions: list[int]
    rows_read: int
    rows: int


class RecoveryProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A recovery at one moment; `percent` is of all rows."""

    tables: list[TableRecovery]
    rows_read: int
    rows: int
    percent: float
    rows_per_s: float
    seconds: float


class RecoveryMeter:
    """Measures one recovery.

    Parameters
    ----------
    starts, ends
        By (table, partition), the offset of the last row that is held already, and of the last one to read; the former
        may lie beyond, and -1 stands for none.
    now_s
        When it begins, by the clock that `progress` is asked with.
    """

    def __init__(
        self, starts: Mapping[tuple[str, int], int], ends: Mapping[tuple[str, int], int], now_s: float
    ) -> None:
        self._starts = dict(starts)
        self._ends = {place: max(ends.get(place, -1), start) for place, start in starts.items()}
        self._started_s = now_s

    def progress(self, positions: Mapping[tuple[str, int], int], now_s: float) -> RecoveryProgress:
        """What is read up to the offset `positions` of each place; one that is missing has read nothing."""
        tables = [self._table(name, positions) for name in sorted({table for table, _ in self._starts})]
        rows = sum(each.rows for each in tables)
        rows_read = sum(each.rows_read for each in tables)
        seconds = max(now_s - self._started_s, 0.0)
        return RecoveryProgress(
            tables=tables,
            rows_read=rows_read,
            rows=rows,
            percent=round(100 * rows_read / rows, 1) if rows else 100.0,
            rows_per_s=round(rows_read / seconds, 1) if seconds else 0.0,
            seconds=round(seconds, 3),
        )

    def _table(self, name: str, positions: Mapping[tuple[str, int], int]) -> TableRecovery:
        places = sorted(place for place in self._starts if place[0] == name)
        # Its own claim may be what a reader finds last: then it is beyond the end that was asked for.
        reached = [min(max(positions.get(place, -1), self._starts[place]), self._ends[place]) for place in places]
        return TableRecovery(
            table=name,
            partitions=[partition for _, partition in places],
            rows_read=sum(at - self._starts[place] for at, place in zip(reached, places, strict=True)),
            rows=sum(self._ends[place] - self._starts[place] for place in places),
        )

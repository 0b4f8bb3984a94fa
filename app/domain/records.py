"""A stretch of one partition's log, as the pure code sees it: the transport's batches and the replay's files alike."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["GapError", "Records", "Stretch", "before_offset", "from_offset", "unread"]


class Records(Protocol):
    """Consecutive records of one partition.

    `base` is the position that was read from and `next_offset` the position after it; compaction and control records
    leave holes between them, so the offsets need not be dense.
    """

    @property
    def base(self) -> int: ...  # noqa: D102 - described above
    @property
    def next_offset(self) -> int: ...  # noqa: D102
    @property
    def keys(self) -> Sequence[bytes | None]: ...  # noqa: D102
    @property
    def values(self) -> Sequence[bytes | None]: ...  # noqa: D102
    @property
    def offsets(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def timestamps_ms(self) -> Sequence[int]: ...  # noqa: D102


class GapError(Exception):
    """Records do not start where their predecessors ended: some were lost, repeated or truncated.

    Going on would lose transactions, so the worker must stop and recover.
    """


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records held in lists."""

    base: int
    next_offset: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]


def from_offset(records: Records, offset: int) -> Stretch:
    """What lies at `offset` and after it."""
    first = bisect.bisect_left(records.offsets, offset)
    return Stretch(
        max(records.base, offset),
        records.next_offset,
        records.keys[first:],
        records.values[first:],
        records.offsets[first:],
        records.timestamps_ms[first:],
    )


def before_offset(records: Records, offset: int) -> Stretch:
    """What lies before `offset`."""
    past = bisect.bisect_left(records.offsets, offset)
    return Stretch(
        records.base,
        min(records.next_offset, offset),
        records.keys[:past],
        records.values[:past],
        records.offsets[:past],
        records.timestamps_ms[:past],
    )


def unread(records: Records, position: int | None, topic: str) -> Records | None:
    """What of `records` a reader at `position` has not read yet; None if nothing. Without a position, all of it.

    Raises
    ------
    GapError
        When records between the position and `records` are missing.
    """
    if position is None or records.base == position:
        return records
    if records.next_offset <= position:
        return None
    if records.base > position:
        raise GapError(f"{topic}: expected offset {position}, got {records.base}; records are missing between them")
    return from_offset(records, position)

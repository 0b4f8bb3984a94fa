"""Which ids a partition has already handled, so that a producer's retry is never counted twice.

The memory is bounded in time and in number. It grows in segments, one per checkpoint: a checkpoint writes the
new segment and removes the expired ones, so its cost is that of the new ids alone. Between two checkpoints nothing
expires, so a replay from a checkpoint knows exactly what the first run knew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IdMemory", "transaction_digest"]


@dataclass(slots=True)
class _Segment:
    sequence: int
    base: int  # position of its first row
    rows: NDArray[np.void]
    newest_ms: int


def transaction_digest(rows: NDArray[np.void]) -> NDArray[np.uint64]:
    """What makes two messages with one end_to_end_id the same payment: amount, payer, receiver, acceptance; shape (n,).

    A 64-bit mix of keyed hashes: it tells a retry from another payment under a used id.
    """
    mix = rows["amount_centavos"].astype(np.uint64)
    for column in ("payer_account", "receiver_account", "timestamp"):
        mix = (mix ^ rows[column].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mix ^= mix >> np.uint64(29)
    return mix


class IdMemory:
    """Rows by id, in order of arrival.

    Parameters
    ----------
    dtype
        Of a row; needs the fields `id` (S32) and `timestamp` (int64: the log's clock, in ms. Not
        event time: one payment dated a day ahead must not make the memory forget an hour).
    window_ms
        A row older than this against the newest one expires.
    max_ids
        Rows kept at most, to a segment.
    """

    def __init__(self, dtype: np.dtype[np.void], window_ms: int, max_ids: int) -> None:
        self._dtype = dtype
        self._window_ms = window_ms
        self._max_ids = max_ids
        self._index: dict[bytes, int] = {}
        self._segments: deque[_Segment] = deque()
        self._open: list[NDArray[np.void]] = []
        self._restored: dict[int, bytes] = {}
        self._next_position = 0
        self._next_sequence = 0
        self._newest_ms = 0

    def __len__(self) -> int:
        return len(self._index)

    def first_occurrences(self, ids: Sequence[bytes]) -> NDArray[np.bool_]:
        """Which of a batch's ids are neither known nor repeat an earlier one of the same batch; shape (n,)."""
        known = self._index
        earlier: set[bytes] = set()
        first = np.ones(len(ids), np.bool_)
        for place, one in enumerate(ids):
            if one in known or one in earlier:
                first[place] = False
            else:
                earlier.add(one)
        return first

    def append(self, rows: NDArray[np.void]) -> None:
        """Remember rows whose ids are unknown; shape (n,)."""
        if not len(rows):
            return
        ids = rows["id"].tolist()
        self._index.update(zip(ids, range(self._next_position, self._next_position + len(ids)), strict=True))
        self._next_position += len(ids)
        self._open.append(rows)

    def rows(self, ids: Sequence[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.void]]:
        """Whether each id is known, shape (n,), and the rows of those that are, in their order."""
        positions = [self._index.get(one, -1) for one in ids]
        known = np.array(positions, np.int64) >= 0
        found = np.zeros(int(known.sum()), self._dtype)
        for place, position in enumerate(position for position in positions if position >= 0):
            found[place] = self._row(position)
        return known, found

    def _row(self, position: int) -> np.void:
        for segment in reversed(self._segments):
            if segment.base <= position < segment.base + len(segment.rows):
                return segment.rows[position - segment.base]  # type: ignore[no-any-return]
        base = self._next_position - sum(map(len, self._open))
        for block in self._open:
            if position < base + len(block):
                return block[position - base]  # type: ignore[no-any-return]
            base += len(block)
        raise IndexError(f"position {position} is not in this memory")

    def close_segment(self) -> tuple[list[tuple[int, bytes]], list[int]]:
        """End the open segment at a checkpoint.

        Returns
        -------
        The (sequence, bytes) that the checkpoint must write, and the sequences that it must remove.
        """
        written: list[tuple[int, bytes]] = []
        if self._open:
            rows = np.concatenate(self._open)
            self._add(self._next_sequence, rows)
            written.append((self._next_sequence, rows.tobytes()))
            self._next_sequence += 1
            self._open.clear()
        return written, self._expire()

    def restore_segment(self, sequence: int, content: bytes | None) -> None:
        """Take up one segment of a changelog, None where it was removed; `finish_restore` makes them known."""
        if content is not None:
            self._restored[sequence] = content
            return
        self._restored.pop(sequence, None)
        while self._segments and self._segments[0].sequence <= sequence:  # held since before it was a standby
            self._drop_oldest()

    def finish_restore(self) -> None:
        """Index the segments restored so far, in place of what is held."""
        if not self._restored:
            return
        for segment in self._segments:  # a standby that is promoted, or a partition that comes back, holds some
            self._restored.setdefault(segment.sequence, segment.rows.tobytes())
        self._index.clear()
        self._segments.clear()
        self._open.clear()  # newer than the checkpoint that is restored
        self._next_position = self._next_sequence = self._newest_ms = 0
        for sequence, content in sorted(self._restored.items()):
            rows = np.frombuffer(content, self._dtype)
            ids = rows["id"].tolist()
            self._index.update(zip(ids, range(self._next_position, self._next_position + len(ids)), strict=True))
            self._next_position += len(ids)
            self._add(sequence, rows)
            self._next_sequence = sequence + 1
        self._restored.clear()

    def _add(self, sequence: int, rows: NDArray[np.void]) -> None:
        base = self._next_position - len(rows)
        newest_ms = int(rows["timestamp"].max())
        self._newest_ms = max(self._newest_ms, newest_ms)
        self._segments.append(_Segment(sequence, base, rows, newest_ms))

    def _expire(self) -> list[int]:
        removed = []
        while len(self._segments) > 1:
            oldest = self._segments[0]
            too_old = oldest.newest_ms < self._newest_ms - self._window_ms
            left = self._next_position - oldest.base - len(oldest.rows)  # positions have no holes
            if not too_old and left < self._max_ids:
                break
            removed.append(oldest.sequence)
            self._drop_oldest()
        return removed

    def _drop_oldest(self) -> None:
        oldest = self._segments.popleft()
        for position, one in enumerate(oldest.rows["id"].tolist(), oldest.base):
            if self._index.get(one) == position:
                del self._index[one]

"""Which ids a partition has already handled, so that a producer's retry is never counted twice.

Whether an id is known is decided row by row when it is asked for, from the log alone: from the timestamps of its rows
and from their number. So batches may be split anywhere, checkpoints taken at any time, and a crash may come in between:
the same log gets the same answers. Rows are held in segments, one per checkpoint, and a segment goes once none of its
rows can be known any more: a checkpoint costs what the new ids cost.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IdMemory", "transaction_digest"]

_HEADER = struct.Struct("<4s16sq")
"""Before the rows of a segment: magic, fingerprint of their dtype, the clock before the first one."""

_MAGIC = b"\0ids"
"""No segment without a header starts so: it starts with an id."""

_WITHOUT_HEADER = frozenset({"9ec2dd69729d14d3", "b203e5ce14bf6b4c"})
"""Dtypes of the segments that were written before there was a header; of any other, rows without one are unreadable."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """The rows that one checkpoint wrote."""

    sequence: int
    clock_ms: int  # before the first row
    rows: NDArray[np.void]


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

    The memory's clock is the latest log time of the rows that it took up: it never goes back. An id is known if its row
    was taken up at most `window_ms` ago, by the clock of then and the one of now, and if it is among the last `max_ids`
    rows. For a row that asks, it is now at least that row's own log time. An id that is not known any more is a first
    occurrence again. Where one record is dated a day ahead, what came before it is forgotten, but nothing after it.

    Parameters
    ----------
    dtype
        Of a row; needs the fields `id` (S32) and `timestamp` (int64: the log's clock, in ms. Not
        event time: one payment dated a day ahead must not make the memory forget an hour).
    window_ms
        How long an id is known.
    max_ids
        How many are known at most.
    """

    def __init__(self, dtype: np.dtype[np.void], window_ms: int, max_ids: int) -> None:
        self._dtype = dtype
        self._fingerprint = _fingerprint(dtype)
        self._window_ms = window_ms
        self._max_ids = max_ids
        self._restored: dict[int, bytes] = {}
        self._clear()

    def _clear(self) -> None:
        self._index: dict[bytes, int] = {}  # id to position; positions have no holes
        self._first_position = self._next_position = 0
        self._clock_ms = 0
        self._stamps = array("q")  # the clock when a row came, from the first position on
        self._segments: list[_Segment] = []
        self._next_sequence = 0
        self._open: list[NDArray[np.void]] = []
        self._open_clock_ms = 0  # before the first open row
        self._bases: list[int] = []  # positions where the segments begin, then the open blocks
        self._end = 0  # position behind the last row

    def __len__(self) -> int:
        """Return the number of ids held; the oldest may be known no more."""
        return len(self._index)

    def first_occurrences(
        self, ids: Sequence[bytes], log_ms: NDArray[np.int64], retries: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Tell first occurrences from repeats; the rows of the first ones must then be given to `append`.

        Parameters
        ----------
        ids
            In the log's order.
        log_ms
            Log time of each, shape (n,).
        retries
            Which are repeats whatever is known here, shape (n,); None for none.

        Returns
        -------
        Which are first occurrences, shape (n,); and the position, for `rows`, of the row that each one is or repeats,
        -1 for a retry of which no row is known, shape (n,).
        """
        before = self._next_position
        if retries is None or not retries.any():
            known = self._enter(ids, log_ms)
            if isinstance(known, range):  # all of them are new, as a rule
                return np.ones(len(ids), np.bool_), np.arange(known.start, known.stop)
            return self._told_apart(known, before)
        found: list[int] = []
        begin = 0
        for place in np.flatnonzero(retries).tolist():
            found += self._enter(ids[begin:place], log_ms[begin:place])
            found.append(self._known(ids[place], int(log_ms[place])))
            begin = place + 1
        found += self._enter(ids[begin:], log_ms[begin:])
        return self._told_apart(found, before)

    @staticmethod
    def _told_apart(found: Sequence[int], before: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        positions = np.array(found, np.int64)
        newest = np.maximum.accumulate(np.maximum(positions, before - 1))
        return np.diff(newest, prepend=before - 1) > 0, positions  # a new position is beyond all before it

    def _known(self, one: bytes, at_ms: int) -> int:
        """Position of the row of an id, -1 where none is known."""
        known = self._index.get(one, -1)
        now_ms = max(at_ms, self._clock_ms)
        if known < max(0, self._next_position - self._max_ids):
            return -1
        return known if self._stamps[known - self._first_position] >= now_ms - self._window_ms else -1

    def _enter(self, ids: Sequence[bytes], log_ms: NDArray[np.int64]) -> Sequence[int]:
        """Positions of the rows of ids, a new one where none is known."""
        if not self._index.keys().isdisjoint(ids) or len(set(ids)) < len(ids):
            return self._enter_one_by_one(ids, log_ms.tolist())
        positions = range(self._next_position, self._next_position + len(ids))
        self._index.update(zip(ids, positions, strict=True))
        self._stamps.frombytes(_stamps(log_ms, self._clock_ms).tobytes())
        self._next_position = positions.stop
        self._clock_ms = self._stamps[-1] if self._stamps else self._clock_ms
        return positions

    def _enter_one_by_one(self, ids: Sequence[bytes], times_ms: Sequence[int]) -> list[int]:
        """The same where some may be known: `_known` in a loop, with one look-up an id."""
        stamps, clock_ms, position = self._stamps, self._clock_ms, self._next_position
        start, window_ms, max_ids = self._first_position, self._window_ms, self._max_ids
        index, enter_stamp = self._index, stamps.append
        positions: list[int] = []
        add = positions.append
        for one, at_ms in zip(ids, times_ms, strict=True):
            known = index.setdefault(one, position)
            now_ms = at_ms if at_ms > clock_ms else clock_ms  # noqa: FURB136 - max() costs 0.1 us an id
            if known == position or known < position - max_ids or stamps[known - start] < now_ms - window_ms:
                if known != position:
                    index[one] = known = position
                enter_stamp(now_ms)
                clock_ms = now_ms
                position += 1
            add(known)
        self._clock_ms, self._next_position = clock_ms, position
        return positions

    def append(self, rows: NDArray[np.void]) -> None:
        """Take up the rows of the first occurrences of the last call, in their order; shape (n,).

        Raises
        ------
        ValueError
            When there are more or fewer, or their timestamps are not the log times of then: a recovery, which has the
            rows alone, would read another clock from them.
        """
        expected = self._next_position - self._end
        if len(rows) != expected:
            raise ValueError(f"rows: expected {expected} first occurrences, got {len(rows)}")
        if not expected:
            return
        before = self._end - self._first_position
        clock_ms = self._stamps[before - 1] if before else self._open_clock_ms
        if not np.array_equal(_stamps(rows["timestamp"], clock_ms), np.frombuffer(self._stamps, np.int64)[before:]):
            raise ValueError("rows: expected the log times of the first occurrences, got other timestamps")
        self._open.append(rows)
        self._bases.append(self._end)
        self._end = self._next_position

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.void]:
        """The rows at positions that `first_occurrences` gave since the last checkpoint; shape (n,)."""
        found = np.empty(len(positions), self._dtype)
        blocks = np.array([bisect_right(self._bases, position) - 1 for position in positions.tolist()], np.int64)
        closed = len(self._segments)
        for block in np.unique(blocks).tolist():
            held = self._segments[block].rows if block < closed else self._open[block - closed]
            here = blocks == block
            found[here] = held[positions[here] - self._bases[block]]
        return found

    def close_segment(self) -> tuple[list[tuple[int, bytes]], list[int]]:
        """End the open segment at a checkpoint.

        Returns
        -------
        The (sequence, bytes) that the checkpoint must write, and the sequences that it must remove.
        """
        written: list[tuple[int, bytes]] = []
        if self._open:
            segment = _Segment(self._next_sequence, self._open_clock_ms, np.concatenate(self._open))
            self._segments.append(segment)
            written.append((segment.sequence, self._content(segment)))
            del self._bases[len(self._segments) :]
            self._open.clear()
            self._open_clock_ms = self._clock_ms
            self._next_sequence += 1
        return written, self._drop_forgotten()

    def restore_segment(self, sequence: int, content: bytes | None) -> None:
        """Take up one segment of a changelog, None where it was removed; `finish_restore` makes them known.

        Raises
        ------
        ValueError
            For rows of another dtype.
        """
        if content is not None:
            self._decode(content)
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
            self._restored.setdefault(segment.sequence, self._content(segment))
        self._clear()  # the open rows too: they are newer than the checkpoint that is restored
        for sequence, content in sorted(self._restored.items()):
            clock_ms, rows = self._decode(content)
            segment = _Segment(sequence, max(clock_ms, self._clock_ms), rows)
            self._segments.append(segment)
            self._bases.append(self._end)
            self._end += len(rows)
            self._index.update(zip(rows["id"].tolist(), range(self._next_position, self._end), strict=True))
            self._stamps.frombytes(_stamps(rows["timestamp"], segment.clock_ms).tobytes())
            self._next_position = self._end
            self._next_sequence = sequence + 1
            self._clock_ms = self._open_clock_ms = self._stamps[-1]
        self._restored.clear()

    def _content(self, segment: _Segment) -> bytes:
        return _HEADER.pack(_MAGIC, self._fingerprint.encode(), segment.clock_ms) + segment.rows.tobytes()

    def _decode(self, content: bytes) -> tuple[int, NDArray[np.void]]:
        """The clock before a segment's first row, and its rows."""
        fingerprint, clock_ms, start = "none", 0, 0
        if content.startswith(_MAGIC) and len(content) >= _HEADER.size:
            _, found, clock_ms = _HEADER.unpack_from(content)
            fingerprint, start = found.decode(errors="replace"), _HEADER.size
        elif self._fingerprint in _WITHOUT_HEADER:
            fingerprint = self._fingerprint
        if fingerprint != self._fingerprint or (len(content) - start) % self._dtype.itemsize or len(content) == start:
            raise ValueError(
                f"ids: expected rows of dtype {self._fingerprint}, got {len(content) - start} bytes of {fingerprint}: "
                "another version of pixguard wrote this changelog. Restore it with that version, or let it drain the "
                "source topics and start with a new changelog."
            )
        return clock_ms, np.frombuffer(content, self._dtype, offset=start)

    def _drop_forgotten(self) -> list[int]:
        """Drop the segments of which no row can be known again; their sequences."""
        removed = []
        for segment in self._segments.copy():
            end = self._first_position + len(segment.rows)
            newest_ms = self._stamps[len(segment.rows) - 1]
            if end > self._next_position - self._max_ids and newest_ms >= self._clock_ms - self._window_ms:
                break
            removed.append(segment.sequence)
            self._drop_oldest()
        return removed

    def _drop_oldest(self) -> None:
        oldest = self._segments.pop(0)
        for position, one in enumerate(oldest.rows["id"].tolist(), self._first_position):
            if self._index.get(one) == position:  # else the id came again
                del self._index[one]
        self._first_position += len(oldest.rows)
        del self._bases[0]
        del self._stamps[: len(oldest.rows)]


def _stamps(times_ms: NDArray[np.int64], clock_ms: int) -> NDArray[np.int64]:
    """The clock after each row; shape (n,)."""
    return np.maximum.accumulate(np.maximum(times_ms, np.int64(clock_ms)))


def _fingerprint(dtype: np.dtype[np.void]) -> str:
    """Names, types, shapes and places of the fields, in 16 characters."""
    told = [
        f"{name}:{field.base.str}{field.shape}@{place}" for name, (field, place, *_) in (dtype.fields or {}).items()
    ]
    return hashlib.sha256(",".join(told).encode()).hexdigest()[:16]

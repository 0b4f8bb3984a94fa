"""The records of one partition that one fetch returned."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from faust.types import TP

from app.domain.byte_column import ByteColumn, bytes_of


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Batch:
    """Consecutive records of one partition, as columns of equal length.

    A batch covers the offsets from `base` up to, not including, `next_offset`. It may hold fewer records than that,
    even none: compaction leaves holes, and transaction markers and aborted records take up offsets but carry nothing.
    Batches of a partition follow each other without a gap: each starts at its predecessor's `next_offset`.

    Attributes
    ----------
    tp
        Topic and partition.
    base
        Fetch position at which the batch starts.
    next_offset
        Fetch position after the batch: what is committed once the batch is acknowledged.
    keys, values
        As Kafka holds them; ``None`` is a missing key, or a tombstone's value. Of a fetch: a `ByteColumn`.
    offsets
        Offset of each record, ascending.
    timestamps_ms
        Kafka's timestamp of each record, epoch milliseconds; -1 where it has none.
    generation
        Generation of the consumer group in which the batch was fetched.
    """

    tp: TP
    base: int
    next_offset: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    generation: int

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        # The records stay out of it: a payment's fields must not reach a log.
        return f"<Batch {self.tp.topic}-{self.tp.partition} [{self.base}, {self.next_offset}) records={len(self)}>"

    @classmethod
    def joined(cls, batches: Sequence["Batch"]) -> "Batch":
        """Return consecutive batches of one partition as one.

        Raises
        ------
        ValueError
            If there is none, or they do not follow each other.
        """
        if not batches:
            raise ValueError("batches: expected at least one, got none")
        for batch, following in pairwise(batches):
            if (following.tp, following.base) != (batch.tp, batch.next_offset):
                raise ValueError(f"batches: expected one that follows on {batch!r}, got {following!r}")
        first, last = batches[0], batches[-1]
        if first is last:
            return first
        return cls(
            first.tp,
            first.base,
            last.next_offset,
            ByteColumn.joined([ByteColumn.of(batch.keys) for batch in batches]),
            ByteColumn.joined([ByteColumn.of(batch.values) for batch in batches]),
            [offset for batch in batches for offset in batch.offsets],
            [time for batch in batches for time in batch.timestamps_ms],
            last.generation,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return bytes_of(self.values)

    def trim(self, offset: int) -> "Batch":
        """Return the part of the batch from `offset` on, which may be without records.

        Parameters
        ----------
        offset
            First offset to keep; at most `next_offset`.

        Raises
        ------
        ValueError
            If `offset` lies beyond the batch.
        """
        if offset > self.next_offset:
            raise ValueError(f"offset: expected at most {self.next_offset}, got {offset}")
        first = bisect_left(self.offsets, offset)
        return self._slice(first, len(self), max(offset, self.base), self.next_offset)

    def pieces(self, max_records: int, max_bytes: int) -> Iterator["Batch"]:
        """Yield the batch in parts that follow each other without a gap.

        Parameters
        ----------
        max_records
            Of one part.
        max_bytes
            Of the values of one part, by their mean size.
        """
        max_records = max(1, min(max_records, max_bytes * len(self) // max(1, self.nbytes)))
        if len(self) <= max_records:
            yield self
            return
        base = self.base
        for first in range(0, len(self), max_records):
            last = min(first + max_records, len(self))
            end = self.next_offset if last == len(self) else self.offsets[last]
            yield self._slice(first, last, base, end)
            base = end

    def _slice(self, first: int, last: int, base: int, next_offset: int) -> "Batch":
        part = slice(first, last)
        return Batch(
            self.tp,
            base,
            next_offset,
            self.keys[part],
            self.values[part],
            self.offsets[part],
            self.timestamps_ms[part],
            self.generation,
        )

"""The log in memory: partitions that only grow, record batches appended whole, and owners that are fenced."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.domain.records import Stretch

__all__ = ["FencedError", "Log", "Partition", "TopicPartition"]

TopicPartition = tuple[str, int]


class FencedError(Exception):
    """An append by one who has been succeeded."""


@dataclass(slots=True)
class Partition:
    """Records by offset; None where compaction has left a hole."""

    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    holes: set[int] = field(default_factory=set)
    batch_ends: list[int] = field(default_factory=list)
    """Offsets behind each record batch."""
    epoch: int = 0

    @property
    def end(self) -> int:
        """Offset of the next record."""
        return len(self.values)

    def read(self, first: int, past: int) -> Stretch:
        """Return the records at offsets from `first` on, before `past`."""
        offsets = [offset for offset in range(first, past) if offset not in self.holes]
        return Stretch(
            first,
            past,
            [self.keys[offset] for offset in offsets],
            [self.values[offset] for offset in offsets],
            offsets,
            [self.timestamps_ms[offset] for offset in offsets],
        )

    def compact(self) -> None:
        """Forget records whose key comes again; the newest record batch stays whole, as an active segment does."""
        clean = self.batch_ends[-2] if len(self.batch_ends) > 1 else 0
        newest = {key: offset for offset, key in enumerate(self.keys) if offset not in self.holes}
        self.holes |= {offset for offset in range(clean) if newest.get(self.keys[offset], offset) != offset}


Observer = Callable[[TopicPartition, Stretch], None]


class Log:
    """All topics.

    Parameters
    ----------
    observer
        Is shown each record batch once it is appended.
    """

    def __init__(self, observer: Observer) -> None:
        self.partitions: defaultdict[TopicPartition, Partition] = defaultdict(Partition)
        self.readers: list[Callable[[TopicPartition], None]] = []
        """Are told of each append, after the observer."""
        self._observer = observer
        self._digest = hashlib.blake2b(digest_size=8)

    def append(
        self,
        where: TopicPartition,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        epoch: int | None = None,
    ) -> int:
        """Append one record batch; the offset of its first record.

        Raises
        ------
        FencedError
            When `epoch` is not the partition's any more.
        """
        partition = self.partitions[where]
        if epoch is not None and epoch < partition.epoch:
            raise FencedError(f"{where[0]}-{where[1]}: epoch {epoch} is over, it is {partition.epoch}")
        base = partition.end
        partition.keys += keys
        partition.values += values
        partition.timestamps_ms += timestamps_ms
        partition.batch_ends.append(partition.end)
        self._digest.update(repr((where, base, keys, values, timestamps_ms)).encode())
        self._observer(where, partition.read(base, partition.end))
        for reader in list(self.readers):
            reader(where)
        return base

    def fence(self, where: TopicPartition) -> int:
        """Begin a new epoch: whoever appended under an older one cannot any more."""
        self.partitions[where].epoch += 1
        return self.partitions[where].epoch

    def end(self, where: TopicPartition) -> int:
        """Offset of the next record of a partition."""
        return self.partitions[where].end

    def digest(self) -> str:
        """Name all that was ever appended, and its order."""
        return self._digest.hexdigest()

"""What a worker stands on: a clock that jumps and a disk that fills up. Both outlive its process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from tables.cold import ColdStoreError

from .loop import VirtualLoop

__all__ = ["START_MS", "Disk", "Machine", "MachineClock", "MemoryCold"]

START_MS = 1_790_000_000_000


@dataclass(slots=True)
class MachineClock:
    """Its wall clock is set by others; its monotonic one only goes forward."""

    loop: VirtualLoop
    skew_ms: int = 0

    def now_ms(self) -> int:
        """Wall clock, epoch milliseconds."""
        return START_MS + int(self.loop.now_s * 1000) + self.skew_ms

    def monotonic_s(self) -> float:
        """Seconds since the start of the run."""
        return self.loop.now_s


@dataclass(slots=True)
class Disk:
    """Files by name, left behind by processes that are gone."""

    rng: Random
    faults: Counter[str]
    is_full: bool = False
    is_unreadable: bool = False
    files: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def tear(self) -> None:
        """Damage what a crash has left half written."""
        for rows in self.files.values():
            for key in rows:
                rows[key] = self.rng.randbytes(16)
            self.faults["torn store"] += bool(rows)


class MemoryCold:
    """A `Cold` on a simulated disk; opened empty, since the changelog is the truth.

    Parameters
    ----------
    disk, name
        Where it lies.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk = disk
        self._rows: dict[int, bytes] = {}
        disk.files[name] = self._rows

    def put(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take rows that left memory."""
        if self._disk.is_full:
            self._disk.faults["full disk met"] += 1
            raise ColdStoreError("the disk is full")
        for key, value in zip(keys, values, strict=True):
            self._rows[int.from_bytes(key, "little")] = value
        self._disk.faults["profile left memory"] += len(keys)

    def load(self, hashes: NDArray[np.uint64]) -> dict[int, bytes]:
        """Hand rows over."""
        held = [key for key in hashes.tolist() if key in self._rows]
        if held and self._disk.is_unreadable:
            self._disk.faults["unreadable disk met"] += 1
            raise ColdStoreError("the disk cannot be read")
        return {key: self._rows.pop(key) for key in held}

    def discard(self, hashes: NDArray[np.uint64]) -> None:
        """Forget rows."""
        for key in hashes.tolist():
            self._rows.pop(key, None)

    def close(self) -> None:
        """Give the room back."""
        self._rows.clear()


@dataclass(slots=True)
class Machine:
    """One replica's place: processes come and go on it."""

    name: str
    clock: MachineClock
    disk: Disk
    lives: int = 0

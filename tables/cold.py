"""Where profiles lie that have left memory: a RocksDB per partition, and the policy that sends them there.

The changelog is the truth; this is only room. A row is in memory or here, never in both, so no stale row can return:
`load` hands rows over, and a store opens empty, since recovery brings every row to memory. One store per partition,
because a partition comes and goes as a whole: its rows go with it by removing a folder, and an empty RocksDB costs
6 ms and 0.2 MB.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DbClosedError,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from tables.kernel import cached
from tables.profiles import ColdRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tables.profiles import Profiles

__all__ = ["EXPIRE_MOST", "Cold", "ColdStore", "ColdStoreError", "expire"]

EXPIRE_MOST = 2000
"""Rows that one call of `expire` moves at most, since it holds the event loop."""

HARD_LIMIT_PERCENT = 125
"""Rows in memory, in percent of the bound, from which rows leave that are not idle."""

_FOREVER_MS = 2**62

_ROWS_PER_WRITE = 4096
_WRITE_BUFFER_BYTES = 8 << 20
_BLOCK_CACHE_BYTES = 8 << 20


class ColdStoreError(RuntimeError):
    """Rows cannot be written or read back. Going on would forget payments: the worker must stop and recover."""


@cached
def _contains(places: NDArray[np.uint64], keys: NDArray[np.uint64], found: NDArray[np.bool_]) -> None:
    """Look keys up by open addressing; the keyed hashes are uniform, so their low bits are the place."""
    mask = np.uint64(len(places) - 1)
    for i in range(len(keys)):
        place = keys[i] & mask
        while places[place] != np.uint64(0) and places[place] != keys[i]:
            place = (place + np.uint64(1)) & mask
        found[i] = places[place] == keys[i]


@cached
def _add(places: NDArray[np.uint64], keys: NDArray[np.uint64]) -> int:
    """Enter keys, and count those that were not there. At least one place must stay empty."""
    mask = np.uint64(len(places) - 1)
    new = 0
    for key in keys:
        if key == np.uint64(0):
            continue
        place = key & mask
        while places[place] != np.uint64(0) and places[place] != key:
            place = (place + np.uint64(1)) & mask
        new += places[place] == np.uint64(0)
        places[place] = key
    return new


@cached
def _remove(places: NDArray[np.uint64], keys: NDArray[np.uint64]) -> int:
    """Take keys out, and count those that were there. Later keys of a chain move up, so no tombstone remains."""
    mask = np.uint64(len(places) - 1)
    removed = 0
    for key in keys:
        hole = key & mask
        while places[hole] != np.uint64(0) and places[hole] != key:
            hole = (hole + np.uint64(1)) & mask
        if places[hole] == np.uint64(0):
            continue
        removed += 1
        place = hole
        while True:
            place = (place + np.uint64(1)) & mask
            mover = places[place]
            if mover == np.uint64(0):
                break
            # The mover may fill the hole unless its home lies behind the hole, going round.
            if ((place - (mover & mask)) & mask) >= ((place - hole) & mask):
                places[hole] = mover
                hole = place
        places[hole] = np.uint64(0)
    return removed


class _KeySet:
    """Hashes other than 0, in 16 to 32 bytes each: a Python set takes 70."""

    def __init__(self) -> None:
        self._places = np.zeros(1024, np.uint64)
        self._count = 0
        # Numba compiles at the first call: better now than on a partition's first expiry.
        self.add(self._places[:0])
        self.remove(self._places[:0])
        self.contains(self._places[:0])

    def __len__(self) -> int:
        return self._count

    def contains(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        found = np.empty(len(keys), np.bool_)
        _contains(self._places, keys, found)
        return found

    def add(self, keys: NDArray[np.uint64]) -> None:
        size = len(self._places)
        while 2 * (self._count + len(keys)) > size:
            size *= 2
        if size > len(self._places):
            places = np.zeros(size, np.uint64)
            _add(places, self._places)
            self._places = places
        self._count += _add(self._places, keys)

    def remove(self, keys: NDArray[np.uint64]) -> None:
        self._count -= _remove(self._places, keys)


class Cold(ColdRows, Protocol):
    """Room for profiles beside memory; `ColdStore` is the real one."""

    def put(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take rows that left memory."""

    def close(self) -> None:
        """Give the room back."""


class ColdStore:
    """The cold rows of one partition of one stage: the `cold` of its `Profiles`.

    What an earlier process left is removed: the changelog may have moved on since.

    Parameters
    ----------
    path
        Folder of its own; made where there is none.

    Raises
    ------
    ColdStoreError
        When the folder cannot be written, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = _KeySet()
        self._write_options = WriteOptions()
        # Nothing here outlives the process, so no write-ahead log: it would double what is written.
        self._write_options.disable_wal = True  # type: ignore[method-assign,assignment] # rocksdict's stub is wrong
        with self._failure("open"):
            path.mkdir(parents=True, exist_ok=True)
            Rdict.destroy(str(path))  # fails where another process holds the lock
            self._db = Rdict(str(path), _options())

    def __len__(self) -> int:
        """Return the number of rows held."""
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Bytes on disk; rows of the last moments are still in a buffer of at most 16 MB."""
        with self._failure("measure"), os.scandir(self.path) as entries:
            return sum(entry.stat().st_size for entry in entries)

    def put(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Take rows that left memory, as `Profiles.evict` gives them.

        Raises
        ------
        ColdStoreError
            When they cannot be written, for example since the disk is full. They are lost to this process.
        ValueError
            For a key that is no 64-bit hash, or is 0.
        """
        if not all(len(key) == 8 and any(key) for key in keys):
            raise ValueError("keys: expected 8 bytes each, not all zero")
        hashes = np.frombuffer(b"".join(keys), np.uint64)
        with self._failure(f"write {len(keys)} rows to"):
            for first in range(0, len(keys), _ROWS_PER_WRITE):
                batch = WriteBatch(raw_mode=True)
                past = first + _ROWS_PER_WRITE
                for key, value in zip(keys[first:past], values[first:past], strict=True):
                    batch.put(key, value)
                self._db.write(batch, self._write_options)
        self._held.add(hashes)

    def load(self, hashes: NDArray[np.uint64]) -> dict[int, bytes]:
        """Hand over the rows of those keys that are held, by key: they leave the store.

        A key that is not held costs no look at the disk.

        Parameters
        ----------
        hashes
            uint64, shape (n,), distinct.

        Raises
        ------
        ColdStoreError
            When a row that is held cannot be read.
        """
        held = hashes[self._held.contains(hashes)]
        if not len(held):
            return {}
        keys = _keys(held)
        values: list[bytes | None]
        with self._failure(f"read {len(keys)} rows from"):
            values = self._db.get(keys)  # type: ignore[arg-type,assignment] # the stub knows no list of bytes
        rows: dict[int, bytes] = {}
        for key, value in zip(held.tolist(), values, strict=True):
            if value is None:
                raise ColdStoreError(f"{self.path}: expected row {key:016x}, got none: the folder was tampered with")
            rows[key] = value
        self._forget(held, keys)
        return rows

    def discard(self, hashes: NDArray[np.uint64]) -> None:
        """Forget rows whose newer state came to memory by another way, such as a standby's changelog; shape (n,)."""
        held = hashes[self._held.contains(hashes)]
        if len(held):
            self._forget(held, _keys(held))

    def _forget(self, held: NDArray[np.uint64], keys: Sequence[bytes]) -> None:
        # The set decides what is held; deleting only gives the disk its room back.
        self._held.remove(held)
        batch = WriteBatch(raw_mode=True)
        for key in keys:
            batch.delete(key)
        with self._failure(f"delete {len(keys)} rows from"):
            self._db.write(batch, self._write_options)

    def close(self) -> None:
        """End, and remove the files; a second call does nothing."""
        try:
            self._db.close()
        except DbClosedError:
            return
        except Exception:  # noqa: BLE001, S110 - it could not write its buffer (a full disk); all of it is removed now
            pass
        with self._failure("remove"):
            Rdict.destroy(str(self.path))

    @contextmanager
    def _failure(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # rocksdict raises Exception itself, and DbClosedError
            raise ColdStoreError(
                f"cannot {action} {self.path}: {error}. Give the disk room (or raise max_active_keys, so that less "
                "is written), give each worker a name of its own, and start again: no payment is lost."
            ) from error


def _keys(hashes: NDArray[np.uint64]) -> list[bytes]:
    packed = hashes.tobytes()
    return [packed[at : at + 8] for at in range(0, len(packed), 8)]


def _options() -> Options:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(_BLOCK_CACHE_BYTES))
    options = Options(raw_mode=True)
    options.create_if_missing(True)  # noqa: FBT003 - RocksDB's signature
    options.set_block_based_table_factory(tables)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(1)
    return options


def expire(profiles: Profiles, cold: Cold, *, idle_before_ms: int, max_active: int, most: int = EXPIRE_MOST) -> int:
    """Keep memory bounded: move idle rows to disk once there are more than `max_active`.

    Up to a quarter more than `max_active` rows stay as long as none is idle. Beyond it the idlest leave whatever
    their age, since memory must have a bound. Only rows that the changelog has can leave. A call looks at a part of
    the rows, see `Profiles.evict`: "the idlest" are those of that part.

    Parameters
    ----------
    profiles, cold
        Of one partition; `cold` is the one that `profiles` loads from.
    idle_before_ms
        A row without a later event is idle, epoch milliseconds of event time.
    max_active
        Rows that memory should hold.
    most
        Rows moved by this call at most. Where it returns as many, more may have to go.

    Returns
    -------
    Rows moved.

    Raises
    ------
    ColdStoreError
        When the rows, which have left memory, cannot be written: the worker must stop and recover them.
    """
    moved = _move(profiles, cold, idle_before_ms, max_active, most)
    return moved + _move(profiles, cold, _FOREVER_MS, max_active * HARD_LIMIT_PERCENT // 100, most - moved)


def _move(profiles: Profiles, cold: Cold, idle_before_ms: int, bound: int, most: int) -> int:
    keep = max(bound, len(profiles) - most)
    if len(profiles) <= keep:
        return 0
    keys, values = profiles.evict(idle_before_ms, keep)
    cold.put(keys, values)
    return len(keys)

"""Vectors of one partition of `pix-features` that await a label, in a RocksDB of their own.

The topics are the truth; this is a cache with a position. All that one batch changes is written at once, its position
included, after its outputs are acknowledged: whoever opens the store goes on from its position, and where there is no
store, from the beginning of the topics.

Vectors lie in blobs of consecutive offsets, since a row of its own costs twenty times as much. To find one by its
`end_to_end_id`, an index by the minute that is part of each id holds 64-bit hashes: a search reads a few entries of one
minute, and no vector costs a write of its own. The index outlives the vector: so a payment that was dropped is told
from one that was never decided on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rocksdict import DBCompressionType, Options, Rdict, WriteBatch

from tables.awaiting_rows import Chunk, id_hashes, id_minutes

__all__ = ["CHUNK_ROWS", "Awaiting", "AwaitingStoreError", "Place", "Positions"]

CHUNK_ROWS = 256
"""Rows of a blob: to read one back, all are read."""

_WRITE_BUFFER_BYTES = 16 << 20
_OFFSET = struct.Struct(">Q")
_INDEX_KEY = struct.Struct(">QQ")
_POSITIONS, _VECTORS, _LABELS, _INDEX, _WAITING = b"p", b"v", b"l", b"m", b"w"


class AwaitingStoreError(RuntimeError):
    """The store cannot be read or written. Nothing is lost by removing its folder: it is made again from the topics."""


@dataclass
class Positions:
    """How far a partition is.

    Parameters
    ----------
    features, feedback
        Offsets to read on from; None where nothing was read.
    vector_clock
        Latest time of the vectors read: of each, the earlier of event and decision, epoch milliseconds.
    feedback_clock
        The same of the feedback: the latest time at which something became known.
    matured
        Vectors at lower offsets have matured.
    """

    features: int | None = None
    feedback: int | None = None
    vector_clock: int = 0
    feedback_clock: int = 0
    matured: int = 0

    @property
    def watermark(self) -> int:
        """Time in this partition, epoch milliseconds."""
        return max(self.vector_clock, self.feedback_clock)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a payment was found.

    Parameters
    ----------
    offset
        Of its vector in `pix-features`.
    vector
        A chunk of that one vector; None where it was dropped.
    """

    offset: int
    vector: Chunk | None


class Awaiting:
    """What one partition holds. Changes are seen at once, and on disk with `commit`.

    Parameters
    ----------
    path
        Folder of its own; made where there is none.

    Raises
    ------
    AwaitingStoreError
        When the folder cannot be read or written, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed: dict[bytes, bytes | None] = {}
        with self._failure("open"):
            path.mkdir(parents=True, exist_ok=True)
            self._db = Rdict(str(path), _options())
            stored = self._get(_POSITIONS)
            self.positions = Positions() if stored is None else msgspec.msgpack.decode(stored, type=Positions)

    # -- vectors

    def add(self, chunk: Chunk, kept: NDArray[np.bool_]) -> None:
        """Take up vectors; those that are not `kept` (shape (n,)) are only known to have been decided on."""
        if not len(chunk):
            return
        ids = chunk.rows["id"]
        base = int(chunk.offsets[0])
        hashes, minutes = id_hashes(ids), id_minutes(ids)
        for minute in sorted(set(minutes.tolist())):
            there = minutes == minute
            entry = hashes[there].tobytes() + (chunk.offsets[there] - base).astype("<u4").tobytes()
            self._changed[_INDEX + _INDEX_KEY.pack(minute, base)] = entry
        held = chunk.take(kept)
        for first in range(0, len(held), CHUNK_ROWS):
            self.replace(held.take(slice(first, first + CHUNK_ROWS)))

    def new(self, ids: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Tell which ids (S32, shape (n,)) were never added: workers repeat themselves after a crash."""
        hashes, minutes = id_hashes(ids), id_minutes(ids)
        known = [entry for minute in set(minutes.tolist()) for _, entry, _ in self._entries(minute)]
        order = np.argsort(hashes, kind="stable")
        fresh = np.ones(len(ids), np.bool_)
        fresh[order[1:]] = hashes[order[1:]] != hashes[order[:-1]]
        if known:
            # Not `np.isin`, whose search for distinct values takes ten times as long.
            there = np.sort(np.concatenate(known))
            found = np.minimum(np.searchsorted(there, hashes), len(there) - 1)
            fresh &= there[found] != hashes
        return fresh

    def find(self, end_to_end_id: str) -> Place | None:
        """Find the payment of an id; None where none was decided on that is still remembered."""
        ids = np.array([end_to_end_id.encode()], "S32")
        wanted = id_hashes(ids)[0]
        dropped = None
        for base, hashes, deltas in self._entries(int(id_minutes(ids)[0])):
            for row in np.flatnonzero(hashes == wanted).tolist():
                offset = base + int(deltas[row])
                vector = self.vector(offset)
                if vector is None:
                    dropped = Place(offset, None)
                elif vector.rows["id"][0] == ids[0]:
                    return Place(offset, vector)
        return dropped

    def vector(self, offset: int) -> Chunk | None:
        """The vector at an offset, None where it was dropped."""
        found = self._at_or_before(_VECTORS, offset)
        if found is None:
            return None
        chunk = Chunk.from_bytes(found)
        row = int(np.searchsorted(chunk.offsets, offset))
        if row == len(chunk) or chunk.offsets[row] != offset:
            return None
        return chunk.take(slice(row, row + 1))

    def chunks(self, offset: int = 0) -> Iterator[Chunk]:
        """Yield the blobs, from the one that holds an offset on."""
        first = self._at_or_before(_VECTORS, offset)
        if first is not None:
            chunk = Chunk.from_bytes(first)
            offset = int(chunk.offsets[0])
        for _, packed in self._scan(_VECTORS, _OFFSET.pack(offset)):
            yield Chunk.from_bytes(packed)

    def replace(self, chunk: Chunk) -> None:
        """Write a blob, by its first offset."""
        self._changed[_VECTORS + _OFFSET.pack(int(chunk.offsets[0]))] = chunk.to_bytes()

    def keep(self, chunk: Chunk, kept: NDArray[np.bool_]) -> None:
        """Drop all vectors of a blob but those `kept`, shape (n,)."""
        if kept.all():
            return
        self._changed[_VECTORS + _OFFSET.pack(int(chunk.offsets[0]))] = None
        if kept.any():
            self.replace(chunk.take(kept))

    # -- labels and feedback

    def label(self, offset: int) -> bytes | None:
        """What is known of the payment whose vector is at an offset, packed."""
        return self._get(_LABELS + _OFFSET.pack(offset))

    def labels(self, first: int, last: int) -> dict[int, bytes]:
        """What is known of payments, by offset, between two offsets, both included."""
        found = {}
        for key, packed in self._scan(_LABELS, _OFFSET.pack(first)):
            (offset,) = _OFFSET.unpack(key)
            if offset > last:
                break
            found[offset] = packed
        return found

    def put_label(self, offset: int, packed: bytes) -> None:
        """Keep what is known of a payment."""
        self._changed[_LABELS + _OFFSET.pack(offset)] = packed

    def waiting(self) -> dict[int, bytes]:
        """Feedback that waits for its payment, packed, by its offset in `pix-feedback`."""
        return {_OFFSET.unpack(key)[0]: packed for key, packed in self._scan(_WAITING, b"")}

    def wait(self, offset: int, packed: bytes | None) -> None:
        """Keep feedback until its payment comes, or, with None, no longer."""
        self._changed[_WAITING + _OFFSET.pack(offset)] = packed

    def forget(self, before_ms: int) -> int:
        """Remove what is older, vectors and labels, and the index a day later; the number of vectors removed."""
        removed = 0
        for chunk in self.chunks():
            if chunk.ages[-1] >= before_ms:
                break
            self.keep(chunk, np.zeros(len(chunk), np.bool_))
            for offset in self.labels(int(chunk.offsets[0]), int(chunk.offsets[-1])):
                self._changed[_LABELS + _OFFSET.pack(offset)] = None
            removed += len(chunk)
        day_before = datetime.fromtimestamp(max(0, before_ms / 1000 - 86_400), UTC)
        oldest = _INDEX_KEY.pack(int(day_before.strftime("%Y%m%d%H%M")), 0)
        for key, _ in self._scan(_INDEX, b""):
            if key >= oldest:
                break
            self._changed[_INDEX + key] = None
        return removed

    # -- disk

    def commit(self) -> None:
        """Write all changes and the positions at once.

        Raises
        ------
        AwaitingStoreError
            When they cannot be written, for example since the disk is full.
        """
        batch = WriteBatch(raw_mode=True)
        batch.put(_POSITIONS, msgspec.msgpack.encode(self.positions))
        for key, value in self._changed.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        with self._failure("write to"):
            self._db.write(batch)
        self._changed.clear()

    @property
    def nbytes(self) -> int:
        """Bytes on disk; what came last is in a buffer of at most 16 MB, and in the log beside it."""
        with self._failure("measure"):
            return sum(entry.stat().st_size for entry in self.path.iterdir())

    def close(self) -> None:
        """Close the store; what was not committed is forgotten."""
        with self._failure("close"):
            self._db.close()

    @classmethod
    def remove(cls, path: Path) -> None:
        """Remove a store that is closed, to make it again from the topics."""
        Rdict.destroy(str(path))

    def _entries(self, minute: int) -> Iterator[tuple[int, NDArray[np.uint64], NDArray[np.uint32]]]:
        """Yield what the index has of a minute: first offset, hashes, offsets from there."""
        for key, entry in self._scan(_INDEX, _INDEX_KEY.pack(minute, 0)):
            of_minute, base = _INDEX_KEY.unpack(key)
            if of_minute != minute:
                return
            count = len(entry) // 12
            yield base, np.frombuffer(entry, "<u8", count), np.frombuffer(entry, "<u4", count, 8 * count)

    def _get(self, key: bytes) -> bytes | None:
        if key in self._changed:
            return self._changed[key]
        with self._failure("read from"):
            found: bytes | None = self._db.get(key)
        return found

    def _scan(self, kind: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys (without their kind) and values in order, from `start` on, as they will be once committed."""
        changed = sorted(key for key in self._changed if key.startswith(kind) and key >= kind + start)
        with self._failure("read from"):
            stored = self._db.iter()
            stored.seek(kind + start)
            while True:
                key: bytes | None = stored.key() if stored.valid() else None
                if key is not None and not key.startswith(kind):
                    key = None
                if changed and (key is None or changed[0] <= key):
                    if changed[0] == key:
                        stored.next()
                    key = changed.pop(0)
                    value = self._changed.get(key)
                elif key is None:
                    return
                else:
                    value = stored.value()
                    stored.next()
                if value is not None:
                    yield key[1:], value

    def _at_or_before(self, kind: bytes, offset: int) -> bytes | None:
        """The value with the greatest key up to an offset."""
        key = kind + _OFFSET.pack(offset)
        here = [each for each in self._changed if each.startswith(kind) and each <= key]
        best = max((each for each in here if self._changed[each] is not None), default=None)
        with self._failure("read from"):
            stored = self._db.iter()
            stored.seek_for_prev(key)
            while stored.valid():
                found: bytes = stored.key()
                if not found.startswith(kind) or (best is not None and found <= best):
                    break
                if found not in self._changed:
                    value: bytes = stored.value()
                    return value
                stored.prev()
        return None if best is None else self._changed[best]

    @contextmanager
    def _failure(self, action: str) -> Iterator[None]:
        try:
            yield
        except AwaitingStoreError:
            raise
        except Exception as error:  # rocksdict raises Exception itself, and DbClosedError
            raise AwaitingStoreError(
                f"cannot {action} {self.path}: {error}. Give the disk room, and each process a name of its own; a "
                "folder that was damaged can be removed: it is made again from the topics"
            ) from error


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)  # noqa: FBT003 - RocksDB's signature
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(1)
    return options

"""What a store of vectors holds: packed blobs of them, and how their ids are hashed and dated."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.vectors import VECTOR_ROW_DTYPE

__all__ = ["Chunk", "id_hashes", "id_minutes"]

_CHUNK_HEADER = struct.Struct("<II16s")
_DIGITS = 10 ** np.arange(11, -1, -1, dtype=np.uint64)
# Of SplitMix64's finaliser.
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def id_hashes(ids: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Hash ids (S32, shape (n,)) to 64 bits, the same on every machine; no secret is in it."""
    words = np.ascontiguousarray(ids).view("<u8").reshape(len(ids), 4)
    hashes = np.zeros(len(ids), np.uint64)
    for column in range(4):
        hashes = hashes ^ words[:, column]
        hashes = (hashes ^ (hashes >> _30)) * _FIRST
        hashes = (hashes ^ (hashes >> _27)) * _SECOND
        hashes ^= hashes >> _31
    return hashes


def id_minutes(ids: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """The minute in which each id was minted, read as one number: yyyyMMddHHmm, uint64, shape (n,)."""
    text = np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), 32)
    minutes: NDArray[np.uint64] = ((text[:, 9:21] - 48).astype(np.uint64) * _DIGITS).sum(axis=1, dtype=np.uint64)
    return minutes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Vectors at ascending offsets.

    Parameters
    ----------
    offsets
        In `pix-features`, int64, shape (n,).
    ages
        The instant from which each one's age counts, epoch milliseconds, ascending, int64, shape (n,).
    rows
        `VECTOR_ROW_DTYPE`, shape (n,).
    matrix
        float32, shape (n, features).
    fingerprint
        Of the catalog.
    """

    offsets: NDArray[np.int64]
    ages: NDArray[np.int64]
    rows: NDArray[np.void]
    matrix: NDArray[np.float32]
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.offsets)

    def take(self, which: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Chunk:
        """Return some of the vectors, in order."""
        if not isinstance(which, slice) and which.dtype == np.bool_ and which.all():
            return self
        parts = (self.offsets[which], self.ages[which], self.rows[which], self.matrix[which])
        return Chunk(*parts, self.fingerprint)

    def to_bytes(self) -> bytes:
        """Pack it, for `from_bytes`."""
        header = _CHUNK_HEADER.pack(len(self), self.matrix.shape[1], self.fingerprint.encode())
        return b"".join(
            (
                header,
                self.offsets.tobytes(),
                self.ages.tobytes(),
                np.ascontiguousarray(self.rows).tobytes(),
                np.ascontiguousarray(self.matrix, "<f4").tobytes(),
            )
        )

    @classmethod
    def from_bytes(cls, packed: bytes) -> Chunk:
        """Read what `to_bytes` packed."""
        count, features, fingerprint = _CHUNK_HEADER.unpack_from(packed)
        at = _CHUNK_HEADER.size
        offsets = np.frombuffer(packed, "<i8", count, at)
        ages = np.frombuffer(packed, "<i8", count, at + 8 * count)
        rows = np.frombuffer(packed, VECTOR_ROW_DTYPE, count, at + 16 * count)
        at += (16 + VECTOR_ROW_DTYPE.itemsize) * count
        matrix = np.frombuffer(packed, "<f4", count * features, at).reshape(count, features)
        return cls(offsets, ages, rows, matrix, fingerprint.rstrip(b"\0").decode())

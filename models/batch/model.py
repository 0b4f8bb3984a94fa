"""The batch model as workers load it: ONE file of arrays and plain values, checked, with nothing in it that runs."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.calibration import Calibration, CalibrationError
from models.trees.forest import Forest, ForestError

__all__ = ["ARTIFACT", "BatchModel", "BatchModelError"]

ARTIFACT = "model.pxgm"
"""Name of the file in the registry."""

_MAGIC = b"PXGM"
_FORMAT = 1
_PREFIX = struct.Struct("<4sHI")  # magic, format, bytes of the header
_CHECKSUM = struct.Struct("<I")
_MOST_VERSION = 2**32 - 1


class BatchModelError(ValueError):
    """Bytes that hold no batch model, or one that this version cannot read; says what was expected."""


class _Header(msgspec.Struct, frozen=True, omit_defaults=True):
    version: int
    name: str
    fingerprint: str
    trained_until: int
    calibration: dict[str, Any]
    # It changes no score: versions that do not know it read the others and pass over it, so the format is the same.
    usual: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class BatchModel:
    """A trained forest and what makes a probability of its margin.

    Parameters
    ----------
    version
        Number in the registry, which gives it; 0 before.
    name
        Registered name.
    fingerprint
        Of the feature set that it reads, as messages carry it.
    forest
        The trees.
    calibration
        From margins to probabilities.
    trained_until
        Epoch ms: it has learned from nothing that happened later.
    usual
        Median of each feature in what it has learned from, NaN where it was always missing; float32, shape (features,).
        No score reads it, only sentences do. None in a model that was trained before models had it.
    """

    version: int
    name: str
    fingerprint: str
    forest: Forest
    calibration: Calibration
    trained_until: int
    usual: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.version <= _MOST_VERSION:
            raise BatchModelError(f"batch model: version: expected 0 to {_MOST_VERSION}, got {self.version}")
        least = int(self.forest.features.max(initial=-1)) + 1
        if self.usual is not None and (self.usual.ndim != 1 or len(self.usual) < least):
            raise BatchModelError(
                f"batch model: usual: expected one value for each of {least} features at least, as the trees read "
                f"them, got shape {self.usual.shape}"
            )

    def probabilities(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return calibrated probabilities of fraud.

        Parameters
        ----------
        matrix
            float32, shape (n, features), NaN for missing.

        Returns
        -------
        In [0, 1], shape (n,).

        Raises
        ------
        ForestError
            For another type or fewer features than the forest reads.
        """
        return self.calibration.apply(self.forest.margins(matrix))

    def numbered(self, version: int) -> BatchModel:
        """Return the same model under the number that the registry gave it."""
        return replace(self, version=version)

    def to_bytes(self) -> bytes:
        """Return it as bytes, with format and checksum."""
        usual = b"" if self.usual is None else self.usual.astype("<f4").tobytes()
        header = msgspec.msgpack.encode(
            _Header(self.version, self.name, self.fingerprint, self.trained_until, self.calibration.to_dict(), usual)
        )
        body = _PREFIX.pack(_MAGIC, _FORMAT, len(header)) + header + self.forest.to_bytes()
        return body + _CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> BatchModel:
        """Read what `to_bytes` wrote.

        Raises
        ------
        BatchModelError
            For anything else.
        """
        if len(data) < _PREFIX.size + _CHECKSUM.size:
            raise BatchModelError(
                f"batch model: expected {_PREFIX.size + _CHECKSUM.size} bytes at least, got {len(data)}"
            )
        magic, version, length = _PREFIX.unpack_from(data)
        if (magic, version) != (_MAGIC, _FORMAT):
            raise BatchModelError(
                f"batch model: expected {_MAGIC!r} of format {_FORMAT}, got {magic!r} of format {version}"
            )
        body, (wanted,) = data[: -_CHECKSUM.size], _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)
        if (checksum := zlib.crc32(body)) != wanted:
            raise BatchModelError(
                f"batch model: expected checksum {wanted:08x}, got {checksum:08x}: the bytes are damaged"
            )
        try:
            header = _decode(body[_PREFIX.size : _PREFIX.size + length])
            forest = Forest.from_bytes(body[_PREFIX.size + length :])
            calibration = Calibration.from_dict(header.calibration)
            usual = np.frombuffer(header.usual, "<f4").astype(np.float32) if header.usual else None
        except (ValueError, msgspec.DecodeError, ForestError, CalibrationError) as error:
            raise BatchModelError(f"batch model: {error}") from error
        return cls(header.version, header.name, header.fingerprint, forest, calibration, header.trained_until, usual)


_decode = msgspec.msgpack.Decoder(_Header).decode

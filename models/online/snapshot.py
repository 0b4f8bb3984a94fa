"""One state of the online model as scorers get it: arrays and numbers, nothing of River's."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.calibration import Calibration, CalibrationError
from models.trees.forest import Forest, ForestError

__all__ = ["SHARE_FLOOR", "OnlineSnapshot", "OnlineSnapshotError", "share_log_odds"]

SHARE_FLOOR = 1e-4
"""A leaf without a fraud is no proof of honesty: shares are kept so far from 0 and 1 before their odds are taken."""

_FORMAT = "pixguard online 1"


class OnlineSnapshotError(ValueError):
    """Bytes that are no snapshot of the online model."""


def share_log_odds(shares: ArrayLike) -> NDArray[np.float64]:
    """Return the log-odds of the forest's answers, float64, shape (n,): what the calibration is applied to."""
    kept = np.clip(np.asarray(shares, np.float64), SHARE_FLOOR, 1.0 - SHARE_FLOOR)
    return np.asarray(np.log(kept) - np.log1p(-kept), np.float64)


@dataclass(frozen=True, slots=True)
class OnlineSnapshot:
    """The online model after so many labels.

    Parameters
    ----------
    version
        Counts up from 1; what decisions name.
    fingerprint
        Of the feature set that it reads, as messages carry it.
    river_version
        Of the library that it was learned with.
    label_watermark
        The latest `known_at` among its labels, epoch milliseconds; 0 before the first.
    labels, positives
        How many labels it was taught by, before sampling, and how many of them were frauds.
    forest
        On raw vectors; it answers as River does, at the rate of frauds that it was taught.
    calibration
        From `share_log_odds` of the forest's answer to a probability at the true rate.
    prior
        Share of frauds among all labels: what takes the batch model's place in the blend where there is none.
    blend_weight
        Of the online model in its blend with a batch model, in [0, 1]; 0 until it has earned more on payments that a
        batch model had scored.
    alone_weight
        The same where there is no batch model, against `prior`; so a first batch model does not begin under the weight
        that was earned without one.
    metrics
        Of the last matured labels, each scored before it was learned; see `models.online.prequential`.
    drifts
        How often its loss has risen by more than chance.
    """

    version: int
    fingerprint: str
    river_version: str
    label_watermark: int
    labels: int
    positives: int
    forest: Forest
    calibration: Calibration
    prior: float
    blend_weight: float
    alone_weight: float
    metrics: dict[str, float] = field(default_factory=dict)
    drifts: int = 0

    def scores(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of fraud of raw vectors (float32, shape (n, features)); float64, shape (n,)."""
        return self.calibration.apply(share_log_odds(self.forest.probabilities(matrix)))

    def to_bytes(self) -> bytes:
        """Return the message of `pix-online-model`: the same snapshot, the same bytes."""
        return msgspec.msgpack.encode(
            _Wire(
                _FORMAT,
                self.version,
                self.fingerprint,
                self.river_version,
                self.label_watermark,
                self.labels,
                self.positives,
                self.forest.to_bytes(),
                self.calibration.slope,
                self.calibration.intercept,
                self.prior,
                self.blend_weight,
                self.alone_weight,
                dict(sorted(self.metrics.items())),
                self.drifts,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> OnlineSnapshot:
        """Read what `to_bytes` has written; nothing in it is executed.

        Raises
        ------
        OnlineSnapshotError
            For anything else.
        """
        try:
            wire = _decode(data)
            if wire.format != _FORMAT:
                raise OnlineSnapshotError(f"online model: $.format: expected {_FORMAT!r}, got {wire.format!r}")
            return cls(
                wire.version,
                wire.fingerprint,
                wire.river_version,
                wire.label_watermark,
                wire.labels,
                wire.positives,
                Forest.from_bytes(wire.forest),
                Calibration("logistic", wire.slope, wire.intercept),
                wire.prior,
                wire.blend_weight,
                wire.alone_weight,
                wire.metrics,
                wire.drifts,
            )
        except (msgspec.DecodeError, ForestError, CalibrationError) as error:
            raise OnlineSnapshotError(f"online model: expected a snapshot, got {len(data)} bytes: {error}") from error


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    format: str
    version: int
    fingerprint: str
    river_version: str
    label_watermark: int
    labels: int
    positives: int
    forest: bytes
    slope: float
    intercept: float
    prior: float
    blend_weight: float
    alone_weight: float
    metrics: dict[str, float]
    drifts: int


_decode = msgspec.msgpack.Decoder(_Wire).decode

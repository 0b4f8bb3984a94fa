"""The last matured labels, each with what was thought of its payment before it was learned: an honest test, for free.

From this window come the online model's metrics, its calibration, and the weight that it has earned in the blend.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.calibration import Calibration, fit_logistic
from models.quality.evaluation import average_precision, log_loss, recall_at

__all__ = [
    "ALONE_MOST",
    "BLEND_MOST",
    "RECENT_LABELS",
    "PrequentialWindow",
    "Seen",
    "blend_log_odds",
    "calibrate",
    "earned_weight",
    "log_odds",
]

BLEND_MOST = 0.3
"""Most that the online model's weight may be beside a batch model, which is checked before it serves; the online model
is not. Above, it hurt simulated streams more than it helped (`pixguard evaluate`)."""

ALONE_MOST = 0.7
"""The same where there is no batch model."""

RECENT_LABELS = 5_000
"""By which a weight is earned: what an older state of the model was worth says little."""

_STEPS = 15
_FEWEST_FRAUDS = 25
"""Below, the window decides nothing: neither a calibration nor a weight."""
_NOISE = 1.645
"""Standard errors by which the blend must beat the base alone: one in twenty windows of pure noise would."""
_CHANCE_FLOOR = 1e-6

_Floats = NDArray[np.float64]


class Seen(NamedTuple):
    """Columns of the window, oldest first; float64, shape (n,).

    Parameters
    ----------
    labels, weights
        1 or 0, and how many payments each stands for.
    outputs
        Log-odds of the online model's answer as it stood, not calibrated.
    online
        The same as a probability, by the calibration as it stood.
    base
        The batch model's recorded probability, or the share of frauds known so far where there was none.
    batch
        1 where `base` is the batch model's.
    """

    labels: _Floats
    weights: _Floats
    outputs: _Floats
    online: _Floats
    base: _Floats
    batch: _Floats

    def where(self, chosen: NDArray[np.bool_]) -> Seen:
        """Return some rows; mask of shape (n,)."""
        return Seen(*(column[chosen] for column in self))


class PrequentialWindow:
    """The last `size` scored labels, as a ring.

    Parameters
    ----------
    size
        Labels that are kept.
    """

    def __init__(self, size: int) -> None:
        self._rows = np.zeros((size, len(Seen._fields)))
        self._count = 0

    def add(self, label: float, weight: float, output: float, online: float, base: float, batch: float) -> None:
        """Take in one label; see `Seen`."""
        self._rows[self._count % len(self._rows)] = (label, weight, output, online, base, batch)
        self._count += 1

    def recent(self, count: int) -> Seen:
        """Return the last `count` labels of the window."""
        return Seen(*(column[-count:] for column in self.seen))

    @property
    def seen(self) -> Seen:
        """What is in the window."""
        at = self._count % len(self._rows)
        rows = np.roll(self._rows, -at, axis=0) if self._count > len(self._rows) else self._rows[: self._count]
        return Seen(*rows.T.copy())

    def metrics(self, blend_weight: float, alone_weight: float) -> dict[str, float]:
        """Return how good the online model, the base and their blend were on the window; NaN where it cannot tell.

        Parameters
        ----------
        blend_weight, alone_weight
            Of the online model beside a batch model, and where there was none.
        """
        seen = self.seen
        found = {"window_labels": float(len(seen.labels)), "window_positives": float(seen.labels.sum())}
        if not len(seen.labels):
            return found
        weights = np.where(seen.batch > 0, blend_weight, alone_weight)
        blend = 1.0 / (1.0 + np.exp(-blend_log_odds(seen.base, seen.online, weights)))
        for name, chances in (("online", seen.online), ("base", seen.base), ("blend", blend)):
            found[f"{name}_average_precision"] = average_precision(seen.labels, chances, seen.weights)
            found[f"{name}_log_loss"] = log_loss(seen.labels, chances, seen.weights)
            found[f"{name}_recall_at_1pct"] = recall_at(seen.labels, chances, 0.01, seen.weights)
        found["batch_share"] = float(seen.batch.mean())
        return found


def log_odds(chances: ArrayLike) -> _Floats:
    """Return log-odds of probabilities, finite; float64, shape (n,)."""
    kept = np.clip(np.asarray(chances, np.float64), _CHANCE_FLOOR, 1.0 - _CHANCE_FLOOR)
    return np.asarray(np.log(kept) - np.log1p(-kept), np.float64)


def blend_log_odds(base: ArrayLike, online: ArrayLike, weight: float | _Floats) -> _Floats:
    """Return the log-odds of the blend of two probabilities; float64, shape (n,)."""
    return (1.0 - weight) * log_odds(base) + weight * log_odds(online)


def calibrate(seen: Seen, kept_share: float) -> Calibration:
    """Return the map from the online model's log-odds to a probability at the true rate of frauds.

    Parameters
    ----------
    seen
        The window.
    kept_share
        Of the honest payments, how many were taught. The odds that a model learns are too high by its inverse; until
        the window holds frauds enough for a fit, that alone is put right.
    """
    if _tells(seen):
        return fit_logistic(seen.outputs, seen.labels, seen.weights)
    return Calibration("logistic", 1.0, float(np.log(kept_share)))


def earned_weight(seen: Seen, most: float = BLEND_MOST) -> float:
    """Return the weight of the online model that would have lost least (log loss) on the window, 0 to `most`.

    It is 0 unless the blend beats the base alone by more than noise: by 1.645 standard errors of the paired difference.
    """
    if not _tells(seen):
        return 0.0
    base, online = log_odds(seen.base), log_odds(seen.online)
    mass = seen.weights / seen.weights.sum()
    losses = []
    weights = np.linspace(0.0, most, _STEPS)
    for weight in weights:
        blend = (1.0 - weight) * base + weight * online
        losses.append(np.logaddexp(0.0, blend) - seen.labels * blend)
    best = int(np.argmin([float(mass @ loss) for loss in losses]))
    gain = losses[0] - losses[best]
    mean = float(mass @ gain)
    error = float(np.sqrt(np.sum((mass * (gain - mean)) ** 2)))
    return float(weights[best]) if mean > _NOISE * error else 0.0


def _tells(seen: Seen) -> bool:
    frauds = int(seen.labels.sum())
    return frauds >= _FEWEST_FRAUDS and len(seen.labels) - frauds >= _FEWEST_FRAUDS

"""From a model's output to a probability that keeps its word: strictly increasing maps, so no ranking changes.

Logistic (Platt) has two numbers and needs little data. Isotonic follows any shape: its steps are joined on the scale
of log-odds, and it continues beyond them with the logistic slope.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.quality.evaluation import log_loss

__all__ = ["Calibration", "CalibrationError", "fit_calibration", "fit_isotonic", "fit_logistic", "pool_adjacent"]

_Floats = NDArray[np.float64]
_FOLDS = 5
_HAIR = 1e-6
"""Log-odds by which one end of a step lies above the other, so that no two outputs become equal."""
_LEAST_SLOPE = 1e-6
"""A model that ranks the wrong way round is flattened, not turned: what calibrates must not hide that."""


class CalibrationError(ValueError):
    """Data from which no calibration follows, or a description that is none."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A strictly increasing map from a model's output (margin or probability) to a probability.

    Parameters
    ----------
    kind
        "identity" (outputs are probabilities already), "logistic" or "isotonic".
    slope, intercept
        Of the logistic map; the slope also of the isotonic one beyond its knots.
    knots, log_odds
        Of the isotonic map: outputs, and the log-odds that they stand for, both increasing; shape (k,).

    Examples
    --------
    >>> Calibration("logistic", slope=2.0, intercept=-1.0).apply([0.5]).tolist()
    [0.5]
    """

    kind: str = "identity"
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[float, ...] = field(default=(), repr=False)
    log_odds: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.kind not in ("identity", "logistic", "isotonic"):
            raise CalibrationError(f"calibration: expected identity, logistic or isotonic, got {self.kind!r}")
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0):
            raise CalibrationError(f"calibration: expected a finite slope above 0, got {self.slope}, {self.intercept}")
        if self.kind == "isotonic":
            rising = all(np.isfinite(side).all() and (np.diff(side) > 0).all() for side in (self.knots, self.log_odds))
            if not self.knots or len(self.knots) != len(self.log_odds) or not rising:
                raise CalibrationError("calibration: expected as many knots as log_odds, both finite and rising")

    def apply(self, outputs: ArrayLike) -> _Floats:
        """Return probabilities; float64, shape (n,) in and out."""
        values = np.asarray(outputs, np.float64)
        if self.kind == "identity":
            return np.clip(values, 0.0, 1.0)
        if self.kind == "logistic":
            return _sigmoid(self.slope * values + self.intercept)
        inside = np.clip(values, self.knots[0], self.knots[-1])
        return _sigmoid(np.interp(inside, self.knots, self.log_odds) + self.slope * (values - inside))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for an artifact or a snapshot."""
        return {
            "kind": self.kind,
            "slope": self.slope,
            "intercept": self.intercept,
            "knots": list(self.knots),
            "log_odds": list(self.log_odds),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Calibration:
        """Read what `to_dict` has written.

        Raises
        ------
        CalibrationError
            For anything else.
        """
        try:
            return cls(
                str(plain["kind"]),
                float(plain["slope"]),
                float(plain["intercept"]),
                tuple(map(float, plain["knots"])),
                tuple(map(float, plain["log_odds"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"calibration: expected what to_dict writes, got {error!r}") from error


def fit_calibration(outputs: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Calibration:
    """Return the logistic or the isotonic map, whichever loses less (log loss) on rows that it was not fitted to.

    Parameters
    ----------
    outputs
        Of a model, on rows that it has not learned from; float64, shape (n,).
    labels, weights
        1 fraud, 0 none, and the rows' weights; shape (n,).

    Raises
    ------
    CalibrationError
        Without a fraud, or without a row that is none.
    """
    values, truth, mass = _checked(outputs, labels, weights)
    losses = dict.fromkeys((fit_logistic, fit_isotonic), 0.0)
    # Every fifth fraud and every fifth of the others, in order: each fold has its share of both, without a seed.
    fold = np.empty(len(truth), np.int64)
    for side in (truth > 0, truth <= 0):
        fold[side] = np.arange(int(side.sum())) % _FOLDS
    for number in range(_FOLDS):
        out, rest = fold == number, fold != number
        if not _both(truth[out]) or not _both(truth[rest]):
            return fit_logistic(values, truth, mass)  # too few frauds to let the data choose a shape
        for fit in losses:
            chances = fit(values[rest], truth[rest], mass[rest]).apply(values[out])
            losses[fit] += log_loss(truth[out], chances, mass[out]) * float(mass[out].sum())
    return min(losses, key=lambda fit: losses[fit])(values, truth, mass)


def fit_logistic(outputs: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Calibration:
    """Return the logistic map of greatest likelihood (Newton's method, with Platt's smoothed targets).

    Raises
    ------
    CalibrationError
        Without a fraud, or without a row that is none.
    """
    values, truth, mass = _checked(outputs, labels, weights)
    frauds, others = float(mass[truth > 0].sum()), float(mass[truth <= 0].sum())
    target = np.where(truth > 0, (frauds + 1.0) / (frauds + 2.0), 1.0 / (others + 2.0))
    centre, spread = float(np.average(values, weights=mass)), float(values.std()) or 1.0
    columns = np.column_stack([(values - centre) / spread, np.ones(len(values))])
    solution = np.array([0.0, float(np.log((frauds + 1.0) / (others + 1.0)))])

    def loss(candidate: _Floats) -> float:
        line = columns @ candidate
        return float(np.sum(mass * (np.logaddexp(0.0, line) - target * line)))

    for _ in range(100):
        chances = _sigmoid(columns @ solution)
        gradient = columns.T @ (mass * (chances - target))
        curvature = (columns * (mass * chances * (1.0 - chances))[:, None]).T @ columns
        step = np.linalg.solve(curvature + 1e-9 * np.trace(curvature) * np.eye(2), gradient)
        # Newton overshoots where frauds are rare: halve until the loss falls.
        before, size = loss(solution), 1.0
        while loss(solution - size * step) > before and size > 1e-8:
            size /= 2.0
        solution = solution - size * step
        if float(np.abs(size * step).max()) < 1e-10:
            break
    slope = max(float(solution[0]) / spread, _LEAST_SLOPE)
    return Calibration("logistic", slope, float(solution[1]) - slope * centre)


def fit_isotonic(outputs: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Calibration:
    """Return the increasing map of least squares: steps, on which equal risks keep their order by a hair.

    Raises
    ------
    CalibrationError
        Without a fraud, or without a row that is none.
    """
    values, truth, mass = _checked(outputs, labels, weights)
    first, last, means = pool_adjacent(values, truth, mass)
    # A step without a fraud is no proof of impossibility: half a fraud may be in it.
    least = 0.5 / (float(mass.sum()) + 1.0)
    means = np.clip(means, least, 1.0 - least)
    knots = np.column_stack([first, last]).ravel()
    log_odds = np.repeat(np.log(means) - np.log1p(-means), 2)
    kept = np.concatenate(([True], np.diff(knots) > 0))  # a step of one value has one knot
    knots, log_odds = knots[kept], log_odds[kept] + _HAIR * np.arange(int(kept.sum()))
    slope = fit_logistic(values, truth, mass).slope
    return Calibration("isotonic", slope, 0.0, tuple(knots.tolist()), tuple(log_odds.tolist()))


def pool_adjacent(values: _Floats, truth: _Floats, mass: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """Return first value, last value and mean label of each step of the isotonic regression (pool adjacent violators).

    All float64, shape (n,) in, (steps,) out.
    """
    levels, group = np.unique(values, return_inverse=True)
    masses = np.bincount(group, mass, len(levels))
    frauds = np.bincount(group, mass * truth, len(levels))
    steps: list[tuple[float, float, float, float]] = []  # first, last, mass, frauds
    for level, here, bad in zip(levels.tolist(), masses.tolist(), frauds.tolist(), strict=True):
        step = (level, level, here, bad)
        while steps and steps[-1][3] * step[2] >= step[3] * steps[-1][2]:
            first, _, before, worse = steps.pop()
            step = (first, step[1], before + step[2], worse + step[3])
        steps.append(step)
    pooled = np.array(steps)
    return pooled[:, 0], pooled[:, 1], pooled[:, 3] / pooled[:, 2]


def _checked(outputs: ArrayLike, labels: ArrayLike, weights: ArrayLike | None) -> tuple[_Floats, _Floats, _Floats]:
    values, truth = np.asarray(outputs, np.float64), np.asarray(labels, np.float64)
    mass = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if not values.shape == truth.shape == mass.shape or not np.isfinite(values).all():
        raise CalibrationError("calibration: expected finite outputs, labels and weights of one length")
    if not _both(truth):
        raise CalibrationError(
            f"calibration: expected frauds and others to calibrate on, got {int((truth > 0).sum())} frauds of "
            f"{len(truth)} rows; use a longer stretch"
        )
    return values, truth, mass


def _both(truth: _Floats) -> bool:
    frauds = int((truth > 0).sum())
    return 0 < frauds < len(truth)


def _sigmoid(values: _Floats) -> _Floats:
    # Exact for tiny probabilities too, and without an overflow for any.
    return np.asarray(np.exp(-np.logaddexp(0.0, -values)), np.float64)

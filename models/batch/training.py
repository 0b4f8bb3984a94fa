"""The batch model: LightGBM on what was known, calibrated and judged on what came later. The only file that trains it.

Time runs one way through a training run: what the trees learn from, a gap, what stops and calibrates them, a gap, and
what judges them. In each gap labels mature, so no part knows what only a later one could have told it.

What has been judged is then fitted again, one part further on: as many trees learn from all that precedes the judging
part, and that part calibrates them. So a model in force knows weeks that a judged one must not; what is told of its
quality is that of the judged one, which knew less. That the judging part calibrates it helps no model through the
gates: they compare rankings, which a calibration leaves as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.batch.constraints import monotone_constraints
from models.batch.model import BatchModel
from models.batch.training_set import TrainingSet, TrainingSetError
from models.calibration import CalibrationError, fit_calibration
from models.quality.assessment import assess, baselines, by_segment, compare
from models.trees.from_lightgbm import forest_from_lightgbm
from tables.catalog import CATALOG
from tables.layout import HOUR_MS

__all__ = ["Parts", "TrainedModel", "TrainingError", "TrainingPlan", "fit", "medians", "split", "to_artifact", "train"]

_LEAST_FRAUDS = 5
"""In each part of a training run: with fewer, nothing that is measured means anything."""


class TrainingError(TrainingSetError):
    """A training set that cannot be trained on as asked; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a model is trained.

    Parameters
    ----------
    gap_ms
        Between two parts of a run: the maturity of labels.
    seed
        Of trees and intervals. Same plan, same set: the same bytes.
    calibration_share, test_share
        Of the time that is left beside the gaps.
    rounds, patience
        Trees at most, and how many may follow the best without a gain.
    learning_rate, num_leaves, min_sum_hessian, lambda_l2, feature_share
        Of LightGBM. With rare frauds a leaf's hessian is tiny: its default minimum would forbid most leaves, or with
        none a leaf would trust a single fraud.
    threads
        Fixed, since the order of additions depends on it. One is quickest where other processes share the cores.
    name
        Of the model in the registry.
    resamples
        Of bootstrap intervals.
    refit
        Whether the model that is returned is fitted again, one part further on.
    """

    gap_ms: int
    seed: int = 1
    calibration_share: float = 0.2
    test_share: float = 0.25
    rounds: int = 300
    patience: int = 40
    learning_rate: float = 0.05
    num_leaves: int = 15
    min_sum_hessian: float = 1.0
    lambda_l2: float = 2.0
    feature_share: float = 0.7
    threads: int = 1
    name: str = "pixguard"
    resamples: int = 200
    refit: bool = True

    def parameters(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return LightGBM's parameters for features of these names."""
        return {
            "objective": "binary",
            "metric": "binary_logloss",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_sum_hessian_in_leaf": self.min_sum_hessian,
            "lambda_l2": self.lambda_l2,
            "feature_fraction": self.feature_share,
            "monotone_constraints": monotone_constraints(CATALOG.entries, names),
            "monotone_constraints_method": "advanced",
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
        }


class Parts(NamedTuple):
    """The three parts of a training run, in order of time."""

    train: TrainingSet
    calibration: TrainingSet
    test: TrainingSet


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """What a training run has brought.

    Parameters
    ----------
    model
        As workers load it; its version is 0 until the registry gives it one.
    booster_text
        LightGBM's own form, for whoever wants to look at it with LightGBM.
    report
        Plain values: sizes, metrics of all scores (of the model as it was judged), comparisons, segments.
    importance
        Gain by feature, the greatest first.
    test
        The rows that it was judged on.
    scores
        Of these rows: "model", "amount", "rules" and "champion", as far as there are such; shape (n,).
    plan
        By which it was trained.
    data
        Digest of the whole training set.
    """

    model: BatchModel
    booster_text: str
    report: dict[str, Any]
    importance: dict[str, float]
    test: TrainingSet
    scores: dict[str, NDArray[np.floating[Any]]]
    plan: TrainingPlan
    data: str


def to_artifact(trained: TrainedModel) -> bytes:
    """Return what workers load: `BatchModel.from_bytes` reads it."""
    return trained.model.to_bytes()


def train(
    rows: TrainingSet,
    plan: TrainingPlan,
    *,
    champion: BatchModel | None = None,
    progress: Callable[[float], None] | None = None,
) -> TrainedModel:
    """Train, calibrate and judge a model.

    Parameters
    ----------
    rows
        All that was recorded, with every state of its labels.
    plan
        How.
    champion
        The model that is in force: judged on the same rows, where it reads the same features.
    progress
        Called with the share of rounds done.

    Raises
    ------
    TrainingError
        When the set is too short, or a part of it has too few frauds.
    """
    parts = split(rows, plan)
    booster, model = fit(parts.train, parts.calibration, plan, progress=progress)
    scores = {"model": model.probabilities(parts.test.vectors), **baselines(parts.test)}
    learned = parts.train
    if plan.refit:
        learned, _ = rows.split_by_time(_bounds(rows, plan)[1], plan.gap_ms)
        booster, model = _fit_again(learned, parts.test, plan, booster.best_iteration)
    model = replace(model, usual=medians(learned.vectors, learned.weights))
    if champion is not None and champion.fingerprint == model.fingerprint:
        scores["champion"] = champion.probabilities(parts.test.vectors)
    gain = booster.feature_importance("gain", iteration=booster.best_iteration)
    importance = dict(sorted(zip(rows.names, gain.tolist(), strict=True), key=lambda item: (-item[1], item[0])))
    return TrainedModel(
        model,
        booster.model_to_string(num_iteration=booster.best_iteration),
        _report(parts, scores, plan, model, champion) | {"learned": _extent(learned)},
        importance,
        parts.test,
        scores,
        plan,
        rows.digest,
    )


def split(rows: TrainingSet, plan: TrainingPlan) -> Parts:
    """Cut a set by time into what is learned from, what calibrates and what judges, a gap between each two.

    Raises
    ------
    TrainingError
        When it is too short, or a part has too few frauds.
    """
    if not len(rows):
        raise TrainingError("training set: expected labelled payments, got none")
    train_until, calibration_until = _bounds(rows, plan)
    train, later = rows.split_by_time(train_until, plan.gap_ms)
    calibration, test = later.split_by_time(calibration_until, plan.gap_ms)
    parts = Parts(train, calibration, test.known())
    for name, part in zip(Parts._fields, parts, strict=True):
        if part.positives < _LEAST_FRAUDS:
            raise TrainingError(
                f"training set: expected {_LEAST_FRAUDS} frauds at least to {name} with, got {part.positives} in "
                f"{len(part)} payments: record longer, or wait until more of them are known"
            )
    return parts


def _bounds(rows: TrainingSet, plan: TrainingPlan) -> tuple[int, int]:
    """Instants at which the first and the second part end; a gap follows on each."""
    begin, end = int(rows.event_time[0]), int(rows.event_time[-1]) + 1
    usable = end - begin - 2 * plan.gap_ms
    if usable <= 0:
        raise TrainingError(
            f"training set: expected more than two maturities of {plan.gap_ms / HOUR_MS:g} h, got payments of "
            f"{(end - begin) / HOUR_MS:.1f} h: record longer, or let labels mature sooner"
        )
    train_until = begin + round(usable * (1.0 - plan.calibration_share - plan.test_share))
    return train_until, train_until + plan.gap_ms + round(usable * plan.calibration_share)


def fit(
    train_rows: TrainingSet,
    calibration_rows: TrainingSet,
    plan: TrainingPlan,
    *,
    progress: Callable[[float], None] | None = None,
) -> tuple[lightgbm.Booster, BatchModel]:
    """Fit trees to one part; stop and calibrate them by another, later one.

    Raises
    ------
    TrainingError
        When nothing can be calibrated on the second part.
    """
    parameters = plan.parameters(train_rows.names)
    learned = _dataset(train_rows, parameters)
    watched = lightgbm.Dataset(
        calibration_rows.vectors, calibration_rows.labels, weight=calibration_rows.weights, reference=learned
    )
    callbacks: list[Callable[..., Any]] = [lightgbm.early_stopping(plan.patience, verbose=False)]
    if progress is not None:
        tell = progress
        callbacks.append(lambda state: tell((state.iteration + 1) / plan.rounds))
    booster = lightgbm.train(parameters, learned, plan.rounds, [watched], callbacks=callbacks)
    return booster, _calibrated(booster, train_rows, calibration_rows, plan)


def _fit_again(
    learned: TrainingSet, calibration_rows: TrainingSet, plan: TrainingPlan, rounds: int
) -> tuple[lightgbm.Booster, BatchModel]:
    """Fit as many trees as were found best."""
    parameters = plan.parameters(learned.names)
    booster = lightgbm.train(parameters, _dataset(learned, parameters), rounds)
    return booster, _calibrated(booster, learned, calibration_rows, plan)


def _calibrated(
    booster: lightgbm.Booster, learned: TrainingSet, calibration_rows: TrainingSet, plan: TrainingPlan
) -> BatchModel:
    forest = forest_from_lightgbm(booster)
    try:
        margins = forest.margins(calibration_rows.vectors)
        calibration = fit_calibration(margins, calibration_rows.labels, calibration_rows.weights)
    except CalibrationError as error:
        raise TrainingError(str(error)) from error
    until = int(learned.event_time[-1]) + 1
    return BatchModel(0, plan.name, learned.fingerprint, forest, calibration, until)


def medians(vectors: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what is usual of each feature: the median of what is not missing, each row as often as it weighs.

    Parameters
    ----------
    vectors
        float32, shape (n, features), NaN for missing.
    weights
        Above 0, shape (n,).

    Returns
    -------
    float32, shape (features,): values that occur, the lower one of two in the middle, since nobody is usually paid by
    2.5 payers. NaN where a feature is always missing.

    Examples
    --------
    >>> rows = np.array([[1, np.nan], [2, np.nan], [9, np.nan]], np.float32)
    >>> medians(rows, np.ones(3)).tolist(), medians(rows, np.array([1.0, 1.0, 3.0])).tolist()
    ([2.0, nan], [9.0, nan])
    """
    found = np.full(vectors.shape[1], np.nan, np.float32)
    for place, column in enumerate(vectors.T):
        known = np.flatnonzero(~np.isnan(column))
        if not len(known):
            continue
        ordered = known[np.argsort(column[known], kind="stable")]
        below = np.cumsum(weights[ordered])
        found[place] = column[ordered[np.searchsorted(below, below[-1] / 2)]]
    return found


def _dataset(rows: TrainingSet, parameters: dict[str, Any]) -> lightgbm.Dataset:
    names = list(rows.names)
    return lightgbm.Dataset(rows.vectors, rows.labels, weight=rows.weights, feature_name=names, params=parameters)


def _report(
    parts: Parts,
    scores: dict[str, NDArray[np.floating[Any]]],
    plan: TrainingPlan,
    model: BatchModel,
    champion: BatchModel | None,
) -> dict[str, Any]:
    chance = {"seed": plan.seed, "resamples": plan.resamples}
    ours = scores["model"]
    return {
        "plan": asdict(plan),
        "fingerprint": model.fingerprint,
        "trained_until": model.trained_until,
        "trees": len(model.forest.roots),
        "calibration": model.calibration.kind,
        "parts": {name: _extent(part) for name, part in zip(Parts._fields, parts, strict=True)},
        "scores": {
            name: assess(parts.test, values, probabilities=name in ("model", "champion"), **chance)
            for name, values in scores.items()
        },
        "gains": {
            name: compare(parts.test, values, ours, **chance)._asdict()
            for name, values in scores.items()
            if name != "model"
        },
        "champion_version": champion.version if champion is not None and "champion" in scores else 0,
        "segments": by_segment(parts.test, scores),
    }


def _extent(rows: TrainingSet) -> dict[str, int]:
    return {
        "rows": len(rows),
        "frauds": rows.positives,
        "from": int(rows.event_time[0]),
        "until": int(rows.event_time[-1]) + 1,
    }

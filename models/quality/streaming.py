"""A labelled stream lived through again: each payment is scored by what could have been known when it happened.

Labels come as they came to the bank. The online model learns them as they mature and is published every few hours; the
batch model is trained anew each day on what has matured by then, or once and never again; and the blend gives the
online model the weight that it has earned until then. So the scores are those of a running installation, and comparing
them says what each part of it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.domain.labelled import Labelled
from models.batch.model import BatchModel
from models.batch.training import TrainingError, TrainingPlan, fit
from models.batch.training_set import UNKNOWN, TrainingSet, TrainingSetError
from models.ensemble import Models
from models.online.learner import OnlineLearner
from tables.layout import DAY_MS, HOUR_MS

__all__ = ["PROBABILITIES", "SCORERS", "LivedStream", "Published", "StreamPlan", "live_through"]

SCORERS = ("amount", "rules", "online", "batch static", "batch daily", "blend")
"""What is compared, from what costs nothing to what decides."""

PROBABILITIES = SCORERS[2:]
"""Those whose scores are meant as probabilities."""

Progress = Callable[[float], None]

_LEAST_FRAUDS = 5
"""In each part of a training run: with fewer, no batch model is made."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a stream is lived through.

    Parameters
    ----------
    seed
        Of the models. Same plan, same stream: the same scores.
    warm_up
        Share of the stream's time that is not judged: nobody has labels at the beginning. At its end the static model
        is trained.
    publish_ms
        Time between two snapshots of the online model.
    retrain_ms
        Time between two batch models.
    calibration_share
        Of the frauds that are known, the latest ones: with all payments since the first of them they stop and calibrate
        a batch model.
    rounds, patience, learning_rate
        Of the batch models; a little less than `pixguard train` takes, since there are many models to make.
    honest_per_fraud
        Honest payments that a batch model learns from for each fraud, about, weighted as all of them.
    """

    seed: int = 1
    warm_up: float = 0.4
    publish_ms: int = 4 * HOUR_MS
    retrain_ms: int = DAY_MS
    calibration_share: float = 0.25
    rounds: int = 200
    patience: int = 30
    learning_rate: float = 0.05
    honest_per_fraud: float = 40.0

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("warm_up", 0 < self.warm_up < 1, "a share between 0 and 1"),
            ("publish_ms", self.publish_ms > 0, "above 0"),
            ("retrain_ms", self.retrain_ms > 0, "above 0"),
        ):
            if not valid:
                raise ValueError(f"evaluation: {name}: expected {expected}, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Published:
    """What was in force from an instant on.

    Parameters
    ----------
    at_ms
        The instant.
    labels, frauds
        That the online model had learned.
    weight
        Of the online model in the blend.
    batch_version
        Counts up from 1; 0 for none.
    """

    at_ms: int
    labels: int
    frauds: int
    weight: float
    batch_version: int


@dataclass(frozen=True, slots=True, eq=False)
class LivedStream:
    """Scores of the payments after the warm-up.

    Parameters
    ----------
    rows
        These payments.
    scores
        By scorer (`SCORERS`): float64, shape (n,), none missing.
    published
        What was in force, one entry for each snapshot since the stream's beginning.
    """

    rows: TrainingSet
    scores: dict[str, NDArray[np.float64]]
    published: tuple[Published, ...]


def live_through(stream: TrainingSet, plan: StreamPlan, *, progress: Progress | None = None) -> LivedStream:
    """Score a stream's payments in order of time, learning from labels as they become known.

    Parameters
    ----------
    stream
        Labelled payments with all states of their labels; the first state of each is that of its maturity.
    plan
        How.
    progress
        Called with the share of the stream's time that has passed.

    Raises
    ------
    TrainingSetError
        When too few frauds are known at the end of the warm-up to train a batch model.
    """
    if not len(stream):
        raise TrainingSetError("evaluation: expected labelled payments, got none")
    return _Life(stream, plan).live(progress or (lambda _share: None))


class _Life:
    """One stream on its way through time."""

    def __init__(self, stream: TrainingSet, plan: StreamPlan) -> None:
        self._stream, self._plan = stream, plan
        self._begin, self._end = int(stream.event_time[0]), int(stream.event_time[-1]) + 1
        self._judged_from = self._begin + round(plan.warm_up * (self._end - self._begin))
        self._learner = OnlineLearner(stream.fingerprint, stream.names, seed=plan.seed)
        self._matured, self._taught = _at_maturity(stream), 0
        self._static: BatchModel | None = None
        self._daily: BatchModel | None = None
        self._scores = {name: np.full(len(stream), np.nan) for name in SCORERS}
        self._scores["amount"][:] = stream.amounts
        self._scores["rules"][:] = np.nan_to_num(stream.rules_scores.astype(np.float64))
        self._published: list[Published] = []

    def live(self, progress: Progress) -> LivedStream:
        plan = self._plan
        # Counted from the end of the warm-up, at which the static model and one of the others are the same.
        trainings = {*range(self._judged_from, self._begin, -plan.retrain_ms)}
        trainings |= {*range(self._judged_from, self._end, plan.retrain_ms)}
        publications = {*range(self._begin, self._end, plan.publish_ms)}
        instants = sorted(trainings | publications)
        for instant, until in zip(instants, [*instants[1:], self._end], strict=True):
            self._learn(instant)
            if instant in trainings:
                self._train(instant)
            self._score(instant, until)
            progress((until - self._begin) / (self._end - self._begin))
        judged = self._stream.event_time >= self._judged_from
        if np.isnan(self._scores["online"][judged]).any():
            raise TrainingSetError(
                f"evaluation: expected payments that matured before {plan.warm_up:.0%} of the stream were over with a "
                "label that was known by then, got none: the online model has nothing to learn from; take a longer "
                "maturity or labels that come sooner"
            )
        return LivedStream(
            self._stream.take(judged),
            {name: values[judged] for name, values in self._scores.items()},
            tuple(self._published),
        )

    def _learn(self, instant: int) -> None:
        """Teach the online model what has matured."""
        ready = int(np.searchsorted(self._matured["known_at"], instant, side="right"))
        due = range(self._taught, ready)
        self._learner.learn([self._message(place) for place in due])
        self._taught = ready

    def _message(self, place: int) -> Labelled:
        """Return the message of `pix-labelled` on the label that matures as the `place`-th."""
        stream, state = self._stream, self._matured[place]
        row = int(state["row"])
        online, batch, blend = (_score(self._scores[name][row]) for name in ("online", "batch daily", "blend"))
        label: Literal[0, 1] | None = None if state["label"] == UNKNOWN else 1 if state["label"] else 0
        return Labelled(
            end_to_end_id=bytes(stream.ids[row]).decode(),
            kind="MATURED",
            label=label,
            basis="MATURITY",
            fraud_type=None,
            situation=None,
            event_time=int(stream.event_time[row]),
            decided_at=int(stream.event_time[row]),
            known_at=int(state["known_at"]),
            weight=float(state["weight"]),
            amount_centavos=int(stream.amounts[row]),
            channel=int(stream.channels[row]),
            action=0,
            rules_score=_score(stream.rules_scores[row]),
            online_score=online,
            batch_score=batch,
            challenger_score=None,
            score=blend,
            online_version=int(online is not None),
            batch_version=int(batch is not None),
            challenger_version=0,
            source_partition=0,
            source_offset=place,
            fingerprint=stream.fingerprint,
            vector=stream.vectors[row].astype("<f4").tobytes(),
        )

    def _train(self, instant: int) -> None:
        """Train a batch model on what is known; before the end of the warm-up it may be too little."""
        must = instant == self._judged_from
        known = self._stream.as_of(instant)
        frauds = np.append(np.flatnonzero(known.labels == 1), len(known))
        cut = int(frauds[round((len(frauds) - 1) * (1.0 - self._plan.calibration_share))])
        parts = known.take(slice(0, cut)), known.take(slice(cut, None))
        if min(part.positives for part in parts) < _LEAST_FRAUDS:
            if must:
                raise TrainingSetError(
                    f"evaluation: expected {_LEAST_FRAUDS} frauds at least to train with and {_LEAST_FRAUDS} to "
                    f"calibrate with, known when {self._plan.warm_up:.0%} of the stream are over, got "
                    f"{parts[0].positives} and {parts[1].positives} among {len(known)} payments with a known label: "
                    "take a longer stream, a longer warm-up, a shorter maturity or, of a simulation, more frauds"
                )
            return
        plan = TrainingPlan(
            0,  # no gap: nothing is judged here, and the stream itself makes the scores wait for labels
            seed=self._plan.seed,
            rounds=self._plan.rounds,
            patience=self._plan.patience,
            learning_rate=self._plan.learning_rate,
        )
        version = 1 if self._daily is None else self._daily.version + 1
        try:
            self._daily = fit(self._thinned(parts[0], instant), parts[1], plan)[1].numbered(version)
        except TrainingError:
            if must:
                raise
        if must:
            self._static = self._daily

    def _thinned(self, rows: TrainingSet, instant: int) -> TrainingSet:
        """Return all frauds and a sample of the honest payments, which weighs as much as all of these."""
        honest = rows.labels == 0
        share = self._plan.honest_per_fraud * rows.positives / max(int(honest.sum()), 1)
        if share >= 1:
            return rows
        kept = np.random.default_rng((self._plan.seed, instant)).random(len(rows)) < share
        weights = np.where(honest, rows.weights / share, rows.weights)
        return replace(rows, weights=weights).take(~honest | kept)

    def _score(self, begin: int, until: int) -> None:
        """Publish what has been learned, and score by it the payments of a stretch of time."""
        learner = self._learner
        online = learner.snapshot(len(self._published) + 1) if learner.labels else None
        models = Models(self._daily, None, online)
        version = 0 if self._daily is None else self._daily.version
        self._published.append(Published(begin, learner.labels, learner.positives, models.online_weight, version))
        first, last = np.searchsorted(self._stream.event_time, (begin, until))
        if first == last:
            return
        stretch = slice(int(first), int(last))
        vectors = self._stream.vectors[stretch]
        found = models.scores(vectors, np.zeros(len(vectors), np.uint64), np.ones(len(vectors), np.bool_))
        for name, column in (("online", "online"), ("batch daily", "batch"), ("blend", "score")):
            self._scores[name][stretch] = found[column]
        if self._static is not None:
            # In single precision, as the others are recorded.
            self._scores["batch static"][stretch] = self._static.probabilities(vectors).astype(np.float32)


def _at_maturity(stream: TrainingSet) -> NDArray[Any]:
    """Return the first state of each row's label, in the order in which they come."""
    order = np.argsort(stream.states["known_at"], kind="stable")
    states = stream.states[order]
    _, first = np.unique(states["row"], return_index=True)
    firsts: NDArray[Any] = states[np.sort(first)]
    return firsts


def _score(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

"""`pixguard evaluate online`: which of River's models learns fraud best from labels that come late.

Each candidate lives through the same streams: a payment is scored by what was known when it happened, and its label is
learned when it matures, days later. All go through the learner that serves: the same preparation, sampling and
calibration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from app.domain.labelled import Labelled
from models.batch.training_set import UNKNOWN, TrainingSet, TrainingSetError
from models.online.candidates import CANDIDATES
from models.online.learner import OnlineLearner
from models.quality.evaluation import average_precision, log_loss, recall_at

__all__ = ["BakeOff", "Outcome", "bake_off", "labelled_rows", "print_bake_off"]

RULES = "rules"
"""What the candidates are compared with: the score of the rules in force."""

_BLOCK_ROWS = 100
"""Payments that are scored by one state of a model, as scorers do between two snapshots."""

_METRICS = ("average_precision", "recall_at_0_5pct", "recall_at_1pct", "log_loss")

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one candidate fared on one stream.

    Parameters
    ----------
    candidate
        Key of `CANDIDATES`, or `RULES`.
    stream
        Position of the stream.
    average_precision, recall_at_0_5pct, recall_at_1pct, log_loss
        On the payments after the warm-up; NaN where it cannot be told.
    learn_us
        Processor time per label, of scoring and learning it.
    score_us
        Of scoring one payment by River.
    snapshot_bytes
        0 where it cannot be exported.
    checkpoint_bytes
        Of the learner.
    labels, taught, drifts
        Labels learned, lessons that were made of them, and drifts that were found.
    """

    candidate: str
    stream: int
    average_precision: float
    recall_at_0_5pct: float
    recall_at_1pct: float
    log_loss: float
    learn_us: float = float("nan")
    score_us: float = float("nan")
    snapshot_bytes: int = 0
    checkpoint_bytes: int = 0
    labels: int = 0
    taught: int = 0
    drifts: int = 0


@dataclass(frozen=True, slots=True)
class BakeOff:
    """All outcomes, and on what they rest.

    Parameters
    ----------
    outcomes
        Of each candidate on each stream.
    rows, frauds
        Payments per stream that were judged, and how many of them were frauds.
    """

    outcomes: tuple[Outcome, ...]
    rows: tuple[int, ...]
    frauds: tuple[int, ...]

    def of(self, candidate: str) -> list[Outcome]:
        """Return one candidate's outcomes."""
        return [outcome for outcome in self.outcomes if outcome.candidate == candidate]

    @property
    def ranking(self) -> list[str]:
        """Candidates by mean average precision, best first."""
        names = dict.fromkeys(outcome.candidate for outcome in self.outcomes)
        return sorted(names, key=lambda name: -_mean(self.of(name), "average_precision"))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON; what cannot be told is None."""
        plain = [
            {
                name: None if isinstance(value, float) and not np.isfinite(value) else value
                for name, value in asdict(outcome).items()
            }
            for outcome in self.outcomes
        ]
        return {"rows": list(self.rows), "frauds": list(self.frauds), "ranking": self.ranking, "outcomes": plain}


def bake_off(
    streams: Sequence[TrainingSet],
    *,
    candidates: Sequence[str] = tuple(CANDIDATES),
    seed: int = 0,
    warm_up: float = 0.3,
    progress: Progress | None = None,
) -> BakeOff:
    """Let candidates learn the same streams.

    Parameters
    ----------
    streams
        Labelled payments, in order of event time; several, since one says little.
    candidates
        Keys of `CANDIDATES`.
    seed
        Of the models.
    warm_up
        Share of each stream's payments that is not judged: nobody has labels at the beginning.
    progress
        Called with the share done.

    Raises
    ------
    ValueError
        For an unknown candidate.
    TrainingSetError
        When a stream has no fraud after the warm-up, or when no label comes before the stream ends.
    """
    unknown = sorted(set(candidates) - set(CANDIDATES))
    if unknown:
        raise ValueError(f"bake-off: expected candidates among {', '.join(CANDIDATES)}, got {', '.join(unknown)}")
    outcomes: list[Outcome] = []
    judged: list[tuple[int, int]] = []
    for number, stream in enumerate(streams):
        rows = _judged_rows(stream, number, warm_up)
        judged.append((int(rows.sum()), int(_truth(stream)[rows].sum())))
        rules = np.nan_to_num(stream.rules_scores.astype(np.float64))
        outcomes.append(Outcome(RULES, number, **_quality(stream, rules, rows)))
        for place, name in enumerate(candidates):
            learner = OnlineLearner(stream.fingerprint, stream.names, seed=seed, candidate=name)
            outcomes.append(_race(learner, name, number, stream, rows))
            if progress is not None:
                progress((number + (place + 1) / len(candidates)) / len(streams))
    return BakeOff(tuple(outcomes), *(tuple(column) for column in zip(*judged, strict=True)))


def labelled_rows(stream: TrainingSet) -> list[Labelled]:
    """Return the rows whose label is known as messages of `pix-labelled`, in the order in which they mature."""
    known = np.flatnonzero(stream.labels != UNKNOWN)
    order = known[np.argsort(stream.known_at[known], kind="stable")]
    return [
        Labelled(
            end_to_end_id=bytes(stream.ids[row]).decode(),
            kind="MATURED",
            label=1 if stream.labels[row] else 0,
            basis="MATURITY",
            fraud_type=None,
            situation=None,
            event_time=int(stream.event_time[row]),
            decided_at=int(stream.event_time[row]),
            known_at=int(stream.known_at[row]),
            weight=float(stream.weights[row]),
            amount_centavos=int(stream.amounts[row]),
            channel=int(stream.channels[row]),
            action=0,
            rules_score=_score(stream.rules_scores[row]),
            online_score=None,
            batch_score=_score(stream.batch_scores[row]),
            challenger_score=None,
            score=None,
            online_version=0,
            batch_version=0,
            challenger_version=0,
            source_partition=0,
            source_offset=offset,
            fingerprint=stream.fingerprint,
            vector=stream.vectors[row].astype("<f4").tobytes(),
        )
        for offset, row in enumerate(order.tolist())
    ]


def _race(learner: OnlineLearner, name: str, number: int, stream: TrainingSet, rows: np.ndarray[Any, Any]) -> Outcome:
    """Live through a stream."""
    scores = np.zeros(len(stream))
    learn_s = score_s = 0.0
    labels = taught = 0
    for first, last, due in _blocks(stream, labelled_rows(stream)):
        began = time.process_time()
        report = learner.learn(due)
        learned = time.process_time()
        scores[first:last] = learner.scores(stream.vectors[first:last])
        learn_s, score_s = learn_s + learned - began, score_s + time.process_time() - learned
        labels, taught = labels + report.learned, taught + report.taught
    if not labels:
        raise TrainingSetError(
            f"bake-off: stream {number}: expected labels before it ends, got none: its payments mature later than it "
            "lasts; take a longer stream or a shorter maturity"
        )
    return Outcome(
        name,
        number,
        **_quality(stream, scores, rows),
        learn_us=1e6 * learn_s / labels,
        score_us=1e6 * score_s / len(stream),
        snapshot_bytes=len(learner.snapshot(1).to_bytes()) if CANDIDATES[name].exportable else 0,
        checkpoint_bytes=len(learner.to_bytes()),
        labels=labels,
        taught=taught,
        drifts=learner.drifts,
    )


def _blocks(stream: TrainingSet, labelled: list[Labelled]) -> Iterator[tuple[int, int, list[Labelled]]]:
    """Yield rows first to last, and the labels that had come when the first of them happened."""
    known_at = np.array([message.known_at for message in labelled], np.int64)
    taken = 0
    for first, last in pairwise([*range(0, len(stream), _BLOCK_ROWS), len(stream)]):
        ready = int(np.searchsorted(known_at, stream.event_time[first], side="right"))
        yield first, last, labelled[taken:ready]
        taken = ready


def _truth(stream: TrainingSet) -> np.ndarray[Any, Any]:
    """What happened where somebody knows, otherwise what the bank came to know."""
    truth: np.ndarray[Any, Any] = np.where(stream.truth != UNKNOWN, stream.truth, stream.labels)
    return truth


def _judged_rows(stream: TrainingSet, number: int, warm_up: float) -> np.ndarray[Any, Any]:
    truth = _truth(stream)
    rows: np.ndarray[Any, Any] = (np.arange(len(stream)) >= warm_up * len(stream)) & (truth != UNKNOWN)
    if not truth[rows].any():
        raise TrainingSetError(
            f"bake-off: stream {number}: expected frauds after the warm-up of {warm_up:.0%}, got none of "
            f"{int(rows.sum())} payments; take a longer stream or more frauds"
        )
    return rows


def _quality(stream: TrainingSet, scores: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    truth, scores, weights = _truth(stream)[rows], scores[rows], stream.weights[rows]
    return {
        "average_precision": average_precision(truth, scores, weights),
        "recall_at_0_5pct": recall_at(truth, scores, 0.005, weights),
        "recall_at_1pct": recall_at(truth, scores, 0.01, weights),
        "log_loss": log_loss(truth, scores, weights),
    }


def _score(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


# -- shown


def print_bake_off(result: BakeOff, out: Console) -> None:
    """Show means over the streams, with their standard deviations."""
    table = Table(
        "candidate", "AP", "recall at 0.5 %", "recall at 1 %", "log loss", "learn us/label", "score us", "snapshot",
        "checkpoint", title=f"Online candidates on {len(result.rows)} streams, best first",
    )  # fmt: skip
    for name in result.ranking:
        outcomes = result.of(name)
        trained = name != RULES
        exportable = trained and CANDIDATES[name].exportable
        table.add_row(
            name,
            *(_spread(outcomes, metric) for metric in _METRICS[:3]),
            _spread(outcomes, "log_loss", 4) if trained else "-",
            *((f"{_mean(outcomes, cost):,.0f}" if trained else "-") for cost in ("learn_us", "score_us")),
            f"{_mean(outcomes, 'snapshot_bytes') / 1024:,.0f} KiB" if exportable else "none",
            f"{_mean(outcomes, 'checkpoint_bytes') / 1024:,.0f} KiB" if trained else "-",
        )
    out.print(table)
    frauds, rows = sum(result.frauds), sum(result.rows)
    out.print(f"{rows:,} payments judged, {frauds:,} of them frauds. What has no snapshot cannot serve.")


def _mean(outcomes: Sequence[Outcome], name: str) -> float:
    return float(np.mean([getattr(outcome, name) for outcome in outcomes]))


def _spread(outcomes: Sequence[Outcome], name: str, digits: int = 3) -> str:
    values = [getattr(outcome, name) for outcome in outcomes]
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"

"""What a lived-through stream proves: how good each scorer is, what the blend is worth, how soon a new fraud is found.

Pure: scores in, plain values out. Chance is measured by drawing stretches of time again
(`models.quality.block_bootstrap`), on the same draws for all scorers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.batch.training_set import UNKNOWN, TrainingSet, TrainingSetError
from models.quality.block_bootstrap import RANKING, Draws, draw, mean_draws
from models.quality.streaming import PROBABILITIES, LivedStream
from tables.layout import DAY_MS, HOUR_MS

__all__ = ["BASES", "CONFIDENCE", "PARTS", "Novelty", "catching_up", "judge", "middle", "outcome", "verdict"]

BASES = ("truth", "labels")
"""What scores are judged against: what happened (only a simulator knows), and what the bank came to know."""

PARTS = ("online", "batch daily")
"""What the blend is made of."""

CONFIDENCE = 0.95

_POOLED = "all"
_ALERT_SHARE = 0.01
_CAUGHT = 0.5


@dataclass(frozen=True, slots=True)
class Novelty:
    """A kind of fraud that begins mid-stream.

    Parameters
    ----------
    typology
        Which.
    begins_ms
        When, epoch ms.
    """

    typology: str
    begins_ms: int


def judge(lived: LivedStream, basis: str, *, seed: int, resamples: int = 200) -> dict[str, dict[str, Draws]] | None:
    """Judge all scorers of one stream.

    Parameters
    ----------
    lived
        The stream.
    basis
        One of `BASES`.
    seed, resamples
        Of the draws.

    Returns
    -------
    By scorer and metric; None where nobody knows the truth.

    Raises
    ------
    TrainingSetError
        When the judged part has no fraud.
    """
    frauds, weights = outcome(lived.rows, basis)
    known = frauds != UNKNOWN
    if basis == "truth" and not known.any():
        return None
    if not (frauds == 1).any():
        raise TrainingSetError(
            f"evaluation: expected frauds after the warm-up, got none among {int(known.sum())} payments: take a longer "
            "stream, a shorter warm-up or, of a simulation, more frauds"
        )
    return draw(
        frauds[known] == 1,
        {name: values[known] for name, values in lived.scores.items()},
        lived.rows.event_time[known],
        weights[known],
        lived.rows.amounts[known],
        probabilities=PROBABILITIES,
        seed=seed,
        resamples=resamples,
    )


def outcome(rows: TrainingSet, basis: str) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return what is judged against, and what each row weighs: the truth, or the last that the bank has heard.

    Parameters
    ----------
    rows
        Labelled.
    basis
        One of `BASES`.

    Returns
    -------
    Labels (1, 0 or UNKNOWN) and weights, shape (n,) each.
    """
    if basis == "truth":
        return rows.truth, np.ones(len(rows))
    labels, weights = np.full(len(rows), UNKNOWN, np.int8), np.ones(len(rows))
    # In order of known_at, so that of one row's states the last is the one that stays.
    labels[rows.states["row"]], weights[rows.states["row"]] = rows.states["label"], rows.states["weight"]
    return labels, weights


def verdict(streams: Sequence[Mapping[str, Mapping[str, Draws]]]) -> dict[str, Any]:
    """Compare the blend with its best part and with the rules, on each stream and over all.

    Parameters
    ----------
    streams
        What `judge` found, one for each stream.

    Returns
    -------
    `pooled`: by scorer and metric. `gains`: of the blend over its best part and over the rules, each with whether it is
    worse or better by more than noise. `blend_never_worse`: no gain over the best part, on whatever stream and by
    whatever ranking metric, lies below zero by more than noise, with a chance of five in a hundred that one of all of
    them does by accident. `blend_beats_rules`: the average precision is better by more than noise on every stream.
    """
    pooled = {
        name: {metric: mean_draws([stream[name][metric] for stream in streams]) for metric in found}
        for name, found in streams[0].items()
    }
    groups: list[tuple[str | int, Mapping[str, Mapping[str, Draws]]]] = [*enumerate(streams)]
    if len(streams) > 1:
        groups.append((_POOLED, pooled))
    # The more is compared, the further chance alone takes the worst of it.
    most = NormalDist().inv_cdf(1.0 - (1.0 - CONFIDENCE) / (len(groups) * len(RANKING)))
    gains: list[dict[str, Any]] = []
    for stream, found in groups:
        for metric in RANKING:
            # The best as it turned out: chance has helped it, so the blend is asked for a little more than is fair.
            gains += [
                _gain(found["blend"][metric] - found[over][metric], stream, metric, over, most)
                for over in (_best(found, metric), "rules")
            ]
    return {
        "pooled": pooled,
        "gains": gains,
        "blend_never_worse": not any(gain["worse"] for gain in gains if gain["over"] in PARTS),
        "blend_beats_rules": all(
            gain["better"] for gain in gains if gain["over"] == "rules" and gain["metric"] == "average_precision"
        ),
    }


def _best(found: Mapping[str, Mapping[str, Draws]], metric: str) -> str:
    return max(PARTS, key=lambda name: found[name][metric].estimate)


def _gain(difference: Draws, stream: str | int, metric: str, over: str, most: float) -> dict[str, Any]:
    interval = difference.interval(CONFIDENCE)
    return {
        "stream": stream,
        "metric": metric,
        "over": over,
        **interval._asdict(),
        "worse": bool(interval.estimate < -most * difference.error),
        "better": bool(interval.low > 0),
    }


def catching_up(
    streams: Iterable[LivedStream], novelty: Sequence[Novelty], scorers: Sequence[str], *, window: int = 20
) -> list[dict[str, Any]]:
    """Return how much of a new kind of fraud had to be known until each scorer found it.

    A fraud is caught where its score lies within the worst 1 % of the payments of the last 24 hours. A scorer has
    caught up with the `window`-th fraud in a row of which half are caught, or half as many as it catches in the last
    third of the stream, where that is less.

    Parameters
    ----------
    streams
        Lived through; typologies are those of the truth.
    novelty
        What is new in each.
    scorers
        Who is to be looked at.
    window
        Frauds of the kind over which is averaged.

    Returns
    -------
    One entry for each scorer and stream: `labels` that had been known to be of the kind, `hours` since the first of
    them happened, `later_level`, `first_level` (of the first window); None where it never caught up, or where there are
    fewer than three windows.
    """
    found = []
    for number, (lived, new) in enumerate(zip(streams, novelty, strict=True)):
        frauds = np.flatnonzero((lived.rows.typologies == new.typology) & (lived.rows.event_time >= new.begins_ms))
        known_at = _known_at(lived, frauds)
        for name in scorers:
            caught = _caught(lived.rows.event_time, lived.scores[name], frauds)
            entry = {"scorer": name, "stream": number, "frauds": len(frauds), "known": len(known_at)}
            found.append(entry | _caught_up(caught, lived.rows.event_time[frauds], known_at, window))
    return found


def _known_at(lived: LivedStream, frauds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return when each fraud of the kind became known as a fraud, ascending; those that never did are left out."""
    states = lived.rows.states
    told = states[(states["label"] == 1) & np.isin(states["row"], frauds)]
    _, first = np.unique(told["row"], return_index=True)  # states are in order of known_at
    known: NDArray[np.int64] = np.sort(told["known_at"][first])
    return known


def _caught(times: NDArray[np.int64], scores: NDArray[np.float64], frauds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how much of each fraud is among the worst of its last day, shape (frauds,): a part at the edge."""
    caught = np.zeros(len(frauds))
    for place, row in enumerate(frauds.tolist()):
        day = scores[int(np.searchsorted(times, times[row] - DAY_MS)) : row + 1]
        room = max(_ALERT_SHARE * len(day), 1.0)
        above, equal = int((day > scores[row]).sum()), int((day == scores[row]).sum())
        caught[place] = min(max((room - above) / equal, 0.0), 1.0)
    return caught


def _caught_up(
    caught: NDArray[np.float64], times: NDArray[np.int64], known_at: NDArray[np.int64], window: int
) -> dict[str, Any]:
    nothing: dict[str, Any] = {"labels": None, "hours": None, "first_level": None, "later_level": None}
    if len(caught) < 3 * window:
        return nothing
    rates = np.convolve(caught, np.full(window, 1.0 / window), "valid")
    later = float(caught[-(len(caught) // 3) :].mean())
    levels = {"first_level": float(rates[0]), "later_level": later}
    up = np.flatnonzero(rates >= min(_CAUGHT, later / 2.0) - 1e-9)
    if not later or not len(up):
        return nothing | levels
    if up[0] == 0:  # it looked like frauds that were known
        return {"labels": 0, "hours": 0.0, **levels}
    instant = int(times[up[0] + window - 1])
    labels = int(np.searchsorted(known_at, instant, side="right"))
    return {"labels": labels, "hours": (instant - int(times[0])) / HOUR_MS, **levels}


def middle(entries: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """Return the median of a value over streams; None, which is never, counts as the greatest."""
    values = [float("inf") if entry[name] is None else float(entry[name]) for entry in entries]
    found = median(values) if values else float("inf")
    return None if found == float("inf") else found

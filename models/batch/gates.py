"""What a challenger must show before it becomes the champion: better by more than chance, nowhere worse, and quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.batch.model import BatchModel
from models.batch.training_set import TrainingSet
from models.quality.assessment import LEAST_FRAUDS, baselines, compare, segments

__all__ = ["MOST_US_PER_ROW", "Gate", "judge_challenger"]

MOST_US_PER_ROW = 5.0
"""Of scoring 100 rows at once."""

_Scores = NDArray[np.floating[Any]]


class Gate(NamedTuple):
    """One condition: what was asked, whether it holds, and the figures."""

    name: str
    passed: bool
    why: str


def judge_challenger(
    rows: TrainingSet,
    challenger: BatchModel,
    champion: BatchModel | None,
    us_per_row: Mapping[str, float],
    *,
    seed: int = 1,
    resamples: int = 200,
) -> list[Gate]:
    """Return every gate, in the order in which a person would ask.

    Parameters
    ----------
    rows
        Labelled, and later than what either has learned from.
    challenger, champion
        The models; without a champion the rules are what is to be beaten, or the amount where no rules were recorded.
    us_per_row
        Microseconds per row as measured here: of "challenger", and of "champion" where there is one.
    seed, resamples
        Of the intervals.
    """
    if challenger.fingerprint != rows.fingerprint:
        told = f"the challenger reads the feature set {challenger.fingerprint}, the rows are of {rows.fingerprint}"
        return [Gate("features", passed=False, why=told)]
    ours = challenger.probabilities(rows.vectors)
    rivals: dict[str, _Scores] = baselines(rows)
    if champion is not None and champion.fingerprint == rows.fingerprint:
        rivals = {f"champion (version {champion.version})": champion.probabilities(rows.vectors)}
    name, theirs = list(rivals.items())[-1]
    gates = [_better(rows, name, theirs, ours, seed, resamples)]
    gates += _nowhere_worse(rows, name, theirs, ours, seed, resamples)
    gates.append(_quick(us_per_row))
    return gates


def _better(rows: TrainingSet, name: str, theirs: _Scores, ours: _Scores, seed: int, resamples: int) -> Gate:
    gain = compare(rows, theirs, ours, seed=seed, resamples=resamples)
    figures = f"average precision {gain.estimate:+.4f}, interval {gain.low:+.4f} to {gain.high:+.4f}"
    if gain.low > 0:
        return Gate(f"better than {name}", passed=True, why=figures)
    doubt = "could be chance" if gain.high > 0 else "is worse"
    return Gate(f"better than {name}", passed=False, why=f"{figures}: {doubt} on {rows.positives} frauds")


def _nowhere_worse(
    rows: TrainingSet, name: str, theirs: _Scores, ours: _Scores, seed: int, resamples: int
) -> list[Gate]:
    gates = []
    for kind, segment, mask in segments(rows):
        part = rows.take(mask)
        if part.positives < LEAST_FRAUDS:
            continue
        gain = compare(part, theirs[mask], ours[mask], seed=seed, resamples=resamples)
        figures = f"average precision {gain.estimate:+.4f}, interval {gain.low:+.4f} to {gain.high:+.4f}"
        worse = bool(gain.high < 0)
        why = f"{figures} against {name}" + (f": worse on {part.positives} frauds, beyond chance" if worse else "")
        gates.append(Gate(f"no worse: {kind} {segment}", passed=not worse, why=why))
    return gates


def _quick(us_per_row: Mapping[str, float]) -> Gate:
    ours = us_per_row["challenger"]
    # On a machine that is busy with other work the champion is slow too: then it is the measure.
    allowed = max(MOST_US_PER_ROW, 1.2 * us_per_row.get("champion", 0.0))
    why = f"{ours:.2f} us a row in batches of 100, allowed {allowed:.2f}"
    return Gate("quick enough", passed=ours <= allowed, why=why)

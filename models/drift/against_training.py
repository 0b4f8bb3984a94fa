"""Whether payments look as they did when the model learned: each feature and score against its training window.

What changed is told by the population stability index (PSI) of the values and by the share that is missing. An alarm
must pass three bars. Chance: under independent draws from the training window ALL columns together raise a false alarm
in no more looks than the stated rate (`ALARM_RATE`). Weight: a PSI below 0.1, or five points of missing values, change
no decision worth a look, however certain they are. And custom: payments are no independent draws, for nights differ
from days and accounts pay repeatedly, so no alarm is raised for what stretches of the training window as long as the
present one did themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.drift.reference import Column, Reference, Sample, by_column
from models.drift.stability import equal_rows, informed_rows, psi, psi_of_chance

__all__ = ["ALARM_RATE", "LEAST_ROWS", "MISSING_FLOOR", "PSI_FLOOR", "Bars", "Drift", "Finding", "compare"]

ALARM_RATE = 0.01
"""Share of looks, of all columns together, that raise an alarm where nothing has changed."""
PSI_FLOOR = 0.1
"""By custom a PSI below it is no change that matters, and 0.25 a great one."""
MISSING_FLOOR = 0.05
"""Difference between shares of missing values that matters."""
LEAST_ROWS = 500
"""Values below which nothing is said of a column."""

_Floats = NDArray[np.float64]


class Bars(NamedTuple):
    """What an alarm must pass; see the module."""

    alarm_rate: float = ALARM_RATE
    psi: float = PSI_FLOOR
    missing: float = MISSING_FLOOR


class Finding(NamedTuple):
    """What became of one column.

    Parameters
    ----------
    name
        Of the feature or score.
    rows
        Rows of the present window, missing values included.
    psi, psi_bar
        NaN where too few values are there to tell; and what it must exceed.
    missing_before, missing_now, missing_bar
        Shares, and what their difference must exceed.
    """

    name: str
    rows: int
    psi: float
    psi_bar: float
    missing_before: float
    missing_now: float
    missing_bar: float

    @property
    def shifted(self) -> bool:
        """Whether the values have changed."""
        return self.psi > self.psi_bar

    @property
    def missing_changed(self) -> bool:
        """Whether more, or fewer, are missing."""
        return abs(self.missing_now - self.missing_before) > self.missing_bar

    @property
    def severity(self) -> float:
        """By how much the higher bar is passed: an alarm above 1."""
        by_missing = abs(self.missing_now - self.missing_before) / self.missing_bar
        return max(by_missing, 0.0 if math.isnan(self.psi) else self.psi / self.psi_bar)

    @property
    def verdict(self) -> str:
        """In a word or two."""
        words = [
            *(["shifted"] if self.shifted else []),
            *([f"{'more' if self.missing_now > self.missing_before else 'less'} missing"] * self.missing_changed),
        ]
        return ", ".join(words) or ("too few" if math.isnan(self.psi) else "steady")


class Drift(NamedTuple):
    """What became of all columns, the worst first, and the rate of false alarms by chance that this was told at."""

    findings: list[Finding]
    alarm_rate: float

    @property
    def alarms(self) -> list[Finding]:
        """Those that have changed."""
        return [each for each in self.findings if each.shifted or each.missing_changed]


def compare(reference: Reference, samples: Iterable[Sample], bars: Bars | None = None) -> Drift:
    """Compare present payments with the training window, column by column.

    Parameters
    ----------
    reference
        The training window.
    samples
        Columns of the same names; others, and those that have fewer than `LEAST_ROWS` rows, are left out.
    bars
        What an alarm must pass.
    """
    bars = bars or Bars()
    known = {column.name: column for column in reference.columns}
    chance = bars.alarm_rate / (2 * max(len(known), 1))  # two tests of each column: the rate is of all (Bonferroni)
    findings = []
    for names, matrix, times, weights in samples:
        if len(times) < LEAST_ROWS:
            continue
        mass = np.ones(len(times)) if weights is None else np.asarray(weights, np.float64)
        early, late = np.quantile(times, (0.01, 0.99))
        findings += [
            _finding(known[name], values, mass, float(late - early), chance, bars)
            for name, values in zip(names, by_column(matrix), strict=True)
            if name in known
        ]
    return Drift(sorted(findings, key=lambda each: (-each.severity, each.name)), bars.alarm_rate)


def _finding(
    column: Column, values: NDArray[np.float32], mass: _Floats, span_ms: float, chance: float, bars: Bars
) -> Finding:
    present = ~np.isnan(values)
    counts, squares = column.counts(values[present], mass[present])
    strayed_psi, strayed_missing = _customary(column.strayed, span_ms)
    value, psi_bar = float("nan"), max(bars.psi, strayed_psi)
    if int(present.sum()) >= LEAST_ROWS and column.rows > 0:
        rows = informed_rows(counts, squares)
        value = psi(column.shares, column.rows, counts / counts.sum() * rows)
        psi_bar = max(psi_bar, psi_of_chance(column.freedom, rows, column.rows, chance))
    missing = 1.0 - float(mass[present].sum() / mass.sum())
    now, before = equal_rows(mass), column.all_rows
    pooled = (missing * now + column.missing * before) / (now + before)
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / now + 1.0 / before))
    deviations = -NormalDist().inv_cdf(chance / 2.0)
    # Bernstein's second term: where few are missing, their number has longer tails than the normal distribution.
    by_chance = deviations * error + deviations**2 / 3.0 * (1.0 / now + 1.0 / before)
    missing_bar = max(bars.missing, strayed_missing, by_chance)
    return Finding(column.name, len(values), value, psi_bar, column.missing, missing, missing_bar)


def _customary(strayed: dict[int, tuple[float, float]], span_ms: float) -> tuple[float, float]:
    """What stretches of about the present window's length did: the longest that are no longer, else the shortest."""
    lengths = sorted(strayed)
    if not lengths:
        return 0.0, 0.0
    fitting = [length for length in lengths if length <= 1.1 * span_ms]
    return strayed[fitting[-1] if fitting else lengths[0]]

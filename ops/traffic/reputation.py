"""What DICT counts about receivers as frauds become known: open reports first, markers when they are agreed to."""

from __future__ import annotations

import heapq
from typing import Final

import numpy as np

from ops.traffic.population import Population
from ops.traffic.seasons import DAY_MS, HOUR_MS

__all__ = ["ANALYSIS_MS", "Reputation", "contest_delay_ms"]

# Delay of a contest: share of contests, from, to (in hours). None is published; these are pix-domain.md's proposal.
_CONTEST_DELAYS: Final = ((0.45, 0.02, 1.0), (0.30, 1.0, 24.0), (0.15, 24.0, 168.0), (0.10, 168.0, 1_920.0))
ANALYSIS_MS: Final = 7 * DAY_MS
"""The receiver's bank has this long to analyse a report."""

_REPORTED_FRAUD, _AGREED_FRAUD, _AGREED_HONEST = 0.6, 0.8, 0.01


def contest_delay_ms(rng: np.random.Generator) -> float:
    """Return how long after a payment its payer contests it, in milliseconds: minutes to 80 days."""
    bucket = int(rng.choice(len(_CONTEST_DELAYS), p=[row[0] for row in _CONTEST_DELAYS]))
    _, low, high = _CONTEST_DELAYS[bucket]
    # Log-uniform: within a bucket, too, most clients notice early.
    return float(np.exp(rng.uniform(np.log(low), np.log(high)))) * HOUR_MS


class Reputation:
    """Keeps a population's reports and markers up to date with the frauds of the run.

    Parameters
    ----------
    population
        Whose ``open_reports``, ``markers`` and ``rejected_reports`` change.
    delay_scale
        Factor on every delay.
    """

    def __init__(self, population: Population, delay_scale: float) -> None:
        self._population, self._scale = population, delay_scale
        self._pending: list[tuple[int, int, str]] = []

    def report_fraud(self, rng: np.random.Generator, receiver: int, at_ms: int) -> None:
        """Plan what a payment to a criminal leads to, if its victim reports it."""
        if rng.random() < _REPORTED_FRAUD:
            self._report(rng, receiver, at_ms, _AGREED_FRAUD)

    def report_honest(self, rng: np.random.Generator, receiver: int, at_ms: int) -> None:
        """Plan what a report leads to whose receiver did no wrong."""
        self._report(rng, receiver, at_ms, _AGREED_HONEST)

    def _report(self, rng: np.random.Generator, receiver: int, at_ms: int, agreed_share: float) -> None:
        opened_ms = at_ms + int(contest_delay_ms(rng) * self._scale)
        closed_ms = opened_ms + int(rng.random() * ANALYSIS_MS * self._scale)
        heapq.heappush(self._pending, (opened_ms, receiver, "open"))
        outcome = "agreed" if rng.random() < agreed_share else "rejected"
        heapq.heappush(self._pending, (closed_ms, receiver, outcome))

    def update(self, until_ms: int) -> None:
        """Count what has become known before an instant."""
        population = self._population
        while self._pending and self._pending[0][0] < until_ms:
            _, receiver, event = heapq.heappop(self._pending)
            population.open_reports[receiver] += 1 if event == "open" else -1
            if event == "agreed":
                population.markers[receiver] += 1
            elif event == "rejected":
                population.rejected_reports[receiver] += 1

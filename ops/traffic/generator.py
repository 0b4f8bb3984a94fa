"""`generate`: seeded Pix traffic in order of arrival, honest payments and frauds together, in bounded memory.

Honest payments are drawn by blocks of event time whose length follows from the rate alone; stories wait in a heap
until their block comes. So a run is a function of its configuration: how it is consumed changes nothing, and a longer
run begins with the shorter one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ops.traffic import honest_stories, mule_stories, scam_stories, takeover_stories
from ops.traffic.disorder import Disorder
from ops.traffic.honest import INITIATIONS, PURPOSES, HonestTraffic, TrafficShape
from ops.traffic.messages import CASH, MessageWriter, Payment, Row
from ops.traffic.population import HONEST_REPORT_SHARE, Population
from ops.traffic.reputation import Reputation
from ops.traffic.seasons import DAY_MS, HOUR_MS, hour_of_day
from ops.traffic.stories import Cast, Label, Step, Story, Typology

__all__ = ["FRAUD_STORIES", "HONEST_STORIES", "Simulated", "TrafficConfig", "generate"]

FRAUD_STORIES: tuple[Story, ...] = (*mule_stories.STORIES, *takeover_stories.STORIES, *scam_stories.STORIES)
HONEST_STORIES: tuple[Story, ...] = honest_stories.STORIES

_BLOCK_ROWS = 4_096
_REFUND_SHARE = 0.004
"""Share of honest purchases that are paid back (REFU)."""


@dataclass(frozen=True, slots=True)
class TrafficConfig:
    """What traffic is generated.

    Parameters
    ----------
    start_ms
        Epoch milliseconds of the first instant; the clock is never read.
    seed
        Same configuration, same bytes; with another start, other identifiers, so that two runs may share a topic.
    rate_per_s
        Mean payments per second of event time over an ordinary week.
    duration_s, count
        The run ends after this stretch of event time, or after this many messages; endless where both are None.
        Nothing arrives at or after the end: stories, late messages and retries that are under way are cut off.
    fraud_share
        Share of payments that belong to a fraud. The real share of confirmed ones is 4.2 per 100,000 (0.000042); the
        default lets a short run show every typology.
    lookalike_share
        Share of payments that belong to an honest event which looks like a fraud.
    people, companies
        Population sizes; 0 derives them from the rate (about three payments per person and day).
    steady
        Whether the rate is the same at every hour, for load tests.
    late_share, retry_share, malformed_share
        Shares of messages that arrive late, that a producer sends twice, and of damaged ones that are added.
    full_snapshot
        Whether messages carry every DICT counter rather than those that banks use most.
    report_delay_scale
        Factor on the delay after which DICT counts reports and markers of this run's frauds; that of the feedback.

    Raises
    ------
    ValueError
        If a share, a rate or a size is out of range; the message names it.
    """

    start_ms: int
    seed: int = 1
    rate_per_s: float = 20.0
    duration_s: float | None = None
    count: int | None = None
    fraud_share: float = 0.003
    lookalike_share: float = 0.05
    people: int = 0
    companies: int = 0
    steady: bool = False
    late_share: float = 0.005
    retry_share: float = 0.001
    malformed_share: float = 0.0005
    full_snapshot: bool = False
    report_delay_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rate_per_s", "report_delay_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Expected {name} above 0, got {getattr(self, name)}")
        for name in ("fraud_share", "lookalike_share", "late_share", "retry_share", "malformed_share"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise ValueError(f"Expected {name} within 0 and 0.5, got {getattr(self, name)}")
        for name in ("duration_s", "count"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"Expected {name} above 0, got {getattr(self, name)}")
        if not 1_606_780_800_000 <= self.start_ms < 4_000_000_000_000:
            raise ValueError(f"Expected start_ms in epoch milliseconds after 2020-12-01, got {self.start_ms}")

    def population(self) -> Population:
        """Return the population whose traffic this is."""
        people = self.people or int(min(max(self.rate_per_s * 86_400 / 3, 2_000), 400_000))
        return Population(self.seed, self.start_ms, people, self.companies or max(people // 20, 30))


class Simulated(NamedTuple):
    """One message as a producer sends it.

    Parameters
    ----------
    arrival_ms
        Epoch milliseconds at which it is sent; runs never go back in it.
    key, value
        Kafka key and JSON bytes.
    payment
        The payment that it tells of; None for a damaged message.
    label
        The truth about it; None for an honest payment.
    is_retry
        Whether the producer sent these bytes before.
    """

    arrival_ms: int
    key: bytes
    value: bytes
    payment: Payment | None
    label: Label | None
    is_retry: bool


def generate(config: TrafficConfig, population: Population | None = None) -> Iterator[Simulated]:
    """Yield the traffic of a configuration in order of arrival.

    Parameters
    ----------
    config
        What is generated.
    population
        A population made by ``config.population()``, where the caller wants to look at it; payments change it.
    """
    people = population or config.population()
    disorder = Disorder(config.late_share, config.retry_share, config.malformed_share)
    end_ms = math.inf if config.duration_s is None else config.start_ms + round(config.duration_s * 1000)
    writer = MessageWriter(people, full_snapshot=config.full_snapshot)
    number = 0
    for block, rows in enumerate(_rows(config, people)):
        # The start is part of it, since identifiers are drawn from it: their own time is only good to a minute.
        rng = np.random.default_rng([config.seed, 3, block, config.start_ms])
        sent = [
            Simulated(
                payment.at_ms,
                (payment.pix_key or payment.receiver_account).encode(),
                value,
                payment,
                label,
                is_retry=False,
            )
            for value, payment, label in writer.write(rng, rows)
        ]
        for simulated in disorder.send(rng, sent):
            if simulated.arrival_ms >= end_ms:
                return
            yield simulated
            number += 1
            if number == config.count:
                return


def _rows(config: TrafficConfig, population: Population) -> Iterator[list[Row]]:
    """Yield the planned payments of one block after the other, each sorted by time, without end."""
    everyday = config.rate_per_s * (1 - config.fraud_share - config.lookalike_share)
    traffic = HonestTraffic(population, TrafficShape(everyday, config.steady))
    playwright = _Playwright(config, population)
    block_ms = int(min(max(_BLOCK_ROWS / config.rate_per_s * 1000, 1_000), 6 * HOUR_MS))
    index, from_ms = 0, config.start_ms
    while True:
        to_ms = from_ms + block_ms
        rng = np.random.default_rng([config.seed, 2, index])
        block = traffic.draw(rng, from_ms, to_ms)
        rows: list[Row] = [
            (Step(at_ms, payer, receiver, amount, INITIATIONS[how], PURPOSES[why]), None)
            for at_ms, payer, receiver, amount, how, why in zip(
                block.at_ms.tolist(),
                block.payer.tolist(),
                block.receiver.tolist(),
                block.amount_centavos.tolist(),
                block.initiation.tolist(),
                block.purpose.tolist(),
                strict=True,
            )
        ]
        playwright.plan(rng, from_ms, to_ms)
        playwright.plan_refunds(rng, rows)
        playwright.plan_reports(rng, rows)
        rows += playwright.due(to_ms)
        rows.sort(key=_time_of)
        yield rows
        index, from_ms = index + 1, to_ms


def _time_of(row: Row) -> int:
    return row[0].at_ms


class _Playwright:
    """Starts stories at random and keeps their steps until they are due."""

    def __init__(self, config: TrafficConfig, population: Population) -> None:
        self._config, self._cast = config, Cast(population)
        self._crooks = population.crooks
        self._pending: list[tuple[int, int, Step, Label | None]] = []
        self._pushed = self._told = 0
        self._reputation = Reputation(population, config.report_delay_scale)
        self._repertoires = [
            _Repertoire(FRAUD_STORIES, config.fraud_share * config.rate_per_s, self._cast, config),
            _Repertoire(HONEST_STORIES, config.lookalike_share * config.rate_per_s, self._cast, config),
        ]

    def plan(self, rng: np.random.Generator, from_ms: int, to_ms: int) -> None:
        """Plan the stories that start in [from_ms, to_ms)."""
        for repertoire in self._repertoires:
            for story, at_ms in repertoire.starts(rng, from_ms, to_ms):
                steps = sorted(story.tell(self._cast, rng, at_ms), key=lambda step: step.at_ms)
                self._told += 1
                for position, step in enumerate(steps):
                    label = None
                    if story.typology is not None:
                        by_accomplice = self._is_accomplice(story.typology, steps, position)
                        label = Label(story.typology, self._told, position, by_accomplice)
                    self._push(step, label)
                    if label is None or step.purpose in CASH:  # a till that handed out cash acted in good faith
                        continue
                    if not label.by_accomplice:
                        self._reputation.report_fraud(rng, step.receiver, step.at_ms)
                    if rng.random() < 0.10 and step.amount_centavos >= 1_000:
                        self._push(_med_refund(rng, self._cast, step), None)

    def _is_accomplice(self, typology: Typology, steps: Sequence[Step], position: int) -> bool:
        """Whether the payer of a step passes money on as a criminal, who has nothing to contest."""
        if typology is Typology.WRONG_PIX and position == 0:  # here it is the criminal who contests
            return False
        sleeper = steps[0].receiver if typology is Typology.DORMANT else -1
        payer = steps[position].payer
        return payer == sleeper or payer in self._crooks

    def plan_refunds(self, rng: np.random.Generator, rows: Sequence[Row]) -> None:
        """Plan the returns of some of a block's purchases."""
        people = self._cast.population.people
        for position in np.flatnonzero(rng.random(len(rows)) < _REFUND_SHARE).tolist():
            step = rows[position][0]
            if step.payer < people <= step.receiver:
                at_ms = step.at_ms + int(rng.exponential(6.0) * HOUR_MS)
                self._push(Step(at_ms, step.receiver, step.payer, step.amount_centavos, "MANU", "REFU"), None)

    def plan_reports(self, rng: np.random.Generator, rows: Sequence[Row]) -> None:
        """Plan the reports that some of a block's honest payments lead to."""
        for position in np.flatnonzero(rng.random(len(rows)) < HONEST_REPORT_SHARE).tolist():
            step = rows[position][0]
            self._reputation.report_honest(rng, step.receiver, step.at_ms)

    def due(self, to_ms: int) -> list[Row]:
        """Return the steps before ``to_ms`` and forget them; DICT's counters follow."""
        self._reputation.update(to_ms)
        rows: list[Row] = []
        while self._pending and self._pending[0][0] < to_ms:
            _, _, step, label = heapq.heappop(self._pending)
            rows.append((step, label))
        return rows

    def _push(self, step: Step, label: Label | None) -> None:
        self._pushed += 1
        heapq.heappush(self._pending, (step.at_ms, self._pushed, step, label))


def _med_refund(rng: np.random.Generator, cast: Cast, step: Step) -> Step:
    """A part of what a victim lost comes back from a PSP further down the chain, days later at most."""
    at_ms = step.at_ms + int(min(rng.exponential(1.0), 10.0) * DAY_MS)
    amount = max(int(step.amount_centavos * rng.uniform(0.05, 1.0)), 1)
    holder = next(mule for mule in cast.mules(rng, step.at_ms, 2) if mule != step.payer)
    return Step(at_ms, holder, step.payer, amount, "MANU", "IPRT")


class _Repertoire:
    """Stories of one kind, with the rate at which they must start to make up their share of payments."""

    _REHEARSALS = 30

    def __init__(self, stories: Sequence[Story], steps_per_s: float, cast: Cast, config: TrafficConfig) -> None:
        self._stories = stories
        rng = np.random.default_rng([config.seed, 4])
        # A story is told a few times only to learn its length: telling plans and changes nothing.
        noon = config.start_ms // DAY_MS * DAY_MS + 15 * HOUR_MS
        lengths = [np.mean([len(story.tell(cast, rng, noon)) for _ in range(self._REHEARSALS)]) for story in stories]
        weights = np.array([story.weight for story in stories])
        mean_length = float(np.average(lengths, weights=weights))
        self._starts_per_ms = steps_per_s / mean_length / 1000
        hourly = np.array([story.hours for story in stories])
        # Shape (24, stories): the intensity of each story in each hour, its mean over the day being its weight.
        self._hourly = (hourly / hourly.mean(axis=1, keepdims=True) * (weights / weights.sum())[:, None]).T

    def starts(self, rng: np.random.Generator, from_ms: int, to_ms: int) -> Iterator[tuple[Story, int]]:
        """Yield the stories that start in [from_ms, to_ms) with their times."""
        ceiling = float(self._hourly.sum(axis=1).max())
        number = rng.poisson(self._starts_per_ms * ceiling * (to_ms - from_ms))
        for at_ms in np.sort(rng.integers(from_ms, to_ms, number)).tolist():
            edges = np.cumsum(self._hourly[hour_of_day(at_ms)]) / ceiling
            chosen = int(np.searchsorted(edges, rng.random()))
            if chosen < len(self._stories):
                yield self._stories[chosen], at_ms

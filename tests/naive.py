"""The obvious oracle: plain lists, big integers, a loop over everything for each feature. Slow, easy to believe."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tables import aggregates
from tables.layout import FLAGS, FRAUD_TYPES, LOGS
from tables.plan import Period

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from tables.features import Feature

NAN = float("nan")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Paid:
    """One event that has counted."""

    timestamp: int
    amount: int
    flags: frozenset[str]


@dataclass
class Row:
    """All that ever happened to one key, in order of arrival."""

    logs: dict[str, list[Paid]] = field(default_factory=lambda: defaultdict(list))
    met: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    devices: dict[int, int] = field(default_factory=dict)
    device_pairs: dict[tuple[int, int], int] = field(default_factory=dict)
    marks: list[tuple[str, int]] = field(default_factory=list)
    marked_at: int | None = None


@dataclass(frozen=True)
class Question:
    """One feature, asked for one event."""

    row: Row
    event: np.void
    feature: Feature
    aggregate: Any  # each aggregate has parameters of its own

    @property
    def at(self) -> int:
        """The event's time."""
        return int(self.event["timestamp"])

    @property
    def log(self) -> str:
        """The feature's log."""
        assert self.feature.log is not None
        return self.feature.log

    def known(self) -> list[Paid]:
        """Events of the log that are not later, oldest first, equal times in order of arrival."""
        return sorted(
            (paid for paid in self.row.logs[self.log] if paid.timestamp <= self.at), key=lambda p: p.timestamp
        )

    def window(self) -> list[Paid]:
        """Events of the log within (t - window, t]."""
        assert self.feature.window is not None
        return [paid for paid in self.known() if paid.timestamp > self.at - self.feature.window]

    def amounts(self) -> list[int]:
        """Amounts of the window."""
        return [paid.amount for paid in self.window()]

    def last(self) -> list[Paid]:
        """Up to 64 events of the window, newest first."""
        return self.window()[::-1][:64]


def _std(question: Question) -> float:
    amounts = question.amounts()
    n = len(amounts)
    if n < 2:
        return NAN
    # Exact until the root: n * sum of squares - (sum) ** 2 is an integer of any size.
    return math.sqrt(n * sum(x * x for x in amounts) - sum(amounts) ** 2) / n


def _flagged(question: Question) -> int:
    return sum(question.aggregate.flag in paid.flags for paid in question.window())


def _run(question: Question) -> int:
    length = 0
    for paid in question.last():
        if question.aggregate.flag not in paid.flags:
            break
        length += 1
    return length


def _rising(question: Question) -> int:
    newest_first = question.window()[::-1]
    length = 0
    while length < min(64, len(newest_first) - 1) and newest_first[length].amount > newest_first[length + 1].amount:
        length += 1
    return length


def _growth(question: Question) -> float:
    # The last event is the newest that is not later, even if the window has left it; those before it are the window's.
    known = question.known()
    before = [p.amount for p in known[:-1][-5:] if p.timestamp > question.at - (question.feature.window or 0)]
    return known[-1].amount * len(before) / sum(before) if before else NAN


def _period_sum(question: Question) -> int:
    local = question.at - 3 * HOUR_MS
    midnight = local - local % DAY_MS
    hour = (local - midnight) // HOUR_MS
    start = {
        Period.DAY: midnight,
        Period.NIGHT: midnight + 20 * HOUR_MS if hour >= 20 else midnight - 4 * HOUR_MS if hour < 6 else None,
        Period.DAYTIME: midnight + 6 * HOUR_MS if 6 <= hour < 20 else None,
    }[question.aggregate.period]
    if start is None:
        return 0
    return sum(
        paid.amount
        for paid in question.known()
        if paid.timestamp >= start + 3 * HOUR_MS
        and set(question.aggregate.flags) <= paid.flags
        and not set(question.aggregate.without) & paid.flags
    )


def _distinct(question: Question, met: dict[int, int]) -> int:
    # A tag counts while its newest event is younger than the window, also where that event is later than this one.
    return sum(last > question.at - (question.feature.window or 0) for last in met.values())


def _since(question: Question, then: int | None) -> float:
    return NAN if then is None else max(question.at - then, 0)


def _age(question: Question) -> float:
    times = [paid.timestamp for log in question.row.logs.values() for paid in log]
    return _since(question, min(times, default=None))


def _device(question: Question, value: float) -> float:
    return value if question.event["device"] else NAN


def _same_device(question: Question) -> int:
    device = int(question.event["device"])
    return sum(
        used == device and last > question.at - 30 * DAY_MS for (used, _), last in question.row.device_pairs.items()
    )


def _marks(question: Question) -> int:
    wanted = question.aggregate.fraud_type
    return sum(wanted in (None, fraud_type) for fraud_type, _ in question.row.marks)


ORACLES: dict[type[aggregates.Aggregate], Callable[[Question], float]] = {
    aggregates.Count: lambda q: len(q.window()),
    aggregates.Sum: lambda q: sum(q.amounts()),
    aggregates.Mean: lambda q: sum(q.amounts()) / len(q.amounts()) if q.amounts() else NAN,
    aggregates.Max: lambda q: max(q.amounts(), default=NAN),
    aggregates.Std: _std,
    aggregates.FlagCount: _flagged,
    aggregates.Share: lambda q: _flagged(q) / len(q.window()) if q.window() else NAN,
    aggregates.FlagRun: _run,
    aggregates.PeriodSum: _period_sum,
    aggregates.SinceLast: lambda q: _since(q, q.known()[-1].timestamp if q.known() else None),
    aggregates.Seen: lambda q: len(q.row.logs[q.log]),
    aggregates.Rising: _rising,
    aggregates.Growth: _growth,
    aggregates.Repeats: lambda q: sum(paid.amount == q.event["amount"] for paid in q.last()),
    aggregates.Distinct: lambda q: _distinct(q, q.row.met[q.log]),
    aggregates.FirstTime: lambda q: int(q.event["other"]) not in q.row.met[q.log],
    aggregates.SincePair: lambda q: _since(q, q.row.met[q.log].get(int(q.event["other"]))),
    aggregates.MetAs: lambda q: int(q.event["other"]) in q.row.met[q.log],
    aggregates.NewDevice: lambda q: _device(q, int(q.event["device"]) not in q.row.devices),
    aggregates.DistinctDevices: lambda q: _distinct(q, q.row.devices),
    aggregates.SameDevice: lambda q: _device(q, _same_device(q)),
    aggregates.Age: _age,
    aggregates.Marks: _marks,
    aggregates.SinceMark: lambda q: _since(q, q.row.marked_at),
}
"""One naive twin for each aggregate."""


class NaiveProfiles:
    """What `Profiles` does, the slow way.

    Parameters
    ----------
    stage
        "receiver" or "payer".
    features
        Base features of the stage, in the order of the columns.
    """

    def __init__(self, stage: str, features: tuple[Feature, ...]) -> None:
        self.stage = stage
        self.features = features
        self.rows: dict[int, Row] = defaultdict(Row)

    def update(self, events: np.ndarray) -> list[list[float]]:
        """Return each event's features, NaN where it wants none; each event reads before it counts."""
        answers = []
        for event in events:
            row = self.rows[int(event["key"])]
            answers.append([self._ask(row, event, f) if event["wants_features"] else NAN for f in self.features])
            if event["counts"]:
                self._count(row, event)
        return answers

    def _ask(self, row: Row, event: np.void, feature: Feature) -> float:
        aggregate = feature.aggregate() if isinstance(feature.aggregate, type) else feature.aggregate
        return float(ORACLES[type(aggregate)](Question(row, event, feature, aggregate)))

    def _count(self, row: Row, event: np.void) -> None:
        log = LOGS[self.stage][event["log"]]
        timestamp, other, device = int(event["timestamp"]), int(event["other"]), int(event["device"])
        flags = {flag for bit, flag in enumerate(FLAGS) if int(event["flags"]) >> bit & 1}
        if other not in row.met[log]:
            flags.add("NEW_COUNTERPARTY")
        if device and event["log"] == 0:
            if (device if self.stage == "payer" else (device, other)) not in (
                row.devices if self.stage == "payer" else row.device_pairs
            ):
                flags.add("NEW_DEVICE")
            row.devices[device] = max(timestamp, row.devices.get(device, 0))
            row.device_pairs[device, other] = max(timestamp, row.device_pairs.get((device, other), 0))
        row.met[log][other] = max(timestamp, row.met[log].get(other, 0))
        row.logs[log].append(Paid(timestamp, int(event["amount"]), frozenset(flags)))

    def mark(self, key: int, fraud_type: str, delta: int, timestamp: int) -> None:
        """Count a confirmed-fraud marker up or down."""
        assert fraud_type in FRAUD_TYPES
        row = self.rows[key]
        if delta > 0:
            row.marks.append((fraud_type, timestamp))
            row.marked_at = max(timestamp, row.marked_at or 0)
            return
        of_type = [mark for mark in row.marks if mark[0] == fraud_type]
        if of_type:
            row.marks.remove(of_type[0])
        if not row.marks:
            row.marked_at = None

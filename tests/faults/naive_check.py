"""The integer features of both stages against `tests/naive.py`: plain lists of all payments, in the log's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

from models.stages.judging import Decided
from models.stages.receivers import NOTICE_COLUMNS
from tables import aggregates
from tables.catalog import CATALOG
from tables.events import debit_events, is_refund
from tables.features import Feature
from tables.layout import EVENT_DTYPE, FRAUD_TYPES, LOGS, Array
from tests.naive import ORACLES, NaiveProfiles, Paid, Question, Row

from .witness import read_frame, read_marks

__all__ = ["payer_mismatches", "receiver_mismatches"]

_EXACT = (
    aggregates.Count,
    aggregates.Sum,
    aggregates.Max,
    aggregates.Distinct,
    aggregates.Seen,
    aggregates.FirstTime,
    aggregates.FlagCount,
    aggregates.PeriodSum,
)
_MARKS = (aggregates.Marks, aggregates.SinceMark)
"""Of payers only: how markers on receivers interleave with payments is not in the log."""


@cache
def _exact_features(stage: str) -> tuple[tuple[int, ...], tuple[Feature, ...]]:
    """Positions and declarations of the features that are integers."""
    wanted = _EXACT + _MARKS if stage == "payer" else _EXACT
    chosen = [
        (position, feature)
        for position, feature in enumerate(CATALOG.stage_features(stage))
        if (feature.aggregate if isinstance(feature.aggregate, type) else type(feature.aggregate)) in wanted
    ]
    return tuple(position for position, _ in chosen), tuple(feature for _, feature in chosen)


@dataclass(frozen=True)
class _QuickQuestion(Question):
    """A question that sorts a log once, for all features of one event."""

    sorted_logs: dict[str, list[Paid]]

    def known(self) -> list[Paid]:
        found = self.sorted_logs.get(self.log)
        if found is None:
            found = self.sorted_logs[self.log] = super().known()
        return found


class _Naive(NaiveProfiles):
    """The naive oracle, for some of the features."""

    def ask_all(self, event: np.void) -> list[float]:
        """Return the features of one event."""
        row: Row = self.rows[int(event["key"])]
        sorted_logs: dict[str, list[Paid]] = {}
        answers = []
        for feature in self.features:
            aggregate: Any = feature.aggregate() if isinstance(feature.aggregate, type) else feature.aggregate
            answers.append(float(ORACLES[type(aggregate)](_QuickQuestion(row, event, feature, aggregate, sorted_logs))))
        return answers

    def enter(self, event: np.void) -> None:
        """Count one event."""
        self._count(self.rows[int(event["key"])], event)


def _mismatches(stage: str, events: Array, features: Array, marks: Mapping[int, Sequence[Any]]) -> Iterator[str]:
    """Tell of the first event whose features are not the naive oracle's.

    Rows of `features` go with the events; marks are told before the event of their number.
    """
    positions, chosen = _exact_features(stage)
    naive = _Naive(stage, chosen)
    for number, (event, found) in enumerate(zip(events, features[:, positions], strict=True)):
        for mark in marks.get(number, ()):
            naive.mark(int(mark["key"]), FRAUD_TYPES[mark["fraud_type"]], int(mark["delta"]), int(mark["timestamp"]))
        if event["wants_features"]:
            wanted = np.array(naive.ask_all(event), np.float64).astype(np.float32)
            if not np.array_equal(found, wanted, equal_nan=True):
                place = int(np.flatnonzero(~((found == wanted) | (np.isnan(found) & np.isnan(wanted))))[0])
                name = list(CATALOG.positions(stage))[positions[place]]
                yield f"{name} of key {int(event['key']):016x}: {found[place]}, expected {wanted[place]}"
                return
        if event["counts"]:
            naive.enter(event)


def receiver_mismatches(events: Array, features: Array) -> Iterator[str]:
    """Compare stage 1's features of one partition: events and what was found for each, in the log's order."""
    return _mismatches("receiver", events, features, {})


def payer_mismatches(messages: Sequence[bytes | None], decided: Decided) -> Iterator[str]:
    """Compare stage 2's features of one partition with what its frames say, repeats dropped by plain sets."""
    first = len(CATALOG.stage_features("receiver"))
    width = len(CATALOG.stage_features("payer"))
    found = {
        bytes(row["id"]): vector[first : first + width]
        for row, vector in zip(decided.rows, decided.vectors, strict=True)
    }
    seen: set[tuple[int, int, bool]] = set()
    ids: set[bytes] = set()
    marked: set[bytes] = set()
    marks: defaultdict[int, list[Any]] = defaultdict(list)
    events, features = [], []
    for upstream, debits, notices in chain.from_iterable(map(_marks_first, messages)):
        if upstream is None:
            marks[len(events)] += [mark for mark in debits if bytes(mark["id"]) not in marked]
            marked.update(debits["id"].tolist())
            continue
        arrivals = [(int(row["transaction"]["source_offset"]), False, row) for row in debits]
        arrivals += [(int(row["source_offset"]), True, row) for row in notices]
        for offset, is_notice, row in sorted(arrivals, key=lambda item: item[:2]):
            if (upstream, offset, is_notice) in seen:
                continue
            seen.add((upstream, offset, is_notice))
            event = _notice(row) if is_notice else _debit(row)
            if not is_notice:
                one = bytes(row["transaction"]["end_to_end_id"])
                if one in ids or row["retry"]:
                    continue
                ids.add(one)
            events.append(event)
            features.append(found.get(one, np.full(width, np.nan, np.float32)) if not is_notice else np.zeros(width))
    if not events:
        return iter(())
    return _mismatches("payer", np.array(events), np.array(features, np.float32), marks)


def _marks_first(message: bytes | None) -> list[tuple[int | None, Any, Any]]:
    return [(None, read_marks(message), None), *read_frame(message)]


def _debit(row: Any) -> np.void:  # noqa: ANN401 - a record of `debit_dtype`
    transactions = np.array([row["transaction"]])
    event = debit_events(transactions, row["receiver"][np.newaxis])[0]
    if is_refund(transactions)[0]:
        event["wants_features"] = event["counts"] = 0
    return event  # type: ignore[no-any-return]


def _notice(row: Any) -> np.void:  # noqa: ANN401 - a record of CREDIT_DTYPE
    event = np.zeros(1, EVENT_DTYPE)[0]
    for name, target in NOTICE_COLUMNS.items():
        event[target] = row[name]
    event["log"], event["counts"] = LOGS["payer"].index("credited"), 1
    return event  # type: ignore[no-any-return]

"""What is held against the topics of a real cluster notices each kind of damage; no broker is needed to show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from app.domain.field_checks import TimeLimits
from app.domain.partitioner import partition_of
from app.domain.records import Stretch
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.settings import Settings, load_settings
from app.topics import (
    DECISIONS,
    ENRICHED,
    FEATURES,
    FEEDBACK,
    MARKERS,
    PAYERS_TABLE,
    RECEIVERS_TABLE,
    REJECTED,
    TRANSACTIONS,
    changelog,
    topics,
)
from models.rules.lists import Lists
from models.stages.marking import mark_parties
from models.stages.outputs import Send
from models.stages.payers import PayerStage
from models.stages.receivers import ReceiverStage
from tables.partition import PROFILE_KEY_BYTES, PartitionState

from .cluster_check import check_logs
from .cluster_log import Places
from .cluster_plan import CLUSTER_FAULTS, draw_cluster_plan
from .cluster_traffic import Expected, draw_items
from .packs import rule_packs

_PARTITIONS = 2
_NOW_MS = 1_790_000_000_000

Row = tuple[bytes | None, bytes | None, int]


@dataclass
class Run:
    """Topics as they are after an unbroken run, and what must be in them."""

    logs: Places
    expected: Expected
    settings: Settings


class Topics:
    """Logs that are appended to."""

    def __init__(self) -> None:
        self.rows: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)

    def append(self, sends: Sequence[Send]) -> None:
        """Append what a stage sends."""
        for send in sends:
            rows = [(key, value, _NOW_MS) for key, value in zip(send.keys, send.values, strict=True)]
            self.rows[send.topic, send.partition] += rows

    def checkpoint(self, topic: str, partition: int, state: PartitionState) -> None:
        """Append a checkpoint."""
        keys, values = state.export()
        self.rows[topic, partition] += [(key, value, _NOW_MS) for key, value in zip(keys, values, strict=True)]

    def read(self, topic: str, partition: int) -> Stretch:
        """Return a log."""
        return stretch(self.rows[topic, partition])


def stretch(rows: Sequence[Row]) -> Stretch:
    """Return rows as a log."""
    keys, values, stamps = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    return Stretch(0, len(rows), keys, values, list(range(len(rows))), stamps)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Play a few hundred messages through both stages, with a checkpoint at the end."""
    settings = load_settings(data_dir=tmp_path_factory.mktemp("data"), partitions=_PARTITIONS)
    hash_key = HashKey.from_bytes(settings.read_hash_key())
    told, expected = Topics(), Expected()
    for item in draw_items(replace(draw_cluster_plan(1), payments=400)):
        partition = partition_of(item.key, _PARTITIONS)
        told.rows[item.topic, partition].append((item.key, item.value, item.timestamp_ms))
        written = SimpleNamespace(partition=partition, offset=len(told.rows[item.topic, partition]) - 1)
        expected.acknowledged(item, written)
    retry = (settings.retry_window_s * 1000, settings.retry_max_ids)
    for partition in range(_PARTITIONS):
        log = told.read(FEEDBACK.name, partition)
        told.append(mark_parties(log, partition, _PARTITIONS, hash_key, TimeLimits()).sends)
    for partition in range(_PARTITIONS):
        decoder = TransactionDecoder(hash_key, TimeLimits())
        receivers = ReceiverStage(partition, _PARTITIONS, decoder, *retry)
        told.append(receivers.apply(told.read(TRANSACTIONS.name, partition)).sends)
        told.append(receivers.apply_markers(told.read(MARKERS.name, partition)).sends)
        told.checkpoint(changelog(settings.app_id, RECEIVERS_TABLE).name, partition, receivers.state)
    for partition in range(_PARTITIONS):
        payers = PayerStage(partition, _PARTITIONS, rule_packs()[0], *retry)
        payers.in_force.put(rule_packs()[0], Lists())
        told.append(payers.apply(told.read(ENRICHED.name, partition)).sends)
        told.checkpoint(changelog(settings.app_id, PAYERS_TABLE).name, partition, payers.state)
    logs = {
        (topic.name, partition): told.read(topic.name, partition)
        for topic in topics(settings.app_id)
        for partition in range(topic.partitions or _PARTITIONS)
    }
    return Run(logs, expected, settings)


def found(run: Run, logs: Places) -> set[str]:
    """Return the invariants that are violated."""
    return {invariant for invariant, _ in check_logs(logs, run.expected, run.settings, rule_packs()[0]).violations}


def test_an_unbroken_run_violates_nothing(run: Run) -> None:
    """What both stages do by themselves is what must be; and it has something of everything in it."""
    result = check_logs(run.logs, run.expected, run.settings, rule_packs()[0])
    assert result.violations == ()
    parts = ("payments", "dead letters", "markers", "receivers compared", "payers compared")
    assert all(result.counts[name] > 0 for name in parts)
    assert result.counts["repeats"] == 0
    assert max(run.expected.sent.values()) > 1


def _without_last(rows: list[Row]) -> list[Row]:
    return rows[:-1]


def _last_changed(rows: list[Row]) -> list[Row]:
    key, value, at_ms = rows[-1]
    return [*rows, (key, (value or b"") + b" ", at_ms)]


def _last_cut_off(rows: list[Row]) -> list[Row]:
    key, value, at_ms = rows[-1]
    return [*rows[:-1], (key, (value or b"")[:-4] + b"\0\0\0\1", at_ms)]


def _without_one_profile(rows: list[Row]) -> list[Row]:
    place = next(place for place, row in enumerate(rows) if len(row[0] or b"") == PROFILE_KEY_BYTES)
    return rows[:place] + rows[place + 1 :]


def _without_ids(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not (row[0] or b"").startswith(b"\0ids/payments")]


def _without_position(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row[0] != b"\0position"]


_RECEIVERS = changelog("pixguard", RECEIVERS_TABLE).name
_PAYERS = changelog("pixguard", PAYERS_TABLE).name


@pytest.mark.parametrize(
    ("topic", "damage", "invariant"),
    [
        (DECISIONS.name, _last_changed, "no decision differs from its first"),
        (REJECTED.name, _without_last, "one dead letter for each bad message"),
        (REJECTED.name, _last_changed, "no dead letter differs from its first"),
        (MARKERS.name, _without_last, "one marker for each marker of the feedback"),
        (FEATURES.name, _last_cut_off, "every vector is that of an unbroken run"),
        (ENRICHED.name, _without_last, "what stage 1 sends is that of an unbroken run"),
        (_RECEIVERS, _without_one_profile, "state equals that of an unbroken run"),
        (_PAYERS, _without_one_profile, "state equals that of an unbroken run"),
        (_RECEIVERS, _without_position, "state reflects the whole log"),
        (_PAYERS, _without_ids, "ids known are those of an unbroken run"),
    ],
)
def test_damage_is_noticed(run: Run, topic: str, damage: Callable[[list[Row]], list[Row]], invariant: str) -> None:
    """A log that lacks a record, or has one that differs, violates what names it."""
    log = run.logs[topic, 0]
    rows = damage(list(zip(log.keys, log.values, log.timestamps_ms, strict=True)))
    assert invariant in found(run, {**run.logs, (topic, 0): stretch(rows)})


def test_a_lost_payment_and_an_unanswered_retry_are_noticed(run: Run) -> None:
    """A decision that is missing is told as a payment without any, or as a retry without an answer."""
    for invariant, is_retried in (
        ("every payment is decided on", False),
        ("each of the producer's retries is answered", True),
    ):
        lost = next(one for one, times in run.expected.sent.items() if (times > 1) == is_retried).encode()
        logs = dict(run.logs)
        for partition in range(_PARTITIONS):
            log = run.logs[DECISIONS.name, partition]
            rows: list[Row] = list(zip(log.keys, log.values, log.timestamps_ms, strict=True))
            last = max((place for place, row in enumerate(rows) if row[0] == lost), default=len(rows))
            logs[DECISIONS.name, partition] = stretch(rows[:last] + rows[last + 1 :])
        assert found(run, logs) == {invariant}


def test_every_fault_is_drawn_and_a_seed_draws_the_same() -> None:
    """A hundred seeds bring every kind of fault, rules, lists and wrong clocks of the producer."""
    plans = [draw_cluster_plan(seed) for seed in range(1, 101)]
    assert {fault.kind for plan in plans for fault in plan.faults} == set(CLUSTER_FAULTS)
    assert any(plan.rules_at_s for plan in plans)
    assert any(plan.lists_at_s for plan in plans)
    assert any(plan.producer_jumps for plan in plans)
    assert draw_cluster_plan(7) == draw_cluster_plan(7)

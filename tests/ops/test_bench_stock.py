"""The stock Faust baseline: its rules alone, and the whole job on the real broker against a naive count."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from ops.bench import stock_faust
from ops.bench.stock_faust import RULES, WINDOWS_S, decide
from ops.bench.stock_measure import StockError, measure_stock
from ops.broker import LocalBroker
from ops.traffic.generator import TrafficConfig, generate

MESSAGES = 2000
QUIET = {f"{side}_{what}_{name}": 0 for side, what, name in product(("receiver", "payer"), ("count", "sum"), WINDOWS_S)}


@pytest.mark.parametrize(
    ("rule", "seen", "below"),
    [
        ("receiver_fan_in", {"receiver_count_1h": 20, "receiver_count_30d": 99}, {"receiver_count_1h": 19}),
        ("receiver_wakes_up", {"receiver_count_1h": 5, "receiver_count_30d": 5}, {"receiver_count_30d": 6}),
        ("payer_burst", {"payer_count_1m": 3}, {"payer_count_1m": 2}),
        ("payer_burst", {"payer_count_5m": 6}, {"payer_count_5m": 5}),
        ("payer_drained", {"payer_sum_1h": 999_900}, {"payer_sum_1h": 999_899}),
        ("payer_unusual_amount", {"payer_count_30d": 3, "payer_sum_30d": 29}, {"payer_sum_30d": 30}),
        ("large_amount", {"amount_centavos": 500_000}, {"amount_centavos": 499_999}),
    ],
)
def test_rule_fires_from_its_bound_on(rule: str, seen: dict[str, int], below: dict[str, int]) -> None:
    """Each rule fires at its bound, is silent just below it, and gives its own weight as the score."""
    at_bound = {**QUIET, "amount_centavos": 100, **seen}
    decision = decide("E1", at_bound)
    weight = next(each.weight for each in RULES if each.name == rule)
    assert (decision["reasons"], decision["score"]) == ([rule], weight)
    assert decide("E1", {**at_bound, **below})["reasons"] == []


def test_score_adds_up_to_actions() -> None:
    """Rules count as independent evidence; reasons go by weight; the score picks the action."""
    drained = {**QUIET, "amount_centavos": 1_000_000}
    held = decide("E1", drained)
    assert (held["action"], held["score"], held["reasons"]) == ("HOLD", 0.65, ["payer_drained", "large_amount"])
    denied = decide("E1", {**drained, "receiver_count_1h": 20, "receiver_count_30d": 20})
    assert denied["reasons"] == ["payer_drained", "receiver_fan_in", "receiver_wakes_up", "large_amount"]
    assert denied["action"] == "DENY"
    assert decide("E1", {**QUIET, "amount_centavos": 1})["action"] == "APPROVE"


def test_measure_wants_a_backlog_and_a_core_that_is_there(tmp_path: Path) -> None:
    """What cannot be measured is refused before the broker is touched."""
    absent = max(os.sched_getaffinity(0)) + 1
    with pytest.raises(StockError, match="no messages"):
        measure_stock("127.0.0.1:1", [], [], partitions=1, seconds=1, data_dir=tmp_path, pin_core=None)
    with pytest.raises(StockError, match=f"core {absent}: expected one of"):
        measure_stock("127.0.0.1:1", [b"{}"], [b"k"], partitions=1, seconds=1, data_dir=tmp_path, pin_core=absent)


def test_worker_that_cannot_work_is_reported_with_its_log(broker: LocalBroker, tmp_path: Path) -> None:
    """A worker that ends is reported at once, with the end of its log."""
    (tmp_path / "faust").write_text("a file where the worker wants its directory", encoding="utf-8")
    with pytest.raises(StockError, match=r"the worker ended with status 1:(?s:.*)FileExistsError"):
        measure_stock(broker.bootstrap, [b"{}"], [b"key"], partitions=1, seconds=1, data_dir=tmp_path, pin_core=None)


def test_worker_ends_when_its_owner_does(broker: LocalBroker, tmp_path: Path) -> None:
    """A closed standard input ends the worker: a bench that is killed leaves none behind."""
    options = [f"--broker={broker.bootstrap}", "--app-id=stock-owner", "--partitions=1", f"--data={tmp_path}"]
    command = [sys.executable, "-m", stock_faust.__name__, "worker", *options]
    lonely = subprocess.run([*command, "--until-eof"], input=b"", capture_output=True, timeout=40, check=False)
    assert lonely.returncode == 1


@pytest.mark.parametrize(
    ("packed", "partitions", "late_share"),
    [
        pytest.param(False, 2, 0.005, id="windowed"),
        # Packed rows forget the window before: payments must come in order, to the second stage too.
        pytest.param(True, 1, 0.0, id="packed"),
    ],
)
def test_every_message_is_decided_once_on_the_right_windows(
    broker: LocalBroker, tmp_path: Path, *, packed: bool, partitions: int, late_share: float
) -> None:
    """Each message of the backlog gets one decision, on features equal to a naive count over tumbling windows."""
    config = TrafficConfig(
        start_ms=1_790_000_000_000,
        count=MESSAGES,
        rate_per_s=5.0,
        late_share=late_share,
        retry_share=0.0,
        malformed_share=0.0,
    )
    messages = list(generate(config))
    core = min(os.sched_getaffinity(0))
    result = measure_stock(
        broker.bootstrap,
        [message.value for message in messages],
        [message.key for message in messages],
        partitions=partitions,
        seconds=60,
        data_dir=tmp_path,
        pin_core=core,
        packed=packed,
    )
    assert 0 < result.decisions < MESSAGES
    assert result.events <= MESSAGES
    assert 0 < result.cpu_seconds <= result.seconds * 1.1
    assert result.events_per_s == result.events / result.seconds
    sent = [json.loads(message.value) for message in messages]
    decisions = asyncio.run(read(broker.bootstrap, f"{result.app_id}-stock-decisions", partitions))
    features = dict(asyncio.run(read(broker.bootstrap, f"{result.app_id}-stock-features", partitions)))
    assert Counter(key for key, _ in decisions) == Counter(payment["end_to_end_id"] for payment in sent)
    assert all(decision == decide(key, features[key]) for key, decision in decisions)
    for name, size_s in WINDOWS_S.items():
        check_receivers(sent, features, name, size_s)
        check_payers(sent, features, name, size_s)


def check_receivers(sent: list[dict[str, Any]], features: dict[str, dict[str, int]], name: str, size_s: int) -> None:
    """A receiver's payments keep their order on the way: count and sum are those of the earlier ones in the window."""
    earlier: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for payment in sent:
        key = payment.get("pix_key") or payment["receiver_account"]
        window = earlier[key, payment["timestamp"] // (size_s * 1000)]
        seen = features[payment["end_to_end_id"]]
        assert (seen[f"receiver_count_{name}"], seen[f"receiver_sum_{name}"]) == (len(window), sum(window))
        window.append(payment["amount_centavos"])


def check_payers(sent: list[dict[str, Any]], features: dict[str, dict[str, int]], name: str, size_s: int) -> None:
    """A payer's payments may arrive in any order, but as the first, second, third of the window, without a gap."""
    windows: defaultdict[tuple[str, str, int], list[dict[str, int]]] = defaultdict(list)
    for payment in sent:
        key = (payment["payer_ispb"], payment["payer_account"], payment["timestamp"] // (size_s * 1000))
        windows[key].append(features[payment["end_to_end_id"]])
    for members in windows.values():
        total = 0
        for position, seen in enumerate(sorted(members, key=lambda seen: seen[f"payer_count_{name}"])):
            assert (seen[f"payer_count_{name}"], seen[f"payer_sum_{name}"]) == (position, total)
            total += seen["amount_centavos"]


async def read(bootstrap: str, topic: str, partitions: int) -> list[tuple[str, dict[str, Any]]]:
    """Keys and values of all messages of a topic."""
    parts = [TopicPartition(topic, partition) for partition in range(partitions)]
    messages: list[tuple[str, dict[str, Any]]] = []
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                messages += [(message.key.decode(), json.loads(message.value)) for message in batch]
    return messages

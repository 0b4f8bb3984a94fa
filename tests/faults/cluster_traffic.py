"""What a bank sends in a run on a real cluster, and what must come of each message."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from app.topics import FEEDBACK, TRANSACTIONS
from ops.traffic.generator import Simulated, TrafficConfig, generate

from .cluster_plan import ClusterPlan
from .traffic import Payment, draw_feedback

__all__ = ["Expected", "Item", "draw_items", "send_items"]

_EVENT_RATE_PER_S = 2.0
_MARGIN_MS = 90 * 60_000
"""How far back the run begins: a producer's clock that is half an hour ahead is not ahead of the broker's."""

_PATIENCE_MS = 180_000


@dataclass(frozen=True, slots=True)
class Item:
    """One message, and what it is: a good payment of an id, or noise, or what became known of a payment."""

    topic: str
    key: bytes
    value: bytes
    timestamp_ms: int
    end_to_end_id: str | None
    is_bad: bool


@dataclass(slots=True)
class Expected:
    """What must come of that which was acknowledged.

    Parameters
    ----------
    sent
        Good payments by id, with how often they were sent.
    bad
        Where messages stand that no one can decide on: topic, partition, offset.
    """

    sent: Counter[str] = field(default_factory=Counter)
    bad: set[tuple[str, int, int]] = field(default_factory=set)

    def acknowledged(self, item: Item, written: RecordMetadata) -> None:
        """Take note of a message that is in the log."""
        if item.is_bad:
            self.bad.add((item.topic, int(written.partition), int(written.offset)))
        elif item.end_to_end_id is not None:
            self.sent[item.end_to_end_id] += 1


def draw_items(plan: ClusterPlan) -> list[Item]:
    """Draw the messages of a run, in the order in which they are sent."""
    config = TrafficConfig(
        start_ms=int(time.time() * 1000) - _MARGIN_MS,
        seed=plan.seed,
        rate_per_s=_EVENT_RATE_PER_S,
        count=plan.payments * 9 // 10,
        fraud_share=0.05,
        lookalike_share=0.1,
        people=1500,
        companies=40,
        steady=True,
        late_share=0.03,
        retry_share=0.03,
        malformed_share=0.02,
    )
    rng = Random(f"traffic/{plan.seed}")
    items: list[Item] = []
    payments: list[Item] = []
    paid: list[Payment] = []
    markers: list[tuple[Payment, str]] = []
    for message in generate(config):
        items.append(_item(message))
        if message.payment is not None:
            payments.append(items[-1])
            paid.append(Payment(json.loads(message.value)))
        draw = rng.random()
        if draw < 0.04 and payments:  # the bank's own retry, perhaps of long ago
            items.append(rng.choice(payments))
        elif draw < 0.055 and payments:
            items.append(_reused(rng.choice(payments[-200:])))
        elif draw < 0.11 and payments:
            items.append(_feedback(rng, paid, markers, message.arrival_ms))
    return _skewed(items, plan)


def _item(message: Simulated) -> Item:
    identity = None if message.payment is None else message.payment.end_to_end_id
    return Item(TRANSACTIONS.name, message.key, message.value, message.arrival_ms, identity, message.payment is None)


def _reused(first: Item) -> Item:
    """Return another payment under a used id."""
    fields = json.loads(first.value)
    fields["amount_centavos"] += 1
    value = json.dumps(fields).encode()
    return Item(first.topic, first.key, value, first.timestamp_ms, first.end_to_end_id, is_bad=True)


def _feedback(rng: Random, payments: Sequence[Payment], markers: list[tuple[Payment, str]], now_ms: int) -> Item:
    fields = draw_feedback(rng, payments, markers, now_ms, repeat_share=0.4)
    key, value = fields["end_to_end_id"].encode(), json.dumps(fields).encode()
    return Item(FEEDBACK.name, key, value, now_ms, None, is_bad="status" not in fields)


def _skewed(items: Sequence[Item], plan: ClusterPlan) -> list[Item]:
    """Let the producer's clock be wrong as planned."""
    skewed = []
    for number, item in enumerate(items):
        past = [jump_ms for at_s, jump_ms in plan.producer_jumps if at_s * plan.rate_per_s <= number]
        stamp_ms = item.timestamp_ms + (past[-1] if past else 0)
        skewed.append(Item(item.topic, item.key, item.value, stamp_ms, item.end_to_end_id, item.is_bad))
    return skewed


async def send_items(
    connection: Mapping[str, Any], items: Sequence[Item], rate_per_s: float, expected: Expected
) -> None:
    """Send at an even rate, whatever happens to the broker meanwhile, until all is acknowledged.

    The producer is idempotent, as a bank's should be: a lost answer makes no second message, and the order stays.
    """
    producer = AIOKafkaProducer(
        **connection, linger_ms=5, enable_idempotence=True, request_timeout_ms=_PATIENCE_MS, retry_backoff_ms=100
    )
    async with producer:
        begun_s = time.monotonic()
        pending = []
        for number, item in enumerate(items):
            ahead_s = begun_s + number / rate_per_s - time.monotonic()
            if ahead_s > 0.01:
                await asyncio.sleep(ahead_s)
            sent = await producer.send(item.topic, item.value, key=item.key, timestamp_ms=item.timestamp_ms)
            pending.append((item, sent))
        await producer.flush()
        for item, sent in pending:
            expected.acknowledged(item, await sent)

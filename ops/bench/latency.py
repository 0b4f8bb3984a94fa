"""Latency at an offered load, free of coordinated omission: from when a payment was due to when its decision came.

Payments are due at random times (Poisson) that are fixed beforehand. Whatever delays the sender, the worker or the
reader counts for every payment that was due meanwhile. Sender and reader share this process, and take processor time
of the same machine.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.batching.packing import Records
from app.batching.sending import RecordSender
from app.domain.byte_column import ByteColumn
from app.topics import DECISIONS, TRANSACTIONS
from ops.bench.load import Load, payment_numbers
from ops.bench.reading import KeyReader, open_reader
from ops.bench.stand import BenchError, Stand, open_sender

__all__ = ["Latency", "measure_latency"]

_WARM_UP_S = 3.0
_LINGER_S = 0.003
"""How long payments are collected into one record batch, as producers do: Kafka's own wait 5 ms by default."""
_GIVE_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from due to decided, by percentile.

    Parameters
    ----------
    rate_per_s
        Offered.
    p50_ms, p99_ms, p999_ms, max_ms
        Over all payments after the warm-up.
    sender_p99_ms
        How late the sender itself was: part of the above.
    """

    rate_per_s: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    sender_p99_ms: float


class _Sender:
    """Sends each payment soon after it is due, those of one partition that are due together as one record batch."""

    def __init__(self, sender: RecordSender, load: Load, rate_per_s: int, seconds: float) -> None:
        rng = np.random.default_rng(rate_per_s)
        gaps_s = rng.exponential(1 / rate_per_s, int(rate_per_s * seconds))
        self.due_s: NDArray[np.float64] = np.cumsum(gaps_s)
        self.sent_s = np.zeros_like(self.due_s)
        self.first_number = load.made
        self._sender = sender
        # Made beforehand: making them is not what is measured.
        self._lanes = _lanes(load, int(time.time() * 1000) + 1000, self.due_s)

    async def run(self, start_s: float) -> None:
        """Send all; times are of `time.monotonic`."""
        sent = 0
        while sent < len(self.due_s):
            now_s = time.monotonic() - start_s
            due = int(np.searchsorted(self.due_s, now_s, "right"))
            self.sent_s[sent:due] = now_s
            sent = due
            now_ms = int(time.time() * 1000)
            for lane in self._lanes:
                due = int(np.searchsorted(lane.due_s, now_s, "right"))
                if due > lane.sent:
                    part = slice(lane.sent, due)
                    times_ms = np.full(due - lane.sent, now_ms)
                    self._sender.send(
                        TRANSACTIONS.name, lane.partition, Records(lane.keys[part], lane.values[part], times_ms)
                    )
                    lane.sent = due
            await asyncio.sleep(_LINGER_S)


@dataclass(slots=True)
class _Lane:
    """The payments of one partition, and how many of them are sent."""

    partition: int
    due_s: NDArray[np.float64]
    keys: ByteColumn
    values: ByteColumn
    sent: int = 0


def _lanes(load: Load, start_ms: int, due_s: NDArray[np.float64]) -> list[_Lane]:
    payments = list(load.in_order(start_ms + (due_s * 1000).astype(np.int64)))
    by_partition: defaultdict[int, list[int]] = defaultdict(list)
    for number, (partition, _, _) in enumerate(payments):
        by_partition[partition].append(number)
    return [
        _Lane(
            partition,
            due_s[numbers],
            ByteColumn.of([payments[number][1] for number in numbers]),
            ByteColumn.of([payments[number][2] for number in numbers]),
        )
        for partition, numbers in by_partition.items()
    ]


async def measure_latency(stand: Stand, load: Load, rate_per_s: int, seconds: float) -> Latency:
    """Offer `rate_per_s` payments for so long, after a warm-up, and wait for all of their decisions.

    Raises
    ------
    BenchError
        When decisions are missing a minute after the last payment.
    """
    async with (
        open_sender(stand.connection) as opened,
        open_reader(stand.connection, DECISIONS.name, stand.settings.partitions) as reader,
    ):
        sender = _Sender(opened, load, rate_per_s, _WARM_UP_S + seconds)
        with _uncollected():
            start_s = time.monotonic() + 0.5
            async with asyncio.TaskGroup() as both:
                both.create_task(sender.run(start_s))
                receiving = both.create_task(_receive(reader, sender, start_s))
            received_s = receiving.result()
    measured = sender.due_s >= _WARM_UP_S
    taken_ms = (received_s - sender.due_s)[measured] * 1000
    late_ms = (sender.sent_s - sender.due_s)[measured] * 1000
    p50, p99, p999 = np.percentile(taken_ms, [50, 99, 99.9]).tolist()
    return Latency(rate_per_s, p50, p99, p999, float(taken_ms.max()), float(np.percentile(late_ms, 99)))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep this process's garbage collector out of what is measured: it would walk over all payments that were made."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _receive(reader: KeyReader, sender: _Sender, start_s: float) -> NDArray[np.float64]:
    """When each payment's decision came, seconds since `start_s`."""
    received_s = np.full(len(sender.due_s), np.nan)
    missing = len(received_s)
    give_up_s = start_s + float(sender.due_s[-1]) + _GIVE_UP_S
    while missing:
        columns = await reader.read()
        now_s = time.monotonic()
        if now_s > give_up_s:
            raise BenchError(f"{missing:,} of {len(received_s):,} payments have no decision after {_GIVE_UP_S:g} s")
        for keys in columns:
            numbers = payment_numbers(keys) - sender.first_number
            numbers = numbers[(numbers >= 0) & (numbers < len(received_s))]
            new = np.unique(numbers[np.isnan(received_s[numbers])])
            received_s[new] = now_s - start_s
            missing -= len(new)
    return received_s

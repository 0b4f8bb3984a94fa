"""The real path with one worker and with two: processor time per event, per batch and at rest, memory, and restoring.

Processor time, not the clock: workers, broker and sender share this machine's cores, and with other users too. What
is asked here is whether a second worker makes an event dearer, and that does not need cores of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app.topics import DECISIONS, Topic
from ops.bench.latency import measure_latency
from ops.bench.load import Load
from ops.bench.measured import AtRate, Real, Replicas, SmallBatches
from ops.bench.processes import cpu_s, resident_bytes
from ops.bench.stand import BenchError, Stand, Worker, ends, preload
from ops.bench.throughput import decided

__all__ = ["measure_real"]

_PARTITIONS = 8
_DAY_MS = 86_400_000
_REST_S = 5.0
_PASSAGES, _PASSAGE_BYTES, _PASSAGE_PAUSE_S = 300, 1000, 0.01


def measure_real(
    jars_dir: Path,
    *,
    customers: int = 100_000,
    events: int = 150_000,
    rates: Sequence[int] = (500, 2000),
    rate_s: float = 6.0,
    progress: Callable[[str], None] = lambda _what: None,
) -> Real:
    """Measure on brokers of its own, in a folder that is removed afterwards.

    Parameters
    ----------
    jars_dir
        The broker's jars.
    customers
        Each pays and is paid once before the measured stretch.
    events
        Of the measured stretch.
    rates, rate_s
        Offered to one worker, per second, and for how long each.
    progress
        Told what comes next.

    Raises
    ------
    BenchError
        When a worker ends, or nothing is decided for two minutes.
    """
    with tempfile.TemporaryDirectory(prefix="pixguard-scale-") as folder:
        with Stand(Path(folder) / "one", jars_dir, _PARTITIONS) as stand:
            progress("The broker alone")
            passage_ms = asyncio.run(_passage_ms(stand))
            with stand.worker("first") as worker:  # the kernels are compiled once, and that is not what a start costs
                worker.wait_ready()
            progress("One worker at rest")
            with stand.worker("first") as worker:
                worker.wait_ready()
                worker_bytes, start_cpu_s = resident_bytes(worker.process.pid), worker.cpu_s()
                time.sleep(_REST_S)
                rest_share = (worker.cpu_s() - start_cpu_s) / _REST_S
            progress("One worker, a backlog")
            load = Load(customers, _PARTITIONS)
            backlog = _preload(stand, load, events)
            with stand.worker("first") as worker:
                one = _backlog(stand, [worker], *backlog)
                progress("One worker, offered rates")
                paced = [_paced(stand, worker, load, rate, rate_s) for rate in rates]
            progress("One worker restores its state")
            recovery_us = _recovery_us(stand, start_cpu_s)
        progress("Two workers, a backlog")
        with Stand(Path(folder) / "two", jars_dir, _PARTITIONS) as stand, ExitStack() as running:
            backlog = _preload(stand, Load(customers, _PARTITIONS), events)
            workers = [running.enter_context(stand.worker(name)) for name in ("first", "second")]
            for worker in workers:
                worker.wait_ready()
            two = _backlog(stand, workers, *backlog)
    latencies, small_batches = [latency for latency, _ in paced], [batches for _, batches in paced]
    return Real(
        customers, [one, two], latencies, small_batches, passage_ms, rest_share, worker_bytes, start_cpu_s, recovery_us
    )


async def _passage_ms(stand: Stand) -> float:
    topic = Topic("bench-passage", key="none", value="bytes", why="Times one passage through the broker.", partitions=1)
    await stand.make_topics([topic])
    taken_s = []
    async with (
        AIOKafkaConsumer(**stand.connection, group_id=None) as consumer,
        AIOKafkaProducer(**stand.connection, acks="all") as producer,
    ):
        consumer.assign([TopicPartition(topic.name, 0)])
        await consumer.seek_to_beginning()
        for _ in range(_PASSAGES):
            start_s = time.monotonic()
            sent = await producer.send(topic.name, bytes(_PASSAGE_BYTES), partition=0)
            await consumer.getone()
            taken_s.append(time.monotonic() - start_s)
            await sent
            await asyncio.sleep(_PASSAGE_PAUSE_S)
    return statistics.median(taken_s) * 1000


def _preload(stand: Stand, load: Load, events: int) -> tuple[int, int, float]:
    """Write a payment from and to each customer, then the measured stretch: sizes, and broker's time for the latter."""
    now_ms = int(time.time() * 1000)
    known = asyncio.run(preload(stand.connection, load.everyone(now_ms - _DAY_MS, now_ms - _DAY_MS // 2)))
    before_s = _broker_cpu_s(stand)
    count = asyncio.run(preload(stand.connection, load.traffic(events, now_ms - _DAY_MS // 2, now_ms)))
    return known, count, _broker_cpu_s(stand) - before_s


def _backlog(stand: Stand, workers: Sequence[Worker], known: int, count: int, written_s: float) -> Replicas:
    asyncio.run(_drained(stand, workers, known))
    start, batches = _decided(stand), sum(map(_batches, workers))
    before_s = [_broker_cpu_s(stand), *(worker.cpu_s() for worker in workers)]
    asyncio.run(_drained(stand, workers, known + count))
    after_s = [_broker_cpu_s(stand), *(worker.cpu_s() for worker in workers)]
    events = known + count - start
    broker_s, *worker_s = (after - before for before, after in zip(before_s, after_s, strict=True))
    return Replicas(
        len(workers),
        sum(worker_s) / events * 1e6,
        broker_s / events * 1e6 + written_s / count * 1e6,
        (sum(map(_batches, workers)) - batches) / events,
    )


def _paced(stand: Stand, worker: Worker, load: Load, rate_per_s: int, seconds: float) -> tuple[AtRate, SmallBatches]:
    before_s, batches_before, decided_before = worker.cpu_s(), _batches(worker), _decided(stand)
    latency = asyncio.run(measure_latency(stand, load, rate_per_s, seconds))
    events = _decided(stand) - decided_before
    return (
        AtRate(rate_per_s, latency.p50_ms, latency.p99_ms, latency.p999_ms),
        SmallBatches(
            rate_per_s,
            (worker.cpu_s() - before_s) / events * 1e6,
            (_batches(worker) - batches_before) / events,
        ),
    )


def _recovery_us(stand: Stand, empty_cpu_s: float) -> float:
    with stand.worker("first") as worker:
        worker.wait_ready()
        spent_s = worker.cpu_s() - empty_cpu_s
        rows = sum(v for name, v in worker.metrics().items() if name.startswith("pixguard_recovered_rows_total"))
    return spent_s / rows * 1e6


async def _drained(stand: Stand, workers: Sequence[Worker], total: int) -> None:
    async for _ in decided(stand, workers, total):
        pass


def _decided(stand: Stand) -> int:
    async def count() -> int:
        async with AIOKafkaConsumer(**stand.connection, group_id=None) as consumer:
            return await ends(consumer, DECISIONS.name, _PARTITIONS)

    return asyncio.run(count())


def _batches(worker: Worker) -> float:
    return sum(value for name, value in worker.metrics().items() if name.startswith("pixguard_batch_seconds_count"))


def _broker_cpu_s(stand: Stand) -> float:
    if stand.broker.pid is None:
        raise BenchError("the broker has ended")
    return cpu_s(stand.broker.pid)

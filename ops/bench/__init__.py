"""`pixguard bench`: the whole path and its parts, measured on this machine in one run.

Full load first: a backlog over a million keys, the worker pinned on one core, the broker on another. Then the same
worker is killed and has to recover; then payments are offered at fixed rates and their latency is taken. Then an online
and a batch model are put in force, and latency and full load are measured again. Then stock Faust does the same job on
the same broker, by rules alone. What each part of the path costs is measured last, without Kafka.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agents.controls import DEFAULT_RULES, read_pack
from app.topics import DECISIONS
from ops.bench.broker_log import BrokerLog, compact, log_folder
from ops.bench.costs import measure_costs
from ops.bench.latency import measure_latency
from ops.bench.load import Load
from ops.bench.recovery import measure_recovery
from ops.bench.report import Figures, WithModels, write_page
from ops.bench.stand import BenchError, Stand, Worker, ends, on_cores, preload
from ops.bench.stock_measure import StockResult, measure_stock
from ops.bench.throughput import Throughput, drain

__all__ = ["BenchError", "BenchPlan", "run_bench"]

_HOUR_MS = 3_600_000
_WARM_UPS = 2
"""How much longer than a measurement: the broker compiles its code meanwhile, on the core that it has."""

_MODELS_RATE = 10_000
"""At which latency is measured with models at most, payments per second."""

_STOCK_BACKLOG_PER_S = 4000
"""More than stock Faust does in a second, so that its backlog never ends before its time."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """How much is measured.

    Parameters
    ----------
    keys
        Profiles that the worker holds, receivers and payers together.
    events
        Payments of the backlog.
    rates
        Offered loads, payments per second.
    latency_s, stock_s
        How long each of them is offered, and how long stock Faust is measured.
    partitions
        Of every keyed topic: two a worker, so twenty for the ten replicas that the national load may take.
    broker_log
        Where the broker keeps its log.
    model_payments
        Simulated payments that models are trained on, with which the path is measured, too; 0: it is not.
    """

    keys: int = 1_000_000
    events: int = 1_000_000
    rates: tuple[int, ...] = (1_000, 10_000, 20_000)
    latency_s: float = 20.0
    stock_s: float = 20.0
    partitions: int = 2
    broker_log: BrokerLog = "auto"
    model_payments: int = 25_000


def run_bench(plan: BenchPlan, out: Console, *, jars_dir: Path, as_json: bool, page: bool) -> None:
    """Measure, and print a table or one JSON object.

    Parameters
    ----------
    plan
        How much.
    out
        Where the table goes; progress goes to standard error.
    jars_dir
        Cache of the broker's jars.
    as_json
        Print one JSON object instead.
    page
        Whether to write the figures into ops/performance.md.

    Raises
    ------
    BenchError, StockError
        When a measurement cannot be made.
    """
    with (
        _progress() as progress,
        tempfile.TemporaryDirectory(prefix="pixguard-bench-") as name,
        log_folder(plan.broker_log, folder := Path(name)) as broker_dir,
    ):
        figures = asyncio.run(_measure(plan, folder, broker_dir, jars_dir, progress))
    if page:
        write_page(figures)
    if as_json:
        print(json.dumps(figures.as_json()))  # noqa: T201 - for a pipe
    else:
        figures.show(out)


class _Steps:
    """The steps of the run on a progress bar."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._all = progress.add_task("Bench", total=total)

    @contextmanager
    def step(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show one step; what it yields is told how far it is."""
        task: TaskID = self._progress.add_task(what, total=total)
        try:
            yield lambda done: self._progress.update(task, completed=done)
        finally:
            self._progress.remove_task(task)
            self._progress.advance(self._all)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


async def _measure(plan: BenchPlan, folder: Path, broker_dir: Path, jars_dir: Path, progress: Progress) -> Figures:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores:
        # Whoever first asks for a thread: it would have the cores of that moment for ever, see `on_cores`.
        threads = ThreadPoolExecutor(initializer=os.sched_setaffinity, initargs=(0, cores))
        asyncio.get_running_loop().set_default_executor(threads)
    worker_cores, broker_cores = ({cores[0]}, set(cores[1:])) if len(cores) > 1 else (None, None)
    steps = _Steps(progress, 8 + 2 * len(plan.rates) + 6 * bool(plan.model_payments))
    stand = Stand(
        folder,
        jars_dir,
        plan.partitions,
        broker_cores=broker_cores,
        worker_cores=worker_cores,
        broker_dir=broker_dir,
    )
    async with stand:
        load = Load(plan.keys // 2, plan.partitions)
        total = await _preload(stand, load, plan, steps)
        with stand.worker() as worker:
            with steps.step("Draining the backlog", total) as show:
                throughput = await drain(stand, worker, first=plan.keys // 2, total=total, progress=show)
            with steps.step("Compacting the changelogs"):
                compaction_cpu_s = await compact(stand)
            held = worker.metrics()
            with steps.step("Recovering after kill -9"):
                recovery_s = await measure_recovery(stand, load, worker, stand.worker())
        latencies = []
        with stand.worker() as worker, on_cores(broker_cores):  # sender and reader keep off the worker's core
            await asyncio.to_thread(worker.wait_ready)
            with steps.step("Warming up"):
                await measure_latency(stand, load, max(plan.rates), _WARM_UPS * plan.latency_s)
            for rate in plan.rates:
                with steps.step("Compacting the changelogs"):
                    await compact(stand)
                with steps.step(f"Latency at {rate:,}/s"):
                    latencies.append(await measure_latency(stand, load, rate, plan.latency_s))
            with_models = await _latency_with_models(stand, load, worker, plan, steps) if plan.model_payments else None
        if with_models is not None:
            with_models = replace(with_models, throughput=await _drain_again(stand, load, plan, steps))
        with steps.step("The same job in stock Faust"):
            windowed, packed = await asyncio.to_thread(_stock, stand, load, plan, cores)
    with steps.step("The parts of the path"):
        costs = await asyncio.to_thread(
            measure_costs, plan.keys // 2, min(plan.events, 200_000), read_pack(DEFAULT_RULES)
        )
    keys = int(sum(value for name, value in held.items() if name.startswith("pixguard_profiles")))
    in_memory = folder not in broker_dir.parents
    return Figures(
        keys,
        throughput,
        held,
        recovery_s,
        latencies,
        (windowed, packed),
        costs,
        is_log_in_memory=in_memory,
        compaction_us=compaction_cpu_s / total * 1e6,
        with_models=with_models,
    )


async def _latency_with_models(stand: Stand, load: Load, worker: Worker, plan: BenchPlan, steps: _Steps) -> WithModels:
    """Put models in force in a running worker, and measure what a payment waits for then."""
    with steps.step("Training models"):
        from ops.bench.models import put_in_force, train_models  # noqa: PLC0415 - libraries of the extra `learn`

        models = await asyncio.to_thread(train_models, plan.model_payments)
    rate = min(_MODELS_RATE, max(plan.rates))
    with steps.step("Putting models in force"):
        await put_in_force(stand, worker, models)
        await measure_latency(stand, load, rate, plan.latency_s / 2)
        await compact(stand)
    with steps.step(f"Latency at {rate:,}/s with models"):
        return WithModels(await measure_latency(stand, load, rate, plan.latency_s), None)


async def _drain_again(stand: Stand, load: Load, plan: BenchPlan, steps: _Steps) -> Throughput:
    """Measure full load in a worker that finds the models in its state."""
    now_ms = int(time.time() * 1000)
    async with AIOKafkaConsumer(**stand.connection, group_id=None) as consumer:
        done = await ends(consumer, DECISIONS.name, plan.partitions)
    with steps.step("Preloading another backlog", plan.events) as show:
        count = await preload(stand.connection, load.traffic(plan.events, now_ms - _HOUR_MS, now_ms), show)
    with stand.worker() as worker, steps.step("Draining it with models", done + count) as show:
        first = done + count // 4
        throughput = await drain(stand, worker, first=first, total=done + count, before=done, progress=show)
    with steps.step("Compacting the changelogs"):
        await compact(stand)
    return throughput


async def _preload(stand: Stand, load: Load, plan: BenchPlan, steps: _Steps) -> int:
    now_ms = int(time.time() * 1000)
    end_ms = now_ms - 2 * _HOUR_MS
    with steps.step("Every customer pays once", load.customers) as show:
        count = await preload(stand.connection, load.everyone(end_ms - 24 * _HOUR_MS, end_ms), show)
    with steps.step("Preloading the backlog", plan.events) as show:
        return count + await preload(stand.connection, load.traffic(plan.events, end_ms, now_ms), show)


def _stock(stand: Stand, load: Load, plan: BenchPlan, cores: list[int]) -> tuple[StockResult, StockResult]:
    now_ms = int(time.time() * 1000)
    count = int(plan.stock_s * _STOCK_BACKLOG_PER_S)
    batches = [payments for batch in load.traffic(count, now_ms - _HOUR_MS, now_ms) for payments in batch.values()]
    values = [value for payments in batches for value in payments.values]
    keys = [key for payments in batches for key in payments.keys]
    windowed, packed = (
        measure_stock(
            stand.settings.broker,
            values,
            keys,
            partitions=plan.partitions,
            seconds=plan.stock_s,
            data_dir=stand.folder / f"stock-{'packed' if rows else 'windowed'}",
            pin_core=cores[0] if len(cores) > 1 else None,
            packed=rows,
        )
        for rows in (False, True)
    )
    return windowed, packed

"""The whole path at full load: a backlog, one worker on one core, the broker on another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer

from app.topics import DECISIONS
from ops.bench.stand import BenchError, Stand, Worker, ends

__all__ = ["Throughput", "decided", "drain"]

_POLL_S = 0.2
_STALLED_S = 120.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """How a backlog was worked off.

    Parameters
    ----------
    events
        Payments of the measured stretch, each stage being half of one.
    wall_s, cpu_s
        How long that took, and the processor time that the worker used for it.
    """

    events: int
    wall_s: float
    cpu_s: float

    @property
    def events_per_s(self) -> float:
        """Payments per second of the clock, on one core."""
        return self.events / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Processor time per payment, microseconds: less disturbed by other users of the machine."""
        return self.cpu_s / self.events * 1e6


async def drain(
    stand: Stand,
    worker: Worker,
    *,
    first: int,
    total: int,
    before: int = 0,
    progress: Callable[[int], None] = lambda _done: None,
) -> Throughput:
    """Wait until `total` payments have their decisions, and measure from the `first` one on.

    Parameters
    ----------
    stand, worker
        Who decides, and where.
    first, total
        Of all payments ever decided.
    before
        Decided by other workers.
    progress
        Is told how many are done.

    Raises
    ------
    BenchError
        When the worker ends, decides nothing for two minutes, or is done before it can be measured.
    """
    start: tuple[float, float, float] | None = None
    async for done in decided(stand, [worker], total):
        progress(done)
        if start is None and first <= done < total:
            now_s, used_s = time.monotonic(), worker.cpu_s()
            # Stage 1 may be ahead of stage 2: what it has done already is not of the measured stretch.
            received = before + worker.metrics().get("pixguard_transactions_total", 0.0)
            start = (now_s, (received + done) / 2, used_s)
    if start is None:
        raise BenchError(f"{total:,} payments are too few to measure: all were decided between two looks")
    return Throughput(int(total - start[1]), time.monotonic() - start[0], worker.cpu_s() - start[2])


async def decided(stand: Stand, workers: Sequence[Worker], total: int) -> AsyncIterator[int]:
    """Yield the number of decisions, again and again, until there are `total`.

    Raises
    ------
    BenchError
        When a worker ends, or nothing is decided for two minutes.
    """
    moved_s, seen = time.monotonic(), -1
    async with AIOKafkaConsumer(**stand.connection, group_id=None) as consumer:
        while seen < total:
            done = await ends(consumer, DECISIONS.name, stand.settings.partitions)
            for worker in workers:
                worker.check()
            if done > seen:
                moved_s, seen = time.monotonic(), done
            elif time.monotonic() - moved_s > _STALLED_S:
                workers[0].fail(f"nothing was decided for {_STALLED_S:g} s, {seen:,} of {total:,} done")
            yield done
            if done < total:
                await asyncio.sleep(_POLL_S)

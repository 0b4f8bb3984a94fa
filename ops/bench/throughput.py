"""The whole path at full load: a backlog, one worker on one core, the broker on another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer

from app.topics import DECISIONS
from ops.bench.stand import BenchError, Stand, Worker, ends

__all__ = ["Throughput", "drain"]

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
    stand: Stand, worker: Worker, *, first: int, total: int, progress: Callable[[int], None] = lambda _done: None
) -> Throughput:
    """Wait until `total` payments have their decisions, and measure from the `first` one on.

    Raises
    ------
    BenchError
        When the worker ends, decides nothing for two minutes, or is done before it can be measured.
    """
    start: tuple[float, float, float] | None = None
    moved_s, seen = time.monotonic(), -1
    async with AIOKafkaConsumer(**stand.connection, group_id=None) as consumer:
        while True:
            now = (time.monotonic(), await ends(consumer, DECISIONS.name, stand.settings.partitions), worker.cpu_s())
            worker.check()
            progress(now[1])
            if now[1] > seen:
                moved_s, seen = now[0], now[1]
            elif now[0] - moved_s > _STALLED_S:
                worker.fail(f"nothing was decided for {_STALLED_S:g} s, {seen:,} of {total:,} done")
            if start is None and now[1] >= first:
                # Stage 1 may be ahead of stage 2: what it has done already is not of the measured stretch.
                received = worker.metrics().get("pixguard_transactions_total", 0.0)
                start = (now[0], (received + now[1]) / 2, now[2])
            if start is not None and now[1] >= total:
                if now[0] == start[0]:
                    raise BenchError(f"{total:,} payments are too few to measure: all were decided between two looks")
                return Throughput(int(now[1] - start[1]), now[0] - start[0], now[2] - start[2])
            await asyncio.sleep(_POLL_S)

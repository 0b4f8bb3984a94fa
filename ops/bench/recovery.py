"""How long payments wait when a worker is killed and started again, with all of its state to be restored."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager

from aiokafka import AIOKafkaConsumer

from app.topics import DECISIONS
from ops.bench.load import Load
from ops.bench.stand import BenchError, Stand, Worker, ends, preload

__all__ = ["measure_recovery"]

_PAYMENTS = 200
_GIVE_UP_S = 180.0


async def measure_recovery(stand: Stand, load: Load, killed: Worker, restart: AbstractContextManager[Worker]) -> float:
    """Kill a worker as a crash would and start it again under its name; seconds until it decides on a new payment.

    Raises
    ------
    BenchError
        When it does not within three minutes.
    """
    async with AIOKafkaConsumer(**stand.connection, group_id=None) as consumer:
        partitions = stand.settings.partitions
        before = await ends(consumer, DECISIONS.name, partitions)
        killed.kill()
        start_s = time.monotonic()
        now_ms = int(time.time() * 1000)
        await preload(stand.connection, load.traffic(_PAYMENTS, now_ms, now_ms + 1))
        with restart as worker:
            while await ends(consumer, DECISIONS.name, partitions) < before + _PAYMENTS:
                worker.check()
                if time.monotonic() - start_s > _GIVE_UP_S:
                    raise BenchError(f"not recovered after {_GIVE_UP_S:g} s; the worker's log: {worker.log}")
                await asyncio.sleep(0.02)
            return time.monotonic() - start_s

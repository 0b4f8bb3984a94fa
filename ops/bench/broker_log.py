"""Where the bench's broker keeps its log, and when it compacts it.

A broker acknowledges from the page cache, but an append waits while the kernel writes the same file back: with a disk
that others use too that is 100 ms now and then, which says nothing about a worker. So the log is in memory where there
is room.

On a single core compaction takes seconds of the processor, which a cluster has to spare. So it nearly stands still
while something is measured, and is made up for in between.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.topics import DECISIONS, ENRICHED, FEATURES, TRANSACTIONS
from ops.bench.stand import COMPACTION, SLOW_COMPACTION, BenchError, Stand

__all__ = ["BrokerLog", "compact", "log_folder"]

_MEMORY = Path("/dev/shm")  # noqa: S108 - Linux's file system in memory, for a folder that only its owner can read
_PREFIX = "pixguard-bench-"
_POLL_S = 0.5
_NEEDED_BYTES = 20 << 30
"""What the log of a whole run takes, measured as 14, and the programs beside it."""

_FAST_COMPACTION = float(1 << 30)
_COMPACTED_S = 8.0
_GIVE_UP_S = 90.0

BrokerLog = Literal["auto", "memory", "disk"]
"""Where the log is; auto: in memory if there is room, else on disk."""


@contextmanager
def log_folder(where: BrokerLog, disk: Path) -> Iterator[Path]:
    """Yield the broker's folder, which is gone afterwards.

    Parameters
    ----------
    where
        Memory or disk.
    disk
        An existing folder on disk.

    Raises
    ------
    BenchError
        When it must be in memory and there is no room.
    """
    free = _free_bytes()
    if where == "disk" or (where == "auto" and free < _NEEDED_BYTES):
        yield disk / "kafka"
        return
    if free < _NEEDED_BYTES:
        raise BenchError(
            f"the broker's log does not fit into memory: expected {_NEEDED_BYTES >> 30} GiB free in {_MEMORY}, "
            f"got {free >> 30}; use --broker-log disk"
        )
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_bytes() -> int:
    """Room in memory: of the file system, and that no program needs."""
    try:
        of_files = shutil.disk_usage(_MEMORY).free
        of_programs = next(
            int(line.split()[1]) << 10
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
            if line.startswith("MemAvailable:")
        )
    except (OSError, StopIteration):
        return 0
    return min(of_files, of_programs)


def _remove_leftovers() -> None:
    """Give back the memory of runs that were killed."""
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


async def compact(stand: Stand) -> float:
    """Let the broker drop what was read, and compact its changelogs as fast as it can until they shrink no more.

    Returns
    -------
    Seconds of processor time that the broker used.

    Raises
    ------
    BenchError
        When it refuses.
    """
    await _drop_read(stand)
    used_s = stand.broker_cpu_s()
    await _bound_compaction(stand, _FAST_COMPACTION)
    smallest, since_s = float("inf"), time.monotonic()
    give_up_s = since_s + _GIVE_UP_S
    while time.monotonic() < min(since_s + _COMPACTED_S, give_up_s):
        size = await asyncio.to_thread(_changelog_bytes, stand.broker.data_dir)
        if size < smallest:
            smallest, since_s = size, time.monotonic()
        await asyncio.sleep(_POLL_S)
    used_s = stand.broker_cpu_s() - used_s
    await _bound_compaction(stand, SLOW_COMPACTION)
    return used_s


async def _drop_read(stand: Stand) -> None:
    """Give back what payments, frames, vectors and decisions take that nobody reads again."""
    admin, consumer = AIOKafkaAdminClient(**stand.connection), AIOKafkaConsumer(**stand.connection, group_id=None)
    async with consumer:
        await admin.start()
        try:
            for topic in (TRANSACTIONS, ENRICHED, FEATURES, DECISIONS):
                places = [TopicPartition(topic.name, partition) for partition in range(stand.settings.partitions)]
                all_of_it = {place: RecordsToDelete(end) for place, end in (await consumer.end_offsets(places)).items()}
                await admin.delete_records(all_of_it)
        finally:
            await admin.close()


async def _bound_compaction(stand: Stand, bytes_per_s: float) -> None:
    admin = AIOKafkaAdminClient(**stand.connection)
    await admin.start()
    try:
        broker = ConfigResource(ConfigResourceType.BROKER, str(stand.broker.node_id), {COMPACTION: str(bytes_per_s)})
        for answer in await admin.alter_configs([broker]):
            for code, message, *_ in answer.resources:
                if code:
                    raise BenchError(f"{COMPACTION}: the broker refuses {bytes_per_s:g}: {message}")
    finally:
        await admin.close()


def _changelog_bytes(folder: Path) -> int:
    """What lies in changelogs; files that go meanwhile are not counted."""
    total = 0
    for file in folder.glob("log/*-changelog-*/*.log"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total

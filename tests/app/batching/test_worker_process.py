"""Whole worker processes: killed, stopped and failing."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.app.batching.recording import Cluster

ROOT = Path(__file__).parents[3]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(cluster: Cluster, tmp_path: Path) -> Iterator[Spawn]:
    """Start copying workers, killed at the end."""
    started = []

    def start(group: str, instance: str, source: str, outputs: str, fail_at: str = "none") -> "subprocess.Popen[bytes]":
        arguments = [cluster.bootstrap, group, instance, source, outputs, str(tmp_path / instance), fail_at]
        command = [sys.executable, "-m", "tests.app.batching.copying_worker", *arguments]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_workers_that_are_killed_lose_nothing_and_repeat_only_the_same(cluster: Cluster, spawn: Spawn) -> None:
    """Over two kills and an orderly stop every record is copied, and what is copied twice is copied equal."""
    source, outputs, group = await cluster.create(partitions=2), await cluster.create(partitions=2), uuid4().hex
    workers = [spawn(group, f"worker-{each}", source, outputs) for each in range(2)]
    for first in range(0, 10_000, 200):
        for partition in range(2):
            await cluster.fill(source, partition, range(first, first + 200))
        if first in {3_000, 5_000}:
            workers[0].kill()
            workers[0].wait()
            workers[0] = spawn(group, "worker-0", source, outputs)
        await asyncio.sleep(0.1)
    await settle(cluster, outputs, 20_000)
    workers[0].terminate()
    assert await asyncio.to_thread(workers[0].wait, 20) == 0
    copies: dict[tuple[int, bytes], set[tuple[bytes, int]]] = {}
    for record in await cluster.read(outputs, partitions=2):
        copies.setdefault((record.partition, record.key), set()).add((record.value, record.timestamp))
    wanted = {
        (partition, b"%d" % number): {(b"%d" % number, number)} for partition in range(2) for number in range(10_000)
    }
    assert copies == wanted


async def settle(cluster: Cluster, outputs: str, distinct: int) -> None:
    """Wait until the outputs are complete; the comparison afterwards tells what is wrong if they never are."""
    for _ in range(20):
        records = await cluster.read(outputs, partitions=2)
        if len({(record.partition, record.key) for record in records}) >= distinct:
            return
        await asyncio.sleep(0.5)


async def test_a_worker_whose_agent_fails_exits_with_an_error(cluster: Cluster, spawn: Spawn) -> None:
    """Whoever supervises the process learns that it failed, and can restart it."""
    source, outputs = await cluster.create(), await cluster.create()
    await cluster.fill(source, 0, range(10))
    worker = spawn(uuid4().hex, "worker", source, outputs, fail_at="5")
    assert await asyncio.to_thread(worker.wait, 20) != 0
    assert await cluster.read(outputs) == []

"""Faults as they strike a real cluster: each kind is one function of the storm."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from app.kafka_options import client_options
from app.settings import Settings
from app.topics import LISTS
from ops.broker import LocalBroker

from .cluster_fleet import Fleet, SupervisedWorker
from .cluster_plan import ClusterFault, ClusterPlan
from .cluster_traffic import Item
from .cluster_worker import set_skew

__all__ = ["Storm"]

_READY_PATIENCE_S = 180.0
_CALM_PATIENCE_S = 15.0
_POLL_S = 0.05
_PATIENCE_MS = 180_000
_MOST_ENTRIES = 5
_BETWEEN_UPDATES_S = 0.1
_ENTRY = b'{"reason": "a test", "until": null}'


class Storm:
    """What strikes one run.

    Parameters
    ----------
    plan
        What comes when.
    fleet, broker, settings
        Whom it strikes.
    rules
        The file of the rules in force, and the one that replaces it.
    """

    def __init__(
        self, plan: ClusterPlan, fleet: Fleet, broker: LocalBroker, settings: Settings, rules: tuple[Path, Path]
    ) -> None:
        self.struck: Counter[str] = Counter()
        self.handover_s: list[float] = []
        self.recovery_s: list[float] = []
        self.late: list[tuple[str, str]] = []
        """What did not come in time: invariant, detail."""
        self._plan = plan
        self._fleet = fleet
        self._broker = broker
        self._settings = settings
        self._rules = rules
        self._broker_lock = asyncio.Lock()
        self._strikes = 0
        self._kinds: dict[str, Callable[[ClusterFault, SupervisedWorker], Awaitable[None]]] = {
            "kill": self._kill,
            "leave": self._leave,
            "pause": self._pause,
            "zombie": self._zombie,
            "slow": self._slow,
            "full disk": self._fill_disk,
            "clock jump": self._jump,
        }

    async def pass_over(self, items: list[Item]) -> None:
        """Let everything come when it is planned to, and return when all of it is over."""
        begun_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in self._plan.faults:
                tasks.create_task(self._strike(fault, begun_s))
            if self._plan.rules_at_s is not None:
                tasks.create_task(self._change_rules(self._plan.rules_at_s))
            if self._plan.lists_at_s is not None:
                tasks.create_task(self._change_lists(self._plan.lists_at_s, items))

    async def _strike(self, fault: ClusterFault, begun_s: float) -> None:
        await asyncio.sleep(max(0.0, begun_s + fault.at_s - time.monotonic()))
        self._strikes += 1
        if fault.kind == "broker":
            await self._restart_broker(fault)
        elif fault.kind == "join":
            await self._fleet.add()
        else:
            worker = await self._target(fault)
            worker.is_busy = True
            try:
                await self._kinds[fault.kind](fault, worker)
            finally:
                worker.is_busy = False
        self.struck[fault.kind] += 1

    async def _target(self, fault: ClusterFault) -> SupervisedWorker:
        async with asyncio.timeout(_READY_PATIENCE_S):
            while (worker := self._fleet.choose(fault.target)) is None:  # noqa: ASYNC110 - it is about processes
                await asyncio.sleep(_POLL_S)
        return worker

    # -- workers

    async def _kill(self, fault: ClusterFault, worker: SupervisedWorker) -> None:
        held, begun_s, broker_restarts = worker.partitions, time.monotonic(), self.struck["broker"]
        await worker.kill()
        await asyncio.sleep(2 * self._plan.session_s * fault.size)
        await worker.start()
        seconds = await self._taken_up("recovery", held, begun_s, None)
        if self.struck["broker"] == broker_restarts and not self._broker_lock.locked():
            self.recovery_s += seconds

    async def _leave(self, fault: ClusterFault, worker: SupervisedWorker) -> None:
        if fault.size < 0.5:  # half of them wait for a moment in which their time says something
            until_s = time.monotonic() + _CALM_PATIENCE_S
            while not self._is_calm(worker) and time.monotonic() < until_s:  # noqa: ASYNC110 - it is about processes
                await asyncio.sleep(_POLL_S)
        is_measured, disturbances = self._is_calm(worker), self._disturbances(worker)
        held, begun_s = worker.partitions, time.monotonic()
        try:
            await worker.stop()
        except TimeoutError:
            self.late.append(("a worker leaves when asked", worker.name))
        if is_measured:
            seconds = await self._taken_up("hand-over", held, begun_s, worker)
            if self._disturbances(worker) == disturbances:
                self.handover_s += seconds
        await asyncio.sleep(2 * fault.size)
        await worker.start()

    def _disturbances(self, leaver: SupervisedWorker) -> int:
        """Return how many faults came, and how often another worker ended: a zombie seems ready until it does."""
        return self._strikes + sum(len(other.endings) for other in self._fleet.workers if other is not leaver)

    def _is_calm(self, leaver: SupervisedWorker) -> bool:
        """Whether all are ready and nothing else goes on."""
        others = [worker for worker in self._fleet.workers if worker is not leaver]
        are_ready = bool(others) and all(other.is_ready and not other.is_busy for other in others)
        return leaver.is_ready and are_ready and not self._broker_lock.locked()

    async def _taken_up(
        self, what: str, held: frozenset[int], begun_s: float, but: SupervisedWorker | None
    ) -> list[float]:
        """Wait until others decide on what a worker held; the seconds that it took, if it held anything."""
        deadline_s = begun_s + _READY_PATIENCE_S
        while (took_s := self._fleet.ready_since(begun_s, held, but)) is None:
            if time.monotonic() > deadline_s:
                self.late.append((f"{what} within {_READY_PATIENCE_S:g} s", f"partitions {sorted(held)}"))
                return []
            await asyncio.sleep(_POLL_S)
        return [took_s] if held else []

    async def _pause(self, fault: ClusterFault, worker: SupervisedWorker) -> None:
        await self._stopped(worker, self._plan.session_s * 0.8 * fault.size)

    async def _zombie(self, fault: ClusterFault, worker: SupervisedWorker) -> None:
        await self._stopped(worker, self._plan.session_s * (1.2 + 2 * fault.size))

    async def _slow(self, fault: ClusterFault, worker: SupervisedWorker) -> None:
        until_s = time.monotonic() + 2 + 2 * fault.size
        while time.monotonic() < until_s:
            await self._stopped(worker, 0.3)
            await asyncio.sleep(0.05)

    async def _stopped(self, worker: SupervisedWorker, seconds: float) -> None:
        worker.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            worker.signal(signal.SIGCONT)

    async def _fill_disk(self, _fault: ClusterFault, worker: SupervisedWorker) -> None:
        worker.fill_disk()

    async def _jump(self, fault: ClusterFault, worker: SupervisedWorker) -> None:
        set_skew(worker.clock, fault.jump_ms)

    # -- all else

    async def _restart_broker(self, fault: ClusterFault) -> None:
        async with self._broker_lock:
            await asyncio.to_thread(self._broker.kill)
            await asyncio.sleep(2 * fault.size)
            await asyncio.to_thread(self._broker.start)

    async def _change_rules(self, at_s: float) -> None:
        await asyncio.sleep(at_s)
        now, later = self._rules
        later.replace(now)
        self.struck["rules"] += 1

    async def _change_lists(self, at_s: float, items: list[Item]) -> None:
        """Deny the keys that most of the payments so far went to; later let one of them go again."""
        await asyncio.sleep(at_s)
        keys = Counter(item.key for item in items if item.end_to_end_id is not None and not item.is_bad)
        denied = [key for key, _ in keys.most_common(_MOST_ENTRIES)]
        updates: list[tuple[bytes, bytes | None]] = [(b"deny/key/" + key, _ENTRY) for key in denied]
        await self._update_lists([*updates, (updates[0][0], None)])
        self.struck["lists"] += 1

    async def _update_lists(self, updates: list[tuple[bytes, bytes | None]]) -> None:
        """Send them one by one, from the first again where the broker is away when the producer starts."""
        async with asyncio.timeout(_READY_PATIENCE_S):
            while True:
                producer = AIOKafkaProducer(**client_options(self._settings), request_timeout_ms=_PATIENCE_MS)
                try:
                    async with producer:
                        for key, value in updates:
                            await producer.send_and_wait(LISTS.name, value, key=key)
                            await asyncio.sleep(_BETWEEN_UPDATES_S)
                except KafkaConnectionError:
                    await producer.stop()
                    await asyncio.sleep(_POLL_S)
                else:
                    return

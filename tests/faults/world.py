"""One run: the clock, the log, the network, the machines, and the faults that befall them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from app.domain.field_checks import TimeLimits
from app.domain.partitioner import partition_of
from app.domain.siphash import HashKey, hash_account
from app.domain.transaction import TransactionDecoder
from models.ensemble import NO_MODELS
from models.rules.lists import FOR_EVER_MS, Lists, ListUpdate
from models.rules.pack import RulePack
from tables.cold import ColdStoreError

from .group import CommitRefusedError, Group
from .log import FencedError, Log, TopicPartition
from .loop import DeadlockError, VirtualLoop
from .machine import Disk, Machine, MachineClock
from .model_sets import model_set
from .network import Network, SendError
from .packs import rule_packs
from .plan import Fault, Plan
from .traffic import Message, Traffic
from .transport import CHANGELOGS
from .witness import Witness
from .worker import SOURCES, ExpelledError, Worker

__all__ = ["World"]

_EXPECTED_CRASHES = (ColdStoreError, FencedError, SendError, CommitRefusedError, ExpelledError)
"""What takes a worker down when a fault is to blame, and not the code."""

_DRAIN_S = 120.0


class World:
    """Everything that one run has.

    Parameters
    ----------
    plan
        What the seed says.
    traffic
        What the bank sends.
    make_worker
        Starts a life; tests put saboteurs here.
    tell
        Is told what happens, line by line.
    """

    def __init__(
        self,
        plan: Plan,
        traffic: Traffic,
        make_worker: Callable[[World, Machine], Worker] = Worker,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = plan
        self.traffic = traffic
        self.rng = Random(f"world/{plan.seed}")
        self.faults: Counter[str] = Counter()
        self.violations: list[tuple[str, str]] = []
        self.hash_key = HashKey.from_bytes(bytes(16))
        self.time_limits = TimeLimits()
        self.decoder = TransactionDecoder(self.hash_key, self.time_limits)
        self.packs = rule_packs()
        self.pack: RulePack = self.packs[0]
        self.lists = Lists()
        self.lists_by_version = {self.lists.version: self.lists}
        self.models = NO_MODELS
        self.models_by_version = {(0, 0): NO_MODELS}
        self.loop = VirtualLoop(Random(f"loop/{plan.seed}"), is_shuffled=plan.is_shuffled)
        self.loop.set_exception_handler(self._failed)
        self.witness = Witness(self.violated, self.hash_key, self.time_limits, plan.partitions)
        self.log = Log(self.witness.appended)
        self.network = Network(
            self.loop,
            self.log,
            Random(f"network/{plan.seed}"),
            plan.delay_s,
            plan.lost_ack_share,
            plan.failed_share,
            self.faults,
        )
        self.group = Group(self, plan.partitions, has_standbys=plan.has_standbys)
        self.machines = [
            Machine(f"w{number}", MachineClock(self.loop), Disk(self.rng, self.faults)) for number in range(3)
        ]
        self.running: dict[str, Worker] = {}
        self._make_worker = make_worker
        self._tell = tell
        self._is_calm = False
        self.log.readers.append(self._wake_readers)

    # -- reports

    def trace(self, text: str) -> None:
        """Tell what happens."""
        if self._tell is not None:
            self._tell(f"{self.loop.now_s:8.3f} s  {text}")

    def violated(self, invariant: str, detail: str) -> None:
        """Note that what must hold does not."""
        self.trace(f"VIOLATION {invariant}: {detail}")
        self.violations.append((invariant, detail))

    def _failed(self, _loop: object, context: dict[str, Any]) -> None:
        """Notice a callback that fails: a fault that did not happen finds nothing."""
        if str(context["message"]).startswith("Exception in callback"):
            self.violated("the simulation works", f"{context['message']}: {context.get('exception')!r}")

    # -- lives

    def begin(self, machine: Machine) -> None:
        """Start a worker on a machine, unless one runs there."""
        if machine.name in self.running:
            return
        worker = self._make_worker(self, machine)
        self.running[machine.name] = worker
        self.trace(f"start {worker.life.name}")
        self.loop.spawn(worker.life, worker.guarded(worker.start))
        self.group.members.append(worker)
        self.group.rebalance()

    def end(self, worker: Worker, why: str) -> None:
        """End a worker's process, here and now."""
        if worker.life.is_over:
            return
        self.trace(f"end {worker.life.name}: {why}")
        self.loop.kill(worker.life)
        worker.producer.abandon()
        if self.running.get(worker.machine.name) is worker:
            del self.running[worker.machine.name]
        if worker.is_leaving:
            return
        if self.rng.random() < 0.5:
            worker.machine.disk.tear()
        # The group notices, and a new process comes up, some time later.
        self.loop.later(self.rng.uniform(0.1, 1) * self.plan.session_s, self._notice, worker)

    def _notice(self, worker: Worker) -> None:
        if worker in self.group.members:
            self.group.members.remove(worker)
        self.group.rebalance()
        self.loop.later(self.rng.uniform(0.05, 1.5), self.begin, worker.machine)

    def crashed(self, worker: Worker, error: BaseException) -> None:
        """Let a worker that has crashed go down, in a moment."""
        self.trace(f"crash {worker.life.name}: {type(error).__name__}: {error}")
        self.faults[f"crash: {type(error).__name__}"] += 1
        if not isinstance(error, _EXPECTED_CRASHES):
            self.violated("no crash without a fault", f"{worker.life.name}: {type(error).__name__}: {error}")
        self.loop.later(self.rng.uniform(0, 0.2), self.end, worker, "crashed")

    def _wake_readers(self, _where: TopicPartition) -> None:
        for worker in self.running.values():
            worker.wake.set()

    # -- faults

    def _victim(self) -> Worker | None:
        alive = [worker for worker in self.running.values() if not worker.life.is_paused]
        return self.rng.choice(alive) if alive else None

    def strike(self, fault: Fault) -> None:
        """Let a fault happen."""
        if self._is_calm:
            return
        self.faults[fault.kind] += 1
        self.trace(f"fault: {fault.kind}")
        machine = self.rng.choice(self.machines[: self.plan.workers])
        getattr(self, "_" + fault.kind.replace(" ", "_"))(fault.size, machine)

    def _kill(self, _size: float, _machine: Machine) -> None:
        victim = self._victim()
        if victim is not None:
            self.end(victim, "killed")

    def _kill_at_step(self, size: float, machine: Machine) -> None:
        self.loop.at_step(self.loop.steps + int(size * 400), lambda: self._kill(size, machine))

    def _rebalance(self, _size: float, _machine: Machine) -> None:
        self.group.rebalance()

    def _leave(self, size: float, machine: Machine) -> None:
        worker = self.running.get(machine.name)
        if worker is not None and not worker.life.is_paused:
            worker.is_leaving = True
            self.group.rebalance()
        self.loop.later(0.5 + size, self.begin, machine)

    def _join(self, _size: float, _machine: Machine) -> None:
        self.begin(self.rng.choice(self.machines))

    def _zombie(self, size: float, _machine: Machine) -> None:
        victim = self._victim()
        if victim is None:
            return
        self.trace(f"pause {victim.life.name}")
        if size < 0.5:  # a zombie is most dangerous where it does not know of something
            self.loop.later(self.plan.session_s, self._rules, size, victim.machine)
        self.loop.pause(victim.life)
        self.loop.later(self.plan.session_s, self.group.rebalance)
        self.loop.later(self.plan.session_s * (0.5 + 6 * size), self._continue, victim)

    def _continue(self, worker: Worker) -> None:
        if worker.life.is_over or not worker.life.is_paused:
            return
        self.trace(f"continue {worker.life.name}")
        self.loop.resume(worker.life)
        worker.producer.resume()
        # A zombie that meets nothing which tells it so learns it from its next heartbeat.
        self.loop.later(1.0, self._bury, worker)

    def _bury(self, worker: Worker) -> None:
        if worker not in self.group.members:
            self.end(worker, "expelled")

    def _clock_jump(self, size: float, machine: Machine) -> None:
        machine.clock.skew_ms += int((size - 0.4) * self.rng.choice((2_000, 60_000, 7_200_000)))

    def _full_disk(self, size: float, machine: Machine) -> None:
        machine.disk.is_full = True
        self.loop.later(0.2 + size, setattr, machine.disk, "is_full", False)  # noqa: FBT003 - setattr's value

    def _unreadable_disk(self, size: float, machine: Machine) -> None:
        machine.disk.is_unreadable = True
        self.loop.later(0.2 + size, setattr, machine.disk, "is_unreadable", False)  # noqa: FBT003 - setattr's value

    def _stall(self, size: float, _machine: Machine) -> None:
        self.network.stalled_until_s = self.loop.now_s + 2 * size

    def _late_checkpoints(self, size: float, _machine: Machine) -> None:
        self.network.late_until_s = self.loop.now_s + 3 * size

    def _compaction(self, _size: float, _machine: Machine) -> None:
        for topic in CHANGELOGS.values():
            for partition in range(self.plan.partitions):
                self.log.partitions[topic, partition].compact()

    def _rules(self, _size: float, _machine: Machine) -> None:
        self.pack = self.packs[1 - self.packs.index(self.pack)]
        self._announce()

    def _lists(self, size: float, _machine: Machine) -> None:
        account = hash_account("12345678", f"r{int(size * 6)}", self.hash_key)
        update = ListUpdate("deny", "account", account, FOR_EVER_MS if self.rng.random() < 0.6 else None)
        self.lists = self.lists.apply([update], self.lists.version + 1)
        self.lists_by_version[self.lists.version] = self.lists
        self._announce()

    def _models(self, _size: float, _machine: Machine) -> None:
        version = len(self.models_by_version)
        self.models = self.models_by_version[version, version] = model_set(version)
        for worker in self.running.values():
            self.loop.later(self.rng.uniform(0, 0.5), worker.controls.serve, self.models)

    def _announce(self) -> None:
        """Let each worker learn of rules and lists in its own time."""
        for worker in self.running.values():
            self.loop.later(self.rng.uniform(0, 0.5), self._tell_worker, worker, self.pack, self.lists)

    def _tell_worker(self, worker: Worker, pack: RulePack, lists: Lists) -> None:
        if worker.life.is_paused:
            self.loop.later(0.3, self._tell_worker, worker, self.pack, self.lists)
            return
        worker.controls.pack = pack
        if lists.version >= worker.controls.lists.version:
            worker.controls.lists = lists

    # -- the run

    def run(self) -> None:
        """Run until everything that was sent is decided on and committed."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self.loop.spawn(None, self._play()))
        except DeadlockError as error:
            self.violated("the system drains", str(error))
        finally:
            asyncio.set_event_loop(None)

    async def _play(self) -> None:
        plan = self.plan
        group = self.loop.spawn(None, self.group.run())
        for machine in self.machines[: plan.workers]:
            self.loop.later(self.rng.uniform(0, 0.3), self.begin, machine)
        for fault in plan.faults:
            self.loop.later(fault.at_s, self.strike, fault)
        # Sent in bursts, in the order of the messages.
        times_s = sorted(self.rng.choice((0.3, 0.9)) * self.rng.random() * plan.duration_s for _ in range(30))
        share = -(-len(self.traffic.messages) // len(times_s))
        for number, at_s in enumerate(times_s):
            self.loop.later(at_s, self._send, self.traffic.messages[number * share : (number + 1) * share])
        await asyncio.sleep(plan.duration_s)
        self._calm()
        until_s = self.loop.now_s + _DRAIN_S
        while not self._is_drained():
            if self.loop.now_s > until_s or group.done():
                self.violated("the system drains", f"not within {_DRAIN_S:.0f} s: {self._lag()}")
                return
            await asyncio.sleep(0.25)
        for worker in list(self.running.values()):
            worker.is_leaving = True
        self.group.rebalance()
        while self.running and self.loop.now_s < until_s:  # noqa: ASYNC110 - simulated time costs nothing
            await asyncio.sleep(0.1)

    def _send(self, messages: list[Message]) -> None:
        batches: dict[TopicPartition, list[Message]] = {}
        for message in messages:
            partition = 0 if message.key is None else partition_of(message.key, self.plan.partitions)
            batches.setdefault((message.topic, partition), []).append(message)
        for where, batch in batches.items():
            self.log.append(where, [m.key for m in batch], [m.value for m in batch], [m.timestamp_ms for m in batch])

    def _calm(self) -> None:
        """End all faults, and see to it that someone works."""
        self._is_calm = True
        self.trace("calm")
        self.network.stalled_until_s = self.network.late_until_s = 0.0
        self.network.lost_ack_share = self.network.failed_share = 0.0
        for machine in self.machines:
            machine.disk.is_full = machine.disk.is_unreadable = False
        for worker in list(self.running.values()):
            self._continue(worker)
            worker.is_leaving = False
        self.begin(self.machines[0])

    def _lag(self) -> dict[TopicPartition, int]:
        committed = self.group.committed
        topics = [topic for one in SOURCES.values() for topic in one]
        sources = [(topic, partition) for topic in topics for partition in range(self.plan.partitions)]
        lags = {where: self.log.end(where) - committed.get(where, 0) for where in sources}
        return {where: lag for where, lag in lags.items() if lag}

    def _is_drained(self) -> bool:
        return not (self._lag() or self.network.in_flight or self.group.is_rebalancing)

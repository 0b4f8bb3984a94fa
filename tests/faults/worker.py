"""One worker process: the real agents, outbox, shards and stages, on a simulated app, group and log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from faust.types import TP

from agents.controls import Controls
from agents.feedback import feedback_agents
from agents.outbox import Outbox
from agents.payers import payers_agent
from agents.receivers import receivers_agent
from app.batching.progress import Progress
from app.topics import ENRICHED, FEEDBACK, MARKERS, PAYERS_TABLE, RECEIVERS_TABLE, TRANSACTIONS
from models.ensemble import Models
from models.rules.lists import Lists
from models.rules.pack import RulePack
from models.stages.payers import PayerStage
from models.stages.receivers import ReceiverStage
from tables.shards import CheckpointPolicy, Pace, Shard, Shards

from .group import Assignment
from .log import TopicPartition
from .loop import Life
from .machine import Machine, MemoryCold
from .model_sets import Served
from .network import Producer
from .transport import CHANGELOGS, App, Changelog, Event

if TYPE_CHECKING:
    from .world import World

__all__ = ["SOURCES", "ExpelledError", "SetControls", "Worker"]

SOURCES = {
    RECEIVERS_TABLE: (TRANSACTIONS.name, MARKERS.name),
    PAYERS_TABLE: (ENRICHED.name,),
    "feedback": (FEEDBACK.name,),
}

_HANDOVER_POLL_S = 0.005


class ExpelledError(Exception):
    """The group has given this worker's partitions to others."""


class SetControls(Controls):
    """Controls that the run sets, instead of a file, topics and a registry."""

    def __init__(self, pack: RulePack, lists: Lists, models: Models) -> None:
        super(Controls, self).__init__()
        self.pack = pack
        self.lists = lists
        self._served: Any = Served(models)
        self._lists_ready = asyncio.Event()
        self._lists_ready.set()

    def serve(self, models: Models) -> None:
        """Let other models be put in force."""
        self._served.models = models


class Worker:
    """One life of a worker on a machine.

    The classes that it is made of are attributes, so that a test can break one of them.
    """

    shards_class: type[Shards] = Shards
    changelog_class: type[Changelog] = Changelog
    controls_class: type[SetControls] = SetControls

    def __init__(self, world: World, machine: Machine) -> None:
        machine.lives += 1
        self.world = world
        self.machine = machine
        self.life = Life(f"{machine.name}.{machine.lives}")
        self.assignment = Assignment(0, frozenset(), frozenset())
        self.is_leaving = False
        self.crashed: BaseException | None = None
        self.is_open = False
        self.wake = asyncio.Event()
        self._committing = asyncio.Lock()
        self._rebalancing = asyncio.Lock()
        self.progress: dict[TopicPartition, Progress] = {}
        self._positions: dict[TopicPartition, int] = {}
        self.producer = Producer(world.network, self.life)
        self.app = App(self)
        self.controls = self.controls_class(world.pack, world.lists, world.models)
        self.changelogs = {table: self.changelog_class(self, table) for table in CHANGELOGS}
        plan = world.plan
        policy = CheckpointPolicy(plan.checkpoint_s, plan.max_dirty_rows, plan.max_active_keys, plan.idle_after_ms)
        self.pace = Pace()
        self.tables = {
            RECEIVERS_TABLE: self._shards(RECEIVERS_TABLE, self.make_receiver_stage, policy),
            PAYERS_TABLE: self._shards(PAYERS_TABLE, self.make_payer_stage, policy),
        }
        app: Any = self.app  # not a BatchApp, but all that is used of one
        self.outbox = Outbox(app, machine.clock, plan.max_jobs, self.confirm_membership)
        receivers_agent(app, self.tables[RECEIVERS_TABLE], self.outbox, _ignore)
        payers_agent(app, self.tables[PAYERS_TABLE], self.outbox, self.controls, _ignore)
        feedback_agents(
            app, self.tables[RECEIVERS_TABLE], self.outbox, plan.partitions, world.hash_key, world.time_limits
        )

    def make_receiver_stage(self, partition: int) -> ReceiverStage:
        """Make stage 1 of a partition."""
        plan = self.world.plan
        window, most = plan.retry_window_ms, plan.retry_max_ids
        return ReceiverStage(partition, plan.partitions, self.world.decoder, window, most)

    def make_payer_stage(self, partition: int) -> PayerStage:
        """Make stage 2 of a partition."""
        plan = self.world.plan
        return PayerStage(partition, plan.partitions, self.world.pack, plan.retry_window_ms, plan.retry_max_ids)

    def _shards(self, table: str, make_stage: Callable[[int], Any], policy: CheckpointPolicy) -> Shards:
        machine = self.machine
        return self.shards_class(
            table,
            make_stage,
            lambda partition: MemoryCold(machine.disk, f"{table}-{partition}"),
            policy,
            machine.clock,
            self.changelogs[table],
            self.pace,
        )

    async def confirm_membership(self) -> None:
        """Return if the group cannot have given this worker's partitions away."""
        if self not in self.world.group.members:
            raise ExpelledError(self.life.name)

    # -- life and death

    async def start(self) -> None:
        """Start all tasks."""
        await self.outbox.start()
        for actor in self.app.actors:
            self.world.loop.spawn(self.life, self.guarded(actor))
        for service in (self._take_checkpoints, self._fetch, self._commit_now_and_then, self._follow):
            self.world.loop.spawn(self.life, self.guarded(service))

    async def guarded(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let an error of a task take the worker down, as it does in Faust."""
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.crash(error)

    def crash(self, error: BaseException) -> None:
        """Stop, soon."""
        if self.crashed is None:
            self.crashed = error
            self.is_open = False
            self.world.crashed(self, error)

    async def _take_checkpoints(self) -> None:
        # As `tables.changelog` does: what sleeps while the worker crashes looks once more for what is due.
        while self.crashed is None:
            await asyncio.sleep(self.world.plan.tick_s)
            for shards in self.tables.values():
                shards.start_due_checkpoint()

    # -- delivery and commits

    async def _fetch(self) -> None:
        rng = self.world.rng
        while True:
            await self.wake.wait()
            self.wake.clear()
            await asyncio.sleep(rng.uniform(0, self.world.plan.fetch_wait_s))
            ready = [where for where in self.progress if self._available(where)]
            while ready:
                where = rng.choice(ready)
                await asyncio.sleep(self.world.network.way_s())
                if self._available(where):
                    self._deliver(where)
                ready = [where for where in self.progress if self._available(where)]

    def _available(self, where: TopicPartition) -> bool:
        return (
            self.is_open
            and where in self.progress
            and self.progress[where].queued_batches() < self.world.plan.max_queued_batches
            and self.world.log.end(where) > self._positions[where]
        )

    def _deliver(self, where: TopicPartition) -> None:
        plan, first = self.world.plan, self._positions[where]
        past = min(self.world.log.end(where), first + self.world.rng.randint(1, plan.fetch_max_records))
        batch = self.world.log.partitions[where].read(first, past)
        self._positions[where] = past
        self.world.faults["batch taken by a zombie"] += self not in self.world.group.members
        progress = self.progress[where]
        progress.arrive(TP(*where), batch.base, batch.next_offset)
        event = Event(self, where, batch)
        progress.deliver(event)  # type: ignore[arg-type] # all that Progress asks of a BatchMessage
        self.app.streams[where[0]].put(event)

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self.world.rng.uniform(0.5, 1.5) * self.world.plan.commit_s)
            if self.crashed is None:
                await self._commit()

    async def _commit(self) -> None:
        async with self._committing:
            generation = self.assignment.generation
            offsets = {
                where: progress.committable
                for where, progress in self.progress.items()
                if progress.committable is not None
            }
            if offsets:
                await asyncio.sleep(self.world.network.way_s())
                self.world.group.commit(self, generation, offsets)

    # -- rebalances

    async def hand_over(self) -> None:
        """Finish what the agents have in hand, write everything down, commit."""
        async with self._rebalancing:  # a worker that slept may still be taking what it was given before
            await self._hand_over()

    async def _hand_over(self) -> None:
        if self.crashed is not None:
            return
        was_open, self.is_open = self.is_open, False
        for stream in self.app.streams.values():
            stream.queue.clear()
        while any(s.current is not None for s in self.app.streams.values()):  # noqa: ASYNC110 - as BatchApp does
            await asyncio.sleep(_HANDOVER_POLL_S)
        if was_open:
            await asyncio.gather(*(shards.flush() for shards in self.tables.values()))
        if self.crashed is None:
            self.world.witness.handed_over(self)
            await self._commit()
        self.progress.clear()

    async def take(self) -> None:
        """Recover what this member was given, then open its sources."""
        async with self._rebalancing:
            await self._take()

    async def _take(self) -> None:
        world, assignment = self.world, self.assignment
        if self.crashed is not None:
            return
        self.progress.clear()
        held = sorted(assignment.active | assignment.standby)
        for table, shards in self.tables.items():
            shards.keep({partition for name, partition in held if name == table})
        for table, partition in held:
            if table in self.tables and (table, partition) not in assignment.active:
                self.tables[table].shard(partition)
        for table, partition in sorted(assignment.active):
            if table in self.tables:
                await self._recover(table, partition)
            for topic in SOURCES[table]:
                committed = world.group.committed.get((topic, partition), 0)
                self._positions[topic, partition] = committed
                self.progress[topic, partition] = Progress(committed)
        for table, partition in sorted(assignment.active):
            if table == PAYERS_TABLE:
                shard = self.tables[table].shard(partition)
                await self.controls.resume(shard, world.log.end((ENRICHED.name, partition)))
        self.is_open = True
        self.wake.set()

    async def _recover(self, table: str, partition: int) -> None:
        where = (CHANGELOGS[table], partition)
        await asyncio.sleep(self.world.network.way_s())
        self.changelogs[table].epochs[partition] = self.world.log.fence(where)
        shard = self.tables[table].shard(partition)
        while self._restore_more(where, shard):  # noqa: ASYNC110 - it reads; nothing tells when to
            await asyncio.sleep(self.world.network.way_s())
        shard.stage.state.finish_restore()
        self.world.witness.restored(table, partition, shard.stage.state)

    def _restore_more(self, where: TopicPartition, shard: Shard) -> bool:
        """Take up some record batches of a changelog; whether there were any."""
        partition = self.world.log.partitions[where]
        first = -1 if shard.changelog_offset is None else shard.changelog_offset
        ends = [end for end in partition.batch_ends if end > first + 1]
        if not ends:
            return False
        past = self.world.rng.choice(ends[:4])
        # Faust seeks one offset too low: the last record comes again.
        records = partition.read(max(first, 0), past)
        keys = [key for key in records.keys if key is not None]
        shard.stage.state.restore(keys, records.values)
        shard.changelog_offset = past - 1
        return True

    async def _follow(self) -> None:
        """Keep the standbys near the ends of their changelogs."""
        while True:
            await asyncio.sleep(self.world.rng.uniform(0.2, 0.6))
            if not self.is_open:
                continue  # a rebalance changes what is followed
            for table, partition in sorted(self.assignment.standby):
                shards = self.tables[table]
                if partition in shards.held:
                    self._restore_more((CHANGELOGS[table], partition), shards.shard(partition))


def _ignore(_output: object) -> None:
    """Show a batch to no one: there is no web view."""

"""The consumer group: who owns which partition, and how it changes hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .log import TopicPartition

if TYPE_CHECKING:
    from .worker import Worker
    from .world import World

__all__ = ["Assignment", "CommitRefusedError", "Group", "Unit"]

Unit = tuple[str, int]
"""What moves as one: the topics of one agent that share a state, at one partition."""

UNITS = ("receivers", "payers", "feedback")

_POLL_S = 0.02


class CommitRefusedError(Exception):
    """A commit by one who is no member any more."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a member holds in one generation."""

    generation: int
    active: frozenset[Unit]
    standby: frozenset[Unit]


class Group:
    """Rebalances stop the world, as Faust's do: all hand over, then all take what they are given.

    Parameters
    ----------
    world
        Of the run.
    partitions
        Of every topic.
    has_standbys
        Whether a second member follows each changelog.
    """

    def __init__(self, world: World, partitions: int, *, has_standbys: bool) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0
        self.members: list[Worker] = []
        self.is_rebalancing = False
        self._world = world
        self._units = [(table, partition) for table in UNITS for partition in range(partitions)]
        self._owners: dict[Unit, str] = {}
        self._has_standbys = has_standbys
        self._needed = asyncio.Event()

    def rebalance(self) -> None:
        """Let a rebalance follow, after the one that may be going on."""
        self._needed.set()

    def commit(self, worker: Worker, generation: int, offsets: dict[TopicPartition, int]) -> None:
        """Commit offsets.

        Raises
        ------
        CommitRefusedError
            When the worker was expelled.
        """
        if worker not in self.members or generation != worker.assignment.generation:
            raise CommitRefusedError(f"{worker.life.name}: generation {generation} is over")
        for where, offset in offsets.items():
            self._world.witness.committed(where, self.committed.get(where, 0), offset)
            self.committed[where] = max(offset, self.committed.get(where, 0))

    async def run(self) -> None:
        """Serve rebalances."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            self.is_rebalancing = True
            await self._rebalance()
            self.is_rebalancing = False

    async def _rebalance(self) -> None:
        world = self._world
        world.trace(f"rebalance {self.generation + 1} of {', '.join(worker.life.name for worker in self.members)}")
        await self._each(list(self.members), lambda worker: worker.hand_over)
        for worker in list(self.members):
            if worker.is_leaving:
                world.end(worker, "left")
            if worker.is_leaving or worker.life.is_over or worker.life.is_paused:
                self.members.remove(worker)
        self.generation += 1
        if not self.members:
            return
        assignments = self._assign()
        for worker in self.members:
            worker.assignment = assignments[worker.life.name]
        await self._each(list(self.members), lambda worker: worker.take)

    def _assign(self) -> dict[str, Assignment]:
        rng, names = self._world.rng, [worker.life.name for worker in self.members]
        active: dict[str, set[Unit]] = {name: set() for name in names}
        standby: dict[str, set[Unit]] = {name: set() for name in names}
        for unit in self._units:
            owner = self._owners.get(unit)
            if owner not in active or rng.random() < 0.3:
                owner = rng.choice(names)
            self._owners[unit] = owner
            active[owner].add(unit)
            others = [name for name in names if name != owner]
            if others and self._has_standbys and unit[0] != "feedback":
                standby[rng.choice(others)].add(unit)
        return {name: Assignment(self.generation, frozenset(active[name]), frozenset(standby[name])) for name in names}

    async def _each(
        self, workers: list[Worker], step: Callable[[Worker], Callable[[], Coroutine[Any, Any, None]]]
    ) -> None:
        """Run one step of every member; who dies or sleeps for too long is not waited for, and hears of nothing."""
        world = self._world
        started_s = world.loop.now_s
        running: dict[str, asyncio.Task[Any]] = {}
        while True:
            hung = world.loop.now_s - started_s > world.plan.session_s
            waiting = False
            for worker in workers:
                name = worker.life.name
                if worker.life.is_over or (worker.life.is_paused and hung):
                    continue
                if name not in running and not worker.life.is_paused:
                    running[name] = world.loop.spawn(worker.life, worker.guarded(step(worker)))
                waiting |= name not in running or not running[name].done()
            if not waiting:
                return
            await asyncio.sleep(_POLL_S)

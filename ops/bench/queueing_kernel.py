"""The event loop of `ops.bench.queueing`, compiled: workers that take turns by the time at which each acts next.

Stage 0 is the receivers', stage 1 the payers'. A queue is a stretch of two flat arrays: when its events can be fetched,
and which events they are. Times are seconds from the start.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["Costs", "World", "new_world", "run"]

Array = NDArray[Any]

_IDLE, _WRITING = -1, -2
"""What a worker does that is at work on neither stage."""


class Costs(NamedTuple):
    """Seconds: per event and batch of each stage, per event and checkpoint, per passage through the broker."""

    event_s: tuple[float, float]
    batch_s: tuple[float, float]
    checkpoint_event_s: float
    checkpoint_s: float
    interval_s: float
    hop_s: float
    max_batch: int


class World(NamedTuple):
    """All that changes; n events, p partitions, w workers."""

    arrivals_s: Array  # float64 (n,)
    targets: Array  # int64 (n,): partition of stage 1
    latencies_s: Array  # float64 (n,)
    ready_s: Array  # float64 (2, n)
    events: Array  # int64 (2, n)
    heads: Array  # int64 (2, p): first event that waits
    tails: Array  # int64 (2, p): behind the last one that has come, or will come from outside
    unwritten: Array  # int64 (2, p): events since the last checkpoint
    written_s: Array  # float64 (2, p): when that was
    replayed: Array  # int64 (2, p): events to be done again before the next batch
    owners: Array  # int64 (p,): -1: none
    task: Array  # int64 (w,): a stage, or one of the above
    place: Array  # int64 (w,): partition of the batch at work
    size: Array  # int64 (w,): of that batch
    next_s: Array  # float64 (w,)
    busy_s: Array  # float64 (w,)


def new_world(arrivals_s: Array, sources: Array, targets: Array, partitions: int, workers: int, costs: Costs) -> World:
    """Return the world before anything has happened; partitions are dealt out to the workers in turn."""
    count = len(arrivals_s)
    order = np.argsort(sources, kind="stable")
    bounds = [np.searchsorted(np.sort(column), np.arange(partitions + 1)) for column in (sources, targets)]
    ready_s, events = np.zeros((2, count)), np.zeros((2, count), np.int64)
    ready_s[0], events[0] = arrivals_s[order] + costs.hop_s, order
    # Checkpoints are staggered, as the workers stagger them.
    written_s = np.tile(-costs.interval_s * (np.arange(partitions) % 8) / 8, (2, 1))
    return World(
        arrivals_s=arrivals_s,
        targets=targets,
        latencies_s=np.zeros(count),
        ready_s=ready_s,
        events=events,
        heads=np.stack([bounds[0][:-1], bounds[1][:-1]]),
        tails=np.stack([bounds[0][1:], bounds[1][:-1]]),
        unwritten=np.zeros((2, partitions), np.int64),
        written_s=written_s,
        replayed=np.zeros((2, partitions), np.int64),
        owners=np.arange(partitions) % workers,
        task=np.full(workers, _IDLE),
        place=np.zeros(workers, np.int64),
        size=np.zeros(workers, np.int64),
        next_s=np.zeros(workers),
        busy_s=np.zeros(workers),
    )


@njit(cache=True)
def run(world: World, costs: Costs, heirs: Array, fail_s: float, share_out_s: float, stall_s: float) -> None:
    """Work until every event is decided; worker 0 is lost at `fail_s` (infinity: never)."""
    undecided = len(world.arrivals_s)
    while undecided:
        worker = int(np.argmin(world.next_s))
        now_s = world.next_s[worker]
        if fail_s <= now_s:
            fail_s = np.inf
            _lose(world)
        elif share_out_s <= now_s:
            _share_out(world, heirs, share_out_s, stall_s)
            share_out_s = np.inf
        else:
            undecided -= _finish(world, costs, worker, now_s)
            _start(world, costs, worker, now_s)


@njit(cache=True)
def _lose(world: World) -> None:
    """Worker 0 ends: its batch comes to nothing, and what it has not written down must be done again."""
    if world.task[0] >= 0:
        world.heads[world.task[0], world.place[0]] -= world.size[0]
    world.next_s[0] = np.inf
    for partition in range(len(world.owners)):
        if world.owners[partition] == 0:
            world.owners[partition] = -1
            world.replayed[:, partition] = world.unwritten[:, partition]


@njit(cache=True)
def _share_out(world: World, heirs: Array, at_s: float, stall_s: float) -> None:
    """All others end their batch, then stand still while they take over the lost partitions."""
    world.owners[:] = heirs
    for worker in range(1, len(world.next_s)):
        busy = world.task[worker] != _IDLE
        world.next_s[worker] = (max(world.next_s[worker], at_s) if busy else at_s) + stall_s


@njit(cache=True)
def _finish(world: World, costs: Costs, worker: int, now_s: float) -> int:
    """Pass on the batch that a worker has done; how many decisions it brought."""
    stage, partition, decided = world.task[worker], world.place[worker], 0
    world.task[worker] = _IDLE
    if stage < 0:
        return 0
    ready_s = now_s + costs.hop_s
    end = world.heads[stage, partition]
    for i in range(end - world.size[worker], end):
        event = world.events[stage, i]
        if stage == 1:
            world.latencies_s[event] = ready_s - world.arrivals_s[event]
            decided += 1
            continue
        target = world.targets[event]
        tail = world.tails[1, target]
        world.ready_s[1, tail], world.events[1, tail] = ready_s, event
        world.tails[1, target] = tail + 1
        owner = world.owners[target]
        if owner >= 0 and world.task[owner] == _IDLE and world.next_s[owner] > ready_s:
            world.next_s[owner] = ready_s
    return decided


@njit(cache=True)
def _start(world: World, costs: Costs, worker: int, now_s: float) -> None:
    """Begin the checkpoint that is longest due, else the batch whose head is oldest; else sleep until there is one."""
    ready_s, stage, partition = np.inf, 0, -1
    due_s, due_stage, due = now_s - costs.interval_s, 0, -1
    for one in range(len(world.owners)):
        if world.owners[one] != worker:
            continue
        for each in range(2):
            if world.unwritten[each, one] and world.written_s[each, one] <= due_s:
                due_s, due_stage, due = world.written_s[each, one], each, one
            head = world.heads[each, one]
            if head < world.tails[each, one] and world.ready_s[each, head] < ready_s:
                ready_s, stage, partition = world.ready_s[each, head], each, one
    if due >= 0:
        cost_s = costs.checkpoint_s + world.unwritten[due_stage, due] * costs.checkpoint_event_s
        world.unwritten[due_stage, due], world.written_s[due_stage, due] = 0, now_s
        world.task[worker] = _WRITING
    elif ready_s <= now_s:
        count = _waiting(world, costs, stage, partition, now_s)
        again = world.replayed[stage, partition]
        cost_s = costs.batch_s[stage] + (count + again) * costs.event_s[stage]
        world.replayed[stage, partition] = 0
        world.heads[stage, partition] += count
        world.unwritten[stage, partition] += count
        world.task[worker], world.place[worker], world.size[worker] = stage, partition, count
    else:
        world.next_s[worker] = ready_s
        return
    world.next_s[worker] = now_s + cost_s
    world.busy_s[worker] += cost_s


@njit(cache=True)
def _waiting(world: World, costs: Costs, stage: int, partition: int, now_s: float) -> int:
    """Events of a queue that one batch takes now."""
    head, tail, count = world.heads[stage, partition], world.tails[stage, partition], 0
    while head + count < tail and count < costs.max_batch and world.ready_s[stage, head + count] <= now_s:
        count += 1
    return count

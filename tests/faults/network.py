"""The way from a worker to the log: slow, stalled, losing acknowledgements and, now and then, giving up."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from .log import FencedError, Log, TopicPartition
from .loop import Life, VirtualLoop

__all__ = ["Network", "Producer", "SendError"]


class SendError(Exception):
    """A producer has given up on a record batch: whether it is in the log is unknown."""


@dataclass(slots=True)
class Network:
    """Conditions between all workers and the log.

    Parameters
    ----------
    loop, log, rng
        Of the run.
    delay_s
        Shortest and longest way of one message.
    lost_ack_share, failed_share
        Of the record batches.
    faults
        Counts what happened, by kind.
    """

    loop: VirtualLoop
    log: Log
    rng: Random
    delay_s: tuple[float, float]
    lost_ack_share: float
    failed_share: float
    faults: Counter[str]
    stalled_until_s: float = 0.0
    late_until_s: float = 0.0
    """Until then checkpoints take seconds."""
    in_flight: int = 0

    def way_s(self) -> float:
        """Draw the time that one message takes."""
        return self.rng.uniform(*self.delay_s)


@dataclass(slots=True)
class _Job:
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    epoch: int | None
    done: asyncio.Future[int]
    is_taken: bool = False
    is_written: bool = False
    survives: bool = True


@dataclass(slots=True)
class Producer:
    """The idempotent producer of one life: per partition in order, once each, one record batch in flight.

    Parameters
    ----------
    network, life
        Whose it is.
    """

    network: Network
    life: Life
    _queues: dict[TopicPartition, deque[_Job]] = field(default_factory=dict)
    _broken: dict[TopicPartition, SendError] = field(default_factory=dict)

    async def room(self) -> None:
        """Never wait: the network holds whatever it is given."""

    def send_records(
        self,
        topic: str,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamp_ms: int,
        *,
        atomic: bool = False,
        epoch: int | None = None,
    ) -> asyncio.Future[int]:
        """Send as `app.batching.producer.BatchProducer` does; in several record batches, unless `atomic`."""
        network, where = self.network, (topic, partition)
        cuts = [0, len(values)]
        if not atomic and len(values) > 1 and network.rng.random() < 0.3:
            cuts.insert(1, network.rng.randrange(1, len(values)))
        sent: list[asyncio.Future[int]] = []
        for first, past in pairwise(cuts):
            part = slice(first, past)
            sent.append(network.loop.create_future())
            queue = self._queues.setdefault(where, deque())
            queue.append(_Job(keys[part], values[part], [timestamp_ms] * (past - first), epoch, sent[-1]))
            network.in_flight += 1
            if len(queue) == 1:
                self._transmit(where)
        return sent[0] if len(sent) == 1 else asyncio.ensure_future(_first(sent))

    def _transmit(self, where: TopicPartition) -> None:
        queue = self._queues[where]
        if not queue or self.life.is_paused:
            return
        job = queue[0]
        job.is_taken = True
        delay_s = self.network.way_s()
        if job.epoch is not None and self.network.loop.now_s < self.network.late_until_s:
            delay_s += self.network.rng.uniform(0.5, 4)
            self.network.faults["late checkpoint"] += 1
        self.network.loop.later(delay_s, self._arrive, where, job)

    def _arrive(self, where: TopicPartition, job: _Job) -> None:
        network = self.network
        if network.loop.now_s < network.stalled_until_s:
            network.loop.later(network.stalled_until_s - network.loop.now_s + network.way_s(), self._arrive, where, job)
            return
        if where in self._broken or not job.survives:
            self._settle(where, job, self._broken.get(where) or SendError("the worker is gone"))
            return
        is_failing = not self.life.is_over and network.rng.random() < network.failed_share
        try:
            if not is_failing or network.rng.random() < 0.5:
                base = network.log.append(where, job.keys, job.values, job.timestamps_ms, job.epoch)
                job.is_written = True
        except FencedError as error:
            network.faults["append fenced"] += 1
            self._settle(where, job, error)
            return
        if is_failing:
            network.faults["send failed"] += 1
            # What follows would leave a hole in the producer's sequence, and the broker refuses that.
            self._broken[where] = SendError(f"{where[0]}-{where[1]}: no answer")
            self._settle(where, job, self._broken[where])
            return
        delay_s = network.way_s()
        if network.rng.random() < network.lost_ack_share:
            network.faults["lost acknowledgement"] += 1
            delay_s += network.rng.uniform(0.2, 1.5)  # the retry is recognised by its sequence number
        network.loop.later(delay_s, self._settle, where, job, base)

    def _settle(self, where: TopicPartition, job: _Job, answer: int | Exception) -> None:
        if self.life.is_paused:  # the answer waits in the socket
            self.network.loop.later(0.05, self._settle, where, job, answer)
            return
        self._queues[where].popleft()
        self.network.in_flight -= 1
        if not self.life.is_over and not job.done.done():
            if isinstance(answer, int):
                job.done.set_result(answer)
            else:
                job.done.set_exception(answer)
        self._transmit(where)

    def resume(self) -> None:
        """Go on with what a pause has left."""
        for where, queue in self._queues.items():
            if queue and not queue[0].is_taken:
                self._transmit(where)

    def abandon(self) -> None:
        """Leave the life's last sends to the network: of each partition, a part from the front still arrives."""
        for queue in self._queues.values():
            survivors = self.network.rng.randint(0, len(queue))
            for place, job in enumerate(queue):
                job.survives = place < survivors
                self.network.faults["send cut off"] += not (job.survives or job.is_written)


async def _first(sent: Sequence[asyncio.Future[int]]) -> int:
    return (await asyncio.gather(*sent))[0]

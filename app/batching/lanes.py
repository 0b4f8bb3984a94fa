"""What goes to one partition: records that wait, and record batches without an answer."""

import asyncio
from collections import deque
from collections.abc import Sequence

from aiokafka.structs import TopicPartition

from app.batching.packing import Records, Stamp

__all__ = ["Lane", "Part", "Sent"]


class Part:
    """Records that go into one record batch, whatever else is in it, and the future of the first one's offset."""

    __slots__ = ("done", "records", "size", "stamp")

    def __init__(self, records: Records, size: int, stamp: Stamp | None, done: asyncio.Future[int]) -> None:
        self.records = records
        self.size = size
        self.stamp = stamp
        self.done = done


class Sent:
    """A record batch that was sent at least once."""

    __slots__ = ("data", "lane", "parts")

    def __init__(self, lane: "Lane", parts: Sequence[Part], data: memoryview) -> None:
        self.lane = lane
        self.parts = parts
        self.data = data

    def succeed(self, offset: int) -> None:
        """Tell each part where its first record is; -1 where the broker does not know it any more."""
        for part in self.parts:
            if not part.done.done():
                part.done.set_result(offset)
            if offset >= 0:
                offset += len(part.records)

    def fail(self, error: BaseException) -> None:
        """Tell each part that it is not sent, or not known to be."""
        for part in self.parts:
            if not part.done.done():
                part.done.set_exception(error)


class Lane:
    """What goes to one partition."""

    __slots__ = (
        "is_broken",
        "is_known",
        "node",
        "on_the_way",
        "place",
        "queue",
        "retry_s",
        "sequence",
        "unacknowledged",
    )

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.queue: deque[Part] = deque()
        self.unacknowledged: deque[Sent] = deque()
        self.on_the_way = 0
        self.node = -1
        self.sequence = 0
        self.is_known = False
        """Whether the leader has taken a batch: of a producer that is new to it, it takes any number as the first."""
        self.is_broken = False
        """Whether something failed that is to be sent again, in order, before anything new."""
        self.retry_s = 0.0

    def may_send(self, node: int, now_s: float) -> bool:
        """Whether the next batch may leave for that broker."""
        if self.is_broken:
            return self.on_the_way == 0 and now_s >= self.retry_s
        # Another connection might overtake.
        return self.on_the_way == 0 or (self.is_known and self.node == node)

    def take(self, max_bytes: int) -> tuple[list[Part], int]:
        """Take from the queue what fills a record batch; its bytes, at most."""
        parts = [self.queue.popleft()]
        size = parts[0].size
        while (
            self.queue
            and parts[0].stamp is None
            and self.queue[0].stamp is None
            and size + self.queue[0].size <= max_bytes
        ):
            size += self.queue[0].size
            parts.append(self.queue.popleft())
        return parts, size

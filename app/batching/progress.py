"""What one partition has delivered, and how far it may be committed."""

from collections import deque
from collections.abc import Callable

from faust.types import TP, ConsumerMessage

from app.batching.batch import Batch
from app.domain.records import GapError


class BatchMessage(ConsumerMessage):
    """The message that carries one batch through Faust; its offset is the last one that the batch covers.

    Faust sets `tracked` when a stream hands the message to its agent, and `acked` when the agent has acknowledged it.

    Parameters
    ----------
    batch
        What it carries.
    on_taken
        Called when it is handed to its agent.
    """

    __slots__ = ("_is_taken", "_on_taken", "base", "next_offset", "records")

    def __init__(self, batch: Batch, on_taken: Callable[[], None] | None = None) -> None:
        self._on_taken = on_taken
        super().__init__(
            batch.tp.topic,
            batch.tp.partition,
            offset=batch.next_offset - 1,
            timestamp=batch.timestamps_ms[-1] / 1000.0 if batch.timestamps_ms else 0.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=batch,  # type: ignore[arg-type]  # faust passes it on unread, see BatchSchema
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=0,
            tp=batch.tp,
            generation_id=batch.generation,
        )
        self.base = batch.base
        self.next_offset = batch.next_offset
        self.records = len(batch)

    @property
    def tracked(self) -> bool:  # nothing else tells when a stream hands a message over
        """Whether an agent was given the batch."""
        return self._is_taken

    @tracked.setter
    def tracked(self, is_taken: bool) -> None:
        self._is_taken = is_taken
        if is_taken and self._on_taken is not None:
            self._on_taken()


class Progress:
    """Delivery and acknowledgement of one assigned partition.

    Offsets say little about which records exist (see `Batch`), so a commit advances over delivered batches, in order of
    delivery, as far as all of them are acknowledged. Acknowledgements are tied to the message itself: one that arrives
    late, for a batch of an earlier assignment, counts for nothing.

    Attributes
    ----------
    expected
        Where the next batch must start; ``None`` while any start is as good (first read of the partition, a seek).
    start
        Where the first read starts, if any start is as good.
    committable
        Offset up to which everything is acknowledged; ``None`` until the first.
    pending_records
        Records of the batches that no commit may pass yet.
    """

    __slots__ = ("_pending", "committable", "expected", "pending_records", "start")

    def __init__(self, expected: int | None = None) -> None:
        self.expected = expected
        self.start: int | None = None
        self.committable: int | None = None
        self.pending_records = 0
        self._pending: deque[BatchMessage] = deque()

    @property
    def position(self) -> int | None:
        """Where to read on; ``None`` while that is unknown."""
        return self.start if self.expected is None else self.expected

    def arrive(self, tp: TP, base: int, next_offset: int) -> None:
        """Record that the batch [`base`, `next_offset`) is about to be delivered.

        Raises
        ------
        GapError
            If it does not start where the previous one ended.
        """
        if self.expected is not None and base != self.expected:
            raise GapError(
                f"{tp.topic}-{tp.partition}: expected a batch at offset {self.expected}, got one at {base}. "
                "Was the topic truncated, deleted by retention before it was read, or created anew?"
            )
        self.expected = next_offset

    def deliver(self, message: BatchMessage) -> None:
        """Hold commits below `message` until it is acknowledged."""
        self._pending.append(message)
        self.pending_records += message.records

    def advance(self) -> None:
        """Move `committable` over the leading batches that are acknowledged."""
        pending = self._pending
        while pending and pending[0].acked:
            done = pending.popleft()
            self.pending_records -= done.records
            self.committable = done.next_offset

    def queued_batches(self) -> int:
        """Return how many delivered batches no agent has taken yet."""
        queued = 0
        # Agents take batches in order of delivery: those that wait are at the end.
        for message in reversed(self._pending):
            if message.tracked:
                break
            queued += 1
        return queued

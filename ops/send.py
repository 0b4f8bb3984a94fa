"""`pixguard send`: a file to `pix-transactions`, and what became of each of its rows."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from app.domain.rejection import Reason, Source
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import DECISIONS, REJECTED, TRANSACTIONS
from ops.answers import Answers, RejectionGroup
from ops.bulk_sender import BulkSender, SendError
from ops.feed import open_feed
from ops.files import Chunk, Fault, FileError, read_transactions
from ops.mapping import FileMapping
from ops.pacing import Pace, Schedule
from ops.time_shift import shift_chunks

__all__ = ["SendError", "SendProgress", "SendReport", "send_file"]

MAX_MESSAGE_BYTES = int(TRANSACTIONS.config["max.message.bytes"])
_RECORD_OVERHEAD_BYTES = 256
_PROGRESS_INTERVAL_S = 0.1
_POLL_MS = 200


@dataclass(frozen=True, slots=True)
class SendProgress:
    """How far sending has come.

    Parameters
    ----------
    share
        Of the file, read, in [0, 1].
    sent
        Messages sent.
    decided
        Messages by the action decided on; all 0 where answers are not awaited.
    rejected, unanswered
        Messages.
    lag_s
        Seconds by which the last message went out after it was due.
    """

    share: float
    sent: int
    decided: dict[str, int]
    rejected: int
    unanswered: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class SendReport:
    """What became of a file.

    Parameters
    ----------
    sent
        Rows that went to the cluster, or were too long for it.
    decided
        Rows by the action decided on.
    rejected
        Rejected rows by path and expectation, the most frequent first.
    unanswered
        Rows without an answer; None where answers were not awaited.
    seconds
        From the first message to the last acknowledgement.
    max_lag_s
        By how much a message went out after it was due, at most.
    interrupted
        Whether Ctrl-C ended it.
    failure
        Why it ended early: the file is damaged from some row on, or the cluster failed.
    """

    sent: int
    decided: dict[str, int]
    rejected: list[RejectionGroup]
    unanswered: int | None
    seconds: float
    max_lag_s: float
    interrupted: bool
    failure: str | None


async def send_file(
    settings: Settings,
    path: Path,
    *,
    mapping: FileMapping | None = None,
    format: str | None = None,  # noqa: A002 (the name of the command's option)
    rate: float | None = None,
    limit: int | None = None,
    speed: float | None = None,
    shift_to_now: bool = False,
    wait: bool = True,
    patience_s: float = 60.0,
    progress: Callable[[SendProgress], None] | None = None,
) -> SendReport:
    """Send a file's rows, in its order, and follow what the stream answers.

    Parameters
    ----------
    settings
        Name the cluster.
    path, mapping, format
        The file: see `ops.files.read_transactions`.
    rate
        Messages per second, at most.
    limit
        Rows, at most.
    speed
        Event time against the wall clock: 1.0 as it happened; None: as fast as possible.
    shift_to_now
        Whether all times of the file are moved, by one amount, so that its newest transaction happens when it is
        sent, and each payment gets an id of its own, so that a file may be sent again (`ops.time_shift`). The file is
        read once more for that.
    wait
        Whether to wait for the answers, for as long as some come.
    patience_s
        Seconds without any answer after which the rest counts as unanswered.
    progress
        Called up to ten times a second.

    Raises
    ------
    FileError, MappingError
        Before anything is sent. A file that is damaged further on ends in a report with its `failure`.
    SendError
        When the cluster has no such topics.
    SettingsError, ValueError
        For options that cannot be.
    aiokafka.errors.KafkaConnectionError
        When the cluster cannot be reached.
    """
    connection = client_options(settings)
    pace = Pace(rate, speed)
    share = [0.0]
    chunks = read_transactions(
        path, mapping=mapping, format=format, on_position=lambda read: share.__setitem__(0, read)
    )
    # What is wrong from the first row on is told before the cluster is asked for anything.
    chunks = itertools.chain([next(chunks, Chunk())], chunks)
    if shift_to_now:
        everything = read_transactions(path, mapping=mapping, format=format)
        chunks = shift_chunks(chunks, await asyncio.to_thread(_shift_ms, everything, limit, speed))
    topics = (TRANSACTIONS, DECISIONS, REJECTED) if wait else (TRANSACTIONS,)
    async with open_feed(connection, topics) as (producer, stopped), AsyncExitStack() as stack:
        follower = await _start_follower(connection, producer, stack) if wait else None
        sending = _Sending(pace, Schedule(stopped), stopped, follower, progress or (lambda _progress: None))
        async with BulkSender(producer, TRANSACTIONS.name, sending.answers.acknowledged, sending.on_refused) as sender:
            return await sending.run(_limited(chunks, limit), sender, share, patience_s)


class _Sending:
    """One run of `send_file`: what is sent, what is answered, and why it ends."""

    def __init__(
        self,
        pace: Pace,
        schedule: Schedule,
        stopped: asyncio.Event,
        follower: AIOKafkaConsumer | None,
        progress: Callable[[SendProgress], None],
    ) -> None:
        self.answers = Answers()
        self._pace, self._schedule, self._stopped = pace, schedule, stopped
        self._follower = follower
        self._progress = progress
        self._told_at_s = 0.0
        self._is_sent = False
        self._failure: str | None = None
        self._is_refused = False

    async def run(
        self, chunks: Iterator[Chunk], sender: BulkSender, share: Sequence[float], patience_s: float
    ) -> SendReport:
        """Send and follow at the same time, so that answers do not pile up."""
        following = None
        if self._follower is not None:
            following = asyncio.create_task(self._follow(self._follower, share, patience_s))
        try:
            await self._send(chunks, sender, share)
            await sender.flush()
            seconds = self._schedule.elapsed_s
            self._is_sent = True
            if following is not None:
                await following
        finally:
            if following is not None:
                following.cancel()
        self._tell(share[0], at_once=True)
        return SendReport(
            sent=len(self.answers),
            decided=self.answers.decided,
            rejected=self.answers.groups(),
            unanswered=None if following is None else self.answers.unanswered,
            seconds=seconds,
            max_lag_s=self._schedule.max_lag_s,
            interrupted=self._stopped.is_set(),
            failure=self._failure,
        )

    def on_refused(self, numbers: Sequence[int], error: KafkaError) -> None:
        """Note that the cluster did not take a batch: a message that is too long is only its own fault."""
        if isinstance(error, MessageSizeTooLargeError) and len(numbers) == 1:
            self.answers.rejected_message(numbers[0], Fault("$", "message as long as the topic takes"))
        elif not self._is_refused:
            self._is_refused = True
            self._failure = f"{TRANSACTIONS.name}: {len(numbers)} messages were not taken: {error!r}"

    async def _send(self, chunks: Iterator[Chunk], sender: BulkSender, share: Sequence[float]) -> None:
        try:
            for chunk in chunks:
                due_s = self._pace.due_s(chunk.times_ms)
                async for begin, end in self._schedule.portions(due_s):
                    await self._send_portion(chunk, begin, end, sender)
                    self._tell(share[0])
                if self._is_refused or self._stopped.is_set():
                    return
                # Reading a file never waits: without this, nothing else would run beside a fast broker.
                await asyncio.sleep(0)
        except FileError as error:
            self._failure = str(error)

    async def _send_portion(self, chunk: Chunk, begin: int, end: int, sender: BulkSender) -> None:
        numbers, keys, values = [], [], []
        for at in range(begin, end):
            row, key, value = chunk.rows[at], chunk.keys[at], chunk.values[at]
            end_to_end_id = chunk.ids[at] if self._follower is not None else None
            number = self.answers.sent(row, end_to_end_id, chunk.faults.get(row))
            if len(value) + len(key or b"") + _RECORD_OVERHEAD_BYTES > MAX_MESSAGE_BYTES:
                self.answers.rejected_message(number, Fault("$", f"message below {MAX_MESSAGE_BYTES} bytes"))
                continue
            numbers.append(number)
            keys.append(key)
            values.append(value)
        await sender.send(numbers, keys, values)

    async def _follow(self, consumer: AIOKafkaConsumer, share: Sequence[float], patience_s: float) -> None:
        heard_at_s = time.monotonic()
        while not self._stopped.is_set() and not self._is_refused:
            found = await consumer.getmany(timeout_ms=_POLL_MS)
            for place, records in found.items():
                take = self._take_decision if place.topic == DECISIONS.name else self._take_dead_letter
                for record in records:
                    take(record.value)
            if found or not self._is_sent:
                heard_at_s = time.monotonic()
            self._tell(share[0])
            if self._is_sent and (not self.answers.unanswered or time.monotonic() - heard_at_s > patience_s):
                return

    def _take_decision(self, value: bytes) -> None:
        try:
            decision = _DECISION_DECODER.decode(value)
        except msgspec.DecodeError:
            return  # another program's: what it should have answered stays unanswered, and is reported so
        self.answers.decision(decision.end_to_end_id, decision.decision)

    def _take_dead_letter(self, value: bytes) -> None:
        try:
            letter = _LETTER_DECODER.decode(value)
        except msgspec.DecodeError:
            return
        if letter.source.topic != TRANSACTIONS.name:
            return
        # The bounds in words follow each message's own arrival; they would make every row a kind of its own.
        is_time = letter.reason is Reason.IMPLAUSIBLE_TIME
        expected = "a time near the arrival (max_event_age_days, max_event_lead_hours)" if is_time else letter.expected
        self.answers.dead_letter(letter.source.partition, letter.source.offset, Fault(letter.path, expected))

    def _tell(self, share: float, *, at_once: bool = False) -> None:
        now_s = time.monotonic()
        if not at_once and now_s - self._told_at_s < _PROGRESS_INTERVAL_S:
            return
        self._told_at_s = now_s
        answers = self.answers
        self._progress(
            SendProgress(
                share, len(answers), answers.decided, answers.rejected, answers.unanswered, self._schedule.lag_s
            )
        )


class _DecisionHead(msgspec.Struct):
    """What is needed of a decision; the rest is not decoded."""

    end_to_end_id: str
    decision: Literal["APPROVE", "HOLD", "DENY"]


class _LetterHead(msgspec.Struct):
    """What is needed of a dead letter; the raw message is not decoded."""

    reason: Reason
    path: str
    expected: str
    source: Source


_DECISION_DECODER = msgspec.json.Decoder(_DecisionHead)
_LETTER_DECODER = msgspec.json.Decoder(_LetterHead)


async def _start_follower(
    connection: dict[str, Any], producer: AIOKafkaProducer, stack: AsyncExitStack
) -> AIOKafkaConsumer:
    """Return a consumer that stands at the present ends of the topics that answers come on."""
    places = [
        TopicPartition(topic.name, partition)
        for topic in (DECISIONS, REJECTED)
        for partition in sorted(await producer.partitions_for(topic.name))
    ]
    consumer = AIOKafkaConsumer(**connection, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=_POLL_MS)
    stack.push_async_callback(consumer.stop)
    await consumer.start()
    consumer.assign(places)
    for place, offset in (await consumer.end_offsets(places)).items():
        consumer.seek(place, offset)
    return consumer


def _limited(chunks: Iterator[Chunk], limit: int | None) -> Iterator[Chunk]:
    """Yield chunks up to `limit` rows in all."""
    left = limit
    for chunk in chunks:
        if left is not None and len(chunk) >= left:
            yield Chunk(
                chunk.rows[:left],
                chunk.keys[:left],
                chunk.values[:left],
                chunk.ids[:left],
                chunk.times_ms[:left],
                chunk.faults,
            )
            return
        yield chunk
        left = None if left is None else left - len(chunk)


def _shift_ms(chunks: Iterator[Chunk], limit: int | None, speed: float | None) -> int:
    """Return what to add to all times so that the newest transaction happens when its turn to be sent comes."""
    times_ms = [
        (chunk_times[0], max(chunk_times))
        for chunk in _limited(chunks, limit)
        if (chunk_times := [time_ms for time_ms in chunk.times_ms if time_ms is not None])
    ]
    if not times_ms:
        return 0
    first_ms, newest_ms = times_ms[0][0], max(newest for _, newest in times_ms)
    sending_ms = 0 if speed is None else round((newest_ms - first_ms) / speed)
    return round(time.time() * 1000) + sending_ms - newest_ms

"""`pixguard simulate` to Kafka: seeded traffic at the pace of its own clock. To files: `ops/traffic/files.py`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from aiokafka.errors import KafkaError

from app.kafka_options import client_options
from app.settings import Settings
from app.topics import FEEDBACK, TRANSACTIONS
from ops.bulk_sender import BulkSender, SendError
from ops.feed import open_feed
from ops.pacing import Pace, Schedule
from ops.traffic.feedback import FeedbackConfig, MedFeedback
from ops.traffic.generator import TrafficConfig, generate

__all__ = ["SimulateProgress", "SimulateReport", "simulate_to_kafka", "timed"]

_CHUNK_MESSAGES = 500


class SimulateProgress(NamedTuple):
    """How far the simulation has come.

    Parameters
    ----------
    sent, feedback
        Messages on `pix-transactions` and on `pix-feedback`.
    lag_s
        Seconds by which the last message went out after it was due.
    """

    sent: int
    feedback: int
    lag_s: float


class SimulateReport(NamedTuple):
    """What a simulation has sent.

    Parameters
    ----------
    sent, feedback
        Messages on `pix-transactions` and on `pix-feedback`.
    seconds
        From the first message to the last acknowledgement.
    max_lag_s
        By how much a message went out after it was due, at most.
    interrupted
        Whether Ctrl-C ended it.
    """

    sent: int
    feedback: int
    seconds: float
    max_lag_s: float
    interrupted: bool


async def simulate_to_kafka(
    settings: Settings,
    config: TrafficConfig,
    *,
    feedback: FeedbackConfig | None = None,
    speed: float | None = 1.0,
    progress: Callable[[SimulateProgress], None] | None = None,
) -> SimulateReport:
    """Send simulated traffic in order of arrival until it ends, or until Ctrl-C.

    Parameters
    ----------
    settings
        Name the cluster.
    config
        The traffic; its `rate_per_s`, `duration_s` and `count` say how much and for how long.
    feedback
        How feedback follows; with the defaults where None. What is due only after the last payment is not sent.
    speed
        Event time against the wall clock: 10 sends `10 * rate_per_s` per second, in whose timestamps ten seconds pass
        in one; None: as fast as possible. Above 1 the traffic needs a `duration_s`, and its event time starts before
        `start_ms`, so that it ends at the wall clock (`timed`).
    progress
        Called after each portion.

    Raises
    ------
    SendError
        When the cluster has no such topics, or stops taking messages; for endless traffic faster than the clock.
    SettingsError, ValueError
        For options that cannot be.
    aiokafka.errors.KafkaConnectionError
        When the cluster cannot be reached.
    """
    connection = client_options(settings)
    pace = Pace(None, speed)
    messages = _messages(timed(config, speed), MedFeedback(feedback or FeedbackConfig(config.seed)))
    async with open_feed(connection, (TRANSACTIONS, FEEDBACK)) as (producer, stopped):
        run = _Run(pace, stopped, progress or (lambda _progress: None))
        async with (
            BulkSender(producer, TRANSACTIONS.name, on_refused=run.on_refused) as payments,
            BulkSender(producer, FEEDBACK.name, on_refused=run.on_refused) as followups,
        ):
            return await run.run(messages, payments, followups)


def timed(config: TrafficConfig, speed: float | None) -> TrafficConfig:
    """Return traffic that ends at the wall clock, where it would run ahead of it.

    Parameters
    ----------
    config
        Its `start_ms` is the wall clock at which sending begins.
    speed
        Event time against the wall clock; None: as fast as possible. Up to 1 nothing is changed.

    Raises
    ------
    SendError
        For traffic of no known duration that is faster than the wall clock: its timestamps would lead ever further,
        and the stream rejects those of the day after next.

    Examples
    --------
    >>> from ops.traffic.generator import TrafficConfig
    >>> timed(TrafficConfig(1_790_000_000_000, duration_s=3_600.0), 10.0).start_ms - 1_790_000_000_000
    -3240000
    """
    if speed is not None and speed <= 1:
        return config
    if config.duration_s is None:
        raise SendError(
            f"--speed {'above 1' if speed is None else format(speed, 'g')} needs an end, so that event time can start "
            "in the past and reach the clock: give --duration, in seconds of event time"
        )
    sending_s = 0.0 if speed is None else config.duration_s / speed
    return replace(config, start_ms=config.start_ms - round((config.duration_s - sending_s) * 1000))


class _Message(NamedTuple):
    at_ms: int
    is_feedback: bool
    key: bytes
    value: bytes


def _messages(config: TrafficConfig, med: MedFeedback) -> Iterator[_Message]:
    """Yield payments and feedback in order of time."""
    for simulated in generate(config):
        for told in med.due(simulated.arrival_ms):
            yield _Message(told.at_ms, is_feedback=True, key=told.key, value=told.value)
        med.observe(simulated)
        yield _Message(simulated.arrival_ms, is_feedback=False, key=simulated.key, value=simulated.value)


class _Run:
    """One run of `simulate_to_kafka`."""

    def __init__(self, pace: Pace, stopped: asyncio.Event, progress: Callable[[SimulateProgress], None]) -> None:
        self._pace, self._stopped, self._progress = pace, stopped, progress
        self._sent = self._feedback = 0
        self._failure: str | None = None

    def on_refused(self, numbers: Sequence[int], error: KafkaError) -> None:
        """Note that the cluster did not take a batch, which ends the run."""
        self._failure = f"{len(numbers)} messages were not taken: {error!r}"

    async def run(self, messages: Iterator[_Message], payments: BulkSender, followups: BulkSender) -> SimulateReport:
        """Send all messages when they are due."""
        # The population takes seconds to make: the clock starts when the first messages are there.
        chunk = await asyncio.to_thread(_take, messages)
        schedule = Schedule(self._stopped)
        while chunk and not self._stopped.is_set() and self._failure is None:
            # The next messages are made in a thread meanwhile, so that making them delays none of these.
            upcoming = asyncio.create_task(asyncio.to_thread(_take, messages))
            try:
                async for begin, end in schedule.portions(self._pace.due_s([message.at_ms for message in chunk])):
                    await self._send(chunk[begin:end], payments, followups)
                    self._progress(SimulateProgress(self._sent, self._feedback, schedule.lag_s))
            finally:
                chunk = await upcoming
        await payments.flush()
        await followups.flush()
        if self._failure is not None:
            raise SendError(self._failure)
        return SimulateReport(
            self._sent, self._feedback, schedule.elapsed_s, schedule.max_lag_s, self._stopped.is_set()
        )

    async def _send(self, portion: Sequence[_Message], payments: BulkSender, followups: BulkSender) -> None:
        for sender, is_feedback in ((payments, False), (followups, True)):
            chosen = [message for message in portion if message.is_feedback == is_feedback]
            if chosen:
                await sender.send(
                    range(len(chosen)), [message.key for message in chosen], [message.value for message in chosen]
                )
            if is_feedback:
                self._feedback += len(chosen)
            else:
                self._sent += len(chosen)


def _take(messages: Iterator[_Message]) -> list[_Message]:
    return list(itertools.islice(messages, _CHUNK_MESSAGES))

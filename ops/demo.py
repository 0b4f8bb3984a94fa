"""`pixguard run`: the whole engine on one machine, with simulated traffic, until Ctrl-C.

Broker, workers and traffic are processes of their own, as they would be in a bank; this one starts them in order,
shows what they say through a plain Kafka client, starts workers again that die, and stops all in reverse order.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from aiokafka import AIOKafkaConsumer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.domain.decision import Decision, decode_decision
from app.kafka_options import client_options
from app.settings import Settings
from app.topics import DECISIONS, topics
from ops.broker import LocalBroker
from ops.demo_training import train_again_and_again
from ops.supervised import EndedError, Supervised
from ops.topic_admin import ensure_topics

__all__ = ["DemoError", "run_demo"]

_MAX_RESTARTS = 3

_SWIFT_TRAFFIC = ("--feedback-scale", "0.00005", "--fraud-share", "0.05")
"""MED takes weeks: here most reports are closed within a minute. And frauds come often enough to be learned from."""

_SWIFT_LEARNING = MappingProxyType(
    {
        "PIXGUARD_LABEL_MATURITY_H": "0.01",
        "PIXGUARD_FEEDBACK_WAIT_H": "0.1",
        "PIXGUARD_NEGATIVES_RATE": "0.5",
        "PIXGUARD_LEARNER_PUBLISH_S": "10",
        "PIXGUARD_MODEL_POLL_S": "5",
    }
)
"""Labels mature after 36 seconds, so that whoever watches sees models come."""

_REFRESH_S = 0.5
_PLAIN_REFRESH_S = 5.0
_SAME_AGAIN_S = 30.0
_ROWS_SHOWN = 12
_STYLES = {"APPROVE": "green", "HOLD": "yellow", "DENY": "bold red"}


class DemoError(RuntimeError):
    """A part of the demo ended by itself; the message says which, and where its log lies."""


@dataclass(slots=True)
class _Board:
    """What the screen shows."""

    counts: Counter[str] = field(default_factory=Counter)
    recent: deque[Decision] = field(default_factory=lambda: deque(maxlen=_ROWS_SHOWN))
    rate: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, decisions: list[Decision]) -> None:
        now_s = time.monotonic()
        self.rate.append((now_s, len(decisions)))
        while self.rate and self.rate[0][0] < now_s - 5:
            self.rate.popleft()
        for decision in decisions:
            self.counts[decision.decision] += 1
            # Approvals would push everything else off the screen.
            if decision.decision != "APPROVE" or decision.reasons or len(self.recent) < _ROWS_SHOWN:
                self.recent.append(decision)

    @property
    def per_s(self) -> float:
        return sum(count for _, count in self.rate) / 5

    def line(self) -> str:
        if not self.counts:
            return "Waiting for the first decision: the workers compile their kernels and share the partitions …"
        counts = ", ".join(f"{self.counts[action]:,} {action}" for action in _STYLES)
        return f"{self.counts.total():,} decisions ({self.per_s:,.0f}/s): {counts}"


def run_demo(settings: Settings, *, workers: int, rate: float, own_broker: bool, jars_dir: Path) -> None:
    """Run until Ctrl-C.

    Parameters
    ----------
    settings
        Broker, data directory, ports; the first worker's web view is on `web_port`, the others' follow.
    workers
        How many.
    rate
        Simulated payments per second.
    own_broker
        Whether to start a broker here; else `settings.broker` is used.
    jars_dir
        Cache of the broker's jars.

    Raises
    ------
    DemoError
        When a part ends by itself; a worker only with its fourth end in a minute.
    BrokerError, TopicError
        When the broker cannot be had, or refuses a topic.
    """
    console = Console()
    # Topics that were made a moment ago have no leader yet: aiokafka tries again, and says so each time.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    settings.read_hash_key()  # made once, before workers that share it start
    with ExitStack() as stack:
        if own_broker:
            port = int(settings.broker.rpartition(":")[2])
            console.print(f"Starting Kafka on {settings.broker} (data in {settings.data_dir / 'kafka'}) …")
            stack.enter_context(LocalBroker(settings.data_dir / "kafka", jars_dir=jars_dir, port=port))
        console.print("Checking topics …")
        asyncio.run(_make_topics(settings))
        parts = [
            stack.enter_context(
                _part(
                    f"worker-{number}",
                    settings,
                    ["worker", "--name", f"worker-{number}", "--web-port", str(settings.web_port + number - 1)],
                    max_restarts=_MAX_RESTARTS,
                )
            )
            for number in range(1, workers + 1)
        ]
        learner = ["learner", "--name", "learner-1", "--web-port", str(settings.web_port + workers)]
        parts.append(stack.enter_context(_part("learner", settings, learner, max_restarts=_MAX_RESTARTS)))
        archive = ["archive", "--name", "archive-1", "--web-port", str(settings.web_port + workers + 1)]
        parts.append(stack.enter_context(_part("archive", settings, archive, max_restarts=_MAX_RESTARTS)))
        traffic = ["simulate", "--rate", str(rate), "--quiet", *_SWIFT_TRAFFIC]
        parts.append(stack.enter_context(_part("traffic", settings, traffic)))
        console.print(
            f"{workers} worker(s), a learner, an archive and {rate:g} payments/s of simulated traffic started (fewer "
            f"at night); web view: http://{settings.web_host}:{settings.web_port}\n"
            "What takes MED weeks takes a minute here: an online model learns from the second minute on, a batch model "
            "is trained on the first five. All of it goes to Delta tables: see `pixguard lake status`.\n"
            "The first start compiles the kernels (a minute or two). Ctrl-C stops everything."
        )
        try:
            asyncio.run(_show_and_train(settings, parts, console))
        except KeyboardInterrupt:
            console.print("\nStopping …")
            for part in parts:
                part.ask_to_stop()


async def _make_topics(settings: Settings) -> None:
    await ensure_topics(
        client_options(settings),
        topics(settings.app_id),
        partitions=settings.partitions,
        replication_factor=settings.replication_factor,
    )


def _part(name: str, settings: Settings, arguments: list[str], max_restarts: int = 0) -> Supervised:
    log = settings.data_dir / "logs" / f"{name}.log"
    return Supervised(name, [sys.executable, "-m", "app.cli", *arguments], _variables(settings), log, max_restarts)


def _variables(settings: Settings) -> dict[str, str]:
    return {
        "PIXGUARD_BROKER": settings.broker,
        "PIXGUARD_DATA_DIR": str(settings.data_dir),
        "PIXGUARD_LOG_FORMAT": "json",
        **_SWIFT_LEARNING,
    }


async def _show_and_train(settings: Settings, parts: list[Supervised], console: Console) -> None:
    """Show what comes, and let batch models be trained meanwhile."""
    log = settings.data_dir / "logs" / "trainer.log"
    training = asyncio.create_task(train_again_and_again(_variables(settings), log, console))
    try:
        await _show(settings, parts, console)
    finally:
        training.cancel()
        await asyncio.wait([training])


async def _show(settings: Settings, parts: list[Supervised], console: Console) -> None:
    """Follow `pix-decisions` with a plain Kafka client and show what comes."""
    board = _Board()
    consumer = AIOKafkaConsumer(DECISIONS.name, **client_options(settings), auto_offset_reset="latest")
    await consumer.start()
    try:
        if console.is_terminal:
            with Live(_render(board), console=console, refresh_per_second=4) as live:
                while True:
                    await _take(consumer, board, _REFRESH_S)
                    _check(parts, console)
                    live.update(_render(board))
        next_line_s, told, told_s = time.monotonic() + _PLAIN_REFRESH_S, "", 0.0
        while True:
            await _take(consumer, board, _REFRESH_S)
            _check(parts, console)
            if time.monotonic() >= next_line_s:
                next_line_s += _PLAIN_REFRESH_S
                line = board.line()
                # The same again says little: only now and then, that it still lives.
                if line != told or time.monotonic() - told_s >= _SAME_AGAIN_S:
                    console.print(line)
                    told, told_s = line, time.monotonic()
    finally:
        await consumer.stop()


async def _take(consumer: AIOKafkaConsumer, board: _Board, wait_s: float) -> None:
    fetched = await consumer.getmany(timeout_ms=int(wait_s * 1000), max_records=5000)
    board.add([decode_decision(record.value) for records in fetched.values() for record in records])


def _check(parts: list[Supervised], console: Console) -> None:
    for part in parts:
        try:
            told = part.check()
        except EndedError as error:
            raise DemoError(str(error)) from error
        if told:
            console.print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _render(board: _Board) -> Group:
    table = Table(expand=True)
    for column in ("decision", "score", "end_to_end_id", "why"):
        table.add_column(column, no_wrap=column != "why")
    for decision in reversed(board.recent):
        why = ", ".join(reason.code for reason in decision.reasons) or "nothing unusual"
        style = _STYLES[decision.decision]
        table.add_row(Text(decision.decision, style), f"{decision.score:.3f}", decision.end_to_end_id, why)
    return Group(Text(board.line(), "bold"), table)

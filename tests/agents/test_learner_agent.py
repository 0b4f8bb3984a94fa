"""A learner whose log another one has claimed: nothing is acknowledged by it, and its process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agents.learner import Learning
from agents.learner_log import CHECKPOINT_KEY, SNAPSHOT_KEY
from app.batching import BatchApp, FencedError
from app.clock import SYSTEM_CLOCK


class Log:
    """Takes the place of the claims on `pix-online-model`: takes appends until another one has claimed."""

    def __init__(self) -> None:
        self.appended: list[Sequence[bytes]] = []
        self.is_claimed = False

    async def append(self, _partition: int, keys: Sequence[bytes], _values: Sequence[bytes], _at_ms: int) -> int:
        """Append one batch."""
        if self.is_claimed:
            raise FencedError("pix-online-model-0: epoch 0 is over")
        self.appended.append(keys)
        return len(self.appended)


class App:
    """Keeps why it has crashed."""

    conf = SimpleNamespace(broker_client_id="zombie")

    def __init__(self) -> None:
        self.crash_reason: BaseException | None = None

    async def crash(self, reason: BaseException) -> None:
        """Keep the reason."""
        self.crash_reason = reason


class Event:
    """One batch that was learned."""

    acknowledged = False

    def ack(self) -> None:
        """Take note."""
        self.acknowledged = True


class Learned:
    """As much of a learner as is published."""

    labels = 7
    positions: dict[int, int] = {}  # noqa: RUF012 - read only

    def snapshot(self, version: int) -> Any:  # noqa: ANN401 - as much of a snapshot as is read
        """What scorers take."""
        told = dict.fromkeys(("blend_weight", "alone_weight", "prior", "drifts", "label_watermark"), 0.0)
        return SimpleNamespace(version=version, metrics={}, to_bytes=lambda: b"snapshot", **told)

    def to_bytes(self) -> bytes:
        """What it goes on from."""
        return b"learner"


def learning_of(app: App, log: Log, publish_s: float) -> tuple[Learning, Event]:
    """Return a learner that has learned a batch which no checkpoint has."""
    made = Learning(
        cast("BatchApp", app), SYSTEM_CLOCK, {}, lambda: None, lambda _data: None, publish_s, lambda _labels: None
    )  # type: ignore[arg-type, return-value] # it takes over from nobody here
    made.learner, made._claims = cast("Any", Learned()), cast("Any", log)
    return made, learned(made)


def learned(learning: Learning) -> Event:
    """Let it have learned another batch."""
    event = Event()
    learning._learned += 1
    learning._events.append(event)
    return event


async def test_what_is_published_is_acknowledged_and_what_is_refused_is_not() -> None:
    """The next owner learns it, from its own checkpoint; the zombie's version stays where it was."""
    log = Log()
    learning, first = learning_of(App(), log, 60.0)
    await learning.publish()
    assert first.acknowledged
    assert (learning.version, log.appended) == (1, [(CHECKPOINT_KEY, SNAPSHOT_KEY)])
    second = learned(learning)
    log.is_claimed = True
    for _ in range(2):  # also when it hands over
        with pytest.raises(FencedError):
            await learning.publish()
    assert not second.acknowledged
    assert (learning.version, len(log.appended)) == (1, 1)


async def test_a_refused_checkpoint_ends_the_process() -> None:
    """With the reason: it must not go on beside whoever owns the log now."""
    app, log = App(), Log()
    log.is_claimed = True
    learning, event = learning_of(app, log, 0.0)
    await learning.start()
    try:
        async with asyncio.timeout(10):
            while app.crash_reason is None:  # noqa: ASYNC110 - of another task
                await asyncio.sleep(0.01)
    finally:
        await learning.stop()
    assert isinstance(app.crash_reason, FencedError)
    assert not event.acknowledged

"""The outbox: a worker that may own its partitions no more sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from agents.outbox import Outbox
from app.batching import BatchApp
from app.clock import SYSTEM_CLOCK
from models.stages.outputs import Send

SEND = Send("topic", 0, [b"k"], [b"v"])


class Sending:
    """Takes the place of app and producer, and keeps what it is told."""

    def __init__(self) -> None:
        self.sent: list[Sequence[bytes | None]] = []
        self.crash_reason: BaseException | None = None
        self.batch_producer = self

    async def room(self) -> None:
        """Have room."""

    def send_records(
        self, topic: str, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes | None], times: object
    ) -> asyncio.Future[object]:
        """Keep the values."""
        assert (topic, partition, len(keys)) == ("topic", 0, len(values))
        assert times
        self.sent.append(values)
        acknowledged: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged

    async def crash(self, reason: BaseException) -> None:
        """Keep the reason."""
        self.crash_reason = reason


async def outcome(app: Sending, **options: Any) -> asyncio.Future[None]:  # noqa: ANN401 - the outbox's own
    """Hand one message to an outbox, and wait until it has dealt with it."""
    outbox = Outbox(cast("BatchApp", app), SYSTEM_CLOCK, **options)
    done = outbox.put([SEND])
    await outbox.start()
    try:
        async with asyncio.timeout(5):
            await asyncio.wait([done])
    finally:
        await outbox.stop()
    return done


async def test_an_expelled_worker_crashes_instead_of_sending() -> None:
    """Others decide on the same payments by then."""

    async def expelled() -> None:
        raise PermissionError("expelled")

    app = Sending()
    done = await outcome(app, confirm_membership=expelled)
    with pytest.raises(PermissionError):
        done.result()
    assert app.sent == []
    assert isinstance(app.crash_reason, PermissionError)


async def test_a_member_sends() -> None:
    """It is asked for each job, and without the question everything is sent."""
    asked: list[str] = []

    async def member() -> None:
        asked.append("asked")

    app = Sending()
    (await outcome(app, confirm_membership=member)).result()
    (await outcome(app)).result()
    assert app.sent == [[b"v"], [b"v"]]
    assert asked == ["asked"]

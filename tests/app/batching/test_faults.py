"""Every fault crashes the app, and nothing that was not processed is ever committed."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.group import LeaveGroupRequest
from faust.types import TP

from app.batching import Batch
from app.batching.app import HandoverError
from app.batching.consumer import PartitionsLostError
from app.batching.progress import BatchMessage
from app.domain.records import GapError
from tests.app.batching.recording import Cluster, MakeApp, RecordingApp, Until


async def test_an_agent_that_fails_takes_the_app_down(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """It is not restarted behind the batch it failed on, and that batch is not committed."""
    source = await cluster.create()
    await cluster.fill(source, 0, range(1_000))
    app = make_app(source, fetch_max_records=100)
    seen: list[int] = []
    starts: list[Any] = []

    async def failing(stream: Any) -> None:  # noqa: ANN401
        starts.append(stream)
        async for event in stream.noack().events():
            seen.append(event.value.base)
            if event.value.base == 500:
                raise ArithmeticError("boom")
            event.ack()

    app.agents["recorder"].fun = failing
    await app.start()
    await until(lambda: app.crashed)
    await asyncio.sleep(0.2)
    await app.stop()
    assert isinstance(app.crash_reason, ArithmeticError)
    assert seen == [0, 100, 200, 300, 400, 500]
    assert len(starts) == 1
    assert (await cluster.committed(app.conf.id, source)).get(0, 0) <= 500
    assert "revoke" not in app.journal


async def test_an_agent_that_returns_takes_the_app_down(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """A loop that ended would leave its partitions unread without a word."""
    source = await cluster.create()
    await cluster.fill(source, 0, range(10))
    app = make_app(source)

    async def returning(stream: Any) -> None:  # noqa: ANN401
        async for _ in stream.noack().events():
            return

    app.agents["recorder"].fun = returning
    await app.start()
    await until(lambda: app.crashed)
    assert "Agent recorder returned" in str(app.crash_reason)


async def test_a_committed_offset_that_the_log_no_longer_holds_takes_the_app_down(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """Records deleted while no worker ran are not silently passed over."""
    source, group = await cluster.create(), uuid4().hex
    await cluster.fill(source, 0, range(100))
    first = make_app(source, group=group)
    await first.start()
    await until(lambda: len(first.numbers()) == 100)
    await first.stop()
    await cluster.fill(source, 0, range(100, 300))
    await cluster.delete_before(source, 0, 200)
    second = make_app(source, group=group)
    await second.start()
    await until(lambda: second.crashed)
    assert isinstance(second.crash_reason, GapError)
    assert "expected a batch at offset 100, got one at 200" in str(second.crash_reason)


async def test_records_deleted_ahead_of_a_worker_take_it_down(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """A worker that retention has overtaken does not go on behind the gap."""
    source = await cluster.create()
    await cluster.fill(source, 0, range(100))
    app = make_app(source)
    await app.start()
    await until(lambda: len(app.numbers()) == 100)
    app.consumer.pause_partitions({TP(source, 0)})
    await cluster.fill(source, 0, range(100, 300))
    await cluster.delete_before(source, 0, 200)
    app.consumer.resume_partitions({TP(source, 0)})
    await until(lambda: app.crashed)
    assert "expected a batch at offset 100, got one at 200" in str(app.crash_reason)


async def test_an_error_in_the_fetch_takes_the_app_down(
    cluster: Cluster, make_app: MakeApp, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong checksum is not passed over."""

    def corrupt(*_: object) -> None:
        raise CorruptRecordException("checksum")

    source = await cluster.create()
    await cluster.fill(source, 0, range(10))
    monkeypatch.setattr("app.batching.sources.unpack", corrupt)
    app = make_app(source)
    await app.start()
    await until(lambda: app.crashed)
    assert isinstance(app.crash_reason, CorruptRecordException)


async def test_a_worker_that_was_expelled_writes_and_commits_nothing_more(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """It learns that others own its partitions: it does not finish them, it crashes."""
    source = await cluster.create()
    await cluster.fill(source, 0, range(100))
    app = make_app(source)
    await app.start()
    await until(lambda: len(app.numbers()) == 100)
    coordinator = app.batch_consumer._thread._ensure_consumer()._coordinator

    async def leave() -> None:
        await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(leave(), app.batch_consumer._thread.thread_loop))
    await until(lambda: app.crashed)
    await app.stop()
    assert isinstance(app.crash_reason, PartitionsLostError)
    assert "revoke" not in app.journal
    assert await cluster.committed(app.conf.id, source) == {}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda app: setattr(app, "before_revoke", forget), HandoverError),
        (lambda app: setattr(app, "before_revoke", fail), ArithmeticError),
        (lambda app: app.may_process.clear(), HandoverError),
    ],
    ids=["leaves batches", "raises", "agent stuck"],
)
async def test_a_handover_that_does_not_finish_takes_the_app_down(
    cluster: Cluster, make_app: MakeApp, until: Until, fault: Callable[[RecordingApp], None], reason: type[Exception]
) -> None:
    """Whatever keeps the app from finishing, it stops, having committed nothing that it did not finish."""
    source = await cluster.create()
    app = make_app(source, handover_timeout_s=0.5)
    fault(app)
    await app.start()
    await cluster.fill(source, 0, range(100))
    await until(lambda: bool(app.consumer.unacked))
    async with asyncio.timeout(30):
        await app.stop()
    assert isinstance(app.crash_reason, reason)
    assert await cluster.committed(app.conf.id, source) == {}


async def forget(_revoked: set[TP]) -> None:
    """Acknowledge nothing."""


async def fail(_revoked: set[TP]) -> None:
    """Fail."""
    raise ArithmeticError("boom")


async def test_a_refused_commit_takes_the_app_down(
    cluster: Cluster, make_app: MakeApp, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker refuses it only when the partitions belong to others by now."""

    async def refuse(_offsets: object) -> bool:
        return False

    source = await cluster.create()
    await cluster.fill(source, 0, range(10))
    app = make_app(source)
    await app.start()
    await until(lambda: len(app.numbers()) == 10)
    monkeypatch.setattr(app.batch_consumer._thread, "commit", refuse)
    app.ack_all()
    await until(lambda: app.crashed)
    assert isinstance(app.crash_reason, PartitionsLostError)


async def test_a_fetch_that_a_rebalance_has_overtaken_is_dropped(make_app: MakeApp) -> None:
    """Its partitions may be others' by now, and those that are not are read again."""
    app = make_app("source")
    consumer, batch = app.batch_consumer, batch_at(0)
    consumer.batch_topics = frozenset({"source"})
    consumer._active_partitions = {batch.tp}
    app.consumer_generation_id = batch.generation + 1
    assert list(consumer._messages({batch.tp: [batch]})) == []
    app.consumer_generation_id = batch.generation
    consumer.stop_flow()
    assert list(consumer._messages({batch.tp: [batch]})) == []


async def test_what_a_stream_skipped_in_a_rebalance_is_not_acknowledged(make_app: MakeApp) -> None:
    """Faust acknowledges messages that it skips; one that no agent was given does not count."""
    app = make_app("source")
    batch_message, consumer = BatchMessage(batch_at(0)), app.consumer
    batch_message.incref()
    batch_message.ack(consumer)
    assert not batch_message.acked
    batch_message.tracked = True
    batch_message.incref()
    batch_message.ack(consumer)
    assert batch_message.acked


def batch_at(base: int) -> Batch:
    """Return a batch of one record."""
    return Batch(TP("source", 0), base, base + 1, [None], [b""], [base], [0], generation=1)

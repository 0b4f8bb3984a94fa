"""Rebalances, restarts and stops: nothing lost, nothing repeated after an orderly one."""

import asyncio
from collections import Counter
from uuid import uuid4

from faust.types import TP

from tests.app.batching.recording import Cluster, MakeApp, RecordingApp, RestoredTable, Until


async def test_workers_that_join_and_leave_repeat_nothing(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """Over a join and two leaves under load every record is delivered exactly once to the group."""
    source, group = await cluster.create(partitions=4), uuid4().hex
    loading = asyncio.create_task(load(cluster, source))
    first = make_app(source, group=group)
    await first.start()
    await until(lambda: len(first.numbers()) > 500)
    second = make_app(source, group=group)
    await second.start()
    await until(lambda: len(second.numbers()) > 500)
    await first.stop()
    taken = len(second.numbers())
    await until(lambda: len(second.numbers()) > taken + 500)
    await second.stop()
    third = make_app(source, group=group)
    await third.start()
    await loading
    await until(lambda: sum(len(app.numbers()) for app in (first, second, third)) >= 4 * 6_000)
    await asyncio.sleep(0.2)
    counts = Counter(
        (batch.tp.partition, offset)
        for app in (first, second, third)
        for batch in app.batches
        for offset in batch.offsets
    )
    assert {partition: sum(1 for each, _ in counts if each == partition) for partition in range(4)} == dict.fromkeys(
        range(4), 6_000
    )
    assert [each for each, times in counts.items() if times > 1] == []


async def load(cluster: Cluster, source: str) -> None:
    """Send 6,000 records to each of four partitions, over a few seconds."""
    for first in range(0, 6_000, 100):
        for partition in range(4):
            await cluster.fill(source, partition, range(first, first + 100))
        await asyncio.sleep(0.08)


async def test_a_stop_finishes_first_and_commits_what_it_finished(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """The app is asked to finish while it can still send, and the commit holds everything it then acknowledged."""
    source, outputs = await cluster.create(), await cluster.create()
    await cluster.fill(source, 0, range(1_000))
    app = make_app(source)
    finish = app.before_revoke

    async def send_and_finish(revoked: set[TP]) -> None:
        await app.batch_producer.send_records(outputs, 0, [None], [b"flushed"], [0])
        await finish(revoked)

    app.before_revoke = send_and_finish  # type: ignore[method-assign]
    await app.start()
    await until(lambda: len(app.numbers()) == 1_000)
    await app.stop()
    assert await cluster.committed(app.conf.id, source) == {0: 1_000}
    assert [record.value for record in await cluster.read(outputs)] == [b"flushed"]


async def test_the_app_finishes_only_when_no_agent_is_in_the_middle_of_a_batch(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """A stop waits for the batch in hand, gives out no other, and then calls `before_revoke`, once."""
    source = await cluster.create()
    app = make_app(source, fetch_max_records=10, max_queued_batches=5)
    app.may_process.clear()
    await app.start()
    await cluster.fill(source, 0, range(100))
    await until(lambda: bool(app.consumer.unacked))
    stopping = asyncio.create_task(app.stop())
    await asyncio.sleep(0.3)
    assert app.journal == ["assign"]
    app.may_process.set()
    await stopping
    assert app.journal == ["assign", "batch", "revoke"]
    assert await cluster.committed(app.conf.id, source) == {0: 10}


async def test_a_worker_that_stops_finishes_before_another_takes_over(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """A worker that joins in the middle of a slow stop is given nothing until it is over, and nothing twice."""
    source, group = await cluster.create(), uuid4().hex
    await cluster.fill(source, 0, range(1_000))
    first, second = make_app(source, group=group), make_app(source, group=group)
    finish = first.before_revoke

    async def finish_slowly(revoked: set[TP]) -> None:
        await asyncio.sleep(3)
        assert second.batches == []
        await finish(revoked)

    first.before_revoke = finish_slowly  # type: ignore[method-assign]
    await first.start()
    await until(lambda: len(first.numbers()) == 1_000)
    stopping = asyncio.create_task(first.stop())
    await asyncio.sleep(0.1)
    await second.start()
    await stopping
    await cluster.fill(source, 0, range(1_000, 1_100))
    await until(lambda: len(second.numbers()) > 0)
    assert not first.crashed
    assert second.numbers() == list(range(1_000, 1_100))


async def test_sources_wait_for_recovery_and_for_the_app(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """Tables are restored, then `after_assign` returns, then comes the first batch, from the committed offset."""
    source, changelog, group = await cluster.create(partitions=2), await cluster.create(partitions=2), uuid4().hex
    first = make_app(source, group=group)
    first.tables.add(RestoredTable(first, changelog, partitions=2))
    await first.start()
    for partition in range(2):
        await cluster.fill(source, partition, range(1_000))
        await cluster.fill(changelog, partition, range(50_000))
    await until(lambda: len(first.numbers()) == 2_000)
    await first.stop()
    assert first.journal[:2] == ["assign", "batch"]

    for partition in range(2):
        await cluster.fill(source, partition, range(1_000, 2_000))
    second = make_app(source, group=group)
    table = RestoredTable(second, changelog, partitions=2)
    second.tables.add(table)
    restored_at_assign: list[list[int]] = []
    prepare = second.after_assign

    async def look(assigned: set[TP]) -> None:
        restored_at_assign.extend(table.offsets(partition) for partition in range(2))
        await prepare(assigned)

    second.after_assign = look  # type: ignore[method-assign]
    slow_down_seek(second)
    await second.start()
    await until(lambda: len(second.numbers()) >= 2_000)
    assert sorted(second.numbers()) == sorted([*range(1_000, 2_000)] * 2)
    assert restored_at_assign == [list(range(50_000))] * 2
    assert second.journal[:2] == ["assign", "batch"]


async def test_a_rebalance_that_overtakes_the_end_of_another_keeps_the_gate_closed(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """When recovery ends, the next rebalance may have begun: the sources open after that one, and only then."""
    source, group = await cluster.create(partitions=2), uuid4().hex
    first, second = make_app(source, group=group), make_app(source, group=group)
    seek, sought = first.consumer.perform_seek, asyncio.Event()

    async def seek_and_dawdle() -> None:
        await seek()
        is_first = not sought.is_set()
        sought.set()
        if is_first:
            await until(lambda: first.rebalancing_count == 2)

    async def hold_up(*_signal: object, **_options: object) -> None:
        await asyncio.sleep(0.5)  # in which the end of the first rebalance arrives in the middle of the second

    first.consumer.perform_seek = seek_and_dawdle  # type: ignore[method-assign]
    first.on_partitions_revoked.connect(hold_up)
    starting = asyncio.create_task(first.start())
    await sought.wait()
    for partition in range(2):
        await cluster.fill(source, partition, range(1_000))
    await second.start()
    await starting
    await until(lambda: len(first.numbers()) + len(second.numbers()) >= 2_000)
    assert first.journal.count("assign") == second.journal.count("assign") == 1
    assert sorted(first.numbers() + second.numbers()) == sorted([*range(1_000)] * 2)


def slow_down_seek(app: RecordingApp) -> None:
    """Widen the moment between recovery's resuming of partitions and its last step, which clears all queues."""
    seek = app.consumer.perform_seek

    async def seek_slowly() -> None:
        await asyncio.sleep(0.2)
        await seek()

    app.consumer.perform_seek = seek_slowly  # type: ignore[method-assign]


async def test_a_standby_restores_everything_while_others_come_and_go(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """Each worker ends up with every changelog record of both partitions, its own and the other's, in order."""
    source, changelog, group = await cluster.create(partitions=2), await cluster.create(partitions=2), uuid4().hex
    tables = []
    for partition in range(2):
        await cluster.fill(source, partition, range(100))
        await cluster.fill(changelog, partition, range(20_000))
    for _ in range(2):
        app = make_app(source, group=group, table_standby_replicas=1, fetch_max_records=100)
        tables.append(RestoredTable(app, changelog, partitions=2))
        tables[-1].seconds_per_batch = 0.002
        app.tables.add(tables[-1])
        slow_down_seek(app)
        await app.start()
        await until(lambda app=app: app.sources_open)  # type: ignore[misc]
    await until(
        lambda: all(table.batch_app.sources_open and table.app.assignor.assigned_standbys() for table in tables)
    )
    await cluster.fill(changelog, 0, range(20_000, 20_500))
    standby, active = sorted(tables, key=lambda table: TP(changelog, 0) in table.app.assignor.assigned_actives())
    await until(lambda: standby.offsets(0)[-1:] == [20_499] and active.offsets(1)[-1:] == [19_999])
    assert sorted(set(standby.offsets(0))) == list(range(20_500))
    assert sorted(set(active.offsets(0))) == list(range(20_000))
    assert sorted(set(active.offsets(1))) == sorted(set(standby.offsets(1))) == list(range(20_000))

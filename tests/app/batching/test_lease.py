"""The lease: how long after its last answered heartbeat a worker may believe that it is a member."""

import asyncio

import pytest
from aiokafka.protocol.group import LeaveGroupRequest

from app.batching.consumer import PartitionsLostError
from app.batching.lease import Lease, awake_or_not_s
from tests.app.batching.recording import Cluster, MakeApp, Until


def test_a_lease_lasts_from_before_the_heartbeat_for_the_session_timeout() -> None:
    """The coordinator counts from a later moment, so it cannot have expelled the member before."""
    lease = Lease(6.0)
    assert not lease.is_valid(0.0)
    lease.renew(100.0)
    assert [lease.is_valid(now_s) for now_s in (100.0, 105.9, 106.0)] == [True, True, False]


def test_answers_that_overtake_each_other_do_not_shorten_a_lease() -> None:
    """The heartbeat that was sent last counts."""
    lease = Lease(6.0)
    lease.renew(101.0)
    lease.renew(100.0)
    assert lease.is_valid(106.9)


async def test_a_lease_is_kept_without_being_asked_for(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """Messages need not wait for the group: the consumer's thread has asked it already."""
    app = make_app(await cluster.create())
    await app.start()
    await until(lambda: app.sources_open)
    lease = app.batch_consumer._thread.lease
    await until(lambda: lease.is_valid(awake_or_not_s() + 5.5))
    await asyncio.sleep(1.0)
    assert lease.is_valid(awake_or_not_s() + 5.0)


async def test_a_worker_that_slept_asks_and_goes_on_if_it_is_still_a_member(
    cluster: Cluster, make_app: MakeApp, until: Until
) -> None:
    """A pause that nobody has noticed costs one question."""
    app = make_app(await cluster.create())
    await app.start()
    await until(lambda: app.sources_open)
    app.batch_consumer._thread.lease = Lease(6.0)  # as after a pause
    async with asyncio.timeout(5):
        await app.confirm_membership()


async def test_a_worker_that_slept_and_was_expelled_is_told(cluster: Cluster, make_app: MakeApp, until: Until) -> None:
    """It does not go on with what it had in hand, not even once it could be a member again."""
    app = make_app(await cluster.create())
    await app.start()
    await until(lambda: app.sources_open)
    thread = app.batch_consumer._thread
    coordinator = thread._ensure_consumer()._coordinator

    async def leave() -> None:
        await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(leave(), thread.thread_loop))
    thread.lease = Lease(6.0)
    async with asyncio.timeout(10):
        with pytest.raises(PartitionsLostError):
            await app.confirm_membership()
        await until(lambda: app.crashed)
        with pytest.raises(PartitionsLostError):
            await app.confirm_membership()

"""Claims on a real broker: of all who ever owned a partition, only the last can append to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import RequestTimedOutError

from app.batching import CLAIM_KEY, BatchApp, Claims, FencedError, OversizeError
from app.batching.claims import ClaimError, ClaimRow
from app.batching.wire import Answer
from app.topics import MAX_CHECKPOINT_BYTES
from ops.broker import LocalBroker
from tests.app.batching.recording import Cluster, MakeApp, meddle

MEBIBYTE = 1024 * 1024


@pytest.fixture
async def app(cluster: Cluster, make_app: MakeApp) -> BatchApp:
    """Return an app of which the producer alone runs."""
    return await started(make_app(await cluster.create()))


async def started(app: BatchApp) -> BatchApp:
    """Start the producer alone."""
    app.producer_only = True
    await app.start()
    return app


def claims(app: BatchApp, topic: str, owner: str, **options: float) -> Claims:
    """Return the claims of a worker; workers may share a producer, since claims do not use its id."""
    return Claims(lambda: app.batch_producer, topic, owner, **options)


async def append(of: Claims, *values: bytes, partition: int = 0) -> int:
    """Append values as one record batch."""
    return await of.append(partition, [b"k"] * len(values), values, 0)


def epoch(of: Claims, partition: int) -> int | None:
    """Return the epoch under which a worker appends; None where it has not claimed."""
    claim = of._held.get(partition)
    return None if claim is None else claim.epoch


async def rows(cluster: Cluster, topic: str) -> list[bytes | tuple[str, int]]:
    """Return what partition 0 holds: values, and of claim records owner and epoch."""
    found: list[bytes | tuple[str, int]] = []
    for record in await cluster.read(topic):
        if record.key == CLAIM_KEY:
            row = msgspec.json.decode(record.value, type=ClaimRow)
            found.append((row.owner, row.epoch))
        else:
            found.append(record.value)
    return found


async def test_a_claim_ends_what_its_predecessor_can_append(cluster: Cluster, app: BatchApp) -> None:
    """What came before the claim stays; what comes after is refused, at each attempt, and the error says why."""
    topic = await cluster.create()
    zombie, owner = claims(app, topic, "zombie"), claims(app, topic, "owner")
    await zombie.keep({0})
    assert await append(zombie, b"a", b"b") == 2
    await owner.keep({0})
    assert await append(owner, b"c") == 4
    for _ in range(2):
        with pytest.raises(FencedError, match=f"{topic}-0: epoch 0 of .* another worker has claimed the partition"):
            await append(zombie, b"late")
    assert await append(owner, b"d", b"e") == 6
    assert await rows(cluster, topic) == [("zombie", 0), b"a", b"b", ("owner", 1), b"c", b"d", b"e"]


async def test_a_batch_in_flight_while_another_claims_is_before_the_claim_or_nowhere(
    cluster: Cluster, app: BatchApp, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose bytes leave the machine late, as when it is paused there, is refused."""
    topic = await cluster.create()
    second = await started(make_app(topic))
    zombie, owner = claims(app, topic, "zombie"), claims(second, topic, "owner")
    await zombie.keep({0})
    paused, leaves = asyncio.Event(), asyncio.Event()

    async def pause(number: int, send: Callable[[], Awaitable[Answer]]) -> Answer:
        if number == 0:
            paused.set()
            await leaves.wait()
        return await send()

    meddle(monkeypatch, pause)
    late = asyncio.create_task(append(zombie, b"late"))
    await paused.wait()
    await owner.keep({0})
    leaves.set()
    with pytest.raises(FencedError):
        await late
    assert await rows(cluster, topic) == [("zombie", 0), ("owner", 1)]


async def test_a_retry_after_a_lost_answer_appends_nothing_twice_and_knows_its_offset(
    cluster: Cluster, app: BatchApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker answers the repeated bytes with the offset of the first attempt, and the next append follows."""
    topic = await cluster.create()
    owner = claims(app, topic, "owner")
    answered: list[Answer] = []

    async def lose_every_second_answer(number: int, send: Callable[[], Awaitable[Answer]]) -> Answer:
        answered.append(await send())
        if number % 2 == 0:
            raise RequestTimedOutError
        return answered[-1]

    meddle(monkeypatch, lose_every_second_answer)
    await owner.keep({0})
    assert await append(owner, b"a", b"b") == 2
    assert await append(owner, b"c") == 3
    assert len(answered) == 6
    assert await rows(cluster, topic) == [("owner", 0), b"a", b"b", b"c"]


async def test_partitions_are_claimed_once_while_they_are_kept(cluster: Cluster, app: BatchApp) -> None:
    """A rebalance that leaves a partition where it is costs nothing; one that comes back is claimed anew."""
    topic = await cluster.create(partitions=64)
    owner = claims(app, topic, "owner")
    await owner.keep(set(range(64)))
    await owner.keep(set(range(32)))
    assert (epoch(owner, 0), epoch(owner, 32)) == (0, None)
    with pytest.raises(FencedError, match=f"{topic}-32: expected a claim of this worker, got none"):
        await append(owner, b"a", partition=32)
    await owner.keep(set(range(64)))
    assert (epoch(owner, 0), epoch(owner, 32)) == (0, 1)
    assert await append(owner, b"a", partition=32) == 2


async def test_a_zombie_that_claims_late_takes_over_and_the_owner_learns_it(cluster: Cluster, app: BatchApp) -> None:
    """There is one writer at any time, whoever it is: the other one stops."""
    topic = await cluster.create()
    owner, zombie = claims(app, topic, "owner"), claims(app, topic, "zombie")
    await owner.keep({0})
    await append(owner, b"a")
    await zombie.keep({0})
    with pytest.raises(FencedError):
        await append(owner, b"b")
    assert await rows(cluster, topic) == [("owner", 0), b"a", ("zombie", 1)]


async def test_an_owner_renews_its_claim_and_a_zombie_cannot(cluster: Cluster, app: BatchApp) -> None:
    """A renewal goes on where the claim was; that of a zombie fails and leaves the owner in peace."""
    topic = await cluster.create()
    zombie, owner = (claims(app, topic, name, renew_after_s=0.0) for name in ("zombie", "owner"))
    await zombie.keep({0})
    await owner.keep({0})
    with pytest.raises(FencedError):
        await zombie.renew_due()
    await append(owner, b"a")
    await owner.renew_due()
    assert epoch(owner, 0) == 2
    assert await append(owner, b"b") == 5
    claimed = [("zombie", 0), ("owner", 1), b"a", ("owner", 1), ("owner", 2), b"b"]
    assert await rows(cluster, topic) == claimed


async def test_a_claim_that_is_young_is_not_renewed(cluster: Cluster, app: BatchApp) -> None:
    """Epochs are not used up."""
    owner = claims(app, await cluster.create(), "owner")
    await owner.keep({0})
    await owner.renew_due()
    assert epoch(owner, 0) == 0


async def test_an_append_of_a_stranger_is_noticed_by_the_next(cluster: Cluster, app: BatchApp) -> None:
    """A producer id of its own is not fenced; the log's offsets tell."""
    topic = await cluster.create()
    owner = claims(app, topic, "owner")
    await owner.keep({0})
    await cluster.fill(topic, 0, range(1))
    with pytest.raises(FencedError, match="expected offset 1 for the append, got 2: somebody else"):
        await append(owner, b"a")


async def test_an_append_after_one_that_was_given_up_is_not_taken_for_its_repeat(
    cluster: Cluster, app: BatchApp
) -> None:
    """It would be acknowledged and not be there."""
    topic = await cluster.create()
    owner = claims(app, topic, "owner")
    await owner.keep({0})
    await append(owner, b"a")
    with pytest.raises(OversizeError):
        await append(owner, bytes(MAX_CHECKPOINT_BYTES + MEBIBYTE))
    with pytest.raises(FencedError, match="an earlier append of this worker failed or was given up"):
        await append(owner, b"b")
    assert await rows(cluster, topic) == [("owner", 0), b"a"]


async def test_a_claim_that_the_cluster_refuses_says_what_it_wanted(
    cluster: Cluster, app: BatchApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a secured cluster names the right that is missing."""
    topic = await cluster.create()
    client: Any = app.batch_producer._ensure_producer().client
    send = client.send

    async def refuse(node: int, request: object, **options: object) -> object:
        answer: Any = await send(node, request, **options)
        if type(request).__name__.startswith("InitProducerId"):
            answer.error_code = 53
        return answer

    monkeypatch.setattr(client, "send", refuse)
    with pytest.raises(ClaimError, match=f"{topic}-0: expected the right to Describe and Write this TransactionalId"):
        await claims(app, topic, "owner").keep({0})


@pytest.fixture
async def forgetful(make_broker: Callable[..., LocalBroker]) -> AsyncIterator[Cluster]:
    """Return a client of a broker that forgets producers within seconds."""
    node = make_broker(
        config={
            "producer.id.expiration.ms": "1000",
            "producer.id.expiration.check.interval.ms": "200",
            "transactional.id.expiration.ms": "1000",
            "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
        }
    )
    await asyncio.to_thread(node.start)
    async with AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(bootstrap_servers=node.bootstrap)
        await admin.start()
        stack.push_async_callback(admin.close)
        producer = await stack.enter_async_context(AIOKafkaProducer(bootstrap_servers=node.bootstrap))
        yield Cluster(node.bootstrap, admin, producer)


async def test_an_idle_owner_goes_on_when_the_brokers_have_forgotten_it(forgetful: Cluster, make_app: MakeApp) -> None:
    """The leader takes any sequence then; the coordinator gives another producer id, and the renewed claim holds."""
    topic = await forgetful.create()
    app = await started(make_app(topic, broker=f"kafka://{forgetful.bootstrap}"))
    owner = claims(app, topic, "owner", renew_after_s=0.0)
    await owner.keep({0})
    await append(owner, b"a", b"b")
    producer_id = owner._held[0].producer_id
    await asyncio.sleep(4)
    assert await append(owner, b"c") == 3
    await owner.renew_due()
    assert owner._held[0].producer_id != producer_id
    assert await append(owner, b"d") == 6
    claimed = [("owner", 0), b"a", b"b", b"c", ("owner", 0), ("owner", 0), b"d"]
    assert await rows(forgetful, topic) == claimed

"""Topics against their declaration, on the real broker."""

from __future__ import annotations

import secrets
from functools import partial

import pytest
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, TopicAuthorizationFailedError

from app.topics import Topic
from ops.broker import LocalBroker, free_port
from ops.topic_admin import Difference, TopicError, declared_config, ensure_topics, patiently


def _topic(config: dict[str, str], partitions: int | None = None) -> Topic:
    name = f"test-{secrets.token_hex(4)}"
    return Topic(name, key="any", value="Any", why="A test.", partitions=partitions, config=config)


def _connection(broker: LocalBroker) -> dict[str, str]:
    return {"bootstrap_servers": broker.bootstrap}


async def test_a_missing_topic_is_created_once(broker: LocalBroker) -> None:
    """The first call creates it with partitions and settings as declared; the second finds nothing to do."""
    topic = _topic({"cleanup.policy": "compact", "max.message.bytes": str(16 << 20)})
    created = await ensure_topics(_connection(broker), [topic], partitions=3)
    assert created == [Difference(topic.name, "topic", "present", "missing", resolved=True)]
    assert await ensure_topics(_connection(broker), [topic], partitions=3) == []


async def test_without_create_a_missing_topic_is_only_reported(broker: LocalBroker) -> None:
    """A check changes nothing on the cluster, however often it is run."""
    topic = _topic({})
    expected = [Difference(topic.name, "topic", "present", "missing")]
    for _ in range(2):
        assert await ensure_topics(_connection(broker), [topic], partitions=1, create=False) == expected


async def test_differences_name_topic_setting_expected_and_found(broker: LocalBroker) -> None:
    """Partitions, retention and clean-up differ; each is one row, in the declaration's order."""
    topic = _topic({"cleanup.policy": "delete", "retention.ms": "1000"}, partitions=2)
    await ensure_topics(_connection(broker), [topic], partitions=1)
    other = Topic(
        topic.name,
        key="any",
        value="Any",
        why="A test.",
        partitions=4,
        config={"cleanup.policy": "compact", "retention.ms": "2000"},
    )
    assert await ensure_topics(_connection(broker), [other], partitions=1) == [
        Difference(topic.name, "partitions", "4", "2"),
        Difference(topic.name, "cleanup.policy", "compact", "delete"),
        Difference(topic.name, "retention.ms", "2000", "1000"),
    ]


async def test_fix_alters_what_differs_and_keeps_the_rest(broker: LocalBroker) -> None:
    """A setting that the cluster's owner made beyond the declaration survives the fix."""
    topic = _topic({"retention.ms": "1000", "segment.bytes": "2097152"})
    await ensure_topics(_connection(broker), [topic], partitions=1)
    narrower = Topic(topic.name, key="any", value="Any", why="A test.", config={"retention.ms": "2000"})
    fixed = await ensure_topics(_connection(broker), [narrower], partitions=1, fix=True)
    assert fixed == [Difference(topic.name, "retention.ms", "2000", "1000", resolved=True)]
    wider = Topic(
        topic.name, key="any", value="Any", why="A test.", config={"retention.ms": "2000", "segment.bytes": "2097152"}
    )
    assert await ensure_topics(_connection(broker), [wider], partitions=1) == []


async def test_the_order_of_a_list_is_no_difference(broker: LocalBroker) -> None:
    """`compact,delete` is `delete,compact`."""
    topic = _topic({"cleanup.policy": "compact,delete"})
    await ensure_topics(_connection(broker), [topic], partitions=1)
    turned = Topic(topic.name, key="any", value="Any", why="A test.", config={"cleanup.policy": "delete,compact"})
    assert await ensure_topics(_connection(broker), [turned], partitions=1) == []


async def test_a_declaration_that_the_cluster_refuses_is_an_error_with_its_reason(broker: LocalBroker) -> None:
    """A bad setting is named, with Kafka's own words."""
    topic = _topic({"cleanup.policy": "forget"})
    with pytest.raises(TopicError, match=f"{topic.name}: not created: .*forget"):
        await ensure_topics(_connection(broker), [topic], partitions=1)


async def test_more_copies_than_brokers_is_an_error(broker: LocalBroker) -> None:
    """A replication factor that was asked for is not silently lowered."""
    topic = _topic({})
    with pytest.raises(TopicError, match=f"{topic.name}: not created: .*replication"):
        await ensure_topics(_connection(broker), [topic], partitions=1, replication_factor=3)


async def test_fewer_copies_than_asked_for_are_a_difference(broker: LocalBroker) -> None:
    """One copy where two are asked for; and three imply that a write waits for the second."""
    topic = _topic({})
    await ensure_topics(_connection(broker), [topic], partitions=1)
    assert await ensure_topics(_connection(broker), [topic], partitions=1, replication_factor=3) == [
        Difference(topic.name, "replication.factor", "3", "1"),
        Difference(topic.name, "min.insync.replicas", "2", "1"),
    ]


def test_a_declared_min_insync_replicas_wins() -> None:
    """What the declaration says is not overruled."""
    assert declared_config(_topic({"min.insync.replicas": "3"}), 3) == {"min.insync.replicas": "3"}


async def test_an_unreachable_cluster_is_an_error() -> None:
    """Nobody listens there: it does not hang."""
    with pytest.raises(KafkaConnectionError):
        await ensure_topics({"bootstrap_servers": f"127.0.0.1:{free_port()}"}, [_topic({})], partitions=1)


async def _ask(answers: list[str | Exception]) -> str:
    """Give the next of the answers."""
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


async def test_a_passing_error_is_asked_again() -> None:
    """A broker that has just died is still on the cluster's list, and may be the one that is asked."""
    answers: list[str | Exception] = [NodeNotReadyError(), KafkaConnectionError(), TimeoutError(), "done"]
    assert await patiently(partial(_ask, answers)) == "done"


async def test_an_error_that_will_stay_is_raised_at_once() -> None:
    """Whoever may not ask need not wait to hear it."""
    answers: list[str | Exception] = [TopicAuthorizationFailedError(), "never asked for"]
    with pytest.raises(TopicAuthorizationFailedError):
        await patiently(partial(_ask, answers))
    assert answers == ["never asked for"]

"""Create the declared topics on a cluster, or say how those that are there differ from their declaration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from app.topics import Topic

__all__ = ["Difference", "TopicError", "declared_config", "ensure_topics", "patiently"]

_SAFE_REPLICAS = 3
_SOURCE_TOPIC = 1  # DescribeConfigs: a value set on the topic itself, not a default
_CREATE_TIMEOUT_S = 30.0
_POLL_S = 0.05
_ATTEMPT_TIMEOUT_S = 10.0  # Kafka strikes a dead broker off its list after 9 s
_ATTEMPTS_TIMEOUT_S = 30.0

Answer = TypeVar("Answer")


class TopicError(RuntimeError):
    """The cluster refused to create or alter a topic; the message gives its reason."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a topic of the cluster is not as declared.

    Parameters
    ----------
    topic
        Its name.
    setting
        `topic` for a missing one, `partitions`, `replication.factor`, or a topic setting as Kafka spells it.
    expected, found
        The declared and the actual value.
    resolved
        Whether it has been put right: created, or altered on request.
    """

    topic: str
    setting: str
    expected: str
    found: str
    resolved: bool = False


async def ensure_topics(
    connection: Mapping[str, Any],
    topics: Iterable[Topic],
    *,
    partitions: int,
    replication_factor: int = 0,
    create: bool = True,
    fix: bool = False,
) -> list[Difference]:
    """Create what is missing, check what is there; what it returns is empty where all was as declared.

    Partitions and replication are reported but never altered: state is per partition, so new partitions would part
    keys from their history. A topic is usable (it has leaders) once this returns.

    Parameters
    ----------
    connection
        Arguments of aiokafka's clients: `bootstrap_servers`, `security_protocol`, `ssl_context`, `sasl_*`.
    topics
        The declarations.
    partitions
        For topics that declare none.
    replication_factor
        Copies of each topic; 0: three where the cluster has three brokers (one that is down counts if it holds a copy
        of any topic), else one. More than this is no difference.
    create
        Whether missing topics are created; else they are reported.
    fix
        Whether differing settings are altered; other settings of the topic are kept.

    Raises
    ------
    TopicError
        When the cluster refuses, or a new topic has no leader in time.
    aiokafka.errors.KafkaError
        When the cluster cannot be reached, or refuses the connection.
    """
    declared = list(topics)
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        present = await _partitions_of(admin)
        copies = replication_factor or await _default_replication(admin, present)
        missing = [topic for topic in declared if topic.name not in present]
        created = await _create(admin, missing, partitions, copies) if create else set()
        differences = [
            Difference(topic.name, "topic", "present", "missing", resolved=topic.name in created)
            for topic in missing
            if not create or topic.name in created
        ]
        if create and missing:
            present = await _await_leaders(admin, {topic.name for topic in missing})
        checked = [topic for topic in declared if topic.name in present and topic.name not in created]
        for topic in checked:
            differences += _layout_differences(topic, present[topic.name], topic.partitions or partitions, copies)
        differences += await _check_configs(admin, checked, copies, fix=fix)
        return differences
    finally:
        await admin.close()


def declared_config(topic: Topic, replication_factor: int) -> dict[str, str]:
    """Return the settings that a topic should have on a cluster with so many copies of it.

    Three copies are no safer than one unless a write waits for the second, so three copies imply
    `min.insync.replicas=2` (a broker may fail, and an acknowledged message survives the next failure).

    Examples
    --------
    >>> from app.topics import LISTS
    >>> declared_config(LISTS, 3)
    {'min.insync.replicas': '2', 'cleanup.policy': 'compact'}
    """
    safe = {"min.insync.replicas": "2"} if replication_factor >= _SAFE_REPLICAS else {}
    return {**safe, **topic.config}


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask the cluster, and again after a passing error.

    aiokafka asks any broker of the cluster's list, where one that has just died stays for a while, and gives up when
    it is that one; for a controller's answer it waits on the same dead broker instead.
    """
    deadline_s = time.monotonic() + _ATTEMPTS_TIMEOUT_S
    while True:
        try:
            async with asyncio.timeout(_ATTEMPT_TIMEOUT_S):
                return await ask()
        except TimeoutError as error:
            if time.monotonic() > deadline_s:
                raise TopicError(f"the cluster did not answer within {_ATTEMPTS_TIMEOUT_S:g} s") from error
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(_POLL_S)


async def _default_replication(admin: AIOKafkaAdminClient, present: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    # A cluster lists only the brokers that are up. One that is down now still has its copies: it counts.
    brokers = {broker["node_id"] for broker in (await patiently(admin.describe_cluster))["brokers"]}
    for partitions in present.values():
        brokers.update(*(partition["replicas"] for partition in partitions))
    return _SAFE_REPLICAS if len(brokers) >= _SAFE_REPLICAS else 1


async def _partitions_of(admin: AIOKafkaAdminClient) -> dict[str, Sequence[Mapping[str, Any]]]:
    # All topics, not by name: a broker that creates topics automatically would create those that it is asked about.
    return {topic["topic"]: topic["partitions"] for topic in await patiently(admin.describe_topics)}


async def _create(admin: AIOKafkaAdminClient, topics: list[Topic], partitions: int, copies: int) -> set[str]:
    """Create topics and return which; one that another process has created meanwhile is none of them."""
    if not topics:
        return set()
    wanted = [
        NewTopic(topic.name, topic.partitions or partitions, copies, topic_configs=declared_config(topic, copies))
        for topic in topics
    ]
    answer = await patiently(partial(admin.create_topics, wanted, timeout_ms=int(_CREATE_TIMEOUT_S * 1000)))
    created = set()
    for name, code, message in answer.topic_errors:
        if code == 0:
            created.add(name)
        elif code != TopicAlreadyExistsError.errno:
            raise TopicError(f"{name}: not created: {message or for_code(code).__name__}")
    return created


async def _await_leaders(admin: AIOKafkaAdminClient, names: set[str]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Wait until every partition has a leader: a broker learns of a new topic a moment after the controller."""
    deadline = time.monotonic() + _CREATE_TIMEOUT_S
    while True:
        present = await _partitions_of(admin)
        without = [name for name in names if not present.get(name) or any(part["leader"] < 0 for part in present[name])]
        if not without:
            return present
        if time.monotonic() > deadline:
            raise TopicError(f"{', '.join(sorted(without))}: no leader within {_CREATE_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_S)


def _layout_differences(
    topic: Topic, found: Sequence[Mapping[str, Any]], partitions: int, copies: int
) -> list[Difference]:
    fewest = min(len(part["replicas"]) for part in found)
    differences = []
    if len(found) != partitions:
        differences.append(Difference(topic.name, "partitions", str(partitions), str(len(found))))
    if fewest < copies:
        differences.append(Difference(topic.name, "replication.factor", str(copies), str(fewest)))
    return differences


async def _check_configs(
    admin: AIOKafkaAdminClient, topics: list[Topic], copies: int, *, fix: bool
) -> list[Difference]:
    differences, altered = [], []
    settings = await _settings_of(admin, topics)
    for topic in topics:
        expected = declared_config(topic, copies)
        found = {setting: value for setting, value, *_ in settings[topic.name]}
        wrong = [
            Difference(topic.name, setting, value, found.get(setting) or "")
            for setting, value in expected.items()
            if not _same(value, found.get(setting))
        ]
        differences += wrong
        if wrong:
            # AlterConfigs replaces all that is set on the topic, so what is set beyond our declaration goes along.
            kept = {name: value for name, value, _, source, *_ in settings[topic.name] if source == _SOURCE_TOPIC}
            altered.append(ConfigResource(ConfigResourceType.TOPIC, topic.name, {**kept, **expected}))
    if not (fix and altered):
        return differences
    for answer in await patiently(partial(admin.alter_configs, altered)):
        for code, message, _kind, name in answer.resources:
            if code != 0:
                raise TopicError(f"{name}: not altered: {message or for_code(code).__name__}")
    return [replace(difference, resolved=True) for difference in differences]


async def _settings_of(admin: AIOKafkaAdminClient, topics: list[Topic]) -> dict[str, list[tuple[Any, ...]]]:
    """Return each topic's settings: tuples of name, value, read-only, source, and more."""
    if not topics:
        return {}
    settings = {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    for answer in await patiently(partial(admin.describe_configs, resources)):
        for code, message, _kind, name, entries in answer.resources:
            if code != 0:
                raise TopicError(f"{name}: its settings cannot be read: {message or for_code(code).__name__}")
            settings[name] = entries
    return settings


def _same(expected: str, found: str | None) -> bool:
    """Compare two values of a setting; a list (`compact,delete`) has no order."""
    return found is not None and sorted(expected.split(",")) == sorted(found.split(","))

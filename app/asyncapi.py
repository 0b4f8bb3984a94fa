"""The AsyncAPI 3.0 document: every topic and message, rendered from `app.topics` and `app.message_schemas`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import metadata
from typing import Any

from app.message_schemas import MESSAGES, SCHEMAS
from app.topics import FEEDBACK, LISTS, TRANSACTIONS, Topic, topics

__all__ = ["render_asyncapi"]

Part = dict[str, Any]

_KAFKA_BINDING = "0.5.0"

_READ_FROM_OUTSIDE = frozenset({TRANSACTIONS.name, FEEDBACK.name, LISTS.name})
"""Others write these; what else is not internal, pixguard writes."""

_INTEGER_SETTINGS = frozenset({"retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes"})
"""With `cleanup.policy`, all that the binding knows of; how a topic is stored is no business of its readers."""


def render_asyncapi(app_id: str) -> Part:
    """Return the document as plain data, ready for JSON or YAML. It names no server: one document fits all clusters.

    Parameters
    ----------
    app_id
        Of the installation: it is part of its changelogs' names.
    """
    declared = topics(app_id)
    about = metadata("pixguard")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "pixguard",
            "version": about["Version"],
            "description": f"{about['Summary']} Internal topics are listed so that a cluster's owner knows them; their "
            "formats may change with any version.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in declared},
        "operations": dict(operation for topic in declared for operation in _operations(topic)),
        "components": {
            "messages": {topic.value: _message(topic) for topic in declared},
            "schemas": SCHEMAS,
        },
    }


def _channel(topic: Topic) -> Part:
    kafka: Part = {
        "topic": topic.name,
        "topicConfiguration": _configuration(topic.config),
        "bindingVersion": _KAFKA_BINDING,
    }
    if topic.partitions is not None:  # else it is the installation's choice
        kafka["partitions"] = topic.partitions
    return {
        "address": topic.name,
        "description": f"{topic.why} Kafka key: {topic.key}.",
        "messages": {topic.value: {"$ref": f"#/components/messages/{topic.value}"}},
        "tags": [{"name": "internal" if topic.internal else "public"}],
        "bindings": {"kafka": kafka},
    }


def _configuration(config: Mapping[str, str]) -> Part:
    """Topic settings with the types that the Kafka binding gives them."""
    typed: Part = {name: int(value) for name, value in config.items() if name in _INTEGER_SETTINGS}
    typed["cleanup.policy"] = config["cleanup.policy"].split(",")
    return typed


def _operations(topic: Topic) -> list[tuple[str, Part]]:
    """What pixguard does with a topic: receive, send, or, with its own, both."""
    actions = ["send", "receive"] if topic.internal else ["receive" if topic.name in _READ_FROM_OUTSIDE else "send"]
    channel = f"#/channels/{topic.name}"
    return [
        (
            f"{action}-{topic.name}",
            {
                "action": action,
                "channel": {"$ref": channel},
                "summary": MESSAGES[topic.value].summary,
                "messages": [{"$ref": f"{channel}/messages/{topic.value}"}],
            },
        )
        for action in actions
    ]


def _message(topic: Topic) -> Part:
    message = MESSAGES[topic.value]
    rendered: Part = {
        "name": topic.value,
        "title": topic.value,
        "summary": message.summary,
        "contentType": message.content_type,
        "payload": {"$ref": f"#/components/schemas/{topic.value}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": _KAFKA_BINDING}},
    }
    if message.examples:
        rendered["examples"] = [{"name": name, "payload": payload} for name, payload in message.examples]
    return rendered

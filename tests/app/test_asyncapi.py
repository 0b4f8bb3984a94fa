"""The AsyncAPI document: well formed, complete, and true to what the decoders accept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator

from app.asyncapi import render_asyncapi
from app.domain.decision import decode_decision
from app.domain.feedback import FEEDBACK_FIELDS, Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.fields import FIELDS, Field, Kind
from app.domain.rejection import Rejection, decode_dead_letter
from app.domain.siphash import HashKey
from app.domain.transaction import decode_strict
from app.message_schemas import MESSAGES, SCHEMAS
from app.topics import topics
from models.rules.lists import ListUpdate, decode_list_update

DOCUMENT = render_asyncapi("pixguard")
JSON_TYPES = [name for name, message in MESSAGES.items() if message.content_type == "application/json"]
EXAMPLES = [(name, which) for name in MESSAGES for which in range(len(MESSAGES[name].examples))]
NO_KAFKA_TIME = -1
LIMITS = TimeLimits()


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for item in part:
            yield from _references(item)


def _resolve(reference: str) -> Any:  # noqa: ANN401 - any part of the document
    assert reference.startswith("#/")
    part: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        part = part[step]
    return part


def _validator(name: str) -> Draft7Validator:
    return Draft7Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def _example(name: str, which: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(MESSAGES[name].examples[which][1]))
    return value


def test_the_document_survives_json() -> None:
    """Plain data only: no infinity, no key that is no string, and the same when read back."""
    assert json.loads(json.dumps(DOCUMENT, allow_nan=False)) == json.loads(msgspec.json.encode(DOCUMENT))


def test_the_required_parts_are_there() -> None:
    """What AsyncAPI 3.0 demands of the root, its channels, operations and messages."""
    assert re.fullmatch(r"3\.0\.\d+", DOCUMENT["asyncapi"])
    assert DOCUMENT["info"]["title"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", DOCUMENT["info"]["version"])
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = _resolve(operation["channel"]["$ref"])
        for message in operation["messages"]:
            # An operation's messages must be those of its channel.
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
            assert message["$ref"].rpartition("/")[2] in channel["messages"]
    for message in DOCUMENT["components"]["messages"].values():
        assert {"name", "contentType", "payload"} <= message.keys()


def test_every_reference_resolves() -> None:
    """And every schema is referred to."""
    references = set(_references(DOCUMENT))
    for reference in references:
        assert isinstance(_resolve(reference), dict)
    assert {f"#/components/schemas/{name}" for name in SCHEMAS} <= references


@pytest.mark.parametrize("app_id", ["pixguard", "another-bank"])
def test_every_topic_is_a_channel(app_id: str) -> None:
    """With its message, its settings as Kafka's binding types them, and at least one operation."""
    document = render_asyncapi(app_id)
    assert list(document["channels"]) == [topic.name for topic in topics(app_id)]
    used = {operation["channel"]["$ref"].rpartition("/")[2] for operation in document["operations"].values()}
    assert used == set(document["channels"])
    for topic in topics(app_id):
        channel = document["channels"][topic.name]
        assert list(channel["messages"]) == [topic.value]
        settings = channel["bindings"]["kafka"]["topicConfiguration"]
        assert settings.keys() == topic.config.keys() - {"segment.bytes"}  # of no concern to who reads or writes it
        assert settings["cleanup.policy"] in (["delete"], ["compact"])
        assert all(isinstance(value, int) for name, value in settings.items() if name != "cleanup.policy")


def test_a_bank_writes_three_topics_and_reads_four() -> None:
    """Directions are pixguard's: it receives what others send."""
    public = [topic.name for topic in topics("pixguard") if not topic.internal]
    actions = {name: DOCUMENT["operations"].keys() & {f"send-{name}", f"receive-{name}"} for name in public}
    assert {name for name, found in actions.items() if found == {f"receive-{name}"}} == {
        "pix-transactions",
        "pix-feedback",
        "pix-lists",
    }
    assert {name for name, found in actions.items() if found == {f"send-{name}"}} == {
        "pix-decisions",
        "pix-features",
        "pix-labelled",
        "pix-rejected",
    }


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_every_schema_is_json_schema(name: str) -> None:
    """Draft 07, on which AsyncAPI's schemas build."""
    Draft7Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", JSON_TYPES)
def test_every_json_message_has_an_example(name: str) -> None:
    """A reader learns most from one."""
    assert MESSAGES[name].examples


@pytest.mark.parametrize(("name", "which"), EXAMPLES)
def test_examples_fit_their_schema(name: str, which: int) -> None:
    """Each one."""
    _validator(name).validate(_example(name, which))


@pytest.mark.parametrize("which", range(len(MESSAGES["Transaction"].examples)))
def test_the_decoder_accepts_the_example_transactions(which: int) -> None:
    """With the Kafka key that the channel's description asks for."""
    example = _example("Transaction", which)
    key = example.get("pix_key", example["receiver_account"]).encode()
    values = decode_strict(json.dumps(example).encode(), key, example["timestamp"], LIMITS)
    assert not isinstance(values, Rejection), values
    assert example.items() <= values.items()


def test_the_other_examples_are_real_messages() -> None:
    """Each is read by the code that reads such messages."""
    feedback = _example("Feedback")
    key = feedback["end_to_end_id"].encode()
    decoded = decode_feedback(json.dumps(feedback).encode(), key, NO_KAFKA_TIME, LIMITS)
    assert isinstance(decoded, Feedback), decoded
    entry = json.dumps(_example("ListEntry")).encode()
    update = decode_list_update(b"deny/account/12345678/0001-99887766", entry, HashKey.from_bytes(bytes(16)))
    assert isinstance(update, ListUpdate), update
    decision = _example("Decision")
    assert msgspec.to_builtins(decode_decision(json.dumps(decision).encode())) == MESSAGES["Decision"].examples[0][1]
    letter = decode_dead_letter(json.dumps(_example("DeadLetter")).encode())
    assert letter.raw_base64 == b'{"amount_centavos": "12.5"}'


def test_every_field_is_in_its_schema() -> None:
    """Required where it is required, and explained."""
    for name, fields in (("Transaction", FIELDS), ("Feedback", FEEDBACK_FIELDS)):
        schema = SCHEMAS[name]
        assert list(schema["properties"]) == [field.name for field in fields]
        assert schema["required"] == [field.name for field in fields if field.required]
        assert all(each["description"] for each in schema["properties"].values())


_FAULTS: dict[Kind, list[object]] = {
    Kind.END_TO_END_ID: [7, "", "E1234", "e12345678202611241307a1B2c3D4e5F", "E12345678202611241307a1B2c3D4e5F "],
    Kind.TIMESTAMP: [True, "1795525625000", 1.5, -(10**13), 10**14],
    Kind.CENTAVOS: [True, "1", 0.5, -1, 10**14],
    Kind.ISPB: [12345678, "1234567", "123456789", "1234567a"],
    Kind.IDENTIFIER: [7, "", "x" * 65],
    Kind.TAX_ID: [52998224725, "", "529.982.247-25"],
    Kind.PIX_KEY: [7, "", "x" * 78],
    Kind.ENUM: [7, "", "nothing"],
    Kind.FLAGS: [7, "ON_CALL", [7]],
    Kind.BOOLEAN: [0, "true"],
    Kind.NUMBER: [True, "1", 181.0, -181.0],
    Kind.COUNT: [True, "1", 0.5, -1, 10**13],
    Kind.TEXT: [7, "x" * 141],
}


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_schema_and_decoder_refuse_the_same_values(field: Field) -> None:
    """Whatever one kind of field must not hold, neither takes; null only where a field may be missing."""
    validator = _validator("Transaction")
    for fault in [*_FAULTS[field.kind], None]:
        message = _example("Transaction") | {field.name: fault}
        if field.name == "pix_key":
            message.pop("pix_key_type")
        key = str(message["pix_key"] or message["receiver_account"]).encode()
        accepted = not isinstance(decode_strict(json.dumps(message).encode(), key, NO_KAFKA_TIME, LIMITS), Rejection)
        assert validator.is_valid(message) is accepted, fault

"""JSON Schemas and examples of every message, derived from what decodes and encodes them.

`SCHEMAS` names each component; `MESSAGES` says how each message type is written. Where JSON Schema cannot say what the
decoder demands (check digits, integers without a fraction, contradictions between fields), the description does.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.decision import Decision, Reason, Source, Versions
from app.domain.feedback import FEEDBACK_FIELDS
from app.domain.field_checks import bounds, expectation
from app.domain.fields import FIELDS, Field, Kind
from app.domain.frames import CREDIT_DTYPE, MARK_DTYPE, debit_dtype
from app.domain.labelled import Labelled
from app.domain.rejection import DeadLetter, Rejection, encode_dead_letter
from app.domain.rejection import Reason as Fault
from app.domain.rejection import Source as Place
from app.domain.vectors import VECTOR_ROW_DTYPE
from models.rules.lists import MAX_REASON_CHARACTERS
from models.stages.marking import Marker

__all__ = ["MESSAGES", "SCHEMAS", "MessageType", "fields_schema"]

Schema = dict[str, Any]

_BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class MessageType:
    """How a message type is written.

    Parameters
    ----------
    summary
        One line.
    content_type
        MIME type of the value.
    examples
        Values by name, each as JSON reads them; none for binary messages.
    """

    summary: str
    content_type: str = "application/json"
    examples: tuple[tuple[str, Schema], ...] = ()


_PATTERNS: dict[Kind, str] = {
    Kind.END_TO_END_ID: "^E[0-9]{20}[A-Za-z0-9]{11}$",
    Kind.ISPB: "^[0-9]{8}$",
    Kind.TAX_ID: "^([0-9]{11}|[0-9A-Z]{12}[0-9]{2})$",
}
_TYPES: dict[Kind, str] = {
    Kind.TIMESTAMP: "integer",
    Kind.CENTAVOS: "integer",
    Kind.COUNT: "integer",
    Kind.NUMBER: "number",
    Kind.BOOLEAN: "boolean",
    Kind.FLAGS: "array",
}


def _field_schema(field: Field) -> Schema:
    kind = field.kind
    type_name = _TYPES.get(kind, "string")
    # An optional field that is null counts as missing.
    schema: Schema = {"type": type_name if field.required else [type_name, "null"], "description": field.why}
    low, high = (_whole(bound) for bound in bounds(field))
    if type_name in {"integer", "number"}:
        schema |= {"minimum": low, "maximum": high}
    elif kind in {Kind.IDENTIFIER, Kind.TEXT, Kind.PIX_KEY}:
        schema |= {"minLength": low, "maxLength": high}
    elif kind is Kind.ENUM:
        schema["enum"] = [*field.values] if field.required else [*field.values, None]
    elif kind is Kind.FLAGS:
        # Unknown flags pass, so the known ones are examples and no enumeration.
        schema["items"] = {"type": "string", "examples": list(field.values)}
    if kind in _PATTERNS:
        schema["pattern"] = _PATTERNS[kind]
    if kind in {*_PATTERNS, Kind.PIX_KEY}:
        schema["description"] += f" ({expectation(field)})"
    return schema


def _whole(bound: float) -> float:
    return int(bound) if math.isfinite(bound) and bound == int(bound) else bound


def fields_schema(fields: Iterable[Field], description: str) -> Schema:
    """The JSON Schema of a message that is checked against declared fields; unknown fields pass.

    Examples
    --------
    >>> fields_schema([Field("n", Kind.COUNT, "how many", required=True, low=0, high=9)], "A count.")["properties"]
    {'n': {'type': 'integer', 'description': 'how many', 'minimum': 0, 'maximum': 9}}
    """
    declared = tuple(fields)
    return {
        "type": "object",
        "description": description,
        "required": [field.name for field in declared if field.required],
        "properties": {field.name: _field_schema(field) for field in declared},
        "additionalProperties": True,
    }


def _struct_schemas(root: type[msgspec.Struct]) -> dict[str, Schema]:
    """Schemas of a struct and of what it holds; the latter are named after it, since two modules may use one name."""
    prefix = root.__name__
    _, components = msgspec.json.schema_components([root], ref_template=f"#/components/schemas/{prefix}{{name}}")
    schemas = {name if name == prefix else prefix + name: schema for name, schema in components.items()}
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return schemas


def _binary(description: str) -> Schema:
    return {"type": "string", "format": "binary", "description": inspect.cleandoc(description)}


def _columns(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_LIST_ENTRY: Schema = {
    "type": ["object", "null"],
    "description": "An entry of a list; the Kafka key names the list and who is on it. A tombstone removes the entry.",
    "required": ["reason"],
    "additionalProperties": False,
    "properties": {
        "reason": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_REASON_CHARACTERS,
            "description": "Why, for people; no personal data.",
        },
        "until": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 2**63 - 2,
            "description": "Epoch milliseconds from which on it no longer counts; null or absent: it stays.",
        },
    },
}

SCHEMAS: dict[str, Schema] = {
    "Transaction": fields_schema(
        FIELDS,
        "A Pix payment to decide on. Integers are written without a fraction, no field twice; whatever is wrong goes "
        "to `pix-rejected` with path, expected and got.",
    ),
    **_struct_schemas(Decision),
    **_struct_schemas(DeadLetter),
    "Feedback": fields_schema(
        FEEDBACK_FIELDS,
        "What became known about a payment after it was decided on. A message is identified by `report_id` and "
        "`last_modified`; a later one replaces an earlier one.",
    ),
    "ListEntry": _LIST_ENTRY,
    "FeatureVector": _binary(f"""
        All little-endian: `PXG2`, the catalog's fingerprint (16 bytes, NUL-padded), a row of
        {_columns(VECTOR_ROW_DTYPE.names or ())}, the number of features (uint16), then one float32 per feature in the
        catalog's order; NaN is missing. Made and read by `app.domain.vectors`."""),
    "Labelled": _binary(f"""
        A MessagePack array of {_columns(Labelled.__struct_fields__)}, as `app.domain.labelled` writes it. MATURED
        messages are learned from, each payment once and at one age; REVISION messages tell of every change of a
        label."""),
    "OnlineModel": _binary("""
        Under the key `snapshot`: the online model as arrays with its versions, as `models.online.snapshot` writes it.
        Under `checkpoint`: the learner's state, which only a learner of the same version reads."""),
    "EnrichedFrame": _binary(f"""
        Rows for stage 2, as `app.domain.frames` packs them: a header that starts with `PXF3`, then debits, credit
        notices and marks. Columns of a debit: {_columns(debit_dtype(1).names or ())}; of a credit notice:
        {_columns(CREDIT_DTYPE.names or ())}; of a mark: {_columns(MARK_DTYPE.names or ())}. Identifiers are keyed
        hashes."""),
    "Marker": _binary(f"""
        A MessagePack array of {_columns(Marker.__struct_fields__)}, as `models.stages.marking` writes it."""),
    "ChangelogRow": _binary("""
        One packed profile, or a control row (its key starts with a NUL byte) with the source offsets that the
        checkpoint reflects. Its layout belongs to the version of the state; only a worker reads it."""),
}
"""JSON Schemas (draft 07) by component name; one for each `Topic.value`, and those that they refer to."""

_END_TO_END_ID = "E12345678202611241307a1B2c3D4e5F"
_AT_MS = 1_795_525_625_000

_TRANSACTION: Schema = {
    "end_to_end_id": _END_TO_END_ID,
    "timestamp": _AT_MS,
    "amount_centavos": 125_090,
    "payer_account": "0001-99887766",
    "payer_ispb": "12345678",
    "receiver_account": "0042-1234567",
    "receiver_ispb": "87654321",
    "initiation": "DICT",
    "pix_key": "+5511987654321",
    "pix_key_type": "PHONE",
    "payer_tax_id": "52998224725",
    "payer_person": "NATURAL",
    "receiver_person": "NATURAL",
    "purpose": "IPAY",
    "channel": "MOBILE",
    "device_id": "d-7f3a",
    "device_registered": True,
    "session_flags": ["ON_CALL"],
    "payer_limit_centavos": 500_000,
    "dict_key_created_at": 1_794_873_600_000,
    "dict_key_settlements_d90": 5,
}
_LEAST_TRANSACTION: Schema = {field.name: _TRANSACTION[field.name] for field in FIELDS if field.required} | {
    "initiation": "MANU"
}
_DECISION = Decision(
    end_to_end_id=_END_TO_END_ID,
    decision="HOLD",
    score=0.64,
    reasons=(Reason("NEW_KEY_LARGE_AMOUNT", 0.55, "new-key-large"), Reason("ON_CALL", 0.2, "on-call")),
    rules=("on-call", "new-key-large"),
    versions=Versions(rules="2026.11+5d0c1f2e", lists=12, features="f3a9c2d4b1e07788"),
    source=Source(partition=3, offset=42_117),
    event_time=_AT_MS,
    decided_at=_AT_MS + 4,
    hold_minutes=30,
)
_DEAD_LETTER = encode_dead_letter(
    Rejection("$.amount_centavos", "integer from 1 to 10000000000000", "string of 4 characters", Fault.WRONG_TYPE),
    Place("pix-transactions", 3, 42_118, _AT_MS),
    b"0042-1234567",
    b'{"amount_centavos": "12.5"}',
)
_FEEDBACK: Schema = {
    "end_to_end_id": _END_TO_END_ID,
    "timestamp": _AT_MS + 172_800_000,
    "event": "FRAUD_MARKER",
    "status": "REGISTERED",
    "report_id": "91d65e98-97c0-4b0f-b577-73625da1f9fc",
    "last_modified": _AT_MS + 172_740_000,
    "fraud_type": "MULE_ACCOUNT",
    "pix_key": "+5511987654321",
}

MESSAGES: dict[str, MessageType] = {
    "Transaction": MessageType(
        "A Pix payment to decide on.", examples=(("full", _TRANSACTION), ("least", _LEAST_TRANSACTION))
    ),
    "Decision": MessageType("APPROVE, HOLD or DENY, and why.", examples=(("held", msgspec.to_builtins(_DECISION)),)),
    "DeadLetter": MessageType(
        "A message that could not be decided on.", examples=(("wrong type", msgspec.json.decode(_DEAD_LETTER)),)
    ),
    "Feedback": MessageType("What became known later, through the MED.", examples=(("marker", _FEEDBACK),)),
    "ListEntry": MessageType(
        "An account, key or device on a list.",
        examples=(("for a week", {"reason": "court order 17", "until": _AT_MS + 604_800_000}),),
    ),
    "FeatureVector": MessageType("The vector that a decision was taken on.", _BINARY),
    "Labelled": MessageType("A vector and what became known of its payment.", "application/vnd.msgpack"),
    "OnlineModel": MessageType("The online model, or its learner's checkpoint.", _BINARY),
    "EnrichedFrame": MessageType("Rows from stage 1 to stage 2.", _BINARY),
    "Marker": MessageType("A confirmed-fraud mark on a receiver.", "application/vnd.msgpack"),
    "ChangelogRow": MessageType("One row of a checkpoint.", _BINARY),
}
"""By `Topic.value`."""

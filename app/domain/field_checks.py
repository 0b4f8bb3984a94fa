"""A parsed object against declared fields: one mechanism for every message that the outside sends.

A message is answered with its first fault in the order of declaration, then with what contradicts between fields.
Initiation and key are not held against each other: a QR or DICT payment whose feed lacks the key is decided on by its
account, and a typed-in (MANU) payment that does bring a key is decided on by that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from app.domain.fields import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS, Field, Kind
from app.domain.json_object import HugeInteger, describe
from app.domain.pix_keys import deduce_key_type, is_end_to_end_id, is_tax_id
from app.domain.rejection import Reason, Rejection

__all__ = [
    "TimeLimits",
    "Values",
    "bounds",
    "check_fields",
    "check_kafka_key",
    "check_time",
    "expectation",
    "resolve_key_type",
]

_DAY_MS = 86_400_000

Values = dict[str, object]
"""Checked values by field name: str, int, float, bool, or a list of str. A missing field is absent."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How far a message's own time may lie from the time at which Kafka received it.

    Parameters
    ----------
    max_age_ms
        Before it: a bank may send its history.
    max_lead_ms
        After it: clocks differ.
    """

    max_age_ms: int = 400 * _DAY_MS
    max_lead_ms: int = _DAY_MS


def bounds(field: Field) -> tuple[float, float]:
    """Return the inclusive bounds of a field's number, or of its length in characters; infinite where it has none."""
    is_timestamp = field.kind is Kind.TIMESTAMP
    low = field.low if field.low is not None else MIN_TIMESTAMP_MS if is_timestamp else -math.inf
    high = field.high if field.high is not None else MAX_TIMESTAMP_MS if is_timestamp else math.inf
    return low, high


def expectation(field: Field) -> str:
    """Return what is right for a field, in words.

    Examples
    --------
    >>> expectation(Field("amount_centavos", Kind.CENTAVOS, "amount", low=1, high=100))
    'integer from 1 to 100'
    """
    low, high = bounds(field)
    match field.kind:
        case Kind.TIMESTAMP | Kind.CENTAVOS | Kind.COUNT:
            return f"integer from {low:.0f} to {high:.0f}"
        case Kind.NUMBER:
            return f"number from {low:g} to {high:g}"
        case Kind.IDENTIFIER | Kind.TEXT:
            return f"string of {low:.0f} to {high:.0f} characters"
        case Kind.ENUM:
            return f"one of {', '.join(field.values)}"
        case _:
            return _FIXED_EXPECTATIONS[field.kind]


_FIXED_EXPECTATIONS: dict[Kind, str] = {
    Kind.END_TO_END_ID: "EndToEndId: E, 8 digits, yyyyMMddHHmm, 11 letters or digits",
    Kind.ISPB: "string of 8 digits",
    Kind.TAX_ID: "CPF or CNPJ with right check digits",
    Kind.PIX_KEY: "Pix key: CPF or CNPJ with right check digits, +phone, e-mail in lower case, or random key",
    Kind.FLAGS: "array of strings",
    Kind.BOOLEAN: "boolean",
}


def check_fields(found: Mapping[str, object], fields: Iterable[Field]) -> Values | Rejection:
    """Return the values of the declared fields, or the first fault in the order of declaration.

    Parameters
    ----------
    found
        Fields by name, as `parse_object` returns them; undeclared ones are left out of the result.
    fields
        The declarations.
    """
    values: Values = {}
    for field in fields:
        value = found.get(field.name)
        if value is None:
            if field.required:
                got = "null" if field.name in found else "absent"
                return Rejection(f"$.{field.name}", expectation(field), got, Reason.MISSING)
            continue
        reason = _CHECKS[field.kind](field, value)
        if reason is not None:
            return _rejection(field, value, reason)
        values[field.name] = value
    return values


_NUMERIC = (Kind.TIMESTAMP, Kind.CENTAVOS, Kind.COUNT, Kind.NUMBER)


def _rejection(field: Field, value: object, reason: Reason) -> Rejection:
    if field.kind is Kind.FLAGS and type(value) is list:  # a JsonObject is a list too
        place, item = next((place, item) for place, item in enumerate(value) if not isinstance(item, str))
        return Rejection(f"$.{field.name}[{place}]", "string", describe(item), reason)
    got = describe(value, show_number=field.kind in _NUMERIC)
    return Rejection(f"$.{field.name}", expectation(field), got, reason)


def _fault_of_integer(field: Field, value: object) -> Reason | None:
    if type(value) is not int:  # a bool is an int to isinstance
        return Reason.OUT_OF_RANGE if isinstance(value, HugeInteger) else Reason.WRONG_TYPE
    low, high = field.low, field.high
    if low is None or high is None:  # asked first: most fields of a message are counters with both
        low, high = bounds(field)
    return None if low <= value <= high else Reason.OUT_OF_RANGE


def _fault_of_number(field: Field, value: object) -> Reason | None:
    if isinstance(value, HugeInteger):
        return Reason.OUT_OF_RANGE
    if type(value) not in (int, float):
        return Reason.WRONG_TYPE
    low, high = bounds(field)
    is_within = isinstance(value, int | float) and low <= value <= high and math.isfinite(value)
    return None if is_within else Reason.OUT_OF_RANGE


def _fault_of_length(field: Field, value: object) -> Reason | None:
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    low, high = bounds(field)
    return None if low <= len(value) <= high else Reason.OUT_OF_RANGE


def _fault_of_form(is_right: Callable[[str], bool]) -> Callable[[Field, object], Reason | None]:
    def fault(_field: Field, value: object) -> Reason | None:
        if not isinstance(value, str):
            return Reason.WRONG_TYPE
        return None if is_right(value) else Reason.WRONG_FORM

    return fault


def _is_ispb(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isdigit()


def _fault_of_enum(field: Field, value: object) -> Reason | None:
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    return None if value in field.values else Reason.OUT_OF_RANGE


def _fault_of_flags(_field: Field, value: object) -> Reason | None:
    is_strings = type(value) is list and all(isinstance(item, str) for item in value)
    return None if is_strings else Reason.WRONG_TYPE


def _fault_of_boolean(_field: Field, value: object) -> Reason | None:
    return None if isinstance(value, bool) else Reason.WRONG_TYPE


_CHECKS: dict[Kind, Callable[[Field, object], Reason | None]] = {
    Kind.END_TO_END_ID: _fault_of_form(is_end_to_end_id),
    Kind.TIMESTAMP: _fault_of_integer,
    Kind.CENTAVOS: _fault_of_integer,
    Kind.ISPB: _fault_of_form(_is_ispb),
    Kind.IDENTIFIER: _fault_of_length,
    Kind.TAX_ID: _fault_of_form(is_tax_id),
    Kind.PIX_KEY: _fault_of_form(lambda text: deduce_key_type(text) is not None),
    Kind.ENUM: _fault_of_enum,
    Kind.FLAGS: _fault_of_flags,
    Kind.BOOLEAN: _fault_of_boolean,
    Kind.NUMBER: _fault_of_number,
    Kind.COUNT: _fault_of_integer,
    Kind.TEXT: _fault_of_length,
}


def resolve_key_type(values: Values) -> Rejection | None:
    """Set `pix_key_type` where the key's form tells it; return what contradicts, if anything does.

    Parameters
    ----------
    values
        Checked values; `pix_key_type` is added where a `pix_key` stands without it.
    """
    key, declared = values.get("pix_key"), values.get("pix_key_type")
    if key is None:
        if declared is None:
            return None
        return Rejection("$.pix_key_type", "a pix_key beside it", "no pix_key", Reason.CONTRADICTION)
    deduced = deduce_key_type(str(key))
    if declared is not None and declared != deduced:
        return Rejection("$.pix_key", f"Pix key of type {declared}", f"one of type {deduced}", Reason.CONTRADICTION)
    values["pix_key_type"] = deduced
    return None


def check_kafka_key(key: bytes | None, values: Values, *names: str) -> Rejection | None:
    """Return a rejection unless the Kafka key is the first of these fields that the message has.

    The key decides which worker counts the payment: under a wrong one its counts would be split.
    """
    name = next(name for name in names if name in values)
    if key == str(values[name]).encode():
        return None
    got = "no key" if key is None else f"another key, of {len(key)} bytes"
    return Rejection("kafka.key", f"the message's {name}", got, Reason.WRONG_KAFKA_KEY)


def check_time(values: Values, kafka_timestamp_ms: int, limits: TimeLimits) -> Rejection | None:
    """Return a rejection where the message's `timestamp` is implausibly far from Kafka's; below 0 Kafka has none."""
    timestamp = values["timestamp"]
    if kafka_timestamp_ms < 0 or not isinstance(timestamp, int):
        return None
    low, high = kafka_timestamp_ms - limits.max_age_ms, kafka_timestamp_ms + limits.max_lead_ms
    if low <= timestamp <= high:
        return None
    expected = f"integer from {low} to {high}, by the Kafka timestamp"
    return Rejection("$.timestamp", expected, f"integer {timestamp}", Reason.IMPLAUSIBLE_TIME)

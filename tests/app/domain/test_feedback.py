"""The decoder of `pix-feedback`."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.feedback import EVENT_STATUSES, FEEDBACK_FIELDS, Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.fields import FIELDS_BY_NAME
from app.domain.rejection import Reason, Rejection

KAFKA_MS = 1_790_000_000_000
PAYMENT = "E12345678202609211333abcDEF12345"
REPORT = {
    "end_to_end_id": PAYMENT,
    "timestamp": KAFKA_MS - 1000,
    "event": "INFRACTION_REPORT",
    "status": "CLOSED",
    "report_id": "91d65e98-97c0-4b0f-b577-73625da1f9fc",
    "last_modified": KAFKA_MS - 2000,
    "analysis_result": "AGREED",
    "situation": "SCAM",
}


def decode(changes: dict[str, object] | None = None, key: bytes | None = PAYMENT.encode()) -> Feedback | Rejection:
    """Decode the report with some fields changed; ... leaves one out."""
    fields = {name: value for name, value in (REPORT | (changes or {})).items() if value is not ...}
    return decode_feedback(json.dumps(fields).encode(), key, KAFKA_MS, TimeLimits())


def test_a_closed_report() -> None:
    """Carries DICT's terms, and its identity is the report and its last modification."""
    feedback = decode({"pix_key": "52998224725", "receiver_account": "11", "receiver_ispb": "00000000"})
    assert feedback == Feedback(
        PAYMENT,
        KAFKA_MS - 1000,
        "INFRACTION_REPORT",
        "CLOSED",
        "91d65e98-97c0-4b0f-b577-73625da1f9fc",
        KAFKA_MS - 2000,
        "AGREED",
        "SCAM",
        pix_key="52998224725",
        receiver_account="11",
        receiver_ispb="00000000",
    )
    assert feedback.identity == ("91d65e98-97c0-4b0f-b577-73625da1f9fc", KAFKA_MS - 2000)
    assert "52998224725" not in repr(feedback)


@pytest.mark.parametrize("event", EVENT_STATUSES)
def test_each_event_admits_its_own_states(event: str) -> None:
    """And no other event's."""
    every = {status for statuses in EVENT_STATUSES.values() for status in statuses}
    admitted = {status for status in every if isinstance(decode({"event": event, "status": status}), Feedback)}
    assert admitted == set(EVENT_STATUSES[event])


BAD = [
    ({"event": "CHARGEBACK"}, "$.event", f"one of {', '.join(EVENT_STATUSES)}", "string of 10 characters",
     Reason.OUT_OF_RANGE),
    ({"status": "REGISTERED"}, "$.status", "for INFRACTION_REPORT one of OPEN, ACKNOWLEDGED, CLOSED, CANCELLED",
     "REGISTERED", Reason.CONTRADICTION),
    ({"analysis_result": ...}, "$.analysis_result", "one of AGREED, DISAGREED, as the analysis is closed", "absent",
     Reason.MISSING),
    ({"event": "ANALYST", "analysis_result": None}, "$.analysis_result",
     "one of AGREED, DISAGREED, as the analysis is closed", "absent", Reason.MISSING),
    ({"receiver_account": "0001-998877"}, "$.receiver_ispb", "string of 8 digits, as there is a receiver_account",
     "absent", Reason.MISSING),
    ({"report_id": ...}, "$.report_id", "string of 1 to 64 characters", "absent", Reason.MISSING),
    ({"situation": "FRAUD"}, "$.situation",
     "one of SCAM, ACCOUNT_TAKEOVER, COERCION, FRAUDULENT_ACCESS, OTHER, UNKNOWN", "string of 5 characters",
     Reason.OUT_OF_RANGE),
    ({"pix_key": "52998224724"}, "$.pix_key",
     "Pix key: CPF or CNPJ with right check digits, +phone, e-mail in lower case, or random key",
     "string of 11 characters, digits only", Reason.WRONG_FORM),
    ({"amount_centavos": 1.5}, "$.amount_centavos", "integer from 0 to 10000000000000", "number 1.5",
     Reason.WRONG_TYPE),
    ({"timestamp": KAFKA_MS + 86_400_001}, "$.timestamp",
     f"integer from {KAFKA_MS - 400 * 86_400_000} to {KAFKA_MS + 86_400_000}, by the Kafka timestamp",
     f"integer {KAFKA_MS + 86_400_001}", Reason.IMPLAUSIBLE_TIME),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "path", "expected", "got", "reason"), BAD)
def test_a_bad_message(changes: dict[str, object], path: str, expected: str, got: str, reason: Reason) -> None:
    """Is rejected as a transaction would be."""
    assert decode(changes) == Rejection(path, expected, got, reason)


def test_a_wrong_kafka_key() -> None:
    """The key is the payment."""
    expected = Rejection("kafka.key", "the message's end_to_end_id", "another key, of 1 bytes", Reason.WRONG_KAFKA_KEY)
    assert decode(key=b"x") == expected


@given(st.none() | st.binary(max_size=300))
def test_never_raises(value: bytes | None) -> None:
    """Any bytes are answered."""
    assert isinstance(decode_feedback(value, None, KAFKA_MS, TimeLimits()), Rejection)


def test_shared_fields_mean_the_same_as_in_a_transaction() -> None:
    """A name is of one kind in all messages."""
    shared = [field for field in FEEDBACK_FIELDS if field.name in FIELDS_BY_NAME]
    assert len(shared) >= 6
    assert all(field.kind is FIELDS_BY_NAME[field.name].kind for field in shared)

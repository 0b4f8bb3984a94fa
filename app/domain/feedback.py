"""Messages of `pix-feedback`: what became known about a payment after it was decided on.

Pix has no chargeback. Truth arrives through the MED: the client contests, the receiver's bank analyses the infraction
report, DICT registers a fraud marker, funds are recovered and refunded; beside it stand the precautionary block and the
bank's own analysts. Each report may be revised, so a message is identified by its report and that report's last
modification.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.domain.field_checks import (
    TimeLimits,
    Values,
    check_fields,
    check_kafka_key,
    check_time,
    resolve_key_type,
)
from app.domain.fields import MAX_AMOUNT_CENTAVOS, PIX_KEY_TYPES, Field, Kind
from app.domain.json_object import parse_object
from app.domain.rejection import Reason, Rejection

__all__ = ["EVENT_STATUSES", "FEEDBACK_FIELDS", "Feedback", "decode_feedback"]

EVENT_STATUSES: dict[str, tuple[str, ...]] = {
    "CONTESTED": ("OPEN", "CANCELLED"),
    "INFRACTION_REPORT": ("OPEN", "ACKNOWLEDGED", "CLOSED", "CANCELLED"),
    "FRAUD_MARKER": ("REGISTERED", "CANCELLED"),
    "FUNDS_RECOVERY": (
        "CREATED",
        "TRACKED",
        "AWAITING_ANALYSIS",
        "ANALYSED",
        "REFUNDING",
        "COMPLETED",
        "CANCELLED",
    ),
    "REFUND": ("OPEN", "CLOSED", "CANCELLED"),
    "RETURN": ("SETTLED",),
    "PRECAUTIONARY_BLOCK": ("BLOCKED", "RELEASED", "RETURNED"),
    "ANALYST": ("CLOSED", "CANCELLED"),
}
"""Events and the states that each goes through. Names are DICT's; RETURN, PRECAUTIONARY_BLOCK and ANALYST are ours."""

ANALYSIS_RESULTS = ("AGREED", "DISAGREED")
SITUATIONS = ("SCAM", "ACCOUNT_TAKEOVER", "COERCION", "FRAUDULENT_ACCESS", "OTHER", "UNKNOWN")
FRAUD_TYPES = ("APPLICATION_FRAUD", "MULE_ACCOUNT", "SCAMMER_ACCOUNT", "OTHER", "UNKNOWN")

_STATUSES = tuple(dict.fromkeys(status for statuses in EVENT_STATUSES.values() for status in statuses))

FEEDBACK_FIELDS: tuple[Field, ...] = (
    Field("end_to_end_id", Kind.END_TO_END_ID, "EndToEndId of the payment; also the Kafka key", required=True),
    Field("timestamp", Kind.TIMESTAMP, "when this became known, epoch milliseconds", required=True),
    Field("event", Kind.ENUM, "what happened", required=True, values=tuple(EVENT_STATUSES)),
    Field("status", Kind.ENUM, "the state that the event is in", required=True, values=_STATUSES),
    Field("report_id", Kind.IDENTIFIER, "the report, marker, refund or case", required=True, low=1, high=64),
    Field("last_modified", Kind.TIMESTAMP, "of the report: a later one replaces an earlier", required=True),
    Field("analysis_result", Kind.ENUM, "of a closed report: AGREED is fraud", values=ANALYSIS_RESULTS),
    Field("situation", Kind.ENUM, "SituationType of the infraction report", values=SITUATIONS),
    Field("fraud_type", Kind.ENUM, "FraudType of the marker", values=FRAUD_TYPES),
    Field("pix_key", Kind.PIX_KEY, "the receiver's Pix key, where one was used", low=1, high=77),
    Field("pix_key_type", Kind.ENUM, "type of the key; deduced from its form where absent", values=PIX_KEY_TYPES),
    Field("receiver_account", Kind.IDENTIFIER, "the receiver's account", low=1, high=64),
    Field("receiver_ispb", Kind.ISPB, "ISPB of the receiver's PSP"),
    Field("payer_account", Kind.IDENTIFIER, "the payer's account", low=1, high=64),
    Field("payer_ispb", Kind.ISPB, "ISPB of the payer's PSP"),
    Field("amount_centavos", Kind.CENTAVOS, "amount blocked, recovered or returned", low=0, high=MAX_AMOUNT_CENTAVOS),
)

_NAMES = frozenset(declared.name for declared in FEEDBACK_FIELDS)
_ANALYSED_EVENTS = ("INFRACTION_REPORT", "ANALYST")


@dataclass(frozen=True, slots=True)
class Feedback:
    """One checked message of `pix-feedback`.

    The key and the accounts stay in clear, since the markers that follow from them are keyed like the transactions;
    they are left out of the representation.

    Parameters
    ----------
    end_to_end_id
        The payment.
    timestamp
        When this became known, epoch milliseconds: learning may use it from then on, and not before.
    event, status
        What happened, and the state that it is in (`EVENT_STATUSES`).
    report_id, last_modified
        Identity: a message with the same pair says the same.
    analysis_result, situation, fraud_type
        DICT's terms; None where the message lacks them.
    pix_key, receiver_account, receiver_ispb
        The receiver; None where the message lacks them.
    payer_account, payer_ispb
        The payer; None where the message lacks them.
    amount_centavos
        Amount blocked, recovered or returned.
    """

    end_to_end_id: str
    timestamp: int
    event: str
    status: str
    report_id: str
    last_modified: int
    analysis_result: str | None = None
    situation: str | None = None
    fraud_type: str | None = None
    pix_key: str | None = field(default=None, repr=False)
    receiver_account: str | None = field(default=None, repr=False)
    receiver_ispb: str | None = None
    payer_account: str | None = field(default=None, repr=False)
    payer_ispb: str | None = None
    amount_centavos: int | None = None

    @property
    def identity(self) -> tuple[str, int]:
        """What makes two messages one: the report and its last modification."""
        return self.report_id, self.last_modified


def decode_feedback(
    value: bytes | None, key: bytes | None, kafka_timestamp_ms: int, limits: TimeLimits
) -> Feedback | Rejection:
    """Return one checked message of `pix-feedback`, or its first fault.

    Parameters
    ----------
    value, key
        The message as Kafka delivered it; its key is the `end_to_end_id`.
    kafka_timestamp_ms
        Its Kafka timestamp; below 0 it has none.
    limits
        How far its own time may lie from Kafka's.
    """
    found = parse_object(value, _NAMES)
    if isinstance(found, Rejection):
        return found
    values = check_fields(found, FEEDBACK_FIELDS)
    if isinstance(values, Rejection):
        return values
    fault = (
        _contradiction(values)
        or resolve_key_type(values)
        or check_kafka_key(key, values, "end_to_end_id")
        or check_time(values, kafka_timestamp_ms, limits)
    )
    if fault is not None:
        return fault
    values.pop("pix_key_type", None)
    checked: dict[str, Any] = values
    return Feedback(**checked)


def _contradiction(values: Values) -> Rejection | None:
    """Find a state that its event does not have, a closed analysis without result, an account without its bank."""
    event, status = str(values["event"]), str(values["status"])
    statuses = EVENT_STATUSES[event]
    if status not in statuses:
        expected = f"for {event} one of {', '.join(statuses)}"
        return Rejection("$.status", expected, status, Reason.CONTRADICTION)
    if event in _ANALYSED_EVENTS and status == "CLOSED" and "analysis_result" not in values:
        expected = f"one of {', '.join(ANALYSIS_RESULTS)}, as the analysis is closed"
        return Rejection("$.analysis_result", expected, "absent", Reason.MISSING)
    for party in ("receiver", "payer"):
        if f"{party}_account" in values and f"{party}_ispb" not in values:
            expected = f"string of 8 digits, as there is a {party}_account"
            return Rejection(f"$.{party}_ispb", expected, "absent", Reason.MISSING)
    return None

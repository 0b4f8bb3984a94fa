"""What a bank sends, made hard for state: few hot keys, ties, late payments, retries, used ids, noise, markers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from app.topics import FEEDBACK, TRANSACTIONS

from .machine import START_MS

__all__ = ["Message", "Payment", "Traffic", "draw_feedback", "generate_traffic"]

_HOUR_MS = 3_600_000

_GAPS_MS = (0, 0, 0, 1, 999, 59_999, 60_000, 60_001, 300_000, 599_999, _HOUR_MS, 5 * _HOUR_MS)
_LATE_MS = (0, 0, 0, 0, 1, 60_000, 600_000, 2 * _HOUR_MS - 60_000)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the bank, and its Kafka timestamp."""

    topic: str
    key: bytes | None
    value: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Payment:
    """A good payment: its fields, as they were sent."""

    fields: dict[str, Any]

    @property
    def key(self) -> str:
        """Its Kafka key."""
        return str(self.fields.get("pix_key") or self.fields["receiver_account"])

    def value(self) -> bytes:
        """Return its JSON."""
        return json.dumps(self.fields, separators=(",", ":")).encode()


@dataclass(slots=True)
class Traffic:
    """All messages, in the order in which the bank sends them.

    Parameters
    ----------
    messages
        Of both topics.
    ids
        Of all good payments.
    """

    messages: list[Message] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


class _Bank:
    """Draws messages."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.clock_ms = START_MS
        self.payments: list[Payment] = []
        self.markers: list[tuple[Payment, str]] = []
        self.count = 0
        self.payers = [f"p{number}" for number in range(rng.randint(2, 6))]
        self.receivers = [f"r{number}" for number in range(rng.randint(2, 6))]

    def new_payment(self) -> Payment:
        """Draw a payment; accounts pay each other too, so that money goes in and out of one."""
        rng = self.rng
        self.clock_ms += rng.choice(_GAPS_MS)
        self.count += 1
        payer = rng.choice(self.payers if rng.random() < 0.8 else self.receivers)
        receiver = rng.choice([name for name in (*self.receivers, *self.payers[:1]) if name != payer])
        fields: dict[str, Any] = {
            "end_to_end_id": f"E12345678202609211333{self.count:011d}",
            "timestamp": self.clock_ms - rng.choice(_LATE_MS),
            "amount_centavos": rng.choice((1, 50_00, rng.randint(1, 20_000))),
            "payer_account": payer,
            "payer_ispb": "12345678",
            "receiver_account": receiver,
            "receiver_ispb": "12345678",
            "initiation": "MANU",
        }
        if rng.random() < 0.5:
            fields |= {"initiation": "DICT", "pix_key": f"{receiver}@example.com"}
        if rng.random() < 0.5:
            fields["device_id"] = f"d{rng.randint(1, 3)}"
        if rng.random() < 0.08:
            fields["purpose"] = rng.choice(("REFU", "IPRT"))
        return Payment(fields)

    def message(self, payment: Payment) -> Message:
        """Return a payment as it goes to Kafka; the producer's clock is about right."""
        stamp_ms = self.clock_ms + self.rng.randint(-2_000, 2_000)
        return Message(TRANSACTIONS.name, payment.key.encode(), payment.value(), stamp_ms)

    def reused(self, first: Payment) -> Payment:
        """Return another payment under a used id: to the same key, or from the same account, so that it can be seen."""
        changes: dict[str, Any] = {"amount_centavos": first.fields["amount_centavos"] + 1}
        if self.rng.random() < 0.5:
            changes["timestamp"] = first.fields["timestamp"] + 1
        elif self.rng.random() < 0.5 and "pix_key" not in first.fields:
            changes["receiver_account"] = "r-other"
        return Payment(first.fields | changes)

    def noise(self) -> Message:
        """Draw a message that no one can decide on."""
        rng = self.rng
        fields = self.new_payment().fields
        kind = rng.randrange(5)
        key = str(fields["receiver_account"]).encode()
        if kind == 0:
            return Message(TRANSACTIONS.name, key, rng.randbytes(rng.randint(0, 40)), self.clock_ms)
        if kind == 1:
            fields["amount_centavos"] = -1
        elif kind == 2:
            del fields["payer_account"]
        elif kind == 3:
            return Message(TRANSACTIONS.name, b"wrong", json.dumps(fields).encode(), self.clock_ms)
        else:
            fields["timestamp"] = self.clock_ms + 40 * 86_400_000
        key = str(fields.get("pix_key") or fields["receiver_account"]).encode()
        return Message(TRANSACTIONS.name, key, json.dumps(fields).encode(), self.clock_ms)

    def feedback(self) -> Message:
        """Draw what became known: a marker on both parties, its cancellation, a repeat of either, or noise."""
        fields = draw_feedback(self.rng, self.payments, self.markers, self.clock_ms, repeat_share=0.5)
        key = str(fields["end_to_end_id"]).encode()
        return Message(FEEDBACK.name, key, json.dumps(fields).encode(), self.clock_ms)


def draw_feedback(
    rng: Random, payments: Sequence[Payment], markers: list[tuple[Payment, str]], now_ms: int, *, repeat_share: float
) -> dict[str, Any]:
    """Draw the fields of a marker on both parties, its cancellation, a repeat of either, or one without a status.

    Parameters
    ----------
    rng
        Draws.
    payments
        From which a new marker takes its parties.
    markers
        Those drawn before, with the names of their reports; a new one is added.
    now_ms
        When it is told.
    repeat_share
        How often one of `markers` comes again, if there is any.
    """
    if markers and rng.random() < repeat_share:
        payment, report = rng.choice(markers)
        status = rng.choice(("CANCELLED", "REGISTERED"))
    else:
        payment, report, status = rng.choice(payments), f"report-{len(markers)}", "REGISTERED"
        markers.append((payment, report))
    fields: dict[str, Any] = {
        "end_to_end_id": payment.fields["end_to_end_id"],
        "timestamp": now_ms,
        "event": "FRAUD_MARKER",
        "status": status,
        "report_id": report,
        "last_modified": now_ms,
        "fraud_type": "MULE_ACCOUNT",
        "receiver_account": payment.fields["receiver_account"],
        "receiver_ispb": payment.fields["receiver_ispb"],
        "payer_account": payment.fields["payer_account"],
        "payer_ispb": payment.fields["payer_ispb"],
    }
    if "pix_key" in payment.fields:
        fields["pix_key"] = payment.fields["pix_key"]
    if rng.random() < 0.1:
        del fields["status"]
    return fields


def generate_traffic(rng: Random, messages: int) -> Traffic:
    """Draw the traffic of one run."""
    bank, traffic = _Bank(rng), Traffic()
    while len(traffic.messages) < messages:
        draw = rng.random()
        if draw < 0.08 and bank.payments:
            traffic.messages.append(bank.message(rng.choice(bank.payments[-30:])))
        elif draw < 0.11 and bank.payments:
            traffic.messages.append(bank.message(bank.reused(rng.choice(bank.payments[-30:]))))
        elif draw < 0.15:
            traffic.messages.append(bank.noise())
        elif draw < 0.25 and bank.payments:
            traffic.messages.append(bank.feedback())
        else:
            payment = bank.new_payment()
            bank.payments.append(payment)
            traffic.ids.add(payment.fields["end_to_end_id"])
            traffic.messages.append(bank.message(payment))
    return traffic

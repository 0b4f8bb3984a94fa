"""Events: whose history a payment enters on each stage, and with which flags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.fields import FIELDS, INITIATIONS, MISSING, PERSONS, PURPOSES, TRANSACTION_DTYPE
from tables.catalog import CATALOG
from tables.events import credit_events, debit_events, receiver_events
from tables.layout import FLAGS

if TYPE_CHECKING:
    from tables.layout import Array

NOON_MS = 1_773_500_400_000  # 2026-03-14T15:00:00Z, 12:00 in Brasilia
HOUR_MS = 3_600_000
NATURAL, LEGAL = (PERSONS.index(person) + 1 for person in ("NATURAL", "LEGAL"))


def transaction(**columns: object) -> Array:
    """Return one transaction, missing all that is not given."""
    row = np.zeros(1, TRANSACTION_DTYPE)
    for field in FIELDS:
        row[field.name] = MISSING[field.kind]
    row["timestamp"], row["amount_centavos"] = NOON_MS, 12_34
    row["payer_account"], row["receiver_account"], row["receiver"], row["device_id"] = 1, 2, 3, 4
    for name, value in columns.items():
        row[name] = value
    return row


def flags_of(events: Array) -> set[str]:
    """Return the flags of the only event by name."""
    return {flag for bit, flag in enumerate(FLAGS) if int(events["flags"][0]) >> bit & 1}


def unmarked() -> Array:
    """Return what stage 1 found of a receiver without markers."""
    return np.zeros((1, len(CATALOG.positions("receiver"))), np.float32)


def test_a_payment_enters_three_histories() -> None:
    """The receiver's key, the payer's account, and the receiver's account, which wants no features."""
    rows = transaction()
    for events, key, other, log, wants in (
        (receiver_events(rows), 3, 1, 0, 1),
        (debit_events(rows, unmarked()), 1, 2, 0, 1),
        (credit_events(rows), 2, 1, 1, 0),
    ):
        event = events[0]
        assert (event["key"], event["other"], event["log"], event["wants_features"]) == (key, other, log, wants)
        assert (event["timestamp"], event["amount"], event["counts"]) == (NOON_MS, 12_34, 1)
    assert receiver_events(rows)["device"] == debit_events(rows, unmarked())["device"] == 4
    assert credit_events(rows)["device"] == 0  # the payer's device tells nothing of the receiver's account


@pytest.mark.parametrize("purpose", ["REFU", "IPRT"])
def test_refunds_are_neither_read_nor_counted(purpose: str) -> None:
    """On no stage."""
    rows = transaction(purpose=PURPOSES.index(purpose) + 1)
    for events in (receiver_events(rows), debit_events(rows, unmarked()), credit_events(rows)):
        assert (events["wants_features"][0], events["counts"][0]) == (0, 0)


@pytest.mark.parametrize(
    ("columns", "flag", "carried"),
    [
        ({"timestamp": NOON_MS + 8 * HOUR_MS}, "NIGHT", True),
        ({"timestamp": NOON_MS + 8 * HOUR_MS - 1}, "NIGHT", False),
        ({"timestamp": NOON_MS + 18 * HOUR_MS - 1}, "NIGHT", True),
        ({"timestamp": NOON_MS + 18 * HOUR_MS}, "NIGHT", False),
        ({"amount_centavos": 80, "payer_limit_centavos": 100}, "NEAR_LIMIT", True),
        ({"amount_centavos": 79, "payer_limit_centavos": 100}, "NEAR_LIMIT", False),
        ({"amount_centavos": 100, "payer_limit_centavos": 100}, "NEAR_LIMIT", True),
        ({"amount_centavos": 101, "payer_limit_centavos": 100}, "NEAR_LIMIT", False),
        ({"amount_centavos": 100}, "NEAR_LIMIT", False),
        ({"amount_centavos": 50_00}, "ROUND", True),
        ({"amount_centavos": 50_01}, "ROUND", False),
        ({"initiation": INITIATIONS.index("QRES") + 1}, "STATIC_QR", True),
        ({"initiation": INITIATIONS.index("QRDN") + 1}, "STATIC_QR", False),
        ({"payer_person": LEGAL}, "LEGAL_PAYER", True),
        ({"payer_person": NATURAL}, "LEGAL_PAYER", False),
        ({"payer_person": NATURAL, "receiver_person": NATURAL}, "NATURAL_PAIR", True),
        (
            {"payer_person": NATURAL, "receiver_person": NATURAL, "payer_tax_id": 9, "receiver_tax_id": 9},
            "NATURAL_PAIR",
            False,
        ),
        ({"payer_person": NATURAL, "receiver_person": LEGAL}, "NATURAL_PAIR", False),
        ({"payer_person": NATURAL}, "NATURAL_PAIR", False),
        ({"device_registered": 0}, "UNREGISTERED_DEVICE", True),
        ({"device_registered": 1}, "UNREGISTERED_DEVICE", False),
        ({}, "UNREGISTERED_DEVICE", False),
        ({"purpose": PURPOSES.index("GSCB") + 1}, "CASH", True),
        ({"purpose": PURPOSES.index("OTHR") + 1}, "CASH", True),
        ({"purpose": PURPOSES.index("IPAY") + 1}, "CASH", False),
    ],
)
def test_flags_follow_the_transaction(columns: dict[str, object], flag: str, *, carried: bool) -> None:
    """On every stage alike; what is missing raises no flag."""
    rows = transaction(**columns)
    for events in (receiver_events(rows), debit_events(rows, unmarked()), credit_events(rows)):
        assert (flag in flags_of(events)) == carried


def test_a_payment_to_a_marked_receiver_carries_the_mark_on() -> None:
    """So the payer's history knows its confirmed-fraud neighbours."""
    found = unmarked()
    assert "RECEIVER_MARKED" not in flags_of(debit_events(transaction(), found))
    found[0, CATALOG.positions("receiver")["receiver_fraud_marks"]] = 2
    assert "RECEIVER_MARKED" in flags_of(debit_events(transaction(), found))


@given(amount=st.integers(1, 10**13), limit=st.integers(1, 10**13))
def test_the_share_of_a_limit_is_exact_at_any_size(amount: int, limit: int) -> None:
    """Integers all the way: R$ 100 billion does not overflow."""
    rows = transaction(amount_centavos=amount, payer_limit_centavos=limit)
    assert ("NEAR_LIMIT" in flags_of(receiver_events(rows))) == (limit * 4 <= amount * 5 <= limit * 5)

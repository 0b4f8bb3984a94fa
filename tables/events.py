"""Events from transactions: which key's history a payment enters, and with which flags. Pure array code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.domain.fields import INITIATIONS, PERSONS, PURPOSES
from tables.calendar import BRASILIA_MS, NIGHT_FROM, NIGHT_TO
from tables.catalog import CATALOG
from tables.kernel import cached
from tables.layout import DAY_MS, EVENT_DTYPE, FLAGS, HOUR_MS, LOGS

if TYPE_CHECKING:
    from tables.layout import Array

__all__ = ["credit_events", "debit_events", "is_refund", "receiver_events"]

ROUND_CENTAVOS = 50_00
NEAR_LIMIT_PERCENT = 80

_NATURAL = PERSONS.index("NATURAL") + 1
_LEGAL = PERSONS.index("LEGAL") + 1
_STATIC_QR = INITIATIONS.index("QRES") + 1
_CASH = (PURPOSES.index("GSCB") + 1, PURPOSES.index("OTHR") + 1)
_MARKED_BIT = np.uint16(1 << FLAGS.index("RECEIVER_MARKED"))
(
    _NIGHT_BIT,
    _NEAR_LIMIT_BIT,
    _ROUND_BIT,
    _STATIC_QR_BIT,
    _LEGAL_PAYER_BIT,
    _NATURAL_PAIR_BIT,
    _UNREGISTERED_DEVICE_BIT,
    _CASH_BIT,
) = (
    1 << FLAGS.index(flag)
    for flag in (
        "NIGHT",
        "NEAR_LIMIT",
        "ROUND",
        "STATIC_QR",
        "LEGAL_PAYER",
        "NATURAL_PAIR",
        "UNREGISTERED_DEVICE",
        "CASH",
    )
)
_FRAUD_MARKS = CATALOG.positions("receiver")["receiver_fraud_marks"]
_REFUNDS = (PURPOSES.index("REFU") + 1, PURPOSES.index("IPRT") + 1)


def is_refund(transactions: Array) -> Array:
    """Return which transactions return money: these are neither scored nor counted as behaviour; bool, shape (n,)."""
    purposes = transactions["purpose"]
    refunds: Array = (purposes == _REFUNDS[0]) | (purposes == _REFUNDS[1])  # np.isin costs 15 us whatever the length
    return refunds


def receiver_events(transactions: Array) -> Array:
    """Return stage 1's events, one per transaction.

    Parameters
    ----------
    transactions
        TRANSACTION_DTYPE, shape (n,).

    Returns
    -------
    EVENT_DTYPE, shape (n,): key is the receiver's Pix key or account, counterparty the payer's account.
    """
    events = _events(transactions, "receiver", "received", _flags(transactions))
    events["key"] = transactions["receiver"]
    events["other"] = transactions["payer_account"]
    events["device"] = transactions["device_id"]
    return events


def debit_events(transactions: Array, receiver_slice: Array) -> Array:
    """Return stage 2's events of the payers, one per transaction, to be decided on.

    Parameters
    ----------
    transactions
        TRANSACTION_DTYPE, shape (n,).
    receiver_slice
        float32, shape (n, features of stage "receiver"): what stage 1 found, for the receiver's markers.

    Returns
    -------
    EVENT_DTYPE, shape (n,): key is the payer's account, counterparty the receiver's account.
    """
    marked = receiver_slice[:, _FRAUD_MARKS] > 0
    events = _events(transactions, "payer", "sent", _flags(transactions) | marked.astype(np.uint16) * _MARKED_BIT)
    events["key"] = transactions["payer_account"]
    events["other"] = transactions["receiver_account"]
    events["device"] = transactions["device_id"]
    return events


def credit_events(transactions: Array) -> Array:
    """Return stage 2's events of the receivers' accounts, one per transaction: they count, and want no features.

    Parameters
    ----------
    transactions
        TRANSACTION_DTYPE, shape (n,).

    Returns
    -------
    EVENT_DTYPE, shape (n,): key is the receiver's account, counterparty the payer's account.
    """
    events = _events(transactions, "payer", "credited", _flags(transactions))
    events["key"] = transactions["receiver_account"]
    events["other"] = transactions["payer_account"]
    events["wants_features"] = 0
    return events


def _events(transactions: Array, stage: str, log: str, flags: Array) -> Array:
    events = np.zeros(len(transactions), EVENT_DTYPE)
    events["timestamp"] = transactions["timestamp"]
    events["amount"] = transactions["amount_centavos"]
    events["flags"] = flags
    events["log"] = LOGS[stage].index(log)
    events["wants_features"] = events["counts"] = ~is_refund(transactions)
    return events


def _flags(transactions: Array) -> Array:
    """Return the flags that the transaction alone decides; uint16, shape (n,)."""
    flags = np.empty(len(transactions), np.uint16)
    columns = (
        "timestamp",
        "amount_centavos",
        "payer_limit_centavos",
        "payer_tax_id",
        "receiver_tax_id",
        "payer_person",
        "receiver_person",
        "initiation",
        "device_registered",
        "purpose",
    )
    _write_flags(flags, *(transactions[name] for name in columns))
    return flags


@cached
def _write_flags(
    flags: Array,
    timestamp: Array,
    amount: Array,
    limit: Array,
    payer: Array,
    receiver: Array,
    payer_person: Array,
    receiver_person: Array,
    initiation: Array,
    registered: Array,
    purpose: Array,
) -> None:
    for row in range(len(flags)):
        hour = (timestamp[row] + BRASILIA_MS) % DAY_MS // HOUR_MS
        near = limit[row] > 0 and amount[row] <= limit[row] and amount[row] * 100 >= limit[row] * NEAR_LIMIT_PERCENT
        one_person = payer[row] == receiver[row] and payer[row] != 0
        people = payer_person[row] == _NATURAL and receiver_person[row] == _NATURAL
        bits = 0
        if hour >= NIGHT_FROM or hour < NIGHT_TO:
            bits |= _NIGHT_BIT
        if near:
            bits |= _NEAR_LIMIT_BIT
        if amount[row] % ROUND_CENTAVOS == 0:
            bits |= _ROUND_BIT
        if initiation[row] == _STATIC_QR:
            bits |= _STATIC_QR_BIT
        if payer_person[row] == _LEGAL:
            bits |= _LEGAL_PAYER_BIT
        if people and not one_person:
            bits |= _NATURAL_PAIR_BIT
        if registered[row] == 0:
            bits |= _UNREGISTERED_DEVICE_BIT
        if purpose[row] == _CASH[0] or purpose[row] == _CASH[1]:
            bits |= _CASH_BIT
        flags[row] = bits

"""Events from transactions: which key's history a payment enters, and with which flags. Pure array code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.domain.fields import INITIATIONS, PERSONS, PURPOSES
from tables.calendar import night
from tables.catalog import CATALOG
from tables.layout import EVENT_DTYPE, FLAGS, LOGS

if TYPE_CHECKING:
    from tables.layout import Array

__all__ = ["credit_events", "debit_events", "is_refund", "receiver_events"]

ROUND_CENTAVOS = 50_00
NEAR_LIMIT_PERCENT = 80

_NATURAL = PERSONS.index("NATURAL") + 1
_LEGAL = PERSONS.index("LEGAL") + 1
_STATIC_QR = INITIATIONS.index("QRES") + 1
_CASH = (PURPOSES.index("GSCB") + 1, PURPOSES.index("OTHR") + 1)
_REFUNDS = (PURPOSES.index("REFU") + 1, PURPOSES.index("IPRT") + 1)


def is_refund(transactions: Array) -> Array:
    """Return which transactions return money: these are neither scored nor counted as behaviour; bool, shape (n,)."""
    return _any_of(transactions["purpose"], _REFUNDS)


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
    marked = receiver_slice[:, CATALOG.positions("receiver")["receiver_fraud_marks"]] > 0
    events = _events(transactions, "payer", "sent", _flags(transactions) | _bit("RECEIVER_MARKED", marked))
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


def _any_of(codes: Array, wanted: tuple[int, int]) -> Array:
    # np.isin costs 15 us a call whatever the length.
    found: Array = (codes == wanted[0]) | (codes == wanted[1])
    return found


def _bit(flag: str, carried: Array) -> Array:
    return carried.astype(np.uint16) << np.uint16(FLAGS.index(flag))


def _flags(transactions: Array) -> Array:
    """Return the flags that the transaction alone decides; uint16, shape (n,)."""
    amount, limit = transactions["amount_centavos"], transactions["payer_limit_centavos"]
    payer, receiver = transactions["payer_tax_id"], transactions["receiver_tax_id"]
    people = (transactions["payer_person"] == _NATURAL) & (transactions["receiver_person"] == _NATURAL)
    one_person = (payer == receiver) & (payer != 0)
    return (
        _bit("NIGHT", night(transactions["timestamp"]))
        | _bit("NEAR_LIMIT", (limit > 0) & (amount <= limit) & (amount * 100 >= limit * NEAR_LIMIT_PERCENT))
        | _bit("ROUND", amount % ROUND_CENTAVOS == 0)
        | _bit("STATIC_QR", transactions["initiation"] == _STATIC_QR)
        | _bit("LEGAL_PAYER", transactions["payer_person"] == _LEGAL)
        | _bit("NATURAL_PAIR", people & ~one_person)
        | _bit("UNREGISTERED_DEVICE", transactions["device_registered"] == 0)
        | _bit("CASH", _any_of(transactions["purpose"], _CASH))
    )

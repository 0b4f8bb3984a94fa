"""What pixguard says of a payment: the message on `pix-decisions`."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "ACTIONS",
    "HOLD_MINUTES_BY_DAY",
    "HOLD_MINUTES_BY_NIGHT",
    "Action",
    "Decision",
    "Reason",
    "Source",
    "Versions",
    "decode_decision",
    "hold_minutes",
]

Action = Literal["APPROVE", "HOLD", "DENY"]

ACTIONS: tuple[Action, ...] = ("APPROVE", "HOLD", "DENY")
"""In order of severity; the position is the action's code in arrays."""

HOLD_MINUTES_BY_DAY = 30
"""Longest hold by the payer's PSP, 06:00-20:00 Brasília (pix-domain: payer-side hold)."""

HOLD_MINUTES_BY_NIGHT = 60
"""The same, 20:00-06:00."""


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why a payment looks as it does: a rule that fired, or a feature that made a model think of fraud.

    Parameters
    ----------
    code
        For machines; its sentences are the rule's text, or `models.wording.explaining.reason_texts` of the feature.
    weight
        In [0, 1]: the rule's own, or the feature's share of all that spoke for fraud.
    rule, feature
        Where it comes from: the one or the other.
    """

    code: str
    weight: float
    rule: str | None = None
    feature: str | None = None


class Versions(msgspec.Struct, frozen=True, gc=False):
    """What was in force: enough to take the decision again. A model's version is None where there was none."""

    rules: str
    lists: int
    features: str
    online_model: int | None = None
    batch_model: int | None = None


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where the transaction lies in `pix-transactions`."""

    partition: int
    offset: int


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decision.

    Parameters
    ----------
    end_to_end_id
        Of the payment; also the Kafka key.
    decision
        APPROVE, HOLD (at most `hold_minutes`) or DENY.
    score
        In [0, 1]: the probability of fraud, where a model was in force; else 1 - prod(1 - weight) over the rules that
        fired.
    scored
        False for MED refunds (purpose IPRT, REFU): these always pass and count as no one's behaviour.
    reasons
        Rules by weight, heaviest first; then, where the decision is HOLD or DENY, the models' by weight.
    rules
        Ids of all rules that fired, in the pack's order.
    versions
        Of rules, features and models.
    source
        Partition and offset of the transaction.
    event_time
        The transaction's own timestamp, epoch milliseconds.
    decided_at
        The log's clock when it was decided on, epoch milliseconds: the Kafka timestamp of the enriched frame. Taken
        from the log, so that a repeat after a crash is bit-identical; the record's own Kafka timestamp says when it
        was written.
    hold_minutes
        How long the payer's PSP may hold it at most, where the decision is HOLD.
    """

    end_to_end_id: str
    decision: Action
    score: float
    scored: bool = True
    reasons: tuple[Reason, ...] = ()
    rules: tuple[str, ...] = ()
    versions: Versions
    source: Source
    event_time: int
    decided_at: int
    hold_minutes: int | None = None


_BRASILIA_MS = -3 * 3_600_000


def hold_minutes(event_ms: int) -> int:
    """How long a payment of this time may be held, minutes; Brasília is UTC-3, without summer time since 2019.

    Examples
    --------
    >>> hold_minutes(1_767_279_600_000), hold_minutes(1_767_319_200_000)  # 12:00 and 23:00 in Brasília
    (30, 60)
    """
    hour = (event_ms + _BRASILIA_MS) // 3_600_000 % 24
    return HOLD_MINUTES_BY_DAY if 6 <= hour < 20 else HOLD_MINUTES_BY_NIGHT


_decoder = msgspec.json.Decoder(Decision)


def decode_decision(value: bytes) -> Decision:
    """Read a message of `pix-decisions`.

    Raises
    ------
    msgspec.ValidationError
        Naming path, expected and got.
    """
    return _decoder.decode(value)

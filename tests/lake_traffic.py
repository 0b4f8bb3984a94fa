"""Messages for the lake: decisions, vectors and labels of numbered payments, the same for the same numbers."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from app.domain.decision import Action, Decision, Reason, Source, Versions
from app.domain.labelled import Labelled, encode_labelled
from app.domain.vectors import VECTOR_ROW_DTYPE, encode_vectors
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG

__all__ = ["START_MS", "decision", "decision_message", "identifier", "label", "label_message", "vector_message"]

START_MS = 1_796_040_000_000
_HOUR_MS = 3_600_000


def identifier(number: int) -> str:
    """The payment's end_to_end_id."""
    return f"E12345678202611301200{number:011d}"


def decision(number: int) -> Decision:
    """A decision; every third is held, for two reasons. Payments are an hour apart, so that they fill days."""
    held = number % 3 == 0
    reasons = (Reason("NIGHT", 0.5, rule="NIGHT"), Reason("HIGH", 0.25, feature="payer_sent_sum_1h")) if held else ()
    action: Action = "HOLD" if held else "APPROVE"
    return Decision(
        end_to_end_id=identifier(number),
        decision=action,
        score=number / 1_000_000,
        reasons=reasons,
        rules=("NIGHT",) if held else (),
        versions=Versions("rules-1", 2, FEATURES_VERSION, online_model=None if number % 2 else 7),
        source=Source(number % 4, number),
        event_time=START_MS + number % 100 * _HOUR_MS,
        decided_at=START_MS + number % 100 * _HOUR_MS + 5,
        hold_minutes=30 if held else None,
    )


def decision_message(number: int) -> bytes:
    """The same, as `pix-decisions` carries it."""
    return msgspec.json.encode(decision(number))


def vector_message(number: int, fingerprint: str = FEATURES_VERSION, names: Iterable[str] = CATALOG.names) -> bytes:
    """A vector as `pix-features` carries it: the number, then zeros, the last one missing."""
    rows = np.zeros(1, VECTOR_ROW_DTYPE)
    rows["id"], rows["event_time"] = identifier(number).encode(), START_MS + number % 100 * _HOUR_MS
    rows["decided_at"], rows["amount_centavos"], rows["payer"] = rows["event_time"] + 5, number, 2**64 - 1 - number
    rows["score"], rows["rules_score"], rows["scored"] = np.nan, 0.25, True
    matrix = np.zeros((1, len(tuple(names))), np.float32)
    matrix[0, 0], matrix[0, -1] = number, np.nan
    (value,) = encode_vectors(rows, matrix, fingerprint)
    assert value is not None
    return value


def label(number: int) -> Labelled:
    """A label; every fifth payment is a fraud."""
    return Labelled(
        end_to_end_id=identifier(number),
        kind="REVISION" if number % 2 else "MATURED",
        label=1 if number % 5 == 0 else 0,
        basis="MARKER" if number % 5 == 0 else "MATURITY",
        fraud_type=None,
        situation=None,
        event_time=START_MS + number % 100 * _HOUR_MS,
        decided_at=START_MS,
        known_at=START_MS + 5 * _HOUR_MS,
        weight=1.0,
        amount_centavos=number,
        channel=1,
        action=0,
        rules_score=0.5,
        online_score=None,
        batch_score=None,
        challenger_score=None,
        score=None,
        online_version=0,
        batch_version=0,
        challenger_version=0,
        source_partition=number % 4,
        source_offset=number,
        fingerprint=FEATURES_VERSION,
        vector=b"",
    )


def label_message(number: int) -> bytes:
    """The same, as `pix-labelled` carries it."""
    return encode_labelled(label(number))

"""Messages of `pix-labelled` from vectors and labels, and which honest payments they are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.domain.labelled import Kind, Labelled
from models.labels.labelling import Label
from tables.awaiting_rows import Chunk, id_hashes

__all__ = ["labelled_message", "sample"]


def labelled_message(kind: Kind, partition: int, vector: Chunk, label: Label, known_at: int) -> Labelled:
    """Return the message on one vector.

    Parameters
    ----------
    kind
        MATURED or REVISION.
    partition
        Of `pix-features`.
    vector
        A chunk of one.
    label, known_at
        What is known, and since when, epoch milliseconds.
    """
    row = vector.rows[0]
    return Labelled(
        end_to_end_id=row["id"].decode(),
        kind=kind,
        label=label.label,
        basis=label.basis,
        fraud_type=label.fraud_type,
        situation=label.situation,
        event_time=int(row["event_time"]),
        decided_at=int(row["decided_at"]),
        known_at=known_at,
        weight=label.weight,
        amount_centavos=int(row["amount_centavos"]),
        channel=int(row["channel"]),
        action=int(row["action"]),
        rules_score=_score(row["rules_score"]),
        online_score=_score(row["online_score"]),
        batch_score=_score(row["batch_score"]),
        challenger_score=_score(row["challenger_score"]),
        score=_score(row["score"]),
        online_version=int(row["online_version"]),
        batch_version=int(row["batch_version"]),
        challenger_version=int(row["challenger_version"]),
        source_partition=partition,
        source_offset=int(vector.offsets[0]),
        fingerprint=vector.fingerprint,
        vector=vector.matrix.tobytes(),
    )


def sample(ids: NDArray[np.bytes_], rate: float) -> NDArray[np.bool_]:
    """Choose a share of ids (S32, shape (n,)): the same ones whoever chooses, at a lower rate some of these."""
    chosen: NDArray[np.bool_] = (id_hashes(ids) >> np.uint64(11)) * 2.0**-53 < rate
    return chosen


def _score(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

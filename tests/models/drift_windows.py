"""Made-up rows as the stream carries them: vectors with scores, and labels that have matured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.domain.labelled import Labelled
from app.domain.vectors import VECTOR_ROW_DTYPE, Vectors
from models.batch.model import BatchModel
from models.batch.training_set import TrainingSet

__all__ = ["as_labelled", "as_vectors"]


def as_vectors(rows: TrainingSet, model: BatchModel, version: int = 1) -> Vectors:
    """Return payments, scored by a model that also is the blend."""
    told = np.zeros(len(rows), VECTOR_ROW_DTYPE)
    told["id"], told["event_time"], told["decided_at"] = rows.ids, rows.event_time, rows.event_time
    told["scored"], told["batch_version"], told["online_score"] = True, version, np.nan
    told["rules_score"] = rows.rules_scores
    told["batch_score"] = told["score"] = model.probabilities(rows.vectors)
    return Vectors(told, rows.vectors, rows.fingerprint)


def as_labelled(rows: TrainingSet, chances: NDArray[np.floating], kind: str = "MATURED") -> list[Labelled]:
    """Return what `pix-labelled` says of rows that were scored so."""
    return [
        Labelled(
            end_to_end_id=rows.ids[at].decode(), kind=kind, label=int(rows.labels[at]), basis="MATURITY",  # type: ignore[arg-type] # as messages have them
            fraud_type=None, situation=None, event_time=int(rows.event_time[at]), decided_at=int(rows.event_time[at]),
            known_at=int(rows.known_at[at]), weight=1.0, amount_centavos=1, channel=1, action=0,
            rules_score=float(rows.rules_scores[at]), online_score=None, batch_score=float(chances[at]),
            challenger_score=None, score=float(chances[at]), online_version=0, batch_version=1, challenger_version=0,
            source_partition=0, source_offset=at, fingerprint=rows.fingerprint, vector=rows.vectors[at].tobytes(),
        )
        for at in range(len(rows))
    ]  # fmt: skip

"""Deciding, pure: what is known of a batch of debits, rules, lists and models, to rows that say it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.decision import ACTIONS, Decision
from app.domain.vectors import VECTOR_ROW_DTYPE
from models.ensemble import MOST_REASONS, Models, no_scores
from models.rules.costs import cheapest_actions
from models.rules.file import MAX_RULES
from models.rules.lists import Lists
from models.rules.pack import RulePack
from tables.catalog import CATALOG
from tables.ids import transaction_digest

__all__ = [
    "DECIDED_DTYPE",
    "Decided",
    "Observed",
    "judge",
    "name_models",
    "quote_models",
    "recorded_scores",
    "vector_rows",
]

_APPROVE = ACTIONS.index("APPROVE")
_NOBODY = np.empty(0, np.intp)
_FIRED_BYTES = -(-MAX_RULES // 8)
"""One bit for each rule of a pack."""

DECIDED_DTYPE = np.dtype(
    [
        ("id", "S32"),  # the end_to_end_id
        ("timestamp", "i8"),  # the log's clock: also `decided_at`
        ("digest", "u8"),
        ("event_time", "i8"),
        ("score", "f8"),
        ("source_partition", "i4"),
        ("source_offset", "i8"),
        # From here on: what decides the form of the message (models/wording/writer.py).
        ("online_version", "u4"),  # 0: none; so for the next
        ("batch_version", "u4"),
        ("reason_features", "u2", (MOST_REASONS,)),  # position in the catalog + 1; 0: no more
        ("reason_shares", "u1", (MOST_REASONS,)),  # percent
        ("pack", "S16"),
        ("lists", "i8"),
        ("fired", "u1", (_FIRED_BYTES,)),
        ("action", "u1"),
        ("scored", "?"),
    ]
)
"""A decision in few bytes: with the rule pack's text it becomes the same JSON again, byte for byte."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Debits that are to be decided on, and what is known of them.

    Parameters
    ----------
    transactions
        `TRANSACTION_DTYPE`, shape (n,).
    received_at
        When Kafka received each, epoch ms.
    log_ms
        The log's clock for each, epoch ms.
    scored
        False for MED refunds.
    vectors
        float32, shape (n, features).
    """

    transactions: NDArray[np.void]
    received_at: NDArray[np.int64]
    log_ms: NDArray[np.int64]
    scored: NDArray[np.bool_]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Decided:
    """The decisions of one batch, as columns of the same length, for counters and the web view.

    Parameters
    ----------
    transactions
        `TRANSACTION_DTYPE`.
    received_at
        When Kafka received each, epoch ms.
    rows
        `DECIDED_DTYPE`.
    messages
        The same, as they are sent.
    vectors
        float32, shape (n, features).
    scores
        `SCORES_DTYPE`.
    models, pack
        By which they were taken.
    """

    transactions: NDArray[np.void]
    received_at: NDArray[np.int64]
    rows: NDArray[np.void]
    messages: Sequence[bytes]
    vectors: NDArray[np.float32]
    scores: NDArray[np.void]
    models: Models
    pack: RulePack

    def rules_fired(self) -> dict[str, int]:
        """On how many of the payments each rule fired, by its id; those that did on none are left out."""
        counts = np.unpackbits(self.rows["fired"], axis=1, count=len(self.pack.rules)).sum(axis=0)
        return {self.pack.rules[place].id: int(counts[place]) for place in np.flatnonzero(counts)}


def judge(observed: Observed, pack: RulePack, lists: Lists, scores: NDArray[np.void]) -> NDArray[np.void]:
    """Decide by a pack, lists, and what the models have said.

    Parameters
    ----------
    observed
        Of n payments.
    pack, lists
        In force.
    scores
        Of the models, `SCORES_DTYPE`, shape (n,); the column `rules` is filled here.

    Returns
    -------
    `DECIDED_DTYPE`, shape (n,), without the models' versions and reasons.
    """
    transactions = observed.transactions
    probabilities = scores["score"].astype(np.float64)
    verdicts = pack.evaluate(
        CATALOG.columns(observed.vectors, transactions),
        len(transactions),
        listed=lists.listed,
        scored=observed.scored,
        advised=cheapest_actions(probabilities, transactions["amount_centavos"], pack.costs),
    )
    scores["rules"] = verdicts.scores
    rows = np.zeros(len(transactions), DECIDED_DTYPE)
    rows["id"] = transactions["end_to_end_id"]
    for name in ("source_partition", "source_offset"):
        rows[name] = transactions[name]
    rows["event_time"] = transactions["timestamp"]
    rows["timestamp"] = observed.log_ms
    rows["digest"] = transaction_digest(transactions)
    rows["score"] = np.round(np.where(np.isnan(probabilities), verdicts.scores, probabilities), 6)
    rows["action"] = verdicts.actions
    rows["scored"] = observed.scored
    rows["pack"] = pack.fingerprint.encode()
    rows["lists"] = lists.version
    fired = np.packbits(verdicts.fired, axis=1)
    rows["fired"][:, : fired.shape[1]] = fired
    return rows


def name_models(rows: NDArray[np.void], models: Models, vectors: NDArray[np.float32]) -> None:
    """Note in decided rows by which models they were scored, and in those that are held or denied the reasons.

    Parameters
    ----------
    rows
        `DECIDED_DTYPE`, shape (n,).
    models
        In force.
    vectors
        Shape (n, features).
    """
    batch, _, online, _ = models.versions
    rows["batch_version"][rows["scored"]] = batch
    rows["online_version"][rows["scored"]] = online
    flagged = np.flatnonzero((rows["action"] != _APPROVE) & rows["scored"]) if batch or online else _NOBODY
    if len(flagged):
        rows["reason_features"][flagged], rows["reason_shares"][flagged] = models.reasons(vectors[flagged])


def vector_rows(decided: Decided) -> NDArray[np.void]:
    """What `pix-features` tells of payments beside their vectors; `VECTOR_ROW_DTYPE`, shape (n,)."""
    rows = np.empty(len(decided.rows), VECTOR_ROW_DTYPE)
    for name, source in (("decided_at", "timestamp"), *((same, same) for same in _OF_DECISION)):
        rows[name] = decided.rows[source]
    for name, source in _OF_TRANSACTION:
        rows[name] = decided.transactions[source]
    for name, source in _OF_SCORES:
        rows[name] = decided.scores[source]
    challenger = decided.models.versions[1]
    rows["challenger_version"] = np.where(np.isnan(decided.scores["challenger"]), 0, challenger)
    return rows


_OF_DECISION = ("id", "event_time", "action", "scored", "batch_version", "online_version")
_OF_TRANSACTION = (
    ("amount_centavos", "amount_centavos"),
    ("payer", "payer_account"),
    ("receiver", "receiver"),
    ("channel", "initiation"),
)
_OF_SCORES = (
    ("score", "score"),
    ("rules_score", "rules"),
    ("online_score", "online"),
    ("batch_score", "batch"),
    ("challenger_score", "challenger"),
)


def recorded_scores(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Return what models said of payments, as `pix-features` has it; `SCORES_DTYPE`, shape (n,)."""
    scores = no_scores(len(rows))
    for name, target in _OF_SCORES:
        scores[target] = rows[name]
    return scores


def quote_models(rows: NDArray[np.void], decisions: Sequence[Decision | None]) -> None:
    """Note in decided rows what earlier decisions on the same payments say of models: versions, and reasons if any.

    Parameters
    ----------
    rows
        `DECIDED_DTYPE`, shape (n,).
    decisions
        As many.
    """
    for row, decision in zip(rows, decisions, strict=True):
        if decision is None:
            continue
        row["online_version"] = decision.versions.online_model or 0
        row["batch_version"] = decision.versions.batch_model or 0
        named = [reason for reason in decision.reasons if reason.feature is not None]
        if row["action"] == _APPROVE:
            continue
        for place, reason in enumerate(named[:MOST_REASONS]):
            row["reason_features"][place] = CATALOG.names.index(str(reason.feature)) + 1
            row["reason_shares"][place] = round(100 * reason.weight)

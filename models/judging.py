"""Deciding, pure: what is known of a batch of debits, a rule pack and the lists, to rows that say it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.lists import Lists
from models.rule_file import MAX_RULES
from models.rules import RulePack
from tables.catalog import CATALOG
from tables.ids import transaction_digest

__all__ = ["DECIDED_DTYPE", "Decided", "Observed", "judge"]

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
        # From here on: what decides the form of the message (models/wording.py).
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
    pack
        By which they were taken.
    """

    transactions: NDArray[np.void]
    received_at: NDArray[np.int64]
    rows: NDArray[np.void]
    messages: Sequence[bytes]
    vectors: NDArray[np.float32]
    pack: RulePack

    def rules_fired(self) -> dict[str, int]:
        """On how many of the payments each rule fired, by its id; those that did on none are left out."""
        counts = np.unpackbits(self.rows["fired"], axis=1, count=len(self.pack.rules)).sum(axis=0)
        return {self.pack.rules[place].id: int(counts[place]) for place in np.flatnonzero(counts)}


def judge(observed: Observed, pack: RulePack, lists: Lists) -> NDArray[np.void]:
    """Decide by a pack and lists; `DECIDED_DTYPE`, shape (n,)."""
    transactions = observed.transactions
    verdicts = pack.evaluate(
        CATALOG.columns(observed.vectors, transactions), len(transactions), listed=lists.listed, scored=observed.scored
    )
    rows = np.zeros(len(transactions), DECIDED_DTYPE)
    rows["id"] = transactions["end_to_end_id"]
    for name in ("source_partition", "source_offset"):
        rows[name] = transactions[name]
    rows["event_time"] = transactions["timestamp"]
    rows["timestamp"] = observed.log_ms
    rows["digest"] = transaction_digest(transactions)
    rows["score"] = np.round(verdicts.scores, 6)
    rows["action"] = verdicts.actions
    rows["scored"] = observed.scored
    rows["pack"] = pack.fingerprint.encode()
    rows["lists"] = lists.version
    fired = np.packbits(verdicts.fired, axis=1)
    rows["fired"][:, : fired.shape[1]] = fired
    return rows

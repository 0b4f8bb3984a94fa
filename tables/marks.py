"""Confirmed-fraud markers on their way into profiles: each change once, whoever sends it again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tables.ids import IdMemory
from tables.layout import FRAUD_TYPES
from tables.profiles import Profiles

__all__ = ["MARKED_DTYPE", "enter_marks", "fraud_type_position", "mark_memory", "unseen_marks"]

MARKED_DTYPE = np.dtype([("id", "S32"), ("timestamp", "i8")])

_WINDOW_MS = 91 * 86_400_000
"""A case lasts 80 days to contest and 11 to close."""


def mark_memory(max_ids: int) -> IdMemory:
    """Return a memory of markers that were entered, `max_ids` at most."""
    return IdMemory(MARKED_DTYPE, _WINDOW_MS, max_ids)


def fraud_type_position(name: str) -> int:
    """Position of a FraudType in `FRAUD_TYPES`; of "OTHER" for one that it lacks."""
    return FRAUD_TYPES.index(name if name in FRAUD_TYPES else "OTHER")


def unseen_marks(memory: IdMemory, marks: NDArray[np.void], log_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which markers are new, and take note of them.

    Parameters
    ----------
    memory
        Of the partition.
    marks
        `MARK_DTYPE`, shape (n,), in the log's order.
    log_ms
        Log time of each, shape (n,).

    Returns
    -------
    A mask, shape (n,).
    """
    first, _ = memory.first_occurrences(marks["id"].tolist(), log_ms)
    noted = np.zeros(int(first.sum()), MARKED_DTYPE)
    noted["id"] = marks["id"][first]
    noted["timestamp"] = log_ms[first]
    memory.append(noted)
    return first


def enter_marks(profiles: Profiles, marks: NDArray[np.void]) -> None:
    """Count `MARK_DTYPE` rows in the profiles of whom they mark, in their order."""
    for place, mark in enumerate(marks):
        one = marks[place : place + 1]
        profiles.mark(one["key"], FRAUD_TYPES[mark["fraud_type"]], int(mark["delta"]), one["timestamp"])

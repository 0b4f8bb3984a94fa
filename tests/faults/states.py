"""What a stage holds, in forms in which two of them can be compared: one recovered, one that ran unbroken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tables import aggregates
from tables.catalog import CATALOG
from tables.layout import SLOTS_USED

__all__ = ["STEADY", "known_ids", "profile_rows"]

_MARKERS_ONLY = (aggregates.Marks, aggregates.SinceMark)

STEADY = np.array(
    [
        not isinstance(feature.aggregate, _MARKERS_ONLY) and feature.aggregate not in _MARKERS_ONLY
        for feature in CATALOG.stage_features("receiver")
    ]
)
"""The receiver's features that do not depend on how markers and payments interleave."""


def profile_rows(stage: Any) -> dict[bytes, bytes]:  # noqa: ANN401 - either stage
    """Return the profiles in memory as rows of the changelog, by key."""
    profiles = stage.state.profiles
    used = int(profiles._state.counts[SLOTS_USED])
    return dict(zip(*profiles._export(np.flatnonzero(profiles._state.headers["hash"][:used])), strict=True))


def known_ids(stage: Any, ids: Sequence[bytes]) -> set[bytes]:  # noqa: ANN401 - either stage
    """Return which ids a stage would recognise; to be asked last, since the answer takes them up."""
    # Long ago: an id is then held against the memory's own clock.
    first, _ = stage.state.memories["payments"].first_occurrences(ids, np.zeros(len(ids), np.int64))
    return {one for one, is_first in zip(ids, first.tolist(), strict=True) if not is_first}

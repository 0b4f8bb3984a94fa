"""The kernel against the naive oracle: every base feature, on time, late, simultaneous, repeated, split, restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.aggregates import AGGREGATES
from tables.catalog import CATALOG, Catalog, Levels
from tables.layout import DISTINCT_WINDOWS_MS, EVENT_DTYPE, FLAGS, FRAUD_TYPES, GRACE_MS, LOGS, WINDOWS_MS
from tables.profiles import Profiles
from tests.naive import ORACLES, NaiveProfiles

if TYPE_CHECKING:
    from tables.layout import Array

START_MS = 1_773_526_380_000  # 2026-03-14T22:13:00Z, 19:13 in Brasilia: nights and days are near
STAGES = tuple(LOGS)

EDGES_MS = tuple(width + nudge for width in {*WINDOWS_MS, *DISTINCT_WINDOWS_MS, GRACE_MS} for nudge in (-1, 0, 1))
GAPS_MS = st.one_of(st.just(0), st.sampled_from(EDGES_MS), st.integers(0, 1000), st.integers(0, 6 * 3_600_000))
LATE_MS = st.one_of(st.just(0), st.just(0), st.sampled_from((1, 60_000, 600_000, GRACE_MS)), st.integers(0, GRACE_MS))
AMOUNTS = st.one_of(st.sampled_from((1, 50_00, 100_00, 10**13, 10**13 - 1)), st.integers(1, 10**13))
GIVEN_FLAGS = sum(1 << bit for bit, flag in enumerate(FLAGS) if not flag.startswith("NEW_"))

EVENTS = st.lists(
    st.tuples(
        GAPS_MS,
        LATE_MS,
        st.integers(1, 2),  # key
        st.integers(1, 4),  # other
        st.integers(0, 3),  # device
        AMOUNTS,
        st.integers(0, 2 ** len(FLAGS) - 1),
        st.integers(0, 1),  # log
        st.booleans(),  # wants features
        st.sampled_from((1, 1, 1, 0)),  # counts
    ),
    min_size=30,  # Hypothesis draws short lists unless told; long logs are the point
    max_size=80,
)

SCANNED = CATALOG
SUMMED = Catalog(levels=Levels(scan=-1))
"""Every log keeps running sums from its third event on."""


def to_events(drawn: list[tuple[int, ...]], stage: str) -> Array:
    """Return drawn events; gaps become timestamps, and each event is late by its own share."""
    events = np.zeros(len(drawn), EVENT_DTYPE)
    clock = START_MS
    for event, (gap, late, key, other, device, amount, flags, log, wants, counts) in zip(events, drawn, strict=True):
        clock += gap
        event["timestamp"] = clock - late
        # High bits too, for they decide on counters and pairs.
        event["key"], event["other"] = key << 40 | key, other << 33 | other
        event["device"] = device << 35 | device if device else 0
        event["amount"], event["flags"] = amount, flags & GIVEN_FLAGS
        event["log"] = log % len(LOGS[stage])
        event["wants_features"], event["counts"] = wants, counts
    return events


def assert_same(found: Array, expected: list[list[float]], stage: str) -> None:
    """Compare to the last bit of float32 but one: a 128-bit root may round either way."""
    wanted = np.array(expected, np.float64).reshape(found.shape).astype(np.float32)
    for name, column in CATALOG.positions(stage).items():
        np.testing.assert_allclose(
            found[:, column], wanted[:, column], rtol=1.2e-7, atol=0, equal_nan=True, err_msg=name
        )


def blobs(profiles: Profiles) -> dict[bytes, bytes]:
    """Return every row's blob."""
    return dict(zip(*profiles._export(np.flatnonzero(profiles._state.headers["hash"])), strict=True))


def test_every_aggregate_has_an_oracle() -> None:
    """No aggregate goes unchecked, and the catalog uses each."""
    used = {f.aggregate if isinstance(f.aggregate, type) else type(f.aggregate) for f in CATALOG.features}
    assert set(ORACLES) == set(AGGREGATES) == used


@pytest.mark.parametrize("catalog", [SCANNED, SUMMED], ids=["scanned", "summed"])
@pytest.mark.parametrize("stage", STAGES)
@settings(max_examples=120, deadline=None)
@given(drawn=EVENTS)
def test_features_equal_the_oracle(catalog: Catalog, stage: str, drawn: list[tuple[int, ...]]) -> None:
    """Every base feature of every event is what the naive oracle says."""
    events = to_events(drawn, stage)
    found = Profiles(stage, catalog).update(events)
    assert_same(found, NaiveProfiles(stage, catalog.stage_features(stage)).update(events), stage)


@pytest.mark.parametrize("catalog", [SCANNED, SUMMED, Catalog(levels=Levels(1, 2, 1, 1))], ids=["scan", "sum", "tiny"])
@pytest.mark.parametrize("stage", STAGES)
@settings(max_examples=60, deadline=None)
@given(drawn=EVENTS, cuts=st.lists(st.integers(0, 80), max_size=4), restored=st.booleans())
def test_batch_splits_and_recovery_change_nothing(
    catalog: Catalog, stage: str, drawn: list[tuple[int, ...]], cuts: list[int], *, restored: bool
) -> None:
    """Features and rows are bit-identical, however the stream is cut, and if a new process goes on at each cut."""
    events = to_events(drawn, stage)
    whole = Profiles(stage, catalog)
    expected = whole.update(events)
    parts, profiles = [], Profiles(stage, catalog)
    for part in np.split(events, sorted(min(cut, len(events)) for cut in cuts)):
        parts.append(profiles.update(part))
        if restored:
            kept = blobs(profiles)
            profiles = Profiles(stage, catalog)
            profiles.restore(list(kept), list(kept.values()))
    assert np.concatenate(parts).tobytes() == expected.tobytes()
    assert blobs(profiles) == blobs(whole)


@settings(max_examples=40, deadline=None)
@given(
    marks=st.lists(
        st.tuples(st.integers(1, 2), st.sampled_from(FRAUD_TYPES), st.sampled_from((1, 1, -1)), st.integers(0, 9999)),
        max_size=12,
    )
)
def test_markers_count_up_and_down(marks: list[tuple[int, str, int, int]]) -> None:
    """Markers by type, of all types, and their recency follow registrations and cancellations."""
    profiles = Profiles("receiver")
    naive = NaiveProfiles("receiver", CATALOG.stage_features("receiver"))
    for key, fraud_type, delta, offset in marks:
        profiles.mark(np.array([key], np.uint64), fraud_type, delta, np.array([START_MS + offset]))
        naive.mark(key, fraud_type, delta, START_MS + offset)
    events = np.zeros(2, EVENT_DTYPE)
    events["key"], events["other"], events["timestamp"], events["wants_features"] = (1, 2), 9, START_MS + 5000, 1
    assert_same(profiles.update(events), naive.update(events), "receiver")

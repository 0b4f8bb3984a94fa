"""Drift against a training window: chance raises no more alarms than is stated, and what has changed is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from models.drift.against_training import Bars, compare
from models.drift.reference import Column, DriftError, Reference, Sample
from models.drift.stability import chi_square_quantile, equal_rows, informed_rows, psi, psi_of_chance
from tables.layout import DAY_MS, HOUR_MS

NAMES = tuple(f"{kind}_{number}" for kind in ("smooth", "flag", "count", "mostly_zero", "rare") for number in range(8))
NO_FLOORS = Bars(psi=0.0, missing=1e-9)


def payments(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Features of the kinds that there are, 2 % of them missing."""
    matrix = rng.exponential(1.0, (n, len(NAMES)))
    matrix[:, 8:16] = rng.random((n, 8)) < 0.01
    matrix[:, 16:24] = rng.poisson(0.3, (n, 8))
    matrix[:, 24:32][rng.random((n, 8)) < 0.9] = 0.0
    matrix[:, 32:40][rng.random((n, 8)) < 0.995] = 0.0
    matrix[rng.random(matrix.shape) < 0.02] = np.nan
    return matrix.astype(np.float32)


def sample(matrix: NDArray[Any], weights: NDArray[np.float64] | None = None) -> Sample:
    """Columns by their kinds, at times that do not matter."""
    return Sample(NAMES[: matrix.shape[1]], matrix, np.arange(len(matrix), dtype=np.int64), weights)


@pytest.mark.parametrize(("alarm_rate", "most"), [(0.01, 0.03), (0.2, 0.25)])
def test_chance_raises_no_more_alarms_than_stated(alarm_rate: float, most: float) -> None:
    """Of all columns together, without the floors; and at a high rate some, so the bar is no wall."""
    rng = np.random.default_rng(7)
    looks = alarms = 0
    for _ in range(10):
        reference = Reference.of("x", [sample(payments(10_000, rng))])
        for _ in range(20):
            looks += 1
            alarms += bool(
                compare(reference, [sample(payments(1_500, rng))], NO_FLOORS._replace(alarm_rate=alarm_rate)).alarms
            )
    assert alarms / looks <= most
    assert alarm_rate < 0.1 or alarms / looks > 0.03


def test_the_distribution_of_chance_is_the_closed_form() -> None:
    """Mean and upper tail of the simulated PSI of an unchanged column, against chi-square."""
    rng = np.random.default_rng(3)
    shares = np.full(10, 0.1)
    n, m = 2_000, 10_000
    found = np.array(
        [psi(rng.multinomial(m, shares) / m, m, rng.multinomial(n, shares).astype(np.float64)) for _ in range(4_000)]
    )
    assert found.mean() == pytest.approx(9 * (1 / n + 1 / m), rel=0.03)
    for chance in (0.2, 0.05, 0.01):
        assert (found > psi_of_chance(9, n, m, chance)).mean() == pytest.approx(chance, abs=3 * (chance / 4_000) ** 0.5)


def test_quantiles_are_those_of_the_tables() -> None:
    """Chi-square, odd and even degrees of freedom, far into the tail (SciPy's values)."""
    for chance, freedom, value in (
        (0.05, 1, 3.8414588),
        (0.01, 9, 21.665994),
        (2.5e-5, 1, 17.764536),
        (1e-6, 10, 46.863),
    ):
        assert chi_square_quantile(chance, freedom) == pytest.approx(value, rel=1e-4)


def test_weighted_rows_know_less_than_their_number() -> None:
    """Sampled honest payments of weight 20 among frauds of weight 1: the false alarm rate holds for them too."""
    rng = np.random.default_rng(5)
    alarms, looks = 0, 150
    for _ in range(looks):
        # The population: 2 % frauds, in which the feature is larger. Honest rows are kept at 5 %.
        frauds = rng.random(60_000) < 0.02
        kept = frauds | (rng.random(60_000) < 0.05)
        values = np.where(frauds, 2.0, 0.0) + rng.normal(size=60_000)
        weights = np.where(frauds, 1.0, 20.0)[kept]
        reference = Reference.of("x", [sample(values[kept][:, None], weights)])
        now = np.where(rng.random(5_000) < 0.02, 2.0, 0.0) + rng.normal(size=5_000)
        alarms += bool(compare(reference, [sample(now[:, None])], NO_FLOORS._replace(alarm_rate=0.1)).alarms)
        assert 0.5 * kept.sum() < reference.columns[0].rows < kept.sum()
    assert 0 < alarms / looks < 0.13  # 5 % are of PSI, the rest of missing values, of which there are none


@given(arrays.arrays(np.float64, st.integers(2, 30), elements=st.floats(0.1, 50.0)))
def test_rows_of_equal_weight_are_counted(weights: NDArray[np.float64]) -> None:
    """And never more than counted for unequal ones."""
    ones = np.ones(len(weights))
    assert informed_rows(ones, ones) == pytest.approx(len(weights))
    assert equal_rows(ones) == len(weights)
    assert equal_rows(weights) <= len(weights) + 1e-9


# -- what has changed


def test_a_shift_of_one_feature_is_found_and_named() -> None:
    """And nothing else."""
    rng = np.random.default_rng(11)
    reference = Reference.of("x", [sample(payments(20_000, rng))])
    now = payments(3_000, rng)
    now[:, 3] *= 2.0
    found = compare(reference, [sample(now)])
    assert [each.name for each in found.alarms] == ["smooth_3"]
    assert found.findings[0].name == "smooth_3"
    assert found.findings[0].verdict == "shifted"
    assert found.alarm_rate == 0.01
    assert len(found.findings) == len(NAMES)


def test_values_that_were_never_seen_are_found() -> None:
    """Of a constant, of a flag that takes a third value, and of a rare one that becomes common."""
    rng = np.random.default_rng(12)
    before = payments(20_000, rng)
    before[:, 0] = 1.0
    reference = Reference.of("x", [sample(before)])
    now = payments(3_000, rng)
    now[:, 0] = np.where(rng.random(3_000) < 0.1, 0.0, 1.0)
    now[:, 8] = np.where(rng.random(3_000) < 0.1, 7.0, now[:, 8])
    now[:, 32] = np.where(rng.random(3_000) < 0.2, 3.0, now[:, 32])
    assert sorted(each.name for each in compare(reference, [sample(now)]).alarms) == ["flag_0", "rare_0", "smooth_0"]


def test_missing_values_are_found_apart_from_the_others() -> None:
    """A jump, all of a column, and values where there were none; what is there has not changed."""
    rng = np.random.default_rng(13)
    before = payments(20_000, rng)
    before[:, 2] = np.nan
    reference = Reference.of("x", [sample(before)])
    now = payments(3_000, rng)
    now[rng.random(3_000) < 0.15, 0] = np.nan
    now[:, 1] = np.nan
    found = {each.name: each for each in compare(reference, [sample(now)]).alarms}
    assert {name: each.verdict for name, each in found.items()} == {
        "smooth_0": "more missing", "smooth_1": "more missing", "smooth_2": "less missing",
    }  # fmt: skip
    assert found["smooth_0"].missing_before == pytest.approx(0.02, abs=0.01)
    assert found["smooth_0"].missing_now == pytest.approx(0.167, abs=0.03)


def test_what_is_certain_but_small_raises_no_alarm() -> None:
    """A shift that chance cannot explain, with a PSI below 0.1; without the floor it would."""
    rng = np.random.default_rng(14)
    reference = Reference.of("x", [sample(rng.normal(size=(60_000, 1)))])
    now = [sample(rng.normal(size=(60_000, 1)) + 0.1)]
    assert not compare(reference, now).alarms
    assert compare(reference, now, NO_FLOORS).alarms


def test_too_few_payments_say_nothing() -> None:
    """Neither a window nor a column with few values; what is not in the reference is passed over."""
    rng = np.random.default_rng(15)
    reference = Reference.of("x", [sample(payments(5_000, rng))])
    assert compare(reference, [sample(payments(499, rng))]).findings == []
    now = payments(1_000, rng) * 5
    now[300:, 0] = np.nan
    first = {each.name: each for each in compare(reference, [sample(now)]).findings}["smooth_0"]
    assert np.isnan(first.psi)
    assert not first.shifted
    assert first.verdict == "more missing"
    assert compare(reference, [Sample(("unknown",), now[:, :1], np.arange(1_000))]).findings == []
    with pytest.raises(DriftError, match="expected payments"):
        Reference.of("x", [sample(payments(0, rng))])


def daily(days: int, rng: np.random.Generator, per_hour: int = 300) -> Sample:
    """A feature that swings with the hour of the day, for so many days."""
    times = np.arange(days * 24 * per_hour, dtype=np.int64) * (HOUR_MS // per_hour)
    swing = np.sin(2 * np.pi * times / DAY_MS)
    return Sample(("swinging",), (swing + rng.normal(size=len(times)))[:, None], times)


def test_what_every_day_brings_is_no_drift() -> None:
    """An hour of the night differs from the whole window as much as any such hour did; more than that is an alarm."""
    rng = np.random.default_rng(16)
    reference = Reference.of("x", [daily(8, rng)])
    day = daily(1, rng)
    hours = [Sample(day.names, day.matrix[at : at + 900], day.times[at : at + 900]) for at in range(0, 7_200, 900)]
    independent = replace(reference, columns=tuple(replace(each, strayed={}) for each in reference.columns))
    assert sum(bool(compare(independent, [hour]).alarms) for hour in hours) >= 4
    assert sum(bool(compare(reference, [hour]).alarms) for hour in hours) == 0
    assert not compare(reference, [day]).alarms
    # A whole day is held to what whole days did, so less of a shift is seen in it.
    assert compare(reference, [day._replace(matrix=day.matrix + 0.6)]).alarms
    assert set(reference.columns[0].strayed) == {HOUR_MS, 6 * HOUR_MS, DAY_MS}
    assert reference.columns[0].strayed[DAY_MS][0] < 0.05 < reference.columns[0].strayed[HOUR_MS][0]


# -- bins and bytes


@given(arrays.arrays(np.float32, st.integers(1, 200), elements=st.floats(-10, 10, width=32) | st.just(float("nan"))))
def test_bins_are_those_of_a_naive_search(values: NDArray[np.float32]) -> None:
    """Each value lies in the bin that its edges say, shares add up, and few values are told apart."""
    column = Column.of("any", values, np.ones(len(values)), np.arange(len(values)), 10)
    present = values[~np.isnan(values)]
    places = column.places(present)
    for value, place in zip(present.tolist(), places.tolist(), strict=True):
        assert column.bins[sum(edge < value for edge in column.edges.tolist())] == place
    if len(present):
        assert column.shares.sum() == pytest.approx(1.0)
        assert np.allclose(column.shares * len(present), np.bincount(places, minlength=len(column.shares)))
    if 0 < len(set(present.tolist())) <= 10:
        assert all(len(set(present[places == place].tolist())) == 1 for place in set(places.tolist()))
    assert column.missing == pytest.approx(np.isnan(values).mean())


def test_bytes_bring_all_of_it_back() -> None:
    """Compact, and anything else is refused."""
    rng = np.random.default_rng(17)
    reference = Reference.of("f00d", [sample(payments(20_000, rng)), daily(3, rng)])
    packed = reference.to_bytes()
    assert len(packed) < 200 * (len(NAMES) + 1)
    again = Reference.from_bytes(packed)
    assert again.to_bytes() == packed
    now = sample(payments(2_000, rng))
    assert compare(again, [now]) == compare(reference, [now])
    for bad in (b"", b"PXGR1", packed[:-5], b"PXGR1" + packed[9:], b"no" + packed):
        with pytest.raises(DriftError, match="reference: expected"):
            Reference.from_bytes(bad)

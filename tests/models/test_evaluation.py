"""Metrics are exact: equal to scikit-learn, and to the obvious loops, ties and weights included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from models.quality.evaluation import (
    average_precision,
    bootstrap_difference,
    bootstrap_interval,
    brier_score,
    calibration_bins,
    expected_calibration_error,
    log_loss,
    precision_at,
    precision_recall_curve,
    recall_at,
    value_recall_at,
)

Rows = list[tuple[int, int, int]]

rows = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 1]), st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=40
).filter(lambda some: any(label for label, _, _ in some))
"""Label, score (few levels: ties are the rule) and weight."""


def _columns(some: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    labels, scores, weights = (np.array(column) for column in zip(*some, strict=True))
    return labels, scores / 7.0, weights.astype(np.float64)


@given(rows)
def test_average_precision_is_that_of_scikit_learn(some: Rows) -> None:
    """With ties and weights."""
    labels, scores, weights = _columns(some)
    assert average_precision(labels, scores, weights) == pytest.approx(
        metrics.average_precision_score(labels, scores, sample_weight=weights), abs=1e-12
    )


@given(rows)
def test_the_curve_is_that_of_scikit_learn(some: Rows) -> None:
    """Point by point, in the other direction and without its last point."""
    labels, scores, weights = _columns(some)
    curve = precision_recall_curve(labels, scores, weights)
    precision, recall, thresholds = metrics.precision_recall_curve(labels, scores, sample_weight=weights)
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1])
    np.testing.assert_allclose(curve.thresholds, thresholds[::-1])


@given(rows, st.floats(0.01, 1.0))
def test_a_budget_of_alerts_is_spent_from_the_worst_score_on(some: Rows, share: float) -> None:
    """Against a loop that spends it score by score, and shares it out among equals."""
    labels, scores, weights = _columns(some)
    amounts = np.arange(len(labels)) + 1.0
    budget = share * weights.sum()
    caught = money = spent = 0.0
    for score in sorted(set(scores.tolist()), reverse=True):
        group = scores == score
        part = min(1.0, max(0.0, (budget - spent) / weights[group].sum()))
        spent += part * weights[group].sum()
        caught += part * (labels * weights)[group].sum()
        money += part * (labels * weights * amounts)[group].sum()
    frauds = (labels * weights).sum()
    assert recall_at(labels, scores, share, weights) == pytest.approx(caught / frauds)
    assert precision_at(labels, scores, share, weights) == pytest.approx(caught / budget)
    whole = (labels * weights * amounts).sum()
    assert value_recall_at(labels, scores, amounts, share, weights) == pytest.approx(money / whole)


@given(rows)
def test_a_weight_counts_as_so_many_rows(some: Rows) -> None:
    """Weighted metrics are those of the rows repeated."""
    labels, scores, weights = _columns(some)
    times = weights.astype(int)
    many = np.repeat(labels, times), np.repeat(scores, times)
    for metric in (average_precision, brier_score, log_loss, expected_calibration_error):
        assert metric(labels, scores, weights) == pytest.approx(metric(*many), abs=1e-9)


@given(rows)
def test_losses_are_those_of_scikit_learn(some: Rows) -> None:
    """Brier score and log loss."""
    labels, scores, weights = _columns(some)
    chances = 0.05 + 0.9 * scores
    expected = metrics.brier_score_loss(labels, chances, sample_weight=weights)
    assert brier_score(labels, chances, weights) == pytest.approx(expected)
    expected = metrics.log_loss(labels, chances, sample_weight=weights, labels=[0, 1])
    assert log_loss(labels, chances, weights) == pytest.approx(expected)


@given(rows, st.randoms())
def test_no_metric_depends_on_the_order_of_rows(some: Rows, random: np.random.Generator) -> None:
    """A shuffle changes nothing."""
    labels, scores, weights = _columns(some)
    order = list(range(len(some)))
    random.shuffle(order)
    for metric in (average_precision, expected_calibration_error):
        shuffled = metric(labels[order], scores[order], weights[order])
        assert metric(labels, scores, weights) == pytest.approx(shuffled, abs=1e-12)


def test_calibration_bins_hold_equal_mass() -> None:
    """Each tells what was promised and what happened."""
    chances = np.linspace(0.0, 1.0, 1_000)
    labels = (np.arange(1_000) % 4 == 0).astype(int)
    means, rates, masses = calibration_bins(labels, chances, bins=10)
    assert masses.tolist() == [100.0] * 10
    np.testing.assert_allclose(rates, 0.25)
    np.testing.assert_allclose(means, np.arange(10) * 0.1 + 0.05, atol=0.001)
    error = expected_calibration_error(labels, chances, bins=10)
    assert error == pytest.approx(np.abs(means - 0.25).mean())


def test_honest_probabilities_have_little_error_and_exaggerated_ones_much() -> None:
    """On rare frauds."""
    rng = np.random.default_rng(1)
    chances = rng.beta(0.3, 20.0, 50_000)
    labels = rng.random(50_000) < chances
    honest = expected_calibration_error(labels, chances)
    assert honest < 0.003
    assert expected_calibration_error(labels, np.minimum(4.0 * chances, 1.0)) > 10 * honest


def test_the_interval_covers_as_often_as_it_promises() -> None:
    """A mean's 90 % interval misses in about a tenth of 200 trials."""
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        sample = rng.normal(3.0, 1.0, 60)
        interval = bootstrap_interval(
            lambda some: float(some.mean()), sample, seed=trial, resamples=120, confidence=0.9
        )
        assert interval.low <= interval.estimate <= interval.high
        covered += interval.low <= 3.0 <= interval.high
    assert 165 <= covered <= 192


def test_the_same_seed_gives_the_same_interval() -> None:
    """And another seed another one."""
    rng = np.random.default_rng(2)
    labels, scores = rng.random(300) < 0.1, rng.random(300)
    first, again, other = (bootstrap_interval(average_precision, labels, scores, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    """Two scores that differ little, but always in one direction, can be told apart on the same rows."""
    rng = np.random.default_rng(3)
    labels = rng.random(4_000) < 0.05
    good = rng.normal(0.0, 1.0, 4_000) + 2.0 * labels
    better = good + 0.4 * labels
    difference = bootstrap_difference(average_precision, labels, good, better, seed=1)
    alone = bootstrap_interval(average_precision, labels, good, seed=1)
    assert difference.low > 0
    assert difference.high - difference.low < alone.high - alone.low
    same = bootstrap_difference(average_precision, labels, good, good, seed=1)
    assert same == (0.0, 0.0, 0.0)


def test_what_cannot_be_measured_is_nan_or_told() -> None:
    """Without a fraud there is no recall; a missing score is a mistake."""
    assert np.isnan(average_precision([0, 0], [0.1, 0.2]))
    assert np.isnan(average_precision([], []))
    assert np.isnan(recall_at([0, 0], [0.1, 0.2], 0.5))
    with pytest.raises(ValueError, match="1 missing"):
        average_precision([0, 1], [0.1, np.nan])
    with pytest.raises(ValueError, match="share of alerts"):
        recall_at([0, 1], [0.1, 0.2], 0.0)

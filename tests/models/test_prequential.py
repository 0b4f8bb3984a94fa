"""The window of matured labels: metrics, calibration, and the weight that the online model has earned."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.online.prequential import (
    BLEND_MOST,
    PrequentialWindow,
    Seen,
    blend_log_odds,
    calibrate,
    earned_weight,
    log_odds,
)
from models.quality.evaluation import average_precision, log_loss, recall_at


def _sigmoid(values: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401
    return 1.0 / (1.0 + np.exp(-np.asarray(values, np.float64)))


def _seen(seed: int, n: int = 8000, *, online_noise: float = 1.0, base_noise: float = 1.0) -> Seen:
    """Both models see the true log-odds, each through noise of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-4.0, 1.5, n)
    labels = (rng.random(n) < _sigmoid(truth)).astype(np.float64)
    outputs = truth + rng.normal(0, online_noise, n)
    base = _sigmoid(truth + rng.normal(0, base_noise, n))
    return Seen(labels, np.ones(n), outputs, _sigmoid(outputs), base, np.ones(n))


@given(st.integers(1, 30), st.integers(0, 80))
def test_the_window_keeps_the_last_rows_in_order(size: int, n: int) -> None:
    """Whatever its size, against a list."""
    window = PrequentialWindow(size)
    for number in range(n):
        window.add(number % 2, 1.0 + number, float(number), 0.5, 0.25, number % 3)
    kept = range(max(0, n - size), n)
    assert window.seen.outputs.tolist() == [float(number) for number in kept]
    assert window.seen.labels.tolist() == [float(number % 2) for number in kept]
    assert window.seen.weights.tolist() == [1.0 + number for number in kept]
    assert window.seen.batch.tolist() == [float(number % 3) for number in kept]


def test_metrics_are_those_of_evaluation() -> None:
    """Of the online model, of the base, and of the blend, in which each row has the weight of its kind."""
    seen = _seen(1, 600)
    window = PrequentialWindow(600)
    batch = np.arange(600) % 2
    weights = 1.0 + np.arange(600) % 3
    for row in zip(seen.labels, weights, seen.outputs, seen.online, seen.base, batch, strict=True):
        window.add(*map(float, row))
    found = window.metrics(0.4, 0.1)
    blended = [
        _sigmoid(blend_log_odds(base, online, 0.4 if by_batch else 0.1))
        for base, online, by_batch in zip(seen.base, seen.online, batch, strict=True)
    ]
    for name, chances in (("online", seen.online), ("base", seen.base), ("blend", np.array(blended))):
        assert found[f"{name}_average_precision"] == pytest.approx(average_precision(seen.labels, chances, weights))
        assert found[f"{name}_log_loss"] == pytest.approx(log_loss(seen.labels, chances, weights))
        assert found[f"{name}_recall_at_1pct"] == pytest.approx(recall_at(seen.labels, chances, 0.01, weights))
    assert (found["window_labels"], found["window_positives"]) == (600, seen.labels.sum())
    assert found["batch_share"] == 0.5


def test_an_empty_window_tells_nothing() -> None:
    """But it can be asked."""
    assert PrequentialWindow(5).metrics(0.5, 0.5) == {"window_labels": 0.0, "window_positives": 0.0}


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.floats(0, 1))
def test_a_blend_lies_between_its_parts(base: float, online: float, weight: float) -> None:
    """At weight 0 it is the base, at 1 the online model."""
    blended = float(blend_log_odds(base, online, weight))
    low, high = sorted((math.log(base / (1 - base)), math.log(online / (1 - online))))
    assert low - 1e-9 <= blended <= high + 1e-9
    assert float(blend_log_odds(base, online, 0.0)) == pytest.approx(float(log_odds(base)))


def test_log_odds_of_certainty_are_finite() -> None:
    """A leaf, or a batch model, may say 0 or 1."""
    assert np.isfinite(log_odds([0.0, 1.0])).all()


def test_until_frauds_have_come_the_sampling_alone_is_put_right() -> None:
    """Who was taught every tenth honest payment sees odds ten times too high."""
    seen = _seen(2, 100)
    few = Seen(np.zeros(100), *seen[1:])
    calibration = calibrate(few, 0.1)
    odds = 3.0
    chance = float(calibration.apply([math.log(odds)])[0])
    assert chance / (1 - chance) == pytest.approx(0.3)


def test_the_calibration_puts_right_what_the_window_shows() -> None:
    """Outputs that are shifted and stretched come back to the true rate, by weight."""
    seen = _seen(3, 20_000, online_noise=0.0)
    wrong = seen._replace(outputs=2.0 * seen.outputs + 3.0)
    calibration = calibrate(wrong, 1.0)
    assert calibration.slope == pytest.approx(0.5, rel=0.1)
    assert calibration.apply(wrong.outputs).mean() == pytest.approx(seen.labels.mean(), rel=0.02)
    doubled = wrong._replace(weights=np.where(wrong.labels > 0, 2.0, 1.0))
    mean = np.average(calibrate(doubled, 1.0).apply(wrong.outputs), weights=doubled.weights)
    assert mean == pytest.approx(np.average(seen.labels, weights=doubled.weights), rel=0.02)


def test_a_better_model_earns_weight() -> None:
    """And no more than the bound, however good it is."""
    assert earned_weight(_seen(4, online_noise=0.1, base_noise=3.0)) == pytest.approx(BLEND_MOST)
    assert 0.0 < earned_weight(_seen(5), 1.0) < 1.0
    assert earned_weight(_seen(5), 0.2) == pytest.approx(0.2)


def test_the_earned_weight_loses_least() -> None:
    """Against a search that goes through all weights by hand."""
    seen = _seen(6, 3000)
    losses = {
        weight: log_loss(seen.labels, _sigmoid(blend_log_odds(seen.base, seen.online, weight)))
        for weight in np.linspace(0.0, BLEND_MOST, 15)
    }
    assert earned_weight(seen) == min(losses, key=lambda weight: losses[weight])


def test_noise_earns_nothing() -> None:
    """An online model that knows nothing of the truth gets weight in few windows, by chance."""
    earned = []
    for seed in range(40):
        seen = _seen(seed, 3000, base_noise=0.0)
        odds = log_odds(seen.base)
        # The truth, with noise of its own on top: no blend is better, but in a window some weight looks so.
        noisy = _sigmoid(odds + np.random.default_rng(1000 + seed).normal(0, 0.5, len(odds)))
        earned.append(earned_weight(seen._replace(online=noisy)) > 0)
    assert np.mean(earned) <= 0.2


def test_few_frauds_earn_nothing() -> None:
    """However well they were told."""
    seen = _seen(7, online_noise=0.0, base_noise=3.0)
    frauds = np.flatnonzero(seen.labels)[:24]
    chosen = (seen.labels == 0) | np.isin(np.arange(len(seen.labels)), frauds)
    assert earned_weight(seen.where(chosen)) == 0.0
    assert earned_weight(seen.where(seen.labels < 0)) == 0.0

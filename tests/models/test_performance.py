"""Performance before labels is what labels then say, where probabilities keep their word; and where not, it is told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.drift.performance import calibration_gap, expected_performance, realised_performance
from models.quality.evaluation import average_precision, log_loss, precision_at, recall_at


def payments(n: int, seed: int, *, spread: float = 2.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Calibrated probabilities, some 3 % on average, and labels that come of them."""
    rng = np.random.default_rng(seed)
    chances = 1.0 / (1.0 + np.exp(-rng.normal(-5.0, spread, n)))
    return chances, rng.random(n) < chances


def test_the_estimate_is_what_will_be_realised() -> None:
    """Of calibrated probabilities: within the interval as often as stated, and without a bias."""
    inside: dict[str, list[bool]] = {}
    errors: dict[str, list[float]] = {}
    for seed in range(60):
        chances, labels = payments(3_000, seed)
        estimated = expected_performance(chances, seed=seed)
        realised = realised_performance(labels, chances, seed=seed, resamples=0)
        assert set(estimated) == set(realised) - {"calibration_error"}
        for name, told in estimated.items():
            came = realised[name].estimate
            inside.setdefault(name, []).append(told.low <= came <= told.high)
            errors.setdefault(name, []).append((came - told.estimate) / (told.high - told.low) * 4)
    for name, hits in inside.items():
        assert np.mean(hits) >= 0.85, name  # 95 % stated; three standard errors below it
        assert abs(np.mean(errors[name])) < 3.5 / 60**0.5, name  # in standard deviations


def test_each_draw_is_measured_as_evaluation_measures() -> None:
    """With certain probabilities all draws are one: the metrics of models.evaluation, equal scores included."""
    rng = np.random.default_rng(4)
    labels = rng.random(900) < 0.1
    found = expected_performance(labels.astype(np.float64), seed=1, draws=3)
    assert found["average_precision"].estimate == average_precision(labels, labels)
    assert found["recall_at_1pct"].estimate == pytest.approx(recall_at(labels, labels, 0.01))
    assert found["precision_at_1pct"].estimate == pytest.approx(precision_at(labels, labels, 0.01))
    assert found["log_loss"].estimate == pytest.approx(log_loss(labels, labels), abs=1e-6)
    # Two groups of equal scores, where the budget ends in the first: on average what is expected of a random choice.
    chances = np.repeat([0.5, 0.01], [100, 900])
    found = expected_performance(chances, seed=2, draws=2_000)
    assert found["precision_at_1pct"].estimate == pytest.approx(0.5, abs=0.01)
    assert found["recall_at_1pct"].estimate == pytest.approx(5 / 59, rel=0.03)
    assert found["fraud_share"].estimate == pytest.approx(0.059, abs=0.001)


def test_overconfident_probabilities_are_found_out() -> None:
    """The estimate believes them and is too good; what has matured says so."""
    chances, labels = payments(6_000, 5)
    odds = np.log(chances / (1.0 - chances))
    overconfident = 1.0 / (1.0 + np.exp(-(1.8 * odds + 5.0)))
    estimated = expected_performance(overconfident, seed=1)
    realised = realised_performance(labels, overconfident, seed=1, resamples=50)
    assert estimated["average_precision"].low > realised["average_precision"].estimate
    assert estimated["log_loss"].high < realised["log_loss"].estimate
    assert realised["calibration_error"].estimate > 0.02
    gap = calibration_gap(labels, overconfident)
    assert gap.came == labels.sum()
    assert gap.expected == pytest.approx(overconfident.sum())
    assert gap.deviations < -5
    assert not gap.holds


def test_calibrated_probabilities_seldom_raise_a_doubt() -> None:
    """In one of a hundred stretches, weighted ones too."""
    doubts = 0
    for seed in range(100):
        chances, labels = payments(2_000, 1_000 + seed)
        kept = labels | (np.random.default_rng(seed).random(2_000) < 0.2)
        weights = np.where(labels, 1.0, 5.0)[kept]
        doubts += not calibration_gap(labels[kept], chances[kept], weights).holds
        doubts += not calibration_gap(labels, chances).holds
    assert doubts <= 8


def test_what_cannot_be_said_is_not() -> None:
    """Without payments, without a fraud, or with a score missing."""
    assert expected_performance([], seed=1) == {}
    assert realised_performance(np.zeros(10), np.linspace(0, 1, 10), seed=1) == {}
    assert expected_performance(np.zeros(600), seed=1)["log_loss"].estimate == pytest.approx(0.0, abs=1e-9)
    assert "recall_at_1pct" not in expected_performance(np.zeros(600), seed=1)
    assert set(realised_performance([0, 1], [3.0, 9.0], probabilities=False, seed=1, resamples=5)) == {
        "average_precision", "recall_at_1pct", "precision_at_1pct", "fraud_share",
    }  # fmt: skip
    assert calibration_gap([], []).deviations == 0.0
    with pytest.raises(ValueError, match="got 1 missing"):
        expected_performance([0.5, np.nan], seed=1)

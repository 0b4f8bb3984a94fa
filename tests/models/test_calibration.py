"""Calibrated probabilities keep their word, and no ranking changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from models.calibration import (
    Calibration,
    CalibrationError,
    fit_calibration,
    fit_isotonic,
    fit_logistic,
    pool_adjacent,
)
from models.quality.evaluation import expected_calibration_error, log_loss

Sample = tuple[NDArray[np.float64], NDArray[np.int64]]


def _sample(seed: int, slope: float = 0.5, intercept: float = -2.0, n: int = 20_000) -> Sample:
    """Outputs of a model that is too sure of itself, and what happened."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(-4.0, 3.0, n)
    chances = 1.0 / (1.0 + np.exp(-(slope * outputs + intercept)))
    return outputs, (rng.random(n) < chances).astype(np.int64)


def test_the_logistic_map_is_that_of_greatest_likelihood() -> None:
    """Equal to scikit-learn's without penalty, but for Platt's smoothing; the truth is near."""
    outputs, labels = _sample(1)
    found = fit_logistic(outputs, labels)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(outputs[:, None], labels)
    assert found.slope == pytest.approx(float(reference.coef_[0, 0]), rel=0.01)
    assert found.intercept == pytest.approx(float(reference.intercept_[0]), rel=0.01)
    assert found.slope == pytest.approx(0.5, abs=0.06)


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 1]), st.integers(1, 3)), min_size=1, max_size=40))
def test_the_steps_are_those_of_scikit_learn(some: list[tuple[int, int, int]]) -> None:
    """Pooling adjacent violators, with ties and weights."""
    values, truth, mass = (np.array(column, np.float64) for column in zip(*some, strict=True))
    first, last, means = pool_adjacent(values, truth, mass)
    levels = np.unique(values)
    expected = IsotonicRegression().fit(values, truth, sample_weight=mass).predict(levels)
    np.testing.assert_allclose(means[np.searchsorted(last, levels)], expected, atol=1e-12)
    assert (first <= last).all()
    assert (first[1:] > last[:-1]).all()


@pytest.mark.parametrize("fit", [fit_logistic, fit_isotonic, fit_calibration])
def test_calibrated_probabilities_keep_their_word(fit: type[Calibration]) -> None:
    """On rows that they were not fitted to, the error falls to a fraction."""
    calibration = fit(*_sample(1))
    outputs, labels = _sample(2)
    raw = 1.0 / (1.0 + np.exp(-outputs))
    assert expected_calibration_error(labels, calibration.apply(outputs)) < 0.01
    assert expected_calibration_error(labels, raw) > 0.03


def test_the_shape_is_chosen_by_the_data() -> None:
    """Where the logistic form is right it is taken; where the truth has a step, the isotonic one is."""
    assert fit_calibration(*_sample(1)).kind == "logistic"
    rng = np.random.default_rng(4)
    outputs = rng.uniform(-3.0, 3.0, 20_000)
    chances = np.where(outputs > 1.0, 0.6, 0.01)
    labels = (rng.random(20_000) < chances).astype(np.int64)
    chosen = fit_calibration(outputs, labels)
    assert chosen.kind == "isotonic"
    assert log_loss(labels, chosen.apply(outputs)) < log_loss(labels, fit_logistic(outputs, labels).apply(outputs))


@given(st.lists(st.tuples(st.floats(-6, 6), st.booleans()), min_size=4, max_size=60))
def test_no_ranking_changes(some: list[tuple[float, bool]]) -> None:
    """Every map rises, within its data and beyond."""
    outputs, labels = (np.array(column, np.float64) for column in zip(*some, strict=True))
    if not 0 < labels.sum() < len(labels):
        return
    points = np.linspace(-8.0, 8.0, 400)
    for fit in (fit_logistic, fit_isotonic):
        chances = fit(outputs, labels).apply(points)
        assert (np.diff(chances) >= 0).all()
        assert (chances >= 0).all()
        assert (chances <= 1).all()


def test_a_real_map_rises_strictly() -> None:
    """So calibration makes no ties at the top, where alerts come from."""
    outputs, labels = _sample(3)
    for fit in (fit_logistic, fit_isotonic):
        chances = fit(outputs, labels).apply(np.sort(outputs))
        assert (np.diff(chances) > 0).all()


def test_weights_count_as_so_many_rows() -> None:
    """Both fits."""
    outputs, labels = _sample(5, n=400)
    times = np.random.default_rng(1).integers(1, 4, 400)
    points = np.linspace(-10.0, 3.0, 50)
    for fit in (fit_logistic, fit_isotonic):
        weighted = fit(outputs, labels, times).apply(points)
        np.testing.assert_allclose(
            weighted, fit(np.repeat(outputs, times), np.repeat(labels, times)).apply(points), atol=1e-6
        )


def test_it_survives_being_written() -> None:
    """As JSON, exactly."""
    outputs, labels = _sample(6)
    for calibration in (Calibration(), fit_logistic(outputs, labels), fit_isotonic(outputs, labels)):
        assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


def test_what_cannot_be_is_told() -> None:
    """One class only, a falling map, and a description that is none."""
    with pytest.raises(CalibrationError, match="got 0 frauds of 2 rows"):
        fit_logistic([0.1, 0.2], [0, 0])
    with pytest.raises(CalibrationError, match="slope above 0"):
        Calibration("logistic", slope=-1.0)
    with pytest.raises(CalibrationError, match="rising"):
        Calibration("isotonic", knots=(1.0, 0.0), log_odds=(0.0, 1.0))
    with pytest.raises(CalibrationError, match="to_dict"):
        Calibration.from_dict({"kind": "logistic"})


def test_a_model_that_ranks_backwards_is_flattened() -> None:
    """Not turned round: the fault must stay visible."""
    outputs, labels = _sample(1)
    found = fit_logistic(-outputs, labels)
    assert 0 < found.slope < 1e-5

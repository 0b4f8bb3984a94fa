"""Draws of stretches of time: exact metrics, paired over scores, and wider where frauds come together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.quality.block_bootstrap import RANKING, Draws, Ranked, draw, mean_draws
from models.quality.evaluation import (
    average_precision,
    expected_calibration_error,
    log_loss,
    recall_at,
    value_recall_at,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(5, 300), st.integers(1, 40))
def test_metrics_are_those_of_the_rows_repeated(seed: int, n: int, levels: int) -> None:
    """With equal scores, weights, and rows that are drawn several times or not at all."""
    rng = np.random.default_rng(seed)
    labels, scores = rng.random(n) < 0.3, rng.integers(0, levels, n) / levels
    weights, amounts, copies = rng.random(n) + 0.1, rng.integers(1, 100, n), rng.integers(0, 4, n)
    found = Ranked(labels, scores, weights, amounts, probabilities=True).metrics(copies)
    rows = np.repeat(np.arange(n), copies)
    columns = labels[rows], scores[rows]
    if not labels[rows].any():
        assert np.isnan(found["average_precision"])
        return
    assert found["average_precision"] == pytest.approx(average_precision(*columns, weights[rows]))
    for share, name in ((0.005, "0.5pct"), (0.01, "1pct")):
        assert found[f"recall_at_{name}"] == pytest.approx(recall_at(*columns, share, weights[rows]))
        value = value_recall_at(*columns, amounts[rows], share, weights[rows])
        assert found[f"value_caught_at_{name}"] == pytest.approx(value)
    assert found["log_loss"] == pytest.approx(log_loss(*columns, weights[rows]))


def test_the_calibration_error_is_that_of_the_whole() -> None:
    """Bins are those of the stream as it was, in every draw."""
    rng = np.random.default_rng(1)
    chances = np.round(rng.random(2_000), 2)
    labels, weights = rng.random(2_000) < chances**2, rng.random(2_000) + 0.5
    found = Ranked(labels, chances, weights, np.ones(2_000), probabilities=True).metrics(np.ones(2_000))
    expected = expected_calibration_error(labels, chances, weights)
    assert expected > 0.1
    assert found["calibration_error"] == pytest.approx(expected, abs=1e-3)


def _drawn(seed: int = 1, *, together: bool = False, **scores: Any) -> dict[str, dict[str, Draws]]:  # noqa: ANN401
    """100 frauds among 4,000 payments, evenly spread or in ten bursts; of half of them the score knows."""
    n = 4_000
    rng = np.random.default_rng(2)
    places = (np.arange(10)[:, None] * 400 + np.arange(10)).ravel() if together else np.arange(0, n, 40)
    labels = np.zeros(n, np.bool_)
    labels[places] = True
    known = labels.copy()
    known[places[len(places) // 2 :]] = False
    made = {"one": known + 0.5 * rng.random(n), **scores}
    return draw(
        labels, made, np.arange(n) * 1_000, np.ones(n), np.ones(n), probabilities=(), seed=seed, resamples=100,
        stretches=100,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_draws() -> None:
    """Another gives others, of the same stream."""
    first, again, other = _drawn(1), _drawn(1), _drawn(2)
    for metric in RANKING:
        assert first["one"][metric].drawn.tobytes() == again["one"][metric].drawn.tobytes()
    assert first["one"]["average_precision"].drawn.tobytes() != other["one"]["average_precision"].drawn.tobytes()
    assert first["one"]["average_precision"].estimate == other["one"]["average_precision"].estimate


def test_frauds_that_come_together_are_less_certain() -> None:
    """Ten bursts tell less than a hundred frauds apart."""
    apart, together = (_drawn(together=flag)["one"]["average_precision"] for flag in (False, True))
    assert together.error > 2 * apart.error
    low, high = together.interval()[1:]
    assert low < together.estimate < high


def test_differences_are_paired() -> None:
    """A score and one that ranks alike differ by nothing in any draw."""
    found = _drawn(two=np.exp(_score()))
    difference = found["one"]["average_precision"] - found["two"]["average_precision"]
    assert difference.estimate == 0
    assert not difference.drawn.any()


def _score() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(2)
    known = np.zeros(4_000)
    known[np.arange(0, 4_000, 40)[:50]] = 1
    scores: np.ndarray[Any, Any] = known + 0.5 * rng.random(4_000)
    return scores


def test_streams_are_averaged_draw_by_draw() -> None:
    """So chance that moves one stream is halved by a second."""
    several = [_drawn(seed)["one"]["average_precision"] for seed in (1, 2, 3, 4)]
    mean = mean_draws(several)
    assert mean.estimate == pytest.approx(several[0].estimate)
    assert mean.error == pytest.approx(several[0].error / 2, rel=0.4)
    assert np.isnan(Draws(0.5, np.array([np.nan])).interval().low)

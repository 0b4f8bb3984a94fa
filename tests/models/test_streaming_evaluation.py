"""Living through a stream: the same scores each time, nothing from the future, and a weight that is earned."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.batch.training_set import STATE_DTYPE, UNKNOWN, TrainingSet, TrainingSetError
from models.quality.evaluation import average_precision
from models.quality.streaming import PROBABILITIES, SCORERS, LivedStream, StreamPlan, live_through
from tables.layout import HOUR_MS

FEATURES = 8
STEP_MS = 120_000
MATURITY_MS = 3 * HOUR_MS
PLAN = StreamPlan(seed=3, warm_up=0.5, publish_ms=HOUR_MS, retrain_ms=6 * HOUR_MS, rounds=12, honest_per_fraud=8.0)


@functools.cache
def _stream(seed: int = 1, n: int = 900) -> TrainingSet:
    """A payment every two minutes, one in ten a fraud that two features betray; a few labels are corrected later."""
    rng = np.random.default_rng(seed)
    vectors = rng.exponential(size=(n, FEATURES)).astype(np.float32)
    frauds = rng.random(n) < 0.1
    vectors[frauds, 2] += rng.exponential(3.0, int(frauds.sum()))
    vectors[frauds, 5] += rng.exponential(3.0, int(frauds.sum()))
    times = np.arange(n) * STEP_MS
    states = np.zeros(n, STATE_DTYPE)
    states["row"], states["known_at"], states["label"], states["weight"] = np.arange(n), times + MATURITY_MS, frauds, 1
    # Of some nothing is known at maturity, and of some it was wrong.
    states["label"][::50] = UNKNOWN
    later = states[::25].copy()
    later["known_at"] += 2 * HOUR_MS
    later["label"] = frauds[::25]
    return TrainingSet.build(
        "ab" * 8,
        [f"f{number}" for number in range(FEATURES)],
        vectors,
        states=np.concatenate([states, later]),
        labels=frauds,
        truth=frauds,
        event_time=times,
        known_at=times + MATURITY_MS,
        amounts=rng.integers(100, 10_000, n),
        rules_scores=rng.random(n),
        ids=[b"E%031d" % number for number in range(n)],
    )


@functools.cache
def _lived() -> LivedStream:
    return live_through(_stream(), PLAN)


def _same(first: LivedStream, second: LivedStream, rows: Any = slice(None)) -> bool:  # noqa: ANN401
    return all(first.scores[name][rows].tobytes() == second.scores[name][rows].tobytes() for name in SCORERS)


def test_every_payment_after_the_warm_up_is_scored_by_all() -> None:
    """And what learns finds more frauds than what does not."""
    lived = _lived()
    assert len(lived.rows) == 450
    assert tuple(lived.scores) == SCORERS
    for values in lived.scores.values():
        assert values.shape == (450,)
        assert np.isfinite(values).all()
    for name in PROBABILITIES:
        assert 0 <= lived.scores[name].min() <= lived.scores[name].max() <= 1
    areas = {name: average_precision(lived.rows.truth, values) for name, values in lived.scores.items()}
    assert min(areas[name] for name in PROBABILITIES) > 0.4
    assert max(areas["amount"], areas["rules"]) < 0.2


def test_the_same_plan_gives_the_same_scores() -> None:
    """To the byte; another seed gives others."""
    assert _same(live_through(_stream(), PLAN), _lived())
    other = live_through(_stream(), replace(PLAN, seed=4))
    assert not _same(other, _lived())


def test_what_becomes_known_later_changes_no_earlier_score() -> None:
    """Labels of which nobody knew at an instant may be anything: until then all scores are the same, to the byte."""
    stream = _stream()
    instant = int(stream.event_time[650])
    states = stream.states.copy()
    later = np.flatnonzero(states["known_at"] > instant)
    assert len(later) > 100
    rng = np.random.default_rng(5)
    states["label"][later] = rng.permutation(states["label"][later])
    scrambled = replace(
        stream, states=states, labels=rng.permutation(stream.labels), truth=rng.permutation(stream.truth)
    )
    lived = live_through(scrambled, PLAN)
    before = lived.rows.event_time <= instant
    assert _same(lived, _lived(), before)
    after = {
        name for name in SCORERS if not np.array_equal(lived.scores[name][~before], _lived().scores[name][~before])
    }
    assert after == {"online", "batch daily", "blend"}


def test_what_is_known_does_change_scores() -> None:
    """Otherwise the test before would prove nothing: a few labels less that were known in time matter to all."""
    stream = _stream()
    states = stream.states.copy()
    frauds = np.flatnonzero((states["label"] == 1) & (states["known_at"] < 300 * STEP_MS))
    states["label"][frauds[::3]] = UNKNOWN
    lived = live_through(replace(stream, states=states), PLAN)
    for name in PROBABILITIES:
        assert not np.array_equal(lived.scores[name], _lived().scores[name])


def test_the_static_model_is_the_daily_one_until_the_next_training() -> None:
    """They part at the first retraining."""
    lived = _lived()
    day = lived.rows.event_time < lived.rows.event_time[0] + PLAN.retrain_ms
    static, daily = lived.scores["batch static"], lived.scores["batch daily"]
    np.testing.assert_array_equal(static[day], daily[day])
    assert not np.array_equal(static[~day], daily[~day])


def test_the_blend_is_the_batch_model_until_a_weight_is_earned() -> None:
    """Too few labels had a batch score here for any weight."""
    lived = _lived()
    assert {each.weight for each in lived.published if each.batch_version} == {0.0}
    np.testing.assert_array_equal(lived.scores["blend"], lived.scores["batch daily"])


def test_labels_are_learned_when_they_mature() -> None:
    """At each publication, those of payments that are old enough, of which something was known."""
    stream = _stream()
    for each in _lived().published:
        first = stream.states[stream.states["known_at"] == stream.event_time[stream.states["row"]] + MATURITY_MS]
        due = first[(first["known_at"] <= each.at_ms) & (first["label"] != UNKNOWN)]
        assert (each.labels, each.frauds) == (len(due), int((due["label"] == 1).sum()))


def test_too_little_is_told() -> None:
    """With what to do about it."""
    with pytest.raises(TrainingSetError, match=r"5 frauds at least to train with.*a shorter maturity"):
        live_through(_stream().take(slice(0, 120)), PLAN)
    with pytest.raises(TrainingSetError, match="expected labelled payments, got none"):
        live_through(_stream().take(slice(0, 0)), PLAN)
    silent = _stream().states.copy()
    silent["label"][silent["known_at"] == _stream().event_time[silent["row"]] + MATURITY_MS] = UNKNOWN
    late = _stream().states.copy()
    late["known_at"] += HOUR_MS
    with pytest.raises(TrainingSetError, match="the online model has nothing to learn from"):
        live_through(replace(_stream(), states=np.concatenate([silent, late])), PLAN)
    with pytest.raises(ValueError, match="warm_up: expected a share"):
        StreamPlan(warm_up=1.0)


def test_progress_reaches_the_end() -> None:
    """In steps that never go back."""
    told: list[float] = []
    live_through(_stream().take(slice(0, 600)), PLAN, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)

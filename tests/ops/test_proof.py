"""Verdicts that can be false, and how soon a new fraud is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.batch.training_set import STATE_DTYPE, UNKNOWN, TrainingSet, TrainingSetError
from models.quality.streaming import SCORERS, LivedStream
from ops.proof import Novelty, catching_up, judge, middle, verdict
from tables.layout import HOUR_MS

N = 6_000
STEP_MS = 60_000
MATURITY_MS = 4 * HOUR_MS


def _lived(quality: dict[str, float], *, seed: int = 1, **columns: Any) -> LivedStream:  # noqa: ANN401
    """A payment a minute, one in fifty a fraud; a scorer of quality q sees a share q of the frauds clearly."""
    rng = np.random.default_rng(seed)
    frauds = rng.random(N) < 0.02
    clear = rng.random(N)
    scores = {}
    for name in SCORERS:
        seen = frauds & (clear < quality.get(name, 0.1))
        scores[name] = np.where(seen, 0.9, 0.05) + 0.05 * rng.random(N)
    rows = TrainingSet.build(
        "ab" * 8,
        ["f0"],
        np.zeros((N, 1), np.float32),
        **{
            "labels": frauds,
            "truth": frauds,
            "event_time": np.arange(N) * STEP_MS,
            "known_at": np.arange(N) * STEP_MS + MATURITY_MS,
            "amounts": np.ones(N),
            "ids": [b"E%031d" % number for number in range(N)],
            **columns,
        },
    )
    return LivedStream(rows, scores, ())


def _verdict(streams: list[dict[str, float]], basis: str = "truth") -> dict[str, Any]:
    judged = [judge(_lived(quality, seed=seed), basis, seed=seed) for seed, quality in enumerate(streams)]
    return verdict([each for each in judged if each is not None])


GOOD = {"rules": 0.3, "online": 0.5, "batch daily": 0.6, "blend": 0.7}


def test_a_blend_that_gains_passes() -> None:
    """Better than its best part and than the rules, on both streams and over all."""
    found = _verdict([GOOD, GOOD])
    assert found["blend_never_worse"]
    assert found["blend_beats_rules"]
    # Where parts are equal, the recall at few alerts, either is the best.
    assert {gain["over"] for gain in found["gains"]} <= {"online", "batch daily", "rules"}
    assert {gain["stream"] for gain in found["gains"]} == {0, 1, "all"}
    # Once for each stream and over all, by three metrics, over two.
    assert len(found["gains"]) == 3 * 3 * 2
    for gain in found["gains"]:
        assert gain["low"] <= gain["estimate"] <= gain["high"]


def test_a_blend_that_equals_its_best_part_passes() -> None:
    """Noise is no loss."""
    assert _verdict([{**GOOD, "blend": 0.6}])["blend_never_worse"]


@pytest.mark.parametrize("part", ["online", "batch daily"])
def test_a_blend_that_loses_to_a_part_fails(part: str) -> None:
    """On one stream of two is enough, whichever part it is; the gain that fails is named."""
    found = _verdict([GOOD, {**GOOD, part: 0.95, "blend": 0.6}])
    assert not found["blend_never_worse"]
    assert (1, part) in {(gain["stream"], gain["over"]) for gain in found["gains"] if gain["worse"]}
    assert found["blend_beats_rules"]


def test_a_blend_that_is_like_the_rules_fails() -> None:
    """Not to be worse is not enough."""
    assert not _verdict([GOOD, {**GOOD, "rules": 0.7}])["blend_beats_rules"]


def test_what_is_judged_against_matters() -> None:
    """By the bank's last labels, whichever came before; without a truth there is none to judge against."""
    rng = np.random.default_rng(1)
    frauds = rng.random(N) < 0.02
    states = np.zeros(2 * N, STATE_DTYPE)
    states["row"] = np.tile(np.arange(N), 2)
    states["known_at"] = np.repeat([1, 2], N) * 10**9
    states["weight"], states["label"] = 1.0, np.concatenate([np.zeros(N), frauds])
    states["label"][N : N + 10] = UNKNOWN
    lived = _lived({"rules": 1.0}, states=states, truth=np.full(N, UNKNOWN))
    assert judge(lived, "truth", seed=1) is None
    found = judge(lived, "labels", seed=1)
    assert found is not None
    assert found["rules"]["average_precision"].estimate == pytest.approx(1.0)


def test_a_stream_without_frauds_is_refused() -> None:
    """With what to do."""
    with pytest.raises(TrainingSetError, match="expected frauds after the warm-up, got none among 6000 payments"):
        judge(_lived(GOOD, truth=np.zeros(N)), "truth", seed=1)


def test_catching_up_is_counted_in_labels_and_hours() -> None:
    """Found from the 20th on, by one; from the first on, by another; never, by a third."""
    new = np.arange(1_000, N, 110)  # 46 frauds of the kind, fewer a day than are alerted on
    typologies = np.full(N, "", "U8")
    typologies[new] = "coercion"
    states = np.zeros(len(new), STATE_DTYPE)
    # Every second one becomes known, ten hours later.
    states["row"], states["label"], states["weight"] = new, np.arange(len(new)) % 2 == 0, 1.0
    states["known_at"] = new * STEP_MS + 10 * HOUR_MS
    lived = _lived({}, typologies=typologies, states=states)
    for name, first in (("online", 20), ("batch daily", 0), ("blend", len(new))):
        lived.scores[name][:] = np.linspace(0.1, 0.2, N)
        lived.scores[name][new] = np.where(np.arange(len(new)) >= first, 0.9, 0.0)
    scorers = ("online", "batch daily", "blend")
    found = {each["scorer"]: each for each in catching_up([lived], [Novelty("coercion", 0)], scorers, window=10)}
    assert {(each["frauds"], each["known"]) for each in found.values()} == {(46, 23)}
    assert (found["online"]["first_level"], found["online"]["later_level"]) == (0.0, pytest.approx(1.0))
    # Five of ten are caught at the 25th, 44 hours after the first: known are those of the first 34 hours, 19 of which
    # every second one.
    assert found["online"]["hours"] == pytest.approx(24 * 110 / 60)
    assert found["online"]["labels"] == 10
    assert (found["batch daily"]["labels"], found["batch daily"]["hours"]) == (0, 0.0)
    assert (found["blend"]["labels"], found["blend"]["later_level"]) == (None, 0.0)
    # Too few to say anything.
    assert catching_up([lived], [Novelty("coercion", (N - 1_000) * STEP_MS)], scorers)[0]["labels"] is None


def test_never_is_more_than_any_number() -> None:
    """In the median over streams."""
    entries: list[dict[str, Any]] = [{"labels": 3}, {"labels": None}, {"labels": 7}]
    assert middle(entries, "labels") == 7
    assert middle(entries[1:2], "labels") is None

"""The bake-off of online models: labels come late, and every candidate lives through the same stream."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from models.batch.training_set import UNKNOWN, TrainingSet, TrainingSetError
from ops.bakeoff import RULES, BakeOff, bake_off, labelled_rows, print_bake_off

FEATURES = 6
MINUTE_MS = 60_000


def _stream(seed: int, n: int = 1200, maturity_ms: int = 60 * MINUTE_MS, **columns: Any) -> TrainingSet:  # noqa: ANN401
    """A payment a minute, one in ten a fraud that one feature betrays; the rules know nothing."""
    rng = np.random.default_rng(seed)
    vectors = rng.exponential(size=(n, FEATURES)).astype(np.float32)
    labels = (rng.random(n) < 0.1).astype(np.int8)
    vectors[labels > 0, 2] += 8
    times = np.arange(n) * MINUTE_MS
    made: dict[str, Any] = {
        "labels": labels, "truth": labels, "event_time": times, "known_at": times + maturity_ms, "amounts": np.ones(n),
        "ids": [f"E{number:031d}".encode() for number in range(n)], "rules_scores": rng.random(n),
    }  # fmt: skip
    return TrainingSet.build("ab" * 8, [f"f{number}" for number in range(FEATURES)], vectors, **(made | columns))


@pytest.fixture(scope="module")
def result() -> BakeOff:
    """Two streams, two candidates."""
    return bake_off([_stream(1), _stream(2)], candidates=["hoeffding", "logistic"], warm_up=0.5)


def test_each_candidate_has_an_outcome_on_each_stream(result: BakeOff) -> None:
    """And the rules beside them; who learns beats who guesses."""
    assert [(outcome.candidate, outcome.stream) for outcome in result.outcomes] == [
        (name, number) for number in range(2) for name in (RULES, "hoeffding", "logistic")
    ]
    assert result.rows == (600, 600)
    assert result.ranking[-1] == RULES
    for outcome in result.of("hoeffding"):
        assert outcome.average_precision > 0.5
        assert 0 < outcome.recall_at_0_5pct <= outcome.recall_at_1pct <= 1
        assert outcome.learn_us > 0
        assert outcome.snapshot_bytes > 0
        # The last hour's labels have not come when the last payment is scored.
        assert 1000 <= outcome.labels <= 1200 - 60
    assert all(outcome.snapshot_bytes == 0 for outcome in result.of("logistic"))


def test_quality_does_not_depend_on_the_clock(result: BakeOff) -> None:
    """The same streams and seed give the same figures, but for those of time."""
    again = bake_off([_stream(1)], candidates=["hoeffding"], warm_up=0.5)
    assert again.of("hoeffding")[0].average_precision == result.of("hoeffding")[0].average_precision
    assert again.of("hoeffding")[0].taught == result.of("hoeffding")[0].taught


def test_a_label_that_has_not_come_teaches_nothing() -> None:
    """Where all labels come after the last payment there is nothing to compare."""
    with pytest.raises(TrainingSetError, match="mature later than it lasts"):
        bake_off([_stream(3, 300, maturity_ms=10_000 * MINUTE_MS)], candidates=["hoeffding"])


def test_learning_from_the_future_would_show() -> None:
    """Labels that are known late leave less to learn from: the scores are those of what was known then."""
    early = bake_off([_stream(4)], candidates=["hoeffding"]).of("hoeffding")[0]
    late = bake_off([_stream(4, maturity_ms=900 * MINUTE_MS)], candidates=["hoeffding"]).of("hoeffding")[0]
    assert late.labels < early.labels
    assert late.average_precision < early.average_precision


def test_rows_come_as_they_mature() -> None:
    """Not as they happened; what has no label does not come at all."""
    known_at = np.array([5, 3, 4, 9]) * MINUTE_MS
    stream = _stream(5, 4, known_at=known_at, labels=np.array([1, 0, UNKNOWN, 1]), weights=np.array([1, 2, 1, 0.5]))
    rows = labelled_rows(stream)
    assert [row.known_at // MINUTE_MS for row in rows] == [3, 5, 9]
    assert [(row.label, row.weight, row.place) for row in rows] == [
        (0, 2.0, (0, 0)),
        (1, 1.0, (0, 1)),
        (1, 0.5, (0, 2)),
    ]
    np.testing.assert_array_equal(rows[1].features, stream.vectors[0])
    assert rows[0].rules_score == pytest.approx(float(stream.rules_scores[1]))
    assert rows[0].batch_score is None


def test_where_the_truth_is_unknown_labels_judge() -> None:
    """As on a bank's own recording."""
    stream = _stream(6, truth=np.full(1200, UNKNOWN))
    found = bake_off([stream], candidates=["hoeffding"], warm_up=0.5)
    assert found.frauds == (int(stream.labels[600:].sum()),)


def test_a_stream_without_frauds_is_refused() -> None:
    """With what to do about it."""
    with pytest.raises(TrainingSetError, match="expected frauds after the warm-up of 30%, got none"):
        bake_off([_stream(7, labels=np.zeros(1200), truth=np.zeros(1200))], candidates=["hoeffding"])


def test_an_unknown_candidate_is_refused() -> None:
    """Before anything is learned."""
    with pytest.raises(ValueError, match=r"expected candidates among logistic, .*, got magic"):
        bake_off([_stream(8)], candidates=["arf", "magic"])


def test_progress_reaches_the_end() -> None:
    """In equal steps, one per candidate and stream."""
    told: list[float] = []
    bake_off([_stream(9, 300)], candidates=["hoeffding", "logistic"], progress=told.append)
    assert told == [0.5, 1.0]


def test_it_is_shown_and_written(result: BakeOff) -> None:
    """The table names all; the JSON has no NaN, which JSON does not know."""
    out = io.StringIO()
    print_bake_off(result, Console(file=out, width=160))
    shown = out.getvalue()
    assert all(name in shown for name in (RULES, "hoeffding", "logistic"))
    assert "1,200 payments judged" in shown
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["ranking"] == result.ranking
    assert plain["outcomes"][0]["learn_us"] is None

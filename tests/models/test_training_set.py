"""Training sets know what was known when, whatever order their rows came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batch.training_set import STATE_DTYPE, UNKNOWN, TrainingSet, TrainingSetError

HOUR = 3_600_000
NAMES = ("amount_log", "night")


def make(times: list[int], states: list[tuple[int, int, int]] | None = None, **more: Any) -> TrainingSet:  # noqa: ANN401
    """Make a set of rows at these times; states are (row, known_at, label), rows as given."""
    n = len(times)
    columns: dict[str, Any] = {
        "labels": np.zeros(n), "event_time": times, "known_at": np.array(times) + HOUR, "amounts": np.arange(n) + 100,
        "ids": [f"E{row:031d}".encode() for row in range(n)],
    }  # fmt: skip
    vectors = np.column_stack([np.array(times, np.float32), np.arange(n, dtype=np.float32)])
    history = None if states is None else np.array([(*state, 1.0) for state in states], STATE_DTYPE)
    return TrainingSet.build("0123456789abcdef", NAMES, vectors, states=history, **(columns | more))


def test_rows_are_put_in_order_of_time_with_all_that_is_theirs() -> None:
    """Columns, vectors and states move together."""
    rows = make([30, 10, 20], [(0, 99, 1), (1, 50, 0), (2, 60, 0)], labels=[1, 0, 0], typologies=["mule", "", ""])
    assert rows.event_time.tolist() == [10, 20, 30]
    assert rows.vectors[:, 1].tolist() == [1.0, 2.0, 0.0]
    assert rows.labels.tolist() == [0, 0, 1]
    assert rows.typologies.tolist() == ["", "", "mule"]
    assert rows.states["row"].tolist() == [0, 1, 2]
    assert np.isnan(rows.online_scores).all()
    assert (rows.truth == UNKNOWN).all()


def test_a_label_is_what_it_was_at_the_instant() -> None:
    """Unknown first, then a fraud, then taken back, then withdrawn."""
    rows = make([10], [(0, 100, 1), (0, 200, 0), (0, 300, UNKNOWN)])
    assert len(rows.as_of(99)) == 0
    assert rows.as_of(100).labels.tolist() == [1]
    assert rows.as_of(199).known_at.tolist() == [100]
    assert rows.as_of(250).labels.tolist() == [0]
    assert rows.as_of(250).known_at.tolist() == [200]
    assert len(rows.as_of(300)) == 0


def test_a_weight_is_that_of_the_label() -> None:
    """A label that is less sure weighs less, from when it is known on."""
    history = np.array([(0, 100, 0, 1.0), (0, 200, 0, 0.5)], STATE_DTYPE)
    rows = TrainingSet.build(
        "x", NAMES, np.zeros((1, 2), np.float32), states=history, labels=[0], event_time=[10], known_at=[100],
        amounts=[1], ids=[b"E"],
    )  # fmt: skip
    assert rows.as_of(150).weights.tolist() == [1.0]
    assert rows.as_of(250).weights.tolist() == [0.5]


def test_a_view_of_the_past_forgets_what_came_later() -> None:
    """No label of the future is left in what `as_of` returns."""
    rows = make([10], [(0, 100, 1), (0, 200, 0)])
    past = rows.as_of(150)
    assert past.as_of(1_000).labels.tolist() == [1]


def test_the_split_leaves_a_gap_and_uses_no_label_from_later() -> None:
    """What the training part knows, it knew when the later part began."""
    rows = make([0, 10, 20, 30, 40], [(0, 15, 0), (0, 35, 1), (1, 25, 1), (2, 35, 0), (3, 45, 0), (4, 55, 1)])
    earlier, later = rows.split_by_time(15, 15)
    assert earlier.event_time.tolist() == [0, 10]
    assert earlier.labels.tolist() == [0, 1]  # the first is found out at 35, after the later part begins
    assert later.event_time.tolist() == [30, 40]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.sampled_from([0, 1, UNKNOWN])), max_size=25),
    st.integers(0, 30),
)
def test_as_of_agrees_with_reading_the_history_row_by_row(states: list[tuple[int, int, int]], instant: int) -> None:
    """Of the states up to an instant the last one counts, in the order given where they are simultaneous."""
    rows = make([3, 1, 5, 2, 4, 0], states)
    expected = {}
    for row in range(6):
        known = sorted(
            (state for state in states if state[0] == row and state[1] <= instant), key=lambda state: state[1]
        )
        if known and known[-1][2] != UNKNOWN:
            expected[f"E{row:031d}".encode()] = known[-1][2]
    then = rows.as_of(instant)
    assert dict(zip(then.ids.tolist(), then.labels.tolist(), strict=True)) == expected
    assert (np.diff(then.event_time) >= 0).all()


def test_the_digest_names_the_content_and_not_the_order_of_collection() -> None:
    """The same rows give the same name; a changed label, score or vector another."""
    rows = make([10, 20])
    columns = {"ids": [f"E{row:031d}".encode() for row in (1, 0)], "amounts": [101, 100]}
    again = make([20, 10], **columns)
    again.vectors[:, 1] = [0.0, 1.0]
    assert rows.digest == again.digest
    again.vectors[0, 0] += 1.0
    assert rows.digest != again.digest
    assert rows.digest != make([10, 20], labels=[0, 1]).digest
    assert rows.digest != make([10, 20], typologies=["mule", ""]).digest


def test_the_night_is_that_of_brasilia() -> None:
    """From 20:00 to 06:00, three hours behind UTC."""
    rows = make([hour * HOUR for hour in (8, 9, 22, 23)])  # 05:00, 06:00, 19:00, 20:00
    assert rows.night.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"labels": [1]}, r"expected labels of shape \(2,\), got \(1,\)"),
        ({"scores": [1.0, 2.0]}, r"unknown: scores"),
    ],
)
def test_what_is_wrong_is_told(columns: dict[str, Any], told: str) -> None:
    """The message names the column."""
    with pytest.raises(TrainingSetError, match=told):
        make([1, 2], **columns)
    with pytest.raises(TrainingSetError, match=r"missing: .*amounts"):
        TrainingSet.build("x", NAMES, np.zeros((0, 2), np.float32), labels=[])


def test_it_survives_being_written() -> None:
    """All of it: the digest, which covers every column, is the same."""
    rows = make([30, 10], [(0, 99, 1), (1, 50, 0)], typologies=["mule", ""], ids=[b"E1", b"E2"])
    again = TrainingSet.from_bytes(rows.to_bytes())
    assert again.digest == rows.digest
    assert again.names == rows.names
    for damaged in (b"", b"no archive", rows.to_bytes()[:-9]):
        with pytest.raises(TrainingSetError, match="to_bytes"):
            TrainingSet.from_bytes(damaged)

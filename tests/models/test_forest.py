"""A forest scores as its trees say, as LightGBM does, and survives the way through bytes."""

from __future__ import annotations

import zlib
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.trees.forest import Forest, ForestError
from models.trees.from_lightgbm import forest_from_lightgbm
from tests.models.forests import FEATURES, random_forest, random_rows

STUMP: dict[str, Any] = {
    "feature": [0, -1, -1],
    "threshold": [1.5, 0.0, 0.0],
    "left": [1, -1, -1],
    "right": [2, -1, -1],
    "missing_left": [True, False, False],
    "value": [0.0, -1.0, 2.0],
    "cover": [4.0, 3.0, 1.0],
    "roots": [0],
}


def _walk(forest: Forest, row: np.ndarray) -> float:
    """Return a row's margin, the obvious way."""
    margin = forest.bias
    for root in forest.roots:
        node = int(root)
        while forest.feature[node] >= 0:
            number = float(row[forest.feature[node]])
            goes_left = forest.missing_left[node] if np.isnan(number) else number <= forest.threshold[node]
            node = int(forest.left[node] if goes_left else forest.right[node])
        margin += forest.value[node]
    return margin


def _train(matrix: np.ndarray, labels: np.ndarray, rounds: int = 40, **settings: Any) -> lightgbm.Booster:  # noqa: ANN401 (LightGBM takes any)
    chosen = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 15, "seed": 3, **settings}
    return lightgbm.train(chosen, lightgbm.Dataset(matrix, labels), rounds)


def _learnable(seed: int, rows: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Return rows with missing values, whole numbers, zeros and extremes, and labels that follow from them."""
    random = np.random.default_rng(seed)
    matrix = random_rows(random, rows)
    matrix[:, 0] = np.clip(np.nan_to_num(matrix[:, 0]), -5, 5)  # never missing: LightGBM's missing type None
    clean = np.clip(np.nan_to_num(matrix, nan=-1.0), -5, 5)
    return matrix, (clean[:, 0] + clean[:, 1] * clean[:, 2] + np.isnan(matrix[:, 4]) > 0.5).astype(int)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    trees=st.integers(0, 6),
    leaves=st.sampled_from([1, 2, 5, 16, 17, 32, 33, 64, 65, 90]),
    rows=st.sampled_from([0, 1, 3, 4, 5, 63, 64, 65, 150]),
)
def test_margins_are_those_of_walking_the_trees(seed: int, trees: int, leaves: int, rows: int) -> None:
    """Whatever the size of trees and batch, and values equal to thresholds, margins are the naive ones bit for bit."""
    random = np.random.default_rng(seed)
    forest = random_forest(random, trees, leaves, bias=0.25)
    forest.warm()
    matrix = random_rows(random, rows, forest.threshold)
    assert forest.margins(matrix).tolist() == [_walk(forest, row) for row in matrix]


@pytest.mark.parametrize("leaves", [15, 60, 100])
def test_the_same_bits_however_rows_are_batched(leaves: int) -> None:
    """A replay that cuts batches elsewhere takes the same decisions."""
    random = np.random.default_rng(leaves)
    forest = random_forest(random, 12, leaves, link="logit")
    matrix = random_rows(random, 333)
    whole = forest.probabilities(matrix)
    for size in (1, 7, 16, 100, 128):
        parts = [forest.probabilities(matrix[begin : begin + size]) for begin in range(0, 333, size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_a_threshold_between_two_float32_numbers_parts_them() -> None:
    """Thresholds are compared as float64, though kernels hold float32."""
    low = np.float32(0.1)
    high = np.nextafter(low, np.float32(1))
    for threshold, expected in ((float(low), [-1, 2]), ((float(low) + float(high)) / 2, [-1, 2]), (0.1, [2, 2])):
        forest = Forest(**STUMP | {"threshold": [threshold, 0, 0]})
        assert forest.margins(np.array([[low], [high]])).tolist() == expected
        assert forest.margins(np.array([[low], [high]] * 20)).tolist() == expected * 20


def test_an_infinite_threshold_parts_only_missing_values() -> None:
    """Infinity itself goes left of infinity."""
    forest = Forest(**STUMP | {"threshold": [np.inf, 0, 0], "missing_left": [False] * 3})
    assert forest.margins(np.array([[np.inf], [-np.inf], [np.nan]] * 6, np.float32)).tolist() == [-1, -1, 2] * 6


def test_links() -> None:
    """A mean of leaves is cut off at 0 and 1; log-odds of any size become probabilities without a warning."""
    rows = np.array([[1], [2]], np.float32)
    assert Forest(**STUMP).probabilities(rows).tolist() == [0, 1]
    odds = Forest(**STUMP | {"value": [0, -800, 800]}, link="logit")
    assert odds.probabilities(rows).tolist() == [0, 1]
    assert Forest(**STUMP, link="logit").probabilities(rows) == pytest.approx(1 / (1 + np.exp([1, -2])), rel=1e-15)


def test_what_a_forest_is_made_of() -> None:
    """Features used, depth and leaves are the trees' own."""
    forest = random_forest(np.random.default_rng(1), 3, 20)
    assert forest.leaves == 60
    assert set(forest.features.tolist()) == set(forest.feature[forest.feature >= 0].tolist())
    assert Forest(**STUMP).depth == 1
    empty = Forest(**dict.fromkeys(STUMP, ()), bias=-3.0)
    assert (empty.depth, empty.leaves, empty.margins(np.zeros((20, 2), np.float32)).tolist()) == (0, 0, [-3.0] * 20)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"left": [0, -1, -1]}, r"left\[0\]: expected a child behind its parent and below 3, got 0"),
        ({"right": [3, -1, -1]}, r"right\[0\]: expected a child behind its parent and below 3, got 3"),
        ({"right": [1, -1, -1]}, r"nodes\[1\]: expected one parent, or a place in roots, got 2"),
        ({"roots": [0, 0]}, r"nodes\[0\]: expected one parent, or a place in roots, got 2"),
        ({"roots": [3]}, r"roots\[0\]: expected a node's place below 3, got 3"),
        ({"roots": []}, r"nodes\[0\]: expected one parent"),
        ({"left": [1, -1, 0]}, r"left\[2\]: expected -1, for a leaf has no children, got 0"),
        ({"feature": [-2, -1, -1]}, r"feature\[0\]: expected a position in the vector, or -1 for a leaf, got -2"),
        ({"feature": [0.5, -1, -1]}, "feature: expected int32, got float64 that does not fit"),
        ({"feature": [2**40, -1, -1]}, "feature: expected int32, got int64 that does not fit"),
        ({"threshold": [np.nan, 0, 0]}, r"threshold\[0\]: expected a number, got nan"),
        ({"value": [0, np.inf, 0]}, r"value\[1\]: expected a finite number, got inf"),
        ({"cover": [1, -1, 0]}, r"cover\[1\]: expected a finite number of at least 0, got -1"),
        ({"cover": [1, 1]}, "cover: expected 3 nodes as in feature, got 2"),
        ({"cover": [[1, 1, 1]]}, "cover: expected one dimension, got 2"),
        ({"bias": np.nan}, "bias: expected a finite number, got nan"),
        ({"link": "probit"}, "link: expected one of identity, logit, got 'probit'"),
    ],
)
def test_arrays_that_are_no_trees_are_refused(changes: dict[str, Any], complaint: str) -> None:
    """The message names the place, what was expected, and what came."""
    with pytest.raises(ForestError, match=complaint):
        Forest(**STUMP | changes)


def test_a_matrix_that_does_not_fit_is_refused() -> None:
    """Compiled code would read beyond a row that is too short."""
    forest = Forest(**STUMP | {"feature": [3, -1, -1]})
    with pytest.raises(ForestError, match="expected 4 features at least, got 3"):
        forest.margins(np.zeros((2, 3), np.float32))
    with pytest.raises(ForestError, match="expected float32 of two dimensions, got float64 of 2"):
        forest.contributions(np.zeros((2, 4)))  # type: ignore[arg-type]


def test_arrays_are_the_forests_own() -> None:
    """What was given may change afterwards; the forest does not, nor can it be changed."""
    value = np.array([0.0, -1.0, 2.0])
    forest = Forest(**STUMP | {"value": value})
    value[:] = 9
    assert forest.margins(np.zeros((1, 1), np.float32)).tolist() == [-1]
    with pytest.raises(ValueError, match="read-only"):
        forest.value[1] = 9


def test_bytes_and_back() -> None:
    """The same arrays, the same bytes, the same margins."""
    random = np.random.default_rng(5)
    forest = random_forest(random, 4, 20, bias=-1.5, link="logit")
    data = forest.to_bytes()
    again = Forest.from_bytes(data)
    matrix = random_rows(random, 50)
    assert again.to_bytes() == data
    assert (again.bias, again.link) == (-1.5, "logit")
    assert np.array_equal(again.margins(matrix), forest.margins(matrix))


def test_damaged_bytes_are_refused() -> None:
    """Any flipped bit, any missing or additional byte."""
    data = Forest(**STUMP).to_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ForestError, match="expected"):
            Forest.from_bytes(bytes(damaged))
    for wrong in (b"", data[:-1], data + b"\0", data[:20]):
        with pytest.raises(ForestError, match=r"expected \d+ bytes"):
            Forest.from_bytes(wrong)


def test_bytes_that_are_whole_but_no_forest_are_refused() -> None:
    """A checksum speaks for the way, not for the sender."""
    body = bytearray(Forest(**STUMP).to_bytes()[:-4])
    body[6] = 7
    with pytest.raises(ForestError, match="link: expected a code below 2, got 7"):
        Forest.from_bytes(bytes(body) + zlib.crc32(body).to_bytes(4, "little"))
    body[6], body[4] = 0, 9
    with pytest.raises(ForestError, match="of format 9"):
        Forest.from_bytes(bytes(body) + zlib.crc32(body).to_bytes(4, "little"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("leaves", [4, 31, 100])
def test_lightgbms_margins_and_probabilities(seed: int, leaves: int) -> None:
    """Equal to LightGBM's own, for missing and infinite values, numbers next to 0, and values equal to thresholds."""
    matrix, labels = _learnable(seed)
    booster = _train(matrix, labels, num_leaves=leaves)
    forest = forest_from_lightgbm(booster)
    assert forest.link == "logit"
    assert forest.leaves > 40
    rows = random_rows(np.random.default_rng(seed + 100), 600, forest.threshold[forest.feature >= 0])
    assert np.abs(forest.margins(rows) - booster.predict(rows, raw_score=True)).max() <= 1e-12
    assert np.abs(forest.probabilities(rows) - booster.predict(rows)).max() <= 1e-12


def test_lightgbms_best_iteration_alone_is_taken() -> None:
    """As LightGBM itself predicts after early stopping."""
    matrix, labels = _learnable(7)
    booster = _train(matrix, labels)
    booster.best_iteration = 11
    forest = forest_from_lightgbm(booster)
    assert len(forest.roots) == 11
    assert np.abs(forest.margins(matrix) - booster.predict(matrix, raw_score=True)).max() <= 1e-12


def test_lightgbms_constant() -> None:
    """A booster that found nothing to split on still has its prior."""
    booster = _train(np.zeros((100, 2), np.float32), np.arange(100) % 4 == 0)
    matrix = np.zeros((30, 2), np.float32)
    assert forest_from_lightgbm(booster).margins(matrix) == pytest.approx(booster.predict(matrix, raw_score=True))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"zero_as_missing": True}, r"tree \d+, feature \d: expected missing_type NaN or None, got Zero"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "expected trees that are added up"),
        ({"objective": "poisson"}, "objective: expected one of binary, cross_entropy, regression, got 'poisson'"),
        ({"sigmoid": 2.0}, "objective: expected one of"),
        ({"objective": "multiclass", "num_class": 3}, "expected one output, got 3 classes"),
        ({"linear_tree": True}, "expected constant leaves, got linear ones"),
    ],
)
def test_what_a_forest_cannot_tell_is_refused(settings: dict[str, Any], complaint: str) -> None:
    """Rather than score otherwise than LightGBM does."""
    matrix, labels = _learnable(9)
    matrix = np.clip(np.nan_to_num(matrix), -5, 5)
    with pytest.raises(ForestError, match=complaint):
        forest_from_lightgbm(_train(matrix, labels, rounds=3, **settings))


def test_categorical_splits_are_refused() -> None:
    """A category is no number."""
    codes = np.repeat(np.arange(8), 100)[:, None].astype(np.float32)
    data = lightgbm.Dataset(codes, codes[:, 0] % 2, categorical_feature=[0])
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_per_group": 1}, data, 2)
    with pytest.raises(ForestError, match=r"feature 0: expected a numerical split \(<=\), got =="):
        forest_from_lightgbm(booster)


def test_features_beside_those_that_are_read_do_not_matter() -> None:
    """A vector may be longer than what a forest reads."""
    random = np.random.default_rng(2)
    forest = random_forest(random, 3, 10)
    matrix = random_rows(random, 40)
    wider = np.concatenate((matrix, np.full((40, 5), np.nan, np.float32)), axis=1)
    assert matrix.shape[1] == FEATURES
    assert np.array_equal(forest.margins(np.asfortranarray(wider)), forest.margins(matrix))

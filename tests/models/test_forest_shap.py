"""Contributions are Shapley values: equal to their definition, and to LightGBM's."""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.trees.forest import Forest
from models.trees.from_lightgbm import forest_from_lightgbm
from tests.models.forests import FEATURES, random_forest, random_rows


def _expected(forest: Forest, node: int, row: np.ndarray, known: frozenset[int]) -> float:
    """Return a tree's value where only some features are known: the others go both ways, by cover."""
    feature = int(forest.feature[node])
    if feature < 0:
        return float(forest.value[node])
    left, right = int(forest.left[node]), int(forest.right[node])
    if feature in known:
        number = float(row[feature])
        goes_left = forest.missing_left[node] if np.isnan(number) else number <= forest.threshold[node]
        return _expected(forest, left if goes_left else right, row, known)
    covers = forest.cover[left] + forest.cover[right]
    share = float(forest.cover[left] / covers) if covers > 0 else 0.5
    return share * _expected(forest, left, row, known) + (1 - share) * _expected(forest, right, row, known)


def _shapley(forest: Forest, row: np.ndarray) -> np.ndarray:
    """Return the contributions by their definition: the mean over all orders in which features become known."""

    def margin(known: frozenset[int]) -> float:
        return forest.bias + sum(_expected(forest, int(root), row, known) for root in forest.roots)

    result = np.zeros(FEATURES + 1)
    result[-1] = margin(frozenset())
    for feature in range(FEATURES):
        others = [other for other in range(FEATURES) if other != feature]
        for size in range(FEATURES):
            weight = factorial(size) * factorial(FEATURES - size - 1) / factorial(FEATURES)
            for chosen in combinations(others, size):
                known = frozenset(chosen)
                result[feature] += weight * (margin(known | {feature}) - margin(known))
    return result


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), leaves=st.integers(1, 12), whole=st.booleans())
def test_contributions_are_shapley_values(seed: int, leaves: int, *, whole: bool) -> None:
    """Equal to the definition over all subsets, even where no training row reached a leaf."""
    random = np.random.default_rng(seed)
    forest = random_forest(random, 2, leaves, bias=0.5, whole=whole)
    rows = random_rows(random, 3, forest.threshold)
    expected = [_shapley(forest, row) for row in rows]
    assert forest.contributions(rows) == pytest.approx(np.array(expected), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), leaves=st.sampled_from([1, 2, 15, 16, 17, 33, 200]), whole=st.booleans())
def test_contributions_add_up_to_the_margin(seed: int, leaves: int, *, whole: bool) -> None:
    """Whatever the covers are, and in trees of any depth."""
    random = np.random.default_rng(seed)
    forest = random_forest(random, 5, leaves, bias=-2.0, whole=whole)
    rows = random_rows(random, 20, forest.threshold)
    contributions = forest.contributions(rows)
    assert contributions.shape == (20, FEATURES + 1)
    assert contributions.sum(axis=1) == pytest.approx(forest.margins(rows), abs=1e-11)


@pytest.mark.parametrize("leaves", [3, 15, 63])
def test_lightgbms_contributions(leaves: int) -> None:
    """Equal to pred_contrib, for missing and infinite values as well."""
    random = np.random.default_rng(leaves)
    matrix = random_rows(random, 2000)
    clean = np.clip(np.nan_to_num(matrix, nan=-1.0), -5, 5)
    labels = (clean[:, 0] * clean[:, 1] + clean[:, 2] > 0.5).astype(int)
    chosen: dict[str, Any] = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": leaves}
    booster = lightgbm.train(chosen, lightgbm.Dataset(matrix, labels), 60)
    forest = forest_from_lightgbm(booster)
    rows = random_rows(random, 200, forest.threshold[forest.feature >= 0])
    assert np.abs(forest.contributions(rows) - booster.predict(rows, pred_contrib=True)).max() <= 1e-9


def test_a_chain_of_a_hundred_splits() -> None:
    """Every feature of a deep tree once on a way: where paths are unwound, digits get lost."""
    depth = 100
    inner = np.arange(depth)
    columns: dict[str, Any] = {name: np.full(2 * depth + 1, -1) for name in ("feature", "left", "right")}
    columns["feature"][2 * inner] = inner
    columns["left"][2 * inner], columns["right"][2 * inner] = 2 * inner + 1, 2 * inner + 2
    cover = np.ones(2 * depth + 1)
    cover[2 * inner] = depth + 1 - inner
    random = np.random.default_rng(4)
    forest = Forest(
        **columns,
        threshold=np.zeros(len(cover)),
        missing_left=np.zeros(len(cover), bool),
        value=random.normal(size=len(cover)) * 10,
        cover=cover,
        roots=[0],
    )
    rows = np.abs(random.normal(size=(4, depth))).astype(np.float32)  # all go to the very end
    contributions = forest.contributions(rows)
    assert np.abs(contributions.sum(axis=1) - forest.margins(rows)).max() < 1e-11


def test_features_that_no_tree_reads_contribute_nothing() -> None:
    """And a forest without trees explains its bias."""
    forest = random_forest(np.random.default_rng(8), 2, 6)
    rows = random_rows(np.random.default_rng(8), 5)
    wider = np.concatenate((rows, rows), axis=1)
    assert not forest.contributions(wider)[:, FEATURES:-1].any()
    empty = random_forest(np.random.default_rng(8), 0, 1, bias=3.0)
    assert empty.contributions(rows).tolist() == [[0.0] * FEATURES + [3.0]] * 5

"""River's trees as arrays: the same answers, for every float32 there is."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import forest, metrics, tree
from river.tree.split_criterion import GiniSplitCriterion, InfoGainSplitCriterion
from river.tree.splitter import GaussianSplitter

from models.online.candidates import CANDIDATES, MainPathTree
from models.online.export import OnlineExportError, forest_from_river
from models.online.features import MISSING, prepare, raw_thresholds
from models.online.splitter import LeanGaussianSplitter

FEATURES = 20


def _rows(seed: int, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Heavy-tailed values of both signs with gaps, and labels that some of them explain."""
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(n, FEATURES)) * 10.0 ** rng.integers(-3, 8, FEATURES)).astype(np.float32)
    matrix[rng.random((n, FEATURES)) < 0.1] = np.nan
    told = prepare(matrix)
    return matrix, (told[:, 0] - told[:, 1] + 0.3 * told[:, 2] > 0.5).astype(np.int64)


def _any_float32(seed: int, n: int) -> np.ndarray[Any, Any]:
    """Rows of random bits: every exponent, denormals, both zeros; NaN in infinity's place."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**32, (n, FEATURES), dtype=np.uint64).astype(np.uint32).view(np.float32)
    largest = np.finfo(np.float32).max
    edges = np.array([0.0, -0.0, largest, -largest, 1e-45, -1e-45, np.nan], np.float32)
    values = np.where(rng.random(values.shape) < 0.1, rng.choice(edges, values.shape), values)
    return np.where(np.isfinite(values), values, np.float32(np.nan)).astype(np.float32)


def _teach(model: Any, seed: int, n: int = 1500) -> np.ndarray[Any, Any]:  # noqa: ANN401 - any of River's models
    matrix, labels = _rows(seed, n)
    for row, label in zip(prepare(matrix).tolist(), labels.tolist(), strict=True):
        model.learn_one(dict(enumerate(row)), label)
    return matrix


def _by_river(model: Any, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:  # noqa: ANN401
    rows = prepare(matrix).tolist()
    return np.array([model.predict_proba_one(dict(enumerate(row))).get(1, 0.0) for row in rows])


def _check_equal(model: Any, matrix: np.ndarray[Any, Any]) -> None:  # noqa: ANN401
    found = forest_from_river(model).probabilities(matrix)
    np.testing.assert_allclose(found, _by_river(model, matrix), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, candidate in CANDIDATES.items() if candidate.exportable])
def test_the_arrays_answer_as_river_does(name: str) -> None:
    """On rows that were taught, and on thousands of any bits at all, to 1e-12."""
    model = CANDIDATES[name].build(7)
    matrix = _teach(model, 1, 2500)
    exported = forest_from_river(model)
    assert exported.leaves > len(exported.roots), "the trees have not grown: the test would say nothing"
    everything = np.concatenate([matrix[:1000], _any_float32(2, 2000)])
    _check_equal(model, everything)
    answers = exported.probabilities(everything)
    assert answers.min() >= 0
    assert answers.max() <= 1
    assert len(np.unique(answers)) > 3


def test_rows_at_the_thresholds_take_rivers_branch() -> None:
    """At each threshold itself and at the next float32 on both sides."""
    model = CANDIDATES["arf"].build(3)
    matrix = _teach(model, 4)
    exported = forest_from_river(model)
    rows = []
    for node in np.flatnonzero(exported.feature >= 0):
        at = np.float32(exported.threshold[node])
        for value in (at, np.nextafter(at, np.float32(np.inf)), np.nextafter(at, np.float32(-np.inf))):
            row = matrix[len(rows) % len(matrix)].copy()
            row[exported.feature[node]] = value
            rows.append(row)
    _check_equal(model, np.array(rows))


@pytest.mark.parametrize("metric", [metrics.BalancedAccuracy(), metrics.MCC(), metrics.F1()])
def test_trees_weigh_as_their_metric_says(metric: Any) -> None:  # noqa: ANN401
    """Votes of unequal weight, and a metric at or below zero that counts in full."""
    model = forest.ARFClassifier(
        n_models=5, seed=5, leaf_prediction="mc", metric=metric, splitter=LeanGaussianSplitter(), grace_period=100
    )
    matrix = _teach(model, 6, 1200)
    model._metrics[2] = metric.clone()  # a tree that has only just begun
    assert len({each.get() for each in model._metrics}) > 2
    _check_equal(model, np.concatenate([matrix[:500], _any_float32(7, 500)]))


def test_trees_without_a_vote_leave_the_total() -> None:
    """A tree that drift has just replaced, and one whose root has seen nothing."""
    model = CANDIDATES["arf"].build(8)
    matrix = _teach(model, 9, 1000)
    model.data[1] = model._new_base_model()
    model.data[4] = model._new_base_model()
    model.data[4]._root = model.data[4]._new_leaf()
    _check_equal(model, matrix[:500])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone(label: int) -> None:
    """Before the first fraud the answer is 0, before the first honest payment it is 1."""
    model = CANDIDATES["arf"].build(10)
    matrix, _ = _rows(11, 30)
    for row in prepare(matrix).tolist():
        model.learn_one(dict(enumerate(row)), label)
    assert forest_from_river(model).probabilities(matrix).tolist() == pytest.approx([float(label)] * 30)


@pytest.mark.parametrize("name", ["arf", "hoeffding", "adaptive"])
def test_a_model_that_nobody_taught_says_zero(name: str) -> None:
    """As River: no class has a vote."""
    matrix, _ = _rows(12, 3)
    assert forest_from_river(CANDIDATES[name].build(0)).probabilities(matrix).tolist() == [0.0, 0.0, 0.0]


def test_the_main_tree_answers_while_alternates_are_on_trial() -> None:
    """After drift the adaptive tree grows alternates; they are neither asked nor exported."""
    model = MainPathTree(leaf_prediction="mc", grace_period=50, delta=1e-2, seed=1, splitter=LeanGaussianSplitter())
    matrix, labels = _rows(13, 3000)
    labels[1500:] = 1 - labels[1500:]
    trials = 0
    for number, (row, label) in enumerate(zip(prepare(matrix).tolist(), labels.tolist(), strict=True)):
        model.learn_one(dict(enumerate(row)), label)
        on_trial = [node for node in model._root.iter_dfs() if getattr(node, "_alternate_tree", None)]
        if number % 20 == 0 and on_trial and trials < 5:
            trials += 1
            _check_equal(model, matrix[:200])
    assert trials > 0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (forest.ARFClassifier(n_models=2, seed=1, leaf_prediction="nba"), "leaf_prediction 'mc'"),
        (tree.HoeffdingAdaptiveTreeClassifier(leaf_prediction="mc", seed=1), "MainPathTree"),
        (CANDIDATES["logistic"].build(0), "ARFClassifier or a Hoeffding tree"),
        (CANDIDATES["amf"].build(0), "ARFClassifier or a Hoeffding tree"),
    ],
)
def test_what_is_no_sum_over_leaves_is_refused(model: Any, said: str) -> None:  # noqa: ANN401
    """With what was expected, instead of arrays that answer otherwise."""
    _teach(model, 14, 50)
    with pytest.raises(OnlineExportError, match=said):
        forest_from_river(model)


def test_cover_is_the_weight_that_came_through() -> None:
    """A parent's is the sum of its children's; River forgets some of it at splits, and invents none."""
    model = CANDIDATES["hoeffding"].build(0)
    _teach(model, 15)
    exported = forest_from_river(model)
    inner = np.flatnonzero(exported.feature >= 0)
    children = exported.cover[exported.left[inner]] + exported.cover[exported.right[inner]]
    np.testing.assert_allclose(exported.cover[inner], children)
    assert 500 < exported.cover[0] < 1501


@given(st.floats(-95, 95), st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_raw_thresholds_pass_what_the_prepared_ones_pass(threshold: float, values: list[float]) -> None:
    """For any threshold and any float32, and for the two values that part."""
    raw = raw_thresholds(np.array([threshold]))[0]
    edge = np.float32(np.clip(raw, -3.4e38, 3.4e38))
    around = [edge, np.nextafter(edge, np.float32(np.inf)), np.nextafter(edge, np.float32(-np.inf))]
    all_values = np.array([*values, *around, 0.0, -0.0], np.float32)
    finite = all_values[np.isfinite(all_values)]
    assert (finite.astype(np.float64) <= raw).tolist() == (prepare(finite) <= threshold).tolist()


def test_preparing_keeps_order_and_leaves_no_gap() -> None:
    """Strictly increasing over float32, and NaN becomes a number."""
    values = np.sort(_any_float32(16, 500)[:, 0])
    values = np.unique(values[np.isfinite(values)])
    assert (np.diff(prepare(values)) > 0).all()
    assert prepare(np.array([np.nan, np.inf, -np.inf], np.float32)).tolist() == [
        MISSING,
        *prepare(np.array([np.finfo(np.float32).max, np.finfo(np.float32).min])).tolist(),
    ]


@settings(deadline=None)  # it compiles
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([InfoGainSplitCriterion, GiniSplitCriterion]))
def test_the_lean_splitter_splits_as_rivers_does(seed: int, n: int, by: type[Any]) -> None:
    """Same places, same weights on both sides, same merit, same densities."""
    dice = random.Random(seed)
    lean, stock = LeanGaussianSplitter(), GaussianSplitter()
    weights: dict[int, float] = {}
    for _ in range(n):
        value = dice.choice([0.0, dice.gauss(0, 1), dice.expovariate(0.1)])
        label, weight = dice.randrange(2), dice.choice([1, 2, 6, 0.5])
        weights[label] = weights.get(label, 0.0) + weight
        lean.update(value, label, weight)
        stock.update(value, label, weight)
    criterion = by(0.01)
    ours = lean.best_evaluated_split_suggestion(criterion, weights, 3, binary_only=True)
    theirs = stock.best_evaluated_split_suggestion(criterion, weights, 3, True)  # noqa: FBT003 - River's signature
    assert math.isclose(ours.merit, theirs.merit, rel_tol=1e-6, abs_tol=1e-9) or ours.merit == theirs.merit
    if ours.feature is not None and theirs.feature is not None and ours.split_info == theirs.split_info:
        for side, other in zip(ours.children_stats, theirs.children_stats, strict=True):
            assert side == pytest.approx(other, rel=1e-6, abs=1e-6)
    for label in weights:
        expected = stock.cond_proba(0.3, label)
        assert lean.cond_proba(0.3, label) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_splitters_clone_is_empty() -> None:
    """As River expects of it: the same options, nothing learned."""
    splitter = LeanGaussianSplitter(n_splits=4)
    splitter.update(1.0, 0, 1.0)
    clone = splitter.clone()
    assert (clone.n_splits, clone.cond_proba(1.0, 0)) == (4, 0.0)
    criterion = InfoGainSplitCriterion(0.01)
    assert clone.best_evaluated_split_suggestion(criterion, {0: 1.0}, 0, binary_only=True).feature is None


@pytest.mark.parametrize("name", ["hoeffding", "adaptive", "arf"])
def test_a_leaf_is_split_by_evidence_only(name: str) -> None:
    """Rows of one class explain no fraud of before: a leaf born with frauds waits for some of its own, and goes on."""
    model = CANDIDATES[name].build(17)
    _teach(model, 18, 1)
    tree_ = model[0] if name == "arf" else model
    rng = np.random.default_rng(19)
    _as_born(tree_)
    for row in rng.normal(size=(600, FEATURES)).tolist():
        tree_.learn_one(dict(enumerate(row)), 0)
    assert tree_.n_leaves == 1
    assert tree_._root.is_active()
    for row in rng.normal(size=(600, FEATURES)).tolist():
        tree_.learn_one({**dict(enumerate(row)), **dict.fromkeys(range(FEATURES), row[0] - 9.0)}, 1)
    assert tree_.n_leaves > 1
    # River's own would have split at once.
    stock = tree.HoeffdingTreeClassifier(
        leaf_prediction="mc", grace_period=100, max_share_to_split=0.9999, tau=0.1, delta=1e-3
    )
    stock.learn_one(dict.fromkeys(range(FEATURES), 0.0), 0)
    _as_born(stock)
    for row in rng.normal(size=(600, FEATURES)).tolist():
        stock.learn_one(dict(enumerate(row)), 0)
    assert stock.n_leaves > 1


def _as_born(model: Any) -> None:  # noqa: ANN401
    """Make a tree a leaf that has inherited as many frauds as honest payments, and seen none itself."""
    model._root = model._new_leaf({0: 50.0, 1: 50.0})
    model._n_active_leaves = 1

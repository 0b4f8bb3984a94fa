"""River's trees as arrays over raw vectors, so that scorers need neither River nor the preparation of its input.

What comes out equals `predict_proba_one` on the prepared row: thresholds are mapped back exactly, and each leaf holds
its tree's share of the forest's answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from river.forest import ARFClassifier
from river.tree import HoeffdingAdaptiveTreeClassifier, HoeffdingTreeClassifier
from river.tree.nodes.branch import NumericBinaryBranch
from river.tree.nodes.leaf import HTLeaf

from models.online.candidates import MainPathTree
from models.online.features import MISSING, raw_thresholds
from models.trees.forest import Forest

__all__ = ["OnlineExportError", "forest_from_river"]


class OnlineExportError(ValueError):
    """A River model whose answers are no sum over the leaves of trees."""


def forest_from_river(model: Any) -> Forest:  # noqa: ANN401 - River's models have no common type that says more
    """Return a forest whose probabilities on raw vectors are those of River on prepared ones, to 1e-12.

    Parameters
    ----------
    model
        An `ARFClassifier`, `HoeffdingTreeClassifier` or `MainPathTree` with leaf_prediction "mc", that was taught rows
        as dicts of position -> prepared value and labels 0 and 1.

    Raises
    ------
    OnlineExportError
        For other models; a tree that nobody has taught yet is none: it has no vote in River either.
    """
    trees = [(tree, vote) for tree, vote in _votes(model) if tree._root is not None]  # noqa: SLF001 - River has no other way
    nodes: list[tuple[Any, float]] = []
    roots = []
    total = sum(vote for tree, vote in trees if _has_voters(tree))
    for tree, vote in trees:
        roots.append(len(nodes))
        _check(tree)
        _flatten(tree._root, vote / total if total > 0 else 0.0, nodes)  # noqa: SLF001
    return _forest(nodes, roots)


def _votes(model: Any) -> list[tuple[Any, float]]:  # noqa: ANN401
    """Return the trees with the weights that River gives their answers."""
    if isinstance(model, ARFClassifier):
        if model.disable_weighted_vote:
            return [(tree, 1.0) for tree in model]
        weights = [metric.get() for metric in model._metrics]  # noqa: SLF001
        # As in River: a tree whose metric is not above zero speaks at full weight.
        return [(tree, weight if weight > 0.0 else 1.0) for tree, weight in zip(model, weights, strict=False)]
    if isinstance(model, HoeffdingTreeClassifier):
        return [(model, 1.0)]
    raise OnlineExportError(
        f"online export: expected an ARFClassifier or a Hoeffding tree, got {type(model).__name__}; "
        "choose a candidate that is exportable"
    )


def _check(tree: Any) -> None:  # noqa: ANN401
    if tree.leaf_prediction != "mc":
        raise OnlineExportError(
            f"online export: expected leaf_prediction 'mc', got {tree.leaf_prediction!r}: such leaves answer by more "
            "than the path"
        )
    if isinstance(tree, HoeffdingAdaptiveTreeClassifier) and not isinstance(tree, MainPathTree):
        raise OnlineExportError(
            "online export: expected MainPathTree, got HoeffdingAdaptiveTreeClassifier, whose alternates vote too"
        )


def _has_voters(tree: Any) -> bool:  # noqa: ANN401
    """Whether the tree has a vote for some row, hence for every row.

    River splits a leaf only when each side keeps a share of its weight, so an empty leaf is a root that has just begun.
    """
    shares = {_weight(leaf) > 0 for leaf in _leaves(tree._root)}  # noqa: SLF001
    if len(shares) > 1:
        raise OnlineExportError(
            "online export: expected weight in every leaf of a tree, got an empty one beside others: the tree's weight "
            "in the vote would differ from row to row"
        )
    return shares == {True}


def _leaves(node: Any) -> list[Any]:  # noqa: ANN401
    if isinstance(node, HTLeaf):
        return [node]
    return [leaf for child in node.children for leaf in _leaves(child)]


def _weight(leaf: Any) -> float:  # noqa: ANN401
    return float(sum(leaf.stats.values()))


def _flatten(root: Any, vote: float, nodes: list[tuple[Any, float]]) -> None:  # noqa: ANN401
    """Append the nodes below a root, parents first, each with its tree's vote."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, (HTLeaf, NumericBinaryBranch)):
            raise OnlineExportError(
                f"online export: expected binary splits of numbers, got {type(node).__name__}; teach rows of floats"
            )
        nodes.append((node, vote))
        if isinstance(node, NumericBinaryBranch):
            waiting += reversed(node.children)


def _forest(nodes: list[tuple[Any, float]], roots: list[int]) -> Forest:
    n = len(nodes)
    place = {id(node): number for number, (node, _) in enumerate(nodes)}
    feature, left, right = (np.full(n, -1, np.int32) for _ in range(3))
    prepared, value, cover = (np.zeros(n) for _ in range(3))
    for number, (node, vote) in enumerate(nodes):
        if isinstance(node, HTLeaf):
            weight = _weight(node)
            value[number] = vote * (node.stats.get(1, 0.0) / weight) if weight > 0 else 0.0
            cover[number] = weight
        else:
            feature[number], prepared[number] = node.feature, node.threshold
            left[number], right[number] = (place[id(child)] for child in node.children)
    inner = np.flatnonzero(feature >= 0)
    for number in inner[::-1]:  # children stand behind their parents
        cover[number] = cover[left[number]] + cover[right[number]]
    threshold, missing_left = np.zeros(n), np.zeros(n, np.bool_)
    threshold[inner] = raw_thresholds(prepared[inner])
    missing_left[inner] = prepared[inner] >= MISSING
    return Forest(feature, threshold, left, right, missing_left, value, cover, np.array(roots, np.int32))

"""From a LightGBM booster to a forest that scores the same: the only file here that knows LightGBM's trees."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from models.trees.forest import Forest, ForestError, Link

__all__ = ["forest_from_lightgbm"]

_LINKS: dict[str, Link] = {"binary": "logit", "cross_entropy": "logit", "regression": "identity"}

_INFINITE = 1e300
"""What LightGBM writes for infinity: the threshold where only missing values go right."""

_ZERO = float(np.float32(1e-35))
"""LightGBM takes numbers up to this size for 0."""


def forest_from_lightgbm(booster: lightgbm.Booster) -> Forest:
    """Return the trees of a booster's best iteration, or of all where it knows of none.

    Margins equal those of `booster.predict(matrix, raw_score=True)`, and contributions those of `pred_contrib=True`.

    Parameters
    ----------
    booster
        Of one output: objective binary, cross_entropy or regression; numerical splits, missing as NaN or not at all.

    Raises
    ------
    ForestError
        For what a forest cannot tell: other objectives, categorical splits, zero as missing, linear leaves, averages.

    Examples
    --------
    >>> amounts = np.arange(100, dtype=np.float32)[:, None]
    >>> settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
    >>> booster = lightgbm.train(settings, lightgbm.Dataset(amounts, amounts[:, 0] > 60), 5)
    >>> forest = forest_from_lightgbm(booster)
    >>> forest.link, bool((forest.margins(amounts) == booster.predict(amounts, raw_score=True)).all())
    ('logit', True)
    """
    model = booster.dump_model()
    if model["num_class"] != 1 or model["num_tree_per_iteration"] != 1:
        raise ForestError(f"lightgbm: expected one output, got {model['num_class']} classes")
    if model["average_output"]:
        raise ForestError("lightgbm: expected trees that are added up, got an average (boosting rf)")
    nodes: list[_Node] = []
    roots = []
    for tree in model["tree_info"]:
        roots.append(len(nodes))
        _append(nodes, tree["tree_structure"], f"tree {tree['tree_index']}")
    columns: Any = dict(zip(_FIELDS, zip(*nodes, strict=True), strict=True)) if nodes else dict.fromkeys(_FIELDS, ())
    return Forest(**columns, roots=np.array(roots, np.int32), link=_link(model.get("objective", "")))


_FIELDS = ("feature", "threshold", "left", "right", "missing_left", "value", "cover")
_Node = tuple[int, float, int, int, bool, float, float]


def _link(objective: str) -> Link:
    name, *parameters = objective.split(" ")
    unusual = [parameter for parameter in parameters if parameter != "sigmoid:1"]
    if name not in _LINKS or unusual:
        raise ForestError(f"lightgbm: objective: expected one of {', '.join(_LINKS)}, got {objective!r}")
    return _LINKS[name]


def _append(nodes: list[_Node], node: dict[str, Any], where: str) -> int:
    """Append a node and all below it, and return its place."""
    place = len(nodes)
    if "split_feature" not in node:
        if "leaf_coeff" in node:
            raise ForestError(f"lightgbm: {where}: expected constant leaves, got linear ones")
        nodes.append((-1, 0.0, -1, -1, False, float(node["leaf_value"]), float(node.get("leaf_count", 0))))
        return place
    if node["decision_type"] != "<=":
        raise ForestError(
            f"lightgbm: {where}, feature {node['split_feature']}: expected a numerical split (<=), "
            f"got {node['decision_type']}: train with categorical_feature=[]"
        )
    threshold = float(node["threshold"])
    nodes.append((0, 0.0, 0, 0, False, 0.0, 0.0))  # its children come behind it
    left = _append(nodes, node["left_child"], where)
    right = _append(nodes, node["right_child"], where)
    nodes[place] = (
        int(node["split_feature"]),
        _threshold(threshold),
        left,
        right,
        _missing_left(node, threshold, where),
        0.0,
        float(node["internal_count"]),
    )
    return place


def _missing_left(node: dict[str, Any], threshold: float, where: str) -> bool:
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":  # no value was missing in training: LightGBM then reads NaN as 0
        return threshold >= 0
    raise ForestError(
        f"lightgbm: {where}, feature {node['split_feature']}: expected missing_type NaN or None, "
        f"got {node['missing_type']}: train with zero_as_missing=False"
    )


def _threshold(threshold: float) -> float:
    """Return what LightGBM compares with, from what it writes."""
    if abs(threshold) >= _INFINITE:
        return float(np.copysign(np.inf, threshold))
    # Out of the numbers that are taken for 0, to where all of them go to one side.
    if -_ZERO <= threshold < 0:
        return float(np.nextafter(-_ZERO, -np.inf))
    return _ZERO if 0 <= threshold < _ZERO else threshold

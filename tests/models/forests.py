"""Random forests, and rows that fall on their thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.trees.forest import Forest, Link

FEATURES = 6
EXTREMES = np.array([0, -0.0, 1e-35, -1e-35, 1e-40, -1e-40, np.inf, -np.inf, 3e38, -3e38], np.float32)


def random_forest(
    random: np.random.Generator,
    trees: int,
    leaves: int,
    bias: float = 0.0,
    link: Link = "identity",
    *,
    whole: bool = False,
) -> Forest:
    """Grow trees of so many leaves at random places; few features, so that ways ask for one of them again.

    With `whole`, leaves' covers are whole numbers and may be 0.
    """
    nodes: list[dict[str, Any]] = []
    roots = []
    for _ in range(trees):
        roots.append(len(nodes))
        ends = [_leaf(nodes, random, whole=whole)]
        while len(ends) < leaves:
            node = nodes[ends.pop(int(random.integers(len(ends))))]
            number = random.normal() if random.random() < 0.7 else random.integers(-2, 3)
            node |= {"feature": int(random.integers(FEATURES)), "threshold": float(number), "value": 0.0}
            for side in ("left", "right"):
                node[side] = _leaf(nodes, random, whole=whole)
                ends.append(node[side])
        for node in reversed(nodes[roots[-1] :]):
            if node["feature"] >= 0:
                node["cover"] = nodes[node["left"]]["cover"] + nodes[node["right"]]["cover"]
    names = ("feature", "threshold", "left", "right", "missing_left", "value", "cover")
    return Forest(**{name: [node[name] for node in nodes] for name in names}, roots=roots, bias=bias, link=link)


def _leaf(nodes: list[dict[str, Any]], random: np.random.Generator, *, whole: bool) -> int:
    cover = float(random.integers(0, 4)) if whole else float(random.random()) + 0.01
    missing_left = bool(random.integers(2))
    leaf = {"feature": -1, "threshold": 0.0, "left": -1, "right": -1, "missing_left": missing_left, "cover": cover}
    nodes.append(leaf | {"value": float(random.normal())})
    return len(nodes) - 1


def random_rows(random: np.random.Generator, rows: int, thresholds: np.ndarray | None = None) -> np.ndarray:
    """Return rows of normal and whole numbers, some missing, some extreme, some equal to a threshold."""
    matrix = random.normal(size=(rows, FEATURES)).astype(np.float32)
    matrix[:, 1::2] = np.round(matrix[:, 1::2])
    kinds = [np.array([np.nan], np.float32), EXTREMES]
    if thresholds is not None and len(thresholds):
        kinds.append(thresholds[np.abs(thresholds) < 1e38].astype(np.float32))
    for numbers in kinds:
        chosen = random.random(matrix.shape) < 0.12
        matrix[chosen] = random.choice(numbers, int(chosen.sum()))
    return matrix

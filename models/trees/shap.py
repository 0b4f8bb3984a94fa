"""Why a forest gives the margin that it gives: Shapley values by the trees' own covers, exactly, compiled.

The values are those of path-dependent TreeSHAP (Lundberg 2018, algorithm 2), taken leaf by leaf. On the way to a leaf,
each feature asks for an interval, and its share is the part of the training rows that stayed on the way at its nodes.
With some features known and the others not, a leaf counts for its value, times the share of each unknown one, times 1
or 0 for each known one that is inside its interval or outside. So a feature's Shapley value is an integral over t in
[0, 1], the chance that another one is known: of (1 - t) share, and t where it is inside, multiplied over the others.
That is a polynomial in t, which Gauss and Legendre's rule integrates exactly, and all its terms are positive: where
paths are unwound, deep trees lose digits to subtraction. Leaves with as many steps are taken together, since the
processor can work on several numbers at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from app.domain.memory import compiled

__all__ = ["Paths", "explain", "find_paths"]

_LANES = 32
"""Leaves that are taken together."""

_LEAST_SHARE = 1e-300
"""In place of 0, by which nothing can be divided; what it is multiplied with comes to nothing just as well."""


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _dividing(function: _Function) -> _Function:
    """Compile a function whose divisions need no check for 0, which would keep them from being done side by side."""
    return cast("_Function", njit(cache=True, error_model="numpy")(function))


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps on the ways to leaves: a feature stands once on a way.

    Parameters
    ----------
    feature
        That is asked for; int32.
    above, up_to
        The interval (above, up_to]; NaN where nothing bounds it from below; float32.
    missing
        Whether a missing value stays on the way.
    share
        Part of the training rows that stayed; float64.
    """

    feature: NDArray[np.int32]
    above: NDArray[np.float32]
    up_to: NDArray[np.float32]
    missing: NDArray[np.bool_]
    share: NDArray[np.float64]

    @classmethod
    def open(cls, leaves: int, most: int) -> _Steps:
        """Return steps that all values pass, shapes (leaves, most)."""
        shape = (leaves, most)
        intervals = np.full(shape, np.nan, np.float32), np.full(shape, np.inf, np.float32)
        return cls(np.zeros(shape, np.int32), *intervals, np.ones(shape, np.bool_), np.ones(shape))


@dataclass(frozen=True, slots=True)
class Paths:
    """The ways to all leaves, in groups of 32 with as many steps; the last of them is filled up with leaves of value 0.

    Parameters
    ----------
    starts
        Of each group: its first row of steps; int32, shape (groups + 1,).
    steps
        Shapes (rows, 32).
    value
        Of each leaf; float64, shape (groups, 32).
    rules
        For ways of d steps, points in [0, 1] and their weights; float64, shape (2, d, points).
    expected
        The trees' margin of a row of which nothing is known.
    """

    starts: NDArray[np.int32]
    steps: _Steps
    value: NDArray[np.float64]
    rules: NDArray[np.float64]
    expected: float


def find_paths(
    feature: NDArray[np.int32],
    threshold: NDArray[np.float32],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    missing_left: NDArray[np.bool_],
    value: NDArray[np.float64],
    cover: NDArray[np.float64],
    depth: NDArray[np.int32],
) -> Paths:
    """Find the ways to a forest's leaves.

    Parameters
    ----------
    feature, threshold, left, right, missing_left, value, cover
        Of the forest, thresholds as float32.
    depth
        Of each node, from `forest_kernel.survey`.
    """
    leaves = np.flatnonzero(feature < 0).astype(np.int32)
    inner = np.flatnonzero(feature >= 0)
    parent = np.full(len(feature), -1, np.int32)
    parent[left[inner]] = parent[right[inner]] = inner
    # Of the children's cover, not the parent's: shares add up to 1 even where a learner's weights do not.
    below = cover[left[inner]] + cover[right[inner]]
    share = np.ones(len(feature))
    for side in (left[inner], right[inner]):
        share[side] = np.divide(cover[side], below, out=np.full(len(inner), 0.5), where=below > 0)
    steps = _Steps.open(len(leaves) + 1, int(depth.max(initial=0)))  # the last leaf fills up groups
    counts = np.zeros(len(leaves), np.int64)
    trees = (leaves, parent, feature, threshold, left, missing_left, share)
    _climb(*trees, counts, steps.feature, steps.above, steps.up_to, steps.missing, steps.share)
    return _grouped(steps, counts, value[leaves])


def _grouped(steps: _Steps, counts: NDArray[np.int64], value: NDArray[np.float64]) -> Paths:
    groups = []
    for count in np.unique(counts[counts > 0]).tolist():
        members = np.flatnonzero(counts == count)
        fillers = np.full(-len(members) % _LANES, len(value))
        groups.append((count, np.concatenate((members, fillers)).reshape(-1, _LANES)))

    def rows(column: str) -> Any:  # noqa: ANN401 (the column's own type)
        array = getattr(steps, column)
        parts = [
            array.take(members, axis=0)[:, :, :count].transpose(0, 2, 1).reshape(-1, _LANES)
            for count, members in groups
        ]
        return np.ascontiguousarray(np.concatenate((np.empty((0, _LANES), array.dtype), *parts)))

    sizes = [count for count, members in groups for _ in members]
    ways = np.concatenate((np.empty((0, _LANES), np.int64), *(members for _, members in groups)))
    expected = float(value @ np.prod(steps.share[:-1], axis=1))
    return Paths(
        np.cumsum([0, *sizes]).astype(np.int32),
        _Steps(*(rows(column) for column in _Steps.__slots__)),
        np.append(value, 0.0)[ways],
        _rules(int(counts.max(initial=0))),
        expected,
    )


def _rules(most: int) -> NDArray[np.float64]:
    """Gauss and Legendre's points and weights on [0, 1]: of d steps comes a polynomial of degree d - 1."""
    rules = np.zeros((2, most + 1, most // 2 + 1))
    for steps in range(1, most + 1):
        points = (steps + 1) // 2
        at, weights = _gauss(points)
        rules[:, steps, :points] = (at + 1) / 2, weights / 2
    return rules


@cache
def _gauss(points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    at, weights = np.polynomial.legendre.leggauss(points)
    return at, weights


@compiled
def _climb(
    leaves: NDArray[np.int32],
    parent: NDArray[np.int32],
    feature: NDArray[np.int32],
    threshold: NDArray[np.float32],
    left: NDArray[np.int32],
    missing_left: NDArray[np.bool_],
    shares: NDArray[np.float64],
    counts: NDArray[np.int64],
    asked: NDArray[np.int32],
    above: NDArray[np.float32],
    up_to: NDArray[np.float32],
    missing: NDArray[np.bool_],
    share: NDArray[np.float64],
) -> None:
    """Go from each leaf to its root, gather what is asked of each feature on the way, and count the features."""
    for leaf in range(len(leaves)):
        node = leaves[leaf]
        while parent[node] >= 0:
            child, node = node, parent[node]
            step = 0
            while step < counts[leaf] and asked[leaf, step] != feature[node]:
                step += 1
            if step == counts[leaf]:
                asked[leaf, step] = feature[node]
                counts[leaf] += 1
            share[leaf, step] *= shares[child]
            goes_left = child == left[node]
            missing[leaf, step] &= goes_left == missing_left[node]
            if goes_left:
                up_to[leaf, step] = min(up_to[leaf, step], threshold[node])
            elif not above[leaf, step] >= threshold[node]:  # NaN gives way
                above[leaf, step] = threshold[node]


@_dividing
def _integrate(
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    inside: NDArray[np.float64],
    share: NDArray[np.float64],
    factors: NDArray[np.float64],
    product: NDArray[np.float64],
    gains: NDArray[np.float64],
) -> None:
    """Integrate, for each step to each leaf of a group, the product of the other steps' factors.

    Parameters
    ----------
    points, weights
        Of the rule for so many steps.
    inside, share
        Of each step: 1 or 0, and its share; shapes (steps, 32).
    factors, product
        Scratch: shapes (steps, 32) and (32,).
    gains
        Takes the integrals; shape (steps, 32).
    """
    steps, lanes = share.shape  # a number known to the compiler would be unrolled, and not done side by side
    gains[:steps] = 0.0
    for point in range((steps + 1) // 2):
        known, unknown = points[point], 1.0 - points[point]
        product[:] = weights[point]
        for step in range(steps):
            factor, inner, part = factors[step], inside[step], share[step]
            for lane in range(lanes):
                factor[lane] = known * inner[lane] + unknown * part[lane]
                product[lane] *= factor[lane]
        for step in range(steps):
            factor, gain = factors[step], gains[step]
            for lane in range(lanes):
                gain[lane] += product[lane] / factor[lane]


@_dividing
def _explain(
    matrix: NDArray[np.float32],
    starts: NDArray[np.int32],
    features: NDArray[np.int32],
    above: NDArray[np.float32],
    up_to: NDArray[np.float32],
    missing: NDArray[np.bool_],
    share: NDArray[np.float64],
    value: NDArray[np.float64],
    rules: NDArray[np.float64],
    contributions: NDArray[np.float64],
) -> None:
    most, lanes = rules.shape[1], value.shape[1]
    inside, gains, factors = np.empty((most, lanes)), np.empty((most, lanes)), np.empty((most, lanes))
    product = np.empty(lanes)
    for row in range(len(matrix)):
        numbers, sums = matrix[row], contributions[row]
        for group in range(len(value)):
            begin, end = starts[group], starts[group + 1]
            for step in range(begin, end):
                feature, low, high, lost, inner = (
                    features[step],
                    above[step],
                    up_to[step],
                    missing[step],
                    inside[step - begin],
                )
                for lane in range(lanes):
                    number = numbers[feature[lane]]
                    stays = (number <= high[lane]) & ~(number <= low[lane])
                    inner[lane] = stays | ((number != number) & lost[lane])  # noqa: PLR0124 (NaN alone is not itself)
            steps = end - begin
            _integrate(rules[0, steps], rules[1, steps], inside, share[begin:end], factors, product, gains)
            for step in range(begin, end):
                feature, inner, part, gain = features[step], inside[step - begin], share[step], gains[step - begin]
                for lane in range(lanes):
                    sums[feature[lane]] += value[group, lane] * (inner[lane] - part[lane]) * gain[lane]


def explain(paths: Paths, bias: float, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Shapley values of rows.

    Parameters
    ----------
    paths
        Of the forest.
    bias
        What its margins start from.
    matrix
        float32, shape (n, f), NaN for missing.

    Returns
    -------
    Shape (n, f + 1), the expected margin last.
    """
    contributions = np.zeros((len(matrix), matrix.shape[1] + 1))
    contributions[:, -1] = bias + paths.expected
    steps = paths.steps
    columns = (steps.feature, steps.above, steps.up_to, steps.missing, np.maximum(steps.share, _LEAST_SHARE))
    _explain(matrix, paths.starts, *columns, paths.value, paths.rules, contributions)
    return contributions

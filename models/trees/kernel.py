"""Scoring of a forest, compiled: two ways to the same leaves, and so to the same bits.

Walking from the root, a row waits for memory and for mispredicted branches at each of its nodes: 11 us for 300 trees of
15 leaves. So batches go another way where trees have 64 leaves at most (as in QuickScorer, Lucchese et al. 2015): each
inner node strikes out the leaves that its left side would have led to, for all rows that it sends right, and the first
leaf that is left is the row's. That compares with every node, but eight or more rows at a time and without a branch: 2
us. Few rows, and larger trees, walk.

Thresholds are float32: for a float32 value, not exceeding a float64 is not exceeding the greatest float32 below it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from app.domain.memory import compiled, trailing_zeros

__all__ = ["BLOCK", "FULL", "WALK_DTYPE", "lay_out_masks", "lay_out_walk", "mask_rows", "squash", "survey", "walk_rows"]

BLOCK = 64
"""Rows that are masked together: their columns stay in the cache."""

FULL = 64
"""Leaves that a mask can hold."""

WALK_DTYPE = np.dtype([("threshold", "f4"), ("first", "i4"), ("feature", "i4"), ("missing_left", "i4")])
"""A node as a walk reads it: its left child is at `first`, its right one behind that; a leaf has 0."""

Integers = NDArray[np.int32]
Numbers = NDArray[np.float64]


@compiled
def survey(
    left: Integers, right: Integers, roots: Integers, leaves: Integers, first: Integers, depth: Integers, tree: Integers
) -> None:
    """Count the leaves below each node, number them within each tree from the left, and measure depths.

    Parameters
    ----------
    left, right, roots
        Of the forest; children stand behind their parents, -1 for none.
    leaves, first, depth, tree
        Take for each node its leaves, the number of the first of them, its distance from the root, and its tree.
    """
    for node in range(len(left) - 1, -1, -1):
        leaves[node] = 1 if left[node] < 0 else leaves[left[node]] + leaves[right[node]]
    for place in range(len(roots)):
        first[roots[place]] = 0
        depth[roots[place]] = 0
        tree[roots[place]] = place
    for node in range(len(left)):
        if left[node] >= 0:
            first[left[node]] = first[node]
            first[right[node]] = first[node] + leaves[left[node]]
            for child in (left[node], right[node]):
                depth[child] = depth[node] + 1
                tree[child] = tree[node]


@compiled
def lay_out_walk(
    feature: Integers,
    threshold: NDArray[np.float32],
    left: Integers,
    right: Integers,
    missing_left: NDArray[np.bool_],
    value: Numbers,
    roots: Integers,
    nodes: NDArray[np.void],
    values: Numbers,
    starts: Integers,
) -> None:
    """Copy the trees for walks: breadth first, both children side by side.

    Parameters
    ----------
    feature, threshold, left, right, missing_left, value, roots
        Of the forest.
    nodes, values
        Take the nodes, `WALK_DTYPE`, and the leaves' values.
    starts
        Takes the places of the roots.
    """
    order = np.empty(len(left), np.int32)
    end = 0
    for tree in range(len(roots)):
        place = end
        starts[tree] = place
        order[place] = roots[tree]
        end += 1
        while place < end:
            node = order[place]
            values[place] = value[node]
            nodes[place].threshold = threshold[node]
            nodes[place].feature = feature[node]
            nodes[place].missing_left = missing_left[node]
            nodes[place].first = 0
            if left[node] >= 0:
                nodes[place].first = end
                order[end], order[end + 1] = left[node], right[node]
                end += 2
            place += 1


@compiled
def lay_out_masks(
    order: NDArray[np.int64],
    left: Integers,
    leaves: Integers,
    first: Integers,
    masks: NDArray[np.uint64],
) -> None:
    """Find which leaves each inner node strikes out for the rows that it sends right.

    Parameters
    ----------
    order
        The inner nodes.
    left, leaves, first
        Of all nodes, from `survey`.
    masks
        Takes ones for the leaves of the tree that remain.
    """
    for place in range(len(order)):
        child = left[order[place]]
        struck = (np.uint64(1) << np.uint64(leaves[child])) - np.uint64(1)  # a left side never has all 64
        masks[place] = ~(struck << np.uint64(first[child]))


@compiled
def walk_rows(
    matrix: NDArray[np.float32],
    nodes: NDArray[np.void],
    values: Numbers,
    starts: Integers,
    bias: float,
    margins: Numbers,
) -> None:
    """Add up the leaves that rows reach, each row from root to leaf.

    Parameters
    ----------
    matrix
        Shape (n, f), NaN for missing.
    nodes, values, starts
        From `lay_out_walk`.
    bias
        What margins start from.
    margins
        Takes the sums, shape (n,).
    """
    for row in range(len(matrix)):
        margin = bias
        for tree in range(len(starts)):
            place = starts[tree]
            while nodes[place].first > 0:
                node = nodes[place]
                number = matrix[row, node.feature]
                goes_left = (number <= node.threshold) | ((node.missing_left != 0) & (number != number))  # noqa: PLR0124
                place = node.first + (1 - goes_left)
            margin += values[place]
        margins[row] = margin


@compiled
def _copy_columns(matrix: NDArray[np.float32], used: Integers, columns: NDArray[np.float32]) -> None:
    for row in range(len(matrix)):
        for slot in range(len(used)):
            columns[slot, row] = matrix[row, used[slot]]


@compiled
def mask_rows(
    matrix: NDArray[np.float32],
    used: Integers,
    slots: Integers,
    thresholds: NDArray[np.float32],
    masks: NDArray[np.unsignedinteger],
    bounds: Integers,
    values: Numbers,
    bias: float,
    columns: NDArray[np.float32],
    alive: NDArray[np.unsignedinteger],
    margins: Numbers,
) -> None:
    """Add up the leaves that rows reach, striking out the others of each tree in blocks of rows.

    Parameters
    ----------
    matrix
        Shape (n, f), NaN for missing.
    used
        Features that any node reads.
    slots, thresholds, masks
        Of each inner node, by tree: its feature's place in `used`, and what it strikes out of its tree's leaves.
    bounds
        Of each tree: its first inner node, the first that sends missing values right, the end, and its first leaf;
        shape (trees, 4).
    values
        Of all leaves.
    bias
        What margins start from.
    columns, alive
        Scratch: shapes (used, BLOCK) and (BLOCK,).
    margins
        Takes the sums, shape (n,).
    """
    every = ~alive.dtype.type(0)
    for begin in range(0, len(matrix), len(alive)):
        rows = min(len(alive), len(matrix) - begin)
        _copy_columns(matrix[begin : begin + rows], used, columns)
        margins[begin : begin + rows] = bias
        for tree in range(len(bounds)):
            for row in range(rows):
                alive[row] = every
            # A comparison with NaN is false: two loops, by the side to which a missing value goes.
            for node in range(bounds[tree, 0], bounds[tree, 1]):
                threshold, mask, column = thresholds[node], masks[node], columns[slots[node]]
                for row in range(rows):
                    alive[row] &= mask if column[row] > threshold else every
            for node in range(bounds[tree, 1], bounds[tree, 2]):
                threshold, mask, column = thresholds[node], masks[node], columns[slots[node]]
                for row in range(rows):
                    alive[row] &= every if column[row] <= threshold else mask
            leaf = bounds[tree, 3]
            for row in range(rows):
                margins[begin + row] += values[leaf + trailing_zeros(np.uint64(alive[row]))]


@compiled
def squash(margins: Numbers, probabilities: Numbers) -> None:
    """Take margins through the logistic function: one by one, since NumPy's own differs with a batch's alignment."""
    for place in range(len(margins)):
        margin = margins[place]
        if margin >= 0:
            probabilities[place] = 1.0 / (1.0 + math.exp(-margin))
        else:  # the exponential of a great margin would overflow
            power = math.exp(margin)
            probabilities[place] = power / (1.0 + power)

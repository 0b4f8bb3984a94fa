"""A forest of decision trees as arrays: what every model, however it was learned, becomes before it scores.

So a worker needs no learner's library, any model can be checked, sent and stored in one way, and its reasons are found
in one way.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.trees.kernel import (
    BLOCK,
    FULL,
    WALK_DTYPE,
    lay_out_masks,
    lay_out_walk,
    mask_rows,
    squash,
    survey,
    walk_rows,
)
from models.trees.shap import Paths, explain, find_paths

__all__ = ["LINKS", "Forest", "ForestError", "Link"]

Link = Literal["identity", "logit"]

_Masks = tuple[
    NDArray[np.int32], NDArray[np.float32], NDArray[np.unsignedinteger], NDArray[np.int32], NDArray[np.float64]
]

LINKS: tuple[Link, ...] = ("identity", "logit")
"""How a margin becomes a probability; the position is the code in bytes."""

_COLUMNS: dict[str, str] = {
    "feature": "<i4",
    "threshold": "<f8",
    "left": "<i4",
    "right": "<i4",
    "missing_left": "|b1",
    "value": "<f8",
    "cover": "<f8",
}
_MAGIC = b"PXFR"
_FORMAT = 1
_HEADER = struct.Struct("<4sHHIId")  # magic, format, link, nodes, trees, bias
_CHECKSUM = struct.Struct("<I")

_FEW_ROWS = 4
"""Below, walking is faster than striking out leaves."""


class ForestError(ValueError):
    """Arrays that are no forest, bytes that hold none, or a matrix that it cannot score; says what was expected."""


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees as arrays over nodes; parents stand before their children.

    A row goes left where its float32 value, taken as float64, is not above the threshold; NaN goes by `missing_left`.

    Parameters
    ----------
    feature
        Position in the vector, -1 for a leaf; int32, shape (nodes,).
    threshold
        float64, shape (nodes,); not read of leaves. Infinite where only missing values go right.
    left, right
        Places of the children, -1 for a leaf; int32, shape (nodes,).
    missing_left
        Where missing values go; bool, shape (nodes,).
    value
        What a leaf adds to the margin; float64, shape (nodes,); not read of inner nodes.
    cover
        Weight of the training rows that came through; float64, shape (nodes,).
    roots
        Places of the trees' roots, in the order in which margins are added up; int32, shape (trees,).
    bias
        What margins start from.
    link
        "identity": the margin is a probability, but for what leaves [0, 1]; "logit": its logarithm of odds.

    Raises
    ------
    ForestError
        For arrays that do not describe trees.

    Examples
    --------
    One tree: 0.1 up to R$ 50.00, 0.7 above, and where the amount is missing.

    >>> stump = Forest(
    ...     feature=[0, -1, -1], threshold=[5000.0, 0, 0], left=[1, -1, -1], right=[2, -1, -1],
    ...     missing_left=[False] * 3, value=[0, 0.1, 0.7], cover=[4, 3, 1], roots=[0],
    ... )  # fmt: skip
    >>> stump.probabilities(np.array([[5000.0], [5001.0], [np.nan]], np.float32)).tolist()
    [0.1, 0.7, 0.7]
    >>> stump.features.tolist(), stump.depth, stump.leaves
    ([0], 1, 2)
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    cover: NDArray[np.float64]
    roots: NDArray[np.int32]
    bias: float = 0.0
    link: Link = "identity"

    def __post_init__(self) -> None:
        for name, kind in {**_COLUMNS, "roots": "<i4"}.items():
            object.__setattr__(self, name, _column(name, getattr(self, name), np.dtype(kind)))
        object.__setattr__(self, "bias", float(self.bias))
        if self.link not in LINKS:
            raise ForestError(f"forest: link: expected one of {', '.join(LINKS)}, got {self.link!r}")
        if not np.isfinite(self.bias):
            raise ForestError(f"forest: bias: expected a finite number, got {self.bias}")
        self._check_shapes()
        self._check_trees()
        self._check_numbers()

    def _check_shapes(self) -> None:
        nodes = len(self.feature)
        for name in _COLUMNS:
            if len(getattr(self, name)) != nodes:
                raise ForestError(
                    f"forest: {name}: expected {nodes} nodes as in feature, got {len(getattr(self, name))}"
                )
        _refuse("roots", (self.roots < 0) | (self.roots >= nodes), self.roots, f"a node's place below {nodes}")

    def _check_trees(self) -> None:
        nodes = len(self.feature)
        places = np.arange(nodes)
        leaf = self.feature < 0
        _refuse("feature", self.feature < -1, self.feature, "a position in the vector, or -1 for a leaf")
        for name, children in (("left", self.left), ("right", self.right)):
            _refuse(name, leaf & (children != -1), children, "-1, for a leaf has no children")
            outside = ~leaf & ((children <= places) | (children >= nodes))
            _refuse(name, outside, children, f"a child behind its parent and below {nodes}")
        parents = np.bincount(np.concatenate((self.left[~leaf], self.right[~leaf], self.roots)), minlength=nodes)
        _refuse("nodes", parents != 1, parents, "one parent, or a place in roots")

    def _check_numbers(self) -> None:
        leaf = self.feature < 0
        _refuse("threshold", ~leaf & np.isnan(self.threshold), self.threshold, "a number")
        _refuse("value", leaf & ~np.isfinite(self.value), self.value, "a finite number")
        _refuse("cover", ~(np.isfinite(self.cover) & (self.cover >= 0)), self.cover, "a finite number of at least 0")

    @cached_property
    def features(self) -> NDArray[np.int32]:
        """Positions of the features that any node reads, ascending."""
        return np.unique(self.feature[self.feature >= 0])

    @cached_property
    def leaves(self) -> int:
        """How many leaves there are in all trees."""
        return int((self.feature < 0).sum())

    @property
    def depth(self) -> int:
        """Most comparisons between a root and a leaf."""
        return int(self._survey.depth.max(initial=0))

    def margins(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return bias + the sum of the leaves' values, in the trees' order: the same bits however rows are batched.

        Parameters
        ----------
        matrix
            float32, shape (n, f), NaN for missing.

        Returns
        -------
        Shape (n,).

        Raises
        ------
        ForestError
            For another type or fewer features than the forest reads.
        """
        matrix = self._checked(matrix)
        margins = np.empty(len(matrix))
        if len(matrix) < _FEW_ROWS or self._masks is None:
            nodes, values, starts = self._walk
            walk_rows(matrix, nodes, values, starts, self.bias, margins)
        else:
            slots, thresholds, masks, bounds, values = self._masks
            columns, alive = np.empty((len(self.features), BLOCK), np.float32), np.empty(BLOCK, masks.dtype)
            trees = (slots, thresholds, masks, bounds, values, self.bias)
            mask_rows(matrix, self.features, *trees, columns, alive, margins)
        return margins

    def probabilities(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the margins through the link, in [0, 1], shape (n,); see `margins`."""
        margins = self.margins(matrix)
        if self.link == "identity":
            return np.clip(margins, 0.0, 1.0)
        probabilities = np.empty(len(margins))
        squash(margins, probabilities)
        return probabilities

    def contributions(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what each feature adds to each margin: Shapley values by the trees' own covers (path-dependent).

        Parameters
        ----------
        matrix
            float32, shape (n, f), NaN for missing.

        Returns
        -------
        Shape (n, f + 1); the last column is the margin that is expected of any row, and a row's sum is its margin.

        Raises
        ------
        ForestError
            As `margins`.
        """
        return explain(self._paths, self.bias, self._checked(matrix))

    def warm(self) -> None:
        """Compile and lay out all that scoring and explaining need, so that no payment waits for it."""
        rows = np.zeros((BLOCK, int(self.features.max(initial=0)) + 1), np.float32)
        self.probabilities(rows)
        self.probabilities(rows[:1])
        self.contributions(rows[:1])

    def _checked(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        if matrix.dtype != np.float32 or matrix.ndim != 2:
            raise ForestError(f"matrix: expected float32 of two dimensions, got {matrix.dtype} of {matrix.ndim}")
        least = int(self.features[-1]) + 1 if len(self.features) else 0
        if matrix.shape[1] < least:
            raise ForestError(f"matrix: expected {least} features at least, got {matrix.shape[1]}")
        return np.ascontiguousarray(matrix)

    @cached_property
    def _survey(self) -> _Survey:
        found = _Survey(*np.zeros((4, len(self.feature)), np.int32))
        survey(self.left, self.right, self.roots, found.leaves, found.first, found.depth, found.tree)
        return found

    @cached_property
    def _thresholds(self) -> NDArray[np.float32]:
        """The greatest float32 that is not above each threshold: the same comparison, for float32 values."""
        with np.errstate(over="ignore"):
            near = self.threshold.astype(np.float32)
        return np.where(near > self.threshold, np.nextafter(near, np.float32(-np.inf)), near)

    @cached_property
    def _walk(self) -> tuple[NDArray[np.void], NDArray[np.float64], NDArray[np.int32]]:
        nodes = np.zeros(len(self.feature), WALK_DTYPE)
        values, starts = np.zeros(len(nodes)), np.zeros(len(self.roots), np.int32)
        trees = (self.feature, self._thresholds, self.left, self.right, self.missing_left, self.value, self.roots)
        lay_out_walk(*trees, nodes, values, starts)
        return nodes, values, starts

    @cached_property
    def _masks(self) -> _Masks | None:
        """Slots, thresholds, masks, bounds and leaves' values as `mask_rows` takes them; None for larger trees."""
        most = int(self._survey.leaves[self.roots].max(initial=0))
        if most > FULL:
            return None
        tree, leaf = self._survey.tree, self.feature < 0
        inner = np.flatnonzero(~leaf)
        inner = inner[np.lexsort((~self.missing_left[inner], tree[inner]))]
        masks = np.zeros(len(inner), np.uint64)
        lay_out_masks(inner, self.left, self._survey.leaves, self._survey.first, masks)
        ends = np.flatnonzero(leaf)
        ends = ends[np.lexsort((self._survey.first[ends], tree[ends]))]
        trees = len(self.roots)
        counts = np.bincount(tree[inner], minlength=trees)
        lefts = np.bincount(tree[inner[self.missing_left[inner]]], minlength=trees)
        stops = np.cumsum(counts)
        starts = stops - counts
        # A binary tree has one leaf more than inner nodes.
        bounds = np.stack((starts, starts + lefts, stops, starts + np.arange(trees)), axis=1).astype(np.int32)
        kind = np.uint16 if most <= 16 else np.uint32 if most <= 32 else np.uint64
        slots = np.searchsorted(self.features, self.feature[inner]).astype(np.int32)
        return slots, self._thresholds[inner], masks.astype(kind), bounds, self.value[ends]

    @cached_property
    def _paths(self) -> Paths:
        trees = (self.feature, self._thresholds, self.left, self.right, self.missing_left, self.value, self.cover)
        return find_paths(*trees, self._survey.depth)

    def to_bytes(self) -> bytes:
        """Return the forest as bytes, with format and checksum: arrays and nothing that runs."""
        header = _HEADER.pack(
            _MAGIC, _FORMAT, LINKS.index(self.link), len(self.feature), len(self.roots), float(self.bias)
        )
        body = b"".join((header, *(getattr(self, name).tobytes() for name in _COLUMNS), self.roots.tobytes()))
        return body + _CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> Forest:
        """Read what `to_bytes` wrote.

        Raises
        ------
        ForestError
            For anything else: another format, a wrong length or checksum, arrays that are no forest.
        """
        if len(data) < _HEADER.size + _CHECKSUM.size:
            raise ForestError(f"forest: expected {_HEADER.size + _CHECKSUM.size} bytes at least, got {len(data)}")
        magic, version, link, nodes, trees, bias = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _FORMAT):
            raise ForestError(f"forest: expected {_MAGIC!r} of format {_FORMAT}, got {magic!r} of format {version}")
        sizes = [nodes * np.dtype(kind).itemsize for kind in _COLUMNS.values()]
        length = _HEADER.size + sum(sizes) + trees * 4 + _CHECKSUM.size
        if len(data) != length:
            raise ForestError(f"forest: expected {length} bytes for {nodes} nodes of {trees} trees, got {len(data)}")
        (wanted,) = _CHECKSUM.unpack_from(data, length - _CHECKSUM.size)
        if (checksum := zlib.crc32(memoryview(data)[: -_CHECKSUM.size])) != wanted:
            raise ForestError(f"forest: expected checksum {wanted:08x}, got {checksum:08x}: the bytes are damaged")
        if link >= len(LINKS):
            raise ForestError(f"forest: link: expected a code below {len(LINKS)}, got {link}")
        columns, place = {}, _HEADER.size
        for (name, kind), size in zip(_COLUMNS.items(), sizes, strict=True):
            columns[name] = np.frombuffer(data, kind, nodes, place)
            place += size
        return cls(**columns, roots=np.frombuffer(data, "<i4", trees, place), bias=bias, link=LINKS[link])


@dataclass(frozen=True, slots=True)
class _Survey:
    """Of each node: leaves below it, the number of the first of them in its tree, its depth, its tree."""

    leaves: NDArray[np.int32]
    first: NDArray[np.int32]
    depth: NDArray[np.int32]
    tree: NDArray[np.int32]


def _column(name: str, given: Any, kind: np.dtype[Any]) -> NDArray[Any]:  # noqa: ANN401 (anything that makes an array)
    """Copy what was given, so that no one changes it afterwards."""
    array = np.asarray(given)
    if array.ndim != 1:
        raise ForestError(f"forest: {name}: expected one dimension, got {array.ndim}")
    # An empty list has no type of its own; all else must fit, integers into int32 included.
    taken = array.astype(kind)
    if len(array) and (array.dtype.kind not in "biuf" or not np.array_equal(taken, array, equal_nan=kind.kind == "f")):
        raise ForestError(f"forest: {name}: expected {kind.name}, got {array.dtype} that does not fit")
    taken.flags.writeable = False
    return taken


def _refuse(name: str, wrong: NDArray[np.bool_], values: NDArray[Any], expected: str) -> None:
    if wrong.any():
        place = int(wrong.argmax())
        raise ForestError(f"forest: {name}[{place}]: expected {expected}, got {values[place]}")

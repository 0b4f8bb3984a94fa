"""River's models that may learn online, as the bake-off compares them; which of them serves is recorded in ADR 0014.

Each takes rows as dicts of position -> prepared value (`models.online.features`) and labels 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from river import compose, forest, linear_model, optim, preprocessing, tree
from river.forest.adaptive_random_forest import BaseTreeClassifier
from river.tree.base import Branch

from models.online.splitter import LeanGaussianSplitter

__all__ = ["CANDIDATES", "DEFAULT", "AdaptiveForest", "Candidate", "MainPathTree", "PlainTree"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry of the bake-off.

    Parameters
    ----------
    why
        What speaks for it.
    build
        Makes an untrained one; the argument is the seed.
    exportable
        Whether `models.online.export` makes arrays of it: what cannot be exported cannot serve.
    """

    why: str
    build: Callable[[int], Any]
    exportable: bool


class EvidenceFirst:
    """Lets a tree split a leaf only once both classes have come to it.

    A leaf is born with its share of the frauds before it. River takes rows of one class that come after for proof that
    any split explains those frauds, and splits by whatever feature comes last: where frauds are rare, most splits.
    """

    __slots__ = ()

    def _attempt_to_split(self, leaf: Any, *place: Any, **options: Any) -> None:  # noqa: ANN401 - River's signature
        # All features of a leaf see the same rows: the first speaks for all.
        if any(splitter.mixed for splitter in islice(leaf.splitters.values(), 1)):
            super()._attempt_to_split(leaf, *place, **options)  # type: ignore[misc]


class PlainTree(EvidenceFirst, tree.HoeffdingTreeClassifier):
    """A Hoeffding tree."""


class ForestTree(EvidenceFirst, BaseTreeClassifier):
    """A tree of an adaptive random forest."""


class AdaptiveForest(forest.ARFClassifier):
    """An adaptive random forest of such trees."""

    def _new_base_model(self) -> ForestTree:
        # River builds its tree by name, from twenty options, all of them attributes: only the class differs.
        made = ForestTree.__new__(ForestTree)
        made.__dict__.update(super()._new_base_model().__dict__)  # type: ignore[no-untyped-call]
        return made


class MainPathTree(EvidenceFirst, tree.HoeffdingAdaptiveTreeClassifier):
    """A Hoeffding adaptive tree that answers with its main leaf alone.

    River lets the alternates, which are on trial where drift was seen, vote too, each by its recent error: an answer
    that is no sum over leaves, and so no arrays.
    """

    def predict_proba_one(self, x: dict[Any, Any], **_: Any) -> dict[Any, float]:  # noqa: ANN401 - River's signature
        """Return the share of each class in the leaf, as River's plain tree does."""
        shares = dict.fromkeys(sorted(self.classes), 0.0)
        root = self._root
        if root is not None:
            leaf: Any = Branch.traverse(root, x) if isinstance(root, Branch) else root
            stats: dict[Any, float] = leaf.stats
            total = sum(stats.values())
            if total > 0:
                shares.update({label: weight / total for label, weight in stats.items()})
        return shares


def _logistic(_seed: int) -> Any:  # noqa: ANN401 - River's models have no common type that says more
    return compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(optim.SGD(0.01), l2=1e-4))


def _tree_options() -> dict[str, Any]:
    return {
        "leaf_prediction": "mc",
        # Where frauds are rare nearly every leaf is nearly pure: at River's .99 most would never be split.
        "max_share_to_split": 0.9999,
        "grace_period": 100,
        "delta": 1e-3,
        # Of features that tell much the same, one is taken after a few hundred lessons instead of thousands.
        "tau": 0.1,
        # Bounds the snapshot and the checkpoint: at most 256 leaves a tree.
        "max_depth": 8,
        "splitter": LeanGaussianSplitter(),
    }


def _hoeffding(_seed: int) -> Any:  # noqa: ANN401
    return PlainTree(**_tree_options())


def _adaptive(seed: int) -> Any:  # noqa: ANN401
    return MainPathTree(**_tree_options(), seed=seed)


def _adaptive_forest(seed: int) -> Any:  # noqa: ANN401
    # Each leaf watches 40 of the features, not their root: few of them tell of fraud. Votes are equal: accuracy, by
    # which River weighs them, says nothing where one class is rare, and costs a third of the time of scoring.
    return AdaptiveForest(n_models=10, max_features=40, seed=seed, disable_weighted_vote=True, **_tree_options())


def _mondrian(seed: int) -> Any:  # noqa: ANN401
    return forest.AMFClassifier(n_estimators=10, use_aggregation=True, dirichlet=0.5, seed=seed)


CANDIDATES: dict[str, Candidate] = {
    "logistic": Candidate("Cheapest; what a straight line can say.", _logistic, exportable=False),
    "hoeffding": Candidate("One tree; never forgets.", _hoeffding, exportable=True),
    "adaptive": Candidate("One tree that replaces what has drifted.", _adaptive, exportable=True),
    "arf": Candidate("Ten trees on random features, each replaced when it drifts.", _adaptive_forest, exportable=True),
    "amf": Candidate("Ten Mondrian trees that average over all prunings.", _mondrian, exportable=False),
}

DEFAULT = "arf"

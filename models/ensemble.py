"""The models that are in force together, and the one probability that they make of a payment's vector.

A batch model is the champion; the online model's say in the blend is earned on matured labels and published with it; a
challenger scores in the shadow. What a shard decides by is part of its state, byte for byte, so that a replay after a
crash needs neither registry nor topic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.batch.model import BatchModel
from models.online.snapshot import OnlineSnapshot
from models.trees.forest import Forest
from models.wording.explaining import model_reasons
from tables.catalog import CATALOG

__all__ = ["MOST_REASONS", "NO_MODELS", "PARTS", "SCORES_DTYPE", "Models", "no_scores", "warm_up_models"]

SCORES_DTYPE = np.dtype([(name, "f4") for name in ("score", "rules", "online", "batch", "challenger")])
"""What the parts say of a payment, probabilities in [0, 1]; NaN where there is no such part. `score` is what the models
say together, and what a decision quotes then; where they say nothing it quotes the rules. Single precision throughout,
so that what `pix-features` records is all that a decision depended on."""

PARTS = ("champion", "challenger", "online", "challenger_share")
"""Of a set of models, as a checkpoint has them."""

MOST_REASONS = 3
"""Of a model, in one decision."""

_CLOSEST = 1e-6
"""To 0 and 1, that a probability comes before its log-odds are taken."""
_SHARES = 10_000
_POSITIONS = {name: position for position, name in enumerate(CATALOG.names)}


def no_scores(n: int) -> NDArray[np.void]:
    """Return the scores of n payments on which nobody has spoken."""
    scores = np.empty(n, SCORES_DTYPE)
    for name in SCORES_DTYPE.names or ():
        scores[name] = np.nan
    return scores


@dataclass(frozen=True, slots=True)
class Models:
    """A set of models.

    Parameters
    ----------
    champion
        The batch model that decides.
    challenger
        The one that might take its place: it scores beside it, and decides nothing.
    online
        The learner's last snapshot.
    challenger_share
        Of the payers, whose payments the challenger scores: always the same ones.
    """

    champion: BatchModel | None = None
    challenger: BatchModel | None = None
    online: OnlineSnapshot | None = None
    challenger_share: float = 0.0

    @property
    def versions(self) -> tuple[int, int, int, float]:
        """What names the set: versions of champion, challenger and online model, 0 for none, and the share."""
        return (
            self.champion.version if self.champion else 0,
            self.challenger.version if self.challenger else 0,
            self.online.version if self.online else 0,
            self.challenger_share,
        )

    @property
    def fingerprints(self) -> set[str]:
        """Of the catalogs that the models read."""
        return {part.fingerprint for part in (self.champion, self.challenger, self.online) if part is not None}

    def scores(
        self, vectors: NDArray[np.float32], payers: NDArray[np.uint64], scored: NDArray[np.bool_]
    ) -> NDArray[np.void]:
        """Score payments.

        Parameters
        ----------
        vectors
            Shape (n, features).
        payers
            Their accounts' hashes, shape (n,).
        scored
            False for MED refunds, of which nothing is said; shape (n,).

        Returns
        -------
        `SCORES_DTYPE`, shape (n,); its column `rules` is for the rules to fill.
        """
        scores = no_scores(len(vectors))
        if self.champion is not None:
            scores["batch"] = self.champion.probabilities(vectors)
        if self.online is not None:
            scores["online"] = self.online.scores(vectors)
        if self.challenger is not None:
            chosen = payers % np.uint64(_SHARES) < np.uint64(round(self.challenger_share * _SHARES))
            if chosen.any():
                scores["challenger"][chosen] = self.challenger.probabilities(vectors[chosen])
        scores["score"] = self._blend(scores)
        if not scored.all():
            scores[~scored] = no_scores(1)
        return scores

    @property
    def online_weight(self) -> float:
        """What the online model has earned: in the blend with the champion, or alone where there is none."""
        if self.online is None:
            return 0.0
        return self.online.alone_weight if self.champion is None else self.online.blend_weight

    def _blend(self, scores: NDArray[np.void]) -> NDArray[np.float64]:
        """Return the blended probability, shape (n,): log-odds weighted by what the online model has earned."""
        weight = self.online_weight
        if self.online is None or weight == 0:
            return scores["batch"].astype(np.float64)
        base = np.full(len(scores), self.online.prior) if self.champion is None else scores["batch"].astype(np.float64)
        odds = (1.0 - weight) * _log_odds(base) + weight * _log_odds(scores["online"].astype(np.float64))
        blended: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-odds))
        return blended

    def reasons(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Return what spoke most for fraud in the model that weighs most.

        Parameters
        ----------
        vectors
            Of payments that are held or denied, shape (n, features).

        Returns
        -------
        Positions of features in the catalog plus 1 (0: no more), and their shares in percent; shapes (n, MOST_REASONS).
        """
        features = np.zeros((len(vectors), MOST_REASONS), np.uint16)
        shares = np.zeros((len(vectors), MOST_REASONS), np.uint8)
        weight = self.online_weight
        model = self.online if weight > 0 and (self.champion is None or weight > 0.5) else self.champion
        if model is None:
            return features, shares
        contributions = model.forest.contributions(vectors)
        spoken_for = contributions[:, :-1].clip(min=0).sum(axis=1)
        for row, vector in enumerate(vectors):
            for place, reason in enumerate(model_reasons(contributions[row], vector, MOST_REASONS)):
                features[row, place] = _POSITIONS[reason.feature] + 1
                shares[row, place] = round(100 * reason.weight / spoken_for[row])
        return features, shares

    def contents(self) -> dict[str, bytes]:
        """Return the bytes of each of `PARTS`, for a checkpoint: empty for a model that is not there."""
        models = (self.champion, self.challenger, self.online)
        contents = [b"" if model is None else model.to_bytes() for model in models]
        return dict(zip(PARTS, [*contents, repr(self.challenger_share).encode()], strict=True))

    @classmethod
    def from_contents(cls, content_of: Callable[[str], bytes | None]) -> Models:
        """Return the set of a checkpoint.

        Parameters
        ----------
        content_of
            A part's bytes by its name; None or empty where there is none.
        """
        champion, challenger, online, share = map(content_of, PARTS)
        return cls(
            _batch_model(champion) if champion else None,
            _batch_model(challenger) if challenger else None,
            _snapshot(online) if online else None,
            float(share or b"0"),
        )


# Every shard of a worker has the same ones in its state: once in memory is enough.
_batch_model = lru_cache(maxsize=8)(BatchModel.from_bytes)
_snapshot = lru_cache(maxsize=8)(OnlineSnapshot.from_bytes)

NO_MODELS = Models()
"""Before anything is trained: the rules decide alone."""


def warm_up_models() -> None:
    """Compile what any model may need: Numba does it at the first call, and for each size of trees anew."""
    for leaves in (16, 32, 64, 65):
        inner = np.arange(2 * leaves - 1) % 2 == 0
        inner[-1] = False
        children = np.arange(2 * leaves - 1, dtype=np.int32)
        Forest(
            feature=np.where(inner, 0, -1).astype(np.int32),
            threshold=children.astype(np.float64),
            left=np.where(inner, children + 1, -1).astype(np.int32),
            right=np.where(inner, children + 2, -1).astype(np.int32),
            missing_left=inner,
            value=np.zeros(len(inner)),
            cover=np.arange(len(inner), 0.0, -1.0),
            roots=np.zeros(1, np.int32),
        ).warm()


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(probabilities, _CLOSEST, 1.0 - _CLOSEST)
    odds: NDArray[np.float64] = np.log(kept / (1.0 - kept))
    return odds

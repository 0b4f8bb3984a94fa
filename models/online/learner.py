"""The online model's learner: matured labels in, one state after the other out; pure, and the same for the same labels.

Every label is scored by the model as it stood, then learned. So each label is also a test, and the model's calibration
and its weight in the blend rest on answers that it could not have known.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from app.domain.labelled import Labelled
from models.calibration import Calibration
from models.online.candidates import CANDIDATES, DEFAULT
from models.online.export import forest_from_river
from models.online.features import prepare
from models.online.prequential import ALONE_MOST, RECENT_LABELS, PrequentialWindow, calibrate, earned_weight
from models.online.snapshot import SHARE_FLOOR, OnlineSnapshot, OnlineSnapshotError, share_log_odds

__all__ = ["CheckpointError", "LearnReport", "OnlineLearner", "OnlineSnapshot", "OnlineSnapshotError"]

_FORMAT = "pixguard learner 1"
_RIVER = version_of("river")
_MOST_COPIES = 4
"""A label that stands for many is taught that often at most: no single payment may make a leaf."""
_GUESSED_RATE = 0.005
_GUESSED_LABELS = 200.0
"""Rate of frauds that is assumed before the first label, and how many labels that guess weighs as much as."""
_MEMORY_LABELS = 10_000.0
"""Of the running rate of frauds, by which honest payments are sampled."""
_LOSS_MOST = 8.0
_SMOOTHING = 0.25
"""By which share of the way the blend's weight moves to what was earned, at each review."""
_NEGLIGIBLE = 0.005


class CheckpointError(ValueError):
    """A checkpoint that this learner cannot go on from."""


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What one call of `learn` did.

    Parameters
    ----------
    learned
        Labels that were scored and learned.
    taught
        How many lessons that made, after sampling.
    repeats
        Messages at places that had been seen.
    refused
        Vectors of another feature set.
    unlabelled
        Payments that had no label at maturity.
    revisions
        Messages that are for training sets only.
    """

    learned: int = 0
    taught: int = 0
    repeats: int = 0
    refused: int = 0
    unlabelled: int = 0
    revisions: int = 0


class OnlineLearner:
    """A River model, with all that makes its answers worth something.

    Parameters
    ----------
    fingerprint
        Of the feature set, as messages carry it.
    names
        Of the features, in the vector's order.
    seed
        Same seed, same labels in the same order: the same model, however they were batched.
    candidate
        Key of `models.online.candidates.CANDIDATES`.
    window
        Matured labels that metrics, calibration and blend weight rest on.
    review_labels
        Calibration and blend weight move after so many labels.
    negatives_per_positive
        Honest payments that are taught for each fraud, about: more teach little and cost time.
    """

    def __init__(
        self,
        fingerprint: str,
        names: Sequence[str],
        *,
        seed: int = 0,
        candidate: str = DEFAULT,
        window: int = 20_000,
        review_labels: int = 1_000,
        negatives_per_positive: float = 10.0,
    ) -> None:
        if candidate not in CANDIDATES:
            raise ValueError(f"online model: expected one of {', '.join(CANDIDATES)}, got {candidate!r}")
        self.fingerprint = fingerprint
        self.names = tuple(names)
        self.labels = 0
        self.positives = 0
        self.label_watermark = 0
        self.drifts = 0
        self.blend_weight = 0.0
        self.alone_weight = 0.0
        self.positions: dict[int, int] = {}
        self.window = PrequentialWindow(window)
        self._review_labels = review_labels
        self._ratio = negatives_per_positive
        self._model = CANDIDATES[candidate].build(seed)
        self._random = random.Random(seed)  # noqa: S311 - sampling, not secrets
        self._adwin: Any = ADWIN(delta=0.002)  # type: ignore[no-untyped-call]
        # Running weights of both classes, and of the honest ones that were taught: they begin as a guess.
        self._frauds = _GUESSED_RATE * _GUESSED_LABELS
        self._honest = _GUESSED_LABELS - self._frauds
        self._kept = self._keep_rate() * self._honest
        self._total_frauds, self._total = self._frauds, _GUESSED_LABELS
        self._calibration = self._shifted()

    @property
    def prior(self) -> float:
        """Share of frauds among all labels, by weight."""
        return self._total_frauds / self._total

    @property
    def kept_share(self) -> float:
        """Of the honest payments of late, how many were taught."""
        return self._kept / self._honest

    def learn(self, messages: Sequence[Labelled]) -> LearnReport:
        """Score and learn the matured labels among messages of `pix-labelled`, in their order.

        Parameters
        ----------
        messages
            Those at places at or below `positions` are repeats, and are passed over.
        """
        counts: Counter[str] = Counter()
        lessons: list[Labelled] = []
        for message in messages:
            fate = self._fate(message)
            counts[fate] += 1
            if fate == "learned":
                lessons.append(message)
        if lessons:
            matrix = np.frombuffer(b"".join(message.vector for message in lessons), "<f4")
            rows = prepare(matrix.reshape(len(lessons), len(self.names))).tolist()
            for message, row in zip(lessons, rows, strict=True):
                counts["taught"] += self._lesson(message, dict(enumerate(row)))
        return LearnReport(**counts)

    def _fate(self, message: Labelled) -> str:
        """What is to be done with a message; its place counts as seen from now on."""
        if message.kind != "MATURED":
            return "revisions"
        partition, offset = message.place
        if offset <= self.positions.get(partition, -1):
            return "repeats"
        self.positions[partition] = offset
        if message.fingerprint != self.fingerprint or len(message.vector) != 4 * len(self.names):
            return "refused"
        self.label_watermark = max(self.label_watermark, message.known_at)
        return "unlabelled" if message.label is None else "learned"

    def _lesson(self, message: Labelled, row: dict[int, float]) -> int:
        """Score, judge and learn one label; return how often it was taught."""
        label = int(message.label or 0)
        share = self._model.predict_proba_one(row).get(1, 0.0)
        kept = min(max(share, SHARE_FLOOR), 1.0 - SHARE_FLOOR)
        output = math.log(kept) - math.log1p(-kept)
        online = float(self._calibration.apply(output))
        batch = message.batch_score is not None
        base = message.batch_score if message.batch_score is not None else self.prior
        # What it said when the payment was decided on: by now it has learned labels that nobody knew then, and beside
        # the batch score of then it would look better than it was.
        answered = online if message.online_score is None else message.online_score
        self.window.add(label, message.weight, output, answered, base, batch)
        self._watch(online if label else 1.0 - online)
        copies = self._count(label, message.weight)
        for _ in range(copies):
            self._model.learn_one(row, label)
        if self.labels % self._review_labels == 0:
            self._review()
        return copies

    def _watch(self, chance_of_truth: float) -> None:
        """Tell the drift detector how surprising a label was."""
        before = self._adwin.estimation
        self._adwin.update(min(-math.log(max(chance_of_truth, 1e-12)), _LOSS_MOST) / _LOSS_MOST)
        # A window that is cut because the loss fell is good news.
        self.drifts += self._adwin.drift_detected and self._adwin.estimation > before

    def _count(self, label: int, weight: float) -> int:
        """Count a label into the rates, and draw how often it is taught."""
        self.labels += 1
        self.positives += label
        fading = 1.0 - 1.0 / _MEMORY_LABELS
        wanted = weight if label else weight * self._keep_rate()
        wanted = min(wanted, float(_MOST_COPIES))
        self._frauds = self._frauds * fading + weight * label
        self._honest = self._honest * fading + weight * (1 - label)
        self._kept = self._kept * fading + wanted * (1 - label)
        self._total_frauds += weight * label
        self._total += weight
        return int(wanted) + (self._random.random() < wanted % 1.0)

    def _keep_rate(self) -> float:
        return min(1.0, self._ratio * self._frauds / self._honest)

    def _shifted(self) -> Calibration:
        return Calibration("logistic", 1.0, math.log(self.kept_share))

    def _review(self) -> None:
        recent = self.window.recent(RECENT_LABELS)
        # The weights first: they are earned by what was answered, not by what the new calibration would have answered.
        # Each on rows of its own: what beats a mere rate of frauds has proved nothing against a batch model.
        self.blend_weight = _towards(self.blend_weight, earned_weight(recent.where(recent.batch > 0)))
        alone = earned_weight(recent.where(recent.batch == 0), ALONE_MOST)
        self.alone_weight = _towards(self.alone_weight, alone)
        self._calibration = calibrate(self.window.seen, self.kept_share)

    def scores(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of fraud of raw vectors, by River itself: slow, and for every candidate.

        Parameters
        ----------
        matrix
            float32, shape (n, features).

        Returns
        -------
        float64, shape (n,): what `snapshot(...).scores` returns too, to 1e-12, where there is one.
        """
        shares = [self._model.predict_proba_one(dict(enumerate(row))).get(1, 0.0) for row in prepare(matrix).tolist()]
        return self._calibration.apply(share_log_odds(shares))

    def snapshot(self, version: int) -> OnlineSnapshot:
        """Return the model as it stands; `version` is what decisions will name.

        Raises
        ------
        OnlineExportError
            When the candidate cannot be exported.
        """
        return OnlineSnapshot(
            version,
            self.fingerprint,
            _RIVER,
            self.label_watermark,
            self.labels,
            self.positives,
            forest_from_river(self._model),
            self._calibration,
            self.prior,
            self.blend_weight,
            self.alone_weight,
            {**self.window.metrics(self.blend_weight, self.alone_weight), "kept_share": self.kept_share},
            self.drifts,
        )

    def to_bytes(self) -> bytes:
        """Return a checkpoint: what `from_bytes` goes on from as if nothing had happened."""
        body = pickle.dumps(self.__dict__, protocol=5)
        return _encode(
            _Envelope(_FORMAT, _RIVER, self.fingerprint, hashlib.sha256(body).hexdigest(), body),
        )

    @classmethod
    def from_bytes(cls, data: bytes, fingerprint: str) -> OnlineLearner:
        """Read a checkpoint of one's own.

        Parameters
        ----------
        data
            It holds a pickle: never read one that somebody else may have written.
        fingerprint
            Of the feature set that is to be learned from.

        Raises
        ------
        CheckpointError
            When it is damaged, or of another River, feature set or format.
        """
        try:
            envelope = _decode(data)
        except msgspec.DecodeError as error:
            raise CheckpointError(
                f"learner's checkpoint: expected {_FORMAT!r}, got {len(data)} bytes: {error}; begin anew"
            ) from error
        digest = hashlib.sha256(envelope.body).hexdigest()
        for what, expected, got, mend in (
            ("format", _FORMAT, envelope.format, "begin anew, from the first label"),
            ("River", _RIVER, envelope.river, "install that version, or begin anew, from the first label"),
            ("feature set", fingerprint, envelope.fingerprint, "begin anew: its trees read other features"),
            ("checksum", envelope.digest, digest, "it is damaged: use another, or begin anew"),
        ):
            if expected != got:
                raise CheckpointError(f"learner's checkpoint: {what}: expected {expected!r}, got {got!r}; {mend}")
        learner = cls.__new__(cls)
        state: dict[str, Any] = pickle.loads(envelope.body)  # noqa: S301 - written by this class, digest checked
        learner.__dict__.update(state)
        return learner


def _towards(weight: float, earned: float) -> float:
    moved = weight + _SMOOTHING * (earned - weight)
    return 0.0 if moved < _NEGLIGIBLE else moved


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    format: str
    river: str
    fingerprint: str
    digest: str
    body: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Envelope).decode

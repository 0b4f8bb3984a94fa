"""Models for the simulation: a few trees that nobody trained, each set of them with an answer of its own."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from models.batch.model import BatchModel
from models.calibration import Calibration
from models.ensemble import Models
from models.online.snapshot import OnlineSnapshot
from models.stages.receivers import FEATURES_VERSION
from models.trees.forest import Forest
from tables.catalog import CATALOG

__all__ = ["Served", "model_set"]


@dataclass(slots=True)
class Served:
    """What a worker's `ServedModels` shows to its controls."""

    models: Models


def model_set(version: int) -> Models:
    """Return the models of a version: both that decide, and a challenger for half of the payers."""
    rng = Random(f"models/{version}")
    champion, challenger = (
        BatchModel(number, "pixguard", FEATURES_VERSION, _forest(rng), Calibration("logistic", 1.5, -1.0), 0)
        for number in (version, version + 1)
    )
    online = OnlineSnapshot(
        version=version,
        fingerprint=FEATURES_VERSION,
        river_version="none",
        label_watermark=0,
        labels=10,
        positives=1,
        forest=_forest(rng),
        calibration=Calibration("logistic", 1.0, 0.0),
        prior=0.01,
        blend_weight=0.3,
        alone_weight=0.3,
    )
    return Models(champion, challenger, online, 0.5)


def _forest(rng: Random) -> Forest:
    """Stumps on the features that vary most in short traffic."""
    names = ("payer_sent_sum_1h", "receiver_received_sum_24h", "amount_log", "payer_sent_count_24h", "hour_of_day_sin")
    trees = len(names)
    thresholds = [rng.choice((0.0, 0.5, 2.0, 4.0, 20_000.0)) for _ in names]
    values = [rng.uniform(-1, 2) for _ in range(2 * trees)]
    return Forest(
        feature=np.array([each for name in names for each in (CATALOG.names.index(name), -1, -1)], np.int32),
        threshold=np.array([each for one in thresholds for each in (one, 0.0, 0.0)], np.float64),
        left=np.array([each for tree in range(trees) for each in (3 * tree + 1, -1, -1)], np.int32),
        right=np.array([each for tree in range(trees) for each in (3 * tree + 2, -1, -1)], np.int32),
        missing_left=np.array([each for _ in names for each in (rng.random() < 0.5, False, False)], np.bool_),
        value=np.array([each for tree in range(trees) for each in (0.0, *values[2 * tree : 2 * tree + 2])]),
        cover=np.array([4.0, 3.0, 1.0] * trees),
        roots=np.arange(0, 3 * trees, 3, dtype=np.int32),
        bias=-1.0,
        link="logit",
    )

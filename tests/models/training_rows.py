"""Made-up labelled vectors of this catalog, in which frauds can be learned, without a simulation."""

from __future__ import annotations

import numpy as np

from models.batch.training_set import STATE_DTYPE, TrainingSet
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tables.layout import HOUR_MS

START_MS = 1_788_220_800_000
MATURITY_MS = 12 * HOUR_MS
STEP_MS = 120_000

_TELLING = ("receiver_fraud_marks", "amount_to_payer_mean_30d", "session_remote_access", "payer_sent_count_1h")


def made_up_rows(n: int = 4_000, *, seed: int = 1, strength: float = 1.6, fraud_share: float = 0.06) -> TrainingSet:
    """Return rows two minutes apart; a label matures after half a day, and some are reversed a day later."""
    rng = np.random.default_rng(seed)
    frauds = rng.random(n) < fraud_share
    vectors = rng.exponential(1.0, (n, len(CATALOG))).astype(np.float32)
    for name in _TELLING:
        vectors[:, CATALOG.names.index(name)] += strength * frauds * rng.exponential(1.0, n)
    vectors[rng.random(vectors.shape) < 0.05] = np.nan
    event_time = START_MS + np.arange(n) * STEP_MS
    states = np.zeros(n, STATE_DTYPE)
    states["row"], states["known_at"] = np.arange(n), event_time + MATURITY_MS
    states["label"], states["weight"] = frauds, 1.0
    reversed_rows = np.flatnonzero(frauds & (rng.random(n) < 0.03))
    later = states[reversed_rows].copy()
    later["known_at"] += 24 * HOUR_MS
    later["label"] = 0
    rules = np.where(frauds, rng.beta(1.2, 5.0, n), rng.beta(1.0, 6.0, n))
    return TrainingSet.build(
        FEATURES_VERSION,
        CATALOG.names,
        vectors,
        states=np.concatenate([states, later]),
        labels=frauds,
        event_time=event_time,
        known_at=event_time + MATURITY_MS,
        amounts=rng.integers(100, 500_000, n),
        channels=rng.integers(1, 5, n),
        rules_scores=rules,
        typologies=np.where(frauds, np.where(np.arange(n) % 2 == 0, "mule", "coercion"), ""),
        ids=[b"E%031d" % row for row in range(n)],
        truth=frauds,
    )

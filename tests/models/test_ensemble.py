"""Models together: what they say of a payment, and how a set of them is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.batch.model import BatchModel
from models.calibration import Calibration
from models.ensemble import MOST_REASONS, NO_MODELS, SCORES_DTYPE, Models, no_scores
from models.online.snapshot import OnlineSnapshot
from models.stages.receivers import FEATURES_VERSION
from models.trees.forest import Forest
from tables.catalog import CATALOG

RNG = np.random.default_rng(5)
VECTORS = RNG.uniform(0, 10, (400, len(CATALOG))).astype(np.float32)
VECTORS[RNG.random(VECTORS.shape) < 0.1] = np.nan
PAYERS = RNG.integers(1, 2**63, 400).astype(np.uint64)
SCORED = RNG.random(400) < 0.95


def stump(position: int, low: float, high: float) -> Forest:
    """Return one tree that asks one feature."""
    return Forest(
        feature=np.array([position, -1, -1], np.int32),
        threshold=np.array([5.0, 0, 0]),
        left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32),
        missing_left=np.array([True, False, False]),
        value=np.array([0.0, low, high]),
        cover=np.array([2.0, 1.0, 1.0]),
        roots=np.array([0], np.int32),
        link="logit",
    )


def batch_model(version: int, position: int) -> BatchModel:
    """Return a batch model that asks one feature."""
    return BatchModel(
        version, "pixguard", FEATURES_VERSION, stump(position, -2, 3), Calibration("logistic", 1.0, -1.0), 7
    )


ONLINE = OnlineSnapshot(
    version=9,
    fingerprint=FEATURES_VERSION,
    river_version="none",
    label_watermark=5,
    labels=100,
    positives=3,
    forest=stump(30, -3, 1),
    calibration=Calibration("logistic", 1.0, 0.0),
    prior=0.02,
    blend_weight=0.25,
    alone_weight=0.4,
)
FULL = Models(batch_model(3, 10), batch_model(4, 20), ONLINE, 0.3)


def log_odds(probability: float) -> float:
    """Return the logarithm of the odds."""
    return float(np.log(probability / (1 - probability)))


@pytest.mark.parametrize(
    ("models", "weight"),
    [(FULL, 0.25), (replace(FULL, champion=None), 0.4), (replace(FULL, online=None), 0.0)],
)
def test_log_odds_are_weighted_by_what_was_earned(models: Models, weight: float) -> None:
    """The batch model's, or the prior's where there is none, and the online model's: payment by payment."""
    scores = models.scores(VECTORS, PAYERS, SCORED)
    for place in np.flatnonzero(SCORED).tolist():
        vector = VECTORS[place : place + 1]
        base = models.champion.probabilities(vector)[0] if models.champion else ONLINE.prior
        online = ONLINE.scores(vector)[0]
        odds = (1 - weight) * log_odds(base) + weight * log_odds(online)
        assert scores["score"][place] == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-5)


def test_nothing_earned_is_nothing_said() -> None:
    """Without a batch model, and with an online model that has earned nothing, the rules stay alone."""
    silent = Models(online=replace(ONLINE, alone_weight=0.0))
    scores = silent.scores(VECTORS, PAYERS, SCORED)
    assert np.isnan(scores["score"]).all()
    assert not np.isnan(scores["online"][SCORED]).any()  # shown all the same: it is what earns the weight
    assert np.isnan(NO_MODELS.scores(VECTORS, PAYERS, SCORED)["score"]).all()


def test_refunds_are_not_scored() -> None:
    """Nobody says anything of them."""
    scores = FULL.scores(VECTORS, PAYERS, SCORED)
    assert all(np.isnan(scores[name][~SCORED]).all() for name in SCORES_DTYPE.names or ())


def test_a_payment_is_scored_alike_whatever_it_comes_with() -> None:
    """Bit for bit: else a replay in other batches would decide otherwise."""
    whole = FULL.scores(VECTORS, PAYERS, SCORED)
    for size in (1, 3, 50):
        parts = [
            FULL.scores(VECTORS[at : at + size], PAYERS[at : at + size], SCORED[at : at + size])
            for at in range(0, 400, size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_the_challenger_sees_a_stable_share_of_the_payers() -> None:
    """Each payer always or never, about as many as asked for; and it changes no score."""
    shown = ~np.isnan(FULL.scores(VECTORS, PAYERS, SCORED)["challenger"])
    again = ~np.isnan(FULL.scores(VECTORS[::-1], PAYERS[::-1], SCORED[::-1])["challenger"])[::-1]
    assert (shown == again).all()
    assert 0.2 < shown.mean() < 0.4
    alone = replace(FULL, challenger=None).scores(VECTORS, PAYERS, SCORED)
    assert alone["score"].tobytes() == FULL.scores(VECTORS, PAYERS, SCORED)["score"].tobytes()
    everybody = replace(FULL, challenger_share=1.0).scores(VECTORS, PAYERS, np.ones(400, np.bool_))
    assert not np.isnan(everybody["challenger"]).any()


def test_a_set_comes_back_from_its_bytes() -> None:
    """So that a recovery decides by the very models of the checkpoint."""
    for models in (FULL, NO_MODELS, replace(FULL, champion=None), replace(FULL, online=None)):
        contents = models.contents()
        found = Models.from_contents(contents.get)
        assert found.versions == models.versions
        assert found.contents() == contents
        scores = (each.scores(VECTORS, PAYERS, SCORED).tobytes() for each in (found, models))
        assert next(scores) == next(scores)
    assert Models.from_contents({}.get).versions == NO_MODELS.versions


def test_reasons_name_what_spoke_for_fraud() -> None:
    """The one feature that the heavier model asks, where it was above the threshold; all of what spoke."""
    above = VECTORS[VECTORS[:, 10] > 5][:5]
    features, shares = FULL.reasons(above)
    assert features.shape == (5, MOST_REASONS)
    assert (features[:, 0] == 11).all()
    assert (shares[:, 0] == 100).all()
    assert (features[:, 1:] == 0).all()
    heavy = replace(FULL, online=replace(ONLINE, blend_weight=0.6))
    features, _ = heavy.reasons(VECTORS[VECTORS[:, 30] > 5][:5])
    assert (features[:, 0] == 31).all()


def test_who_says_nothing_is_missing() -> None:
    """Not a zero, which would be an opinion."""
    scores = no_scores(2)
    assert all(np.isnan(scores[name]).all() for name in SCORES_DTYPE.names or ())

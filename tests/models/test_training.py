"""Training runs forward in time, is repeatable to the byte, and promotes nothing by chance."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import lightgbm
import msgspec
import numpy as np
import pytest

from models.batch.constraints import monotone_constraint, monotone_constraints
from models.batch.gates import judge_challenger
from models.batch.model import BatchModel, BatchModelError
from models.batch.training import (
    TrainedModel,
    TrainingError,
    TrainingPlan,
    fit,
    medians,
    split,
    to_artifact,
    train,
)
from models.batch.training_set import TrainingSet
from models.calibration import Calibration
from models.quality.evaluation import average_precision
from models.trees.from_lightgbm import forest_from_lightgbm
from tables.catalog import CATALOG
from tables.layout import HOUR_MS
from tests.models.training_rows import MATURITY_MS, START_MS, STEP_MS, made_up_rows

PLAN = TrainingPlan(MATURITY_MS, rounds=40, patience=10, learning_rate=0.15, resamples=60)
QUICK = {"challenger": 1.0}


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    """A set in which frauds can be learned."""
    return made_up_rows()


@pytest.fixture(scope="module")
def trained(rows: TrainingSet) -> TrainedModel:
    """A model of it."""
    return train(rows, PLAN)


def test_the_parts_lie_behind_each_other_with_a_maturity_between(rows: TrainingSet) -> None:
    """No label of a part became known after the next one began."""
    train_part, calibration, test = split(rows, PLAN)
    assert train_part.event_time[0] == START_MS
    assert test.event_time[-1] == START_MS + (len(rows) - 1) * STEP_MS
    for earlier, later in ((train_part, calibration), (calibration, test)):
        begins = int(later.event_time[0])
        assert begins - int(earlier.event_time[-1]) >= MATURITY_MS
        assert earlier.known_at.max() <= begins
        assert earlier.states["known_at"].max() <= begins
    assert train_part.positives > calibration.positives > 5


def test_the_same_seed_and_data_give_the_same_bytes(rows: TrainingSet, trained: TrainedModel) -> None:
    """However the rows were collected; and another seed another model."""
    again = train(rows, PLAN)
    assert to_artifact(again) == to_artifact(trained)
    assert again.booster_text == trained.booster_text
    assert again.report == trained.report
    assert again.data == trained.data
    other = train(rows, replace(PLAN, seed=2))
    assert to_artifact(other) != to_artifact(trained)


def test_what_was_judged_is_fitted_again_to_all_that_came_before(rows: TrainingSet, trained: TrainedModel) -> None:
    """To as many trees as were found best, and not to the payments that it was judged on, but by their calibration."""
    judged = train(rows, replace(PLAN, refit=False))
    assert trained.report["scores"] == judged.report["scores"]
    assert trained.report["trees"] == judged.report["trees"]
    parts = split(rows, PLAN)
    learned = trained.report["learned"]
    assert learned["rows"] > len(parts.train) + len(parts.calibration)
    assert parts.calibration.event_time[-1] < learned["until"] <= parts.test.event_time[0] - MATURITY_MS
    assert trained.model.trained_until == learned["until"] > judged.model.trained_until
    chances = trained.model.probabilities(parts.test.vectors)
    assert chances.mean() == pytest.approx((parts.test.labels == 1).mean(), abs=0.01)
    assert not np.array_equal(chances, trained.scores["model"])


def test_it_learns_and_beats_what_costs_nothing(trained: TrainedModel) -> None:
    """Amounts mean nothing here, the rules something, the vectors more."""
    scores = trained.report["scores"]
    assert scores["model"]["average_precision"] > 0.3 > scores["amount"]["average_precision"]
    assert trained.report["gains"]["amount"]["low"] > 0
    assert trained.report["gains"]["rules"]["estimate"] > 0
    assert scores["model"]["calibration_error"] < 0.05
    assert scores["model"]["mean_probability"] == pytest.approx(scores["model"]["fraud_share"], abs=0.03)
    labels = trained.test.labels == 1
    assert scores["model"]["average_precision"] == average_precision(labels, trained.scores["model"])
    kinds = {(row["kind"], row["name"]) for row in trained.report["segments"]}
    assert {("typology", "mule"), ("typology", "coercion"), ("hours", "night"), ("channel", "MANU")} <= kinds


def test_the_artifact_scores_as_lightgbm_does(rows: TrainingSet, trained: TrainedModel) -> None:
    """Its forest equals the booster, and its probabilities are the calibrated ones."""
    model = BatchModel.from_bytes(to_artifact(trained)).numbered(7)
    booster = lightgbm.Booster(model_str=trained.booster_text)
    margins = np.asarray(booster.predict(rows.vectors, raw_score=True))
    np.testing.assert_allclose(model.forest.margins(rows.vectors), margins, atol=1e-12)
    np.testing.assert_allclose(model.probabilities(rows.vectors), model.calibration.apply(margins), atol=1e-12)
    assert (model.version, model.name, model.trained_until) == (7, "pixguard", trained.model.trained_until)
    assert model.fingerprint == rows.fingerprint
    assert BatchModel.from_bytes(model.to_bytes()).version == 7


def test_a_damaged_artifact_is_refused(trained: TrainedModel) -> None:
    """Whatever byte was changed, and wherever it was cut."""
    data = to_artifact(trained)
    for place in (0, 5, 20, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        with pytest.raises(BatchModelError):
            BatchModel.from_bytes(bytes(damaged))
    for length in (0, 3, 200, len(data) - 1):
        with pytest.raises(BatchModelError):
            BatchModel.from_bytes(data[:length])


def test_what_is_usual_comes_with_the_artifact(rows: TrainingSet, trained: TrainedModel) -> None:
    """The medians of what it has learned from, not of what judged it; sound after a round trip, to the bit."""
    usual = BatchModel.from_bytes(to_artifact(trained)).usual
    assert usual is not None
    assert usual.dtype == np.float32
    learned = rows.vectors[rows.event_time < trained.model.trained_until]
    # Of an odd number of values the median is one of them, of an even number the lower one of two is taken.
    expected = np.nanquantile(learned, 0.5, axis=0, method="inverted_cdf")
    assert usual.tolist() == expected.tolist()
    assert usual.tolist() != np.nanquantile(rows.vectors, 0.5, axis=0, method="inverted_cdf").tolist()
    again = BatchModel.from_bytes(BatchModel.from_bytes(to_artifact(trained)).to_bytes())
    assert again.to_bytes() == to_artifact(trained)


def test_medians_weigh_rows_and_pass_over_what_is_missing() -> None:
    """A row that weighs three is three rows; what is always missing has no median."""
    rng = np.random.default_rng(8)
    vectors = rng.integers(0, 40, (501, 20)).astype(np.float32)
    vectors[rng.random(vectors.shape) < 0.3] = np.nan
    vectors[:, 7] = np.nan
    weights = rng.integers(1, 9, 501)
    found = medians(vectors, weights.astype(np.float64))
    repeated = np.repeat(vectors, weights, axis=0)
    for place in range(20):
        values = repeated[~np.isnan(repeated[:, place]), place]
        expected = np.quantile(values, 0.5, method="inverted_cdf") if len(values) else np.nan
        assert found[place] == expected or np.isnan([found[place], expected]).all()
    odd = rng.random((99, 4)).astype(np.float32)
    assert medians(odd, np.ones(99)).tolist() == np.median(odd, axis=0).tolist()
    assert not np.array_equal(medians(vectors, np.ones(501)), found, equal_nan=True)
    assert np.isnan(medians(vectors[:0], np.ones(0))).all()


def test_an_artifact_of_before_models_knew_what_is_usual_is_read(rows: TrainingSet, trained: TrainedModel) -> None:
    """Written as it was then, byte by byte: it scores the same, and tells nothing of the usual."""
    model = trained.model
    fields = {"version": 0, "name": model.name, "fingerprint": model.fingerprint, "trained_until": model.trained_until}
    header = msgspec.msgpack.encode(fields | {"calibration": model.calibration.to_dict()})
    body = struct.pack("<4sHI", b"PXGM", 1, len(header)) + header + model.forest.to_bytes()
    old = body + struct.pack("<I", zlib.crc32(body))
    found = BatchModel.from_bytes(old)
    assert found.usual is None
    assert found.to_bytes() == old
    assert np.array_equal(found.probabilities(rows.vectors), model.probabilities(rows.vectors))


def test_what_is_usual_must_be_known_of_every_feature(trained: TrainedModel) -> None:
    """A vector that is shorter than the trees' is of other features; half a number is damage."""
    with pytest.raises(BatchModelError, match=r"usual: expected one value for each of \d+ features.* got shape \(2,\)"):
        replace(trained.model, usual=np.zeros(2, np.float32))
    fields = {"version": 0, "name": "m", "fingerprint": "f", "trained_until": 0, "usual": b"123"}
    header = msgspec.msgpack.encode(fields | {"calibration": Calibration().to_dict()})
    body = struct.pack("<4sHI", b"PXGM", 1, len(header)) + header + trained.model.forest.to_bytes()
    with pytest.raises(BatchModelError, match="batch model: buffer size must be a multiple"):
        BatchModel.from_bytes(body + struct.pack("<I", zlib.crc32(body)))


def test_what_the_domain_knows_is_not_unlearned() -> None:
    """Risk never falls as marks rise, even where the data say so by chance."""
    rows = made_up_rows(3_000, seed=3)
    marks = CATALOG.names.index("receiver_fraud_marks")
    vectors = rows.vectors.copy()
    vectors[:, marks] = np.where(rows.labels == 1, 0.0, 3.0) + np.random.default_rng(1).normal(0, 0.5, len(rows))
    parts = split(replace(rows, vectors=vectors.astype(np.float32)), PLAN)
    _, model = fit(parts.train, parts.calibration, PLAN)
    probe = np.repeat(parts.test.vectors[:1], 50, axis=0)
    for row in parts.test.vectors[:40]:
        probe[:] = row
        probe[:, marks] = np.linspace(-2.0, 6.0, 50)
        assert (np.diff(model.probabilities(probe)) >= 0).all()


def test_constraints_follow_from_the_catalog() -> None:
    """A receiver's markers rise, a victim's and habits are free, and each direction says why."""
    directions = dict(zip(CATALOG.names, monotone_constraints(CATALOG.entries, CATALOG.names), strict=True))
    markers = {entry.name: directions[entry.name] for entry in CATALOG.entries if entry.unit == "markers"}
    assert markers.pop("payer_fraud_marks") == 0
    assert len(markers) > 5
    assert set(markers.values()) == {1}
    assert directions["receiver_since_mark_ms"] == -1
    assert directions["session_copy_paste"] == directions["amount_log"] == 0
    assert directions["receiver_key_open_reports"] == directions["session_remote_access"] == 1
    assert directions["receiver_person_rejected_reports_m12"] == 0
    assert all(monotone_constraint(entry)[1] for entry in CATALOG.entries if directions[entry.name])
    assert monotone_constraints(CATALOG.entries, ("unheard_of",)) == [0]


def test_a_champion_is_judged_on_the_same_rows(rows: TrainingSet, trained: TrainedModel) -> None:
    """One that reads other features cannot be."""
    against = train(rows, replace(PLAN, seed=2), champion=trained.model.numbered(4))
    assert against.report["champion_version"] == 4
    np.testing.assert_array_equal(against.scores["champion"], trained.model.probabilities(trained.test.vectors))
    foreign = replace(trained.model, fingerprint="another")
    assert "champion" not in train(rows, PLAN, champion=foreign).scores


def test_a_clearly_better_challenger_passes_every_gate(trained: TrainedModel) -> None:
    """Against a champion that knows nothing, and against the rules where there is none."""
    ignorant = _flattened(trained.model)
    for champion in (ignorant, None):
        gates = judge_challenger(trained.test, trained.model, champion, QUICK, resamples=60)
        assert all(gate.passed for gate in gates), gates
    names = [gate.name for gate in gates]
    assert names[0] == "better than rules"
    assert "no worse: hours day" in names
    assert names[-1] == "quick enough"


def test_an_equal_or_worse_challenger_does_not_pass(trained: TrainedModel) -> None:
    """Being as good is no reason to change, and being worse anywhere is told."""
    (same, *_) = judge_challenger(trained.test, trained.model, trained.model.numbered(1), QUICK, resamples=60)
    assert not same.passed
    gates = judge_challenger(trained.test, _flattened(trained.model), trained.model, QUICK, resamples=60)
    failed = [gate for gate in gates if not gate.passed]
    assert failed[0].name.startswith("better than champion")
    assert "is worse" in failed[0].why
    assert any(gate.name.startswith("no worse") for gate in failed)


def test_a_slow_challenger_does_not_pass_unless_the_champion_is_slow_too(trained: TrainedModel) -> None:
    """Speed is told against five microseconds a row, or against the champion on a busy machine."""
    champion = _flattened(trained.model)
    slow = {"challenger": 9.0, "champion": 2.0}
    assert not judge_challenger(trained.test, trained.model, champion, slow, resamples=20)[-1].passed
    busy = {"challenger": 9.0, "champion": 8.0}
    assert judge_challenger(trained.test, trained.model, champion, busy, resamples=20)[-1].passed


def test_too_little_is_told(rows: TrainingSet) -> None:
    """Too short, too few frauds, nothing at all."""
    with pytest.raises(TrainingError, match=r"two maturities of 12 h, got payments of 3\.3 h"):
        train(rows.take(slice(0, 100)), PLAN)
    late_frauds = (rows.event_time > START_MS + 60 * HOUR_MS) & (rows.labels == 1)
    with pytest.raises(TrainingError, match="to calibration with, got 0"):
        train(rows.take(~late_frauds), PLAN)
    with pytest.raises(TrainingError, match="got none"):
        train(rows.take(slice(0, 0)), PLAN)


def _flattened(model: BatchModel) -> BatchModel:
    """A model of one tree that sees no difference."""
    constant = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(np.zeros((40, 1), np.float32), np.arange(40) % 2, params={"verbosity": -1}),
        1,
    )
    return replace(model, forest=forest_from_lightgbm(constant), calibration=Calibration("logistic"), version=1)

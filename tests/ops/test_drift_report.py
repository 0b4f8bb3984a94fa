"""`pixguard drift`: a champion's training window against what the stream carries now."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from rich.console import Console

from app.domain.labelled import Labelled, encode_labelled
from app.domain.vectors import Vectors, decode_vectors, encode_vectors
from app.model_reference import champion_reference_look, reference_of_version
from app.settings import Settings, load_settings
from app.topics import FEATURES, LABELLED
from models.batch.registry import Registry, RegistryError, local_registry
from models.batch.training import TrainedModel, TrainingPlan, train
from models.batch.training_set import TrainingSet
from models.drift.look import look, matured_rows, reference_of
from models.drift.reference import REFERENCE_ARTIFACT, DriftError, Reference
from ops.broker import LocalBroker
from ops.drift import drift_and_report, pieces, read_window
from ops.topic_admin import ensure_topics
from tables.catalog import CATALOG
from tests.models.drift_windows import as_labelled, as_vectors
from tests.models.training_rows import MATURITY_MS, made_up_rows

SHIFTED = CATALOG.names.index("payer_sent_count_1h")
GONE = CATALOG.names.index("payer_age_ms")


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    """What was recorded."""
    return made_up_rows(8_000)


@pytest.fixture(scope="module")
def trained(rows: TrainingSet) -> TrainedModel:
    """A small model, calibrated."""
    return train(rows, TrainingPlan(MATURITY_MS, rounds=30, learning_rate=0.2, resamples=20))


@pytest.fixture(scope="module")
def reference(rows: TrainingSet, trained: TrainedModel) -> Reference:
    """Its training window."""
    learned_from = rows.take(rows.event_time < trained.model.trained_until)
    return reference_of(trained.test, trained.model, learned_from)


@pytest.fixture(scope="module")
def settings(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder, whose registry holds version 1 as the champion."""
    settings = load_settings(data_dir=tmp_path_factory.mktemp("data"))
    registry = local_registry(settings.data_dir)
    registry.log_training(trained, facts={}, figures={}, test_rows=trained.test.to_bytes())
    registry.promote(1, at_ms=1, reason="test")
    return settings


def changed(rows: TrainingSet) -> TrainingSet:
    """The same rows after something has happened to two features."""
    vectors = rows.vectors.copy()
    vectors[:, SHIFTED] += 1.5
    vectors[::3, GONE] = np.nan
    return replace(rows, vectors=vectors)


# -- pure


def test_an_unchanged_stream_raises_no_more_alarms_than_stated(reference: Reference, trained: TrainedModel) -> None:
    """1 % of looks at all features and scores together: of 80, hardly ever more than three."""
    alarms = 0
    for seed in range(80):
        now = made_up_rows(1_000, seed=100 + seed)
        found = look(reference, as_vectors(now, trained.model), matured_rows([]), [], version=1, resamples=0)
        assert len(found.drift.findings) >= len(CATALOG) - 5 + 3  # but for the calendar's, with the scores
        alarms += bool(found.drift.alarms)
    assert alarms <= 3


def test_what_has_changed_is_named_with_the_scores_that_it_moves(reference: Reference, trained: TrainedModel) -> None:
    """A shift, and missing values; and only these."""
    now = changed(made_up_rows(3_000, seed=9))
    found = look(reference, as_vectors(now, trained.model), matured_rows([]), [], version=1, resamples=0)
    verdicts = {each.name: each.verdict for each in found.drift.alarms}
    assert verdicts.pop("payer_sent_count_1h") == "shifted"
    assert verdicts.pop("payer_age_ms") == "more missing"
    assert set(verdicts) <= {"score", "batch"}  # which the model makes of them
    assert found.worst()["temporal"] > 0.25 > found.worst()["network"]
    assert found.worst()["rules"] < 0.1


def test_the_estimate_agrees_with_what_matures(reference: Reference, trained: TrainedModel) -> None:
    """On the same payments, before their labels and after; and the delay of labels is told."""
    now = made_up_rows(4_000, seed=10)
    vectors = as_vectors(now, trained.model)
    labels = matured_rows(as_labelled(now, vectors.rows["score"]))
    found = look(reference, vectors, labels, [3_600_000] * 9 + [86_400_000], version=1, resamples=30)
    assert found.matured == 4_000
    assert found.frauds == now.positives
    assert set(found.estimates) == {"score", "batch"}
    assert set(found.realised) == {"score", "batch", "rules"}
    if found.gaps["score"].holds:
        low, high = found.estimates["score"]["average_precision"][1:]
        assert low - 0.05 < found.realised["score"]["average_precision"].estimate < high + 0.05
    assert found.delay.median_s == 3_600
    assert json.loads(json.dumps(found.to_plain()))["label_delay"]["changes"] == 10


def test_scores_of_another_version_are_no_matter_of_this_window(reference: Reference, trained: TrainedModel) -> None:
    """And vectors of another catalog are none at all."""
    vectors = as_vectors(made_up_rows(1_000, seed=11), trained.model, version=2)
    found = look(reference, vectors, matured_rows([]), [], version=1, resamples=0)
    assert not {"score", "batch"} & {each.name for each in found.drift.findings}
    assert set(found.estimates) == set()
    chances = trained.model.probabilities(vectors.matrix)
    found = look(reference, vectors, matured_rows([]), [], version=1, chances=chances, resamples=0)
    assert {"batch"} == {"score", "batch"} & {each.name for each in found.drift.findings}
    assert set(found.estimates) == {"batch"}
    assert "rules" in {each.name for each in found.drift.findings}
    with pytest.raises(DriftError, match="feature set"):
        look(reference, replace(vectors, fingerprint="0" * 16), matured_rows([]), [])


# -- the registry


def test_a_window_comes_with_the_version_or_from_its_test_rows(
    settings: Settings, reference: Reference, trained: TrainedModel, tmp_path: Path
) -> None:
    """What was logged with a version counts; a version of before has the rows that it was judged on."""
    registry = local_registry(settings.data_dir)
    found, source = reference_of_version(registry, 1)
    assert source == "the payments that it was judged on"
    assert found.to_bytes() == reference_of(trained.test, trained.model).to_bytes()
    look_at = champion_reference_look(registry)
    assert look_at(1) == (1, None)
    version, again = look_at(0)
    assert version == 1
    assert again is not None
    assert again.to_bytes() == found.to_bytes()

    assert champion_reference_look(local_registry(tmp_path))(0) == (0, None)
    _log_file(registry, tmp_path, reference.to_bytes())
    found, source = reference_of_version(registry, 1)
    assert source == "the payments that it learned from"
    assert found.to_bytes() == reference.to_bytes()
    assert found.until <= trained.model.trained_until
    with pytest.raises(RegistryError, match="version 7"):
        reference_of_version(registry, 7)


def _log_file(registry: Registry, folder: Path, content: bytes) -> None:
    path = folder / REFERENCE_ARTIFACT
    path.write_bytes(content)
    registry._client.log_artifact(registry.versions()[0].run, str(path))


# -- the command


def reading(rows: TrainingSet, trained: TrainedModel) -> Any:  # noqa: ANN401 - a Reader
    """Return what reads these rows in Kafka's place."""
    vectors = as_vectors(rows, trained.model, version=3)

    async def read(_settings: Settings, _begin_ms: int) -> tuple[Vectors, list[Labelled]]:
        scores = vectors.rows["score"]
        return vectors, [*as_labelled(rows, scores), *as_labelled(rows.take(slice(0, 5)), scores[:5], "REVISION")]

    return read


def test_the_table_shows_what_has_changed_first(settings: Settings, trained: TrainedModel) -> None:
    """Scores on top, then the worst; performance below."""
    text = io.StringIO()
    out = Console(file=text, width=180)
    now = changed(made_up_rows(3_000, seed=12))
    assert drift_and_report(settings, out, hours=24, read=reading(now, trained))
    shown = text.getvalue()
    lines = [line.strip("│ ") for line in shown.splitlines()]
    first = {name: next(at for at, line in enumerate(lines) if line.startswith(name)) for name in (
        "batch", "rules", "payer_sent_count_1h", "payer_age_ms")}  # fmt: skip
    assert first["batch"] < first["rules"] < min(first["payer_sent_count_1h"], first["payer_age_ms"])
    assert "more that have not changed: --all shows them" in shown
    assert "by chance alone 1% of looks raise an alarm" in shown
    assert "estimated of payments without a label (CBPE)" in shown
    assert "on 3,000 labels that matured" in shown
    assert "Label delay: median 12.0 h" in shown


def test_json_is_one_object(settings: Settings, trained: TrainedModel, capsys: pytest.CaptureFixture[str]) -> None:
    """With all features, and nothing that JSON does not know; a steady stream is no alarm."""
    out = Console(file=io.StringIO())
    now = made_up_rows(3_000, seed=13)
    assert not drift_and_report(settings, out, hours=24, as_json=True, read=reading(now, trained))
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told["reference"]["version"] == 1
    assert told["drifted"] == []
    assert told["window"]["rows"] == 3_000
    assert {each["name"] for each in told["findings"]} >= {"batch", "rules", "payer_sent_count_1h"}
    assert told["realised"]["batch"]["average_precision"]["low"] is not None


def test_without_a_champion_or_payments_it_says_so(settings: Settings, trained: TrainedModel, tmp_path: Path) -> None:
    """Neither is an alarm."""
    text = io.StringIO()
    out = Console(file=text, width=160)
    with pytest.raises(RegistryError, match="expected a champion"):
        drift_and_report(load_settings(data_dir=tmp_path), out, hours=1)
    assert not drift_and_report(settings, out, hours=1, read=reading(made_up_rows(60, seed=1), trained))
    assert not drift_and_report(settings, out, hours=1, read=_read_nothing)
    assert text.getvalue().count("Too few payments to compare") == 2
    assert "now 0 payments." in text.getvalue()


async def _read_nothing(_settings: Settings, _begin_ms: int) -> tuple[Vectors, list[Labelled]]:
    return decode_vectors([]), []


# -- Kafka


def test_pieces_cover_a_span_evenly() -> None:
    """All of it where it is short; else no more than asked for, up to the very end."""
    assert list(pieces(5, 5, 10, 3)) == []
    assert list(pieces(5, 9, 10, 3)) == [(5, 9)]
    found = list(pieces(0, 100_003, 1_000, 20))
    assert sum(past - first for first, past in found) == 1_000
    assert found[-1][1] == 100_003
    assert all(one[1] <= other[0] for one, other in pairwise(found))


async def test_the_last_hours_are_read_from_kafka(broker: LocalBroker, trained: TrainedModel) -> None:
    """By the log's clock, from all partitions, in pieces where it is long; labels from their one."""
    suffix = uuid4().hex[:8]
    features, labelled = (replace(topic, name=f"drift-{name}-{suffix}") for topic, name in (
        (FEATURES, "features"), (LABELLED, "labelled")))  # fmt: skip
    await ensure_topics({"bootstrap_servers": broker.bootstrap}, [features, labelled], partitions=3)
    now = made_up_rows(900, seed=14)
    vectors = as_vectors(now, trained.model)
    values = encode_vectors(vectors.rows, vectors.matrix, vectors.fingerprint)
    labels = as_labelled(now, vectors.rows["score"])
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for at, value in enumerate(values):
            stamp = 1_000_000 + at
            await producer.send(features.name, value, partition=at % 3, timestamp_ms=stamp)
            await producer.send(labelled.name, encode_labelled(labels[at]), partition=0, timestamp_ms=stamp)
    settings = load_settings(broker=broker.bootstrap, partitions=3)
    read = partial(read_window, features=features, labelled=labelled)
    found, told = await read(settings, 1_000_300)
    assert sorted(found.rows["id"].tolist()) == now.ids[300:].tolist()
    assert [each.end_to_end_id.encode() for each in told] == now.ids[300:].tolist()
    assert found.fingerprint == now.fingerprint
    few, last = await read(settings, 0, rows=120, labels=50)
    assert len(few.rows) == 120
    assert few.rows["event_time"].min() < now.event_time[100]
    assert now.ids[-1] in few.rows["id"]
    assert [each.end_to_end_id.encode() for each in last] == now.ids[-50:].tolist()
    nothing, none = await read(settings, 2_000_000)
    assert len(nothing.rows) == len(none) == 0

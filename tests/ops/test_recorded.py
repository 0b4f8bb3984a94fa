"""Training sets: simulated ones repeat to the byte and know only what a bank could know; recorded ones are joined."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.labelled import Labelled, encode_labelled
from app.settings import load_settings
from app.topics import LABELLED
from models.batch.training_set import UNKNOWN, TrainingSet, TrainingSetError
from models.stages.receivers import FEATURES_VERSION
from ops.broker import LocalBroker
from ops.recorded import Simulation, recorded_set, simulated_set, training_set
from ops.topic_admin import ensure_topics
from ops.traffic.feedback import FeedbackConfig, MedFeedback
from tables.catalog import CATALOG
from tables.layout import DAY_MS

SIMULATION = Simulation(seed=3, payments=3_000, days=3.0, fraud_share=0.2, delay_scale=0.004)
MARKS = CATALOG.names.index("receiver_fraud_marks")
MATURITY_MS = 1_000


@pytest.fixture(scope="module")
def simulated() -> TrainingSet:
    """What a small simulation gives."""
    return simulated_set(SIMULATION)


def test_the_same_simulation_gives_the_same_set(simulated: TrainingSet) -> None:
    """Byte for byte, and tells how far it is."""
    told: list[float] = []
    assert training_set(SIMULATION, progress=told.append).digest == simulated.digest
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_labels_are_what_was_known_at_maturity(simulated: TrainingSet) -> None:
    """Against the feedback itself: a marker that stands by then is a fraud, silence is none."""
    said: dict[bytes, list[Feedback]] = {}
    med = MedFeedback(FeedbackConfig(SIMULATION.seed, delay_scale=SIMULATION.delay_scale))
    for message in SIMULATION.messages():
        med.observe(message)
        for told in med.due(message.arrival_ms):
            said.setdefault(told.key, []).append(_read(told.key, told.value, told.at_ms))
    for told in med.drain():
        said.setdefault(told.key, []).append(_read(told.key, told.value, told.at_ms))
    first = dict(zip(simulated.states["row"].tolist()[::-1], simulated.states[::-1], strict=True))
    markers = silent = 0
    for row, identity in enumerate(simulated.ids.tolist()):
        due = int(simulated.event_time[row]) + SIMULATION.maturity_ms
        assert first[row]["known_at"] == due
        then = [each for each in said.get(identity, []) if each.timestamp <= due]
        states = [each.status for each in then if each.event == "FRAUD_MARKER"]
        if states and states[-1] == "REGISTERED":
            assert first[row]["label"] == simulated.labels[row] == 1
            markers += 1
        elif not then:
            assert first[row]["label"] == 0
            silent += 1
    assert markers > 15
    assert silent > 1_500
    assert (simulated.known_at >= simulated.event_time + SIMULATION.maturity_ms)[simulated.labels != UNKNOWN].all()


def test_truth_and_typology_are_kept_beside_the_labels(simulated: TrainingSet) -> None:
    """Not every fraud is ever found out."""
    assert ((simulated.truth == 1) == (simulated.typologies != "")).all()
    assert 0.01 < (simulated.truth == 1).mean() < 0.3
    found = simulated.labels[simulated.truth == 1] == 1
    assert 0.2 < found.mean() < 0.95
    assert (simulated.labels[simulated.truth == 0] == 1).mean() < 0.01


def test_markers_reach_the_vectors_as_they_come(simulated: TrainingSet) -> None:
    """No receiver is marked before the first marker is known."""
    marked = simulated.vectors[:, MARKS] > 0
    assert marked.sum() > 10
    confirmed = simulated.states[(simulated.states["label"] == 1)]
    earliest = int(simulated.event_time[confirmed["row"]].min())
    assert simulated.event_time[marked].min() > earliest


def test_a_fraud_may_begin_late() -> None:
    """Before its day it does not happen."""
    begins = SIMULATION.start_ms + 2 * DAY_MS
    plain = [each for each in SIMULATION.messages() if each.label is not None and each.arrival_ms < begins]
    (name, count), *_ = Counter(each.label.typology.value for each in plain if each.label is not None).most_common()
    late = replace(SIMULATION, absent={name: 2.0})
    early = [each for each in late.messages() if each.label is not None and each.arrival_ms < begins]
    assert name not in {each.label.typology.value for each in early if each.label is not None}
    assert len(early) == len(plain) - count


# -- recorded


def message(row: int, kind: str = "MATURED", label: int | None = 0, **changes: Any) -> Labelled:  # noqa: ANN401
    """Return a message of `pix-labelled`."""
    vector = np.full(len(CATALOG), row, np.float32)
    values: dict[str, Any] = {
        "end_to_end_id": f"E{row:031d}", "kind": kind, "label": label, "basis": "MATURITY" if label == 0 else "MARKER",
        "fraud_type": None, "situation": None, "event_time": 1_000 * row, "decided_at": 1_000 * row + 5,
        "known_at": 1_000 * row + MATURITY_MS, "weight": 1.0, "amount_centavos": 100 + row, "channel": 2, "action": 0,
        "rules_score": 0.25, "online_score": None, "batch_score": 0.5, "challenger_score": None, "score": 0.5,
        "online_version": 0, "batch_version": 1, "challenger_version": 0, "source_partition": 0, "source_offset": row,
        "fingerprint": FEATURES_VERSION, "vector": vector.tobytes(),
    }  # fmt: skip
    return Labelled(**values | changes)


def test_messages_become_rows() -> None:
    """With weight, scores and vector; a repeat after a crash changes nothing."""
    messages = [message(2, label=1, situation="SCAM"), message(1, weight=20.0), message(2, label=1, situation="SCAM")]
    rows = training_set(messages, maturity_ms=MATURITY_MS)
    assert rows.ids.tolist() == [f"E{row:031d}".encode() for row in (1, 2)]
    assert rows.labels.tolist() == [0, 1]
    assert rows.weights.tolist() == [20.0, 1.0]
    assert rows.vectors[:, 0].tolist() == [1.0, 2.0]
    assert rows.typologies.tolist() == ["", "scam"]
    assert rows.batch_scores.tolist() == [0.5, 0.5]
    assert np.isnan(rows.online_scores).all()
    assert (rows.truth == UNKNOWN).all()


def test_revisions_count_from_when_they_were_known_and_never_before_maturity() -> None:
    """Of a payment that was unknown at maturity they are all there is."""
    messages = [
        message(1),
        message(1, "REVISION", 1, known_at=1_500),  # before maturity: MATURED has taken it into account
        message(1, "REVISION", 1, known_at=9_000),
        message(2, "REVISION", None, basis="CONTESTED", known_at=2_100),
        message(2, "REVISION", 1, known_at=8_000),
    ]
    rows = training_set(messages, maturity_ms=MATURITY_MS)
    assert rows.as_of(2_000).labels.tolist() == [0]
    assert rows.as_of(7_999).labels.tolist() == [0]
    assert rows.as_of(8_500).labels.tolist() == [0, 1]
    assert rows.as_of(9_000).labels.tolist() == [1, 1]
    assert (rows.states["known_at"] >= 2_000).all()


def test_what_cannot_be_used_is_told() -> None:
    """Another feature set, and nothing at all; refunds are left out."""
    with pytest.raises(TrainingSetError, match=r"feature set .* got 0{16}"):
        training_set([message(1, fingerprint="0" * 16)], maturity_ms=MATURITY_MS)
    with pytest.raises(TrainingSetError, match="no labelled payment yet"):
        training_set([message(1, rules_score=None)], maturity_ms=MATURITY_MS)
    with pytest.raises(TrainingSetError, match="a maturity"):
        training_set([message(1)])


async def test_a_recording_is_read_from_kafka(broker: LocalBroker) -> None:
    """All of the topic, to its end of now."""
    topic = replace(LABELLED, name=f"recording-{uuid4().hex[:8]}")
    await ensure_topics({"bootstrap_servers": broker.bootstrap}, [topic], partitions=3)
    messages = [message(row, label=int(row % 10 == 0)) for row in range(1, 301)]
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for each in messages:
            await producer.send(topic.name, encode_labelled(each), key=each.end_to_end_id.encode(), partition=0)
    told: list[float] = []
    settings = load_settings(broker=broker.bootstrap)
    rows = await recorded_set(settings, maturity_ms=MATURITY_MS, topic=topic, progress=told.append)
    assert rows.digest == training_set(messages, maturity_ms=MATURITY_MS).digest
    assert told[-1] == 1.0


def _read(key: bytes, value: bytes, at_ms: int) -> Feedback:
    feedback = decode_feedback(value, key, at_ms, TimeLimits())
    assert isinstance(feedback, Feedback)
    return feedback

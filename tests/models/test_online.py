"""The learner: every label once, the same labels the same model, and a weight that has to be earned."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from app.domain.labelled import Labelled
from models.online.learner import CheckpointError, LearnReport, OnlineLearner
from models.online.prequential import BLEND_MOST
from models.online.snapshot import OnlineSnapshot, OnlineSnapshotError

FEATURES = 12
NAMES = [f"feature_{number}" for number in range(FEATURES)]
PRINT = "0123456789abcdef"
PARTITIONS = 3
AGE_MS = 1_000_000


def _message(number: int, vector: Any, label: Literal[0, 1] | None, **changes: Any) -> Labelled:  # noqa: ANN401
    message = Labelled(
        end_to_end_id=f"E{number:031d}", kind="MATURED", label=label, basis="MATURITY", fraud_type=None, situation=None,
        event_time=number * 1000, decided_at=number * 1000, known_at=number * 1000 + AGE_MS, weight=1.0,
        amount_centavos=100, channel=1, action=1, rules_score=0.1, online_score=None, batch_score=None,
        challenger_score=None, score=None, online_version=0, batch_version=0, challenger_version=0,
        source_partition=number % PARTITIONS, source_offset=number // PARTITIONS, fingerprint=PRINT,
        vector=np.asarray(vector, "<f4").tobytes(),
    )  # fmt: skip
    return msgspec.structs.replace(message, **changes) if changes else message


def _columns(seed: int, n: int, rate: float) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    matrix = (rng.exponential(size=(n, FEATURES)) * 10.0 ** (np.arange(FEATURES) % 7 - 1)).astype(np.float32)
    labels = (rng.random(n) < rate).astype(int)
    matrix[labels > 0, 3] *= 20
    matrix[labels > 0, 5] *= 0.1
    matrix[rng.random((n, FEATURES)) < 0.05] = np.nan
    return matrix, labels


@functools.cache
def _stream(seed: int = 1, n: int = 1500, rate: float = 0.05) -> tuple[Labelled, ...]:
    """Frauds have one value that is larger, and one that is smaller; one in twenty payments is a fraud."""
    matrix, labels = _columns(seed, n, rate)
    return tuple(_message(number, matrix[number], 1 if labels[number] else 0) for number in range(n))


def _learner(**options: Any) -> OnlineLearner:  # noqa: ANN401
    return OnlineLearner(PRINT, NAMES, **{"seed": 5, "window": 1000, "review_labels": 200, **options})


@functools.cache
def _taught() -> OnlineLearner:
    """Has learned the stream; not to be taught more."""
    learner = _learner()
    learner.learn(_stream())
    return learner


def _pieces(messages: Sequence[Labelled], cuts: Sequence[int]) -> list[Sequence[Labelled]]:
    edges = [0, *sorted(cuts), len(messages)]
    return [messages[first:last] for first, last in pairwise(edges)]


def test_the_same_labels_make_the_same_bytes_however_they_are_batched() -> None:
    """And another seed makes others."""
    expected = _taught().snapshot(1).to_bytes()
    learner = _learner()
    for piece in _pieces(_stream(), [1, 2, 199, 200, 201, 700]):
        learner.learn(piece)
    assert learner.snapshot(1).to_bytes() == expected
    other = _learner(seed=6)
    other.learn(_stream())
    assert other.snapshot(1).to_bytes() != expected


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(st.integers(0, 1500), min_size=1, max_size=3))
def test_a_restart_leaves_no_trace(cuts: list[int]) -> None:
    """Killed and restored at any label, and told old labels again, the learner goes on as if nothing had happened."""
    learner = _learner()
    told = min(cuts)
    for piece in _pieces(_stream(), cuts):
        learner.learn(piece)
        learner = OnlineLearner.from_bytes(learner.to_bytes(), PRINT)
        repeated = learner.learn(_stream()[:told])
        assert (repeated.learned, repeated.repeats) == (0, told)
    assert learner.snapshot(1).to_bytes() == _taught().snapshot(1).to_bytes()


@pytest.mark.parametrize("candidate", ["logistic", "hoeffding", "adaptive", "amf"])
def test_every_candidate_survives_a_restart(candidate: str) -> None:
    """Their random state is part of the checkpoint."""
    messages = _stream()[:400]
    straight, broken = (_learner(candidate=candidate) for _ in range(2))
    straight.learn(messages)
    broken.learn(messages[:200])
    broken = OnlineLearner.from_bytes(broken.to_bytes(), PRINT)
    broken.learn(messages[200:])
    matrix = np.stack([message.features for message in messages[:100]])
    assert broken.scores(matrix).tobytes() == straight.scores(matrix).tobytes()


def test_every_label_is_learned_once() -> None:
    """A place at or below the last one of its partition is a repeat; partitions do not hide one another."""
    learner = _learner()
    messages = _stream()[:60]
    assert learner.learn(messages[:30]) == LearnReport(learned=30, taught=learner.learn([]).taught + _lessons(30))
    assert learner.learn(messages[:40]).repeats == 30
    late = [message for message in messages[40:] if message.source_partition == 0]
    assert learner.learn(late).learned == len(late)
    others = [message for message in messages[40:] if message.source_partition != 0]
    assert learner.learn(messages[40:]).learned == len(others)
    assert learner.labels == 60
    assert learner.positions == {0: 19, 1: 19, 2: 19}


def _lessons(n: int) -> int:
    """How many lessons the first labels make, counted by a learner of their own."""
    return _learner().learn(_stream()[:n]).taught


def test_what_teaches_nothing_is_counted_and_passed_over() -> None:
    """Another feature set, a vector of another length, an unknown label, and revisions."""
    vector = np.ones(FEATURES)
    learner = _learner()
    report = learner.learn(
        [
            _message(0, vector, 1, fingerprint="f" * 16),
            _message(3, vector[:5], 0),
            _message(6, vector, None),
            _message(9, vector, 1, kind="REVISION"),
        ]
    )
    assert report == LearnReport(refused=2, unlabelled=1, revisions=1)
    assert (learner.labels, learner.window.seen.labels.tolist()) == (0, [])
    # A revision carries the place of its payment: it must not make a repeat of it.
    assert learner.positions == {0: 2}
    assert learner.learn([_message(9, vector, 1)]).learned == 1


def test_the_watermark_is_the_latest_maturity() -> None:
    """What scorers may tell of how fresh the model is."""
    learner = _learner()
    assert learner.label_watermark == 0
    learner.learn(_stream()[:10])
    assert learner.snapshot(1).label_watermark == 9 * 1000 + AGE_MS


def test_each_label_is_scored_before_it_is_learned() -> None:
    """What the window holds equals what the model said before, by River and by the arrays."""
    learner = _learner(review_labels=10_000)
    learner.learn(_stream()[:600])
    for message in _stream()[600:700]:
        before = learner.snapshot(1).scores(message.features[None])[0]
        assert learner.scores(message.features[None])[0] == pytest.approx(before, abs=1e-12)
        learner.learn([message])
        assert learner.window.seen.online[-1] == pytest.approx(before, abs=1e-12)


def test_a_snapshot_scores_as_the_learner_does() -> None:
    """On raw vectors, to 1e-12, after a way through bytes; and it has learned to tell frauds."""
    snapshot = OnlineSnapshot.from_bytes(_taught().snapshot(7).to_bytes())
    matrix, labels = _columns(2, 1500, 0.05)
    found = snapshot.scores(matrix)
    np.testing.assert_allclose(found, _taught().scores(matrix), rtol=0, atol=1e-12)
    assert found[labels > 0].mean() > 5 * found[labels == 0].mean()
    # At the true rate of frauds, though the model was taught a sample.
    assert found.mean() == pytest.approx(labels.mean(), rel=0.4)


def test_a_snapshot_says_what_it_is() -> None:
    """Version, feature set, River, counts, and how good it was on labels that it had not seen."""
    snapshot = _taught().snapshot(7)
    assert (snapshot.version, snapshot.fingerprint, snapshot.labels) == (7, PRINT, 1500)
    assert snapshot.positives == sum(message.label == 1 for message in _stream())
    assert snapshot.river_version
    assert snapshot.metrics["window_labels"] == 1000
    assert snapshot.metrics["online_average_precision"] > 0.3
    assert snapshot.prior == pytest.approx(snapshot.positives / 1500, rel=0.2)
    again = OnlineSnapshot.from_bytes(snapshot.to_bytes())
    assert again.to_bytes() == snapshot.to_bytes()
    assert replace(again, forest=snapshot.forest) == snapshot


@pytest.mark.parametrize("damage", [b"", b"no snapshot", msgspec.msgpack.encode(["pixguard online 0"])])
def test_bytes_that_are_no_snapshot_are_refused(damage: bytes) -> None:
    """Nothing in them is executed."""
    with pytest.raises(OnlineSnapshotError, match="online model"):
        OnlineSnapshot.from_bytes(damage)


def test_a_damaged_forest_is_refused() -> None:
    """By the forest's own checksum."""
    data = bytearray(_taught().snapshot(1).to_bytes())
    data[data.index(b"PXFR") + 60] ^= 1
    with pytest.raises(OnlineSnapshotError, match="forest"):
        OnlineSnapshot.from_bytes(bytes(data))


def test_a_checkpoint_of_something_else_is_refused() -> None:
    """Another feature set, another River, another format, damage: each is named, with what to do."""
    learner = _learner()
    learner.learn(_stream()[:20])
    data = learner.to_bytes()
    with pytest.raises(CheckpointError, match="feature set: expected 'ffff"):
        OnlineLearner.from_bytes(data, "f" * 16)
    form, river, fingerprint, digest, body = msgspec.msgpack.decode(data)
    encode = msgspec.msgpack.encode
    for said, parts in (
        ("River: expected .* got '0.1'; install", (form, "0.1", fingerprint, digest, body)),
        ("format: expected", ("pixguard learner 0", river, fingerprint, digest, body)),
        ("checksum", (form, river, fingerprint, digest, body[:-1] + b"\0")),
        ("begin anew", (form,)),
    ):
        with pytest.raises(CheckpointError, match=said):
            OnlineLearner.from_bytes(encode(parts), PRINT)
    with pytest.raises(CheckpointError, match="got 4 bytes"):
        OnlineLearner.from_bytes(b"abcd", PRINT)


def test_an_unknown_candidate_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match=r"expected one of logistic, .*, got 'magic'"):
        _learner(candidate="magic")


def test_honest_payments_are_sampled() -> None:
    """About as many per fraud as asked for, all frauds; what is not taught is scored all the same."""
    messages = _stream(3, 3000, 0.02)
    learner = _learner(negatives_per_positive=5.0, candidate="hoeffding", window=3000)
    report = learner.learn(messages)
    frauds = learner.positives
    assert report.learned == len(learner.window.seen.labels) == 3000
    assert 3 * frauds < report.taught - frauds < 8 * frauds
    assert learner.kept_share == pytest.approx((report.taught - frauds) / (3000 - frauds), rel=0.25)


def test_a_label_counts_by_its_weight() -> None:
    """One that stands for many is taught oftener, up to a bound, and moves the prior as many would."""
    learner = _learner(candidate="hoeffding")
    vector = np.ones(FEATURES)
    report = learner.learn([_message(0, vector, 1, weight=3.0), _message(1, vector, 1, weight=1000.0)])
    assert report.taught == 3 + 4
    light = [_message(number, vector, 1, weight=0.25) for number in range(10, 410)]
    assert 60 < _learner(candidate="hoeffding").learn(light).taught < 140
    heavy, many = _learner(candidate="hoeffding"), _learner(candidate="hoeffding")
    heavy.learn([_message(0, vector, 0, weight=50.0)])
    many.learn([_message(number, vector, 0) for number in range(50)])
    assert heavy.prior == pytest.approx(many.prior)


def _with_batch(messages: Sequence[Labelled], scores: Sequence[float]) -> list[Labelled]:
    return [
        msgspec.structs.replace(message, batch_score=float(score), batch_version=1)
        for message, score in zip(messages, scores, strict=True)
    ]


def test_weight_is_earned_beside_each_base_on_its_own() -> None:
    """What beats the mere rate of frauds has proved nothing against a batch model, and the other way round."""
    learner = _learner()
    assert (learner.blend_weight, learner.alone_weight) == (0.0, 0.0)
    learner.learn(_stream())
    assert learner.alone_weight > 0.2
    assert learner.blend_weight == 0.0
    snapshot = learner.snapshot(1)
    assert (snapshot.blend_weight, snapshot.alone_weight) == (learner.blend_weight, learner.alone_weight)


@pytest.mark.parametrize("good", [False, True])
def test_a_batch_model_that_knows_all_leaves_no_weight(*, good: bool) -> None:
    """And one that knows nothing leaves much of it; it moves by steps and never above the bound."""
    messages = _stream()
    rate = np.mean([message.label or 0 for message in messages])
    scores = [(0.98 if message.label else 0.001) if good else rate for message in messages]
    learner = _learner()
    steps = []
    for piece in _pieces(_with_batch(messages, scores), range(200, 1500, 200)):
        learner.learn(piece)
        steps.append(learner.blend_weight)
    if good:
        assert max(steps) == 0.0
    else:
        assert 0.1 < max(steps) <= BLEND_MOST
        assert np.max(np.abs(np.diff(steps, prepend=0.0))) <= 0.25 * BLEND_MOST + 1e-9


def test_weight_is_earned_by_what_was_answered_then() -> None:
    """Not by what the model would say at maturity, having learned labels that nobody knew when it was asked."""
    messages = _stream()
    rate = float(np.mean([message.label or 0 for message in messages]))
    asked = _with_batch(messages, [rate] * len(messages))
    useless = [msgspec.structs.replace(message, online_score=rate) for message in asked]
    fresh, recorded = _learner(), _learner()
    fresh.learn(asked)
    recorded.learn(useless)
    assert fresh.blend_weight > 0.0
    assert recorded.blend_weight == 0.0


def test_drift_is_counted() -> None:
    """When frauds begin to look like honest payments and the loss rises; not while nothing changes."""
    calm = _learner(candidate="hoeffding")
    calm.learn(_stream(4, 4000, 0.3))
    assert calm.drifts == 0
    matrix, labels = _columns(5, 3000, 0.3)
    turned = [_message(4000 + number, matrix[number], 0 if labels[number] else 1) for number in range(3000)]
    calm.learn(turned)
    assert calm.drifts > 0

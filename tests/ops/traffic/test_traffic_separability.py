"""No single feature gives the frauds away: the simulator is worth a model's effort."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from app.domain.feedback import Feedback, decode_feedback
from app.domain.field_checks import TimeLimits
from app.domain.fields import FIELDS, Kind
from app.domain.siphash import HashKey, hash_account, hash_pix_key
from app.domain.transaction import TransactionDecoder
from ops.traffic.feedback import FeedbackConfig, MedFeedback
from ops.traffic.generator import Simulated, TrafficConfig, generate
from tables.catalog import CATALOG
from tables.events import credit_events, debit_events, is_refund, receiver_events
from tables.profiles import Profiles

SEED = 11
START_MS = 1_789_948_800_000 + 8 * 3_600_000
HASH_KEY = HashKey.from_bytes(bytes(range(16)))
LIMITS = TimeLimits()
BATCH = 4_000
MOST_AUC = 0.90


def auc(values: NDArray[np.float64], is_fraud: NDArray[np.bool_]) -> float:
    """Return the chance that a fraud ranks above an honest payment; missing is lowest, ties count half."""
    ranked = np.where(np.isnan(values), -np.inf, values)
    _, place, counts = np.unique(ranked, return_inverse=True, return_counts=True)
    mean_rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    frauds = int(is_fraud.sum())
    honest = len(is_fraud) - frauds
    return float((mean_rank[is_fraud].sum() - frauds * (frauds + 1) / 2) / (frauds * honest))


class Pipeline:
    """Both stages without Kafka: what the workers compute, one batch after the other."""

    def __init__(self) -> None:
        self.receivers, self.payers = Profiles("receiver"), Profiles("payer")
        self.decoder = TransactionDecoder(HASH_KEY, LIMITS)

    def vectors(self, batch: list[Simulated]) -> tuple[NDArray[np.void], NDArray[np.float32]]:
        """Return the transactions of a batch and the vectors on which they would be decided."""
        decoded = self.decoder.decode(
            [each.value for each in batch],
            [each.key for each in batch],
            [each.arrival_ms for each in batch],
            range(len(batch)),
            0,
        )
        assert not decoded.rejected
        rows = decoded.rows
        received = self.receivers.update(receiver_events(rows))
        debits, credits_ = debit_events(rows, received), credit_events(rows)
        sent = self.payers.update(np.stack([debits, credits_], axis=1).ravel())[::2]
        return rows, CATALOG.vector(received, sent, rows)

    def mark(self, feedback: Feedback) -> None:
        """Let a fraud marker count against its receiver."""
        assert feedback.receiver_account is not None
        assert feedback.receiver_ispb is not None
        receiver = (
            hash_pix_key(feedback.pix_key, HASH_KEY)
            if feedback.pix_key is not None
            else hash_account(feedback.receiver_ispb, feedback.receiver_account, HASH_KEY)
        )
        change = 1 if feedback.status == "REGISTERED" else -1
        fraud_type = feedback.fraud_type if feedback.fraud_type in {"MULE_ACCOUNT", "SCAMMER_ACCOUNT"} else "OTHER"
        self.receivers.mark(
            np.array([receiver], np.uint64), fraud_type, change, np.array([feedback.timestamp], np.int64)
        )


def batches(config: TrafficConfig) -> Iterator[list[Simulated]]:
    """Yield the traffic by batches, without what reaches no model."""
    stream = (each for each in generate(config) if each.payment is not None and not each.is_retry)
    while batch := list(itertools.islice(stream, BATCH)):
        yield batch


@pytest.fixture(scope="module")
def scored() -> tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.bool_]]:
    """Return transactions, vectors and truth of three days, with the feedback of each hour known at its time."""
    config = TrafficConfig(
        start_ms=START_MS,
        seed=SEED,
        rate_per_s=0.25,
        duration_s=3 * 86_400,
        fraud_share=0.02,
    )
    pipeline, med = (
        Pipeline(),
        MedFeedback(FeedbackConfig(seed=SEED, delay_scale=0.1)),
    )
    rows, vectors, truth = [], [], []
    for batch in batches(config):
        for message in med.due(batch[0].arrival_ms):
            feedback = decode_feedback(message.value, message.key, message.at_ms, LIMITS)
            assert isinstance(feedback, Feedback)
            if feedback.event == "FRAUD_MARKER":
                pipeline.mark(feedback)
        found, vector = pipeline.vectors(batch)
        kept = ~is_refund(found)
        rows.append(found[kept])
        vectors.append(vector[kept])
        truth.append(np.array([each.label is not None for each in batch])[kept])
        for simulated in batch:
            med.observe(simulated)
    return np.concatenate(rows), np.concatenate(vectors), np.concatenate(truth)


def test_there_are_enough_payments_to_judge_by(
    scored: tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    """Tens of thousands, with some hundred frauds."""
    _, vectors, truth = scored
    assert len(truth) > 50_000
    assert truth.sum() > 500
    assert vectors.shape == (len(truth), len(CATALOG))


@pytest.mark.parametrize("name", CATALOG.names)
def test_no_feature_alone_tells_frauds(
    name: str, scored: tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.bool_]]
) -> None:
    """In either direction, every feature of the catalog ranks frauds with an AUC below 0.9."""
    _, vectors, truth = scored
    found = auc(vectors[:, CATALOG.names.index(name)].astype(np.float64), truth)
    assert max(found, 1 - found) < MOST_AUC, f"seed {SEED}: {name} has AUC {found:.3f}"


@pytest.mark.parametrize(
    "name", [field.name for field in FIELDS if field.kind in {Kind.CENTAVOS, Kind.COUNT, Kind.ENUM, Kind.BOOLEAN}]
)
def test_no_field_alone_tells_frauds(
    name: str, scored: tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.bool_]]
) -> None:
    """The same for what the message says."""
    rows, _, truth = scored
    found = auc(rows[name].astype(np.float64), truth)
    assert max(found, 1 - found) < MOST_AUC, f"seed {SEED}: {name} has AUC {found:.3f}"


def test_no_session_flag_alone_tells_frauds(
    scored: tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    """Each flag is raised in more honest sessions than fraudulent ones."""
    rows, _, truth = scored
    flags = next(field for field in FIELDS if field.name == "session_flags").values
    for bit, flag in enumerate(flags):
        raised = (rows["session_flags"] >> bit & 1).astype(bool)
        assert (raised & ~truth).sum() > (raised & truth).sum() > 0, f"seed {SEED}: {flag}"

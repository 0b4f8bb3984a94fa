"""A payer's mark counts from where it stands in `pix-enriched`, whatever the batches."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.field_checks import TimeLimits
from app.domain.records import Stretch
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.topics import ENRICHED
from models.rules.file import default_pack_text, load_rule_pack
from models.stages.marking import mark_parties
from models.stages.payers import PayerStage
from models.stages.pipeline import Message, Pipeline
from models.stages.receivers import ReceiverStage
from tables.catalog import CATALOG

T0_MS = 1_790_000_000_000
HASH_KEY = HashKey(1, 2)
LIMITS = TimeLimits()
PACK = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
MARKS = CATALOG.names.index("payer_fraud_marks")
SINCE = CATALOG.names.index("payer_since_mark_ms")
PAYER = {"payer_account": "7", "payer_ispb": "87654321"}
RECEIVER = {"receiver_account": "0001-99", "receiver_ispb": "12345678"}


def _payment(number: int, at_ms: int) -> Message:
    fields = PAYER | RECEIVER | {
        "end_to_end_id": f"E12345678202609211333{number:011d}",
        "timestamp": at_ms,
        "amount_centavos": 100,
        "initiation": "MANU",
    }  # fmt: skip
    return Message(b"0001-99", json.dumps(fields).encode(), at_ms)


def _marker(at_ms: int, report: str = "one", status: str = "REGISTERED") -> Message:
    identity = "E12345678202609211333abcDEF12345"
    fields = PAYER | RECEIVER | {
        "end_to_end_id": identity,
        "timestamp": at_ms,
        "event": "FRAUD_MARKER",
        "status": status,
        "report_id": report,
        "last_modified": at_ms,
        "fraud_type": "OTHER",
    }  # fmt: skip
    return Message(identity.encode(), json.dumps(fields).encode(), at_ms)


def _seen(pipeline: Pipeline, number: int, at_ms: int) -> list[float]:
    """Marks, and time since the last one, that a payment is decided on."""
    (output,) = pipeline.push([_payment(number, at_ms)]).decided
    return [float(value) for value in output.decided.vectors[0, [MARKS, SINCE]]]


def test_a_payer_is_marked_until_the_mark_is_cancelled() -> None:
    """A repeat does not count; a second report does."""
    pipeline = Pipeline(1, TransactionDecoder(HASH_KEY, LIMITS), PACK)
    assert _seen(pipeline, 1, T0_MS) == pytest.approx([0, np.nan], nan_ok=True)
    pipeline.hear([_marker(T0_MS + 1000)], HASH_KEY, LIMITS)
    assert _seen(pipeline, 2, T0_MS + 5000) == [1, 4000]
    pipeline.hear([_marker(T0_MS + 6000), _marker(T0_MS + 7000, "two")], HASH_KEY, LIMITS)
    assert _seen(pipeline, 3, T0_MS + 8000) == [2, 1000]
    pipeline.hear([_marker(T0_MS + 9000, report, "CANCELLED") for report in ("one", "two")], HASH_KEY, LIMITS)
    assert _seen(pipeline, 4, T0_MS + 10_000) == pytest.approx([0, np.nan], nan_ok=True)


def _log() -> list[tuple[bytes, int]]:
    """Messages of `pix-enriched`: payments of one payer, and between them marks, repeats and cancellations."""
    stage = ReceiverStage(0, 1, TransactionDecoder(HASH_KEY, LIMITS), 3_600_000, 1000)
    frames: list[tuple[bytes, int]] = []
    payments = markers = 0
    for number in range(24):
        at_ms = T0_MS + number * 1000
        if number % 3 == 1:
            told = _marker(at_ms, f"report-{number // 6}", "CANCELLED" if number % 5 == 0 else "REGISTERED")
            records = Stretch(0, 1, [told.key], [told.value], range(1), [at_ms])
            values = [value for send in mark_parties(records, 0, 1, HASH_KEY, LIMITS).sends for value in send.values]
            end = markers + len(values)
            told_on = Stretch(markers, end, [None] * len(values), values, range(markers, end), [at_ms] * len(values))
            sends, markers = stage.apply_markers(told_on).sends, end
        else:
            paid = _payment(number, at_ms)
            records = Stretch(payments, payments + 1, [paid.key], [paid.value], range(payments, payments + 1), [at_ms])
            sends, payments = stage.apply(records).sends, payments + 1
        frames += [
            (bytes(value or b""), at_ms) for send in sends if send.topic == ENRICHED.name for value in send.values
        ]
    return frames


def _decide(cuts: list[int]) -> tuple[list[list[float]], Any]:
    """Vectors and checkpoint of stage 2 when the log comes in these batches, each but the first with a repeat."""
    log = _log()
    stage = PayerStage(0, 1, PACK, 3_600_000, 1000)
    vectors: list[list[float]] = []
    for begin, end in pairwise([0, *sorted({cut for cut in cuts if 0 < cut < len(log)}), len(log)]):
        again = max(begin - 1, 0)
        part = log[again:end]
        output = stage.apply(
            Stretch(
                again, end, [None] * len(part), [value for value, _ in part], range(again, end), [at for _, at in part]
            )
        )
        vectors += output.decided.vectors[:, [MARKS, SINCE]].tolist()
    return vectors, stage.state.export()


WHOLE = _decide([])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=8))
def test_batches_do_not_matter(cuts: list[int]) -> None:
    """A crash brings the same frames back in other batches; decisions must be the same to the bit."""
    vectors, checkpoint = _decide(cuts)
    assert np.array_equal(vectors, WHOLE[0], equal_nan=True)
    assert checkpoint == WHOLE[1]


def test_the_log_is_worth_it() -> None:
    """It has payments without a mark, with one and with several."""
    assert {row[0] for row in WHOLE[0]} >= {0.0, 1.0, 2.0}

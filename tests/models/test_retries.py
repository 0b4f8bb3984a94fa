"""Retries at the edge of what the stages remember: answered alike on every replay, and never counted twice in one."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.field_checks import TimeLimits
from app.domain.records import Stretch
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.topics import DECISIONS, ENRICHED, REJECTED
from models.rules.file import default_pack_text, load_rule_pack
from models.stages.payers import PayerStage
from models.stages.receivers import ReceiverStage
from tables.catalog import CATALOG

PACK = load_rule_pack(default_pack_text(), CATALOG.column_types(), "default")
DECODER = TransactionDecoder(HashKey(1, 2), TimeLimits())
T0_MS = 1_767_279_600_000
WINDOW_MS = 1000


def _payment(name: str) -> bytes:
    return msgspec.json.encode(
        {
            "end_to_end_id": f"E00000000202601011200{name:a>11}",
            "timestamp": T0_MS,
            "amount_centavos": 12345,
            "payer_account": "1",
            "payer_ispb": "00000000",
            "receiver_account": "2",
            "receiver_ispb": "00000001",
            "initiation": "MANU",
            "device_id": "3",
        }
    )


def _stretch(values: list[bytes], times_ms: list[int], begin: int, end: int) -> Stretch:
    return Stretch(
        begin,
        end,
        [b"2"] * (end - begin),
        values[begin:end],
        range(begin, end),
        [T0_MS + at for at in times_ms[begin:end]],
    )


def _frames(values: list[bytes], times_ms: list[int]) -> list[bytes]:
    """Stage 1, one message a batch, so that each has a frame of its own."""
    stage = ReceiverStage(0, 1, DECODER, WINDOW_MS, 1000)
    sends = [send for at in range(len(values)) for send in stage.apply(_stretch(values, times_ms, at, at + 1)).sends]
    assert [send.topic for send in sends] == [ENRICHED.name] * len(values)
    return [value for send in sends for value in send.values]


def _outcomes(frames: list[bytes], sent_ms: list[int], *cuts: int) -> list[list[tuple[str, bytes]]]:
    """Stage 2: what each batch sends about decisions."""
    stage = PayerStage(0, 1, PACK, WINDOW_MS, 1000)
    stage.in_force.put(PACK, stage.in_force.lists)
    return [
        [
            (send.topic, value)
            for send in stage.apply(_stretch(frames, sent_ms, begin, end)).sends
            for value in send.values
            if send.topic in {DECISIONS.name, REJECTED.name}
        ]
        for begin, end in pairwise([0, *cuts, len(frames)])
    ]


def test_what_either_stage_has_forgotten() -> None:
    """Answered while the payers' stage remembers; decided anew once neither does; rejected where only stage 1 does."""
    received_ms, sent_ms = [0, 1000, 1001, 2002, 2100], [0, 1000, 1001, 2002, 9000]
    frames = _frames([_payment("x")] * 5, received_ms)
    first, repeat, remembered_here, again, forgotten_here = _outcomes(frames, sent_ms, 1, 2, 3, 4)
    assert [topic for topic, _ in first] == [DECISIONS.name]
    assert first == repeat == remembered_here
    assert [topic for topic, _ in again] == [DECISIONS.name]
    assert again != first
    assert [topic for topic, _ in forgotten_here] == [REJECTED.name]
    assert b"no longer remembered" in forgotten_here[0][1]


@pytest.mark.parametrize("lag_ms", [0, WINDOW_MS])
def test_what_stage_1_knows_is_answered_though_it_fell_behind(lag_ms: int) -> None:
    """By as much as a window, between the payment and its retry."""
    frames = _frames([_payment("x")] * 2, [0, WINDOW_MS])
    first, repeat = _outcomes(frames, [0, WINDOW_MS + lag_ms], 1)
    assert first == repeat


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.sampled_from([0, 400, 999, 1001, -700]), st.sampled_from([0, 0, 1500])),
        min_size=1,
        max_size=14,
    ),
    st.data(),
)
def test_batches_may_be_cut_anywhere(log: list[tuple[str, int, int]], data: st.DataObject) -> None:
    """Stage 2 says the same, about ids that are forgotten inside a batch too."""
    values = [_payment(name) for name, _, _ in log]
    received_ms = [sum(gap for _, gap, _ in log[: place + 1]) for place in range(len(log))]
    sent_ms = [at_ms + lag_ms for at_ms, (_, _, lag_ms) in zip(received_ms, log, strict=True)]
    frames = _frames(values, received_ms)
    single = _outcomes(frames, sent_ms, *range(1, len(frames)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(frames) - 1)))) if len(frames) > 1 else []
    for batch, (begin, end) in zip(_outcomes(frames, sent_ms, *cuts), pairwise([0, *cuts, len(frames)]), strict=True):
        assert Counter(batch) == Counter(sent for one in single[begin:end] for sent in one)


def test_what_all_goes_to_one_partition_is_cut_into_frames() -> None:
    """A company pays ten thousand salaries at once: every frame stays small, and every payment is decided once."""
    values = [_payment(f"{number}") for number in range(10_000)]
    times_ms = list(range(len(values)))
    sends = ReceiverStage(0, 1, DECODER, WINDOW_MS, 20_000).apply(_stretch(values, times_ms, 0, len(values))).sends
    frames = [value for send in sends for value in send.values]
    assert len(frames) > 1
    assert max(map(len, frames)) < 1_000_000
    stage = PayerStage(0, 1, PACK, WINDOW_MS, 20_000)
    stage.in_force.put(PACK, stage.in_force.lists)
    output = stage.apply(
        Stretch(0, len(frames), [None] * len(frames), frames, range(len(frames)), [T0_MS] * len(frames))
    )
    assert output.decided.rows["source_offset"].tolist() == list(range(len(values)))

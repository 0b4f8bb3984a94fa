"""What a partition decides by: announced ahead, switched at an offset, and found again after a crash."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from agents.controls import DEFAULT_RULES, read_pack
from app.domain.field_checks import TimeLimits
from app.domain.records import Stretch
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.ensemble import NO_MODELS, Models
from models.rules.lists import Lists
from models.stages.in_force import InForce
from models.stages.pipeline import Message, Pipeline
from tables.partition import PartitionState
from tables.profiles import Profiles
from tests.models.test_ensemble import FULL, batch_model

PACK = read_pack(DEFAULT_RULES)
OTHER = replace(FULL, champion=batch_model(5, 40))


def fresh() -> tuple[PartitionState, InForce]:
    """Return an empty state and what is in force with it."""
    state = PartitionState(Profiles("payer"), {})
    in_force = InForce(state, PACK)
    in_force.put(PACK, Lists(), NO_MODELS)
    return state, in_force


def checkpoint(state: PartitionState, log: PartitionState) -> None:
    """Append what has changed to a log, as another state that reads it, and acknowledge it."""
    keys, values = state.export()
    log.restore(keys, values)
    state.acknowledged()


def stretch(base: int, end: int) -> Stretch:
    """Return records that only have offsets."""
    count = end - base
    return Stretch(base, end, [None] * count, [b""] * count, range(base, end), [0] * count)


def offsets(records: object) -> list[int] | None:
    """Return the offsets of a part."""
    return None if records is None else list(getattr(records, "offsets"))  # noqa: B009 - a protocol's


def test_an_announcement_holds_once_it_is_written() -> None:
    """Not while it is only in memory, nor while its checkpoint is on its way."""
    state, in_force = fresh()
    in_force.announce(FULL, 5)
    assert not in_force.is_announced
    state.export()
    assert not in_force.is_announced
    state.acknowledged()
    assert in_force.is_announced
    in_force.switch()
    in_force.announce(OTHER, 5)
    assert not in_force.is_announced


@pytest.mark.parametrize(
    ("base", "end", "now", "then"),
    [
        (0, 5, [0, 1, 2, 3, 4], None),
        (0, 7, [0, 1, 2, 3, 4, 5, 6], None),
        (4, 9, [4, 5, 6], [7, 8]),
        (7, 9, None, [7, 8]),
        (8, 9, None, [8]),
    ],
)
def test_a_batch_is_cut_where_the_models_change(
    base: int, end: int, now: list[int] | None, then: list[int] | None
) -> None:
    """Wherever batches begin and end, an offset is decided on by the same models."""
    _, in_force = fresh()
    assert in_force.split(stretch(base, end))[1] is None
    in_force.announce(FULL, 7)
    before, after = in_force.split(stretch(base, end))
    assert (offsets(before), offsets(after)) == (now, then)
    if before is not None and after is not None:
        assert before.next_offset == after.base == 7


def test_a_recovery_goes_on_where_the_checkpoint_was() -> None:
    """Before the announcement, between it and the switch, and after: with the models of then, and those to come."""
    state, in_force = fresh()
    log, _ = fresh()
    checkpoint(state, log)
    recovered = InForce(log, PACK)
    assert recovered.resume()
    assert (recovered.models.versions, recovered.switch_at) == (NO_MODELS.versions, None)
    in_force.announce(FULL, 7)
    checkpoint(state, log)
    recovered = InForce(log, PACK)
    assert recovered.resume()
    assert recovered.models.versions == NO_MODELS.versions
    assert isinstance(recovered.announced, Models)
    assert (recovered.announced.versions, recovered.switch_at) == (FULL.versions, 7)
    in_force.switch()
    checkpoint(state, log)
    recovered = InForce(log, PACK)
    assert recovered.resume()
    assert (recovered.models.versions, recovered.announced, recovered.switch_at) == (FULL.versions, None, None)


def test_models_of_another_catalog_are_left_behind() -> None:
    """Their features do not mean what the vectors say now."""
    state, in_force = fresh()
    log, _ = fresh()
    assert FULL.champion is not None
    in_force.put(PACK, Lists(), Models(champion=replace(FULL.champion, fingerprint="f" * 16)))
    checkpoint(state, log)
    recovered = InForce(log, PACK)
    assert recovered.resume()
    assert recovered.models.versions == NO_MODELS.versions


def test_no_batch_waits_for_a_switch() -> None:
    """One that announces or switches takes less than three times the median; the best of some, as machines stall."""
    pipeline = Pipeline(1, TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits()), PACK)
    value = (
        b'{"end_to_end_id":"E00000000202601011200%011d","timestamp":1767279600000,"amount_centavos":12345,'
        b'"payer_account":"%d","payer_ispb":"00000000","receiver_account":"2","receiver_ispb":"00000001",'
        b'"initiation":"MANU"}'
    )
    for models in (FULL, OTHER):
        for part in (models.champion, models.challenger, models.online):
            assert part is not None
            part.forest.warm()
    in_force = pipeline.payers[0].in_force
    usual, switching = [], []
    for step in range(80):
        batch = [Message(b"2", value % (100 * step + row, row), 1_767_279_600_000) for row in range(100)]
        begin = time.perf_counter()
        is_switching = step > 20 and step % 6 in (0, 1)
        if step > 20 and step % 6 == 0:
            in_force.announce(FULL if step % 12 else OTHER, 1)
        pipeline.push(batch)
        (switching if is_switching else usual).append(time.perf_counter() - begin)
    assert len(switching) >= 18
    assert in_force.models.versions in (FULL.versions, OTHER.versions)
    assert float(np.median(switching)) < 3 * float(np.median(usual[20:]))

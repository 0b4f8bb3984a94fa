"""Vectors that await a label: found by id and by place, on disk as one step left them."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from app.domain.vectors import VECTOR_ROW_DTYPE
from tables.awaiting import CHUNK_ROWS, Awaiting, AwaitingStoreError, Positions
from tables.awaiting_rows import Chunk, id_hashes, id_minutes

_DAY_MS = 86_400_000
_START_MS = 1_764_500_000_000


def _id(number: int, at_ms: int) -> str:
    return f"E12345678{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%d%H%M}{number:011d}"


def _chunk(offsets: list[int], *, step_ms: int = 1000) -> Chunk:
    rows = np.zeros(len(offsets), VECTOR_ROW_DTYPE)
    ages = np.array([_START_MS + step_ms * offset for offset in offsets])
    rows["id"] = [_id(offset, int(age)).encode() for offset, age in zip(offsets, ages, strict=True)]
    rows["amount_centavos"] = offsets
    matrix = np.array(offsets, "<f4")[:, None] + np.array([0.0, 0.25, np.nan], "<f4")
    return Chunk(np.array(offsets), ages, rows, matrix, "0123456789abcdef")


def _find(store: Awaiting, offset: int, *, step_ms: int = 1000) -> tuple[int, int | None] | None:
    place = store.find(_id(offset, _START_MS + step_ms * offset))
    if place is None:
        return None
    return place.offset, None if place.vector is None else int(place.vector.rows["amount_centavos"][0])


def test_a_vector_is_found_by_its_id_as_it_came(tmp_path: Path) -> None:
    """Before the step is committed, after it, and after it was opened again; holes between offsets matter not."""
    store = Awaiting(tmp_path / "0")
    offsets = [3 * i for i in range(2 * CHUNK_ROWS + 7)]
    chunk = _chunk(offsets)
    kept = np.array([offset % 2 == 0 for offset in offsets])
    store.add(chunk, kept)
    for _ in range(3):
        for row in (0, 1, 255, 256, 257, 2 * CHUNK_ROWS, 2 * CHUNK_ROWS + 6):
            assert _find(store, offsets[row]) == (offsets[row], offsets[row] if kept[row] else None)
        assert _find(store, 1) is None
        place = store.vector(offsets[256])
        assert place is not None
        np.testing.assert_array_equal(place.matrix[0], chunk.matrix[256])
        assert place.rows[0] == chunk.rows[256]
        assert (place.ages[0], place.fingerprint) == (chunk.ages[256], chunk.fingerprint)
        store.positions = Positions(features=5, matured=2)
        store.commit()
        store.close()
        store = Awaiting(tmp_path / "0")
        assert store.positions == Positions(features=5, matured=2)
    store.close()


def test_what_was_not_committed_is_forgotten(tmp_path: Path) -> None:
    """A crash leaves the last step that was committed, whole."""
    store = Awaiting(tmp_path / "0")
    store.add(_chunk([1, 2]), np.ones(2, np.bool_))
    store.commit()
    store.add(_chunk([3]), np.ones(1, np.bool_))
    store.put_label(2, b"label")
    store.wait(7, b"feedback")
    assert (_find(store, 3), store.label(2), store.waiting()) == ((3, 3), b"label", {7: b"feedback"})
    store.close()
    store = Awaiting(tmp_path / "0")
    assert (_find(store, 2), _find(store, 3), store.label(2), store.waiting()) == ((2, 2), None, None, {})
    store.close()


def test_repeats_are_told_from_what_is_new(tmp_path: Path) -> None:
    """Of a batch that repeats itself the first one is new; of one that was added, none."""
    store = Awaiting(tmp_path / "0")
    store.add(_chunk([1, 2]), np.array([True, False]))
    ids = _chunk([2, 3, 4, 3, 1]).rows["id"]
    assert store.new(ids).tolist() == [False, True, True, False, False]
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_against_a_dictionary(tmp_path: Path, seed: int) -> None:
    """Adding, dropping, labelling and forgetting, committed or not, is what it is in memory."""
    chance = random.Random(seed)
    store = Awaiting(tmp_path / "0")
    held: dict[int, bool] = {}
    labels: dict[int, bytes] = {}
    offset = 0
    step_ms = 3_600_000
    for _ in range(60):
        match chance.randrange(5):
            case 0 | 1:
                offsets = sorted(chance.sample(range(offset, offset + 400), chance.randrange(1, 300)))
                kept = np.array([chance.random() < 0.8 for _ in offsets])
                store.add(_chunk(offsets, step_ms=step_ms), kept)
                held.update(zip(offsets, kept.tolist(), strict=True))
                offset = offsets[-1] + 1
            case 2:
                for chunk in list(store.chunks(chance.randrange(offset + 1)))[:2]:
                    kept = np.array([chance.random() < 0.3 for _ in range(len(chunk))])
                    store.keep(chunk, kept)
                    held.update(zip(chunk.offsets.tolist(), kept.tolist(), strict=True))
            case 3:
                for each in chance.sample(sorted(held), min(3, len(held))):
                    labels[each] = b"%d" % chance.randrange(9)
                    store.put_label(each, labels[each])
            case 4:
                store.commit()
        there = [int(each) for chunk in store.chunks() for each in chunk.offsets]
        assert there == [each for each, is_held in sorted(held.items()) if is_held]
        first = chance.randrange(offset + 1)
        wanted = {each: packed for each, packed in sorted(labels.items()) if first <= each <= first + 50}
        assert store.labels(first, first + 50) == wanted
        for each in chance.sample(sorted(held), min(5, len(held))):
            assert _find(store, each, step_ms=step_ms) == (each, each if held[each] else None)
    store.close()


def test_what_is_too_old_leaves(tmp_path: Path) -> None:
    """Vectors and labels at the horizon, by blobs; that they were decided on is known for a day more."""
    store = Awaiting(tmp_path / "0")
    for day in range(10):
        store.add(_chunk([day], step_ms=_DAY_MS), np.ones(1, np.bool_))
        store.put_label(day, b"label")
    store.commit()
    assert store.forget(_START_MS + 5 * _DAY_MS) == 5
    for _ in range(2):
        found = [_find(store, day, step_ms=_DAY_MS) for day in range(10)]
        assert found == [None] * 4 + [(4, None)] + [(day, day) for day in range(5, 10)]
        assert sorted(store.labels(0, 99)) == list(range(5, 10))
        store.commit()
    store.close()


def test_a_store_belongs_to_one_process(tmp_path: Path) -> None:
    """The message tells what to do."""
    store = Awaiting(tmp_path / "0")
    with pytest.raises(AwaitingStoreError, match="a name of its own"):
        Awaiting(tmp_path / "0")
    store.close()
    Awaiting.remove(tmp_path / "0")


def test_hashes_and_minutes_of_ids() -> None:
    """The minute is what the id says; ids that differ in one character have other hashes."""
    ids = np.array([b"E12345678202511301259abcdefghijk", b"E12345678202511301259abcdefghijl"], "S32")
    assert id_minutes(ids).tolist() == [202511301259] * 2
    assert len(set(id_hashes(ids).tolist())) == 2
    many = np.array([_id(i, _START_MS).encode() for i in range(20_000)], "S32")
    hashes = id_hashes(many)
    assert len(set(hashes.tolist())) == len(many)
    shares = [float(((hashes >> np.uint64(bit)) & np.uint64(1)).mean()) for bit in range(64)]
    assert 0.47 < min(shares) < max(shares) < 0.53

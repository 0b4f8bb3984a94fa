"""The memory of ids, against a list that forgets nothing it should know."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain.fields import TRANSACTION_DTYPE
from tables.ids import IdMemory, transaction_digest

DTYPE = np.dtype([("id", "S32"), ("timestamp", "i8"), ("digest", "u8")])
WINDOW_MS = 100
MAX_IDS = 8


def _rows(*ids: int, at_ms: int = 0) -> NDArray[np.void]:
    rows = np.zeros(len(ids), DTYPE)
    rows["id"] = [_name(one) for one in ids]
    rows["timestamp"] = at_ms
    rows["digest"] = [1000 + one for one in ids]
    return rows


def _name(number: int) -> bytes:
    return b"E%031d" % number


def _memory(window_ms: int = WINDOW_MS, max_ids: int = MAX_IDS) -> IdMemory:
    return IdMemory(DTYPE, window_ms, max_ids)


def _known(memory: IdMemory, *ids: int) -> list[bool]:
    return [not first for first in memory.first_occurrences([_name(one) for one in ids])]


def _restored(changelog: dict[int, bytes | None]) -> IdMemory:
    memory = _memory()
    for sequence, content in changelog.items():
        memory.restore_segment(sequence, content)
    memory.finish_restore()
    return memory


def test_a_repeat_is_seen_within_a_batch_and_after_it() -> None:
    """The first occurrence alone is first."""
    memory = _memory()
    assert memory.first_occurrences([_name(1), _name(2), _name(1)]).tolist() == [True, True, False]
    memory.append(_rows(1, 2))
    assert memory.first_occurrences([_name(2), _name(3)]).tolist() == [False, True]
    assert len(memory) == 2


def test_rows_come_back_in_the_order_asked() -> None:
    """From closed segments and from the open one, unknown ids left out."""
    memory = _memory()
    memory.append(_rows(1, 2))
    memory.close_segment()
    memory.append(_rows(3))
    memory.append(_rows(4, 5))
    known, rows = memory.rows([_name(one) for one in (5, 9, 1, 4, 3)])
    assert known.tolist() == [True, False, True, True, True]
    assert rows["digest"].tolist() == [1005, 1001, 1004, 1003]


def test_a_checkpoint_writes_new_ids_once() -> None:
    """Its cost is that of the new ids; without any it writes nothing."""
    memory = _memory()
    memory.append(_rows(1))
    assert memory.close_segment() == ([(0, _rows(1).tobytes())], [])
    assert memory.close_segment() == ([], [])
    memory.append(_rows(2))
    memory.append(_rows(3))
    assert memory.close_segment() == ([(1, _rows(2, 3).tobytes())], [])


@pytest.mark.parametrize(("later_ms", "known"), [(100, True), (101, False)])
def test_ids_expire_once_the_window_has_passed(later_ms: int, *, known: bool) -> None:
    """An id exactly one window old is still known."""
    memory = _memory()
    memory.append(_rows(1, at_ms=0))
    memory.close_segment()
    memory.append(_rows(2, at_ms=later_ms))
    _, removed = memory.close_segment()
    assert _known(memory, 1, 2) == [known, True]
    assert removed == ([] if known else [0])


def test_nothing_expires_between_checkpoints() -> None:
    """A replay from a checkpoint knows what the first run knew."""
    memory = _memory()
    memory.append(_rows(1, at_ms=0))
    memory.close_segment()
    memory.append(_rows(2, at_ms=10_000))
    assert _known(memory, 1, 2) == [True, True]


def test_the_number_is_bounded_to_a_segment() -> None:
    """The oldest segments go as soon as the others hold enough."""
    memory = _memory(window_ms=10**6)
    for first in range(0, 40, 4):
        memory.append(_rows(*range(first, first + 4)))
        memory.close_segment()
    assert len(memory) == MAX_IDS
    assert _known(memory, 31, 32) == [False, True]


def test_an_id_that_was_forgotten_can_be_learnt_again() -> None:
    """And the expiry of its old row does not touch the new one."""
    memory = _memory()
    for one, at_ms in ((1, 0), (2, 1000), (1, 1000), (3, 1050)):
        assert _known(memory, one) == [False]
        memory.append(_rows(one, at_ms=at_ms))
        memory.close_segment()
    assert _known(memory, 1, 2, 3) == [True, True, True]
    assert memory.rows([_name(1)])[1]["timestamp"].tolist() == [1000]


def test_a_standby_that_held_ids_before_forgets_the_removed() -> None:
    """Once active, then standby, then active again: what others removed meanwhile is not known."""
    memory = _memory()
    for sequence in range(3):
        memory.append(_rows(sequence))
        memory.close_segment()
    memory.append(_rows(77))  # applied, but in no checkpoint: another worker went on from the last one
    memory.restore_segment(3, _rows(3).tobytes())
    memory.restore_segment(0, None)
    memory.restore_segment(1, None)
    memory.finish_restore()
    assert _known(memory, 0, 1, 2, 3, 77) == [False, False, True, True, False]
    memory.append(_rows(4))
    assert memory.rows([_name(4), _name(2)])[1]["digest"].tolist() == [1004, 1002]
    assert memory.close_segment() == ([(4, _rows(4).tobytes())], [])


def test_finishing_without_anything_restored_keeps_all() -> None:
    """A partition that stays with its worker over a rebalance goes on."""
    memory = _memory()
    memory.append(_rows(1))
    memory.close_segment()
    memory.append(_rows(2))
    memory.finish_restore()
    assert _known(memory, 1, 2) == [True, True]
    assert memory.rows([_name(2)])[1]["digest"].tolist() == [1002]


@dataclass
class _Oracle:
    """Segments as lists; the rule of expiry, told plainly."""

    segments: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    open: list[tuple[int, int]] = field(default_factory=list)
    sequence: int = 0

    def known(self) -> set[int]:
        """Ids of all rows held."""
        return {one for rows in (*self.segments.values(), self.open) for one, _ in rows}

    def close(self) -> None:
        """End the open segment, then drop the oldest while too old or too many."""
        if self.open:
            self.segments[self.sequence] = self.open
            self.sequence += 1
            self.open = []
        while len(self.segments) > 1:
            oldest = min(self.segments)
            others = sum(len(rows) for sequence, rows in self.segments.items() if sequence != oldest)
            newest_ms = max(at_ms for rows in self.segments.values() for _, at_ms in rows)
            if max(at_ms for _, at_ms in self.segments[oldest]) >= newest_ms - WINDOW_MS and others < MAX_IDS:
                break
            del self.segments[oldest]


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.lists(st.integers(0, 15), max_size=6), st.integers(0, 60)),
        st.tuples(st.just("checkpoint"), st.just([]), st.just(0)),
        st.tuples(st.just("crash"), st.just([]), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(_STEPS)
def test_behaves_like_the_oracle(steps: list[tuple[str, list[int], int]]) -> None:
    """Batches, checkpoints and crashes in any order: the same ids are known, and their rows are the first ones."""
    memory, oracle, changelog, saved = _memory(), _Oracle(), dict[int, bytes | None](), _Oracle()
    now_ms = 0
    for action, ids, later_ms in steps:
        now_ms += later_ms
        if action == "batch":
            first = memory.first_occurrences([_name(one) for one in ids])
            fresh = [one for place, one in enumerate(ids) if one not in oracle.known() and one not in ids[:place]]
            assert [one for one, is_first in zip(ids, first, strict=True) if is_first] == fresh
            memory.append(_rows(*fresh, at_ms=now_ms))
            oracle.open = [*oracle.open, *((one, now_ms) for one in fresh)]
        elif action == "checkpoint":
            written, removed = memory.close_segment()
            changelog.update(written)
            changelog.update(dict.fromkeys(removed))
            oracle.close()
            saved = _Oracle(dict(oracle.segments), [], oracle.sequence)
            held = {sequence for sequence, content in changelog.items() if content is not None}
            assert held == set(oracle.segments)
        else:
            memory, oracle = _restored(changelog), _Oracle(dict(saved.segments), [], saved.sequence)
        _assert_same(memory, oracle)


def _assert_same(memory: IdMemory, oracle: _Oracle) -> None:
    stamped = {one: at_ms for rows in (*oracle.segments.values(), oracle.open) for one, at_ms in rows}
    assert len(memory) == len(stamped)
    known, rows = memory.rows([_name(one) for one in range(16)])
    assert np.flatnonzero(known).tolist() == sorted(stamped)
    assert rows["timestamp"].tolist() == [stamped[one] for one in sorted(stamped)]
    assert rows["digest"].tolist() == [1000 + one for one in sorted(stamped)]


def test_a_digest_tells_payments_apart() -> None:
    """Amount, payer, receiver and time each change it; the rest of the message does not."""
    rows = np.zeros(6, TRANSACTION_DTYPE)
    for column, value in {"amount_centavos": 1, "payer_account": 2, "receiver_account": 3, "timestamp": 4}.items():
        rows[column] = value
    for place, column in enumerate(("amount_centavos", "payer_account", "receiver_account", "timestamp"), start=1):
        rows[column][place] += 1
    rows["device_id"][5] = 99
    digests = transaction_digest(rows).tolist()
    assert len(set(digests)) == 5
    assert digests[5] == digests[0]


def test_a_digest_tells_who_pays_whom() -> None:
    """Payer and receiver exchanged are another payment."""
    rows = np.zeros(2, TRANSACTION_DTYPE)
    rows["payer_account"], rows["receiver_account"] = [7, 8], [8, 7]
    first, second = transaction_digest(rows).tolist()
    assert first != second

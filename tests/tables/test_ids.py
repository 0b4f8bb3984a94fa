"""The memory of ids, against a list that is told the rule plainly."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain.fields import TRANSACTION_DTYPE
from models.stages.receivers import SEEN_DTYPE
from tables.ids import IdMemory, transaction_digest
from tables.marks import MARKED_DTYPE

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


def _times(count: int, at_ms: int) -> NDArray[np.int64]:
    return np.full(count, at_ms, np.int64)


def _see(memory: IdMemory, *ids: int, at_ms: int = 0) -> list[bool]:
    """Apply a batch, and tell which of its ids are first occurrences."""
    first, _ = memory.first_occurrences([_name(one) for one in ids], _times(len(ids), at_ms))
    memory.append(_rows(*ids, at_ms=at_ms)[first])
    return [bool(one) for one in first]


def _known(memory: IdMemory, *ids: int, at_ms: int = 0) -> list[bool]:
    """Ask a copy, since a question changes what is asked: a first occurrence is remembered."""
    first, _ = deepcopy(memory).first_occurrences([_name(one) for one in ids], _times(len(ids), at_ms))
    return [not one for one in first]


def _digests(memory: IdMemory, *ids: int) -> list[int]:
    _, positions = memory.first_occurrences([_name(one) for one in ids], _times(len(ids), 0))
    return [int(digest) for digest in memory.rows(positions)["digest"]]


def _restored(changelog: dict[int, bytes | None], memory: IdMemory | None = None) -> IdMemory:
    memory = memory or _memory()
    for sequence, content in changelog.items():
        memory.restore_segment(sequence, content)
    memory.finish_restore()
    return memory


def test_a_repeat_is_seen_within_a_batch_and_after_it() -> None:
    """The first occurrence alone is first."""
    memory = _memory()
    assert _see(memory, 1, 2, 1) == [True, True, False]
    assert _see(memory, 2, 3) == [False, True]
    assert len(memory) == 3


def test_rows_come_back_in_the_order_asked() -> None:
    """From closed segments and from the open one."""
    memory = _memory()
    _see(memory, 1, 2)
    memory.close_segment()
    _see(memory, 3)
    _see(memory, 4, 5)
    assert _digests(memory, 5, 1, 4, 3, 1) == [1005, 1001, 1004, 1003, 1001]
    assert _digests(memory) == []


def test_a_retry_by_word_of_another_is_none_here() -> None:
    """It is no first occurrence even where nothing is known of it, and makes nothing known."""
    memory = _memory()
    names = [_name(one) for one in (1, 1, 2, 2, 1)]
    flags = np.array([True, False, False, True, True])
    first, positions = memory.first_occurrences(names, _times(5, 0), flags)
    assert first.tolist() == [False, True, True, False, False]
    assert positions.tolist() == [-1, 0, 1, 1, 0]


def test_rows_that_were_not_asked_for_are_refused() -> None:
    """More rows than first occurrences, or other times, would make a recovery another memory."""
    memory = _memory()
    with pytest.raises(ValueError, match="expected 0 first occurrences, got 1"):
        memory.append(_rows(1))
    memory.first_occurrences([_name(1)], _times(1, 5))
    with pytest.raises(ValueError, match="expected the log times"):
        memory.append(_rows(1, at_ms=6))


def test_a_checkpoint_writes_new_ids_once() -> None:
    """Its cost is that of the new ids; without any it writes nothing."""
    memory = _memory()
    _see(memory, 1)
    ((sequence, content),), removed = memory.close_segment()
    assert (sequence, removed) == (0, [])
    assert content.endswith(_rows(1).tobytes())
    assert memory.close_segment() == ([], [])
    _see(memory, 2)
    _see(memory, 3)
    ((sequence, later),), _ = memory.close_segment()
    assert sequence == 1
    assert len(later) - len(content) == DTYPE.itemsize
    assert later.endswith(_rows(2, 3).tobytes())


@pytest.mark.parametrize(("later_ms", "known"), [(100, True), (101, False)])
@pytest.mark.parametrize("checkpoints", [False, True])
def test_ids_are_forgotten_once_the_window_has_passed(later_ms: int, *, known: bool, checkpoints: bool) -> None:
    """An id exactly one window old is still known, whether there was a checkpoint or none."""
    memory = _memory()
    _see(memory, 1, at_ms=0)
    if checkpoints:
        memory.close_segment()
    _see(memory, 2, at_ms=later_ms)
    removed = memory.close_segment()[1] if checkpoints else []
    assert _known(memory, 1, 2) == [known, True]
    assert removed == ([0] if checkpoints and not known else [])


def test_the_row_that_asks_tells_the_time() -> None:
    """A repeat after a silence is dated by itself: nothing else came that would have moved the clock."""
    memory = _memory()
    _see(memory, 1, at_ms=0)
    assert _known(memory, 1, at_ms=100) == [True]
    assert _known(memory, 1, at_ms=101) == [False]


def test_a_clock_that_jumps_back_forgets_nothing() -> None:
    """One record dated a day ahead: what came before is forgotten, what comes after it is known as ever."""
    memory = _memory()
    _see(memory, 1, at_ms=0)
    _see(memory, 2, at_ms=86_400_000)
    memory.close_segment()
    _see(memory, 3, at_ms=50)
    assert _known(memory, 1, 2, 3, at_ms=60) == [False, True, True]


def test_the_number_is_bounded_to_a_row() -> None:
    """The last `max_ids` are known; segments go once nothing in them can be."""
    memory = _memory(window_ms=10**6)
    for first in range(0, 40, 5):
        _see(memory, *range(first, first + 5))
        memory.close_segment()
    assert _known(memory, 32) == [True]
    assert _known(memory, 31) == [False]
    assert len(memory) == 10
    assert _see(_memory(), *range(MAX_IDS + 1), 0, 2) == [*[True] * (MAX_IDS + 2), False]


def test_an_id_that_was_forgotten_can_be_learnt_again() -> None:
    """And the end of its old row does not touch the new one."""
    memory = _memory()
    for one, at_ms in ((1, 0), (2, 1000), (1, 1000), (3, 1050)):
        assert _see(memory, one, at_ms=at_ms) == [True]
        memory.close_segment()
    assert _known(memory, 1, 2, 3) == [True, True, True]
    _, positions = memory.first_occurrences([_name(1)], _times(1, 0))
    assert memory.rows(positions)["timestamp"].tolist() == [1000]


def test_a_standby_that_held_ids_before_forgets_the_removed() -> None:
    """Once active, then standby, then active again: what others removed meanwhile is not known."""
    memory, other = _memory(), _memory()
    for sequence in range(3):
        _see(memory, sequence)
        other.restore_segment(*memory.close_segment()[0][0])
    other.finish_restore()
    _see(other, 3)
    _see(memory, 77)  # applied, but in no checkpoint: another worker went on from the last one
    memory.restore_segment(*other.close_segment()[0][0])
    memory.restore_segment(0, None)
    memory.restore_segment(1, None)
    memory.finish_restore()
    assert _known(memory, 0, 1, 2, 3, 77) == [False, False, True, True, False]
    _see(memory, 4)
    assert _digests(memory, 4, 2) == [1004, 1002]
    ((sequence, _),), _ = memory.close_segment()
    assert sequence == 4


def test_finishing_without_anything_restored_keeps_all() -> None:
    """A partition that stays with its worker over a rebalance goes on."""
    memory = _memory()
    _see(memory, 1)
    memory.close_segment()
    _see(memory, 2)
    memory.finish_restore()
    assert _known(memory, 1, 2) == [True, True]
    assert _digests(memory, 2) == [1002]


def test_the_clock_survives_the_segment_that_set_it() -> None:
    """A row dated ahead leaves because of `max_ids`; a recovery still goes by the clock that it set."""
    memory = _memory(max_ids=2)
    log: dict[int, bytes | None] = {}
    for one, at_ms in ((1, 5000), (2, 0), (3, 0)):
        _see(memory, one, at_ms=at_ms)
        written, removed = memory.close_segment()
        log |= {**dict(written), **dict.fromkeys(removed)}
    assert log[0] is None
    back = _restored(log, _memory(max_ids=2))
    for either in (memory, back):
        assert _known(either, 2, 3, at_ms=5100) == [True, True]
        assert _known(either, 2, 3, at_ms=5101) == [False, False]


def test_rows_of_another_dtype_are_refused() -> None:
    """Another field, another type, another order: the bytes would be misread."""
    memory = _memory()
    _see(memory, 1, 2)
    ((_, content),), _ = memory.close_segment()
    for wrong in (
        [("id", "S32"), ("timestamp", "i8"), ("digest", "i8")],
        [("id", "S32"), ("digest", "u8"), ("timestamp", "i8")],
        [("id", "S32"), ("timestamp", "i8"), ("mix", "u8")],
        [("id", "S32"), ("timestamp", "i8"), ("digest", "u4", (2,))],
    ):
        with pytest.raises(ValueError, match=r"ids: expected rows of dtype [0-9a-f]{16}, got 96 bytes of [0-9a-f]{16}"):
            IdMemory(np.dtype(wrong), WINDOW_MS, MAX_IDS).restore_segment(0, content)
    for cut in (content[:-1], content[:28], content[:10], b""):
        with pytest.raises(ValueError, match="with a new changelog"):
            _memory().restore_segment(0, cut)


@pytest.mark.parametrize("dtype", [SEEN_DTYPE, MARKED_DTYPE], ids=["seen", "marked"])
def test_segments_without_a_header_are_still_read(dtype: np.dtype[np.void]) -> None:
    """Version 0.1.0 wrote none; a dtype that came later is refused, since nothing tells what the bytes are."""
    rows = np.zeros(2, dtype)
    rows["id"], rows["timestamp"] = [_name(1), _name(2)], [7, 9]
    memory = IdMemory(dtype, WINDOW_MS, MAX_IDS)
    memory.restore_segment(0, rows.tobytes())
    memory.finish_restore()
    first, positions = memory.first_occurrences([_name(2), _name(1)], np.array([109, 108]))
    assert first.tolist() == [False, True]
    assert memory.rows(positions[:1]).tobytes() == rows[1:].tobytes()
    with pytest.raises(ValueError, match="bytes of none"):
        IdMemory(np.dtype([*dtype.descr, ("later", "u1")]), WINDOW_MS, MAX_IDS).restore_segment(0, rows.tobytes())


@dataclass
class _Oracle:
    """All rows ever taken up; the rule, told plainly."""

    rows: list[tuple[int, int, int]] = field(default_factory=list)  # id, the clock when it came, place in the log
    clock_ms: int = 0

    def see(self, one: int, at_ms: int, *, retry: bool, place: int) -> tuple[bool, int | None]:
        """Whether an id is a first occurrence, and where in the log the one lies that it is or repeats."""
        now_ms = max(self.clock_ms, at_ms)
        for known, clock_ms, earlier in reversed(self.rows[-MAX_IDS:]):
            if known == one and clock_ms >= now_ms - WINDOW_MS:
                return False, earlier
        if retry:
            return False, None
        self.clock_ms = now_ms
        self.rows.append((one, now_ms, place))
        return True, place


_LOG = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.one_of(st.integers(0, 30), st.integers(0, 30), st.integers(-250, 250)),  # ms since the record before
        st.sampled_from([False, False, False, True]),
    ),
    max_size=60,
)
_STEPS = st.lists(st.sampled_from(["batch", "batch", "checkpoint", "lost checkpoint", "crash"]), max_size=40)


@settings(max_examples=300, deadline=None)
@given(_LOG, _STEPS, st.data())
@example([(1, 0, False), (2, 101, False), (1, 0, False)], ["batch"], None)
def test_answers_are_those_of_the_log_alone(
    log: list[tuple[int, int, bool]], steps: list[str], data: st.DataObject | None
) -> None:
    """Any split into batches, checkpoints anywhere, crashes between export and acknowledgement: the same answers."""
    times_ms = (10_000 + np.cumsum([0, *(gap_ms for _, gap_ms, _ in log)])[1:]).tolist()
    oracle = _Oracle()
    expected = [
        oracle.see(one, at_ms, retry=retry, place=place)
        for place, ((one, _, retry), at_ms) in enumerate(zip(log, times_ms, strict=True))
    ]
    memory, changelog, saved, at = _memory(), dict[int, bytes | None](), 0, 0
    for step in [*steps, "crash", "batch"]:
        if step == "batch":
            end = len(log) if data is None else data.draw(st.integers(at, len(log)))
            assert _answers(memory, log, times_ms, at, end) == expected[at:end]
            at = end
        elif step == "checkpoint":
            written, removed = memory.close_segment()
            changelog.update(written)
            changelog.update(dict.fromkeys(removed))
            saved = at
        elif step == "lost checkpoint":
            memory.close_segment()
            memory, at = _restored(changelog), saved
        else:
            memory, at = _restored(changelog), saved
    held = [number for number, content in changelog.items() if content is not None]
    assert held == sorted(held)


def _answers(
    memory: IdMemory, log: Sequence[tuple[int, int, bool]], times_ms: Sequence[int], begin: int, end: int
) -> list[tuple[bool, int | None]]:
    """Apply a batch as stage 2 does; a row's digest says where in the log it lies."""
    rows = np.zeros(end - begin, DTYPE)
    rows["id"] = [_name(one) for one, _, _ in log[begin:end]]
    rows["timestamp"], rows["digest"] = times_ms[begin:end], range(begin, end)
    retries = np.array([retry for _, _, retry in log[begin:end]], np.bool_)
    first, positions = memory.first_occurrences(rows["id"].tolist(), rows["timestamp"], retries)
    memory.append(rows[first])
    places = iter(memory.rows(positions[positions >= 0])["digest"].tolist())
    return [(bool(new), next(places) if at >= 0 else None) for new, at in zip(first, positions, strict=True)]


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

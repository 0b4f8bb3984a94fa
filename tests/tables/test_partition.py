"""One partition's state: positions, repeats, checkpoints and what comes back from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain.records import GapError, Stretch
from tables.ids import IdMemory
from tables.layout import EVENT_DTYPE
from tables.partition import POSITION_KEY, PROFILE_KEY_BYTES, PartitionState
from tables.profiles import Profiles

TOPIC = "pix-transactions"
T0_MS = 1_767_225_600_000
SEEN_DTYPE = np.dtype([("id", "S32"), ("timestamp", "i8")])


def _state() -> PartitionState:
    memories = {name: IdMemory(SEEN_DTYPE, 3_600_000, 1000) for name in ("payments", "markers")}
    return PartitionState(Profiles("receiver"), memories)


def _stretch(base: int, next_offset: int, offsets: Sequence[int] | None = None) -> Stretch:
    """Records at these offsets, all from `base` on by default."""
    offsets = list(range(base, next_offset)) if offsets is None else offsets
    return Stretch(
        base,
        next_offset,
        [b"k%d" % offset for offset in offsets],
        [b"v%d" % offset for offset in offsets],
        offsets,
        [T0_MS + offset for offset in offsets],
    )


def _pay(state: PartitionState, *keys: int, at_ms: int = T0_MS) -> NDArray[np.float32]:
    events = np.zeros(len(keys), EVENT_DTYPE)
    events["key"], events["other"], events["amount"], events["timestamp"] = keys, 9, 100, at_ms
    events["counts"] = events["wants_features"] = 1
    return state.profiles.update(events)


def _remember(state: PartitionState, name: str, *ids: bytes, at_ms: int = T0_MS) -> list[bool]:
    """Take up ids, and tell which are first occurrences."""
    rows = np.zeros(len(ids), SEEN_DTYPE)
    rows["id"], rows["timestamp"] = ids, at_ms
    first, _ = state.memories[name].first_occurrences(list(ids), rows["timestamp"])
    state.memories[name].append(rows[first])
    return [bool(one) for one in first]


def _recovered(*checkpoints: tuple[list[bytes], list[bytes | None]]) -> PartitionState:
    state = _state()
    for keys, values in checkpoints:
        state.restore(keys, values)
    state.finish_restore()
    return state


class TestAccept:
    """What of a batch is new."""

    def test_a_new_state_begins_where_the_log_does(self) -> None:
        """Retention may have removed the first records."""
        state = _state()
        assert state.next_offset(TOPIC) is None
        assert state.accept(TOPIC, _stretch(500, 510)) == _stretch(500, 510)
        assert state.next_offsets() == {TOPIC: 510}

    def test_records_that_follow_are_taken_whole(self) -> None:
        """The batch itself is handed back, not a copy."""
        state = _state()
        state.accept(TOPIC, _stretch(0, 10))
        batch = _stretch(10, 20)
        assert state.accept(TOPIC, batch) is batch

    def test_known_records_are_left_out(self) -> None:
        """A batch that reaches across the position is trimmed; one below it is none, and moves nothing."""
        state = _state()
        state.accept(TOPIC, _stretch(0, 10))
        assert state.accept(TOPIC, _stretch(3, 10)) is None
        assert state.accept(TOPIC, _stretch(0, 4)) is None
        assert state.accept(TOPIC, _stretch(5, 15)) == _stretch(10, 15)
        assert state.next_offset(TOPIC) == 15

    def test_a_gap_stops_the_worker(self) -> None:
        """And leaves the position where it was."""
        state = _state()
        state.accept(TOPIC, _stretch(0, 10))
        with pytest.raises(GapError, match=r"pix-transactions: expected offset 10, got 11"):
            state.accept(TOPIC, _stretch(11, 20))
        assert state.next_offset(TOPIC) == 10

    def test_holes_inside_a_batch_are_no_gap(self) -> None:
        """Control records and compaction leave some, at a batch's ends too."""
        state = _state()
        state.accept(TOPIC, _stretch(0, 10, [2, 7]))
        assert state.accept(TOPIC, _stretch(4, 20, [7, 12, 18])) == _stretch(10, 20, [12, 18])
        assert state.accept(TOPIC, _stretch(20, 25, [])) == _stretch(20, 25, [])
        assert state.accept(TOPIC, _stretch(25, 26)) == _stretch(25, 26)

    def test_topics_have_positions_of_their_own(self) -> None:
        """Transactions and markers of one partition are read side by side."""
        state = _state()
        state.accept(TOPIC, _stretch(0, 10))
        state.accept("pix-markers", _stretch(70, 80))
        assert state.next_offsets() == {TOPIC: 10, "pix-markers": 80}

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 50), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=20))
    def test_each_record_is_taken_once_and_in_order(self, start: int, fetches: list[tuple[int, int]]) -> None:
        """Whatever is fetched again after crashes, no record is taken twice or left out."""
        state = _state()
        taken: list[int] = []
        for base, length in [(start, 0), *fetches]:
            position = start + len(taken)
            batch = _stretch(base, base + length)
            if base > position:
                with pytest.raises(GapError):
                    state.accept(TOPIC, batch)
            else:
                fresh = state.accept(TOPIC, batch)
                taken += [] if fresh is None else fresh.offsets
            assert taken == list(range(start, start + len(taken)))
            assert state.next_offset(TOPIC) == start + len(taken)


class TestFirstSightings:
    """Repeats from upstream."""

    @staticmethod
    def _new(state: PartitionState, partition: int, *sequences: list[int]) -> list[list[bool]]:
        pairs = [(np.full(len(some), partition, np.int32), np.array(some, np.int64)) for some in sequences]
        return [mask.tolist() for mask in state.first_sightings(TOPIC, *pairs)]

    def test_repeats_are_told_from_new_rows(self) -> None:
        """A message that was cut otherwise after an upstream crash brings both."""
        state = _state()
        assert self._new(state, 0, [0, 4, 6]) == [[True, True, True]]
        assert self._new(state, 0, [4, 6, 8]) == [[False, False, True]]

    def test_arrays_of_one_message_are_seen_together(self) -> None:
        """A debit does not make the credit notices before it old."""
        state = _state()
        assert self._new(state, 0, [10, 20], [5, 25]) == [[True, True], [True, True]]
        assert self._new(state, 0, [22], [24, 26]) == [[False], [False, True]]

    def test_partitions_are_apart(self) -> None:
        """Each upstream partition counts for itself."""
        state = _state()
        self._new(state, 0, [100])
        assert self._new(state, 1, [50]) == [[True]]

    def test_empty_arrays_change_nothing(self) -> None:
        """A message may have debits alone, credits alone, or neither."""
        state = _state()
        self._new(state, 0, [7])
        assert self._new(state, 0, [], []) == [[], []]
        assert self._new(state, 0, [], [7, 8]) == [[], [False, True]]


class TestCheckpoint:
    """Export and restore."""

    def test_all_comes_back(self) -> None:
        """Profiles, ids, control rows, positions and what was seen of upstream."""
        state = _state()
        state.accept(TOPIC, _stretch(0, 10))
        state.first_sightings("pix-markers", (np.array([3], np.int32), np.array([41], np.int64)))
        _pay(state, 1, 2)
        _remember(state, "payments", b"E1", b"E2")
        _remember(state, "markers", b"M1")
        state.set_control("rules", b"pack")
        back = _recovered(state.export())
        assert back.next_offsets() == {TOPIC: 10}
        again = np.array([3, 3, 1], np.int32), np.array([41, 42, 0], np.int64)
        assert back.first_sightings("pix-markers", again)[0].tolist() == [False, True, True]
        assert _remember(back, "payments", b"E1", b"E2", b"M1") == [False, False, True]
        assert _remember(back, "markers", b"E1", b"M1") == [True, False]
        assert back.control("rules") == b"pack"
        assert back.control("lists") is None
        assert _pay(back, 1, 2, 3).tobytes() == _pay(state, 1, 2, 3).tobytes()

    def test_the_position_comes_last(self) -> None:
        """Whoever has read it has read all that it stands for."""
        state = _state()
        _pay(state, 1)
        _remember(state, "payments", b"E1")
        state.set_control("rules", b"pack")
        keys, values = state.export()
        assert keys[-1] == POSITION_KEY
        assert len(keys) == len(values) == 4

    def test_only_changes_are_written(self) -> None:
        """An unchanged control row, an old profile and old ids are not written again."""
        state = _state()
        _pay(state, 1)
        _remember(state, "payments", b"E1")
        state.set_control("rules", b"pack")
        first = state.export()
        state.acknowledged()
        state.set_control("rules", b"pack")
        assert state.export()[0] == [POSITION_KEY]
        _pay(state, 2)
        state.set_control("rules", b"other")
        later = state.export()
        assert later[0] == [(2).to_bytes(8, "little"), b"\0control/rules", POSITION_KEY]
        back = _recovered(first, later)
        assert back.control("rules") == b"other"
        assert len(back.profiles) == 2

    def test_rows_may_leave_memory_once_acknowledged(self) -> None:
        """Not before: the changelog may lack them."""
        state = _state()
        _pay(state, 1)
        state.export()
        assert state.profiles.evict(2**62) == ([], [])
        state.acknowledged()
        assert state.profiles.evict(2**62)[0] == [(1).to_bytes(8, "little")]

    def test_a_hash_that_looks_like_a_control_key_is_a_profile(self) -> None:
        """Its first byte may be NUL; what tells is the length."""
        state = _state()
        hash_value = int.from_bytes(b"\0ids/pay", "little")
        _pay(state, hash_value)
        keys, values = state.export()
        assert keys[0] == b"\0ids/pay"
        assert len(_recovered((keys, values)).profiles) == 1

    def test_control_keys_are_no_profile_keys(self) -> None:
        """Every control row of the stages has another length than a hash."""
        state = _state()
        for name in state.memories:
            _remember(state, name, b"E1")
        for name in ("rules", "lists", "pack/0123456789abcdef"):
            state.set_control(name, b"content")
        keys, _ = state.export()
        assert len(keys) == 6
        assert not [key for key in keys if len(key) == PROFILE_KEY_BYTES]

    def test_removed_id_segments_are_removed_from_the_log(self) -> None:
        """A tombstone lets compaction drop them, and recovery forget them."""
        state = _state()
        logs = []
        for hour in range(3):
            _remember(state, "payments", b"E%d" % hour, at_ms=T0_MS + hour * 4_000_000)
            logs.append(state.export())
        keys, values = logs[-1]
        assert dict(zip(keys, values, strict=True))[b"\0ids/payments/1"] is None
        assert _remember(_recovered(*logs), "payments", b"E0", b"E1", b"E2", at_ms=0) == [True, True, False]

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (None, b"value"),
            (b"\0other", b"value"),
            (b"name", b"value"),
            (b"12345678", None),
            (POSITION_KEY, None),
            (b"\0control/rules", None),
            (b"\0ids/strangers/0", b""),
        ],
    )
    def test_unknown_rows_are_an_error(self, key: bytes | None, value: bytes | None) -> None:
        """Another version wrote them: state that is not understood must not be used."""
        with pytest.raises(ValueError, match="changelog: "):
            _state().restore([key], [value])

    @pytest.mark.parametrize("keys", [[b"12345678"], [b"12345678"] * 3])
    def test_keys_without_values_are_an_error(self, keys: list[bytes | None]) -> None:
        """One key must not stand for several rows."""
        with pytest.raises(ValueError, match="changelog: expected a value for each of"):
            _state().restore(keys, [b"", b""])


_WORK = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.lists(st.integers(1, 5), max_size=4)),
        st.tuples(st.just("checkpoint"), st.just([])),
        st.tuples(st.just("crash"), st.just([])),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=_WORK, compacts=st.booleans())
def test_crashes_change_nothing(steps: list[tuple[str, list[int]]], *, compacts: bool) -> None:
    """A run that crashes and replays, from a log that compaction may have touched, ends as one that never crashed."""
    whole, crashing = _state(), _state()
    log: list[tuple[bytes, bytes | None]] = []
    source: list[list[int]] = []
    for action, keys in steps:
        if action == "batch":
            source.append(keys)
            assert _apply(crashing, source, len(source) - 1) == _apply(whole, source, len(source) - 1)
        elif action == "checkpoint":
            log += zip(*crashing.export(), strict=True)
            crashing.acknowledged()
        else:
            log = _compacted(log) if compacts else log
            crashing = _recovered(([key for key, _ in log], [value for _, value in log]))
            for offset in range(crashing.next_offset(TOPIC) or 0, len(source)):
                _apply(crashing, source, offset)
    assert crashing.next_offsets() == whole.next_offsets()
    ids = [b"E%d" % number for number in range(6)]
    for name in whole.memories:
        assert _remember(crashing, name, *ids) == _remember(whole, name, *ids)
    assert _pay(crashing, 1, 2, 3, 4, 5).tobytes() == _pay(whole, 1, 2, 3, 4, 5).tobytes()


def _compacted(log: list[tuple[bytes, bytes | None]]) -> list[tuple[bytes, bytes | None]]:
    """The last row of each key, in log order."""
    last = {key: place for place, (key, _) in enumerate(log)}
    return [log[place] for place in sorted(last.values())]


def _apply(state: PartitionState, source: list[list[int]], offset: int) -> bytes:
    """Apply the batch at an offset as a stage does: position, then ids, then profiles."""
    assert state.accept(TOPIC, _stretch(offset, offset + 1)) is not None
    first = _remember(state, "payments", *(b"E%d" % key for key in source[offset]))
    return _pay(state, *source[offset], at_ms=T0_MS + offset * 1000).tobytes() + bytes(first)

"""Rows that leave memory come back as they were."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tables.catalog import CATALOG, Catalog, Levels
from tables.cold import EXPIRE_MOST, ColdStore, ColdStoreError, expire
from tables.layout import EVENT_DTYPE, FRAUD_TYPES, LOGS
from tables.profiles import Profiles

T0_MS = 1_767_225_600_000

FOREVER_MS = 2**62

FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from tables.cold import ColdStore

resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))  # the system refuses longer files
store = ColdStore(Path(sys.argv[1]))
for first in range(1, 100_000, 1000):
    keys = [number.to_bytes(8, "little") for number in range(first, first + 1000)]
    store.put(keys, [key * 200 for key in keys])
"""


def _hashes(*keys: int) -> NDArray[np.uint64]:
    return np.array(keys, np.uint64)


def _key(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _events(key: int, at_ms: int = T0_MS) -> NDArray[np.void]:
    events = np.zeros(1, EVENT_DTYPE)
    events["key"], events["other"], events["amount"], events["timestamp"] = key, 99, 100, at_ms
    events["counts"] = events["wants_features"] = 1
    return events


def _checkpoint(profiles: Profiles) -> None:
    profiles.export_dirty()
    profiles.clear_dirty()


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[ColdStore]:
    """An open store."""
    store = ColdStore(tmp_path / "cold")
    yield store
    store.close()


class TestColdStore:
    """One store."""

    def test_a_row_comes_back_once(self, cold: ColdStore) -> None:
        """A row is handed over, so a second load cannot bring a stale one."""
        cold.put([_key(7), _key(8)], [b"seven", b"eight"])
        assert cold.load(_hashes(7, 9)) == {7: b"seven"}
        assert cold.load(_hashes(7)) == {}
        assert len(cold) == 1

    def test_a_later_put_replaces(self, cold: ColdStore) -> None:
        """What left memory last is what comes back."""
        cold.put([_key(7)], [b"old"])
        cold.put([_key(7)], [b"new"])
        assert len(cold) == 1
        assert cold.load(_hashes(7)) == {7: b"new"}

    def test_discarded_rows_never_return(self, cold: ColdStore) -> None:
        """A row whose newer state came to memory otherwise is forgotten."""
        cold.put([_key(7), _key(8)], [b"seven", b"eight"])
        cold.discard(_hashes(7, 1000))
        assert len(cold) == 1
        assert cold.load(_hashes(7, 8)) == {8: b"eight"}

    def test_unknown_keys_do_not_reach_the_disk(self, cold: ColdStore) -> None:
        """With the database shut, an unknown key is still answered, and a held one is not."""
        cold.put([_key(7)], [b"seven"])
        cold._db.close()
        assert cold.load(_hashes(1, 2, 3)) == {}
        with pytest.raises(ColdStoreError, match="cannot read 1 rows from"):
            cold.load(_hashes(7))

    def test_opens_empty(self, tmp_path: Path) -> None:
        """Rows of a process that was killed are older than the changelog: they are gone."""
        left = ColdStore(tmp_path / "cold")
        left.put([_key(7)], [b"seven"])
        left._db.flush()
        left._db.close()  # as a kill leaves it: files, no lock
        reopened = ColdStore(tmp_path / "cold")
        assert len(reopened) == 0
        assert reopened.load(_hashes(7)) == {}
        reopened.put([_key(8)], [b"eight"])
        assert reopened._db.get(_key(7)) is None
        reopened.close()

    def test_refuses_a_folder_in_use(self, cold: ColdStore) -> None:
        """A second worker under one name must not wipe the rows of the first."""
        cold.put([_key(7)], [b"seven"])
        with pytest.raises(ColdStoreError, match="a name of its own"):
            ColdStore(cold.path)
        assert cold.load(_hashes(7)) == {7: b"seven"}

    def test_an_unwritable_path_is_a_clear_error(self, tmp_path: Path) -> None:
        """The error names the folder."""
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(ColdStoreError, match=r"cannot open .*file"):
            ColdStore(tmp_path / "file")

    def test_close_removes_the_files(self, tmp_path: Path) -> None:
        """A partition that went elsewhere leaves nothing; closing twice is allowed, use after it is an error."""
        store = ColdStore(tmp_path / "cold")
        store.put([_key(7)], [b"seven"])
        store.close()
        store.close()
        assert not (tmp_path / "cold").exists()
        with pytest.raises(ColdStoreError, match="cannot write 1 rows"):
            store.put([_key(8)], [b"eight"])

    def test_nbytes_grows_with_what_is_flushed(self, cold: ColdStore) -> None:
        """The figure for the metrics follows the files."""
        before = cold.nbytes
        rows = np.random.default_rng(1).bytes(1 << 20)
        cold.put([_key(number) for number in range(1, 1025)], [rows[at : at + 1024] for at in range(0, 1 << 20, 1024)])
        cold._db.flush()
        assert cold.nbytes - before > 1 << 19

    @pytest.mark.parametrize("key", [b"short", b"\0" * 8, b"123456789"])
    def test_refuses_what_is_no_key(self, cold: ColdStore, key: bytes) -> None:
        """Hash 0 stands for a missing identifier, and has no row."""
        with pytest.raises(ValueError, match="expected 8 bytes each"):
            cold.put([_key(1), key], [b"", b""])
        assert len(cold) == 0

    def test_puts_of_many_rows_are_split(self, cold: ColdStore) -> None:
        """More rows than one write takes all come back."""
        numbers = range(1, 10_001)
        cold.put([_key(number) for number in numbers], [b"%d" % number for number in numbers])
        assert cold.load(np.arange(1, 10_001, dtype=np.uint64)) == {number: b"%d" % number for number in numbers}

    def test_a_row_that_the_disk_lost_is_an_error(self, cold: ColdStore) -> None:
        """It must not look like a new key: its history would be forgotten."""
        cold.put([_key(7)], [b"seven"])
        cold._db.delete(_key(7))
        with pytest.raises(ColdStoreError, match="expected row 0000000000000007"):
            cold.load(_hashes(7))

    def test_a_full_disk_is_a_clear_error(self, tmp_path: Path) -> None:
        """A write that the system refuses ends in an error that says what to do, not in lost rows."""
        done = subprocess.run(
            [sys.executable, "-c", FILL_THE_DISK, str(tmp_path / "cold")],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 1
        assert "ColdStoreError: cannot write 1000 rows to" in done.stderr
        assert "Give the disk room" in done.stderr


# Keys that share their low bits make long chains in the set of held keys, across its end too.
_NUMBERS = st.one_of(
    st.integers(1, 6), st.builds(lambda high, low: high << 32 | low, st.integers(1, 8), st.sampled_from([1022, 1023]))
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "load", "discard"]), st.sets(_NUMBERS, min_size=1)), max_size=20),
)
def test_behaves_like_a_dict(steps: list[tuple[str, set[int]]]) -> None:
    """Whatever the order of puts, loads and discards, the store holds what a dict would."""
    expected: dict[int, bytes] = {}
    with TemporaryDirectory() as folder:
        store = ColdStore(Path(folder) / "cold")
        for place, (action, numbers) in enumerate(steps):
            if action == "put":
                store.put([_key(number) for number in numbers], [b"%d" % place] * len(numbers))
                expected.update(dict.fromkeys(numbers, b"%d" % place))
            elif action == "load":
                found = {number: expected.pop(number) for number in numbers if number in expected}
                assert store.load(_hashes(*numbers)) == found
            else:
                store.discard(_hashes(*numbers))
                for number in numbers:
                    expected.pop(number, None)
            assert len(store) == len(expected)
        assert store.load(_hashes(*expected, 12345)) == expected
        store.close()


def _filled(cold: ColdStore, count: int, step_ms: int = 1000) -> Profiles:
    """Profiles of keys 1 to `count`, each touched `step_ms` after the one before, all in the changelog."""
    profiles = Profiles("receiver", cold=cold)
    events = np.zeros(count, EVENT_DTYPE)
    events["key"] = np.arange(1, count + 1)
    events["timestamp"] = T0_MS + step_ms * np.arange(count)
    events["other"], events["amount"], events["counts"] = 99, 100, 1
    profiles.update(events)
    _checkpoint(profiles)
    return profiles


def _held(cold: ColdStore, count: int) -> list[int]:
    numbers = np.arange(1, count + 1, dtype=np.uint64)
    return [int(number) for number in numbers[cold._held.contains(numbers)]]


class TestExpire:
    """The policy."""

    def test_nothing_leaves_below_the_bound(self, cold: ColdStore) -> None:
        """Idle rows stay while there is room: each return would cost a read."""
        profiles = _filled(cold, 10)
        assert expire(profiles, cold, idle_before_ms=FOREVER_MS, max_active=10) == 0
        assert len(cold) == 0

    def test_the_idlest_leave_until_the_bound_is_met(self, cold: ColdStore) -> None:
        """Keys 1 to 3 were touched longest ago."""
        profiles = _filled(cold, 10)
        assert expire(profiles, cold, idle_before_ms=FOREVER_MS, max_active=9) == 1
        assert _held(cold, 10) == [1]
        assert expire(profiles, cold, idle_before_ms=FOREVER_MS, max_active=8) == 1
        assert _held(cold, 10) == [1, 2]
        assert len(profiles) == 8

    def test_rows_in_use_stay_up_to_a_quarter_more(self, cold: ColdStore) -> None:
        """Ten rows of eight, none idle but key 1: it alone leaves."""
        profiles = _filled(cold, 10)
        assert expire(profiles, cold, idle_before_ms=T0_MS + 1, max_active=8) == 1
        assert expire(profiles, cold, idle_before_ms=T0_MS + 1, max_active=8) == 0
        assert _held(cold, 10) == [1]

    def test_memory_has_a_bound_even_where_nothing_is_idle(self, cold: ColdStore) -> None:
        """Past a quarter more, the idlest leave although they are in use."""
        profiles = _filled(cold, 20)
        assert expire(profiles, cold, idle_before_ms=0, max_active=8) == 10
        assert _held(cold, 20) == list(range(1, 11))
        assert expire(profiles, cold, idle_before_ms=0, max_active=8) == 0

    def test_one_call_moves_a_bounded_number(self, cold: ColdStore) -> None:
        """The loop is held for a few milliseconds; further calls move the rest, idlest first."""
        profiles = _filled(cold, 20)
        moved = [expire(profiles, cold, idle_before_ms=FOREVER_MS, max_active=4, most=7) for _ in range(4)]
        assert moved == [7, 7, 2, 0]
        assert _held(cold, 20) == list(range(1, 17))

    def test_rows_that_the_changelog_lacks_stay(self, cold: ColdStore) -> None:
        """A row that changed since its checkpoint, or whose checkpoint is not acknowledged, cannot be recovered."""
        profiles = _filled(cold, 10)
        profiles.update(_events(3, T0_MS + 2000))
        profiles.export_dirty()
        profiles.update(_events(5, T0_MS + 4000))
        assert expire(profiles, cold, idle_before_ms=FOREVER_MS, max_active=0) == 8
        assert 3 not in _held(cold, 10)
        assert 5 not in _held(cold, 10)

    def test_a_row_that_came_back_leaves_with_its_newer_state(self, cold: ColdStore) -> None:
        """Out, back, changed, out, back: the second return brings the change."""
        profiles = _filled(cold, 1)
        count = CATALOG.positions("receiver")["receiver_received_count_24h"]
        seen = []
        for minute in range(1, 4):
            assert expire(profiles, cold, idle_before_ms=FOREVER_MS, max_active=0, most=EXPIRE_MOST) == 1
            assert (len(profiles), len(cold)) == (0, 1)
            seen.append(float(profiles.update(_events(1, T0_MS + minute * 60_000))[0, count]))
            assert (len(profiles), len(cold)) == (1, 0)
            _checkpoint(profiles)
        assert seen == [1, 2, 3]

    def test_a_row_that_a_changelog_brings_is_not_held_twice(self, cold: ColdStore) -> None:
        """A standby's row is in memory with its newer state, and what the store had of it is gone."""
        profiles = _filled(cold, 2)
        keys, values = profiles.evict(FOREVER_MS)
        cold.put(keys, values)
        profiles.restore(keys[:1] * 2, values[:1] * 2)
        assert (len(profiles), len(cold)) == (1, 1)
        assert not cold.load(np.frombuffer(keys[0], np.uint64))


_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("update"),
            st.lists(
                st.tuples(
                    st.integers(1, 6),  # key
                    st.integers(1, 4),  # counterparty
                    st.integers(0, 3),  # device
                    st.integers(1, 10**13),
                    st.integers(-3_600_000, 40 * 86_400_000),  # time since the last step, late too
                    st.integers(0, 1),  # log
                ),
                min_size=1,
                max_size=12,
            ),
        ),
        st.tuples(
            st.just("mark"), st.tuples(st.integers(1, 7), st.sampled_from(FRAUD_TYPES), st.sampled_from((1, -1)))
        ),
        st.tuples(st.just("query"), st.integers(1, 7)),
        st.tuples(st.just("export"), st.none()),
        st.tuples(st.just("acknowledge"), st.none()),
        st.tuples(st.just("expire"), st.tuples(st.integers(0, 4), st.integers(1, 5), st.booleans())),
    ),
    max_size=30,
)


def _drawn_events(drawn: list[tuple[int, ...]], now_ms: int, stage: str) -> NDArray[np.void]:
    events = np.zeros(len(drawn), EVENT_DTYPE)
    for event, (key, other, device, amount, gap_ms, log) in zip(events, drawn, strict=True):
        event["key"], event["other"], event["device"], event["amount"] = key << 40 | key, other, device, amount
        event["timestamp"], event["log"] = now_ms + gap_ms // len(drawn), log % len(LOGS[stage])
    events["counts"] = events["wants_features"] = 1
    return events


def _act(profiles: Profiles, action: str, argument: object, now_ms: int) -> object:
    """Take one step, and return all that it shows."""
    match action, argument:
        case "update", list(drawn):
            return profiles.update(_drawn_events(drawn, now_ms, profiles.stage)).tobytes()
        case "mark", (int(number), str(fraud_type), int(delta)):
            profiles.mark(_hashes(number << 40 | number), fraud_type, delta, np.array([now_ms]))
        case "query", int(number):
            return repr(profiles.query(number << 40 | number, now_ms, other=1, device=1, amount=100))
        case "export", _:
            profiles.export_dirty()
        case "acknowledge", _:
            profiles.clear_dirty()
    return None


@pytest.mark.parametrize("stage", LOGS)
@pytest.mark.parametrize("catalog", [CATALOG, Catalog(levels=Levels(1, 2, 1, 1))], ids=["shipped", "tiny"])
@settings(max_examples=40, deadline=None)
@given(steps=_STEPS)
def test_expiry_changes_nothing(catalog: Catalog, stage: str, steps: list[tuple[str, object]]) -> None:
    """Features, answers and rows are bit-identical to a run whose rows never left, whatever leaves and returns when."""
    with TemporaryDirectory() as folder:
        cold = ColdStore(Path(folder) / "cold")
        expiring, whole = Profiles(stage, catalog, cold), Profiles(stage, catalog)
        now_ms = T0_MS
        for action, argument in steps:
            if isinstance(argument, tuple) and action == "expire":
                max_active, most, everything = argument
                idle_before_ms = FOREVER_MS if everything else now_ms - 86_400_000
                expire(expiring, cold, idle_before_ms=idle_before_ms, max_active=max_active, most=most)
            else:
                assert _act(expiring, action, argument, now_ms) == _act(whole, action, argument, now_ms)
            if isinstance(argument, list):
                now_ms += sum(drawn[4] for drawn in argument) // len(argument)
            assert len(expiring) + len(cold) == len(whole)
        for number in range(1, 8):  # bring everything back
            expiring.query(number << 40 | number, now_ms)
        cold.close()
    assert _rows(expiring) == _rows(whole)


def _rows(profiles: Profiles) -> dict[bytes, bytes]:
    return dict(zip(*profiles._export(np.flatnonzero(profiles._state.headers["hash"])), strict=True))

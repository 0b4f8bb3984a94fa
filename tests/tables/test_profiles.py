"""Rows come and go: export, recovery, expiry to cold storage and back, memory given back, damage found."""

from __future__ import annotations

import hashlib
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tables
from tables import kernel
from tables import profiles as profiles_module
from tables.catalog import CATALOG, Catalog, Levels
from tables.kernel_blobs import PROBLEMS
from tables.layout import EVENT_DTYPE
from tables.profiles import BlobError, Profiles

if TYPE_CHECKING:
    from tables.layout import Array

START_MS = 1_773_526_380_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STATM = Path("/proc/self/statm")


def make_events(keys: Array | list[int], times_ms: Array | int = START_MS, others: Array | int = 2) -> Array:
    """Return events that want features and count."""
    events = np.zeros(len(keys), EVENT_DTYPE)
    events["key"], events["timestamp"], events["other"], events["device"] = keys, times_ms, others, 5
    events["amount"] = 100 + np.arange(len(keys))
    events["wants_features"] = events["counts"] = 1
    return events


def random_events(n: int, keys: int, seed: int = 1) -> Array:
    """Return a busy stream over some keys."""
    rng = np.random.default_rng(seed)
    events = make_events(rng.integers(1, keys + 1, n), START_MS + np.cumsum(rng.integers(0, HOUR_MS, n)))
    events["other"] = rng.integers(1, 300, n)
    events["log"] = rng.integers(0, 2, n)
    return events


class Shelf(dict[int, bytes]):
    """Cold rows in a dict: what it hands over leaves it."""

    asked = 0

    def load(self, hashes: Array) -> dict[int, bytes]:
        """Hand over the rows that are held."""
        self.asked += 1
        return {key: self.pop(key) for key in hashes.tolist() if key in self}

    def discard(self, hashes: Array) -> None:
        """Forget rows."""
        for key in hashes.tolist():
            self.pop(key, None)

    def put(self, keys: list[bytes], values: list[bytes]) -> None:
        """Take rows."""
        self.update({int.from_bytes(key, "little"): value for key, value in zip(keys, values, strict=True)})


def test_changed_rows_are_exported_in_the_order_in_which_they_changed() -> None:
    """A limit takes the first ones; each row once; what changes after its export is dirty again."""
    profiles = Profiles("payer")
    profiles.update(make_events([3, 1, 2, 3, 1]))
    assert profiles.dirty == 3
    first, _ = profiles.export_dirty(limit=2)
    assert [int.from_bytes(key, "little") for key in first] == [3, 1]
    profiles.update(make_events([1]))
    profiles.clear_dirty()
    rest, _ = profiles.export_dirty()
    assert [int.from_bytes(key, "little") for key in rest] == [2, 1]
    profiles.clear_dirty()
    assert profiles.export_dirty() == ([], [])


def test_only_events_that_count_change_rows() -> None:
    """A question asked of a key leaves no trace, a refund reads nothing."""
    profiles = Profiles("payer")
    events = make_events([1, 2])
    events["counts"] = 0
    events["wants_features"][1] = 0
    found = profiles.update(events)
    assert found[0, CATALOG.positions("payer")["payer_sent_count_30d"]] == 0
    assert np.isnan(found[1]).all()
    assert (len(profiles), profiles.dirty) == (0, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), keep=st.integers(0, 20), every=st.integers(1, 40))
def test_rows_that_leave_memory_come_back_as_they_were(seed: int, keep: int, every: int) -> None:
    """Features and rows are bit-identical, whatever leaves for cold storage and when."""
    events = random_events(600, 30, seed)
    warm, shelf = Profiles("payer"), Shelf()
    tight = Profiles("payer", cold=shelf)
    parts = []
    for part in np.split(events, range(every, len(events), every)):
        parts.append(tight.update(part))
        tight.export_dirty()
        tight.clear_dirty()
        shelf.put(*tight.evict(idle_before_ms=int(part["timestamp"][0]), keep=keep))
    assert np.concatenate(parts).tobytes() == warm.update(events).tobytes()
    shelf.put(*tight.evict(2**62))
    expected = {int.from_bytes(key, "little"): value for key, value in zip(*warm.export_dirty(), strict=True)}
    assert dict(shelf) == expected


def test_only_clean_idle_rows_leave_and_the_idlest_first() -> None:
    """A dirty row stays whatever its age; `keep` rows stay."""
    profiles = Profiles("payer")
    profiles.update(make_events([1, 2, 3, 4], START_MS + np.array([3, 1, 2, 9]) * HOUR_MS))
    assert profiles.evict(2**62) == ([], [])
    profiles.export_dirty()
    profiles.clear_dirty()
    keys, _ = profiles.evict(START_MS + 5 * HOUR_MS, keep=2)
    assert [int.from_bytes(key, "little") for key in keys] == [2, 3]
    assert len(profiles) == 2


def test_an_eviction_looks_at_a_part_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of 35 slots a call, on from where the last one ended and round again: its time has a bound."""
    monkeypatch.setattr(profiles_module, "EVICTION_SLOTS", 10)
    profiles = Profiles("payer")
    profiles.update(make_events(np.arange(1, 36), START_MS + np.arange(35)[::-1] * HOUR_MS))
    profiles.export_dirty()
    profiles.clear_dirty()
    left = []
    for keep in (33, 0, 0, 0, 5):
        keys, _ = profiles.evict(2**62, keep)
        left.append([int.from_bytes(key, "little") for key in keys])
    tens = [list(range(first + 9, first - 1, -1)) for first in (11, 21)]
    assert left == [[10, 9], *tens, [35, 34, 33, 32, 31], [8, 7, 6]]
    assert len(profiles) == 5


def test_memory_given_back_is_used_again() -> None:
    """Ten times as many keys come and go: the pools do not grow beyond what one round takes."""
    profiles, sizes = Profiles("payer"), []
    for part in range(10):
        events = random_events(3000, 40, seed=5)  # the same histories, under other keys
        events["key"] += np.uint64(1000 * part)
        profiles.update(events)
        profiles.export_dirty()
        profiles.clear_dirty()
        profiles.evict(2**62)
        assert len(profiles) == 0
        sizes.append((profiles._state.tops.tolist(), int(profiles._state.counts[0])))
    assert sizes[1:] == sizes[:-1]


def test_growing_changes_nothing() -> None:
    """Features are the same whether rows and pools were copied to grow or had address space; then none moves."""
    events = random_events(20_000, 5000)
    small, large = Profiles("payer", reserve=2), Profiles("payer")
    rows, cells = large._state.rows, large._state.cells
    for part in np.split(events, [5, 100, 3000, 3001]):
        assert small.update(part).tobytes() == large.update(part).tobytes()
    assert len(small) == len(large) == len(np.unique(events["key"]))
    assert small.nbytes < 64 << 20
    assert large._state.rows is rows
    assert large._state.cells is cells


@pytest.mark.skipif(not STATM.exists(), reason="where Linux tells how much address space is in use")
def test_a_system_that_grants_no_address_space_is_enough() -> None:
    """A bound on virtual memory, as some hosts set: arrays grow by copying."""
    bounds = resource.getrlimit(resource.RLIMIT_AS)
    used = int(STATM.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), bounds[1]))
    try:
        profiles = Profiles("payer")
        assert len(profiles._state.rows) == 2
        profiles.update(make_events(np.arange(1, 5001)))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, bounds)
    assert len(profiles) == 5000


def test_a_later_blob_of_a_key_replaces_an_earlier_one() -> None:
    """As in a changelog that was not compacted."""
    profiles = Profiles("payer")
    profiles.update(make_events([1]))
    old = profiles.export_dirty()
    profiles.update(make_events([1, 1]))
    new = profiles.export_dirty()
    restored = Profiles("payer")
    restored.restore([*old[0], *new[0]], [*old[1], *new[1]])
    assert len(restored) == 1
    found = restored.query(1, START_MS)
    assert found is not None
    assert found["payer_sent_count_1h"] == 3
    assert restored.dirty == 0


@pytest.fixture(scope="module")
def row() -> tuple[bytes, bytes]:
    """Key and blob of one row."""
    profiles = Profiles("payer")
    profiles.update(make_events([7] * 5, START_MS + np.arange(5)))
    (key,), (blob,) = profiles.export_dirty()
    return key, blob


def test_every_damaged_byte_is_found(row: tuple[bytes, bytes]) -> None:
    """A flipped bit anywhere, a cut, or bytes too many: an error names the row, and says what was expected."""
    key, blob = row
    for position in range(len(blob)):
        damaged = bytearray(blob)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(BlobError, match=key.hex()):
            Profiles("payer").restore([key], [bytes(damaged)])
    for wrong in (b"", blob[:-1], blob[:-8], blob + bytes(8), bytes(160)):
        with pytest.raises(BlobError, match=key.hex()):
            Profiles("payer").restore([key], [wrong])


def test_a_foreign_blob_is_refused(row: tuple[bytes, bytes]) -> None:
    """State of another stage, of another layout, or under another key is never read."""
    key, blob = row
    with pytest.raises(BlobError, match="fingerprint"):
        Profiles("receiver").restore([key], [blob])
    with pytest.raises(BlobError, match="fingerprint"):
        Profiles("payer", Catalog(levels=Levels(tags=1))).restore([key], [blob])
    with pytest.raises(BlobError, match="key"):
        Profiles("payer").restore([bytes(7) + b"\1"], [blob])
    with pytest.raises(BlobError, match="one key of 8 bytes"):
        Profiles("payer").restore([key, key], [blob])
    assert set(PROBLEMS) == {"", "fingerprint", "checksum", "key", "length"}


def test_a_marker_waits_for_a_key_that_is_cold() -> None:
    """Marking a cold key brings its row back; cancelling leaves the row as it was."""
    shelf = Shelf()
    profiles = Profiles("receiver", cold=shelf)
    profiles.update(make_events([9]))
    before = profiles.export_dirty()
    profiles.clear_dirty()
    shelf.put(*profiles.evict(2**62))
    profiles.mark(np.array([9], np.uint64), "MULE_ACCOUNT", 1, np.array([START_MS + 5]))
    found = profiles.query(9, START_MS + 10)
    assert found is not None
    marks = ("receiver_fraud_marks", "receiver_mule_account_marks", "receiver_since_mark_ms", "receiver_received_seen")
    assert [found[name] for name in marks] == [1, 1, 5, 1]
    profiles.mark(np.array([9], np.uint64), "MULE_ACCOUNT", -1, np.array([START_MS + 7]))
    assert profiles.export_dirty() == before


def test_a_query_answers_from_cold_storage_and_changes_nothing() -> None:
    """`pixguard state KEY` shows a row wherever it lies; missing values are None; an unknown key has no row."""
    shelf = Shelf()
    profiles = Profiles("payer", cold=shelf)
    profiles.update(make_events([4], others=77))
    profiles.export_dirty()
    profiles.clear_dirty()
    shelf.put(*profiles.evict(2**62))
    found = profiles.query(4, START_MS + HOUR_MS - 1, other=77)
    assert found is not None
    assert (found["payer_sent_count_1h"], found["payer_sent_since_pair_ms"]) == (1, HOUR_MS - 1)
    assert found["payer_sent_std_1h"] is None
    later = profiles.query(4, START_MS + HOUR_MS)
    assert later is not None
    assert later["payer_sent_count_1h"] == 0
    assert profiles.query(5, START_MS) is None
    assert profiles.dirty == 0


def test_keys_in_memory_ask_no_cold_storage() -> None:
    """Only keys without a row are looked up, once for a whole batch."""
    shelf = Shelf()
    profiles = Profiles("payer", cold=shelf)
    profiles.update(make_events([1, 2, 3]))
    profiles.update(make_events([1, 2, 3]))
    assert shelf.asked == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: np.zeros(1, [("key", "u8")]), "EVENT_DTYPE"),
        (lambda events: _with(events, "key", 0), "other than 0"),
        (lambda events: _with(events, "log", 2), "log < 2"),
    ],
)
def test_events_that_make_no_sense_are_refused(change: object, message: str) -> None:
    """Before any row has changed."""
    profiles = Profiles("payer")
    with pytest.raises(ValueError, match=message):
        profiles.update(change(make_events([1])))  # type: ignore[operator]
    assert len(profiles) == 0
    with pytest.raises(ValueError, match="fraud_type"):
        profiles.mark(np.array([1], np.uint64), "NO_FRAUD", 1, np.array([START_MS]))


def _with(events: Array, name: str, value: int) -> Array:
    events[name] = value
    return events


def test_every_kernel_file_is_in_the_key_of_numbas_cache() -> None:
    """An edit in any file that holds compiled code, or the layout, recompiles the entry points."""
    folder = Path(str(tables.__file__)).parent
    files = sorted([*folder.glob("kernel_*.py"), folder / "layout.py", folder / "plan.py"])
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()
    assert int.from_bytes(digest[:7]) == kernel.SOURCES
    entries: list[Any] = [kernel.run, kernel.resolve, kernel.restore_rows, kernel.export_rows, kernel.mark_keys]
    for entry in entries:
        assert kernel.SOURCES in [cell.cell_contents for cell in entry.py_func.__closure__]

"""Allow, deny and watch lists: decoding, updates, expiry and checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.rejection import Reason, Rejection
from app.domain.siphash import HashKey, hash_account, hash_device, hash_pix_key
from models.rules.lists import FOR_EVER_MS, Lists, ListsError, ListUpdate, decode_list_update

KEY = HashKey(1, 2)
FOR_EVER = b'{"reason": "analyst decision 4711", "until": null}'


def is_listed(lists: Lists, name: str, sort: str, identifier: int, event_ms: int = 0) -> bool:
    """Ask for one identifier."""
    return bool(lists.listed(name, sort, np.array([identifier], np.uint64), np.array([event_ms]))[0])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"deny/account/12345678/0001-9", ("deny", "account", hash_account("12345678", "0001-9", KEY))),
        (b"allow/account/12345678/a/b", ("allow", "account", hash_account("12345678", "a/b", KEY))),
        (b"deny/key/+5511987654321", ("deny", "key", hash_pix_key("+5511987654321", KEY))),
        (b"watch/device/d-1", ("watch", "device", hash_device("d-1", KEY))),
    ],
)
def test_an_entry_names_the_hash_that_the_decoder_gives(key: bytes, expected: tuple[str, str, int]) -> None:
    """List, kind and identifier come from the Kafka key, hashed as the transaction's columns are."""
    assert decode_list_update(key, FOR_EVER, KEY) == ListUpdate(*expected, FOR_EVER_MS)


def test_until_and_tombstone() -> None:
    """An entry may end at an instant; a tombstone removes it."""
    ends = decode_list_update(b"deny/device/d", b'{"reason": "x", "until": 5}', KEY)
    gone = decode_list_update(b"deny/device/d", None, KEY)
    assert isinstance(ends, ListUpdate)
    assert isinstance(gone, ListUpdate)
    assert (ends.until_ms, gone.until_ms) == (5, None)


@pytest.mark.parametrize(
    ("key", "value", "path", "reason"),
    [
        (None, FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"\xff", FOR_EVER, "kafka.key", Reason.NOT_UTF8),
        (b"black/device/d", FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"deny/phone/d", FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"deny/device/", FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"deny/device/" + b"d" * 65, FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"deny/account/1234567/1", FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"deny/account/12345678/", FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"deny/key/52998224724", FOR_EVER, "kafka.key", Reason.WRONG_KAFKA_KEY),
        (b"deny/device/d", b"{", "$", Reason.NOT_JSON),
        (b"deny/device/d", b"[]", "$", Reason.WRONG_TYPE),
        (b"deny/device/d", b"{}", "$.reason", Reason.MISSING),
        (b"deny/device/d", b'{"reason": 1}', "$.reason", Reason.WRONG_TYPE),
        (b"deny/device/d", b'{"reason": ""}', "$.reason", Reason.OUT_OF_RANGE),
        (b"deny/device/d", b'{"reason": "x", "reason": "y"}', "$.reason", Reason.DUPLICATE_FIELD),
        (b"deny/device/d", b'{"reason": "x", "till": 5}', "$", Reason.WRONG_FORM),
        (b"deny/device/d", b'{"reason": "x", "until": "5"}', "$.until", Reason.WRONG_TYPE),
        (b"deny/device/d", b'{"reason": "x", "until": true}', "$.until", Reason.WRONG_TYPE),
        (b"deny/device/d", b'{"reason": "x", "until": 1.5}', "$.until", Reason.WRONG_TYPE),
        (b"deny/device/d", b'{"reason": "x", "until": 0}', "$.until", Reason.OUT_OF_RANGE),
        (b"deny/device/d", b'{"reason": "x", "until": 1e999}', "$.until", Reason.WRONG_TYPE),
        (b"deny/device/d", json.dumps({"reason": "x", "until": 10**30}).encode(), "$.until", Reason.WRONG_TYPE),
    ],
)
def test_a_bad_update_is_rejected_with_its_path(key: bytes | None, value: bytes, path: str, reason: Reason) -> None:
    """Whatever is wrong is a rejection, never an exception and never an entry."""
    fault = decode_list_update(key, value, KEY)
    assert isinstance(fault, Rejection)
    assert (fault.path, fault.reason) == (path, reason)


def test_a_rejection_does_not_repeat_the_identifier() -> None:
    """A mistyped CPF stays out of logs and counters."""
    fault = decode_list_update(b"deny/key/52998224724", FOR_EVER, KEY)
    assert "52998224724" not in repr(fault)


def test_an_entry_counts_until_its_end_in_event_time() -> None:
    """A payment just before the end is on the list, one at the end is not, whenever they are decided on."""
    lists = Lists().apply([ListUpdate("deny", "device", 7, 1_000)], version=1)
    assert is_listed(lists, "deny", "device", 7, 999)
    assert not is_listed(lists, "deny", "device", 7, 1_000)


def test_lists_and_kinds_are_apart() -> None:
    """One hash on one list says nothing of another list or kind."""
    lists = Lists().apply([ListUpdate("deny", "device", 7, FOR_EVER_MS)], version=1)
    assert is_listed(lists, "deny", "device", 7)
    assert not is_listed(lists, "watch", "device", 7)
    assert not is_listed(lists, "deny", "account", 7)


def test_applying_leaves_the_old_snapshot_as_it_was() -> None:
    """A batch under way keeps the lists that it began with."""
    old = Lists().apply([ListUpdate("deny", "key", 7, FOR_EVER_MS)], version=1)
    new = old.apply([ListUpdate("deny", "key", 7, None), ListUpdate("deny", "key", 8, FOR_EVER_MS)], version=3)
    assert [is_listed(old, "deny", "key", key) for key in (7, 8)] == [True, False]
    assert [is_listed(new, "deny", "key", key) for key in (7, 8)] == [False, True]
    assert (old.version, new.version) == (1, 3)


def test_versions_never_go_back() -> None:
    """A consumer that reads the topic backwards is a fault, not an update."""
    with pytest.raises(ListsError, match="expected a version from 5 on, got 4"):
        Lists(5).apply([], version=4)


_updates = st.lists(
    st.builds(
        ListUpdate,
        st.sampled_from(["allow", "deny"]),
        st.sampled_from(["account", "key"]),
        st.sampled_from([1, 2, 3, 2**63, 2**64 - 1]),
        st.sampled_from([None, 10, FOR_EVER_MS]),
    ),
    max_size=12,
)


@given(_updates, st.integers(0, 12), st.sampled_from([9, 10, 11]))
def test_lists_agree_with_a_dict(updates: list[ListUpdate], split: int, event_ms: int) -> None:
    """In one batch or two, through a checkpoint or not, the lists hold what a dict of the last updates holds."""
    half = Lists().apply(updates[:split], version=split)
    lists = Lists.from_bytes(half.to_bytes()).apply(updates[split:], version=12)
    entries = {(u.name, u.sort, u.identifier): u.until_ms for u in updates}
    alive = {which for which, until_ms in entries.items() if until_ms is not None and event_ms < until_ms}
    everything = np.array([0, 1, 2, 3, 4, 2**63, 2**64 - 1], np.uint64)
    for name in ("allow", "deny"):
        for sort in ("account", "key"):
            found = everything[lists.listed(name, sort, everything, np.full(len(everything), float(event_ms)))]
            assert {(name, sort, int(identifier)) for identifier in found} == {
                which for which in alive if which[:2] == (name, sort)
            }
    assert len(lists) == sum(until_ms is not None for until_ms in entries.values())
    assert lists.to_bytes() == Lists().apply(updates, version=12).to_bytes()


def test_a_missing_time_is_before_no_end() -> None:
    """Event times are float64 with NaN for missing, as the expression language gives them."""
    lists = Lists().apply([ListUpdate("deny", "key", 7, 10)], version=1)
    assert not lists.listed("deny", "key", np.array([7], np.uint64), np.array([np.nan])).any()


@pytest.mark.parametrize("content", [b"", b"PXLS", b"x" * 100, Lists().to_bytes() + b"x", Lists().to_bytes()[:-1]])
def test_a_damaged_checkpoint_is_refused(content: bytes) -> None:
    """Cut or foreign bytes are an error that says so."""
    with pytest.raises(ListsError, match="expected"):
        Lists.from_bytes(content)

"""Our partitioner puts a key where every Kafka client looks for it."""

from __future__ import annotations

import numpy as np
import pytest
from aiokafka.partitioner import DefaultPartitioner, murmur2
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.partitioner import account_partitions, partition_of, partitions_of_ids

JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""Of Kafka's own test, org.apache.kafka.common.utils.UtilsTest."""


@pytest.mark.parametrize("key", JAVA_MURMUR2)
def test_agrees_with_kafkas_own_values(key: bytes) -> None:
    """As the Java client computes them."""
    for partitions in (1, 3, 8, 1024):
        assert partition_of(key, partitions) == (JAVA_MURMUR2[key] & 0x7FFFFFFF) % partitions


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 1024))
def test_agrees_with_aiokafka(key: bytes, partitions: int) -> None:
    """For any key, of any length, the empty one too."""
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.from_regex(r"E[0-9]{20}[A-Za-z0-9]{11}", fullmatch=True).map(str.encode), max_size=8),
    st.integers(1, 64),
)
def test_ids_go_where_the_default_partitioner_sends_them(ids: list[bytes], partitions: int) -> None:
    """Whole arrays of end_to_end_ids as one by one."""
    default, places = DefaultPartitioner(), list(range(partitions))
    found = partitions_of_ids(np.array(ids, "S32"), partitions)
    assert found.tolist() == [default(one, places, places) for one in ids]


def test_a_view_of_a_column_is_read_by_its_values() -> None:
    """Ids are a column of wider rows: the stride is not their width."""
    rows = np.zeros(3, [("other", "i8"), ("id", "S32")])
    rows["id"] = [b"E%031d" % number for number in range(3)]
    assert partitions_of_ids(rows["id"], 8).tolist() == [partition_of(b"E%031d" % number, 8) for number in range(3)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.integers(1, 1024))
def test_accounts_keep_their_partition(accounts: list[int], partitions: int) -> None:
    """The remainder of the unsigned hash: one account, one partition, also above 2**63."""
    found = account_partitions(np.array(accounts, np.uint64), partitions)
    assert found.tolist() == [account % partitions for account in accounts]


def test_accounts_spread_evenly() -> None:
    """No partition has a fifth more or less than its share."""
    accounts = np.random.default_rng(7).integers(0, 2**64, 80_000, np.uint64)
    counts = np.bincount(account_partitions(accounts, 8), minlength=8)
    assert counts.min() > 8_000
    assert counts.max() < 12_000

"""The partitioner agrees with Kafka's."""

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from app.batching import partition_for


@given(key=st.binary(max_size=300), partitions=st.integers(1, 64))
def test_partition_is_that_of_kafkas_default_partitioner(key: bytes, partitions: int) -> None:
    """Keys of every length, also beyond the precompiled layouts, land where any other producer sends them."""
    assert partition_for(key, partitions) == DefaultPartitioner()(key, list(range(partitions)), [])

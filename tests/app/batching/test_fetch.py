"""Fetch requests and answers, as Kafka's own client library writes and reads them."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest_v4, FetchResponse_v4
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from app.batching.fetch import API_KEY, API_VERSION, Fetched, decode_fetch, encode_fetch

names = st.text("abcdefghijklmnopqrstuvwxyz.-_", min_size=1, max_size=20)
places = st.builds(TP, names, st.integers(0, 1000))
offsets = st.integers(0, 2**63 - 1)
answers = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.integers(-1, 120),
        offsets,
        offsets,
        st.lists(st.tuples(offsets, offsets), max_size=3),
        st.binary(max_size=50),
    ),
    max_size=4,
)


@given(st.dictionaries(places, offsets, max_size=10), st.integers(0, 30))
def test_a_request_is_what_kafkas_client_would_send(positions: dict[TP, int], head_bytes: int) -> None:
    """Behind the free bytes; partitions of a topic that stand together are asked for together, in their order."""
    request = encode_fetch(
        positions,
        head_bytes=head_bytes,
        max_wait_ms=500,
        min_bytes=1,
        max_bytes=1 << 24,
        partition_max_bytes=1 << 22,
        isolation_level=1,
    )
    topics: list[tuple[str, list[tuple[int, int, int]]]] = []
    for (topic, partition), position in positions.items():
        if not topics or topics[-1][0] != topic:
            topics.append((topic, []))
        topics[-1][1].append((partition, position, 1 << 22))
    expected: Any = FetchRequest_v4(-1, 500, 1, 1 << 24, 1, topics)
    assert (expected.API_KEY, expected.API_VERSION) == (API_KEY, API_VERSION)
    assert bytes(request[head_bytes:]) == expected.encode()


@given(st.dictionaries(names, answers, max_size=3))
def test_an_answer_is_read_as_kafkas_client_reads_it(topics: dict[str, list[Any]]) -> None:
    """Every partition with its error, offsets, aborted transactions and records."""
    answer = FetchResponse_v4(0, list(topics.items())).encode()
    again: Any = FetchResponse_v4.decode(BytesIO(answer))

    def read() -> Iterator[Fetched]:
        for topic, partitions in again.topics:
            for partition, error_code, highwater, _, aborted, records in partitions:
                yield Fetched(TP(topic, partition), error_code, highwater, aborted or [], records or b"")

    found = list(decode_fetch(memoryview(answer)))
    assert [each._replace(records=memoryview(bytes(each.records))) for each in found] == list(read())


def test_an_answer_without_lists_has_none() -> None:
    """Kafka writes -1 for what it leaves out."""
    answer = FetchResponse_v4(0, [("topic", [(7, 0, 100, 90, None, None)])]).encode()
    (fetched,) = decode_fetch(memoryview(answer))
    assert (fetched.tp, fetched.highwater, fetched.aborted, len(fetched.records)) == (TP("topic", 7), 100, [], 0)


def test_an_answer_that_is_cut_off_is_an_error() -> None:
    """Nothing is made up."""
    answer = FetchResponse_v4(0, [("topic", [(7, 0, 100, 90, [], b"records")])]).encode()
    with pytest.raises(Exception, match="requires a buffer"):
        list(decode_fetch(memoryview(answer)[:20]))

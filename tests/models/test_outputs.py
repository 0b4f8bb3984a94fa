"""Messages grouped by where they go."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from models.outputs import Send, merge

_SENDS = st.lists(
    st.lists(
        st.builds(
            lambda topic, partition, rows: Send(
                topic, partition, [key for key, _ in rows], [value for _, value in rows]
            ),
            st.sampled_from(["a", "b"]),
            st.integers(0, 2),
            st.lists(st.tuples(st.none() | st.binary(max_size=2), st.binary(max_size=3)), max_size=4),
        ),
        max_size=4,
    ),
    max_size=4,
)


def _by_place(sends: list[Send]) -> dict[tuple[str, int], list[tuple[bytes | None, bytes | None]]]:
    messages: defaultdict[tuple[str, int], list[tuple[bytes | None, bytes | None]]] = defaultdict(list)
    for send in sends:
        messages[send.topic, send.partition] += zip(send.keys, send.values, strict=True)
    return dict(messages)


@given(_SENDS)
def test_merging_keeps_every_message_and_the_order_within_a_partition(batches: list[list[Send]]) -> None:
    """Stage 2 recognises repeats by their order, so what goes to one partition must not change places."""
    merged = merge(batches)
    assert _by_place(merged) == _by_place([send for sends in batches for send in sends])
    assert len({(send.topic, send.partition) for send in merged}) == len(merged)


def test_no_send_is_larger_than_a_record_batch() -> None:
    """Unless it was before: what would not fit goes behind it."""
    sends = [Send("a", 0, [None], [bytes(size)]) for size in (500_000, 300_000, 200_000, 2_000_000, 1)]
    merged = merge([[send] for send in sends])
    assert [[len(value or b"") for value in send.values] for send in merged] == [
        [500_000, 300_000],
        [200_000],
        [2_000_000],
        [1],
    ]

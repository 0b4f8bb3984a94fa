"""Commits advance over acknowledged batches only, and a gap is never passed over."""

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from app.batching import Batch
from app.batching.progress import BatchMessage, Progress
from app.domain.records import GapError

SOURCE = TP("source", 0)


def deliver(progress: Progress, base: int, next_offset: int, records: int | None = None) -> BatchMessage:
    """Deliver the batch [base, next_offset)."""
    names: list[bytes | None] = [b""] * (next_offset - base if records is None else records)
    message = BatchMessage(Batch(SOURCE, base, next_offset, names, names, range(base, base + len(names)), [], 1))
    progress.arrive(SOURCE, base, next_offset)
    progress.deliver(message)
    return message


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), data=st.data())
def test_commit_is_the_end_of_the_longest_acknowledged_prefix(sizes: list[int], data: st.DataObject) -> None:
    """In whatever order batches are acknowledged, no commit passes one that is not."""
    progress = Progress()
    messages, base = [], 0
    for size in sizes:
        messages.append(deliver(progress, base, base + size))
        base += size
    for index in data.draw(st.permutations(range(len(sizes)))):
        messages[index].acked = True
        progress.advance()
        prefix = next((at for at, message in enumerate(messages) if not message.acked), len(messages))
        assert progress.committable == (sum(sizes[:prefix]) or None)
        assert progress.pending_records == sum(sizes[prefix:])


def test_a_commit_that_failed_can_be_repeated() -> None:
    """The committable offset stays known until a later one takes its place."""
    progress = Progress()
    deliver(progress, 0, 10).acked = True
    progress.advance()
    progress.advance()
    assert progress.committable == 10


def test_a_late_acknowledgement_of_an_earlier_assignment_counts_for_nothing() -> None:
    """The same offsets delivered again are another batch, to be processed and acknowledged anew."""
    stale = deliver(Progress(), 0, 10)
    progress = Progress()
    deliver(progress, 0, 10)
    stale.acked = True
    progress.advance()
    assert progress.committable is None


@pytest.mark.parametrize("base", [9, 11], ids=["repeated", "lost"])
def test_a_batch_that_does_not_continue_the_previous_one_is_an_error(base: int) -> None:
    """Neither lost nor repeated offsets are delivered, and the message names partition and offsets."""
    progress = Progress()
    deliver(progress, 0, 10)
    with pytest.raises(GapError, match=f"source-0: expected a batch at offset 10, got one at {base}"):
        progress.arrive(SOURCE, base, 20)


def test_the_first_batch_must_start_at_the_committed_offset() -> None:
    """A topic that was truncated below the committed offset is noticed at once."""
    with pytest.raises(GapError, match="expected a batch at offset 100, got one at 0"):
        Progress(expected=100).arrive(SOURCE, 0, 5)


def test_batches_wait_until_an_agent_takes_them() -> None:
    """Taken batches no longer count as queued, though they are pending until acknowledged."""
    progress = Progress()
    first, _, _ = (deliver(progress, base, base + 10) for base in (0, 10, 20))
    assert progress.queued_batches() == 3
    first.tracked = True
    assert progress.queued_batches() == 2
    assert progress.pending_records == 30


def test_a_batch_without_records_advances_the_commit() -> None:
    """Transaction markers and compacted stretches are passed like records."""
    progress = Progress()
    deliver(progress, 0, 4, records=0).acked = True
    progress.advance()
    assert (progress.committable, progress.pending_records) == (4, 0)

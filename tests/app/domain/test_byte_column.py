"""Columns of byte strings: a sequence like a list of them, over one buffer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.byte_column import ByteColumn, ByteColumns, bytes_of
from app.domain.memory import copy_bytes

STRINGS = st.lists(st.none() | st.binary(max_size=20), max_size=12)
BOUND = st.none() | st.integers(-15, 15)
STEP = st.none() | st.integers(-4, 4).filter(bool)


@given(strings=STRINGS)
def test_a_column_is_the_sequence_that_it_was_made_of(strings: list[bytes | None]) -> None:
    """Length, iteration, every place from both ends, membership and equality are those of the list."""
    column = ByteColumn.from_list(strings)
    assert len(column) == len(strings)
    assert list(column) == strings
    assert [column[place] for place in range(-len(strings), len(strings))] == strings * 2
    assert all(string in column for string in strings)
    assert column == strings
    assert column == tuple(strings)
    assert column != [*strings, b""]


@given(strings=STRINGS, first=BOUND, last=BOUND, step=STEP)
def test_a_slice_is_the_lists_slice_and_copies_nothing(
    strings: list[bytes | None], first: int | None, last: int | None, step: int | None
) -> None:
    """Any slice, and a slice of it, shares the buffer, and compiled code finds its arrays contiguous."""
    part = slice(first, last, step)
    column = ByteColumn.from_list(strings)
    sliced = column[part]
    assert sliced == strings[part]
    assert sliced[1:] == strings[part][1:]
    assert sliced.buffer is column.buffer
    assert sliced.starts.flags.c_contiguous
    assert sliced.lengths.flags.c_contiguous


def test_strings_may_lie_anywhere_in_the_buffer() -> None:
    """Order, gaps and overlaps in the buffer do not matter, nor does the start of None."""
    buffer = np.frombuffer(b"abcdef", np.uint8)
    column = ByteColumn(buffer, np.array([4, 0, 99, 1]), np.array([2, 3, -1, 2]))
    assert list(column) == [b"ef", b"abc", None, b"bc"]


@settings(deadline=None)  # the first example may compile
@given(parts=st.lists(STRINGS, max_size=4), places=st.data())
def test_joined_columns_are_one_behind_the_other(parts: list[list[bytes | None]], places: st.DataObject) -> None:
    """Whatever part of its buffer each takes, and wherever its absent strings are said to start."""
    columns, expected = [], []
    for strings in parts:
        column = ByteColumn.from_list(strings)
        starts = np.where(column.lengths < 0, 99, column.starts)
        kept = np.array(places.draw(st.lists(st.integers(0, max(0, len(strings) - 1)), max_size=4)), np.intp)
        kept = kept[: len(kept) if strings else 0]
        columns.append(ByteColumn(column.buffer, starts, column.lengths).take(kept))
        expected += [strings[place] for place in kept]
    chained = ByteColumns.chained(columns)
    assert chained == expected
    assert [chained[place] for place in range(-len(expected), len(expected))] == expected * 2
    assert chained[1:] == expected[1:]
    assert ByteColumns.of(chained) is chained
    joined = ByteColumn.joined(columns)
    assert list(joined) == expected
    assert bytes_of(joined) == bytes_of(expected) == sum(len(string or b"") for string in expected)
    assert joined.starts.flags.c_contiguous
    assert joined.lengths.flags.c_contiguous


def test_a_place_outside_is_an_index_error() -> None:
    """As of any sequence."""
    with pytest.raises(IndexError):
        ByteColumn.from_list([b"a"])[1]


def test_rows_of_bytes_are_strings_of_one_width() -> None:
    """A two-dimensional array is one string per row, without a copy."""
    rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    column = ByteColumn.fixed(rows)
    assert column == [b"\0\1", b"\2\3", b"\4\5"]
    assert np.shares_memory(column.buffer, rows)
    assert ByteColumn.fixed(rows[::2]) == [b"\0\1", b"\4\5"]


def test_elements_are_strings_with_all_their_bytes() -> None:
    """Zeros at the end, which NumPy hides in an S element, belong to the string; a record is its bytes in memory."""
    assert ByteColumn.fixed(np.array([b"a", b"bcd"], "S3")) == [b"a\0\0", b"bcd"]
    assert ByteColumn.fixed(np.array([(1, 2)], [("low", "<u2"), ("high", "<u2")])) == [b"\1\0\2\0"]
    assert ByteColumn.fixed(np.zeros(0, "S3")) == []


@pytest.mark.parametrize("strings", [np.zeros((2, 2)), np.zeros((1, 1, 1), np.uint8), np.array([b"a"], object)])
def test_what_has_no_strings_of_one_width_is_refused(strings: np.ndarray) -> None:
    """Other shapes and dtypes are an error, which says what was expected."""
    with pytest.raises(ValueError, match=r"strings: expected shape \(n, width\) of uint8"):
        ByteColumn.fixed(strings)


def test_columns_never_print_their_strings() -> None:
    """What may end up in a log names their number only."""
    column = ByteColumn.from_list([b"secret", None])
    assert repr(column) == "<ByteColumn of 2>"
    assert repr(ByteColumns.of(column)) == "<ByteColumns of 2>"


def test_chained_columns_tell_how_far_may_be_read() -> None:
    """To the end of each one's own buffer, whatever part of it the strings take; and copy nothing."""
    first, second = ByteColumn.from_list([b"a", b"bcd", None]), ByteColumn.from_list([b"ef"])
    chained = ByteColumns.chained([first[:2], second])
    assert (chained.limits - chained.addresses).tolist() == [4, 3, 2]
    assert chained.addresses.tolist() == [*(first.starts[:2] + first.buffer.ctypes.data), second.buffer.ctypes.data]


@pytest.mark.parametrize("size", range(20))
def test_a_copy_begins_and_ends_with_the_string(size: int) -> None:
    """At every length of a word's."""
    text = np.frombuffer(bytes(range(1, 41)), np.uint8)
    column = ByteColumn(text, np.array([3, 11]), np.array([size, size]))
    assert column.packed().tobytes() == text[3 : 3 + size].tobytes() + text[11 : 11 + size].tobytes()
    target = np.zeros(30, np.uint8)
    copy_bytes(text.ctypes.data + 3, size, target.ctypes.data + 5)
    assert target.tobytes() == bytes(5) + text[3 : 3 + size].tobytes() + bytes(25 - size)

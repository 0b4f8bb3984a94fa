"""A column of byte strings over one buffer: what compiled code reads, and Python code takes for a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from app.domain.memory import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["ByteColumn", "bytes_of"]


def bytes_of(strings: Sequence[bytes | None]) -> int:
    """Return how many bytes the strings have together."""
    if isinstance(strings, ByteColumn):
        return int(np.maximum(strings.lengths, 0).sum())
    return sum(len(string) for string in strings if string is not None)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ByteColumn(Sequence["bytes | None"]):
    """An immutable sequence of byte strings and ``None``, without an object for each.

    The strings may lie anywhere in the buffer, in any order, with anything between them; a column's slices share it.
    A column equals every sequence of the same strings.

    Attributes
    ----------
    buffer
        The bytes, C-contiguous uint8, shape (m,). Whoever made the column leaves them as they are.
    starts, lengths
        Where each string begins and how long it is, C-contiguous int64, shape (n,). Length -1 is ``None``, whose
        start means nothing.
    """

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, strings: Sequence[bytes | None]) -> ByteColumn:
        """Return the column itself where the strings are one already, else the column of them."""
        return strings if isinstance(strings, ByteColumn) else cls.from_list(strings)

    @classmethod
    def from_list(cls, strings: Sequence[bytes | None]) -> ByteColumn:
        """Return the column of these strings, copied."""
        if None in strings:
            lengths = np.array([-1 if string is None else len(string) for string in strings], np.int64)
            joined = b"".join([string for string in strings if string is not None])
        else:
            present: Sequence[bytes] = strings  # type: ignore[assignment]  # as was just looked up
            lengths = np.fromiter(map(len, present), np.int64, len(present))
            joined = b"".join(present)
        taken = np.maximum(lengths, 0)
        return cls(np.frombuffer(joined, np.uint8), np.cumsum(taken) - taken, lengths)

    @classmethod
    def joined(cls, columns: Sequence[ByteColumn]) -> ByteColumn:
        """Return the strings of all columns, one column behind the other, copied; a single one is returned as it is."""
        if len(columns) == 1:
            return columns[0]
        lengths = np.concatenate([np.zeros(0, np.int64), *(column.lengths for column in columns)])
        taken = np.maximum(lengths, 0)
        text = np.empty(int(taken.sum()), np.uint8)
        first = 0
        for column in columns:
            _write(column, text[first:], 0)
            first += bytes_of(column)
        return cls(text, np.cumsum(taken) - taken, lengths)

    @classmethod
    def fixed(cls, strings: NDArray[Any]) -> ByteColumn:
        """Return the column of strings of one width: the rows of an array, whose memory it shares where it can.

        Parameters
        ----------
        strings
            Shape (n, width) and uint8; or shape (n,), where an element is a string: its bytes as they lie in memory,
            with the zeros that NumPy leaves out of an S element.

        Raises
        ------
        ValueError
            For an array of another shape or dtype.
        """
        if strings.ndim == 2 and strings.dtype == np.uint8:
            width = strings.shape[1]
        elif strings.ndim == 1 and not strings.dtype.hasobject:
            width = strings.dtype.itemsize
        else:
            raise ValueError(
                f"strings: expected shape (n, width) of uint8 or (n,), got {strings.shape} of {strings.dtype}"
            )
        buffer = np.ascontiguousarray(strings).reshape(-1).view(np.uint8)
        count = len(strings)
        return cls(buffer, np.arange(count, dtype=np.int64) * width, np.full(count, width, np.int64))

    def packed(self, gap: int = 0, padding: int = 0) -> NDArray[np.uint8]:
        """Return the strings one after the other, each with `gap` zero bytes behind it, and `padding` at the end."""
        text = np.zeros(bytes_of(self) + gap * len(self) + padding, np.uint8)
        _write(self, text, gap)
        return text

    def take(self, places: NDArray[np.intp]) -> ByteColumn:
        """Return the column of the strings at these places, in their order; it shares the buffer."""
        return ByteColumn(self.buffer, self.starts[places], self.lengths[places])

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, place: int) -> bytes | None: ...

    @overload
    def __getitem__(self, place: slice) -> ByteColumn: ...

    def __getitem__(self, place: int | slice) -> bytes | ByteColumn | None:
        if isinstance(place, slice):
            # Contiguous even with a step: compiled code has one signature.
            starts, lengths = np.ascontiguousarray(self.starts[place]), np.ascontiguousarray(self.lengths[place])
            return ByteColumn(self.buffer, starts, lengths)
        start, length = int(self.starts[place]), int(self.lengths[place])
        return None if length < 0 else self.buffer[start : start + length].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        """Yield the strings, all made at once: a tenth of the time of as many `__getitem__`."""
        text = self.buffer.data
        spans = zip(self.starts.tolist(), (self.starts + self.lengths).tolist(), strict=True)
        if self.lengths.min(initial=0) == 0:
            return iter([text[start:end].tobytes() for start, end in spans])
        return iter([None if end < start else text[start:end].tobytes() for start, end in spans])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a list has none either

    def __repr__(self) -> str:
        # The strings stay out of it: a payment's fields must not reach a log.
        return f"<ByteColumn of {len(self)}>"


def _write(column: ByteColumn, text: NDArray[np.uint8], gap: int) -> None:
    # One signature, whoever made the column: compiled at a worker's start, not at the first buffer of another kind.
    buffer = column.buffer.view()
    buffer.flags.writeable = False
    _pack(text, buffer, column.starts, np.maximum(column.lengths, 0), gap)


@compiled
def _pack(
    text: NDArray[np.uint8],
    buffer: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    gap: int,
) -> None:
    place = 0
    for row in range(len(lengths)):
        length = lengths[row]
        text[place : place + length] = buffer[starts[row] : starts[row] + length]
        place += length + gap

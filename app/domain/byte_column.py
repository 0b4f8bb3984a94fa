"""Columns of byte strings over buffers: what compiled code reads, and Python code takes for a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ctypes import string_at
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from app.domain.memory import compiled, copy_bytes

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["ByteColumn", "ByteColumns", "bytes_of"]

_NO_NUMBERS = np.zeros(0, np.int64)  # NumPy does not join nothing


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
        return columns[0] if len(columns) == 1 else ByteColumns.chained(columns).packed()

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

    def packed(self) -> NDArray[np.uint8]:
        """Return the strings one after the other, copied."""
        return ByteColumns.chained([self]).packed().buffer

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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ByteColumns(Sequence["bytes | None"]):
    """Several columns, one behind the other, as one sequence of strings that stay where they lie.

    Attributes
    ----------
    columns
        They keep alive what the addresses point to.
    bases
        Address of each column's buffer; NumPy takes a microsecond to tell one.
    addresses, lengths
        Where each string lies in memory and how long it is, as in a `ByteColumn`: int64, shape (n,). Always arrays of
        their own, so of one kind whoever made the columns: compiled code has one signature.
    """

    columns: Sequence[ByteColumn]
    bases: Sequence[int]
    addresses: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def chained(cls, parts: Sequence[Sequence[bytes | None]]) -> ByteColumns:
        """Return the strings of all parts; of a part that is no `ByteColumn`, copies."""
        columns = [ByteColumn.of(part) for part in parts]
        bases = [column.buffer.ctypes.data for column in columns]
        addresses = [column.starts + base for column, base in zip(columns, bases, strict=True)]
        lengths = [column.lengths for column in columns]
        return cls(columns, bases, np.concatenate([_NO_NUMBERS, *addresses]), np.concatenate([_NO_NUMBERS, *lengths]))

    @classmethod
    def of(cls, strings: Sequence[bytes | None]) -> ByteColumns:
        """Return the columns themselves where the strings are some already, else one column of them."""
        return strings if isinstance(strings, ByteColumns) else cls.chained([strings])

    @property
    def limits(self) -> NDArray[np.int64]:
        """The address behind the buffer that each string lies in: up to there may be read; int64, shape (n,)."""
        limits = [base + len(column.buffer) for column, base in zip(self.columns, self.bases, strict=True)]
        return np.repeat(np.array(limits, np.int64), [len(column) for column in self.columns])

    def packed(self) -> ByteColumn:
        """Return the strings one after the other, with nothing between them, copied."""
        taken = np.maximum(self.lengths, 0)
        text = np.empty(int(taken.sum()), np.uint8)
        _pack(self.addresses, taken, text.ctypes.data)
        return ByteColumn(text, np.cumsum(taken) - taken, self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> bytes | None: ...

    @overload
    def __getitem__(self, place: slice) -> list[bytes | None]: ...

    def __getitem__(self, place: int | slice) -> bytes | list[bytes | None] | None:
        if isinstance(place, slice):
            return [self[at] for at in range(len(self))[place]]
        length = int(self.lengths[place])
        return None if length < 0 else string_at(int(self.addresses[place]), length)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a list has none either

    def __repr__(self) -> str:
        # As that of a column.
        return f"<ByteColumns of {len(self)}>"


@compiled
def _pack(addresses: NDArray[np.int64], lengths: NDArray[np.int64], text: int) -> None:
    for row in range(len(lengths)):
        copy_bytes(addresses[row], lengths[row], text)
        text += lengths[row]

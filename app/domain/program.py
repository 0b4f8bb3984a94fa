"""Many expressions as one program: straight-line code over registers, with what they share computed once.

The program is found by running the expressions' array code once on stand-ins that record each operation, so that it
means exactly what the array code means; constants fold and common subexpressions meet on the way. Running it costs a
few microseconds and 0.2 us a row, where the array code took over a millisecond for a batch of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.domain.columns import Array, Batch, Columns, Membership, nobody_listed
from app.domain.program_kernel import BLOCK, Load, Op, run_program
from app.domain.program_tracing import CODE, MASK, NUMBER, Node, Tracing, class_of

__all__ = ["Addressed", "Places", "Program", "storage_of", "trace"]

_FORMS = {np.dtype(name): form for name, form in zip(
    ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"), Load, strict=True
)}  # fmt: skip
_FORMS[np.dtype(np.bool_)] = Load.UINT8


def storage_of(dtype: np.dtype[Any]) -> Load | None:
    """How the machine reads a column of this dtype; None where it cannot."""
    return _FORMS.get(dtype)


@dataclass(frozen=True, slots=True)
class Places:
    """Where columns lie: in which of several blocks of memory, how far from its row's start, and how they are stored.

    Parameters
    ----------
    block, offset, form
        Of each column, shape (columns,).
    """

    block: NDArray[np.intp]
    offset: NDArray[np.int64]
    form: NDArray[np.int64]


class Addressed:
    """Columns that know where they lie in memory: the machine reads them without a step of Python for each."""

    def places(self, names: tuple[str, ...]) -> Places | None:
        """Return where these columns lie, None where the machine cannot read all of them; the same for all batches."""
        raise NotImplementedError

    def blocks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return address and row stride of each block."""
        raise NotImplementedError


@dataclass(slots=True)
class Program:
    """Straight-line code for several expressions. Its registers make it one thread's.

    Parameters
    ----------
    names
        Columns that it reads into registers.
    code
        Instructions, shape (instructions, 5).
    numbers, codes, masks
        Registers with the constants in place, shapes (registers, BLOCK).
    sentinels
        What stands for missing in each of those columns; NaN where nothing does.
    given
        Masks that are evaluated outside.
    """

    names: tuple[str, ...]
    code: NDArray[np.int32]
    numbers: NDArray[np.float64]
    codes: NDArray[np.uint64]
    masks: NDArray[np.uint8]
    sentinels: NDArray[np.float64]
    given: tuple[Callable[[Columns, Membership], Array], ...]

    def run(
        self,
        columns: Columns,
        n: int,
        *,
        listed: Membership = nobody_listed,
        numbers: NDArray[np.float32] | None = None,
        masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """Evaluate all expressions on n rows.

        Parameters
        ----------
        columns
            By name, each of shape (n,).
        n
            Number of rows.
        listed
            Membership in the lists.
        numbers, masks
            Take the results: shapes (n, numeric expressions) and (conditions, n).

        Raises
        ------
        ValueError
            Where a column's shape is not (n,).
        """
        if n == 0:
            return
        addresses, strides, forms, _alive = self._inputs(columns, n)
        given = np.zeros((len(self.given), n), np.bool_)
        for place, evaluate in enumerate(self.given):
            given[place] = evaluate(columns, listed)
        run_program(
            self.code,
            self.numbers,
            self.codes,
            self.masks,
            addresses,
            strides,
            forms,
            self.sentinels,
            given,
            n,
            np.empty((n, 0), np.float32) if numbers is None else numbers,
            np.empty((0, n), np.bool_) if masks is None else masks,
        )

    def _inputs(self, columns: Columns, n: int) -> tuple[Array, Array, Array, object]:
        if isinstance(columns, Addressed):
            places = columns.places(self.names)
            if places is not None:
                addresses, strides = columns.blocks()
                return addresses[places.block] + places.offset, strides[places.block], places.form, columns
        arrays = [_readable(np.asarray(columns[name])) for name in self.names]
        for name, array in zip(self.names, arrays, strict=True):
            if array.shape != (n,):
                raise ValueError(f"column {name}: expected shape ({n},), got {array.shape}")
        return (
            np.array([array.ctypes.data for array in arrays], np.int64),
            np.array([array.strides[0] for array in arrays], np.int64),
            np.array([_FORMS[array.dtype] for array in arrays], np.int64),
            arrays,
        )


def _readable(array: Array) -> Array:
    return array if array.dtype in _FORMS else array.astype(np.float64)


def trace(numbers: Sequence[Callable[[Batch], Any]] = (), conditions: Sequence[Callable[[Batch], Any]] = ()) -> Program:
    """Find the program of several pieces of array code.

    Parameters
    ----------
    numbers, conditions
        Each takes a batch and returns a number, or a mask, for each row.
    """
    tracing = Tracing()
    with np.errstate(all="ignore"):  # constants fold, as silently as columns are computed with
        wanted = [(Op.STORE_NUMBER, place, tracing.result(code(tracing), NUMBER)) for place, code in enumerate(numbers)]
        wanted += [(Op.STORE_MASK, place, tracing.result(code(tracing), MASK)) for place, code in enumerate(conditions)]
    return _Allocation(tracing, wanted).program()


class _Allocation:
    """Gives nodes registers: one is free again once its last reader has run."""

    def __init__(self, tracing: Tracing, wanted: Sequence[tuple[Op, int, int]]) -> None:
        self._tracing = tracing
        self._stores: dict[int, list[tuple[Op, int]]] = {}
        for op, place, node in wanted:
            self._stores.setdefault(node, []).append((op, place))
        self._size = {NUMBER: 0, CODE: 0, MASK: 0}
        self._constant_registers = [self._new(kind) for kind, _ in tracing.constants]
        self._last_use = self._find_last_uses()

    def _new(self, kind: str) -> int:
        self._size[kind] += 1
        return self._size[kind] - 1

    def _reads(self, node: Node) -> tuple[int, ...]:
        return () if node.op in {Op.LOAD_NUMBER, Op.LOAD_CODE, Op.LOAD_MASK} else node.operands

    def _find_last_uses(self) -> dict[int, int]:
        last: dict[int, int] = {}
        for place in range(len(self._tracing.nodes) - 1, -1, -1):
            if place in self._stores:
                last.setdefault(place, place)
            if place in last:  # else nobody asks for it
                for operand in self._reads(self._tracing.nodes[place]):
                    if operand >= 0:
                        last.setdefault(operand, place)
        return last

    def program(self) -> Program:
        tracing = self._tracing
        code: list[tuple[int, ...]] = []
        free: dict[str, list[int]] = {NUMBER: [], CODE: [], MASK: []}
        registers: dict[int, int] = {}

        def register(operand: int) -> int:
            return registers[operand] if operand >= 0 else self._constant_registers[-1 - operand]

        for wanted, stores in self._stores.items():
            if wanted < 0:  # an expression that is a constant
                code += [(op, place, register(wanted), 0, 0) for op, place in stores]
        for place, node in enumerate(tracing.nodes):
            if place not in self._last_use:
                continue
            reads = self._reads(node)
            operands = [register(operand) for operand in reads] or list(node.operands)
            kind = class_of(node.op)
            # The new value may not take an operand's register before all rows are read: loops are in place, so it may.
            for operand in set(reads):
                if operand >= 0 and self._last_use[operand] == place:
                    free[class_of(tracing.nodes[operand].op)].append(registers[operand])
            registers[place] = free[kind].pop() if free[kind] else self._new(kind)
            code.append((node.op, registers[place], *operands, *[0] * (3 - len(operands))))
            code += [(op, to, registers[place], 0, 0) for op, to in self._stores.get(place, ())]
            if self._last_use[place] == place:
                free[kind].append(registers[place])
        return self._program(np.array(code, np.int32).reshape(-1, 5))

    def _program(self, code: NDArray[np.int32]) -> Program:
        tracing = self._tracing
        numbers = np.zeros((self._size[NUMBER] + 1, BLOCK))
        codes = np.zeros((self._size[CODE] + 1, BLOCK), np.uint64)
        masks = np.zeros((self._size[MASK] + 1, BLOCK), np.uint8)
        for (kind, bits), register in zip(tracing.constants, self._constant_registers, strict=True):
            if kind == NUMBER:
                numbers[register] = np.uint64(bits).view(np.float64)
            elif kind == CODE:
                codes[register] = bits
            else:
                masks[register] = bits
        sentinels = [
            np.nan if column.missing is None or isinstance(column.missing, bytes) else float(column.missing)
            for _, column in tracing.inputs
        ]
        return Program(
            tuple(name for name, _ in tracing.inputs),
            code,
            numbers,
            codes,
            masks,
            np.array(sentinels, np.float64),
            tuple(tracing.given),
        )

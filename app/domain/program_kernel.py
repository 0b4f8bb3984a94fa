"""The machine that runs programs of `app.domain.program`: a block of rows at a time, one tight loop per instruction.

Registers hold one value for each row of the block: numbers (float64, NaN for missing), codes (uint64) and masks
(uint8). A new rule pack is a new program, not new machine code: nothing is compiled while payments wait.
"""

# ruff: noqa: C901, PLR0912  (a machine is one switch over its instructions)

from __future__ import annotations

import math
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

from app.domain.memory import compiled, load_byte, load_word

__all__ = ["BLOCK", "Load", "Op", "run_program"]

BLOCK = 64
"""Rows per block: a few hundred registers of this length stay in the second-level cache."""


class Op(IntEnum):
    """What an instruction does; operands are registers. n: number, c: code, m: mask."""

    ADD = 0  # n <- n, n
    SUBTRACT = auto()
    MULTIPLY = auto()
    DIVIDE = auto()
    MODULO = auto()
    MINIMUM = auto()
    MAXIMUM = auto()
    NEGATIVE = auto()  # n <- n
    ABSOLUTE = auto()
    FLOOR = auto()
    LOG1P = auto()
    SQRT = auto()
    FINITE = auto()
    WHERE = auto()  # n <- m, n, n
    LESS = auto()  # m <- n, n
    LESS_EQUAL = auto()
    EQUAL = auto()
    NOT_EQUAL = auto()
    IS_NAN = auto()  # m <- n
    IS_FINITE = auto()
    AND = auto()  # m <- m, m
    OR = auto()
    NOT = auto()  # m <- m
    MASK_BITS = auto()  # c <- c, c
    SAME_CODE = auto()  # m <- c, c
    OTHER_CODE = auto()
    LOAD_NUMBER = auto()  # n <- input
    LOAD_CODE = auto()  # c <- input
    LOAD_MASK = auto()  # m <- mask input
    STORE_NUMBER = auto()  # result <- n
    STORE_MASK = auto()  # result <- m


class Load(IntEnum):
    """How a column is stored."""

    INT8 = 0
    UINT8 = auto()
    INT16 = auto()
    UINT16 = auto()
    INT32 = auto()
    UINT32 = auto()
    INT64 = auto()
    UINT64 = auto()
    FLOAT32 = auto()
    FLOAT64 = auto()


# Numba takes module constants into the machine code; members of an enumeration it looks up.
_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _MODULO = (int(op) for op in list(Op)[:5])
_MINIMUM, _MAXIMUM, _NEGATIVE, _ABSOLUTE, _FLOOR, _LOG1P, _SQRT, _FINITE, _WHERE = (int(op) for op in list(Op)[5:14])
_LESS, _LESS_EQUAL, _EQUAL, _NOT_EQUAL, _IS_NAN, _IS_FINITE = (int(op) for op in list(Op)[14:20])
_AND, _OR, _NOT, _MASK_BITS, _SAME_CODE, _OTHER_CODE = (int(op) for op in list(Op)[20:26])
_LOAD_NUMBER, _LOAD_CODE, _LOAD_MASK, _STORE_NUMBER, _STORE_MASK = (int(op) for op in list(Op)[26:31])


@compiled
def _integer(address: int, form: int) -> np.uint64:
    """Read an integer of any width, extended to 64 bits by its sign."""
    if form >= 6:
        return load_word(address)
    word = np.uint64(load_byte(address))
    if form >= 2:
        word |= np.uint64(load_byte(address + 1)) << np.uint64(8)
    if form >= 4:
        word |= np.uint64(load_byte(address + 2)) << np.uint64(16)
        word |= np.uint64(load_byte(address + 3)) << np.uint64(24)
    if form == 0 and word >= np.uint64(1 << 7):
        word |= np.uint64(0xFFFFFFFFFFFFFF00)
    elif form == 2 and word >= np.uint64(1 << 15):
        word |= np.uint64(0xFFFFFFFFFFFF0000)
    elif form == 4 and word >= np.uint64(1 << 31):
        word |= np.uint64(0xFFFFFFFF00000000)
    return word


@compiled
def _load_numbers(
    to: NDArray[np.float64], rows: int, address: int, stride: int, form: int, missing: float, word: NDArray[np.uint64]
) -> None:
    """Read a column as float64, NaN for its sentinel and for what is not finite. `word` is one word of scratch."""
    as_float64 = word.view(np.float64)
    as_float32 = word.view(np.float32)
    for row in range(rows):
        if form == 8:
            word[0] = _integer(address, 5)
            value = np.float64(as_float32[0])
        elif form == 9:
            word[0] = load_word(address)
            value = as_float64[0]
        elif form == 7:
            value = np.float64(load_word(address))
        else:
            value = np.float64(np.int64(_integer(address, form)))
        # Comparing with NaN, where a column has no sentinel, is False.
        to[row] = np.nan if value == missing or not math.isfinite(value) else value
        address += stride


@compiled
def _modulo(value: float, divisor: float) -> float:
    """Python's and NumPy's remainder: it has the divisor's sign."""
    if divisor == 0.0:
        return np.nan
    rest = float(np.fmod(value, divisor))
    if rest == 0.0:
        return 0.0 if divisor > 0.0 else -0.0
    return rest + divisor if (divisor < 0.0) != (rest < 0.0) else rest


@compiled
def _numbers(op: int, to: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], rows: int) -> None:
    if op == _ADD:
        for row in range(rows):
            to[row] = a[row] + b[row]
    elif op == _SUBTRACT:
        for row in range(rows):
            to[row] = a[row] - b[row]
    elif op == _MULTIPLY:
        for row in range(rows):
            to[row] = a[row] * b[row]
    elif op == _DIVIDE:
        for row in range(rows):
            # A division by zero is missing; FINITE follows, so NaN stands for infinity too.
            to[row] = a[row] / b[row] if b[row] != 0.0 else np.nan
    elif op == _MODULO:
        for row in range(rows):
            to[row] = _modulo(a[row], b[row])
    elif op == _MINIMUM:
        for row in range(rows):
            to[row] = a[row] if a[row] < b[row] or a[row] != a[row] else b[row]
    elif op == _MAXIMUM:
        for row in range(rows):
            to[row] = a[row] if a[row] > b[row] or a[row] != a[row] else b[row]
    elif op == _NEGATIVE:
        for row in range(rows):
            to[row] = -a[row]
    elif op == _ABSOLUTE:
        for row in range(rows):
            to[row] = abs(a[row])
    elif op == _FLOOR:
        for row in range(rows):
            to[row] = np.floor(a[row])
    elif op == _LOG1P:
        for row in range(rows):
            to[row] = math.log1p(a[row]) if a[row] > -1.0 else np.nan
    elif op == _SQRT:
        for row in range(rows):
            to[row] = math.sqrt(a[row]) if a[row] >= 0.0 else np.nan
    elif op == _FINITE:
        for row in range(rows):
            to[row] = a[row] if math.isfinite(a[row]) else np.nan


@compiled
def _compare(op: int, to: NDArray[np.uint8], a: NDArray[np.float64], b: NDArray[np.float64], rows: int) -> None:
    if op == _LESS:
        for row in range(rows):
            to[row] = a[row] < b[row]
    elif op == _LESS_EQUAL:
        for row in range(rows):
            to[row] = a[row] <= b[row]
    elif op == _EQUAL:
        for row in range(rows):
            to[row] = a[row] == b[row]
    elif op == _NOT_EQUAL:
        for row in range(rows):
            to[row] = a[row] != b[row]
    elif op == _IS_NAN:
        for row in range(rows):
            to[row] = a[row] != a[row]
    elif op == _IS_FINITE:
        for row in range(rows):
            to[row] = math.isfinite(a[row])


@compiled
def run_program(
    code: NDArray[np.int32],
    numbers: NDArray[np.float64],
    codes: NDArray[np.uint64],
    masks: NDArray[np.uint8],
    addresses: NDArray[np.int64],
    strides: NDArray[np.int64],
    forms: NDArray[np.int64],
    sentinels: NDArray[np.float64],
    given: NDArray[np.bool_],
    rows: int,
    number_results: NDArray[np.float32],
    mask_results: NDArray[np.bool_],
) -> None:
    """Run a program over all rows.

    Parameters
    ----------
    code
        Instructions: op, to, a, b, c; shape (instructions, 5).
    numbers, codes, masks
        Registers, constants in place; shapes (registers, BLOCK).
    addresses, strides, forms, sentinels
        Of each input column.
    given
        Masks from outside, shape (masks, rows).
    rows
        Number of rows.
    number_results, mask_results
        Shapes (rows, numbers) and (masks, rows).
    """
    word = np.zeros(1, np.uint64)
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        for step in range(len(code)):
            op, to, a, b, c = code[step, 0], code[step, 1], code[step, 2], code[step, 3], code[step, 4]
            if op < _WHERE:
                _numbers(op, numbers[to], numbers[a], numbers[b], count)
            elif op == _WHERE:
                for row in range(count):
                    numbers[to, row] = numbers[b, row] if masks[a, row] else numbers[c, row]
            elif op <= _IS_FINITE:
                _compare(op, masks[to], numbers[a], numbers[b], count)
            elif op == _AND:
                for row in range(count):
                    masks[to, row] = masks[a, row] & masks[b, row]
            elif op == _OR:
                for row in range(count):
                    masks[to, row] = masks[a, row] | masks[b, row]
            elif op == _NOT:
                for row in range(count):
                    masks[to, row] = masks[a, row] ^ np.uint8(1)
            elif op == _MASK_BITS:
                for row in range(count):
                    codes[to, row] = codes[a, row] & codes[b, row]
            elif op == _SAME_CODE:
                for row in range(count):
                    masks[to, row] = codes[a, row] == codes[b, row]
            elif op == _OTHER_CODE:
                for row in range(count):
                    masks[to, row] = codes[a, row] != codes[b, row]
            elif op == _LOAD_NUMBER:
                _load_numbers(
                    numbers[to], count, addresses[a] + first * strides[a], strides[a], forms[a], sentinels[a], word
                )
            elif op == _LOAD_CODE:
                for row in range(count):
                    codes[to, row] = _integer(addresses[a] + (first + row) * strides[a], forms[a])
            elif op == _LOAD_MASK:
                for row in range(count):
                    masks[to, row] = given[a, first + row]
            elif op == _STORE_NUMBER:
                for row in range(count):
                    number_results[first + row, to] = np.float32(numbers[a, row])
            elif op == _STORE_MASK:
                for row in range(count):
                    mask_results[to, first + row] = masks[a, row] != 0

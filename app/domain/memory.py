"""Bytes and words at an address, for compiled code.

A scanner spends its time in small functions on one text. Given the text as an array, Numba counts a reference at each
call, which cost more than the scanning; given an address it counts none. The caller keeps the memory alive, and sees to
the padding. Little-endian machines only, as everything that Numba is built for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.templates import Signature

__all__ = ["PADDING", "compiled", "copy_bytes", "load_byte", "load_word", "store", "trailing_zeros"]

PADDING = bytes(16)
"""What must follow the last byte of a text that is read by words."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Generate = Callable[[BaseContext, ir.IRBuilder, Signature, list[ir.Value]], ir.Value]


def compiled(function: _Function) -> _Function:
    """Compile a function with Numba, keep the machine code on disk, and keep the function's type for mypy.

    The code on disk is renewed when the function's own file changes, not when a file changes that it calls or takes
    constants from: code that changes together belongs in one file.
    """
    return cast("_Function", njit(cache=True)(function))


def _load_byte(_typing: BaseContext, place: types.Type) -> tuple[Signature, _Generate]:
    def generate(
        _context: BaseContext, builder: ir.IRBuilder, _signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        byte = builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))
        return builder.zext(byte, ir.IntType(64))

    return types.int64(place), generate


def _load_word(_typing: BaseContext, place: types.Type) -> tuple[Signature, _Generate]:
    def generate(
        _context: BaseContext, builder: ir.IRBuilder, _signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        word = builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(place), generate


def _store(_typing: BaseContext, place: types.Type, value: types.Type) -> tuple[Signature, _Generate]:
    def generate(
        context: BaseContext, builder: ir.IRBuilder, _signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        pointer = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        builder.store(arguments[1], pointer).align = 1
        return context.get_dummy_value()  # type: ignore[no-untyped-call]

    return types.void(place, value), generate


def _trailing_zeros(_typing: BaseContext, word: types.Type) -> tuple[Signature, _Generate]:
    def generate(
        _context: BaseContext, builder: ir.IRBuilder, _signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(word), generate


load_byte = cast("Callable[[int], int]", intrinsic(_load_byte))
"""Read the byte at an address."""

load_word = cast("Callable[[int], np.uint64]", intrinsic(_load_word))
"""Read the 8 bytes at any address, as a little-endian word."""

store = cast("Callable[[int, Any], None]", intrinsic(_store))
"""Write a number at any address, in as many bytes as its type has."""

trailing_zeros = cast("Callable[[np.uint64], int]", intrinsic(_trailing_zeros))
"""Count the zero bits below the lowest set bit of a word; 64 for zero."""


@compiled
def copy_bytes(source: int, length: int, target: int) -> None:
    """Copy bytes from one address to another; none beyond them is read or written."""
    whole = length & ~7
    for done in range(0, whole, 8):  # by words: Numba's copy of a slice takes several times as long
        store(target + done, load_word(source + done))
    for done in range(whole, length):
        store(target + done, np.uint8(load_byte(source + done)))

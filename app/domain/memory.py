"""Words of 8 bytes at any place of a byte array, for compiled code.

Little-endian machines only, as everything that Numba is built for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.templates import Signature

__all__ = ["PADDING", "Buffer", "compiled", "load_word", "store", "trailing_zeros"]

PADDING = bytes(16)
"""What must follow the last byte of a buffer that is read by words."""

Buffer = NDArray[np.uint8]

_Function = TypeVar("_Function", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Generate = Callable[[BaseContext, ir.IRBuilder, Signature, list[ir.Value]], ir.Value]


def compiled(function: _Function) -> _Function:
    """Compile a function with Numba, keep the machine code on disk, and keep the function's type for mypy.

    The code on disk is renewed when the function's own file changes, not when a file changes that it calls or takes
    constants from: code that changes together belongs in one file.
    """
    return cast("_Function", njit(cache=True)(function))


def _pointer(
    context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: list[ir.Value], pointee: ir.Type
) -> ir.Value:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])  # type: ignore[no-untyped-call]
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), pointee.as_pointer())


def _load_word(_typing: BaseContext, buffer: types.Type, place: types.Type) -> tuple[Signature, _Generate]:
    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        word = builder.load(_pointer(context, builder, signature, arguments, ir.IntType(64)))
        word.align = 1
        return word

    return types.uint64(buffer, place), generate


def _store(
    _typing: BaseContext, buffer: types.Type, place: types.Type, value: types.Type
) -> tuple[Signature, _Generate]:
    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        pointer = _pointer(context, builder, signature, arguments, arguments[2].type)
        builder.store(arguments[2], pointer).align = 1
        return context.get_dummy_value()  # type: ignore[no-untyped-call]

    return types.void(buffer, place, value), generate


def _trailing_zeros(_typing: BaseContext, word: types.Type) -> tuple[Signature, _Generate]:
    def generate(
        _context: BaseContext, builder: ir.IRBuilder, _signature: Signature, arguments: list[ir.Value]
    ) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(word), generate


load_word = cast("Callable[[Buffer, int], np.uint64]", intrinsic(_load_word))
"""Read 8 bytes of a uint8 array at any place, as a little-endian uint64. The caller sees to it that they exist."""

store = cast("Callable[[Buffer, int, Any], None]", intrinsic(_store))
"""Write a number into a uint8 array at any place, in as many bytes as its type has."""

trailing_zeros = cast("Callable[[np.uint64], int]", intrinsic(_trailing_zeros))
"""Count the zero bits below the lowest set bit of a uint64; 64 for zero."""

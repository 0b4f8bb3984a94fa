"""Array code run on stand-ins that record each operation: how a program is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from app.domain.columns import Array, Batch, ColumnKind, Columns, ColumnType, Membership
from app.domain.program_kernel import Op

__all__ = ["CODE", "MASK", "NUMBER", "Node", "Tracing", "class_of"]

NUMBER, CODE, MASK, _TEXT = "number", "code", "mask", "text"
_LOADED_AS = {
    ColumnKind.NUMBER: NUMBER,
    ColumnKind.TIMESTAMP: NUMBER,
    ColumnKind.LENGTH: NUMBER,
    ColumnKind.TEXT: _TEXT,
}

_UFUNCS: dict[np.ufunc, tuple[Op, bool]] = {  # with whether the operands change places
    np.add: (Op.ADD, False),
    np.subtract: (Op.SUBTRACT, False),
    np.multiply: (Op.MULTIPLY, False),
    np.divide: (Op.DIVIDE, False),
    np.mod: (Op.MODULO, False),
    np.minimum: (Op.MINIMUM, False),
    np.maximum: (Op.MAXIMUM, False),
    np.negative: (Op.NEGATIVE, False),
    np.absolute: (Op.ABSOLUTE, False),
    np.floor: (Op.FLOOR, False),
    np.log1p: (Op.LOG1P, False),
    np.sqrt: (Op.SQRT, False),
    np.less: (Op.LESS, False),
    np.less_equal: (Op.LESS_EQUAL, False),
    np.greater: (Op.LESS, True),
    np.greater_equal: (Op.LESS_EQUAL, True),
    np.equal: (Op.EQUAL, False),
    np.not_equal: (Op.NOT_EQUAL, False),
    np.isnan: (Op.IS_NAN, False),
    np.isfinite: (Op.IS_FINITE, False),
    np.logical_and: (Op.AND, False),
    np.logical_or: (Op.OR, False),
    np.bitwise_and: (Op.AND, False),
    np.bitwise_or: (Op.OR, False),
    np.logical_not: (Op.NOT, False),
    np.invert: (Op.NOT, False),
}
_ON_CODES = {Op.EQUAL: Op.SAME_CODE, Op.NOT_EQUAL: Op.OTHER_CODE, Op.AND: Op.MASK_BITS}


def class_of(op: Op) -> str:
    """Return of which class the value is that an instruction makes."""
    if op <= Op.WHERE or op == Op.LOAD_NUMBER:
        return NUMBER
    return CODE if op in {Op.MASK_BITS, Op.LOAD_CODE} else MASK


@dataclass(frozen=True, slots=True)
class Node:
    """A value: an instruction and what it reads, as nodes or as constants (-1 - place); of a load, the input."""

    op: Op
    operands: tuple[int, ...]


class _Traced(NDArrayOperatorsMixin):
    """Stands for an array while a program is found."""

    def __init__(self, tracing: Tracing, kind: str, node: int) -> None:
        self.tracing, self.kind, self.node = tracing, kind, node

    def __array_ufunc__(self, ufunc: np.ufunc, _method: str, *inputs: Any, **_options: Any) -> _Traced:  # noqa: ANN401
        return self.tracing.apply(ufunc, inputs)

    def __array_function__(
        self, function: Callable[..., Any], _types: object, arguments: tuple[Any, ...], _options: object
    ) -> Any:  # noqa: ANN401 - NumPy's protocol
        if function is np.where:
            return self.tracing.where(*arguments)
        raise TypeError(f"no instruction for {function.__name__}")


class Tracing(Batch):
    """A batch without rows: loading a column, and every operation on it, becomes a node."""

    def __init__(self) -> None:
        super().__init__({}, 0)
        self.nodes: list[Node] = []
        self.inputs: list[tuple[str, ColumnType]] = []
        self.given: list[Callable[[Columns, Membership], Array]] = []
        self.constants: list[tuple[str, int]] = []  # class and bits
        self._known: dict[object, int] = {}
        self._columns: dict[int, str] = {}
        self.listed = self._listed  # type: ignore[assignment] # stand-ins for arrays

    def load(self, name: str, column: ColumnType) -> Any:  # noqa: ANN401 - a stand-in for the array
        """Return a stand-in for a column."""
        kind = _LOADED_AS.get(column.kind, CODE)
        if kind == _TEXT:
            return _Text(self, name)
        if (name, column) not in self.inputs:
            self.inputs.append((name, column))
        op = Op.LOAD_NUMBER if kind == NUMBER else Op.LOAD_CODE
        loaded = self._node(op, (self.inputs.index((name, column)),))
        self._columns[loaded.node] = name
        return loaded

    def apply(self, ufunc: np.ufunc, inputs: Sequence[Any]) -> _Traced:
        """Record an operation."""
        if ufunc is np.positive:
            return inputs[0]  # type: ignore[no-any-return]
        op, swapped = _UFUNCS[ufunc]
        kind = next(one.kind for one in inputs if isinstance(one, _Traced))
        operands = tuple(self._operand(one, kind) for one in (reversed(inputs) if swapped else inputs))
        return self._node(_ON_CODES[op] if kind == CODE else op, operands)

    def where(self, mask: Any, then: Any, other: Any) -> _Traced:  # noqa: ANN401 - stand-ins and scalars
        """Record a choice; `finite`, of which there are many, becomes one instruction."""
        mask, then, other = self._operand(mask, MASK), self._operand(then, NUMBER), self._operand(other, NUMBER)
        missing = self._operand(np.nan, NUMBER)
        if other == missing and mask >= 0 and self.nodes[mask] == Node(Op.IS_FINITE, (then,)):
            return self._node(Op.FINITE, (then,))
        return self._node(Op.WHERE, (mask, then, other))

    def outside(self, key: object, evaluate: Callable[[Columns, Membership], Array]) -> _Traced:
        """A mask that the machine is given: what it cannot compute itself."""
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = len(self.given)
            self.given.append(evaluate)
        return self._node(Op.LOAD_MASK, (place,))

    def result(self, value: Any, kind: str) -> int:  # noqa: ANN401 - a stand-in or a scalar
        """Return the node, or constant, of an expression's value."""
        return self._operand(value, kind)

    def _listed(self, name: str, sort: str, identifiers: Any, _event_ms: Any) -> _Traced:  # noqa: ANN401
        column = self._columns[identifiers.node]

        def ask(columns: Columns, listed: Membership) -> Array:
            times_ms = np.asarray(columns["timestamp"]).astype(np.float64)
            return listed(name, sort, np.asarray(columns[column]), times_ms)

        return self.outside(("listed", name, sort, column), ask)

    def _node(self, op: Op, operands: tuple[int, ...]) -> _Traced:
        node = Node(op, operands)
        place = self._known.get(node)
        if place is None:
            place = self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return _Traced(self, class_of(op), place)

    def _operand(self, value: Any, kind: str) -> int:  # noqa: ANN401 - a stand-in or a scalar
        """A node, or a constant as -1 - its place."""
        if isinstance(value, _Traced):
            return value.node
        bits = int(np.float64(value).view(np.uint64)) if kind == NUMBER else int(value) % 2**64
        key = (kind, bits)
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = len(self.constants)
            self.constants.append(key)
        return -1 - place


class _Text(NDArrayOperatorsMixin):
    """Stands for a column of texts, which can only be compared: outside."""

    __array_priority__ = 1000

    def __init__(self, tracing: Tracing, name: str) -> None:
        self.tracing, self.name = tracing, name

    def __array_ufunc__(self, ufunc: np.ufunc, _method: str, *inputs: Any, **_options: Any) -> _Traced:  # noqa: ANN401
        names = tuple(one.name if isinstance(one, _Text) else None for one in inputs)
        literals = tuple(None if isinstance(one, _Text) else bytes(np.asarray(one).item()) for one in inputs)

        def compare(columns: Columns, _listed: Membership) -> Array:
            sides = (
                np.asarray(columns[name]) if name is not None else literal
                for name, literal in zip(names, literals, strict=True)
            )
            compared: Array = ufunc(*sides)
            return compared

        return self.tracing.outside((ufunc.__name__, names, literals), compare)

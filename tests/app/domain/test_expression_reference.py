"""The expression language's array code against an independent scalar evaluator, which takes None for missing."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.columns import Array, ColumnKind, ColumnType, transaction_columns
from app.domain.expression import compile_expression
from app.domain.fields import TRANSACTION_DTYPE

NUMBER = ColumnType(ColumnKind.NUMBER)
COLUMNS = {**transaction_columns(), "ratio": NUMBER, "count": NUMBER}

# 2026-03-02 was a Monday; 00:30 in Brasília is 03:30 UTC.
MONDAY_0030_MS = 1_772_422_200_000
HOUR_MS = 3_600_000

_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


def _arithmetic(kind: type[ast.operator], a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return None
    try:
        value = float(_OPERATIONS[kind](a, b))
    except ZeroDivisionError:
        return None
    return value if math.isfinite(value) else None


def _call(name: str, arguments: list[Any]) -> Any:  # noqa: ANN401 (a number, a truth value or None)
    first = arguments[0]
    if name == "missing":
        return first is None or first == frozenset()  # no flags: none reported
    if name == "coalesce":
        return arguments[1] if first is None else first
    if name == "indicator":
        return None if first is None else float(first)
    if None in arguments:
        return None
    clock = (first - 3 * HOUR_MS) // HOUR_MS % 24 if name in ("hour", "is_night") else 0
    functions: dict[str, Callable[[], Any]] = {
        "min": lambda: min(arguments),
        "max": lambda: max(arguments),
        "abs": lambda: abs(first),
        "floor": lambda: float(math.floor(first)),
        "sqrt": lambda: math.sqrt(first) if first >= 0 else None,
        "clip": lambda: min(max(first, arguments[1]), arguments[2]),
        "hours": lambda: first * HOUR_MS,
        "hour": lambda: float(clock),
        "is_night": lambda: clock >= 20 or clock < 6,
    }
    return functions[name]()


def _all(values: list[bool | None]) -> bool | None:
    if False in values:
        return False
    return None if None in values else True


def _not(value: bool | None) -> bool | None:  # noqa: FBT001 (it is a truth value)
    return None if value is None else not value


def _any(values: list[bool | None]) -> bool | None:
    return _not(_all([_not(value) for value in values]))


_ORDER = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _pair(left: Any, kind: ast.cmpop, right: Any) -> bool | None:  # noqa: ANN401 (values of any column)
    if isinstance(kind, ast.In | ast.NotIn):
        if isinstance(right, frozenset):
            found = (left in right) if right else None
        else:
            found = None if left is None else left in right
        return found if isinstance(kind, ast.In) else _not(found)
    if left is None or right is None:
        return None
    return bool(_ORDER[type(kind)](left, right))


def _choice(node: ast.IfExp, row: dict[str, Any]) -> Any:  # noqa: ANN401 (a number, a truth value or None)
    chosen = reference(node.test, row)
    if chosen is not None:
        return reference(node.body if chosen else node.orelse, row)
    # An unknown test leaves a condition false only where both branches are.
    both_false = reference(node.body, row) is False and reference(node.orelse, row) is False
    return False if both_false else None


def _comparison(node: ast.Compare, row: dict[str, Any]) -> bool | None:
    sides = [reference(side, row) for side in (node.left, *node.comparators)]
    return _all([_pair(a, kind, b) for a, kind, b in zip(sides, node.ops, sides[1:], strict=False)])


def _unary(kind: ast.unaryop, value: Any) -> Any:  # noqa: ANN401 (a number, a truth value or None)
    if value is None:
        return None
    return (not value) if isinstance(kind, ast.Not) else -value


def reference(node: ast.expr, row: dict[str, Any]) -> Any:  # noqa: ANN401, PLR0911 (one line for each sort of node)
    """Evaluate one node for one row, in plain Python."""
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return row[name]
        case ast.Tuple(items):
            return tuple(reference(item, row) for item in items)
        case ast.UnaryOp(kind, operand):
            return _unary(kind, reference(operand, row))
        case ast.BinOp(left, kind, right):
            return _arithmetic(type(kind), reference(left, row), reference(right, row))
        case ast.BoolOp(kind, values):
            return (_all if isinstance(kind, ast.And) else _any)([reference(value, row) for value in values])
        case ast.IfExp():
            return _choice(node, row)
        case ast.Compare():
            return _comparison(node, row)
        case ast.Call(function, arguments):
            return _call(ast.unparse(function), [reference(argument, row) for argument in arguments])
    raise AssertionError(ast.dump(node))


_literals = st.sampled_from(["0", "1", "2", "0.5", "100", "1e6", "3"])
_number_leaves = st.one_of(
    _literals, st.sampled_from(["ratio", "count", "amount_centavos", "payer_balance_centavos", "hour(timestamp)"])
)
_condition_leaves = st.sampled_from(
    [
        "device_registered",
        "is_night(timestamp)",
        "payer_account == receiver_account",
        "receiver_account != payer_account",
        "payer_ispb == receiver_ispb",
        'payer_ispb in ("00000000", "11111111")',
        'channel == "ATM"',
        'channel not in ("ATM", "WEB")',
        '"WEB" != channel',
        "payer_person == receiver_person",
        '"ON_CALL" in session_flags',
        '"ROOTED" not in session_flags',
        "missing(device_id)",
        "missing(session_flags)",
        "missing(channel)",
        "missing(device_registered)",
        "timestamp - dict_key_created_at < hours(2)",
        "dict_key_created_at + hours(1) >= timestamp",
        "count in (1, 2)",
    ]
)


def _deeper(numbers: st.SearchStrategy[str], conditions: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} {} {})".format, numbers, st.sampled_from("+-*/%"), numbers),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max", "coalesce"]), numbers, numbers),
        st.builds("{}({})".format, st.sampled_from(["abs", "floor", "sqrt"]), numbers),
        st.builds("-{}".format, numbers),
        st.builds("clip({}, 0, {})".format, numbers, numbers),
        st.builds("indicator({})".format, conditions),
        st.builds("({} if {} else {})".format, numbers, conditions, numbers),
    )


def _conditions(numbers: st.SearchStrategy[str], conditions: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    comparison = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    return st.one_of(
        st.builds("({} {} {})".format, numbers, comparison, numbers),
        st.builds("({} {} {} {} {})".format, numbers, comparison, numbers, comparison, numbers),
        st.builds("({} {} {})".format, conditions, st.sampled_from(["and", "or"]), conditions),
        st.builds("(not {})".format, conditions),
        st.builds("missing({})".format, st.one_of(numbers, conditions)),
        st.builds("({} if {} else {})".format, conditions, conditions, conditions),
    )


NUMBERS, TRUTHS = _number_leaves, _condition_leaves
for _ in range(2):
    NUMBERS, TRUTHS = (
        st.one_of(_number_leaves, _deeper(NUMBERS, TRUTHS)),
        st.one_of(_condition_leaves, _conditions(NUMBERS, TRUTHS)),
    )

_maybe = st.sampled_from
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "ratio": _maybe([None, 0.0, -1.5, 0.5, 2.0, 1e300]),
            "count": _maybe([None, 0.0, 1.0, 2.0, 3.0]),
            "amount_centavos": _maybe([1, 100, 10**13]),
            "payer_balance_centavos": _maybe([None, 0, 100]),
            "timestamp": _maybe([MONDAY_0030_MS, MONDAY_0030_MS + 12 * HOUR_MS]),
            "dict_key_created_at": _maybe([None, MONDAY_0030_MS, MONDAY_0030_MS - HOUR_MS]),
            "device_registered": _maybe([None, True, False]),
            "payer_account": _maybe([7, 9]),
            "receiver_account": _maybe([7, 9]),
            "device_id": _maybe([None, 5]),
            "payer_ispb": _maybe(["00000000", "22222222"]),
            "receiver_ispb": _maybe(["00000000", "22222222"]),
            "channel": _maybe([None, "ATM", "MOBILE"]),
            "payer_person": _maybe([None, "NATURAL"]),
            "receiver_person": _maybe([None, "NATURAL", "LEGAL"]),
            "session_flags": _maybe([frozenset(), frozenset({"ON_CALL"}), frozenset({"ROOTED", "ON_CALL"})]),
        }
    ),
    min_size=1,
    max_size=4,
)


def stored(rows: list[dict[str, Any]]) -> dict[str, Array]:
    """Return rows as the columns that a decoder makes of them: sentinels for None, codes for names."""
    columns = {}
    for name in rows[0]:
        column = COLUMNS[name]
        values: list[Any] = [row[name] for row in rows]
        if column.kind is ColumnKind.ENUM:
            values = [0 if value is None else column.values.index(value) + 1 for value in values]
        elif column.kind is ColumnKind.FLAGS:
            values = [sum(1 << column.values.index(flag) for flag in value) for value in values]
        elif column.kind is ColumnKind.NUMBER and column.missing is None:
            values = [math.nan if value is None else value for value in values]
        else:
            values = [column.missing if value is None else value for value in values]
        dtype = (
            TRANSACTION_DTYPE[name]
            if name in (TRANSACTION_DTYPE.names or ())
            else np.float32
            if name == "count"
            else "f8"
        )
        columns[name] = np.array(values, dtype)
    return columns


@settings(max_examples=400, deadline=None)
@given(st.one_of(NUMBERS, TRUTHS), ROWS)
def test_array_code_agrees_with_the_scalar_reference(text: str, rows: list[dict[str, Any]]) -> None:
    """Any expression gives on a batch what plain Python gives row by row; unknown and missing included."""
    expression = compile_expression(text, COLUMNS)
    values = expression.evaluate(stored(rows), len(rows))
    expected = [reference(ast.parse(text, mode="eval").body, row) for row in rows]
    if expression.kind is ColumnKind.CONDITION:
        assert values.dtype == np.bool_
        assert values.tolist() == [value is True for value in expected]
    else:
        np.testing.assert_array_equal(values, [math.nan if value is None else float(value) for value in expected])


@settings(max_examples=100, deadline=None)
@given(TRUTHS, ROWS)
def test_a_condition_and_its_negation_are_never_both_true(text: str, rows: list[dict[str, Any]]) -> None:
    """Where neither holds, the condition is unknown, and `missing` says so: exactly one of the three is true."""
    columns = stored(rows)
    masks = [
        compile_expression(form, COLUMNS).evaluate(columns, len(rows)).astype(int)
        for form in (text, f"not {text}", f"missing({text})")
    ]
    assert np.sum(masks, axis=0).tolist() == [1] * len(rows)

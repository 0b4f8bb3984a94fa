"""Derived features against a naive evaluation: one row at a time, plain Python numbers, None for missing."""

from __future__ import annotations

import ast
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.fields import FIELDS, MISSING, TRANSACTION_DTYPE, Kind
from tables.catalog import CATALOG

Value = float | bool | bytes | None

FIELD = {field.name: field for field in FIELDS}
FUNCTIONS = {"min": min, "max": max, "log1p": math.log1p, "days": lambda x: x * 86_400_000}
CALENDAR = ("hour_sin", "hour_cos", "day_of_month")


def local(timestamp: int) -> datetime:
    """Return the wall clock in Brasilia."""
    return datetime.fromtimestamp(timestamp / 1000, UTC) - timedelta(hours=3)


def calendar(name: str, timestamp: int) -> float:
    """Return what the calendar says."""
    at = local(timestamp)
    if name == "day_of_month":
        return at.day
    angle = (at - at.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(days=1) * 2 * math.pi
    return math.sin(angle) if name == "hour_sin" else math.cos(angle)


class Row:
    """One transaction with its base features.

    Parameters
    ----------
    transaction
        TRANSACTION_DTYPE, one row.
    features
        Base features by name.
    """

    def __init__(self, transaction: np.void, features: dict[str, float]) -> None:
        self.transaction = transaction
        self.features = features

    def evaluate(self, node: ast.expr) -> Value:
        """Return the value of an expression, None where it is missing or unknown."""
        return getattr(self, f"_{type(node).__name__.lower()}")(node)  # type: ignore[no-any-return]

    def _constant(self, node: ast.Constant) -> Any:  # noqa: ANN401 (number or text)
        return node.value

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in self.features:
            value = self.features[name]
            return None if math.isnan(value) else value
        if name in CALENDAR:
            return calendar(name, int(self.transaction["timestamp"]))
        raw = self.transaction[name].item()
        if raw == MISSING[FIELD[name].kind] or (isinstance(raw, float) and math.isnan(raw)):
            return None
        if FIELD[name].kind is Kind.BOOLEAN:
            return bool(raw)
        return raw  # type: ignore[no-any-return]

    def _binop(self, node: ast.BinOp) -> Value:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            return None
        if isinstance(node.op, ast.Div | ast.Mod) and right == 0:
            return None
        operator = {ast.Add: "__add__", ast.Sub: "__sub__", ast.Mult: "__mul__", ast.Div: "__truediv__"}
        if isinstance(node.op, ast.Mod):
            return math.fmod(left, right)
        return float(getattr(float(left), operator[type(node.op)])(float(right)))

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.evaluate(node.operand)
        return None if value is None else not value

    def _compare(self, node: ast.Compare) -> Value:
        (operator,), (right_node,) = node.ops, node.comparators
        if isinstance(operator, ast.In) and isinstance(right_node, ast.Tuple):
            return self._is_one_of(node.left, [element.value for element in right_node.elts])  # type: ignore[attr-defined]
        if isinstance(operator, ast.In):  # a flag
            field = FIELD[right_node.id]  # type: ignore[attr-defined]
            bits = int(self.transaction[field.name])
            return bool(bits >> field.values.index(node.left.value) & 1) if bits else None  # type: ignore[attr-defined]
        if isinstance(right_node, ast.Constant) and isinstance(right_node.value, str):
            return self._is_one_of(node.left, [right_node.value])
        left, right = self.evaluate(node.left), self.evaluate(right_node)
        if left is None or right is None:
            return None
        return bool(left == right if isinstance(operator, ast.Eq) else left > right)  # type: ignore[operator]

    def _is_one_of(self, node: ast.expr, names: list[Any]) -> Value:
        code = self.evaluate(node)
        if code is None:
            return None
        return FIELD[node.id].values[int(code) - 1] in names  # type: ignore[attr-defined]

    def _call(self, node: ast.Call) -> Value:
        name = node.func.id  # type: ignore[attr-defined]
        if name == "is_night":
            hour = local(int(self.transaction["timestamp"])).hour
            return hour >= 20 or hour < 6
        if name == "weekday":
            return local(int(self.transaction["timestamp"])).weekday()
        values = [self.evaluate(argument) for argument in node.args]
        if None in values:
            return None
        if name in ("indicator", "length"):
            return float(values[0])  # type: ignore[arg-type]
        return float(FUNCTIONS[name](*values))  # type: ignore[operator]


def drawn_value(kind: Kind, values: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Return a strategy for a column of a kind, missing included."""
    some: dict[Kind, st.SearchStrategy[Any]] = {
        Kind.CENTAVOS: st.sampled_from((0, 1, 50_00, 100_00, 1000_00, 10**13)),
        Kind.TIMESTAMP: st.integers(1_577_836_800_000, 1_900_000_000_000),
        Kind.ISPB: st.sampled_from((b"00000000", b"18236120")),
        Kind.END_TO_END_ID: st.just(b"E"),
        Kind.ENUM: st.integers(1, max(len(values), 1)),
        Kind.FLAGS: st.integers(0, 2 ** len(values) - 1),
        Kind.BOOLEAN: st.sampled_from((0, 1)),
        Kind.NUMBER: st.floats(-90, 90),
        Kind.COUNT: st.integers(0, 1000),
        Kind.TEXT: st.integers(0, 140),
    }
    return st.one_of(st.just(MISSING[kind]), some.get(kind, st.integers(1, 2)))


TRANSACTIONS = st.fixed_dictionaries({field.name: drawn_value(field.kind, field.values) for field in FIELDS})
BASE = [entry for entry in CATALOG.entries if entry.stage != "derived"]
NUMBERS = st.sampled_from((math.nan, 0.0, 1.0, 2.0, 50_00.0, 123_456.0, 1e9))


@settings(max_examples=60, deadline=None)
@given(
    drawn=TRANSACTIONS,
    timestamp=st.integers(1_577_836_800_000, 1_900_000_000_000),
    seed=st.integers(0, 2**32),
    numbers=st.lists(NUMBERS, min_size=5, max_size=5),
)
def test_derived_features_are_their_expressions(
    drawn: dict[str, Any], timestamp: int, seed: int, numbers: list[float]
) -> None:
    """Every derived feature of the catalog, on any transaction, missing fields and missing features included."""
    transactions = np.zeros(1, TRANSACTION_DTYPE)
    for name, value in {**drawn, "timestamp": timestamp}.items():
        transactions[name] = value
    base = np.random.default_rng(seed).choice(numbers, (1, len(BASE))).astype(np.float32)
    width = len(CATALOG.positions("receiver"))
    vector = CATALOG.vector(base[:, :width], base[:, width:], transactions)
    assert vector.dtype == np.float32
    assert vector[:, : len(BASE)].tobytes() == base.tobytes()
    row = Row(transactions[0], dict(zip([entry.name for entry in BASE], base[0].tolist(), strict=True)))
    for position, declared in enumerate(CATALOG.derived, len(BASE)):
        expected = row.evaluate(ast.parse(declared.expression, mode="eval").body)
        found = float(vector[0, position])
        if expected is None:
            assert math.isnan(found), declared.name
        else:
            assert found == pytest.approx(float(np.float32(expected)), rel=2e-7, abs=1e-12), declared.name

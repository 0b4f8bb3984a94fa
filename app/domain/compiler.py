"""Checks an expression's tree against typed columns and turns it into array code.

Each node becomes a `Term`: its type, and a function from a batch to an array. The grammar and the meaning of missing
values are described in `app.domain.expression`.
"""

from __future__ import annotations

import ast
import difflib
from functools import singledispatchmethod
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from app.domain.columns import Array, Batch, ColumnKind, ColumnType
from app.domain.functions import ARITHMETIC, COMPARISONS, FORMS, FUNCTIONS, finite, hour
from app.domain.terms import CONDITION, Term, applied, both, either, equal_codes, literal, negated, once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from app.domain.terms import Evaluate

__all__ = ["LISTABLE", "LISTS", "Compiler", "ExpressionError"]

MAX_LITERAL = 2.0**53
"""Beyond it float64 does not hold every integer."""

LISTS = ("allow", "deny", "watch")
LISTABLE = ("account", "key", "device")
"""What an entry of a list names: the `ColumnType.identifies` that `listed` takes."""

_NIGHT_FROM_HOUR, _NIGHT_UNTIL_HOUR = 20, 6
"""Resolution BCB 142/2021: the night is 20:00 to 06:00, Brasília."""

_NUMBER = ColumnType(ColumnKind.NUMBER)
_TIMESTAMP = ColumnType(ColumnKind.TIMESTAMP)
_ORDERED = (ColumnKind.NUMBER, ColumnKind.TIMESTAMP)
_CODED = (ColumnKind.ENUM, ColumnKind.TEXT, ColumnKind.IDENTIFIER)

_HINTS: dict[ColumnKind, str] = {
    ColumnKind.NUMBER: "compare it, as in x > 0",
    ColumnKind.CONDITION: "indicator(condition) is 1 or 0; combine conditions with and, or, not",
    ColumnKind.TIMESTAMP: "subtract two timestamps, or use hour(x), is_night(x)",
    ColumnKind.ENUM: 'compare it with one of its values, as in x == "VALUE"',
    ColumnKind.FLAGS: 'ask for one flag, as in "FLAG" in x',
    ColumnKind.TEXT: 'compare it, as in x == "00000000"',
    ColumnKind.LENGTH: "only its length is kept: length(x)",
    ColumnKind.IDENTIFIER: 'compare it with another identifier, or use listed("deny", x)',
}


class ExpressionError(ValueError):
    """Says where an expression is wrong, what was expected there, what was found, and how to mend it.

    Parameters
    ----------
    position
        Index of the first wrong character.
    expected, got
        What should stand there, and what does.
    hint
        How to mend it, where that is known.
    """

    def __init__(self, position: int, expected: str, got: str, hint: str = "") -> None:
        self.position, self.expected, self.got, self.hint = position, expected, got, hint
        super().__init__(f"character {position + 1}: expected {expected}, got {got}{f' ({hint})' if hint else ''}")


def _closest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else ""


def _finite(function: Callable[..., Array], *arguments: Evaluate) -> Evaluate:
    value = applied(function, arguments)
    return lambda batch: finite(value(batch))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


class Compiler:
    """Checks the nodes of one expression and collects the names that they read.

    Parameters
    ----------
    source
        The text that the nodes' positions refer to.
    columns
        Type of each column that may be named.
    """

    def __init__(self, source: str, columns: Mapping[str, ColumnType]) -> None:
        self.source = source
        self.columns = columns
        self.names: set[str] = set()
        self._forms: dict[str, Callable[[ast.Call], Term]] = {
            "missing": self._missing,
            "coalesce": self._coalesce,
            "indicator": self._indicator,
            "is_night": self._is_night,
            "listed": self._listed,
        }

    def term(self, node: ast.expr) -> Term:
        """Return the checked term of a node, which a batch evaluates once however often it occurs.

        Raises
        ------
        ExpressionError
            Where the node or one below it is not of the language.
        """
        checked = self._check(node)
        if isinstance(node, ast.Constant | ast.Name):
            return checked
        key = ast.dump(node)
        if checked.type.kind is not ColumnKind.CONDITION:
            return Term(checked.type, once(key, checked.value))
        return Term(checked.type, once(key, checked.value), once(f"not {key}", checked.false))

    @singledispatchmethod
    def _check(self, node: ast.expr) -> Term:
        self._refuse(node, "a number, a column, a comparison, and/or/not, if-else or a function")

    def wrong_type(self, node: ast.expr, expected: str, term: Term) -> NoReturn:
        """Refuse a node whose term is well formed but of another type."""
        kind = term.type.kind
        self._refuse(node, expected, f"the {kind} {self._text(node)}", _HINTS[kind])

    def _text(self, node: ast.expr) -> str:
        text = self.source[node.col_offset : node.end_col_offset]
        return text if len(text) <= 60 else f"{text[:57]}..."

    def _refuse(self, node: ast.expr, expected: str, got: str = "", hint: str = "") -> NoReturn:
        raise ExpressionError(node.col_offset, expected, got or self._text(node), hint)

    def _of_kind(self, node: ast.expr, *kinds: ColumnKind) -> Term:
        term = self.term(node)
        if term.type.kind not in kinds:
            self.wrong_type(node, " or ".join(f"a {kind}" for kind in kinds), term)
        return term

    def _condition(self, node: ast.expr) -> Term:
        return self._of_kind(node, ColumnKind.CONDITION)

    @_check.register
    def _constant(self, node: ast.Constant) -> Term:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(node, "a number", hint="a text stands only beside ==, != or in; true is the column itself")
        if not abs(value) <= MAX_LITERAL:
            self._refuse(node, "a number up to 2**53")
        return Term(_NUMBER, literal(np.asarray(value, np.float64)))

    def _column(self, name: str, node: ast.expr) -> ColumnType:
        column = self.columns.get(name)
        if column is None:
            self._refuse(node, "a known column", repr(name), _closest(name, list(self.columns)))
        self.names.add(name)
        return column

    @_check.register
    def _name(self, node: ast.Name) -> Term:
        name, column = node.id, self._column(node.id, node)
        if column.kind is ColumnKind.CONDITION:
            return Term(column, lambda b: b.load(name, column) == 1, lambda b: b.load(name, column) == 0)
        return Term(column, lambda b: b.load(name, column))

    @_check.register
    def _arithmetic(self, node: ast.BinOp) -> Term:
        operator = ARITHMETIC.get(type(node.op))
        if operator is None:
            self._refuse(node, "one of + - * / %")
        left, right = self._of_kind(node.left, *_ORDERED), self._of_kind(node.right, *_ORDERED)
        kinds = (type(node.op), left.type.kind, right.type.kind)
        timestamp, number = ColumnKind.TIMESTAMP, ColumnKind.NUMBER
        if kinds[1:] == (number, number) or kinds == (ast.Sub, timestamp, timestamp):
            result = _NUMBER
        elif kinds in ((ast.Add, timestamp, number), (ast.Sub, timestamp, number), (ast.Add, number, timestamp)):
            result = _TIMESTAMP
        else:
            self._refuse(
                node, "numbers", hint="of timestamps: t - t is milliseconds, t + days(1) and t - days(1) times"
            )
        return Term(result, _finite(operator, left.value, right.value))

    @_check.register
    def _unary(self, node: ast.UnaryOp) -> Term:
        if isinstance(node.op, ast.Not):
            return negated(self._condition(node.operand))
        if not isinstance(node.op, ast.USub):
            self._refuse(node, "- or not")
        return Term(_NUMBER, applied(np.negative, (self._of_kind(node.operand, ColumnKind.NUMBER).value,)))

    @_check.register
    def _boolean(self, node: ast.BoolOp) -> Term:
        terms = [self._condition(value) for value in node.values]
        return both(terms) if isinstance(node.op, ast.And) else either(terms)

    @_check.register
    def _choice(self, node: ast.IfExp) -> Term:
        test, then = self._condition(node.test), self._of_kind(node.body, *_ORDERED, ColumnKind.CONDITION)
        other = self._of_kind(node.orelse, then.type.kind)
        if then.type.kind is ColumnKind.CONDITION:
            return either([both([test, then]), both([negated(test), other])])
        # An unknown test chooses neither: the value is missing.
        return Term(
            then.type,
            lambda b: np.where(test.value(b), then.value(b), np.where(test.false(b), other.value(b), np.nan)),
        )

    @_check.register
    def _comparison(self, node: ast.Compare) -> Term:
        lefts = [node.left, *node.comparators[:-1]]
        return both([self._pair(*pair) for pair in zip(lefts, node.ops, node.comparators, strict=True)])

    def _pair(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Term:
        if isinstance(operator, ast.In | ast.NotIn):
            term = self._member(left, right)
            return negated(term) if isinstance(operator, ast.NotIn) else term
        if isinstance(operator, ast.Is | ast.IsNot):
            self._refuse(left, "== or !=", "is", "a missing value is found by missing(x)")
        if _is_text(left):
            left, right = right, left  # texts know == and != only, which are symmetric
        a = self.term(left)
        if a.type.kind in _ORDERED:
            true, false = COMPARISONS[type(operator)]
            values = (a.value, self._of_kind(right, a.type.kind).value)
            return Term(CONDITION, applied(true, values), applied(false, values))
        if a.type.kind not in _CODED:
            self.wrong_type(left, "something that can be compared", a)
        if not isinstance(operator, ast.Eq | ast.NotEq):
            self._refuse(left, f"== or != beside the {a.type.kind} {self._text(left)}", type(operator).__name__)
        term = equal_codes(a.value, self._same_type(right, a).value, a.type.missing)
        return negated(term) if isinstance(operator, ast.NotEq) else term

    def _same_type(self, node: ast.expr, other: Term) -> Term:
        """Return a term to compare with another: a literal as its code, or a column of the same type."""
        column = other.type
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return Term(column, literal(self._code(node, node.value, column)))
        term = self.term(node)
        if (term.type.kind, term.type.values, term.type.identifies) != (column.kind, column.values, column.identifies):
            what = f"{column.identifies} {column.kind}".strip()
            self._refuse(
                node, f"another {what}", f"the {f'{term.type.identifies} {term.type.kind}'.strip()} {self._text(node)}"
            )
        return term

    def _code(self, node: ast.expr, text: str, column: ColumnType) -> Array:
        if column.kind is ColumnKind.TEXT and text:
            return np.asarray(text.encode("ascii"))
        if column.kind is not ColumnKind.ENUM:
            self._refuse(node, f"something comparable with a {column.kind}", hint=_HINTS[column.kind])
        if text not in column.values:
            self._refuse(node, f"one of {', '.join(column.values)}", hint=_closest(text, column.values))
        return np.asarray(column.values.index(text) + 1, np.uint8)

    def _member(self, left: ast.expr, right: ast.expr) -> Term:
        if isinstance(left, ast.Constant) and isinstance(left.value, str):
            return self._flag(left, left.value, right)
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            self._refuse(right, 'a list of literals, as in initiation in ("MANU", "QRES")')
        for element in right.elts:
            if not isinstance(element, ast.Constant):
                self._refuse(element, "a literal")
        return either([self._pair(left, ast.Eq(), element) for element in right.elts])

    def _flag(self, node: ast.expr, flag: str, right: ast.expr) -> Term:
        term = self._of_kind(right, ColumnKind.FLAGS)
        values, load = term.type.values, term.value
        if flag not in values:
            self._refuse(node, f"one of {', '.join(values)}", hint=_closest(flag, values))
        bit = np.uint32(1 << values.index(flag))
        return Term(CONDITION, lambda b: (load(b) & bit) != 0, lambda b: (load(b) != 0) & ((load(b) & bit) == 0))

    @_check.register
    def _call(self, node: ast.Call) -> Term:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        form, function = self._forms.get(name), FUNCTIONS.get(name)
        if node.keywords:
            self._refuse(node.keywords[0].value, "no keyword arguments")
        if form is not None:
            return form(node)
        if function is None:
            known = [*FUNCTIONS, *FORMS]
            self._refuse(node.func, f"one of {', '.join(known)}", hint=_closest(name, known))
        takes = function.takes
        if function.variadic:
            takes += takes[-1:] * (len(node.args) - len(takes))
        self._count(node, len(takes))
        arguments = [self._of_kind(argument, kind).value for argument, kind in zip(node.args, takes, strict=True)]
        return Term(_NUMBER, _finite(function.apply, *arguments))

    def _count(self, node: ast.Call, expected: int) -> None:
        if len(node.args) != expected:
            self._refuse(node, f"{expected} argument{'s' * (expected != 1)}", str(len(node.args)))

    def _missing(self, node: ast.Call) -> Term:
        self._count(node, 1)
        term = self.term(node.args[0])
        value, false, missing = term.value, term.false, term.type.missing
        if term.type.kind is ColumnKind.CONDITION:
            return Term(CONDITION, lambda b: ~(value(b) | false(b)), lambda b: value(b) | false(b))
        if term.type.kind in (*_CODED, ColumnKind.FLAGS):
            return Term(CONDITION, lambda b: value(b) == missing, lambda b: value(b) != missing)
        return Term(CONDITION, lambda b: np.isnan(value(b)), lambda b: ~np.isnan(value(b)))

    def _coalesce(self, node: ast.Call) -> Term:
        self._count(node, 2)
        term = self._of_kind(node.args[0], *_ORDERED)
        value, default = term.value, self._of_kind(node.args[1], term.type.kind).value

        def coalesce(batch: Batch) -> Array:
            values = value(batch)
            return np.where(np.isnan(values), default(batch), values)

        return Term(term.type, coalesce)

    def _indicator(self, node: ast.Call) -> Term:
        self._count(node, 1)
        term = self._condition(node.args[0])
        return Term(_NUMBER, lambda b: np.where(term.value(b), 1.0, np.where(term.false(b), 0.0, np.nan)))

    def _is_night(self, node: ast.Call) -> Term:
        self._count(node, 1)
        clock = applied(hour, (self._of_kind(node.args[0], ColumnKind.TIMESTAMP).value,))
        return Term(
            CONDITION,
            lambda b: (clock(b) >= _NIGHT_FROM_HOUR) | (clock(b) < _NIGHT_UNTIL_HOUR),
            lambda b: (clock(b) < _NIGHT_FROM_HOUR) & (clock(b) >= _NIGHT_UNTIL_HOUR),
        )

    def _listed(self, node: ast.Call) -> Term:
        self._count(node, 2)
        which = node.args[0]
        if not (isinstance(which, ast.Constant) and which.value in LISTS):
            self._refuse(which, f"the name of a list, one of {', '.join(LISTS)}")
        term, name = self._of_kind(node.args[1], ColumnKind.IDENTIFIER), str(which.value)
        sort, missing = term.type.identifies, term.type.missing
        if sort not in LISTABLE:
            self._refuse(node.args[1], "an account, key or device", f"the {sort} identifier {self._text(node.args[1])}")
        clock = self._column("timestamp", node)  # an entry may expire

        def on_list(b: Batch) -> Array:
            return b.listed(name, sort, term.value(b), b.load("timestamp", clock))

        return Term(
            CONDITION,
            lambda b: on_list(b) & (term.value(b) != missing),
            lambda b: ~on_list(b) & (term.value(b) != missing),
        )

"""Terms: checked subexpressions as array code, and Kleene's connectives on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.domain.columns import Array, Batch, ColumnKind, ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Evaluate = Callable[[Batch], Array]

__all__ = ["CONDITION", "Term", "applied", "both", "either", "equal_codes", "literal", "negated", "once"]

CONDITION = ColumnType(ColumnKind.CONDITION)


@dataclass(frozen=True, slots=True)
class Term:
    """A checked subexpression; of a condition, `value` is the mask "surely true" and `false` "surely false"."""

    type: ColumnType
    value: Evaluate
    false: Evaluate = lambda _batch: np.zeros((), np.bool_)


def literal(value: Array) -> Evaluate:
    """Return a scalar as array code."""
    return lambda _batch: value


def once(key: str, evaluate: Evaluate) -> Evaluate:
    """Return array code that a batch runs once per key, so that the cost of an expression is linear in its nodes.

    Both masks of a condition may be asked for, and each asks for its operands: without this, nesting doubles the work.
    Rules that share a subexpression share its result too.
    """

    def recall(batch: Batch) -> Array:
        values = batch.results.get(key)
        if values is None:
            values = batch.results[key] = evaluate(batch)
        return values

    return recall


def both(terms: Sequence[Term]) -> Term:
    """Return `and` of conditions: true where all are true, false where one is false."""
    if len(terms) == 1:
        return terms[0]
    return Term(CONDITION, _all_true([term.value for term in terms]), _one_true([term.false for term in terms]))


def either(terms: Sequence[Term]) -> Term:
    """Return `or` of conditions, by De Morgan."""
    return negated(both([negated(term) for term in terms]))


def negated(term: Term) -> Term:
    """Return `not`: the two masks change places, so unknown stays unknown."""
    return Term(CONDITION, term.false, term.value)


def _all_true(masks: Sequence[Evaluate]) -> Evaluate:
    first, *rest = masks

    def conjunction(batch: Batch) -> Array:
        result = first(batch)
        for mask in rest:
            result = np.logical_and(result, mask(batch))
        return result

    return conjunction


def _one_true(masks: Sequence[Evaluate]) -> Evaluate:
    first, *rest = masks

    def disjunction(batch: Batch) -> Array:
        result = first(batch)
        for mask in rest:
            result = np.logical_or(result, mask(batch))
        return result

    return disjunction


def applied(function: Callable[..., Array], arguments: Sequence[Evaluate]) -> Evaluate:
    """Return the function of its arguments as array code."""
    return lambda batch: function(*(argument(batch) for argument in arguments))


def equal_codes(left: Evaluate, right: Evaluate, missing: int | bytes | None) -> Term:
    """Return whether two codes, texts or identifiers are the same; unknown where one is the missing sentinel."""

    def true(batch: Batch) -> Array:
        a, b = left(batch), right(batch)
        same: Array = np.logical_and(a == b, a != missing)
        return same

    def false(batch: Batch) -> Array:
        a, b = left(batch), right(batch)
        differ: Array = np.logical_and(a != b, np.logical_and(a != missing, b != missing))
        return differ

    return Term(CONDITION, true, false)

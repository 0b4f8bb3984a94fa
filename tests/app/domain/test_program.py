"""Programs of many expressions, held against the array code that they come from, which has a reference of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_expression_reference import COLUMNS, NUMBERS, ROWS, TRUTHS, stored

from app.domain.columns import ColumnKind
from app.domain.expression import compile_expression
from app.domain.program import trace
from app.domain.program_kernel import BLOCK


def _evaluate(texts: list[str], columns: dict[str, Any], n: int, **options: object) -> list[np.ndarray]:
    expressions = [compile_expression(text, COLUMNS) for text in texts]
    numbers = [one for one in expressions if one.kind is not ColumnKind.CONDITION]
    conditions = [one for one in expressions if one.kind is ColumnKind.CONDITION]
    program = trace([one.array_code for one in numbers], [one.array_code for one in conditions])
    values, masks = np.empty((n, len(numbers)), np.float32), np.empty((len(conditions), n), np.bool_)
    for _ in range(2):  # its registers keep what the first run left
        program.run(columns, n, numbers=values, masks=masks, **options)
    results = {one.text: values[:, place] for place, one in enumerate(numbers)}
    results |= {one.text: masks[place] for place, one in enumerate(conditions)}
    return [results[text] for text in texts]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(NUMBERS, TRUTHS), min_size=1, max_size=6), ROWS, st.sampled_from([1, BLOCK // 2, BLOCK + 1]))
def test_a_program_gives_what_each_expression_gives(texts: list[str], rows: list[dict[str, Any]], times: int) -> None:
    """Whatever expressions share registers and subexpressions, and over however many blocks."""
    columns = stored(rows * times)
    n = len(rows) * times
    for text, values in zip(texts, _evaluate(texts, columns, n), strict=True):
        with np.errstate(over="ignore"):
            expected = compile_expression(text, COLUMNS).evaluate(columns, n)
            np.testing.assert_array_equal(values, expected.astype(values.dtype), text)


def test_an_expression_that_another_one_reads_keeps_its_value() -> None:
    """A result that is stored early and read again later is not overwritten in between."""
    texts = ["amount_centavos > 5", "ratio > 1 and ratio < 3", "amount_centavos > 5 and ratio > 1 and ratio < 3"]
    columns = {"amount_centavos": np.array([1, 9, 9]), "ratio": np.array([2.0, 2.0, 5.0])}
    expressions = [compile_expression(text, COLUMNS) for text in texts]
    masks = np.empty((3, 3), np.bool_)
    trace(conditions=[one.array_code for one in expressions]).run(columns, 3, masks=masks)
    assert masks.tolist() == [[False, True, True], [True, True, False], [False, True, False]]


def test_lists_are_asked_with_hashes_and_times() -> None:
    """Membership is decided outside the machine, for each row."""

    def listed(name: str, sort: str, hashes: np.ndarray, event_ms: np.ndarray) -> np.ndarray:
        assert (name, sort) == ("deny", "account")
        return (hashes == 7) & (event_ms < 100)

    columns = {"receiver_account": np.array([7, 7, 8, 0], np.uint64), "timestamp": np.array([50, 150, 50, 50])}
    texts = ['listed("deny", receiver_account)', 'not listed("deny", receiver_account)']
    on, off = _evaluate(texts, columns, 4, listed=listed)
    assert on.tolist() == [True, False, False, False]
    assert off.tolist() == [False, True, True, False]


def test_a_column_of_another_length_is_refused() -> None:
    """The machine reads by address: what it is told of lengths must be true."""
    program = trace([compile_expression("amount_centavos + 1", COLUMNS).array_code])
    with pytest.raises(ValueError, match=r"column amount_centavos: expected shape \(3,\), got \(1,\)"):
        program.run({"amount_centavos": np.ones(1, np.int64)}, 3, numbers=np.empty((3, 1), np.float32))


def test_what_has_no_instruction_is_refused_when_the_program_is_made() -> None:
    """Array code may only use what the machine can do."""
    number = COLUMNS["amount_centavos"]
    with pytest.raises((TypeError, KeyError)):
        trace([lambda batch: np.cumsum(batch.load("amount_centavos", number))])

"""The expression language: missing values, types, time, lists, errors and limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.columns import Array, Batch, ColumnKind, ColumnType, transaction_columns
from app.domain.compiler import MAX_LITERAL, Compiler
from app.domain.expression import MAX_DEPTH, MAX_LENGTH, Expression, ExpressionError, compile_expression
from app.domain.fields import FIELDS, TRANSACTION_DTYPE
from app.domain.functions import FORMS, FUNCTIONS

NUMBER = ColumnType(ColumnKind.NUMBER)
COLUMNS = {**transaction_columns(), "ratio": NUMBER, "count": NUMBER}

# 2026-03-02 was a Monday; 00:30 in Brasília is 03:30 UTC.
MONDAY_0030_MS = 1_772_422_200_000
HOUR_MS = 3_600_000


def test_rows_do_not_depend_on_the_batch() -> None:
    """A value is bit for bit the same in one batch of 1,000 and in 1,000 batches of one."""
    rng = np.random.default_rng(7)
    amounts = rng.integers(1, 10**13, 1_000)
    ratios = rng.lognormal(0, 4, 1_000)
    expression = compile_expression("log1p(amount_centavos / ratio) + sqrt(ratio) % 3", COLUMNS)
    whole = expression.evaluate({"amount_centavos": amounts, "ratio": ratios}, 1_000)
    single = [
        expression.evaluate({"amount_centavos": amounts[i : i + 1], "ratio": ratios[i : i + 1]}, 1)[0]
        for i in range(1_000)
    ]
    assert whole.tobytes() == np.array(single).tobytes()


def value_of(text: str, **row: object) -> Any:  # noqa: ANN401 (a number or a truth value)
    """Evaluate on one row of stored values."""
    columns = {name: np.array([value]) for name, value in row.items()}
    return compile_expression(text, COLUMNS).evaluate(columns, 1)[0].item()


@pytest.mark.parametrize(
    "text", ["ratio > 1", "not ratio > 1", "ratio != 1", "ratio not in (1, 2)", "not (0 < ratio < 9)"]
)
def test_a_missing_number_makes_no_condition_true(text: str) -> None:
    """Neither a comparison, nor its negation, nor `!=` holds on a missing value."""
    assert value_of(text, ratio=math.nan) is False


def test_missing_is_asked_for_by_name() -> None:
    """`missing` and `coalesce` are how an expression says what a missing value means."""
    assert value_of("missing(ratio)", ratio=math.nan) is True
    assert value_of("coalesce(ratio, 9) > 1", ratio=math.nan) is True
    assert value_of("missing(payer_balance_centavos)", payer_balance_centavos=-1) is True
    assert value_of("missing(dict_key_created_at)", dict_key_created_at=0) is True


def test_a_known_operand_can_decide_beside_an_unknown_one() -> None:
    """Unknown or true is true; unknown and false is false, so its negation holds."""
    assert value_of("ratio > 1 or count > 0", ratio=math.nan, count=1.0) is True
    assert value_of("not (ratio > 1 and count > 5)", ratio=math.nan, count=1.0) is True


@pytest.mark.parametrize(
    "text", ["1 / count", "count % 0", "0 / 0", "1e15 * ratio * ratio", "log1p(-1 - count)", "sqrt(-1)"]
)
def test_what_is_not_finite_is_missing(text: str) -> None:
    """Division by zero, overflow and arguments out of a function's domain give missing, without a warning."""
    assert math.isnan(value_of(text, count=0.0, ratio=1e300))


def test_infinite_input_is_missing() -> None:
    """A column never brings an infinity into an expression."""
    assert value_of("missing(ratio)", ratio=math.inf) is True


@pytest.mark.parametrize(
    ("hours_later", "hour", "weekday", "night"),
    [(-1, 23, 6, True), (0, 0, 0, True), (5, 5, 0, True), (6, 6, 0, False), (19, 19, 0, False), (20, 20, 0, True)],
)
def test_the_clock_is_brasilia_s(hours_later: int, hour: int, weekday: int, night: bool) -> None:  # noqa: FBT001
    """Hours, days and the regulatory night follow UTC-3."""
    timestamp = MONDAY_0030_MS + hours_later * HOUR_MS
    assert value_of("hour(timestamp)", timestamp=timestamp) == hour
    assert value_of("weekday(timestamp)", timestamp=timestamp) == weekday
    assert value_of("is_night(timestamp)", timestamp=timestamp) is night


def test_centavos_up_to_the_largest_amount_are_exact() -> None:
    """One centavo more than R$ 100 billion is still more."""
    assert value_of("amount_centavos > 9999999999999", amount_centavos=10**13) is True
    assert value_of("amount_centavos > 10000000000000", amount_centavos=10**13) is False


def test_a_structured_array_is_read_by_field() -> None:
    """The decoder's records need no copying into a dict."""
    rows = np.zeros(2, TRANSACTION_DTYPE)
    rows["amount_centavos"] = 5, 50
    assert compile_expression("amount_centavos > 9", COLUMNS).evaluate(rows, 2).tolist() == [False, True]


def test_a_column_of_another_length_is_refused() -> None:
    """A short column would otherwise be broadcast silently."""
    with pytest.raises(ValueError, match=r"column ratio: expected shape \(3,\), got \(1,\)"):
        compile_expression("ratio > 1", COLUMNS).evaluate({"ratio": np.ones(1)}, 3)


def test_an_expression_lists_the_columns_that_it_reads() -> None:
    """Sorted, each once; `listed` reads the time too, because entries expire."""
    assert compile_expression("ratio + count > ratio", COLUMNS).names == ("count", "ratio")
    assert compile_expression('listed("deny", device_id)', COLUMNS).names == ("device_id", "timestamp")


def test_lists_are_asked_with_sort_and_time() -> None:
    """`listed` passes the list, what the column identifies, its hashes and the event's time; missing is unknown."""
    asked = []

    def listed(name: str, sort: str, hashes: Array, event_ms: Array) -> Array:
        asked.append((name, sort, hashes.tolist(), event_ms.tolist()))
        return np.isin(hashes, [7])

    columns = {"device_id": np.array([7, 8, 0], np.uint64), "timestamp": np.array([5, 5, 5])}
    on = compile_expression('listed("watch", device_id)', COLUMNS).evaluate(columns, 3, listed)
    off = compile_expression('not listed("watch", device_id)', COLUMNS).evaluate(columns, 3, listed)
    assert (on.tolist(), off.tolist()) == ([True, False, False], [False, True, False])
    assert asked[0] == ("watch", "device", [7, 8, 0], [5.0, 5.0, 5.0])


def test_nested_conditions_cost_no_more_than_their_nodes() -> None:
    """A condition's two masks share their operands: 12 levels of nesting do not take 2**12 evaluations."""
    text = "ratio"
    for _ in range(12):
        text = f"indicator({text} > 0)"
    batch = Batch({"ratio": np.ones(1)}, 1)
    assert compile_expression(text, COLUMNS).evaluate_batch(batch).tolist() == [1.0]
    assert len(batch.results) < 60


def test_every_field_is_typed() -> None:
    """Each transaction field, and what the decoder derives, can be asked whether it is missing."""
    columns = transaction_columns()
    rows = np.zeros(1, TRANSACTION_DTYPE)
    assert set(TRANSACTION_DTYPE.names or ()) == set(columns)
    for field in FIELDS:
        compile_expression(f"missing({field.name})", columns).evaluate(rows, 1)


def test_every_form_is_documented() -> None:
    """The documented special forms are the compiler's."""
    assert set(FORMS) == set(Compiler("", {})._forms)
    assert not set(FORMS) & set(FUNCTIONS)


@pytest.mark.parametrize(
    ("text", "character", "message"),
    [
        ("amout_centavos > 3", 1, "expected a known column, got 'amout_centavos' (did you mean amount_centavos"),
        ("ratio > 3 and  cuont > 1", 16, "got 'cuont' (did you mean count?)"),
        ("ratio and count > 1", 1, "expected a condition, got the number ratio (compare it"),
        ("device_registered + 1", 1, "got the condition device_registered (indicator(condition) is 1 or 0"),
        ("device_registered == 1", 1, "expected something that can be compared"),
        ('initiation == "MANUAL"', 15, 'got "MANUAL" (did you mean MANU?)'),
        ('initiation in ("MANU", "QR")', 24, "expected one of MANU, DICT"),
        ("initiation == channel", 15, "expected another enum, got the enum channel"),
        ("initiation == 1", 15, "expected another enum, got the number 1"),
        ('initiation < "MANU"', 1, "expected == or != beside the enum initiation, got Lt"),
        ('"ONCALL" in session_flags', 1, "(did you mean ON_CALL?)"),
        ("session_flags == 1", 1, "got the flags session_flags (ask for one flag"),
        ("payer_account == device_id", 18, "expected another account identifier, got the device identifier device_id"),
        ('payer_account == "123"', 18, 'or use listed("deny", x)'),
        ("timestamp > 5", 13, "expected a timestamp, got the number 5"),
        ("timestamp + timestamp > 5", 1, "t - t is milliseconds"),
        ("length(ratio) > 1", 8, "expected a length of a text, got the number ratio"),
        ("remittance_text > 1", 1, "only its length is kept: length(x)"),
        ('listed("black", device_id)', 8, "one of allow, deny, watch"),
        ('listed("deny", ip)', 16, "expected an account, key or device"),
        ("mx(ratio, 1) > 2", 1, "(did you mean max?)"),
        ("clip(ratio, 1) > 2", 1, "expected 3 arguments, got 2"),
        ("max(ratio) > 2", 1, "expected 2 arguments, got 1"),
        ("missing(x=ratio)", 11, "expected no keyword arguments"),
        ("ratio ** 2 > 1", 1, "expected one of + - * / %"),
        ("ratio is count", 1, "a missing value is found by missing(x)"),
        ("ratio in ()", 10, "expected a list of literals"),
        ("ratio in (count, 1)", 11, "expected a literal"),
        ("ratio > True", 9, "expected a number, got True"),
        ("ratio > 1e999", 9, "expected a number up to 2**53"),
        ("ratio > ", 9, "expected an expression"),
        ("", 1, "expected an expression"),
        ("1if ratio > 1 else 2", 1, "expected an expression"),
        ("ratio > 1 # note", 11, "YAML has comments of its own"),
        ("ratio > 1é", 10, "expected printable ASCII"),
        ("payer_ispb", 1, "expected a number or a condition, got the text payer_ispb"),
        ("timestamp", 1, "got the timestamp timestamp"),
        ("ratio.real > 1", 1, "expected a number, a column"),
        ("ratio[0] > 1", 1, "got ratio[0]"),
        ("(lambda: 1)() > 1", 2, "got lambda: 1"),
        ("[x for x in ratio] == 1", 1, "got [x for x in ratio]"),
        ('__import__("os").system("x") > 1', 1, "expected one of min, max"),
        ("(ratio := 1) > 1", 2, "got ratio := 1"),
        ("~ratio > 1", 1, "expected - or not"),
        ("-" * 100 + "1", 41, f"{MAX_DEPTH} deep"),
        ("(" * 250 + "1" + ")" * 250, 201, "too many nested parentheses"),
        ("1 + " * 300 + "1", MAX_LENGTH + 1, f"at most {MAX_LENGTH} characters"),
    ],
)
def test_errors_say_where_what_and_how_to_mend_it(text: str, character: int, message: str) -> None:
    """Each error names its first wrong character, what was expected, what was found, and often a remedy."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, COLUMNS)
    assert str(caught.value).startswith(f"character {character}: ")
    assert message in str(caught.value)


def compiled_or_refused(text: str, columns: dict[str, ColumnType]) -> Expression | ExpressionError:
    """Return the expression, or why it is none."""
    try:
        return compile_expression(text, columns)
    except ExpressionError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab()[]{}<>=!+-*/%.,:\"' \n\t_01e", max_size=60) | st.text(max_size=30))
def test_no_text_escapes_the_language(text: str) -> None:
    """Whatever is typed either compiles or is refused with an ExpressionError that points inside the text."""
    outcome = compiled_or_refused(text, {"a": NUMBER, "b": ColumnType(ColumnKind.CONDITION)})
    assert isinstance(outcome, Expression) or 0 <= outcome.position <= len(text)


def test_a_coded_column_needs_its_sentinel() -> None:
    """Without one, missing could not be told from a value."""
    with pytest.raises(ValueError, match="expected the sentinel"):
        ColumnType(ColumnKind.ENUM, values=("A",))


def test_literals_stay_exact() -> None:
    """The bound on literals is where float64 stops holding every integer."""
    assert MAX_LITERAL == 2**53
    assert MAX_LITERAL + 1 == MAX_LITERAL

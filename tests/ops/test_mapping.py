"""Mapping files: both notations mean the same, and errors say where and what was meant."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.domain.fields import FIELDS_BY_NAME
from ops import mapping as mapping_module
from ops.coercion import coercer
from ops.files import FileError, read_transactions
from ops.mapping import AmountForm, FileMapping, MappingError, TimestampForm, load_mapping

AMOUNT = FIELDS_BY_NAME["amount_centavos"]
TIMESTAMP = FIELDS_BY_NAME["timestamp"]

TOML = """
[columns]
id_transacao = "end_to_end_id"
valor = "amount_centavos"
[defaults]
payer_ispb = "12345678"
[values.payer_person]
PF = "NATURAL"
PJ = "LEGAL"
[timestamp]
format = "%d/%m/%Y %H:%M:%S"
unit = "ms"
timezone = "America/Sao_Paulo"
[amount]
unit = "reais"
decimal = ","
[session_flags]
separator = "|"
[csv]
separator = ";"
encoding = "cp1252"
"""


def test_the_documented_example_is_a_mapping_in_both_notations(tmp_path: Path) -> None:
    """The example of the module is YAML that loads, and this TOML means the same."""
    documented = (mapping_module.__doc__ or "").split("::\n", 1)[1]
    (tmp_path / "map.yaml").write_text(documented)
    (tmp_path / "map.toml").write_text(TOML)
    assert yaml.safe_load(documented) == tomllib.loads(TOML)
    assert load_mapping(tmp_path / "map.yaml") == load_mapping(tmp_path / "map.toml") != FileMapping()


def test_an_empty_mapping_is_no_mapping(tmp_path: Path) -> None:
    """A file with comments only leaves everything at its default."""
    (tmp_path / "map.yaml").write_text("# nothing yet\n")
    assert load_mapping(tmp_path / "map.yaml") == FileMapping()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colums: {}", r"no option `colums`; did you mean `columns`\?"),
        ("timestamp: {zone: UTC}", r"no option `timestamp\.zone`"),
        ("columns: {valor: amount}", r"columns\.valor: no field `amount`; did you mean"),
        ("columns: {a: initiation, b: initiation}", "more than one column becomes `initiation`"),
        ("columns: [a]", r"Expected `object`, got `array` - at `\$\.columns`"),
        ("defaults: {payer_ispb: 01234567}", r"defaults\.payer_ispb: expected a string in quotes, got int"),
        ("values: {payer_person: {PF: NATURL}}", r"values\.payer_person\.PF: .*did you mean `NATURAL`\?"),
        ("amount: {unit: real}", r"Invalid enum value 'real' - at `\$\.amount\.unit`"),
        ("timestamp: {timezone: America/SaoPaulo}", r"no zone `America/SaoPaulo`.*did you mean `America/Sao_Paulo`\?"),
        ("timestamp: {format: '%d/%m/%Y'}", r"`%d/%m/%Y` has no zone \(%z\): say timestamp\.timezone"),
        ("csv: {separator: ';;'}", r"csv\.separator: expected one character"),
        ("csv: {encoding: utf-9}", "unknown encoding: utf-9"),
        ("session_flags: {separator: ''}", "expected at least one character"),
        ("[1]", "Expected `object`, got `array`"),
        ("a: b: c", "mapping values are not allowed here"),
    ],
)
def test_errors_say_where_and_what_was_meant(tmp_path: Path, text: str, message: str) -> None:
    """The file's name stands before every message."""
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(MappingError, match=message) as caught:
        load_mapping(path)
    assert str(caught.value).startswith(str(path))


def test_an_absent_or_torn_file_is_a_mapping_error(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(MappingError, match=r"absent\.yaml"):
        load_mapping(tmp_path / "absent.yaml")
    (tmp_path / "map.toml").write_text("[columns")
    with pytest.raises(MappingError, match=r"map\.toml"):
        load_mapping(tmp_path / "map.toml")


def test_a_default_of_the_wrong_kind_is_told_before_the_first_row(tmp_path: Path) -> None:
    """A constant that no row could use is an error, not a million rejections."""
    (tmp_path / "pix.csv").write_text("a\n")
    with pytest.raises(FileError, match=r"defaults\.amount_centavos: expected amount in centavos"):
        list(read_transactions(tmp_path / "pix.csv", mapping=FileMapping(defaults={"amount_centavos": "viele"})))


@given(centavos=st.integers(-(10**13), 10**13), decimal=st.sampled_from([".", ","]), grouped=st.booleans())
def test_reais_are_read_to_the_centavo(centavos: int, decimal: Any, grouped: bool) -> None:  # noqa: ANN401, FBT001
    """However large, with or without marked thousands, as text, as decimal and as float."""
    read = coercer(AMOUNT, FileMapping(amount=AmountForm("reais", decimal)))
    exact = Decimal(centavos).scaleb(-2)
    english = f"{exact:,.2f}" if grouped else f"{exact:.2f}"
    text = english.translate(str.maketrans(",.", ".,")) if decimal == "," else english
    assert read(text) == read(exact) == read(float(exact)) == centavos


@pytest.mark.parametrize("cell", ["", "R$", "1.2345,00", "1,234.56", "12.34,5", "1,2,3", "0,001", "1e3", "٣", "--1"])
def test_what_is_no_amount_is_not_guessed(cell: str) -> None:
    """Brazilian reais with misplaced thousands, a third decimal, or in another notation."""
    with pytest.raises(ValueError, match=r"^$"):
        coercer(AMOUNT, FileMapping(amount=AmountForm("reais", ",")))(cell)


@given(moment_ms=st.integers(1_577_836_800_000, 4_102_444_799_999))
def test_times_are_read_to_the_millisecond(moment_ms: int) -> None:
    """In ISO 8601, in a format of one's own, and as a number of each unit."""
    moment = datetime.fromtimestamp(moment_ms // 1000, UTC).replace(microsecond=moment_ms % 1000 * 1000)
    assert coercer(TIMESTAMP, FileMapping())(moment.isoformat()) == moment_ms
    assert coercer(TIMESTAMP, FileMapping())(moment) == moment_ms
    form = TimestampForm(("%Y", "%d/%m/%Y %H:%M:%S.%f"), timezone="UTC")
    assert coercer(TIMESTAMP, FileMapping(timestamp=form))(moment.strftime(form.formats[1])) == moment_ms
    for unit, written in {
        "s": f"{moment_ms // 1000}.{moment_ms % 1000:03d}",
        "ms": str(moment_ms),
        "us": str(moment_ms * 1000 + 999),
        "ns": str(moment_ms * 10**6 + 999_999),
    }.items():
        mapping = FileMapping(timestamp=TimestampForm(unit=unit))  # type: ignore[arg-type]
        assert coercer(TIMESTAMP, mapping)(written) == moment_ms

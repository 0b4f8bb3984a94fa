"""A user's files as messages: nothing vanishes, nothing is guessed, memory is bounded."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.fields import FIELDS, Field, Kind
from ops.files import Chunk, Fault, FileError, file_format, read_transactions
from ops.mapping import AmountForm, CsvForm, FileMapping, FlagsForm, TimestampForm

SAO_PAULO = TimestampForm(format=("%d/%m/%Y %H:%M:%S", "%d/%m/%Y"), timezone="America/Sao_Paulo")
BASE: dict[str, Any] = {
    "end_to_end_id": "E12345678202401010000aaaaaaaaaaa",
    "timestamp": 1_714_561_234_567,
    "amount_centavos": 1234,
    "payer_account": "0001-1",
    "payer_ispb": "00000000",
    "receiver_account": "0002-2",
    "receiver_ispb": "12345678",
    "initiation": "MANU",
}


def read(path: Path, mapping: FileMapping | None = None, **options: Any) -> Chunk:  # noqa: ANN401 (of many types)
    """The whole file as one chunk."""
    whole = Chunk()
    for chunk in read_transactions(path, mapping=mapping, **options):
        for name in ("rows", "keys", "values", "ids", "times_ms"):
            getattr(whole, name).extend(getattr(chunk, name))
        whole.faults.update(chunk.faults)
    return whole


def write_csv(path: Path, rows: list[dict[str, Any]], separator: str = ",", encoding: str = "utf-8") -> Path:
    """A CSV file of these rows, whose columns are those of the first."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _texts(field: Field) -> st.SearchStrategy[str]:
    low, high = int(field.low or 0), int(field.high or 20)
    # No surrogates, which are no text, and no NUL, which CSV readers differ on.
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(letters, min_size=max(low, 1), max_size=min(high, 20))


def _integers(field: Field) -> st.SearchStrategy[int]:
    return st.integers(int(field.low or 0), 2**41 if field.high is None else int(field.high))


STRATEGIES: dict[Kind, Callable[[Field], st.SearchStrategy[Any]]] = {
    Kind.TIMESTAMP: _integers,
    Kind.CENTAVOS: _integers,
    Kind.COUNT: _integers,
    Kind.NUMBER: lambda field: st.floats(field.low, field.high).map(lambda number: number + 0.0),
    Kind.BOOLEAN: lambda _field: st.booleans(),
    Kind.ENUM: lambda field: st.sampled_from(field.values),
    Kind.FLAGS: lambda field: st.lists(st.sampled_from(field.values), min_size=1, max_size=3),
    Kind.ISPB: lambda _field: st.from_regex(r"[0-9]{8}", fullmatch=True),
    Kind.TAX_ID: lambda _field: st.from_regex(r"[0-9]{11}", fullmatch=True),
    Kind.END_TO_END_ID: lambda _field: st.from_regex(r"E[0-9]{20}[a-z]{11}", fullmatch=True),
    Kind.IDENTIFIER: _texts,
    Kind.PIX_KEY: _texts,
    Kind.TEXT: _texts,
}


MESSAGES = st.fixed_dictionaries(
    {field.name: STRATEGIES[field.kind](field) for field in FIELDS if field.required},
    optional={field.name: STRATEGIES[field.kind](field) for field in FIELDS if not field.required}
    | {"branch": st.just("0001")},
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(messages=st.lists(MESSAGES, min_size=1, max_size=4), separator=st.sampled_from(",;\t|"))
def test_csv_round_trip(tmp_path: Path, messages: list[dict[str, Any]], separator: str) -> None:
    """Whatever a message holds comes back from CSV, for every field and kind, quoted line breaks included."""
    names = list(dict.fromkeys(name for message in messages for name in message))

    def cell(message: dict[str, Any], name: str) -> str:
        value = message.get(name, "")
        return "+".join(value) if isinstance(value, list) else repr(value) if isinstance(value, float) else str(value)

    rows = [{name: cell(message, name) for name in names} for message in messages]
    mapping = FileMapping(session_flags=FlagsForm("+"), csv=CsvForm(separator))
    whole = read(write_csv(tmp_path / "pix.csv", rows, separator), mapping)
    assert [json.loads(value) for value in whole.values] == messages
    assert whole.faults == {}
    assert whole.keys == [str(message.get("pix_key", message["receiver_account"])).encode() for message in messages]


@QUICK
@given(messages=st.lists(MESSAGES, min_size=1, max_size=4), rows_per_chunk=st.integers(1, 3))
def test_parquet_round_trip(tmp_path: Path, messages: list[dict[str, Any]], rows_per_chunk: int) -> None:
    """Whatever a message holds comes back from Parquet, nulls as missing, in any division into chunks."""
    pl.DataFrame(messages, infer_schema_length=None).write_parquet(tmp_path / "pix.parquet")
    whole = read(tmp_path / "pix.parquet", chunk_rows=rows_per_chunk)
    assert [json.loads(value) for value in whole.values] == messages
    assert whole.rows == list(range(1, len(messages) + 1))
    assert whole.ids == [message["end_to_end_id"] for message in messages]
    assert whole.times_ms == [message["timestamp"] for message in messages]


@QUICK
@given(lines=st.lists(st.binary(min_size=1, max_size=30) | MESSAGES.map(lambda each: json.dumps(each).encode())))
def test_ndjson_passes_byte_for_byte(tmp_path: Path, lines: list[bytes]) -> None:
    """Without a mapping every line that is not blank is a message, whatever it holds."""
    data = b"\n".join(lines)
    (tmp_path / "pix.ndjson").write_bytes(data)
    expected = [line.strip() for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    assert read(tmp_path / "pix.ndjson").values == expected


@QUICK
@given(messages=st.lists(MESSAGES, max_size=3))
def test_ndjson_with_a_mapping_changes_only_what_it_names(tmp_path: Path, messages: list[dict[str, Any]]) -> None:
    """Values that are right already stay as they are."""
    text = "\n".join(json.dumps({"valor" if k == "amount_centavos" else k: v for k, v in m.items()}) for m in messages)
    (tmp_path / "pix.jsonl").write_text(text)
    whole = read(tmp_path / "pix.jsonl", FileMapping(columns={"valor": "amount_centavos"}))
    assert [json.loads(value) for value in whole.values] == messages


def test_a_brazilian_export(tmp_path: Path) -> None:
    """Semicolons, decimal commas, day first, Windows' encoding, an own vocabulary and a last column without a name."""
    header = "id;data;valor;conta;conta destino;ispb destino;tipo;pessoa;abertura;latitude;sinais;histórico;"
    row = f"{BASE['end_to_end_id']};01/05/2024 08:00:34;1.234,56;0001-1;0002-2;0;Manual;PF;03/02/2010;-23,55;A|B ;maçã;"
    (tmp_path / "pix.csv").write_bytes(f"{header}\r\n{row}\r\n\r\n".encode("cp1252"))
    mapping = FileMapping(
        columns={
            "id": "end_to_end_id",
            "data": "timestamp",
            "valor": "amount_centavos",
            "conta": "payer_account",
            "conta destino": "receiver_account",
            "ispb destino": "receiver_ispb",
            "tipo": "initiation",
            "pessoa": "payer_person",
            "abertura": "payer_account_opened_at",
            "sinais": "session_flags",
            "histórico": "remittance_text",
        },
        defaults={"payer_ispb": "12345678"},
        values={"initiation": {"Manual": "MANU"}, "payer_person": {"PF": "NATURAL"}},
        timestamp=SAO_PAULO,
        amount=AmountForm("reais", ","),
        csv=CsvForm(encoding="cp1252"),
    )
    whole = read(tmp_path / "pix.csv", mapping)
    assert whole.faults == {}
    assert [json.loads(value) for value in whole.values] == [
        {
            "payer_ispb": "12345678",
            "end_to_end_id": BASE["end_to_end_id"],
            "timestamp": int(datetime(2024, 5, 1, 11, 0, 34, tzinfo=UTC).timestamp() * 1000),
            "amount_centavos": 123_456,
            "payer_account": "0001-1",
            "receiver_account": "0002-2",
            "receiver_ispb": "00000000",
            "initiation": "MANU",
            "payer_person": "NATURAL",
            "payer_account_opened_at": int(datetime(2010, 2, 3, 2, tzinfo=UTC).timestamp() * 1000),  # summer time then
            "latitude": -23.55,
            "session_flags": ["A", "B"],
            "remittance_text": "maçã",
        }
    ]


def test_parquet_with_the_types_of_other_tools(tmp_path: Path) -> None:
    """Times, decimals, integer ISPBs, and the NaN that pandas writes for a missing number."""
    moment = datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            **{name: [value] for name, value in BASE.items()},
            "timestamp": [moment],
            "amount_centavos": [Decimal("0.29")],
            "payer_ispb": [360305],
            "payer_account_opened_at": [date(2020, 1, 1)],
            "dict_key_settlements_d90": [7.0],
            "dict_key_settlements_m12": [float("nan")],
            "booked_on": [date(2024, 5, 2)],
        }
    )
    frame.write_parquet(tmp_path / "pix.parquet")
    mapping = FileMapping(amount=AmountForm("reais"), timestamp=TimestampForm(timezone="UTC"))
    (value,) = read(tmp_path / "pix.parquet", mapping).values
    message = json.loads(value)
    assert "dict_key_settlements_m12" not in message
    assert message == {
        **BASE,
        "timestamp": int(moment.timestamp() * 1000),
        "amount_centavos": 29,
        "payer_ispb": "00360305",
        "payer_account_opened_at": 1_577_836_800_000,
        "dict_key_settlements_d90": 7,
        "booked_on": "2024-05-02",
    }


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("amount_centavos", "1.5.0"),
        ("amount_centavos", "12,345"),  # three decimals of a real
        ("amount_centavos", "NaN"),
        ("timestamp", "31/02/2024 10:00:00"),
        ("timestamp", "1714561234567"),
        ("latitude", "23°S"),
        ("device_registered", "talvez"),
        ("dict_key_accounts", "1,5"),
    ],
)
def test_a_cell_that_cannot_be_read_stays_and_is_told(tmp_path: Path, name: str, cell: str) -> None:
    """Its row goes out with the cell as it is written, so that the stream rejects it and keeps it."""
    row = {**BASE, "timestamp": "01/05/2024 08:00:34", "amount_centavos": "12,34", name: cell}
    mapping = FileMapping(timestamp=SAO_PAULO, amount=AmountForm("reais", ","))
    whole = read(write_csv(tmp_path / "pix.csv", [row], ";"), mapping)
    assert json.loads(whole.values[0])[name] == cell
    assert [fault.path for fault in whole.faults.values()] == [f"$.{name}"]


def test_a_time_without_a_zone_is_not_guessed(tmp_path: Path) -> None:
    """The fault says what to put into the mapping."""
    whole = read(write_csv(tmp_path / "pix.csv", [{**BASE, "timestamp": "2024-05-01T10:00:00"}]))
    expected = "time as ISO 8601 with a zone (or timestamp.timezone in the mapping), or a number of ms"
    assert whole.faults == {2: Fault("$.timestamp", expected)}


def test_bad_bytes_and_torn_rows_leave_their_neighbours_alone(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 go out as they came; a row of too few or too many cells goes out as an array."""
    header, *_ = lines = write_csv(tmp_path / "pix.csv", [BASE]).read_bytes().splitlines()
    good, bad = lines[1], lines[1].replace(b"0001-1", b"0001\xff1")
    torn, multiline = b"a,b", lines[1].replace(b"0001-1", b'"0001\n1"')
    (tmp_path / "pix.csv").write_bytes(b"\n".join([header, good, bad, torn, multiline, good + b",x", good]))
    whole = read(tmp_path / "pix.csv")
    assert whole.rows == [2, 3, 4, 5, 7, 8]
    assert b'"0001\xff1"' in whole.values[1]
    assert json.loads(whole.values[2]) == ["a", "b"]
    assert json.loads(whole.values[3])["payer_account"] == "0001\n1"
    assert isinstance(json.loads(whole.values[4]), list)
    assert json.loads(whole.values[5]) == BASE
    shape = Fault("$", "8 cells, as the header has")
    assert whole.faults == {4: shape, 7: shape}
    assert whole.keys == [b"0002-2", b"0002-2", None, b"0002-2", None, b"0002-2"]


def test_a_receiver_of_bad_bytes_is_its_own_key(tmp_path: Path) -> None:
    """The Kafka key has the bytes of the file, whatever they are."""
    data = write_csv(tmp_path / "pix.csv", [BASE]).read_bytes().replace(b"0002-2", b"\xff2")
    (tmp_path / "pix.csv").write_bytes(data)
    assert read(tmp_path / "pix.csv").keys == [b"\xff2"]


@pytest.mark.parametrize("suffix", [".ndjson", ".csv"])
def test_byte_order_mark_and_compression(tmp_path: Path, suffix: str) -> None:
    """A BOM belongs to no column and no message; `.gz` is read like the file that it holds."""
    plain = tmp_path / f"pix{suffix}"
    if suffix == ".csv":
        write_csv(plain, [BASE, BASE])
    else:
        plain.write_text(f"{json.dumps(BASE)}\n{json.dumps(BASE)}\n")
    packed = tmp_path / f"pix{suffix}.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    told: list[float] = []
    whole = read(packed, on_position=told.append)
    assert [json.loads(value) for value in whole.values] == [BASE, BASE]
    assert whole.values == read(plain).values
    assert told[-1] == 1.0


def test_a_cut_gz_file_gives_what_it_has_and_then_says_so(tmp_path: Path) -> None:
    """What could be read is yielded before the error."""
    lines = b"".join(f"{json.dumps({**BASE, 'n': n})}\n".encode() for n in range(5000))
    packed = gzip.compress(lines)
    (tmp_path / "pix.ndjson.gz").write_bytes(packed[: len(packed) // 2])
    chunks = read_transactions(tmp_path / "pix.ndjson.gz")
    numbers: list[int] = []

    def take_all() -> None:
        for chunk in chunks:
            numbers.extend(json.loads(value)["n"] for value in chunk.values)

    with pytest.raises(FileError, match="damaged or not gzip"):
        take_all()
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 1000


@pytest.mark.parametrize("name", ["pix.ndjson", "pix.csv", "pix.parquet", "pix.csv.gz"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    """No lines are no messages; no header and no Parquet footer are an error."""
    (tmp_path / name).write_bytes(b"")
    if name == "pix.ndjson":
        assert len(read(tmp_path / name)) == 0
    else:
        with pytest.raises(FileError):
            read(tmp_path / name)


def test_a_header_alone_is_no_message(tmp_path: Path) -> None:
    """A day without payments is a file that can be sent."""
    (tmp_path / "pix.csv").write_text(",".join(BASE))
    assert len(read(tmp_path / "pix.csv")) == 0


MISFITS: list[tuple[list[str], dict[str, str], str]] = [
    ([n for n in BASE if n != "timestamp"], {}, "no column gives `timestamp`"),
    (
        [n if n != "amount_centavos" else "Amount_Centavo" for n in BASE],
        {},
        r"no column gives `amount_centavos`; did you mean `Amount_Centavo`\?",
    ),
    ([*BASE, "valro"], {"valor": "remittance_text"}, r"column `valor`, the file has none; did you mean `valro`\?"),
    ([*BASE, "valor"], {"valor": "amount_centavos"}, "two columns become `amount_centavos`"),
]


@pytest.mark.parametrize(
    ("columns", "mapping", "message"), [*MISFITS, ([*BASE, "initiation"], {}, "two columns become `initiation`")]
)
def test_csv_columns_that_do_not_fit_are_told_before_the_first_row(
    tmp_path: Path, columns: list[str], mapping: dict[str, str], message: str
) -> None:
    """The message names the column and suggests the nearest."""
    (tmp_path / "pix.csv").write_text(",".join(columns) + "\n")
    with pytest.raises(FileError, match=message):
        read(tmp_path / "pix.csv", FileMapping(columns=mapping))


@pytest.mark.parametrize(("columns", "mapping", "message"), MISFITS)
def test_parquet_columns_that_do_not_fit_are_told_before_the_first_row(
    tmp_path: Path, columns: list[str], mapping: dict[str, str], message: str
) -> None:
    """As those of CSV."""
    pl.DataFrame({name: ["x"] for name in columns}).write_parquet(tmp_path / "pix.parquet")
    with pytest.raises(FileError, match=message):
        read(tmp_path / "pix.parquet", FileMapping(columns=mapping))


def test_a_default_fills_what_is_missing_or_empty(tmp_path: Path) -> None:
    """A cell that is not empty goes before it; a default is coerced like a cell."""
    rows = [{**BASE, "amount_centavos": "", "channel": "ATM"}, {**BASE, "channel": ""}]
    mapping = FileMapping(defaults={"channel": "WEB", "amount_centavos": "0.07"}, amount=AmountForm("reais"))
    first, second = map(json.loads, read(write_csv(tmp_path / "pix.csv", rows), mapping).values)
    assert (first["channel"], first["amount_centavos"]) == ("ATM", 7)
    assert (second["channel"], second["amount_centavos"]) == ("WEB", 123_400)


def test_without_polars_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's image goes without it; CSV and NDJSON need it not."""
    monkeypatch.setitem(sys.modules, "polars", None)
    path = tmp_path / "pix.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(FileError, match=r"pip install 'pixguard\[files\]'"):
        read(path)
    assert len(read(write_csv(tmp_path / "pix.csv", [BASE]))) == 1


def test_the_format_is_named_or_told_by_the_extension(tmp_path: Path) -> None:
    """An extension that tells nothing, and an unknown name, are errors; a name goes before the extension."""
    with pytest.raises(FileError, match="name one of csv, ndjson, parquet"):
        file_format(Path("pix.dat.gz"))
    with pytest.raises(FileError, match=r"got `parket`; did you mean `parquet`\?"):
        file_format(Path("pix.csv"), "parket")
    path = write_csv(tmp_path / "pix.dat", [BASE])
    assert len(read(path, format="csv")) == 1
    with pytest.raises(FileError, match="no such file"):
        read(tmp_path / "absent.csv")

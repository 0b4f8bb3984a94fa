"""Users' files with labels: read in any form, in any order, and known no sooner than they say."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.domain.siphash import HashKey
from models.batch.training_set import UNKNOWN, TrainingSetError
from ops.files import FileError
from ops.labelled_files import LabelColumns, LabelledFile, file_set
from ops.mapping import AmountForm, FileMapping
from ops.traffic.generator import TrafficConfig, generate
from tables.catalog import CATALOG
from tables.layout import HOUR_MS

KEY = HashKey.from_bytes(bytes(range(16)))
START_MS = 1_788_220_800_000
MATURITY_MS = 2 * HOUR_MS
MARKS = CATALOG.names.index("receiver_fraud_marks")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Simulated payments of six hours, each with a label, and frauds with the time at which they are known."""
    found = []
    for simulated in generate(TrafficConfig(START_MS, seed=4, rate_per_s=0.05, count=1_000, fraud_share=0.2)):
        try:
            row = json.loads(simulated.value)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("timestamp"), int):
            row["label"] = int(simulated.label is not None)
            row["labelled_at"] = row["timestamp"] + HOUR_MS if row["label"] else None
            found.append(row)
    return found


def _ndjson(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _read(path: Path, columns: LabelColumns | None = None, **options: Any) -> LabelledFile:  # noqa: ANN401
    return file_set(path, MATURITY_MS, hash_key=KEY, columns=columns or LabelColumns("label", "labelled_at"), **options)


def test_each_payment_has_its_label_from_its_maturity_on(tmp_path: Path, rows: list[Row]) -> None:
    """All of the file is accounted for."""
    told: list[float] = []
    found = _read(_ndjson(tmp_path / "pix.ndjson", rows), progress=told.append)
    labelled = found.rows
    expected = {row["end_to_end_id"]: row["label"] for row in rows}
    assert len(labelled) + found.rejected + found.unscored == len(rows)
    assert len(labelled) > 0.9 * len(rows)
    assert [expected[each.decode()] for each in labelled.ids.tolist()] == labelled.labels.tolist()
    assert labelled.positives > 50
    assert (labelled.known_at == labelled.event_time + MATURITY_MS).all()
    assert not np.isnan(labelled.rules_scores).any()
    assert (labelled.truth == UNKNOWN).all()
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_the_order_of_rows_does_not_matter(tmp_path: Path, rows: list[Row]) -> None:
    """Payments are decided on in order of time, so newest first gives the same bytes."""
    straight = _read(_ndjson(tmp_path / "a.ndjson", rows))
    times = [row["timestamp"] for row in rows]
    assert len(set(times)) == len(times)
    turned = _read(_ndjson(tmp_path / "b.ndjson", sorted(rows, key=lambda row: -row["timestamp"])))
    assert turned.rows.to_bytes() == straight.rows.to_bytes()


def _in_reais(centavos: int | None) -> str:
    return "" if centavos is None else f"{centavos // 100},{centavos % 100:02d}"


def test_csv_with_names_and_forms_of_its_own(tmp_path: Path, rows: list[Row]) -> None:
    """Mapped columns, reais with a comma, words for labels and ISO times give the same set as NDJSON."""
    names = sorted({name for row in rows for name in row} - {"session_flags", "label", "labelled_at"})
    path = tmp_path / "pix.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["valor" if name == "amount_centavos" else name for name in names] + ["golpe", "quando"])
        for row in rows:
            cells = [_in_reais(row.get(name)) if name.endswith("_centavos") else row.get(name) for name in names]
            known = row["labelled_at"]
            when = "" if known is None else datetime.fromtimestamp(known / 1000, UTC).isoformat()
            writer.writerow([*cells, "sim" if row["label"] else "não", when])
    mapping = FileMapping(columns={"valor": "amount_centavos"}, amount=AmountForm("reais", ","))
    found = _read(path, LabelColumns("golpe", "quando"), mapping=mapping)
    # An empty cell is a missing one.
    plain = [{name: value for name, value in row.items() if name != "session_flags" and value != ""} for row in rows]
    expected = _read(_ndjson(tmp_path / "pix.ndjson", plain))
    assert found.rows.to_bytes() == expected.rows.to_bytes()


def test_a_late_label_corrects_what_was_taken_at_maturity(tmp_path: Path, rows: list[Row]) -> None:
    """Until then the payment was honest, for all that anybody knew; what nobody speaks of stays so."""
    late = [{**row, "labelled_at": row["timestamp"] + 5 * HOUR_MS if row["label"] else None} for row in rows]
    silent = [{**row, "label": row["label"] or None} for row in late]
    found = _read(_ndjson(tmp_path / "pix.ndjson", silent)).rows
    assert found.positives == 0
    end = int(found.event_time[-1])
    assert found.as_of(end + MATURITY_MS).positives < found.as_of(end + 5 * HOUR_MS).positives
    assert len(found.as_of(end + MATURITY_MS)) == len(found)
    unknown = _read(_ndjson(tmp_path / "pix.ndjson", [{**row, "label": "unknown"} for row in rows])).rows
    assert (unknown.labels == UNKNOWN).all()


def test_receivers_are_marked_when_a_fraud_is_known_and_not_before(tmp_path: Path, rows: list[Row]) -> None:
    """A receiver of several frauds bears marks from one that had become known to the payment that comes after it."""
    known = _read(_ndjson(tmp_path / "pix.ndjson", rows)).rows
    marks = np.nan_to_num(known.vectors[:, MARKS])
    first = min(row["labelled_at"] for row in rows if row["label"])
    assert not marks[known.event_time < first].any()
    assert marks[known.event_time >= first].any()
    never = _read(_ndjson(tmp_path / "pix.ndjson", [{**row, "label": 0} for row in rows])).rows
    assert not np.nan_to_num(never.vectors[:, MARKS]).any()


def test_what_cannot_be_read_is_told(tmp_path: Path, rows: list[Row]) -> None:
    """With the row, what is right, and the column that was meant."""
    path = tmp_path / "pix.ndjson"
    with pytest.raises(FileError, match="expected a column `labl`, got none; did you mean `label`"):
        _read(_ndjson(path, rows[:20]), LabelColumns("labl"))
    with pytest.raises(FileError, match="expected a column `when`"):
        _read(_ndjson(path, rows[:20]), LabelColumns("label", "when"))
    with pytest.raises(FileError, match=r"row 2: label: expected 1 or 0, .*, got 'perhaps'"):
        _read(_ndjson(path, [rows[0], {**rows[1], "label": "perhaps"}]))
    with pytest.raises(FileError, match=r"row 1: time of the label: .*, got 'yesterday'"):
        _read(_ndjson(path, [{**rows[0], "labelled_at": "yesterday"}]))
    with pytest.raises(TrainingSetError, match="none that can be decided on; 2 of 2 rows are rejected"):
        _read(_ndjson(path, [{"label": 1, "labelled_at": 1}] * 2))

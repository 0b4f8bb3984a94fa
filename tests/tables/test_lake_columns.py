"""Messages to rows of the lake: every field in its column, nothing dropped, faults told one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from app.domain.decision import Decision
from app.domain.labelled import Labelled
from app.domain.records import Stretch
from app.domain.rejection import Reason
from app.domain.vectors import VECTOR_ROW_DTYPE
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tables.lake_columns import LakeKind, lake_kinds
from tables.lake_schema import PLACE_FIELDS, TIMESTAMP, struct_columns
from tests.lake_traffic import START_MS, decision, decision_message, identifier, label, label_message, vector_message

DECISIONS, FEATURES, LABELS = lake_kinds({FEATURES_VERSION: CATALOG.names})
_SENT_MS = 1_796_040_123_456


def stretch(values: Sequence[bytes | None], base: int = 0) -> Stretch:
    """Records from `base` on, with a millisecond between them."""
    offsets = range(base, base + len(values))
    times_ms = [_SENT_MS + offset for offset in offsets]
    return Stretch(base, base + len(values), [None] * len(values), values, list(offsets), times_ms)


def test_a_decision_becomes_a_row_with_all_it_says() -> None:
    """Nested structs are flattened by name, reasons stay a list of structs, times are UTC to the microsecond."""
    row = DECISIONS.convert(2, stretch([decision_message(6)], base=40)).rows.to_pylist()[0]
    said = decision(6)
    assert row == {
        "event_date": date(2026, 11, 30),
        "topic_partition": 2,
        "topic_offset": 40,
        "available_ts": datetime.fromtimestamp((_SENT_MS + 40) / 1000, UTC),
        "end_to_end_id": said.end_to_end_id,
        "decision": "HOLD",
        "score": said.score,
        "scored": True,
        "reasons": [
            {"code": "NIGHT", "weight": 0.5, "rule": "NIGHT", "feature": None},
            {"code": "HIGH", "weight": 0.25, "rule": None, "feature": "payer_sent_sum_1h"},
        ],
        "rules": ["NIGHT"],
        "versions_rules": "rules-1",
        "versions_lists": 2,
        "versions_features": FEATURES_VERSION,
        "versions_online_model": 7,
        "versions_batch_model": None,
        "source_partition": 2,
        "source_offset": 6,
        "event_time": datetime.fromtimestamp(said.event_time / 1000, UTC),
        "decided_at": datetime.fromtimestamp(said.decided_at / 1000, UTC),
        "hold_minutes": 30,
    }


@pytest.mark.parametrize("struct", [Decision, Labelled])
def test_every_declared_field_has_a_column(struct: type[msgspec.Struct]) -> None:
    """A field that is added to a message is in the lake without another line of code."""
    names = {column.path.partition(".")[0] for column in struct_columns(struct)}
    assert names == set(struct.__struct_fields__)


def test_a_label_becomes_a_row_without_its_vector() -> None:
    """The vector is in `features`, at the place that the label names."""
    row = LABELS.convert(0, stretch([label_message(5)])).rows.to_pylist()[0]
    said = label(5)
    assert "vector" not in row
    assert (row["label"], row["basis"], row["kind"], row["online_score"]) == (1, "MARKER", "REVISION", None)
    assert (row["source_partition"], row["source_offset"]) == said.place
    assert row["known_at"] == datetime.fromtimestamp(said.known_at / 1000, UTC)


def test_a_vector_becomes_one_column_for_each_feature() -> None:
    """Missing is null, hashes keep their 64 bits, and the catalog is named."""
    made = FEATURES.convert(1, stretch([vector_message(3), vector_message(4)])).rows
    first, second = made.to_pylist()
    assert {name for name in made.column_names if name not in {each.name for each in PLACE_FIELDS}} == {
        *(set(VECTOR_ROW_DTYPE.names or ()) - {"id"}),
        "end_to_end_id",
        "fingerprint",
        "vector_bytes",
        *CATALOG.names,
    }
    assert (first["end_to_end_id"], second["end_to_end_id"]) == (identifier(3), identifier(4))
    assert (first[CATALOG.names[0]], second[CATALOG.names[0]]) == (3.0, 4.0)
    assert first[CATALOG.names[-1]] is None
    assert first["payer"] % 2**64 == 2**64 - 1 - 3
    assert (first["score"], first["rules_score"], first["scored"]) == (None, 0.25, True)
    assert (first["fingerprint"], first["vector_bytes"]) == (FEATURES_VERSION, None)


def test_vectors_of_several_catalogs_in_one_batch() -> None:
    """Those of a known one are named, those of another keep their bytes; the order is that of the topic."""
    values = [vector_message(0), vector_message(1, "0123456789abcdef", "abc"), vector_message(2)]
    converted = FEATURES.convert(0, stretch(values))
    rows = converted.rows.to_pylist()
    assert converted.rejected == []
    assert [row["topic_offset"] for row in rows] == [0, 1, 2]
    assert [row["fingerprint"] for row in rows] == [FEATURES_VERSION, "0123456789abcdef", FEATURES_VERSION]
    assert np.array_equal(np.frombuffer(rows[1]["vector_bytes"], "<f4"), [1, 0, np.nan], equal_nan=True)
    assert [row[CATALOG.names[0]] for row in rows] == [0.0, None, 2.0]


def test_an_older_catalog_whose_names_are_known_has_its_own_columns() -> None:
    """Its columns stay beside those of the catalog in force; each row has the ones of its own."""
    (_, both, _) = lake_kinds({"1" * 16: ("kept", "dropped"), "2" * 16: ("kept", "added")})
    values = [vector_message(7, "1" * 16, ("kept", "dropped")), vector_message(8, "2" * 16, ("kept", "added"))]
    rows = both.convert(0, stretch(values)).rows.to_pylist()
    assert [(row["kept"], row["dropped"], row["added"]) for row in rows] == [(7.0, None, None), (8.0, None, None)]
    assert [row["vector_bytes"] for row in rows] == [None, None]


@pytest.mark.parametrize(
    ("kind", "sound", "value", "reason", "path"),
    [
        (DECISIONS, decision_message, None, Reason.TOMBSTONE, "$"),
        (DECISIONS, decision_message, b"{", Reason.NOT_JSON, "$"),
        (DECISIONS, decision_message, b'{"end_to_end_id": 1}', Reason.WRONG_TYPE, "$.end_to_end_id"),
        (
            DECISIONS,
            decision_message,
            msgspec.json.encode(msgspec.structs.replace(decision(1), event_time=2**80)),
            Reason.OUT_OF_RANGE,
            "$",
        ),
        (
            DECISIONS,
            decision_message,
            msgspec.json.encode(msgspec.structs.replace(decision(1), hold_minutes=2**63)),
            Reason.OUT_OF_RANGE,
            "$",
        ),
        (LABELS, label_message, b"noise", Reason.WRONG_FORM, "$"),
        (FEATURES, vector_message, None, Reason.TOMBSTONE, "$"),
        (FEATURES, vector_message, b"", Reason.WRONG_FORM, "$"),
        (FEATURES, vector_message, vector_message(1)[:-4], Reason.WRONG_FORM, "$"),
        (FEATURES, vector_message, b"JUNK" + vector_message(1)[4:], Reason.WRONG_FORM, "$"),
    ],
)
def test_one_unreadable_message_takes_no_other_with_it(
    kind: LakeKind, sound: Callable[[int], bytes], value: bytes | None, reason: Reason, path: str
) -> None:
    """It is told by its position; all others are rows."""
    converted = kind.convert(0, stretch([sound(0), value, sound(2)]))
    assert converted.rows["topic_offset"].to_pylist() == [0, 2]
    ((position, fault),) = converted.rejected
    assert (position, fault.reason, fault.path) == (1, reason, path)


def test_what_a_rejection_says_holds_nothing_of_the_message() -> None:
    """A dead letter's fault is logged: only the raw bytes, in the topic, have what the message said."""
    ((_, fault),) = DECISIONS.convert(0, stretch([b'{"end_to_end_id": "secret", "decision": "secret"}'])).rejected
    assert "secret" not in f"{fault}"


@pytest.mark.parametrize("kind", [DECISIONS, FEATURES, LABELS])
def test_no_records_are_no_rows(kind: LakeKind) -> None:
    """Compaction may leave a stretch without records; the columns are there all the same."""
    made = kind.convert(0, stretch([])).rows
    assert (made.num_rows, made.schema) == (0, kind.schema)


def test_without_a_kafka_timestamp_it_is_not_known_when() -> None:
    """-1 is no time in 1969."""
    records = Stretch(0, 1, [None], [decision_message(0)], [0], [-1])
    assert DECISIONS.convert(0, records).rows["available_ts"].to_pylist() == [None]


def test_all_times_are_of_the_one_type_that_delta_has() -> None:
    """Microseconds, with the zone: what Spark and others read as the same instant."""
    for kind in (DECISIONS, FEATURES, LABELS):
        times = [each for each in kind.schema if pa.types.is_timestamp(each.type)]
        assert {each.type for each in times} == {TIMESTAMP}
        assert {"event_time", "available_ts", "decided_at"} <= {each.name for each in times}


def test_the_date_is_utcs() -> None:
    """Whatever the machine's zone: partitions of all writers must agree."""
    late = msgspec.json.encode(msgspec.structs.replace(decision(1), event_time=START_MS // 86_400_000 * 86_400_000 - 1))
    assert DECISIONS.convert(0, stretch([late])).rows["event_date"].to_pylist() == [date(2026, 11, 29)]

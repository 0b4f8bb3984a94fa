"""`pixguard lake`: what the tables hold, made smaller and cleaner while what is pinned stays readable."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from app.cli import app
from models.stages.receivers import FEATURES_VERSION
from ops.lake import compact, pin, pinned, rows_at, status, unpin, vacuum
from tables.catalog import CATALOG
from tables.lake_columns import lake_kinds
from tables.lake_errors import LakeError
from tables.lake_table import LakeTable, Span, table_uri
from tests.lake_traffic import START_MS, decision_message, vector_message
from tests.tables.test_lake_columns import stretch

DECISIONS, FEATURES, _ = lake_kinds({FEATURES_VERSION: CATALOG.names})
_COMMITS, _ROWS = 5, 20


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """A lake of five commits of decisions, and one of vectors; no labels yet."""
    where = str(tmp_path / "lake")
    table = LakeTable(table_uri(where, "decisions"), DECISIONS.schema)
    for first in range(0, _COMMITS * _ROWS, _ROWS):
        messages = [decision_message(number) for number in range(first, first + _ROWS)]
        rows = DECISIONS.convert(0, stretch(messages, base=first)).rows
        table.append(rows, [Span(DECISIONS.topic, 0, first, first + _ROWS - 1)])
    rows = FEATURES.convert(1, stretch([vector_message(0)])).rows
    LakeTable(table_uri(where, "features"), FEATURES.schema).append(rows, [Span(FEATURES.topic, 1, 0, 0)])
    return where


def age(lake: str, days: float) -> None:
    """Let all files, and all commits that the log tells of, look so much older."""
    for path in Path(lake).rglob("_delta_log/*checkpoint*"):
        path.unlink()  # the log is whole without
    for path in Path(lake).rglob("*.json"):
        times = re.compile(r'("(?:timestamp|deletionTimestamp|modificationTime)":)(\d{13})')
        path.write_text(times.sub(lambda found: f"{found[1]}{_before(found[2], days)}", path.read_text()))
    for path in Path(lake).rglob("*"):
        os.utime(path, (time.time() - days * 86_400,) * 2)


def _before(time_ms: str, days: float) -> int:
    return int(time_ms) - round(days * 86_400_000)


def run(*arguments: str, ends: int = 0) -> Any:  # noqa: ANN401 - JSON
    """What a command prints as JSON."""
    result = CliRunner().invoke(app, ["lake", *arguments, "--json"])
    assert result.exit_code == ends, result.output
    return json.loads(result.output)


def test_status_tells_what_is_there(lake: str) -> None:
    """Rows, files, bytes, newest event, and the last offset of each partition; a table that is not there is none."""
    decisions, features, labels = status(lake, 8)
    assert (decisions.version, decisions.rows) == (_COMMITS, 100)
    assert decisions.offsets == {"pix-decisions-0": 99}
    assert decisions.newest_event == datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(hours=99)
    held = [path for path in Path(lake, "decisions").rglob("*.parquet") if "_delta_log" not in str(path)]
    assert decisions.files == len(held)
    assert decisions.size_bytes == sum(path.stat().st_size for path in held)
    assert (features.rows, features.offsets) == (1, {"pix-features-1": 0})
    assert (labels.version, labels.rows) == (None, 0)


def test_compaction_changes_no_row(lake: str) -> None:
    """Fewer files; and the archive's handle, opened before, goes on where it was."""
    uri = table_uri(lake, "decisions")
    table = LakeTable(uri, DECISIONS.schema)
    assert table.positions(["pix-decisions-0"]) == {"pix-decisions-0": 99}
    before = pl.read_delta(uri).sort("topic_offset")
    told = compact(lake, "decisions")
    assert told["files_removed"] > told["files_added"] > 0
    assert pl.read_delta(uri).sort("topic_offset").equals(before)
    rows = DECISIONS.convert(0, stretch([decision_message(100)], base=100)).rows
    assert table.append(rows, [Span(DECISIONS.topic, 0, 100, 100)]) == 1
    assert sorted(pl.read_delta(uri)["topic_offset"]) == list(range(101))


def test_vacuum_is_dry_unless_told(lake: str) -> None:
    """Without `run` it only lists; with it the files are gone, and the last version is whole."""
    compact(lake, "decisions")
    age(lake, 10)
    listed = vacuum(lake, "decisions", hours=168, run=False)
    assert listed.files
    assert rows_at(lake, "decisions", 2)[1].num_rows == 20
    assert sorted(vacuum(lake, "decisions", hours=168, run=True).files) == sorted(listed.files)
    assert rows_at(lake, "decisions", limit=1000)[1].num_rows == 100
    with pytest.raises(LakeError, match=r"a vacuum may have removed"):
        rows_at(lake, "decisions", 2)


def test_vacuum_removes_what_killed_commits_left(lake: str) -> None:
    """Files that no log names; young ones may belong to a commit that is not over."""
    orphan = Path(lake, "decisions", "event_date=2026-11-30", "part-of-a-killed-commit.parquet")
    orphan.write_bytes(b"x")
    assert vacuum(lake, "decisions", hours=24, run=True).files == []
    age(lake, 10)
    vacuum(lake, "decisions", hours=24, run=True)
    assert not orphan.exists()
    assert rows_at(lake, "decisions", limit=1000)[1].num_rows == 100


def test_vacuum_refuses_less_than_a_day(lake: str) -> None:
    """A commit or a query that goes on would lose its files."""
    with pytest.raises(LakeError, match="expected 24 or more, got 23"):
        vacuum(lake, "decisions", hours=23, run=False)


def test_a_pinned_version_outlasts_vacuum(lake: str) -> None:
    """Until the pin is taken back; the versions beside it are gone."""
    age(lake, 40)
    made = pin(lake, "decisions", 2, "training/2026-11")
    compact(lake, "decisions")
    age(lake, 2)
    assert vacuum(lake, "decisions", hours=24, run=True).kept_versions == [2]
    assert sorted(rows_at(lake, "decisions", 2, limit=1000)[1]["topic_offset"].to_pylist()) == list(range(40))
    with pytest.raises(LakeError, match=r"a vacuum may have removed|cannot be read any more"):
        rows_at(lake, "decisions", 4)
    assert unpin(lake, "training/2026-11") == [made]
    assert pinned(lake) == []
    vacuum(lake, "decisions", hours=24, run=True)
    with pytest.raises(LakeError, match=r"a vacuum may have removed|cannot be read any more"):
        rows_at(lake, "decisions", 2)


def test_a_pin_of_the_same_name_moves(lake: str) -> None:
    """And one name may pin a version of each table."""
    pin(lake, "decisions", 1, "set")
    pin(lake, "decisions", 3, "set")
    pin(lake, "features", None, "set")
    assert [(each.table, each.version) for each in pinned(lake)] == [("decisions", 3), ("features", 1)]
    assert status(lake, 8)[0].pins == {"set": 3}


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda lake: pin(lake, "decisions", 99, "x"), "expected a version from 0 to 5, got 99"),
        (lambda lake: pin(lake, "decisions", 1, "a'b"), "expected letters, digits"),
        (lambda lake: unpin(lake, "unknown"), "expected one of none, got 'unknown'"),
        (lambda lake: compact(lake, "labels"), "expected a Delta table, got none"),
        (lambda lake: compact(lake, "../x"), "expected one of decisions, features, labels"),
        (lambda lake: rows_at(lake, "decisions", columns=["nothing"]), "no column nothing at version 5"),
    ],
)
def test_errors_say_what_is_right(lake: str, call: Any, told: str) -> None:  # noqa: ANN401 - a lambda
    """What was expected, and what was got."""
    with pytest.raises(LakeError, match=told):
        call(lake)


def test_commands_in_json(lake: str) -> None:
    """Each prints one object; what a table was at a version is read from that version."""
    assert [table["rows"] for table in run("status", "--lake", lake)["tables"]] == [100, 1, 0]
    assert run("pin", "features", "set", "--lake", lake)["version"] == 1
    assert run("compact", "--lake", lake)["tables"]["features"] == {"files_added": 0, "files_removed": 0}
    assert run("history", "decisions", "--limit", "1", "--lake", lake)["history"][0]["operation"] == "OPTIMIZE"
    shown = run("show", "decisions", "--version", "1", "--column", "topic_offset", "--limit", "50", "--lake", lake)
    assert sorted(row["topic_offset"] for row in shown["rows"]) == list(range(20))
    assert run("vacuum", "features", "--lake", lake)["tables"][0]["kept_versions"] == [1]
    assert len(run("unpin", "set", "--lake", lake)["unpinned"]) == 1


def test_commands_for_people(lake: str) -> None:
    """Tables, and a word on what was not done."""
    for arguments, told in {
        ("status",): "none yet",
        ("compact",): "files became",
        ("vacuum",): "Nothing was removed",
        ("history", "decisions"): "CREATE TABLE",
        ("show", "decisions"): "version",
    }.items():
        result = CliRunner().invoke(app, ["lake", *arguments, "--lake", lake])
        assert result.exit_code == 0, result.output
        assert told in result.output


def test_vacuum_removes_old_log_files_unless_a_pin_needs_them(lake: str) -> None:
    """A commit every two seconds fills a folder; nothing else removes them."""
    age(lake, 40)
    pin(lake, "decisions", 2, "set")
    first = Path(lake, "decisions", "_delta_log", f"{0:020}.json")
    told = vacuum(lake, "decisions", hours=24, run=True)
    assert told.is_log_kept
    assert first.exists()
    unpin(lake, "set")
    told = vacuum(lake, "decisions", hours=24, run=True)
    assert not told.is_log_kept
    assert not first.exists()
    assert rows_at(lake, "decisions", limit=1000)[1].num_rows == 100
    assert LakeTable(table_uri(lake, "decisions"), DECISIONS.schema).positions(["pix-decisions-0"]) == {
        "pix-decisions-0": 99
    }

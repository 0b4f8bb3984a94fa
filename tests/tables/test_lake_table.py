"""A Delta table that is appended to exactly once: killed writers, several of them, storage that fails, new columns."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from app.topics import DECISIONS
from models.stages.receivers import FEATURES_VERSION
from tables.catalog import CATALOG
from tables.lake_columns import lake_kinds
from tables.lake_errors import LakeError, LakeGapError
from tables.lake_table import LakeTable, Span, app_id
from tests.lake_traffic import decision_message, identifier, vector_message
from tests.tables.lake_writer import PARTITIONS, write_rows
from tests.tables.test_lake_columns import stretch

KIND, FEATURES, _ = lake_kinds({FEATURES_VERSION: CATALOG.names})
_TOPIC = DECISIONS.name


def rows(first: int, last: int, partition: int = 0) -> pa.Table:
    """Rows of the offsets from `first` to `last`, inclusive; each payment has its offset's number."""
    messages = [decision_message(number) for number in range(first, last + 1)]
    return KIND.convert(partition, stretch(messages, base=first)).rows


def span(first: int, last: int, partition: int = 0) -> Span:
    """The stretch that they come from."""
    return Span(_TOPIC, partition, first, last)


def offsets(uri: str, partition: int = 0) -> list[int]:
    """What the table holds of a partition, in order, repeats included."""
    found = pl.read_delta(uri).filter(pl.col("topic_partition") == partition)
    assert [identifier(offset) for offset in found["topic_offset"]] == found["end_to_end_id"].to_list()
    return sorted(found["topic_offset"].to_list())


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Where a table is to be."""
    return str(tmp_path / "lake" / "decisions")


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Let this process write no file longer than so many bytes, as on a full disk, until the test's end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else before[0], before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_eighteen_killed_writers_leave_each_row_once(tmp_path: Path, uri: str) -> None:
    """Two at a time on the same partitions, killed while they create, write and commit: nothing missing, nothing twice.

    Each takes batches of other lengths, some of which begin with repeats.
    """
    last = 5999
    path = tmp_path / "rows.arrow"
    write_rows(path, pa.concat_tables([rows(0, last, partition) for partition in PARTITIONS]))

    def start(seed: int, kills_itself: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.tables.lake_writer", uri, str(path), str(seed), str(kills_itself)]
        return subprocess.Popen(command, stderr=subprocess.PIPE)

    for turn in range(9):
        for process in [start(2 * turn + each, 1) for each in range(2)]:
            _, told = process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL, f"turn {turn}: {told.decode()}"
    last_one = start(99, 0)
    _, told = last_one.communicate(timeout=60)
    assert last_one.returncode == 0, told.decode()
    for partition in PARTITIONS:
        assert offsets(uri, partition) == list(range(last + 1))


def test_repeats_are_left_out(uri: str) -> None:
    """The same rows again are none, overlapping ones are what is new of them, with the same handle or another."""
    table = LakeTable(uri, KIND.schema)
    assert table.append(rows(0, 9), [span(0, 9)]) == 10
    assert table.append(rows(0, 9), [span(0, 9)]) == 0
    assert table.append(rows(5, 14), [span(5, 14)]) == 5
    assert LakeTable(uri, KIND.schema).append(rows(0, 14), [span(0, 14)]) == 0
    assert offsets(uri) == list(range(15))


def test_a_stale_handle_writes_nothing_twice(uri: str) -> None:
    """Whoever lost its partition, and does not know it, is refused by the log; then it writes only what is missing."""
    stale = LakeTable(uri, KIND.schema)
    assert stale.append(rows(0, 4), [span(0, 4)]) == 5
    assert LakeTable(uri, KIND.schema).append(rows(5, 9), [span(5, 9)]) == 5
    assert stale.append(rows(5, 11), [span(5, 11)]) == 2
    assert offsets(uri) == list(range(12))


def test_writers_of_different_partitions_do_not_hinder_each_other(uri: str) -> None:
    """Both handles are behind the other's commits all the time."""
    one, other = LakeTable(uri, KIND.schema), LakeTable(uri, KIND.schema)
    for first in range(0, 50, 10):
        assert one.append(rows(first, first + 9, 0), [span(first, first + 9, 0)]) == 10
        assert other.append(rows(first, first + 9, 1), [span(first, first + 9, 1)]) == 10
    assert offsets(uri, 0) == offsets(uri, 1) == list(range(50))


def test_several_partitions_in_one_commit_each_have_their_position(uri: str) -> None:
    """One of them may be a repeat."""
    table = LakeTable(uri, KIND.schema)
    table.append(rows(0, 9, 0), [span(0, 9, 0)])
    both = pa.concat_tables([rows(0, 9, 0), rows(0, 4, 1)])
    assert table.append(both, [span(0, 9, 0), span(0, 4, 1)]) == 5
    assert table.positions([app_id(_TOPIC, 0), app_id(_TOPIC, 1), app_id(_TOPIC, 2)]) == {
        "pix-decisions-0": 9,
        "pix-decisions-1": 4,
    }


def test_a_stretch_without_rows_moves_the_position(uri: str) -> None:
    """Unreadable messages only: they are not read again."""
    table = LakeTable(uri, KIND.schema)
    assert table.append(KIND.schema.empty_table(), [span(0, 4)]) == 0
    assert LakeTable(uri, KIND.schema).positions([app_id(_TOPIC, 0)]) == {"pix-decisions-0": 4}


def test_a_gap_is_refused(uri: str) -> None:
    """What lies in it would never be written; unless the topic itself does not hold it any more."""
    table = LakeTable(uri, KIND.schema)
    table.append(rows(0, 4), [span(0, 4)])
    with pytest.raises(LakeGapError, match=r"expected rows from offset 5, which the table does not hold yet, got .* 7"):
        table.append(rows(7, 9), [span(7, 9)])
    assert table.append(rows(7, 9), [Span(_TOPIC, 0, 7, 9, first_held=7)]) == 3


def test_a_folder_whose_maker_was_killed_becomes_a_table(uri: str) -> None:
    """A folder without a log is no table yet."""
    (Path(uri) / "_delta_log").mkdir(parents=True)
    assert LakeTable(uri, KIND.schema).append(rows(0, 4), [span(0, 4)]) == 5
    assert offsets(uri) == list(range(5))


def test_a_table_that_vanishes_is_not_made_anew(uri: str) -> None:
    """An unmounted disk must not get a second, empty lake under its folder."""
    table = LakeTable(uri, KIND.schema)
    table.append(rows(0, 4), [span(0, 4)])
    Path(uri).rename(uri + "-away")
    for _ in range(2):
        with pytest.raises(LakeError, match=r"expected the table that was here before|cannot be appended to"):
            table.append(rows(5, 9), [span(5, 9)])
    for leftover in sorted(Path(uri).rglob("*"), reverse=True):
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    Path(uri).rmdir() if Path(uri).exists() else None
    Path(uri + "-away").rename(uri)
    assert table.append(rows(5, 9), [span(5, 9)]) == 5
    assert offsets(uri) == list(range(10))


def test_a_full_disk_is_told_and_loses_nothing(uri: str, limit_files: Callable[[int], None]) -> None:
    """The error says so; once there is room, the same rows are written."""
    table = LakeTable(uri, KIND.schema)
    table.append(rows(0, 4), [span(0, 4)])
    limit_files(2000)
    with pytest.raises(LakeError, match=r"decisions: cannot be appended to: .*The disk is full: free some"):
        table.append(rows(5, 2000), [span(5, 2000)])
    limit_files(-1)
    assert table.append(rows(5, 2000), [span(5, 2000)]) == 1996
    assert offsets(uri) == list(range(2001))


def test_a_store_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its URL, and what to look at; settings come from the environment, as the store's own tools take them."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "sa-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    table = LakeTable("s3://bucket/decisions", KIND.schema)
    with pytest.raises(LakeError, match=r"^s3://bucket/decisions: cannot be read: .*refused.*Is `lake` right"):
        table.positions([])


def test_a_feature_that_is_added_is_a_column_that_old_rows_have_nothing_in(tmp_path: Path) -> None:
    """And one that is dropped stays; writers of both catalogs go on, in any order."""
    uri = str(tmp_path / "features")
    (_, old, _) = lake_kinds({"1" * 16: ("kept", "dropped")})
    (_, new, _) = lake_kinds({"2" * 16: ("kept", "added")})
    before, after = LakeTable(uri, old.schema), LakeTable(uri, new.schema)
    for turn in range(2):
        numbers = range(6 * turn, 6 * turn + 3)
        values = [vector_message(number, "1" * 16, ("kept", "dropped", "x")[:2]) for number in numbers]
        made = old.convert(0, stretch(values, base=6 * turn)).rows
        assert before.append(made, [Span("pix-features", 0, 6 * turn, 6 * turn + 2)]) == 3
        values = [vector_message(number + 3, "2" * 16, ("kept", "added", "x")[:2]) for number in numbers]
        made = new.convert(0, stretch(values, base=6 * turn + 3)).rows
        assert after.append(made, [Span("pix-features", 0, 6 * turn + 3, 6 * turn + 5)]) == 3
    found = pl.read_delta(uri).sort("topic_offset")
    assert {"kept", "dropped", "added"} <= set(found.columns)
    assert found["kept"].to_list() == [float(number) for number in range(12)]
    assert found["fingerprint"].to_list() == (["1" * 16] * 3 + ["2" * 16] * 3) * 2
    assert found["added"].null_count() == 12


def test_old_log_files_stay(uri: str) -> None:
    """The archive removes none: a pinned version is read from them."""
    table = LakeTable(uri, KIND.schema)
    for number in range(25):
        table.append(rows(number, number), [span(number, number)])
    assert DeltaTable(uri, version=3).to_pyarrow_table().num_rows == 3

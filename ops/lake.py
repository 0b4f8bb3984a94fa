"""The lake's tables, looked after: what they hold, compaction, vacuum, history, any version of them, pinned versions.

A pin is a promise that a version of a table stays readable, made by whoever names that version in something that
lasts, such as a training set. Pins lie in the lake themselves, as a small Delta table, so that every machine sees them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from app.topics import Topic
from tables.lake_errors import LakeError, StorageErrors
from tables.lake_schema import LAKE_TOPICS, TIMESTAMP
from tables.lake_table import HOOKS, WRITER, app_id, table_uri

__all__ = [
    "MIN_VACUUM_HOURS",
    "Pin",
    "TableStatus",
    "Vacuumed",
    "compact",
    "history",
    "pin",
    "pinned",
    "rows_at",
    "status",
    "unpin",
    "vacuum",
]

MIN_VACUUM_HOURS = 24
"""Files younger than this may belong to a commit or a query that is not over."""

_PINS = "pins"
_PIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_PINS_SCHEMA = pa.schema(
    [
        ("table", pa.string()),
        ("version", pa.int64()),
        ("name", pa.string()),
        ("committed_at", TIMESTAMP),
        ("pinned_at", TIMESTAMP),
    ]
)
_LOG_DAYS = 30
"""For how long delta-rs keeps log files, where a table does not say otherwise; ours do not."""


@dataclass(frozen=True, slots=True)
class TableStatus:
    """What a table holds.

    Parameters
    ----------
    table
        Its name.
    version
        Of the table: how many commits there were, from 0; None where there is no table yet.
    rows, files, size_bytes
        As of that version.
    newest_event
        Time of the latest payment.
    offsets
        Last offset written, by Kafka partition.
    pins
        Names and versions that vacuum leaves readable.
    """

    table: str
    version: int | None = None
    rows: int = 0
    files: int = 0
    size_bytes: int = 0
    newest_event: datetime | None = None
    offsets: dict[str, int] | None = None
    pins: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What a vacuum has removed, or would remove.

    Parameters
    ----------
    table
        Its name.
    files
        Data files that no version within the retention, and no pinned one, needs.
    kept_versions
        Pinned ones.
    is_log_kept
        Whether old log files stay, because a pinned version is read from them.
    """

    table: str
    files: list[str]
    kept_versions: list[int]
    is_log_kept: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """A version that stays readable.

    Parameters
    ----------
    table, version
        Which one.
    name
        Who asked for it.
    committed_at, pinned_at
        When the version was made, and when the pin was.
    """

    table: str
    version: int
    name: str
    committed_at: datetime
    pinned_at: datetime


def _open(lake: str, table: str, version: int | None = None) -> DeltaTable:
    uri = table_uri(lake, table)
    if table not in LAKE_TOPICS:
        raise LakeError(f"table: expected one of {', '.join(LAKE_TOPICS)}, got {table!r}")
    with StorageErrors(uri, "read"):
        if not DeltaTable.is_deltatable(uri):
            raise LakeError(f"{uri}: expected a Delta table, got none. `pixguard archive` writes it; is `lake` right?")
        found = DeltaTable(uri)
        if version is None:
            return found
        if not 0 <= version <= found.version():
            raise LakeError(f"{uri}: expected a version from 0 to {found.version()}, got {version}")
        try:
            return DeltaTable(uri, version=version)
        except Exception as error:
            raise LakeError(
                f"{uri}: version {version} cannot be read any more: a vacuum has removed its log. "
                "`pixguard lake history` lists those that can; pin the ones that you need."
            ) from error


def status(lake: str, partitions: int) -> list[TableStatus]:
    """Return what each table holds.

    Parameters
    ----------
    lake
        Folder or URL.
    partitions
        Of the keyed topics.

    Raises
    ------
    LakeError
        When storage does not answer.
    """
    return [_status(lake, table, topic, partitions) for table, topic in LAKE_TOPICS.items()]


def _status(lake: str, table: str, topic: Topic, partitions: int) -> TableStatus:
    uri = table_uri(lake, table)
    with StorageErrors(uri, "read"):
        if not DeltaTable.is_deltatable(uri):
            return TableStatus(table)
        found = DeltaTable(uri)
        files = pa.table(found.get_add_actions(flatten=True))
        names = [app_id(topic.name, partition) for partition in range(topic.partitions or partitions)]
        offsets = {name: found.transaction_version(name) for name in names}
    newest = pc.max(files["max.event_time"]).as_py() if "max.event_time" in files.column_names else None
    return TableStatus(
        table,
        found.version(),
        pc.sum(files["num_records"]).as_py() or 0,
        files.num_rows,
        pc.sum(files["size_bytes"]).as_py() or 0,
        newest,
        {name: offset for name, offset in offsets.items() if offset is not None},
        {each.name: each.version for each in pinned(lake) if each.table == table},
    )


def compact(lake: str, table: str) -> dict[str, int]:
    """Write small files together; the archive may go on appending meanwhile.

    Returns
    -------
    Files added and removed.

    Raises
    ------
    LakeError
        When storage fails.
    """
    found = _open(lake, table)
    with StorageErrors(table_uri(lake, table), "compacted"):
        told = found.optimize.compact(writer_properties=WRITER, post_commithook_properties=HOOKS)
        found.create_checkpoint()
    return {"files_added": told["numFilesAdded"], "files_removed": told["numFilesRemoved"]}


def vacuum(lake: str, table: str, *, hours: int, run: bool) -> Vacuumed:
    """Remove files that no version of the last `hours`, and no pinned one, needs; and old log files.

    Parameters
    ----------
    lake, table
        Which one.
    hours
        Versions that were replaced no longer ago than this stay readable.
    run
        Whether to remove them, and not only list them.

    Raises
    ------
    LakeError
        When `hours` is less than `MIN_VACUUM_HOURS`, or storage fails.
    """
    if hours < MIN_VACUUM_HOURS:
        raise LakeError(
            f"--hours: expected {MIN_VACUUM_HOURS} or more, got {hours}: younger files may belong to a commit or a "
            "query that is not over"
        )
    found = _open(lake, table)
    pins = [each for each in pinned(lake) if each.table == table]
    versions = sorted({each.version for each in pins})
    oldest_s = min((each.committed_at.timestamp() for each in pins), default=time.time())
    is_log_kept = time.time() - oldest_s > (_LOG_DAYS - 1) * 86_400
    with StorageErrors(table_uri(lake, table), "vacuumed"):
        # Full: commits that were killed leave files that no log names.
        files = found.vacuum(
            hours,
            dry_run=not run,
            enforce_retention_duration=False,
            post_commithook_properties=HOOKS,
            full=True,
            keep_versions=versions or None,
        )
        if run and not is_log_kept:
            found.create_checkpoint()
            found.cleanup_metadata()
    return Vacuumed(table, files, versions, is_log_kept)


def history(lake: str, table: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the commits that the log still tells of, newest first: version, time, operation and its figures.

    Raises
    ------
    LakeError
        When there is no such table, or storage fails.
    """
    found = _open(lake, table)
    with StorageErrors(table_uri(lake, table), "read"):
        return [
            {
                "version": each["version"],
                "at": datetime.fromtimestamp(each["timestamp"] / 1000, UTC),
                "operation": each["operation"],
                "metrics": each.get("operationMetrics", {}),
            }
            for each in found.history(limit)
        ]


def rows_at(
    lake: str, table: str, version: int | None = None, limit: int = 20, columns: Sequence[str] | None = None
) -> tuple[int, pa.Table]:
    """Return a version, and some of its rows.

    Parameters
    ----------
    lake, table
        Which one.
    version
        Default: the last.
    limit
        Rows, at most.
    columns
        Default: all.

    Raises
    ------
    LakeError
        When there is no such table, version or column, or its files are gone.
    """
    found = _open(lake, table, version)
    known = [item.name for item in found.schema().fields]
    if unknown := [name for name in columns or () if name not in known]:
        raise LakeError(f"{table}: no column {', '.join(unknown)} at version {found.version()}")
    with StorageErrors(table_uri(lake, table), "read at that version; a vacuum may have removed its files"):
        rows = found.to_pyarrow_dataset().head(limit, columns=list(columns) if columns else known)
    return found.version(), rows


# -- pins


def pin(lake: str, table: str, version: int | None, name: str) -> Pin:
    """Promise that a version of a table stays readable, whatever is vacuumed, until `unpin`.

    Parameters
    ----------
    lake, table, version
        Which one; None is the last.
    name
        Who needs it, such as a training set; pinning again under the same name and table moves the pin.

    Raises
    ------
    LakeError
        When there is no such version, the name has other characters than letters, digits and `._/-`, or storage fails.
    """
    _check_name(name)
    found = _open(lake, table, version)
    with StorageErrors(table_uri(lake, table), "read"):
        committed_ms = found.history(1)[0]["timestamp"]
    made = Pin(table, found.version(), name, datetime.fromtimestamp(committed_ms / 1000, UTC), datetime.now(UTC))
    others = [each for each in pinned(lake) if (each.table, each.name) != (table, name)]
    _write_pins(lake, [*others, made])
    return made


def unpin(lake: str, name: str) -> list[Pin]:
    """Take back all pins of a name, and return them.

    Raises
    ------
    LakeError
        When there are none, or storage fails.
    """
    pins = pinned(lake)
    gone = [each for each in pins if each.name == name]
    if not gone:
        known = ", ".join(sorted({each.name for each in pins})) or "none"
        raise LakeError(f"pins: expected one of {known}, got {name!r}")
    _write_pins(lake, [each for each in pins if each.name != name])
    return gone


def pinned(lake: str) -> list[Pin]:
    """Return all pins.

    Raises
    ------
    LakeError
        When storage fails.
    """
    uri = table_uri(lake, _PINS)
    with StorageErrors(uri, "read"):
        if not DeltaTable.is_deltatable(uri):
            return []
        rows = DeltaTable(uri).to_pyarrow_table().select(_PINS_SCHEMA.names).to_pylist()
    return sorted((Pin(**row) for row in rows), key=lambda each: (each.table, each.version, each.name))


def _write_pins(lake: str, pins: Sequence[Pin]) -> None:
    uri = table_uri(lake, _PINS)
    rows = [{name: getattr(each, name) for name in _PINS_SCHEMA.names} for each in pins]
    with StorageErrors(uri, "written"):
        write_deltalake(uri, pa.Table.from_pylist(rows, _PINS_SCHEMA), mode="overwrite")


def _check_name(name: str) -> None:
    if _PIN_NAME.fullmatch(name) is None:
        raise LakeError(f"name of a pin: expected letters, digits and ._/-, at most 200, got {name!r}")

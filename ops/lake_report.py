"""What `pixguard lake` shows of the tables: for people as tables, for pipes as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.lake import compact, history, pin, rows_at, status, unpin, vacuum
from tables.lake_schema import LAKE_TOPICS

__all__ = ["show_compaction", "show_history", "show_pin", "show_rows", "show_status", "show_unpinned", "show_vacuum"]

_SHOWN = ("event_time", "end_to_end_id", "topic_partition", "topic_offset", "decision", "score", "label", "basis")
"""Columns that people are shown of a table, where it has them and they name no others."""


def show_status(lake: str, partitions: int, out: Console, *, as_json: bool) -> None:
    """Show what each table holds."""
    found = status(lake, partitions)
    if as_json:
        _print({"lake": lake, "tables": [asdict(each) for each in found]})
        return
    table = _table("table", "version", "rows", "files", "size", "newest event", "written up to", "pinned")
    for each in found:
        if each.version is None:
            table.add_row(each.table, "none yet", *[""] * 6)
            continue
        offsets = " ".join(f"{name.rpartition('-')[2]}:{offset}" for name, offset in (each.offsets or {}).items())
        pins = " ".join(f"{name}@{version}" for name, version in (each.pins or {}).items())
        newest = "" if each.newest_event is None else f"{each.newest_event:%Y-%m-%d %H:%M:%S}"
        size = f"{each.size_bytes / 1e6:,.1f} MB"
        table.add_row(each.table, str(each.version), f"{each.rows:,}", f"{each.files:,}", size, newest, offsets, pins)
    out.print(f"[bold]{escape(lake)}[/bold]")
    out.print(table)


def show_compaction(lake: str, tables: Sequence[str], out: Console, *, as_json: bool) -> None:
    """Compact tables, and show what came of it."""
    found = {name: compact(lake, name) for name in tables or _existing(lake)}
    if as_json:
        _print({"lake": lake, "tables": found})
        return
    for name, told in found.items():
        out.print(f"{name}: {told['files_removed']} files became {told['files_added']}")


def show_vacuum(lake: str, tables: Sequence[str], out: Console, *, hours: int, run: bool, as_json: bool) -> None:
    """Vacuum tables, or show what that would remove."""
    found = [vacuum(lake, name, hours=hours, run=run) for name in tables or _existing(lake)]
    if as_json:
        _print({"lake": lake, "run": run, "tables": [asdict(each) for each in found]})
        return
    for each in found:
        deed = "removed" if run else "would be removed"
        kept = f"; pinned versions kept: {', '.join(map(str, each.kept_versions))}" if each.kept_versions else ""
        logs = "; its log is kept for them" if each.is_log_kept else ""
        out.print(f"{each.table}: {len(each.files)} files {deed}{kept}{logs}")
    if not run:
        out.print("Nothing was removed; [bold]--run[/bold] does it.")


def show_history(lake: str, name: str, out: Console, *, limit: int, as_json: bool) -> None:
    """Show a table's commits, newest first."""
    found = history(lake, name, limit)
    if as_json:
        _print({"table": name, "history": found})
        return
    table = _table("version", "at", "operation", "rows added", "files added", "files removed")
    for each in found:
        metrics = each["metrics"]
        figures = [metrics.get(key, "") for key in ("num_added_rows", "num_added_files", "num_removed_files")]
        table.add_row(str(each["version"]), f"{each['at']:%Y-%m-%d %H:%M:%S}", each["operation"], *map(str, figures))
    out.print(table)


def show_rows(
    lake: str,
    name: str,
    out: Console,
    *,
    version: int | None,
    limit: int,
    columns: Sequence[str],
    as_json: bool,
) -> None:
    """Show some rows of a version."""
    at, rows = rows_at(lake, name, version, limit, columns or None)
    if as_json:
        _print({"table": name, "version": at, "rows": rows.to_pylist()})
        return
    shown = list(columns) or [column for column in _SHOWN if column in rows.column_names]
    table = _table(*shown)
    for row in rows.select(shown).to_pylist():
        table.add_row(*(_cell(row[column]) for column in shown))
    out.print(f"{name}, version {at}, {len(shown)} of {rows.num_columns} columns (--column, --json)")
    out.print(table)


def show_pin(lake: str, name: str, out: Console, *, version: int | None, pin_name: str, as_json: bool) -> None:
    """Pin a version."""
    made = pin(lake, name, version, pin_name)
    if as_json:
        _print(asdict(made))
    else:
        out.print(f"{made.table} version {made.version} stays readable, until `pixguard lake unpin {made.name}`.")


def show_unpinned(lake: str, pin_name: str, out: Console, *, as_json: bool) -> None:
    """Take pins back."""
    gone = unpin(lake, pin_name)
    if as_json:
        _print({"unpinned": [asdict(each) for each in gone]})
        return
    for each in gone:
        out.print(f"{each.table} version {each.version} is not pinned by {each.name} any more.")


def _existing(lake: str) -> list[str]:
    existing = {each.table for each in status(lake, 1) if each.version is not None}
    return [name for name in LAKE_TOPICS if name in existing]


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cell(value: Any) -> str:  # noqa: ANN401 - of any column
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _print(document: dict[str, Any]) -> None:
    print(json.dumps(document, default=_plain))  # noqa: T201 - for a pipe


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON does not have
    return value.hex() if isinstance(value, bytes) else value.isoformat()

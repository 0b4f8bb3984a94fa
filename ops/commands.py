"""What the commands show: progress while they work, tables when they are done."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from agents.controls import DEFAULT_RULES, read_pack
from app.asyncapi import render_asyncapi
from app.connection import check_connection
from app.kafka_options import client_options
from app.settings import PREFIX, Settings
from app.topics import topics
from ops.mapping import load_mapping
from ops.replay import ReplayReport, replay_file, replay_topics
from ops.send import SendProgress, SendReport, send_file
from ops.simulate import simulate_to_kafka
from ops.state import read_profiles
from ops.steps import steps
from ops.topic_admin import ensure_topics
from ops.traffic.feedback import FeedbackConfig
from ops.traffic.files import write_traffic
from ops.traffic.generator import TrafficConfig

__all__ = [
    "print_asyncapi",
    "replay_and_report",
    "send_and_report",
    "show_config",
    "show_state",
    "show_topics",
    "simulate_files",
    "simulate_kafka",
]


def print_asyncapi(settings: Settings) -> None:
    """Print the AsyncAPI document of all topics."""
    print(json.dumps(render_asyncapi(settings.app_id), indent=2))  # noqa: T201 - for a pipe, not for the eye


async def show_topics(settings: Settings, out: Console, *, create: bool, fix: bool) -> bool:
    """Create and check the topics; whether all are as declared now."""
    await check_connection(settings)
    declared = topics(settings.app_id)
    differences = await ensure_topics(
        client_options(settings),
        declared,
        partitions=settings.partitions,
        replication_factor=settings.replication_factor,
        create=create,
        fix=fix,
    )
    if not differences:
        out.print(f"{len(declared)} topics on {settings.broker} are as declared.")
        return True
    table = Table("topic", "setting", "expected", "found", "now")
    for row in differences:
        table.add_row(row.topic, row.setting, row.expected, row.found, "mended" if row.resolved else "[red]differs[/]")
    out.print(table)
    left = [row for row in differences if not row.resolved]
    if left:
        out.print("Settings are altered with --fix; partitions and replication are not: state is per partition.")
    return not left


def simulate_files(
    directory: Path,
    file_format: Literal["ndjson", "parquet"],
    traffic: dict[str, Any],
    feedback_scale: float,
    out: Console,
    *,
    quiet: bool,
) -> None:
    """Generate traffic into files."""
    config = _traffic(traffic)
    if config.count is None and config.duration_s is None:
        config = _traffic({**traffic, "count": 100_000})
    with steps(out, quiet=quiet) as step:
        advance = step("Generating")
        written = write_traffic(
            config,
            directory,
            file_format,
            FeedbackConfig(config.seed, delay_scale=feedback_scale),
            lambda number: advance(number / config.count if config.count else None, f"{number:,} messages"),
        )
    out.print(
        f"{written.transactions:,} transactions, {written.feedback:,} feedback messages and {written.labels:,} labels "
        f"in {directory}"
    )


async def simulate_kafka(
    settings: Settings, traffic: dict[str, Any], feedback_scale: float, speed: float, out: Console, *, quiet: bool
) -> None:
    """Generate traffic to the cluster, paced by the wall clock."""
    config = _traffic(traffic)
    with steps(out, quiet=quiet) as step:
        advance = step("Sending")
        report = await simulate_to_kafka(
            settings,
            config,
            feedback=FeedbackConfig(config.seed, delay_scale=feedback_scale),
            speed=speed,
            progress=lambda p: advance(None, f"{p.sent:,} sent, {p.feedback:,} feedback, {p.lag_s:.1f} s behind"),
        )
    out.print(f"{report.sent:,} transactions and {report.feedback:,} feedback messages sent to {settings.broker}")


def _traffic(options: dict[str, Any]) -> TrafficConfig:
    return TrafficConfig(start_ms=int(time.time() * 1000), **options)


async def send_and_report(
    settings: Settings,
    path: Path,
    mapping: Path | None,
    file_format: str | None,
    options: dict[str, Any],
    out: Console,
) -> bool:
    """Send a file and report; whether every row was decided on (or was not waited for)."""
    with steps(out) as step:
        advance = step(f"Sending {path.name}")

        def show(progress: SendProgress) -> None:
            decided = sum(progress.decided.values())
            advance(progress.share, f"{progress.sent:,} sent, {decided:,} decided, {progress.rejected:,} rejected")

        report = await send_file(
            settings,
            path,
            mapping=load_mapping(mapping) if mapping else None,
            format=file_format,
            progress=show,
            **options,
        )
    _print_send_report(report, out)
    return report.failure is None and not report.rejected and not report.unanswered


def _print_send_report(report: SendReport, out: Console) -> None:
    per_s = report.sent / report.seconds if report.seconds > 0 else 0
    out.print(f"{report.sent:,} rows sent in {report.seconds:.1f} s ({per_s:,.0f}/s)")
    if report.unanswered is not None:
        table = Table("outcome", "rows")
        for action, count in report.decided.items():
            table.add_row(action, f"{count:,}")
        table.add_row("rejected", f"{sum(group.count for group in report.rejected):,}")
        table.add_row("no answer", f"{report.unanswered:,}")
        out.print(table)
        if report.unanswered:
            out.print("No answer: is a worker running? Start one with `pixguard worker`.")
    if report.rejected:
        table = Table("rows", "where", "expected", "first rows")
        for group in report.rejected:
            table.add_row(f"{group.count:,}", group.path, group.expected, ", ".join(map(str, group.rows)))
        out.print(table)
    if report.failure:
        out.print(f"[red]Ended early:[/] {report.failure}")


def replay_and_report(
    settings: Settings,
    path: Path | None,
    rules: Path | None,
    mapping: Path | None,
    file_format: str | None,
    out: Console,
) -> None:
    """Replay the topics, or a file, and show what other rules would change."""
    in_force = read_pack(settings.rules_file or DEFAULT_RULES)
    after = read_pack(rules) if rules else in_force
    with steps(out) as step:
        advance = step("Replaying")
        if path is None:
            report = asyncio.run(replay_topics(settings, after, progress=advance))
        else:
            report = replay_file(
                settings,
                path,
                before=in_force,
                after=after,
                mapping=load_mapping(mapping) if mapping else None,
                format=file_format,
                progress=advance,
            )
    _print_replay_report(report, out)


def _print_replay_report(report: ReplayReport, out: Console) -> None:
    out.print(
        f"{report.transactions:,} decisions replayed: {report.identical:,} identical to the byte, "
        f"{report.changed:,} with another action. Rules before: {', '.join(sorted(report.before)) or 'none'}; "
        f"after: {report.after}."
    )
    for count, what in (
        (report.unmatched, "without a recorded decision to compare with"),
        (report.recorded, "on recorded vectors, since retention has cut the log"),
        (report.rejected, "messages rejected"),
    ):
        if count:
            out.print(f"{count:,} {what}")
    table = Table("before", "after", "payments", "R$", title="Actions")
    for (before, after), count in sorted(report.actions.items()):
        style = "bold" if before != after else "dim"
        table.add_row(before, after, f"{count:,}", f"{report.centavos[before, after] / 100:,.2f}", style=style)
    out.print(table)
    moved = {rule: counts for rule, counts in report.rules.items() if counts[0] != counts[1]}
    if moved:
        table = Table("rule", "fired before", "fired after", title="Rules that fire more or less often")
        for rule, (before_count, after_count) in sorted(moved.items()):
            table.add_row(rule, f"{before_count:,}", f"{after_count:,}")
        out.print(table)
    if report.examples:
        table = Table("end_to_end_id", "before", "after", "reasons after", title="Examples")
        for old, new in report.examples:
            table.add_row(
                old.end_to_end_id,
                f"{old.decision} {old.score:.3f}",
                f"{new.decision} {new.score:.3f}",
                ", ".join(reason.code for reason in new.reasons),
            )
        out.print(table)


async def show_state(settings: Settings, key: str, at_ms: int | None, out: Console) -> bool:
    """Show the profiles of a key; whether anything is known of it."""
    views = await read_profiles(settings, key, at_ms if at_ms is not None else int(time.time() * 1000))
    for view in views:
        if view.values is None:
            out.print(f"{view.stage}: nothing known (pseudonym {view.pseudonym}, partition {view.partition})")
            continue
        table = Table("feature", "value", title=f"{view.stage} {view.pseudonym}, partition {view.partition}")
        for name, value in view.values.items():
            table.add_row(name, "missing" if value is None else f"{value:,.10g}")
        out.print(table)
    return any(view.values is not None for view in views)


def show_config(settings: Settings, out: Console, *, as_toml: bool) -> None:
    """Show every setting; as a TOML file, with defaults commented out."""
    if as_toml:
        for name, field in Settings.model_fields.items():
            value = getattr(settings, name)
            shown = json.dumps(str(value) if isinstance(value, Path) else value, default=lambda _: "...")
            print(f"# {field.description}\n{'# ' if value == field.default else ''}{name} = {shown}\n")  # noqa: T201
        return
    table = Table("setting", "value", "environment", "meaning")
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        shown = "***" if isinstance(value, SecretStr) else "" if value is None else str(value)
        table.add_row(name, shown, PREFIX + name.upper(), field.description)
    out.print(table)
    out.print("Also from a TOML file: ./pixguard.toml, or the one that PIXGUARD_CONFIG names. Options win over both.")

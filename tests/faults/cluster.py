"""Seeded faults on a real broker and real worker processes: `python -m faults cluster`."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import statistics
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .cluster_plan import draw_cluster_plan
from .cluster_run import CLUSTER_REPLAY, ClusterRun, run_cluster
from .report import Report

__all__ = ["cluster_command", "run_seed"]

_JARS_DIR = Path.home() / ".cache" / "pixguard" / "kafka"


def run_seed(seed: int) -> ClusterRun:
    """Run one seed in a folder that is gone afterwards, unless something was wrong."""
    # Brokers and workers end in mid-sentence here: what the clients say to that is no news.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix=f"pixguard-faults-{seed}-"))
    try:
        run = asyncio.run(run_cluster(seed, folder, _JARS_DIR))
    except Exception:  # noqa: BLE001 - whatever it is, it is of one run, and the others go on
        run = ClusterRun(draw_cluster_plan(seed))
        run.violations.append(("the run comes to its end", traceback.format_exc()))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if run.violations:
        run.violations.append(("(where)", f"logs and data: {folder}"))
    else:
        shutil.rmtree(folder)
    return run


def cluster_command(
    runs: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 100,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,  # noqa: FBT002 - Typer
) -> None:
    """Run worker processes on a real broker under drawn faults, and check topics and state afterwards."""
    console = Console(stderr=True)
    report, done = Report(CLUSTER_REPLAY), []
    started_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("runs", total=runs)
        for run in _runs(range(seed, seed + runs), jobs):
            done.append(run)
            report.add(run.result())
            progress.console.print(run.words, markup=False, highlight=False, soft_wrap=True)
            progress.update(task, advance=1, description=f"{len(report.failed_seeds)} failed")
    report.elapsed_s = time.monotonic() - started_s
    if as_json:
        typer.echo(json.dumps(report.as_json() | {"each": [run.as_json() for run in done]}, indent=2))
    else:
        report.show(Console())
        _show_times(Console(), done)
    raise typer.Exit(1 if report.violations else 0)


def _runs(seeds: range, jobs: int) -> Iterator[ClusterRun]:
    if jobs == 1:
        yield from map(run_seed, seeds)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(run_seed, seeds)


def _show_times(console: Console, runs: list[ClusterRun]) -> None:
    for what, times_s in (
        ("hand-over after SIGTERM", [seconds for run in runs for seconds in run.handover_s]),
        ("recovery after kill -9", [seconds for run in runs for seconds in run.recovery_s]),
        ("a run", [run.elapsed_s for run in runs]),
    ):
        if times_s:
            middle, most = statistics.median(times_s), max(times_s)
            console.print(f"{what}: {len(times_s)} times, median {middle:.1f} s, longest {most:.1f} s", highlight=False)

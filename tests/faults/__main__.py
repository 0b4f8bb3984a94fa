"""`python -m faults`: seeded faults, from the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .cluster import cluster_command
from .report import Report, RunResult
from .simulation import REPLAY, prepare, prepare_for_good, simulate

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Break the pipeline on purpose, by seed, and check that nothing is lost, doubled or changed."""


@app.command("simulate")
def simulate_command(
    runs: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 200,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell what happens in each run.")] = False,  # noqa: FBT002 - Typer's way
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,  # noqa: FBT002 - Typer's way
) -> None:
    """Run the whole pipeline in one process, in simulated time, under drawn faults."""
    console = Console(stderr=True)
    report = Report(REPLAY)
    started_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=verbose) as progress:
        task = progress.add_task("runs", total=runs)
        for result in _results(range(seed, seed + runs), jobs, verbose=verbose):
            report.add(result)
            for violation in result.violations:
                progress.console.print(f"seed {violation.seed}: {violation.invariant}", markup=False)
            progress.update(task, advance=1, description=f"{len(report.failed_seeds)} failed")
    report.elapsed_s = time.monotonic() - started_s
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        report.show(Console())
    raise typer.Exit(1 if report.violations else 0)


def _results(seeds: range, jobs: int, *, verbose: bool) -> Iterator[RunResult]:
    if jobs == 1 or verbose:
        tell = typer.echo if verbose else None
        with prepare():
            yield from (simulate(seed, tell=tell) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=prepare_for_good) as pool:
        yield from pool.map(simulate, seeds, chunksize=min(20, -(-len(seeds) // jobs)))


app.command("cluster")(cluster_command)


if __name__ == "__main__":
    app()

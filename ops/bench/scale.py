"""`pixguard capacity`: a bank's own numbers, and the page `ops/capacity.md` that the same model writes.

The page holds what was measured, as JSON, and the tables that follow from it. Tables are a pure function of that
JSON, so that a test can tell whether the page is up to date.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable

from ops.bench.capacity import CapacityError, Demand, plan
from ops.bench.capacity_tables import (
    Table,
    measured_tables,
    plan_rows,
    scenario_tables,
    simulation_tables,
    volume_table,
)
from ops.bench.growth import measure_growth
from ops.bench.measured import AtRate, Measured
from ops.bench.replicas import measure_real
from ops.bench.unit_costs import costs_of

__all__ = ["PAGE", "CapacityError", "Demand", "measure", "read_measured", "render_page", "run_capacity", "with_bench"]

PAGE = Path(__file__).resolve().parent.parent / "capacity.md"
"""The page in the docs."""

_SIZES = (10_000, 100_000, 1_000_000, 3_000_000)
_PAYMENTS = (1, 4, 16, 64, 256)
_RATES_PER_S = (500, 2000)
_RATE = re.compile(r"p50_ms_(\d+)(k?)")
_MEASURED, _TABLES = "measured", "tables"


def run_capacity(
    out: Console,
    demand: Demand,
    *,
    jars_dir: Path,
    bench: Path | None = None,
    remeasure: bool = False,
    write: bool = False,
) -> None:
    """Print what a demand needs, and write the page where asked.

    Parameters
    ----------
    out
        Where tables go.
    demand
        The bank's numbers.
    jars_dir
        Of the broker that `remeasure` starts.
    bench
        What `pixguard bench --json` printed: its figures replace the page's.
    remeasure
        Measure growth and the real path on this machine first: ten minutes.
    write
        Write the page, with the figures used.

    Raises
    ------
    CapacityError
        When the demand cannot be met, or a file does not hold what it should; the message names it.
    """
    text = PAGE.read_text(encoding="utf-8")
    measured = measure(jars_dir, out) if remeasure else read_measured(text)
    if bench is not None:
        measured = with_bench(measured, _read_bench(bench))
    found = plan(costs_of(measured), demand)
    table = RichTable("", "", title=f"{demand.rate_per_s:,.0f}/s, {demand.customers:,.0f} customers", show_header=False)
    for name, value in plan_rows(found):
        table.add_row(name, value)
    out.print(table)
    volumes = volume_table(found, demand)
    table = RichTable(*volumes.columns, title=volumes.title)
    for row in volumes.rows:
        table.add_row(*row)
    out.print(table)
    out.print(f"Costs: {measured.machine}. Formulas and assumptions: {PAGE.name} beside the programs, `ops/bench`.")
    if write:
        PAGE.write_text(render_page(text, measured), encoding="utf-8")
        out.print(f"Written: {PAGE.name}")


def measure(jars_dir: Path, out: Console) -> Measured:
    """Measure everything that the model needs, on this machine, with progress."""
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task("Measuring", total=len(_SIZES) + len(_PAYMENTS) + 6)

        def tell(what: str) -> None:
            progress.update(task, advance=1, description=what)

        growth, histories, messages = measure_growth(_SIZES, _PAYMENTS, tell)
        real = measure_real(jars_dir, rates=_RATES_PER_S, progress=tell)
    busy = os.getloadavg()[0]
    machine = f"{os.cpu_count()} {platform.machine()} cores, Python {platform.python_version()}, load {busy:.0f}"
    return Measured(machine, growth, histories, messages, real)


def with_bench(measured: Measured, figures: Mapping[str, Any]) -> Measured:
    """Take the cost of an event and the latencies of `pixguard bench --json`, where it tells them.

    An event costs `worker_cpu_us`, else a second by `events_per_core_s`, with `keys` profiles in the worker; latencies
    are `p50_ms_10k`, `p99_ms_10k`, `p999_ms_10k` and so on.

    Raises
    ------
    CapacityError
        For figures of another kind.
    """
    real = measured.real
    try:
        if "worker_cpu_us" in figures or "events_per_core_s" in figures:
            event_us = float(figures.get("worker_cpu_us") or 1e6 / float(figures["events_per_core_s"]))
            one = min(real.replicas, key=lambda each: each.workers)
            replicas = [each for each in real.replicas if each is not one]
            faster = msgspec.structs.replace(one, worker_us=event_us)
            profiles = measured.growth[-1].rows / measured.growth[-1].customers
            customers = int(float(figures["keys"]) / profiles) if "keys" in figures else real.customers
            real = msgspec.structs.replace(real, replicas=[faster, *replicas], customers=customers)
        rates = [rate for rate in map(_RATE.fullmatch, figures) if rate is not None]
        if rates:
            paced = [_at_rate(rate, figures) for rate in rates]
            real = msgspec.structs.replace(real, paced=paced)
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        raise CapacityError(f"bench figures: expected numbers, got {error!r}") from error
    return msgspec.structs.replace(measured, real=real)


def _at_rate(rate: re.Match[str], figures: Mapping[str, Any]) -> AtRate:
    name = rate[1] + rate[2]
    p50, p99, p999 = (float(figures[f"{percentile}_ms_{name}"]) for percentile in ("p50", "p99", "p999"))
    return AtRate(int(rate[1]) * (1000 if rate[2] else 1), p50, p99, p999)


def _read_bench(path: Path) -> Mapping[str, Any]:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CapacityError(f"{path}: expected the output of `pixguard bench --json`: {error}") from error
    if not isinstance(figures, dict):
        raise CapacityError(f"{path}: expected a JSON object, got {type(figures).__name__}")
    return figures


def read_measured(text: str) -> Measured:
    """The figures that a page holds.

    Raises
    ------
    CapacityError
        When it holds none, or others.
    """
    block = _between(text, _MEASURED).strip().removeprefix("```json").removesuffix("```")
    try:
        return msgspec.json.decode(block, type=Measured)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise CapacityError(f"{PAGE.name}: {_MEASURED}: {error}") from error


def render_page(text: str, measured: Measured) -> str:
    """The page with these figures and their tables between its markers; the prose around them stays."""
    # What the page keeps is what its tables come from.
    kept = _rounded(msgspec.to_builtins(measured))
    rounded = msgspec.convert(kept, Measured)
    costs = costs_of(rounded)
    tables = [*measured_tables(rounded, costs), *scenario_tables(costs), *simulation_tables(rounded, costs)]
    figures = msgspec.json.format(msgspec.json.encode(kept)).decode()
    blocks = [f"Measured on {rounded.machine}.", *map(_markdown, tables)]
    text = _replaced(text, _TABLES, "\n\n".join(blocks))
    return _replaced(text, _MEASURED, f"```json\n{figures}\n```")


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _markdown(table: Table) -> str:
    lines = [f"**{table.title}**", "", f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table.rows)])


def _bounds(text: str, name: str) -> tuple[int, int]:
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise CapacityError(f"{PAGE.name}: expected {begin} and {end} once, in this order")
    return text.index(begin) + len(begin), text.index(end)


def _between(text: str, name: str) -> str:
    start, end = _bounds(text, name)
    return text[start:end]


def _replaced(text: str, name: str, block: str) -> str:
    start, end = _bounds(text, name)
    return f"{text[:start]}\n{block}\n{text[end:]}"

"""`pixguard train`, `promote` and `models`: from recorded payments to the model that decides, step by step."""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import shutil
import subprocess
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from app.model_registry import open_registry
from app.settings import Settings
from models.batch.gates import Gate, judge_challenger
from models.batch.model import BatchModel
from models.batch.registry import CHALLENGER, CHAMPION, ModelVersion, Registry, RegistryError
from models.batch.training import TrainedModel, TrainingPlan, train
from models.batch.training_set import TrainingSet
from models.drift.look import reference_of
from models.quality.assessment import ALERT_SHARES, share_name
from ops.plots import training_figures
from ops.recorded import Simulation, recorded_set, simulated_set
from ops.steps import steps
from tables.layout import HOUR_MS

__all__ = ["promote_and_report", "roll_back_and_report", "show_models", "train_and_report"]

_HERE = Path(__file__).parent
_LOCK = _HERE / "requirements" / "dev.lock"
_PACKAGES = ("pixguard", "lightgbm", "numpy", "mlflow", "scikit-learn", "numba")
_TEST_ROWS_MOST = 60_000
"""Rows that are kept with a version: enough to judge others on, without keeping the whole recording."""


# -- train


def train_and_report(
    settings: Settings,
    out: Console,
    *,
    simulation: Simulation | None,
    seed: int,
    rounds: int,
    as_json: bool = False,
) -> int:
    """Train a model on recorded payments (or simulated ones), log it, and register it as challenger.

    Parameters
    ----------
    settings
        Name the cluster, the data folder and the registry.
    out
        For people.
    simulation
        What is simulated; None: what `pix-labelled` holds, whose labels matured as the settings say.
    seed, rounds
        Of the model: see `TrainingPlan`.
    as_json
        Whether to print the report as one JSON object instead of tables.

    Returns
    -------
    The version's number.

    Raises
    ------
    TrainingError, TrainingSetError
        When there is not enough to learn from.
    RegistryError
        When the registry cannot be reached.
    """
    registry = open_registry(settings)
    with steps(out, quiet=as_json) as step:
        advance = step("Reading labelled payments" if simulation is None else "Simulating payments")
        maturity_ms = round(settings.label_maturity_h * HOUR_MS)
        if simulation is None:
            rows = asyncio.run(recorded_set(settings, maturity_ms=maturity_ms, progress=advance))
        else:
            rows, maturity_ms = simulated_set(simulation, progress=advance), simulation.maturity_ms
        champion = _load(registry, registry.alias_version(CHAMPION))
        plan = TrainingPlan(maturity_ms, seed=seed, rounds=rounds, name=registry.name)
        trained = train(rows, plan, champion=champion, progress=step("Learning"))
        step("Logging")(None)
        learned_from = rows.take(rows.event_time < trained.model.trained_until)
        number = registry.log_training(
            trained,
            facts={**_facts(), "source": "pix-labelled" if simulation is None else f"simulation {asdict(simulation)}"},
            figures=training_figures(trained),
            test_rows=_kept(trained.test, seed).to_bytes(),
            reference=reference_of(trained.test, trained.model, learned_from).to_bytes(),
        )
    if as_json:
        _print_json({"version": number, "data": trained.data, **trained.report})
    else:
        _print_training(out, trained, number, registry)
    return number


def _kept(rows: TrainingSet, seed: int) -> TrainingSet:
    """Return all frauds, and a sample of the rest that weighs as much as all of it."""
    frauds = rows.labels == 1
    room = max(_TEST_ROWS_MOST - int(frauds.sum()), 1)
    others = np.flatnonzero(~frauds)
    if len(others) <= room:
        return rows
    chosen = np.random.default_rng(seed).choice(others, room, replace=False)
    mask = frauds.copy()
    mask[chosen] = True
    weights = np.where(frauds, rows.weights, rows.weights * (len(others) / room))
    return replace(rows, weights=weights).take(mask)


def _facts() -> dict[str, str]:
    """What a model came from, beside its data: code, lock file, environment."""
    packages = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "not installed"
    return {
        "commit": _commit(),
        "lock": hashlib.sha256(_LOCK.read_bytes()).hexdigest() if _LOCK.exists() else "unknown",
        "environment": json.dumps({"python": platform.python_version(), "machine": platform.machine(), **packages}),
    }


def _commit() -> str:
    """The commit of this code, with + where files were changed since; unknown outside of a repository."""
    git = shutil.which("git")
    try:
        commit, changed = (
            subprocess.run(  # noqa: S603 - git itself
                [str(git), *asked], cwd=_HERE, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for asked in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}+" if changed else commit


# -- promote


def promote_and_report(
    settings: Settings, out: Console, *, number: int | None, force: str | None, as_json: bool = False
) -> bool:
    """Check the gates, and make a version the champion where all of them hold.

    Parameters
    ----------
    settings, out
        As for training.
    number
        The version; None: the challenger.
    force
        The reason to promote it even where a gate does not hold; recorded.
    as_json
        Whether to print JSON instead of tables.

    Returns
    -------
    Whether it is the champion now.

    Raises
    ------
    RegistryError
        When the registry cannot be reached, or has no such version.
    """
    registry = open_registry(settings)
    chosen = number if number is not None else registry.alias_version(CHALLENGER)
    if chosen is None:
        raise RegistryError("registry: expected a challenger to promote, got none: `pixguard train` makes one")
    current = registry.alias_version(CHAMPION)
    if current == chosen:
        raise RegistryError(f"registry: version {chosen} is the champion already")
    with steps(out, quiet=as_json) as step:
        step("Judging on the same payments")(None)
        challenger, champion = _load(registry, chosen), _load(registry, current)
        assert challenger is not None  # noqa: S101 - `chosen` is a number
        rows = TrainingSet.from_bytes(registry.test_rows(chosen))
        speeds = {name: _us_per_row(model, rows) for name, model in _named(challenger, champion) if model is not None}
        gates = judge_challenger(rows, challenger, champion, speeds)
    passed = all(gate.passed for gate in gates)
    if passed or force:
        if not passed:
            registry.tag(chosen, "forced", str(force))
        registry.tag(chosen, "gates", json.dumps([gate._asdict() for gate in gates])[:4_500])
        registry.promote(chosen, at_ms=_now_ms(), reason=force or "all gates passed")
    if as_json:
        _print_json({"version": chosen, "promoted": passed or bool(force), "gates": [gate._asdict() for gate in gates]})
    else:
        _print_gates(out, chosen, current, gates, force)
    return passed or bool(force)


def _named(challenger: BatchModel, champion: BatchModel | None) -> list[tuple[str, BatchModel | None]]:
    return [("challenger", challenger), ("champion", champion)]


def _load(registry: Registry, number: int | None) -> BatchModel | None:
    return None if number is None else BatchModel.from_bytes(registry.artifact(number)).numbered(number)


def _us_per_row(model: BatchModel, rows: TrainingSet, batch: int = 100, repeats: int = 200) -> float:
    """Return microseconds per row in batches of 100: of many calls the fastest, which no other process disturbed."""
    vectors = rows.vectors[:batch]
    model.probabilities(vectors)  # what is compiled and laid out once
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        model.probabilities(vectors)
        best = min(best, time.perf_counter() - begin)
    return best / max(len(vectors), 1) * 1e6


# -- models


def show_models(
    settings: Settings, out: Console, *, compared: tuple[int, int] | None = None, as_json: bool = False
) -> None:
    """List the versions, or set two of them side by side.

    Raises
    ------
    RegistryError
        When the registry cannot be reached, or has no such version.
    """
    registry = open_registry(settings)
    versions = registry.versions()
    if compared is not None:
        reports = [json.loads(registry.artifact(number, "report.json")) for number in compared]
        if as_json:
            _print_json({str(number): report for number, report in zip(compared, reports, strict=True)})
        else:
            _print_comparison(out, compared, reports)
        return
    if as_json:
        _print_json(
            {"versions": [asdict(each) for each in versions], "history": registry.history() if versions else []}
        )
        return
    if not versions:
        out.print("No model yet: `pixguard train` makes one.")
        return
    table = Table("v", "alias", "until", "AP", "rows", "frauds", "commit", "source", box=SIMPLE_HEAD, pad_edge=False)
    for each in versions:
        table.add_row(*_row(each))
    out.print(table)


def roll_back_and_report(settings: Settings, out: Console, *, reason: str, as_json: bool = False) -> None:
    """Make the previous champion the champion again.

    Raises
    ------
    RegistryError
        When there is none, or the registry cannot be reached.
    """
    before, after = open_registry(settings).roll_back(at_ms=_now_ms(), reason=reason)
    if as_json:
        _print_json({"before": before, "champion": after})
    else:
        out.print(f"Version {after} is the champion again, in place of {before}. Workers follow within their poll.")


def _row(each: ModelVersion) -> list[str]:
    facts = each.facts
    until = datetime.fromtimestamp(int(facts.get("trained_until", 0)) / 1000, UTC)
    style = {CHAMPION: "[bold green]", CHALLENGER: "[yellow]"}
    aliases = "\n".join(f"{style.get(alias, '[dim]')}{alias}[/]" for alias in each.aliases)
    return [
        str(each.version),
        aliases,
        f"{until:%m-%d %H:%M}",
        f"{float(facts.get('average_precision', 'nan')):.4f}",
        f"{int(facts.get('rows', 0)):,}",
        facts.get("frauds", ""),
        facts.get("commit", "")[:7],
        facts.get("source", "").split(" ")[0],
    ]


# -- what is shown

_LIFTED = {
    "average_precision": "average precision",
    **{
        f"{metric}_at_{share_name(share)}": f"{words} at {share:.1%} alerts"
        for share in ALERT_SHARES
        for metric, words in (("recall", "frauds caught"), ("value_caught", "value caught"), ("precision", "precision"))
    },
    "calibration_error": "calibration error",
    "brier_score": "Brier score",
}


def _print_training(out: Console, trained: TrainedModel, number: int, registry: Registry) -> None:
    report = trained.report
    for name, extent in report["parts"].items():
        out.print(f"{name}: {extent['rows']:,} payments, {extent['frauds']:,} frauds, {_span(extent)}")
    table = Table("on the test part", *report["scores"])
    for metric, words in _LIFTED.items():
        values = (scores.get(metric) for scores in report["scores"].values())
        table.add_row(words, *("" if value is None else f"{value:.4f}" for value in values))
    out.print(table)
    for name, gain in report["gains"].items():
        out.print(f"gain over {name}: {gain['estimate']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})")
    table = Table("segment", "payments", "frauds", *(f"AP {name}" for name in report["scores"]))
    for row in report["segments"]:
        areas = (f"{row[f'{name}_average_precision']:.4f}" for name in report["scores"])
        table.add_row(f"{row['kind']} {row['name']}", f"{row['rows']:,}", str(row["frauds"]), *areas)
    out.print(table)
    learned = report["learned"]
    out.print(f"fitted again to {learned['rows']:,} payments, {learned['frauds']:,} frauds, {_span(learned)}")
    out.print(
        f"Version [bold]{number}[/] of {registry.name} is the challenger: {report['trees']} trees, "
        f"{report['calibration']} calibration, data {trained.data[:12]}. `pixguard promote` makes it the champion."
    )


def _span(extent: dict[str, int]) -> str:
    begin, end = (datetime.fromtimestamp(extent[name] / 1000, UTC) for name in ("from", "until"))
    return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"


def _print_gates(out: Console, chosen: int, current: int | None, gates: list[Gate], force: str | None) -> None:
    table = Table("gate", "", "figures")
    for gate in gates:
        table.add_row(gate.name, "[green]passed[/]" if gate.passed else "[red]failed[/]", gate.why)
    out.print(table)
    failed = [gate.name for gate in gates if not gate.passed]
    instead = f", in place of {current}" if current is not None else ""
    if not failed:
        out.print(f"Version {chosen} is the champion now{instead}.")
    elif force:
        out.print(f"[yellow]Version {chosen} is the champion now{instead}, against {', '.join(failed)}:[/] {force}")
    else:
        out.print(f"Version {chosen} stays as it is: {', '.join(failed)}. --force REASON promotes it all the same.")


def _print_comparison(out: Console, compared: tuple[int, int], reports: list[dict[str, Any]]) -> None:
    table = Table("", *(f"version {number}" for number in compared))
    for name in ("trained_until", "trees", "calibration", "fingerprint"):
        table.add_row(name, *(str(report[name]) for report in reports))
    for metric, words in _LIFTED.items():
        table.add_row(words, *(f"{report['scores']['model'][metric]:.4f}" for report in reports))
    out.print(table)
    out.print("Each on its own test part: `pixguard promote` compares on the same payments.")


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, default=float))  # noqa: T201 - for a pipe, not for the eye


def _now_ms() -> int:
    return int(time.time() * 1000)

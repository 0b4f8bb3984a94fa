"""`pixguard evaluate`: the models put to the proof on simulated streams, or on a user's labelled file.

Each stream is lived through in order of time (`models.quality.streaming`): whoever scores a payment knows only what
was known when it happened. Then all are judged by the same draws of chance (`ops.proof`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from app.domain.siphash import HashKey
from app.settings import Settings
from models.batch.training_set import UNKNOWN, TrainingSet, TrainingSetError
from models.quality.assessment import ALERT_SHARES, share_name
from models.quality.block_bootstrap import Draws
from models.quality.streaming import SCORERS, LivedStream, StreamPlan, live_through
from ops.labelled_files import LabelColumns, file_set
from ops.mapping import load_mapping
from ops.proof import BASES, CONFIDENCE, Novelty, catching_up, judge, middle, outcome, verdict
from ops.recorded import Simulation, simulated_set
from tables.layout import DAY_MS, HOUR_MS
from tables.typologies import TYPOLOGIES

__all__ = ["FileSource", "SimulatedSource", "evaluate_and_report"]

Advance = Callable[[float], None]

_SIMULATING = 0.3
"""Share of a stream's time that making it takes, about; the rest is living through it."""

_LIVED = 0.9
"""Share of the time after which all that is left is to judge."""

_LEARNERS = ("online", "batch static", "batch daily", "blend")
_WORDS = {
    "average_precision": "AP",
    **{f"recall_at_{share_name(share)}": f"frauds caught at {share:.1%}" for share in ALERT_SHARES},
    **{f"value_caught_at_{share_name(share)}": f"value caught at {share:.1%}" for share in ALERT_SHARES},
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
_BASES = {"truth": "what really happened", "labels": "what the bank came to know"}


@dataclass(frozen=True, slots=True)
class SimulatedSource:
    """Streams that are simulated, one for each seed.

    Parameters
    ----------
    seeds
        Same seeds, same numbers.
    payments, days, fraud_share, delay_scale
        Of each stream: see `Simulation`.
    new_fraud
        Typology that begins late in each stream; None: all are there from the first day on.
    new_fraud_after
        Share of the stream's days that has passed then.
    """

    seeds: Sequence[int] = (1, 2, 3)
    payments: int = 60_000
    days: float = 20.0
    fraud_share: float = 0.02
    delay_scale: float = 0.02
    new_fraud: str | None = "fake_shop"
    new_fraud_after: float = 0.5

    def __post_init__(self) -> None:
        known = [typology.name for typology in TYPOLOGIES.values() if typology.in_stream]
        if self.new_fraud is not None and self.new_fraud not in known:
            raise TrainingSetError(f"new fraud: expected one of {', '.join(known)}, got {self.new_fraud!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise TrainingSetError(f"seeds: expected different ones, got {list(self.seeds)}")

    def simulation(self, seed: int) -> Simulation:
        """Return one stream's simulation."""
        absent = {} if self.new_fraud is None else {self.new_fraud: self.new_fraud_after * self.days}
        return Simulation(
            seed=seed,
            payments=self.payments,
            days=self.days,
            fraud_share=self.fraud_share,
            delay_scale=self.delay_scale,
            absent=absent,
        )


@dataclass(frozen=True, slots=True)
class FileSource:
    """A labelled file.

    Parameters
    ----------
    path, format
        NDJSON, CSV or Parquet.
    mapping
        File that names the columns.
    columns
        Where the labels are.
    maturity_ms
        Age at which labels are taken; None: as the settings say.
    """

    path: Path
    format: str | None = None
    mapping: Path | None = None
    columns: LabelColumns = field(default_factory=LabelColumns)
    maturity_ms: int | None = None


def evaluate_and_report(
    settings: Settings,
    out: Console,
    source: SimulatedSource | FileSource,
    *,
    plan: StreamPlan | None = None,
    resamples: int = 200,
    as_json: bool = False,
) -> bool:
    """Evaluate amount, rules, online model, batch models and blend, and say whether the blend is worth having.

    Parameters
    ----------
    settings
        Give the key of pseudonyms and the maturity of a file's labels.
    out
        For people.
    source
        What the streams are.
    plan
        How they are lived through; `StreamPlan()` where None.
    resamples
        Draws for intervals.
    as_json
        Whether to print the report as one JSON object instead of tables.

    Returns
    -------
    Whether the blend is never worse than its best part and beats the rules, both by more than noise.

    Raises
    ------
    FileError, MappingError
        When the file cannot be read.
    TrainingSetError
        When a stream has too few frauds, or labels that come too late, to learn from.
    """
    plan = plan or StreamPlan()
    lived: list[LivedStream] = []
    with _bar(out, quiet=as_json) as advance:
        if isinstance(source, SimulatedSource):
            names = [f"seed {seed}" for seed in source.seeds]
            for number, seed in enumerate(source.seeds):
                stage = _stages(advance, number, len(names))
                rows = simulated_set(source.simulation(seed), progress=stage(f"{names[number]}: simulating", 0.0))
                lived.append(live_through(rows, plan, progress=stage(f"{names[number]}: living", _SIMULATING)))
        else:
            names = [source.path.name]
            stage = _stages(advance, 0, 1)
            rows = _read(settings, source, stage(f"{source.path.name}: deciding", 0.0))
            lived.append(live_through(rows, plan, progress=stage(f"{source.path.name}: living", _SIMULATING)))
        report = _report(source, plan, names, lived, resamples, lambda share: advance("judging", _LIVED + share / 10))
    if as_json:
        print(json.dumps(_plain(report), indent=2, allow_nan=False))  # noqa: T201 - for a pipe, not for the eye
    else:
        _print(out, report)
    return all(report["verdict"].values())


def _read(settings: Settings, source: FileSource, progress: Advance) -> TrainingSet:
    maturity_ms = source.maturity_ms
    if maturity_ms is None:
        maturity_ms = round(settings.label_maturity_h * HOUR_MS)
    return file_set(
        source.path,
        maturity_ms,
        hash_key=HashKey.from_bytes(settings.read_hash_key()),
        columns=source.columns,
        mapping=None if source.mapping is None else load_mapping(source.mapping),
        format=source.format,
        progress=progress,
    ).rows


# -- reported


def _report(
    source: SimulatedSource | FileSource,
    plan: StreamPlan,
    names: Sequence[str],
    lived: Sequence[LivedStream],
    resamples: int,
    progress: Advance,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "source": asdict(source),
        "plan": asdict(plan),
        "confidence": CONFIDENCE,
        "streams": [_extent(name, each) for name, each in zip(names, lived, strict=True)],
        "against": {},
    }
    for number, basis in enumerate(BASES):
        found = []
        for place, each in enumerate(lived):
            judged = judge(each, basis, seed=plan.seed + place, resamples=resamples)
            found += [] if judged is None else [judged]
            progress((number + (place + 1) / len(lived)) / len(BASES))
        if len(found) < len(lived):
            continue
        said = verdict(found)
        report["against"][basis] = {
            "most": {share_name(share): _most(lived, basis, share) for share in ALERT_SHARES},
            "scores": _intervals(said.pop("pooled")),
            "by_stream": [_intervals(each) for each in found],
            **said,
        }
    # What really happened is the better judge, where somebody knows it.
    first = next(iter(report["against"].values()))
    report["verdict"] = {name: first[name] for name in ("blend_never_worse", "blend_beats_rules")}
    if isinstance(source, SimulatedSource) and source.new_fraud is not None:
        simulations = [source.simulation(seed) for seed in source.seeds]
        new = [
            Novelty(source.new_fraud, each.start_ms + round(each.absent[source.new_fraud] * DAY_MS))
            for each in simulations
        ]
        report["new_fraud"] = _new_fraud(source.new_fraud, catching_up(lived, new, _LEARNERS))
    return report


def _extent(name: str, lived: LivedStream) -> dict[str, Any]:
    """What was judged of a stream, and how the online model's weight has moved, day by day."""
    rows = lived.rows
    daily: dict[int, Any] = {(each.at_ms - lived.published[0].at_ms) // DAY_MS: each for each in lived.published}
    return {
        "name": name,
        "judged": len(rows),
        "from": int(rows.event_time[0]),
        "until": int(rows.event_time[-1]) + 1,
        "frauds": int((rows.truth == 1).sum()) if (rows.truth != UNKNOWN).any() else None,
        "frauds_known": int(rows.positives),
        "batch_models": lived.published[-1].batch_version,
        "online_labels": lived.published[-1].labels,
        "online_frauds": lived.published[-1].frauds,
        "online_weight_by_day": [each.weight for each in daily.values()],
    }


def _most(lived: Sequence[LivedStream], basis: str, share: float) -> float:
    """Return the share of frauds that a perfect scorer would catch with so many alerts, as a mean over streams."""
    outcomes = [outcome(each.rows, basis)[0] for each in lived]
    rates = [(each == 1).sum() / (each != UNKNOWN).sum() for each in outcomes]
    return float(np.mean([min(1.0, share / rate) for rate in rates]))


def _intervals(found: dict[str, dict[str, Draws]]) -> dict[str, Any]:
    return {
        name: {metric: draws.interval(CONFIDENCE)._asdict() for metric, draws in metrics.items()}
        for name, metrics in found.items()
    }


def _new_fraud(typology: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    summary = {}
    for name in _LEARNERS:
        ours = [entry for entry in entries if entry["scorer"] == name]
        summary[name] = {what: middle(ours, what) for what in ("labels", "hours", "first_level", "later_level")}
    return {"typology": typology, "median": summary, "by_stream": entries}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return it as JSON can say it: what is not a number is null, a path its name."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


# -- shown


def _print(out: Console, report: dict[str, Any]) -> None:
    for stream in report["streams"]:
        truth = "" if stream["frauds"] is None else f"{stream['frauds']} frauds, "
        out.print(
            f"{stream['name']}: {stream['judged']:,} payments judged, {truth}{stream['frauds_known']} known as frauds; "
            f"{stream['batch_models']} batch models, {stream['online_labels']:,} labels learned online"
        )
    for basis, found in report["against"].items():
        _print_scores(out, basis, found, len(report["streams"]))
        _print_gains(out, found, report["streams"])
    if "new_fraud" in report:
        _print_new_fraud(out, report["new_fraud"])
    for name, words in (
        ("blend_never_worse", "The blend is never worse than its best part by more than noise"),
        ("blend_beats_rules", "The blend beats the rules on every stream by more than noise"),
    ):
        out.print(f"{words}: {'[green]yes[/]' if report['verdict'][name] else '[bold red]no[/]'}")


def _print_scores(out: Console, basis: str, found: dict[str, Any], streams: int) -> None:
    title = f"Against {_BASES[basis]}, mean of {streams} stream{'s' * (streams > 1)}, {CONFIDENCE:.0%} intervals"
    table = Table("", *SCORERS, title=title)
    for metric, words in _WORDS.items():
        digits = 4 if metric in ("log_loss", "calibration_error") else 3
        table.add_row(words, *(_cell(found["scores"][name].get(metric), digits) for name in SCORERS))
    out.print(table)
    most = (f"{share:.1%} alerts {found['most'][share_name(share)]:.3f}" for share in ALERT_SHARES)
    out.print(f"What can be caught at most: at {', at '.join(most)} of the frauds.")


def _cell(interval: dict[str, float] | None, digits: int) -> str:
    if interval is None:
        return "-"
    return f"{interval['estimate']:.{digits}f}\n[dim]{interval['low']:.{digits}f}-{interval['high']:.{digits}f}[/]"


def _print_gains(out: Console, found: dict[str, Any], streams: list[dict[str, Any]]) -> None:
    table = Table("stream", "metric", "over its best part", "", "over the rules", title="What the blend gains")
    gains = found["gains"]
    for over_part, over_rules in zip(gains[::2], gains[1::2], strict=True):
        number = over_part["stream"]
        name = number if isinstance(number, str) else streams[number]["name"]
        table.add_row(name, _WORDS[over_part["metric"]], _gain(over_part), over_part["over"], _gain(over_rules))
    out.print(table)


def _gain(gain: dict[str, Any]) -> str:
    style = "red" if gain["worse"] else "green" if gain["better"] else "default"
    return f"[{style}]{gain['estimate']:+.3f}[/] [dim]{gain['low']:+.3f} to {gain['high']:+.3f}[/]"


def _print_new_fraud(out: Console, found: dict[str, Any]) -> None:
    table = Table(
        "", "labels until found", "hours", "caught at first", "caught later",
        title=f"A new kind of fraud, {found['typology']}: median of the streams, in brackets each",
    )  # fmt: skip
    for name, middle_of in found["median"].items():
        ours = [entry for entry in found["by_stream"] if entry["scorer"] == name]
        cells = []
        for what, form in (("labels", ".0f"), ("hours", ".0f"), ("first_level", ".2f"), ("later_level", ".2f")):
            each = ", ".join(_number(entry[what], form) for entry in ours)
            cells.append(f"{_number(middle_of[what], form)} [dim]({each})[/]")
        table.add_row(name, *cells)
    out.print(table)


def _number(value: float | None, form: str) -> str:
    return "never" if value is None else format(value, form)


@contextmanager
def _bar(out: Console, *, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda words, share: progress.update(task, description=words, completed=share)


def _stages(advance: Callable[[str, float], None], number: int, streams: int) -> Callable[[str, float], Advance]:
    """Return what makes the progress of one stage of one stream that of the whole."""

    def stage(words: str, begins: float) -> Advance:
        room = 1.0 - _SIMULATING if begins else _SIMULATING
        return lambda share: advance(words, _LIVED * (number + begins + room * share) / streams)

    return stage

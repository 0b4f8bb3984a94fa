"""`pixguard drift`: whether payments still look as they did when the champion learned, and how good its scores are."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from app.domain.labelled import Labelled, decode_labelled
from app.domain.vectors import Vectors, decode_latest
from app.kafka_options import client_options
from app.model_reference import reference_of_version
from app.model_registry import open_registry
from app.settings import Settings
from app.topic_reading import open_reader, stretches
from app.topics import FEATURES, LABELLED, Topic
from models.batch.model import BatchModel
from models.batch.registry import CHAMPION, RegistryError
from models.drift.against_training import Finding
from models.drift.look import FAMILY_OF, SCORES, Look, look, matured_rows
from models.quality.evaluation import Interval
from tables.layout import DAY_MS, HOUR_MS

__all__ = ["MOST_LABELS", "MOST_ROWS", "drift_and_report", "pieces", "read_window"]

MOST_ROWS = 50_000
"""Payments that are read of the window, spread over it."""
MOST_LABELS = 50_000
"""Labels that are read, the latest."""

_PIECES = 20
"""Of each partition, that the payments are read in."""
Reader = Callable[[Settings, int], Awaitable[tuple[Vectors, list[Labelled]]]]

_LONGEST_MS = 30 * DAY_MS
"""How far back features look."""
_SHOWN = 15
"""Columns in the table that have not changed."""


def drift_and_report(
    settings: Settings,
    out: Console,
    *,
    hours: float,
    reference: int | None = None,
    everything: bool = False,
    as_json: bool = False,
    read: Reader | None = None,
) -> bool:
    """Compare the last hours of the stream with the training window of the champion, and show it.

    Parameters
    ----------
    settings
        Name the cluster, the data folder and the registry.
    out
        For people.
    hours
        Of the log's clock, up to now.
    reference
        Version of the batch model whose training window is meant; None: the champion's.
    everything
        Whether to show all features, not only those that have changed and the next ones.
    as_json
        Whether to print one JSON object instead of tables.
    read
        What the window is read with: takes settings and its first instant; None: `read_window`, from Kafka.

    Returns
    -------
    Whether any feature or score has drifted.

    Raises
    ------
    RegistryError
        When there is no champion, or the registry cannot be reached.
    DriftError
        When the stream carries other features than the model's.
    aiokafka.errors.KafkaError
        When the cluster cannot be reached.
    """
    registry = open_registry(settings)
    version = reference if reference is not None else registry.alias_version(CHAMPION)
    if version is None:
        raise RegistryError(
            "registry: expected a champion to compare with, got none: `pixguard promote` makes one, "
            "--reference VERSION names another version"
        )
    window, source = reference_of_version(registry, version)
    model = BatchModel.from_bytes(registry.artifact(version)).numbered(version)
    with out.status("Reading payments") as status:
        begin_ms = int(time.time() * 1000) - round(hours * HOUR_MS)
        vectors, labels = asyncio.run(_read_by(read or read_window, settings, begin_ms))
        status.update("Comparing")
        # Another model may have decided on some of them; of another catalog's vectors `look` says what is wrong.
        chances = model.probabilities(vectors.matrix) if vectors.fingerprint == model.fingerprint else None
        found = look(
            window, vectors, matured_rows(labels), _delays(labels), version=version, chances=chances, resamples=100
        )
    told = {"version": version, "source": source, "from": window.begin, "until": window.until}
    if as_json:
        print(json.dumps({"reference": told, **found.to_plain()}, indent=2))  # noqa: T201 - for a pipe, not for the eye
    else:
        _print(out, found, told, everything=everything)
    return bool(found.drift.alarms)


async def _read_by(read: Reader, settings: Settings, begin_ms: int) -> tuple[Vectors, list[Labelled]]:
    return await read(settings, begin_ms)


def _delays(labels: list[Labelled]) -> list[int]:
    return [each.known_at - each.event_time for each in labels if each.kind == "REVISION"]


# -- what is read


async def read_window(
    settings: Settings,
    begin_ms: int,
    *,
    rows: int = MOST_ROWS,
    labels: int = MOST_LABELS,
    features: Topic = FEATURES,
    labelled: Topic = LABELLED,
) -> tuple[Vectors, list[Labelled]]:
    """Read payments and labels of the log from an instant to its present end.

    Parameters
    ----------
    settings
        Name the cluster.
    begin_ms
        Of the log's clock, epoch ms.
    rows
        Payments, about as many at most, in pieces that are spread evenly over what there is.
    labels
        At most; the latest.
    features, labelled
        Other topics with such messages, for example copies of an earlier recording.

    Returns
    -------
    Payments as the present version of the catalog wrote them, and messages of `pix-labelled`.
    """
    async with open_reader(client_options(settings)) as consumer:
        spans = await _spans(consumer, features.name, settings.partitions, begin_ms)
        values: list[bytes | None] = []
        for place, (begin, end) in spans.items():
            for first, past in pieces(begin, end, max(1, rows // len(spans)), _PIECES):
                async for stretch in stretches(consumer, place, first, past):
                    values += stretch.values
        told = [
            decode_labelled(value)
            for place, (begin, end) in (await _spans(consumer, labelled.name, 1, begin_ms)).items()
            async for stretch in stretches(consumer, place, max(begin, end - labels), end)
            for value in stretch.values
        ]
    return decode_latest(values), told


async def _spans(
    consumer: AIOKafkaConsumer, topic: str, partitions: int, begin_ms: int
) -> dict[TopicPartition, tuple[int, int]]:
    """Return where each partition is at an instant, and where it ends."""
    places = [TopicPartition(topic, partition) for partition in range(partitions)]
    ends = await consumer.end_offsets(places)
    begins = await consumer.offsets_for_times(dict.fromkeys(places, begin_ms))
    return {place: (ends[place] if (at := begins[place]) is None else at.offset, ends[place]) for place in places}


def pieces(begin: int, end: int, most: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield what is read of offsets: all where that is no more than `most`, else pieces, evenly spread.

    Examples
    --------
    >>> list(pieces(0, 10, 20, 2)), list(pieces(0, 100, 20, 2))
    ([(0, 10)], [(40, 50), (90, 100)])
    """
    if end - begin <= most:
        yield from [(begin, end)] if end > begin else []
        return
    length = max(1, most // count)
    for number in range(1, count + 1):
        past = begin + (end - begin) * number // count
        yield past - length, past


# -- what is shown


def _print(out: Console, found: Look, told: dict[str, Any], *, everything: bool) -> None:
    out.print(
        f"Version {told['version']}: {told['source']}, {_span(told['from'], told['until'])}; "
        f"now {found.rows:,} payments{', ' + _span(found.begin, found.until) if found.rows else ''}."
    )
    if not found.drift.findings:
        out.print("[yellow]Too few payments to compare.[/] --hours takes a longer window.")
    else:
        out.print(_drift_table(found, everything=everything))
        if told["until"] - told["from"] < _LONGEST_MS:
            out.print("[dim]The training window is shorter than features look back: their histories still grew.[/]")
        alarms = found.drift.alarms
        by_chance = f"by chance alone {found.drift.alarm_rate:.0%} of looks raise an alarm, at most"
        out.print(
            f"[bold red]{len(alarms)} of {len(found.drift.findings)} have changed[/]; {by_chance}."
            if alarms
            else f"[green]None of {len(found.drift.findings)} has changed[/]; {by_chance}."
        )
    _print_performance(out, found)


def _drift_table(found: Look, *, everything: bool) -> Table:
    table = Table("", "family", "PSI", "alarm above", "missing then", "now", "alarm beyond", "verdict")
    findings = found.drift.findings
    scores = [each for name in SCORES for each in findings if each.name == name]
    others = [each for each in findings if each.name not in SCORES]
    changed = [each for each in others if each in found.drift.alarms]
    shown = others if everything else [*changed, *others[len(changed) : len(changed) + _SHOWN]]
    for each in scores:
        table.add_row(*_row(each), end_section=each is scores[-1])
    for each in shown:
        table.add_row(*_row(each))
    if len(shown) < len(others):
        table.caption = f"{len(others) - len(shown)} more that have not changed: --all shows them"
    return table


def _row(each: Finding) -> list[str]:
    style = "red" if each.severity > 1 else "dim" if each.verdict == "too few" else "green"
    return [
        f"[bold]{each.name}[/]" if each.severity > 1 else each.name,
        FAMILY_OF.get(each.name, ""),
        f"{each.psi:.3f}",
        f"{each.psi_bar:.3f}",
        f"{each.missing_before:.1%}",
        f"{each.missing_now:.1%}",
        f"±{each.missing_bar:.1%}",
        f"[{style}]{each.verdict}[/]",
    ]


_METRICS = {
    "average_precision": "average precision", "recall_at_1pct": "frauds caught at 1% alerts",
    "precision_at_1pct": "precision at 1% alerts", "log_loss": "log loss", "calibration_error": "calibration error",
    "fraud_share": "share of frauds",
}  # fmt: skip


def _print_performance(out: Console, found: Look) -> None:
    for title, told, where in (
        (f"on {found.matured:,} labels that matured, {found.frauds:,} frauds", found.realised, "matured"),
        ("estimated of payments without a label (CBPE)", found.estimates, "estimated"),
    ):
        if not told:
            out.print(f"[dim]No performance {where}: too few payments or frauds in the window.[/]")
            continue
        table = Table(title, *told)
        for metric, words in _METRICS.items():
            cells = [_interval(each.get(metric)) for each in told.values()]
            if any(cells):
                table.add_row(words, *cells)
        out.print(table)
    for name, gap in found.gaps.items():
        if not gap.holds:
            out.print(
                f"[yellow]{name}: its probabilities promised {gap.expected:.0f} frauds of what matured, and "
                f"{gap.came:.0f} came: its estimate is off by as much.[/]"
            )
    delay = found.delay
    if delay.count:
        out.print(f"Label delay: median {_hours(delay.median_s)}, p90 {_hours(delay.p90_s)}, {delay.count:,} changes.")


def _interval(each: Interval | None) -> str:
    return "" if each is None else f"{each.estimate:.4f} ({each.low:.4f}-{each.high:.4f})"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.1f} d"


def _span(begin: int, until: int) -> str:
    first, last = (datetime.fromtimestamp(each / 1000, UTC) for each in (begin, until))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"

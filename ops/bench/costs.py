"""`pixguard bench`: what each part of the path costs, on this machine, in one run.

The pure path: decoding, both stages with rules and encoding, and a checkpoint's export, on simulated traffic with warm
kernels and a memory already filled by the same number of transactions. Kafka is not part of it yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agents.controls import DEFAULT_RULES, read_pack
from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.pipeline import Message, Pipeline
from ops.traffic.generator import TrafficConfig, generate

__all__ = ["run_bench"]

_START_MS = 1_790_000_000_000
_BATCH = 2000
_PARTITIONS = 1
"""One, so that a batch is as large as a busy partition's."""


def run_bench(events: int, out: Console, *, as_json: bool) -> None:
    """Measure and print.

    Parameters
    ----------
    events
        Transactions per measurement; as many again fill the memory first.
    out
        Where the table or the JSON object goes.
    as_json
        One JSON object: figures in us per event.
    """
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Generating traffic", total=4)
        config = TrafficConfig(start_ms=_START_MS, count=2 * events, rate_per_s=500.0, malformed_share=0.0)
        messages = [Message(one.key, one.value, one.arrival_ms) for one in islice(generate(config), 2 * events)]
        progress.update(task, advance=1, description="Warming up")
        decoder = TransactionDecoder(HashKey.from_bytes(bytes(range(16))), TimeLimits())
        pipeline = Pipeline(_PARTITIONS, decoder, read_pack(DEFAULT_RULES))
        _run(pipeline, messages[:events])
        _export(pipeline)
        progress.update(task, advance=1, description="Measuring the decoder")
        measured = messages[events:]
        figures = {"decode_us": _per_event(lambda: _decode(decoder, measured), len(measured))}
        progress.update(task, advance=1, description="Measuring both stages")
        figures["path_us"] = _per_event(lambda: _run(pipeline, measured), len(measured))
        figures["checkpoint_us"] = _per_event(lambda: _export(pipeline), len(measured))
        profiles = [state.profiles for state in pipeline.states]
        figures["bytes_per_key"] = sum(one.nbytes for one in profiles) / max(sum(map(len, profiles)), 1)
        figures["pure_events_per_core_s"] = 1e6 / (figures["path_us"] + figures["checkpoint_us"])
    if as_json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))  # noqa: T201 - for a pipe
        return
    table = Table("figure", "value", title=f"{events:,} transactions, {_BATCH} a batch, without Kafka")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}")
    out.print(table)


def _per_event(work: Callable[[], None], events: int) -> float:
    """Microseconds of processor time per event; other processes' share is not counted."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / events * 1e6


def _decode(decoder: TransactionDecoder, messages: list[Message]) -> None:
    for first in range(0, len(messages), _BATCH):
        batch = messages[first : first + _BATCH]
        decoder.decode(
            [one.value for one in batch],
            [one.key for one in batch],
            [one.timestamp_ms for one in batch],
            range(first, first + len(batch)),
            0,
        )


def _run(pipeline: Pipeline, messages: list[Message]) -> None:
    for first in range(0, len(messages), _BATCH):
        pipeline.push(messages[first : first + _BATCH])


def _export(pipeline: Pipeline) -> None:
    for state in pipeline.states:
        state.export()
        state.acknowledged()

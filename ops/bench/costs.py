"""Where each microsecond goes: the parts of the path, timed in place while simulated traffic runs through both stages.

The parts are the product's own functions with a stopwatch around each; nothing is rebuilt for the measurement. What
no stopwatch covers is told as the rest. Kafka's part, taking fetches apart and putting record batches together, is
timed on the same messages.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from app.batching.packing import NO_PRODUCER, Pile, Records
from app.batching.produce import write_new
from app.batching.unpacking import first_wrong_checksum, survey, unpack
from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.rules.pack import RulePack
from models.stages import payers, receivers
from models.stages.pipeline import Message, Pipeline, PipelineOutput
from models.wording.writer import DecisionWriter
from ops.bench.load import Load
from tables.catalog import Catalog
from tables.ids import IdMemory
from tables.partition import PartitionState
from tables.profiles import Profiles

__all__ = ["Costs", "measure_costs"]

_START_MS = 1_790_000_000_000
_HOUR_MS = 3_600_000
_BATCH = 2000

_PARTS: Mapping[str, tuple[tuple[object, str], ...]] = {
    "decode": ((TransactionDecoder, "decode"),),
    "ids": ((IdMemory, "first_occurrences"), (IdMemory, "append")),
    "kernel": ((Profiles, "update"),),
    "derived features": ((Catalog, "vector"),),
    "rules": ((RulePack, "evaluate"),),
    "encode decisions": ((DecisionWriter, "encode"),),
    "encode features": ((payers, "encode_vectors"),),
    "encode frames": ((receivers, "encode_frame"), (payers, "decode_frame")),
    "checkpoint": ((PartitionState, "export"), (PartitionState, "acknowledged")),
}
"""Each part and the functions that it is made of."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor time of each part of the path.

    Parameters
    ----------
    parts_us
        Microseconds per payment, both stages together, by part.
    bytes_per_key
        Memory of a profile, bytes, all of its stage's arrays included.
    keys
        Profiles in memory.
    """

    parts_us: Mapping[str, float]
    bytes_per_key: float
    keys: int

    @property
    def total_us(self) -> float:
        """All parts together."""
        return sum(self.parts_us.values())


class _Stopwatch:
    """Adds up the time spent in functions."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def around(self, part: str, owner: object, name: str) -> Iterator[None]:
        """Time a function of a module or class until the end of the block."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the function takes
            start = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] += time.thread_time() - start

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, function)


def measure_costs(customers: int, events: int, pack_in_force: RulePack) -> Costs:
    """Run payments through the pure path and time its parts.

    Parameters
    ----------
    customers
        Each pays and is paid once before the measurement.
    events
        Payments that are measured.
    pack_in_force
        The rules.
    """
    load = Load(customers, 1)
    pipeline = Pipeline(1, TransactionDecoder(HashKey.from_bytes(bytes(range(16))), TimeLimits()), pack_in_force)
    for batch in _batches(load, events, known=True):
        pipeline.push(batch)
    for state in pipeline.states:
        state.export()
        state.acknowledged()
    measured = list(_batches(load, events, known=False))
    watch, whole_s = _Stopwatch(), 0.0
    outputs: list[PipelineOutput] = []
    with ExitStack() as stack:
        for part, functions in _PARTS.items():
            for owner, name in functions:
                stack.enter_context(watch.around(part, owner, name))
        for number, batch in enumerate(measured):
            start = time.thread_time()
            outputs.append(pipeline.push(batch))
            if number % 5 == 4:  # about as often as in a busy worker
                for state in pipeline.states:
                    state.export()
                    state.acknowledged()
            whole_s += time.thread_time() - start
            del outputs[:-1]
    count = sum(map(len, measured))
    parts_us = {part: watch.seconds[part] / count * 1e6 for part in _PARTS}
    parts_us["rest"] = whole_s / count * 1e6 - sum(parts_us.values())
    parts_us |= _transport_us(measured[-1], outputs[-1])
    profiles = [state.profiles for state in pipeline.states]
    keys = sum(map(len, profiles))
    return Costs(parts_us, sum(one.nbytes for one in profiles) / max(keys, 1), keys)


def _batches(load: Load, events: int, *, known: bool) -> Iterator[list[Message]]:
    """Yield batches of messages of one partition."""
    made = (
        load.everyone(_START_MS, _START_MS + 24 * _HOUR_MS)
        if known
        else load.traffic(events, _START_MS + 24 * _HOUR_MS, _START_MS + 26 * _HOUR_MS)
    )
    for by_partition in made:
        (payments,) = by_partition.values()
        columns = (payments.keys, payments.values, payments.times_ms)
        for first in range(0, len(payments), _BATCH):
            yield [Message(*one) for one in zip(*(column[first : first + _BATCH] for column in columns), strict=True)]


def _transport_us(messages: list[Message], output: PipelineOutput) -> dict[str, float]:
    """Time of taking this batch's fetch apart and of putting its outputs' record batches together, us per payment."""
    piles: defaultdict[str, list[Pile]] = defaultdict(list)
    for send in (*output.received.sends, *chain.from_iterable(part.sends for part in output.decided)):
        piles[send.topic].append(Pile(send.partition, [Records.of(send.keys, send.values, 0)], NO_PRODUCER))
    fetched = Records.of(
        [one.key for one in messages], [one.value for one in messages], [one.timestamp_ms for one in messages]
    )
    _, (raw,) = write_new(0, 0, {"fetched": [Pile(0, [fetched], NO_PRODUCER)]})
    received = bytes(raw)
    rounds = 20

    def put_together() -> None:
        write_new(0, 0, piles)

    def take_apart() -> None:
        batches = survey(received, 0, len(messages))
        first_wrong_checksum(received, batches)
        unpack(received, batches, 0)

    figures = {}
    for name, work in (("take fetches apart", take_apart), ("put record batches together", put_together)):
        work()
        start = time.thread_time()
        for _ in range(rounds):
            work()
        figures[name] = (time.thread_time() - start) / rounds / len(messages) * 1e6
    return figures

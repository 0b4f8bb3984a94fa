"""How the parts of the path grow with the number of customers: memory, processor time, checkpoints and recovery.

Both stages run in one process, without Kafka, on `ops.bench.load`. Each size has a process of its own, so that its
memory is its own. Times are processor time: other users of the machine take the clock, not these figures (but
they do take room in the caches).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import Any

import cramjam
import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder

from agents.controls import DEFAULT_RULES, read_pack
from app.domain.byte_column import ByteColumn
from app.domain.field_checks import TimeLimits
from app.domain.records import Stretch
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from app.topics import DECISIONS, ENRICHED, FEATURES, MAX_CHECKPOINT_BYTES
from models.stages.outputs import Send
from models.stages.payers import PayerStage
from models.stages.pipeline import Pipeline, warm_up
from models.stages.receivers import SEEN_DTYPE, ReceiverStage
from ops.bench.load import Load, Payments
from ops.bench.measured import Growth, History, Messages
from ops.bench.processes import resident_bytes
from tables.ids import IdMemory
from tables.partition import PartitionState
from tables.profiles import Profiles

__all__ = ["RECORD_BYTES", "growth_at", "history_at", "measure_growth", "measure_messages"]

RECORD_BYTES = 12
"""What Kafka adds to a record within a batch: length, attributes, time and offset deltas, lengths of key and value."""

_START_MS = 1_790_000_000_000
_FILL_MS = 86_400_000
_MONTH_MS = 30 * 86_400_000
_HISTORY_CUSTOMERS = 5000
_BATCH = 2000
_SMALL_BATCH = 20
_SMALL_BATCHES = 200
_MEASURED = 60_000
_CHECKPOINT_ROWS = 4000
_CHUNK_ROWS = 50_000
_SMALL_ROW, _LARGE_ROW = 200, 8000
_IDS = 200_000
_RETRY_WINDOW_MS, _RETRY_MAX_IDS = 3_600_000, 200_000


class _TimedProfiles(Profiles):
    """Profiles that add up the processor time of their updates."""

    kernel_s = 0.0

    def update(self, events: Any) -> Any:  # noqa: ANN401 - the arrays of Profiles
        start_s = time.process_time()
        features = super().update(events)
        self.kernel_s += time.process_time() - start_s
        return features


class _Path:
    """Both stages of one partition, timed apart."""

    def __init__(self) -> None:
        decoder = TransactionDecoder(HashKey.from_bytes(bytes(range(16))), TimeLimits())
        pack = read_pack(DEFAULT_RULES)
        warm_up(decoder, pack)
        pipeline = Pipeline(1, decoder, pack, retry_window_ms=_RETRY_WINDOW_MS, retry_max_ids=_RETRY_MAX_IDS)
        self.receivers: ReceiverStage = pipeline.receivers[0]
        self.payers: PayerStage = pipeline.payers[0]
        self.profiles = [_TimedProfiles("receiver"), _TimedProfiles("payer")]
        self.states = [self.receivers.state, self.payers.state]
        for state, profiles in zip(self.states, self.profiles, strict=True):
            state.profiles = profiles
        self.receiver_s = self.payer_s = self.export_s = 0.0
        self.events = self.rows_written = self.bytes_written = 0
        self._offset = self._frame_offset = 0

    def reset(self) -> None:
        """Set all counts and times to nothing."""
        self.receiver_s = self.payer_s = self.export_s = 0.0
        self.events = self.rows_written = self.bytes_written = 0
        for profiles in self.profiles:
            profiles.kernel_s = 0.0

    def push(self, payments: Payments, first: int, size: int) -> tuple[list[Send], list[Send]]:
        """Carry some payments through both stages; what each sends."""
        part = slice(first, first + size)
        values = payments.values[part]
        end = self._offset + len(values)
        offsets = range(self._offset, end)
        source = Stretch(self._offset, end, payments.keys[part], values, offsets, payments.times_ms[part])
        self._offset = end
        start_s = time.process_time()
        received = self.receivers.apply(source).sends
        between_s = time.process_time()
        frames = [value for send in received if send.topic == ENRICHED.name for value in send.values]
        end = self._frame_offset + len(frames)
        clocks = [payments.times_ms[part][-1]] * len(frames)
        enriched = Stretch(
            self._frame_offset, end, [None] * len(frames), frames, range(self._frame_offset, end), clocks
        )
        self._frame_offset = end
        decided = self.payers.apply(enriched).sends
        self.receiver_s += between_s - start_s
        self.payer_s += time.process_time() - between_s
        self.events += len(values)
        return received, decided

    def checkpoint(self, state: PartitionState) -> tuple[ByteColumn, ByteColumn]:
        """Write what changed, as a worker would."""
        rows = state.profiles.dirty
        start_s = time.process_time()
        keys, values = state.export()
        self.export_s += time.process_time() - start_s
        state.acknowledged()
        self.rows_written += rows
        self.bytes_written += _record_bytes(keys, values)
        return keys, values

    def forget_ids(self) -> None:
        """Let ids expire, which a checkpoint would do, and leave the profiles to be written down later."""
        for state in self.states:
            for memory in state.memories.values():
                memory.close_segment()

    def run(self, batches: Iterable[dict[int, Payments]], size: int, *, checkpoints: bool) -> None:
        """Carry payments through, in batches of this size."""
        for batch in batches:
            for first in range(0, len(batch[0]), size):
                self.push(batch[0], first, size)
                for state in self.states if checkpoints else ():
                    if state.profiles.dirty >= _CHECKPOINT_ROWS:
                        self.checkpoint(state)


def measure_growth(
    sizes: Sequence[int], payments: Sequence[int], progress: Callable[[str], None] = lambda _what: None
) -> tuple[list[Growth], list[History], Messages]:
    """Measure each number of customers, and of payments by each, in a process of its own.

    Parameters
    ----------
    sizes
        Customers.
    payments
        By each of a few thousand customers in 30 days.
    progress
        Told what comes next.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        progress("Sizes of messages")
        messages = pool.submit(measure_messages).result()
        growth, histories = [], []
        for customers in sizes:
            progress(f"{customers:,} customers")
            growth.append(pool.submit(growth_at, customers).result())
        for each in payments:
            progress(f"{each:,} payments by each customer")
            histories.append(pool.submit(history_at, each).result())
    return growth, histories, messages


def growth_at(customers: int) -> Growth:
    """Measure so many customers in this process, whose memory should be otherwise unused."""
    path, load = _Path(), Load(customers, 1)
    before = resident_bytes(os.getpid())
    for batch in load.everyone(_START_MS, _START_MS + _FILL_MS):
        path.run([batch], _BATCH, checkpoints=False)
        path.forget_ids()
    rows = sum(map(len, path.profiles))
    grown = resident_bytes(os.getpid()) - before
    row_bytes = sum(one.nbytes for one in path.profiles) / rows
    blob_bytes, _, restore_us = _restore(path)
    now_ms = _START_MS + _FILL_MS
    path.reset()
    path.run(load.traffic(_MEASURED, now_ms, now_ms + 60_000), _BATCH, checkpoints=True)
    for state in path.states:
        path.checkpoint(state)
    kernel_s = sum(one.kernel_s for one in path.profiles)
    receiver_us, payer_us, kernel_us = (
        seconds / path.events * 1e6 for seconds in (path.receiver_s, path.payer_s, kernel_s)
    )
    export_us = path.export_s / max(path.rows_written, 1) * 1e6
    checkpoint_rows, checkpoint_bytes = path.rows_written / path.events, path.bytes_written / path.events
    path.reset()
    small = load.traffic(_SMALL_BATCH * _SMALL_BATCHES, now_ms + 60_000, now_ms + 61_000)
    path.run(small, _SMALL_BATCH, checkpoints=False)
    return Growth(
        customers=customers,
        rows=rows,
        row_bytes=row_bytes,
        row_rss_bytes=grown / rows,
        receiver_us=receiver_us,
        payer_us=payer_us,
        kernel_us=kernel_us,
        receiver_batch_us=_fixed_us(path.receiver_s, receiver_us),
        payer_batch_us=_fixed_us(path.payer_s, payer_us),
        export_us=export_us,
        restore_us=restore_us,
        blob_bytes=blob_bytes,
        checkpoint_rows=checkpoint_rows,
        checkpoint_bytes=checkpoint_bytes,
    )


def _fixed_us(small_batches_s: float, event_us: float) -> float:
    """What a small batch costs beyond its events' share of a large one."""
    return max(small_batches_s / _SMALL_BATCHES * 1e6 - _SMALL_BATCH * event_us, 0.0)


def history_at(payments: int) -> History:
    """Measure a few thousand customers of whom each pays so often in 30 days, in this process."""
    path, load = _Path(), Load(_HISTORY_CUSTOMERS, 1)
    end_ms = _START_MS + _MONTH_MS
    for turn in range(payments):
        start_ms = _START_MS + _MONTH_MS * turn // payments
        path.run(load.everyone(start_ms, _START_MS + _MONTH_MS * (turn + 1) // payments), _BATCH, checkpoints=False)
        path.forget_ids()
    rows = sum(map(len, path.profiles))
    row_bytes = sum(one.nbytes for one in path.profiles) / rows
    blob_bytes, export_us, restore_us = _restore(path)
    path.reset()
    path.run(load.traffic(_MEASURED // 3, end_ms, end_ms + 60_000), _BATCH, checkpoints=False)
    stages_us = (path.receiver_s + path.payer_s) / path.events * 1e6
    return History(payments, row_bytes, blob_bytes, stages_us, export_us, restore_us)


def _restore(path: _Path) -> tuple[float, float, float]:
    """Write all profiles down in chunks, and take them up in empty stages: bytes, and microseconds to and fro."""
    total = rows = 0
    export_s = restore_s = 0.0
    for stage, profiles in zip(("receiver", "payer"), path.profiles, strict=True):
        restored = Profiles(stage)
        while profiles.dirty:
            start_s = time.process_time()
            keys, values = profiles.export_dirty(_CHUNK_ROWS)
            export_s += time.process_time() - start_s
            profiles.clear_dirty()
            total += _record_bytes(keys, values)
            rows += len(keys)
            start_s = time.process_time()
            restored.restore(keys, values)
            restore_s += time.process_time() - start_s
    return total / rows, export_s / rows * 1e6, restore_s / rows * 1e6


def measure_messages() -> Messages:
    """Measure sizes of messages and ids, and how well they pack, in this process."""
    path, load = _Path(), Load(50_000, 1)
    before = list(load.traffic(20_000, _START_MS, _START_MS + _FILL_MS))
    path.run(before, _BATCH, checkpoints=True)
    (measured,) = (batch[0] for batch in load.traffic(_BATCH, _START_MS + _FILL_MS, _START_MS + _FILL_MS + 1000))
    for state in path.states:
        path.checkpoint(state)
    received, decided = path.push(measured, 0, _BATCH)
    changelog = [path.checkpoint(state) for state in path.states]
    columns: dict[str, tuple[Sequence[bytes | None], Sequence[bytes | None]]] = {
        "transaction": (measured.keys, measured.values),
        **{
            name: _joined([send for send in sends if send.topic == topic.name])
            for name, topic, sends in (
                ("enriched", ENRICHED, received),
                ("decision", DECISIONS, decided),
                ("feature", FEATURES, decided),
            )
        },
    }
    sizes = {name: _record_bytes(*column) / _BATCH for name, column in columns.items()}
    columns["changelog"] = (
        [key for keys, _ in changelog for key in keys],
        [one for _, rows in changelog for one in rows],
    )
    return Messages(
        **{f"{name}_bytes": size for name, size in sizes.items()},
        **{f"{name}_lz4": _packed_share(*column) for name, column in columns.items()},
        id_bytes=_id_bytes(),
        byte_us=_byte_us(),
    )


def _joined(sends: Iterable[Send]) -> tuple[list[bytes | None], list[bytes]]:
    chosen = list(sends)
    values = [value for send in chosen for value in send.values if value is not None]
    return [key for send in chosen for key in send.keys], values


def _record_bytes(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> int:
    return sum(len(one or b"") for one in chain(keys, values)) + RECORD_BYTES * len(keys)


def _packed_share(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> float:
    raw = b"".join(one or b"" for pair in zip(keys, values, strict=True) for one in pair)
    return len(bytes(cramjam.lz4.compress(raw))) / len(raw)


def _byte_us() -> float:
    small, large = (_packing_us(size) for size in (_SMALL_ROW, _LARGE_ROW))
    return (large - small) / (_LARGE_ROW - _SMALL_ROW)


def _packing_us(size: int) -> float:
    """Microseconds to put a row of this size into a record batch, a thousand at a time."""
    rows = [np.random.default_rng(number).bytes(size) for number in range(1000)]
    start_s = time.process_time()
    for _ in range(20):
        builder = BatchBuilder(MAX_CHECKPOINT_BYTES, 0)
        for number, row in enumerate(rows):
            builder.append(timestamp=_START_MS, key=number.to_bytes(8, "little"), value=row)
        builder.close()
        builder._build()  # noqa: SLF001 - the checksum, which aiokafka computes when it sends
    return (time.process_time() - start_s) / 20 / len(rows) * 1e6


def _id_bytes() -> float:
    before = resident_bytes(os.getpid())
    memory = IdMemory(SEEN_DTYPE, _RETRY_WINDOW_MS, 10 * _IDS)
    for first in range(0, _IDS, _BATCH):
        rows = np.zeros(_BATCH, SEEN_DTYPE)
        ids = [b"E6070119020261124102%012d" % number for number in range(first, first + _BATCH)]
        memory.first_occurrences(ids, rows["timestamp"])
        rows["id"] = ids
        memory.append(rows)
    memory.close_segment()
    return (resident_bytes(os.getpid()) - before) / _IDS

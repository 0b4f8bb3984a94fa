"""Drift, watched where payments and labels pass by: in the learner's process, which no decision waits for.

A bounded sample of the stream is kept as it came, undecoded, and once a minute a look is taken at it off the loop. What
the stream pays for this is some bytes kept of a few payments a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import structlog
from mode import Service

from app import drift_metrics
from app.clock import Clock
from app.domain.labelled import Labelled
from app.domain.records import Records
from app.domain.vectors import decode_latest
from models.drift.look import MATURED_DTYPE, Look, look, matured_rows
from models.drift.reference import Reference

__all__ = ["DriftWatch", "ReferenceLook"]

log = structlog.get_logger(__name__)

_DRAWS = 50
"""Of labels, for an estimate whose interval nobody sees."""
_AT_ONCE = 0.05
"""Share of the sample that a burst may fill."""


ReferenceLook = Callable[[int], tuple[int, Reference | None]]
"""A look at the registry: takes the version that is held (0: none), returns the champion's (0: none), and its training
window where it is another one. May block, and may raise anything."""


class DriftWatch(Service):
    """Watches one process's share of the stream.

    Parameters
    ----------
    clock
        Of the process.
    reference_look
        At the registry. None: nothing is watched.
    poll_s
        Between two looks at the registry.
    every_s
        Between two looks at the stream.
    window_ms
        Of the log's clock: older payments leave the sample.
    rows, labels
        In the sample, at most. Payments are taken evenly over the window; of labels, which are few, the last ones.
    """

    def __init__(
        self,
        clock: Clock,
        reference_look: ReferenceLook | None,
        poll_s: float,
        *,
        every_s: float = 60.0,
        window_ms: int = 3_600_000,
        rows: int = 20_000,
        labels: int = 20_000,
    ) -> None:
        super().__init__()
        self.last: Look | None = None
        self.version = 0
        self._clock = clock
        self._reference_look = reference_look
        self._poll_s = poll_s
        self._every_s = every_s
        self._window_ms = window_ms
        self._rows = rows
        self._reference: Reference | None = None
        self._is_registry_down = False
        self._now_ms = 0
        self._room = _AT_ONCE * rows
        self._payments: deque[tuple[int, bytes]] = deque(maxlen=rows)
        self._labels: deque[tuple[Any, ...]] = deque(maxlen=labels)
        self._delays: deque[int] = deque(maxlen=labels)

    # -- what passes by

    def see(self, records: Records) -> None:
        """Take a few of a batch of `pix-features` into the sample."""
        count = len(records.values)
        if not count or self._reference_look is None:
            return
        now_ms = max(self._now_ms, records.timestamps_ms[-1])
        share = (now_ms - self._now_ms) / self._window_ms if self._now_ms else 0.0
        self._now_ms = now_ms
        self._room = min(self._room + share * self._rows, _AT_ONCE * self._rows)
        taken = min(int(self._room), count)
        self._room -= taken
        for number in range(taken):
            at = number * count // taken
            value = records.values[at]
            if value is not None:
                self._payments.append((records.timestamps_ms[at], value))

    def hear(self, messages: Sequence[Labelled]) -> None:
        """Take labels; the process that owns the partition of `pix-labelled` hears of all."""
        if self._reference_look is None:
            return
        for message in messages:
            if message.kind == "REVISION":
                self._delays.append(message.known_at - message.event_time)
        # Without their vectors, which were seen when they were new.
        self._labels.extend(matured_rows(messages).tolist())

    # -- looks

    async def take_look(self) -> Look | None:
        """Look at the sample, and tell; None while there is no training window to compare with."""
        reference, version = self._reference, self.version
        if reference is None:
            return None
        oldest_ms = self._now_ms - self._window_ms
        while self._payments and self._payments[0][0] < oldest_ms:
            self._payments.popleft()
        values = [value for _, value in self._payments]
        labels, delays = list(self._labels), list(self._delays)
        started_s = self._clock.monotonic_s()
        try:
            found = await asyncio.to_thread(_look, reference, version, values, labels, delays)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the sample, learning goes on
            drift_metrics.FAILURES.labels("stream").inc()
            drift_metrics.forget()
            log.warning("drift not known", error=str(error))
            return None
        took_s = self._clock.monotonic_s() - started_s
        drift_metrics.tell(found, version, self._clock.now_ms() / 1000, took_s)
        self._log(found)
        self.last = found
        return found

    def _log(self, found: Look) -> None:
        """Say what has changed, when that is news."""
        names = {each.name for each in found.drift.alarms}
        before = {each.name for each in self.last.drift.alarms} if self.last is not None else set()
        if names - before:
            worst = [each.name for each in found.drift.alarms[:5]]
            log.warning("drift", version=self.version, changed=len(names), worst=worst)
        elif before and not names:
            log.info("drift is over", version=self.version)

    async def poll(self) -> None:
        """Ask the registry for the champion's training window."""
        if self._reference_look is None:
            return
        try:
            version, reference = await asyncio.to_thread(self._reference_look, self.version)
        except Exception as error:  # noqa: BLE001 - a registry's client may raise anything, and none of it may stop us
            drift_metrics.FAILURES.labels("registry").inc()
            if not self._is_registry_down:
                log.warning("no training window to be had, the last one stays", error=str(error))
            self._is_registry_down = True
            return
        self._is_registry_down = False
        if version == 0 and self.version:
            self._reference = self.last = None
            drift_metrics.forget()
        if reference is not None:
            self._reference = reference
            log.info("training window read", version=version, columns=len(reference.columns))
        self.version = version
        drift_metrics.REFERENCE_VERSION.set(version)

    @Service.task
    async def _poll_regularly(self) -> None:
        while self._reference_look is not None and not self.should_stop:
            await self.poll()
            await self.sleep(self._poll_s)

    @Service.task
    async def _look_regularly(self) -> None:
        while self._reference_look is not None and not self.should_stop:
            await self.sleep(self._every_s)
            await self.take_look()


def _look(
    reference: Reference, version: int, values: list[bytes], labels: list[tuple[Any, ...]], delays_ms: list[int]
) -> Look:
    vectors = decode_latest(values)
    told, delays = np.array(labels, MATURED_DTYPE), np.array(delays_ms, np.int64)
    # Gauges have no intervals.
    return look(reference, vectors, told, delays, version=version, draws=_DRAWS, resamples=0)

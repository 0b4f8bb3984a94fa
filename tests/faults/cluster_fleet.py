"""The worker processes of a run on a real cluster, watched and started again as a service manager would."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cluster_worker import set_skew

__all__ = ["Ending", "Fleet", "Line", "SupervisedWorker"]

_ROOT = Path(__file__).parents[2]
_RESTART_S = 0.5
_STOP_PATIENCE_S = 60.0
_LINE_BYTES = 4 << 20
_FULL_DISK_BYTES = 4096
_SERIOUS = (None, "error", "critical")
_CRASH = re.compile(r"Crashed reason=(\w+)|^Error: ([^:\n]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a worker logged."""

    at_s: float
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ending:
    """One end of a worker process.

    Parameters
    ----------
    status
        As the system gives it: below zero for a signal.
    was_planned
        Whether the plan ended it.
    error
        The type of the exception that crashed it, or what the command line said; empty where it told of none.
    text
        All that it told of errors.
    """

    status: int
    was_planned: bool
    error: str
    text: str


@dataclass
class SupervisedWorker:
    """One name under which a worker runs, life after life.

    Parameters
    ----------
    name
        Of the worker.
    environment
        Of the process.
    folder
        Where log and clock lie.
    """

    name: str
    environment: dict[str, str]
    folder: Path
    process: Process | None = None
    is_busy: bool = False
    """Whether a fault is at work on it."""
    is_wanted: bool = False
    """Whether it is to be started again when it ends."""
    is_ready: bool = False
    partitions: frozenset[int] = frozenset()
    """What it held when it last was ready."""
    lines: list[Line] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    _watcher: asyncio.Task[None] | None = None

    @property
    def clock(self) -> Path:
        """The file that says by how much its clock is wrong."""
        return self.folder / f"{self.name}.clock"

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start a life."""
        if not self.clock.exists():
            set_skew(self.clock, 0)
        self.is_wanted = True
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faults.cluster_worker", str(self.clock), "worker", "--name", self.name),
            cwd=_ROOT,
            env=self.environment,
            stdin=PIPE,
            stderr=PIPE,
            limit=_LINE_BYTES,
        )
        self._watcher = asyncio.create_task(self._watch(self.process))

    async def _watch(self, process: Process) -> None:
        """Read what a life logs, and start the next one where it ended by itself."""
        stderr = process.stderr
        if stderr is None:
            raise RuntimeError("stderr: expected a pipe")
        first = len(self.lines)
        # Not into a file of the worker's own: its log must not hit the limit that stands for a full disk.
        with (self.folder / f"{self.name}.log").open("ab") as log:
            async for raw in stderr:
                log.write(raw)
                self._take(raw)
        status = await process.wait()
        self.is_ready, self.partitions = False, frozenset()
        text = "\n".join(self._faults(first))
        told = _CRASH.search(text)
        error = told[1] or told[2] if told else ""
        self.endings.append(Ending(status, not self.is_wanted, error, text))
        if self.is_wanted:
            await asyncio.sleep(_RESTART_S)
            if self.is_wanted:
                await self.start()

    def _take(self, raw: bytes) -> None:
        try:
            told = json.loads(raw)
        except ValueError:
            told = {"event": raw.decode(errors="replace").rstrip()}
        self.lines.append(Line(time.monotonic(), told))
        if told.get("event") == "ready":
            self.is_ready, self.partitions = True, frozenset(told["partitions"])

    def _faults(self, first: int) -> list[str]:
        """Return what a life told of errors: by our own lines, the libraries' and the interpreter's."""
        told = [line.told for line in self.lines[first:] if line.told.get("level") in _SERIOUS]
        return [f"{each['event']}\n{each.get('exception', '')}" for each in told]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended meanwhile."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def fill_disk(self) -> None:
        """Let no file of the process grow any more."""
        if self.process is not None and self.is_running:
            _, most = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (_FULL_DISK_BYTES, most))

    async def kill(self) -> None:
        """End the life as a crash of the machine does."""
        self.is_wanted = False
        self.signal(signal.SIGKILL)
        await self._ended()

    async def stop(self) -> None:
        """Ask the process to leave.

        Raises
        ------
        TimeoutError
            When it did not end; it is killed then.
        """
        self.is_wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_PATIENCE_S):
                await self._ended()
        except TimeoutError:
            await self.kill()
            raise

    async def _ended(self) -> None:
        if self._watcher is not None:
            await asyncio.shield(self._watcher)


class Fleet:
    """All workers of a run.

    Parameters
    ----------
    settings
        `PIXGUARD_*` variables.
    folder
        For logs and clocks.
    """

    def __init__(self, settings: dict[str, str], folder: Path) -> None:
        self.workers: list[SupervisedWorker] = []
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PIXGUARD_")},
            **settings,
            "PYTHONPATH": os.pathsep.join((str(_ROOT), str(_ROOT / "tests"))),
        }

    async def add(self) -> None:
        """Start one worker more."""
        name = f"worker-{len(self.workers) + 1}"
        worker = SupervisedWorker(name, self._environment, self._folder)
        self.workers.append(worker)
        await worker.start()

    def choose(self, number: int) -> SupervisedWorker | None:
        """Return a worker that runs and that no other fault is at work on; a ready one before others."""
        free = [worker for worker in self.workers if worker.is_running and not worker.is_busy]
        free = [worker for worker in free if worker.is_ready] or free
        return free[number % len(free)] if free else None

    def ready_since(self, begun_s: float, partitions: frozenset[int], but: SupervisedWorker | None) -> float | None:
        """Return the seconds from `begun_s` until another worker was ready for the last of the partitions."""
        missing, last_s = set(partitions), begun_s
        readies = sorted(
            (
                line
                for worker in self.workers
                if worker is not but
                for line in worker.lines
                if line.at_s > begun_s and line.told.get("event") == "ready"
            ),
            key=lambda line: line.at_s,
        )
        for line in readies:
            if missing & set(line.told["partitions"]):
                missing -= set(line.told["partitions"])
                last_s = line.at_s
        return None if missing else last_s - begun_s

    async def end(self) -> list[str]:
        """Ask all to leave, and kill those that do not; return their names."""
        asked = await asyncio.gather(*(worker.stop() for worker in self.workers), return_exceptions=True)
        return [worker.name for worker, ended in zip(self.workers, asked, strict=True) if isinstance(ended, Exception)]

"""A process that is started again when it dies, as a service manager would; but not for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["EndedError", "Supervised", "last_lines", "stop", "wait_or_kill"]

_STOP_TIMEOUT_S = 20.0
_SPAN_S = 60.0


class EndedError(RuntimeError):
    """A process ended by itself; the message says which one, how, and what it logged last."""


def stop(process: subprocess.Popen[bytes], timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """Ask a process to stop, and kill it when it does not; one that has ended is left alone."""
    process.send_signal(signal.SIGTERM)
    wait_or_kill(process, timeout_s)


def wait_or_kill(process: subprocess.Popen[bytes], timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """Wait until a process that was asked to stop has ended, and kill it when it does not."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_lines(log: Path, most: int = 8) -> str:
    """What a process logged last, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-most:]
    return f"last lines of {log}:\n" + "\n".join(lines)


class Supervised:
    """One process, which runs within the `with` block.

    Parameters
    ----------
    name
        For people.
    command
        Program and arguments.
    variables
        Added to the environment.
    log
        File that takes all it writes; begun anew.
    max_restarts
        How often it is started again within a minute.
    """

    def __init__(
        self, name: str, command: Sequence[str], variables: Mapping[str, str], log: Path, max_restarts: int = 0
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._variables = dict(variables)
        self._max_restarts = max_restarts
        self._restarts_s: deque[float] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_asked = False

    def __enter__(self) -> Self:
        """Start the process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ask the process to stop, and kill it when it does not."""
        if self._process is not None:
            self.ask_to_stop()
            wait_or_kill(self._process)

    def ask_to_stop(self) -> None:
        """Ask the process to stop, once, without waiting: so several stop side by side."""
        if self._process is not None and not self._is_asked:
            self._is_asked = True
            self._process.send_signal(signal.SIGTERM)

    def check(self) -> str | None:
        """Start the process again if it has ended; a line that says so, None while it runs.

        Raises
        ------
        EndedError
            If it has ended once more than it may.
        """
        status = self._process.poll() if self._process is not None else None
        if status is None:
            return None
        now_s = time.monotonic()
        while self._restarts_s and self._restarts_s[0] < now_s - _SPAN_S:
            self._restarts_s.popleft()
        if len(self._restarts_s) >= self._max_restarts:
            often = f", after {self._max_restarts} restarts within a minute" if self._max_restarts else ""
            raise EndedError(f"{self.name} ended with status {status}{often}; {last_lines(self.log)}")
        self._restarts_s.append(now_s)
        self._start()
        return (
            f"{self.name} ended with status {status}; started again "
            f"({len(self._restarts_s)} of at most {self._max_restarts} times a minute; log: {self.log})"
        )

    def _start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                env={**os.environ, **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches the parent alone, which then stops its processes in order.
                process_group=0,
            )

"""Ctrl-C and SIGTERM as a wish to stop, so that a command still sends what it holds and reports what it has done."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress

__all__ = ["stop_on_interrupt"]


@contextmanager
def stop_on_interrupt() -> Generator[asyncio.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets; a second one cancels the task that is in this context.

    Outside the main thread, and where the platform has no signals, the event is never set.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    stopped = asyncio.Event()

    def interrupt() -> None:
        if stopped.is_set() and task is not None:
            task.cancel()
        stopped.set()

    handled: list[signal.Signals] = []
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, interrupt)
                handled.append(number)
        yield stopped
    finally:
        for number in handled:
            loop.remove_signal_handler(number)

"""Ctrl-C as a wish to stop, so that a command can still report what it has done."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["stop_on_interrupt"]


@contextmanager
def stop_on_interrupt() -> Generator[asyncio.Event]:
    """Give an event that the first Ctrl-C sets; a second one cancels the task that is in this context.

    Outside the main thread, and where the platform has no signals, the event is never set.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    stopped = asyncio.Event()

    def interrupt() -> None:
        if stopped.is_set() and task is not None:
            task.cancel()
        stopped.set()

    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (NotImplementedError, RuntimeError, ValueError):
        yield stopped
        return
    try:
        yield stopped
    finally:
        loop.remove_signal_handler(signal.SIGINT)

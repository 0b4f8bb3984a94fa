"""An event loop without waiting: time jumps to the next timer, and what runs belongs to a life that can be ended.

A life is one process of a worker. All that it runs carries its name in the context, so it can be killed between any two
steps (nothing of it runs again, no `finally` either, as after kill -9), or paused and continued.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar
from random import Random
from typing import Any

__all__ = ["LIFE", "DeadlockError", "Life", "VirtualLoop"]


class DeadlockError(Exception):
    """Nothing is ready and no timer is set: the system would wait for ever."""


class Life:
    """One process: from its start until it stops, crashes or is killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_over = False
        self.is_paused = False


LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)
"""The life to which the code belongs that runs now; None for the world around it."""


class _NoWait(selectors.SelectSelector):
    """A selector that never waits: it tells the loop to let time pass."""

    def __init__(self, wait: Callable[[float | None], None]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[Any]:
        self._wait(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A deterministic loop: the same seed runs the same steps in the same order.

    Parameters
    ----------
    rng
        Shuffles.
    is_shuffled
        Whether what is ready at one moment runs in any order, instead of first come, first served.
    """

    def __init__(self, rng: Random, *, is_shuffled: bool) -> None:
        self.now_s = 0.0
        self.steps = 0
        self._rng = rng
        self._is_shuffled = is_shuffled
        self._tasks: list[asyncio.Task[Any]] = []
        self._parked: list[tuple[Life, asyncio.Handle]] = []
        self._at_step: list[tuple[int, Callable[[], object]]] = []
        super().__init__(_NoWait(self._pass_time))
        self.set_task_factory(self._keep_task)  # type: ignore[arg-type] # the stub wants a protocol of its own

    def time(self) -> float:
        """Seconds since the start, virtual."""
        return self.now_s

    def _pass_time(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            raise DeadlockError(f"nothing left to do at {self.now_s:.3f} s")
        self.now_s += max(timeout_s, 0.0)

    def _keep_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        **options: Any,  # noqa: ANN401 - asyncio's
    ) -> asyncio.Task[Any]:
        # Tasks of a life that is over must not be collected while the run lasts: that would run their `finally`.
        task = asyncio.Task(coroutine, loop=loop, **options)
        self._tasks.append(task)
        return task

    def _run_once(self) -> None:
        self.steps += 1
        for item in [item for item in self._at_step if item[0] <= self.steps]:
            self._at_step.remove(item)
            Context().run(item[1])
        ready: Any = self._ready  # type: ignore[attr-defined] # asyncio's own queue
        for handle in list(ready):
            life = handle._context.get(LIFE)
            if life is not None and life.is_over:
                handle.cancel()
            elif life is not None and life.is_paused:
                ready.remove(handle)
                self._parked.append((life, handle))
        if self._is_shuffled and len(ready) > 1:
            handles = list(ready)
            self._rng.shuffle(handles)
            ready.clear()
            ready.extend(handles)
        super()._run_once()  # type: ignore[misc] # asyncio's own step

    def spawn(self, life: Life | None, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as part of a life, or of the world around."""
        context = Context()
        context.run(LIFE.set, life)
        return self.create_task(coroutine, context=context)

    def later(self, delay_s: float, callback: Callable[..., object], *arguments: object) -> None:
        """Call a function after a while, as part of the world around."""
        self.call_later(delay_s, callback, *arguments, context=Context())

    def at_step(self, step: int, callback: Callable[[], object]) -> None:
        """Call a function before a step of the loop, between whatever runs before and after."""
        self._at_step.append((step, callback))

    def kill(self, life: Life) -> None:
        """End a life at once: nothing of it runs any more."""
        life.is_over = True
        life.is_paused = False
        for handle in self._handles_of(life):
            handle.cancel()
        self._parked = [item for item in self._parked if item[0] is not life]

    def pause(self, life: Life) -> None:
        """Stop a life where it stands."""
        life.is_paused = True
        for handle in self._handles_of(life):
            if isinstance(handle, asyncio.TimerHandle):
                self._parked.append((life, asyncio.Handle(handle._callback, handle._args, self, handle._context)))  # type: ignore[attr-defined]
                handle.cancel()
            else:
                self._ready.remove(handle)  # type: ignore[attr-defined]
                self._parked.append((life, handle))

    def resume(self, life: Life) -> None:
        """Let a paused life go on; its timers that ran out meanwhile, or have not yet, fire now."""
        life.is_paused = False
        self._ready.extend(handle for owner, handle in self._parked if owner is life)  # type: ignore[attr-defined]
        self._parked = [item for item in self._parked if item[0] is not life]

    def _handles_of(self, life: Life) -> list[asyncio.Handle]:
        handles: list[Any] = [*self._ready, *self._scheduled]  # type: ignore[attr-defined]
        return [handle for handle in handles if handle._context.get(LIFE) is life and not handle.cancelled()]

    def finish(self) -> None:
        """Drop whatever is left, and close the loop."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined] # left on purpose
                with suppress(Exception):
                    task.get_coro().close()
        self._tasks.clear()
        self._parked.clear()
        self.close()

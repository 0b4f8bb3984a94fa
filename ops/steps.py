"""Progress of a command's steps, one bar each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["Advance", "steps"]


class Advance(Protocol):
    """Moves one bar."""

    def __call__(self, share: float | None, note: str = "") -> None:
        """Show the share done (None: unknown), and a note beside it."""


@contextmanager
def steps(out: Console, *, quiet: bool = False) -> Iterator[Callable[[str], Advance]]:
    """Show bars while the block runs: what it yields begins a step, by its name.

    Parameters
    ----------
    out
        For people.
    quiet
        Show nothing.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=out, transient=True, disable=quiet) as progress:

        def step(name: str) -> Advance:
            task = progress.add_task(name, total=None, note="")

            def advance(share: float | None, note: str = "") -> None:
                progress.update(task, total=None if share is None else 1.0, completed=share or 0.0, note=note)

            return advance

        yield step

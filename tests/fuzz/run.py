"""A run: the numbers shared among processes, so that a message which kills or hangs the decoder is found as well."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized

from .corpus import build_corpus
from .differential import Finding, MakeDecoder, Tally, check_unit, make_decoder

__all__ = ["UNIT", "numbers_for", "run", "unit_of"]

UNIT = 2200
"""Numbers that one decoder sees one after the other: 2,000 mutants and the good messages between them."""

_HANGS_AFTER_S = 300.0
_REPLAYS_WITHIN_S = 120.0
"""Far more than one unit takes, its process's start included, on a busy machine."""

_CONTEXT = multiprocessing.get_context("spawn")


def numbers_for(messages: int) -> range:
    """Return the numbers of a run of so many mutants; the good messages between them come on top."""
    return range(messages + messages // 10 + 1)


def unit_of(number: int, numbers: range) -> range:
    """Return the numbers that one decoder sees together with this one."""
    start = numbers.start + (number - numbers.start) // UNIT * UNIT
    return range(start, min(start + UNIT, numbers.stop))


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    results: Connection
    current: Synchronized[int]
    heard_at_s: float


def run(
    seed: int,
    numbers: range,
    jobs: int,
    progress: Callable[[Tally], None] = lambda _tally: None,
    make: MakeDecoder = make_decoder,
) -> Tally:
    """Check all messages of these numbers; a process that dies or hangs ends the run with a finding.

    Parameters
    ----------
    seed, numbers
        Which messages.
    jobs
        Processes.
    progress
        Called with all that has been seen, unit by unit.
    make
        Makes the decoder under test; it must be importable.
    """
    total = Tally()
    with _started(seed, numbers, jobs, make) as workers:
        while workers and not total.findings:
            ready = wait([worker.results for worker in workers], timeout=1.0)
            for worker in tuple(workers):
                if worker.results in ready:
                    what = _receive(worker, total)
                elif time.monotonic() - worker.heard_at_s > _HANGS_AFTER_S:
                    what = f"the decoder has not answered for {_HANGS_AFTER_S:.0f} s"
                else:
                    continue
                if what is None:
                    progress(total)
                    continue
                workers.remove(worker)
                worker.process.kill()
                if what:
                    total.findings.append(_pinpointed(seed, unit_of(worker.current.value, numbers), what, make))
    return total


def _receive(worker: _Worker, total: Tally) -> str | None:
    """Take one tally; return None after it, "" where the worker has ended well, or how it died."""
    try:
        total.add(worker.results.recv())
    except EOFError:
        worker.process.join()
        return f"the process died with exit code {worker.process.exitcode}" if worker.process.exitcode else ""
    worker.heard_at_s = time.monotonic()
    return None


@contextmanager
def _started(seed: int, numbers: range, jobs: int, make: MakeDecoder) -> Iterator[list[_Worker]]:
    workers = []
    for job in range(jobs):
        results, ours = _CONTEXT.Pipe(duplex=False)
        current = _CONTEXT.Value("q", numbers.start)
        starts = range(numbers.start + job * UNIT, numbers.stop, jobs * UNIT)
        process = _CONTEXT.Process(target=_work, args=(seed, numbers, starts, ours, current, make), daemon=True)
        process.start()
        ours.close()  # so that the end of the process ends the pipe
        workers.append(_Worker(process, results, current, time.monotonic()))
    everyone = tuple(workers)
    try:
        yield workers
    finally:
        for worker in everyone:
            worker.process.kill()
            worker.process.join()


def _work(
    seed: int, numbers: range, starts: range, results: Connection, current: Synchronized[int], make: MakeDecoder
) -> None:
    """Check units, in a process of its own."""
    corpus = build_corpus()

    def started(number: int) -> None:
        current.value = number

    for start in starts:
        results.send(check_unit(corpus, seed, unit_of(start, numbers), make, started))


def _pinpointed(seed: int, numbers: range, what: str, make: MakeDecoder) -> Finding:
    """Halve the numbers as long as one half alone still ends its process."""
    while len(numbers) > 1:
        middle = numbers.start + len(numbers) // 2
        halves = range(numbers.start, middle), range(middle, numbers.stop)
        fatal = next((half for half in halves if _is_fatal(seed, half, make)), None)
        if fatal is None:
            break
        numbers = fatal
    return Finding(numbers.start, f"{what}, on the {len(numbers)} messages from this one on", None)


def _is_fatal(seed: int, numbers: range, make: MakeDecoder) -> bool:
    with _started(seed, numbers, 1, make) as (worker,):
        has_answered = worker.results.poll(_REPLAYS_WITHIN_S)
        return not has_answered or _receive(worker, Tally()) is not None

"""Worker processes on a real broker under seeded faults: ten seeds of those that `make faults` runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from .cluster import run_seed
from .cluster_run import ClusterRun

pytestmark = pytest.mark.broker

SEEDS = range(1, 11)
_JOBS = 2  # a run waits half of its time


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[int, Future[ClusterRun]]]:
    """Start the runs; each seed by its number."""
    with ProcessPoolExecutor(_JOBS, get_context("spawn")) as pool:
        yield {seed: pool.submit(run_seed, seed) for seed in SEEDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_changed(runs: dict[int, Future[ClusterRun]], seed: int) -> None:
    """Every payment is decided once, or again with the same bytes, and the state is that of an unbroken run."""
    run = runs[seed].result()
    assert not run.violations, run.words
    assert run.counts["payments"] > 2000

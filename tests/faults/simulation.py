"""One seed, one run of the whole pipeline under faults, and what it found."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING

import structlog

from app.domain.field_checks import TimeLimits
from app.domain.siphash import HashKey
from app.domain.transaction import TransactionDecoder
from models.stages.pipeline import warm_up

from .oracle import check
from .packs import packs_read_once, rule_packs
from .plan import Plan, draw_plan
from .report import RunResult, Violation
from .traffic import generate_traffic
from .worker import Worker
from .world import World

if TYPE_CHECKING:
    from .machine import Machine

__all__ = ["REPLAY", "prepare", "prepare_for_good", "simulate"]

REPLAY = "PYTHONPATH=tests python -m faults simulate --seed {seed} --runs 1 --verbose"

_COLLECT_EVERY = 20


@contextmanager
def prepare() -> Iterator[None]:
    """Compile the kernels, and keep logs and the collector of garbage out of the runs inside."""
    configured = structlog.get_config()
    # Crashes are what happens here all the time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    # What a run leaves behind is cyclic and large; to collect in the middle of one would take most of its time.
    gc.disable()
    try:
        with warnings.catch_warnings(), packs_read_once():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # of processes that were killed
            warm_up(TransactionDecoder(HashKey.from_bytes(bytes(16)), TimeLimits()), rule_packs()[0])
            yield
            gc.collect()
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
        structlog.configure(**configured)


_for_good = ExitStack()


def prepare_for_good() -> None:
    """Prepare a process that does nothing else until it ends."""
    _for_good.enter_context(prepare())


def simulate(
    seed: int,
    make_worker: Callable[[World, Machine], Worker] = Worker,
    tell: Callable[[str], None] | None = None,
    plan: Plan | None = None,
) -> RunResult:
    """Run one seed.

    Parameters
    ----------
    seed
        Decides everything.
    make_worker
        Starts a worker; tests put saboteurs here.
    tell
        Is told what happens, line by line.
    plan
        In place of the seed's own.
    """
    plan = plan or draw_plan(seed)
    world = World(plan, generate_traffic(Random(f"traffic/{seed}"), plan.messages), make_worker, tell)
    if tell is not None:
        tell(str(plan))
    try:
        world.run()
        if not world.violations:
            check(world)
    finally:
        world.loop.finish()
    if seed % _COLLECT_EVERY == 0:
        gc.collect()
    decisions = world.witness.decisions
    return RunResult(
        seed,
        {
            "messages": len(world.traffic.messages),
            "payments decided": len(decisions),
            "repeats of decisions": sum(sum(found.values()) - len(found) for found in decisions.values()),
            "records in the log": sum(partition.end for partition in world.log.partitions.values()),
        },
        dict(world.faults),
        world.loop.now_s,
        world.log.digest(),
        tuple(Violation(seed, *violation) for violation in dict.fromkeys(world.violations)),
    )

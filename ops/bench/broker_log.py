"""Where the bench's broker keeps its log: in memory where there is room.

A broker acknowledges from the page cache, but an append waits while the kernel writes the same file back: with a disk
that others use too that is 100 ms now and then, which says nothing about a worker.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ops.bench.stand import BenchError

__all__ = ["BrokerLog", "broker_log"]

_MEMORY = Path("/dev/shm")  # noqa: S108 - Linux's file system in memory, for a folder that only its owner can read
_PREFIX = "pixguard-bench-"
_NEEDED_BYTES = 12 << 30
"""Twice what the log of a whole run takes, so that the programs have room too."""


BrokerLog = Literal["auto", "memory", "disk"]
"""Where the log is; auto: in memory if there is room, else on disk."""


@contextmanager
def broker_log(where: BrokerLog, disk: Path) -> Iterator[Path]:
    """Yield the broker's folder, which is gone afterwards.

    Parameters
    ----------
    where
        Memory or disk.
    disk
        An existing folder on disk.

    Raises
    ------
    BenchError
        When it must be in memory and there is no room.
    """
    free = _free_bytes()
    if where == "disk" or (where == "auto" and free < _NEEDED_BYTES):
        yield disk / "kafka"
        return
    if free < _NEEDED_BYTES:
        raise BenchError(
            f"the broker's log does not fit into memory: expected {_NEEDED_BYTES >> 30} GiB free in {_MEMORY}, "
            f"got {free >> 30}; use --broker-log disk"
        )
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_bytes() -> int:
    """Room in memory: of the file system, and that no program needs."""
    try:
        of_files = shutil.disk_usage(_MEMORY).free
        of_programs = next(
            int(line.split()[1]) << 10
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
            if line.startswith("MemAvailable:")
        )
    except (OSError, StopIteration):
        return 0
    return min(of_files, of_programs)


def _remove_leftovers() -> None:
    """Give back the memory of runs that were killed."""
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)

"""How glibc allocates memory in a worker: told by an environment variable, which it reads when a process starts."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

__all__ = ["tune_allocator", "tuned"]

_VARIABLE = "GLIBC_TUNABLES"

_TUNABLES = {
    # Pages of 2 MB: state is read in random order, and where guests have page tables of their own each look-up of a
    # page of 4 KB that is not cached takes many. 9 % at full load.
    "hugetlb": 1,
    # Keep what is freed: batches and fetches are megabytes that come and go a hundred times a second. Given back, each
    # page is cleared by the kernel when it is asked for again: a fifth of the time at full load.
    "mmap_threshold": 32 << 20,  # the most that glibc takes
    "trim_threshold": 1 << 30,
    "top_pad": 64 << 20,
    "arena_max": 1,  # a thread's own arena would give its memory back all the same
}


def tuned(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker: what it says of a tunable counts, the rest is added."""
    told = environment.get(_VARIABLE, "")
    missing = [f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items() if f"malloc.{name}=" not in told]
    return {**environment, _VARIABLE: ":".join([*([told] if told else []), *missing])}


def tune_allocator() -> None:
    """Start the program again, as the same process, if it was not started in a `tuned` environment.

    Nothing happens with another C library.
    """
    environment = tuned(os.environ)
    if environment != dict(os.environ) and platform.libc_ver()[0] == "glibc":
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - this very program

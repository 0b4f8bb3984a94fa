"""What the system knows of a running process, for the benchmarks. Linux only."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_s", "resident_bytes"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, user and system, of all its threads."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Memory that a process holds in pages of its own or shared."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")

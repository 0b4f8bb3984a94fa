"""Where the bench's broker keeps its log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.bench import broker_log as module
from ops.bench.broker_log import BrokerLog, log_folder
from ops.bench.stand import BenchError


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the file system in memory, with room."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(module, "_MEMORY", folder)
    monkeypatch.setattr(module, "_free_bytes", lambda: module._NEEDED_BYTES)
    return folder


@pytest.mark.parametrize("where", ["auto", "memory"])
def test_a_log_in_memory_is_gone_afterwards(where: BrokerLog, memory: Path, tmp_path: Path) -> None:
    """With room, in memory; the memory is given back."""
    with log_folder(where, tmp_path) as folder:
        assert folder.parent == memory
        (folder / "log").write_bytes(b"records")
    assert list(memory.iterdir()) == []


def test_without_room_the_log_is_on_disk(memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` falls back; `memory` says what is missing and how to go on."""
    monkeypatch.setattr(module, "_free_bytes", lambda: module._NEEDED_BYTES - 1)
    with log_folder("auto", tmp_path) as folder:
        assert folder == tmp_path / "kafka"
    with pytest.raises(BenchError, match=r"expected 20 GiB free in .*, got 19; use --broker-log disk"):
        log_folder("memory", tmp_path).__enter__()
    assert list(memory.iterdir()) == []


def test_what_was_asked_to_be_on_disk_is(memory: Path, tmp_path: Path) -> None:
    """`disk` wins over any room."""
    with log_folder("disk", tmp_path) as folder:
        assert folder == tmp_path / "kafka"
    assert list(memory.iterdir()) == []


def test_only_logs_of_runs_that_ended_are_removed(memory: Path, tmp_path: Path) -> None:
    """A killed run cannot give its memory back; a running one needs its own."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left, running = memory / f"pixguard-bench-{ended.pid}-a", memory / f"pixguard-bench-{os.getpid()}-b"
    for folder in (left, running):
        folder.mkdir()
        (folder / "log").write_bytes(b"records")
    with log_folder("memory", tmp_path):
        assert not left.exists()
        assert running.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's figures")
def test_no_more_is_free_than_programs_leave() -> None:
    """A file system in memory tells its limit, not what is left of the machine."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 <= module._free_bytes() < total

"""`pixguard run` as a newcomer and a service manager use it: decisions appear, and a stop leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.broker import free_port

_DEADLINE_S = 150.0


def _pid_of(parent: int, argument: str) -> int:
    """The child of a process that has an argument."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return int(pid)
    raise AssertionError(f"no child with the argument {argument}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.broker
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_decides_and_ends_with_all_that_it_started(tmp_path: Path, stop: signal.Signals) -> None:
    """Broker, worker and traffic run; either signal ends them all, and the data stay."""
    broker, web, log = free_port(), free_port(), tmp_path / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "run", "--data", str(tmp_path / "data"), "--workers", "1"],
            env={**os.environ, "PIXGUARD_BROKER": f"127.0.0.1:{broker}", "PIXGUARD_WEB_PORT": str(web)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline_s = time.monotonic() + _DEADLINE_S
        _until(" decisions (", log, process, deadline_s)
        assert _listens(broker)
        assert _listens(web)
        process.send_signal(stop)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert not _listens(broker)
    assert not _listens(web)
    assert (tmp_path / "data" / "kafka").is_dir()


def _until(text: str, log: Path, process: subprocess.Popen[bytes], deadline_s: float) -> None:
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.2)


@pytest.mark.broker
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
def test_a_worker_that_dies_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    """A line says so each time; the fourth death within a minute ends the demo with an error."""
    log = tmp_path / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "run", "--data", str(tmp_path / "data"), "--workers", "1"],
            env={
                **os.environ,
                "PIXGUARD_BROKER": f"127.0.0.1:{free_port()}",
                "PIXGUARD_WEB_PORT": str(free_port()),
            },
            stdout=output,
            stderr=output,
        )
    try:
        deadline_s = time.monotonic() + _DEADLINE_S
        _until("payments/s", log, process, deadline_s)
        for death in range(1, 4):
            os.kill(_pid_of(process.pid, "worker-1"), signal.SIGKILL)
            _until(f"started again ({death} of at most 3", log, process, deadline_s)
        os.kill(_pid_of(process.pid, "worker-1"), signal.SIGKILL)
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()
    assert "worker-1 ended with status -9, after 3 restarts within a minute; last lines of" in log.read_text()

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
        while " decisions (" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.2)
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

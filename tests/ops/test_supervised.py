"""Processes that are started again when they die."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from ops.supervised import EndedError, Supervised

_DEADLINE_S = 60.0


def _until_told(part: Supervised) -> str:
    deadline_s = time.monotonic() + _DEADLINE_S
    while (told := part.check()) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return told


def test_it_is_started_again_until_it_dies_too_often(tmp_path: Path) -> None:
    """Each start is told with the status of the end before it; the last error has the log of all lives."""
    log = tmp_path / "logs" / "part.log"
    command = [sys.executable, "-c", "import os, sys; print(os.environ['GREETING'], flush=True); sys.exit(3)"]
    with Supervised("part", command, {"GREETING": "hello"}, log, max_restarts=2) as part:
        assert _until_told(part).startswith("part ended with status 3; started again (1 of at most 2 times a minute")
        assert "(2 of at most 2" in _until_told(part)
        with pytest.raises(EndedError, match="status 3, after 2 restarts within a minute; last lines of") as error:
            _until_told(part)
    assert str(error.value).splitlines()[1:] == ["hello"] * 3


def test_one_that_may_not_end_is_not_started_again(tmp_path: Path) -> None:
    """Its first end is the error."""
    with (
        Supervised("part", [sys.executable, "-c", ""], {}, tmp_path / "part.log") as part,
        pytest.raises(EndedError, match="part ended with status 0; last lines of"),
    ):
        _until_told(part)


def test_it_ends_with_the_block(tmp_path: Path) -> None:
    """A process that runs is nothing to tell, and is asked to stop."""
    log = tmp_path / "part.log"
    program = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print('bye'))); print('up', flush=True)"
    with Supervised("part", [sys.executable, "-c", f"{program}; time.sleep(60)"], {}, log) as part:
        deadline_s = time.monotonic() + _DEADLINE_S
        while log.read_text() != "up\n":
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert part.check() is None
    assert log.read_text() == "up\nbye\n"


def test_several_stop_side_by_side_and_are_asked_once(tmp_path: Path) -> None:
    """Whoever is asked in advance has ended, or is about to, when its block does: no second signal cuts it short."""
    program = (
        "import signal, time; signal.signal(15, lambda *_: print('asked', flush=True)); print('up', flush=True);"
        "signal.pause(); time.sleep(0.5)"
    )
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with (
        Supervised("one", [sys.executable, "-c", program], {}, logs[0]) as one,
        Supervised("two", [sys.executable, "-c", program], {}, logs[1]) as two,
    ):
        deadline_s = time.monotonic() + _DEADLINE_S
        while [log.read_text() for log in logs] != ["up\n"] * 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        for part in (one, two):
            part.ask_to_stop()
        while [log.read_text() for log in logs] != ["up\nasked\n"] * 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    assert [log.read_text() for log in logs] == ["up\nasked\n"] * 2

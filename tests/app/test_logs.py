"""What reaches the log when a library repeats itself."""

from __future__ import annotations

import logging

from app.logs import _Repeats


def _record(line: str | dict[str, str], at_s: float) -> logging.LogRecord:
    record = logging.LogRecord("aiokafka", logging.ERROR, __file__, 1, line, (), None)
    record.created = at_s
    return record


def test_a_library_that_repeats_itself_is_shown_once_in_ten_seconds() -> None:
    """And then with the number of lines that were not shown; another line is not held back."""
    repeats = _Repeats()
    assert [repeats.filter(_record("down", at_s)) for at_s in (0.0, 0.1, 9.9)] == [True, False, False]
    assert repeats.filter(_record("another", 0.2))
    later = _record("down", 10.0)
    assert repeats.filter(later)
    assert later.getMessage() == "down (2 times more since it was last shown)"


def test_our_own_lines_are_all_shown() -> None:
    """Each is an event that somebody may count."""
    repeats = _Repeats()
    assert all(repeats.filter(_record({"event": "ready"}, 0.0)) for _ in range(3))

"""Structured logs: one JSON object a line for Elastic, or readable lines for a person, from the same events."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

__all__ = ["configure_logs"]

_REPEAT_S = 10.0
_MAX_REMEMBERED = 1000


def configure_logs(level: str, log_format: Literal["auto", "json", "console"], worker: str) -> None:
    """Send structlog's events and the libraries' stdlib records through one formatter to standard error.

    Parameters
    ----------
    level
        Least severe level shown; the libraries' own lines are shown from WARNING on unless it is DEBUG.
    log_format
        `auto` writes for people on a terminal and JSON elsewhere.
    worker
        Name bound to every line.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="@timestamp"),
        structlog.processors.StackInfoRenderer(),
    ]
    people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    render: list[Processor] = (
        # Plain tracebacks: the decorated ones print local variables, and these may hold what a payment said.
        [structlog.dev.ConsoleRenderer(timestamp_key="@timestamp", exception_formatter=structlog.dev.plain_traceback)]
        if people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if level != "DEBUG":
        handler.addFilter(_is_ours_or_serious)
        handler.addFilter(_Repeats())
    structlog.contextvars.bind_contextvars(worker=worker)


def _is_ours_or_serious(record: logging.LogRecord) -> bool:
    """Structlog hands over dicts; a string is a library's (mode logs under the names of our own modules)."""
    return isinstance(record.msg, dict) or record.levelno >= logging.WARNING


class _Repeats(logging.Filter):
    """Shows what a library keeps saying once in ten seconds: aiokafka reports every retry, dozens a second."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Count a line that was shown lately; the next one shown says how often."""
        if isinstance(record.msg, dict):  # our own
            return True
        line = record.getMessage()
        at_s, hidden = self._shown.get((record.name, line), (float("-inf"), 0))
        if record.created - at_s < _REPEAT_S:
            self._shown[record.name, line] = (at_s, hidden + 1)
            return False
        if len(self._shown) >= _MAX_REMEMBERED:
            self._shown.clear()
        self._shown[record.name, line] = (record.created, 0)
        if hidden:
            record.msg, record.args = f"{line} ({hidden} times more since it was last shown)", ()
        return True

"""A real worker whose wall clock a test can set, and whose local store writes to its disk after few rows already."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import time
from mmap import ACCESS_READ, mmap
from pathlib import Path

__all__ = ["set_skew"]

_SKEW = struct.Struct("<q")
_WRITE_BUFFER_BYTES = 64 << 10  # RocksDB takes no less; 8 MiB would keep a short run from ever writing


class _SkewedClock:
    """Wrong by as many milliseconds as a file says at the moment."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._skew = mmap(file.fileno(), _SKEW.size, access=ACCESS_READ)

    def now_ms(self) -> int:
        return int(time.time() * 1000) + int(_SKEW.unpack_from(self._skew)[0])

    def monotonic_s(self) -> float:
        return time.monotonic()


def set_skew(path: Path, skew_ms: int) -> None:
    """Set the clock that follows `path`, whether its worker runs or not."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(_SKEW.pack(skew_ms))


def _end_with_owner() -> None:
    """End when the other end of standard input is gone: whoever started this worker ended, however it did."""
    os.read(0, 1)  # not sys.stdin, whose lock would be in the interpreter's way when it ends
    os.kill(os.getpid(), signal.SIGKILL)


def main(clock_path: str, *arguments: str) -> None:
    """Run the command line; arguments: the clock's file, then those of `pixguard`."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    # Before anything else is imported: modules take the clock over by name.
    import app.clock  # noqa: PLC0415

    app.clock.SYSTEM_CLOCK = _SkewedClock(Path(clock_path))
    import tables.cold  # noqa: PLC0415

    tables.cold._WRITE_BUFFER_BYTES = _WRITE_BUFFER_BYTES
    from app.cli import main as run  # noqa: PLC0415

    sys.argv = ["pixguard", *arguments]
    run()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Reading a user's file takes a bounded amount of memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

BASE = {
    "end_to_end_id": "E12345678202401010000aaaaaaaaaaa",
    "timestamp": 1_714_561_234_567,
    "amount_centavos": 1234,
    "payer_account": "0001-1",
    "payer_ispb": "00000000",
    "receiver_account": "0002-2",
    "receiver_ispb": "12345678",
    "initiation": "MANU",
}

_MEASURE = """
import sys
from pathlib import Path
from ops.files import read_transactions

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

peaks, count = [], 0
for chunk in read_transactions(Path(sys.argv[1])):
    count += len(chunk)
    if count % 100_000 < 1000:
        peaks.append(peak_mb())
print(count, peaks[0], peak_mb())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize(
    ("name", "rows", "more_mb"),
    [("pix.ndjson.gz", 1_000_000, 8), ("pix.csv", 300_000, 8), ("pix.parquet", 400_000, 64)],
)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str, rows: int, more_mb: int) -> None:
    """After the first 100,000 rows a process takes little more; Parquet's reader keeps some row groups ahead."""
    path = tmp_path / name
    frame = pl.DataFrame({key: [value] * 100_000 for key, value in {**BASE, "remittance_text": "x" * 140}.items()})
    if name == "pix.parquet":
        pl.concat([frame] * (rows // 100_000)).write_parquet(path, row_group_size=50_000)
    elif name == "pix.csv":
        path.write_bytes(b"".join([frame.write_csv().encode(), *[frame.write_csv(include_header=False).encode()] * 2]))
    else:
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(rows // 100_000):
                file.write(frame.write_ndjson().encode())
    done = subprocess.run([sys.executable, "-c", _MEASURE, path], capture_output=True, text=True, check=True)
    count, first_mb, peak_mb = map(int, done.stdout.split())
    assert count == rows
    assert peak_mb - first_mb <= more_mb

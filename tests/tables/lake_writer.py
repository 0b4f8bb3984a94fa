"""A process that appends prepared rows to a table of the lake until it has all, or kills itself before that.

`python -m tests.tables.lake_writer TABLE ROWS_FILE SEED KILLS_ITSELF`: the rows are of two partitions, each batch as
long as chance has it; if it kills itself, then within one of its first four commits. It imports no more than a writer
needs, so that many can be started.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tables.lake_table import LakeTable, Span, app_id

TOPIC = "pix-decisions"
PARTITIONS = (0, 1)


def read_rows(path: Path) -> pa.Table:
    """Rows that were prepared."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def write_rows(path: Path, rows: pa.Table) -> None:
    """Prepare rows."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows)


def main(uri: str, path: str, seed: int, kills_itself: int) -> None:
    """Append until the table has everything."""
    chance = random.Random(seed)
    rows = read_rows(Path(path))
    parts = {partition: rows.filter(pc.equal(rows["topic_partition"], partition)) for partition in PARTITIONS}
    fatal = chance.randrange(4) if kills_itself else -1
    number = 0
    table = LakeTable(uri, rows.schema)
    while True:
        held = table.positions([app_id(TOPIC, partition) for partition in PARTITIONS])
        taken, spans = [], []
        for partition, part in parts.items():
            position = held.get(app_id(TOPIC, partition), -1) + 1
            # Begins before what is held, now and then: repeats, as after an offset that was not committed.
            base = max(0, position - chance.choice((0, 0, 0, 40)))
            batch = part.slice(base, chance.randrange(1, 200))
            if batch.num_rows and position < part.num_rows:
                taken.append(batch)
                spans.append(Span(TOPIC, partition, base, base + batch.num_rows - 1))
        if not spans:
            return
        if number == fatal:
            threading.Timer(chance.uniform(0, 0.02), os.kill, (os.getpid(), signal.SIGKILL)).start()
        number += 1
        table.append(pa.concat_tables(taken), spans)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    os._exit(0)  # not held up by the timer

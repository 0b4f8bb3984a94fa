"""`python -m fuzz`: a run from the command line."""

from __future__ import annotations

import argparse
import json
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from .differential import Tally
from .report import as_json, print_finding, print_report
from .run import numbers_for, run
from .throughput import MAX_SLOWDOWN, measure_cost


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fuzz", description="Mutated messages through the decoder, held to the strict one."
    )
    parser.add_argument("--messages", type=int, default=10_000_000, help="mutants")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same messages")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", metavar="A[-B]", help="replay the message of this number, or these")
    parser.add_argument("--rounds", type=int, default=25, help="of the measurement of bad messages' cost; 0 for none")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> int:
    """Run; return 1 where something is wrong or bad messages cost too much."""
    arguments = _arguments()
    numbers, rounds = numbers_for(arguments.messages), arguments.rounds
    if arguments.only:
        first, _, last = arguments.only.partition("-")
        numbers, rounds = range(int(first), int(last or first) + 1), 0
    started = time.monotonic()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(numbers))

        def progress(tally: Tally) -> None:
            bar.update(task, completed=tally.mutated + tally.neighbours)

        tally = run(arguments.seed, numbers, arguments.jobs, progress)
    wall_s = time.monotonic() - started
    cost = measure_cost(arguments.seed, rounds) if rounds else None
    for finding in tally.findings[:10]:
        print_finding(Console(stderr=True), finding, arguments.seed, numbers)
    if arguments.json:
        print(json.dumps(as_json(arguments.seed, tally, wall_s, cost)))  # noqa: T201 - for a pipe
    else:
        print_report(Console(), tally, wall_s, cost)
    return int(bool(tally.findings) or (cost is not None and cost.path_ratio > MAX_SLOWDOWN))


if __name__ == "__main__":
    sys.exit(main())

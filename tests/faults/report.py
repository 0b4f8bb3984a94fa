"""What a series of seeded runs found: figures, faults by kind, violations and how to see each again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Report", "RunResult", "Violation"]


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must hold, and did not.

    Parameters
    ----------
    seed
        Of the run.
    invariant
        What must hold.
    detail
        What was found instead.
    """

    seed: int
    invariant: str
    detail: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run.

    Parameters
    ----------
    seed
        Names it.
    counts
        Messages, payments, decisions and whatever else is worth adding up.
    faults
        By kind.
    simulated_s
        Time that passed inside.
    digest
        Names everything that was written: the same for the same seed.
    violations
        What did not hold.
    """

    seed: int
    counts: Mapping[str, int]
    faults: Mapping[str, int]
    simulated_s: float
    digest: str
    violations: tuple[Violation, ...]


@dataclass(slots=True)
class Report:
    """The sum of many runs.

    Parameters
    ----------
    replay
        The command that runs one seed again, with `{seed}` in it.
    """

    replay: str
    runs: int = 0
    simulated_s: float = 0.0
    elapsed_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def add(self, result: RunResult) -> None:
        """Take up one run."""
        self.runs += 1
        self.simulated_s += result.simulated_s
        self.counts.update(result.counts)
        self.faults.update(result.faults)
        self.violations += result.violations

    @property
    def failed_seeds(self) -> list[int]:
        """Seeds of the runs with violations, ascending."""
        return sorted({violation.seed for violation in self.violations})

    def as_json(self) -> dict[str, Any]:
        """Return the report for machines."""
        return {
            "runs": self.runs,
            "simulated_s": round(self.simulated_s, 1),
            "elapsed_s": round(self.elapsed_s, 1),
            "counts": dict(sorted(self.counts.items())),
            "faults": dict(sorted(self.faults.items())),
            "violations": [
                asdict(violation) | {"replay": self.replay.format(seed=violation.seed)} for violation in self.violations
            ],
        }

    def show(self, console: Console) -> None:
        """Print the report for people."""
        table = Table(
            "", "", title=f"{self.runs:,} runs, {self.simulated_s / 60:,.0f} minutes inside", show_header=False
        )
        for name, count in sorted(self.counts.items()):
            table.add_row(name, f"{count:,}")
        table.add_section()
        for name, count in sorted(self.faults.items()):
            table.add_row(name, f"{count:,}")
        table.add_section()
        table.add_row("runs with violations", f"{len(self.failed_seeds):,}")
        table.add_row("took", f"{self.elapsed_s:,.1f} s")
        console.print(table)
        for violation in self.violations:
            console.print(
                f"seed {violation.seed}: {violation.invariant}: {violation.detail}", markup=False, soft_wrap=True
            )
        for seed in self.failed_seeds:
            console.print(f"again: {self.replay.format(seed=seed)}", markup=False, soft_wrap=True)

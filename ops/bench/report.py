"""What a bench run says: one JSON object, a table, and the page ops/performance.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ops.bench.costs import Costs
from ops.bench.latency import Latency
from ops.bench.stock_measure import StockResult
from ops.bench.throughput import Throughput

__all__ = ["PAGE", "Figures", "WithModels", "page_with", "write_page"]

PAGE = Path(__file__).resolve().parent.parent / "performance.md"
"""The page beside the packages."""

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"

_KERNEL = ("kernel",)
_ENCODE = ("encode decisions", "encode features", "encode frames")


@dataclass(frozen=True, slots=True)
class WithModels:
    """The whole path with an online and a batch model in force.

    Parameters
    ----------
    latency
        At one offered load.
    throughput
        Of a backlog; None until it is measured.
    """

    latency: Latency
    throughput: Throughput | None


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one run.

    Parameters
    ----------
    keys
        Profiles held.
    throughput
        Of the whole path, Kafka to Kafka.
    held
        The worker's own metrics after the backlog.
    recovery_s
        From kill -9 to the first new decision.
    latencies
        One per offered load.
    stock
        Stock Faust with windowed tables, and with one packed row per key.
    costs
        Of each part.
    is_log_in_memory
        Whether the broker's log was in memory, not on disk.
    compaction_us
        Processor time per payment of the backlog that the broker's compaction takes: while nothing else is measured.
    with_models
        The path with models; None where it was not measured.
    """

    keys: int
    throughput: Throughput
    held: Mapping[str, float]
    recovery_s: float
    latencies: Sequence[Latency]
    stock: tuple[StockResult, StockResult]
    costs: Costs
    is_log_in_memory: bool
    compaction_us: float
    with_models: WithModels | None = None

    def as_json(self) -> dict[str, float]:
        """Return the figures by name; times in the unit that ends the name."""
        parts = self.costs.parts_us
        windowed, packed = self.stock
        ours = self.throughput
        figures: dict[str, float] = {
            "keys": self.keys,
            "events": ours.events,
            "events_per_core_s": ours.events_per_s,
            "worker_cpu_us": ours.cpu_us,
            "stock_faust_ratio": ours.events_per_s / windowed.events_per_s,
            "stock_faust_cpu_ratio": windowed.cpu_us_per_event / ours.cpu_us,
            "stock_faust_packed_ratio": ours.events_per_s / packed.events_per_s,
            "stock_faust_packed_cpu_ratio": packed.cpu_us_per_event / ours.cpu_us,
            "decode_us": parts["decode"],
            "kernel_us": sum(parts[name] for name in _KERNEL),
            "encode_us": sum(parts[name] for name in _ENCODE),
            "checkpoint_us": parts["checkpoint"],
            "parts_us": self.costs.total_us,
            "compaction_us": self.compaction_us,
            "recovery_s": self.recovery_s,
            "bytes_per_key": self.costs.bytes_per_key,
        }
        for latency in self.latencies:
            rate = _short(latency.rate_per_s)
            figures[f"p50_ms_{rate}"] = latency.p50_ms
            figures[f"p99_ms_{rate}"] = latency.p99_ms
            figures[f"p999_ms_{rate}"] = latency.p999_ms
        if self.with_models is not None and self.with_models.throughput is not None:
            figures["events_per_core_s_models"] = self.with_models.throughput.events_per_s
            figures["worker_cpu_us_models"] = self.with_models.throughput.cpu_us
            rate = _short(self.with_models.latency.rate_per_s)
            for name in ("p50_ms", "p99_ms", "p999_ms"):
                figures[f"{name}_{rate}_models"] = getattr(self.with_models.latency, name)
        return {name: round(value, 3) for name, value in figures.items()}

    def tables(self) -> Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Return titles, heads and rows of what is shown."""
        windowed, packed = self.stock
        ours = self.throughput
        speed = [
            ("pixguard", f"{ours.events_per_s:,.0f}", f"{ours.cpu_us:,.1f}", "1"),
            *self._speed_with_models(),
            *(
                (
                    f"stock Faust, {name}",
                    f"{one.events_per_s:,.0f}",
                    f"{one.cpu_us_per_event:,.0f}",
                    f"1/{ours.events_per_s / one.events_per_s:,.0f}",
                )
                for name, one in (("windowed tables", windowed), ("one packed row per key", packed))
            ),
        ]
        offered = [(f"{one.rate_per_s:,}/s", one) for one in self.latencies]
        if self.with_models is not None:
            offered.append((f"{self.with_models.latency.rate_per_s:,}/s with models", self.with_models.latency))
        latency = [
            (
                name,
                *(f"{value:,.1f}" for value in (one.p50_ms, one.p99_ms, one.p999_ms, one.max_ms, one.sender_p99_ms)),
            )
            for name, one in offered
        ]
        total = self.costs.total_us
        parts = [
            (name, f"{value:.2f}", f"{value / total:.0%}")
            for name, value in sorted(self.costs.parts_us.items(), key=lambda item: -item[1])
        ]
        parts.append(("all parts alone", f"{total:.2f}", "100%"))
        parts.append(
            ("the worker, Kafka's clients and Faust included", f"{ours.cpu_us:.2f}", f"{ours.cpu_us / total:.0%}")
        )
        state = [
            ("keys in memory", f"{self.keys:,}"),
            ("memory per key, bytes", f"{self.costs.bytes_per_key:,.0f}"),
            ("checkpoint rows per payment", f"{_checkpoint_rows(self.held) / max(ours.events, 1):.2f}"),
            ("compaction by the broker, CPU us per payment", f"{self.compaction_us:.1f}"),
            ("kill -9 to first new decision, s", f"{self.recovery_s:.1f}"),
        ]
        return [
            ("Full load, one core", ("", "payments/s", "CPU us", "of pixguard"), speed),
            ("Latency, ms, due to decided", ("offered", "p50", "p99", "p99.9", "max", "sender late p99"), latency),
            ("Where each microsecond goes", ("part", "CPU us per payment", "share"), parts),
            ("State", ("", ""), state),
        ]

    def _speed_with_models(self) -> list[tuple[str, ...]]:
        if self.with_models is None or self.with_models.throughput is None:
            return []
        found = self.with_models.throughput
        share = found.events_per_s / self.throughput.events_per_s
        name = "pixguard, both models in force"
        return [(name, f"{found.events_per_s:,.0f}", f"{found.cpu_us:,.1f}", f"{share:.2f}")]

    def show(self, out: Console) -> None:
        """Print the tables."""
        for title, head, rows in self.tables():
            table = Table(*head, title=title, title_justify="left")
            for row in rows:
                table.add_row(*row)
            out.print(table)


def _short(rate: int) -> str:
    return f"{rate // 1000}k" if rate % 1000 == 0 else str(rate)


def _checkpoint_rows(held: Mapping[str, float]) -> float:
    return sum(value for name, value in held.items() if name.startswith("pixguard_checkpoint_rows_total"))


def page_with(text: str, figures: Figures, machine: str) -> str:
    """Return the page with these figures between its markers.

    Raises
    ------
    ValueError
        Where the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE}: expected the markers {BEGIN} and {END}")
    log = "in memory" if figures.is_log_in_memory else "on disk"
    lines = [f"Measured by `pixguard bench --page` on {machine}, with the broker's log {log}."]
    for title, head, rows in figures.tables():
        lines += ["", f"### {title}", "", _row(head), _row(["---", *["---:"] * (len(head) - 1)])]
        lines += [_row(row) for row in rows]
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_page(figures: Figures) -> None:
    """Write the figures into the page."""
    machine = f"{os.cpu_count()} shared cores ({platform.machine()}), Python {platform.python_version()}"
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), figures, machine), encoding="utf-8")

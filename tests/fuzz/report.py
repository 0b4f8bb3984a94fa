"""What a run shows: progress while it runs, tables or one JSON object at its end, and how to replay each finding."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .differential import Finding, Tally
from .minimise import fails_alone, minimised
from .mutants import MUTATORS
from .run import unit_of
from .throughput import BAD_SHARE, MAX_SLOWDOWN, Cost

__all__ = ["as_json", "print_finding", "print_report"]

_MAX_SHOWN_BYTES = 4096


def as_json(seed: int, tally: Tally, wall_s: float, cost: Cost | None) -> dict[str, object]:
    """Return the figures of a run, by name."""
    messages = tally.mutated + tally.neighbours
    figures: dict[str, object] = {
        "seed": seed,
        "mutated": tally.mutated,
        "good_between": tally.neighbours,
        "accepted": tally.accepted,
        "rejected": dict(tally.reasons.most_common()),
        "mutators": {name: tally.mutators[name] for name in MUTATORS},
        "outcome_known_beforehand": tally.claims,
        "findings": len(tally.findings),
        "mean_bytes": round(tally.size_bytes / max(messages, 1), 1),
        "checksum": f"{tally.checksum:x}",
        "messages_per_s": round(messages / wall_s),
        "process_us_per_message": {part: round(s / max(messages, 1) * 1e6, 2) for part, s in tally.seconds.items()},
    }
    if cost is not None:
        figures["bad_messages"] = {
            "share": BAD_SHARE,
            "decoder_us": [round(cost.clean_decoder_us, 3), round(cost.bad_decoder_us, 3)],
            "decoder_ratio": round(cost.decoder_ratio, 4),
            "path_us": [round(cost.clean_path_us, 3), round(cost.bad_path_us, 3)],
            "path_ratio": round(cost.path_ratio, 4),
            "max_path_ratio": MAX_SLOWDOWN,
            "mean_bytes": round(cost.mean_bad_bytes),
            "reasons": dict(cost.reasons.most_common()),
        }
    return figures


def print_report(out: Console, tally: Tally, wall_s: float, cost: Cost | None) -> None:
    """Print the tables of a run."""
    messages = tally.mutated + tally.neighbours
    mutators = Table("mutator", "messages", title=f"{tally.mutated:,} mutants, {tally.neighbours:,} good ones between")
    for name in MUTATORS:
        mutators.add_row(name, f"{tally.mutators[name]:,}")
    out.print(mutators)
    outcomes = Table("outcome", "messages", "share")
    for name, number in (("accepted", tally.accepted), *tally.reasons.most_common()):
        outcomes.add_row(name, f"{number:,}", f"{number / max(messages, 1):.2%}")
    out.print(outcomes)
    parts = ", ".join(f"{part} {s / max(messages, 1) * 1e6:.1f}" for part, s in tally.seconds.items())
    out.print(f"{messages / wall_s:,.0f} messages/s; process time per message, us: {parts}")
    out.print(f"{tally.claims:,} outcomes were known beforehand")
    if cost is not None:
        out.print(_cost_table(cost))
        mix = ", ".join(f"{reason} {number}" for reason, number in cost.reasons.most_common())
        out.print(f"The bad ones, {cost.mean_bad_bytes:,.0f} bytes on average: {mix}")
        out.print(
            f"Bad messages may cost {MAX_SLOWDOWN - 1:.0%} on the whole path: they cost {cost.path_ratio - 1:.1%}"
        )
    out.print(f"Findings: {len(tally.findings) or 'none'}")


def _cost_table(cost: Cost) -> Table:
    table = Table("part", "0 % bad, us", f"{BAD_SHARE:.0%} bad, us", "ratio", title="Process time per message")
    rows = (
        ("decoder alone", cost.clean_decoder_us, cost.bad_decoder_us, cost.decoder_ratio),
        ("whole pure path", cost.clean_path_us, cost.bad_path_us, cost.path_ratio),
    )
    for name, clean_us, bad_us, ratio in rows:
        table.add_row(name, f"{clean_us:.2f}", f"{bad_us:.2f}", f"{ratio:.3f}")
    return table


def print_finding(out: Console, finding: Finding, seed: int, numbers: range) -> None:
    """Print what is wrong, the message, a smaller one that still fails, and the command that replays it."""
    out.print(f"seed {seed}, number {finding.number}: {finding.what}", markup=False)
    mutant, unit = finding.mutant, unit_of(finding.number, numbers)
    if mutant is not None:
        out.print(
            f"  mutators {', '.join(mutant.mutators)}; Kafka key {mutant.key!r}, time {mutant.kafka_ms}", markup=False
        )
        out.print(f"  message {_shown(mutant.value)}", markup=False)
        small = minimised(finding)
        if small is not None:
            out.print(f"  smaller {_shown(small)}", markup=False)
    is_one = mutant is None or fails_alone(finding)
    only = str(finding.number) if is_one else f"{unit.start}-{unit.stop - 1}"
    out.print(f"  replay  PYTHONPATH=tests python -m fuzz --seed {seed} --only {only}", markup=False)


def _shown(value: bytes | None) -> str:
    if value is None or len(value) <= _MAX_SHOWN_BYTES:
        return repr(value)
    return f"{value[:_MAX_SHOWN_BYTES]!r} and {len(value) - _MAX_SHOWN_BYTES:,} more bytes"

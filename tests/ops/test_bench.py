"""The benchmark itself, small: it measures what it says, on a real broker, and its page is its figures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from app.domain.byte_column import ByteColumn
from ops.bench import BenchPlan, run_bench
from ops.bench.load import Load, payment_numbers
from ops.bench.report import PAGE, page_with

_PLAN = BenchPlan(
    keys=2_000, events=40_000, rates=(200,), latency_s=1.0, stock_s=1.0, partitions=2, model_payments=9_000
)
_FIGURES = {
    "bytes_per_key",
    "checkpoint_us",
    "decode_us",
    "encode_us",
    "events_per_core_s",
    "events_per_core_s_models",
    "kernel_us",
    "p50_ms_200",
    "p99_ms_200_models",
    "p99_ms_200",
    "p999_ms_200",
    "recovery_s",
    "stock_faust_ratio",
}


def test_a_run_has_every_figure(jars_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object on standard output, and nothing else there."""
    run_bench(_PLAN, Console(file=io.StringIO()), jars_dir=jars_dir, as_json=True, page=False)
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) >= _FIGURES
    assert figures["keys"] >= _PLAN.keys
    assert all(value > 0 for value in figures.values())
    assert figures["p50_ms_200"] <= figures["p99_ms_200"] <= figures["p999_ms_200"]


def test_the_load_is_the_same_for_the_same_seed_and_every_customer_pays_once() -> None:
    """What is measured can be measured again."""
    made = [
        [
            value
            for batch in Load(500, 4, seed=7).everyone(10**12, 10**12 + 500)
            for part in batch.values()
            for value in part.values
        ]
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len({json.loads(value)["payer_account"] for value in made[0]}) == 500
    ids = ByteColumn.of([json.loads(value)["end_to_end_id"].encode() for value in made[0]])
    assert sorted(payment_numbers(ids).tolist()) == list(range(500))


def test_the_page_has_its_place_for_figures() -> None:
    """Without the markers a new run could not write itself into the page."""
    text = PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="expected the markers"):
        page_with("no markers", None, "")  # type: ignore[arg-type] # it does not come so far
    assert "<!-- figures -->" in text
    assert "<!-- /figures -->" in text

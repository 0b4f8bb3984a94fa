"""`pixguard evaluate` on tiny streams and on a file: one report, the same each time, that can say no."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.settings import Settings, load_settings
from models.batch.training_set import TrainingSetError
from models.quality.streaming import SCORERS, StreamPlan
from ops.evaluate import FileSource, SimulatedSource, evaluate_and_report
from ops.labelled_files import LabelColumns
from ops.traffic.generator import TrafficConfig, generate
from tables.layout import DAY_MS, HOUR_MS

PLAN = StreamPlan(warm_up=0.5, publish_ms=12 * HOUR_MS, retrain_ms=2 * DAY_MS, rounds=10)
SOURCE = SimulatedSource(
    seeds=(5, 6), payments=1_200, days=6.0, fraud_share=0.15, delay_scale=0.004, new_fraud="mule", new_fraud_after=0.6
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder of its own, for the key of pseudonyms."""
    return load_settings(data_dir=tmp_path_factory.mktemp("data"))


def _shown() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200), text


def _report(settings: Settings, source: Any, capsys: pytest.CaptureFixture[str]) -> tuple[bool, dict[str, Any]]:  # noqa: ANN401
    out, text = _shown()
    passed = evaluate_and_report(settings, out, source, plan=PLAN, resamples=20, as_json=True)
    assert text.getvalue() == ""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return passed, found


def test_simulated_streams_are_reported_as_one_object(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the truth and the bank's labels, per stream and over all; a stream's figures are its own."""
    passed, report = _report(settings, SOURCE, capsys)
    assert passed == all(report["verdict"].values())
    assert [stream["name"] for stream in report["streams"]] == ["seed 5", "seed 6"]
    assert set(report["against"]) == {"truth", "labels"}
    for found in report["against"].values():
        assert list(found["scores"]) == list(SCORERS)
        assert len(found["by_stream"]) == 2
        area = found["scores"]["blend"]["average_precision"]
        assert 0 < area["low"] <= area["estimate"] <= area["high"] <= 1
        each = [stream["blend"]["average_precision"]["estimate"] for stream in found["by_stream"]]
        assert area["estimate"] == pytest.approx(sum(each) / 2)
        assert "log_loss" in found["scores"]["online"]
        assert "log_loss" not in found["scores"]["rules"]
    # The bank does not hear of all.
    assert report["streams"][0]["frauds_known"] < report["streams"][0]["frauds"]
    assert report["new_fraud"]["typology"] == "mule"
    assert len(report["new_fraud"]["by_stream"]) == 4 * 2

    alone = _report(settings, SimulatedSource(**{**report["source"], "seeds": (6,)}), capsys)[1]
    assert alone["streams"][0] == report["streams"][1]
    for basis, found in alone["against"].items():
        for name, metrics in found["by_stream"][0].items():
            expected = report["against"][basis]["by_stream"][1][name]
            for metric, interval in metrics.items():
                assert interval["estimate"] == expected[metric]["estimate"]


@pytest.fixture(scope="module")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of payments, labelled in a column."""
    path = tmp_path_factory.mktemp("files") / "pix.ndjson"
    with path.open("w") as file:
        for simulated in generate(
            TrafficConfig(1_788_220_800_000, seed=4, rate_per_s=0.006, count=900, fraud_share=0.2)
        ):
            row = json.loads(simulated.value) if simulated.payment is not None else None
            if row is not None:
                file.write(json.dumps({**row, "golpe": "sim" if simulated.label else "não"}) + "\n")
    return path


def test_a_file_is_judged_by_its_labels(settings: Settings, labelled_file: Path) -> None:
    """In tables, with the verdicts in words."""
    out, text = _shown()
    source = FileSource(labelled_file, columns=LabelColumns("golpe"), maturity_ms=4 * HOUR_MS)
    passed = evaluate_and_report(settings, out, source, plan=PLAN, resamples=20)
    shown = text.getvalue()
    assert "pix.ndjson: " in shown
    assert "Against what the bank came to know, mean of 1 stream, 95% intervals" in shown
    assert "what really happened" not in shown
    assert "new kind of fraud" not in shown
    for name in SCORERS:
        assert name in shown
    assert shown.count("noise: yes") + shown.count("noise: no") == 2
    assert passed == (shown.count("noise: yes") == 2)


def test_labels_that_mature_after_the_file_ends_teach_nothing(settings: Settings, labelled_file: Path) -> None:
    """And that is said; by default a label matures as the settings say, after eight days."""
    out, _ = _shown()
    with pytest.raises(TrainingSetError, match=r"got 0 and 0 among 0 payments .* a shorter maturity"):
        evaluate_and_report(settings, out, FileSource(labelled_file, columns=LabelColumns("golpe")), plan=PLAN)


def test_what_cannot_be_simulated_is_refused() -> None:
    """A fraud that there is not, and the same seed twice."""
    with pytest.raises(TrainingSetError, match=r"expected one of mule, .*, got 'magic'"):
        SimulatedSource(new_fraud="magic")
    with pytest.raises(TrainingSetError, match="expected different ones"):
        SimulatedSource(seeds=(1, 1))

"""Traffic can be written to files, in two formats with the same content."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path

import msgspec
import polars as pl
import pytest

from ops.traffic.files import write_traffic
from ops.traffic.generator import TrafficConfig, generate


@pytest.fixture
def config(dense_config: TrafficConfig) -> TrafficConfig:
    """Return a short run with damaged messages."""
    return replace(dense_config, duration_s=None, count=4_000, malformed_share=0.005)


def test_ndjson_holds_the_stream_its_feedback_and_its_labels(config: TrafficConfig, tmp_path: Path) -> None:
    """Each line is a message as it would be sent, damaged ones included; each fraud is labelled once."""
    seen: list[int] = []
    written = write_traffic(config, tmp_path, progress=seen.append)
    lines = (tmp_path / "transactions.ndjson").read_bytes().split(b"\n")[:-1]
    expected = list(generate(config))
    assert lines == [simulated.value for simulated in expected]
    assert written.transactions == len(lines) == seen[-1]
    assert written.malformed == sum(simulated.payment is None for simulated in expected) > 0
    labels = [msgspec.json.decode(line) for line in (tmp_path / "labels.ndjson").read_bytes().splitlines()]
    truth = {each.payment.end_to_end_id: each.label.typology for each in expected if each.payment and each.label}
    assert {label["end_to_end_id"]: label["typology"] for label in labels} == truth
    assert len(labels) == len(truth) == written.labels
    assert len((tmp_path / "feedback.ndjson").read_bytes().splitlines()) == written.feedback > 0


def test_parquet_holds_the_same_rows_without_the_damaged(config: TrafficConfig, tmp_path: Path) -> None:
    """Columns have their types, missing fields are null, and the other files agree with NDJSON."""
    ndjson = write_traffic(config, tmp_path / "ndjson")
    parquet = write_traffic(config, tmp_path / "parquet", "parquet")
    frame = pl.read_parquet(tmp_path / "parquet" / "transactions" / "*.parquet")
    expected = [msgspec.json.decode(each.value) for each in generate(config) if each.payment is not None]
    assert frame["end_to_end_id"].to_list() == [message["end_to_end_id"] for message in expected]
    assert frame["amount_centavos"].to_list() == [message["amount_centavos"] for message in expected]
    assert frame["pix_key"].to_list() == [message.get("pix_key") for message in expected]
    assert frame["session_flags"].to_list() == [message.get("session_flags") for message in expected]
    assert frame.schema["latitude"] == pl.Float64
    assert parquet.transactions == ndjson.transactions - ndjson.malformed
    assert (parquet.feedback, parquet.labels) == (ndjson.feedback, ndjson.labels)
    for name, rows in (("feedback", parquet.feedback), ("labels", parquet.labels)):
        assert pl.read_parquet(tmp_path / "parquet" / name / "*.parquet").height == rows


def test_endless_traffic_is_refused(config: TrafficConfig, tmp_path: Path) -> None:
    """A file needs an end."""
    with pytest.raises(ValueError, match="count or duration_s"):
        write_traffic(replace(config, count=None), tmp_path)


def test_parquet_without_polars_says_what_to_install(
    config: TrafficConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra."""
    original = builtins.__import__

    def without_polars(name: str, *arguments: object, **options: object) -> object:
        if name == "polars":
            raise ModuleNotFoundError("No module named 'polars'", name="polars")
        return original(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_polars)
    with pytest.raises(ModuleNotFoundError, match=r"pixguard\[files\]"):
        write_traffic(config, tmp_path, "parquet")

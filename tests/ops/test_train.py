"""`pixguard train`, `promote` and `models` on simulated payments, from nothing to a champion and back."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from app.model_registry import open_registry
from app.settings import Settings, load_settings
from models.batch.model import BatchModel
from models.batch.registry import CHALLENGER, CHAMPION, RegistryError
from ops.recorded import Simulation
from ops.train import (
    promote_and_report,
    roll_back_and_report,
    show_models,
    train_and_report,
)

SIMULATION = Simulation(seed=5, payments=1_600, days=6.0, fraud_share=0.12, delay_scale=0.004)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder of its own."""
    return load_settings(data_dir=tmp_path_factory.mktemp("data"))


def shown() -> tuple[Console, io.StringIO]:
    """A wide console, and what it has shown."""
    text = io.StringIO()
    return Console(file=text, width=200), text


def test_from_nothing_to_a_champion_and_back(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """One story, since each step needs the one before."""
    out, text = shown()
    show_models(settings, out)
    assert "No model yet" in text.getvalue()
    with pytest.raises(RegistryError, match="`pixguard train` makes one"):
        promote_and_report(settings, out, number=None, force=None)

    # Trained: the challenger, with all that is known of it.
    assert train_and_report(settings, out, simulation=SIMULATION, seed=1, rounds=30) == 1
    assert "Version 1 of pixguard is the challenger" in text.getvalue()
    assert "frauds caught at 1.0% alerts" in text.getvalue()
    registry = open_registry(settings)
    facts = registry.versions()[0].facts
    assert facts["commit"] == "unknown" or len(facts["commit"].rstrip("+")) == 40
    assert len(facts["lock"]) == 64
    assert json.loads(facts["environment"])["lightgbm"] != "not installed"
    for figure in ("precision_recall", "calibration", "importance"):
        assert registry.artifact(1, f"figures/{figure}.png").startswith(b"\x89PNG")

    # Same data, same seed: the same model, which is no better than itself.
    assert registry.alias_version(CHAMPION) is None
    promoted = promote_and_report(settings, out, number=None, force=None)
    assert promoted == ("failed" not in text.getvalue())
    if not promoted:
        assert promote_and_report(settings, out, number=1, force="first model")
    assert registry.alias_version(CHAMPION) == 1
    assert train_and_report(settings, out, simulation=SIMULATION, seed=1, rounds=30) == 2
    first, second = (BatchModel.from_bytes(registry.artifact(version)) for version in (1, 2))
    assert first.to_bytes() == second.to_bytes()
    assert not promote_and_report(settings, out, number=None, force=None)
    assert "Version 2 stays as it is: better than champion (version 1)" in text.getvalue()
    assert registry.alias_version(CHAMPION) == 1

    # By force, with the reason on record, and back.
    assert promote_and_report(settings, out, number=2, force="drill", as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["promoted"]
    assert not answer["gates"][0]["passed"]
    versions = {each.version: each for each in registry.versions()}
    assert versions[2].facts["forced"] == "drill"
    assert versions[2].aliases == (CHALLENGER, CHAMPION)
    show_models(settings, out)
    show_models(settings, out, compared=(1, 2))
    assert "version 1" in text.getvalue()
    roll_back_and_report(settings, out, reason="drill is over")
    assert "Version 1 is the champion again, in place of 2" in text.getvalue()
    show_models(settings, out, as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [each["version"] for each in listed["versions"]] == [2, 1]
    assert listed["history"][-1]["reason"] == "drill is over"
    with pytest.raises(RegistryError, match="is the champion already"):
        promote_and_report(settings, out, number=1, force=None)


def test_too_little_is_told_before_anything_is_registered(tmp_path: Path) -> None:
    """And the registry stays empty."""
    settings = load_settings(data_dir=tmp_path)
    out, _ = shown()
    with pytest.raises(ValueError, match="training set: expected"):
        train_and_report(settings, out, simulation=replace(SIMULATION, payments=300), seed=1, rounds=5)
    assert open_registry(settings).versions() == []

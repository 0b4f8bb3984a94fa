"""The command line's end: errors in words."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from app import cli
from ops.evaluate import SimulatedSource


def test_an_error_is_told_as_it_is_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in brackets is part of the message, and no markup."""

    def fail() -> None:
        raise OSError("set it in section [repositories], name central")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "Error: set it in section [repositories], name central" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "seeds"), [((), (1, 2, 3)), (("--seeds", "2", "--first-seed", "40"), (40, 41))])
def test_streams_have_the_seeds_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    """As many in a row, from the first one on."""
    found: list[SimulatedSource] = []

    def report(_settings: object, _out: object, source: SimulatedSource, **_options: object) -> bool:
        found.append(source)
        return True

    monkeypatch.setattr("ops.evaluate.evaluate_and_report", report)
    assert CliRunner().invoke(cli.app, ["evaluate", "stream", *options]).exit_code == 0
    assert [source.seeds for source in found] == [seeds]

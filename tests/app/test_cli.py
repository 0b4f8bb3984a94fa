"""The command line's end: errors in words."""

from __future__ import annotations

import pytest

from app import cli


def test_an_error_is_told_as_it_is_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in brackets is part of the message, and no markup."""

    def fail() -> None:
        raise OSError("set it in section [repositories], name central")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "Error: set it in section [repositories], name central" in capsys.readouterr().err

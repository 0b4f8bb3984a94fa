"""A worker starts itself again with an allocator that is tuned for it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = (
    "import os, sys\nfrom app.allocator import tune_allocator\ntune_allocator()\nprint(os.getpid(), *sys.argv[1:])\n"
)
PROGRAM += "print(os.environ.get('GLIBC_TUNABLES', ''))"

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


def run(**environment: str) -> tuple[int, list[str]]:
    """Run the program; its process id as its parent knows it, and the lines that it prints."""
    inherited = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", PROGRAM, "--name", "a b"],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, output.splitlines()


@needs_glibc
def test_it_starts_again_once_as_the_same_process_with_the_same_arguments() -> None:
    """A supervisor does not notice."""
    pid, (who, tunables) = run()
    assert who == f"{pid} --name a b"
    assert "glibc.malloc.hugetlb=1" in tunables.split(":")
    assert tunables.count("malloc.") == 5


@needs_glibc
def test_what_the_user_says_counts() -> None:
    """Told values stay; what is not told is added."""
    _, (_, tunables) = run(GLIBC_TUNABLES="glibc.malloc.hugetlb=0:glibc.cpu.x86_ibt=off")
    assert tunables.split(":")[:2] == ["glibc.malloc.hugetlb=0", "glibc.cpu.x86_ibt=off"]
    assert tunables.count("hugetlb") == 1
    assert tunables.count("malloc.") == 5

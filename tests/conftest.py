"""What tests share: the real Kafka broker, and a certificate for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ops.broker import LocalBroker, free_port
from ops.java import Java

JARS_DIR = Path.home() / ".cache" / "pixguard" / "kafka"
"""The user's own cache, so that Kafka is fetched once for all sessions."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the broker, so that `-m "not broker"` runs where there is none, and begin with it.

    It takes longest. Files stay whole, as tests that run side by side are handed out file by file.
    """
    slow: set[Path] = set()
    for item in items:
        if {"broker", "make_broker"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
            slow.add(item.path)
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def jars_dir() -> Path:
    """Where Kafka's jars are cached."""
    return JARS_DIR


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, jars_dir: Path) -> Iterator[LocalBroker]:
    """One running broker for the whole session (`broker.bootstrap` is its HOST:PORT). Never stop it: see `make_broker`.

    Tests share it: give topics and groups names of your own, for example with a random suffix.
    """
    with LocalBroker(tmp_path_factory.mktemp("broker"), jars_dir=jars_dir, port=free_port()) as running:
        yield running


@pytest.fixture
def make_broker(tmp_path: Path, jars_dir: Path) -> Iterator[Callable[..., LocalBroker]]:
    """Make brokers of the test's own, not yet started, to stop, kill and restart; they end with the test.

    Their data directory is `tmp_path / "broker"` and their port a free one, unless given.
    """
    made: list[LocalBroker] = []

    def make(
        *,
        data_dir: Path = tmp_path / "broker",
        port: int | None = None,
        config: Mapping[str, str] | None = None,
        java: Java | None = None,
    ) -> LocalBroker:
        made.append(LocalBroker(data_dir, jars_dir=jars_dir, port=port or free_port(), config=config or {}, java=java))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a self-signed certificate for 127.0.0.1; its key is in the same PEM file, as Kafka wants it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, chain, both = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "both.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(chain)]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files],
        check=True,
        capture_output=True,
    )
    both.write_text(key.read_text() + chain.read_text())
    return both

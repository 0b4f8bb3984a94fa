"""Kafka's jars against their lock, with a cache and a Maven repository of the test's own."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from ops.java import BrokerError
from ops.kafka_jars import ensure_jars, read_lock

GOOD = b"the jar that was locked" * 1000


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder as the Maven repository, set as an operator sets a mirror: in jgo's configuration."""
    folder = tmp_path / "repository"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    settings = tmp_path / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ops.kafka_jars.time.sleep", lambda _seconds: None)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    """Lock two jars, both with the content `GOOD`."""
    path = tmp_path / "jars.lock"
    entry = f'{{ bytes = {len(GOOD)}, sha256 = "{hashlib.sha256(GOOD).hexdigest()}" }}'
    path.write_text(f'[jars]\n"org.example:one:1.0" = {entry}\n"org.example:two:2.0" = {entry}\n')
    return path


def _publish(repository: Path, content: bytes) -> None:
    for name, version in (("one", "1.0"), ("two", "2.0")):
        folder = repository / "org" / "example" / name / version
        folder.mkdir(parents=True)
        (folder / f"{name}-{version}.jar").write_bytes(content)


def test_jars_are_fetched_once_and_then_taken_from_the_cache(tmp_path: Path, repository: Path, lock_file: Path) -> None:
    """The second call needs no repository; the class path is in the lock's order."""
    _publish(repository, GOOD)
    console = Console(file=io.StringIO())
    fetched = ensure_jars(tmp_path / "cache", lock_file=lock_file, console=console)
    assert [jar.name for jar in fetched] == ["one-1.0.jar", "two-2.0.jar"]
    assert "jar 2 of 2" in console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO above
    for published in repository.rglob("*.jar"):
        published.unlink()
    assert ensure_jars(tmp_path / "cache", lock_file=lock_file) == fetched


def test_a_damaged_jar_in_the_cache_is_an_error_that_says_what_to_do(
    tmp_path: Path, repository: Path, lock_file: Path
) -> None:
    """One flipped byte is found at the next start, before any of it runs; deleting the file puts it right."""
    _publish(repository, GOOD)
    one, _two = ensure_jars(tmp_path / "cache", lock_file=lock_file, console=Console(file=io.StringIO()))
    one.write_bytes(b"T" + GOOD[1:])
    with pytest.raises(BrokerError, match=rf"{one}: expected SHA-256 \w+, got \w+.*Delete it and start again"):
        ensure_jars(tmp_path / "cache", lock_file=lock_file)
    one.unlink()
    ensure_jars(tmp_path / "cache", lock_file=lock_file, console=Console(file=io.StringIO()))


def test_other_bytes_from_the_repository_never_enter_the_cache(
    tmp_path: Path, repository: Path, lock_file: Path
) -> None:
    """A mirror that answers with something else is an error, and nothing of it is kept."""
    _publish(repository, b"something else")
    with pytest.raises(BrokerError, match=r"org\.example:\w+:.*expected SHA-256 \w+, got \w+ from the repository"):
        ensure_jars(tmp_path / "cache", lock_file=lock_file, console=Console(file=io.StringIO()))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_jar_that_cannot_be_fetched_is_an_error_with_its_coordinate(
    tmp_path: Path, repository: Path, lock_file: Path
) -> None:
    """The repository lacks it: the message says which jar, and how a mirror is set."""
    assert not list(repository.iterdir())
    with pytest.raises(BrokerError, match=r"org\.example:\w+:.*could not be fetched.*mirror"):
        ensure_jars(tmp_path / "cache", lock_file=lock_file, console=Console(file=io.StringIO()))


def test_what_a_killed_download_left_is_cleared(tmp_path: Path, repository: Path, lock_file: Path) -> None:
    """Half a jar in a staging folder is never taken for a jar, and does not stay."""
    _publish(repository, GOOD)
    half = tmp_path / "cache" / ".download-killed" / "one-1.0.jar"
    half.parent.mkdir(parents=True)
    half.write_bytes(GOOD[:100])
    fetched = ensure_jars(tmp_path / "cache", lock_file=lock_file, console=Console(file=io.StringIO()))
    assert fetched[0].read_bytes() == GOOD
    assert not half.parent.exists()


def test_a_bad_lock_file_is_an_error(tmp_path: Path) -> None:
    """Neither a traceback of the parser nor an empty class path."""
    path = tmp_path / "jars.lock"
    path.write_text('[jars]\n"org.example:one:1.0" = {}\n')
    with pytest.raises(BrokerError, match="not a lock file"):
        read_lock(path)


def test_the_shipped_lock_is_kafka_4_with_a_logging_binding() -> None:
    """Without a binding of the API's own version Kafka's errors are silent."""
    versions = dict(jar.coordinate.rsplit(":", 1) for jar in read_lock())
    assert versions["org.apache.kafka:kafka_2.13"].startswith("4.")
    assert versions["org.slf4j:slf4j-simple"] == versions["org.slf4j:slf4j-api"]
    assert len({jar.filename for jar in read_lock()}) == len(versions)

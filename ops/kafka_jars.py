"""Kafka's jars: fetched by Maven coordinate, held to the SHA-256 of the lock file, cached.

`python -m ops.kafka_jars [VERSION]` writes the lock file anew for another version of Kafka.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ops.java import BrokerError

__all__ = ["LOCK_FILE", "Jar", "ensure_jars", "read_lock", "write_lock"]

LOCK_FILE = Path(__file__).with_name("kafka-jars.lock")

_KAFKA = "org.apache.kafka:kafka_2.13"
_SLF4J_API = "org.slf4j:slf4j-api"
_SLF4J_BINDING = "org.slf4j:slf4j-simple"  # without a binding Kafka's errors are silent
_ATTEMPTS = 3
_PARALLEL_DOWNLOADS = 4
_STAGING_PREFIX = ".download-"

Advance = Callable[[int], None]
"""Called with the bytes that have just arrived."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar.

    Parameters
    ----------
    coordinate
        `group:artifact:version`.
    sha256
        Of its content, in hex.
    size_bytes
        Of the file; for the progress bar.
    """

    coordinate: str
    sha256: str
    size_bytes: int

    @property
    def filename(self) -> str:
        """The file's name in the cache."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def read_lock(path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """Read the lock file: every jar of the broker's class path, in order.

    Raises
    ------
    BrokerError
        When it is missing, not TOML, or lacks a field.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return tuple(Jar(name, str(jar["sha256"]), int(jar["bytes"])) for name, jar in table["jars"].items())
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise BrokerError(f"{path}: not a lock file of Kafka's jars: {error!r}") from error


def ensure_jars(cache_dir: Path, *, lock_file: Path = LOCK_FILE, console: Console | None = None) -> tuple[Path, ...]:
    """Return the broker's class path; fetch what the cache lacks, and hold every jar to its checksum.

    Parameters
    ----------
    cache_dir
        Where jars are kept from one start to the next, for all data directories.
    lock_file
        What to fetch.
    console
        Where a download shows its progress; None: standard error.

    Raises
    ------
    BrokerError
        When a jar cannot be fetched or its content is not what was locked.
    """
    jars = read_lock(lock_file)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _exclusive(cache_dir / ".lock"):
        # Nobody else is downloading now: what a killed download left behind is garbage.
        for leftover in cache_dir.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        missing = [jar for jar in jars if not (cache_dir / jar.filename).exists()]
        if missing:
            _download(missing, cache_dir, console or Console(stderr=True))
    for jar in jars:
        path = cache_dir / jar.filename
        if (found := _sha256(path)) != jar.sha256:
            raise BrokerError(
                f"{path}: expected SHA-256 {jar.sha256}, got {found}: the file was damaged or replaced since it was "
                "fetched. Delete it and start again; it will be fetched anew."
            )
    return tuple(cache_dir / jar.filename for jar in jars)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time into the cache; a second one waits and then finds the jars there."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _download(jars: list[Jar], cache_dir: Path, console: Console) -> None:
    """Fetch `jars`, several at a time. A jar enters the cache by a rename, and only once its checksum is right."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        tempfile.TemporaryDirectory(dir=cache_dir, prefix=_STAGING_PREFIX) as staging,
        Progress(*columns, console=console) as progress,
        ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool,
    ):
        bar = progress.add_task(f"Kafka: jar 0 of {len(jars)}", total=sum(jar.size_bytes for jar in jars))

        def fetch(jar: Jar) -> None:
            path = _fetch(jar.coordinate, Path(staging), lambda arrived: progress.advance(bar, arrived))
            if (found := _sha256(path)) != jar.sha256:
                raise BrokerError(
                    f"{jar.coordinate}: expected SHA-256 {jar.sha256}, got {found} from the repository. Do not use it: "
                    "find out which mirror or proxy answered with other bytes. Nothing was kept."
                )
            path.replace(cache_dir / jar.filename)

        for done, _ in enumerate(pool.map(fetch, jars), start=1):
            progress.update(bar, description=f"Kafka: jar {done} of {len(jars)}")


def _fetch(coordinate: str, staging: Path, advance: Advance) -> Path:
    """Fetch one artifact below `staging`, again after a failure; report each byte once."""
    context = _maven(staging, advance)
    artifact = context.create_dependency(coordinate).artifact
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return Path(context.resolver.download(artifact))
        # The resolver raises OSError for the network's failures and RuntimeError for a repository's refusal.
        except (OSError, RuntimeError) as error:
            artifact.cached_path.unlink(missing_ok=True)
            if attempt == _ATTEMPTS:
                raise BrokerError(
                    f"{coordinate}: could not be fetched: {error}. The first start needs the network; a mirror is set "
                    "in jgo's own configuration (section [repositories], name central), and a certificate authority of "
                    "your network's own in REQUESTS_CA_BUNDLE."
                ) from error
            time.sleep(attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _maven(repository_cache: Path, advance: Advance) -> Any:  # noqa: ANN401 - jgo publishes no types
    """Make a Maven context: jgo's repositories, with those of the user's own configuration of jgo."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - an extra, needed only while something is missing
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415
    except ImportError as error:
        raise BrokerError("fetching Kafka needs the package jgo: pip install 'pixguard[broker]'") from error

    @contextmanager
    def report(_filename: str, _size_bytes: int) -> Iterator[Advance]:
        yield advance

    context = MavenContext(PythonResolver(progress_callback=report), repo_cache=repository_cache)
    context.remote_repos |= GlobalSettings.load().repositories
    return context


def write_lock(kafka_version: str, path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """Resolve a version of Kafka with all that it needs at run time, and lock what was found.

    Parameters
    ----------
    kafka_version
        For example "4.4.0", or "RELEASE" for the newest.
    path
        The lock file to write.

    Raises
    ------
    BrokerError
        When an artifact cannot be fetched.
    """
    with tempfile.TemporaryDirectory() as staging:
        context = _maven(Path(staging), lambda _: None)
        kafka = context.project(*_KAFKA.split(":")).at_version(kafka_version)
        wanted, needed = context.resolver.resolve([context.create_dependency(f"{_KAFKA}:{kafka.resolved_version}")])
        coordinates = [f"{found.groupId}:{found.artifactId}:{found.version}" for found in (*wanted, *needed)]
        api_version = next(name for name in coordinates if name.startswith(f"{_SLF4J_API}:")).rpartition(":")[2]
        coordinates.append(f"{_SLF4J_BINDING}:{api_version}")  # API and binding must be of one version
        jars = []
        for coordinate in sorted(coordinates):
            jar = _fetch(coordinate, Path(staging), lambda _: None)
            jars.append(Jar(coordinate, _sha256(jar), jar.stat().st_size))
    lines = [
        "# Written by `python -m ops.kafka_jars [VERSION]`: the local broker's class path. Do not edit by hand.",
        "[jars]",
        *(f'"{jar.coordinate}" = {{ bytes = {jar.size_bytes}, sha256 = "{jar.sha256}" }}' for jar in jars),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tuple(jars)


if __name__ == "__main__":
    locked = write_lock(sys.argv[1] if len(sys.argv) > 1 else "RELEASE")
    Console().print(f"{LOCK_FILE}: {len(locked)} jars, {sum(jar.size_bytes for jar in locked) / 1e6:.0f} MB")

"""Real Kafka on this machine, for newcomers, tests and CI: one node, or a cluster of several; data survive a restart.

KRaft, combined broker and controller, on the loopback interface. See `LocalBroker` and `Quorum`.
"""

from __future__ import annotations

import base64
import fcntl
import io
import os
import random
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO, Self

from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.protocol.metadata import MetadataRequest_v1, MetadataResponse_v1

from app.topics import MAX_CHECKPOINT_BYTES
from ops.java import BrokerError, Java, find_java
from ops.kafka_jars import ensure_jars

__all__ = [
    "BROKER_CONFIG",
    "DEFAULT_PORT",
    "QUICK_JVM",
    "STEADY_JVM",
    "BrokerError",
    "LocalBroker",
    "Quorum",
    "free_port",
]

DEFAULT_PORT = 9092

_HOST = "127.0.0.1"
_SAFE_COPIES = 3
_MAX_BATCH_BYTES = MAX_CHECKPOINT_BYTES + (1 << 20)  # a checkpoint in one record batch, with room for its headers

BROKER_CONFIG: Mapping[str, str] = MappingProxyType(
    {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": "log",  # relative to the data directory, which may so have any name and may move
        # A topic that nobody declared is a mistake: see ops/topic_admin.py.
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        # Workers come and go quickly here: no waiting for more of them, and the dead are noticed at once.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # After a kill -9 the controller believes in the old incarnation for so long (default 9 s).
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        # As large as the system lets them grow: the default of 100 KB is what a worker could write at a time, and it
        # writes between two batches only.
        "socket.receive.buffer.bytes": "-1",
        "socket.send.buffer.bytes": "-1",
        "message.max.bytes": str(_MAX_BATCH_BYTES),
        "replica.fetch.max.bytes": str(_MAX_BATCH_BYTES),
        "socket.request.max.bytes": str(3 * _MAX_BATCH_BYTES),
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
    }
)
"""Settings of every node, apart from its ports and its place in the cluster."""

QUICK_JVM = (
    "-Xmx512m",
    "-Xmn320m",  # its pauses of 10 ms come every few seconds then, not each second
    "-XX:TieredStopAtLevel=1",  # half the start
)
"""For a broker that starts often, with others on its machine."""

STEADY_JVM = ("-Xms1536m", "-Xmx1536m", "-Xmn1200m", "-XX:+AlwaysPreTouch")
"""For a broker whose speed counts: a third less processor time once compiled, a pause each ten seconds."""

_JVM_FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)

# Ends the broker when its owner is gone, however it went (kill -9 included): the owner holds the other end of this
# pipe. The guard leads the process group that the broker joins, so the group's number cannot pass to a stranger.
_GUARD = "read -r _; kill -TERM 0"

# Ports below those that the kernel hands out to outgoing connections (Linux 32768, macOS 49152): a client that retries
# while the broker is down could otherwise be given the broker's own port, and would connect to itself.
_FREE_PORTS = range(20_000, 32_000)
_POLL_S = 0.05
_PROBE_TIMEOUT_S = 2.0
_LOG_LINES_SHOWN = 20


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on.

    Raises
    ------
    BrokerError
        When none is found.
    """
    for port in random.SystemRandom().sample(_FREE_PORTS, 100):
        if _is_free(port):
            return port
    raise BrokerError(f"no free port between {_FREE_PORTS.start} and {_FREE_PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: TIME_WAIT is no obstacle
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Quorum:
    """The nodes that make up one cluster: all of them are told the same.

    A cluster of several nodes is ready once most of them run, so start them together, each in a thread of its own. The
    last of them to `stop` find no quorum to take leave of, and are killed when their time is up.

    Parameters
    ----------
    cluster_id
        The cluster's identity; used when a node's storage is made.
    controller_ports
        Node id to the port of its controller on 127.0.0.1.
    """

    cluster_id: str
    controller_ports: Mapping[int, int]

    @classmethod
    def of(cls, nodes: int) -> Self:
        """Return a new cluster of so many nodes, with ids from 1 on and controllers on free ports.

        Raises
        ------
        BrokerError
            When no free port is found.
        """
        ports: dict[int, None] = {}  # in order, each once
        while len(ports) < nodes:
            ports[free_port()] = None
        # 16 bytes in base64url without padding. "P" keeps it from beginning with a dash; the last character carries
        # two bits only, and "A" leaves both zero.
        cluster_id = "P" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:20] + "A"
        return cls(cluster_id, dict(enumerate(ports, 1)))

    def config(self) -> dict[str, str]:
        """Return the nodes' common settings: who votes, and how many copies Kafka keeps of its own topics."""
        copies = min(_SAFE_COPIES, len(self.controller_ports))
        in_sync = 2 if copies == _SAFE_COPIES else 1
        voters = ",".join(f"{node_id}@{_HOST}:{port}" for node_id, port in self.controller_ports.items())
        return {
            "controller.quorum.voters": voters,
            "default.replication.factor": str(copies),
            "offsets.topic.replication.factor": str(copies),
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": str(in_sync),
            "share.coordinator.state.topic.replication.factor": str(copies),
            "share.coordinator.state.topic.min.isr": str(in_sync),
        }


class LocalBroker:
    """A Kafka node that this process owns; use it as a context manager, or call `start` and `stop`.

    It ends with its owner in any case. Starting, stopping and killing block: call them by `asyncio.to_thread` from
    a coroutine.

    Parameters
    ----------
    data_dir
        Topics, offsets, log file and settings; one broker at a time.
    jars_dir
        Cache of Kafka's jars, shared by all data directories.
    port
        Where clients connect, on 127.0.0.1.
    config
        Broker settings beyond, or instead of, `BROKER_CONFIG` and the listeners, as Kafka spells them.
    java
        The Java to run on; None: see `ops.java.find_java`.
    jvm
        `QUICK_JVM` or `STEADY_JVM`.
    node_id
        Which node of `quorum` this is.
    quorum
        The cluster that the node is part of; None: it is a cluster by itself.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        jars_dir: Path,
        port: int = DEFAULT_PORT,
        config: Mapping[str, str] = MappingProxyType({}),
        java: Java | None = None,
        jvm: Sequence[str] = QUICK_JVM,
        node_id: int = 1,
        quorum: Quorum | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.jars_dir = jars_dir
        self.port = port
        self.config = config
        self.java = java
        self.jvm = jvm
        self.node_id = node_id
        self.quorum = quorum
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`HOST:PORT` for clients."""
        return f"{_HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the JVM, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log_file(self) -> Path:
        """What Kafka logged (warnings and errors) since this start; the previous start's is beside it."""
        return self.data_dir / "broker.log"

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the broker and wait until it answers; make its storage on first use.

        Parameters
        ----------
        timeout_s
            How long it may take from the start of the JVM (the download of the jars is not counted).

        Raises
        ------
        BrokerError
            When there is no Java or a jar is bad, the port or the data directory is in use, the broker ends while it
            starts, or it does not answer in time; the last lines of its log are shown.
        """
        if self.pid is not None:
            raise BrokerError(f"this broker runs already on {self.bootstrap} (process {self.pid})")
        self._end_guard()
        java = self.java or find_java()
        class_path = ":".join(str(jar.absolute()) for jar in ensure_jars(self.jars_dir))
        command = [str(java.executable), *self.jvm, *_JVM_FLAGS, "-cp", class_path]
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._lock() as lock:
            if not _is_free(self.port):
                raise BrokerError(f"port {self.port} is in use; stop what listens there or choose another port")
            # A lone node's controller is nobody else's concern: it may listen elsewhere after each start.
            quorum = self.quorum or Quorum.of(1)
            self._write_config(quorum)
            if self.log_file.exists():
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
            try:
                with self.log_file.open("wb") as log:
                    self._format(command, quorum.cluster_id, log)
                    self._spawn([*command, "kafka.Kafka", "server.properties"], log, lock)
                lock.truncate(0)
                lock.write(str(self.pid).encode())
                lock.flush()
                self._wait_until_ready(timeout_s)
            except BaseException:
                self.kill()
                raise

    def wait(self) -> None:
        """Block while the broker runs.

        Raises
        ------
        BrokerError
            Once it has ended, which it does not do by itself unless something is wrong; its last lines are shown.
        """
        status = None if self._process is None else self._process.wait()
        raise BrokerError(f"Kafka is not running (status {status}):\n{self._log_tail()}")

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop the broker cleanly; kill it when it takes longer than `timeout_s`. No effect when it does not run."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End the broker as a crash does (kill -9); what it had not flushed survives in the kernel's cache."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._end_guard()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exception_type: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lock(self) -> BinaryIO:
        """Open and lock the data directory. The JVM inherits the lock, so it lasts exactly as long as the JVM."""
        path = self.data_dir / "broker.lock"
        handle = path.open("r+b") if path.exists() else path.open("w+b")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = handle.read().decode() or "unknown"
            handle.close()
            raise BrokerError(
                f"{self.data_dir} is in use by another broker (process {owner}); stop that one or choose another "
                "data directory"
            ) from None
        return handle

    def _write_config(self, quorum: Quorum) -> None:
        listeners = f"PLAINTEXT://{_HOST}:{self.port}"
        config = {
            **BROKER_CONFIG,
            **quorum.config(),
            "node.id": str(self.node_id),
            "listeners": f"{listeners},CONTROLLER://{_HOST}:{quorum.controller_ports[self.node_id]}",
            "advertised.listeners": listeners,
            **self.config,
        }
        text = "".join(f"{name}={value}\n" for name, value in config.items())
        (self.data_dir / "server.properties").write_text(text, encoding="ascii")

    def _format(self, command: list[str], cluster_id: str, log: BinaryIO) -> None:
        """Make the storage on first use; it keeps its identity from then on.

        Kafka writes `meta.properties` last, so a half-made one is made again.
        """
        if (self.data_dir / "log" / "meta.properties").exists():
            return
        arguments = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config=server.properties"]
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*command, *arguments], cwd=self.data_dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
        if done.returncode != 0:
            raise BrokerError(f"Kafka could not make its storage in {self.data_dir}:\n{self._log_tail()}")

    def _spawn(self, command: list[str], log: BinaryIO, lock: BinaryIO) -> None:
        self._guard = subprocess.Popen(  # noqa: S603 - a constant
            ["/bin/sh", "-c", _GUARD], stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0
        )
        # Out of the terminal's foreground group: Ctrl-C reaches the owner, and the owner decides when the broker stops.
        self._process = subprocess.Popen(  # noqa: S603 - our own arguments
            command,
            cwd=self.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=self._guard.pid,
            pass_fds=[lock.fileno()],
        )

    def _wait_until_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not _answers(self.port, self.node_id):
            if self._process is None or (status := self._process.poll()) is not None:
                raise BrokerError(f"Kafka ended with status {status} while it started:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"Kafka on {self.bootstrap} did not answer within {timeout_s:g} s:\n{self._log_tail()}"
                )
            time.sleep(_POLL_S)

    def _log_tail(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = lines[-_LOG_LINES_SHOWN:] or ["(the log is empty)"]
        return "\n".join(f"  {line}" for line in [f"last lines of {self.log_file}", *shown])

    def _end_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            if self._guard.stdin is not None:
                self._guard.stdin.close()
            self._guard.wait()
            self._guard = None


def _answers(port: int, node_id: int) -> bool:
    """Whether the broker answers a metadata request and is part of its own cluster (not fenced by the controller)."""
    request = MetadataRequest_v1([])
    message = RequestHeader_v1(request, correlation_id=1, client_id="pixguard").encode() + request.encode()
    try:
        with socket.create_connection((_HOST, port), timeout=_PROBE_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(message)) + message)
            answer = connection.makefile("rb")
            size_bytes = struct.unpack(">i", answer.read(4))[0]
            body = io.BytesIO(answer.read(size_bytes))
    except (OSError, struct.error):  # not listening yet, or it closed the connection
        return False
    body.seek(4, os.SEEK_SET)  # the correlation id
    metadata = MetadataResponse_v1.decode(body)
    return any(found == node_id for found, *_ in metadata.brokers)

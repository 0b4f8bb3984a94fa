"""A real worker on a cluster that asks for a password, over TLS."""

from __future__ import annotations

import hashlib
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from app.kafka_options import client_options
from app.settings import Settings, load_settings
from app.topics import topics
from ops.broker import LocalBroker, free_port
from ops.topic_admin import ensure_topics
from ops.traffic.generator import TrafficConfig, generate
from tests.workers import answers, running_worker, send, until_ready

MakeBroker = Callable[..., LocalBroker]

_USER = "pixguard"
_PASSWORD = "open-sesame-1001"  # noqa: S105 - of a broker that lives for this test
_PARTITIONS = 4
_TRANSACTIONS = 200


def _set_scram_password(port: int) -> None:
    """Tell a broker's open listener the user's SCRAM-SHA-512 password; aiokafka has no call for it."""
    salt, iterations = b"any sixteen byte", 4096
    salted = hashlib.pbkdf2_hmac("sha512", _PASSWORD.encode(), salt, iterations)

    def compact(value: bytes) -> bytes:
        return bytes([len(value) + 1]) + value

    # AlterUserScramCredentials (51) v0, by header v2: no deletion, one upsertion of mechanism 2; zeros end structures.
    header = struct.pack(">hhihx", 51, 0, 1, -1)
    row = compact(_USER.encode()) + struct.pack(">bi", 2, iterations) + compact(salt) + compact(salted) + b"\0"
    message = header + b"\1" + b"\2" + row + b"\0"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(message)) + message)
        answer = connection.makefile("rb")
        body = answer.read(struct.unpack(">i", answer.read(4))[0])
    # Correlation id and tags, throttle time, then the array of results: user and error code.
    name = compact(_USER.encode())
    assert body[9:].startswith(b"\2" + name + b"\0\0"), body


@pytest.fixture
def secured(make_broker: MakeBroker, certificate: Path) -> str:
    """Run a broker whose clients need TLS and a password, and return that listener's HOST:PORT."""
    port, inside, controller = free_port(), free_port(), free_port()
    listeners = f"SASL_SSL://127.0.0.1:{port},PLAINTEXT://127.0.0.1:{inside}"
    modules = "org.apache.kafka.common.security"
    plain = f'{modules}.plain.PlainLoginModule required user_{_USER}="{_PASSWORD}";'
    node = make_broker(
        port=inside,
        config={
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": plain,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(certificate),
        },
    )
    node.start()
    _set_scram_password(inside)
    return f"127.0.0.1:{port}"


def _login(
    broker: str,
    data_dir: Path,
    mechanism: str,
    certificate: Path,
    password: str = _PASSWORD,
) -> Settings:
    return load_settings(
        broker=broker,
        data_dir=data_dir,
        partitions=_PARTITIONS,
        security_protocol="SASL_SSL",
        sasl_mechanism=mechanism,
        sasl_username=_USER,
        sasl_password=password,
        ssl_cafile=certificate,
    )


def _worker(settings: Settings, port: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run a worker that is told of the cluster's security as an operator does it: by the environment."""
    assert settings.sasl_password is not None
    return running_worker(
        "one",
        settings,
        port,
        PIXGUARD_SECURITY_PROTOCOL=settings.security_protocol,
        PIXGUARD_SASL_MECHANISM=settings.sasl_mechanism,
        PIXGUARD_SASL_USERNAME=_USER,
        PIXGUARD_SASL_PASSWORD=settings.sasl_password.get_secret_value(),
        PIXGUARD_SSL_CAFILE=str(settings.ssl_cafile),
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_worker_decides_over_sasl_and_tls(
    secured: str, certificate: Path, tmp_path: Path, mechanism: str
) -> None:
    """The environment's settings reach all of a worker's clients; its log never holds the password."""
    settings = _login(secured, tmp_path, mechanism, certificate)
    await ensure_topics(client_options(settings), topics(settings.app_id), partitions=_PARTITIONS)
    config = TrafficConfig(start_ms=int(time.time() * 1000), count=_TRANSACTIONS, rate_per_s=100, malformed_share=0)
    messages = list(generate(config))
    ids = {message.payment.end_to_end_id for message in messages if message.payment is not None}
    port = free_port()
    with _worker(settings, port) as worker:
        await until_ready(port)
        await send(settings, messages)
        decisions = await answers(settings, ids, 0)
        assert worker.poll() is None
    assert {key.decode() for key in decisions} == ids
    assert _PASSWORD not in (tmp_path / "one.log").read_text()


def test_a_wrong_password_ends_the_worker_with_words(secured: str, certificate: Path, tmp_path: Path) -> None:
    """Status 1 soon, and the log says what was refused and where, but not the password that was tried."""
    with _worker(_login(secured, tmp_path, "PLAIN", certificate, "open-sesame-1002"), free_port()) as worker:
        assert worker.wait(30) == 1
    said = (tmp_path / "one.log").read_text()
    assert secured in said
    assert "Authentication failed: Invalid username or password" in said
    assert "open-sesame" not in said

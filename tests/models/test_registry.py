"""The registry on SQLite: everything of a run is found again, aliases move, and mistakes are told."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from models.batch.model import BatchModel
from models.batch.registry import CHALLENGER, CHAMPION, Registry, RegistryError, local_registry
from models.batch.training import TrainedModel, TrainingPlan, train
from models.batch.training_set import TrainingSet
from tests.models.training_rows import MATURITY_MS, made_up_rows

FACTS = {"commit": "0123abc", "lock": "ff" * 32, "environment": "{}", "source": "made up"}


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """A small model."""
    return train(made_up_rows(2_500), TrainingPlan(MATURITY_MS, rounds=8, learning_rate=0.3, resamples=20))


@pytest.fixture(scope="module")
def shared(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with three versions of the model; only one test moves its champion."""
    registry = local_registry(tmp_path_factory.mktemp("data"))
    for _ in range(3):
        registry.log_training(
            trained, facts=FACTS, figures={"calibration": b"\x89PNG"}, test_rows=trained.test.to_bytes()
        )
    return registry


def test_what_was_trained_is_the_challenger_and_comes_back_byte_for_byte(
    shared: Registry, trained: TrainedModel
) -> None:
    """Workers read the file alone."""
    assert (shared.alias_version(CHALLENGER), shared.artifact(3)) == (3, trained.model.to_bytes())
    assert BatchModel.from_bytes(shared.artifact(1)).trained_until == trained.model.trained_until
    assert TrainingSet.from_bytes(shared.test_rows(2)).digest == trained.test.digest


def test_all_that_led_to_a_version_is_recorded(shared: Registry, trained: TrainedModel) -> None:
    """Parameters, metrics, figures, data, code, lock, environment, seed, fingerprint and signature."""
    newest = shared.versions()[0]
    assert [each.version for each in shared.versions()] == [3, 2, 1]
    assert newest.aliases[0] == CHALLENGER
    expected = FACTS | {"seed": "1", "data": trained.data, "fingerprint": trained.model.fingerprint}
    assert expected.items() <= newest.facts.items()
    assert int(newest.facts["trained_until"]) == trained.model.trained_until
    run = shared._client.get_run(newest.run)
    assert run.data.params["num_leaves"] == "15"
    assert run.data.params["seed"] == "1"
    report = trained.report["scores"]["model"]
    assert run.data.metrics["model/average_precision"] == pytest.approx(report["average_precision"])
    assert run.data.metrics["model/recall_at_1pct"] == pytest.approx(report["recall_at_1pct"])
    assert {"gain_over_rules/low", "test/frauds", "amount/value_caught_at_0.5pct"} <= set(run.data.metrics)
    assert run.info.status == "FINISHED"
    assert shared.artifact(3, "figures/calibration.png") == b"\x89PNG"
    assert shared.artifact(3, "booster.txt").decode() == trained.booster_text
    assert json.loads(shared.artifact(3, "report.json"))["trees"] == trained.report["trees"]
    described = shared.artifact(3, "model/MLmodel").decode()
    assert "signature:" in described
    assert "receiver_fraud_marks" in described


def test_promotion_and_the_way_back_are_recorded(shared: Registry) -> None:
    """The champion moves, goes back step by step, and its history says when and why."""
    registry = shared
    assert registry.alias_version(CHAMPION) is None
    assert registry.history() == []
    for version in (1, 2, 3):
        registry.promote(version, at_ms=1_000 * version, reason=f"gates of {version}")
    assert registry.alias_version(CHAMPION) == 3
    assert registry.roll_back(at_ms=9_000, reason="too many alerts") == (3, 2)
    assert registry.roll_back(at_ms=9_500, reason="still") == (2, 1)
    with pytest.raises(RegistryError, match="an earlier champion"):
        registry.roll_back(at_ms=9_900, reason="further")
    assert registry.alias_version(CHAMPION) == 1
    registry.promote(3, at_ms=10_000, reason="mended")
    assert registry.roll_back(at_ms=11_000, reason="not mended") == (3, 1)
    assert [entry["version"] for entry in registry.history()] == [1, 2, 3, 2, 1, 3, 1]
    assert registry.history()[3] == {"version": 2, "at_ms": 9_000, "reason": "too many alerts", "rolled_back_from": 3}
    tags = {each.version: each.facts for each in registry.versions()}
    assert json.loads(tags[3]["rolled_back"])["reason"] == "not mended"
    assert {each.version: each.aliases for each in registry.versions()}[1] == (CHAMPION,)


def test_a_poll_makes_nothing(tmp_path: Path) -> None:
    """Before the first training there is no alias, no version, and no file."""
    registry = local_registry(tmp_path)
    assert registry.alias_version(CHAMPION) is None
    assert registry.versions() == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_told(shared: Registry) -> None:
    """A version, a file, an alias of another model."""
    with pytest.raises(RegistryError, match="version 99 of pixguard"):
        shared.artifact(99)
    with pytest.raises(RegistryError, match="version 99"):
        shared.promote(99, at_ms=1, reason="none")
    with pytest.raises(RegistryError, match=r"nothing\.bin"):
        shared.artifact(1, "nothing.bin")
    assert Registry(shared.uri, name="another").alias_version(CHAMPION) is None
    assert Registry(shared.uri, name="another").versions() == []


def test_a_server_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error of ours, whatever MLflow makes of it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match=r"registry http://127\.0\.0\.1:9"):
        Registry("http://127.0.0.1:9").alias_version(CHAMPION)


class _Server(BaseHTTPRequestHandler):
    """As much of an MLflow server as a worker asks for."""

    content: ClassVar[bytes] = b""
    _VERSION: ClassVar[dict[str, Any]] = {
        "model_version": {"name": "pixguard", "version": "5", "run_id": "r1", "creation_timestamp": 1}
    }
    _RUN: ClassVar[dict[str, Any]] = {
        "run": {
            "info": {
                "run_id": "r1",
                "experiment_id": "1",
                "status": "FINISHED",
                "artifact_uri": "mlflow-artifacts:/1/r1",
            },
            "data": {},
        }
    }

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path.endswith("/artifacts/1/r1/model.pxgm"):
            self._answer(self.content)
        elif path.endswith(("registered-models/alias", "model-versions/get")):
            self._answer(json.dumps(self._VERSION).encode())
        elif path.endswith("runs/get"):
            self._answer(json.dumps(self._RUN).encode())
        elif path.endswith("mlflow-artifacts/artifacts") or "artifacts/list" in path:
            self._answer(b'{"files": []}')
        else:
            self.send_error(404)

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def server(trained: TrainedModel) -> Iterator[str]:
    """A server's URI."""
    _Server.content = trained.model.to_bytes()
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


_WORKER = """
import sys

LEARNING = {"lightgbm", "sklearn", "pandas", "scipy", "matplotlib", "sqlalchemy", "alembic", "river", "polars", "flask"}


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in LEARNING else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

from models.batch.model import BatchModel
from models.batch.registry import Registry

registry = Registry(sys.argv[1])
version = registry.alias_version("champion")
content = registry.artifact(version)
print(version, BatchModel.from_bytes(content).name, len(content))
"""


def test_a_worker_needs_the_client_alone(server: str, trained: TrainedModel) -> None:
    """Against a server, without any of the libraries that learning takes."""
    done = subprocess.run(
        [sys.executable, "-c", _WORKER, server], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["5", "pixguard", str(len(trained.model.to_bytes()))]

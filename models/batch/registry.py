"""Models by name, version and alias, with all that is known of how they came about. The only file that knows MLflow.

Two aliases matter: `challenger` is what was trained last, `champion` what decides. A worker follows them with the
client alone (mlflow-skinny) where a server keeps the registry; without a server it is a SQLite file, and only this
machine's processes see it. MLflow is imported when a registry is first used: it takes seconds, and most commands need
none of it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.batch.model import ARTIFACT
from models.drift.reference import REFERENCE_ARTIFACT

if TYPE_CHECKING:
    import lightgbm

    from models.batch.training import TrainedModel

__all__ = ["CHALLENGER", "CHAMPION", "ModelVersion", "Registry", "RegistryError", "local_registry"]

CHAMPION = "champion"
CHALLENGER = "challenger"

_TEST_ROWS = "test_rows.npz"
_EXPERIMENT = "pixguard"
_HISTORY = "champion_history"
_SQLITE = "sqlite:///"
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers for an unknown model, version or alias."""

# A worker asks again soon: seven retries with growing pauses, as is MLflow's default, would only tell it too late.
_SURROUNDINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}


class RegistryError(Exception):
    """The registry cannot be reached, or has not what was asked for; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of the model.

    Parameters
    ----------
    version
        Its number, from 1.
    aliases
        That point to it.
    run
        MLflow's id of the training run.
    created_ms
        When it was registered, epoch ms.
    facts
        What was recorded with it: trained_until, rows, frauds, seed, commit, average_precision, ...
    """

    version: int
    aliases: tuple[str, ...]
    run: str
    created_ms: int
    facts: dict[str, str] = field(default_factory=dict)


def local_registry(data_dir: Path, name: str = "pixguard") -> Registry:
    """Return the registry in a data folder: SQLite and files, no server."""
    folder = (data_dir / "mlflow").absolute()
    return Registry(f"{_SQLITE}{folder / 'mlflow.db'}", artifacts=(folder / "artifacts").as_uri(), name=name)


class Registry:
    """A registry of models; safe to use from one thread at a time.

    Parameters
    ----------
    uri
        Of MLflow's tracking and registry: `http(s)://...`, or `sqlite:///FILE`.
    artifacts
        Where a new experiment keeps its files; None where the server decides.
    name
        Of the registered model.
    """

    def __init__(self, uri: str, *, artifacts: str | None = None, name: str = "pixguard") -> None:
        self.uri, self.name, self._artifacts = uri, name, artifacts

    # -- what a worker needs: the client alone

    def alias_version(self, alias: str) -> int | None:
        """Return the version that an alias points to, None where there is none; a few milliseconds.

        Raises
        ------
        RegistryError
            When the registry cannot be reached.
        """
        # A poll must not make the database: several workers would do so at once.
        if self._file is not None and not self._file.exists():
            return None
        with self._asking(f"alias {alias}", missing_is_none=True):
            return int(self._client.get_model_version_by_alias(self.name, alias).version)
        return None

    def artifact(self, version: int, name: str = ARTIFACT) -> bytes:
        """Return one file of a version: by default what workers load.

        Raises
        ------
        RegistryError
            When the registry cannot be reached, or there is no such version or file.
        """
        with self._asking(f"{name} of version {version}"), tempfile.TemporaryDirectory() as folder:
            run = self._client.get_model_version(self.name, str(version)).run_id
            return Path(self._client.download_artifacts(run, name, folder)).read_bytes()
        raise AssertionError  # `_asking` has raised

    # -- what training and promotion need

    def test_rows(self, version: int) -> bytes:
        """Return the rows that a version was judged on: `TrainingSet.from_bytes` reads them; see `artifact`."""
        return self.artifact(version, _TEST_ROWS)

    def log_training(
        self,
        trained: TrainedModel,
        *,
        facts: Mapping[str, str],
        figures: Mapping[str, bytes],
        test_rows: bytes,
        reference: bytes | None = None,
    ) -> int:
        """Record a training run with its model, and register it as the challenger.

        Parameters
        ----------
        trained
            The outcome.
        facts
            What it came from: commit, lock, environment and the like; become tags.
        figures
            PNG images by name.
        test_rows
            What it was judged on, so that another model can be, too.
        reference
            Its training window, which drift is measured against: `models.drift.reference.Reference.to_bytes`.

        Returns
        -------
        The version's number; raises as `versions`.
        """
        report = trained.report
        facts = {**facts, **_facts(trained)}
        with self._asking("a training run"), tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            run = self._client.create_run(self._experiment(), tags=dict(facts)).info
            parameters = report["plan"] | {"calibration": report["calibration"], "trees": report["trees"]}
            _log_numbers(self._client, run.run_id, parameters, _metrics(report))
            for name, content in {
                ARTIFACT: trained.model.to_bytes(),
                _TEST_ROWS: test_rows,
                "booster.txt": trained.booster_text.encode(),
                "report.json": json.dumps(report, indent=1).encode(),
                "importance.json": json.dumps(trained.importance, indent=1).encode(),
                **({} if reference is None else {REFERENCE_ARTIFACT: reference}),
                **{f"figures/{name}.png": image for name, image in figures.items()},
            }.items():
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            _save_flavor(trained, folder / "model")
            self._client.log_artifacts(run.run_id, str(folder))
            self._client.set_terminated(run.run_id)
            self._ensure_registered()
            created = self._client.create_model_version(
                self.name, f"{run.artifact_uri}/model", run_id=run.run_id, tags=dict(facts)
            )
            self._client.set_registered_model_alias(self.name, CHALLENGER, created.version)
            return int(created.version)
        raise AssertionError  # `_asking` has raised

    def versions(self) -> list[ModelVersion]:
        """Return all versions, the newest first.

        Raises
        ------
        RegistryError
            When the registry cannot be reached.
        """
        if self._file is not None and not self._file.exists():
            return []
        with self._asking("versions", missing_is_none=True):
            aliases: dict[str, Any] = self._client.get_registered_model(self.name).aliases
            found = [
                ModelVersion(
                    int(each.version),
                    tuple(sorted(name for name, number in aliases.items() if int(number) == int(each.version))),
                    each.run_id or "",
                    int(each.creation_timestamp),
                    dict(each.tags),
                )
                for each in self._client.search_model_versions(f"name='{self.name}'", max_results=1000)
            ]
            return sorted(found, key=lambda each: -each.version)
        return []

    def promote(self, version: int, *, at_ms: int, reason: str) -> None:
        """Make a version the champion, and record when and why.

        Raises
        ------
        RegistryError
            When the registry cannot be reached, or there is no such version.
        """
        with self._asking(f"version {version}"):
            self._client.get_model_version(self.name, str(version))  # an alias to nothing would be accepted
            entry = {"version": version, "at_ms": at_ms, "reason": reason}
            self._crown(version, entry)
            self._client.set_model_version_tag(self.name, str(version), "promoted", json.dumps(entry))

    def history(self) -> list[dict[str, Any]]:
        """Return who was champion since when and why, the oldest first; raises as `versions`."""
        with self._asking("history", missing_is_none=True):
            return list(json.loads(self._client.get_registered_model(self.name).tags.get(_HISTORY, "[]")))
        return []

    def roll_back(self, *, at_ms: int, reason: str) -> tuple[int, int]:
        """Make the previous champion the champion again.

        Returns
        -------
        The version that was, and the one that is now.

        Raises
        ------
        RegistryError
            When there is no previous one, or the registry cannot be reached.
        """
        now = self.alias_version(CHAMPION)
        # What was rolled back from is no place to go back to: the history is walked like a stack.
        stack: list[int] = []
        for entry in self.history() if now is not None else []:
            if entry.get("rolled_back_from") and len(stack) > 1:
                stack.pop()
            else:
                stack.append(int(entry["version"]))
        earlier = [version for version in stack if version != now]
        if now is None or not earlier:
            raise RegistryError(
                f"registry: expected an earlier champion of {self.name} to go back to, got none: "
                "`pixguard models` lists what there is, `pixguard promote VERSION` promotes it"
            )
        with self._asking(f"version {earlier[-1]}"):
            entry = {"version": earlier[-1], "at_ms": at_ms, "reason": reason, "rolled_back_from": now}
            self._crown(earlier[-1], entry)
            self._client.set_model_version_tag(self.name, str(now), "rolled_back", json.dumps(entry))
        return now, earlier[-1]

    def tag(self, version: int, name: str, value: str) -> None:
        """Record something about a version; raises as `promote`."""
        with self._asking(f"version {version}"):
            self._client.set_model_version_tag(self.name, str(version), name, value)

    # -- MLflow

    @property
    def _file(self) -> Path | None:
        return Path(self.uri.removeprefix(_SQLITE)) if self.uri.startswith(_SQLITE) else None

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - MLflow's client, whose types would import it
        for name, value in _SURROUNDINGS.items():
            os.environ.setdefault(name, value)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds, and reads the environment

            logging.getLogger("mlflow").setLevel(logging.WARNING)
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def _asking(self, what: str, *, missing_is_none: bool = False) -> Iterator[None]:
        """Turn MLflow's errors into ours; swallow that something is missing, where that is an answer."""
        self._client  # noqa: B018 - the first use sets the environment, and imports MLflow quietly
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above

        try:
            with _quiet():
                yield
        except MlflowException as error:
            if missing_is_none and error.error_code in _MISSING:
                return
            text = str(error).splitlines()[0]
            raise RegistryError(f"registry {self.uri}: {what} of {self.name}: {text}") from error
        except OSError as error:  # requests' errors are such, too
            raise RegistryError(f"registry {self.uri}: {what} of {self.name} cannot be had: {error}") from error

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(_EXPERIMENT, artifact_location=self._artifacts))

    def _crown(self, version: int, entry: dict[str, Any]) -> None:
        self._client.set_registered_model_alias(self.name, CHAMPION, str(version))
        history = [*self.history(), entry]
        self._client.set_registered_model_tag(self.name, _HISTORY, json.dumps(history[-50:]))

    def _ensure_registered(self) -> None:
        if not self._client.search_registered_models(f"name='{self.name}'"):
            self._client.create_registered_model(self.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow and what it imports warn of their own deprecations, which a user of pixguard cannot mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _log_numbers(
    client: Any,  # noqa: ANN401 - MLflow's client
    run: str,
    parameters: Mapping[str, object],
    metrics: Iterator[tuple[str, float]],
) -> None:
    """Log all at once: one by one takes seconds."""
    from mlflow.entities import Metric, Param  # noqa: PLC0415 - as above

    client.log_batch(
        run,
        metrics=[Metric(name, value, 0, 0) for name, value in metrics],
        params=[Param(name, str(value)) for name, value in parameters.items()],
    )


def _facts(trained: TrainedModel) -> dict[str, str]:
    report = trained.report
    return {
        "seed": str(trained.plan.seed),
        "data": trained.data,
        "fingerprint": trained.model.fingerprint,
        "trained_until": str(trained.model.trained_until),
        "rows": str(report["parts"]["train"]["rows"]),
        "frauds": str(report["parts"]["train"]["frauds"]),
        "average_precision": f"{report['scores']['model']['average_precision']:.6f}",
    }


def _metrics(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for scorer, values in report["scores"].items():
        for name, value in values.items():
            if isinstance(value, float) and value == value:  # noqa: PLR0124 - NaN is no metric
                yield f"{scorer}/{name}", value
    for scorer, gain in report["gains"].items():
        for name, value in gain.items():
            yield f"gain_over_{scorer}/{name}", float(value)
    for part, extent in report["parts"].items():
        for name, value in extent.items():
            yield f"{part}/{name}", float(value)


def _save_flavor(trained: TrainedModel, folder: Path) -> None:
    """Save the model as MLflow's own tools read it, with its signature; pixguard itself never loads it."""
    from lightgbm import Booster  # noqa: PLC0415 - only training has it
    from mlflow.lightgbm import save_model  # noqa: PLC0415
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    booster: lightgbm.Booster = Booster(model_str=trained.booster_text)
    signature = ModelSignature(
        Schema([ColSpec("float", name, required=False) for name in trained.test.names]), Schema([ColSpec("double")])
    )
    # Named, since MLflow would otherwise import everything to find out, which takes ten seconds.
    needed = [f"{package}=={installed(package)}" for package in ("lightgbm", "numpy")]
    save_model(booster, str(folder), signature=signature, pip_requirements=needed)

"""Every setting, declared once: `pixguard config` prints this table, and no module reads the environment beside it.

Order of precedence: command-line option, `PIXGUARD_*` environment variable, TOML file, default.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

__all__ = ["Settings", "SettingsError", "load_settings"]

PREFIX = "PIXGUARD_"
FILE_VARIABLE = "PIXGUARD_CONFIG"
DEFAULT_FILE = Path("pixguard.toml")


class SettingsError(Exception):
    """A setting is unknown or has a value that it cannot take; the message says which and what is right."""


class Settings(BaseSettings):
    """The one frozen settings object."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    # -- the cluster
    broker: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, HOST:PORT[,HOST:PORT…]")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to speak to the broker"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="SASL mechanism, where the protocol is SASL_*"
    )
    sasl_username: str | None = Field(None, description="SASL user")
    sasl_password: SecretStr | None = Field(None, description="SASL password")
    ssl_cafile: Path | None = Field(None, description="PEM file of the authorities that sign the brokers' certificates")
    ssl_certfile: Path | None = Field(None, description="PEM file of this client's certificate")
    ssl_keyfile: Path | None = Field(None, description="PEM file of this client's private key")
    app_id: str = Field(
        "pixguard",
        pattern=r"^[a-z][a-z0-9-]{0,63}$",
        description="consumer group and prefix of the changelogs: one per independent installation on a cluster",
    )
    partitions: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="partitions of each keyed topic; fixed once data exist (state is per partition)"
    )
    replication_factor: Annotated[int, Field(ge=0, le=5)] = Field(
        0, description="copies of each topic; 0: 3 where the cluster has three brokers, else 1"
    )

    # -- this worker
    name: str = Field(
        "worker-1",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="unique and stable per worker: a worker that returns under its name gets its partitions back",
    )
    data_dir: Path = Field(Path(".pixguard"), description="local state, keys and the local broker's data")
    web_host: str = Field("127.0.0.1", description="address of the worker's web view")
    web_port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="port of the web view; 0: none")
    hash_key: SecretStr | None = Field(
        None,
        description="32 hex digits: the key that pseudonymises accounts, keys, tax ids and devices; the same for all "
        "workers, for ever. Without it DATA_DIR/hash.key is used, and made on first use",
    )
    rules_file: Path | None = Field(None, description="rule pack (YAML), re-read when it changes; default: the shipped")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe line logged")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json for Elastic, console for people; auto: console on a terminal"
    )

    # -- what counts as bad input
    max_event_age_days: Annotated[int, Field(ge=1, le=36500)] = Field(
        400, description="a transaction older than this against its Kafka timestamp is rejected"
    )
    max_event_lead_hours: Annotated[int, Field(ge=1, le=876000)] = Field(
        24, description="a transaction further in the future than this is rejected"
    )

    # -- transport
    fetch_max_wait_ms: Annotated[int, Field(ge=1, le=30000)] = Field(
        500, description="how long the broker may hold an empty fetch"
    )
    fetch_pause_ms: Annotated[float, Field(ge=0, le=1000)] = Field(
        5.0,
        description="between two fetches of a topic, at least: a step costs as much for one payment as for fifty, and "
        "a payment waits for half of this at each of the two stages",
    )
    fetch_max_records: Annotated[int, Field(ge=1, le=100000)] = Field(
        2000, description="records that one batch brings to an agent; bounds the time that the loop is held"
    )
    session_timeout_s: Annotated[float, Field(ge=1, le=300)] = Field(
        6.0, description="a worker that is silent for so long loses its partitions"
    )
    standby_replicas: Annotated[int, Field(ge=0, le=3)] = Field(
        0, description="workers that keep a warm copy of each partition's state"
    )

    # -- models
    model_registry: str | None = Field(
        None, description="MLflow tracking URI of the batch models; default: MLFLOW_TRACKING_URI, else DATA_DIR/mlflow"
    )
    model_poll_s: Annotated[float, Field(ge=0, le=86400)] = Field(
        10.0, description="how often workers look for another champion or challenger; 0: no batch models"
    )
    challenger_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="of the payers, whose payments a challenger scores beside the champion: always the same ones"
    )

    # -- labels and the learner
    label_maturity_h: Annotated[float, Field(gt=0, le=24 * 366)] = Field(
        192.0,
        description="age at which a payment is learned from, fraud or not: 8 days, by which most frauds are contested "
        "and analysed",
    )
    label_horizon_days: Annotated[int, Field(ge=1, le=3660)] = Field(
        91, description="age at which a vector that waits for a label is forgotten: MED's 80 days and its analysis"
    )
    negatives_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.05, description="share of the payments nobody complained of that is kept to learn from, with its weight"
    )
    feedback_wait_h: Annotated[float, Field(ge=0, le=24 * 366)] = Field(
        24.0, description="how long feedback waits for a payment that is not known, before it becomes a dead letter"
    )
    learner_publish_s: Annotated[float, Field(ge=0.5, le=86400)] = Field(
        30.0, description="time between two versions of the online model, where something was learned"
    )

    # -- the lake
    lake: str | None = Field(
        None,
        description="folder, or s3://, gs://, az:// URL, of the Delta tables; credentials by the variables of the "
        "store's own tools (AWS_*, GOOGLE_*, AZURE_*); default: DATA_DIR/lake",
    )
    archive_rows: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        10_000, description="rows of one commit to a table, about"
    )
    archive_seconds: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        2.0, description="after which a commit is made, however few rows it has"
    )

    # -- state
    checkpoint_interval_s: Annotated[float, Field(ge=0.05, le=60)] = Field(
        0.1, description="time between checkpoints of a partition: bounds what a crash replays"
    )
    checkpoint_max_rows: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        4000, description="changed rows that force a checkpoint sooner"
    )
    retry_window_s: Annotated[int, Field(ge=1, le=604800)] = Field(
        3600,
        description="a repeated end_to_end_id is answered with its first decision for so long, by the log's clock "
        "(Kafka timestamps)",
    )
    retry_max_ids: Annotated[int, Field(ge=1000, le=100_000_000)] = Field(
        200_000, description="the last so many end_to_end_ids of a partition are known, at most"
    )
    max_active_keys: Annotated[int, Field(ge=100, le=100_000_000)] = Field(
        2_000_000, description="profiles kept in memory per partition; idle ones beyond go to RocksDB"
    )
    idle_after_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        72, description="a profile untouched for so long (event time) may go to RocksDB"
    )

    @field_validator("hash_key")
    @classmethod
    def _hex_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _parse_hash_key(value.get_secret_value())
        return value

    @field_validator("broker")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for server in value.split(","):
            host, colon, port = server.strip().rpartition(":")
            if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError(f"expected HOST:PORT, got {server.strip()!r}")
        return value

    @classmethod
    def settings_customise_sources(  # noqa: D102 - pydantic's own hook
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env files: one file, TOML
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _file()))

    def registry_uri(self) -> str | None:
        """MLflow's tracking URI: the setting, else the variable that MLflow's own tools read; None: the data folder."""
        return self.model_registry or os.environ.get("MLFLOW_TRACKING_URI") or None

    def lake_uri(self) -> str:
        """Where the Delta tables lie: the setting, else the data folder; a folder as an absolute path."""
        if self.lake is not None and "://" in self.lake:
            return self.lake
        return str(Path(self.lake or self.data_dir / "lake").absolute())

    def read_hash_key(self) -> bytes:
        """The 16-byte pseudonymisation key: from the setting, or from `DATA_DIR/hash.key`, made (0600) on first use.

        Raises
        ------
        SettingsError
            When the file cannot be read or made, or holds something else than 32 hex digits.
        """
        if self.hash_key is not None:
            return _parse_hash_key(self.hash_key.get_secret_value())
        path = self.data_dir / "hash.key"
        try:
            if not path.exists():
                _make_hash_key(path)
            return _parse_hash_key(path.read_text().strip())
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read or made: {error.strerror}") from error
        except ValueError as error:
            raise SettingsError(f"{path}: {error}. Restore the key that your state was hashed with.") from error


def _make_hash_key(path: Path) -> None:
    """Make the key, unless another worker is quicker: then that one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, written = tempfile.mkstemp(dir=path.parent)  # readable by its owner alone
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(16))
            file.flush()
            os.fsync(handle)  # what is hashed with it outlives a power cut, so it must too
        # A link appears whole, and never replaces: no worker reads half a key, or one that is not to stay.
        with suppress(FileExistsError):
            os.link(written, path)
    finally:
        Path(written).unlink()


def _parse_hash_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise ValueError(f"expected 32 hex digits, got {len(text)} characters")
    return key


def _file() -> Path | None:
    named = os.environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def load_settings(**overrides: Any) -> Settings:  # noqa: ANN401 - pydantic validates each against its field
    """Read the settings; options that are None are left to the environment, the file and the defaults.

    Raises
    ------
    SettingsError
        For an unknown setting, a bad value, or an unreadable file; the message names each.
    """
    known = set(Settings.model_fields)
    unknown = [
        name
        for name in os.environ
        if name.startswith(PREFIX) and name != FILE_VARIABLE and name.removeprefix(PREFIX).lower() not in known
    ]
    if unknown:
        raise SettingsError(f"environment: unknown setting {', '.join(sorted(unknown))}; see `pixguard config`")
    path = _file()
    if path is not None and not path.is_file():
        raise SettingsError(f"{FILE_VARIABLE}: no file at {path}")
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        where = f"settings (environment {PREFIX}*, {path or 'no file'})"
        # Never `input`: a bad secret must not reach the terminal or a log.
        lines = [
            f"{'.'.join(map(str, item['loc'])) or where}: {item['msg']}"
            + ("; see `pixguard config`" if item["type"] == "extra_forbidden" else "")
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(f"{where}:\n  " + "\n  ".join(lines)) from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error

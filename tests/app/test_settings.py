"""Where settings come from, what is refused, and that secrets stay secret."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, SettingsError, load_settings

SECRET = "correct horse battery staple"  # noqa: S105 - the value that must never be shown
KEY = "000102030405060708090a0b0c0d0e0f"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, in an empty folder."""
    for name in [name for name in os.environ if name.startswith("PIXGUARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _told(error: BaseException) -> str:
    """All that a terminal or a log would show of an error, its causes included."""
    return "".join(traceback.format_exception(error))


class TestSources:
    """Option, environment, file, default: the first that has it."""

    def test_defaults_need_nothing(self) -> None:
        """A newcomer sets nothing."""
        settings = load_settings()
        assert settings.broker == "127.0.0.1:9092"
        assert settings.partitions == 8
        assert settings.data_dir == Path(".pixguard")

    def test_precedence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each source hides the next, setting by setting."""
        Path("pixguard.toml").write_text('partitions = 2\nname = "file"\napp_id = "file"\n')
        monkeypatch.setenv("PIXGUARD_PARTITIONS", "3")
        monkeypatch.setenv("PIXGUARD_NAME", "environment")
        settings = load_settings(partitions=4)
        assert (settings.partitions, settings.name, settings.app_id) == (4, "environment", "file")

    def test_an_option_that_is_not_given_hides_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The command line passes None for it; 0 is a value."""
        monkeypatch.setenv("PIXGUARD_PARTITIONS", "3")
        monkeypatch.setenv("PIXGUARD_WEB_PORT", "8081")
        settings = load_settings(partitions=None, web_port=0)
        assert (settings.partitions, settings.web_port) == (3, 0)

    def test_the_file_may_lie_elsewhere(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """PIXGUARD_CONFIG names it, and then the default file is not read."""
        Path("pixguard.toml").write_text('name = "default-file"\npartitions = 2\n')
        elsewhere = tmp_path / "etc" / "other.toml"
        elsewhere.parent.mkdir()
        elsewhere.write_text('name = "named-file"\n')
        monkeypatch.setenv("PIXGUARD_CONFIG", str(elsewhere))
        settings = load_settings()
        assert (settings.name, settings.partitions) == ("named-file", 8)

    def test_the_file_is_looked_for_at_each_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not once, when the module is imported."""
        names = []
        for name in ("first", "second"):
            Path(f"{name}.toml").write_text(f'name = "{name}"\n')
            monkeypatch.setenv("PIXGUARD_CONFIG", f"{name}.toml")
            names.append(load_settings().name)
        assert names == ["first", "second"]

    def test_an_empty_variable_names_no_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Compose files pass variables on empty."""
        monkeypatch.setenv("PIXGUARD_CONFIG", "")
        assert load_settings().name == "worker-1"

    def test_dotenv_files_are_not_read(self) -> None:
        """One file, TOML."""
        Path(".env").write_text("PIXGUARD_NAME=dotenv\n")
        assert load_settings().name == "worker-1"

    def test_settings_do_not_change(self) -> None:
        """What `pixguard config` shows is what is in force."""
        settings = load_settings()
        with pytest.raises(ValidationError, match="frozen"):
            settings.partitions = 9

    def test_every_setting_is_documented(self) -> None:
        """`pixguard config` prints the description."""
        undocumented = [name for name, declared in Settings.model_fields.items() if not declared.description]
        assert undocumented == []


class TestFaults:
    """What is refused, and how it is said."""

    def test_an_unknown_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A typing error must not be ignored; its value may be a secret."""
        monkeypatch.setenv("PIXGUARD_SASL_PASWORD", SECRET)
        with pytest.raises(SettingsError, match="unknown setting PIXGUARD_SASL_PASWORD") as caught:
            load_settings()
        assert SECRET not in _told(caught.value)

    def test_an_unknown_name_in_the_file(self) -> None:
        """The message names it and the file."""
        Path("pixguard.toml").write_text(f'sasl_pasword = "{SECRET}"\n')
        with pytest.raises(SettingsError, match=r"(?s)pixguard\.toml.*sasl_pasword: .*see `pixguard config`") as caught:
            load_settings()
        assert SECRET not in _told(caught.value)

    def test_an_unknown_option(self) -> None:
        """Of the command line."""
        with pytest.raises(SettingsError, match="colour"):
            load_settings(colour="red")

    def test_all_bad_values_are_named_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One round of corrections is enough."""
        monkeypatch.setenv("PIXGUARD_PARTITIONS", "0")
        monkeypatch.setenv("PIXGUARD_LOG_LEVEL", "LOUD")
        with pytest.raises(SettingsError) as caught:
            load_settings(name="two words")
        told = str(caught.value)
        assert "partitions: Input should be greater than or equal to 1" in told
        assert "log_level: Input should be 'DEBUG'" in told
        assert "name: String should match pattern" in told

    @pytest.mark.parametrize(
        "broker", ["", "kafka", "kafka:", ":9092", "kafka:0", "kafka:65536", "kafka:9092,", "a:1,b", "kafka:-1"]
    )
    def test_what_is_no_broker(self, broker: str) -> None:
        """Every server needs host and port."""
        with pytest.raises(SettingsError, match=r"broker: .*expected HOST:PORT"):
            load_settings(broker=broker)

    @pytest.mark.parametrize("broker", ["kafka:9092", "a:1,b:65535", "a:1, b:2", "[::1]:9092"])
    def test_what_is_a_broker(self, broker: str) -> None:
        """One or several."""
        assert load_settings(broker=broker).broker == broker

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"partitions = \n", "not TOML: Invalid value"),
            (b"name = '\xff'\n", "not TOML: .*utf-8"),
            (b"[name]\nfirst = 1\n", "name: Input should be a valid string"),
        ],
    )
    def test_a_broken_file(self, content: bytes, said: str) -> None:
        """The error names the file."""
        Path("pixguard.toml").write_bytes(content)
        with pytest.raises(SettingsError, match=f"(?s)pixguard.toml.*{said}"):
            load_settings()

    @pytest.mark.parametrize("name", ["absent.toml", "."])
    def test_a_named_file_must_be_there(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Going on with defaults would speak to the wrong cluster."""
        monkeypatch.setenv("PIXGUARD_CONFIG", name)
        with pytest.raises(SettingsError, match="PIXGUARD_CONFIG: no file at"):
            load_settings()


class TestSecrets:
    """Passwords and the key that pseudonymises."""

    def test_they_are_not_shown(self) -> None:
        """Neither in the representation nor in a dump."""
        settings = load_settings(sasl_password=SECRET, hash_key=KEY)
        for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
            assert SECRET not in shown
            assert KEY not in shown

    @pytest.mark.parametrize(
        ("name", "value"),
        [("hash_key", SECRET), ("hash_key", KEY[:-1]), ("sasl_mechanism", SECRET), ("ssl_keyfile", 7.25)],
    )
    def test_no_error_repeats_a_value(self, name: str, value: object) -> None:
        """A secret in the wrong place reaches neither the message nor the traceback of its cause."""
        with pytest.raises(SettingsError, match=name) as caught:
            load_settings(**{name: value})
        assert str(value) not in _told(caught.value)

    def test_a_number_for_a_password_is_not_repeated(self) -> None:
        """TOML without quotation marks."""
        Path("pixguard.toml").write_text("sasl_password = 918273645\n")
        with pytest.raises(SettingsError, match="sasl_password: Input should be a valid string") as caught:
            load_settings()
        assert "918273645" not in _told(caught.value)


class TestHashKey:
    """The key that pseudonymises."""

    def test_a_given_key_is_used(self) -> None:
        """And no file is made."""
        assert load_settings(hash_key=KEY).read_hash_key() == bytes(range(16))
        assert not Path(".pixguard").exists()

    def test_it_is_made_once(self, tmp_path: Path) -> None:
        """Readable by its owner alone, alone in its folder, and found again by the next process."""
        settings = load_settings(data_dir=tmp_path / "deep" / "data")
        key = settings.read_hash_key()
        path = tmp_path / "deep" / "data" / "hash.key"
        assert len(key) == 16
        assert settings.read_hash_key() == key
        assert path.read_text() == key.hex()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(path.parent.iterdir()) == [path]

    def test_keys_differ_between_installations(self, tmp_path: Path) -> None:
        """Pseudonyms of one bank say nothing of another's."""
        keys = {load_settings(data_dir=tmp_path / name).read_hash_key() for name in "abc"}
        assert len(keys) == 3

    @pytest.mark.parametrize("content", [b"", b"short", KEY.encode() + b"00", b"\xff\xfe", b"z" * 32])
    def test_a_damaged_key_is_an_error(self, tmp_path: Path, content: bytes) -> None:
        """Making a new one would cut every state off; the error does not repeat the file."""
        (tmp_path / "hash.key").write_bytes(content)
        with pytest.raises(SettingsError, match=r"hash\.key: .*Restore the key") as caught:
            load_settings(data_dir=tmp_path).read_hash_key()
        assert KEY not in _told(caught.value)
        assert (tmp_path / "hash.key").read_bytes() == content

    def test_an_editors_line_end_does_no_harm(self, tmp_path: Path) -> None:
        """White space around the digits is not part of them."""
        (tmp_path / "hash.key").write_text(f"{KEY}\n")
        assert load_settings(data_dir=tmp_path).read_hash_key() == bytes(range(16))

    def test_an_unusable_folder_is_a_clear_error(self, tmp_path: Path) -> None:
        """Here a file stands in its way."""
        (tmp_path / "file").touch()
        with pytest.raises(SettingsError, match=r"hash\.key: cannot be read or made: "):
            load_settings(data_dir=tmp_path / "file").read_hash_key()

    def test_workers_that_start_together_agree(self, tmp_path: Path) -> None:
        """Processes that race to make the key all read the one that stays, whole."""
        race = (
            "import sys; from pathlib import Path; from app.settings import load_settings\n"
            "folders = [Path(sys.argv[1]) / str(number) for number in range(200)]\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "for folder in folders: print(load_settings(data_dir=folder).read_hash_key().hex())\n"
        )
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", race, str(tmp_path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            for _ in range(3)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        told = [racer.communicate(timeout=60)[0] for racer in racers]
        assert [racer.returncode for racer in racers] == [0, 0, 0]
        assert told[0] == told[1] == told[2]
        assert len(set(told[0].split())) == 200

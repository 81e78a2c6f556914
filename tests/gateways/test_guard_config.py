import json
from pathlib import Path

import pytest

from tripswitch_gateway import SettingsError
from tripswitch_gateway.guard.config import GuardConfig, NamedIn, read_guard_config
from tripswitch_gateway.guard.known_keys import KnownKeys

WHOLE = """
[kafka]
bootstrap = "kafka:9092"

[guard]
listen = "[::1]:9000"
name = "eu-1/nginx"
keys = "keys.json"
credential_prefix = "key_"
credential_headers = ["Authorization"]
tenant = "acme"
anonymous = "allow"

[guard.headers]
identity = "X-Identity"
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_without_settings_the_defaults_hold(tmp_path: Path) -> None:
    config = read_guard_config(tmp_path / "absent.toml", {})
    assert config == GuardConfig()
    assert config.address == ("127.0.0.1", 9191)
    assert config.name


def test_every_setting_is_read(tmp_path: Path) -> None:
    config = read_guard_config(written(tmp_path / "tripswitch.toml", WHOLE), {})
    assert config == GuardConfig(
        listen="[::1]:9000",
        name="eu-1/nginx",
        keys=Path("keys.json"),
        credential_prefix="key_",
        credential_headers=("authorization",),
        tenant="acme",
        anonymous="allow",
        headers=NamedIn(identity="x-identity"),
    )
    assert config.address == ("::1", 9000)


def test_the_environment_wins_over_the_file_and_a_flag_over_both(tmp_path: Path) -> None:
    file = written(tmp_path / "tripswitch.toml", WHOLE)
    environment = {"TRIPSWITCH_GUARD_LISTEN": "0.0.0.0:1", "TRIPSWITCH_GUARD_NAME": "b", "TRIPSWITCH_GUARD_KEYS": "k"}
    config = read_guard_config(file, environment, listen="127.0.0.1:2", name=None)
    assert (config.listen, config.name, config.keys) == ("127.0.0.1:2", "b", Path("k"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("guard = 1", "[guard] must be a table"),
        ("[guard", "cannot be read as TOML"),
        ("[guard]\nlisten = 9191", "listen must be a string"),
        ('[guard]\nlisten = "9191"', "listen must be host:port"),
        ('[guard]\nlisten = "127.0.0.1:70000"', "listen must be host:port"),
        ('[guard]\nname = ""', "name must be a string"),
        ('[guard]\nlissten = "a"', "there is no setting lissten"),
        ('[guard]\nanonymous = "maybe"', "anonymous must be one of deny, allow"),
        ('[guard]\ncredential_headers = "authorization"', "credential_headers must be a list"),
        ('[guard]\ncredential_headers = ["a b"]', "'a b' is no name of a header"),
        ("[guard]\nheaders = 1", "headers must be a table"),
        ('[guard.headers]\nidentty = "a"', "there is no setting headers.identty"),
        ('[guard.headers]\nidentity = "a"\ntenant = "A"', "one header can't say two things"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_guard_config(written(tmp_path / "tripswitch.toml", text), {})
    assert told in str(caught.value)
    assert "tripswitch.toml" in str(caught.value)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        {"sk-secret": {"identity": "a"}},
        {"ab" * 32: "a"},
        {"ab" * 32: {}},
        {"ab" * 32: {"identity": ""}},
        {"ab" * 32: {"identity": "a", "tenant": 7}},
        {"ab" * 32: {"identity": "a", "key": "sk-secret"}},
    ],
)
def test_a_wrong_table_of_keys_is_told_without_its_content(tmp_path: Path, entries: object) -> None:
    with pytest.raises(SettingsError, match=r"keys\.json") as caught:
        KnownKeys(written(tmp_path / "keys.json", json.dumps(entries)))
    assert "sk-secret" not in str(caught.value)


def test_an_absent_table_of_keys_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        KnownKeys(tmp_path / "absent.json")

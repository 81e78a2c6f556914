"""Addresses and secrets: where they come from, and that errors keep them."""

from pathlib import Path

import pytest

from streams.settings import Kafka, Settings, SettingsError, read_settings

SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith(("KAFKA_", "CLICKHOUSE_", "SLACK_", "TRIPSWITCH_")):
            monkeypatch.delenv(name)


def written(folder: Path, text: str) -> Path:
    (folder / "tripswitch.toml").write_text(text)
    return folder / "tripswitch.toml"


def test_without_anything_it_is_this_machine(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "none.toml") == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(
        tmp_path,
        'policy = "file.toml"\ndirectory = "file.json"\n[kafka]\nbootstrap = "file:9092"\npartitions = 4\n'
        '[slack]\nchannel = "C1"\n',
    )
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "env:9092")
    monkeypatch.setenv("KAFKA_REPLICATION", "3")
    monkeypatch.setenv("TRIPSWITCH_POLICY", "env.toml")
    monkeypatch.setenv("SLACK_BOT_TOKEN", SECRET)
    settings = read_settings(path)
    assert (settings.kafka.bootstrap, settings.kafka.partitions, settings.kafka.replication) == ("env:9092", 4, 3)
    assert (settings.policy, settings.directory) == ("env.toml", "file.json")
    assert (settings.slack.channel, settings.slack.bot_token) == ("C1", SECRET)


def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "")
    assert read_settings(tmp_path / "none.toml").kafka.bootstrap == Kafka().bootstrap


@pytest.mark.parametrize(
    ("variable", "section", "name"),
    [
        ("CLICKHOUSE_URL", "clickhouse", "url"),
        ("TRIPSWITCH_SIGNING_KEY", "signing", "key"),
        ("TRIPSWITCH_JWKS", "signing", "jwks"),
        ("TRIPSWITCH_ISSUER", "signing", "issuer"),
        ("SLACK_CHANNEL", "slack", "channel"),
        ("SLACK_API_URL", "slack", "api_url"),
        ("KAFKA_SASL_PASSWORD", "kafka", "sasl_password"),
        ("KAFKA_SSL_CA", "kafka", "ssl_ca"),
        ("KAFKA_SSL_CERT", "kafka", "ssl_cert"),
    ],
)
def test_each_variable_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, section: str, name: str
) -> None:
    monkeypatch.setenv(variable, "given")
    assert getattr(getattr(read_settings(tmp_path / "none.toml"), section), name) == "given"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[kafka]\nbootstap = "x"', "bootstap"),
        ("[kafka]\npartitions = []", r"\$\.kafka\.partitions"),
        ("[kfka]\n", "kfka"),
        ('kafka = "x"', r"\$\.kafka"),
        ("[slack]\nbot_token = 5\nchanel = 1", r"chanel|\$\.slack"),
        ("[kafka", "not TOML"),
    ],
)
def test_an_error_names_the_file_and_the_setting(tmp_path: Path, text: str, where: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError, match=where) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)


def test_an_error_of_the_environment_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PARTITIONS", "many")
    with pytest.raises(SettingsError, match=r"settings from the environment: .*\$\.kafka\.partitions"):
        read_settings(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text",
    [
        f'[kafka]\nsasl_password = "{SECRET}"\npartitions = "x"',
        f'[kafka]\nsasl_password = ["{SECRET}"]',
        f'[slack]\nbot_token = "{SECRET}',
        f"[slack]\nbot_token = {SECRET}",
        f'[clickhouse]\nurl = ["http://u:{SECRET}@h/db"]',
        f'[slack]\ntoken = "{SECRET}"',
        f'[kafka]\nsasl_password = "{SECRET}"\nsasl_password = "{SECRET}"',
    ],
    ids=range(7),
)
def test_a_secret_is_never_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", SECRET)
    monkeypatch.setenv("KAFKA_REPLICATION", "x")
    with pytest.raises(SettingsError) as caught:
        read_settings(written(tmp_path, text))
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


def test_partitions_and_replication_are_at_least_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PARTITIONS", "0")
    with pytest.raises(SettingsError, match="partitions"):
        read_settings(tmp_path / "none.toml")


def test_a_client_is_given_only_what_is_set() -> None:
    assert Kafka().confluent() == {"bootstrap.servers": "127.0.0.1:9092", "security.protocol": "PLAINTEXT"}
    signed = Kafka(security_protocol="SASL_SSL", sasl_username="u", sasl_password="p", ssl_ca="ca.pem").confluent()
    assert signed["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (signed["sasl.username"], signed["sasl.password"], signed["ssl.ca.location"]) == ("u", "p", "ca.pem")
    plain = Kafka(sasl_username="u", sasl_password="p").confluent()
    assert not any(name.startswith("sasl") for name in plain)


def test_the_file_may_be_shared_with_gateways(tmp_path: Path) -> None:
    path = tmp_path / "tripswitch.toml"
    path.write_text('[kafka]\nbootstrap = "kafka:9092"\n[gateway]\non_stale = "closed"\n[guard]\nanonymous = "allow"\n')
    assert read_settings(path).kafka.bootstrap == "kafka:9092"

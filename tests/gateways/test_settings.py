from pathlib import Path

import pytest

from tripswitch_gateway import SettingsError, load_settings

ENVIRONMENT = {
    "KAFKA_BOOTSTRAP": "a:9092,b:9092",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "gw",
    "KAFKA_SASL_PASSWORD": "secret",
    "KAFKA_SSL_CA": "ca.pem",
    "KAFKA_SSL_CERT": "cert.pem",
    "KAFKA_SSL_KEY": "key.pem",
    "TRIPSWITCH_JWKS": "jwks.json",
    "TRIPSWITCH_ISSUER": "https://tripswitch.example/ssf",
}


def test_from_the_environment(tmp_path: Path) -> None:
    settings = load_settings(ENVIRONMENT, tmp_path / "absent.toml")
    assert settings.kafka == {
        "bootstrap.servers": "a:9092,b:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "gw",
        "sasl.password": "secret",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "cert.pem",
        "ssl.key.location": "key.pem",
    }
    assert (settings.jwks, settings.issuer) == (Path("jwks.json"), "https://tripswitch.example/ssf")


def test_the_password_is_not_shown(tmp_path: Path) -> None:
    assert "secret" not in repr(load_settings(ENVIRONMENT, tmp_path / "absent.toml"))


def test_the_file_fills_in_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "tripswitch.toml"
    file.write_text('[kafka]\nbootstrap = "c:9092"\nssl_ca = "ca.pem"\n[signing]\njwks = "j"\nissuer = "i"\n')
    assert load_settings({}, file).kafka == {"bootstrap.servers": "c:9092", "ssl.ca.location": "ca.pem"}
    assert load_settings({"KAFKA_BOOTSTRAP": "d:1"}, file).kafka["bootstrap.servers"] == "d:1"


@pytest.mark.parametrize("name", ["KAFKA_BOOTSTRAP", "TRIPSWITCH_JWKS", "TRIPSWITCH_ISSUER"])
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(ENVIRONMENT | {name: ""}, tmp_path / "absent.toml")


@pytest.mark.parametrize("content", ["[kafka", "kafka = 1", "[kafka]\nbootstrap = 9092\n"])
def test_a_wrong_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tripswitch.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"tripswitch\.toml"):
        load_settings(ENVIRONMENT, file)


def test_what_to_do_when_stale(tmp_path: Path) -> None:
    file = tmp_path / "tripswitch.toml"
    assert load_settings(ENVIRONMENT, file).on_stale == "last_known"
    assert load_settings(ENVIRONMENT, file).snapshot is None
    file.write_text('[gateway]\non_stale = "closed"\nsnapshot = "/var/lib/gw/blocks"\n')
    assert load_settings(ENVIRONMENT, file).on_stale == "closed"
    assert load_settings(ENVIRONMENT, file).snapshot == Path("/var/lib/gw/blocks")
    assert load_settings(ENVIRONMENT | {"TRIPSWITCH_ON_STALE": "open"}, file).on_stale == "open"
    with pytest.raises(SettingsError, match="'close': last_known, open or closed"):
        load_settings(ENVIRONMENT | {"TRIPSWITCH_ON_STALE": "close"}, file)


def test_the_file_may_be_shared_with_tripswitch(tmp_path: Path) -> None:
    shared = """
        policy = "policy.toml"
        [kafka]
        bootstrap = "kafka:9092"
        partitions = 16
        transactions = true
        [clickhouse]
        url = "http://ch:8123/x"
        [signing]
        key = "key.pem"
        jwks = "jwks.json"
        issuer = "https://issuer"
        [gateway]
        on_stale = "closed"
        [guard]
        anonymous = "allow"
    """
    path = tmp_path / "tripswitch.toml"
    path.write_text(shared)
    settings = load_settings({}, path)
    assert settings.kafka == {"bootstrap.servers": "kafka:9092"}
    assert (settings.issuer, settings.on_stale) == ("https://issuer", "closed")

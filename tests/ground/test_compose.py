"""docker-compose.yml, read without Docker: what it would start, with what rights, and whether Kafka understands it."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import kafka_jars
from composed import broker_settings, kafka_environment
from kafka_node import SHARED_SETTINGS, read_properties
from streams.rights import RIGHTS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"certificates", "init", "operator"}
ON_KAFKA = {name: service for name, service in OURS.items() if name != "certificates"}
WORKERS = {"detect", "decide", "archive", "notify"}

# Addresses and secrets: everything else is configured in files.
ENVIRONMENT = {
    "KAFKA_BOOTSTRAP", "KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_CA", "KAFKA_SSL_CERT", "KAFKA_SSL_KEY", "KAFKA_GRANT_RIGHTS", "CLICKHOUSE_URL",
    "SLACK_BOT_TOKEN", "SLACK_CHANNEL", "SLACK_API_URL",
    "TRIPSWITCH_SIGNING_KEY", "TRIPSWITCH_JWKS", "TRIPSWITCH_POLICY", "TRIPSWITCH_DIRECTORY", "TRIPSWITCH_ISSUER",
}  # fmt: skip


def every_value(node: object) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in every_value(value)]
    if isinstance(node, list):
        return [text for value in node for text in every_value(value)]
    return [str(node)]


def volumes_of(service: dict[str, Any]) -> dict[str, str]:
    """Source -> "target" or "target:ro" of the mounts of whole volumes and of files."""
    return dict(mount.split(":", 1) for mount in service.get("volumes", []) if isinstance(mount, str))


def certificate_of(service: dict[str, Any]) -> str | None:
    """The name whose certificate a service is given."""
    parts = [mount["volume"]["subpath"] for mount in service.get("volumes", []) if isinstance(mount, dict)]
    return parts[0] if parts else None


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_version(name: str) -> None:
    assert re.search(r":\d+\.\d+(\.\d+)*(-[\w.]+)?$", SERVICES[name]["image"])


def test_dockerfile_starts_from_a_pinned_python_that_the_project_supports() -> None:
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert bases
    assert set(bases) == {"python:3.11-slim-bookworm"}


def test_dockerfile_copies_what_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_tells_its_health_or_ends(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert {"interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_services_wait_for_what_they_need(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert wait["condition"] == expected
    if name in OURS:
        assert name == "certificates" or "kafka" in SERVICES[name]["depends_on"]
        assert name in {"certificates", "init"} or "init" in SERVICES[name]["depends_on"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_passwords_come_from_the_environment_and_have_no_default(name: str) -> None:
    environment = SERVICES[name].get("environment", {})
    for variable, value in environment.items():
        if re.search(r"PASSWORD|SECRET|TOKEN", variable):
            assert re.fullmatch(r"\$\{\w+(:\?.+|:-)\}", value), variable
    for text in every_value(environment):
        for secret in re.findall(r"//[^/@:]*:(.+)@", text):
            assert re.fullmatch(r"\$\{\w+:\?.+\}", secret)
    assert not re.search(r":-[^}]", " ".join(every_value(SERVICES["clickhouse"])))


def test_variables_are_explained_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    example = (ROOT / ".env.example").read_text()
    explained = set(re.findall(r"^#?(\w+)=", example, re.MULTILINE))
    assert explained - {"COMPOSE_PROFILES"} == asked
    assert re.search(r"^CLICKHOUSE_PASSWORD=$", example, re.MULTILINE)


@pytest.mark.parametrize("name", ON_KAFKA)
def test_our_services_get_addresses_and_secrets_only(name: str) -> None:
    environment = OURS[name]["environment"]
    assert environment.keys() <= ENVIRONMENT
    assert environment["KAFKA_BOOTSTRAP"] == "kafka:9092"


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_rights_to_spare(name: str) -> None:
    service = OURS[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


def test_only_those_who_sign_can_read_the_signing_key() -> None:
    readers = {name for name, service in SERVICES.items() if "signing-key" in volumes_of(service)}
    told = {name for name, service in ON_KAFKA.items() if "TRIPSWITCH_SIGNING_KEY" in service["environment"]}
    assert readers == told == {"init", "decide", "notify", "operator"}
    for name, service in OURS.items():
        for volume in volumes_of(service).keys() & {"signing-key", "public-keys"}:
            assert volumes_of(service)[volume].endswith(":ro") == (name != "init")


def test_keys_lie_on_the_volumes() -> None:
    for service in ON_KAFKA.values():
        folders = {target.split(":")[0] for target in volumes_of(service).values()}
        for variable in ("TRIPSWITCH_SIGNING_KEY", "TRIPSWITCH_JWKS"):
            if variable in service["environment"]:
                assert str(Path(service["environment"][variable]).parent) in folders


def test_detect_and_decide_know_nothing_but_kafka() -> None:
    for name in ("detect", "decide", "gateway"):
        assert "CLICKHOUSE_URL" not in OURS[name]["environment"]
        assert "clickhouse" not in OURS[name]["depends_on"]


def test_volumes_are_declared_and_used() -> None:
    named = {source for service in SERVICES.values() for source in volumes_of(service) if not source.startswith(".")}
    assert named == COMPOSE["volumes"].keys()
    in_parts = [
        mount for service in SERVICES.values() for mount in service.get("volumes", []) if isinstance(mount, dict)
    ]
    for mount in in_parts:
        assert (mount["source"], mount["target"], mount["read_only"]) == ("certificates", "/run/tls", True)
    mounted = [source for service in SERVICES.values() for source in volumes_of(service) if source.startswith(".")]
    for source in mounted:
        assert (ROOT / source).is_file(), source


def test_commands_exist() -> None:
    assert {name for name, service in OURS.items() if service["command"][:2] == ["tripswitch", "run"]} == WORKERS
    for name in WORKERS:
        assert OURS[name]["command"] == ["tripswitch", "run", name]
    assert OURS["init"]["command"] == ["tripswitch", "init"]
    assert OURS["gateway"]["command"][:3] == ["python", "-m", "tripswitch_gateway.demo"]
    assert OURS["certificates"]["command"][:2] == ["python", "/opt/tripswitch/certificates.py"]
    assert OURS["operator"]["entrypoint"] == ["tripswitch"]
    assert OURS.keys() == WORKERS | {"certificates", "init", "gateway", "operator"}


def test_each_container_is_somebody_else_to_kafka() -> None:
    """By a certificate that nobody else can read, made by name."""
    principals = {name: certificate_of(service) for name, service in SERVICES.items() if certificate_of(service)}
    assert principals == {
        "kafka": "kafka",
        "init": "tripswitch-admin",
        **{name: f"tripswitch-{name}" for name in RIGHTS if name != "break-glass"},
    }
    made = OURS["certificates"]["command"]
    assert {made[n + 1] for n, word in enumerate(made) if word == "--client"} == {*principals.values()} - {"kafka"}
    assert [n for n, service in SERVICES.items() if "certificates" in volumes_of(service)] == ["certificates"]


def test_nobody_speaks_plain_text_to_kafka() -> None:
    protocols = broker_settings()["listener.security.protocol.map"].split(",")
    assert {protocol.split(":")[1] for protocol in protocols} == {"SSL", "SASL_SSL"}
    assert {service["environment"]["KAFKA_SECURITY_PROTOCOL"] for service in ON_KAFKA.values()} == {"SSL"}


def test_scripts_are_in_the_image() -> None:
    scripts = {OURS["detect"]["healthcheck"]["test"][2], OURS["certificates"]["command"][1]}
    copied = re.search(
        r"^COPY (deploy/\S+\.py(?: deploy/\S+\.py)*) (\S+)/$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert copied is not None
    assert scripts == {f"{copied[2]}/{Path(source).name}" for source in copied[1].split()}


def test_gateway_is_configured_for_callers_of_each_workload() -> None:
    config = json.loads((ROOT / "deploy" / "gateway.json").read_text())
    assert {caller["workload"] for caller in config["keys"].values()} == {"interactive", "agent", "batch"}
    assert all(caller["identity"] and caller["tenant"] for caller in config["keys"].values())


def test_kafka_is_the_release_and_the_configuration_that_the_tests_run() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka_jars.version()}"
    shared = read_properties(SHARED_SETTINGS)
    settings = broker_settings()
    assert {name: settings.get(name) for name in shared} == shared


def test_kafka_knows_every_setting(kafka_classpath: Path, tmp_path: Path) -> None:
    """Runs the class with which Kafka's image turns its environment into server.properties and formats the disk."""
    given = {**kafka_environment(), "KAFKA_LOG_DIRS": str(tmp_path / "records")}
    folders = [tmp_path / name for name in ("default", "mounted", "final")]
    for folder in folders:
        folder.mkdir()
    (folders[2] / "server.properties").touch()
    command = ["java", "-cp", f"{kafka_classpath}/*", "kafka.docker.KafkaDockerWrapper", "setup"]
    command += [part for flag, folder in zip(("-D", "-M", "-F"), folders, strict=True) for part in (flag, str(folder))]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "JAVA_HOME") if name in os.environ}
    setup = subprocess.run(command, env={**kept, **given}, capture_output=True, text=True, check=False)
    assert setup.returncode == 0, setup.stdout + setup.stderr
    assert (tmp_path / "records" / "meta.properties").is_file()
    derived = read_properties(folders[2] / "server.properties")
    assert derived == {**broker_settings(), "log.dirs": str(tmp_path / "records")}
    known = set(re.findall(r"^\t([\w.]+) = ", setup.stdout + setup.stderr, re.MULTILINE))
    # A listener's own settings are not printed under the listener's name; two are their plugin's own business.
    assert {re.sub(r"^listener\.name\.\w+\.(plain\.)?", "", name) for name in derived} - {
        "sasl.jaas.config",
        "super.users",
    } <= known


def test_docker_compose_accepts_it() -> None:
    docker = shutil.which("docker")
    version = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if not version or version.returncode != 0:
        pytest.skip("docker has no compose plugin here")
    passwords = {"CLICKHOUSE_PASSWORD": "only4this", "GATEWAY_PASSWORD": "only4this"}
    environment = {**os.environ, **passwords, "COMPOSE_PROFILES": "slack,operator"}
    command = ["docker", "compose", "-f", str(ROOT / "docker-compose.yml"), "config", "-q"]
    config = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert config.returncode == 0, config.stderr
    del environment["CLICKHOUSE_PASSWORD"]
    refused = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "CLICKHOUSE_PASSWORD" in refused.stderr

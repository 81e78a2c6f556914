"""The broker as docker-compose.yml configures it, read without Docker."""

from pathlib import Path

import yaml

_COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
# What the image of Kafka reads itself instead of handing it to the broker.
_NOT_BROKER_SETTINGS = {"KAFKA_HEAP_OPTS"}
PASSWORD = "only4this"
"""What the tests put in place of the password of .env."""


def kafka_environment() -> dict[str, str]:
    """The environment of the service `kafka`, as Compose gives it to the container."""
    given: dict[str, str] = yaml.safe_load(_COMPOSE.read_text())["services"]["kafka"]["environment"]
    asked = "${GATEWAY_PASSWORD:?set it in .env, which .env.example explains}"
    return {name: value.replace(asked, PASSWORD).replace("$$", "$") for name, value in given.items()}


def broker_settings() -> dict[str, str]:
    """The broker's settings as the image derives them: KAFKA_A_B becomes a.b."""
    given = kafka_environment()
    names = [name for name in given if name.startswith("KAFKA_") and name not in _NOT_BROKER_SETTINGS]
    return {name.removeprefix("KAFKA_").lower().replace("_", "."): given[name] for name in names}

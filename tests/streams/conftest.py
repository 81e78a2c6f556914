"""The shipped policy, and files of made traffic."""

import gzip
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import settings

from schemas.usage import UsageEvent
from streams.policy import Loaded, read_policy
from streams.settings import Kafka

_ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(_ROOT / "tests" / "golden" / "replay"))

# A deadline would measure the machine, and the compiler at the first call.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def policy_file() -> Path:
    return _ROOT / "policy.toml"


@pytest.fixture(scope="session")
def policy(policy_file: Path) -> Loaded:
    return read_policy(policy_file)


@pytest.fixture
def events_file(tmp_path: Path) -> Callable[..., str]:
    """`events_file(events)`: the path of a file that holds them; packed where the name ends in .gz."""
    from made_traffic import as_lines

    def write(events: Iterable[UsageEvent] | bytes, name: str = "events.jsonl") -> str:
        raw = events if isinstance(events, bytes) else as_lines(events)
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
        return str(path)

    return write


@pytest.fixture
def transactional(kafka: str, kafka_kind: str) -> Kafka:
    """The settings of a broker that has transactions."""
    if kafka_kind == "mock":
        pytest.skip("librdkafka's mock cluster has no transactions")
    return Kafka(bootstrap=kafka)

"""The whole road as a user runs it: a broker, settings in a folder, and workers that are processes of their own."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from kafka_node import ends_with_us
from schemas.topics import KILLSWITCH, STATE_DECIDE, STATE_DETECT, TOPICS

DEADLINE_S = 90.0
PARTITIONS = 4
_SRC = Path(__file__).parents[2]


def wait_until(told: Callable[[], bool], what: str, road: "Road") -> None:
    """Returns when `told()` is true; fails with `what` and the workers' output after a deadline."""
    end = time.monotonic() + DEADLINE_S
    while not told():
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {what}\n{road.logs()}")
        time.sleep(0.1)


QUICK = {
    "throttle_minutes": 0.5, "suspend_minutes": 0.5, "renew_seconds": 5.0, "renew_if_active_seconds": 15.0,
    "quiet_minutes": 0.75, "raise_again_minutes": 0.25, "permanent_after_blocks": 1000,
}  # fmt: skip
"""Keys of the policy with which blocks are renewed and given back within a test."""
UNCAPPED = (1000, 1000)
_PASSING = {KafkaError.NOT_COORDINATOR, KafkaError._TIMED_OUT}


def quick_policy(path: Path, caps: tuple[int, int]) -> Path:
    """Writes the policy, but `QUICK` and with `caps` (of a tenant, of all), into `path`; returns `path`."""
    text = (_SRC / "policy.toml").read_text()
    for name, value in {**QUICK, "cap_tenant": caps[0], "cap_all": caps[1]}.items():
        text, found = re.subn(rf"(?m)^{name} = \S+", f"{name} = {value}", text)
        assert found == 1, f"policy.toml has {found} keys {name}"
    path.write_text(text)
    return path


class Worker(subprocess.Popen[bytes]):
    """A worker's process; what it prints goes to the file `log`."""

    app: str
    instance: str
    log: Path

    def restored(self) -> list[int]:
        """How many partitions it has got the state of, each time that it was given some. Fails where it has ended."""
        told = self.log.read_text(errors="replace")
        assert self.poll() is None, f"{self.log.name}: ended by itself\n{told[-4000:]}"
        return [int(count) for count in re.findall(rf"(?m)^{self.app}: restored (\d+) partitions in", told)]


class Road:
    """A broker with the topics, settings in a folder, and workers that were started here. `clients` are the options by
    which the tests' own clients reach a broker that asks who they are."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path,
        policy: Path = _SRC / "policy.toml",
        clients: Mapping[str, str] | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.clients: dict[str, Any] = {"bootstrap.servers": bootstrap, **(clients or {})}
        self.folder = folder
        self.environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP": bootstrap,
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "CLICKHOUSE_URL": f"chdb://{folder}/clickhouse",
            "TRIPSWITCH_SIGNING_KEY": str(folder / "private" / "key.pem"),
            "TRIPSWITCH_JWKS": str(folder / "jwks.json"),
            "TRIPSWITCH_ISSUER": "https://tripswitch.example/ssf",
            "TRIPSWITCH_POLICY": str(policy),
            "PYTHONWARNINGS": "default",
        }
        self.workers: list[Worker] = []
        """Those that are meant to run."""
        self._started = itertools.count()
        self._admin = AdminClient({**self.clients, "log_level": 0})

    def cli(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs `tripswitch` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "streams", *words],
            env=self.environment | environment, cwd=self.folder, capture_output=True, text=True, timeout=DEADLINE_S,
            check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    def start(self, name: str, instance: str = "", **environment: str) -> Worker:
        """Starts a worker; its output goes to a file in the folder. One that is started again with the `instance` of
        one that ended has its partitions back at once."""
        path = self.folder / f"{name}-{next(self._started)}.log"
        named = {"KAFKA_GROUP_INSTANCE": instance} if instance else {}
        with path.open("wb") as log:
            worker = Worker(
                [*ends_with_us(), sys.executable, "-m", "streams", "run", name],
                env=self.environment | named | environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        worker.app, worker.instance, worker.log = name, instance, path
        self.workers.append(worker)
        return worker

    def supervise(self) -> None:
        """Starts again what has ended by itself, as a supervisor does: a worker that can't go on ends."""
        for worker in [worker for worker in self.workers if worker.poll() is not None]:
            self.workers.remove(worker)
            self.start(worker.app, worker.instance)

    def stop(self, worker: Worker, how: int = signal.SIGTERM) -> int:
        """Stops a worker that was started here; returns its exit code."""
        self.workers.remove(worker)
        worker.send_signal(how)
        try:
            return worker.wait(30.0)
        except subprocess.TimeoutExpired:
            worker.kill()
            return worker.wait()

    def close(self) -> None:
        """Stops what still runs."""
        for worker in list(self.workers):
            self.stop(worker)

    def publish(
        self, events: Sequence[Mapping[str, Any] | bytes], key: bytes | None = None, topic: str = "llm.usage"
    ) -> None:
        """Publishes usage events, keyed by their subject; bytes as they are, under `key`."""
        producer = Producer({**self.clients, "partitioner": "murmur2_random", "linger.ms": 5})
        for event in events:
            raw, name = (
                (event, key) if isinstance(event, bytes) else (json.dumps(event).encode(), event["subject"].encode())
            )
            producer.produce(topic, raw, name)
        assert producer.flush(DEADLINE_S) == 0
        producer.close()

    def read(self, topic: str) -> list[Any]:
        """Every committed record of a topic as it stands, a partition after the other."""
        places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        return sorted(self._read_on(places), key=lambda message: (message.partition(), message.offset()))

    def _read_on(self, places: Sequence[TopicPartition]) -> list[Any]:
        """The committed records from `places` to the end; transactions leave marks at offsets that have no record."""
        consumer = Consumer({
            **self.clients, "group.id": "tests-read", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "enable.partition.eof": True, "fetch.wait.max.ms": 20, "log_level": 0,
        })  # fmt: skip
        consumer.assign(list(places))
        reading, out = {(at.topic, at.partition) for at in places}, []
        end = time.monotonic() + DEADLINE_S
        while reading:
            assert time.monotonic() < end, f"could not be read to the end: {reading}"
            for message in consumer.consume(1000, timeout=0.1):
                error = message.error()
                if error is None:
                    out.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading.discard((message.topic(), message.partition()))
                else:
                    assert error.retriable(), error
        consumer.close()
        return out

    def ends(self, topic: str, *, committed: bool) -> dict[int, int]:
        """By partition, the offset behind the last record, or behind the last that no open transaction holds back."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in range(PARTITIONS)}
        answers = self._admin.list_offsets(asked, isolation_level=level, request_timeout=10)
        return {at.partition: answer.result().offset for at, answer in answers.items()}

    def committed(self, app: str) -> list[TopicPartition]:
        """Where an app's group has come to in its topics; a negative offset where it has not committed yet."""
        topics = {
            "detect": ["llm.usage"], "decide": ["llm.signals", "llm.requests"], "notify": ["llm.incidents"],
            "archive": [t.name for t in TOPICS if t.name not in (KILLSWITCH, STATE_DETECT, STATE_DECIDE)],
        }[app]  # fmt: skip
        places = [TopicPartition(t, n) for t in topics for n in range(PARTITIONS)]
        end = time.monotonic() + DEADLINE_S
        settings = {**self.clients, "group.id": f"tripswitch-{app}", "log_level": 0}
        with closing(Consumer(settings)) as consumer:
            while True:
                try:
                    return consumer.committed(places, timeout=20)
                except KafkaException as error:
                    # A group's coordinator moves in while the broker makes its topics, and away while it restarts; and
                    # it says nothing of offsets in a transaction that a killed worker has left open, until that ends.
                    known = error.args[0].retriable() or error.args[0].code() in _PASSING
                    if not known or time.monotonic() > end:
                        raise
                    time.sleep(0.1)

    def lag(self, app: str) -> int:
        """Records of its topics that an app's group has not committed yet; those never committed count in full."""
        places = self.committed(app)
        untouched = all(at.offset < 0 for at in places)
        rest = [TopicPartition(at.topic, at.partition, max(at.offset, 0)) for at in places]
        return int(untouched) + len(self._read_on(rest))

    def logs(self) -> str:
        """What the workers printed last, for a failure's message."""
        logs = sorted(
            (log for log in self.folder.glob("*.log") if log.stat().st_size), key=lambda log: log.stat().st_mtime
        )
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs[-8:])


@contextmanager
def quick_road(bootstrap: str, folder: Path, caps: tuple[int, int] = UNCAPPED) -> Iterator[Road]:
    """A road with its topics and with `quick_policy`; in the end what still runs is stopped. What fails is shown with
    the workers' output."""
    with closing(Road(bootstrap, folder, quick_policy(folder / "policy.toml", caps))) as road:
        road.cli("init")
        try:
            yield road
        except AssertionError as error:
            error.add_note(road.logs())
            raise

"""The whole road as a user runs it: a broker, settings in a folder, and workers that are processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from schemas.topics import TOPICS

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


class Road:
    """A broker with the topics, settings in a folder, and workers that were started here."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self.environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP": bootstrap,
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "CLICKHOUSE_URL": f"chdb://{folder}/clickhouse",
            "TRIPSWITCH_SIGNING_KEY": str(folder / "private" / "key.pem"),
            "TRIPSWITCH_JWKS": str(folder / "jwks.json"),
            "TRIPSWITCH_ISSUER": "https://tripswitch.example/ssf",
            "TRIPSWITCH_POLICY": str(_SRC / "policy.toml"),
            "PYTHONWARNINGS": "default",
        }
        self.workers: list[subprocess.Popen[bytes]] = []

    def cli(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `tripswitch` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "streams", *words],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    def start(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a worker; its output goes to a file in the folder."""
        log = (self.folder / f"{name}-{len(self.workers)}.log").open("wb")
        worker = subprocess.Popen(
            [sys.executable, "-m", "streams", "run", name],
            env=self.environment | environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        log.close()
        self.workers.append(worker)
        return worker

    def stop(self, worker: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> int:
        """Stops a worker that was started here; returns its exit code."""
        worker.send_signal(how)
        try:
            return worker.wait(30.0)
        except subprocess.TimeoutExpired:
            worker.kill()
            return worker.wait()

    def close(self) -> None:
        """Stops what still runs."""
        for worker in self.workers:
            if worker.poll() is None:
                self.stop(worker)

    def publish(
        self, events: Sequence[Mapping[str, Any] | bytes], key: bytes | None = None, topic: str = "llm.usage"
    ) -> None:
        """Publishes usage events, keyed by their subject; bytes as they are, under `key`."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
        for event in events:
            raw, name = (
                (event, key) if isinstance(event, bytes) else (json.dumps(event).encode(), event["subject"].encode())
            )
            producer.produce(topic, raw, name)
        assert producer.flush(DEADLINE_S) == 0
        producer.close()

    def read(self, topic: str) -> list[Any]:
        """Every record of a topic as it stands, a partition after the other."""
        consumer = self._consumer("tests-read")
        out = []
        for number in range(PARTITIONS):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
            consumer.assign([TopicPartition(topic, number, low)])
            read = low
            end = time.monotonic() + DEADLINE_S
            while read < high and time.monotonic() < end:
                for message in consumer.consume(1000, timeout=1.0):
                    assert message.error() is None, message.error()
                    out.append(message)
                    read = message.offset() + 1
        consumer.close()
        return out

    def _consumer(self, group: str) -> Consumer:
        return Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False})

    def lag(self, app: str) -> int:
        """Records of its topics that an app's group has not committed yet; those never committed count in full."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": f"tripswitch-{app}", "enable.auto.commit": False}
        )
        topics = {
            "detect": ["llm.usage"], "decide": ["llm.signals", "llm.requests"], "notify": ["llm.incidents"],
            "archive": [t.name for t in TOPICS if t.name != "llm.killswitch"],
        }[app]  # fmt: skip
        places = [TopicPartition(t, n) for t in topics for n in range(PARTITIONS)]
        try:
            committed = consumer.committed(places, timeout=20)
        except KafkaException as error:
            # A group's coordinator moves in while the broker makes its topics.
            if not error.args[0].retriable() and error.args[0].code() != KafkaError.NOT_COORDINATOR:
                raise
            committed = [TopicPartition(at.topic, at.partition, -1001) for at in places]
        left = 1 if all(at.offset < 0 for at in committed) else 0
        for at in committed:
            low, high = consumer.get_watermark_offsets(TopicPartition(at.topic, at.partition), timeout=10)
            left += high - max(at.offset, low)
        consumer.close()
        return left

    def logs(self) -> str:
        """The workers' output, for a failure's message."""
        return "\n".join(
            f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in sorted(self.folder.glob("*.log"))
        )

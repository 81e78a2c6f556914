"""An Apache Kafka of our own with tripswitch's topics, workers, and what a process has used."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.figures import Unable

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "kafka"))

import kafka_jars  # noqa: E402
from kafka_node import KafkaNode  # noqa: E402

PARTITIONS = 4
DEADLINE_S = 180.0


class Cluster:
    """A broker whose topics `tripswitch init` made, and the environment that workers get."""

    def __init__(self, node: KafkaNode, folder: Path) -> None:
        self.bootstrap = node.bootstrap
        self.folder = folder
        self.records = node.directory / "records"
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP": node.bootstrap,
            "KAFKA_PARTITIONS": str(PARTITIONS), "CLICKHOUSE_URL": f"chdb://{folder}/clickhouse",
            "TRIPSWITCH_SIGNING_KEY": f"{folder}/key.pem", "TRIPSWITCH_JWKS": f"{folder}/jwks.json",
            "TRIPSWITCH_POLICY": str(ROOT / "policy.toml"),
        }  # fmt: skip
        self._started = 0
        subprocess.run(
            [sys.executable, "-m", "streams", "init"], env=self.environment, cwd=folder, check=True, capture_output=True
        )

    def make_topic(self, name: str) -> None:
        """A topic like llm.usage."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        topic = NewTopic(name, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
        admin.create_topics([topic])[name].result(DEADLINE_S)

    @contextmanager
    def process(self, *command: str, **environment: str) -> Iterator["Process"]:
        """A process, stopped at the end. It gets the cluster's environment and more; its output goes to a file."""
        self._started += 1
        log = self.folder / f"{self._started}.log"
        more = self.environment | environment
        with log.open("wb") as file:
            child = subprocess.Popen(command, env=more, cwd=self.folder, stdout=file, stderr=subprocess.STDOUT)
        process = Process(child, log)
        try:
            yield process
        finally:
            process.stop()

    def worker(self, app: str) -> AbstractContextManager["Process"]:
        """`tripswitch run APP`."""
        return self.process(sys.executable, "-m", "streams", "run", app)

    def publish(self, topic: str, records: Iterable[tuple[str, bytes]]) -> None:
        """Publishes by key, as gateways do; returns when all of it is written."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "queue.buffering.max.messages": 2_000_000,
            }
        )
        for n, (subject, raw) in enumerate(records):
            producer.produce(topic, raw, subject.encode())
            if n % 1000 == 0:
                producer.poll(0)
        if producer.flush(DEADLINE_S):
            raise TimeoutError(f"the broker did not take all records of {topic}")
        producer.close()

    def topics(self) -> set[str]:
        """The topics that there are."""
        return set(AdminClient({"bootstrap.servers": self.bootstrap}).list_topics(timeout=20).topics)

    def ends(self, topic: str) -> dict[int, int]:
        """Each partition's end offset."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench"})
        found = {n: consumer.get_watermark_offsets(TopicPartition(topic, n), 20)[1] for n in range(PARTITIONS)}
        consumer.close()
        return found

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """What a group has committed of each partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        try:
            places = consumer.committed([TopicPartition(topic, n) for n in range(PARTITIONS)], timeout=20)
            return {place.partition: max(0, place.offset) for place in places}
        except KafkaException as error:
            # A group's coordinator moves in while the broker makes its topics.
            if not error.args[0].retriable() and error.args[0].code() != KafkaError.NOT_COORDINATOR:
                raise
            return dict.fromkeys(range(PARTITIONS), 0)
        finally:
            consumer.close()

    def wait_committed(self, group: str, topic: str, process: "Process", seconds: float = DEADLINE_S) -> None:
        """Returns when the group has committed everything that is in the topic now."""
        ends, until = self.ends(topic), time.monotonic() + seconds
        while any(at < ends[n] for n, at in self.committed(group, topic).items()):
            process.check()
            if time.monotonic() > until:
                raise TimeoutError(f"{group} did not read {topic} within {seconds:.0f} s\n{process.told()}")
            time.sleep(0.1)


class Process:
    """A process that a benchmark started."""

    def __init__(self, child: "subprocess.Popen[bytes]", log: Path) -> None:
        self.child = child
        self._log = log

    def cpu(self) -> float:
        """Seconds of CPU that it has used, all threads, user and system."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def system(self) -> float:
        """Seconds of these that the system has used for it: to move bytes, and to hand out memory."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[12]) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Bytes of memory that it holds."""
        return resident(self.child.pid)

    def told(self) -> str:
        """What it has written so far; the end of it."""
        return self._log.read_text(errors="replace")[-4000:]

    def check(self) -> None:
        """Raises RuntimeError, with its last words, when it has ended."""
        if self.child.poll() is not None:
            raise RuntimeError(f"a measured process ended with {self.child.returncode}\n{self.told()}")

    def wait_told(self, text: str, seconds: float = DEADLINE_S) -> None:
        """Returns when it has written `text`."""
        until = time.monotonic() + seconds
        while text not in self._log.read_text(errors="replace"):
            self.check()
            if time.monotonic() > until:
                raise TimeoutError(f"not within {seconds:.0f} s: {text!r}\n{self.told()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Asks it to end; by force after a while."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kafka_version() -> str:
    """The broker's."""
    return kafka_jars.version()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A broker for the time being. Raises Unable where there is no Java or Maven to run one with."""
    why = kafka_jars.missing()
    if why is not None:
        raise Unable(why)
    try:
        jars = kafka_jars.resolve(ROOT / "build" / "kafka")
    except RuntimeError as error:
        raise Unable(str(error)) from error
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        KafkaNode(jars, Path(folder, "kafka")) as node,
    ):
        yield Cluster(node, Path(folder))

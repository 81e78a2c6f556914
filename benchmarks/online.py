"""`detect` on a real Kafka, topics in and topics out, against a bare consumer of the same records."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from benchmarks.traffic import events
from schemas.usage import decode_usage

_ROOT = Path(__file__).parents[1]
_PARTITIONS = 4
_WARM_UP = 4_000


def detect(count: int, identities: int) -> list[dict[str, object]]:
    """CPU µs per event, all threads: confluent-kafka's consume and decode; and a `tripswitch run detect` worker.

    Empty where there is no Java or Maven to run a broker with.
    """
    sys.path.insert(0, str(_ROOT / "tests" / "kafka"))
    import kafka_jars
    from kafka_node import KafkaNode

    if kafka_jars.missing() is not None:
        return []
    with (
        tempfile.TemporaryDirectory() as folder,
        KafkaNode(kafka_jars.resolve(_ROOT / "build" / "kafka"), Path(folder, "kafka")) as node,
    ):
        environment = {
            **os.environ, "KAFKA_BOOTSTRAP": node.bootstrap, "KAFKA_PARTITIONS": str(_PARTITIONS),
            "CLICKHOUSE_URL": f"chdb://{folder}/clickhouse", "TRIPSWITCH_SIGNING_KEY": f"{folder}/key.pem",
            "TRIPSWITCH_JWKS": f"{folder}/jwks.json",
        }  # fmt: skip
        command = [sys.executable, "-m", "streams"]
        subprocess.run([*command, "init"], env=environment, check=True, capture_output=True)
        now = int(time.time() * 1000)
        made = events(_WARM_UP + count, identities, start=now - 120_000, per_second=(_WARM_UP + count) / 110)
        records = list(made)
        worker = subprocess.Popen([*command, "run", "detect"], env=environment)
        try:
            _publish(node.bootstrap, records[:_WARM_UP])
            _wait(node.bootstrap, _WARM_UP)
            before = _cpu(worker.pid)
            _publish(node.bootstrap, records[_WARM_UP:])
            _wait(node.bootstrap, len(records))
            ours = (_cpu(worker.pid) - before) / count * 1e6
        finally:
            worker.terminate()
            worker.wait(30)
        bare = _bare(node.bootstrap, len(records))
    return [
        {
            "what": "confluent-kafka consume and decode",
            "identities": identities,
            "cpu_us_per_event": round(bare, 2),
            "ratio": 1.0,
        },
        {
            "what": "detect, Kafka in to Kafka out",
            "identities": identities,
            "cpu_us_per_event": round(ours, 2),
            "ratio": round(ours / bare, 2),
        },
    ]


def _publish(bootstrap: str, records: list[tuple[str, bytes]]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for subject, raw in records:
        producer.produce("llm.usage", raw, subject.encode())
    producer.flush(60)
    producer.close()


def _wait(bootstrap: str, count: int) -> None:
    """Returns when the worker has committed `count` records."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tripswitch-detect"})
    places = [TopicPartition("llm.usage", n) for n in range(_PARTITIONS)]
    end = time.monotonic() + 120
    committed = 0
    try:
        while committed < count:
            if time.monotonic() > end:
                raise TimeoutError("detect did not read everything within two minutes")
            time.sleep(0.2)
            try:
                committed = sum(max(0, at.offset) for at in consumer.committed(places, timeout=20))
            except KafkaException as error:
                # A group's coordinator moves in while the broker makes its topics.
                if not error.args[0].retriable() and error.args[0].code() != KafkaError.NOT_COORDINATOR:
                    raise
    finally:
        consumer.close()


def _bare(bootstrap: str, count: int) -> float:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition("llm.usage", n, 0) for n in range(_PARTITIONS)])
    read, started = 0, time.process_time()
    while read < count:
        messages = consumer.consume(2000, timeout=1.0)
        for message in messages:
            decode_usage(message.value())
        read += len(messages)
    used = (time.process_time() - started) / count * 1e6
    consumer.close()
    return used


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

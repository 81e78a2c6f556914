"""confluent-kafka's `consume` and the decoder, nothing else: the floor."""

import os

from confluent_kafka import Consumer

from benchmarks.peers.progress import Progress
from schemas.usage import decode_usage

consumer = Consumer(
    {
        "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"],
        "group.id": "bare",
        "auto.offset.reset": "earliest",
    }
)
consumer.subscribe([os.environ["BENCH_TOPIC"]])
progress = Progress()
while True:
    messages = consumer.consume(2000, timeout=0.1)
    for message in messages:
        decode_usage(message.value())
    progress.add(len(messages))

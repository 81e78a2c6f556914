"""Quix Streams: its source, the decoder, and a count per identity in its state (RocksDB with a changelog topic)."""

import os
from typing import Any

from quixstreams import Application, State

from schemas.usage import decode_usage


def count(_event: Any, state: State) -> None:
    state.set("count", state.get("count", 0) + 1)


app = Application(
    broker_address=os.environ["KAFKA_BOOTSTRAP"],
    consumer_group="quix",
    auto_offset_reset="earliest",
    state_dir="quix-state",
)
usage = app.topic(os.environ["BENCH_TOPIC"], key_deserializer="str", value_deserializer="bytes")
app.dataframe(usage).apply(decode_usage).update(count, stateful=True)
app.run()

"""Faust as it comes: an agent over the stream, the decoder, and a count per identity: in a table with its changelog
where BENCH_TABLE is set, else in a dict."""

import os
import sys
from collections import defaultdict

import faust

from schemas.usage import decode_usage

app = faust.App(
    "faust-table" if os.environ.get("BENCH_TABLE") else "faust-dict",
    broker=f"kafka://{os.environ['KAFKA_BOOTSTRAP']}",
    value_serializer="raw",
    key_serializer="raw",
    consumer_auto_offset_reset="earliest",
    topic_partitions=4,
    web_enabled=False,
    datadir="faust-state",
)
usage = app.topic(os.environ["BENCH_TOPIC"], value_serializer="raw", key_serializer="raw")
counts = app.Table("counts", default=int, partitions=4) if os.environ.get("BENCH_TABLE") else defaultdict(int)


@app.agent(usage)
async def count(stream: faust.StreamT) -> None:
    async for value in stream:
        counts[decode_usage(value).subject] += 1


worker = faust.Worker(app, loglevel="WARNING", redirect_stdouts=False, quiet=True)
worker.spinner = None
sys.exit(worker.execute_from_commandline())

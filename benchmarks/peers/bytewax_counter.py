"""bytewax: its Kafka source, the decoder, and a count per identity in its keyed state. For `python -m bytewax.run`."""

import os

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from benchmarks.peers.progress import Progress
from schemas.usage import decode_usage


class _Counted(StatelessSinkPartition):
    """Takes what comes and counts it."""

    def __init__(self) -> None:
        self._progress = Progress()

    def write_batch(self, items: list[object]) -> None:
        self._progress.add(len(items))


class _Sink(DynamicSink):
    def build(self, _step: str, _worker: int, _workers: int) -> _Counted:
        return _Counted()


flow = Dataflow("counter")
records = op.input("usage", flow, KafkaSource([os.environ["KAFKA_BOOTSTRAP"]], [os.environ["BENCH_TOPIC"]]))
keyed = op.map("decode", records, lambda record: (decode_usage(record.value).subject, 1))
counted = op.stateful_map("count", keyed, lambda count, one: ((count or 0) + one, (count or 0) + one))
op.output("out", counted, _Sink())

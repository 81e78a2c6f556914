"""Where Kafka's default partitioner puts a key."""

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key`; kept for keys that recur, since the hash is pure Python."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions

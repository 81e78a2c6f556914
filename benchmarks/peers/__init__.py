"""Programs that read the same events with other means, each a process of its own. They count calls per identity.

Each gets KAFKA_BOOTSTRAP and BENCH_TOPIC from the environment, and BENCH_TARGETS: at how many events to say so.
"""

"""The `detect` app: llm.usage in; findings and tenants' sums out to llm.signals, the unreadable to llm.dead-letters.

    tripswitch run detect       (also: faust -A streams.detect:app worker)

Per chunk: 1. decode; 2. detect; 3. publish dead letters and signals; 4. acknowledge the chunk. Every second or two the
state and the offsets up to which it goes are saved in one transaction. A crash goes on from there: signals that were
published after it are published again, with the same ids.
"""

from functools import partial

import faust

from schemas.topics import STATE_DETECT, USAGE
from streams.app import group, make_app
from streams.compiling import compile_kernels
from streams.detection import Detection
from streams.ownership import Ownership, own
from streams.policy import find_policy, read_policy
from streams.publish import Publisher
from streams.settings import Kafka, read_settings
from streams.state import log_of


def make(detection: Detection, kafka: Kafka) -> faust.App:
    """The app around `detection`."""
    app, usage = make_app("detect", kafka, [USAGE], commits=not kafka.transactions)
    publisher = Publisher(kafka)
    log = partial(log_of, kafka, group("detect"), STATE_DETECT, publisher=publisher)
    own(app, usage, "detect", Ownership(app, "detect", detection, publisher, log, atomic=False))
    return app


def __getattr__(name: str) -> faust.App:
    """`app`, made when it is asked for, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    settings = read_settings()
    policy = read_policy(find_policy(settings.policy))
    # Before the group is joined: a worker that compiles while it should heartbeat is taken for dead.
    compile_kernels(policy)
    app = make(Detection(policy, settings.known()), settings.kafka)
    globals()["app"] = app
    return app

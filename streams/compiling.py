"""Compiling all kernels before there is work."""

import sys
from datetime import timedelta
from threading import Timer

import msgspec
from faust.types import TP

from schemas.directory import Directory, Entry
from schemas.quota import Quota
from schemas.times import EPOCH
from schemas.topics import USAGE
from schemas.usage import UsageData, UsageEvent
from streams.detection import Detection
from streams.fetched import Chunk, Fetched
from streams.policy import Loaded

_SAID_AFTER_S = 4.0
_SAID = "detect: compiles the detectors, a minute or two; once on this machine and for each version\n"
_KNOWN = Directory({"i": Entry(models=["m"], quotas=[Quota("day", usd=1.0)])})


def compile_kernels(policy: Loaded) -> None:
    """Has made-up records detected, so that no kernel is compiled while records wait, and the group for a heartbeat.

    A second; where no machine code is kept of an earlier time a minute or two, and stderr is told so.
    """
    telling = Timer(_SAID_AFTER_S, sys.stderr.write, [_SAID])
    telling.daemon = True
    telling.start()
    try:
        _detect(policy)
    finally:
        telling.cancel()


def _detect(policy: Loaded) -> None:
    # So many that the tables grow, and so far apart that buckets close.
    records = (Fetched(USAGE, 0, n, -1, 0, None, msgspec.json.encode(_event(n)), ()) for n in range(4096))
    detection = Detection(policy, _KNOWN)
    detection.take(TP(USAGE, 0), Chunk.of(USAGE, 0, records))
    detection.restored(0, detection.checkpoint(0).pieces)


def _event(n: int) -> UsageEvent:
    data = UsageData(model="m", status=200, session_id="s", fingerprint="f", country="DE", asn=1, input_tokens=1)
    return UsageEvent(str(n), "s", "i", EPOCH + timedelta(seconds=n), data)

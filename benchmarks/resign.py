"""Signing again what is in force, for another key: how fast, and how late decide's event loop is meanwhile."""

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.commands import ISSUER, NOW_MS, command
from benchmarks.figures import Figure
from schemas.command import claims
from schemas.heartbeat import is_heartbeat
from sinks.keys import new_keys
from sinks.killswitch import Signer
from streams.in_force import Found, Written
from streams.killswitch import Switch
from streams.resigning import signing_threads

_COUNT = 10_000
_SPEAKS_S = 0.25
_PROBE_S = 0.005
_IDLE_S = 3.0
_ALONE = 500


def resign() -> Iterator[Figure]:
    """Ten thousand commands of a partition, asked for four times a second as decide does; no broker."""
    with tempfile.TemporaryDirectory() as folder:
        new_keys(Path(folder) / "key.pem", Path(folder) / "keys.json")
        signer = Signer.read(Path(folder) / "key.pem", issuer=ISSUER, contact="#ai-platform")
    found = _found()
    alone = _alone(found, signer)
    seconds, late, idle = asyncio.run(_signed(found, signer))
    conditions = f"{_COUNT:,} commands in force in one partition, 3,072-bit key, no broker"
    yield Figure(
        "resign", "signed again", _COUNT / seconds, "commands/s", alone, "a thread that does nothing else", conditions,
        {"seconds": round(seconds, 1)},
    )  # fmt: skip
    yield Figure("resign", "decide's loop late, p99", late, "ms", idle, "with nothing to sign", conditions)


def _alone(found: Found, signer: Signer) -> float:
    """Commands that are signed in a second, one after the other."""
    began = time.perf_counter()
    for written in islice(found.commands.values(), _ALONE):
        signer.again(written.command, written.claims, NOW_MS)
    return _ALONE / (time.perf_counter() - began)


async def _signed(found: Found, signer: Signer) -> tuple[float, float, float]:
    """Seconds for all, and by how many ms the loop was late then and before."""
    pool = signing_threads()
    switch, lates = Switch(0, found, pool), list[float]()

    async def probe() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_PROBE_S)
            lates.append((time.perf_counter() - began - _PROBE_S) * 1000)

    probing = asyncio.ensure_future(probe())
    await asyncio.sleep(_IDLE_S)
    idle = float(np.percentile(lates, 99))
    lates.clear()
    began, left = time.perf_counter(), _COUNT
    switch.say([], found.commands.values(), signer)
    while left:
        await asyncio.sleep(_SPEAKS_S)
        if switch.has_word():
            left -= sum(not is_heartbeat(record.key) for record in switch.word(signer, ""))
    took = time.perf_counter() - began
    probing.cancel()
    pool.shutdown()
    return took, float(np.percentile(lates, 99)), idle


def _found() -> Found:
    """What another key signed."""
    found = Found()
    for number in range(_COUNT):
        made = command(number)
        said = json.loads(json.dumps(claims(made, issuer=ISSUER, issued=NOW_MS, contact="#ai-platform")))
        written = Written(made, said, "another", break_glass=False)
        found.commands[written.key] = written
    return found

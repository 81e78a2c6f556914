"""The gateways' side of the kill switch: a call's check, what a block weighs, and a start with a million of them.

Each measurement is a process of its own, `python -m benchmarks.killswitch WHAT COUNT [BOOTSTRAP]`.
"""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from joserfc.jwk import RSAKey

from benchmarks.cluster import ROOT, cluster, resident
from benchmarks.commands import ISSUER, NOW_MS, Made, partition_of, who
from benchmarks.figures import Figure
from schemas.command import AUDIENCE, TOKEN_TYPE
from sinks.killswitch import Signer
from tripswitch_gateway import CommandVerifier, KeyFile, Refused, RevocationList, RevocationTable, record_key
from tripswitch_gateway.clock import HeartbeatClock
from tripswitch_gateway.fields import decode_segment
from tripswitch_gateway.tokens import is_signed

_COUNT = int(os.environ.get("BENCH_COMMANDS", "1000000"))
_CHECK_LIMIT_US, _READY_LIMIT_S = 2.0, 20.0
_LOOPS, _REPEATS = 100_000, 7
_AT_HAND = 100
"""Callers whose names are in the processor's cache together."""
_PARTITIONS = 16
_TOPIC = "llm.killswitch"
_VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
_DEADLINE_S = 900.0


def check() -> Iterator[Figure]:
    """Time of a check of callers that are blocked and that are not, at a million blocks, and the memory of a block."""
    told = _run("check", _COUNT)
    conditions = f"{_COUNT:,} identities blocked in 1,000 tenants; credential, session and end user asked for too"
    for name, about in (("allowed", "a caller that is not blocked"), ("denied", "a caller that is blocked")):
        yield Figure(
            "check", f"check of {about}", told[name], "µs", _CHECK_LIMIT_US, "limit", conditions,
            {"times_a_lookup_in_a_dict": round(told[name] / told["lookup"], 1), "lookup_us": round(told["lookup"], 3)},
        )  # fmt: skip
    yield Figure("check", "resident memory of a block", told["bytes"], "bytes", 3000, "3 GB at 1 M", conditions)


def verify() -> Iterator[Figure]:
    """Time to verify a command, and to refuse what is none."""
    told = _run("verify", 20_000)
    yield Figure(
        "verify", "a command verified", told["verify"], "CPU µs", told["signature"], "its RSA signature alone",
        "2048-bit key",
    )  # fmt: skip
    for name in ("garbage", "unsigned", "forged"):
        yield Figure("verify", f"{name} refused", told[name], "CPU µs", told["verify"], "a command verified")


def start() -> Iterator[Figure]:
    """Seconds until a gateway without a snapshot is ready, with a million commands on the topic; and until all of them
    are verified."""
    made = Made(_COUNT)
    with cluster() as where:
        jwks = where.folder / "keys.json"
        _publish(where.bootstrap, made)
        with _beating(where.bootstrap, made, jwks):
            told = _run("start", _COUNT, where.bootstrap, str(jwks))
    conditions = f"{_COUNT:,} commands in force in {_PARTITIONS} partitions, no snapshot, 2048-bit key"
    extra = {name: round(value, 1) for name, value in told.items()}
    yield Figure("coldstart", "gateway ready", told["ready_s"], "s", _READY_LIMIT_S, "limit", conditions, extra)
    yield Figure("coldstart", "all verified and proven", told["proven_s"], "s", told["ready_s"], "ready", conditions)


def _publish(bootstrap: str, made: Made) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_topics([_TOPIC]).values():
        future.result(30)
    time.sleep(2)
    topic = NewTopic(_TOPIC, _PARTITIONS, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([topic])[_TOPIC].result(30)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.kbytes": 1 << 20})
    for number, (_, key, value) in enumerate(made.records()):
        while True:
            try:
                producer.produce(_TOPIC, value, key, partition_of(number, _PARTITIONS))
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(_DEADLINE_S):
        raise TimeoutError("the broker did not take all commands")


@contextmanager
def _beating(bootstrap: str, made: Made, jwks: Path) -> Iterator[None]:
    """A writer's heartbeats, every three seconds, signed with a key that `jwks` has beside that of the commands."""
    key = RSAKey.generate_key(2048)
    signer = Signer(key, issuer=ISSUER, contact="")
    entry = {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": "RS256", "use": "sig"}
    jwks.write_text(json.dumps({"keys": [*json.loads(made.jwks.read_text())["keys"], entry]}))
    in_force = made.in_force(_PARTITIONS)
    producer = Producer({"bootstrap.servers": bootstrap})
    ended = Event()

    def beat() -> None:
        while not ended.wait(3.0):
            now = time.time_ns() // 1_000_000
            for partition, (count, digest) in enumerate(in_force):
                token = signer.token(_heartbeat(partition, now, count, digest), TOKEN_TYPE)
                producer.produce(_TOPIC, token, f"heartbeat/{partition}".encode(), partition)
            producer.poll(0)

    thread = Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _heartbeat(partition: int, now: int, count: int, digest: str) -> dict[str, Any]:
    says = {"partition": partition, "sequence": now, "at": now, "interval_ms": 3000, "count": count, "digest": digest}
    return {
        "iss": ISSUER,
        "jti": f"heartbeat/{partition}/{now}",
        "iat": now // 1000,
        "aud": [AUDIENCE],
        "sub_id": {"format": "opaque", "id": f"killswitch/{partition}"},
        "events": {_VERIFICATION: {"ext": says | {"jwks_sha256": "0" * 64}}},
    }


def _run(what: str, count: int, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.killswitch", what, str(count), *more]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _microseconds(call: Callable[[str, str], object], count: int) -> float:
    """The best of some rounds, of a loop that calls with the tenants and names of changing callers out of `count`; the
    loop's own time is taken off. The names were read from a request a moment ago, and the table by nobody."""

    def one(call: Callable[[str, str], object]) -> float:
        took = 0.0
        for first in range(0, _LOOPS, _AT_HAND):
            callers = [who(number * 7919 % count) for number in range(first, first + _AT_HAND)]
            began = time.process_time()
            for tenant, subject in callers:
                call(tenant, subject)
            took += time.process_time() - began
        return took / _LOOPS * 1e6

    return min(one(call) for _ in range(_REPEATS)) - min(one(lambda *_: None) for _ in range(_REPEATS))


def _check_here(count: int) -> dict[str, float]:
    verifier = CommandVerifier(KeyFile(Made(20_000).jwks), ISSUER)
    _, key, value = next(Made(20_000).records())
    pattern = verifier.verify(key, value)
    gc.collect()
    before = resident()
    clock = HeartbeatClock()
    table = RevocationTable(clock.now_ms)
    for number in range(count):
        tenant, subject = who(number)
        table.apply(
            # Texts of its own, as a command that was read has them.
            replace(
                pattern, key=record_key(tenant, "identity", subject), tenant=sys.intern(tenant), subject=subject,
                identity=subject, command_id=f"cmd-{number:032x}", incident_id=f"inc-{number:016x}",
                epoch=NOW_MS + number, finding_ids=(f"f-{number:032x}",), not_before=NOW_MS + number,
                expires_at=(pattern.expires_at or 0) + number, evidence_sha256=f"{number:064x}",
                reason_admin=f"{pattern.reason_admin} {number}",
            ),
            NOW_MS,
        )  # fmt: skip
    gc.collect()
    told = {"bytes": (resident() - before) / count}
    blocks = RevocationList({}, verifier, gateway="bench")
    blocks.table = table
    # As in service, where the time is that of the heartbeats.
    clock.heard(0, NOW_MS)
    plain = {command.subject: command for command in table.commands().values()}

    def denied(tenant: str, subject: str) -> Any:
        return blocks.check(subject, "cred", "session", tenant, "user")

    def allowed(tenant: str, _: str) -> Any:
        return blocks.check("nobody", "cred", "session", tenant, "user")

    if denied(*who(1)).allowed or not allowed(*who(1)).allowed:
        raise RuntimeError("the table says something else")
    told["lookup"] = _microseconds(lambda _, subject: plain.get(subject), count)
    return told | {"denied": _microseconds(denied, count), "allowed": _microseconds(allowed, count)}


def _verify_here(count: int) -> dict[str, float]:
    made = Made(count)
    verifier = CommandVerifier(KeyFile(made.jwks), ISSUER)
    records = [(key, value) for _, key, value in made.records()]
    [kid] = verifier.keys.kids
    key = verifier.keys.get(kid)

    def timed(call: Callable[[bytes, bytes], object], records: list[tuple[bytes, bytes]]) -> float:
        began = time.process_time()
        for one in records:
            call(*one)
        return (time.process_time() - began) / len(records) * 1e6

    def refused(key: bytes, value: bytes) -> None:
        try:
            verifier.verify(key, value)
        except Refused:
            return
        raise RuntimeError("garbage was taken for a command")

    signed = [(one.rpartition(b".")[0], one) for _, one in records]
    bare = [(head, decode_segment(one.rpartition(b".")[2])) for head, one in signed]
    return {
        "verify": timed(verifier.verify, records),
        "signature": timed(lambda head, signature: is_signed(head, signature, key), bare),
        "garbage": timed(refused, [(key, os.urandom(1500)) for key, _ in records]),
        "unsigned": timed(refused, [(key, b"eyJhbGciOiJub25lIn0." + value) for key, value in records]),
        "forged": timed(
            refused,
            [(key, head + b"." + value[-342:][::-1]) for (key, value), (head, _) in zip(records, signed, strict=True)],
        ),
    }


def _start_here(count: int, bootstrap: str, jwks: str) -> dict[str, float]:
    verifier = CommandVerifier(KeyFile(Path(jwks)), ISSUER)
    began = time.monotonic()
    with RevocationList({"bootstrap.servers": bootstrap}, verifier, gateway="bench", acks_topic=None) as blocks:
        if not blocks.ready.wait(_DEADLINE_S):
            raise TimeoutError("never ready")
        told = {
            "ready_s": time.monotonic() - began,
            "cpu_until_ready_s": time.process_time(),
            "verified_when_ready": len(blocks.table),
            "resident_when_ready_mb": resident() / 1e6,
        }
        print("ready:", json.dumps(told), file=sys.stderr, flush=True)
        asked = time.perf_counter()
        for number in range(0, count, max(1, count // 100)):
            tenant, subject = who(number)
            if blocks.check(subject, tenant=tenant).allowed:
                raise RuntimeError("a blocked caller was let through")
        told["check_when_ready_us"] = (time.perf_counter() - asked) / 100 * 1e6
        while blocks.stale:
            time.sleep(0.5)
        told["proven_s"] = time.monotonic() - began
        told["cpu_until_proven_s"] = time.process_time()
        told["resident_mb"] = resident() / 1e6
    return told


if __name__ == "__main__":
    what, count, *more = sys.argv[1:]
    if what == "check":
        measured = _check_here(int(count))
    elif what == "verify":
        measured = _verify_here(int(count))
    else:
        measured = _start_here(int(count), *more)
    print(json.dumps(measured))

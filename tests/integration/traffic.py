"""The stories that integration tests tell: ordinary use, then attacks."""

import heapq
import itertools
import json
import random
import threading
import time
from types import TracebackType
from typing import Any, ClassVar, Self

from confluent_kafka import KafkaError, Message, Producer

from schemas.times import format_millis
from schemas.usage import DENIED

HOUR = 3_600_000
THIEF = {"country": "RO", "lat": 44.43, "lon": 26.1, "asn": 9009, "ip": "203.0.113.7"}
HOME = {"country": "DE", "lat": 52.52, "lon": 13.4, "asn": 3320, "ip": "198.51.100.7"}
FAILOVER = {"country": "FR", "lat": 48.86, "lon": 2.35, "asn": 16276, "ip": "192.0.2.7"}
DELIVERED_S = 90.0


class Story:
    """Three identities with 26 hours of ordinary use, then a theft, a loop and a spike in the last minute."""

    def __init__(self, now: int) -> None:
        self.events: list[dict[str, Any]] = []
        people = (("key_stolen", "interactive"), ("agent_loop", "agent"), ("svc_spike", "interactive"))
        for hour in range(26, 0, -1):
            for minute in range(0, 50, 5):
                for name, workload in people:
                    self.call(name, now - hour * HOUR + minute * 60_000, workload=workload)
        for second in range(60, 0, -1):
            at = now - second * 1000
            for part in range(3):
                self.call("key_stolen", at + part * 300, 2500, 1500, workload="interactive", cost=0.06, **THIEF)
                self.call("svc_spike", at + part * 310 + 7, workload="interactive")
            self.call("agent_loop", at + 40, workload="agent", session="s-loop", fingerprint="again", tool="search")

    def call(
        self,
        subject: str,
        at: int,
        tokens_in: int = 900,
        tokens_out: int = 200,
        *,
        workload: str,
        cost: float = 0.002,
        session: str | None = None,
        fingerprint: str | None = None,
        tool: str | None = None,
        **place: Any,
    ) -> None:
        n = len(self.events)
        self.events.append({
            "specversion": "1.0", "type": "llm.usage.v1", "id": f"e{n}", "source": "gateway/test", "subject": subject,
            "time": format_millis(at),
            "data": {
                "tenant": "acme", "credential_id": f"cred_{subject}", "kind": "api_key", "workload": workload,
                "provider": "openai", "model": "gpt-5.1", "route": "/v1/chat/completions", "input_tokens": tokens_in,
                "output_tokens": tokens_out, "cost_usd": cost, "status": 200, "latency_ms": 900.0,
                "session_id": session or f"s{n}", "fingerprint": fingerprint or f"f{n}", "tool": tool,
                **(place or HOME),
            },
        })  # fmt: skip


class Member:
    """One identity of the crowd: what it does, and when its next misdeed begins (s)."""

    def __init__(self, tenant: str, role: str, number: int, begins: float) -> None:
        self.tenant = tenant
        self.role = role
        self.name = f"{tenant}-{role}{number}"
        self.workload = {"loop": "agent", "batch": "batch"}.get(role, "interactive")
        self.begins = begins


class Crowd:
    """Three tenants, each with thieves, loops, spikes and honest identities; the same for the same seed and seconds.

    Thefts and spikes come in waves, so that blocks are published, renewed and given back. Some deliveries are
    repeated, late, out of order, unreadable or from the future; one gateway's clock is 45 s slow; some calls fail, are
    answered 401, or name themselves; after a wave come calls that were denied on our own word.
    """

    ROLES = (("thief", 3), ("spike", 2), ("loop", 1), ("batch", 1), ("steady", 1))
    WAVE: ClassVar = {"thief": (90.0, 25.0), "spike": (80.0, 40.0), "loop": (45.0, 15.0)}
    """Seconds from the start of one wave to the next, and that a wave lasts."""
    DENIED_S = 20.0

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self._number = itertools.count()
        self._held: list[tuple[float, int, str, bytes]] = []
        """What is delivered later, by second."""
        self.members = [
            Member(tenant, role, number, self._random.uniform(5, 30))
            for tenant in ("acme", "birch", "cedar")
            for role, count in self.ROLES
            for number in range(count)
        ]

    def history(self, now: int) -> list[tuple[str, bytes]]:
        """A day and an hour of ordinary use before `now` (ms), as (key, value): before that, places say little."""
        moments = [now - 26 * HOUR + minute * 60_000 for minute in range(0, 25 * 60, 15)]
        return [
            (member.name, json.dumps(self._event(member, at + self._random.randrange(60_000))).encode())
            for at in moments
            for member in self.members
        ]

    def second(self, second: int, at: int) -> list[tuple[str, bytes]]:
        """What is delivered within the `second` (from 0) that begins at `at` (ms), as (key, value)."""
        chance = self._random.random
        for member in self.members:
            for event in self._calls(member, second, at):
                raw, due = json.dumps(event).encode(), second + chance()
                if chance() < 0.02:
                    self._hold(due + self._random.uniform(1, 20), member, raw)
                if chance() < 0.03:
                    due += self._random.uniform(0.5, 5)
                self._hold(due, member, raw)
        if chance() < 0.3:
            member = self._random.choice(self.members)
            self._hold(second, member, self._random.choice((b"not json", b'{"id":"x"}', b"\xff\xfe", b"[" * 100_000)))
        out = []
        while self._held and self._held[0][0] < second + 1:
            _, _, name, raw = heapq.heappop(self._held)
            out.append((name, raw))
        return out

    def _calls(self, member: Member, second: int, at: int) -> list[dict[str, Any]]:
        chance, calls = self._random.random, []
        if chance() < 0.12:
            place = FAILOVER if member.tenant == "birch" and 30 <= second < 50 else HOME
            calls.append(self._event(member, at + self._random.randrange(1000), **place))
        every, lasts = self.WAVE.get(member.role, (0.0, 0.0))
        since = second - member.begins
        if every and 0 <= since % every < lasts and since >= 0:
            wave = int(since // every)
            for part in range({"thief": 3, "spike": 4, "loop": 3}[member.role]):
                moment = at + part * 240 + self._random.randrange(200)
                calls.append({
                    "thief": lambda at: self._event(
                        member, at, input_tokens=2500, output_tokens=1500, cost_usd=0.06,
                        credential_id=f"cred_{member.name}_{wave}", **THIEF,
                    ),
                    "spike": lambda at: self._event(member, at),
                    "loop": lambda at: self._event(
                        member, at, session_id=f"{member.name}-{wave}", fingerprint=f"again-{wave}", tool="search"
                    ),
                }[member.role](moment))  # fmt: skip
        elif every and lasts <= since % every < lasts + self.DENIED_S and since >= 0:
            calls.append(self._event(member, at + self._random.randrange(1000), status=403, error=DENIED))
        return calls

    def _event(self, member: Member, at: int, **data: Any) -> dict[str, Any]:
        n, chance = next(self._number), self._random.random()
        late = 120_000 if chance < 0.005 else 20 * 60_000 if chance < 0.007 else -HOUR if chance < 0.009 else 0
        slow = 45_000 if member.tenant == "cedar" else 0
        odd: dict[str, Any] = {}
        if 0.01 < chance < 0.03:
            odd = {"status": self._random.choice((401, 429, 500)), "error": "failed"}
        elif 0.03 < chance < 0.04:
            odd = {"identity_trust": "request_body"}
        elif 0.04 < chance < 0.06:
            odd = {"input_tokens": None, "output_tokens": None}
        return {
            "specversion": "1.0", "type": "llm.usage.v1", "id": f"{self._seed}-{n}",
            "source": f"gateway/{member.tenant}", "subject": member.name, "time": format_millis(at - late - slow),
            "data": {
                "tenant": member.tenant, "credential_id": f"cred_{member.name}", "workload": member.workload,
                "model": "gpt-5.1", "input_tokens": 700 + n % 400, "output_tokens": 150 + n % 90,
                "cost_usd": 0.002, "status": 200, "session_id": f"s{n // 40}", "fingerprint": f"f{n}",
                **HOME, **data, **odd,
            },
        }  # fmt: skip

    def _hold(self, due: float, member: Member, raw: bytes) -> None:
        heapq.heappush(self._held, (due, next(self._number), member.name, raw))


class Traffic:
    """Publishes a crowd's history and then its calls as time goes by, in bursts, until the context is left; and now
    and then something on llm.signals that is no signal.

    With a `pace` above 1, `pace` seconds of the crowd's calls go by in each second, and the first `behind` seconds ago.
    """

    def __init__(self, bootstrap: str, seed: int, pace: int = 1, behind: int = 0) -> None:
        self._crowd = Crowd(seed)
        self._random = random.Random(seed)
        self._pace = pace
        self._first = int(time.time() - behind) * 1000
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5, "log_level": 0,
            "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000,
        })  # fmt: skip
        self._failed: list[KafkaError] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        left = self._producer.flush(DELIVERED_S)
        self._producer.close()
        if kind is None:
            assert not left
            assert not self._failed, self._failed[0]

    def _publish(self) -> None:
        self._send(self._crowd.history(self._first))
        began, seconds = time.monotonic(), itertools.count()
        burst: list[tuple[str, bytes]] = []
        for passed in itertools.count(1):
            if self._done.wait(max(0.0, began + passed - time.monotonic())):
                break
            for second in itertools.islice(seconds, self._pace):
                burst += self._crowd.second(second, self._first + second * 1000)
            if self._random.random() < 0.1:
                self._producer.produce("llm.signals", b"no signal", b"acme", on_delivery=self._delivered)
            if self._random.random() < 0.6:
                self._send(burst)
                burst = []

    def _send(self, events: list[tuple[str, bytes]]) -> None:
        for key, raw in events:
            self._producer.produce("llm.usage", raw, key, on_delivery=self._delivered)
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(error)

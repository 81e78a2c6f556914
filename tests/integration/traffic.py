"""The story that integration tests tell: ordinary use, then three attacks at once."""

from typing import Any

from schemas.times import format_millis

HOUR = 3_600_000
THIEF = {"country": "RO", "lat": 44.43, "lon": 26.1, "asn": 9009, "ip": "203.0.113.7"}
HOME = {"country": "DE", "lat": 52.52, "lon": 13.4, "asn": 3320, "ip": "198.51.100.7"}


class Story:
    """Three identities with ten hours of ordinary use, then a theft, a loop and a spike in the last minute."""

    def __init__(self, now: int) -> None:
        self.events: list[dict[str, Any]] = []
        people = (("key_stolen", "interactive"), ("agent_loop", "agent"), ("svc_spike", "interactive"))
        for hour in range(10, 0, -1):
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

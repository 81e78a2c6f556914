"""A real nginx, Envoy and Caddy with the configurations of deploy/, three clients each, and the whole of tripswitch.

Claimed: a key that runs in a loop at the one is cut off at all, with the reason, while the others go on undisturbed;
a stream that was let in before goes on, because such a proxy asks before a call only; a person gives the key back.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from proxies import PROXIES, Proxies, proxies
from workers import Road, wait_until

OWNERS = {"sk-agent": "runaway-agent", "sk-bot": "support-bot", "sk-report": "nightly-report"}
VICTIM = "sk-agent"
PAUSE_S = {VICTIM: 0.1}
AWAY = {"nginx": 503, "envoy": 503, "caddy": 502}
STREAMED = 250
"""Events of a long stream, ten a second: longer than it takes to notice and to block."""


def call(port: int, key: str | None, prompt: str, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and JSON of one completion."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        body = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": prompt}]})
        authorization = {} if key is None else {"Authorization": f"Bearer {key}"}
        connection.request("POST", "/v1/chat/completions", body, authorization | headers)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, json.loads(response.read() or b"{}")


class Client(threading.Thread):
    """Calls with one key until told to stop; `statuses` in order. The victim asks the same thing again and again."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__(name=f"client-{key}-{port}")
        self._port, self._key = port, key
        self._stop_asked = threading.Event()
        self.statuses: list[int] = []

    def run(self) -> None:
        while not self._stop_asked.wait(PAUSE_S.get(self._key, 0.5)):
            prompt = "again" if self._key == VICTIM else f"{self._key} asks for the {len(self.statuses)}th time"
            self.statuses.append(call(self._port, self._key, prompt)[0])

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(40)


class Stream(threading.Thread):
    """One streamed completion, read to its end."""

    def __init__(self, port: int) -> None:
        super().__init__(name=f"stream-{port}")
        self._port = port
        self.begun = threading.Event()
        self.lines: list[bytes] = []

    def run(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            body = {"messages": [{"role": "user", "content": "at length"}], "stream": True, "max_tokens": STREAMED}
            authorization = {"Authorization": f"Bearer {VICTIM}"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), authorization)
            response = connection.getresponse()
            assert response.status == 200
            for line in response:
                self.lines.append(line.strip())
                self.begun.set()


@pytest.fixture(scope="module")
def attacked(road: Road) -> Iterator[tuple[Road, Proxies]]:
    """detect and decide run, and the proxies let everybody in."""
    road.cli("init")
    for name in ("detect", "decide"):
        road.start(name)
    wait_until(lambda: all(worker.restored() for worker in road.workers), "detect and decide own partitions", road)
    with proxies(road.folder, road.environment, OWNERS) as at:
        for port in at.guards.values():
            wait_until(lambda port=port: ready(port), "a guard knows the blocks", road)
        yield road, at


def ready(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200


def test_a_looping_key_is_cut_off_at_all_and_given_back(attacked: tuple[Road, Proxies]) -> None:
    road, at = attacked
    streams = {name: Stream(port) for name, port in at.ports.items()}
    for stream in streams.values():
        stream.start()
        assert stream.begun.wait(30)
    others = [Client(port, key) for port in at.ports.values() for key in OWNERS if key != VICTIM]
    # The attack is at nginx alone; the others' clients of the same key are quiet.
    attack = Client(at.ports["nginx"], VICTIM)
    for client in (attack, *others):
        client.start()
    wait_until(lambda: 403 in attack.statuses, "nginx cuts the key off", road)
    for name, port in at.ports.items():
        wait_until(lambda port=port: call(port, VICTIM, "once")[0] == 403, f"{name} cuts the key off", road)
    attack.stop()
    first = attack.statuses.index(403)
    assert set(attack.statuses[:first]) == {200}
    assert set(attack.statuses[first:]) == {403}

    answers = {name: call(port, VICTIM, "why") for name, port in at.ports.items()}
    for status, headers, body in answers.values():
        error = body["error"]
        assert (status, error["type"], error["action"]) == (403, "tripswitch_denied", "suspend")
        assert "paused automatically" in error["message"]
        assert headers["x-tripswitch-incident"] == error["incident_id"]
        assert headers["content-type"].startswith("application/json")
    assert len({body["error"]["command_id"] for _, _, body in answers.values()}) == 1

    # Let in before the block: nobody asks again, and it goes on to its end.
    assert all(stream.is_alive() for stream in streams.values())
    for stream in streams.values():
        stream.join(60)
        assert stream.lines.count(b"data: [DONE]") == 1
        assert sum(line.startswith(b'data: {"n"') for line in stream.lines) == STREAMED

    road.cli("restore", "acme/runaway-agent", "--reason", "the agent was mended")
    for name, port in at.ports.items():
        wait_until(lambda port=port: call(port, VICTIM, "mended")[0] == 200, f"{name} gives the key back", road)
    for client in others:
        client.stop()
        assert len(client.statuses) > 10
        assert set(client.statuses) == {200}


def test_all_guards_acknowledged_the_block_and_the_restore(attacked: tuple[Road, Proxies]) -> None:
    road, _ = attacked

    def acknowledged() -> set[tuple[str, str]]:
        records = [json.loads(record.value()) for record in road.read("llm.killswitch.acks")]
        return {(record["metadata"]["product"]["vendor_name"], record["unmapped"].get("action")) for record in records}

    told = {(guard, action) for guard in ("nginx-1", "envoy-1", "caddy-1") for action in ("suspend", "restore")}
    wait_until(lambda: told <= acknowledged(), "acknowledgements of all guards", road)


@pytest.mark.parametrize("proxy", PROXIES)
def test_who_the_caller_is_cannot_be_said_by_the_caller(attacked: tuple[Road, Proxies], proxy: str) -> None:
    road, at = attacked
    road.cli("suspend", "acme/nightly-report", "--reason", "as its owner asked")
    port = at.ports[proxy]
    forged = {"X-Tripswitch-Identity": "support-bot", "X-Tripswitch-Tenant": "globex", "X-Tripswitch-Model": "dear"}
    wait_until(lambda: call(port, "sk-report", "p", **forged)[0] == 403, "the block", road)
    status, _, body = call(port, "sk-bot", "p", **forged)
    assert (status, body["told"]) == (200, {"Identity": "support-bot", "Tenant": "acme", "Model": None})


@pytest.mark.parametrize("proxy", PROXIES)
def test_what_cannot_be_judged_gets_a_clear_answer(attacked: tuple[Road, Proxies], proxy: str) -> None:
    port = attacked[1].ports[proxy]
    status, _, body = call(port, None, "p")
    assert (status, body["error"]["type"]) == (401, "no_credential")
    status, _, body = call(port, "sk-bot", "p", **{"X-Api-Key": "sk-report"})
    assert (status, body["error"]["type"]) == (400, "ambiguous_caller")


@pytest.mark.parametrize("proxy", PROXIES)
def test_over_a_rate_the_caller_learns_when_to_come_back(attacked: tuple[Road, Proxies], proxy: str) -> None:
    road, at = attacked
    road.cli("throttle", "acme/support-bot", "--reason", "as its owner asked")
    last: dict[str, Any] = {}

    def slowed() -> bool:
        status, last["headers"], last["body"] = call(at.ports[proxy], "sk-bot", "p")
        return status == 429

    wait_until(slowed, "the throttle", road)
    assert int(last["headers"]["retry-after"]) >= 1
    assert last["body"]["error"]["action"] == "throttle"
    road.cli("restore", "acme/support-bot", "--reason", "enough")
    wait_until(lambda: call(at.ports[proxy], "sk-bot", "p")[0] == 200, "the restore", road)


@pytest.mark.parametrize("proxy", PROXIES)
def test_without_its_guard_a_proxy_lets_nobody_in(attacked: tuple[Road, Proxies], proxy: str) -> None:
    at = attacked[1]
    assert call(at.ports[proxy], "sk-bot", "p")[0] == 200
    assert at.stop_guard(proxy) == 0
    status, _, _ = call(at.ports[proxy], "sk-bot", "p")
    assert status == AWAY[proxy]

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tripswitch_gateway import Command
from tripswitch_gateway.callers import Caller
from tripswitch_gateway.live import LiveCalls, StreamCut, is_on

ALICE = Caller("alice", "acme", "cred_1", "s_1", "u_1")
Make = Callable[..., Command]


@pytest.fixture
def command(verifier: Any, signer: Any, claims: Any) -> Make:
    def make(action: str = "suspend", scope: str = "identity", subject: str = "alice", **more: Any) -> Command:
        made: Command = verifier.verify(
            *signer.record(claims(action, scope, subject, **({"identity": "alice"} | more)))
        )
        return made

    return make


@pytest.mark.parametrize(
    ("scope", "subject", "more", "hit"),
    [
        ("identity", "alice", {}, True),
        ("identity", "bob", {"identity": "bob"}, False),
        ("identity", "alice", {"tenant": "umbrella"}, False),
        ("credential", "cred_1", {}, True),
        ("credential", "cred_2", {}, False),
        ("session", "s_1", {}, True),
        ("session", "s_1", {"identity": None}, True),
        ("session", "s_1", {"identity": "bob"}, False),
        ("end_user", "u_1", {}, True),
        ("end_user", "u_2", {}, False),
        ("tenant", "acme", {}, True),
        ("tenant", "umbrella", {"tenant": "umbrella"}, False),
    ],
)
def test_whom_a_command_is_on(command: Make, scope: str, subject: str, more: dict[str, Any], hit: bool) -> None:
    calls = LiveCalls()
    call = calls.enter(ALICE)
    made = command("revoke", scope, subject, **more)
    calls.on_change(made)
    assert call.command is (made if hit else None)
    assert (is_on(made, ALICE), calls.cut) == (hit, hit)


@pytest.mark.parametrize(
    ("action", "in_flight", "hit"),
    [
        ("suspend", "abort", True),
        ("revoke", "abort", True),
        ("suspend", "drain", False),
        ("throttle", "abort", False),
        ("downgrade", "abort", False),
        ("restore", "abort", False),
    ],
)
async def test_what_ends_a_call_under_way(command: Make, action: str, in_flight: str, hit: bool) -> None:
    calls = LiveCalls()
    call = calls.enter(ALICE)
    calls.on_change(command(action, in_flight=in_flight))
    if hit:
        with pytest.raises(StreamCut):
            async with call.interruptible():
                pytest.fail("it goes on")
    else:
        async with call.interruptible():
            await asyncio.sleep(0)


async def test_a_call_that_waits_is_woken_from_another_thread(command: Make) -> None:
    calls = LiveCalls()
    call, other = calls.enter(ALICE), calls.enter(Caller("bob", "acme"))
    cleaned = []

    async def wait(live: Any) -> None:
        async with live.interruptible():
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(live)

    waiting = [asyncio.create_task(wait(live)) for live in (call, other)]
    await asyncio.sleep(0)
    threading.Thread(target=calls.on_change, args=(command(),)).start()
    with pytest.raises(StreamCut) as cut:
        await asyncio.wait_for(waiting[0], 20)
    assert cleaned == [call]
    assert (cut.value.status_code, cut.value.type, cut.value.param) == (403, "tripswitch_denied", None)
    assert cut.value.message == str(cut.value) == "This key was paused automatically."
    assert cut.value.headers == {"X-Tripswitch-Incident": "inc-1"}
    assert not waiting[1].done()
    # The other one ends as its own server has it.
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]


async def test_an_end_that_is_not_ours_is_left_alone(command: Make) -> None:
    calls = LiveCalls()
    call = calls.enter(ALICE)
    with pytest.raises(TimeoutError, match="the provider's"):
        async with call.interruptible():
            raise TimeoutError("the provider's")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), call.interruptible():
            await asyncio.Event().wait()
    # A command between two chunks is found at the next one, even twice.
    calls.on_change(command())
    for _ in range(2):
        with pytest.raises(StreamCut):
            async with call.interruptible():
                await asyncio.Event().wait()


def test_calls_that_are_left_or_lost_are_forgotten(command: Make) -> None:
    calls = LiveCalls()
    left, lost = calls.enter(ALICE), calls.enter(ALICE)
    assert len(calls) == 2
    calls.leave(left)
    calls.leave(left)
    assert len(calls) == 1
    del lost
    assert len(calls) == 0
    calls.on_change(command())
    assert (left.command, calls.cut) == (None, 0)


async def test_a_loop_that_has_ended_is_no_error(command: Make) -> None:
    calls = LiveCalls()
    call = calls.enter(ALICE)

    def serve() -> None:
        async def once() -> None:
            async with call.interruptible():
                pass

        asyncio.run(once())

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    calls.on_change(command())
    assert call.command is not None

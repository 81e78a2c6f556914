"""Calls under way, and how a command ends them: those that it hits are woken, even while they wait for the next chunk.

```python
calls = LiveCalls()
blocks = RevocationList(kafka, verifier, gateway="eu-1", on_change=calls.on_change)

call = calls.enter(caller)  # before the check, so that no command falls between the two
try:
    async with call.interruptible():  # raises StreamCut
        ...
finally:
    calls.leave(call)
```
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from threading import Lock
from weakref import WeakSet

from tripswitch_gateway import DENIED, Command, Decision, denial_answer
from tripswitch_gateway.callers import Caller


class StreamCut(Exception):
    """A command ended this call while it was under way.

    ``status_code``, ``headers`` and ``body`` are those of a denial; ``message``, ``type`` and ``param`` are what a
    gateway that speaks OpenAI's format makes an error of.
    """

    type = DENIED
    param = None

    def __init__(self, command: Command) -> None:
        self.command = command
        self.status_code, self.headers, self.body = denial_answer(Decision(False, command.http_status, command))
        self.message = command.reason_user or "This call was stopped."
        super().__init__(self.message)


class LiveCall:
    """One call under way. ``command`` is what ended it, None while nothing has."""

    __slots__ = ("__weakref__", "_loop", "_timer", "caller", "command")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.command: Command | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Timeout | None = None

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """What is awaited in this block is cancelled when a command ends the call. Not to be nested.

        Raises `StreamCut` then, and also when the call had been ended before.
        """
        self._loop = asyncio.get_running_loop()
        try:
            # A timeout that has no time yet: the standard library's own way to cancel a task from outside and to tell
            # that cancellation from anybody else's.
            async with asyncio.timeout(None) as self._timer:
                # Looked at after the timer is there: whoever sets it later finds the timer.
                if self.command is not None:
                    raise StreamCut(self.command)
                yield
        except TimeoutError:
            if self.command is None or self._timer is None or not self._timer.expired():
                raise  # somebody else's
            raise StreamCut(self.command) from None
        finally:
            self._timer = None

    def cut(self, command: Command) -> None:
        """End the call. From any thread."""
        self.command = command
        if self._loop is not None:
            # Its loop may have been closed in the meantime, and the call with it.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._timer is not None and self._timer.when() is None:
            self._timer.reschedule(asyncio.get_running_loop().time())


class LiveCalls:
    """The calls under way in this process. Safe to use from several threads.

    Calls are held weakly: one that nobody left, because its request vanished, goes when its owner goes.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._calls: dict[str, WeakSet[LiveCall]] = {}
        self.cut = 0
        """How many calls were ended by a command."""

    def enter(self, caller: Caller) -> LiveCall:
        """A call by ``caller`` begins."""
        call = LiveCall(caller)
        with self._lock:
            calls = self._calls.get(caller.tenant)
            if calls is None:
                calls = self._calls[caller.tenant] = WeakSet()
            calls.add(call)
        return call

    def leave(self, call: LiveCall) -> None:
        """The call is over."""
        with self._lock:
            calls = self._calls.get(call.caller.tenant)
            if calls is not None:
                calls.discard(call)
                if not calls:
                    del self._calls[call.caller.tenant]

    def on_change(self, command: Command) -> None:
        """End the calls that ``command`` blocks and does not let drain. For `RevocationList`'s ``on_change``."""
        if command.action not in ("suspend", "revoke") or command.in_flight != "abort":
            return
        with self._lock:
            hit = [call for call in self._calls.get(command.tenant, ()) if is_on(command, call.caller)]
            self.cut += len(hit)
        for call in hit:
            call.cut(command)

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._calls.values()))


def is_on(command: Command, caller: Caller) -> bool:
    """Whether ``command`` is on ``caller``; a session is blocked for the identity that the command names only."""
    if command.tenant != caller.tenant:
        return False
    if command.scope == "session":
        return command.subject == caller.session and command.identity in (None, caller.identity)
    return bool(command.subject == getattr(caller, command.scope))

"""Plays the demo: starts everything, tells the story, asks ClickHouse, stops everything."""

import asyncio
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from schemas.topics import USAGE
from sinks.clickhouse import ClickHouseSink
from sinks.keys import new_keys
from sinks.slack.fake import FakeSlack, Message, render_text
from streams.demo.board import Board, Suspect
from streams.demo.broker import PARTITIONS, Broker, Lags
from streams.demo.gateway import gateway_config
from streams.demo.history import read_history
from streams.demo.processes import Processes
from streams.demo.questions import Answered, ask
from streams.demo.screen import View
from streams.demo.story import ATTACKS, GIVE_UP_SECONDS, REASON, RESTORED, Attack
from streams.demo.traffic import Clients
from streams.demo.watch import Watch, take_down
from streams.policy import find_policy, read_policy

_WORKERS = ("detect", "decide", "archive", "notify")
_BEHIND_MOST = 4_000
"""Records of a partition that a group may be behind before the clients wait."""
_SLICE = 500
_FIRST = 200
_STEP = 0.15
_READY_SECONDS = 90.0
_COMPILED_SECONDS = 900.0
"""A minute or two where nothing else runs."""
_CAUGHT_UP_SECONDS = 30.0
_RESTORE_SECONDS = 20.0
_STAYS_SECONDS = 3.0
_TOKEN, _CHANNEL = "xoxb-demo", "C0DEMO"


class TooSlow(RuntimeError):
    """Something did not happen within its time; says what."""


class Play:
    """One run of the demo. `rows` (of usage events in ClickHouse), `answers`, `seconds` (in all) and
    `seconds_of_events` (from the first one's publication until all are in ClickHouse) come at its end."""

    def __init__(self, view: View, folder: Path) -> None:
        self._folder = folder
        self._history = read_history()
        pasts = self._history.pasts
        suspects = [
            Suspect(attack, past.tenant, past.busiest, past.busiest_tokens)
            for attack in ATTACKS
            for past in (pasts[attack.identity],)
        ]
        self.board = Board(suspects, view.tell)
        self.answers: list[Answered] = []
        self.rows = 0
        self.identities = len(pasts)
        self.seconds = self.seconds_of_events = 0.0
        self.slack_messages: int | None = 0
        self._view = view
        self._measured = 0
        self._room = asyncio.Event()
        self._room.set()

    async def run(self) -> None:
        """Plays it through. Whatever happens, nothing that was started is left behind.

        Raises:
            Died: a process ended on its own.
            TooSlow: the apps did not start, or did not catch up.
            PolicyError, SettingsError: the user's policy can't be used.
        """
        policy = find_policy().resolve()
        read_policy(policy)
        slack = FakeSlack(token=_TOKEN, channel=_CHANNEL, on_message=self._slack_said)
        with Broker() as broker:
            keys = self._folder / "signing.pem", self._folder / "jwks.json"
            new_keys(*keys)
            clickhouse = f"chdb://{self._folder}/clickhouse"
            self._processes = Processes(
                self._folder,
                {
                    "KAFKA_BOOTSTRAP": broker.address,
                    "KAFKA_PARTITIONS": str(PARTITIONS),
                    "KAFKA_TRANSACTIONS": "false",
                    "CLICKHOUSE_URL": clickhouse,
                    "TRIPSWITCH_SIGNING_KEY": str(keys[0]),
                    "TRIPSWITCH_JWKS": str(keys[1]),
                    "TRIPSWITCH_ISSUER": "https://tripswitch.invalid/demo",
                    "TRIPSWITCH_POLICY": str(policy),
                },
            )
            lags = Lags(broker.address)
            loop = asyncio.get_running_loop()

            def deliver(topic: str, value: bytes) -> None:
                loop.call_soon_threadsafe(take_down, self.board, topic, value)

            watch = Watch(broker.address, deliver)
            port = _free_port()
            clients = Clients(f"http://127.0.0.1:{port}", self.board, self._room)
            measuring = asyncio.create_task(self._measure(lags))
            try:
                await slack.start()
                if _real_slack():
                    self._view.slack(f"Messages go to your channel {os.environ['SLACK_CHANNEL']}.", updated=False)
                self._start(port, _slack_settings(slack))
                options = {"bootstrap.servers": broker.address, "log_level": 0}
                producer = Producer({**options, "partitioner": "murmur2_random", "linger.ms": 5})
                await self._beside(self._warm_up(clients, producer))
                await self._beside(self._live(clients))
                await self._beside(self._settle(clients))
                await self._beside(asyncio.to_thread(self._ask, clickhouse))
                self.slack_messages = None if _real_slack() else len(slack.messages)
                self._view.phase("done")
                self._view.refresh(self.board)
            finally:
                # No await before the processes are gone: a second Ctrl-C must find nothing to interrupt.
                self._processes.close()
                measuring.cancel()
                watch.close()
                with suppress(asyncio.CancelledError):
                    await measuring
                lags.close()
                await clients.close()
                await slack.stop()

    # -- the acts -------------------------------------------------------------------------------------------------

    def _start(self, port: int, slack: dict[str, str]) -> None:
        self._view.phase("starting five processes")
        config = self._folder / "gateway.json"
        config.write_text(json.dumps(gateway_config(self._history)))
        start = self._processes.start
        for name in _WORKERS:
            start(name, "-m", "streams", "run", name, settings=slack if name == "notify" else None)
        start("gateway", "-m", "tripswitch_gateway.demo", "--port", str(port), "--config", str(config))

    async def _warm_up(self, clients: Clients, producer: Producer) -> None:
        """Waits until everything is ready, and publishes what the identities did before."""
        board, total = self.board, len(self._history)
        self._view.phase("warming up: the workers start; detect compiles its detectors first (once per machine)")
        await _until(self._all_joined, _COMPILED_SECONDS, "starting the workers")
        past = self._history.until(int(time.time() * 1000))
        self._published_from = time.monotonic()
        self._publish(producer, islice(past, _FIRST))
        self._view.phase("warming up: the first calls go through")
        await _until(
            lambda: board.lag.get("archive") == board.lag.get("detect") == 0, _READY_SECONDS, "detect and archive"
        )
        end = time.monotonic() + _READY_SECONDS
        while not await clients.ready():
            if time.monotonic() > end:
                raise TooSlow(f"the gateway was not ready within {_READY_SECONDS:g} s")
            await asyncio.sleep(_STEP)
        self._view.tell("ready: detect, decide, archive and notify run, the gateway serves", "")
        self._view.phase(f"publishing the past: {total:,} calls of {len(self._history.pasts)} identities")
        while records := list(islice(past, _SLICE)):
            await self._room.wait()
            self._publish(producer, records)
            await asyncio.sleep(0.01)
        await self._until_caught_up("reading the past")
        self._view.tell(f"{board.published:,} past calls read: the detectors know who is usual where, and how much", "")

    async def _live(self, clients: Clients) -> None:
        """The traffic, the attacks and the giving back."""
        self._view.phase("live: everybody at work, through the gateway")
        honest = asyncio.create_task(clients.honest(self._history))
        try:
            async with asyncio.TaskGroup() as story:
                for attack in ATTACKS:
                    story.create_task(self._attack(clients, attack))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            honest.cancel()
            with suppress(asyncio.CancelledError):
                await honest

    async def _attack(self, clients: Clients, attack: Attack) -> None:
        past, suspect = self._history.pasts[attack.identity], self.board.suspects[attack.name]
        await asyncio.sleep(attack.starts)
        self._view.tell(f"ATTACK  {attack.title}: {attack.identity}, {attack.told}", "bold red")
        await clients.attack(attack, past)
        if suspect.denied_at is None:
            self._view.tell(f"MISSED  {attack.title}: not denied within {GIVE_UP_SECONDS:g} s", "bold red")
            return
        if attack.name == RESTORED:
            await self._restore(clients, attack)

    async def _restore(self, clients: Clients, attack: Attack) -> None:
        """A person gives the identity its access back, with the real command; its next call shows it."""
        past, suspect = self._history.pasts[attack.identity], self.board.suspects[attack.name]
        target = f"{past.tenant}/{past.identity}"
        self._view.tell(f'$ tripswitch restore {target} --reason "{REASON}"', "cyan")
        self._processes.start("restore", "-m", "streams", "restore", target, "--reason", REASON, ends=True)
        await _until(lambda: self._processes.finished("restore"), _RESTORE_SECONDS, "the restore")
        answer = await clients.until_answered(past, attack.session, _RESTORE_SECONDS)
        if answer is not None:
            suspect.restored_at = answer.at
            # Long enough to see that it stays so.
            await asyncio.sleep(_STAYS_SECONDS)
        if suspect.restored_at is not None:
            self._view.tell(f"RESTORED {past.identity}: its calls answer 200 again", "bold cyan")

    async def _settle(self, clients: Clients) -> None:
        """Ends the traffic, lets everybody read to the end, and stops the processes: the gateway first."""
        self._view.phase("the traffic ends; ClickHouse gets the rest")
        await clients.close()
        self._processes.ask_to_stop(["gateway"])
        await _until(lambda: self._processes.gone("gateway"), _CAUGHT_UP_SECONDS, "stopping the gateway")
        await self._until_caught_up("the archive")
        self.seconds_of_events = time.monotonic() - self._published_from
        # The embedded engine lets one process in at a time.
        self._processes.ask_to_stop(_WORKERS)
        await _until(lambda: self._processes.gone("archive"), _CAUGHT_UP_SECONDS, "stopping the archive")

    def _ask(self, clickhouse: str) -> None:
        with ClickHouseSink(clickhouse) as sink:
            self.rows, self.answers = ask(sink)

    # -- what goes on beside --------------------------------------------------------------------------------------

    async def _beside(self, act: Coroutine[Any, Any, None]) -> None:
        """Carries an act out, with an eye on the processes and the screen."""
        task = asyncio.ensure_future(act)
        try:
            while not task.done():
                self._processes.check()
                self._view.refresh(self.board)
                await asyncio.wait({task}, timeout=_STEP)
            task.result()
        finally:
            task.cancel()

    async def _measure(self, lags: Lags) -> None:
        """Keeps the lag of every group, and opens and shuts the room for the clients by it."""
        while True:
            lag = await asyncio.to_thread(lags.read)
            self.board.lag = lag
            self._measured += 1
            if max(lag.values()) > _BEHIND_MOST:
                self._room.clear()
            else:
                self._room.set()
            await asyncio.sleep(_STEP)

    async def _until_caught_up(self, what: str) -> None:
        """Returns when no group is behind. The measurement under way may have begun before what is to be read came."""
        fresh = self._measured + 2
        await _until(lambda: self._measured >= fresh and not any(self.board.lag.values()), _CAUGHT_UP_SECONDS, what)

    def _all_joined(self) -> bool:
        """Whether every worker has said that it has its partitions."""
        return all(f"{name}: ready" in self._processes.log(name).read_text(errors="replace") for name in _WORKERS)

    def _publish(self, producer: Producer, records: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in records:
            producer.produce(USAGE, value, key)
            self.board.published += 1
        producer.flush()

    def _slack_said(self, message: Message, updated: bool) -> None:
        self._view.slack(render_text(message), updated=updated)


async def _until(told: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns when `told()` is true. Raises TooSlow after `seconds`."""
    end = time.monotonic() + seconds
    while not told():
        if time.monotonic() > end:
            raise TooSlow(f"{what}: not done within {seconds:g} s")
        await asyncio.sleep(_STEP)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _real_slack() -> bool:
    return bool(os.environ.get("SLACK_BOT_TOKEN") and os.environ.get("SLACK_CHANNEL"))


def _slack_settings(slack: FakeSlack) -> dict[str, str]:
    """Slack itself where the environment names it; else the one in this process."""
    if _real_slack():
        return {name: value for name, value in os.environ.items() if name.startswith("SLACK_")}
    return {"SLACK_BOT_TOKEN": _TOKEN, "SLACK_CHANNEL": _CHANNEL, "SLACK_API_URL": slack.url}


def play(view: View) -> Play:
    """Plays the demo. A Ctrl-C or a SIGTERM ends it early, with KeyboardInterrupt."""
    with tempfile.TemporaryDirectory(prefix="tripswitch-demo-") as folder:
        started = time.monotonic()
        result = asyncio.run(_interruptible(view, Path(folder)))
        result.seconds = time.monotonic() - started
        return result


async def _interruptible(view: View, folder: Path) -> Play:
    made = Play(view, folder)
    task = asyncio.ensure_future(made.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    return made

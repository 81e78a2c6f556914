"""The clients: everybody in the sample at work, and the three attackers. All of them call the gateway over HTTP."""

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from itertools import count

import aiohttp

from schemas.usage import DENIED
from streams.demo.board import Answer, Board, Denial
from streams.demo.gateway import key_of
from streams.demo.history import History, Past
from streams.demo.story import ATTACKS, GIVE_UP_SECONDS, Attack, cost

PACE = 1.5
"""Times its own busiest minute: how fast each identity of the sample calls."""
OWNERS_PACE = 0.5
"""The same of the attacked identities' owners."""
_PATH = "/v1/chat/completions"
_CALLS_PER_SESSION = 6
_RETRY_SECONDS = 0.2


class Clients:
    """Whoever calls the gateway. Nobody calls while `room` is not set: the broker would lose what was not read yet."""

    def __init__(self, url: str, board: Board, room: asyncio.Event, seed: int = 1) -> None:
        self._url = url
        self._board = board
        self._room = room
        self._random = random.Random(seed)
        self._numbers = count(1)
        self._calls: set[asyncio.Task[Answer | None]] = set()
        self._closing = False
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64), timeout=aiohttp.ClientTimeout(total=10.0)
        )

    async def close(self) -> None:
        """Waits for the calls under way; none begins any more."""
        self._closing = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=10.0)
        await self._http.close()

    async def ready(self) -> bool:
        """Whether the gateway has read the kill switch and serves."""
        try:
            async with self._http.get(f"{self._url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def honest(self, history: History) -> None:
        """Everybody's ordinary calls, at random moments, until cancelled."""
        pasts = [past for past in history.pasts.values() if past.calls]
        attacked = {attack.identity for attack in ATTACKS}
        weights = [past.busiest * (OWNERS_PACE if past.identity in attacked else PACE) for past in pasts]
        per_second = sum(weights) / 60
        due = time.monotonic()
        while True:
            due += self._random.expovariate(per_second)
            await self._pause(due)
            due = max(due, time.monotonic() - 1.0)
            self._begin(self.one(self._random.choices(pasts, weights)[0]))

    async def attack(self, attack: Attack, past: Past) -> None:
        """One attack, from its start until the attacker gives up."""
        suspect = self._board.suspects[attack.name]
        due = begun = time.monotonic()
        while time.monotonic() - begun < GIVE_UP_SECONDS:
            if suspect.denied_at is not None and time.time() - suspect.denied_at > attack.persists:
                return
            self._begin(self._bad(attack, past))
            due += self._random.uniform(0.8, 1.2) / attack.per_second
            await self._pause(due)

    async def one(self, past: Past, session: str | None = None) -> Answer | None:
        """One ordinary call: the size, model and place of one that the identity made before, and a new prompt."""
        number = next(self._numbers)
        said = self._random.choice(past.calls).data
        answer = await self._post(
            key_of(past.identity),
            said.model,
            (said.input_tokens or 0, said.output_tokens or 0),
            prompt=f"Question {number} of {past.identity}",
            session=session or f"{past.identity}-{number // _CALLS_PER_SESSION}",
            tool=said.tool,
            headers={"X-Forwarded-For": said.ip or "", "User-Agent": said.user_agent or "demo"},
        )
        if answer is not None:
            self._board.call(past.identity, None, answer)
        return answer

    async def until_answered(self, past: Past, session: str | None, seconds: float) -> Answer | None:
        """The identity's ordinary call in `session`, again and again until it is answered 200; None: it was not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = await self.one(past, session)
            if answer is not None and answer.denial is None:
                return answer
            await asyncio.sleep(_RETRY_SECONDS)
        return None

    async def _bad(self, attack: Attack, past: Past) -> Answer | None:
        number = next(self._numbers)
        said = self._random.choice(past.calls).data
        answer = await self._post(
            key_of(past.identity),
            attack.model or said.model,
            attack.tokens or (said.input_tokens or 0, said.output_tokens or 0),
            prompt=attack.prompt or f"Row {number}",
            session=attack.session or f"{attack.name}-{number}",
            tool=attack.tool,
            headers={"X-Forwarded-For": attack.address or said.ip or "", "User-Agent": said.user_agent or "demo"},
        )
        if answer is not None:
            self._board.call(past.identity, attack.name, answer)
        return answer

    async def _post(
        self, key: str, model: str, tokens: tuple[int, int], *, prompt: str, session: str, tool: str | None,
        headers: Mapping[str, str],
    ) -> Answer | None:  # fmt: skip
        """None when nothing was answered, or by a gateway that is not ready: then there is no event of it."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "demo": {"input_tokens": tokens[0], "output_tokens": tokens[1], "session_id": session, "tool": tool},
        }
        sent = time.time()
        try:
            async with self._http.post(
                self._url + _PATH, json=body, headers={**headers, "Authorization": f"Bearer {key}"}
            ) as answer:
                said = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return None
        at = time.time()
        if answer.status == 200:
            used = said["usage"]
            usd = cost(said["model"], used["prompt_tokens"], used["completion_tokens"])
            return Answer(sent, at, 200, used["total_tokens"], usd)
        error = said.get("error", {})
        if error.get("type") != DENIED:
            return None
        denial = Denial(answer.status, error["action"], error["reason"], error["incident_id"], error["command_id"])
        return Answer(sent, at, answer.status, denial=denial)

    def _begin(self, call: Coroutine[None, None, Answer | None]) -> None:
        if self._closing:
            call.close()
            return
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _pause(self, due: float) -> None:
        await self._room.wait()
        await asyncio.sleep(max(0.0, due - time.monotonic()))

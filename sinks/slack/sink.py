"""Incidents to a Slack channel: one message each, edited as they change."""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from schemas.incident import Incident
from schemas.times import parse_millis
from sinks.errors import Reject, Retry, Unreachable
from sinks.slack.calls import CHANNEL_FAULTS, Gone, ask, error_code, reader, writer
from sinks.slack.message import DOTS, Payload, incident_message, thread_reply
from sinks.slack.summary import Storm, restored, summary_message

INCIDENT_EVENT = "tripswitch_incident"
STORM_EVENT = "tripswitch_storm"
_STORM_WINDOW_MS = 60_000
_PAGE = 200
_PAGES = 25
_KEPT = 10_000
_STORMS_KEPT = 100


class Posted(msgspec.Struct, frozen=True):
    """An incident's message as it stands in the channel. All but `ts` travels in the message's own metadata."""

    ts: str
    incident_id: str
    tenant: str
    opened: str
    updated: str
    state: str
    raised: int
    digest: str


class SlackSink:
    """Writes incidents to one channel. One writer at a time: Slack has no way to tell two that they post the same.

    The bot needs the scopes `chat:write` and `channels:history` (`groups:history` in a private channel), and to be in
    the channel.

    Args:
        token: the bot's token (`xoxb-…`); it appears in no message and no error.
        channel: the channel's id (`C…`): by its name, Slack can neither edit nor read.
        storm_size: so many new incidents of one tenant within a minute have their own message; the further ones share
            a summary.
        api_url: another server than Slack's, such as `fake.FakeSlack`.
    """

    def __init__(self, token: str, channel: str, *, storm_size: int = 10, api_url: str | None = None) -> None:
        self.channel = channel
        self.storm_size = storm_size
        self._writer = writer(token, api_url)
        self._reader = reader(token, api_url)
        self._posted: dict[str, Posted] = {}
        self._storms: list[Storm] = []
        self._bot: str | None = None
        self._unsure = True

    async def setup(self) -> None:
        """Checks the token and the channel, and finds the messages of an earlier run.

        Raises:
            Unreachable: what to change, in one line: the token, its scopes, the channel, the address.
        """
        try:
            await self._recall()
        except Retry as error:
            raise Unreachable(f"Slack cannot be reached: {error}") from None
        except Reject as error:
            hint = CHANNEL_FAULTS.get(error_code(error.reason))
            raise Unreachable(hint.format(channel=self.channel) if hint else error.reason) from None

    async def write(self, incidents: Iterable[Incident]) -> None:
        """Brings the channel up to date with the last state of each incident; writing the same again changes nothing.

        Raises:
            Retry: wait, then write the same, or what has become of it meanwhile, again.
            Reject: Slack will not take one of them; all the others have been written. To find which, write them one
                by one: only that one raises again.
            Unreachable: the token no longer works.
        """
        if self._unsure:
            await self._recall()
        refused: list[Reject] = []
        storms: dict[int, Storm] = {}
        for incident in _latest(incidents):
            if (fault := _fault(incident)) is not None:
                refused.append(Reject(f"incident {incident.incident_id}: {fault}"))
                continue
            storm = self._storm_of(incident)
            if storm is not None:
                storm.put(incident)
                storms[id(storm)] = storm
                continue
            try:
                await self._write_one(incident)
            except Reject as error:
                refused.append(Reject(f"incident {incident.incident_id}: {error.reason}"))
        for storm in storms.values():
            try:
                await self._write_summary(storm)
            except Reject as error:
                refused.append(Reject(f"summary of {storm.tenant}: {error.reason}"))
        self._forget()
        if refused:
            raise refused[0]

    async def _write_one(self, incident: Incident) -> None:
        """Two effects, in the order in which a crash between them repeats a reply rather than loses it.

        1. the reply that notifies; 2. the message itself, whose metadata says that the reply was made.
        """
        known = self._posted.get(incident.incident_id)
        message = incident_message(incident)
        fresh = Posted(
            ts="" if known is None else known.ts,
            incident_id=incident.incident_id,
            tenant=incident.tenant,
            opened=incident.opened,
            updated=incident.updated,
            state=incident.state,
            raised=len(incident.raised),
            digest=_digest(message),
        )
        if known is not None and (known.digest == fresh.digest or known.updated > fresh.updated):
            return  # Written already, or a record that is read again after a crash.
        if known is not None and _is_news(known, fresh):
            await self._reply(known.ts, thread_reply(incident))
            known = msgspec.structs.replace(known, state=fresh.state, raised=fresh.raised)
            self._posted[incident.incident_id] = known
        metadata = msgspec.to_builtins(fresh)
        del metadata["ts"]
        ts = await self._show(None if known is None else known.ts, message, INCIDENT_EVENT, metadata)
        self._posted[incident.incident_id] = msgspec.structs.replace(fresh, ts=ts)

    async def _write_summary(self, storm: Storm) -> None:
        message, payload = summary_message(storm), storm.payload()
        digest = _digest(message | payload)
        if storm.digest != digest:
            storm.ts = await self._show(storm.ts, message, STORM_EVENT, payload)
            storm.digest = digest

    async def _show(self, ts: str | None, message: Payload, event: str, payload: dict[str, Any]) -> str:
        """Edits the message `ts`, or posts it where there is none that Slack lets us edit; returns its ts."""
        metadata = {"event_type": event, "event_payload": payload}
        if ts is not None:
            try:
                await ask(self._writer.chat_update(channel=self.channel, ts=ts, metadata=metadata, **message))
            except Gone:
                pass
            else:
                return ts
        return await self._post(metadata=metadata, **message)

    async def _reply(self, ts: str, message: Payload) -> None:
        try:
            await self._post(thread_ts=ts, **message)
        except Gone:
            return  # The edit that follows meets the same, and posts the message again.

    async def _post(self, **message: Any) -> str:
        post = self._writer.chat_postMessage(channel=self.channel, unfurl_links=False, unfurl_media=False, **message)
        try:
            answer = await ask(post)
        except Retry:
            self._unsure = True  # It may have been made all the same: look before the next one.
            raise
        return str(answer["ts"])

    def _storm_of(self, incident: Incident) -> Storm | None:
        """The summary that tells of `incident`, a new one where it breaks the tenant's bounds, or None."""
        if incident.incident_id in self._posted:
            return None
        for storm in self._storms:
            if storm.holds(incident.incident_id):
                return storm
        for storm in reversed(self._storms):
            if storm.has_room(incident, _STORM_WINDOW_MS):
                return storm
        opened = parse_millis(incident.opened)
        recent = sum(
            posted.tenant == incident.tenant and abs(parse_millis(posted.opened) - opened) < _STORM_WINDOW_MS
            for posted in self._posted.values()
        )
        if recent < self.storm_size:
            return None
        storm = Storm(incident.tenant, incident.opened, incident.opened)
        self._storms.append(storm)
        return storm

    async def _recall(self) -> None:
        """Reads our messages back from the channel: what was posted before a restart, or without our hearing of it."""
        if self._bot is None:
            self._bot = (await ask(self._reader.auth_test()))["user_id"]
        cursor = None
        for _ in range(_PAGES):
            page = await ask(
                self._reader.conversations_history(
                    channel=self.channel, include_all_metadata=True, limit=_PAGE, cursor=cursor
                )
            )
            for message in page["messages"]:
                self._recognise(message)
            cursor = (page.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                break
        self._storms.sort(key=lambda storm: storm.opened)
        self._unsure = False

    def _recognise(self, message: dict[str, Any]) -> None:
        metadata = message.get("metadata") or {}
        if message.get("user") != self._bot:
            return  # Anyone may post our metadata; what others wrote we could not edit anyway.
        ts, payload = str(message["ts"]), metadata.get("event_payload") or {}
        try:
            if metadata.get("event_type") == INCIDENT_EVENT:
                posted = msgspec.convert({**payload, "ts": ts}, Posted)
                known = self._posted.get(posted.incident_id)
                if known is None or known.ts < ts:
                    self._posted[posted.incident_id] = posted
            elif metadata.get("event_type") == STORM_EVENT:
                self._adopt(restored(payload, ts))
        except (KeyError, TypeError, msgspec.DecodeError):
            return  # Of another version of ours: it stays as it is, and its incident is posted anew.

    def _adopt(self, found: Storm) -> None:
        for storm in self._storms:
            if storm.ts == found.ts:
                return
            if storm.ts is None and (storm.tenant, storm.opened) == (found.tenant, found.opened):
                storm.ts = found.ts
                return
        self._storms.append(found)

    def _forget(self) -> None:
        """Lets the oldest closed incidents go when there are too many to remember."""
        surplus = len(self._posted) - _KEPT
        if surplus > 0:
            closed = sorted((p for p in self._posted.values() if p.state == "closed"), key=lambda p: p.updated)
            for posted in closed[:surplus]:
                del self._posted[posted.incident_id]
        del self._storms[:-_STORMS_KEPT]


def _latest(incidents: Iterable[Incident]) -> list[Incident]:
    """The last state of each incident, the gravest and dearest first, so that a storm cannot bury them."""
    last: dict[str, Incident] = {}
    for incident in incidents:
        known = last.get(incident.incident_id)
        if known is None or incident.updated >= known.updated:
            last[incident.incident_id] = incident
    ranks = list(DOTS)
    return sorted(last.values(), key=lambda incident: (ranks.index(incident.severity), -incident.usd_per_minute))


def _fault(incident: Incident) -> str | None:
    """Why an incident cannot be shown: a time that is none."""
    try:
        for time in (incident.opened, incident.updated, incident.closed, *incident.raised):
            if time is not None:
                parse_millis(time)
    except ValueError as error:
        return str(error)
    return None


def _is_news(known: Posted, fresh: Posted) -> bool:
    return fresh.raised > known.raised or (fresh.state == "closed" and known.state != "closed")


def _digest(message: Payload) -> str:
    return hashlib.sha256(msgspec.json.encode(message, order="deterministic")).hexdigest()[:16]

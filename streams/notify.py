"""The `notify` app: llm.incidents in, one Slack message per incident out, edited as the incident changes.

tripswitch run notify       (also: faust -A streams.notify:app worker)
"""

from typing import Any

import faust

from schemas.decoding import Malformed
from schemas.incident import Incident, decode_incident
from schemas.topics import INCIDENTS
from sinks.errors import Reject
from sinks.slack import SlackSink
from streams.app import make_app
from streams.gathering import gather
from streams.policy import Policy, find_policy, read_policy
from streams.settings import Kafka, SettingsError, Slack, read_settings

_EVERY_SECONDS = 0.5


def make_sink(slack: Slack, policy: Policy) -> SlackSink:
    """The sink of the settings and the policy.

    Raises:
        SettingsError: the token or the channel is not set.
    """
    if not slack.bot_token or not slack.channel:
        raise SettingsError("notify needs SLACK_BOT_TOKEN and SLACK_CHANNEL (a channel's id, C…)")
    return SlackSink(slack.bot_token, slack.channel, storm_size=policy.notify.storm_size, api_url=slack.api_url)


def make(sink: SlackSink, kafka: Kafka) -> faust.App:
    """The app around `sink`."""
    app, source = make_app("notify", kafka, [INCIDENTS])
    ready = False

    async def write(topic: str, partition: int, records: list[Any]) -> None:
        nonlocal ready
        if not ready:
            await sink.setup()
            ready = True
        incidents = [incident for record in records if (incident := _incident(record, app)) is not None]
        try:
            await sink.write(incidents)
        except Reject as error:
            # The rest was delivered. The incident itself is in Kafka and ClickHouse; only Slack will never show it.
            app.log.warning("Slack refused an incident for good: %s", error.reason)

    gather(app, source, "notify", write, every=_EVERY_SECONDS)
    return app


def _incident(record: Any, app: faust.App) -> Incident | None:
    try:
        return decode_incident(record.value or b"")
    except Malformed as error:
        app.log.warning("no incident at %s/%d offset %d: %s", record.topic, record.partition, record.offset, error)
        return None


def __getattr__(name: str) -> faust.App:
    """`app`, made when it is asked for, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    settings = read_settings()
    app = make(make_sink(settings.slack, read_policy(find_policy(settings.policy)).policy), settings.kafka)
    globals()["app"] = app
    return app

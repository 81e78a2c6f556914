"""The sink against a small Slack: one message per incident, whatever happens between."""

import logging
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from schemas.incident import Incident
from sinks.errors import Reject, Retry, Unreachable
from sinks.slack.fake import FakeSlack, Message, render_text
from sinks.slack.sink import SlackSink
from sinks.slack.summary import CAPACITY

Incidents = Callable[..., Incident]
Sinks = Callable[..., SlackSink]


def titles(slack: FakeSlack) -> list[str]:
    return [render_text(message).splitlines()[0] for message in slack.messages]


def storm(incident: Incidents, count: int, *, tenant: str = "acme", second: int = 0) -> list[Incident]:
    return [
        incident(
            incident_id=f"inc_{tenant}_{second}_{number}",
            tenant=tenant,
            identity=f"key_{number}",
            opened=f"2026-03-02T00:{second // 60:02d}:{second % 60:02d}.000Z",
            usd_per_minute=float(number),
        )
        for number in range(count)
    ]


async def test_one_message_posted_then_edited(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    told: list[tuple[str, bool]] = []
    slack.on_message = lambda message, updated: told.append((message["ts"], updated))
    writer = sink()
    await writer.setup()
    await writer.write([incident(response="alert", command_ids=[])])
    await writer.write([incident(updated="2026-03-02T00:01:41.000Z")])
    assert titles(slack) == ["🔴 CONTAINED · acme/key_7f3a · suspended"]
    assert told == [("1700000000.000001", False), ("1700000000.000001", True)]
    assert slack.messages[0]["metadata"]["event_type"] == "tripswitch_incident"
    assert slack.messages[0]["metadata"]["event_payload"]["incident_id"] == "inc_9f2c41d07b"


async def test_the_same_again_and_older_states_change_nothing(
    slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink()
    await writer.write([incident()])
    before = len(slack.calls)
    await writer.write([incident()])
    await writer.write([incident(updated="2026-03-02T00:01:35.000Z", response="alert", command_ids=[])])
    assert len(slack.calls) == before


async def test_waiting_states_of_one_incident_become_one_post(
    slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    late = incident(updated="2026-03-02T00:01:50.000Z", usd_per_minute=80.0)
    await sink().write([incident(), late, incident(updated="2026-03-02T00:01:45.000Z")])
    assert slack.calls.count("chat.postMessage") == 1
    assert "$80.00/min" in render_text(slack.messages[0])


async def test_flaring_up_and_closing_are_said_in_the_thread(
    slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink()
    again = "2026-03-02T00:05:42.000Z"
    end = "2026-03-02T01:05:42.000Z"
    await writer.write([incident()])
    await writer.write([incident(raised=[again], updated=again)])
    await writer.write([incident(raised=[again], updated="2026-03-02T00:06:00.000Z", risk=99.0)])
    await writer.write([incident(raised=[again], updated=end, closed=end, state="closed")])
    assert titles(slack) == [
        "✅ CLOSED · acme/key_7f3a · suspended",
        "  ↳ 🔁 Flared up again at 2026-03-02 00:05:42 UTC: $69.12/min, usually $0.40, 173×. Suspended.",
        "  ↳ ✅ Closed at 2026-03-02 01:05:42 UTC: quiet again. Suspended.",
    ]
    assert {message.get("thread_ts") for message in slack.messages[1:]} == {slack.messages[0]["ts"]}


async def test_a_restart_does_not_post_twice(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    again = "2026-03-02T00:05:42.000Z"
    await sink().write([incident(raised=[again])])
    second = sink()
    await second.setup()
    calls = len(slack.calls)
    await second.write([incident(raised=[again])])
    assert len(slack.calls) == calls
    await second.write([incident(raised=[again], updated=again)])
    assert slack.calls[calls:] == ["chat.update"]
    assert len(slack.messages) == 1


async def test_a_restart_reads_more_than_a_page(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    await sink().write([incident()])
    slack.messages += [{"ts": f"1700000001.{n:06d}", "user": "U1", "text": "talk"} for n in range(450)]
    await sink().write([incident(updated="2026-03-02T00:09:00.000Z")])
    assert slack.calls.count("chat.postMessage") == 1


async def test_others_cannot_pass_for_our_messages(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    await sink().write([incident()])
    slack.messages[0]["user"] = "U0MALLORY"
    await sink().write([incident()])
    assert slack.calls.count("chat.postMessage") == 2


async def test_a_lost_answer_is_looked_up_before_posting_again(
    slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink()
    await writer.setup()
    slack.lose_answers(1)
    with pytest.raises(Retry):
        await writer.write([incident()])
    await writer.write([incident()])
    assert len(slack.messages) == 1


async def test_a_lost_answer_to_a_summary_too(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink(storm_size=0)
    await writer.setup()
    slack.lose_answers(1)
    with pytest.raises(Retry):
        await writer.write(storm(incident, 3))
    await writer.write(storm(incident, 3))
    assert titles(slack) == ["🔴 STORM · 3 more identities of acme"]


async def test_a_rate_limit_is_obeyed(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink()
    await writer.setup()
    slack.rate_limit(1, retry_after=7)
    with pytest.raises(Retry) as caught:
        await writer.write([incident()])
    assert caught.value.after == 7
    assert slack.messages == []
    await writer.write([incident(updated="2026-03-02T00:02:00.000Z", usd_per_minute=80.0)])
    assert "$80.00/min" in render_text(slack.messages[0])


async def test_reading_waits_by_itself(slack: FakeSlack, sink: Sinks) -> None:
    slack.rate_limit(1, retry_after=0)
    await sink().setup()
    assert slack.calls == ["auth.test", "auth.test", "conversations.history"]


async def test_a_rate_limit_between_reply_and_edit_does_not_repeat_the_reply(
    slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink()
    again = "2026-03-02T00:05:42.000Z"
    await writer.write([incident()])

    def limit_the_edit(message: Message, updated: bool) -> None:
        if "thread_ts" in message and not updated:
            slack.rate_limit(1)

    slack.on_message = limit_the_edit
    with pytest.raises(Retry):
        await writer.write([incident(raised=[again], updated=again)])
    await writer.write([incident(raised=[again], updated=again)])
    assert len(slack.messages) == 2
    assert "Flared up again* once" in str(slack.messages[0])


@pytest.mark.parametrize(("status", "error"), [(500, "internal_error"), (503, ""), (200, "fatal_error")])
async def test_slacks_own_faults_are_retried(
    status: int, error: str, slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink()
    await writer.setup()
    slack.refuse(1, error, status=status)
    with pytest.raises(Retry) as caught:
        await writer.write([incident()])
    assert caught.value.after > 0


async def test_no_network_is_retried(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink()
    await writer.setup()
    await slack.stop()
    with pytest.raises(Retry, match="no answer from Slack"):
        await writer.write([incident()])


async def test_what_slack_never_takes_is_rejected_and_the_rest_written(
    slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink()
    await writer.setup()
    slack.refuse(1, "invalid_blocks")
    with pytest.raises(Reject, match="inc_bad: Slack refuses it: invalid_blocks") as caught:
        await writer.write([incident(), incident(incident_id="inc_bad", usd_per_minute=1e6)])
    assert caught.value.reason.startswith("incident inc_bad")
    assert titles(slack) == ["🔴 CONTAINED · acme/key_7f3a · suspended"]


async def test_a_time_that_is_none_is_rejected(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    with pytest.raises(Reject, match="incident inc_9f2c41d07b"):
        await sink().write([incident(raised=["yesterday"])])
    assert slack.messages == []


async def test_a_refused_summary_names_its_tenant(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink(storm_size=0)
    await writer.setup()
    slack.refuse(1, "msg_blocks_too_long")
    with pytest.raises(Reject, match="summary of acme: Slack refuses it: msg_blocks_too_long"):
        await writer.write([*storm(incident, 2), *storm(incident, 2, tenant="globex")])
    assert titles(slack) == ["🔴 STORM · 2 more identities of globex"]


async def test_a_reply_to_a_deleted_message_is_let_go(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink()
    await writer.write([incident()])
    slack.refuse(1, "thread_not_found")
    slack.refuse(1, "message_not_found")
    again = "2026-03-02T00:05:42.000Z"
    await writer.write([incident(raised=[again], updated=again)])
    assert titles(slack) == ["🔴 CONTAINED · acme/key_7f3a · suspended"] * 2


async def test_metadata_of_another_version_is_left_alone(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    await sink().write([incident(), *storm(incident, 12)])
    for message in slack.messages:
        message["metadata"]["event_payload"] = {"v": 2}
    await sink().setup()


async def test_an_answer_that_is_no_json(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink()
    await writer.setup()
    slack.babble(1)
    with pytest.raises(Retry):
        await writer.write([incident()])


@pytest.mark.parametrize("error", ["message_not_found", "edit_window_closed"])
async def test_a_message_that_cannot_be_edited_is_posted_again(
    error: str, slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink()
    await writer.write([incident()])
    slack.refuse(1, error)
    await writer.write([incident(updated="2026-03-02T00:02:00.000Z")])
    assert len(slack.messages) == 2
    await writer.write([incident(updated="2026-03-02T00:03:00.000Z")])
    assert "00:03:00" in render_text(slack.messages[1])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"token": "xoxb-wrong-secret"}, "Slack does not accept the token: set SLACK_BOT_TOKEN"),
        ({"channel": "#alerts"}, "Slack has no channel #alerts that this app can see: set SLACK_CHANNEL to its id"),
    ],
)
async def test_setup_says_what_to_change(
    options: dict[str, str], says: str, sink: Sinks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    writer = sink(**options)
    with pytest.raises(Unreachable) as caught:
        await writer.setup()
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
    told = f"{caught.value!r} {caught.value.__context__!r} {writer!r} {caplog.text}"
    assert "secret" not in told


@pytest.mark.parametrize(
    ("error", "says"), [("not_in_channel", "type /invite"), ("is_archived", "archived"), ("missing_scope", "scope")]
)
async def test_setup_explains_channels_and_scopes(error: str, says: str, slack: FakeSlack, sink: Sinks) -> None:
    slack.refuse(1, error)
    with pytest.raises(Unreachable, match=says):
        await sink().setup()


async def test_a_proxy_is_not_asked_for_this_machine(
    slack: FakeSlack, sink: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    await sink().setup()
    assert slack.calls == ["auth.test", "conversations.history"]


async def test_setup_without_a_network(slack: FakeSlack, sink: Sinks) -> None:
    writer = sink()
    slack.refuse(3, "service_unavailable", status=502)
    with pytest.raises(Unreachable, match="Slack cannot be reached"):
        await writer.setup()


async def test_a_token_revoked_on_the_way_is_no_dead_letter(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink()
    await writer.setup()
    slack.refuse(1, "token_revoked")
    with pytest.raises(Unreachable, match="revoked"):
        await writer.write([incident()])


async def test_a_storm_shares_one_message_per_tenant(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink(storm_size=3)
    await writer.write([*storm(incident, 15), *storm(incident, 2, tenant="globex")])
    posted = titles(slack)
    assert len(posted) == 3 + 2 + 1
    assert posted[-1] == "🔴 STORM · 12 more identities of acme"
    # The dearest have a message each, the rest are named from the dearest down.
    assert [title for title in posted if "acme/key_14" in title]
    assert "acme/key_11 contained, $11.00/min" in render_text(slack.messages[-1])
    assert "and 4 more" in render_text(slack.messages[-1])


async def test_a_storms_summary_is_edited(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    writer = sink(storm_size=2)
    await writer.write(storm(incident, 4))
    changed = replace(storm(incident, 1)[0], in_force=None, usd_per_minute=69.12)
    await writer.write([changed, *storm(incident, 1, second=30)])
    assert titles(slack)[2:] == ["🔴 STORM · 3 more identities of acme"]
    assert "1 open at $69.12/min, 2 contained at $1.00/min" in render_text(slack.messages[2])


async def test_after_the_storm_incidents_have_their_own_messages(
    slack: FakeSlack, sink: Sinks, incident: Incidents
) -> None:
    writer = sink(storm_size=1)
    await writer.write(storm(incident, 3))
    await writer.write(storm(incident, 1, second=120))
    assert len(slack.messages) == 3
    assert "CONTAINED" in titles(slack)[2]


async def test_a_storm_survives_a_restart(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    await sink(storm_size=2).write(storm(incident, 20))
    second = sink(storm_size=2)
    await second.setup()
    closed = [
        incident(incident_id=one.incident_id, identity=one.identity, state="closed", closed=one.updated)
        for one in storm(incident, 20)
    ]
    await second.write(closed[:1])
    assert len(slack.messages) == 3
    assert "17 contained at $153/min, 1 closed" in render_text(slack.messages[2])
    await second.write(closed)
    assert titles(slack)[2] == "✅ STORM · 18 more identities of acme"


async def test_a_full_summary_is_followed_by_another(slack: FakeSlack, sink: Sinks, incident: Incidents) -> None:
    await sink(storm_size=1).write(storm(incident, CAPACITY + 3))
    assert titles(slack)[1:] == [
        f"🔴 STORM · {CAPACITY} more identities of acme",
        "🔴 STORM · 2 more identities of acme",
    ]
    assert len(slack.messages[1]["metadata"]["event_payload"]["members"]) < 8000

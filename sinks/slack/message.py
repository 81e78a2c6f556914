"""An incident as a Slack message: pure, and the same for the same incident.

What a tenant or an identity is called, and a headline, which may quote it, stand in `plain_text` or in code spans only:
Slack formats, links and mentions nothing there.
"""

from typing import Any

from schemas.finding import Severity
from schemas.incident import Incident
from sinks.slack.text import code, escape, local_time, money, shell_word

Block = dict[str, Any]
Payload = dict[str, Any]

DOTS: dict[Severity, str] = {"critical": "🔴", "high": "🟠", "medium": "🟡", "low": "🔵", "info": "⚪"}
_OUTCOMES = {
    "throttle": "slowed down only",
    "downgrade": "cheaper models only",
    "suspend": "suspended",
    "revoke": "revoked",
}
_NAME_LIMIT = 80  # with the longest other words, a title stays within the 150 characters of a header
_COMMANDS_SHOWN = 3
_COMMAND_LIMIT = 900
_NOTABLE_RATIO = 2.0


def incident_message(incident: Incident) -> Payload:
    """The message of an incident: `text` (for notifications) and `blocks`, within Slack's limits.

    Raises:
        ValueError: a time of the incident is no RFC 3339 time.
    """
    title = _title(incident)
    return {
        "text": f"{title}: {escape(incident.headline, 500)} – {_at_risk(incident)}",
        "blocks": [
            header(title),
            plain_section(incident.headline),
            {"type": "section", "fields": [mrkdwn(f"*{name}*\n{value}") for name, value in _facts(incident)]},
            section("\n".join(_done(incident))),
            *([section("\n".join(steps))] if (steps := _next_steps(incident)) else []),
            context(f"Incident {code(incident.incident_id)} · as of {local_time(incident.updated)}"),
        ],
    }


def thread_reply(incident: Incident) -> Payload:
    """What is said in the message's thread when the incident flares up again or closes: a notification, not a state."""
    if incident.closed is not None:
        line = f"✅ Closed at {local_time(incident.closed)}: quiet again. {_outcome(incident).capitalize()}."
    else:
        again = local_time(incident.raised[-1]) if incident.raised else local_time(incident.updated)
        line = f"🔁 Flared up again at {again}: {_at_risk(incident)}. {_outcome(incident).capitalize()}."
    return {
        "text": f"{_title(incident)}: {escape(incident.headline, 500)}",
        "blocks": [section(line), plain_section(incident.headline)],
    }


def standing(incident: Incident) -> str:
    """`closed`, `contained` (every call is refused: suspended or revoked) or `open`; a throttled one still spends."""
    if incident.state == "closed":
        return "closed"
    return "contained" if incident.in_force in ("suspend", "revoke") else "open"


def subject(incident: Incident) -> str:
    """`tenant/identity`, or the tenant alone where the incident is the whole tenant's."""
    return incident.tenant if incident.identity is None else f"{incident.tenant}/{incident.identity}"


def header(title: str) -> Block:
    """A header block of an escaped title of at most 150 characters."""
    return {"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}}


def section(text: str) -> Block:
    """A section of mrkdwn, in which every foreign text is escaped already."""
    return {"type": "section", "text": mrkdwn(text)}


def plain_section(text: str) -> Block:
    """A section of foreign text, shown letter by letter."""
    return {"type": "section", "text": {"type": "plain_text", "text": escape(text) or "–", "emoji": False}}


def context(text: str) -> Block:
    """Small grey mrkdwn below a message."""
    return {"type": "context", "elements": [mrkdwn(text)]}


def mrkdwn(text: str) -> Block:
    """A mrkdwn text object; `verbatim` keeps Slack from finding channels, people and links in it."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _title(incident: Incident) -> str:
    state = standing(incident)
    dot = "✅" if state == "closed" else DOTS[incident.severity]
    spending = f" · {money(incident.usd_per_minute)}/min" if state == "open" else ""
    return f"{dot} {state.upper()} · {escape(subject(incident), _NAME_LIMIT)} · {_outcome(incident)}{spending}"


def _outcome(incident: Incident) -> str:
    if incident.in_force is not None:
        return _OUTCOMES[incident.in_force]
    return "access given back" if incident.command_ids else "not blocked"


def _at_risk(incident: Incident) -> str:
    now, usual = incident.usd_per_minute, incident.baseline_usd_per_minute
    if usual <= 0:
        return f"{money(now)}/min, usually nothing"
    times = f", {now / usual:,.0f}×" if now >= _NOTABLE_RATIO * usual else ""
    return f"{money(now)}/min, usually {money(usual)}{times}"


def _facts(incident: Incident) -> list[tuple[str, str]]:
    facts = [
        ("At risk" if incident.closed is None else "Was at risk", _at_risk(incident)),
        ("Since", local_time(incident.opened)),
        ("Severity", f"{DOTS[incident.severity]} {incident.severity.capitalize()} (risk {incident.risk:.3g})"),
        ("Kinds", ", ".join(kind.replace("_", " ") for kind in incident.kinds) or "–"),
        ("Identity", "the whole tenant" if incident.identity is None else code(incident.identity)),
        ("Tenant", code(incident.tenant)),
    ]
    if incident.closed is not None:
        facts.insert(2, ("Closed", local_time(incident.closed)))
    return facts


def _done(incident: Incident) -> list[str]:
    ids = incident.command_ids
    if not ids:
        asked = "" if incident.response == "alert" else f" The policy asks to {incident.response}; no command was sent."
        lines = [f"*Done:* alert only, nothing is blocked.{asked}"]
    else:
        shown = ", ".join(code(command_id, 80) for command_id in ids[-_COMMANDS_SHOWN:])
        earlier = f" and {len(ids) - _COMMANDS_SHOWN} earlier" if len(ids) > _COMMANDS_SHOWN else ""
        lines = [f"*Done:* {_outcome(incident)} ({'command' if len(ids) == 1 else 'commands'} {shown}{earlier})."]
    if incident.raised:
        times = "once" if len(incident.raised) == 1 else f"{len(incident.raised)} times"
        lines.append(f"*Flared up again* {times}, last at {local_time(incident.raised[-1])}.")
    return lines


def _next_steps(incident: Incident) -> list[str]:
    """The commands to type. A tenant's own case names no subject, and a name too long to copy is left out."""
    steps = []
    if incident.identity is not None and incident.in_force is not None:
        label = "*If it is wrong,*" if incident.closed is None else "*If it is still blocked and should not be,*"
        steps.append(_step(f"{label} give the access back:", "restore", incident))
    if incident.identity is not None and standing(incident) == "open":
        steps.append(_step("*If it is real,* stop it:", "suspend", incident))
    return [step for step in steps if step]


def _step(label: str, verb: str, incident: Incident) -> str:
    word = shell_word(subject(incident))
    # A word with a dash first (the tenant that nobody knows is `-`) would be read as an option.
    typed = (
        f'tripswitch {verb} --reason "…" -- {word}'
        if incident.tenant.startswith("-")
        else f'tripswitch {verb} {word} --reason "…"'
    )
    shown = code(typed, 5 * len(typed))
    return f"{label} {shown}" if len(shown) <= _COMMAND_LIMIT else ""

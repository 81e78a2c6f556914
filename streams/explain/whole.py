"""Why a whole tenant was alerted on: which of its identities grew, and the incident decided again from the events."""

from pathlib import Path

import numpy as np
from msgspec import Struct

from schemas.directory import Directory
from schemas.incident import Incident
from schemas.times import parse_millis
from streams.backtest.calls import read_calls
from streams.explain.again import changes
from streams.explain.explanation import Key, Recomputed, keys_at
from streams.explain.sources import ReplayFolder
from streams.policy import Loaded
from streams.policy_text import read_lines
from streams.replay import CHUNK, Replay, open_events

_HOUR = 3600.0
_USUAL_HOURS = 24
_SHOWN = 12


class Grown(Struct, frozen=True):
    """An identity in the hour before the alert, and in the mean hour of the day before that hour."""

    identity: str
    calls: int
    usual_calls: float
    usd: float
    usual_usd: float


class WholeExplanation(Struct, frozen=True):
    """All of it. `grown` are the identities that called most beyond their usual; `at_work` counts those that called in
    the hour before the alert, `usually_at_work` those of the mean hour before."""

    incident: Incident
    policy: str
    at_work: int
    usually_at_work: float
    grown: list[Grown]
    detector_keys: list[Key]
    decision_keys: list[Key]
    recomputed: list[Recomputed]

    @property
    def reproduced(self) -> bool:
        """Whether the incident came out again, byte for byte."""
        return all(one.reproduced for one in self.recomputed)


def explain_whole(incident: Incident, source: ReplayFolder, policy: Loaded, directory: Directory) -> WholeExplanation:
    """Explains an incident that has no identity.

    Raises:
        EventsError: the events can't be read.
    """
    road = Replay(policy, directory, source.partitions)
    with open_events(source.events) as lines:
        road.run(lines, CHUNK)
    new = road.incidents.get(incident.incident_id)
    differ = changes(incident, new) if new else []
    why = None if new else "the events do not bring it again: are they the same, with the same policy and directory?"
    at_work, usually, grown = _grown(incident, source, directory)
    lines_of_policy = read_lines(Path(policy.path).read_text())
    return WholeExplanation(
        incident=incident,
        policy=policy.version,
        at_work=at_work,
        usually_at_work=usually,
        grown=grown,
        detector_keys=keys_at(lines_of_policy, list(incident.kinds), None),
        decision_keys=keys_at(lines_of_policy, ["risk.points.medium", "risk.open"], None),
        recomputed=[Recomputed(incident.incident_id, new is not None and not differ, differ, why)],
    )


def _grown(incident: Incident, source: ReplayFolder, directory: Directory) -> tuple[int, float, list[Grown]]:
    with open_events(source.events) as lines:
        calls = read_calls(lines, directory)
    end = parse_millis(incident.opened) / 1000
    of_tenant = np.array([tenant == incident.tenant for tenant, _ in calls.identities], np.bool_)[calls.who]
    hour = np.floor((end - calls.time) / _HOUR).astype(np.int64)
    count = len(calls.identities)
    now, before = of_tenant & (hour == 0), of_tenant & (hour > 0) & (hour <= _USUAL_HOURS)
    many, usual = np.bincount(calls.who[now], minlength=count), np.bincount(calls.who[before], minlength=count)
    spent = np.bincount(calls.who[now], calls.cost[now], count)
    usually_spent = np.bincount(calls.who[before], calls.cost[before], count)
    hours_at_work = len(np.unique(np.stack([calls.who[before], hour[before]]), axis=1)[0])
    ranked = np.argsort(usual / _USUAL_HOURS - many, kind="stable")[:_SHOWN]
    grown = [
        Grown(
            calls.identities[n][1], int(many[n]), round(float(usual[n]) / _USUAL_HOURS, 2), round(float(spent[n]), 4),
            round(float(usually_spent[n]) / _USUAL_HOURS, 4),
        )
        for n in ranked.tolist()
        if many[n]
    ]  # fmt: skip
    return int((many > 0).sum()), round(hours_at_work / _USUAL_HOURS, 1), grown

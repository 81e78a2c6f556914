"""Velocity windows against the plainest sums there are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traffic import START_MS, Traffic
from xxhash import xxh3_64_intdigest

from detectors import Config, Partition
from detectors.buckets import BEHIND, BUCKET
from detectors.identities import Rows
from detectors.view import Detector, Raised, View
from detectors.windows import TOLERATED
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import TenantBucket
from schemas.times import parse_millis
from schemas.usage import DENIED, UsageEvent


class Watcher(Detector):
    """Stands in for a detector and keeps what detectors are shown."""

    name, kind, version = "watcher", "spike", 1

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.closings: list[dict[str, Any]] = []

    @property
    def components(self) -> dict[str, Rows]:
        return {}

    def judge(self, view: View) -> list[Raised]:
        for i in range(len(view.batch)):
            self.events.append({
                "time": int(view.ticked.time[i]), "duplicate": bool(view.ticked.duplicate[i]), "row": int(view.row[i]),
                "mark": int(view.ticked.watermark[i]), "late": bool(view.velocities.late[i]),
                "minute": view.velocities.minute[i].tolist(),
            })  # fmt: skip
        for k in range(len(view.closings.row)):
            c = view.closings
            self.closings.append({
                "at": int(c.at[k]), "row": int(c.row[k]), "end": int(c.end[k]), "sums": c.sums[k].tolist(),
                "failed": int(c.failed[k]), "denied": int(c.denied[k]), "minute": c.minute[k].tolist(),
                "tenmin": c.tenmin[k].tolist(),
            })  # fmt: skip
        return []


def watch(policy: Config, events: Sequence[UsageEvent]) -> tuple[Watcher, list[TenantBucket]]:
    partition, watcher = Partition(0, policy, Directory()), Watcher()
    partition._detectors = (watcher,)
    told = partition.take(to_batch(events, range(len(events)), [0] * len(events)))
    told += partition.close()
    return watcher, [t.signal for t in told if isinstance(t.signal, TenantBucket)]


class Plain:
    """The windows with lists and loops: what was added so far, and what is still open."""

    def __init__(self, events: Sequence[UsageEvent], seen: Sequence[dict[str, Any]]) -> None:
        self.added: list[tuple[int, int, bool, np.ndarray]] = []
        self.open: dict[tuple[int, int], dict[str, Any]] = {}
        self.closings: list[dict[str, Any]] = []
        self.expected: list[dict[str, Any]] = []
        self.names: dict[int, int] = {}
        self.reached: dict[int, int] = {}
        """The last bucket that an identity's sums have reached: what is further ahead waits."""
        for i, (event, at) in enumerate(zip(events, seen, strict=True)):
            self.names[at["row"]] = xxh3_64_intdigest(f"{event.data.tenant}\0{event.subject}".encode()) >> 1
            if not at["duplicate"]:
                self.expected.append(self._take(i, event, at["row"], at["time"], at["mark"]))
        self._close(len(events), max(at["mark"] for at in seen) + 10**9)

    def _take(self, i: int, event: UsageEvent, row: int, t: int, mark: int) -> dict[str, Any]:
        self._close(i, mark)
        data = event.data
        excluded = data.error == DENIED or data.status == 401
        tokens = (data.input_tokens or 0) + (data.output_tokens or 0)
        amounts = np.array([tokens, 0 if data.attempt else 1, data.cost_usd or 0.0]) * (not excluded)
        end = t // BUCKET * BUCKET + BUCKET
        late = end + BEHIND <= mark
        if not late:
            empty = {"sums": np.zeros(3), "failed": 0, "denied": 0}
            bucket = self.open.setdefault((end, row), empty)
            bucket["sums"] = bucket["sums"] + amounts
            bucket["failed"] += data.status >= 400 and not excluded
            bucket["denied"] += data.error == DENIED
        if not late or mark - t <= TOLERATED:
            self.added.append((row, t, late, amounts))
            if t // BUCKET <= mark // BUCKET + 1:
                self._reach(row, t // BUCKET)
        return {"late": late, "minute": self._sum(row, t // BUCKET, 6, BUCKET, timely=True)}

    def _reach(self, row: int, bucket: int) -> None:
        self.reached[row] = max(self.reached.get(row, 0), bucket)

    def _sum(self, row: int, last: int, slots: int, width: int, *, timely: bool) -> list[float]:
        until = max(self.reached.get(row, 0), last if width == BUCKET else 0)
        inside = [
            a
            for r, t, late, a in self.added
            if r == row and last - slots < t // width <= last and t // BUCKET <= until and not (timely and late)
        ]
        return np.sum(inside, axis=0).tolist() if inside else [0.0, 0.0, 0.0]

    def _close(self, at: int, mark: int) -> None:
        due = sorted(
            (key for key in self.open if key[0] + BEHIND <= mark), key=lambda key: (key[0], self.names[key[1]])
        )
        for end, row in due:
            bucket = self.open.pop((end, row))
            self._reach(row, end // BUCKET - 1)
            self.closings.append({
                "at": at, "row": row, "end": end, "sums": bucket["sums"].tolist(), "failed": bucket["failed"],
                "denied": bucket["denied"], "minute": self._sum(row, end // BUCKET - 1, 6, BUCKET, timely=True),
                "tenmin": self._sum(row, (end - 1) // 60_000, 10, 60_000, timely=False),
            })  # fmt: skip


# Amounts that a 32-bit float holds exactly, so that order of addition does not matter.
CALLS = st.fixed_dictionaries({
    "gap": st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0]),
    "behind": st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0, 6.0, 45.0, 300.0, 1200.0, -9.0, -14.0, -130.0, -4000.0]),
    "who": st.integers(0, 3),
    "tokens": st.one_of(st.none(), st.integers(0, 4000)),
    "cents": st.integers(0, 64),
    "status": st.sampled_from([200, 200, 200, 401, 429, 500]),
    "error": st.sampled_from([None, None, None, DENIED]),
    "attempt": st.sampled_from([None, 0, 0, 1]),
    "again": st.booleans(),
})  # fmt: skip


def lay_out(calls: Sequence[dict[str, Any]]) -> list[UsageEvent]:
    """The calls, and between them somebody's who is always on time and moves the watermark on."""
    traffics = [Traffic(f"key_{who}", tenant=f"t{who % 2}") for who in range(4)]
    on_time, now = Traffic("on_time", tenant="t2", cost_usd=0.5), 3000.0
    events = [on_time.call(now) for _ in range(8)]
    for call in calls:
        now += call["gap"]
        made = traffics[call["who"]].call(
            now - call["behind"], input_tokens=call["tokens"], output_tokens=None, cost_usd=call["cents"] / 64,
            status=call["status"], error=call["error"], attempt=call["attempt"],
        )  # fmt: skip
        events += [on_time.call(now)] + [made] * (2 if call["again"] and call["who"] == 0 else 1)
    return events


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(CALLS, min_size=5, max_size=250))
def test_sums_are_those_of_a_plain_reference_for_late_and_shuffled_events(
    policy: Config, calls: list[dict[str, Any]]
) -> None:
    events = lay_out(calls)
    watcher, _ = watch(policy, events)
    plain = Plain(events, watcher.events)
    counted = [at for at in watcher.events if not at["duplicate"]]
    assert [at["late"] for at in counted] == [at["late"] for at in plain.expected]
    timely = [
        (at["minute"], plainly["minute"]) for at, plainly in zip(counted, plain.expected, strict=True) if not at["late"]
    ]
    assert [mine for mine, _ in timely] == [plainly for _, plainly in timely]
    assert watcher.closings == [
        # What the last bucket closes at the end has no event that closed it.
        closing | {"at": closing["at"] if closing["at"] < len(events) else 0}
        for closing in plain.closings
    ]


@settings(max_examples=30, deadline=None)
@given(calls=st.lists(CALLS, min_size=5, max_size=150))
def test_buckets_close_once_and_in_order_of_end_and_identity(policy: Config, calls: list[dict[str, Any]]) -> None:
    events = lay_out(calls)
    watcher, buckets = watch(policy, events)
    keys = [(c["end"], c["row"]) for c in watcher.closings]
    assert len(set(keys)) == len(keys)
    assert [end for end, _ in keys] == sorted(end for end, _ in keys)
    timely = {
        (at["time"] // BUCKET * BUCKET + BUCKET, at["row"])
        for at in watcher.events
        if not (at["duplicate"] or at["late"])
    }
    assert set(keys) == timely
    ends = [(parse_millis(bucket.end), bucket.tenant) for bucket in buckets]
    assert len(set(ends)) == len(ends)
    assert sum(bucket.requests for bucket in buckets) == sum(c["sums"][1] for c in watcher.closings)
    assert sum(sum(bucket.denied.values()) for bucket in buckets) == sum(c["denied"] for c in watcher.closings)


def test_identities_that_close_together_do_so_in_an_order_of_their_own(policy: Config) -> None:
    """Not in the order of their arrival, which another split of the stream would change."""

    def order(names: Sequence[str]) -> list[str]:
        events = [Traffic(name).call(1.0 + n / 10) for n, name in enumerate(names)]
        clock = Traffic("clock")
        clock.every(1.0, 20, 30)
        watcher, _ = watch(policy, [*events, *clock.events])
        return [names[c["row"]] for c in watcher.closings if c["row"] < len(names)]

    names = [f"key_{n}" for n in range(12)]
    assert order(names) == order(names[::-1])


def test_a_late_event_is_in_the_totals_and_not_in_the_velocity(policy: Config) -> None:
    traffic = Traffic()
    traffic.every(1.0, 0, 120, input_tokens=10, output_tokens=0)
    traffic.call(60.5, input_tokens=1_000_000, output_tokens=0)
    traffic.every(1.0, 120, 150, input_tokens=10, output_tokens=0)
    watcher, buckets = watch(policy, traffic.events)
    assert watcher.events[120]["late"]
    assert max(at["minute"][0] for at in watcher.events) <= 600
    assert sum(bucket.tokens for bucket in buckets) == 1500
    assert watcher.closings[-1]["tenmin"][0] == 1_001_500


def test_a_time_in_the_future_hides_nothing_of_the_present(policy: Config) -> None:
    """One gateway's clock is a day ahead; what the others tell of the same identity counts as ever."""
    traffic = Traffic()
    for n in range(120):
        traffic.call(float(n), input_tokens=10, output_tokens=0)
        if n % 20 == 10:
            traffic.call(n + 86400.0, input_tokens=1, output_tokens=0)
    watcher, _ = watch(policy, traffic.events)
    at_present = [at for at in watcher.events if at["time"] < START_MS + 3600_000]
    assert [at["minute"][1] for at in at_present[-20:]] == [50 + n % 10 + 1 for n in range(100, 120)]
    assert [c["minute"][0] for c in watcher.closings if c["end"] == START_MS + 110_000] == [600.0]


@pytest.mark.parametrize("excluded", [{"status": 401}, {"error": DENIED, "status": 403}])
def test_calls_that_are_no_evidence_are_in_no_sum(policy: Config, excluded: dict[str, Any]) -> None:
    traffic = Traffic()
    traffic.every(1.0, 0, 60, input_tokens=1000, **excluded)
    watcher, buckets = watch(policy, traffic.events)
    assert {sum(c["sums"]) + c["failed"] for c in watcher.closings} == {0}
    denied = sum(bucket.denied.get("key_1", 0) for bucket in buckets)
    assert denied == (60 if "error" in excluded else 0)


def test_a_bucket_waits_two_seconds_for_stragglers(policy: Config) -> None:
    traffic = Traffic("clock")
    traffic.every(0.5, 0, 11.5)
    straggler = Traffic("key_late").call(9.9, input_tokens=70, output_tokens=7)
    more = Traffic("more")
    more.every(0.5, 11.5, 30)
    watcher, _ = watch(policy, [*traffic.events, straggler, *more.events])
    [closed] = [c for c in watcher.closings if c["row"] == 1]
    assert (closed["end"], closed["sums"][:2]) == (START_MS + 10_000, [77.0, 1.0])


@pytest.mark.parametrize("silence", [30.0, 82.0, 165.0, 3605.0])
def test_a_minute_holds_its_own_last_bucket_however_late_it_closes(policy: Config, silence: float) -> None:
    """Nothing closes a bucket while nobody calls; the call that does must not push the bucket out of its window."""
    traffic = Traffic()
    traffic.every(1.0, 1, 8, input_tokens=1000, output_tokens=0)
    traffic.every(1.0, silence, silence + 5, input_tokens=1, output_tokens=0)
    watcher, _ = watch(policy, traffic.events)
    first = watcher.closings[0]
    assert first["sums"][0] == 7000
    assert first["minute"][0] == 7000
    assert first["tenmin"][0] >= 7000

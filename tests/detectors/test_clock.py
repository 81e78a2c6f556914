"""A partition's clock: which deliveries are second ones, what time it is, and whose clock is wrong."""

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traffic import START_MS, Traffic

from detectors.clock import Clock, Ticked
from detectors.duplicates import DUPLICATE_HORIZON
from schemas.batch import to_batch
from schemas.usage import UsageEvent


def tick(clock: Clock, events: Sequence[UsageEvent], arrived: Sequence[int] | None = None) -> Ticked:
    return clock.tick(to_batch(events, range(len(events)), arrived or [0] * len(events)))


def deliveries(times: Sequence[float], ids: Sequence[int] | None = None) -> list[UsageEvent]:
    traffic = Traffic()
    for at, number in zip(times, ids if ids is not None else range(len(times)), strict=True):
        traffic.call(at, event_id=f"e{number}")
    return traffic.events


@given(
    ids=st.lists(st.integers(0, 30), min_size=1, max_size=120),
    cuts=st.lists(st.integers(0, 120), max_size=8),
)
def test_second_deliveries_are_dropped_wherever_the_stream_is_cut(ids: list[int], cuts: list[int]) -> None:
    events = deliveries([4.0 * n for n in range(len(ids))], ids)
    clock, dropped = Clock(), []
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    for first, last in pairwise(edges):
        dropped += tick(clock, events[first:last]).duplicate.tolist()
    assert dropped == [number in ids[:n] for n, number in enumerate(ids)]


def test_the_same_id_of_another_source_is_another_event() -> None:
    traffic = Traffic()
    traffic.call(0, event_id="1", source="gateway/eu-1")
    traffic.call(0, event_id="1", source="gateway/us-1")
    assert not tick(Clock(), traffic.events).duplicate.any()


@pytest.mark.parametrize("before", [0.0, 1.0, 299.0, 550.0])
def test_a_second_delivery_within_ten_minutes_is_dropped_whenever_the_first_came(before: float) -> None:
    horizon = DUPLICATE_HORIZON / 1000
    clock = Clock()
    tick(clock, deliveries([s * 1.0 for s in range(int(before) + 3)]))
    first = before + 3
    times = [first, *(first + 1 + s for s in range(int(horizon) - 2))]
    tick(clock, deliveries(times, [9999, *range(10_000, 10_000 + len(times) - 1)]))
    assert tick(clock, deliveries([first], [9999])).duplicate.tolist() == [True]


def test_ids_are_forgotten_after_a_while() -> None:
    clock = Clock()
    tick(clock, deliveries([0.0], [0]))
    tick(clock, deliveries([30.0 * n for n in range(1, 61)], range(1, 61)))
    assert tick(clock, deliveries([0.0], [0])).duplicate.tolist() == [False]


def test_many_ids_at_once_are_all_remembered() -> None:
    events = deliveries([n / 1000 for n in range(20_000)])
    clock = Clock()
    assert not tick(clock, events).duplicate.any()
    assert tick(clock, events).duplicate.all()


def test_one_record_far_ahead_moves_nobody() -> None:
    clock = Clock()
    tick(clock, deliveries([float(s) for s in range(20)]))
    before = clock.watermark
    tick(clock, deliveries([100_000.0], [500]))
    assert clock.watermark <= before + 1000
    tick(clock, deliveries([20.0, 21.0, 22.0, 23.0], [20, 21, 22, 23]))
    assert clock.watermark <= START_MS + 23_000


def test_the_watermark_goes_where_several_records_go() -> None:
    clock = Clock()
    tick(clock, deliveries([float(s) for s in range(20)]))
    tick(clock, deliveries([3600.0, 3601.0], [100, 101]))
    assert clock.watermark < START_MS + 20_000
    tick(clock, deliveries([3602.0], [102]))
    assert clock.watermark == START_MS + 3_600_000


def test_second_deliveries_do_not_vouch_for_a_wrong_time() -> None:
    clock = Clock()
    tick(clock, deliveries([float(s) for s in range(20)]))
    tick(clock, deliveries([100_000.0] * 5, [77] * 5))
    assert clock.watermark < START_MS + 20_000


@given(times=st.lists(st.floats(0, 7200), min_size=1, max_size=80))
def test_the_watermark_and_the_moment_of_decision_never_go_back(times: list[float]) -> None:
    ticked = tick(Clock(), deliveries(times))
    assert (np.diff(ticked.watermark) >= 0).all()
    assert (np.diff(ticked.now) >= 0).all()
    assert (ticked.now >= ticked.time).all()


@given(times=st.lists(st.floats(0, 7200), min_size=2, max_size=80))
def test_what_is_decided_is_later_than_every_record_before(times: list[float]) -> None:
    """So a run over a prefix decides all that the whole run decides by the prefix's last time."""
    ticked = tick(Clock(), deliveries(times))
    newest = np.maximum.accumulate(ticked.time)
    assert (ticked.now[1:] > newest[:-1]).all()


def test_a_clock_that_is_two_minutes_fast_is_set_right() -> None:
    traffic, arrived = Traffic(), []
    for second in range(200):
        at, fast = float(second), second % 2 == 1
        traffic.call(at + (120 if fast else 0), source="gateway/fast" if fast else "gateway/right")
        arrived.append(START_MS + second * 1000 + 40)
    ticked = tick(Clock(), traffic.events, arrived)
    settled = ticked.time[100:] - np.array(arrived[100:])
    assert np.abs(settled).max() < 1000


def test_the_skew_is_each_sources_own() -> None:
    traffic, arrived = Traffic(), []
    for second in range(200):
        traffic.call(float(second), source="gateway/right")
        traffic.call(second + 120.0, source="gateway/fast")
        arrived += [START_MS + second * 1000] * 2
    ticked = tick(Clock(), traffic.events, arrived)
    assert (ticked.time[::2] == START_MS + np.arange(200) * 1000).all()


@pytest.mark.parametrize("off", [-1.5, 1.5, 3600.0])
def test_small_and_absurd_differences_are_no_skew(off: float) -> None:
    traffic, arrived = Traffic(), []
    for second in range(100):
        traffic.call(second + off)
        arrived.append(START_MS + second * 1000)
    ticked = tick(Clock(), traffic.events, arrived)
    assert (ticked.time == to_batch(traffic.events, range(100), arrived).time).all()


def test_without_a_broker_no_clock_is_corrected() -> None:
    events = deliveries([float(s) for s in range(100)])
    ticked = tick(Clock(), events)
    assert (ticked.time == START_MS + np.arange(100) * 1000).all()


def test_an_idle_partition_is_moved_on_and_never_back() -> None:
    clock = Clock()
    tick(clock, deliveries([0.0, 1.0, 2.0, 3.0]))
    assert clock.idle_until(START_MS + 60_000) == START_MS + 60_000
    assert clock.watermark == START_MS + 60_000
    assert clock.idle_until(START_MS) >= START_MS + 60_000
    assert clock.watermark == START_MS + 60_000


def test_without_a_broker_most_of_the_traffic_tells_the_time() -> None:
    """A file of three gateways, one of them 40 s fast: it is set right, and the others' records are not late."""
    traffic = Traffic()
    for n in range(900):
        fast = n % 3 == 0
        traffic.call(n + (40.0 if fast else 0.0), source="gateway/fast" if fast else f"gateway/{n % 3}")
    ticked = tick(Clock(), traffic.events)
    apart = ticked.time - (START_MS + 1000 * np.arange(900))
    assert np.abs(apart[-300:]).max() <= 4_000
    assert (ticked.watermark - ticked.time)[-300:].max() <= 4_000


def test_a_gateway_that_is_alone_is_right() -> None:
    traffic = Traffic()
    traffic.every(1.0, 0, 600)
    assert tick(Clock(), traffic.events).time.tolist() == [START_MS + 1000 * n for n in range(600)]


@pytest.mark.parametrize("live", [False, True])
def test_a_gateway_that_hands_over_late_is_late_for_no_bucket(live: bool) -> None:
    """Every 25 s it hands over what came since, among others that are prompt."""
    traffic, arrived = Traffic(), []
    for n in range(1800):
        traffic.call(float(n), source="gateway/prompt")
        arrived.append(START_MS + 1000 * n + 100)
        if n % 25 == 24:
            for k in range(n - 24, n + 1):
                traffic.call(k + 0.5, source="gateway/late", event_id=f"late-{k}")
                arrived.append(START_MS + 1000 * n + 900)
    ticked = tick(Clock(), traffic.events, arrived if live else None)
    late = np.array([event.source == "gateway/late" for event in traffic.events])
    behind = (ticked.watermark - ticked.time)[late][-600:]
    assert (behind <= 2_000).mean() >= 0.9
    # Its velocity is what it was: the times are put off by the same, not pressed together.
    steps = np.diff(ticked.time[late][-600:])
    assert np.median(steps) == 1000
    assert (ticked.watermark[~late] - ticked.time[~late]).max() <= 1_000


def test_at_night_nobody_who_is_right_is_set_right() -> None:
    """A file of gateways that are prompt and whose clocks are right, some busy, most of them next to idle."""
    dice, calls = random.Random(8), list[tuple[float, int]]()
    for gateway in range(12):
        at = 0.0
        while at < 4 * 3600:
            at += dice.expovariate(1 / (5.0 + 8.0 * gateway))
            calls.append((at, gateway))
    traffic = Traffic()
    for n, (at, gateway) in enumerate(sorted(calls)):
        traffic.call(at, source=f"gateway/{gateway}", event_id=f"e{n}")
    ticked = tick(Clock(), traffic.events)
    assert (ticked.time >= to_batch(traffic.events, range(len(calls)), [0] * len(calls)).time).all()


def test_a_fast_clock_stays_set_right_by_as_much_while_little_comes() -> None:
    """By day a third of the traffic is 40 s fast; then an hour of a call now and then."""
    dice, traffic, at = random.Random(9), Traffic(), 0.0
    for n in range(1200 + 400):
        at += 1.0 if n < 1200 else dice.expovariate(1 / 9)
        source = f"gateway/{n % 3 if n < 1200 else dice.randrange(3)}"
        traffic.call(at + (40.0 if source == "gateway/0" else 0.0), source=source, event_id=f"e{n}")
    ticked = tick(Clock(), traffic.events)
    told = to_batch(traffic.events, range(1600), [0] * 1600).time
    fast = np.array([event.source == "gateway/0" for event in traffic.events])
    fast[:900] = False
    set_back = (told - ticked.time)[fast]
    assert np.ptp(set_back[:90]) == 0
    assert set_back.max() == set_back[0]


@pytest.mark.parametrize("live", [False, True])
def test_a_gateway_that_is_late_for_a_while_keeps_its_clock(live: bool) -> None:
    """Its clock is 60 s fast. For some minutes it hands over at any time what it has held back."""
    dice, traffic, arrived, moment = random.Random(10), Traffic(), list[int](), []
    for n in range(2400):
        held = 1200 <= n < 1800
        for source in ("right", "also", "fast"):
            fast = source == "fast"
            at = n + (60.0 - (dice.uniform(0, 40) if held else 0.0) if fast else 0.0)
            traffic.call(at, source=f"gateway/{source}", event_id=f"{source}-{n}")
            arrived.append(START_MS + 1000 * n)
            moment.append(fast and n >= 1200)
    ticked = tick(Clock(), traffic.events, arrived if live else None)
    told = to_batch(traffic.events, range(len(arrived)), arrived).time
    kept = np.array(moment)
    assert (told - ticked.time)[kept].min() >= 15_000
    assert (ticked.time - np.array(arrived))[~kept][-300:].max() <= 1_000

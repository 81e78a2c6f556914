"""Partitions that move: workers join, leave, and wake up after theirs were taken.

Claimed: whoever owns a partition goes on where its last checkpoint was. What follows from each usage event is
published at least once, a repeat byte for byte the same. A worker that slept while its partitions moved moves no
offset and issues no command any more: the broker refuses them.
"""

import signal
import time
from pathlib import Path

from chaos import settle, stopped_inside, wait_read, wait_restored
from kafka_node import KafkaNode
from oracle import check, check_detect
from traffic import Traffic
from workers import PARTITIONS, Road, Worker, quick_road, wait_until

PACE = 60
"""With bursts of thousands of events, partitions are revoked while chunks are under way."""


def test_workers_join_and_leave_while_events_flow(kafka_node: KafkaNode, tmp_path: Path) -> None:
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        first = road.start("detect")
        with Traffic(kafka_node.bootstrap, 3, PACE, behind=3 * 3600):
            wait_restored(road, first)
            second = road.start("detect")
            third = road.start("detect")
            wait_restored(road, second, third)
            leave_in_the_middle(road, first)
            leave_in_the_middle(road, third)
            time.sleep(1.0)
        settle(road)
        check_detect(road)


def leave_in_the_middle(road: Road, worker: Worker) -> None:
    """Has a worker leave while much waits to be read: the others' partitions are revoked with chunks under way."""
    wait_until(lambda: road.lag("detect") > 1000, "there is something to read", road)
    assert road.stop(worker) == 0, worker.log.read_text()


def test_a_worker_that_wakes_up_after_its_partitions_moved_is_refused(kafka_node: KafkaNode, tmp_path: Path) -> None:
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        with Traffic(kafka_node.bootstrap, 4):
            sleepers, heirs = ([road.start(app) for app in ("detect", "decide")] for _ in range(2))
            wait_restored(road, *sleepers, *heirs)
            before = [len(heir.restored()) for heir in heirs]
            for sleeper in sleepers:
                if not stopped_inside(road, sleeper):
                    sleeper.send_signal(signal.SIGSTOP)
            for heir, times in zip(heirs, before, strict=True):
                wait_until(lambda h=heir, t=times: has_all(h, t), f"{heir.log.name}: all partitions", road)
            taken = reached(road)
            for sleeper in sleepers:
                sleeper.send_signal(signal.SIGCONT)
            for _ in range(25):
                now = reached(road)
                assert all(now[at] >= offset for at, offset in taken.items()), "an offset went back"
                taken = now
                road.supervise()
                time.sleep(0.2)
        settle(road)
        assert check(road)


def has_all(worker: Worker, before: int) -> bool:
    """Whether a worker has got all partitions, after it has got some `before` times."""
    return worker.restored()[before:][-1:] == [PARTITIONS]


def test_a_worker_that_gets_its_partitions_back_starts_from_what_others_saved(
    kafka_node: KafkaNode, tmp_path: Path
) -> None:
    """It slept with nothing unsaved, so that no refusal tells it that others have owned its partitions meanwhile."""
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        sleeper = road.start("detect")
        save_some(road, sleeper, 5)
        sleeper.send_signal(signal.SIGSTOP)
        heir = road.start("detect")
        save_some(road, heir, 6)
        sleeper.send_signal(signal.SIGCONT)
        assert road.stop(heir) == 0, heir.log.read_text()
        with Traffic(kafka_node.bootstrap, 7):
            for _ in range(30):
                road.supervise()
                time.sleep(0.2)
        settle(road)
        check_detect(road)


def save_some(road: Road, worker: Worker, seed: int) -> None:
    """Has a worker take some traffic in, until it has saved all of it."""
    with Traffic(road.bootstrap, seed):
        wait_restored(road, worker)
        time.sleep(2.0)
    wait_read(road)


def reached(road: Road) -> dict[tuple[str, int], int]:
    return {(at.topic, at.partition): at.offset for app in ("detect", "decide") for at in road.committed(app)}

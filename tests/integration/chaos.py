"""Kills of workers at random points, and at points that are aimed at."""

import random
import signal
import time
from collections import Counter
from functools import partial

from oracle import Undisturbed, read
from schemas.topics import AUDIT, SIGNALS, STATE_DECIDE, STATE_DETECT, TOPICS, USAGE
from traffic import Traffic
from workers import Road, Worker, wait_until

STATES = {"detect": STATE_DETECT, "decide": STATE_DECIDE}
AIM_S = 5.0


def chaos(road: Road, seed: int, kills: int) -> Counter[str]:
    """Kills detect and decide by turns, `kills` times, while traffic flows, and once more when all has been read.

    A kill comes while the worker starts or restores, at any moment after that, or inside a checkpoint's transaction.
    Each is started again at once, as the same static member of its group. Returns how many kills there were of each
    sort.
    """
    chance, count = random.Random(seed), Counter[str]()
    workers = {app: road.start(app, instance=app) for app in STATES}
    with Traffic(road.bootstrap, seed):
        for number in range(kills):
            app = ("detect", "decide")[number % 2]
            worker = workers[app]
            how = chance.choice(("early", "any", "any", "inside", "inside"))
            if how == "early" and number > 1:
                time.sleep(chance.uniform(0.0, 4.0))
            else:
                wait_restored(road, worker)
                time.sleep(chance.uniform(0.0, 2.5))
            if how == "inside" and not stopped_inside(road, worker):
                how = "missed"
            assert worker.poll() is None, f"{worker.log.name}: ended by itself\n{road.logs()}"
            road.stop(worker, signal.SIGKILL)
            count[f"{app} {how}"] += 1
            workers[app] = road.start(app, instance=app)
        wait_until(lambda: ordered(road) >= {"throttle", "suspend", "revoke"}, "every sort of block", road)
    wait_until(lambda: "restore" in ordered(road), "a block that ends", road)
    settle(road)
    return count


def ordered(road: Road) -> set[str]:
    """The actions that were ordered so far."""
    return {order.command.action for records in read(road, AUDIT) for order in Undisturbed(road).published(records)}


def settle(road: Road, *, supervised: bool = False) -> None:
    """Waits until the workers have taken in what is published by now, then kills them; returns when nothing is pending
    of what they wrote: a transaction that is left open hides what others have written behind it. Where `supervised`,
    those that end by themselves meanwhile are started again."""
    wait_read(road, supervised=supervised)
    for worker in list(road.workers):
        road.stop(worker, signal.SIGKILL)
    for topic in TOPICS:
        wait_until(lambda name=topic.name: _is_stable(road, name), f"no transaction is open in {topic.name}", road)


def _is_stable(road: Road, topic: str) -> bool:
    return road.ends(topic, committed=True) == road.ends(topic, committed=False)


def wait_read(road: Road, *, supervised: bool = False) -> None:
    """Waits until the workers have saved that they have read what is published by now."""

    def covers(app: str, topic: str, ends: dict[int, int]) -> bool:
        if supervised:
            road.supervise()
        return _covers(road, app, topic, ends)

    for app, topic in (("detect", USAGE), ("decide", SIGNALS)):
        if app not in {worker.app for worker in road.workers}:
            continue
        # Behind the last record; the topic's own end may be behind the mark of a transaction.
        ends = {message.partition(): message.offset() + 1 for message in road.read(topic)}
        wait_until(partial(covers, app, topic, ends), f"{app} has read all", road)


def _covers(road: Road, app: str, topic: str, ends: dict[int, int]) -> bool:
    reached = {at.partition: at.offset for at in road.committed(app) if at.topic == topic}
    return all(reached[number] >= end for number, end in ends.items())


def wait_restored(road: Road, *workers: Worker) -> None:
    """Waits until workers have their partitions' state back. Fails where one ends."""
    for worker in workers:
        wait_until(lambda worker=worker: worker.restored() != [], f"{worker.log.name}: its state is back", road)


def stopped_inside(road: Road, worker: Worker) -> bool:
    """Stops a worker (SIGSTOP) while a transaction of it is open in its state topic; False where none was met."""
    topic, end = STATES[worker.app], time.monotonic() + AIM_S
    while time.monotonic() < end:
        before = road.ends(topic, committed=False)
        while road.ends(topic, committed=False) == before and time.monotonic() < end:
            pass
        worker.send_signal(signal.SIGSTOP)
        if road.ends(topic, committed=True) != road.ends(topic, committed=False):
            return True
        worker.send_signal(signal.SIGCONT)
    return False

"""A broker that goes away under running workers, or has no room left: they wait or end, come back, and miss nothing.

Claimed: of every usage event that the broker took, what follows is published at least once, and nothing else is; the
commands are those that undisturbed workers would have issued on the same signals. Told to stop, a worker does not wait
for a broker that is gone.

`TRIPSWITCH_CHAOS_SEED` sets the seed (else it is random, and in the test's name).
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos import settle, wait_restored
from kafka_node import QUICK_RETURN, KafkaNode
from oracle import check
from traffic import Traffic
from workers import Road, Worker, quick_road, wait_until

SEED = int(os.environ.get("TRIPSWITCH_CHAOS_SEED", random.randrange(1_000_000)))


@contextmanager
def small_disk(at: Path, megabytes: int) -> Iterator[None]:
    """A disk of its own at `at`, in memory."""
    at.mkdir(parents=True)
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={megabytes}m", "tripswitch-test", str(at)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    # Unbuffered: what a buffer still held would fail once more when the file is closed.
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    return ballast


@contextmanager
def at_work(road: Road, seed: int, undisturbed: float = 3.0) -> Iterator[list[Worker]]:
    """Workers under traffic to be disturbed, so many seconds after they have their state, or at once where that is 0;
    asserts afterwards that they come back and miss nothing."""
    workers = [road.start("detect", "a"), road.start("decide", "a")]
    with Traffic(road.bootstrap, seed):
        if undisturbed:
            wait_restored(road, *workers)
            time.sleep(undisturbed)
        yield workers
        supervised(road, 8.0)
    settle(road, supervised=True)
    assert check(road)


def supervised(road: Road, seconds: float) -> None:
    """Goes on for some seconds; what ends by itself is started again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        road.supervise()
        time.sleep(0.2)


@pytest.mark.parametrize("seed", [SEED])
def test_workers_outlive_a_broker_that_is_killed(kafka_node: KafkaNode, tmp_path: Path, seed: int) -> None:
    """At any moment, first while they start or take in the first records; for shorter and longer than clients wait."""
    chance = random.Random(seed)
    with quick_road(kafka_node.bootstrap, tmp_path) as road, at_work(road, seed, undisturbed=0.0):
        for _ in range(3):
            supervised(road, chance.uniform(0.0, 9.0))
            kafka_node.kill9()
            supervised(road, chance.uniform(0.0, 6.0))
            kafka_node.start()


def test_workers_that_are_told_to_stop_do_so_without_a_broker(kafka_node: KafkaNode, tmp_path: Path) -> None:
    with quick_road(kafka_node.bootstrap, tmp_path) as road, at_work(road, 3) as workers:
        kafka_node.kill9()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait(60.0) == 1
            said = worker.log.read_text(errors="replace").splitlines()
            [line] = [line for line in said if line.startswith(f"{worker.app}: could not stop within")]
            assert "what was not saved is read again" in line
        kafka_node.start()


def test_workers_lose_nothing_when_the_brokers_disk_is_full(kafka_classpath: Path, tmp_path: Path) -> None:
    disk = tmp_path / "kafka" / "records"
    with (
        small_disk(disk, 400),
        KafkaNode(kafka_classpath, tmp_path / "kafka", QUICK_RETURN) as node,
        quick_road(node.bootstrap, tmp_path) as road,
        at_work(road, 2),
    ):
        ballast = fill(disk)
        # Kafka gives a disk up that it cannot write to, and ends when it was the last.
        wait_until(lambda: not node.running, "the broker notices", road)
        ballast.unlink()
        node.start()

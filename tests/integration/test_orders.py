"""People's orders, while decide is killed and attacks go on.

Claimed: an order is carried out at least once, and again only under the same id and epoch; what a person blocked,
nobody lowers but a person, whoever was killed in between.
"""

import random
import signal
import time
from pathlib import Path

from chaos import settle, wait_restored
from kafka_node import KafkaNode
from oracle import Order, Undisturbed, check_detect, read
from schemas.command import STRICTNESS
from schemas.topics import AUDIT
from traffic import Traffic
from workers import Road, quick_road, wait_until


def test_orders_are_carried_out_over_kills(kafka_node: KafkaNode, tmp_path: Path) -> None:
    with quick_road(kafka_node.bootstrap, tmp_path) as road:
        workers = [road.start("detect", "a"), road.start("decide", "a")]
        with Traffic(kafka_node.bootstrap, 5):
            wait_restored(road, *workers)
            for action in ("revoke", "restore", "suspend"):
                road.cli(action, "acme/acme-spike0", "--reason", "as the owner asked", "--no-wait")
                time.sleep(random.uniform(0.0, 0.3))
                road.stop(road.workers[-1], signal.SIGKILL)
                road.start("decide", "a")
                wait_until(lambda action=action: manual(orders(road))[-1:] == [action], f"the {action}", road)
        settle(road)
    check_detect(road)
    told = orders(road)
    assert manual(told) == ["revoke", "restore", "suspend"]
    epochs = [order.command.epoch for order in told]
    assert epochs == sorted(set(epochs))
    held = 0
    for order in told:
        if order.command.manual:
            held = STRICTNESS[order.command.action]
        else:
            assert STRICTNESS[order.command.action] > held, f"{order.command} lowers what a person ordered"


def orders(road: Road) -> list[Order]:
    """The orders on the identity, in order; a repeat counts once."""
    published = Undisturbed(road).published([r for records in read(road, AUDIT) for r in records])
    return [order for order in published if order.command.subject == "acme-spike0"]


def manual(published: list[Order]) -> list[str]:
    return [order.command.action for order in published if order.command.manual]

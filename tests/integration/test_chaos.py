"""Workers that are killed (-9) again and again while attacks go on.

Claimed: nothing is lost and nothing is made up. Every signal that follows from the usage events is published at least
once, a repeat being the same byte for byte; the commands are those that an undisturbed worker would have issued on the
same signals, each once or again under the same id and epoch; and the caps hold. This is at-least-once with idempotent
effects.

`TRIPSWITCH_CHAOS_SEED` sets the first seed (else it is random, and in the test's name), `TRIPSWITCH_CHAOS_KILLS` how
many kills there are in all (else 20): a round of 20 for each seed, on a broker of its own.
"""

import logging
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from chaos import chaos
from kafka_node import KafkaNode
from oracle import check
from workers import UNCAPPED, quick_road

PER_ROUND = 20
CAPS = (2, 3)
"""Identities blocked of a tenant and in all, per partition: the crowd has more thieves than that."""
KILLS = int(os.environ.get("TRIPSWITCH_CHAOS_KILLS", PER_ROUND))
FIRST = int(os.environ.get("TRIPSWITCH_CHAOS_SEED", random.randrange(1_000_000)))
log = logging.getLogger(__name__)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + max(1, KILLS // PER_ROUND)))
def test_nothing_is_lost_or_made_up_by_kills(kafka_node: KafkaNode, tmp_path: Path, seed: int) -> None:
    # Every other round with caps that bite, and every other with none to speak of.
    caps = CAPS if seed % 2 else UNCAPPED
    with quick_road(kafka_node.bootstrap, tmp_path, caps) as road:
        log.info("seed %d: %d kills begin", seed, PER_ROUND)
        kills = chaos(road, seed, PER_ROUND)
        actions = Counter(order.command.action for order in check(road, caps))
        log.info("seed %d: kills %s, commands %s: as undisturbed", seed, dict(kills), dict(actions))
        assert any("inside" in how for how in kills), "no kill hit a checkpoint"

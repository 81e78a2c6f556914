"""The configuration that the demo gateway gets: it must see the sample's identities where they always were."""

import json
from pathlib import Path

import pytest

from streams.demo.gateway import gateway_config, key_of
from streams.demo.history import History, read_history
from streams.demo.story import ATTACKS, PRICES
from tripswitch_gateway.demo.config import GatewayConfig, read_config


@pytest.fixture(scope="module")
def history() -> History:
    return read_history()


@pytest.fixture(scope="module")
def config(history: History, tmp_path_factory: pytest.TempPathFactory) -> GatewayConfig:
    path: Path = tmp_path_factory.mktemp("gateway") / "gateway.json"
    path.write_text(json.dumps(gateway_config(history)))
    return read_config(path)


def test_every_identity_has_its_key(history: History, config: GatewayConfig) -> None:
    assert len(config.keys) == len(history.pasts)
    for past in history.pasts.values():
        caller = config.keys[key_of(past.identity)]
        assert (caller.identity, caller.tenant, caller.credential_id) == (past.identity, past.tenant, past.credential)
        assert (caller.kind, caller.workload) == (past.kind, past.workload)


def test_an_address_lies_where_the_sample_saw_it(history: History, config: GatewayConfig) -> None:
    for past in history.pasts.values():
        for call in past.calls[:50]:
            place = config.place(call.data.ip)
            assert (place["country"], place["asn"]) == (call.data.country, call.data.asn)


def test_the_thief_is_where_the_key_never_was(history: History, config: GatewayConfig) -> None:
    (theft,) = [attack for attack in ATTACKS if attack.name == "theft"]
    place = config.place(theft.address)
    for call in history.pasts[theft.identity].calls:
        assert call.data.country != place["country"]
        assert call.data.asn != place["asn"]


def test_prices_are_the_storys(config: GatewayConfig) -> None:
    assert config.prices == PRICES
    assert {attack.model for attack in ATTACKS} - {None} <= set(PRICES)

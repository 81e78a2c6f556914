"""The files that bind the writer of commands and their receivers: both must agree with each of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tripswitch_gateway import CommandVerifier, RevocationTable

FILES = sorted((Path(__file__).parent.parent / "golden" / "killswitch").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_golden_command(file: Path, verifier: CommandVerifier, signer: Any) -> None:
    golden = json.loads(file.read_text(encoding="utf-8"))
    command = verifier.verify(golden["record_key"].encode(), signer.sign(golden["claims"]))
    assert command.key == golden["record_key"]
    table = RevocationTable()
    table.apply(command, golden["claims"]["iat"] * 1000)
    for case in golden["checks"]:
        decision = table.check(**case["caller"], now_ms=case["now_ms"])
        assert {
            "allowed": decision.allowed,
            "status": decision.status,
            "action": decision.command.action if decision.command else None,
            "model": decision.model,
        } == case["decision"], case


def test_there_are_golden_files_for_every_action() -> None:
    actions = set()
    for file in FILES:
        [event] = json.loads(file.read_text(encoding="utf-8"))["claims"]["events"].values()
        actions.add(event["ext"]["action"])
    assert actions == {"restore", "throttle", "downgrade", "suspend", "revoke"}

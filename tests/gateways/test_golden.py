"""The files that bind the writer of commands and their receivers: both must agree with each of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tripswitch_gateway import Command, CommandVerifier, KeyFile, RevocationTable

GOLDEN = Path(__file__).parent.parent / "golden"
FILES = sorted((GOLDEN / "killswitch").glob("*.json"))


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


def test_golden_heartbeat(verifier: CommandVerifier, signer: Any) -> None:
    golden = json.loads((GOLDEN / "heartbeat.json").read_text(encoding="utf-8"))
    beat = verifier.verify_heartbeat(golden["record_key"].encode(), signer.sign(golden["claims"]), 3)
    table = RevocationTable()
    for number, made in enumerate(golden["commands"]):
        command = Command(
            key=made["record_key"],
            command_id=str(number),
            incident_id="",
            action=made["action"],
            scope="identity",
            tenant="acme",
            identity=str(number),
            subject=str(number),
            epoch=made["epoch"],
            not_before=0,
            expires_at=made["expires_at"],
            on_expiry=made["on_expiry"],
            partition=3,
        )
        assert not table.agrees(beat)
        table.apply(command, beat.at)
    assert table.agrees(beat)
    kids = "\n".join(sorted(golden["kids"]))
    assert hashlib.sha256(kids.encode()).hexdigest() == beat.jwks_sha256


def test_golden_break_glass(verifier: CommandVerifier, jwks: Path, signer: Any, break_glass: Any) -> None:
    golden = json.loads((GOLDEN / "break_glass.json").read_text(encoding="utf-8"))
    jwks.write_text(json.dumps({"keys": [signer.jwk(), break_glass.jwk()]}), encoding="utf-8")
    both = CommandVerifier(KeyFile(jwks), verifier.issuer, clock_ms=lambda: golden["claims"]["iat"] * 1000)
    command = both.verify(golden["record_key"].encode(), break_glass.sign(golden["claims"]))
    assert command.break_glass
    assert command.manual

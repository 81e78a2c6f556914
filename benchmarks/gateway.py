"""A gateway that only obeys: `python -m benchmarks.gateway NAME FILE` follows the kill switch until SIGTERM, and then
writes a line for each block: when a check on its subject was first denied (ns), and what the command says."""

import json
import signal
import sys
import time
from pathlib import Path
from threading import Event

from tripswitch_gateway import Command, CommandVerifier, KeyFile, RevocationList, load_settings

READY = "gateway: ready"


def main() -> None:
    ended = Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    settings = load_settings()
    denials: list[tuple[str, int, int]] = []

    def ask(command: Command) -> None:
        # In the subscriber's thread, directly after the command took force: a check before it was allowed.
        if not blocks.check(command.subject, tenant=command.tenant).allowed:
            denials.append((command.subject, time.time_ns(), command.not_before))

    verifier = CommandVerifier(KeyFile(settings.jwks), settings.issuer)
    blocks = RevocationList(settings.kafka, verifier, gateway=sys.argv[1], on_change=ask)
    with blocks:
        blocks.ready.wait()
        print(READY, flush=True)
        ended.wait()
    Path(sys.argv[2]).write_text("".join(f"{json.dumps(denial)}\n" for denial in denials))


if __name__ == "__main__":
    main()

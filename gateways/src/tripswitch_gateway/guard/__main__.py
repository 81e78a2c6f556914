"""``tripswitch-guard``: answers proxies whether a call may go on (nginx auth_request, Envoy ext_authz, Caddy, Traefik).

Settings: the tables [kafka], [signing], [gateway] and [guard] of tripswitch.toml; the environment wins over them.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from tripswitch_gateway.commands import CommandVerifier
from tripswitch_gateway.guard.app import Guard
from tripswitch_gateway.guard.config import GuardConfig, read_guard_config
from tripswitch_gateway.guard.known_keys import KnownKeys
from tripswitch_gateway.keys import KeyFile, KeysUnreadable
from tripswitch_gateway.settings import SettingsError, load_settings
from tripswitch_gateway.subscriber import RevocationList

try:
    import uvicorn
except ModuleNotFoundError:
    sys.stderr.write('tripswitch-guard: needs an extra: pip install "tripswitch-gateway[guard]"\n')
    raise SystemExit(2) from None

_BACKLOG = 2048
_DRAIN_S = 10


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT, then finishes the requests under way. Returns 2 for the user's mistakes."""
    parser = argparse.ArgumentParser(prog="tripswitch-guard", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--listen", metavar="HOST:PORT", help="address to listen on (default: 127.0.0.1:9191)")
    parser.add_argument("--name", help="what acknowledgements call this guard (default: the host's name)")
    parser.add_argument("--settings", type=Path, default=Path("tripswitch.toml"), help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = read_guard_config(options.settings, os.environ, listen=options.listen, name=options.name)
        keys = None if config.keys is None else KnownKeys(config.keys)
        settings = load_settings(file=options.settings)
        blocks = RevocationList(
            settings.kafka,
            CommandVerifier(KeyFile(settings.jwks), settings.issuer),
            gateway=config.name,
            on_stale=settings.on_stale,
            snapshot=settings.snapshot,
        )
        listening = _listen(config)
    except (SettingsError, KeysUnreadable) as error:
        sys.stderr.write(f"tripswitch-guard: {' '.join(str(error).split())}\n")
        return 2
    server = uvicorn.Server(
        uvicorn.Config(
            Guard(config, blocks, keys, settings.on_stale),
            # A request's line and headers are nobody's business: they hold credentials.
            access_log=False,
            log_config=None,
            log_level="warning",
            lifespan="on",
            ws="none",
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_DRAIN_S,
        )
    )
    # uvicorn raises the signals again that ended it, when all is done: then they have nothing left to do.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listening])
    return 0


def _listen(config: GuardConfig) -> socket.socket:
    """Raises `SettingsError` where nobody can listen."""
    try:
        family = socket.AF_INET6 if ":" in config.address[0] else socket.AF_INET
        return socket.create_server(config.address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {config.listen}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())

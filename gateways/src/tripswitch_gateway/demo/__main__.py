"""A small AI gateway to try tripswitch with: ``python -m tripswitch_gateway.demo --port P --config gateway.json``.

Answers every chat completion at once with made-up text, publishes what it would have cost, and obeys the kill switch.
"""

import argparse
import logging
import sys
from pathlib import Path

from aiohttp import web

from tripswitch_gateway.demo.app import make_app
from tripswitch_gateway.demo.config import ConfigError, read_config
from tripswitch_gateway.keys import KeysUnreadable
from tripswitch_gateway.settings import SettingsError, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns 2 when the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tripswitch_gateway.demo", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True, help="keys, networks and prices, JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        app = make_app(read_config(options.config), load_settings())
    except (ConfigError, SettingsError, KeysUnreadable) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    web.run_app(app, host=options.host, port=options.port, access_log=None, print=None, shutdown_timeout=5.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())

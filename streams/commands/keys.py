"""`tripswitch keys`: the keys that sign commands."""

from pathlib import Path

from sinks.killswitch import new_keys
from streams.commands.terminal import one_line
from streams.settings import read_settings


def new() -> None:
    """Makes the signing key and its JWKS file where the settings say; overwrites nothing."""
    with one_line():
        signing = read_settings().signing
        kid = new_keys(Path(signing.key), Path(signing.jwks))
        print(f"private key {signing.key}, public keys {signing.jwks}, kid {kid}")

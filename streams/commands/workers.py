"""`tripswitch demo`, `init` and `run`: what works until it is stopped, and what it needs."""

from typing import Annotated, Literal

import typer

from schemas.directory import Directory
from streams.commands.terminal import JsonOption, one_line
from streams.settings import SettingsError, read_settings

AppName = Literal["detect", "decide", "archive", "notify"]


def demo(as_json: JsonOption = False) -> None:
    """The whole system on this machine, nothing to install or start; a gateway is attacked before your eyes."""
    from streams.demo import run as play

    with one_line():
        code = play(json=as_json)
    raise typer.Exit(code)


def init() -> None:
    """Makes topics, ClickHouse tables and signing keys; changes nothing that is there."""
    from streams.init import initialise

    with one_line():
        done = False
        for line in initialise(read_settings()):
            done = True
            print(line)
        print("ready" if done else "ready; there was nothing to do")


def run(name: Annotated[AppName, typer.Argument(metavar="detect|decide|archive|notify")]) -> None:
    """Runs a worker of one Faust app until it is stopped."""
    import importlib

    from schemas.topics import TOPICS
    from streams.app import run as work
    from streams.init import reach

    with one_line():
        settings = read_settings()
        missing = [topic.name for topic in TOPICS if topic.name not in reach(settings.kafka)]
        if missing:
            raise SettingsError(
                f"the broker at {settings.kafka.bootstrap} lacks {', '.join(missing)}; run `tripswitch init` first"
            )
        if name == "archive":
            from streams.archive import make_sink

            with make_sink(settings.clickhouse.url, Directory()) as sink:
                sink.setup()
        worker = importlib.import_module(f"streams.{name}").app
    work(worker)

"""The whole system on this machine: a gateway is attacked before your eyes. `tripswitch demo` runs it."""

import importlib.util
import os
import sys

from rich.console import Console

from streams.demo.play import TooSlow, play
from streams.demo.processes import Died
from streams.demo.screen import Plain, Screen, Silent
from streams.demo.summary import as_json, show

__all__ = ["run"]

_MISTAKE, _MISSED, _INTERRUPTED = 2, 1, 130
_NEEDS = {"chdb": "pip install 'tripswitch[embedded]'", "tripswitch_gateway": "pip install 'tripswitch-gateway[demo]'"}
_WIDTH = 110


def run(*, json: bool) -> int:
    """Plays the demo and tells of it. Returns the exit code: 0; 1 when an attack was missed or something broke; 2 when
    something is not installed; 130 when it was interrupted."""
    for module, remedy in _NEEDS.items():
        if importlib.util.find_spec(module) is None:
            print(f"tripswitch: the demo needs {module}: {remedy}", file=sys.stderr)
            return _MISTAKE
    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    console = Console(highlight=False) if terminal else Console(width=_WIDTH, highlight=False, force_terminal=False)
    try:
        if json:
            played = play(Plain(lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else Silent())
        elif terminal:
            with Screen(console) as screen:
                played = play(screen)
        else:
            played = play(Plain(lambda line: print(line, flush=True)))
    except KeyboardInterrupt:
        print("tripswitch: interrupted; everything was stopped", file=sys.stderr)
        return _INTERRUPTED
    except (Died, TooSlow) as error:
        print(f"tripswitch: {error}", file=sys.stderr)
        return _MISSED
    if json:
        print(as_json(played))
    else:
        show(played, console)
    return _MISSED if played.board.missed else 0

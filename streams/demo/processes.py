"""The processes that the demo starts: the workers and the gateway, each with a log, all of them stopped at the end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_GRACE_SECONDS = 8.0
_TAIL = 12
_OURS = ("KAFKA_", "CLICKHOUSE_", "SLACK_", "TRIPSWITCH_")


class Died(RuntimeError):
    """A process ended though nobody asked it to; says which, and the end of its log."""


class Processes:
    """Starts Python processes in `folder`, with an environment of their own. Only what was started here is stopped."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._environment = {**inherited, **settings}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ending: set[str] = set()

    def start(self, name: str, *words: str, ends: bool = False, settings: Mapping[str, str] | None = None) -> None:
        """Runs `python WORDS` as `name`, until it is stopped or, where it `ends`, to its end; its output goes to
        `name`.log. A session of its own: a Ctrl-C is ours to pass on, in our order."""
        if ends:
            self._ending.add(name)
        with self.log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, *words],
                env={**self._environment, **(settings or {})}, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self._folder / f"{name}.log"

    def finished(self, name: str) -> bool:
        """Whether a process that is meant to end has ended well.

        Raises:
            Died: it ended otherwise.
        """
        code = self._running[name].poll()
        if code is None:
            return False
        del self._running[name]
        if code != 0:
            raise Died(self._last_words(name, code))
        return True

    def check(self) -> None:
        """Raises Died when one of those that should run does not."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None and name not in self._ending:
                raise Died(self._last_words(name, code))

    def ask_to_stop(self, names: Sequence[str]) -> None:
        """Sends SIGTERM to those of `names` that run."""
        self._ending.update(names)
        for name in names:
            process = self._running.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def gone(self, name: str) -> bool:
        """Whether a process that was asked to stop, has."""
        process = self._running.get(name)
        if process is None or process.poll() is None:
            return process is None
        del self._running[name]
        return True

    def close(self) -> None:
        """Stops everything that still runs, by force after a while. Returns when all are gone."""
        self.ask_to_stop(list(self._running))
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _last_words(self, name: str, code: int) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-_TAIL:]
        return "\n".join([f"{name} ended with exit code {code}; its log ends with:", *(f"  {line}" for line in lines)])

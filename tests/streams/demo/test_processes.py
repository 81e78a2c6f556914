"""Processes that are started are stopped, and a death is told."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.demo.processes import Died, Processes


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path, {"KAFKA_BOOTSTRAP": "ours:1"})
    yield made
    made.close()


def _wait(told: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not told():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_that_ends_well_is_finished(processes: Processes) -> None:
    processes.start("short", "-c", "print('done')", ends=True)
    _wait(lambda: processes.finished("short"))
    processes.check()
    assert processes.log("short").read_text() == "done\n"


def test_one_that_dies_is_told_with_the_end_of_its_log(processes: Processes) -> None:
    processes.start("worker", "-c", "raise SystemExit('no broker there')")
    with pytest.raises(Died, match=r"worker ended with exit code 1[^$]*no broker there"):
        _wait(processes.check)


def test_one_that_should_run_may_not_even_end_well(processes: Processes) -> None:
    processes.start("worker", "-c", "pass")
    with pytest.raises(Died, match="exit code 0"):
        _wait(processes.check)


def test_its_environment_is_ours_and_not_the_users(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "the user's")
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "theirs:9092")
    script = "import os; e = os.environ; print(e['KAFKA_BOOTSTRAP'], 'SLACK_BOT_TOKEN' in e, e['MORE'], os.getcwd())"
    processes.start("shown", "-c", script, ends=True, settings={"MORE": "1"})
    _wait(lambda: processes.finished("shown"))
    assert processes.log("shown").read_text().split() == ["ours:1", "False", "1", str(tmp_path)]


def test_close_stops_what_runs_also_what_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.demo.processes._GRACE_SECONDS", 0.5)
    processes = Processes(tmp_path, {})
    deaf = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(99)"
    polite = "import os, time; print(os.getpid(), flush=True); time.sleep(99)"
    processes.start("deaf", "-c", deaf)
    processes.start("polite", "-c", polite)
    _wait(lambda: all(processes.log(name).read_text() for name in ("deaf", "polite")))
    pids = [int(processes.log(name).read_text()) for name in ("deaf", "polite")]
    processes.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_that_was_asked_to_stop_goes(processes: Processes) -> None:
    processes.start("worker", "-c", "import time; time.sleep(99)")
    processes.ask_to_stop(["worker", "nobody"])
    _wait(lambda: processes.gone("worker"))
    processes.check()

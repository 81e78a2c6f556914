"""Which machine code a process finds again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLED = """
from schemas.compiled import compiled

FACTOR = 2

@compiled
def called(x):
    return FACTOR * x + 1
"""
CALLS = """
import sys
import called
from schemas.compiled import compiled

@compiled
def calls(x):
    return called.called(x) + 1

for text in sys.argv[1:]:
    print(calls(float(text) if "." in text else int(text)))
print("compiled", sum(calls.stats.cache_misses.values()))
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "called.py").write_text(CALLED)
    (tmp_path / "calls.py").write_text(CALLS)
    return tmp_path / "calls.py"


def run(module: Path, *numbers: str) -> list[str]:
    """What a process prints that calls the kernel."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(module), *numbers]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_it_is_found_by_the_next_process(module: Path) -> None:
    assert run(module, "3") == ["8", "compiled 1"]
    assert run(module, "3") == ["8", "compiled 0"]


def test_each_signature_has_a_file_of_its_own_whoever_saved_it(module: Path) -> None:
    """numba's own index says which number is whose; two processes can write one at the same time."""
    assert run(module, "3") == ["8", "compiled 1"]
    assert run(module, "3.5") == ["9.0", "compiled 1"]
    assert run(module, "3.5", "3") == ["9.0", "8", "compiled 0"]
    kept = [path for path in (module.parent / "__pycache__").iterdir() if path.name.startswith("calls.calls")]
    assert {path.suffix for path in kept} == {".nbc"}
    assert len(kept) == 2


@pytest.mark.parametrize(("old", "new", "result"), [("+ 1", "+ 2", "9"), ("FACTOR = 2", "FACTOR = 3", "11")])
def test_a_change_of_what_it_calls_is_seen(module: Path, old: str, new: str, result: str) -> None:
    assert run(module, "3") == ["8", "compiled 1"]
    (module.parent / "called.py").write_text(CALLED.replace(old, new))
    assert run(module, "3") == [result, "compiled 1"]

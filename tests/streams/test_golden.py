"""What the shipped policy finds in traffic made by hand: a positive and a negative case for each detector.

The events are in `tests/golden/replay/<case>.events.jsonl.gz`, what a replay of them must say beside them in
`<case>.findings.jsonl`, `.incidents.jsonl` and `.commands.jsonl`. After a change that is meant,

    REGENERATE_GOLDEN=1 python -m pytest tests/streams/test_golden.py

writes them all again; read the difference before it is committed. Left out of the comparison are the policy's version
and the digests of states, which change with a comment or with a new column.
"""

import difflib
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from made_traffic import CASES, DIRECTORY, as_lines, write_events

from detectors import DETECTORS
from streams.policy import Loaded
from streams.replay import replay

FOLDER = Path(__file__).parent.parent / "golden" / "replay"
OUTPUTS = ("findings", "incidents", "commands")
LEFT_OUT = {"policy", "state_digest"}
MOST_BYTES = 200_000
cases = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module", autouse=True)
def _regenerated() -> None:
    if os.environ.get("REGENERATE_GOLDEN"):
        write_events(FOLDER)


def comparable(value: Any) -> Any:
    """Numbers to six digits, because the last bits of a logarithm are the machine's own."""
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items() if name not in LEFT_OUT}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@cases
def test_a_replay_says_what_it_said(case: str, policy: Loaded, tmp_path: Path) -> None:
    replay(str(FOLDER / f"{case}.events.jsonl.gz"), tmp_path, policy, DIRECTORY)
    differences = []
    for output in OUTPUTS:
        made = [
            json.dumps(comparable(json.loads(line))) for line in (tmp_path / f"{output}.jsonl").read_text().splitlines()
        ]
        golden = FOLDER / f"{case}.{output}.jsonl"
        if os.environ.get("REGENERATE_GOLDEN"):
            golden.write_text("".join(f"{line}\n" for line in made))
        differences += difflib.unified_diff(
            golden.read_text().splitlines(), made, f"golden {golden.name}", f"replayed {golden.name}", n=0, lineterm=""
        )
    assert not differences, "\n" + "\n".join(differences)


@cases
def test_the_events_are_those_of_the_story(case: str) -> None:
    path = FOLDER / f"{case}.events.jsonl.gz"
    assert path.stat().st_size <= MOST_BYTES
    assert gzip.decompress(path.read_bytes()) == as_lines(CASES[case]()), (
        "python tests/golden/replay/made_traffic.py writes them"
    )


@pytest.mark.parametrize("kind", [detector.name for detector in DETECTORS])
def test_each_detector_has_a_positive_and_a_negative_case(kind: str) -> None:
    found = {
        case: [json.loads(line) for line in (FOLDER / f"{case}.findings.jsonl").read_text().splitlines()]
        for case in CASES
        if case.startswith(kind)
    }
    # Weak evidence is part of an ordinary life.
    told = [{f["kind"] for f in findings if f["severity"] not in ("info", "low")} for findings in found.values()]
    assert [kind in kinds for kinds in told] == [True, False]
    [positive, negative] = found
    assert (FOLDER / f"{positive}.incidents.jsonl").read_text()
    assert not (FOLDER / f"{negative}.commands.jsonl").read_text()

"""Every notebook's code runs on what a replay wrote."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    incident = {
        "tenant": "acme", "identity": "key_1", "kinds": ["spike"], "response": "throttle", "usd_per_minute": 69.0,
        "headline": "48 times its usual rate",
    }  # fmt: skip
    (tmp_path / "incidents.jsonl").write_text(json.dumps(incident) + "\n")
    (tmp_path / "commands.jsonl").write_text("")
    monkeypatch.setenv("REPLAY", str(tmp_path))
    cells = json.loads(notebook.read_text())["cells"]
    exec("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"), {})  # noqa: S102
    assert "$   69.00/min  acme/key_1  48 times its usual rate" in capsys.readouterr().out

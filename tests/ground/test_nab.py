"""The command that scores time series: what it reads and writes, and what it refuses. None of this is the benchmark."""

import csv
import gzip
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from detectors.excursions import score_series

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 2, tzinfo=UTC)
VALUES = [100.0 + n % 7 for n in range(300)]
VALUES[250] = 900.0


def nab(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "nab.py"), *map(str, paths)]
    return subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, check=False)


def a_series(stamp: str = "%Y-%m-%d %H:%M:%S") -> str:
    rows = [f"{(START + timedelta(minutes=5 * n)).strftime(stamp)},{value}" for n, value in enumerate(VALUES)]
    return "\n".join(["timestamp,value", *rows, ""])


def read(path: Path) -> tuple[list[str], list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["timestamp", "anomaly_score"]
    return [row["timestamp"] for row in rows], [float(row["anomaly_score"]) for row in rows]


@pytest.fixture
def series(tmp_path: Path) -> Path:
    (tmp_path / "series" / "some" / "where").mkdir(parents=True)
    return tmp_path / "series"


def test_plain_and_gzipped_series_of_any_folder_are_scored(series: Path, tmp_path: Path) -> None:
    (series / "top.csv").write_text(a_series("%Y-%m-%dT%H:%M:%SZ"), encoding="utf-8")
    (series / "some" / "where" / "deep.csv.gz").write_bytes(gzip.compress(a_series().encode()))
    (series / "README.md").write_text("no series", encoding="utf-8")
    done = nab(series, tmp_path / "scores")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(p.relative_to(tmp_path / "scores") for p in (tmp_path / "scores").rglob("*.csv*")) == [
        Path("some/where/deep.csv"),
        Path("top.csv"),
    ]
    stamps, scores = read(tmp_path / "scores" / "some" / "where" / "deep.csv")
    assert stamps[1] == "2026-03-02 00:05:00"
    assert len(scores) == len(VALUES)
    assert int(np.argmax(scores)) == 250
    assert scores == read(tmp_path / "scores" / "top.csv")[1]


def test_the_scores_are_those_of_the_detectors_bank(series: Path, tmp_path: Path) -> None:
    (series / "one.csv").write_text(a_series(), encoding="utf-8")
    assert nab(series, tmp_path / "scores").returncode == 0
    seconds = START.timestamp() + 300.0 * np.arange(len(VALUES))
    told = score_series(np.array(VALUES), seconds)
    assert read(tmp_path / "scores" / "one.csv")[1] == pytest.approx(told.tolist(), rel=1e-8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timestamp,amount\n2026-03-02,1\n", "bad.csv:1: no column 'value'"),
        ("", "bad.csv:1: no column 'timestamp'"),
        ("timestamp,value\n2026-03-02,1\nyesterday,2\n", "bad.csv:3: "),
        ("timestamp,value\n2026-03-02,\n", "bad.csv:2: "),
        ("timestamp,value\n2026-03-02\n", "bad.csv:2: "),
        ("timestamp,value\n2026-03-02,nan\n", "bad.csv:2: 'nan' is no finite number"),
    ],
    ids=["no value", "empty", "no time", "blank", "short", "nan"],
)
def test_a_series_that_cannot_be_read_is_named_and_nothing_is_written(
    series: Path, tmp_path: Path, text: str, said: str
) -> None:
    (series / "good.csv").write_text(a_series(), encoding="utf-8")
    (series / "bad.csv").write_text(text, encoding="utf-8")
    done = nab(series, tmp_path / "scores")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "scores").exists()


def test_what_is_no_gzip_is_named(series: Path, tmp_path: Path) -> None:
    (series / "bad.csv.gz").write_bytes(b"no gzip at all")
    done = nab(series, tmp_path / "scores")
    assert done.returncode == 2
    assert "bad.csv.gz: Not a gzipped file" in done.stderr


def test_folders_that_cannot_be_used_are_refused(series: Path, tmp_path: Path) -> None:
    assert "no such folder" in nab(tmp_path / "nowhere", tmp_path / "scores").stderr
    assert "no .csv or .csv.gz in it" in nab(series, tmp_path / "scores").stderr
    (series / "one.csv").write_text(a_series(), encoding="utf-8")
    assert "name another folder" in nab(series, series).stderr
    (series / "one.csv.gz").write_bytes(gzip.compress(a_series().encode()))
    assert "has the same name" in nab(series, tmp_path / "scores").stderr


def test_scores_among_the_series_are_no_series(series: Path) -> None:
    (series / "one.csv").write_text(a_series(), encoding="utf-8")
    for _ in range(2):
        assert nab(series, series / "scores").stdout.startswith("1 series scored")

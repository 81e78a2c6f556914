"""`python benchmarks/nab.py SERIES_DIR SCORES_DIR`: scores time series with the spike detector's bank of excursions.

Each CSV under SERIES_DIR (columns `timestamp` and `value`; plain or .gz, in any folders) becomes one of the same name,
without .gz, under SCORES_DIR, with `timestamp` and `anomaly_score`. It is what production runs on an identity's tokens
(`detectors/excursions.py`), adapted in two things only: the input, and that the hours' profile is the series' own. It
is causal: a score depends on the points up to its own.
"""

import argparse
import csv
import gzip
import math
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

if not __package__:
    # Run as a script: what is beside it is no top-level module.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from detectors.excursions import score_series


class SeriesError(ValueError):
    """A series that can't be read: says which file, which line and what is wrong."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="nab", description="Scores time series with the spike detector's bank of record excursions."
    )
    parser.add_argument("series", type=Path, metavar="SERIES_DIR", help="CSVs with timestamp and value, plain or .gz")
    parser.add_argument("scores", type=Path, metavar="SCORES_DIR", help="where a CSV per series is written")
    asked = parser.parse_args()
    try:
        count = score_folder(asked.series, asked.scores)
    except (SeriesError, OSError) as error:
        print(f"nab: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{count} series scored into {asked.scores}")


def score_folder(series: Path, scores: Path) -> int:
    """Scores every series under `series`; returns how many there were. Nothing is written unless all can be read.

    Raises:
        SeriesError: there is none, one can't be read, or two would be written to the same name.
    """
    if not series.is_dir():
        raise SeriesError(f"{series}: no such folder")
    if scores.resolve() == series.resolve():
        raise SeriesError(f"{scores}: this is where the series are; name another folder for the scores")
    found: dict[Path, Path] = {}
    for path in sorted(path for path in series.rglob("*") if path.name.endswith((".csv", ".csv.gz"))):
        if path.resolve().is_relative_to(scores.resolve()):
            continue
        name = path.relative_to(series)
        name = name.with_suffix("") if name.suffix == ".gz" else name
        if name in found:
            raise SeriesError(f"{path}: {found[name]} has the same name")
        found[name] = path
    if not found:
        raise SeriesError(f"{series}: no .csv or .csv.gz in it")
    told = {name: _score(path) for name, path in found.items()}
    for name, rows in told.items():
        target = scores / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("timestamp", "anomaly_score"), *rows])
    return len(found)


def _score(path: Path) -> list[tuple[str, str]]:
    """Each point's timestamp, as it is written there, and its score."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", newline="", encoding="utf-8-sig") as file:
            stamps, seconds, values = _read(path, file)
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
        raise SeriesError(f"{path}: {error}") from error
    scored = score_series(np.array(values), np.array(seconds))
    return list(zip(stamps, [f"{score:.9g}" for score in scored.tolist()], strict=True))


def _read(path: Path, lines: Iterable[str]) -> tuple[list[str], list[float], list[float]]:
    """Timestamps as they are written, in seconds since 1970 (UTC unless they say otherwise), and values."""
    table = csv.DictReader(lines)
    for column in ("timestamp", "value"):
        if column not in (table.fieldnames or ()):
            raise SeriesError(f"{path}:1: no column {column!r}")
    stamps, seconds, values = [], [], []
    for row in table:
        where = f"{path}:{table.line_num}"
        try:
            moment, value = datetime.fromisoformat(row["timestamp"]), float(row["value"])
        except (TypeError, ValueError) as error:
            raise SeriesError(f"{where}: {error}") from error
        if not math.isfinite(value):
            raise SeriesError(f"{where}: {row['value']!r} is no finite number")
        stamps.append(row["timestamp"])
        seconds.append((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        values.append(value)
    return stamps, seconds, values


if __name__ == "__main__":
    main()

"""Prints a table and writes build/benchmarks.json."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.offline import replay
from benchmarks.online import detect

_OUT = Path("build/benchmarks.json")


def main() -> None:
    rows = [*replay(200_000, 300), *replay(200_000, 100_000), *detect(200_000, 100_000)]
    table = Table("what", "identities", "CPU µs/event", "ratio", "events/s")
    for row in rows:
        table.add_row(
            str(row["what"]),
            f"{row['identities']:,}",
            str(row["cpu_us_per_event"]),
            str(row["ratio"]),
            f"{row.get('events_per_second', '')}",
        )
    Console().print(table)
    _OUT.parent.mkdir(exist_ok=True)
    _OUT.write_text(json.dumps(rows, indent=1) + "\n")


main()

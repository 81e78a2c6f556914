"""Speed, memory and delay, each figure beside a peer's or a limit's from the same run: `python -m benchmarks`."""

"""Says on standard output when so many events were read as BENCH_TARGETS asks for."""

import os


class Progress:
    """Counts events; writes `read N` when the count reaches a target N."""

    def __init__(self) -> None:
        self._targets = sorted(int(n) for n in os.environ["BENCH_TARGETS"].split(","))
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count
        while self._targets and self._count >= self._targets[0]:
            print(f"read {self._targets.pop(0)}", flush=True)

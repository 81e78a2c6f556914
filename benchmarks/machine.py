"""What a figure depends on: the machine and the versions. No name of a host, no path."""

import mmap
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = ("confluent-kafka", "aiokafka", "faust-streaming", "msgspec", "numpy", "numba", "river")


def facts() -> dict[str, str | int | float]:
    """Cores, memory, load and versions."""
    found: dict[str, str | int | float] = {
        "cores": os.cpu_count() or 0,
        "cpu": _cpu(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "seconds_to_touch_a_new_gb": round(_first_touch(), 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "java": _java(),
        "kafka": _kafka(),
    }
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    for line in Path(__file__).with_name("peers.txt").read_text().splitlines():
        name, equals, number = line.partition("==")
        if equals and name in ("quixstreams", "bytewax"):
            found[name] = number
    return found


def _first_touch() -> float:
    """CPU seconds for a GiB of memory that was not used before. The host of a virtual machine hands a page over when it
    is first touched, which is booked on the program that does."""
    with mmap.mmap(-1, 1 << 30) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        before = os.times()
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
        return os.times().system - before.system


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _java() -> str:
    if shutil.which("java") is None:
        return "absent"
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    return told.partition('"')[2].partition('"')[0]


def _kafka() -> str:
    from benchmarks.cluster import kafka_version

    return kafka_version()

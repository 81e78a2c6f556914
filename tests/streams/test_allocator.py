"""What a worker frees is there for its next buffers: counted in pages that the system had to hand over."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from streams.allocator import keep_what_is_freed
if sys.argv[1:]:
    keep_what_is_freed()
def fetch():
    return [b"x" * (5 << 20) for _ in range(4)]
fetch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fetch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    return int(subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_pages_of_freed_buffers_are_not_asked_for_again() -> None:
    assert faults("told") < faults() / 10

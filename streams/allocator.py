"""glibc's allocator, told what kind of program this is."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 8 << 20
"""Bytes. What sockets and fetches need stays below it; the largest tables of a partition do not, so that what they
leave behind as they grow goes back to the system."""
_SPARE = 64 << 20
"""Bytes that may lie unused at the end of a heap."""


def keep_what_is_freed() -> None:
    """Makes a buffer that is freed be there for the next one. A worker receives 256 KiB and fetches a MiB again and
    again; glibc maps such buffers and unmaps them, and the system clears each of their pages anew. Other C libraries
    are left as they are."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _SPARE)

"""Memory that grows where it stands."""

import mmap

_LARGE_PAGE = 1 << 21


def grown(memory: mmap.mmap | None, size: int) -> mmap.mmap:
    """Memory of at least `size` bytes that begins with what `memory` holds. The rest is zeros, and not given before it
    is touched.

    It is moved rather than copied, as a copy of gigabytes would keep records waiting; unless somebody still looks at
    it, who goes on seeing what it held, or the system can't.
    """
    if size > _LARGE_PAGE:
        # The system places what is so long where large pages begin, and leaves them whole when it is moved.
        size = -(-size // _LARGE_PAGE) * _LARGE_PAGE
    if memory is not None:
        try:
            memory.resize(size)
            return memory
        except (BufferError, SystemError):
            pass
    more = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Rows are asked for in no order: with small pages, most of an access would be to find the page.
        more.madvise(mmap.MADV_HUGEPAGE)
    if memory is not None:
        more[: len(memory)] = memory
    return more

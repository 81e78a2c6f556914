"""How kernels are compiled, here and in the detectors."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compiles `kernel` at its first call and keeps the machine code beside the source for the next process.

    Without fast-math: a score must be the same on every machine.
    """
    return numba.njit(cache=True)(kernel)  # type: ignore[no-any-return]


def compiled_bare(kernel: Kernel) -> Kernel:
    """Like `compiled`, for kernels that make no arrays: numba does not count references to those that they are given,
    which costs more than what small kernels do."""
    return numba.njit(cache=True, _nrt=False, forceinline=True)(kernel)  # type: ignore[no-any-return]

"""How the detectors' kernels are compiled, and the types that they speak of."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

State = NDArray[np.void]
"""A structured array, one row per identity."""
Row = Any
"""One of its rows inside a kernel, where fields are attributes."""
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compiles `kernel` at its first call and keeps the machine code beside the source for the next process.

    Without fast-math: a score must be the same on every machine.
    """
    return numba.njit(cache=True)(kernel)  # type: ignore[no-any-return]

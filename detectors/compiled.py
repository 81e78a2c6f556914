"""How the detectors' kernels are compiled, and the types that they speak of."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import compiled

__all__ = ["Row", "State", "compiled"]

State = NDArray[np.void]
"""A structured array, one row per identity."""
Row = Any
"""One of its rows inside a kernel, where fields are attributes."""

"""How kernels are compiled, here and in the detectors."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from types import CodeType, ModuleType
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core.caching import IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compiles `kernel` at its first call and keeps the machine code beside the source for the next process.

    Without fast-math: a score must be the same on every machine.
    """
    return _kept(numba.njit(cache=True)(kernel))  # type: ignore[no-any-return]


def compiled_bare(kernel: Kernel) -> Kernel:
    """Like `compiled`, for kernels that make no arrays: numba does not count references to those that they are given,
    which costs more than what small kernels do."""
    return _kept(numba.njit(cache=True, _nrt=False, forceinline=True)(kernel))  # type: ignore[no-any-return]


class _Files(IndexDataCacheFile):  # type: ignore[misc]
    """A kernel's machine code, in a file for each signature whose name says all that the code follows from.

    numba numbers the files in an index. Where two processes compile at the same time, one's number can end on the
    other's code; and code that has a called kernel in it outlives a change of that kernel. Either would be run without
    a word.
    """

    def __init__(self, kernel: Any, folder: str, base: str) -> None:
        super().__init__(folder, base, None)
        self._kernel = kernel
        self._base = base

    def save(self, key: Any, data: Any) -> None:
        self._save_data(self._name(key), data)

    def load(self, key: Any) -> Any:
        try:
            return self._load_data(self._name(key))
        except FileNotFoundError:
            return None

    def _name(self, key: Any) -> str:
        # Not before it is called: only then is all there that it calls.
        parts = (numba.__version__, repr(key), *_parts(self._kernel, set()))
        return f"{self._base}.{sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.nbc"


def _kept(kernel: Any) -> Any:
    # Nothing is kept where compilation is switched off (NUMBA_DISABLE_JIT).
    if isinstance(kernel, Dispatcher):
        cache = kernel._cache  # type: ignore[attr-defined]  # noqa: SLF001
        cache._cache_file = _Files(kernel, cache.cache_path, cache._impl.filename_base)  # noqa: SLF001
    return kernel


def _parts(kernel: Any, seen: set[Any]) -> Iterator[str]:
    """What the machine code of `kernel` follows from: byte code and constants, its own and those of what it calls."""
    if kernel in seen:
        return
    seen.add(kernel)
    yield repr(sorted(kernel.targetoptions.items()))
    function = kernel.py_func
    for code in _codes(function.__code__):
        yield code.co_code.hex()
        yield from (_mark(constant) for constant in code.co_consts if not isinstance(constant, CodeType))
        for name in code.co_names:
            # A module's attribute is a name of its own.
            owners = [function.__globals__, *(vars(m) for m in _modules(function, code))]
            for value in (owner[name] for owner in owners if name in owner):
                if isinstance(value, Dispatcher):
                    yield from _parts(value, seen)
                else:
                    yield f"{name}={_mark(value)}"


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _modules(function: Any, code: CodeType) -> Iterator[ModuleType]:
    named = (function.__globals__.get(name) for name in code.co_names)
    return (value for value in named if isinstance(value, ModuleType))


def _mark(value: Any) -> str:
    """A text that is the same in every process, and another one for another value."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, ModuleType):
        return value.__name__
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__} {getattr(value, '_fields', ())}"
    return repr(value)

"""XXH3 with 64 bits, for compiled loops over many short texts; the library `xxhash` hashes one at a time from Python.

Written after the algorithm's specification; texts of more than `LONGEST` bytes are left to the library.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import compiled_bare

Bytes = NDArray[np.uint8]

LONGEST = 240
"""Bytes; beyond, the algorithm is another one."""

_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
        "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
        "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    np.uint8,
)
_PRIME_1, _PRIME_2, _PRIME_3 = (
    np.uint64(prime) for prime in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
)
_MIX_1, _MIX_2 = np.uint64(0x165667919E3779F9), np.uint64(0x9FB21C651E98DF25)
_LOW = np.uint64(0xFFFFFFFF)


@compiled_bare
def word(raw: Bytes, at: np.uint64) -> np.uint64:
    """The 8 bytes at `at`, the least first."""
    value = np.uint64(0)
    for k in range(8):
        value |= np.uint64(raw[at + np.uint64(k)]) << np.uint64(8 * k)
    return value


@compiled_bare
def _half(raw: Bytes, at: np.uint64) -> np.uint64:
    """The 4 bytes at `at`, the least first."""
    value = np.uint64(0)
    for k in range(4):
        value |= np.uint64(raw[at + np.uint64(k)]) << np.uint64(8 * k)
    return value


@compiled_bare
def swapped(value: np.uint64) -> np.uint64:
    """Its 8 bytes the other way round."""
    out = np.uint64(0)
    for k in range(8):
        out |= ((value >> np.uint64(8 * k)) & np.uint64(0xFF)) << np.uint64(56 - 8 * k)
    return out


@compiled_bare
def _secret(at: int) -> np.uint64:
    return word(_SECRET, np.uint64(at))


@compiled_bare
def _rotated(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@compiled_bare
def _folded(a: np.uint64, b: np.uint64) -> np.uint64:
    """The low and the high half of the product, of 128 bits, xored."""
    half = np.uint64(32)
    low, left = (a & _LOW) * (b & _LOW), (a >> half) * (b & _LOW)
    right, high = (a & _LOW) * (b >> half), (a >> half) * (b >> half)
    cross = (low >> half) + (left & _LOW) + right
    return ((left >> half) + (cross >> half) + high) ^ ((cross << half) | (low & _LOW))


@compiled_bare
def _avalanche(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(37))) * _MIX_1
    return value ^ (value >> np.uint64(32))


@compiled_bare
def _avalanche_of_few(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> np.uint64(33))) * _PRIME_2
    value = (value ^ (value >> np.uint64(29))) * _PRIME_3
    return value ^ (value >> np.uint64(32))


@compiled_bare
def _mixed(raw: Bytes, at: np.uint64, secret: int, seed: np.uint64) -> np.uint64:
    """Mixes 16 bytes."""
    low = word(raw, at) ^ (_secret(secret) + seed)
    return _folded(low, word(raw, at + np.uint64(8)) ^ (_secret(secret + 8) - seed))


@compiled_bare
def _up_to_16(raw: Bytes, at: np.uint64, n: np.uint64, seed: np.uint64) -> np.uint64:
    if n > 8:
        low = word(raw, at) ^ ((_secret(24) ^ _secret(32)) + seed)
        high = word(raw, at + n - np.uint64(8)) ^ ((_secret(40) ^ _secret(48)) - seed)
        return _avalanche(n + swapped(low) + high + _folded(low, high))
    if n > 3:
        seed ^= swapped(seed & _LOW)
        value = _half(raw, at + n - np.uint64(4)) + (_half(raw, at) << np.uint64(32))
        value ^= (_secret(8) ^ _secret(16)) - seed
        value = (value ^ _rotated(value, 49) ^ _rotated(value, 24)) * _MIX_2
        value = (value ^ ((value >> np.uint64(35)) + n)) * _MIX_2
        return value ^ (value >> np.uint64(28))
    if n > 0:
        first, middle = np.uint64(raw[at]), np.uint64(raw[at + (n >> np.uint64(1))])
        last = np.uint64(raw[at + n - np.uint64(1)])
        value = (first << np.uint64(16)) | (middle << np.uint64(24)) | last | (n << np.uint64(8))
        return _avalanche_of_few(value ^ ((_half(_SECRET, np.uint64(0)) ^ _half(_SECRET, np.uint64(4))) + seed))
    return _avalanche_of_few(seed ^ _secret(56) ^ _secret(64))


@compiled_bare
def hashed(raw: Bytes, at: np.uint64, n: np.uint64, seed: np.uint64) -> np.uint64:
    """What `xxhash.xxh3_64_intdigest` says of the `n` bytes at `at`, of which there are `LONGEST` at the most."""
    if n <= 16:
        return _up_to_16(raw, at, n, seed)
    end, value = at + n, n * _PRIME_1
    if n <= 128:
        for k in range((int(n) - 1) // 32, -1, -1):
            value += _mixed(raw, at + np.uint64(16 * k), 32 * k, seed)
            value += _mixed(raw, end - np.uint64(16 * k + 16), 32 * k + 16, seed)
        return _avalanche(value)
    for k in range(8):
        value += _mixed(raw, at + np.uint64(16 * k), 16 * k, seed)
    value = _avalanche(value)
    for k in range(8, int(n) // 16):
        value += _mixed(raw, at + np.uint64(16 * k), 16 * (k - 8) + 3, seed)
    return _avalanche(value + _mixed(raw, end - np.uint64(16), 136 - 17, seed))

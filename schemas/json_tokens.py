"""Tokens of JSON, for compiled loops. What is doubtful is declined: somebody slower and more lenient decides then.

Every reader takes the bytes and where to begin, and trusts that they end with `PAD`: no token goes on there.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import compiled_bare
from schemas.xxh3 import Bytes, word

PAD = bytes(32)
DECLINED = -1
_EACH = np.uint64(0x0101010101010101)
_TOP = np.uint64(0x8080808080808080)
_QUOTES, _SLASHES, _SPACES = _EACH * np.uint64(0x22), _EACH * np.uint64(0x5C), _EACH * np.uint64(0x20)
_ONE = np.uint64(1)
_QUOTE, _ZERO, _NINE, _MINUS, _PLUS, _POINT, _COLON, _E, _T, _Z = (ord(c) for c in '"09-+.:eTZ')
_CASE = 0x20
_DIGITS_OF_AN_EXPONENT = 4
_EXACT_DIGITS = 15
_EXACT = 1 << 53
_TENS = np.array([10.0**power for power in range(23)])
"""Those powers of ten that a double holds exactly: with a mantissa up to 2^53, one rounding makes the nearest double
(Clinger, "How to read floating point numbers accurately", 1990)."""
_DAYS = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_FIRST_YEAR, _PAST_YEAR = 1970, 2300


@compiled_bare
def blank(raw: Bytes, at: int) -> int:
    """Where the next token begins."""
    while raw[at] == 0x20 or 0x09 <= raw[at] <= 0x0A or raw[at] == 0x0D:
        at += 1
    return at


@compiled_bare
def _sequence(raw: Bytes, at: int) -> int:
    """How many bytes the UTF-8 character at `at`, which is not ASCII, has; 0 where it is none (RFC 3629, section 4)."""
    c, next_ = raw[at], raw[at + 1]
    if 0xC2 <= c <= 0xDF:
        size, low, high = 2, 0x80, 0xBF
    elif 0xE0 <= c <= 0xEF:
        size, low, high = 3, 0xA0 if c == 0xE0 else 0x80, 0x9F if c == 0xED else 0xBF
    elif 0xF0 <= c <= 0xF4:
        size, low, high = 4, 0x90 if c == 0xF0 else 0x80, 0x8F if c == 0xF4 else 0xBF
    else:
        return 0
    if next_ < low or next_ > high:
        return 0
    for k in range(2, size):
        if raw[at + k] & 0xC0 != 0x80:
            return 0
    return size


@compiled_bare
def text_end(raw: Bytes, at: int) -> int:
    """Where the quote is that ends the text which begins at `at`. Declined: escapes, and what JSON forbids."""
    while True:
        # Of 8 bytes at once: the top bit of each that is a quote, a backslash, a control character or not ASCII.
        eight = word(raw, np.uint64(at))
        quote, slash = eight ^ _QUOTES, eight ^ _SLASHES
        found = ((quote - _EACH) & ~quote) | ((slash - _EACH) & ~slash) | ((eight - _SPACES) & ~eight) | eight
        found &= _TOP
        if found == 0:
            at += 8
            continue
        # Only the least of these bits is sure: the subtractions borrow from the bytes above.
        below = ((found & (~found + _ONE)) - _ONE) & _EACH
        at += int((below * _EACH) >> np.uint64(56)) - 1
        if raw[at] == _QUOTE:
            return at
        size = _sequence(raw, at) if raw[at] >= 0x80 else 0
        if size == 0:
            return DECLINED
        at += size


@compiled_bare
def number(raw: Bytes, at: int, value: NDArray[np.float64]) -> int:
    """Where the number at `at` ends. `value` becomes the nearest double, or NaN where that is not certain."""
    negative = raw[at] == _MINUS
    at += negative
    if raw[at] < _ZERO or raw[at] > _NINE:
        return DECLINED
    first, mantissa, digits, power = at, np.int64(0), 0, 0
    while _ZERO <= raw[at] <= _NINE:
        mantissa = mantissa * 10 + np.int64(raw[at] - _ZERO)
        digits += digits > 0 or raw[at] > _ZERO
        at += 1
    if at - first > 1 and raw[first] == _ZERO:
        return DECLINED
    if raw[at] == _POINT:
        at += 1
        first = at
        while _ZERO <= raw[at] <= _NINE:
            mantissa = mantissa * 10 + np.int64(raw[at] - _ZERO)
            digits += digits > 0 or raw[at] > _ZERO
            at += 1
        power = first - at
        if power == 0:
            return DECLINED
    if raw[at] | _CASE == _E:
        at += 1
        down = raw[at] == _MINUS
        at += down or raw[at] == _PLUS
        first, exponent = at, 0
        while _ZERO <= raw[at] <= _NINE and at - first < _DIGITS_OF_AN_EXPONENT:
            exponent = exponent * 10 + int(raw[at] - _ZERO)
            at += 1
        if at == first or at - first == _DIGITS_OF_AN_EXPONENT:
            return DECLINED
        power += -exponent if down else exponent
    value[0] = np.nan
    if mantissa == 0 and digits == 0:
        value[0] = -0.0 if negative else 0.0
    elif digits <= _EXACT_DIGITS + 1 and mantissa <= _EXACT and -len(_TENS) < power < len(_TENS):
        size = np.float64(mantissa) / _TENS[-power] if power < 0 else np.float64(mantissa) * _TENS[power]
        value[0] = -size if negative else size
    return at


@compiled_bare
def count(raw: Bytes, at: int, value: NDArray[np.float64]) -> int:
    """Where the digits at `at` end, and what they say. Declined: more of them than a double holds exactly."""
    first, total = at, np.int64(0)
    while _ZERO <= raw[at] <= _NINE and at - first <= _EXACT_DIGITS:
        total = total * 10 + np.int64(raw[at] - _ZERO)
        at += 1
    if at == first or at - first > _EXACT_DIGITS or (raw[first] == _ZERO and at - first > 1):
        return DECLINED
    value[0] = np.float64(total)
    return at


@compiled_bare
def _two(raw: Bytes, at: int) -> int:
    """The number of two digits at `at`; a great negative one where they are none."""
    ten, one = int(raw[at]) - _ZERO, int(raw[at + 1]) - _ZERO
    return ten * 10 + one if 0 <= ten <= 9 and 0 <= one <= 9 else -(1 << 20)


@compiled_bare
def moment(raw: Bytes, at: int, size: int) -> int:
    """The time of `size` bytes at `at` in whole ms since 1970. Declined: all but `2026-03-02T00:03:40.871Z`, with up
    to six digits of a second, or +00:00 for Z."""
    if size < 20:
        return DECLINED
    past = at + size - 1
    if raw[past] != _Z:
        zero = raw[past] == _ZERO and raw[past - 1] == _ZERO and raw[past - 3] == _ZERO and raw[past - 4] == _ZERO
        past -= 5
        if not (zero and raw[past + 3] == _COLON and raw[past] == _PLUS):
            return DECLINED
    fraction = past - at - 20
    if (
        (past - at != 19 and not 1 <= fraction <= 6)
        or raw[at + 4] != _MINUS
        or raw[at + 7] != _MINUS
        or raw[at + 10] != _T
        or raw[at + 13] != _COLON
        or raw[at + 16] != _COLON
    ):
        return DECLINED
    year, month, day = _two(raw, at) * 100 + _two(raw, at + 2), _two(raw, at + 5), _two(raw, at + 8)
    hour, minute, second = _two(raw, at + 11), _two(raw, at + 14), _two(raw, at + 17)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if (
        not _FIRST_YEAR <= year < _PAST_YEAR
        or not 1 <= month <= 12
        or not 1 <= day <= _DAYS[month - 1]
        or (month == 2 and day == 29 and not leap)
        or not 0 <= hour <= 23
        or not 0 <= minute <= 59
        or not 0 <= second <= 59
    ):
        return DECLINED
    millis = 0
    if past - at != 19:
        if raw[at + 19] != _POINT:
            return DECLINED
        for k in range(fraction):
            digit = int(raw[at + 20 + k]) - _ZERO
            if not 0 <= digit <= 9:
                return DECLINED
            if k < 3:
                millis += digit * (100 if k == 0 else 10 if k == 1 else 1)
    # Days of the civil calendar since 1970, with years that begin in March (Hinnant, "chrono-compatible low-level date
    # algorithms").
    shifted = year - (month <= 2)
    of_era = shifted % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = shifted // 400 * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis

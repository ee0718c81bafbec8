"""What numbers mean: wrapping integers, IEEE 754 floats, casts, number text. The interpreter computes with these functions.

An integer is a Python int in the range of its type, a float is a Python float; an f32 is a float that an f32 can hold. Addition, subtraction,
multiplication, division and square root of f32 values may be computed in f64 and rounded once more: the result is the correctly rounded f32
(f64 has more than twice the digits, and two to spare). The same holds for no other function, so `fma` has its own f32 version.

NaN has no visible payload or sign: text says `nan`, `bitcast` gives the canonical pattern.
"""

from __future__ import annotations

import ctypes
import math
import re
import sys
from collections.abc import Callable
from fractions import Fraction

from ..mir.model import decode_bits, encode_bits
from ..mir.types import BOOL, CHAR, F32, F64, INTEGERS, Type, bit_width, integer_range, is_float
from .traps import bare_trap
from .values import SomeValue

# The platform's mathematics


def _open_libm() -> ctypes.CDLL:
    """Return a library that holds the C mathematics functions; the process itself has them on most platforms."""
    names = ("ucrtbase",) if sys.platform == "win32" else (None, "libm.so.6", "libm.so", "libm.dylib")
    for name in names:
        try:
            library = ctypes.CDLL(name)
            library.fmaf  # noqa: B018 - raises AttributeError if it is not there
            return library
        except (OSError, AttributeError):
            continue
    raise ImportError("no library with the C mathematics functions was found")


_LIBM = _open_libm()


def _libm_function(name: str, value_type: type, arity: int) -> Callable[..., float]:
    return ctypes.CFUNCTYPE(value_type, *[value_type] * arity)((name, _LIBM))


_LIBM_FUNCTIONS: dict[str, Callable[..., float]] = {
    **{name: _libm_function(name, ctypes.c_double, 1) for name in ("exp", "log", "sin", "cos", "tan", "tanh")},
    "pow": _libm_function("pow", ctypes.c_double, 2),
    "fma": _libm_function("fma", ctypes.c_double, 3),
    "fmaf": _libm_function("fmaf", ctypes.c_float, 3),
}

LIBM: dict[str, int] = {name: ctypes.cast(function, ctypes.c_void_p).value or 0 for name, function in _LIBM_FUNCTIONS.items()}  # type: ignore[arg-type]
"""Addresses of f64 functions by opcode, and of `fmaf`. Every executor calls these, so that all give the same bits."""


def libm(name: str, *args: float) -> float:
    """Return what the platform's function gives; no exception, NaN and infinities as the C library says."""
    return _LIBM_FUNCTIONS[name](*args)


# Bringing an exact or wider result into its type


def round_f32(x: float) -> float:
    """Return the f32 nearest to `x`, ties to even; too large values become infinite."""
    return ctypes.c_float(x).value


def _same(x: float) -> float:
    return x


def _wrapper(t: Type) -> Callable[[int], int]:
    low, high = integer_range(t)
    mask = (1 << bit_width(t)) - 1

    def wrap_to_type(v: int) -> int:
        return v if low <= v <= high else ((v - low) & mask) + low

    return wrap_to_type


FIX: dict[Type, Callable] = {**{t: _wrapper(t) for t in INTEGERS}, F32: round_f32, F64: _same}
"""By number type, the function that brings a result into it: integers wrap, floats round."""


def wrap(t: Type, v: int) -> int:
    """Return `v` modulo 2**bits, in the range of integer type `t`."""
    return FIX[t](v)


# Integers


def checked(t: Type, v: int) -> int:
    """Return `v`. Raises: Trap integer_overflow outside the range of `t`."""
    if wrap(t, v) != v:
        raise bare_trap("integer_overflow")
    return v


def int_div(t: Type, x: int, y: int) -> int:
    """Return x / y rounded towards zero. Raises: Trap division_by_zero, integer_overflow for MIN / -1."""
    if y == 0:
        raise bare_trap("division_by_zero")
    quotient = abs(x) // abs(y)
    return checked(t, quotient if (x < 0) == (y < 0) else -quotient)


def int_rem(t: Type, x: int, y: int) -> int:
    """Return x - int_div(x, y) * y, which has the sign of x. Raises: Trap as int_div."""
    return x - int_div(t, x, y) * y


def int_pow(t: Type, x: int, y: int) -> int:
    """Return x to the power y, wrapped; 1 for a negative exponent."""
    return 1 if y < 0 else wrap(t, pow(x, y, 1 << bit_width(t)))


def shift_left(t: Type, x: int, count: int) -> int:
    """Return x shifted left by the count modulo the width."""
    return wrap(t, x << (count % bit_width(t)))


def shift_right(t: Type, x: int, count: int) -> int:
    """Return x shifted right by the count modulo the width; signed types keep the sign."""
    return x >> (count % bit_width(t))


# Floats


def float_div(x: float, y: float) -> float:
    """Return the f64 quotient. Source: IEEE 754-2019, 7.3 for a zero divisor."""
    if y != 0.0:
        return x / y
    if x == 0.0 or x != x:
        return math.nan
    return math.copysign(math.inf, x) * math.copysign(1.0, y)


def float_rem(t: Type, x: float, y: float) -> float:
    """Return x - floor(x / y) * y, with every step rounded to `t`."""
    fix = FIX[t]
    return fix(x - fix(floor(fix(float_div(x, y))) * y))


def float_pow(x: float, y: float) -> float:
    return libm("pow", x, y)


def sqrt(x: float) -> float:
    return math.nan if x < 0.0 else math.sqrt(x)


def fma(t: Type, x: float, y: float, z: float) -> float:
    """Return x * y + z with one rounding to `t`."""
    return libm("fma" if t == F64 else "fmaf", x, y, z)


def _round_with(to_int: Callable[[float], int], x: float) -> float:
    """Return `to_int(x)` as a float. Large values are integral already, NaN and infinities stay, a zero keeps the sign of `x`."""
    return math.copysign(float(to_int(x)), x) if abs(x) < 2.0**52 else x


def floor(x: float) -> float:
    return _round_with(math.floor, x)


def ceil(x: float) -> float:
    return _round_with(math.ceil, x)


def trunc(x: float) -> float:
    return _round_with(math.trunc, x)


def round_even(x: float) -> float:
    """Return the nearest integral value, ties to even."""
    return _round_with(round, x)


def minimum(x: float, y: float) -> float:
    """Source: IEEE 754-2019, 9.6 minimum: NaN if either is NaN, -0.0 below 0.0."""
    if x != x or y != y:
        return math.nan
    if x == y:
        return x if math.copysign(1.0, x) < 0.0 else y
    return x if x < y else y


def maximum(x: float, y: float) -> float:
    """Source: IEEE 754-2019, 9.6 maximum: NaN if either is NaN, 0.0 above -0.0."""
    if x != x or y != y:
        return math.nan
    if x == y:
        return y if math.copysign(1.0, x) < 0.0 else x
    return x if x > y else y


# Conversions


def int_to_float(t: Type, v: int) -> float:
    """Return the float of type `t` nearest to `v`, ties to even, rounded once."""
    if t == F64:
        return float(v)
    # Rounding to 53 digits first, "to odd", keeps what the second rounding must know: whether anything was lost.
    lost = max(0, abs(v).bit_length() - 53)
    digits = abs(v) >> lost
    if digits << lost != abs(v):
        digits |= 1
    return round_f32(math.copysign(float(digits << lost), v))


def float_to_int(t: Type, x: float) -> int:
    """Return x rounded towards zero. Raises: Trap float_to_int for NaN and outside the range of `t`."""
    if math.isfinite(x):
        v = int(x)
        if wrap(t, v) == v:
            return v
    raise bare_trap("float_to_int")


def int_to_char(v: int) -> str:
    """Return the character of a Unicode scalar value. Raises: Trap invalid_char."""
    if 0 <= v < 0xD800 or 0xE000 <= v <= 0x10FFFF:
        return chr(v)
    raise bare_trap("invalid_char")


def cast(value: object, source: Type, target: Type) -> object:
    """Return a number, bool or char as a value of number type `target`, or an integer as a char. Raises: Trap float_to_int, invalid_char."""
    if source == target:
        return value
    if is_float(source):
        return FIX[target](value) if is_float(target) else float_to_int(target, value)  # type: ignore[arg-type]
    number: int = ord(value) if source == CHAR else int(value)  # type: ignore[arg-type, call-overload]
    if target == CHAR:
        return int_to_char(number)
    return int_to_float(target, number) if is_float(target) else wrap(target, number)


def bitcast(value: object, source: Type, target: Type) -> object:
    """Return the value of type `target` with the same bits; a NaN is made canonical first."""
    return decode_bits(target, encode_bits(source, value))


# Text


def _shortest_f32(x: float) -> str:
    """Return the shortest decimal number that reads back as `x` (finite, positive); of several the nearest to `x`."""
    bits = encode_bits(F32, x)
    below, above = float(decode_bits(F32, bits - 1)), float(decode_bits(F32, bits + 1))  # type: ignore[arg-type]
    # Numbers between these two round to x; f64 holds both exactly. Above the largest f32 the next one would be 2**128.
    low, high = (x + below) / 2, (x + min(above, 2.0**128)) / 2
    for digits in range(1, 10):
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        nearest = int(mantissa.replace(".", ""))
        # Beside a power of two the gap below is half the gap above: the nearest number may fail where its neighbour succeeds.
        for number in (nearest, nearest + 1, nearest - 1):
            text = f"{number}e{int(exponent) - digits + 1}"
            if _is_between(text, low, high, ties_belong=bits % 2 == 0):
                return text
    raise AssertionError("nine digits are enough for every f32")


def _is_between(text: str, low: float, high: float, ties_belong: bool) -> bool:
    rounded = float(text)
    if rounded not in (low, high):
        return low < rounded < high
    exact = Fraction(text)
    return low <= exact <= high if ties_belong else low < exact < high


def float_text(x: float, t: Type) -> str:
    """Return the shortest text that reads back as `x` in type `t`, as Python writes floats: 1.0, 1e+16, nan, inf, -inf."""
    if t == F64 or not math.isfinite(x) or x == 0.0:
        return "nan" if x != x else repr(x)
    # Any number of up to 15 digits is told apart by f64, so repr gives just these digits back.
    return repr(math.copysign(float(_shortest_f32(abs(x))), x))


_DECIMAL_FLOAT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SPECIAL_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def parse_float_text(text: str) -> float | None:
    """Return the f64 nearest to a decimal number: digits with an optional sign, fraction and exponent; or nan, inf, -inf. Else None."""
    if text in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[text]
    return float(text) if _DECIMAL_FLOAT.fullmatch(text) else None


_DECIMAL_INT = re.compile(r"([+-]?)0*([0-9]{1,19})")


def parse_int_text(text: str) -> int | None:
    """Return the i64 of decimal digits with an optional sign; None for anything else and outside the range."""
    match = _DECIMAL_INT.fullmatch(text)
    if match is None:
        return None
    v = int(match[1] + match[2])
    return v if -(1 << 63) <= v < 1 << 63 else None


def parse_float_option(text: str) -> SomeValue | None:
    """Return `parse_float_text` as a value of type f64?."""
    x = parse_float_text(text)
    return None if x is None else SomeValue(x)


def parse_int_option(text: str) -> SomeValue | None:
    """Return `parse_int_text` as a value of type i64?."""
    v = parse_int_text(text)
    return None if v is None else SomeValue(v)


def value_text(value: object, t: Type) -> str:
    """Return the text of a number, bool, char or text: what `to_text` gives and `print` writes."""
    if is_float(t):
        return float_text(value, t)  # type: ignore[arg-type]
    if t == BOOL:
        return "true" if value else "false"
    return str(value)

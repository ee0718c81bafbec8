"""Numbers at their boundaries: wrapping, traps, rounding, conversions, text."""

from __future__ import annotations

import ctypes
import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simple_magic.backends import numbers
from simple_magic.mir.diagnostics import Trap
from simple_magic.mir.model import decode_bits, encode_bits
from simple_magic.mir.types import CHAR, F32, F64, I8, I32, I64, INTEGERS, U8, U32, U64, bit_width, integer_range, is_signed

MIN64, MAX64 = integer_range(I64)
NAN, INF = math.nan, math.inf


def bits(x: float) -> int:
    """Tell 0.0 from -0.0, and let NaN equal itself."""
    return encode_bits(F64, x)


def trap_of(function, *args) -> str:
    with pytest.raises(Trap) as caught:
        function(*args)
    return caught.value.kind


@pytest.mark.parametrize("t", INTEGERS)
def test_wrap_agrees_with_the_bits(t):
    low, high = integer_range(t)
    for v in (low, high, low - 1, high + 1, 0, -1, 1, 3 * high, -7 * high, 1 << 200, -(1 << 200) + 5):
        assert numbers.wrap(t, v) == decode_bits(t, v & ((1 << bit_width(t)) - 1))


@pytest.mark.parametrize("t", INTEGERS)
def test_division_at_the_boundaries(t):
    low, high = integer_range(t)
    assert trap_of(numbers.int_div, t, 1, 0) == trap_of(numbers.int_rem, t, 1, 0) == "division_by_zero"
    assert numbers.int_div(t, high, 1) == high
    assert numbers.int_rem(t, high, high) == 0
    if is_signed(t):
        assert trap_of(numbers.int_div, t, low, -1) == trap_of(numbers.int_rem, t, low, -1) == "integer_overflow"
        assert [numbers.int_div(t, x, y) for x, y in ((7, 2), (-7, 2), (7, -2), (-7, -2))] == [3, -3, -3, 3]
        assert [numbers.int_rem(t, x, y) for x, y in ((7, 2), (-7, 2), (7, -2), (-7, -2))] == [1, -1, 1, -1]
        assert numbers.int_rem(t, low, high) == -1


@pytest.mark.parametrize("t", INTEGERS)
def test_checked_raises_exactly_outside_the_range(t):
    low, high = integer_range(t)
    assert numbers.checked(t, low) == low and numbers.checked(t, high) == high
    assert trap_of(numbers.checked, t, low - 1) == trap_of(numbers.checked, t, high + 1) == "integer_overflow"


def test_pow():
    assert numbers.int_pow(I64, 0, 0) == 1
    assert numbers.int_pow(I64, 5, -1) == numbers.int_pow(I64, 0, -3) == 1
    assert numbers.int_pow(I64, 3, 41) == numbers.wrap(I64, 3**41)
    assert numbers.int_pow(I8, -2, 7) == -128
    assert numbers.int_pow(U64, 3, 2**64 - 1) == pow(3, 2**64 - 1, 2**64)
    assert numbers.int_pow(I64, -1, MAX64) == -1


def test_shift_counts_are_modulo_the_width():
    assert numbers.shift_left(I32, 1, 33) == 2
    assert numbers.shift_left(I64, 1, 63) == MIN64
    assert numbers.shift_left(U8, 255, 1) == 254
    assert numbers.shift_left(I32, 1, -1) == -(2**31)
    assert numbers.shift_right(I8, -128, 7) == -1
    assert numbers.shift_right(U8, 128, 7) == 1
    assert numbers.shift_right(I64, -1, 64) == -1


def test_float_division_and_remainder():
    assert bits(numbers.float_div(1.0, 0.0)) == bits(INF)
    assert bits(numbers.float_div(1.0, -0.0)) == bits(-INF)
    assert bits(numbers.float_div(0.0, 0.0)) == bits(numbers.float_div(NAN, 0.0)) == bits(NAN)
    assert numbers.float_rem(F64, 7.5, 2.0) == 1.5
    assert numbers.float_rem(F64, -7.5, 2.0) == 0.5
    assert numbers.float_rem(F64, 7.5, -2.0) == -0.5
    assert math.isnan(numbers.float_rem(F64, 1.0, 0.0))
    assert math.isnan(numbers.float_rem(F64, 1.0, INF))
    x, y = numbers.round_f32(5.3), numbers.round_f32(0.1)
    product = numbers.round_f32(float(math.floor(numbers.round_f32(x / y))) * y)
    assert numbers.float_rem(F32, x, y) == numbers.round_f32(x - product)


@pytest.mark.parametrize(
    "function, cases",
    [
        (numbers.floor, [(-0.5, -1.0), (0.5, 0.0), (-0.0, -0.0), (1e300, 1e300), (-INF, -INF), (2.0**52 + 1, 2.0**52 + 1)]),
        (numbers.ceil, [(-0.5, -0.0), (0.5, 1.0), (-0.0, -0.0), (INF, INF)]),
        (numbers.trunc, [(-0.9, -0.0), (0.9, 0.0), (-3.9, -3.0)]),
        (numbers.round_even, [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, -0.0), (-1.5, -2.0), (0.49999999999999994, 0.0)]),
        (numbers.sqrt, [(-0.0, -0.0), (-1.0, NAN), (INF, INF), (2.0, math.sqrt(2.0))]),
    ],
)
def test_rounding_keeps_signs_and_infinities(function, cases):
    assert math.isnan(function(NAN))
    for x, expected in cases:
        assert bits(function(x)) == bits(expected), x


def test_minimum_and_maximum():
    for x, y in ((0.0, -0.0), (-0.0, 0.0)):
        assert bits(numbers.minimum(x, y)) == bits(-0.0)
        assert bits(numbers.maximum(x, y)) == bits(0.0)
    assert math.isnan(numbers.minimum(NAN, 1.0)) and math.isnan(numbers.maximum(1.0, NAN))
    assert numbers.minimum(-INF, 3.0) == -INF and numbers.maximum(2.0, 3.0) == 3.0


def test_fma_rounds_once():
    x = 1.0 + 2.0**-30
    assert numbers.fma(F64, x, x, -1.0) == float(Fraction(x) ** 2 - 1) != x * x - 1.0
    a = 1.0 + 2.0**-12
    assert numbers.fma(F32, a, a, 2.0**-60) == numbers.round_f32(a * a + 2.0**-40)  # The tail decides a tie that f64 would lose.
    assert numbers.fma(F64, INF, 0.0, 1.0) != numbers.fma(F64, INF, 0.0, 1.0)


def test_libm_gives_values_instead_of_exceptions():
    assert numbers.libm("exp", 1000.0) == INF
    assert numbers.libm("log", 0.0) == -INF
    assert math.isnan(numbers.libm("log", -1.0)) and math.isnan(numbers.libm("sin", INF))
    assert numbers.libm("pow", -8.0, 2.0) == 64.0 and math.isnan(numbers.libm("pow", -8.0, 0.5))
    assert numbers.libm("pow", 0.0, -1.0) == INF
    assert set(numbers.LIBM) == {"exp", "log", "sin", "cos", "tan", "tanh", "pow", "fma", "fmaf"}
    assert all(numbers.LIBM.values())


def test_the_addresses_are_those_of_the_functions():
    exp = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(numbers.LIBM["exp"])
    assert exp(1.5) == numbers.libm("exp", 1.5)


def test_round_f32():
    assert numbers.round_f32(1e39) == INF
    assert numbers.round_f32(-1e39) == -INF
    assert bits(numbers.round_f32(-1e-60)) == bits(-0.0)
    assert numbers.round_f32(16777217.0) == 16777216.0


@given(st.integers(MIN64, 2**64 - 1))
def test_int_to_f32_rounds_once(v):
    x = numbers.int_to_float(F32, v)
    encoded = encode_bits(F32, abs(x))
    below, above = (Fraction(decode_bits(F32, encoded + step)) for step in (-1 if encoded else 0, 1))
    distance = abs(Fraction(abs(x)) - abs(v))
    assert distance <= min(abs(below - abs(v)) if encoded else distance, abs(above - abs(v)))


def test_int_to_float_where_two_roundings_differ():
    v = (1 << 60) + (1 << 36) + 1  # Rounded to f64 first, this is a tie.
    assert numbers.int_to_float(F32, v) == 2.0**60 + 2.0**37
    assert numbers.int_to_float(F32, -v) == -(2.0**60) - 2.0**37
    assert numbers.int_to_float(F32, (1 << 60) + (1 << 36)) == 2.0**60
    assert numbers.int_to_float(F64, 2**53 + 1) == 2.0**53
    assert numbers.int_to_float(F32, 2**64 - 1) == 2.0**64
    assert bits(numbers.int_to_float(F32, 0)) == bits(0.0)


def test_float_to_int():
    assert numbers.float_to_int(U8, 255.9) == 255 and numbers.float_to_int(U8, -0.9) == 0
    assert numbers.float_to_int(I8, -128.9) == -128
    assert numbers.float_to_int(I64, -(2.0**63)) == MIN64
    assert numbers.float_to_int(U64, math.nextafter(2.0**64, 0.0)) == 2**64 - 2048
    for t, x in ((U8, 256.0), (U8, -1.0), (I8, -129.0), (I64, 2.0**63), (U64, 2.0**64), (I32, NAN), (I32, INF), (U32, -INF)):
        assert trap_of(numbers.float_to_int, t, x) == "float_to_int"


def test_chars():
    assert numbers.cast(65, I64, CHAR) == "A" and numbers.cast("é", CHAR, U8) == 233 and numbers.cast("€", CHAR, U8) == 0xAC
    assert numbers.int_to_char(0x10FFFF) == "\U0010ffff" and numbers.int_to_char(0xD7FF) and numbers.int_to_char(0xE000)
    for v in (-1, 0xD800, 0xDFFF, 0x110000, MAX64):
        assert trap_of(numbers.int_to_char, v) == "invalid_char"


def test_casts_extend_by_the_sign_of_the_source():
    assert numbers.cast(-1, I8, U64) == 2**64 - 1
    assert numbers.cast(255, U8, I64) == 255
    assert numbers.cast(300, I64, I8) == 44
    assert numbers.cast(0.1, F64, F32) == struct.unpack("f", struct.pack("f", 0.1))[0]


def test_bitcast_makes_nan_canonical():
    assert numbers.bitcast(1.0, F64, I64) == 0x3FF0000000000000
    assert numbers.bitcast(-0.0, F64, I64) == MIN64
    assert numbers.bitcast(-NAN, F64, U64) == 0x7FF8000000000000
    odd_nan = numbers.bitcast(0xFFF0000000000123, U64, F64)
    assert numbers.bitcast(odd_nan, F64, U64) == 0x7FF8000000000000
    assert numbers.bitcast(numbers.bitcast(0xFFA00001, U32, F32), F32, U32) == 0x7FC00000
    assert numbers.bitcast(2**64 - 1, U64, I64) == -1


@pytest.mark.parametrize(
    "x, text", [(1.0, "1.0"), (1e16, "1e+16"), (1e15, "1000000000000000.0"), (1e-5, "1e-05"), (0.1, "0.1"), (-0.0, "-0.0"), (NAN, "nan"), (-NAN, "nan"),
                (INF, "inf"), (-INF, "-inf"), (5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308")])  # fmt: skip
def test_f64_text(x, text):
    assert numbers.float_text(x, F64) == text


@pytest.mark.parametrize(
    "x, text", [(0.1, "0.1"), (1 / 3, "0.33333334"), (16777216.0, "16777216.0"), (3.4028235e38, "3.4028235e+38"), (1e-45, "1e-45"), (1e16, "1e+16"),
                (-2.5, "-2.5"), (-0.0, "-0.0"), (NAN, "nan"), (-INF, "-inf"), (1.1754944e-38, "1.1754944e-38"), (8388608.0, "8388608.0")])  # fmt: skip
def test_f32_text(x, text):
    assert numbers.float_text(numbers.round_f32(x), F32) == text


@given(st.integers(1, 0x7F7FFFFF))
def test_f32_text_reads_back_and_is_shortest(pattern):
    x = decode_bits(F32, pattern)
    text = numbers.float_text(x, F32)
    assert numbers.round_f32(float(text)) == x
    digits = len(text.split("e")[0].replace(".", "").strip("0"))
    if digits > 1:
        assert numbers.round_f32(float(f"{x:.{digits - 2}e}")) != x


@given(st.floats(allow_nan=False))
def test_f64_text_reads_back(x):
    assert bits(numbers.parse_float_text(numbers.float_text(x, F64))) == bits(x)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1_0", "0x10", ".5", "1.", "1e", "e5", "+", "--1", "NaN", "Inf", "+inf", "infinity", "-nan", "1,5", "1.5.5", "٣", "1e5\n", "1f32"]
)
def test_parse_float_refuses(text):
    assert numbers.parse_float_text(text) is None
    assert numbers.parse_float_option(text) is None


def test_parse_float():
    assert [numbers.parse_float_text(t) for t in ("1", "-2.50", "+1e3", "007", "1E-2", "1e999", "-inf")] == [1.0, -2.5, 1000.0, 7.0, 0.01, INF, -INF]
    assert math.isnan(numbers.parse_float_text("nan"))
    assert bits(numbers.parse_float_text("-0")) == bits(-0.0)
    assert numbers.parse_float_text("0." + "1" * 10000) == 1 / 9
    assert numbers.parse_float_option("2").value == 2.0


@pytest.mark.parametrize("text", ["", " 1", "1 ", "1_0", "0x10", "1.0", "+", "-", "+-1", "9223372036854775808", "-9223372036854775809", "1" * 5000, "٣", "1\n"])
def test_parse_int_refuses(text):
    assert numbers.parse_int_text(text) is None


def test_parse_int():
    assert [numbers.parse_int_text(t) for t in ("0", "-0", "+7", "007", "9223372036854775807", "-9223372036854775808")] == [0, 0, 7, 7, MAX64, MIN64]
    assert numbers.parse_int_text("0" * 5000 + "12") == 12
    assert numbers.parse_int_option("12").value == 12

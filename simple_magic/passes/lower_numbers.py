"""Lowering of numbers: the checks that keep undefined behaviour away from native back ends, and what the machine lacks."""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..mir.model import NAN_BITS, Const, Instruction, Operand, const
from ..mir.types import BOOL, CHAR, F32, I64, TEXT, U64, Type, bit_width, integer_range, is_float, is_integer, is_signed
from ..runtime.layout import machine_type
from .lower_builder import ZERO, Builder, Rule


def plain(b: Builder, ins: Instruction) -> Operand | None:
    """Keep a core operation whose result has the type of its first operand."""
    values = b.operands(ins)
    return b.get(values[0][1], ins.op, *(value for value, _ in values))


def condition(b: Builder, ins: Instruction) -> Operand | None:
    """Keep a core operation whose result is a bool."""
    return b.get(BOOL, ins.op, *(value for value, _ in b.operands(ins)))


def check_divisor(b: Builder, x: Operand, y: Operand, t: Type) -> None:
    """Trap on a zero divisor and on MIN / -1; a constant divisor needs only the checks it can fail."""
    if not isinstance(y, Const) or y.value == 0:
        b.check(b.get(BOOL, "ne", y, const(t, 0)), "division_by_zero")
    if is_signed(t) and (not isinstance(y, Const) or y.value == -1):
        smallest = b.get(BOOL, "ne", x, const(t, integer_range(t)[0]))
        ordinary = b.get(BOOL, "ne", y, const(t, -1))
        b.check(b.get(BOOL, "or", smallest, ordinary), "integer_overflow")


def div(b: Builder, ins: Instruction) -> Operand | None:
    (x, t), (y, _) = b.operands(ins)
    if not is_float(t):
        check_divisor(b, x, y, t)
    return b.get(t, "div", x, y)


def rem(b: Builder, ins: Instruction) -> Operand | None:
    """Floats: the rounded steps of x - floor(x / y) * y."""
    (x, t), (y, _) = b.operands(ins)
    if is_float(t):
        return b.get(t, "sub", x, b.get(t, "mul", b.get(t, "floor", b.get(t, "div", x, y)), y))
    check_divisor(b, x, y, t)
    return b.get(t, "rem", x, y)


def power(b: Builder, ins: Instruction) -> Operand | None:
    """Integers: by the runtime on 64 bits, whose low bits are the result; a negative exponent gives 1."""
    (x, t), (y, _) = b.operands(ins)
    if is_float(t):
        return b.get(t, "pow", x, y)
    full = b.runtime("pow", b.to_word(x, t), b.to_word(y, t))
    result = full if t == I64 else b.get(t, "cast", full)
    if not is_signed(t):
        return result
    return b.get(t, "select", b.get(BOOL, "lt", y, const(t, 0)), const(t, 1), result)


def shift(b: Builder, ins: Instruction) -> Operand | None:
    """The count modulo the width."""
    (x, t), (y, _) = b.operands(ins)
    mask = bit_width(t) - 1
    count = const(t, y.bits & mask) if isinstance(y, Const) else b.get(t, "bit_and", y, const(t, mask))  # type: ignore[operator]
    return b.get(t, ins.op, x, count)


# Checked arithmetic: each rule returns (result, whether it is right).


def _sum_is_right(b: Builder, x: Operand, y: Operand, t: Type) -> tuple[Operand, Operand]:
    result = b.get(t, "add", x, y)
    if not is_signed(t):
        return result, b.get(BOOL, "ge", result, x)
    signs = b.get(t, "bit_and", b.get(t, "bit_xor", result, x), b.get(t, "bit_xor", result, y))
    return result, b.get(BOOL, "ge", signs, const(t, 0))


def _difference_is_right(b: Builder, x: Operand, y: Operand, t: Type) -> tuple[Operand, Operand]:
    result = b.get(t, "sub", x, y)
    if not is_signed(t):
        return result, b.get(BOOL, "ge", x, y)
    signs = b.get(t, "bit_and", b.get(t, "bit_xor", x, y), b.get(t, "bit_xor", x, result))
    return result, b.get(BOOL, "ge", signs, const(t, 0))


def _product_is_right(b: Builder, x: Operand, y: Operand, t: Type) -> tuple[Operand, Operand]:
    """Narrow types multiply in 64 bits; 64-bit products are divided back, by a divisor that cannot fail."""
    if bit_width(t) < 64:
        wide = I64 if is_signed(t) else U64
        product = b.get(wide, "mul", b.get(wide, "cast", x), b.get(wide, "cast", y))
        result = b.get(t, "cast", product)
        return result, b.get(BOOL, "eq", b.get(wide, "cast", result), product)
    result = b.get(t, "mul", x, y)
    is_zero = b.get(BOOL, "eq", x, const(t, 0))
    special = is_zero
    if is_signed(t):
        is_minus_one = b.get(BOOL, "eq", x, const(t, -1))
        special = b.get(BOOL, "or", is_zero, is_minus_one)
    divisor = b.get(t, "select", special, const(t, 1), x)
    right = b.get(BOOL, "or", is_zero, b.get(BOOL, "eq", b.get(t, "div", result, divisor), y))
    if is_signed(t):
        not_smallest = b.get(BOOL, "ne", y, const(t, integer_range(t)[0]))
        right = b.get(BOOL, "select", is_minus_one, not_smallest, right)
    return result, right


def _checked(compute: Callable[[Builder, Operand, Operand, Type], tuple[Operand, Operand]]) -> Rule:
    def rule(b: Builder, ins: Instruction) -> Operand | None:
        (x, t), (y, _) = b.operands(ins)
        result, right = compute(b, x, y, t)
        b.check(right, "integer_overflow")
        return result

    return rule


def checked_neg(b: Builder, ins: Instruction) -> Operand | None:
    (x, t) = b.typed(ins.args[0])
    fails_on, op = (integer_range(t)[0], "ne") if is_signed(t) else (0, "eq")
    b.check(b.get(BOOL, op, x, const(t, fails_on)), "integer_overflow")
    return b.get(t, "neg", x)


# Conversions


def _is_exact(t: Type, value: int) -> bool:
    """Return whether `value` is a number of float type `t`."""
    if t == F32:
        return int(struct.unpack("<f", struct.pack("<f", float(value)))[0]) == value
    return int(float(value)) == value


def check_range(b: Builder, x: Operand, source: Type, target: Type) -> None:
    """Trap unless the float, truncated, is a value of the integer type; NaN fails every comparison.

    The upper bound, a power of two, is exact. Where smallest - 1 is not, no float lies between it and smallest.
    """
    smallest, largest = integer_range(target)
    if _is_exact(source, smallest - 1):
        above = b.get(BOOL, "gt", x, const(source, float(smallest - 1)))
    else:
        above = b.get(BOOL, "ge", x, const(source, float(smallest)))
    below = b.get(BOOL, "lt", x, const(source, float(largest + 1)))
    b.check(b.get(BOOL, "and", above, below), "float_to_int")


def check_char(b: Builder, code: Operand) -> None:
    """Trap unless the i64 is a Unicode scalar value."""
    low = b.get(BOOL, "lt", b.unsigned(code), const(U64, 0xD800))
    high = b.get(BOOL, "lt", b.unsigned(b.get(I64, "sub", code, const(I64, 0xE000))), const(U64, 0x110000 - 0xE000))
    b.check(b.get(BOOL, "or", low, high), "invalid_char")


def cast(b: Builder, ins: Instruction) -> Operand | None:
    x, source = b.typed(ins.args[0])
    target = b.types[ins.dest] if ins.dest else source
    if target == source:
        return x
    if is_float(source) and is_integer(target):
        check_range(b, x, source, target)
    elif is_integer(source) and target == CHAR:
        x = b.to_word(x, source)
        check_char(b, x)
    return b.get(target, "cast", x)


def bitcast(b: Builder, ins: Instruction) -> Operand | None:
    """A NaN shows the bits of the canonical one. They are chosen among integers: to an optimiser every float NaN is as good as another."""
    x, source = b.typed(ins.args[0])
    target = b.types[ins.dest] if ins.dest else source
    if target == source:
        return x
    bits = b.get(target, "raw_bitcast", x)
    if not is_float(source) or is_float(target):
        return bits
    return b.get(target, "select", b.get(BOOL, "ne", x, x), Const(target, NAN_BITS[source]), bits)  # type: ignore[index]


# Comparison of scalars and texts; `lower_equality` has eq and ne of everything else.


def order(b: Builder, ins: Instruction) -> Operand | None:
    """lt, le, gt, ge: texts by the runtime's three-way comparison."""
    (x, t), (y, _) = b.operands(ins)
    if t == TEXT:
        return b.get(BOOL, ins.op, b.runtime("text_compare", x, y), ZERO)
    return b.get(BOOL, ins.op, x, y)


def select(b: Builder, ins: Instruction) -> Operand | None:
    (c, _), (x, t), (y, _) = b.operands(ins)
    return b.get(machine_type(t), "select", c, x, y)


def copy(b: Builder, ins: Instruction) -> Operand | None:
    return b.operand(ins.args[0])


def nothing(b: Builder, ins: Instruction) -> Operand | None:
    """What has no effect on a machine whose locals are never un-assigned."""
    return None


NUMBER_RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "neg", "bit_and", "bit_or", "bit_xor", "bit_not", "sqrt", "exp", "log", "sin", "cos", "tan", "tanh"), plain),
    **dict.fromkeys(("abs", "floor", "ceil", "round", "trunc", "min", "max", "fma"), plain),
    **dict.fromkeys(("and", "or", "not"), condition),
    **dict.fromkeys(("lt", "le", "gt", "ge"), order),
    **dict.fromkeys(("const", "copy"), copy),
    **dict.fromkeys(("nop", "drop", "debug_value"), nothing),
    "select": select,
    "div": div, "rem": rem, "pow": power, "shl": shift, "shr": shift,
    "checked_add": _checked(_sum_is_right), "checked_sub": _checked(_difference_is_right), "checked_mul": _checked(_product_is_right),
    "checked_neg": checked_neg,
    "cast": cast, "bitcast": bitcast,
}  # fmt: skip

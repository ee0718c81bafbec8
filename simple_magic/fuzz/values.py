"""Choices of the program generator, and the values that it tries of every scalar type.

Choice 0 is always the simplest, so that a chooser that shrinks (Hypothesis) gives small programs.
"""

from __future__ import annotations

import math
import random
import struct
from dataclasses import dataclass
from typing import Protocol

from ..mir.types import BOOL, CHAR, F64, TEXT, Type, bit_width, integer_range, is_float, is_integer


# Choices


class Chooser(Protocol):
    def below(self, count: int) -> int:
        """Return a number from 0 to count - 1; 0 is the simplest."""


class SeededChooser:
    """Choices from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, count: int) -> int:
        return self._random.randrange(count)


# Values


FLOATS_TRIED = (0.0, 1.0, -0.0, -1.0, 0.5, 2.5, -2.5, 3.0, 0.75, -0.3, 7.3, 123.456, -41.5, 0.001, 1e10, math.inf, -math.inf, math.nan, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308,
                2.0**31, 2.0**53 + 2, 2.0**63, -(2.0**63), 3.4028234663852886e38, 1e-45, 0.1)  # fmt: skip
TEXTS_TRIED = ("", "a", "abc", "\u00e9", "a\0b", "\U0001f600z", "12", "-7", "1.5", "nan", 'q"\n\\', "\u202eb", "b", "\ud7ff\ue000")
CHARS_TRIED = ("a", "\0", "Z", "\ud7ff", "\ue000", "\U0010ffff", "'")
LENT = {"i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64", "f32": "float32",
        "f64": "float64"}  # fmt: skip


@dataclass(frozen=True)
class Lent:
    """Stands for an array in memory of the caller, which cannot grow: NumPy dtype and items."""

    dtype: str
    items: tuple


def as_f32(x: float) -> float:
    """Return the f32 nearest to x."""
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def scalars_of(t: Type) -> tuple:
    """Return the values that are tried of a number type, bool, char or text, the simplest first."""
    if is_integer(t):
        low, high = integer_range(t)
        bits = bit_width(t)
        return tuple(v for v in dict.fromkeys((0, 1, 2, 3, 7, -1, low, high, low + 1, high - 1, bits - 1, bits, 97, 0xD800)) if low <= v <= high)
    if is_float(t):
        return FLOATS_TRIED if t == F64 else tuple(dict.fromkeys(map(as_f32, FLOATS_TRIED)))
    return {BOOL: (False, True), CHAR: CHARS_TRIED, TEXT: TEXTS_TRIED}[t]  # type: ignore[index]

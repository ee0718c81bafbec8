"""Types of Simple MIR, as values.

A type is a frozen dataclass; two types are the same type exactly if they compare equal.
`Named` stands for a struct, class or enum; which of them, only a module or session knows.
`format_type` is the one spelling of a type; `mir/text.py` reads it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Primitive:
    """unit, bool, the integers, the floats, char, text, never."""

    name: str


@dataclass(frozen=True, slots=True)
class Array:
    """`[T]`: a growable array."""

    element: Type


@dataclass(frozen=True, slots=True)
class FixedArray:
    """`[T; n]`: an array whose length is part of its type."""

    element: Type
    length: int


@dataclass(frozen=True, slots=True)
class Dict:
    """`{K: V}`: K is an integer, bool, char or text; iteration is in sorted key order."""

    key: Type
    value: Type


@dataclass(frozen=True, slots=True)
class Tuple:
    """`(A, B)`; `(A,)` has one element."""

    elements: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """`T?`: nil or a value."""

    inner: Type


@dataclass(frozen=True, slots=True)
class Fn:
    """`fn(A, B) -> C`: a function value, possibly with captured values."""

    params: tuple[Type, ...]
    result: Type


@dataclass(frozen=True, slots=True)
class Ptr:
    """`ptr<T>`: a checked pair of block and index."""

    pointee: Type


@dataclass(frozen=True, slots=True)
class Named:
    """The name of a struct, class or enum."""

    name: str


Type: TypeAlias = Primitive | Array | FixedArray | Dict | Tuple | Option | Fn | Ptr | Named

UNIT = Primitive("unit")
BOOL = Primitive("bool")
I8, I16, I32, I64 = (Primitive(f"i{bits}") for bits in (8, 16, 32, 64))
U8, U16, U32, U64 = (Primitive(f"u{bits}") for bits in (8, 16, 32, 64))
F32, F64 = Primitive("f32"), Primitive("f64")
CHAR = Primitive("char")
TEXT = Primitive("text")
NEVER = Primitive("never")

SIGNED = (I8, I16, I32, I64)
UNSIGNED = (U8, U16, U32, U64)
INTEGERS = SIGNED + UNSIGNED
FLOATS = (F32, F64)
NUMBERS = INTEGERS + FLOATS
PRIMITIVES = {t.name: t for t in (UNIT, BOOL, *NUMBERS, CHAR, TEXT, NEVER)}
DICT_KEYS = (*INTEGERS, BOOL, CHAR, TEXT)

_BITS = {t: int(t.name[1:]) for t in NUMBERS} | {BOOL: 1, CHAR: 32}


def bit_width(t: Type) -> int:
    """Return the width in bits of a number type, of bool (1) or of char (32)."""
    return _BITS[t]  # type: ignore[index]


def is_integer(t: Type) -> bool:
    return t in INTEGERS


def is_signed(t: Type) -> bool:
    return t in SIGNED


def is_float(t: Type) -> bool:
    return t in FLOATS


def is_scalar(t: Type) -> bool:
    """Return whether a value of `t` is one machine number: numbers, bool, char, unit."""
    return t in NUMBERS or t in (BOOL, CHAR, UNIT)


def integer_range(t: Type) -> tuple[int, int]:
    """Return the smallest and the largest value of integer type `t`."""
    bits = bit_width(t)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed(t) else (0, (1 << bits) - 1)


def children(t: Type) -> tuple[Type, ...]:
    """Return the types that `t` is written with, from left to right."""
    match t:
        case Array(element) | FixedArray(element, _):
            return (element,)
        case Dict(key, value):
            return (key, value)
        case Tuple(elements):
            return elements
        case Option(inner):
            return (inner,)
        case Fn(params, result):
            return (*params, result)
        case Ptr(pointee):
            return (pointee,)
    return ()


def walk(t: Type) -> list[Type]:
    """Return `t` and every type inside it, outermost first."""
    found, todo = [], [t]
    while todo:
        current = todo.pop()
        found.append(current)
        todo.extend(reversed(children(current)))
    return found


def format_type(t: Type) -> str:
    """Return the canonical spelling of `t`; `mir.text.parse_type` reads it back."""
    match t:
        case Primitive(name) | Named(name):
            return name
        case Array(element):
            return f"[{format_type(element)}]"
        case FixedArray(element, length):
            return f"[{format_type(element)}; {length}]"
        case Dict(key, value):
            return f"{{{format_type(key)}: {format_type(value)}}}"
        case Tuple(elements):
            inside = ", ".join(format_type(e) for e in elements)
            return f"({inside},)" if len(elements) == 1 else f"({inside})"
        case Option(inner):
            spelled = format_type(inner)
            return f"({spelled})?" if isinstance(inner, Fn) else f"{spelled}?"
        case Fn(params, result):
            return f"fn({', '.join(format_type(p) for p in params)}) -> {format_type(result)}"
        case Ptr(pointee):
            return f"ptr<{format_type(pointee)}>"
    raise AssertionError(f"not a type: {t!r}")

"""The data model: a module is a value.

Everything is frozen; a change builds a new value (`dataclasses.replace`). Equality means "the same program": positions (`span`), comments
(`trivia`) and origins do not take part. Nothing here prints, verifies or runs: those are functions elsewhere.

    Module    types (StructDef, EnumDef), globals, externs, functions
    Function  params, result, blocks; the first block is the entry
    Block     label and instructions; the last instruction, and only it, is a terminator
    Instruction   one operation; `mir/ops.py` says what each `op` reads and makes

Locals are mutable slots named by strings. A local's type stands on its first assignment in text order (`dest_type`); in the unresolved form it
may be missing, `resolve` fills it in.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from dataclasses import field as _field
from typing import TypeAlias

from .diagnostics import Origin, Span
from .types import BOOL, CHAR, F32, F64, TEXT, UNIT, Type, bit_width, is_float, is_integer, is_signed


@dataclass(frozen=True, slots=True)
class Trivia:
    """Comments kept by `fmt`: whole lines `before` (without "#", "" for a blank line) and the one `after` on the same line."""

    before: tuple[str, ...] = ()
    after: str = ""


NO_TRIVIA = Trivia()


def _span() -> Span | None:
    return _field(default=None, compare=False, repr=False)


def _trivia() -> Trivia:
    return _field(default=NO_TRIVIA, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Const:
    """An immediate: a type and its bits.

    `bits` is the unsigned bit pattern for numbers, 0 or 1 for bool, the code point for char, a str for text, None for nil.
    So NaN equals itself, and -0.0, 0.0, 0 and false differ. The type of `nil` is None until `resolve` finds it.
    """

    type: Type | None
    bits: int | str | None
    span: Span | None = _span()

    @property
    def value(self) -> object:
        """The constant as a Python value: int, float, bool, str (char and text) or None."""
        if self.bits is None or isinstance(self.bits, str):
            return self.bits
        return decode_bits(self.type, self.bits)


NAN_BITS = {F64: 0x7FF8000000000000, F32: 0x7FC00000}


def encode_bits(t: Type, value: object) -> int:
    """Return the unsigned bit pattern of a Python value as a value of scalar type `t`; NaN is made canonical."""
    if is_integer(t) or t == BOOL:
        return int(value) & ((1 << bit_width(t)) - 1)  # type: ignore[call-overload]
    if is_float(t):
        if math.isnan(value):  # type: ignore[arg-type]
            return NAN_BITS[t]  # type: ignore[index]
        return int.from_bytes(struct.pack("<d" if t == F64 else "<f", value), "little")
    if t == CHAR:
        return ord(value)  # type: ignore[arg-type]
    if t == UNIT:
        return 0
    raise AssertionError(f"no bits for {t}")


def decode_bits(t: Type | None, bits: int) -> object:
    """Return the Python value of a bit pattern of scalar type `t`."""
    if t is not None and is_integer(t):
        sign = 1 << (bit_width(t) - 1)
        return bits - 2 * sign if is_signed(t) and bits & sign else bits
    if t == BOOL:
        return bool(bits)
    if t == F64:
        return struct.unpack("<d", bits.to_bytes(8, "little"))[0]
    if t == F32:
        return struct.unpack("<f", bits.to_bytes(4, "little"))[0]
    if t == CHAR:
        return chr(bits)
    if t == UNIT:
        return None
    raise AssertionError(f"no value for {t}")


def const(t: Type, value: object, span: Span | None = None) -> Const:
    """Return a constant of type `t` from a Python value (int, float, bool, str; None for nil)."""
    if value is None or t == TEXT:
        return Const(t, value, span)  # type: ignore[arg-type]
    return Const(t, encode_bits(t, value), span)


@dataclass(frozen=True, slots=True)
class FieldHop:
    """`.name` of a struct or class, `.0` of a tuple."""

    field: str | int
    span: Span | None = _span()


@dataclass(frozen=True, slots=True)
class IndexHop:
    """`[operand]` of an array or a dict."""

    index: Operand
    span: Span | None = _span()


Hop: TypeAlias = FieldHop | IndexHop


@dataclass(frozen=True, slots=True)
class Place:
    """A local or `@global`, then hops. Without hops and `is_global` it is the plain read of a local.

    `move` un-assigns the local after the read (allowed only for a plain local).
    """

    root: str
    hops: tuple[Hop, ...] = ()
    is_global: bool = False
    move: bool = False
    span: Span | None = _span()


Operand: TypeAlias = Place | Const


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation. Which of the fields an opcode uses stands in its row of `mir/ops.py`.

    args: the values it reads, in text order (for `new` and `variant` beside `fields`, for `call_indirect` and `throw` as written)
    dest, dest_type: the local it assigns, and the annotation written there
    name: callee, struct, "Enum.Variant", payload "Variant.field", global (without "@") or the local of `drop` and `debug_value`
    field: of `get_field` and `set_field`; an int for a tuple
    type: the type operand of `alloc` and of raw memory operations
    message: text of `assert` and `abort`
    fields: argument names of `new` and `variant`
    labels: targets; `switch` has one per case, then the default; `invoke` has (normal, unwind)
    cases: the constants of `switch`, one per label but the last
    unwind: the locals (payload, tag) that `invoke` assigns on its unwind edge
    attributes: sorted (name, value) pairs of internal operations
    """

    op: str
    args: tuple[Operand, ...] = ()
    dest: str | None = None
    dest_type: Type | None = None
    name: str | None = None
    field: str | int | None = None
    type: Type | None = None
    message: str | None = None
    fields: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    cases: tuple[Const, ...] = ()
    unwind: tuple[str, ...] = ()
    attributes: tuple[tuple[str, object], ...] = ()
    origin: Origin | None = _field(default=None, compare=False, repr=False)
    span: Span | None = _span()
    trivia: Trivia = _trivia()

    def attribute(self, name: str, default: object = None) -> object:
        """Return the attribute `name` of an internal operation."""
        return dict(self.attributes).get(name, default)


@dataclass(frozen=True, slots=True)
class Block:
    label: str
    instructions: tuple[Instruction, ...]
    span: Span | None = _span()
    trivia: Trivia = _trivia()

    @property
    def terminator(self) -> Instruction:
        return self.instructions[-1]


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter, or a field of a struct, class or enum variant."""

    name: str
    type: Type
    span: Span | None = _span()
    trivia: Trivia = _trivia()


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    params: tuple[Param, ...]
    result: Type
    blocks: tuple[Block, ...]
    span: Span | None = _span()
    trivia: Trivia = _trivia()

    @property
    def entry(self) -> Block:
        return self.blocks[0]


@dataclass(frozen=True, slots=True)
class Extern:
    """A function that the host provides. `variadic`: further arguments travel with their static types."""

    name: str
    params: tuple[Param, ...]
    result: Type
    variadic: bool = False
    span: Span | None = _span()
    trivia: Trivia = _trivia()


@dataclass(frozen=True, slots=True)
class StructDef:
    """A `struct`, or a `class` when `is_class`; they differ only under models that copy by kind."""

    name: str
    fields: tuple[Param, ...]
    is_class: bool = False
    span: Span | None = _span()
    trivia: Trivia = _trivia()


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    fields: tuple[Param, ...] = ()
    span: Span | None = _span()
    trivia: Trivia = _trivia()


@dataclass(frozen=True, slots=True)
class EnumDef:
    name: str
    variants: tuple[Variant, ...]
    span: Span | None = _span()
    trivia: Trivia = _trivia()


@dataclass(frozen=True, slots=True)
class Global:
    """A variable of the session; without `init` it starts as the type's zero value."""

    name: str
    type: Type
    init: Const | None = None
    span: Span | None = _span()
    trivia: Trivia = _trivia()


TypeDef: TypeAlias = StructDef | EnumDef
Item: TypeAlias = TypeDef | Global | Extern | Function


@dataclass(frozen=True, slots=True)
class Module:
    """What a cell defines. Items of one kind keep their order; between kinds there is none."""

    types: tuple[TypeDef, ...] = ()
    globals: tuple[Global, ...] = ()
    externs: tuple[Extern, ...] = ()
    functions: tuple[Function, ...] = ()
    name: str = ""
    span: Span | None = _span()
    trivia: Trivia = _trivia()
    ending: Trivia = _trivia()

    @property
    def items(self) -> tuple[Item, ...]:
        """All items: types, globals, externs, functions."""
        return (*self.types, *self.globals, *self.externs, *self.functions)


def local(name: str) -> Place:
    """Return the plain read of a local."""
    return Place(name)

"""Lowering of eq, ne and contains: one synthesized function per type that is compared by structure.

`_eq$n(a, b) -> bool` compares two values of a type, `_contains$n(a, x) -> bool` looks for a value in an array. Classes, functions and pointers are
equal if they are the same object. No object is taken to equal itself unseen, because it may hold a NaN.
"""

from __future__ import annotations

from ..mir.model import EnumDef, Instruction, Operand, Place, StructDef, const
from ..mir.types import BOOL, I64, TEXT, Array, Dict, FixedArray, Fn, Named, Option, Ptr, Tuple, Type, is_scalar
from ..runtime.layout import (
    BOX_VALUE,
    DICT_CAPACITY,
    DICT_COUNT,
    DICT_ENTRIES,
    ENTRY_HASH,
    ENTRY_KEY,
    ENTRY_SIZE,
    ENTRY_VALUE,
    ENUM_SLOTS,
    ENUM_TAG,
    LENGTH,
    SLOTS,
    WORD,
    machine_type,
    option_is_boxed,
)  # fmt: skip
from .lower_builder import ELEMENT, FALSE, HEADER, SLOT, TRUE, ZERO, Builder, Rule, element_type, word


def by_identity(b: Builder, t: Type) -> bool:
    """Return whether two values of `t` are equal exactly if their machine values are."""
    if isinstance(t, Named):
        definition = b.unit.names.types[t.name]
        return isinstance(definition, StructDef) and definition.is_class
    return is_scalar(t) or isinstance(t, (Fn, Ptr))


def equal(b: Builder, x: Operand, y: Operand, t: Type) -> Operand:
    """Return whether two values of type `t` are equal, as a bool."""
    if by_identity(b, t):
        return b.get(BOOL, "eq", x, y)
    if t == TEXT:
        return b.get(BOOL, "ne", b.runtime("text_eq", x, y), ZERO)
    name = b.unit.synthesize("_eq", t, (machine_type(t), machine_type(t)), BOOL, b.origin, _equality_body)
    return b.get(BOOL, "call", x, y, name=name)


def _unless(b: Builder, same: Operand) -> None:
    """Leave the synthesized function with false unless `same`."""
    go_on, different = b.label(), b.label()
    b.branch(same, go_on, different)
    b.start(different)
    b.do("ret", FALSE)
    b.start(go_on)


def _equality_body(b: Builder, t: Type, params: tuple[Place, ...]) -> None:
    x, y = params
    match t:
        case Array() | FixedArray():
            _equal_arrays(b, x, y, t)
        case Dict():
            _equal_dicts(b, x, y, t)
        case Tuple(elements):
            _equal_slots(b, x, y, SLOTS, elements)
        case Option(inner):
            _equal_options(b, x, y, inner)
        case Named(name):
            definition = b.unit.names.types[name]
            if isinstance(definition, EnumDef):
                _equal_enums(b, x, y, definition)
                return
            _equal_slots(b, x, y, SLOTS, tuple(f.type for f in definition.fields))
    b.do("ret", TRUE)


def _equal_slots(b: Builder, x: Place, y: Place, first: int, types: tuple[Type, ...]) -> None:
    for index, t in enumerate(types):
        offset = first + WORD * index
        _unless(b, equal(b, b.load(machine_type(t), x, offset, SLOT), b.load(machine_type(t), y, offset, SLOT), t))


def _equal_arrays(b: Builder, x: Place, y: Place, t: Type) -> None:
    of = element_type(t)
    length = b.load(I64, x, LENGTH, HEADER)
    _unless(b, b.get(BOOL, "eq", length, b.load(I64, y, LENGTH, HEADER)))

    def compare(i: Place) -> None:
        left = b.load(machine_type(of), b.unchecked_address(x, t, i), 0, ELEMENT)
        right = b.load(machine_type(of), b.unchecked_address(y, t, i), 0, ELEMENT)
        _unless(b, equal(b, left, right, of))

    b.loop(length, compare)


def _equal_dicts(b: Builder, x: Place, y: Place, t: Dict) -> None:
    """The same number of keys, and each key of one with an equal value in the other: the order plays no part."""
    _unless(b, b.get(BOOL, "eq", b.load(I64, x, DICT_COUNT, HEADER), b.load(I64, y, DICT_COUNT, HEADER)))
    entries = b.load(I64, x, DICT_ENTRIES, HEADER)

    def compare(i: Place) -> None:
        entry = b.get(I64, "add", entries, b.get(I64, "mul", i, word(ENTRY_SIZE)))
        used, free = b.label(), b.label()
        b.branch(b.get(BOOL, "ne", b.load(I64, entry, ENTRY_HASH, SLOT), ZERO), used, free)
        b.start(used)
        found = b.runtime("dict_find", y, b.load(I64, entry, ENTRY_KEY, SLOT), word(int(t.key == TEXT)))
        _unless(b, b.get(BOOL, "ne", found, ZERO))
        left = b.load(machine_type(t.value), entry, ENTRY_VALUE, SLOT)
        right = b.load(machine_type(t.value), found, 0, SLOT)
        _unless(b, equal(b, left, right, t.value))
        b.goto(free)
        b.start(free)

    b.loop(b.load(I64, x, DICT_CAPACITY, HEADER), compare)


def _equal_options(b: Builder, x: Place, y: Place, inner: Type) -> None:
    some = b.get(BOOL, "ne", x, ZERO)
    _unless(b, b.get(BOOL, "eq", some, b.get(BOOL, "ne", y, ZERO)))
    values, done = b.label(), b.label()
    b.branch(some, values, done)
    b.start(values)
    if option_is_boxed(inner):
        x, y = (b.load(machine_type(inner), box, BOX_VALUE, SLOT) for box in (x, y))
    _unless(b, equal(b, x, y, inner))
    b.goto(done)
    b.start(done)


def _equal_enums(b: Builder, x: Place, y: Place, definition: EnumDef) -> None:
    tag = b.load(I64, x, ENUM_TAG, HEADER)
    _unless(b, b.get(BOOL, "eq", tag, b.load(I64, y, ENUM_TAG, HEADER)))
    with_fields = [(index, variant) for index, variant in enumerate(definition.variants) if variant.fields]
    labels = [b.label() for _ in with_fields]
    same = b.label()
    if not with_fields:
        b.goto(same)
    else:
        b.do("switch", tag, labels=(*labels, same), cases=tuple(const(I64, index) for index, _ in with_fields))
    for label, (_, variant) in zip(labels, with_fields):
        b.start(label)
        _equal_slots(b, x, y, ENUM_SLOTS, tuple(f.type for f in variant.fields))
        b.goto(same)
    b.start(same)
    b.do("ret", TRUE)


def _contains_body(b: Builder, t: Type, params: tuple[Place, ...]) -> None:
    array, wanted = params
    of = element_type(t)

    def compare(i: Place) -> None:
        found, go_on = b.label(), b.label()
        b.branch(equal(b, b.load(machine_type(of), b.unchecked_address(array, t, i), 0, ELEMENT), wanted, of), found, go_on)
        b.start(found)
        b.do("ret", TRUE)
        b.start(go_on)

    b.loop(b.load(I64, array, LENGTH, HEADER), compare)
    b.do("ret", FALSE)


def eq(b: Builder, ins: Instruction) -> Operand | None:
    (x, t), (y, _) = b.operands(ins)
    return equal(b, x, y, t)


def ne(b: Builder, ins: Instruction) -> Operand | None:
    (x, t), (y, _) = b.operands(ins)
    return b.get(BOOL, "ne", x, y) if by_identity(b, t) else b.get(BOOL, "not", equal(b, x, y, t))


def contains(b: Builder, ins: Instruction) -> Operand | None:
    (whole, t), (part, part_type) = b.operands(ins)
    if t == TEXT:
        return b.get(BOOL, "ne", b.runtime("text_contains", whole, part), ZERO)
    if isinstance(t, Dict):
        return b.get(BOOL, "ne", b.runtime("dict_find", whole, b.to_word(part, t.key), word(int(t.key == TEXT))), ZERO)
    name = b.unit.synthesize("_contains", t, (I64, machine_type(part_type)), BOOL, b.origin, _contains_body)
    return b.get(BOOL, "call", whole, part, name=name)


EQUALITY_RULES: dict[str, Rule] = {"eq": eq, "ne": ne, "contains": contains}

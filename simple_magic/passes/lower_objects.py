"""Lowering of objects: structs, enums, tuples, options, arrays, dicts, texts, pointers and globals, over the layout of `runtime/layout.py`.

Small objects are allocated and element accesses are checked in place; everything larger is a call of the runtime. Operations are all or nothing:
the runtime checks and allocates before its first write, and so does what stands here.
"""

from __future__ import annotations

from ..mir.model import EnumDef, Instruction, Operand, Place, StructDef, const
from ..mir.types import (
    BOOL,
    CHAR,
    I64,
    SIGNED,
    TEXT,
    U8,
    Array,
    Dict,
    FixedArray,
    Named,
    Option,
    Ptr,
    Tuple,
    Type,
    is_scalar,
)  # fmt: skip
from ..runtime.layout import (
    ARRAY_SIZE,
    BLOCK_COUNT,
    BLOCK_SLOTS,
    BORROWED,
    BOX_VALUE,
    CAPACITY,
    DATA,
    DICT_COUNT,
    ENUM_SLOTS,
    ENUM_TAG,
    KIND_ARRAY,
    KIND_BLOCK,
    KIND_BOX,
    KIND_CLASS,
    KIND_ENUM,
    KIND_PTR,
    KIND_STRUCT,
    KIND_TUPLE,
    LENGTH,
    PTR_BLOCK,
    PTR_INDEX,
    SLOTS,
    TEXT_CHARS,
    WORD,
    element_size,
    machine_type,
    option_is_boxed,
)  # fmt: skip
from .lower_builder import ELEMENT, HEADER, ONE, SLOT, ZERO, Builder, Rule, Typed, element_type, word

HUGE = 1 << 60
"""More bytes than any heap has: asking for them is the ordinary way to run out of memory."""


def is_text(t: Type) -> Operand:
    """Return the runtime's flag for dict keys."""
    return word(int(t == TEXT))


def key_order(t: Type) -> Operand:
    """Return the runtime's number for the order of dict keys: signed, unsigned, text."""
    return word(2 if t == TEXT else 0 if t in SIGNED else 1)


def stride(t: Type) -> Operand:
    """Return the element size of an array type as an operand."""
    return word(element_size(element_type(t)))


def struct_size(definition: StructDef) -> int:
    return SLOTS + WORD * len(definition.fields)


# Zero values


def has_inline_zero(t: Type) -> bool:
    """Return whether the zero value of `t` is a machine zero."""
    return is_scalar(t) or isinstance(t, Option)


def zero_value(b: Builder, t: Type) -> Operand:
    """Return a zero value of `t`; each call makes its own objects."""
    if is_scalar(t):
        return const(machine_type(t), False) if machine_type(t) == BOOL else const(t, "\0" if t == CHAR else 0)
    match t:
        case Option():
            return ZERO
        case Array():
            return _literal_array(b, [], t.element)
        case Dict():
            return b.runtime("dict_new")
        case FixedArray(element, length) if has_inline_zero(element) or not length:
            return b.runtime("array_fill", ZERO, word(length), word(element_size(element)))
    if t == TEXT:
        return b.typed(const(TEXT, ""))[0]
    name = b.unit.synthesize("_zero", t, (), I64, b.origin, _zero_body)
    return b.get(I64, "call", name=name)


def _zero_body(b: Builder, t: Type, params: tuple[Place, ...]) -> None:
    match t:
        case FixedArray(element, length):
            result: Operand = b.runtime("array_new", word(length), word(length), stride(t))
            data = b.load(I64, result, DATA, HEADER)

            def fill(i: Place) -> None:
                value = zero_value(b, element)
                b.store(I64, b.get(I64, "add", data, b.scaled(i, WORD)), value, 0, ELEMENT)

            b.loop(word(length), fill)
        case Tuple(elements):
            result = b.object(KIND_TUPLE, (), [(zero_value(b, e), e) for e in elements])
        case _:
            definition = b.unit.struct(t)
            result = b.object(KIND_STRUCT, (), [(zero_value(b, f.type), f.type) for f in definition.fields])
    b.do("ret", result)


def zero(b: Builder, ins: Instruction) -> Operand | None:
    return zero_value(b, b.types[ins.dest]) if ins.dest else None


def aggregate_copy(b: Builder, ins: Instruction) -> Operand | None:
    """One level: a new object with the same slots."""
    value, t = b.typed(ins.args[0])
    match t:
        case Array() | FixedArray():
            return b.runtime("array_copy", value, stride(t))
        case Dict():
            return b.runtime("dict_copy", value)
        case Named(name):
            definition = b.unit.names.types[name]
            if isinstance(definition, StructDef):
                return b.runtime("object_copy", value, word(struct_size(definition)))
    return value


# Structs, tuples, enums, options


def new(b: Builder, ins: Instruction) -> Operand | None:
    given = dict(zip(ins.fields, b.operands(ins)))
    definition = b.unit.struct(Named(ins.name or ""))
    kind = KIND_CLASS if definition.is_class else KIND_STRUCT
    return b.object(kind, (), [(given[f.name][0], f.type) for f in definition.fields])


def tuple_(b: Builder, ins: Instruction) -> Operand | None:
    return b.object(KIND_TUPLE, (), b.operands(ins))


def get_field(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    return b.field(value, t, ins.field)[0]


def set_field(b: Builder, ins: Instruction) -> Operand | None:
    (target, t), (value, _) = b.operands(ins)
    offset, of = b.field_slot(t, ins.field)
    b.store(machine_type(of), target, value, offset, SLOT)
    return None


def _variant(b: Builder, enum: str, variant: str) -> tuple[int, tuple[tuple[str, Type], ...]]:
    """Return (tag, fields with types) of a variant."""
    definition = b.unit.names.types[enum]
    assert isinstance(definition, EnumDef)
    tag = next(index for index, v in enumerate(definition.variants) if v.name == variant)
    return tag, tuple((f.name, f.type) for f in definition.variants[tag].fields)


def variant(b: Builder, ins: Instruction) -> Operand | None:
    enum, _, name = (ins.name or "").partition(".")
    given = dict(zip(ins.fields, b.operands(ins)))
    tag, fields = _variant(b, enum, name)
    return b.object(KIND_ENUM, (word(tag),), [(given[f][0], t) for f, t in fields])


def tag(b: Builder, ins: Instruction) -> Operand | None:
    return b.load(I64, b.operand(ins.args[0]), ENUM_TAG, HEADER)


def payload(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    assert isinstance(t, Named)
    name, _, field = (ins.name or "").partition(".")
    wanted, fields = _variant(b, t.name, name)
    found = b.load(I64, value, ENUM_TAG, HEADER)
    b.check(b.get(BOOL, "eq", found, word(wanted)), "wrong_variant", found, word(wanted))
    index = next(i for i, (f, _) in enumerate(fields) if f == field)
    return b.load(machine_type(fields[index][1]), value, ENUM_SLOTS + WORD * index, SLOT)


def some(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    return b.object(KIND_BOX, (), [(value, t)]) if option_is_boxed(t) else value


def is_some(b: Builder, ins: Instruction) -> Operand | None:
    return b.get(BOOL, "ne", b.operand(ins.args[0]), ZERO)


def unwrap(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    assert isinstance(t, Option)
    b.check(b.get(BOOL, "ne", value, ZERO), "nil_unwrap")
    return b.load(machine_type(t.inner), value, BOX_VALUE, SLOT) if option_is_boxed(t.inner) else value


# Arrays, dicts, texts


def _literal_array(b: Builder, values: list[Typed], of: Type) -> Operand:
    """An array whose elements follow its header in one allocation."""
    size = element_size(of)
    count = word(len(values))
    p = b.allocate(ARRAY_SIZE + size * len(values))
    data = b.get(I64, "add", p, word(ARRAY_SIZE))
    for offset, value in ((0, word(KIND_ARRAY)), (LENGTH, count), (CAPACITY, count), (DATA, data)):
        b.store(I64, p, value, offset, HEADER)
    for index, (value, _) in enumerate(values):
        b.store(machine_type(of), data, value, size * index, ELEMENT)
    return p


def array(b: Builder, ins: Instruction) -> Operand | None:
    values = b.operands(ins)
    of = element_type(b.types[ins.dest]) if ins.dest else values[0][1] if values else I64
    return _literal_array(b, values, of)


def array_fill(b: Builder, ins: Instruction) -> Operand | None:
    (value, t), (count, _) = b.operands(ins)
    return b.runtime("array_fill", b.to_word(value, t), count, word(element_size(t)))


def dict_(b: Builder, ins: Instruction) -> Operand | None:
    return b.runtime("dict_new")


def index_get(b: Builder, ins: Instruction) -> Operand | None:
    (value, t), (index, _) = b.operands(ins)
    return b.element(value, t, index)[0]


def index_set(b: Builder, ins: Instruction) -> Operand | None:
    (target, t), (index, _), (value, value_type) = b.operands(ins)
    if isinstance(t, Dict):
        slot = b.runtime("dict_insert_slot", target, b.to_word(index, t.key), is_text(t.key))
        b.store(machine_type(value_type), slot, value, 0, SLOT)
    else:
        b.store(machine_type(value_type), b.element_address(target, t, index), value, 0, ELEMENT)
    return None


def len_(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    return b.load(I64, value, DICT_COUNT if isinstance(t, Dict) else TEXT_CHARS if t == TEXT else LENGTH, HEADER)


def push(b: Builder, ins: Instruction) -> Operand | None:
    """In place while there is room in memory of its own, else by the runtime, which grows or traps."""
    (target, t), (value, value_type) = b.operands(ins)
    fast, slow, joined = b.label(), b.label(), b.label()
    slot = b.temp(I64)
    length = b.load(I64, target, LENGTH, HEADER)
    room = b.get(BOOL, "lt", length, b.load(I64, target, CAPACITY, HEADER))
    flags = b.get(I64, "bit_and", b.load(I64, target, 0, HEADER), word(BORROWED))
    b.branch(b.get(BOOL, "and", room, b.get(BOOL, "eq", flags, ZERO)), fast, slow)
    b.start(fast)
    b.set(slot, "copy", b.unchecked_address(target, t, length))
    b.store(I64, target, b.get(I64, "add", length, ONE), LENGTH, HEADER)
    b.goto(joined)
    b.start(slow)
    b.set(slot, "call", target, stride(t), name="rt.array_push_slot")
    b.goto(joined)
    b.start(joined)
    b.store(machine_type(value_type), Place(slot), value, 0, ELEMENT)
    return None


def pop(b: Builder, ins: Instruction) -> Operand | None:
    target, t = b.typed(ins.args[0])
    return b.load(machine_type(element_type(t)), b.runtime("array_pop_slot", target, stride(t)), 0, ELEMENT)


def insert(b: Builder, ins: Instruction) -> Operand | None:
    (target, t), (index, _), (value, value_type) = b.operands(ins)
    slot = b.runtime("array_insert_slot", target, index, stride(t))
    b.store(machine_type(value_type), slot, value, 0, ELEMENT)
    return None


def remove(b: Builder, ins: Instruction) -> Operand | None:
    (target, t), (index, _) = b.operands(ins)
    if isinstance(t, Dict):
        result, _ = b.element(target, t, index)
        b.runtime("dict_remove", target, b.to_word(index, t.key), is_text(t.key))
    else:
        b.runtime("array_remove_check", target, index)
        result = b.load(machine_type(element_type(t)), b.unchecked_address(target, t, index), 0, ELEMENT)
        b.runtime("array_close_gap", target, index, stride(t))
    return result


def slice_(b: Builder, ins: Instruction) -> Operand | None:
    (value, t), (low, _), (high, _) = b.operands(ins)
    return b.runtime("text_slice", value, low, high) if t == TEXT else b.runtime("array_slice", value, low, high, stride(t))


def concat(b: Builder, ins: Instruction) -> Operand | None:
    (x, t), (y, _) = b.operands(ins)
    return b.runtime("text_concat", x, y) if t == TEXT else b.runtime("array_concat", x, y, stride(t))


def keys(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    assert isinstance(t, Dict)
    return b.runtime("dict_keys", value, key_order(t.key), word(element_size(t.key)))


def values(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    assert isinstance(t, Dict)
    return b.runtime("dict_values", value, key_order(t.key), word(element_size(t.value)))


# Globals and pointers


def load_global(b: Builder, ins: Instruction) -> Operand | None:
    name = ins.name or ""
    return b.load_global(name, b.unit.names.globals[name].type)


def store_global(b: Builder, ins: Instruction) -> Operand | None:
    value, _ = b.typed(ins.args[0])
    name = ins.name or ""
    b.store(machine_type(b.unit.names.globals[name].type), ZERO, value, b.global_offset(name), SLOT)
    return None


def _pointer(b: Builder, block: Operand, index: Operand) -> Operand:
    return b.object(KIND_PTR, (), [(block, I64), (index, I64)])


def _slot_of_block(b: Builder, block: Operand, index: Operand) -> Operand:
    return b.get(I64, "add", block, b.scaled(index, WORD))


def alloc(b: Builder, ins: Instruction) -> Operand | None:
    """A block of zero values; one that cannot fit any heap fails in the allocator."""
    count = b.operand(ins.args[0])
    t = ins.type
    assert t is not None
    b.check(b.get(BOOL, "ge", count, ZERO), "bad_pointer")
    bytes_ = b.get(I64, "mul", count, word(WORD))
    size = b.get(I64, "add", bytes_, word(BLOCK_SLOTS))
    fits = b.get(BOOL, "lt", count, word(HUGE // WORD))
    block = b.runtime("alloc", b.get(I64, "select", fits, size, word(HUGE)))
    b.store(I64, block, word(KIND_BLOCK), 0, HEADER)
    b.store(I64, block, count, BLOCK_COUNT, HEADER)
    if has_inline_zero(t):
        b.do("raw_fill", b.get(I64, "add", block, word(BLOCK_SLOTS)), const(U8, 0), bytes_)
    else:
        b.loop(count, lambda i: b.store(I64, _slot_of_block(b, block, i), zero_value(b, t), BLOCK_SLOTS, SLOT))
    return _pointer(b, block, ZERO)


def ref(b: Builder, ins: Instruction) -> Operand | None:
    value, t = b.typed(ins.args[0])
    return _pointer(b, b.object(KIND_BLOCK, (ONE,), [(value, t)]), ZERO)


def gep(b: Builder, ins: Instruction) -> Operand | None:
    (p, _), (index, _) = b.operands(ins)
    moved = b.get(I64, "add", b.load(I64, p, PTR_INDEX, SLOT), index)
    return _pointer(b, b.load(I64, p, PTR_BLOCK, SLOT), moved)


def _pointed_at(b: Builder, p: Operand) -> Operand:
    """Return the address to which BLOCK_SLOTS must be added for the slot that `p` points at, after the check."""
    block = b.load(I64, p, PTR_BLOCK, SLOT)
    index = b.load(I64, p, PTR_INDEX, SLOT)
    count = b.load(I64, block, BLOCK_COUNT, HEADER)
    b.check(b.get(BOOL, "lt", b.unsigned(index), b.unsigned(count)), "bad_pointer")
    return _slot_of_block(b, block, index)


def load(b: Builder, ins: Instruction) -> Operand | None:
    p, t = b.typed(ins.args[0])
    assert isinstance(t, Ptr)
    return b.load(machine_type(t.pointee), _pointed_at(b, p), BLOCK_SLOTS, SLOT)


def store(b: Builder, ins: Instruction) -> Operand | None:
    (p, _), (value, t) = b.operands(ins)
    b.store(machine_type(t), _pointed_at(b, p), value, BLOCK_SLOTS, SLOT)
    return None


OBJECT_RULES: dict[str, Rule] = {
    "zero": zero, "aggregate_copy": aggregate_copy,
    "new": new, "tuple": tuple_, "get_field": get_field, "set_field": set_field, "variant": variant, "tag": tag, "payload": payload,
    "some": some, "is_some": is_some, "unwrap": unwrap,
    "array": array, "array_fill": array_fill, "dict": dict_, "index_get": index_get, "index_set": index_set, "len": len_, "push": push, "pop": pop,
    "insert": insert, "remove": remove, "slice": slice_, "concat": concat, "keys": keys, "values": values,
    "load_global": load_global, "store_global": store_global,
    "alloc": alloc, "ref": ref, "gep": gep, "load": load, "store": store,
}  # fmt: skip

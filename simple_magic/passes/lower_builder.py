"""Building lowered functions: fresh names, blocks, raw memory, checks, and reading operands.

A `Builder` has the life of one lowered function. Rules (in the `lower_*` modules) call it to append instructions; every instruction gets the origin
of the instruction being lowered. Inside one lowered instruction the destination is assigned last, so operands may be read at any time before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from ..mir.diagnostics import Origin
from ..mir.model import Block, Const, FieldHop, Function, Instruction, Operand, Param, Place, const
from ..mir.types import (
    BOOL,
    CHAR,
    F32,
    F64,
    I64,
    TEXT,
    U32,
    U64,
    UNIT,
    Array,
    Dict,
    FixedArray,
    Tuple,
    Type,
    is_integer,
)  # fmt: skip
from ..runtime.layout import DATA, GLOBALS, HEAP_LIMIT, HEAP_TOP, LENGTH, SLOTS, WORD, align, element_size, machine_type

if TYPE_CHECKING:
    from .lower import Lowering

CONTROL, HEADER, ELEMENT, SLOT = "control", "header", "element", "slot"
"""The classes of memory: two accesses of different classes never overlap."""

Typed: TypeAlias = tuple[Operand, Type]
"""A lowered operand (a plain local or a constant) and its type at source level."""

ZERO, ONE = const(I64, 0), const(I64, 1)
FALSE, TRUE = const(BOOL, False), const(BOOL, True)


def word(value: int) -> Const:
    """Return an i64 constant."""
    return const(I64, value)


def annotate(blocks: list[Block], types: Mapping[str, Type], params: tuple[Param, ...]) -> tuple[Block, ...]:
    """Return the blocks with the type of each local on its first assignment in text order, and nowhere else."""
    seen = {p.name for p in params}
    result = []
    for block in blocks:
        instructions = []
        for ins in block.instructions:
            seen.update(ins.unwind)
            wanted = None
            if ins.dest is not None and ins.dest not in seen:
                seen.add(ins.dest)
                wanted = types[ins.dest]
            instructions.append(ins if ins.dest_type == wanted else replace(ins, dest_type=wanted))
        result.append(replace(block, instructions=tuple(instructions)))
    return tuple(result)


def retarget(block: Block, old: str, new: str) -> Block:
    """Return the block with its terminator going to `new` where it went to `old`."""
    end = block.terminator
    labels = tuple(new if label == old else label for label in end.labels)
    return replace(block, instructions=(*block.instructions[:-1], replace(end, labels=labels)))


def reachable_blocks(blocks: list[Block]) -> list[Block]:
    """Return the blocks that control can arrive at from the first one, in the same order."""
    targets = {block.label: block.terminator.labels for block in blocks}
    seen, todo = {blocks[0].label}, [blocks[0].label]
    while todo:
        for label in targets[todo.pop()]:
            if label not in seen:
                seen.add(label)
                todo.append(label)
    return [block for block in blocks if block.label in seen]


@dataclass
class Builder:
    """One lowered function in the making.

    types: the source-level types of the user's locals; machine: the scalar types of all locals of the result.
    `blocks` are in text order; `cold` (trap blocks) follow them. `start` opens a block, a terminator closes it. `labels` are taken.
    """

    unit: Lowering
    types: Mapping[str, Type]
    machine: dict[str, Type] = field(default_factory=dict)
    origin: Origin | None = None
    blocks: list[tuple[str, list[Instruction]]] = field(default_factory=list)
    cold: list[Block] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    size: int = 0
    """How many instructions were appended."""
    _temps: int = 0

    # Names and instructions

    def temp(self, t: Type) -> str:
        """Return a new local of scalar type `t`."""
        while True:
            self._temps += 1
            name = f"l${self._temps}"
            if name not in self.machine:
                self.machine[name] = t
                return name

    def label(self) -> str:
        """Return a new label."""
        name = f"b${len(self.labels)}"
        while name in self.labels:
            name += "$"
        self.labels.add(name)
        return name

    def append(self, ins: Instruction) -> None:
        self.size += 1
        self.blocks[-1][1].append(ins)

    def do(self, op: str, *args: Operand, **more: object) -> None:
        """Append an instruction without a result."""
        self.append(Instruction(op, args, origin=self.origin, **more))  # type: ignore[arg-type]

    def set(self, dest: str, op: str, *args: Operand, **more: object) -> None:
        """Append an instruction that assigns `dest`."""
        self.append(Instruction(op, args, dest=dest, origin=self.origin, **more))  # type: ignore[arg-type]

    def get(self, t: Type, op: str, *args: Operand, **more: object) -> Place:
        """Append an instruction that assigns a new local of scalar type `t`; return its read."""
        name = self.temp(t)
        self.set(name, op, *args, **more)
        return Place(name)

    def assign(self, dest: str, value: Operand) -> None:
        """Assign `dest`, which ends the lowering of its instruction; a value just computed into a new local goes there directly."""
        current = self.blocks[-1][1]
        if isinstance(value, Place) and current and current[-1].dest == value.root and value.root.startswith("l$") and value.root not in self.types:
            current[-1] = replace(current[-1], dest=dest)
            del self.machine[value.root]
        else:
            self.set(dest, "copy" if isinstance(value, Place) else "const", value)

    # Control flow

    def start(self, label: str) -> None:
        """Open the block `label`; the one before must have its terminator."""
        self.blocks.append((label, []))

    def goto(self, label: str) -> None:
        self.do("goto", labels=(label,))

    def branch(self, condition: Operand, then: str, otherwise: str) -> None:
        self.do("if", condition, labels=(then, otherwise))

    def trap(self, kind: str, *details: Operand, message: str | None = None) -> None:
        """End the block with a trap of the current origin."""
        self.do("trap", *details, message=message, attributes=(("kind", kind),))

    def check(self, condition: Operand, kind: str, *details: Operand, message: str | None = None) -> None:
        """Go on if the condition is true, else trap in a block of its own, out of the way."""
        good, bad = self.label(), self.label()
        self.branch(condition, good, bad)
        ins = Instruction("trap", details, message=message, attributes=(("kind", kind),), origin=self.origin)
        self.cold.append(Block(bad, (ins,)))
        self.start(good)

    def loop(self, count: Operand, body: Callable[[Place], None]) -> None:
        """Run `body(i)` for i from 0 up to `count` (an i64), exclusive."""
        i = self.temp(I64)
        head, inside, done = self.label(), self.label(), self.label()
        self.set(i, "const", ZERO)
        self.goto(head)
        self.start(head)
        self.branch(self.get(BOOL, "lt", Place(i), count), inside, done)
        self.start(inside)
        body(Place(i))
        self.set(i, "add", Place(i), ONE)
        self.goto(head)
        self.start(done)

    def finish(self, function: str, params: tuple[Param, ...], result: Type) -> Function:
        """Return the function; blocks that cannot be reached are left out."""
        blocks = [Block(label, tuple(instructions)) for label, instructions in self.blocks] + self.cold
        return Function(function, params, result, annotate(reachable_blocks(blocks), self.machine, params))

    # Memory

    def load(self, t: Type, base: Operand, offset: int, alias: str) -> Place:
        """Read a scalar of type `t`."""
        return self.get(t, "raw_load", base, type=t, attributes=(("alias", alias), ("offset", offset)))

    def store(self, t: Type, base: Operand, value: Operand, offset: int, alias: str) -> None:
        """Write a scalar of type `t`."""
        self.do("raw_store", base, value, type=t, attributes=(("alias", alias), ("offset", offset)))

    def control(self, offset: int) -> Place:
        """Read a control word."""
        return self.load(I64, ZERO, offset, CONTROL)

    def runtime(self, function: str, *args: Operand) -> Place:
        """Call a runtime function; all of them take and return i64."""
        return self.get(I64, "call", *args, name=f"rt.{function}")

    def allocate(self, size: int) -> Place:
        """Return a new piece of heap of `size` bytes: a bump of the heap top, or the runtime when it does not fit."""
        fast, slow, joined = self.label(), self.label(), self.label()
        result = self.temp(I64)
        top = self.control(HEAP_TOP)
        end = self.get(I64, "add", top, word(align(size)))
        fits = self.get(BOOL, "le", end, self.control(HEAP_LIMIT))
        self.branch(fits, fast, slow)
        self.start(fast)
        self.store(I64, ZERO, end, HEAP_TOP, CONTROL)
        self.set(result, "copy", top)
        self.goto(joined)
        self.start(slow)
        self.set(result, "call", word(size), name="rt.alloc")
        self.goto(joined)
        self.start(joined)
        return Place(result)

    def object(self, kind: int, words: tuple[Operand, ...], slots: list[Typed]) -> Place:
        """Return a new object: header, then i64 `words` of the header, then `slots`."""
        p = self.allocate(WORD * (1 + len(words) + len(slots)))
        self.store(I64, p, word(kind), 0, HEADER)
        for index, value in enumerate(words):
            self.store(I64, p, value, WORD * (1 + index), HEADER)
        for index, (value, t) in enumerate(slots):
            self.store(machine_type(t), p, value, WORD * (1 + len(words) + index), SLOT)
        return p

    def to_word(self, value: Operand, t: Type) -> Operand:
        """Return a value of type `t` as the i64 of the runtime: signed numbers extended by sign, anything else by zeros."""
        scalar = machine_type(t)
        if isinstance(value, Const):
            assert isinstance(value.bits, int)
            return word(value.value if is_integer(scalar) else value.bits) if scalar != U64 else Const(I64, value.bits)  # type: ignore[arg-type]
        if scalar == I64:
            return value
        if scalar == F64:
            return self.get(I64, "raw_bitcast", value)
        if scalar == F32:
            return self.get(I64, "cast", self.get(U32, "raw_bitcast", value))
        if scalar == BOOL:
            return self.get(I64, "select", value, ONE, ZERO)
        return self.get(I64, "cast", value)

    # Operands

    def operand(self, operand: Operand) -> Operand:
        """Return a user's operand as a plain local or constant; hops become reads of the current origin, which never copy."""
        return self.typed(operand)[0]

    def operands(self, ins: Instruction) -> list[Typed]:
        """Return all operands of an instruction, read from left to right."""
        return [self.typed(arg) for arg in ins.args]

    def typed(self, operand: Operand) -> Typed:
        """Return a user's operand, lowered, with its type at source level."""
        if isinstance(operand, Const):
            return self.constant(operand)
        if operand.is_global:
            t = self.unit.names.globals[operand.root].type
            value: Operand = self.load_global(operand.root, t)
        else:
            t = self.types[operand.root]
            value = Place(operand.root)
        for hop in operand.hops:
            if isinstance(hop, FieldHop):
                value, t = self.field(value, t, hop.field)
            else:
                value, t = self.element(value, t, self.operand(hop.index))
        return value, t

    def constant(self, value: Const) -> Typed:
        """Return an immediate: nil is 0, a text is a local that holds the reference of the interned text."""
        assert value.type is not None, "resolve gives nil its type"
        if value.bits is None:
            return ZERO, value.type
        if value.type == UNIT:
            return FALSE, UNIT
        if isinstance(value.bits, str):
            return self.get(I64, "const", replace(value, span=None)), TEXT
        return replace(value, span=None), value.type

    def global_offset(self, name: str) -> int:
        return GLOBALS + WORD * self.unit.global_slots[name]

    def load_global(self, name: str, t: Type) -> Place:
        return self.load(machine_type(t), ZERO, self.global_offset(name), SLOT)

    def field_slot(self, t: Type, name: str | int | None) -> tuple[int, Type]:
        """Return the byte offset and the type of a field of a struct or class, or of a numbered element of a tuple."""
        if isinstance(t, Tuple):
            assert isinstance(name, int)
            return SLOTS + WORD * name, t.elements[name]
        fields = self.unit.struct(t).fields
        index = next(i for i, f in enumerate(fields) if f.name == name)
        return SLOTS + WORD * index, fields[index].type

    def field(self, value: Operand, t: Type, name: str | int | None) -> Typed:
        """Read a field."""
        offset, of = self.field_slot(t, name)
        return self.load(machine_type(of), value, offset, SLOT), of

    def element(self, value: Operand, t: Type, index: Operand) -> Typed:
        """Read the element at an index (array), at a key (dict), or the code point at an index (text)."""
        if isinstance(t, Dict):
            slot = self.runtime("dict_find", value, self.to_word(index, t.key), word(int(t.key == TEXT)))
            self.check(self.get(BOOL, "ne", slot, ZERO), "key_missing")
            return self.load(machine_type(t.value), slot, 0, SLOT), t.value
        if t == TEXT:
            return self.get(CHAR, "cast", self.runtime("text_get", value, index)), CHAR
        address = self.element_address(value, t, index)
        of = element_type(t)
        return self.load(machine_type(of), address, 0, ELEMENT), of

    def element_address(self, array: Operand, t: Type, index: Operand) -> Operand:
        """Return the heap offset of the element at `index`, after the check against the length."""
        length = self.load(I64, array, LENGTH, HEADER)
        inside = self.get(BOOL, "lt", self.unsigned(index), self.unsigned(length))
        self.check(inside, "index_out_of_bounds", index, length)
        return self.unchecked_address(array, t, index)

    def unchecked_address(self, array: Operand, t: Type, index: Operand) -> Operand:
        """Return the heap offset of the element at `index`."""
        data = self.load(I64, array, DATA, HEADER)
        return self.get(I64, "add", data, self.scaled(index, element_size(element_type(t))))

    def scaled(self, index: Operand, size: int) -> Operand:
        """Return `index * size`."""
        if isinstance(index, Const):
            return word(index.value * size)  # type: ignore[operator]
        return index if size == 1 else self.get(I64, "mul", index, word(size))

    def unsigned(self, value: Operand) -> Operand:
        """Return the bits of an i64 as u64."""
        return Const(U64, value.bits) if isinstance(value, Const) else self.get(U64, "cast", value)


def element_type(t: Type) -> Type:
    """Return the element type of an array."""
    assert isinstance(t, (Array, FixedArray))
    return t.element


Rule: TypeAlias = Callable[[Builder, Instruction], "Operand | None"]
"""Appends the lowered form of one instruction and returns what its `dest` becomes (None: nothing, or it is a terminator)."""

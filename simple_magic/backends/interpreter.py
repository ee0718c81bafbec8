"""The interpreter: the definition of Simple MIR.

It executes resolved, *unlowered* MIR, after the passes for fuel and semantics, over the values of `values.py`. Every other executor is tested
against it. `run_rules` has one function per operation: `rule(machine, step, *operands)` gives the value to assign, or changes where the machine
goes on. Operands are read from left to right before the rule runs; a rule checks everything before its first write.

A function is decoded once into `Step`s. Its locals and constants are slots of one list, so an operand is an index. A place with hops is read into a
slot of its own just before the step: what an instruction writes into is the very object that the place leads to, never a copy.

Activations stand on a list of frames, not on Python's stack, and no rule recurses over values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..mir.analysis import local_types
from ..mir.diagnostics import Origin, Trap
from ..mir.model import Const, EnumDef, Extern, FieldHop, Function, Instruction, Operand, Place, StructDef
from ..mir.resolve import Names, operand_type
from ..mir.types import BOOL, CHAR, I64, TEXT, UNIT, Array, Dict, FixedArray, Named, Option, Tuple, Type, is_float, is_integer
from . import numbers
from .base import Host, Limits, Program, Unit
from .traps import PassedCalls, bare_trap
from .values import ArrayValue, DictValue, EnumValue, FnValue, PtrValue, SomeValue, StructValue

POLL_EVERY = 256
"""Steps, or objects that one operation handles, between two polls of the host."""
UNASSIGNED = object()
"""What a local holds before its first assignment, and after `drop` and `move`; the verifier proves that nobody reads it."""


# Decoding


@dataclass(frozen=True, slots=True)
class PlaceReader:
    """An operand that is not simply a slot: a global, a place with hops, a move. Its value goes into slot `into`.

    hops: `(slot, None)` for a field, `(None, operand)` for an index, which is a slot or again a PlaceReader.
    """

    into: int
    root: int | str
    hops: tuple[tuple[int | None, int | PlaceReader | None], ...]
    move: bool


@dataclass(slots=True)
class Step:
    """A decoded instruction.

    slots: where the operands are. readers: what must be read into slots before. dest: the slot that gets the rule's value.
    type: of the first operand. fix: brings a number into that type. dest_type: of the destination. targets: positions of the labels.
    unwind: the slots of an invoke's payload and tag. detail: whatever else a rule has prepared (see `_DETAILS`).
    Calls have their destination in `result`: it is assigned when they return.
    """

    rule: Callable[..., object]
    ins: Instruction
    origin: Origin | None
    slots: tuple[int, ...]
    readers: tuple[PlaceReader, ...]
    dest: int | None
    result: int | None
    targets: tuple[int, ...]
    unwind: tuple[int, ...]
    type: Type | None
    dest_type: Type | None
    fix: Callable
    is_float: bool
    detail: Any  # Its shape belongs to the rule.


@dataclass(frozen=True, slots=True)
class Code:
    """A decoded function. `template` is the list of slots at entry: parameters first, constants filled in."""

    name: str
    steps: tuple[Step, ...]
    template: tuple[object, ...]


_CALLS = ("call", "invoke", "call_indirect")


class _Decoder:
    """Turns one function into `Code`."""

    def __init__(self, function: Function, names: Names, rules: Mapping[str, Callable[..., object]]) -> None:
        self.names = names
        self.rules = rules
        self.types = local_types(function)
        self.template: list[object] = [UNASSIGNED] * len(self.types)
        self.slot_of: dict[str | Const, int] = {name: i for i, name in enumerate([p.name for p in function.params])}
        for name in self.types:
            self.slot_of.setdefault(name, len(self.slot_of))
        self.positions: dict[str, int] = {}
        count = 0
        for block in function.blocks:
            self.positions[block.label] = count
            count += len(block.instructions)
        steps = tuple(self.step(ins) for block in function.blocks for ins in block.instructions)
        self.code = Code(function.name, steps, tuple(self.template))

    def fresh(self, value: object) -> int:
        self.template.append(value)
        return len(self.template) - 1

    def operand(self, operand: Operand, is_moved_later: bool = False) -> int | PlaceReader:
        if isinstance(operand, Const):
            if operand not in self.slot_of:
                self.slot_of[operand] = self.fresh(operand.value)
            return self.slot_of[operand]
        if not (operand.hops or operand.is_global or operand.move or is_moved_later):
            return self.slot_of[operand.root]
        hops: list[tuple[int | None, int | PlaceReader | None]] = []
        for depth, hop in enumerate(operand.hops):
            if isinstance(hop, FieldHop):
                owner = operand_type(Place(operand.root, operand.hops[:depth], operand.is_global), self.types, self.names)
                hops.append((self.field_slot(owner, hop.field), None))
            else:
                hops.append((None, self.operand(hop.index)))
        root = operand.root if operand.is_global else self.slot_of[operand.root]
        return PlaceReader(self.fresh(UNASSIGNED), root, tuple(hops), operand.move)

    def field_slot(self, owner: Type, name: str | int | None) -> int:
        if isinstance(owner, Tuple):
            return int(name)  # type: ignore[arg-type]
        definition = self.names.types[owner.name]  # type: ignore[union-attr]
        return next(i for i, f in enumerate(definition.fields) if f.name == name)  # type: ignore[union-attr]

    def type_of(self, operand: Operand) -> Type:
        return operand_type(operand, self.types, self.names)

    def step(self, ins: Instruction) -> Step:
        moved = {a.root: index for index, a in enumerate(ins.args) if isinstance(a, Place) and a.move}
        operands = [self.operand(a, isinstance(a, Place) and moved.get(a.root, -1) > index) for index, a in enumerate(ins.args)]
        first = self.type_of(ins.args[0]) if ins.args else None
        dest = self.slot_of[ins.dest] if ins.dest is not None else None
        is_call = ins.op in _CALLS
        detail = _DETAILS.get(ins.op)
        return Step(
            rule=self.rules[ins.op],
            ins=ins,
            origin=ins.origin,
            slots=tuple(o if isinstance(o, int) else o.into for o in operands),
            readers=tuple(o for o in operands if isinstance(o, PlaceReader)),
            dest=None if is_call else dest,
            result=dest if is_call else None,
            targets=tuple(self.positions[label] for label in ins.labels),
            unwind=tuple(self.slot_of[name] for name in ins.unwind),
            type=first,
            dest_type=self.types[ins.dest] if ins.dest is not None else None,
            fix=numbers.FIX.get(first, _unchanged),  # type: ignore[arg-type]
            is_float=first is not None and is_float(first),
            detail=detail(self, ins, first) if detail else None,
        )


def _unchanged(value: object) -> object:
    return value


def _order(fields: Sequence[str], wanted: Iterable[str]) -> tuple[int, ...]:
    """Return for each wanted field the position of its operand."""
    return tuple(fields.index(name) for name in wanted)


def _variant_of(names: Names, enum: str, variant: str) -> tuple[int, tuple[str, ...]]:
    """Return (tag, field names)."""
    definition = names.types[enum]
    assert isinstance(definition, EnumDef), enum
    tag = next(i for i, v in enumerate(definition.variants) if v.name == variant)
    return tag, tuple(f.name for f in definition.variants[tag].fields)


def _new_detail(d: _Decoder, ins: Instruction, _first: Type | None) -> object:
    definition = d.names.types[ins.name or ""]
    assert isinstance(definition, StructDef), ins.name
    return _order(ins.fields, [f.name for f in definition.fields])


def _variant_detail(d: _Decoder, ins: Instruction, _first: Type | None) -> object:
    enum, _, variant = (ins.name or "").rpartition(".")
    tag, fields = _variant_of(d.names, enum, variant)
    return enum, tag, _order(ins.fields, fields)


def _payload_detail(d: _Decoder, ins: Instruction, first: Type | None) -> object:
    assert isinstance(first, Named), first
    variant, _, name = (ins.name or "").partition(".")
    tag, fields = _variant_of(d.names, first.name, variant)
    return tag, fields.index(name)


def _field_detail(d: _Decoder, ins: Instruction, first: Type | None) -> object:
    assert first is not None
    return d.field_slot(first, ins.field)


def _switch_detail(d: _Decoder, ins: Instruction, _first: Type | None) -> object:
    return {case.value: d.positions[label] for case, label in zip(ins.cases, ins.labels)}


def _argument_types(d: _Decoder, ins: Instruction, _first: Type | None) -> object:
    return tuple(d.type_of(a) for a in ins.args)


def _amount(_d: _Decoder, ins: Instruction, _first: Type | None) -> object:
    return ins.attribute("amount")


def _local_slot(d: _Decoder, ins: Instruction, _first: Type | None) -> object:
    return d.slot_of[ins.name or ""]


_DETAILS: dict[str, Callable[[_Decoder, Instruction, Type | None], object]] = {
    "new": _new_detail, "variant": _variant_detail, "payload": _payload_detail, "get_field": _field_detail, "set_field": _field_detail,
    "switch": _switch_detail, "call": _argument_types, "invoke": _argument_types, "charge": _amount, "drop": _local_slot,
}  # fmt: skip
"""What `Step.detail` holds, by operation."""


# Zero values


@dataclass(slots=True)
class Budget:
    """The memory that a call may still take, in words of 8 bytes: an estimate of what a native heap would need."""

    words: int

    def take(self, words: int) -> None:
        """Raises: Trap out_of_memory. Call it before allocating."""
        self.words -= words
        if self.words < 0:
            raise bare_trap("out_of_memory")


_PLAIN_ZEROS: dict[Type, object] = {BOOL: False, CHAR: "\0", TEXT: "", UNIT: None}


def zero_value(t: Type, names: Names, take: Callable[[int], None] | None = None) -> object:
    """Return a new zero value of `t`.

    take: is told the words of each object beforehand and may raise; without it the default memory limit applies. Raises: Trap out_of_memory.
    """
    take = take or Budget(Limits().memory // 8).take
    structs: list[tuple[StructValue, StructDef]] = []
    zero = _zero(t, names, take, structs)
    while structs:
        value, definition = structs.pop()
        value.slots[:] = [_zero(f.type, names, take, structs) for f in definition.fields]
    return zero


def _zero(t: Type, names: Names, take: Callable[[int], None], structs: list[tuple[StructValue, StructDef]]) -> object:
    """Return a zero value whose structs still lack their slots: they are added to `structs`, for their types may be nested without bound."""
    match t:
        case Option():
            return None
        case Array():
            take(4)
            return ArrayValue([])
        case Dict():
            take(4)
            return DictValue({})
        case Tuple(elements):
            take(1 + len(elements))
            return tuple([_zero(e, names, take, structs) for e in elements])
        case FixedArray(element, length):
            take(4 + length)
            if not length:
                return ArrayValue([])
            if isinstance(element, (Array, Dict, Tuple, FixedArray, Named)):
                return ArrayValue([_zero(element, names, take, structs) for _ in range(length)])
            return ArrayValue([_zero(element, names, take, structs)] * length)
        case Named(name):
            definition = names.types[name]
            assert isinstance(definition, StructDef) and not definition.is_class, f"{name} has no zero value"
            take(1 + len(definition.fields))
            value = StructValue(name, [])
            structs.append((value, definition))
            return value
    if is_integer(t):
        return 0
    return 0.0 if is_float(t) else _PLAIN_ZEROS[t]


# The machine


@dataclass(slots=True)
class Frame:
    """An activation. `position` is the next step; `call` is the step of the caller that made it, None for the outermost."""

    steps: tuple[Step, ...]
    env: list[object]
    position: int
    call: Step | None


@dataclass(slots=True)
class Machine:
    """One outermost call: the frames, what is left of fuel and memory, and the latest throw."""

    program: InterpreterProgram
    fuel: int | None
    budget: Budget
    frames: list[Frame] = field(default_factory=list)
    frame: Frame | None = None
    value: object = None
    ticks: int = 0
    thrown_at: Origin | None = None
    passed: PassedCalls = field(default_factory=PassedCalls)
    is_outside: bool = False
    """Whether the host is running, so that an exception is its own."""

    def run(self, code: Code, args: Sequence[object]) -> object:
        """Return the function's result. Raises: Trap with its origin and frames, and whatever the host raises."""
        step: Step | None = None
        try:
            self.enter(code, args, None)
            while True:
                for _ in range(POLL_EVERY):
                    frame = self.frame
                    if frame is None:
                        return self.value
                    step = frame.steps[frame.position]
                    frame.position += 1
                    env, slots = frame.env, step.slots
                    if step.readers:
                        self.read_places(step.readers, env)
                    # Spelled out for few operands: the general call takes three times as long.
                    if len(slots) == 2:
                        value = step.rule(self, step, env[slots[0]], env[slots[1]])
                    elif len(slots) == 1:
                        value = step.rule(self, step, env[slots[0]])
                    elif not slots:
                        value = step.rule(self, step)
                    else:
                        value = step.rule(self, step, *[env[slot] for slot in slots])
                    if step.dest is not None:
                        env[step.dest] = value
                self.program.host.poll()
        except Trap as trap:
            if trap.origin is not None or self.is_outside:
                raise
            raise self.located(trap, step) from None
        except MemoryError:
            if self.is_outside:
                raise
            raise self.located(bare_trap("out_of_memory"), step) from None

    def located(self, trap: Trap, step: Step | None) -> Trap:
        """Return the trap with the origin of the step and the calls that lead to it."""
        passed = PassedCalls()
        for frame in reversed(self.frames):
            if frame.call is not None:
                passed.add(frame.call.origin)
        return Trap(trap.kind, trap.message, step.origin if step else None, passed.kept, passed.omitted, trap.payload)

    def tick(self) -> None:
        """Let the host stop an operation on large values; `run` does it for a program."""
        self.ticks += 1
        if self.ticks % POLL_EVERY == 0:
            self.program.host.poll()

    def take(self, words: int) -> None:
        """Account for new memory. Raises: Trap out_of_memory."""
        self.budget.take(words)

    def take_and_tick(self, words: int) -> None:
        self.budget.take(words)
        self.tick()

    # Operands

    def read_places(self, readers: tuple[PlaceReader, ...], env: list[object]) -> None:
        for reader in readers:
            env[reader.into] = self.read_place(reader, env)

    def read_place(self, reader: PlaceReader, env: list[object]) -> object:
        """Follow the hops through. Raises: Trap index_out_of_bounds, key_missing."""
        root = reader.root
        if isinstance(root, str):
            value = self.program.globals[root]
        else:
            value = env[root]
            if reader.move:
                env[root] = UNASSIGNED
        for slot, index in reader.hops:
            if slot is not None:
                value = field_of(value, slot)
                continue
            assert index is not None, "a hop is a field or an index"
            value = element_of(value, env[index] if isinstance(index, int) else self.read_place(index, env))
        return value

    # Control

    def jump(self, position: int) -> None:
        self.frame.position = position  # type: ignore[union-attr]

    def call(self, step: Step, name: str, args: Sequence[object]) -> None:
        """Call a function or an extern by name."""
        code = self.program.codes.get(name)
        if code is not None:
            self.enter(code, args, step)
        else:
            self.deliver(step, self.call_extern(step, self.program.externs[name], args))

    def enter(self, code: Code, args: Sequence[object], call: Step | None) -> None:
        """Make an activation. Raises: Trap stack_overflow."""
        if len(self.frames) >= self.program.host.limits.frames:
            raise bare_trap("stack_overflow")
        env = list(code.template)
        env[: len(args)] = args
        self.frame = Frame(code.steps, env, 0, call)
        self.frames.append(self.frame)

    def call_extern(self, step: Step, extern: Extern, args: Sequence[object]) -> object:
        """Let the host call; further arguments of a variadic extern travel with their static types."""
        declared = tuple(p.type for p in extern.params)
        types = declared if step.ins.op == "call_indirect" else (*declared, *step.detail[len(declared) :])
        self.is_outside = True
        value = self.program.host.call_extern(extern.name, args, types, extern.result, step.origin)
        self.is_outside = False
        return value

    def deliver(self, call: Step, value: object) -> None:
        """Give the result of a call to the frame on top; an invoke goes on at its first label."""
        frame = self.frame
        if call.result is not None:
            frame.env[call.result] = value  # type: ignore[union-attr]
        if call.targets:
            self.jump(call.targets[0])

    def leave(self) -> Frame:
        """End the activation on top and return it."""
        done = self.frames.pop()
        self.frame = self.frames[-1] if self.frames else None
        return done

    def unwind(self, payload: int, tag: int) -> None:
        """Leave activations up to the nearest one that an `invoke` made. Raises: Trap uncaught_throw."""
        while True:
            call = self.leave().call
            if call is None:
                trap = bare_trap("uncaught_throw", payload, tag)
                raise Trap(trap.kind, trap.message, self.thrown_at, self.passed.kept, self.passed.omitted, (payload, tag))
            self.passed.add(call.origin)
            if call.ins.op == "invoke":
                for slot, value in zip(call.unwind, (payload, tag)):
                    self.frame.env[slot] = value  # type: ignore[union-attr]
                self.jump(call.targets[1])
                return

    # Equality

    def is_equal(self, x: object, y: object) -> bool:
        """Compare by structure, classes by identity. Raises: Trap stack_overflow for values nested deeper than the frame limit, or in cycles."""
        if type(x) in SCALARS:
            return x == y
        todo: list[Iterator[tuple[object, object]]] = [iter(((x, y),))]
        while todo:
            self.tick()
            pair = next(todo[-1], None)
            if pair is None:
                todo.pop()
                continue
            a, b = pair
            if type(a) in SCALARS:
                if a != b:
                    return False
                continue
            parts = self.parts(a, b)
            if parts is None:
                return False
            if len(todo) >= self.program.host.limits.frames:
                raise bare_trap("stack_overflow")
            todo.append(iter(parts))
        return True

    def parts(self, x: object, y: object) -> Iterable[tuple[object, object]] | None:
        """Return the pairs that must be equal for two values of one type to be equal; None if these two differ already."""
        if isinstance(x, float):  # A number that carries more than its value (see `autograd/oracles.py`) compares by its value.
            return () if x == y else None
        if type(x) is not type(y):
            return None
        match x:
            case ArrayValue():
                return zip(x.items, y.items) if len(x.items) == len(y.items) else None  # type: ignore[attr-defined]
            case DictValue():
                items, others = x.items, y.items  # type: ignore[attr-defined]
                return ((value, others[key]) for key, value in items.items()) if items.keys() == others.keys() else None
            case StructValue() if not self.program.names.types[x.type_name].is_class:  # type: ignore[union-attr]
                return zip(x.slots, y.slots)  # type: ignore[attr-defined]
            case EnumValue():
                return zip(x.slots, y.slots) if x.tag == y.tag else None  # type: ignore[attr-defined]
            case SomeValue():
                return ((x.value, y.value),)  # type: ignore[attr-defined]
            case tuple():
                return zip(x, y)  # type: ignore[call-overload]
        return () if x is y else None


SCALARS = frozenset((int, float, bool, str, type(None)))
"""What numbers, bool, char, text, unit and nil are: values that Python compares as the language does."""


def field_of(value: object, slot: int) -> object:
    return value[slot] if isinstance(value, tuple) else value.slots[slot]  # type: ignore[attr-defined]


def element_of(value: object, index: object) -> object:
    """Return the element of an array, dict or text. Raises: Trap index_out_of_bounds, key_missing."""
    if isinstance(value, DictValue):
        if index not in value.items:
            raise bare_trap("key_missing")
        return value.items[index]
    items = value if isinstance(value, str) else value.items  # type: ignore[attr-defined]
    check_index(index, len(items))  # type: ignore[arg-type]
    return items[index]  # type: ignore[index]


def check_index(index: int, length: int) -> None:
    """Raises: Trap index_out_of_bounds unless 0 <= index < length."""
    if not 0 <= index < length:
        raise bare_trap("index_out_of_bounds", index, length)


def check_growable(array: ArrayValue) -> None:
    """Raises: Trap array_not_growable for an array whose elements belong to NumPy."""
    if not array.growable:
        raise bare_trap("array_not_growable")


def text_words(text: str) -> int:
    """Return the memory of a text, in words."""
    return 4 + len(text) // 8


# The rules. Constants and moves.


def run_const(m: Machine, s: Step, x: object) -> object:
    return x


def run_zero(m: Machine, s: Step) -> object:
    return zero_value(s.dest_type, m.program.names, m.take_and_tick) if s.dest_type is not None else None


def run_aggregate_copy(m: Machine, s: Step, x: object) -> object:
    match x:
        case StructValue():
            m.take(1 + len(x.slots))
            return StructValue(x.type_name, list(x.slots))
        case ArrayValue():
            m.take(4 + len(x.items))
            return ArrayValue(list(x.items))
        case DictValue():
            m.take(4 + 3 * len(x.items))
            return DictValue(dict(x.items))
    return x


def run_cast(m: Machine, s: Step, x: object) -> object:
    assert s.type is not None
    return numbers.cast(x, s.type, s.dest_type or s.type)


def run_bitcast(m: Machine, s: Step, x: object) -> object:
    assert s.type is not None
    return numbers.bitcast(x, s.type, s.dest_type or s.type)


def run_nothing(m: Machine, s: Step) -> None:
    """nop and debug_value."""


def run_drop(m: Machine, s: Step) -> None:
    m.frame.env[s.detail] = UNASSIGNED  # type: ignore[union-attr]


def run_select(m: Machine, s: Step, condition: bool, x: object, y: object) -> object:
    return x if condition else y


# Integers and floats: the exact result, or one rounded to f64, is brought into the type.


def run_add(m: Machine, s: Step, x: float, y: float) -> float:
    return s.fix(x + y)


def run_sub(m: Machine, s: Step, x: float, y: float) -> float:
    return s.fix(x - y)


def run_mul(m: Machine, s: Step, x: float, y: float) -> float:
    return s.fix(x * y)


def run_div(m: Machine, s: Step, x: float, y: float) -> float:
    return s.fix(numbers.float_div(x, y)) if s.is_float else numbers.int_div(s.type, x, y)  # type: ignore[arg-type]


def run_rem(m: Machine, s: Step, x: float, y: float) -> float:
    return numbers.float_rem(s.type, x, y) if s.is_float else numbers.int_rem(s.type, x, y)  # type: ignore[arg-type]


def run_pow(m: Machine, s: Step, x: float, y: float) -> float:
    return s.fix(numbers.libm("pow", x, y)) if s.is_float else numbers.int_pow(s.type, x, y)  # type: ignore[arg-type]


def run_neg(m: Machine, s: Step, x: float) -> float:
    return s.fix(-x)


def run_bit_and(m: Machine, s: Step, x: int, y: int) -> int:
    return x & y


def run_bit_or(m: Machine, s: Step, x: int, y: int) -> int:
    return x | y


def run_bit_xor(m: Machine, s: Step, x: int, y: int) -> int:
    return x ^ y


def run_bit_not(m: Machine, s: Step, x: int) -> int:
    return s.fix(~x)


def run_shl(m: Machine, s: Step, x: int, count: int) -> int:
    return numbers.shift_left(s.type, x, count)  # type: ignore[arg-type]


def run_shr(m: Machine, s: Step, x: int, count: int) -> int:
    return numbers.shift_right(s.type, x, count)  # type: ignore[arg-type]


def run_checked_add(m: Machine, s: Step, x: int, y: int) -> int:
    return numbers.checked(s.type, x + y)  # type: ignore[arg-type]


def run_checked_sub(m: Machine, s: Step, x: int, y: int) -> int:
    return numbers.checked(s.type, x - y)  # type: ignore[arg-type]


def run_checked_mul(m: Machine, s: Step, x: int, y: int) -> int:
    return numbers.checked(s.type, x * y)  # type: ignore[arg-type]


def run_checked_neg(m: Machine, s: Step, x: int) -> int:
    return numbers.checked(s.type, -x)  # type: ignore[arg-type]


# Float mathematics


def run_sqrt(m: Machine, s: Step, x: float) -> float:
    return s.fix(numbers.sqrt(x))


def run_exp(m: Machine, s: Step, x: float) -> float:
    return s.fix(numbers.libm("exp", x))


def run_log(m: Machine, s: Step, x: float) -> float:
    return s.fix(numbers.libm("log", x))


def run_sin(m: Machine, s: Step, x: float) -> float:
    return s.fix(numbers.libm("sin", x))


def run_cos(m: Machine, s: Step, x: float) -> float:
    return s.fix(numbers.libm("cos", x))


def run_tan(m: Machine, s: Step, x: float) -> float:
    return s.fix(numbers.libm("tan", x))


def run_tanh(m: Machine, s: Step, x: float) -> float:
    return s.fix(numbers.libm("tanh", x))


def run_abs(m: Machine, s: Step, x: float) -> float:
    return s.fix(abs(x))


def run_floor(m: Machine, s: Step, x: float) -> float:
    return numbers.floor(x)


def run_ceil(m: Machine, s: Step, x: float) -> float:
    return numbers.ceil(x)


def run_round(m: Machine, s: Step, x: float) -> float:
    return numbers.round_even(x)


def run_trunc(m: Machine, s: Step, x: float) -> float:
    return numbers.trunc(x)


def run_min(m: Machine, s: Step, x: float, y: float) -> float:
    return numbers.minimum(x, y) if s.is_float else min(x, y)


def run_max(m: Machine, s: Step, x: float, y: float) -> float:
    return numbers.maximum(x, y) if s.is_float else max(x, y)


def run_fma(m: Machine, s: Step, x: float, y: float, z: float) -> float:
    return numbers.fma(s.type, x, y, z)  # type: ignore[arg-type]


# Comparison and logic. Python compares text by code points and false with true as 0 with 1.


def run_eq(m: Machine, s: Step, x: object, y: object) -> bool:
    return m.is_equal(x, y)


def run_ne(m: Machine, s: Step, x: object, y: object) -> bool:
    return not m.is_equal(x, y)


def run_lt(m: Machine, s: Step, x: float, y: float) -> bool:
    return x < y


def run_le(m: Machine, s: Step, x: float, y: float) -> bool:
    return x <= y


def run_gt(m: Machine, s: Step, x: float, y: float) -> bool:
    return x > y


def run_ge(m: Machine, s: Step, x: float, y: float) -> bool:
    return x >= y


def run_and(m: Machine, s: Step, x: bool, y: bool) -> bool:
    return x and y


def run_or(m: Machine, s: Step, x: bool, y: bool) -> bool:
    return x or y


def run_not(m: Machine, s: Step, x: bool) -> bool:
    return not x


# Aggregates


def run_array(m: Machine, s: Step, *items: object) -> ArrayValue:
    m.take(4 + len(items))
    return ArrayValue(list(items))


def run_array_fill(m: Machine, s: Step, x: object, count: int) -> ArrayValue:
    if count < 0:
        raise bare_trap("index_out_of_bounds", count, 0)
    m.take(4 + count)
    return ArrayValue([x] * count)


def run_dict(m: Machine, s: Step) -> DictValue:
    m.take(4)
    return DictValue({})


def run_tuple(m: Machine, s: Step, *items: object) -> tuple:
    m.take(1 + len(items))
    return items


def run_new(m: Machine, s: Step, *given: object) -> StructValue:
    m.take(1 + len(given))
    return StructValue(s.ins.name or "", [given[i] for i in s.detail])


def run_variant(m: Machine, s: Step, *given: object) -> EnumValue:
    enum, tag, order = s.detail
    m.take(2 + len(given))
    return EnumValue(enum, tag, tuple([given[i] for i in order]))


def run_tag(m: Machine, s: Step, x: EnumValue) -> int:
    return x.tag


def run_payload(m: Machine, s: Step, x: EnumValue) -> object:
    tag, slot = s.detail
    if x.tag != tag:
        raise bare_trap("wrong_variant", x.tag, tag)
    return x.slots[slot]


def run_get_field(m: Machine, s: Step, x: object) -> object:
    return field_of(x, s.detail)


def run_set_field(m: Machine, s: Step, x: StructValue, value: object) -> None:
    x.slots[s.detail] = value


def run_index_get(m: Machine, s: Step, x: object, index: object) -> object:
    return element_of(x, index)


def run_index_set(m: Machine, s: Step, x: ArrayValue | DictValue, index: object, value: object) -> None:
    if isinstance(x, ArrayValue):
        check_index(index, len(x.items))  # type: ignore[arg-type]
    elif index not in x.items:
        m.take(3)
    x.items[index] = value  # type: ignore[call-overload]


def run_len(m: Machine, s: Step, x: object) -> int:
    return len(x) if isinstance(x, str) else len(x.items)  # type: ignore[attr-defined]


def run_push(m: Machine, s: Step, x: ArrayValue, value: object) -> None:
    check_growable(x)
    m.take(1)
    x.items.append(value)  # type: ignore[union-attr]


def run_pop(m: Machine, s: Step, x: ArrayValue) -> object:
    check_growable(x)
    check_index(-1 if not x.items else 0, len(x.items))
    m.take(-1)
    return x.items.pop()  # type: ignore[union-attr]


def run_insert(m: Machine, s: Step, x: ArrayValue, index: int, value: object) -> None:
    check_growable(x)
    if index != len(x.items):
        check_index(index, len(x.items))
    m.take(1)
    x.items.insert(index, value)  # type: ignore[union-attr]


def run_remove(m: Machine, s: Step, x: ArrayValue | DictValue, index: object) -> object:
    if isinstance(x, ArrayValue):
        check_growable(x)
    value = element_of(x, index)
    m.take(-1)
    del x.items[index]  # type: ignore[arg-type, union-attr]
    return value


def run_slice(m: Machine, s: Step, x: object, low: int, high: int) -> object:
    items = x if isinstance(x, str) else x.items  # type: ignore[attr-defined]
    if not 0 <= low <= high <= len(items):
        raise bare_trap("index_out_of_bounds", high if 0 <= low <= len(items) else low, len(items))
    if isinstance(items, str):
        m.take(4 + (high - low) // 8)
        return items[low:high]
    m.take(4 + high - low)
    return ArrayValue(list(items[low:high]))


def run_concat(m: Machine, s: Step, x: object, y: object) -> object:
    if isinstance(x, str) and isinstance(y, str):
        m.take(text_words(x) + len(y) // 8)
        return x + y
    m.take(4 + len(x.items) + len(y.items))  # type: ignore[attr-defined]
    return ArrayValue([*x.items, *y.items])  # type: ignore[attr-defined]


def run_contains(m: Machine, s: Step, x: object, wanted: object) -> bool:
    if isinstance(x, ArrayValue):
        for item in x.items:
            m.tick()
            if m.is_equal(item, wanted):
                return True
        return False
    return wanted in (x if isinstance(x, str) else x.items)  # type: ignore[attr-defined]


def run_keys(m: Machine, s: Step, x: DictValue) -> ArrayValue:
    m.take(4 + len(x.items))
    return ArrayValue(sorted(x.items))


def run_values(m: Machine, s: Step, x: DictValue) -> ArrayValue:
    m.take(4 + len(x.items))
    return ArrayValue([x.items[key] for key in sorted(x.items)])


def run_some(m: Machine, s: Step, x: object) -> SomeValue:
    m.take(2)
    return SomeValue(x)


def run_is_some(m: Machine, s: Step, x: SomeValue | None) -> bool:
    return x is not None


def run_unwrap(m: Machine, s: Step, x: SomeValue | None) -> object:
    if x is None:
        raise bare_trap("nil_unwrap")
    return x.value


# Text


def run_to_text(m: Machine, s: Step, x: object) -> str:
    text = numbers.value_text(x, s.type)  # type: ignore[arg-type]
    if s.type != TEXT:
        m.take(text_words(text))
    return text


def run_parse_int(m: Machine, s: Step, x: str) -> SomeValue | None:
    return numbers.parse_int_option(x)


def run_parse_float(m: Machine, s: Step, x: str) -> SomeValue | None:
    return numbers.parse_float_option(x)


# Calls


def run_call(m: Machine, s: Step, *args: object) -> None:
    """call and invoke."""
    m.call(s, s.ins.name or "", args)


def run_call_indirect(m: Machine, s: Step, function: FnValue, *args: object) -> None:
    m.call(s, function.name, (*function.bound, *args))


def run_closure(m: Machine, s: Step, *bound: object) -> FnValue:
    """func and closure."""
    m.take(2 + len(bound))
    return FnValue(s.ins.name or "", bound)


# Globals and pointers


def run_load_global(m: Machine, s: Step) -> object:
    return m.program.globals[s.ins.name or ""]


def run_store_global(m: Machine, s: Step, x: object) -> None:
    m.program.globals[s.ins.name or ""] = x


def run_alloc(m: Machine, s: Step, count: int) -> PtrValue:
    t = s.ins.type
    assert t is not None
    if count < 0:
        raise bare_trap("bad_pointer")
    m.take(5 + count)
    if isinstance(t, (Array, Dict, Tuple, FixedArray, Named)):
        return PtrValue([zero_value(t, m.program.names, m.take_and_tick) for _ in range(count)], 0)
    return PtrValue([zero_value(t, m.program.names)] * count, 0)


def check_pointer(p: PtrValue) -> None:
    """Raises: Trap bad_pointer."""
    if not 0 <= p.index < len(p.block):
        raise bare_trap("bad_pointer")


def run_load(m: Machine, s: Step, p: PtrValue) -> object:
    check_pointer(p)
    return p.block[p.index]


def run_store(m: Machine, s: Step, p: PtrValue, value: object) -> None:
    check_pointer(p)
    p.block[p.index] = value


def run_gep(m: Machine, s: Step, p: PtrValue, index: int) -> PtrValue:
    m.take(3)
    return PtrValue(p.block, numbers.wrap(I64, p.index + index))


def run_ref(m: Machine, s: Step, x: object) -> PtrValue:
    m.take(6)
    return PtrValue([x], 0)


# Effects


def run_print(m: Machine, s: Step, x: object) -> None:
    m.program.host.write(numbers.value_text(x, s.type) + "\n")  # type: ignore[arg-type]


def run_assert(m: Machine, s: Step, condition: bool) -> None:
    if not condition:
        raise bare_trap("assertion_failed", message=s.ins.message)


def run_charge(m: Machine, s: Step) -> None:
    if m.fuel is None:
        return
    if m.fuel < s.detail:
        raise bare_trap("out_of_fuel")
    m.fuel -= s.detail


# Terminators


def run_goto(m: Machine, s: Step) -> None:
    m.jump(s.targets[0])


def run_if(m: Machine, s: Step, condition: bool) -> None:
    m.jump(s.targets[0] if condition else s.targets[1])


def run_switch(m: Machine, s: Step, x: object) -> None:
    m.jump(s.detail.get(x, s.targets[-1]))


def run_ret(m: Machine, s: Step, value: object = None) -> None:
    call = m.leave().call
    if call is None:
        m.value = value
    else:
        m.deliver(call, value)


def run_unreachable(m: Machine, s: Step) -> None:
    raise bare_trap("unreachable")


def run_abort(m: Machine, s: Step) -> None:
    raise bare_trap("abort", message=s.ins.message)


def run_throw(m: Machine, s: Step, payload: int, tag: int) -> None:
    m.thrown_at, m.passed = s.origin, PassedCalls()
    m.unwind(payload, tag)


def run_resume(m: Machine, s: Step, payload: int, tag: int) -> None:
    """Keeps the origin of the latest throw and the calls it has passed; without one it is a throw."""
    if m.thrown_at is None:
        m.thrown_at = s.origin
    m.unwind(payload, tag)


run_rules: dict[str, Callable[..., object]] = {
    "const": run_const, "zero": run_zero, "copy": run_const, "aggregate_copy": run_aggregate_copy, "cast": run_cast, "bitcast": run_bitcast,
    "nop": run_nothing, "debug_value": run_nothing, "drop": run_drop, "select": run_select,
    "add": run_add, "sub": run_sub, "mul": run_mul, "div": run_div, "rem": run_rem, "pow": run_pow, "neg": run_neg,
    "bit_and": run_bit_and, "bit_or": run_bit_or, "bit_xor": run_bit_xor, "bit_not": run_bit_not, "shl": run_shl, "shr": run_shr,
    "checked_add": run_checked_add, "checked_sub": run_checked_sub, "checked_mul": run_checked_mul, "checked_neg": run_checked_neg,
    "sqrt": run_sqrt, "exp": run_exp, "log": run_log, "sin": run_sin, "cos": run_cos, "tan": run_tan, "tanh": run_tanh, "abs": run_abs,
    "floor": run_floor, "ceil": run_ceil, "round": run_round, "trunc": run_trunc, "min": run_min, "max": run_max, "fma": run_fma,
    "eq": run_eq, "ne": run_ne, "lt": run_lt, "le": run_le, "gt": run_gt, "ge": run_ge, "and": run_and, "or": run_or, "not": run_not,
    "array": run_array, "array_fill": run_array_fill, "dict": run_dict, "tuple": run_tuple, "new": run_new, "variant": run_variant,
    "tag": run_tag, "payload": run_payload, "get_field": run_get_field, "set_field": run_set_field, "index_get": run_index_get,
    "index_set": run_index_set, "len": run_len, "push": run_push, "pop": run_pop, "insert": run_insert, "remove": run_remove,
    "slice": run_slice, "concat": run_concat, "contains": run_contains, "keys": run_keys, "values": run_values,
    "some": run_some, "is_some": run_is_some, "unwrap": run_unwrap,
    "to_text": run_to_text, "parse_int": run_parse_int, "parse_float": run_parse_float,
    "call": run_call, "call_indirect": run_call_indirect, "func": run_closure, "closure": run_closure,
    "load_global": run_load_global, "store_global": run_store_global,
    "alloc": run_alloc, "load": run_load, "store": run_store, "gep": run_gep, "ref": run_ref,
    "print": run_print, "assert": run_assert, "charge": run_charge,
    "goto": run_goto, "if": run_if, "switch": run_switch, "ret": run_ret, "unreachable": run_unreachable, "abort": run_abort,
    "invoke": run_call, "throw": run_throw, "resume": run_resume,
}  # fmt: skip
"""The meaning of every operation that a program may hold before lowering."""


# The back end


@dataclass
class InterpreterProgram:
    """A decoded unit."""

    names: Names
    codes: dict[str, Code]
    externs: Mapping[str, Extern]
    globals: dict[str, object]
    host: Host

    def call(self, function: str, args: Sequence[object], fuel: int | None = None) -> object:
        assert function in self.codes, f"{function} is not in this unit, or the unit was closed"
        machine = Machine(self, fuel, Budget(self.host.limits.memory // 8))
        return machine.run(self.codes[function], args)

    def close(self) -> None:
        self.codes.clear()


class Interpreter:
    """The back end "interpreter". Its store of globals is a dict by name.

    rules: what to do for each operation, if not what it means: rules around `run_rules` that watch a program or carry more than its values.
    """

    name = "interpreter"

    def __init__(self, host: Host, rules: Mapping[str, Callable[..., object]] | None = None) -> None:
        self.host = host
        self.rules = run_rules if rules is None else rules
        self.globals: dict[str, object] = {}

    def compile(self, unit: Unit, level: int) -> Program:
        """Return the unit as a program; the level changes nothing. A global that nobody has written yet gets its initial value."""
        names = Names.of(unit.module)
        for g in unit.module.globals:
            if g.name not in self.globals:
                has_value = g.init is not None and g.init.bits is not None
                self.globals[g.name] = g.init.value if has_value else zero_value(g.type, names)  # type: ignore[union-attr]
        codes = {f.name: _Decoder(f, names, self.rules).code for f in unit.module.functions}
        return InterpreterProgram(names, codes, {e.name: e for e in unit.module.externs}, self.globals, self.host)

    def read_globals(self, types: Mapping[str, tuple[int, Type]], names: Names) -> dict[str, object]:
        return {name: self.globals[name] for name in types if name in self.globals}

    def write_globals(self, values: Mapping[str, object], types: Mapping[str, tuple[int, Type]], names: Names) -> None:
        kept = {name: self.globals[name] for name in types if name not in values}
        self.globals.clear()
        self.globals.update(kept)
        self.globals.update(values)

    def close(self) -> None:
        self.globals.clear()

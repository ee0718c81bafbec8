"""A small evaluator of lowered MIR over a bytearray: it runs the runtime's functions without a native back end.

Beside computing, it holds the runtime to its rules:
- a call that traps has changed nothing that was on the heap before it;
- memory is read as the same class (`alias`) as it was written since its allocation, so type-based alias information is true;
- accesses stay inside the memory and are aligned to their width;
- a call ends.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from simple_magic.backends.numbers import int_div, wrap
from simple_magic.mir.analysis import local_types
from simple_magic.mir.model import Const, Function, Instruction, Module, Operand
from simple_magic.mir.types import BOOL, CHAR, Type, bit_width, is_integer, is_signed
from simple_magic.runtime.layout import HEAP_LIMIT, HEAP_START, HEAP_TOP

MOST_BLOCKS = 200_000
"""Blocks that one call may run through."""
CLASSES = {"control": 1, "header": 2, "element": 3, "slot": 4}


class RawTrap(Exception):
    """A trap of lowered code: its kind and details."""

    def __init__(self, kind: str, *details: int) -> None:
        super().__init__(kind, *details)
        self.kind, self.details = kind, details


def shift(t: Type, count: int) -> int:
    return count % bit_width(t)


ARITHMETIC: dict[str, Callable[[Type, int, int], int]] = {
    "add": lambda t, x, y: x + y, "sub": lambda t, x, y: x - y, "mul": lambda t, x, y: x * y, "div": int_div,
    "bit_and": lambda t, x, y: x & y, "bit_or": lambda t, x, y: x | y, "bit_xor": lambda t, x, y: x ^ y,
    "shl": lambda t, x, y: x << shift(t, y), "shr": lambda t, x, y: x >> shift(t, y),
    "min": lambda t, x, y: min(x, y), "max": lambda t, x, y: max(x, y),
}  # fmt: skip
"""Of two integers of one type; the result is wrapped."""
COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


class Code:
    """The functions of a module, prepared for any number of machines."""

    def __init__(self, module: Module) -> None:
        self.functions = {f.name: f for f in module.functions}
        self.types = {f.name: local_types(f) for f in module.functions}
        self.blocks = {f.name: {block.label: block.instructions for block in f.blocks} for f in module.functions}


class Machine:
    """A heap of `size` bytes between HEAP_START and the limit, then `outside` bytes that no allocation reaches; and code to run."""

    def __init__(self, code: Code, size: int, outside: int = 4096) -> None:
        self.code = code
        self.memory = bytearray(HEAP_START + size + outside)
        self.memory[HEAP_START:] = b"\xa5" * (size + outside)
        self.classes = bytearray(len(self.memory))
        self.outside = HEAP_START + size
        self.polls_left: int | None = None
        self.blocks_left = 0
        self.set_word(HEAP_TOP, HEAP_START)
        self.set_word(HEAP_LIMIT, HEAP_START + size)

    def word(self, offset: int) -> int:
        return int.from_bytes(self.memory[offset : offset + 8], "little", signed=True)

    def set_word(self, offset: int, value: int) -> None:
        self.memory[offset : offset + 8] = value.to_bytes(8, "little", signed=True)

    @property
    def top(self) -> int:
        return self.word(HEAP_TOP)

    def call(self, name: str, *args: int) -> int:
        """Call a runtime function. Raises: RawTrap, with everything older than the call unchanged."""
        top = self.top
        self.blocks_left = MOST_BLOCKS
        before = bytes(self.memory[HEAP_START:top]), bytes(self.memory[self.outside :])
        try:
            result = self.run(self.code.functions["rt." + name], args)
        except RawTrap:
            assert before == (self.memory[HEAP_START:top], self.memory[self.outside :]), f"rt.{name} trapped after it had written"
            raise
        assert isinstance(result, int)
        return result

    def run(self, function: Function, args: tuple[int, ...]) -> int:
        types, blocks = self.code.types[function.name], self.code.blocks[function.name]
        assert len(args) == len(function.params), function.name
        env = {p.name: arg for p, arg in zip(function.params, args)}
        label = function.entry.label
        while True:
            self.blocks_left -= 1
            assert self.blocks_left > 0, f"{function.name} does not end"
            *body, end = blocks[label]
            for ins in body:
                value = RULES[ins.op](self, ins, [self.read(a, env) for a in ins.args], types)
                if ins.dest is not None:
                    assert value is not None, ins
                    env[ins.dest] = value
            values = [self.read(a, env) for a in end.args]
            if end.op == "ret":
                return values[0]
            label = JUMPS[end.op](end, values)

    def read(self, operand: Operand, env: dict[str, int]) -> int:
        return operand.value if isinstance(operand, Const) else env[operand.root]  # type: ignore[return-value]


def type_of(operand: Operand, types: dict[str, Type]) -> Type:
    t = operand.type if isinstance(operand, Const) else types[operand.root]
    assert t is not None
    return t


def arithmetic(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> int:
    t = type_of(ins.args[0], types)
    return wrap(t, ARITHMETIC[ins.op](t, *values))


def compare(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> int:
    return COMPARISONS[ins.op](*values)


def cast(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> int:
    t = types[ins.dest or ""]
    assert is_integer(t), ins
    return wrap(t, int(values[0]))


def access(m: Machine, ins: Instruction, base: int) -> tuple[int, int, int]:
    """Return (address, width, class) of a raw load or store, checked."""
    assert set(dict(ins.attributes)) == {"alias", "offset"}, ins
    address, memory_class = base + int(ins.attribute("offset")), CLASSES[str(ins.attribute("alias"))]  # type: ignore[call-overload]
    assert ins.type is not None
    width = 1 if ins.type == BOOL else bit_width(ins.type) // 8
    assert 0 <= address <= len(m.memory) - width and address % width == 0, (ins, address)
    assert (address < HEAP_START) == (memory_class == CLASSES["control"]), (ins, address)
    assert address < m.top or address >= m.outside or address < HEAP_START, f"beyond the heap top: {ins}"
    return address, width, memory_class


def raw_load(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> int:
    address, width, memory_class = access(m, ins, values[0])
    assert ins.type is not None and ins.type not in (BOOL, CHAR)
    assert set(m.classes[address : address + width]) <= {0, memory_class}, f"read as another class than written: {ins}"
    return int.from_bytes(m.memory[address : address + width], "little", signed=is_signed(ins.type))


def raw_store(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> None:
    address, width, memory_class = access(m, ins, values[0])
    assert type_of(ins.args[1], types) == ins.type
    if address == HEAP_TOP:
        low, high = sorted((m.top, values[1]))
        m.classes[low:high] = bytes(high - low)
    m.memory[address : address + width] = (values[1] % (1 << 8 * width)).to_bytes(width, "little")
    m.classes[address : address + width] = bytes([memory_class]) * width


def raw_copy(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> None:
    to, source, count = values
    assert count >= 0
    assert count == 0 or (min(to, source) >= HEAP_START and max(to, source) + count <= len(m.memory)), ins
    m.memory[to : to + count] = m.memory[source : source + count]
    m.classes[to : to + count] = m.classes[source : source + count]


def raw_fill(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> None:
    to, byte, count = values
    assert count == 0 or (count > 0 and to >= HEAP_START and to + count <= m.top), ins
    m.memory[to : to + count] = bytes([byte]) * count
    m.classes[to : to + count] = bytes(count)


def poll(m: Machine, ins: Instruction, values: list[int], types: dict[str, Type]) -> None:
    if m.polls_left is not None:
        if m.polls_left == 0:
            raise RawTrap("interrupted")
        m.polls_left -= 1


def trap(ins: Instruction, values: list[int]) -> str:
    raise RawTrap(str(ins.attribute("kind")), *values)


def switch(ins: Instruction, values: list[int]) -> str:
    return next((label for case, label in zip(ins.cases, ins.labels) if case.value == values[0]), ins.labels[-1])


JUMPS: dict[str, Callable[[Instruction, list[int]], str]] = {
    "goto": lambda ins, values: ins.labels[0],
    "if": lambda ins, values: ins.labels[0 if values[0] else 1],
    "switch": switch,
    "trap": trap,
}
RULES: dict[str, Callable[[Machine, Instruction, list[int], dict[str, Type]], int | None]] = {
    **dict.fromkeys(ARITHMETIC, arithmetic),
    **dict.fromkeys(COMPARISONS, compare),
    "neg": lambda m, ins, values, types: wrap(type_of(ins.args[0], types), -values[0]),
    "and": lambda m, ins, values, types: values[0] and values[1],
    "const": lambda m, ins, values, types: values[0],
    "copy": lambda m, ins, values, types: values[0],
    "select": lambda m, ins, values, types: values[1] if values[0] else values[2],
    "cast": cast,
    "call": lambda m, ins, values, types: m.run(m.code.functions[ins.name or ""], tuple(values)),
    "raw_load": raw_load, "raw_store": raw_store, "raw_copy": raw_copy, "raw_fill": raw_fill,
    "poll": poll,
}  # fmt: skip

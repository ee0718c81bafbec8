"""Lowering of control flow and calls: functions, externs, function values, output and texts of numbers.

An extern gets its arguments in a block of 8-byte words on the heap and leaves its result in the word behind them. Without a result, the block, and a
text made only to be printed, are given back if the host left nothing on the heap meanwhile: a loop that prints needs no memory. (A block with a
result is read after the host was there. Were it given back, that read could be moved behind a write of another class of memory in a new object.)

Function values are called through a table of thunks, `thunk$f$k(function value, arguments...)`, which load k captured values and call f.
"""

from __future__ import annotations

from ..mir.model import Instruction, Operand, Place
from ..mir.types import BOOL, CHAR, F64, I64, NEVER, TEXT, U64, UNIT, Fn, Option, Type, is_float
from ..runtime.layout import FN_INDEX, FN_SLOTS, FUEL, HEAP_TOP, KIND_FN, WORD, machine_type
from .lower_builder import CONTROL, FALSE, HEADER, SLOT, ZERO, Builder, Rule, Typed, word

THUNK = "thunk$"
"""How the names of thunks begin. The call inside a thunk is no call of the program: back ends add no frame for it."""
PRINT, FLOAT_TEXT, PARSE_FLOAT = "rt_print", "rt_float_text", "rt_parse_float"
"""Host calls that every program may make without declaring an extern."""


# Control flow


def goto(b: Builder, ins: Instruction) -> None:
    b.goto(ins.labels[0])


def if_(b: Builder, ins: Instruction) -> None:
    b.branch(b.operand(ins.args[0]), *ins.labels)


def switch(b: Builder, ins: Instruction) -> None:
    b.do("switch", b.operand(ins.args[0]), labels=ins.labels, cases=ins.cases)


def ret(b: Builder, ins: Instruction) -> None:
    b.do("ret", b.operand(ins.args[0]) if ins.args else FALSE)


def unreachable(b: Builder, ins: Instruction) -> None:
    b.trap("unreachable")


def abort(b: Builder, ins: Instruction) -> None:
    b.trap("abort", message=ins.message)


def throw(b: Builder, ins: Instruction) -> None:
    """throw and resume."""
    b.do(ins.op, *(value for value, _ in b.operands(ins)))


def assert_(b: Builder, ins: Instruction) -> None:
    b.check(b.operand(ins.args[0]), "assertion_failed", message=ins.message)


def charge(b: Builder, ins: Instruction) -> None:
    """Pay fuel, or trap and leave the rest unspent."""
    amount = word(int(ins.attribute("amount", 0)))  # type: ignore[call-overload]
    fuel = b.control(FUEL)
    b.check(b.get(BOOL, "ge", fuel, amount), "out_of_fuel")
    b.store(I64, ZERO, b.get(I64, "sub", fuel, amount), FUEL, CONTROL)


# Calls


def host_call(b: Builder, name: str, args: list[Typed], result: Type, mark: Operand | None = None) -> Operand:
    """Let the host execute `name`; return its result. `mark`: a heap top above which only the arguments lie."""
    mark = mark or b.control(HEAP_TOP)
    block = b.allocate(WORD * (len(args) + 1))
    for index, (value, t) in enumerate(args):
        b.store(I64, block, b.to_word(value, t), WORD * index, SLOT)
    before = b.control(HEAP_TOP)
    b.do("host_call", block, attributes=(("site", b.unit.host_site(name, tuple(t for _, t in args), result, b.origin)),))
    if result not in (UNIT, NEVER):
        return b.load(machine_type(result), block, WORD * len(args), SLOT)
    after = b.control(HEAP_TOP)
    b.store(I64, ZERO, b.get(I64, "select", b.get(BOOL, "eq", before, after), mark, after), HEAP_TOP, CONTROL)
    return FALSE


def call_by_name(b: Builder, name: str, args: list[Typed]) -> Operand:
    """Call a function or an extern."""
    extern = b.unit.names.externs.get(name)
    if extern is not None:
        return host_call(b, name, args, extern.result)
    result = b.unit.names.functions[name].result
    return b.get(machine_type(result), "call", *(value for value, _ in args), name=name)


def call(b: Builder, ins: Instruction) -> Operand | None:
    return call_by_name(b, ins.name or "", b.operands(ins))


def invoke(b: Builder, ins: Instruction) -> None:
    """An extern cannot throw, so its invoke is a call that goes on at the first label."""
    args = b.operands(ins)
    if ins.name not in b.unit.names.externs:
        b.do("invoke", *(value for value, _ in args), dest=ins.dest, name=ins.name, labels=ins.labels, unwind=ins.unwind)
        return
    result = call_by_name(b, ins.name or "", args)
    if ins.dest is not None:
        b.assign(ins.dest, result)
    b.goto(ins.labels[0])


def call_indirect(b: Builder, ins: Instruction) -> Operand | None:
    (target, t), *args = b.operands(ins)
    assert isinstance(t, Fn)
    index = b.load(I64, target, FN_INDEX, HEADER)
    machine = Fn((I64, *(machine_type(p) for p in t.params)), machine_type(t.result))
    return b.get(machine.result, "call_table", index, target, *(value for value, _ in args), type=machine)


def function_value(b: Builder, ins: Instruction) -> Operand | None:
    """func and closure."""
    captured = b.operands(ins)
    index = b.unit.table_index(ins.name or "", len(captured), b.origin)
    return b.object(KIND_FN, (word(index),), captured)


def thunk_body(b: Builder, function: str, types: tuple[Type, ...], captured: int, params: tuple[Place, ...]) -> None:
    """Load the captured values from the first parameter, call with them and the others, return the result."""
    env, *rest = params
    args: list[Typed] = [(b.load(machine_type(t), env, FN_SLOTS + WORD * i, SLOT), t) for i, t in enumerate(types[:captured])]
    args += zip(rest, types[captured:])
    b.do("ret", call_by_name(b, function, args))


# Output and texts of numbers


def text_of(b: Builder, value: Operand, t: Type) -> Operand:
    """Return the text of a number, bool, char or text."""
    if t == TEXT:
        return value
    if is_float(t):
        return host_call(b, FLOAT_TEXT, [(value, t)], TEXT)
    name = {BOOL: "bool", CHAR: "char", U64: "u64"}.get(t, "i64")  # type: ignore[arg-type]
    return b.runtime(f"text_from_{name}", b.to_word(value, t))


def print_(b: Builder, ins: Instruction) -> None:
    """In a function of its own, since a program that prints often should not be twenty times as long."""
    value, t = b.typed(ins.args[0])
    b.get(BOOL, "call", value, name=b.unit.synthesize("_print", t, (machine_type(t),), machine_type(UNIT), b.origin, _print_body))


def _print_body(b: Builder, t: Type, params: tuple[Place, ...]) -> None:
    (value,) = params
    mark = b.control(HEAP_TOP)
    b.do("ret", host_call(b, PRINT, [(text_of(b, value, t), TEXT)], UNIT, mark))


def to_text(b: Builder, ins: Instruction) -> Operand | None:
    return text_of(b, *b.typed(ins.args[0]))


def parse_int(b: Builder, ins: Instruction) -> Operand | None:
    return b.runtime("parse_int", b.operand(ins.args[0]))


def parse_float(b: Builder, ins: Instruction) -> Operand | None:
    return host_call(b, PARSE_FLOAT, [b.typed(ins.args[0])], Option(F64))


CALL_RULES: dict[str, Rule] = {
    "goto": goto, "if": if_, "switch": switch, "ret": ret, "unreachable": unreachable, "abort": abort, "throw": throw, "resume": throw,
    "assert": assert_, "charge": charge,
    "call": call, "invoke": invoke, "call_indirect": call_indirect, "func": function_value, "closure": function_value,
    "print": print_, "to_text": to_text, "parse_int": parse_int, "parse_float": parse_float,
}  # fmt: skip

"""One rule per core operation: how it is printed as LLVM IR; and whole functions and modules.

`rule(f, ins)` appends lines to the `FunctionEmitter` and returns the LLVM operand that `dest` becomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..mir.analysis import callees, reverse_postorder, writes
from ..mir.model import Function, Instruction, Module, Operand, encode_bits
from ..mir.types import BOOL, F64, FLOATS, Fn, Type, bit_width, is_float, is_signed
from ..passes.lower_calls import THUNK
from ..runtime.layout import FRAME_COUNT, NO_SITE, STACK_LIMIT, THROW_PAYLOAD, THROW_TAG, TRAP_A, TRAP_B, TRAP_SITE, WORD, site_of_caller
from .llvm_emit import (
    ATTRIBUTES, LIKELY, LLVM_TYPES, METADATA, TBAA, UNLIKELY, Callee, FunctionEmitter, Surroundings, UnitEmitter, function_at, literal, result_type, zero_of,
)  # fmt: skip
from .native import THROWN, is_helper
from .traps import SiteTable, status_of_kind

Rule: TypeAlias = Callable[[FunctionEmitter, Instruction], "str | None"]

# Arithmetic


def _number(f: FunctionEmitter, ins: Instruction, for_integers: str, for_floats: str) -> str:
    """A binary operation of LLVM on the type of the first operand; `{sign}` becomes s or u."""
    t = f.type_of(ins.args[0])
    op = for_floats if is_float(t) else for_integers.replace("{sign}", "s" if is_signed(t) else "u")
    return f.define(f"{op} {f.typed(ins.args[0])}, {f.value(ins.args[1])}")


def binary(for_integers: str, for_floats: str = "") -> Rule:
    return lambda f, ins: _number(f, ins, for_integers, for_floats)


def negate(f: FunctionEmitter, ins: Instruction) -> str:
    x = f.typed(ins.args[0])
    if is_float(f.type_of(ins.args[0])):
        return f.define(f"fneg {x}")
    kind, _, value = x.partition(" ")
    return f.define(f"sub {kind} 0, {value}")


def invert(f: FunctionEmitter, ins: Instruction) -> str:
    return f.define(f"xor {f.typed(ins.args[0])}, {'true' if f.type_of(ins.args[0]) == BOOL else '-1'}")


def shift(left: bool) -> Rule:
    def rule(f: FunctionEmitter, ins: Instruction) -> str:
        t = f.type_of(ins.args[0])
        kind, mask = LLVM_TYPES[t], bit_width(t) - 1
        count = f.define(f"and {f.typed(ins.args[1])}, {mask}")
        return f.define(f"{'shl' if left else 'ashr' if is_signed(t) else 'lshr'} {kind} {f.value(ins.args[0])}, {count}")

    return rule


def _intrinsic(f: FunctionEmitter, name: str, operands: tuple[Operand, ...], extra: str = "") -> str:
    """Call `llvm.name.type` on operands of one type."""
    t = LLVM_TYPES[f.type_of(operands[0])]
    suffix = {"double": "f64", "float": "f32"}.get(t, t)
    symbol = f.unit.intrinsic(f"llvm.{name}.{suffix}", t, *[t] * len(operands), *(["i1"] if extra else []))
    return f.define(f"call {t} {symbol}({', '.join(f.typed(a) for a in operands)}{extra})")


def intrinsic(name: str) -> Rule:
    return lambda f, ins: _intrinsic(f, name, ins.args)


def absolute(f: FunctionEmitter, ins: Instruction) -> str:
    t = f.type_of(ins.args[0])
    if is_float(t):
        return _intrinsic(f, "fabs", ins.args)
    return _intrinsic(f, "abs", ins.args, ", i1 false") if is_signed(t) else f.value(ins.args[0])


def extreme(name: str) -> Rule:
    def rule(f: FunctionEmitter, ins: Instruction) -> str:
        t = f.type_of(ins.args[0])
        return _intrinsic(f, f"{name}imum" if is_float(t) else f"{'s' if is_signed(t) else 'u'}{name}", ins.args)

    return rule


def _libm(f: FunctionEmitter, name: str, t: str, operands: list[str]) -> str:
    """Call a function of the C library by address, so that no optimiser takes it for one it knows."""
    return f.define(f"call {t} {function_at(f.unit.surroundings.libm[name])}({', '.join(f'{t} {o}' for o in operands)}) #1")


def opaque(f: FunctionEmitter, ins: Instruction) -> str:
    """A function of the C library on f64; f32 goes there and back, rounded once."""
    values = [f.value(a) for a in ins.args]
    if f.type_of(ins.args[0]) == F64:
        return _libm(f, ins.op, "double", values)
    wide = [f.define(f"fpext float {v} to double") for v in values]
    return f.define(f"fptrunc double {_libm(f, ins.op, 'double', wide)} to float")


def fused(f: FunctionEmitter, ins: Instruction) -> str:
    if f.unit.surroundings.fma_is_native:
        return _intrinsic(f, "fma", ins.args)
    name, t = ("fma", "double") if f.type_of(ins.args[0]) == F64 else ("fmaf", "float")
    return _libm(f, name, t, [f.value(a) for a in ins.args])


def compare(for_integers: str, for_floats: str) -> Rule:
    return lambda f, ins: _number(f, ins, f"icmp {for_integers}", f"fcmp {for_floats}")


# Conversions


def cast(f: FunctionEmitter, ins: Instruction) -> str:
    """Lowering has checked the range of floats; the saturating conversions make sure that nothing is ever undefined."""
    source, target = f.type_of(ins.args[0]), f.types[ins.dest or ""]
    x, kind = f.typed(ins.args[0]), LLVM_TYPES[target]
    value = x.partition(" ")[2]
    if source in FLOATS and target in FLOATS:
        return value if source == target else f.define(f"{'fpext' if target == F64 else 'fptrunc'} {x} to {kind}")
    if source in FLOATS:
        sign = "s" if is_signed(target) else "u"
        name = f"llvm.fpto{sign}i.sat.{kind}.{'f64' if source == F64 else 'f32'}"
        return f.define(f"call {kind} {f.unit.intrinsic(name, kind, LLVM_TYPES[source])}({x})")
    if target in FLOATS:
        return f.define(f"{'si' if is_signed(source) else 'ui'}tofp {x} to {kind}")
    have, want = bit_width(source), bit_width(target)
    if have == want:
        return value
    return f.define(f"{'trunc' if want < have else 'sext' if is_signed(source) else 'zext'} {x} to {kind}")


def raw_bitcast(f: FunctionEmitter, ins: Instruction) -> str:
    source, target = LLVM_TYPES[f.type_of(ins.args[0])], LLVM_TYPES[f.types[ins.dest or ""]]
    value = f.value(ins.args[0])
    return value if source == target else f.define(f"bitcast {source} {value} to {target}")


def bitcast(f: FunctionEmitter, ins: Instruction) -> str:
    """As `raw_bitcast`, but a NaN becomes the canonical one: chosen among integers, since to an optimiser every float NaN is as good as another."""
    source, target = f.type_of(ins.args[0]), LLVM_TYPES[f.types[ins.dest or ""]]
    bits = raw_bitcast(f, ins)
    if not is_float(source) or is_float(f.types[ins.dest or ""]):
        return bits
    is_nan = f.define(f"fcmp uno {f.typed(ins.args[0])}, {f.value(ins.args[0])}")
    return f.define(f"select i1 {is_nan}, {target} {encode_bits(source, math.nan)}, {target} {bits}")


def same(f: FunctionEmitter, ins: Instruction) -> str:
    return f.value(ins.args[0])


def nothing(_f: FunctionEmitter, _ins: Instruction) -> None:
    return None


def select(f: FunctionEmitter, ins: Instruction) -> str:
    return f.define(f"select {', '.join(f.typed(a) for a in ins.args)}")


# Memory


def _memory_type(t: Type) -> str:
    return "i8" if t == BOOL else LLVM_TYPES[t]


def _access(t: Type, ins: Instruction) -> str:
    """Return alignment and alias class; elements may lie in a lent buffer, which need not be aligned."""
    alias = ins.attribute("alias")
    align = 1 if t == BOOL or alias == "element" else bit_width(t) // 8
    return f", align {align}" + (f", !tbaa {TBAA[alias]}" if alias in TBAA else "")  # type: ignore[index]


def raw_load(f: FunctionEmitter, ins: Instruction) -> str:
    """A bool is a byte; any byte but 0 is true, so that a lent buffer can hold no third truth value."""
    t = ins.type
    assert t is not None
    address = f.address(ins.args[0], int(ins.attribute("offset", 0)))  # type: ignore[call-overload]
    value = f.define(f"load {_memory_type(t)}, ptr {address}{_access(t, ins)}")
    return f.define(f"icmp ne i8 {value}, 0") if t == BOOL else value


def raw_store(f: FunctionEmitter, ins: Instruction) -> None:
    t = ins.type
    assert t is not None
    value = f.value(ins.args[1])
    if t == BOOL:
        value = f.define(f"zext i1 {value} to i8")
    address = f.address(ins.args[0], int(ins.attribute("offset", 0)))  # type: ignore[call-overload]
    f.line(f"store {_memory_type(t)} {value}, ptr {address}{_access(t, ins)}")


def raw_copy(f: FunctionEmitter, ins: Instruction) -> None:
    to, source = f.address(ins.args[0]), f.address(ins.args[1])
    symbol = f.unit.intrinsic("llvm.memmove.p0.p0.i64", "void", "ptr", "ptr", "i64", "i1")
    f.line(f"call void {symbol}(ptr {to}, ptr {source}, {f.typed(ins.args[2])}, i1 false)")


def raw_fill(f: FunctionEmitter, ins: Instruction) -> None:
    to = f.address(ins.args[0])
    symbol = f.unit.intrinsic("llvm.memset.p0.i64", "void", "ptr", "i8", "i64", "i1")
    f.line(f"call void {symbol}(ptr {to}, {f.typed(ins.args[1])}, {f.typed(ins.args[2])}, i1 false)")


# Control flow


def goto(f: FunctionEmitter, ins: Instruction) -> None:
    f.line(f"br {f.label(ins.labels[0])}")


def if_(f: FunctionEmitter, ins: Instruction) -> None:
    then, otherwise = ins.labels
    weights = LIKELY if otherwise in f.cold and then not in f.cold else UNLIKELY if then in f.cold and otherwise not in f.cold else ""
    f.line(f"br {f.typed(ins.args[0])}, {f.label(then)}, {f.label(otherwise)}{weights}")


def switch(f: FunctionEmitter, ins: Instruction) -> None:
    t = LLVM_TYPES[f.type_of(ins.args[0])]
    cases = " ".join(f"{t} {literal(case)}, {f.label(label)}" for case, label in zip(ins.cases, ins.labels))
    f.line(f"switch {f.typed(ins.args[0])}, {f.label(ins.labels[-1])} [ {cases} ]")


def ret(f: FunctionEmitter, ins: Instruction) -> None:
    t = LLVM_TYPES[f.self.result]
    value = f.value(ins.args[0]) if ins.args else zero_of(f.self.result)
    if f.self.traps:
        value = f.define(f"insertvalue {{ {t}, i32 }} zeroinitializer, {t} {value}, 0")
    f.line(f"ret {result_type(f.self)} {value}")


def trap(f: FunctionEmitter, ins: Instruction) -> None:
    kind = str(ins.attribute("kind"))
    for offset, operand in zip((TRAP_A, TRAP_B), ins.args):
        f.store_control(offset, f.value(operand))
    f.note_site(f.site(ins, kind))
    f.return_status(status_of_kind(kind))


def _throw(f: FunctionEmitter, ins: Instruction) -> None:
    for offset, operand in zip((THROW_PAYLOAD, THROW_TAG), ins.args):
        f.store_control(offset, f.value(operand))


def throw(f: FunctionEmitter, ins: Instruction) -> None:
    _throw(f, ins)
    f.note_site(f.site(ins))
    f.return_status(THROWN)


def resume(f: FunctionEmitter, ins: Instruction) -> None:
    """Throw on: where it began and what it passed stay as they are. Where nothing was thrown in this call, it is a throw."""
    _throw(f, ins)
    site, count = f.load_control(TRAP_SITE), f.load_control(FRAME_COUNT)
    is_first = f.define(f"icmp eq i64 {site}, {NO_SITE}")
    f.store_control(TRAP_SITE, f.define(f"select i1 {is_first}, i64 {f.site(ins)}, i64 {site}"))
    f.store_control(FRAME_COUNT, f.define(f"select i1 {is_first}, i64 0, i64 {count}"))
    f.return_status(THROWN)


# Calls


def call(f: FunctionEmitter, ins: Instruction) -> str:
    callee = f.unit.callee(ins.name or "")
    value, status = f.call(callee, ins)
    if status is not None:
        f.on_failure(status, lambda: f.pass_on(callee, ins, status))
    return value


def invoke(f: FunctionEmitter, ins: Instruction) -> None:
    """The result exists on the edge to the first label, payload and tag on the edge to the second."""
    callee = f.unit.callee(ins.name or "")
    value, status = f.call(callee, ins)
    returned, thrown, failed = f.new_label(), f.new_label(), f.new_label()
    f.line(f"switch i32 {status or 0}, label %{failed} [ i32 0, label %{returned} i32 {THROWN}, label %{thrown} ]")
    f.start(failed)
    if status is not None:
        f.pass_on(callee, ins, status)
    else:
        f.line(f"br label %{returned}")
    f.start(thrown)
    if not f.function.name.startswith(THUNK):
        f.push_frame(f.site(ins))
    for name, offset in zip(ins.unwind, (THROW_PAYLOAD, THROW_TAG)):
        f.assign(name, f.load_control(offset))
    f.line(f"br {f.label(ins.labels[1])}")
    f.start(returned)
    if ins.dest is not None:
        f.assign(ins.dest, value)
    f.line(f"br {f.label(ins.labels[0])}")


def call_table(f: FunctionEmitter, ins: Instruction) -> str:
    """Every function of the table returns a status."""
    t = ins.type
    assert isinstance(t, Fn)
    entry = f.define(f"getelementptr ptr, ptr @table, i64 {f.value(ins.args[0])}")
    pointer = f.define(f"load ptr, ptr {entry}, align {WORD}")
    arguments = ", ".join(f.typed(a) for a in ins.args[1:])
    value, status = f.split(t.result, f.define(f"call {{ {LLVM_TYPES[t.result]}, i32 }} {pointer}({arguments})"))
    f.on_failure(status, lambda: f.pass_on(None, ins, status))
    return value


def host_call(f: FunctionEmitter, ins: Instruction) -> None:
    number = f.unit.host_numbers[int(ins.attribute("site"))]  # type: ignore[call-overload]
    arguments = f"i64 {number}, {f.typed(ins.args[0])}, i64 {f.site(ins)}"
    status = f.define(f"call i32 {function_at(f.unit.surroundings.host)}({arguments})")
    f.on_failure(status, lambda: f.return_status(status))


def poll(f: FunctionEmitter, ins: Instruction) -> None:
    good, asked = f.new_label(), f.new_label()
    flag = f.define(f"load volatile i64, ptr {function_at(f.unit.surroundings.flag)}, align 8")
    f.line(f"br i1 {f.define(f'icmp eq i64 {flag}, 0')}, label %{good}, label %{asked}{LIKELY}")
    f.start(asked)
    status = f.define(f"call i32 {function_at(f.unit.surroundings.poll)}(i64 {f.site(ins)}) #2")
    f.on_failure(status, lambda: f.return_status(status))
    f.line(f"br label %{good}")
    f.start(good)


def stack_check(f: FunctionEmitter, ins: Instruction) -> None:
    good, bad = f.new_label(), f.new_label()
    frame = f.define(f"call ptr {f.unit.intrinsic('llvm.frameaddress.p0', 'ptr', 'i32 immarg')}(i32 0)")
    here = f.define(f"ptrtoint ptr {frame} to i64")
    low = f.define(f"sub i64 {here}, {int(ins.attribute('frame', 0))}")  # type: ignore[call-overload]
    fits = f.define(f"icmp uge i64 {low}, {f.load_control(STACK_LIMIT)}")
    f.line(f"br i1 {fits}, label %{good}, label %{bad}{LIKELY}")
    f.start(bad)
    f.note_site(site_of_caller(f.site(ins, "stack_overflow")))
    f.return_status(status_of_kind("stack_overflow"))
    f.start(good)


llvm_rules: dict[str, Rule] = {
    "const": same, "copy": same, "nop": nothing, "cast": cast, "bitcast": bitcast, "raw_bitcast": raw_bitcast, "select": select,
    "add": binary("add", "fadd"), "sub": binary("sub", "fsub"), "mul": binary("mul", "fmul"), "div": binary("{sign}div", "fdiv"),
    "rem": binary("{sign}rem"), "pow": opaque, "neg": negate, "shl": shift(True), "shr": shift(False),
    "bit_and": binary("and"), "bit_or": binary("or"), "bit_xor": binary("xor"), "bit_not": invert,
    "and": binary("and"), "or": binary("or"), "not": invert,
    **dict.fromkeys(("exp", "log", "sin", "cos", "tan", "tanh"), opaque),
    "sqrt": intrinsic("sqrt"), "abs": absolute, "floor": intrinsic("floor"), "ceil": intrinsic("ceil"), "round": intrinsic("roundeven"),
    "trunc": intrinsic("trunc"), "min": extreme("min"), "max": extreme("max"), "fma": fused,
    "eq": compare("eq", "oeq"), "ne": compare("ne", "une"), "lt": compare("{sign}lt", "olt"), "le": compare("{sign}le", "ole"),
    "gt": compare("{sign}gt", "ogt"), "ge": compare("{sign}ge", "oge"),
    "goto": goto, "if": if_, "switch": switch, "ret": ret, "trap": trap, "throw": throw, "resume": resume,
    "call": call, "invoke": invoke, "call_table": call_table, "host_call": host_call, "poll": poll, "stack_check": stack_check,
    "raw_load": raw_load, "raw_store": raw_store, "raw_copy": raw_copy, "raw_fill": raw_fill,
}  # fmt: skip


@dataclass(frozen=True)
class UnitText:
    """An emitted module. symbols: the LLVM name of each function."""

    text: str
    symbols: dict[str, str]


def emit_function(unit: UnitEmitter, function: Function, linkage: str, attributes: str = "#0") -> list[str]:
    """Return the lines of a function."""
    f = FunctionEmitter(unit, function)
    blocks = {block.label: block for block in function.blocks}
    assigned: dict[str, int] = {}
    for block in function.blocks:
        for ins in block.instructions:
            for name in writes(ins):
                assigned[name] = assigned.get(name, 0) + 1
    parameters = {p.name: f"%p{index}" for index, p in enumerate(function.params)}
    heading = ", ".join(f"{LLVM_TYPES[p.type]} %p{index}" for index, p in enumerate(function.params))
    f.lines.append(f"define {linkage}{result_type(f.self)} {f.self.symbol}({heading}) {attributes} {{")
    f.start("start")
    for name, count in assigned.items():
        if count > (name not in parameters):
            f.slots[name] = f"%s{len(f.slots)}"
            f.line(f"{f.slots[name]} = alloca {LLVM_TYPES[f.types[name]]}")
    for name, value in parameters.items():
        f.assign(name, value)
    f.line(f"br {f.label(function.entry.label)}")
    for label in reverse_postorder(function):
        f.start(f.labels[label])
        for ins in blocks[label].instructions:
            result = llvm_rules[ins.op](f, ins)
            if ins.dest is not None and result is not None:
                f.assign(ins.dest, result)
    f.lines.append("}")
    return f.lines


BRANCHING = frozenset(("call", "call_table", "host_call", "invoke", "poll", "stack_check"))
"""Operations that become several blocks."""


def emitted_size(function: Function) -> tuple[int, int]:
    """Return (blocks, instructions) of a lowered function, with the blocks that calls end."""
    sizes = [(sum(ins.op in BRANCHING for ins in block.instructions), len(block.instructions)) for block in function.blocks]
    return len(sizes) + 2 * sum(calls for calls, _ in sizes), sum(count for _, count in sizes)


def emit_unit(module: Module, traps: frozenset[str], surroundings: Surroundings, sites: SiteTable, *, entries: frozenset[str],
              table: tuple[str, ...] = (), host_numbers: tuple[int, ...] = ()) -> UnitText:  # fmt: skip
    """Return a lowered module as LLVM IR.

    traps: the functions that return a status. entries: the functions with an address; any other is internal, and unless it is a thunk, its traps are
    its caller's. table: the functions behind function values, which all return a status. host_numbers: by `site` of `host_call`.
    """
    own = {}
    for index, function in enumerate(module.functions):
        name = function.name
        own[name] = Callee(f"@f{index}", tuple(p.type for p in function.params), function.result, name in traps or name in table, is_helper(name, entries))
    unit = UnitEmitter(surroundings, sites, own, host_numbers)
    lines: list[str] = []
    for function in module.functions:
        # The equality of deeply nested types is a chain of functions with a loop each: as one function they would take minutes to optimise.
        is_link = own[function.name].is_helper and any(own[name].is_helper for name in callees(function) if name in own)
        lines += emit_function(unit, function, "" if function.name in entries else "internal ", "#3" if is_link else "#0")
    parts = [surroundings.header]
    parts.append(f"@table = internal constant [{len(table)} x ptr] [{', '.join(f'ptr {own[name].symbol}' for name in table)}]")
    parts += [*unit.declarations.values(), *lines, ATTRIBUTES + METADATA]
    return UnitText("\n".join(parts), {name: callee.symbol[1:] for name, callee in own.items()})

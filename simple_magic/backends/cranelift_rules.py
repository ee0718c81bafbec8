"""One rule per core operation: its WebAssembly instructions; and whole functions.

`rule(f, ins)` appends to the `FunctionEmitter`; unless it gives no value, it leaves the value of `dest` on the stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ..mir.diagnostics import printable
from ..mir.model import Const, Function, Instruction, Module, encode_bits
from ..mir.types import BOOL, CHAR, F32, F64, FLOATS, I8, I16, I32, I64, U8, U16, U32, U64, Fn, Type, bit_width, is_float, is_signed
from ..passes.lower_calls import THUNK
from ..runtime.layout import FLAG, MOST_POLL_SAVED, NO_SITE, POLL_SAVED, THROW_PAYLOAD, THROW_TAG, TRAP_A, TRAP_B, TRAP_SITE, WORD, site_of_caller
from . import wasm
from .cranelift_emit import Callee, FunctionEmitter, UnitEmitter, wasm_type
from .native import PUSH_FRAME, THROWN, is_helper, runtime_callees
from .traps import SiteTable, status_of_kind
from .wasm_control import reducible, structured

Rule: TypeAlias = Callable[[FunctionEmitter, Instruction], None]

# Arithmetic


def _number(f: FunctionEmitter, ins: Instruction, for_integers: str, for_floats: str = "") -> Type:
    """A binary instruction on the type of the first operand; `{sign}` becomes s or u. Return that type."""
    t = f.type_of(ins.args[0])
    f.push_all(ins.args[:2])
    f.emit(f"{wasm_type(t)}.{for_floats if is_float(t) else for_integers.replace('{sign}', 's' if is_signed(t) else 'u')}")
    return t


def wrapping(for_integers: str, for_floats: str = "") -> Rule:
    """A binary operation whose result may need more bits than its type has."""

    def rule(f: FunctionEmitter, ins: Instruction) -> None:
        t = _number(f, ins, for_integers, for_floats)
        if not is_float(t):
            f.normalise(t)

    return rule


def binary(for_integers: str, for_floats: str = "") -> Rule:
    return lambda f, ins: void(_number(f, ins, for_integers, for_floats))


def void(_value: object) -> None:
    """Forget a value."""


def negate(f: FunctionEmitter, ins: Instruction) -> None:
    t = f.type_of(ins.args[0])
    if is_float(t):
        return unary("neg")(f, ins)
    f.push_zero(t)
    f.push(ins.args[0])
    f.emit(f"{wasm_type(t)}.sub")
    f.normalise(t)


def invert(f: FunctionEmitter, ins: Instruction) -> None:
    t = f.type_of(ins.args[0])
    f.push(ins.args[0])
    if t == BOOL:
        return f.emit("i32.eqz")
    f.emit(f"{wasm_type(t)}.const", -1)
    f.emit(f"{wasm_type(t)}.xor")
    f.normalise(t)


def shift(left: bool) -> Rule:
    def rule(f: FunctionEmitter, ins: Instruction) -> None:
        t = f.type_of(ins.args[0])
        kind = wasm_type(t)
        f.push_all(ins.args)
        if bit_width(t) < 32:  # wider ones are masked by the instruction
            f.emit("i32.const", bit_width(t) - 1)
            f.emit("i32.and")
        f.emit(f"{kind}.{'shl' if left else 'shr_s' if is_signed(t) else 'shr_u'}")
        if left:
            f.normalise(t)

    return rule


def unary(name: str) -> Rule:
    def rule(f: FunctionEmitter, ins: Instruction) -> None:
        f.push(ins.args[0])
        f.emit(f"{wasm_type(f.type_of(ins.args[0]))}.{name}")

    return rule


def absolute(f: FunctionEmitter, ins: Instruction) -> None:
    t = f.type_of(ins.args[0])
    if is_float(t):
        return unary("abs")(f, ins)
    f.push(ins.args[0])
    if not is_signed(t):
        return None
    negate(f, ins)
    f.push(ins.args[0])
    f.push_zero(t)
    f.emit(f"{wasm_type(t)}.ge_s")
    return f.emit("select")


def extreme(name: str) -> Rule:
    def rule(f: FunctionEmitter, ins: Instruction) -> None:
        t = f.type_of(ins.args[0])
        if is_float(t):
            return void(_number(f, ins, "", name))
        f.push_all(ins.args)
        _number(f, ins, ("lt" if name == "min" else "gt") + "_{sign}")
        return f.emit("select")

    return rule


def opaque(f: FunctionEmitter, ins: Instruction) -> None:
    """A function of the C library on f64; f32 goes there and back, rounded once."""
    is_half = f.type_of(ins.args[0]) == F32
    for operand in ins.args:
        f.push(operand)
        if is_half:
            f.emit("f64.promote_f32")
    f.emit("call", f.unit.host[ins.op])
    if is_half:
        f.emit("f32.demote_f64")


def fused(f: FunctionEmitter, ins: Instruction) -> None:
    f.push_all(ins.args)
    f.emit("call", f.unit.host["fma" if f.type_of(ins.args[0]) == F64 else "fmaf"])


# Conversions


def cast(f: FunctionEmitter, ins: Instruction) -> None:
    """Lowering has checked the range of floats; the saturating conversions make sure that nothing ever traps."""
    source, target = f.type_of(ins.args[0]), f.types[ins.dest or ""]
    have, want = wasm_type(source), wasm_type(target)
    f.push(ins.args[0])
    if source in FLOATS and target in FLOATS:
        if source != target:
            f.emit("f64.promote_f32" if target == F64 else "f32.demote_f64")
    elif source in FLOATS:
        f.emit(f"{want}.trunc_sat_{have}_{'s' if is_signed(target) else 'u'}")
        f.normalise(target)
    elif target in FLOATS:
        f.emit(f"{want}.convert_{have}_{'s' if is_signed(source) else 'u'}")
    elif have == want:
        f.normalise(target)
    elif want == wasm.I64:
        f.emit(f"i64.extend_i32_{'s' if is_signed(source) else 'u'}")
    else:
        f.emit("i32.wrap_i64")
        f.normalise(target)


def _reinterpret(f: FunctionEmitter, source: str, target: str) -> None:
    if source != target:
        f.emit(f"{target}.reinterpret_{source}")


def raw_bitcast(f: FunctionEmitter, ins: Instruction) -> None:
    f.push(ins.args[0])
    _reinterpret(f, wasm_type(f.type_of(ins.args[0])), wasm_type(f.types[ins.dest or ""]))
    f.normalise(f.types[ins.dest or ""])


def bitcast(f: FunctionEmitter, ins: Instruction) -> None:
    """As `raw_bitcast`, but a NaN becomes the canonical one first."""
    source = f.type_of(ins.args[0])
    f.push(ins.args[0])
    if is_float(source):
        f.push_const(Const(source, encode_bits(source, math.nan)))
        f.push_all((ins.args[0], ins.args[0]))
        f.emit(f"{wasm_type(source)}.eq")
        f.emit("select")
    _reinterpret(f, wasm_type(source), wasm_type(f.types[ins.dest or ""]))
    f.normalise(f.types[ins.dest or ""])


def same(f: FunctionEmitter, ins: Instruction) -> None:
    f.push(ins.args[0])


def nothing(_f: FunctionEmitter, _ins: Instruction) -> None:
    """No instruction."""


def select(f: FunctionEmitter, ins: Instruction) -> None:
    condition, then, otherwise = ins.args
    f.push_all((then, otherwise, condition))
    f.emit("select")


# Memory

_LOADS: dict[Type, str] = {
    I8: "i32.load8_s", U8: "i32.load8_u", BOOL: "i32.load8_u", I16: "i32.load16_s", U16: "i32.load16_u", I32: "i32.load", U32: "i32.load",
    CHAR: "i32.load", I64: "i64.load", U64: "i64.load", F32: "f32.load", F64: "f64.load",
}  # fmt: skip


def _offset(ins: Instruction) -> int:
    return int(ins.attribute("offset", 0))  # type: ignore[call-overload]


def raw_load(f: FunctionEmitter, ins: Instruction) -> None:
    """A bool is a byte; any byte but 0 is true, so that a lent buffer can hold no third truth value."""
    assert ins.type is not None
    offset = f.push_address(ins.args[0], _offset(ins))
    f.emit(_LOADS[ins.type], offset)
    if ins.type == BOOL:
        f.emit("i32.const", 0)
        f.emit("i32.ne")


def raw_store(f: FunctionEmitter, ins: Instruction) -> None:
    assert ins.type is not None
    offset = f.push_address(ins.args[0], _offset(ins))
    f.push(ins.args[1])
    f.emit(_LOADS[ins.type].removesuffix("_s").removesuffix("_u").replace("load", "store"), offset)


def _push_offset(f: FunctionEmitter, ins: Instruction, index: int) -> None:
    f.push(ins.args[index])
    f.emit("i32.wrap_i64")


def raw_copy(f: FunctionEmitter, ins: Instruction) -> None:
    for index in range(3):
        _push_offset(f, ins, index)
    f.emit("memory.copy")


def raw_fill(f: FunctionEmitter, ins: Instruction) -> None:
    _push_offset(f, ins, 0)
    f.push(ins.args[1])
    _push_offset(f, ins, 2)
    f.emit("memory.fill")


# Control flow


def goto(f: FunctionEmitter, ins: Instruction) -> None:
    f.branch(ins.labels[0])


def if_(f: FunctionEmitter, ins: Instruction) -> None:
    f.push(ins.args[0])
    f.emit("br_if", f.depth_of(ins.labels[0]))
    f.branch(ins.labels[1])


LONGEST_TABLE = 4_096


def switch(f: FunctionEmitter, ins: Instruction) -> None:
    """A jump table where the cases lie close together, else one comparison after the other."""
    t = f.type_of(ins.args[0])
    kind = wasm_type(t)
    *targets, otherwise = ins.labels
    depths = {int(c.value if not isinstance(c.value, str) else c.bits): f.depth_of(label)  # type: ignore[arg-type, call-overload]
              for c, label in reversed(list(zip(ins.cases, targets)))}  # fmt: skip
    if len(depths) > 2 and min(depths) >= 0 and max(depths) < min(LONGEST_TABLE, 4 * len(depths)):
        if kind == wasm.I64:
            f.push(ins.args[0])
            f.emit("i64.const", max(depths))
            f.emit("i64.gt_u")
            f.emit("br_if", f.depth_of(otherwise))
        f.push(ins.args[0])
        if kind == wasm.I64:
            f.emit("i32.wrap_i64")
        f.emit("br_table", tuple(depths.get(number, f.depth_of(otherwise)) for number in range(max(depths) + 1)), f.depth_of(otherwise))
        return
    for case, label in zip(ins.cases, targets):
        f.push(ins.args[0])
        f.push_const(case)
        f.emit(f"{kind}.eq")
        f.emit("br_if", f.depth_of(label))
    f.branch(otherwise)


def ret(f: FunctionEmitter, ins: Instruction) -> None:
    f.give_back_stack()
    if ins.args:
        f.push(ins.args[0])
    else:
        f.push_zero(f.self.result)
    if f.self.traps:
        f.emit("i32.const", 0)
    f.emit("return")


def trap(f: FunctionEmitter, ins: Instruction) -> None:
    kind = str(ins.attribute("kind"))
    _store_operands(f, ins, (TRAP_A, TRAP_B))
    f.note_site(f.site(ins, kind))
    f.return_status(lambda: f.emit("i32.const", status_of_kind(kind)))


def _store_operands(f: FunctionEmitter, ins: Instruction, offsets: tuple[int, ...]) -> None:
    for offset, operand in zip(offsets, ins.args):
        f.store_control(offset, lambda operand=operand: f.push(operand))  # type: ignore[misc]


def _push_thrown(f: FunctionEmitter) -> None:
    f.emit("i32.const", THROWN)


def throw(f: FunctionEmitter, ins: Instruction) -> None:
    _store_operands(f, ins, (THROW_PAYLOAD, THROW_TAG))
    f.note_site(f.site(ins))
    f.return_status(lambda: _push_thrown(f))


def resume(f: FunctionEmitter, ins: Instruction) -> None:
    """Throw on: where it began and what it passed stay as they are. Where nothing was thrown in this call, it is a throw."""
    _store_operands(f, ins, (THROW_PAYLOAD, THROW_TAG))
    f.load_control(TRAP_SITE)
    f.emit("i64.const", NO_SITE)
    f.emit("i64.eq")
    f.open("if")
    f.note_site(f.site(ins))
    f.close()
    f.return_status(lambda: _push_thrown(f))


# Calls


def call(f: FunctionEmitter, ins: Instruction) -> None:
    """The value waits on the stack below the status."""
    callee = f.unit.callees[ins.name or ""]
    f.push_all(ins.args)
    f.emit("call", callee.index)
    if callee.traps:
        f.on_failure(lambda status: f.pass_on(callee, ins, status))


def invoke(f: FunctionEmitter, ins: Instruction) -> None:
    """The result exists on the edge to the first label, payload and tag on the edge to the second."""
    callee = f.unit.callees[ins.name or ""]
    returned, thrown = ins.labels
    f.push_all(ins.args)
    f.emit("call", callee.index)
    value = f.scratch("value", wasm_type(callee.result))
    if not callee.traps:
        f.emit("i32.const", 0)
    status = f.scratch("status", wasm.I32)
    f.emit("local.set", status)
    f.emit("local.set", value)
    f.emit("local.get", status)
    f.emit("i32.eqz")
    f.open("if")
    if ins.dest is not None:
        f.emit("local.get", value)
        f.pop(ins.dest)
    f.branch(returned)
    f.close()
    if not callee.traps:
        f.emit("unreachable")
        return
    f.emit("local.get", status)
    _push_thrown(f)
    f.emit("i32.eq")
    f.open("if")
    if not f.function.name.startswith(THUNK):
        f.push_frame(f.site(ins))
    for name, offset in zip(ins.unwind, (THROW_PAYLOAD, THROW_TAG)):
        f.load_control(offset)
        f.pop(name)
    f.branch(thrown)
    f.close()
    f.pass_on(callee, ins, status)


def call_table(f: FunctionEmitter, ins: Instruction) -> None:
    """Every function of the table returns a status."""
    t = ins.type
    assert isinstance(t, Fn)
    f.push_all(ins.args[1:])
    f.push(ins.args[0])
    f.emit("i32.wrap_i64")
    f.emit("call_indirect", Callee(0, tuple(f.type_of(a) for a in ins.args[1:]), t.result, True, False).type)
    f.on_failure(lambda status: f.pass_on(None, ins, status))


def host_call(f: FunctionEmitter, ins: Instruction) -> None:
    f.emit("i64.const", f.unit.host_numbers[int(ins.attribute("site"))])  # type: ignore[call-overload]
    f.push(ins.args[0])
    f.emit("i64.const", f.site(ins))
    f.emit("call", f.unit.host["host"])
    f.on_failure(lambda status: f.return_status(lambda: f.emit("local.get", status)))


def poll(f: FunctionEmitter, ins: Instruction) -> None:
    """The flag is read atomically, since other threads write it: no optimiser may keep an old value.

    What the loop still needs is in memory during the call: the register allocator would give a value that lives across a call, however rare, a place
    in memory for all of its life.
    """
    f.emit("i32.const", 0)
    f.emit("i64.atomic.load", FLAG)
    f.emit("i64.eqz")
    f.emit("i32.eqz")
    f.open("if")
    live = [(POLL_SAVED + WORD * index, f.locals[name], wasm_type(f.types[name])) for index, name in enumerate(f.live_polls[f.position][:MOST_POLL_SAVED])]
    for offset, number, kind in live:
        f.emit("i32.const", 0)
        f.emit("local.get", number)
        f.emit(f"{kind}.store", offset)
    f.emit("i64.const", f.site(ins))
    f.emit("call", f.unit.host["poll"])
    f.on_failure(lambda status: f.return_status(lambda: f.emit("local.get", status)))
    for offset, number, kind in live:
        f.emit("i32.const", 0)
        f.emit(f"{kind}.load", offset)
        f.emit("local.set", number)
    f.close()


def stack_check(f: FunctionEmitter, ins: Instruction) -> None:
    f.take_stack(site_of_caller(f.site(ins, "stack_overflow")), int(ins.attribute("frame", 0)))  # type: ignore[call-overload]


cranelift_rules: dict[str, Rule] = {
    "const": same, "copy": same, "nop": nothing, "cast": cast, "bitcast": bitcast, "raw_bitcast": raw_bitcast, "select": select,
    "add": wrapping("add", "add"), "sub": wrapping("sub", "sub"), "mul": wrapping("mul", "mul"), "div": binary("div_{sign}", "div"),
    "rem": binary("rem_{sign}"), "pow": opaque, "neg": negate, "shl": shift(True), "shr": shift(False),
    "bit_and": binary("and"), "bit_or": binary("or"), "bit_xor": binary("xor"), "bit_not": invert,
    "and": binary("and"), "or": binary("or"), "not": invert,
    **dict.fromkeys(("exp", "log", "sin", "cos", "tan", "tanh"), opaque),
    "sqrt": unary("sqrt"), "abs": absolute, "floor": unary("floor"), "ceil": unary("ceil"), "round": unary("nearest"),
    "trunc": unary("trunc"), "min": extreme("min"), "max": extreme("max"), "fma": fused,
    "eq": binary("eq", "eq"), "ne": binary("ne", "ne"), "lt": binary("lt_{sign}", "lt"), "le": binary("le_{sign}", "le"),
    "gt": binary("gt_{sign}", "gt"), "ge": binary("ge_{sign}", "ge"),
    "goto": goto, "if": if_, "switch": switch, "ret": ret, "trap": trap, "throw": throw, "resume": resume,
    "call": call, "invoke": invoke, "call_table": call_table, "host_call": host_call, "poll": poll, "stack_check": stack_check,
    "raw_load": raw_load, "raw_store": raw_store, "raw_copy": raw_copy, "raw_fill": raw_fill,
}  # fmt: skip

VALUELESS = frozenset((
    "nop", "goto", "if", "switch", "ret", "trap", "throw", "resume", "invoke", "host_call", "poll", "stack_check", "raw_store", "raw_copy", "raw_fill",
))  # fmt: skip
"""The operations whose rule leaves nothing on the stack."""

_D, _F = wasm.F64, wasm.F32
HOST_TYPES: dict[str, wasm.FuncType] = {
    "poll": wasm.FuncType((wasm.I64,), (wasm.I32,)),
    "host": wasm.FuncType((wasm.I64,) * 3, (wasm.I32,)),
    **{name: wasm.FuncType((_D,), (_D,)) for name in ("exp", "log", "sin", "cos", "tan", "tanh")},
    "pow": wasm.FuncType((_D, _D), (_D,)),
    "fma": wasm.FuncType((_D, _D, _D), (_D,)),
    "fmaf": wasm.FuncType((_F, _F, _F), (_F,)),
}
"""The functions of the host: (site) and (number, block, site) give a status, the rest are libm's."""


def emit_function(unit: UnitEmitter, function: Function, export: str | None) -> wasm.Function:
    """Return a lowered function as WebAssembly."""
    f = FunctionEmitter(unit, reducible(function))
    blocks = {block.label: block for block in f.function.blocks}
    for step in structured(f.function):
        if f.step(step):
            continue
        for index, ins in enumerate(blocks[step.label].instructions):
            f.position = step.label, index
            cranelift_rules[ins.op](f, ins)
            if ins.op not in VALUELESS:
                f.pop(ins.dest)
    f.emit("unreachable")
    return wasm.Function(f.self.type, tuple(f.local_types), tuple(f.code), export, printable(function.name))


def host_functions(module: Module) -> list[str]:
    """Return the functions of the host that a lowered module calls, in the order of HOST_TYPES."""
    used: set[str] = set()
    for function in module.functions:
        for block in function.blocks:
            for ins in block.instructions:
                if ins.op == "fma":
                    used |= {"fma", "fmaf"}
                used.add({"host_call": "host"}.get(ins.op, ins.op))
    return [name for name in HOST_TYPES if name in used]


def emit_unit(module: Module, traps: frozenset[str], runtime: Mapping[str, tuple[Function, bool]], sites: SiteTable, intern_text: Callable[[str], int],
              pages: int, *, entries: frozenset[str], table: tuple[str, ...] = (), host_numbers: tuple[int, ...] = (),
              by_name: bool = False) -> wasm.Module:  # fmt: skip
    """Return a lowered module as WebAssembly.

    traps: the functions that return a status. runtime: the runtime's functions, and whether they return one; those needed are imported by name.
    entries: the functions to be exported, under their number or, if `by_name`, under their name; any other is internal, and unless it is a thunk, its
    traps are its caller's. table: the functions behind function values, which all return a status. host_numbers: by `site` of `host_call`.
    """
    used = host_functions(module)
    own = {f.name for f in module.functions}
    needed = sorted(({PUSH_FRAME} | runtime_callees(module.functions)) - own)
    callees: dict[str, Callee] = {}
    for function, has_status in (runtime[name] for name in needed):
        callees[function.name] = Callee(len(used) + len(callees), tuple(p.type for p in function.params), function.result, has_status, True)
    imports = [wasm.Import("host", name, HOST_TYPES[name]) for name in used]
    imports += [wasm.Import("runtime", name, callees[name].type) for name in needed]
    for index, function in enumerate(module.functions, len(imports)):
        name = function.name
        callees[name] = Callee(index, tuple(p.type for p in function.params), function.result, name in traps or name in table, is_helper(name, entries))
    unit = UnitEmitter(callees, {name: index for index, name in enumerate(used)}, sites, host_numbers, intern_text)
    functions = []
    for index, function in enumerate(module.functions):
        export = function.name if by_name else f"f{index}"
        functions.append(emit_function(unit, function, export if function.name in entries else None))
    return wasm.Module(tuple(imports), tuple(functions), pages, tuple(callees[name].index for name in table))

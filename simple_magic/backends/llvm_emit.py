"""LLVM IR text from lowered MIR.

`emit_unit` prints one module. `llvm_rules` has one function per core operation: `rule(f, ins)` appends lines to the `FunctionEmitter` and returns the
LLVM operand that `dest` becomes. The protocol between functions (statuses, sites, frames) is described in `traps.py` and `llvm.py`.

Invariants:
- nothing a user wrote reaches LLVM: functions are @f0, @f1 ..., values %v0 ..., blocks b0 ...; texts become heap offsets before;
- no undefined behaviour: no nsw, nuw, exact, inbounds or fast-math flags; shift counts are masked; conversions saturate (lowering has checked);
- a local that is assigned once is an LLVM value, since its definition dominates every read; any other local is a stack slot. Blocks are printed in
  reverse postorder, so a definition stands before its uses;
- the heap is reached through one base pointer, `getelementptr i8, base, offset`: address arithmetic stays visible to the optimiser, and wraps;
- every access carries the class of its memory (`alias`) as type-based alias information; without a class it may overlap everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ..mir.analysis import local_types, reverse_postorder, writes
from ..mir.model import NAN_BITS, Const, Function, Instruction, Module, Operand, Place
from ..mir.types import BOOL, CHAR, F32, F64, FLOATS, I64, NUMBERS, TEXT, Fn, Type, bit_width, is_float, is_integer, is_signed
from ..runtime.layout import FRAME_COUNT, NO_SITE, STACK_LIMIT, THROW_PAYLOAD, THROW_TAG, TRAP_A, TRAP_B, TRAP_SITE, WORD
from .traps import SiteTable, status_of_kind

THUNK = "thunk$"
"""Lowering's prefix for the functions behind function values."""
RUNTIME = "rt."
"""The prefix of the runtime's functions."""
PUSH_FRAME = "rt.push_frame"
THROWN = status_of_kind("uncaught_throw")

LLVM_TYPES: dict[Type, str] = {t: f"i{bit_width(t)}" for t in NUMBERS if is_integer(t)} | {BOOL: "i1", CHAR: "i32", F32: "float", F64: "double"}

TBAA = {"control": "!5", "header": "!6", "element": "!7", "slot": "!8"}
LIKELY, UNLIKELY = ", !prof !9", ", !prof !10"
METADATA = """\
!0 = !{!"heap"}
!1 = !{!"control", !0, i64 0}
!2 = !{!"header", !0, i64 0}
!3 = !{!"element", !0, i64 0}
!4 = !{!"slot", !0, i64 0}
!5 = !{!1, !1, i64 0}
!6 = !{!2, !2, i64 0}
!7 = !{!3, !3, i64 0}
!8 = !{!4, !4, i64 0}
!9 = !{!"branch_weights", i32 1048575, i32 1}
!10 = !{!"branch_weights", i32 1, i32 1048575}
"""
ATTRIBUTES = """\
attributes #0 = { nounwind }
attributes #1 = { nounwind willreturn memory(none) }
attributes #2 = { nounwind cold }
"""


@dataclass(frozen=True, slots=True)
class Callee:
    """A function that code can call. traps: it returns a status beside its value. is_helper: what it traps with is the fault of its caller."""

    symbol: str
    params: tuple[Type, ...]
    result: Type
    traps: bool
    is_helper: bool


@dataclass(frozen=True)
class Surroundings:
    """What the code of one back end is made for: the heap, the flag word, and the functions at fixed addresses.

    poll: `i32 (i64 site)`, host: `i32 (i64 number, i64 block, i64 site)`; both give a status and have noted the site if it is not 0.
    runtime: functions of the runtime that exist. libm: addresses by opcode. fma_is_native: the processor has it.
    """

    header: str
    heap_base: int
    flag: int
    poll: int
    host: int
    runtime: Mapping[str, Callee]
    libm: Mapping[str, int]
    fma_is_native: bool
    intern_text: Callable[[str], int]


@dataclass(frozen=True)
class UnitText:
    """An emitted module. symbols: the LLVM name of each function."""

    text: str
    symbols: dict[str, str]


def function_at(address: int) -> str:
    """Return the LLVM operand of the function at an address."""
    return f"inttoptr (i64 {address} to ptr)"


def literal(value: Const) -> str:
    """Return a scalar constant, or nil, as an LLVM operand."""
    bits, t = value.bits, value.type
    if bits is None:
        return "0"
    assert isinstance(bits, int) and t is not None
    if t == BOOL:
        return "true" if bits else "false"
    if t == F64:
        return f"0x{bits:016X}"
    if t == F32:
        return f"0x{_f64_bits(bits):016X}"
    return str(value.value if is_integer(t) else bits)


def _f64_bits(bits: int) -> int:
    """Return the f64 pattern of an f32 pattern: how LLVM spells an f32."""
    sign, exponent, mantissa = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:
        exponent = 0x7FF
    elif exponent:
        exponent += 1023 - 127
    elif mantissa:
        shift = 24 - mantissa.bit_length()
        mantissa, exponent = mantissa << shift & 0x7FFFFF, 1023 - 126 - shift
    return sign << 63 | exponent << 52 | mantissa << 29


def zero_of(t: Type) -> str:
    return "false" if t == BOOL else "0.0" if is_float(t) else "0"


def result_type(callee: Callee) -> str:
    t = LLVM_TYPES[callee.result]
    return f"{{ {t}, i32 }}" if callee.traps else t


@dataclass
class UnitEmitter:
    """One module in the making. `own` are its functions; sites are numbered in `sites`, host calls are known to the back end by `host_numbers`."""

    surroundings: Surroundings
    sites: SiteTable
    own: dict[str, Callee]
    host_numbers: tuple[int, ...] = ()
    declarations: dict[str, str] = field(default_factory=dict)

    def callee(self, name: str) -> Callee:
        return self.own.get(name) or self.surroundings.runtime[name]

    def intrinsic(self, name: str, result: str, *params: str) -> str:
        """Return the symbol of an LLVM intrinsic, which gets a declaration."""
        self.declarations[name] = f"declare {result} @{name}({', '.join(params)})"
        return f"@{name}"


class FunctionEmitter:
    """One function in the making."""

    def __init__(self, unit: UnitEmitter, function: Function) -> None:
        self.unit = unit
        self.function = function
        self.self = unit.own[function.name]
        self.types = local_types(function)
        self.lines: list[str] = []
        self.values: dict[str, str] = {}
        self.slots: dict[str, str] = {}
        self.labels = {block.label: f"b{index}" for index, block in enumerate(function.blocks)}
        self.cold = {b.label for b in function.blocks if b.instructions[0].op == "trap"}
        self._count = 0

    # Names and lines

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def define(self, text: str) -> str:
        """Append the computation of a new value; return its name."""
        name = f"%v{self._count}"
        self._count += 1
        self.lines.append(f"  {name} = {text}")
        return name

    def new_label(self) -> str:
        self._count += 1
        return f"x{self._count}"

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")

    def label(self, name: str) -> str:
        return "label %" + self.labels[name]

    # Operands and locals

    def type_of(self, operand: Operand) -> Type:
        """Return the scalar type of a lowered operand; references and nil are i64."""
        if isinstance(operand, Place):
            return self.types[operand.root]
        return operand.type if operand.type in LLVM_TYPES else I64  # type: ignore[return-value]

    def value(self, operand: Operand) -> str:
        """Return a lowered operand as an LLVM operand without its type."""
        if isinstance(operand, Const):
            if operand.type == TEXT and isinstance(operand.bits, str):
                return str(self.unit.surroundings.intern_text(operand.bits))
            return literal(operand)
        slot = self.slots.get(operand.root)
        if slot is None:
            return self.values[operand.root]
        return self.define(f"load {LLVM_TYPES[self.types[operand.root]]}, ptr {slot}")

    def typed(self, operand: Operand) -> str:
        """Return a lowered operand with its LLVM type."""
        return f"{LLVM_TYPES[self.type_of(operand)]} {self.value(operand)}"

    def assign(self, name: str, value: str) -> None:
        slot = self.slots.get(name)
        if slot is None:
            self.values[name] = value
        else:
            self.line(f"store {LLVM_TYPES[self.types[name]]} {value}, ptr {slot}")

    # Memory

    def control(self, offset: int) -> str:
        return f"inttoptr (i64 {self.unit.surroundings.heap_base + offset} to ptr)"

    def store_control(self, offset: int, value: object) -> None:
        self.line(f"store i64 {value}, ptr {self.control(offset)}, align 8, !tbaa {TBAA['control']}")

    def load_control(self, offset: int) -> str:
        return self.define(f"load i64, ptr {self.control(offset)}, align 8, !tbaa {TBAA['control']}")

    def address(self, operand: Operand, offset: int = 0) -> str:
        """Return the pointer to a heap offset."""
        if isinstance(operand, Const) and operand.type != TEXT:
            return self.control(int(operand.value or 0) + offset)  # type: ignore[call-overload]
        pointer = self.define(f"getelementptr i8, ptr {self.control(0)}, i64 {self.value(operand)}")
        return self.define(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    # Traps

    def site(self, ins: Instruction, kind: str | None = None) -> int:
        return self.unit.sites.add(kind, ins.message if kind else None, ins.origin)

    def return_status(self, status: str | int) -> None:
        """Leave the function with a status other than 0."""
        assert self.self.traps, f"{self.function.name} has no status"
        t = LLVM_TYPES[self.self.result]
        if isinstance(status, int):
            self.line(f"ret {{ {t}, i32 }} {{ {t} {zero_of(self.self.result)}, i32 {status} }}")
        else:
            both = self.define(f"insertvalue {{ {t}, i32 }} zeroinitializer, i32 {status}, 1")
            self.line(f"ret {{ {t}, i32 }} {both}")

    def note_site(self, site: int) -> None:
        """Remember where a trap or throw begins."""
        self.store_control(TRAP_SITE, site)
        self.store_control(FRAME_COUNT, 0)

    def pass_on(self, callee: Callee | None, ins: Instruction, status: str) -> None:
        """Leave the function with the status of a call; None is a callee behind a function value."""
        if not self.function.name.startswith(THUNK):
            site = self.site(ins)
            if callee is not None and callee.is_helper:
                self.note_site(site)
            else:
                self.push_frame(site)
        self.return_status(status)

    def push_frame(self, site: int) -> None:
        self.define(f"call i64 {self.unit.surroundings.runtime[PUSH_FRAME].symbol}(i64 {site})")

    def on_failure(self, status: str, leave: Callable[[], None]) -> None:
        """Let `leave` end the function if the status is not 0."""
        good, bad = self.new_label(), self.new_label()
        self.line(f"br i1 {self.define(f'icmp eq i32 {status}, 0')}, label %{good}, label %{bad}{LIKELY}")
        self.start(bad)
        leave()
        self.start(good)

    def call(self, callee: Callee, ins: Instruction) -> tuple[str, str | None]:
        """Append a call with the operands of `ins`; return (value, status or None)."""
        result = self.define(f"call {result_type(callee)} {callee.symbol}({', '.join(self.typed(a) for a in ins.args)})")
        return self.split(callee.result, result) if callee.traps else (result, None)

    def split(self, t: Type, result: str) -> tuple[str, str]:
        both = f"{{ {LLVM_TYPES[t]}, i32 }} {result}"
        return self.define(f"extractvalue {both}, 0"), self.define(f"extractvalue {both}, 1")

    # The whole

    def emit(self, linkage: str) -> list[str]:
        """Return the lines of the function."""
        function = self.function
        blocks = {block.label: block for block in function.blocks}
        assigned: dict[str, int] = {}
        for block in function.blocks:
            for ins in block.instructions:
                for name in writes(ins):
                    assigned[name] = assigned.get(name, 0) + 1
        parameters = {p.name: f"%p{index}" for index, p in enumerate(function.params)}
        head = ", ".join(f"{LLVM_TYPES[p.type]} %p{index}" for index, p in enumerate(function.params))
        self.lines.append(f"define {linkage}{result_type(self.self)} {self.self.symbol}({head}) #0 {{")
        self.start("start")
        for name, count in assigned.items():
            if count > (name not in parameters):
                self.slots[name] = f"%s{len(self.slots)}"
                self.line(f"{self.slots[name]} = alloca {LLVM_TYPES[self.types[name]]}")
        for name, value in parameters.items():
            self.assign(name, value)
        self.line(f"br {self.label(function.entry.label)}")
        for label in reverse_postorder(function):
            self.start(self.labels[label])
            for ins in blocks[label].instructions:
                value = llvm_rules[ins.op](self, ins)
                if ins.dest is not None and value is not None:
                    self.assign(ins.dest, value)
        self.lines.append("}")
        return self.lines


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
    """As `raw_bitcast`, but a NaN becomes the canonical one first."""
    source, target = f.type_of(ins.args[0]), LLVM_TYPES[f.types[ins.dest or ""]]
    if not is_float(source):
        return raw_bitcast(f, ins)
    t, value = LLVM_TYPES[source], f.value(ins.args[0])
    is_nan = f.define(f"fcmp uno {t} {value}, {value}")
    canonical = f.define(f"select i1 {is_nan}, {t} {literal(Const(source, NAN_BITS[source]))}, {t} {value}")
    return canonical if t == target else f.define(f"bitcast {t} {canonical} to {target}")


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
    f.note_site(f.site(ins, "stack_overflow"))
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


def emit_unit(module: Module, traps: frozenset[str], surroundings: Surroundings, sites: SiteTable, *, entries: frozenset[str],
              table: tuple[str, ...] = (), host_numbers: tuple[int, ...] = ()) -> UnitText:  # fmt: skip
    """Return a lowered module as LLVM IR.

    traps: the functions that return a status. entries: the functions with an address; any other is internal, and unless it is a thunk, its traps are
    its caller's. table: the functions behind function values, which all return a status. host_numbers: by `site` of `host_call`.
    """
    own = {}
    for index, function in enumerate(module.functions):
        name = function.name
        is_helper = name.startswith(RUNTIME) or (name not in entries and not name.startswith(THUNK))
        own[name] = Callee(f"@f{index}", tuple(p.type for p in function.params), function.result, name in traps or name in table, is_helper)
    unit = UnitEmitter(surroundings, sites, own, host_numbers)
    lines: list[str] = []
    for function in module.functions:
        lines += FunctionEmitter(unit, function).emit("" if function.name in entries else "internal ")
    parts = [surroundings.header]
    if table:
        parts.append(f"@table = internal constant [{len(table)} x ptr] [{', '.join(f'ptr {own[name].symbol}' for name in table)}]")
    parts += [*unit.declarations.values(), *lines, ATTRIBUTES + METADATA]
    return UnitText("\n".join(parts), {name: callee.symbol[1:] for name, callee in own.items()})

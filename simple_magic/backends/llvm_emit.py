"""LLVM IR text from lowered MIR: the functions in the making, and what they are made for.

`llvm_rules.py` prints the operations with it. The protocol between functions (statuses, sites, frames) is described in `traps.py` and `native.py`.

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

from ..mir.analysis import local_types
from ..mir.model import Const, Function, Instruction, Operand, Place
from ..mir.types import BOOL, CHAR, F32, F64, I64, INTEGERS, TEXT, Type, bit_width, is_float, is_integer
from ..passes.lower_calls import THUNK
from ..runtime.layout import FRAME_COUNT, TRAP_SITE
from .native import PUSH_FRAME
from .traps import SiteTable

LLVM_TYPES: dict[Type, str] = {**{t: f"i{bit_width(t)}" for t in INTEGERS}, BOOL: "i1", CHAR: "i32", F32: "float", F64: "double"}

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
attributes #3 = { nounwind noinline }
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

"""WebAssembly from lowered MIR: the functions in the making, and what they are made for.

`cranelift_rules.py` gives the instructions of each operation with it. The protocol between functions (statuses, sites, frames) is that of `native.py`;
a status is a second result.

Invariants:
- i64, u64 and references are i64, floats themselves, everything else i32; narrow integers are kept as the i32 of equal value (`normalise`);
- every MIR local is a WebAssembly local. Locals that live in one block only share theirs: an engine accepts no more than `wasm.MOST_LOCALS`;
- heap offsets are i64 in MIR and i32 at the memory; lowering has checked what they may be, and the engine's guard pages stand behind that;
- the stack limit word holds the bytes that functions with a `stack_check` may still use: they take theirs on entry and give it back on every way out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..mir.analysis import live_after, local_types, reads, writes
from ..mir.diagnostics import Diagnostic, LoweringError
from ..mir.model import Const, Function, Instruction, Operand, Place
from ..mir.types import F32, F64, I64, TEXT, U64, Type, bit_width, is_integer, is_signed
from ..passes.lower_calls import THUNK
from ..passes.polls import frame_bytes
from ..runtime.layout import FRAME_COUNT, STACK_LIMIT, TRAP_SITE
from . import wasm
from .native import PUSH_FRAME
from .traps import SiteTable, status_of_kind
from .wasm_control import Step

Push = Callable[[], None]


def wasm_type(t: Type) -> str:
    """Return the value type that holds a lowered scalar."""
    return wasm.I64 if t in (I64, U64) else wasm.F64 if t == F64 else wasm.F32 if t == F32 else wasm.I32


@dataclass(frozen=True, slots=True)
class Callee:
    """A function that code can call. traps: it returns a status beside its value. is_helper: what it traps with is the fault of its caller."""

    index: int
    params: tuple[Type, ...]
    result: Type
    traps: bool
    is_helper: bool

    @property
    def type(self) -> wasm.FuncType:
        results = (wasm_type(self.result), wasm.I32) if self.traps else (wasm_type(self.result),)
        return wasm.FuncType(tuple(wasm_type(t) for t in self.params), results)


@dataclass
class UnitEmitter:
    """One module in the making.

    callees: the unit's own functions and those of the runtime by name. host: indices of imported functions of the host: `poll`, `host`, libm's.
    """

    callees: Mapping[str, Callee]
    host: Mapping[str, int]
    sites: SiteTable
    host_numbers: tuple[int, ...]
    intern_text: Callable[[str], int]


@dataclass
class FunctionEmitter:
    """One function in the making."""

    unit: UnitEmitter
    function: Function
    code: list[wasm.Instruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.self = self.unit.callees[self.function.name]
        self.types = local_types(self.function)
        self.position = "", 0
        """The instruction whose rule is running: label and index."""
        self.stack_bytes = 0
        """What a `stack_check` of the function has taken."""
        self.scopes: list[tuple[str, str]] = []
        """The open constructs, innermost last: (kind, label)."""
        self.locals: dict[str, int] = {p.name: index for index, p in enumerate(self.function.params)}
        self.local_types: list[str] = []
        """Of the locals behind the parameters."""
        self._scratch: dict[tuple[str, str], int] = {}
        self._assign_locals()
        self.live_polls = live_after(self.function, "poll") if any(ins.op == "poll" for b in self.function.blocks for ins in b.instructions) else {}
        """The locals that are needed after each poll, by its label and index."""

    # Locals

    def _new_local(self, kind: str) -> int:
        self.local_types.append(kind)
        count = len(self.function.params) + len(self.local_types)
        if count > wasm.MOST_LOCALS:
            raise LoweringError([Diagnostic(
                "E0607", f"`{self.function.name}` is too large for the Cranelift back end: it needs more than {wasm.MOST_LOCALS} locals at a time",
                help="split the function, or use the llvm back end",
            )])  # fmt: skip
        return count - 1

    def _assign_locals(self) -> None:
        """Give each local a number; those whose life is within one block, from a write to the last read, take turns."""
        home: dict[str, str | None] = {p.name: None for p in self.function.params}
        last: dict[str, int] = {}
        for block in self.function.blocks:
            written: set[str] = set()
            for index, ins in enumerate(block.instructions):
                on_edges = ins.op == "invoke"
                for name in reads(ins):
                    last[name] = index
                    if home.setdefault(name, block.label) != block.label or name not in written:
                        home[name] = None
                for name in writes(ins):
                    last[name] = index
                    if on_edges or home.setdefault(name, block.label) != block.label:
                        home[name] = None
                    written.add(name)
        for name, block in home.items():
            if block is None and name not in self.locals:
                self.locals[name] = self._new_local(wasm_type(self.types[name]))
        free: dict[str, list[int]] = {}
        for block in self.function.blocks:
            for index, ins in enumerate(block.instructions):
                names = dict.fromkeys((*reads(ins), *writes(ins)))
                for name in names:
                    if name not in self.locals:
                        kind = wasm_type(self.types[name])
                        pool = free.setdefault(kind, [])
                        self.locals[name] = pool.pop() if pool else self._new_local(kind)
                for name in names:
                    if home[name] == block.label and last[name] == index:
                        free.setdefault(wasm_type(self.types[name]), []).append(self.locals[name])

    def scratch(self, purpose: str, kind: str) -> int:
        """Return a local for short use, one per purpose and type."""
        key = purpose, kind
        if key not in self._scratch:
            self._scratch[key] = self._new_local(kind)
        return self._scratch[key]

    # Instructions and operands

    def emit(self, *instruction: object) -> None:
        self.code.append(instruction)

    def type_of(self, operand: Operand) -> Type:
        """Return the scalar type of a lowered operand; references and nil are i64."""
        if isinstance(operand, Place):
            return self.types[operand.root]
        return I64 if operand.type is None or operand.type == TEXT or operand.bits is None else operand.type

    def push(self, operand: Operand) -> None:
        """Put a lowered operand on the stack."""
        if isinstance(operand, Place):
            self.emit("local.get", self.locals[operand.root])
            return
        self.push_const(operand)

    def push_const(self, value: Const) -> None:
        bits, t = value.bits, value.type
        if t == TEXT and isinstance(bits, str):
            self.emit("i64.const", self.unit.intern_text(bits))
        elif bits is None or t is None:
            self.emit("i64.const", 0)
        elif t in (F32, F64):
            self.emit(f"{wasm_type(t)}.const", bits)
        else:
            number = int(value.value if is_integer(t) else bits)  # type: ignore[arg-type, call-overload]
            width = 64 if wasm_type(t) == wasm.I64 else 32
            self.emit(f"{wasm_type(t)}.const", number - (1 << width) if number >= 1 << width - 1 else number)

    def push_all(self, operands: tuple[Operand, ...]) -> None:
        for operand in operands:
            self.push(operand)

    def push_zero(self, t: Type) -> None:
        self.emit(f"{wasm_type(t)}.const", 0)

    def pop(self, name: str | None) -> None:
        """Take the top of the stack into a local, or away."""
        if name is None:
            self.emit("drop")
        else:
            self.emit("local.set", self.locals[name])

    def normalise(self, t: Type) -> None:
        """Bring the i32 on the stack, whose low bits are right, into the form of a narrow integer."""
        width = bit_width(t)
        if width >= 32:
            return
        if is_signed(t):
            self.emit(f"i32.extend{width}_s")
        else:
            self.emit("i32.const", (1 << width) - 1)
            self.emit("i32.and")

    def push_address(self, operand: Operand, offset: int = 0) -> int:
        """Put the i32 address of a heap offset on the stack; return what the memory instruction has to add."""
        if isinstance(operand, Const) and operand.type != TEXT:
            self.emit("i32.const", 0)
            return int(operand.value or 0) + offset  # type: ignore[call-overload]
        self.push(operand)
        self.emit("i32.wrap_i64")
        if offset < 0:
            self.emit("i32.const", offset)
            self.emit("i32.add")
            return 0
        return offset

    def load_control(self, offset: int) -> None:
        self.emit("i32.const", 0)
        self.emit("i64.load", offset)

    def store_control(self, offset: int, push: Push) -> None:
        self.emit("i32.const", 0)
        push()
        self.emit("i64.store", offset)

    def set_control(self, offset: int, value: int) -> None:
        self.store_control(offset, lambda: self.emit("i64.const", value))

    # Control flow

    def open(self, kind: str, label: str = "") -> None:
        self.emit(kind)
        self.scopes.append((kind, label))

    def close(self) -> None:
        self.emit("end")
        self.scopes.pop()

    def depth_of(self, label: str) -> int:
        """Return how many constructs a branch to a block leaves."""
        for depth, (kind, name) in enumerate(reversed(self.scopes)):
            if name == label and kind != "if":
                return depth
        raise AssertionError(f"{label} is not in scope")

    def branch(self, label: str) -> None:
        """Go to a block, at the end of another one: what stands behind the innermost block comes next anyway."""
        if self.scopes[-1] != ("block", label):
            self.emit("br", self.depth_of(label))

    def step(self, step: Step) -> bool:
        """Follow a structural step; return whether it was one."""
        if step.kind == "code":
            return False
        if step.kind == "end":
            self.close()
        else:
            self.open(step.kind, step.label)
        return True

    # Leaving

    def give_back_stack(self) -> None:
        if self.stack_bytes:
            self.store_control(STACK_LIMIT, self._more_stack)

    def _more_stack(self) -> None:
        self.load_control(STACK_LIMIT)
        self.emit("i64.const", self.stack_bytes)
        self.emit("i64.add")

    def take_stack(self, site: int, need: int) -> None:
        """Trap unless `need` bytes are left; the function's own frame is taken."""
        left = self.scratch("stack", wasm.I64)
        self.load_control(STACK_LIMIT)
        self.emit("local.tee", left)
        self.emit("i64.const", need)
        self.emit("i64.lt_s")
        self.open("if")
        self.note_site(site)
        self.return_status(lambda: self.emit("i32.const", status_of_kind("stack_overflow")))
        self.close()
        self.stack_bytes = frame_bytes(self.function)
        self.store_control(STACK_LIMIT, lambda: self._less_stack(left))

    def _less_stack(self, left: int) -> None:
        self.emit("local.get", left)
        self.emit("i64.const", self.stack_bytes)
        self.emit("i64.sub")

    def return_status(self, push: Push) -> None:
        """Leave the function with a status other than 0."""
        assert self.self.traps, f"{self.function.name} has no status"
        self.give_back_stack()
        self.push_zero(self.self.result)
        push()
        self.emit("return")

    # Traps

    def site(self, ins: Instruction, kind: str | None = None) -> int:
        return self.unit.sites.add(kind, ins.message if kind else None, ins.origin)

    def note_site(self, site: int) -> None:
        """Remember where a trap or throw begins."""
        self.set_control(TRAP_SITE, site)
        self.set_control(FRAME_COUNT, 0)

    def push_frame(self, site: int) -> None:
        self.emit("i64.const", site)
        self.emit("call", self.unit.callees[PUSH_FRAME].index)
        self.emit("drop")

    def pass_on(self, callee: Callee | None, ins: Instruction, status: int) -> None:
        """Leave the function with the status of a call, held in a local; None is a callee behind a function value."""
        if not self.function.name.startswith(THUNK):
            site = self.site(ins)
            if callee is not None and callee.is_helper:
                self.note_site(site)
            else:
                self.push_frame(site)
        self.return_status(lambda: self.emit("local.get", status))

    def on_failure(self, leave: Callable[[int], None]) -> None:
        """Take the status from the stack; if it is not 0, let `leave`, which gets the local that holds it, end the function."""
        status = self.scratch("status", wasm.I32)
        self.emit("local.tee", status)
        self.open("if")
        leave(status)
        self.close()

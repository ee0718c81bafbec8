"""What all native back ends share: the protocol of compiled functions, calls over words in one `Heap`, globals, reclaiming of memory.

The native protocol. A function that may trap, throw or recurse deeply returns {value, i32 status}, any other the value; status 0 is fine, else it is
1 + the index in TRAP_KINDS. The rest of a trap lies in control words: where it began (a site number of the program), details, and the sites of the
calls it has passed. An exception of the host (an extern, a poll) waits in `Callbacks` while the status passes up, and is raised by `call`.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Generic, TypeVar

from ..mir.analysis import callees
from ..mir.diagnostics import Diagnostic, LoweringError, Trap
from ..mir.model import Function
from ..mir.places import can_hold_array
from ..mir.resolve import Names
from ..mir.text import format_text
from ..mir.types import Type
from ..passes.lower import Lowered, lower, lower_runtime, touches_globals
from ..passes.lower_calls import THUNK
from ..passes.polls import may_run_long, may_trap
from ..runtime.layout import (
    FRAMES, FRAMES_KEPT, FUEL, HEAP_START, HEAP_TOP, MOST_POLL_SAVED, NO_SITE, POLL_SAVED, STACK_LIMIT, TRAP_SITE, WORD,
)  # fmt: skip
from ..runtime.library import runtime_module
from .base import Host, Unit
from .callbacks import INTERNAL_CALLS, Callbacks
from .heap import Heap
from .traps import SiteTable, build_trap, status_of_kind

RUNTIME = "rt."
"""The prefix of the runtime's functions."""
PUSH_FRAME = "rt.push_frame"
THROWN = status_of_kind("uncaught_throw")
COMPACT_AT = 16 << 20
"""Bytes by which the heap may grow, beside doubling, before the globals are compacted."""
_SAVED = (slice(STACK_LIMIT, FRAMES + 2 * WORD * FRAMES_KEPT), slice(POLL_SAVED, POLL_SAVED + WORD * MOST_POLL_SAVED))
"""The parts of the heap, beside its top and limit, that a nested call must not change for the one around it."""


def is_helper(name: str, entries: frozenset[str]) -> bool:
    """Return whether the traps of a function are the fault of its caller: the runtime's, and what lowering has synthesized, but for thunks."""
    return name.startswith(RUNTIME) or (name not in entries and not name.startswith(THUNK))


@cache
def lowered_runtime() -> tuple[dict[str, Function], frozenset[str]]:
    """Return the lowered runtime functions by name and those that return a status."""
    module = lower_runtime(runtime_module())
    return {f.name: f for f in module.functions}, may_trap(module, frozenset())


def runtime_callees(functions: Iterable[Function]) -> set[str]:
    """Return the runtime functions that functions call directly."""
    return {name for function in functions for name in callees(function) if name.startswith(RUNTIME)}


@dataclass(frozen=True, slots=True)
class NativeCode:
    """Where native callers find a function: code for its machine signature, which gets `context` as a last argument unless that is 0."""

    address: int
    context: int
    has_status: bool


class NativeProgram:
    """A compiled unit.

    For native callers: `native_code(function)`; the functions in `may_run_long` should run without the GIL; if `reset_top`, a call leaves nothing on the
    heap that is still needed; `calls_host` tells whether host calls occur. A status goes to `failure`.
    For display: `lowered_text` and `timings` (nanoseconds by stage).
    """

    timings: dict[str, int]

    def __init__(self, backend: NativeBackend, unit: Unit) -> None:
        self.backend = backend
        self.heap = backend.heap
        self.names = Names.of(unit.module)
        self.lowered: Lowered = lower(unit.module, self.names, unit.global_slots)
        module = self.lowered.module
        self.signatures = self.lowered.signatures
        self.sites = SiteTable()
        self.calls_host = bool(self.lowered.host_calls)
        self.keeps_objects = touches_globals(unit.module, self.names)
        self.reset_top = not self.keeps_objects and all(call.name in INTERNAL_CALLS for call in self.lowered.host_calls)
        self.may_keep_arrays = any(can_hold_array(g.type, self.names) for g in unit.module.globals)
        self.traps = may_trap(module, lowered_runtime()[1])
        """The functions that need a status of their own accord."""
        self.may_trap = self.traps | frozenset(self.lowered.table)
        self.may_run_long = may_run_long(module)

    @property
    def stack_budget(self) -> int:
        """How many bytes of stack a call may be charged."""
        return self.backend.host.limits.stack

    def run(self, function: str, words: list[int], is_nested: bool) -> tuple[int, int]:
        """Call with argument words; return (status, result word)."""
        raise NotImplementedError

    def native_code(self, function: str) -> NativeCode:
        """Return where native callers find a function of the unit."""
        raise NotImplementedError

    def call(self, function: str, args: Sequence[object], fuel: int | None = None) -> object:
        """Call with values. Raises: Trap; whatever an extern raised; KeyboardInterrupt."""
        backend, heap = self.backend, self.heap
        params, result = self.signatures[function]
        depth, mark = backend.callbacks.depth, heap.mark()
        saved = [] if depth == 0 else [(part, bytes(heap.bytes[part])) for part in _SAVED]
        lent_from = heap.lent_from
        try:
            heap.lent_from = mark if depth else 0
            backend.callbacks.depth = depth + 1
            backend.callbacks.enter(depth)
            words = heap.encode_many(args, params, self.names)
            if fuel is not None:
                heap.write_word(FUEL, fuel)
            heap.write_word(TRAP_SITE, NO_SITE)
            status, word = self.run(function, words, depth > 0)
            if status:
                raise self.failure(status)
            return heap.decode(word, result, self.names)
        finally:
            heap.return_lent()
            heap.lent_from = lent_from
            backend.callbacks.depth = depth
            if depth:
                backend.callbacks.enter(depth - 1)
            backend.reclaim(self, mark)
            for part, contents in saved:
                heap.bytes[part] = contents

    def failure(self, status: int) -> BaseException:
        """Return what a call that ended with this status raises: the pending exception of the host, or the trap that the control words tell of."""
        trap = build_trap(status, self.heap.read_word, self.sites)
        pending = self.backend.callbacks.take_pending()
        if pending is None:
            if trap.kind == "interrupted":
                self.backend.callbacks.renew(max(0, self.backend.callbacks.depth - 1))
                return KeyboardInterrupt()
            return trap
        error, is_foreign = pending
        if isinstance(error, Trap) and error.origin is None and not is_foreign:
            return Trap(error.kind, error.message, trap.origin, trap.frames, trap.frames_omitted, error.payload)
        return error

    @property
    def lowered_text(self) -> str:
        return format_text(self.lowered.module)

    def close(self) -> None:
        """Free the code; calling afterwards is an error. Closing twice is fine."""
        raise NotImplementedError


P = TypeVar("P", bound=NativeProgram)


class NativeBackend(Generic[P]):
    """A native engine of one manager: its heap, its callbacks, its globals.

    compact_at: once the heap's top is beyond it, the next call of a unit that keeps objects ends with a compaction.
    """

    name: ClassVar[str]

    def __init__(self, host: Host, heap: Heap) -> None:
        self.host = host
        self.heap = heap
        self.callbacks = Callbacks(host, heap)
        self._kept = HEAP_START
        """Below this offset may lie what globals refer to."""
        self._globals: tuple[dict[str, tuple[int, Type]], Names] | None = None
        self._programs: weakref.WeakSet[P] = weakref.WeakSet()
        self._set_threshold()

    def compile(self, unit: Unit, level: int) -> P:
        """Return the unit as machine code. Raises: LoweringError."""
        size = sum(len(b.instructions) for f in unit.module.functions for b in f.blocks)
        limit = self.host.limits.unit_instructions
        if size > limit:
            raise LoweringError([Diagnostic("E0604", f"the unit holds {size} instructions; the limit is {limit}", help="split it into several cells")])
        program = self.make_program(unit, level)
        self._programs.add(program)
        return program

    def make_program(self, unit: Unit, level: int) -> P:
        raise NotImplementedError

    def intern_text(self, text: str) -> int:
        """Return the offset of a constant text. Raises: LoweringError."""
        try:
            return self.heap.intern_text(text)
        except Trap:
            raise LoweringError([Diagnostic("E0606", "the memory is too full for the texts of the unit", help="raise Limits.memory")]) from None

    # Globals and memory

    def read_globals(self, types: Mapping[str, tuple[int, Type]], names: Names) -> dict[str, object]:
        """Return the values of the globals; objects that are shared stay shared."""
        return self._read_globals(types, names)

    def _read_globals(self, types: Mapping[str, tuple[int, Type]], names: Names, as_buffers: bool = False) -> dict[str, object]:
        words = [self.heap.read_global(slot) for slot, _ in types.values()]
        return dict(zip(types, self.heap.decode_many(words, [t for _, t in types.values()], names, as_buffers=as_buffers)))

    def write_globals(self, values: Mapping[str, object], types: Mapping[str, tuple[int, Type]], names: Names) -> None:
        """Replace the store of globals; those without a value keep theirs. Raises: Trap out_of_memory; then nothing has changed.

        While a program runs, or when some keep theirs, all objects stay where they are, since the program or the kept may refer to them.
        """
        given = {name: types[name] for name in types if name in values}
        heap, top, lent = self.heap, self.heap.mark(), self.heap.lent
        former = None
        if self.callbacks.depth == 0 and len(given) == len(types):
            former = bytes(heap.bytes[HEAP_START:top])
            heap.lent = {}
            heap.write_word(HEAP_TOP, HEAP_START)
        try:
            words = heap.encode_many([values[name] for name in given], [t for _, t in given.values()], names)
        except BaseException:
            if former is not None:
                heap.bytes[HEAP_START:top] = former
                heap.write_word(HEAP_TOP, top)
                heap.lent = lent
            raise
        for (slot, _), word in zip(given.values(), words):
            heap.write_global(slot, word)
        self._globals = dict(types), names
        self._kept = heap.mark()
        if former is not None:
            heap.write_word(HEAP_TOP, max(top, self._kept))
            heap.release(self._kept)
            self._set_threshold()

    def _set_threshold(self) -> None:
        live = self.heap.mark()
        self.compact_at = min(2 * live + COMPACT_AT, (live + self.heap.limit) // 2)

    def reclaim(self, program: NativeProgram, mark: int) -> None:
        """Give back what a call has left on the heap: everything above `mark`, but for what globals may refer to."""
        heap = self.heap
        if not (program.keeps_objects and program.may_keep_arrays):
            # The headers of what this call was lent lie above the mark: a caller's program may use that memory for anything.
            heap.forget_lent(mark if self.callbacks.depth else 0)
        if program.keeps_objects:
            self._kept = heap.mark()
        elif heap.mark() > max(mark, self._kept):
            heap.release(max(mark, self._kept))
        if self.callbacks.depth == 0 and program.keeps_objects and heap.mark() > self.compact_at:
            self.compact()

    def compact(self) -> None:
        """Keep on the heap only what globals refer to."""
        if self._globals is None:
            return
        types, names = self._globals
        try:
            self.write_globals(self._read_globals(types, names, as_buffers=True), types, names)
        except Trap:
            # A copy can need more than the original where a program shares what has no identity; then the heap stays as it is.
            self._set_threshold()

    def close_programs(self) -> None:
        for program in list(self._programs):
            program.close()

    def close(self) -> None:
        """Free memory and code. Closing twice is fine."""
        raise NotImplementedError


def argument_block(words: Sequence[int]) -> ctypes.Array:
    """Return argument words as a C array with room for the result behind them."""
    return (ctypes.c_int64 * (len(words) + 1))(*words)

"""The LLVM back end: lowered MIR as machine code in this process.

A unit is lowered (`passes/lower.py`), printed as IR (`llvm_rules.py`), compiled (`llvm_jit.py`) and called over words in the back end's one `Heap`.
Addresses (heap, flag word, runtime, libm) are constants in the code, so code belongs to its back end. The runtime (`runtime/library.py`) is compiled
once per back end, each function when a unit first needs it.

The native protocol. A function that may trap, throw or recurse deeply returns {value, i32 status}, any other the value; status 0 is fine, else it is
1 + the index in TRAP_KINDS. The rest of a trap lies in control words: where it began (a site number of the program), details, and the sites of the
calls it has passed. An exception of the host (an extern, a poll) waits in `Callbacks` while the status passes up, and is raised by `call`.

Entries, one per machine signature, take a target and a block of words: arguments, then room for the result.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from time import perf_counter_ns

from ..mir.analysis import callees
from ..mir.diagnostics import Diagnostic, LoweringError, Trap
from ..mir.model import Function, Module
from ..mir.resolve import Names
from ..mir.text import format_text
from ..mir.types import Array, FixedArray, Named, Type, walk
from ..passes.lower import Lowered, lower, lower_runtime, touches_globals
from ..passes.polls import may_run_long, may_trap
from ..runtime.layout import FRAMES, FRAMES_KEPT, FUEL, HEAP_START, HEAP_TOP, NO_SITE, STACK_LIMIT, TRAP_SITE, WORD, machine_type
from ..runtime.library import runtime_module
from .base import Host, Unit
from .heap import Heap
from .llvm_calls import INTERNAL_CALLS, Callbacks, EntryFunction, entry_text, stack_floor, support_text
from .llvm_emit import PUSH_FRAME, RUNTIME, Callee, Surroundings, function_at
from .llvm_jit import FOR_RUNTIME, NO_PASSES, QUICK, Code, Pipeline, Views, choose_pipeline, compile_text, platform, view_text
from .llvm_rules import emit_unit
from .numbers import LIBM
from .traps import SiteTable, build_trap

COMPACT_AT = 16 << 20
"""Bytes by which the heap may grow, beside doubling, before the globals are compacted."""
_SAVED = slice(TRAP_SITE // WORD, FRAMES // WORD + 2 * FRAMES_KEPT)
"""The control words that a nested call must not change for the one around it."""


# The runtime, as far as it is the same for all back ends


@cache
def _runtime() -> tuple[dict[str, Function], frozenset[str]]:
    """Return the lowered runtime functions by name and those that return a status."""
    module = lower_runtime(runtime_module())
    return {f.name: f for f in module.functions}, may_trap(module, frozenset())


def _runtime_callees(functions: Iterable[Function]) -> set[str]:
    return {name for function in functions for name in callees(function) if name.startswith(RUNTIME)}


# Programs


class LlvmProgram:
    """A compiled unit.

    For native callers: `address(function)`; the functions in `may_trap` return {value, status}, those in `may_run_long` should run without the GIL;
    if `reset_top`, a call leaves nothing on the heap that is still needed; `calls_host` tells whether host calls occur. A status goes to `failure`.
    For display: `llvm_ir`, `optimized_ir`, `assembly`, `lowered_text`, `object_code`, `pipeline` and `timings` (nanoseconds by stage).
    """

    def __init__(self, backend: LlvmBackend, unit: Unit, level: int) -> None:
        self.backend = backend
        self.heap = backend.heap
        self.names = Names.of(unit.module)
        started = perf_counter_ns()
        self._lowered: Lowered = lower(unit.module, self.names, unit.global_slots)
        lowered_at = perf_counter_ns()
        module = self._lowered.module
        self.signatures = self._lowered.signatures
        self.sites = SiteTable()
        self.calls_host = bool(self._lowered.host_calls)
        self.keeps_objects = touches_globals(unit.module, self.names)
        self.reset_top = not self.keeps_objects and all(call.name in INTERNAL_CALLS for call in self._lowered.host_calls)
        self.calls_host = bool(self._lowered.host_calls)
        self.may_keep_arrays = any(_holds_arrays(g.type, self.names) for g in unit.module.globals)
        traps = may_trap(module, _runtime()[1])
        self.may_trap = traps | frozenset(self._lowered.table)
        self.may_run_long = may_run_long(module)
        runtime_from = perf_counter_ns()
        surroundings = backend.surroundings(_runtime_callees(module.functions))
        runtime_at = perf_counter_ns()
        self._numbers = backend.callbacks.add_calls(self._lowered.host_calls, self.names)
        self._code: Code | None = None
        try:
            entries = frozenset(self.signatures)
            emitted = emit_unit(
                module, traps, surroundings, self.sites, entries=entries, table=self._lowered.table, host_numbers=self._numbers,
            )  # fmt: skip
            self._text, self._symbols = emitted.text, {name: emitted.symbols[name] for name in self.signatures}
            emitted_at = perf_counter_ns()
            self.pipeline = choose_pipeline(level, ((len(f.blocks), sum(len(b.instructions) for b in f.blocks)) for f in module.functions))
            self._code, timings = compile_text(self._text, self.pipeline, self._symbols.values())
        except BaseException:
            backend.callbacks.remove_calls(self._numbers)
            raise
        self._free = weakref.finalize(self, _free, self._code, backend.callbacks, self._numbers)
        self._free.atexit = False
        self.timings = {"lower": lowered_at - started, "runtime": runtime_at - runtime_from, "emit": emitted_at - runtime_at, **timings}

    def address(self, function: str) -> int:
        """Return the address of a function of the unit."""
        assert self._code is not None, "the program is closed"
        return self._code.addresses[self._symbols[function]]

    def call(self, function: str, args: Sequence[object], fuel: int | None = None) -> object:
        """Call with values. Raises: Trap; whatever an extern raised; KeyboardInterrupt."""
        backend, heap = self.backend, self.heap
        params, result = self.signatures[function]
        address = self.address(function)
        entry = backend.entry(tuple(machine_type(t) for t in params), machine_type(result), function in self.may_trap)
        depth, mark = backend.callbacks.depth, heap.mark()
        saved = None if depth == 0 else (heap.words[_SAVED].tolist(), heap.read_word(FUEL), heap.read_word(STACK_LIMIT))
        try:
            backend.callbacks.depth = depth + 1
            backend.callbacks.enter(depth)
            words = heap.encode_many(args, params, self.names)
            block = (ctypes.c_int64 * (len(words) + 1))(*words)
            if fuel is not None:
                heap.write_word(FUEL, fuel)
            heap.write_word(TRAP_SITE, NO_SITE)
            if depth == 0:
                status = entry(address, ctypes.addressof(block), backend.host.limits.stack, stack_floor())
            else:
                status = entry(address, ctypes.addressof(block), (1 << 64) - 1, heap.read_word(STACK_LIMIT))
            if status:
                raise self.failure(status)
            return heap.decode(block[len(words)], result, self.names)
        finally:
            backend.callbacks.depth = depth
            if depth:
                backend.callbacks.enter(depth - 1)
            backend.reclaim(self, mark)
            if saved is not None:
                words, fuel_left, stack_limit = saved
                heap.write_word(FUEL, fuel_left)
                heap.write_word(STACK_LIMIT, stack_limit)
                for offset, word in enumerate(words, _SAVED.start):
                    heap.words[offset] = word

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

    # Display

    @property
    def llvm_ir(self) -> str:
        """The IR before optimisation, with a line that says which function is which."""
        return "\n".join((*(f"; @{symbol} is {name}" for name, symbol in self._symbols.items()), "", self._text))

    @cached_property
    def _views(self) -> Views:
        return view_text(self._text, self.pipeline)

    @property
    def optimized_ir(self) -> str:
        return self._views.optimized_ir

    @property
    def assembly(self) -> str:
        return self._views.assembly

    @property
    def lowered_text(self) -> str:
        return format_text(self._lowered.module)

    @property
    def object_code(self) -> bytes:
        assert self._code is not None, "the program is closed"
        return self._code.object_code

    def close(self) -> None:
        """Free the code; calling afterwards is an error. Closing twice is fine."""
        self._free()
        self._code = None


def _free(code: Code, callbacks: Callbacks, numbers: tuple[int, ...]) -> None:
    """Free what a program holds outside of itself."""
    code.close()
    callbacks.remove_calls(numbers)


def _holds_arrays(t: Type, names: Names) -> bool:
    """Return whether an array can be reached from a value of type `t`."""
    seen: set[str] = set()
    todo = [t]
    while todo:
        for inner in walk(todo.pop()):
            if isinstance(inner, (Array, FixedArray)):
                return True
            if isinstance(inner, Named) and inner.name not in seen:
                seen.add(inner.name)
                definition = names.types[inner.name]
                fields = getattr(definition, "fields", None)
                todo += [f.type for f in (fields if fields is not None else [f for v in definition.variants for f in v.fields])]  # type: ignore[union-attr]
    return False


class LlvmBackend:
    """The LLVM engine of one manager; see the module docstring.

    compact_at: once the heap's top is beyond it, the next call of a unit that keeps objects ends with a compaction.
    """

    name = "llvm-jit"

    def __init__(self, host: Host) -> None:
        self.host = host
        try:
            self.heap = Heap(host.limits.memory)
        except (OSError, OverflowError, ValueError) as error:
            raise LoweringError(
                [Diagnostic("E0608", f"there is no room for a heap of {host.limits.memory} bytes: {error}", help="lower Limits.memory")]
            ) from None
        self.callbacks = Callbacks(host, self.heap)
        self._kept = HEAP_START
        """Below this offset may lie what globals refer to."""
        self._globals: tuple[dict[str, tuple[int, Type]], Names] | None = None
        self._own_flag = ctypes.c_int64(0)
        self._flag = getattr(host, "flag_address", None) or ctypes.addressof(self._own_flag)
        header = platform().header
        self._pieces: list[Code] = []
        self._entries: dict[tuple[tuple[Type, ...], Type, bool], Callable[[int, int, int, int], int]] = {}
        self._programs: weakref.WeakSet[LlvmProgram] = weakref.WeakSet()
        support = self._compile(support_text(header, self.heap.base, self._flag, self.callbacks), ("poll", "host"))
        self._runtime: dict[str, Callee] = {}
        self._surroundings = Surroundings(
            header, self.heap.base, self._flag, support["poll"], support["host"], self._runtime, LIBM, platform().has_fma, self._intern,
        )  # fmt: skip
        self._set_threshold()

    def compile(self, unit: Unit, level: int) -> LlvmProgram:
        """Return the unit as machine code. Raises: LoweringError."""
        size = sum(len(b.instructions) for f in unit.module.functions for b in f.blocks)
        limit = self.host.limits.unit_instructions
        if size > limit:
            raise LoweringError([Diagnostic("E0604", f"the unit holds {size} instructions; the limit is {limit}", help="split it into several cells")])
        program = LlvmProgram(self, unit, level)
        self._programs.add(program)
        return program

    def _compile(self, text: str, symbols: Iterable[str], pipeline: Pipeline = QUICK) -> dict[str, int]:
        """Compile code that lives as long as the back end; return its addresses."""
        code, _ = compile_text(text, pipeline, symbols)
        self._pieces.append(code)
        return code.addresses

    def _intern(self, text: str) -> int:
        try:
            return self.heap.intern_text(text)
        except Trap:
            raise LoweringError([Diagnostic("E0606", "the memory is too full for the texts of the unit", help="raise Limits.memory")]) from None

    def surroundings(self, needed: set[str]) -> Surroundings:
        """Return what code of this back end is made for, with these runtime functions."""
        self._compile_runtime({PUSH_FRAME, *needed})
        return self._surroundings

    def _compile_runtime(self, needed: set[str]) -> None:
        functions, traps = _runtime()
        todo, wanted = list(needed), {}
        while todo:
            name = todo.pop()
            if name not in wanted and name not in self._runtime:
                wanted[name] = functions[name]
                todo += _runtime_callees((functions[name],))
        if not wanted:
            return
        module = Module(functions=tuple(wanted.values()), name="runtime")
        emitted = emit_unit(module, traps, self._surroundings, SiteTable(), entries=frozenset(wanted))
        addresses = self._compile(emitted.text, emitted.symbols.values(), FOR_RUNTIME)
        for name, function in wanted.items():
            params = tuple(p.type for p in function.params)
            self._runtime[name] = Callee(function_at(addresses[emitted.symbols[name]]), params, function.result, name in traps, True)

    def entry(self, params: tuple[Type, ...], result: Type, traps: bool) -> Callable[[int, int, int, int], int]:
        """Return the entry for functions of a machine signature."""
        key = (params, result, traps)
        made = self._entries.get(key)
        if made is None:
            text = entry_text(self._surroundings.header, self.heap.base, params, result, traps)
            made = self._entries[key] = EntryFunction(self._compile(text, ("entry",), NO_PASSES)["entry"])
        return made

    # Globals and memory

    def read_globals(self, types: Mapping[str, tuple[int, Type]], names: Names) -> dict[str, object]:
        """Return the values of the globals; objects that are shared stay shared."""
        return self._read_globals(types, names)

    def _read_globals(self, types: Mapping[str, tuple[int, Type]], names: Names, as_buffers: bool = False) -> dict[str, object]:
        words = [self.heap.read_global(slot) for slot, _ in types.values()]
        return dict(zip(types, self.heap.decode_many(words, [t for _, t in types.values()], names, as_buffers=as_buffers)))

    def write_globals(self, values: Mapping[str, object], types: Mapping[str, tuple[int, Type]], names: Names) -> None:
        """Replace the whole store of globals. Raises: Trap out_of_memory; then nothing has changed.

        While a program runs, what the globals referred to before stays where it is, since the program may refer to it too.
        """
        heap, top, lent = self.heap, self.heap.mark(), self.heap.lent
        former = None
        if self.callbacks.depth == 0:
            former = bytes(heap.bytes[HEAP_START:top])
            heap.lent = {}
            heap.write_word(HEAP_TOP, HEAP_START)
        try:
            words = heap.encode_many([values[name] for name in types], [t for _, t in types.values()], names)
        except BaseException:
            if former is not None:
                heap.bytes[HEAP_START:top] = former
                heap.write_word(HEAP_TOP, top)
                heap.lent = lent
            raise
        for (slot, _), word in zip(types.values(), words):
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

    def reclaim(self, program: LlvmProgram, mark: int) -> None:
        """Give back what a call has left on the heap: everything above `mark`, but for what globals may refer to."""
        heap = self.heap
        if program.keeps_objects:
            self._kept = heap.mark()
        elif heap.mark() > max(mark, self._kept):
            heap.release(max(mark, self._kept))
        if self.callbacks.depth == 0:
            if heap.lent and not (program.keeps_objects and program.may_keep_arrays):
                heap.lent.clear()
            if program.keeps_objects and heap.mark() > self.compact_at:
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

    def close(self) -> None:
        """Free memory and code. Closing twice is fine."""
        for program in list(self._programs):
            program.close()
        self._entries.clear()
        for code in self._pieces:
            code.close()
        self._pieces.clear()
        self._runtime.clear()
        self.callbacks.close()
        self.heap.close()

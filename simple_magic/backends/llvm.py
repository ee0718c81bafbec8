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
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from time import perf_counter_ns

from ..mir.analysis import callees
from ..mir.diagnostics import TRAP_KINDS, Diagnostic, LoweringError, Trap
from ..mir.model import Function, Module
from ..mir.resolve import Names
from ..mir.text import format_text
from ..mir.types import F32, F64, I64, Array, FixedArray, Named, Type, walk
from ..passes.lower import HostCall, Lowered, lower, lower_runtime, touches_globals
from ..passes.lower_calls import FLOAT_TEXT, PARSE_FLOAT, PRINT
from ..passes.polls import may_run_long, may_trap
from ..runtime.layout import FRAME_COUNT, FRAMES, FRAMES_KEPT, FUEL, HEAP_START, NO_SITE, STACK_LIMIT, TRAP_SITE, WORD, machine_type
from ..runtime.library import runtime_module
from .base import Host, Unit
from .heap import Heap
from .llvm_emit import ATTRIBUTES, LLVM_TYPES, PUSH_FRAME, RUNTIME, Callee, Surroundings, function_at
from .llvm_jit import FOR_RUNTIME, NO_PASSES, QUICK, Code, Pipeline, Views, choose_pipeline, compile_text, platform, view_text
from .llvm_rules import emit_unit
from .numbers import LIBM
from .traps import SiteTable, build_trap, status_of_kind
from .wrapper import thread_stack_low

INTERNAL_CALLS = frozenset((PRINT, FLOAT_TEXT, PARSE_FLOAT))
"""Host calls that lowering makes by itself: a trap in them is the program's own."""
COMPACT_AT = 16 << 20
"""Bytes by which the heap may grow, beside doubling, before the globals are compacted."""
INTERRUPTED = status_of_kind("interrupted")
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


# Calling out of native code


class Callbacks:
    """What native code calls: `poll` and `host`. They answer 1 + status; 0 means that an exception got lost before Python code could catch it.

    `pending` holds the exception behind a status until the call that it ends raises it, and whether it is the host's own, to be raised as it is.
    """

    def __init__(self, host: Host, heap: Heap) -> None:
        self.host = host
        self.heap = heap
        self.pending: tuple[BaseException, bool] | None = None
        self.calls: dict[int, tuple[HostCall, Names]] = {}
        self._numbers = 0
        self._cells = (ctypes.c_void_p * 2)()
        self._host_callback = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64)(self._serve)
        self._cells[1] = ctypes.cast(self._host_callback, ctypes.c_void_p).value
        self.arm_poll()

    def cell(self, index: int) -> int:
        """Return the address of the word that holds the address of `poll` (0) or `host` (1)."""
        return ctypes.addressof(self._cells) + index * ctypes.sizeof(ctypes.c_void_p)

    def arm_poll(self) -> None:
        """Make a new poll callback. A signal handler runs when Python code begins; in a generator that is inside its `try`, so nothing gets lost."""
        poller = self._poller()
        next(poller)
        self._poll_callback = ctypes.CFUNCTYPE(ctypes.c_int32)(poller.__next__)
        self._cells[0] = ctypes.cast(self._poll_callback, ctypes.c_void_p).value

    def _poller(self) -> Generator[int, None, None]:
        code = 1
        while True:
            try:
                yield code
                self.host.poll()
                code = 1
            except GeneratorExit:
                return
            except BaseException as error:
                self.pending = error, False
                code = 1 + _status_of(error)

    def add_calls(self, calls: Iterable[HostCall], names: Names) -> tuple[int, ...]:
        """Return the numbers under which native code makes these calls."""
        numbers = []
        for call in calls:
            self.calls[self._numbers] = (call, names)
            numbers.append(self._numbers)
            self._numbers += 1
        return tuple(numbers)

    def remove_calls(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.calls.pop(number, None)

    def _serve(self, number: int, block: int) -> int:
        is_foreign = False
        try:
            call, names = self.calls[number]
            count = len(call.arg_types)
            at = block >> 3
            args = self.heap.decode_many(self.heap.words[at : at + count].tolist(), call.arg_types, names)
            is_foreign = call.name not in INTERNAL_CALLS
            value = self.host.call_extern(call.name, args, call.arg_types, call.result, call.origin)
            is_foreign = False
            self.heap.words[at + count] = self.heap.encode(value, call.result, names)
            return 1
        except BaseException as error:
            self.pending = error, is_foreign
            return 1 + _status_of(error)

    def take_pending(self) -> tuple[BaseException, bool] | None:
        pending, self.pending = self.pending, None
        return pending

    def close(self) -> None:
        """Break the cycle between this object and its callbacks."""
        self.calls.clear()
        del self._host_callback, self._poll_callback


def _status_of(error: BaseException) -> int:
    if isinstance(error, Trap):
        return 1 + TRAP_KINDS.index(error.kind)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else status_of_kind("extern_error")


def _support_text(header: str, heap_base: int, flag: int, callbacks: Callbacks) -> str:
    """Return `poll` and `host`: the callback, its answer as a status, and the site noted if that is not 0. `host` looks at the flag first."""
    answer = f"""
  %is_fine = icmp eq i32 %code, 1
  br i1 %is_fine, label %fine, label %failed
fine:
  ret i32 0
failed:
  store i64 %site, ptr {function_at(heap_base + TRAP_SITE)}
  store i64 0, ptr {function_at(heap_base + FRAME_COUNT)}
  %is_lost = icmp eq i32 %code, 0
  %status = sub i32 %code, 1
  %result = select i1 %is_lost, i32 {INTERRUPTED}, i32 %status
  ret i32 %result
}}
"""
    return f"""{header}
define i32 @poll(i64 %site) #0 {{
  %callback = load ptr, ptr {function_at(callbacks.cell(0))}
  %code = call i32 %callback(){answer}
define i32 @host(i64 %number, i64 %block, i64 %site) #0 {{
  %flag = load volatile i64, ptr {function_at(flag)}
  %is_asked = icmp ne i64 %flag, 0
  br i1 %is_asked, label %asked, label %go
asked:
  %stop = call i32 @poll(i64 %site)
  %goes_on = icmp eq i32 %stop, 0
  br i1 %goes_on, label %go, label %stopped
stopped:
  ret i32 %stop
go:
  %callback = load ptr, ptr {function_at(callbacks.cell(1))}
  %code = call i32 %callback(i64 %number, i64 %block){answer}
{ATTRIBUTES}"""


# Entries

EntryFunction = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
"""`status entry(target, block, budget, floor)`; ctypes releases the GIL around it."""


def _from_word(t: Type, name: str, word: str) -> str:
    """Return the IR that makes `name` of type `t` from a word."""
    if t == I64 or LLVM_TYPES[t] == "i64":
        return f"  {name} = add i64 {word}, 0\n"
    if t == F64:
        return f"  {name} = bitcast i64 {word} to double\n"
    if t == F32:
        return f"  {name}.bits = trunc i64 {word} to i32\n  {name} = bitcast i32 {name}.bits to float\n"
    return f"  {name} = trunc i64 {word} to {LLVM_TYPES[t]}\n"


def _to_word(t: Type, value: str) -> str:
    """Return the IR that makes `%word` from a value of type `t`."""
    if LLVM_TYPES[t] == "i64":
        return f"  %word = add i64 {value}, 0\n"
    if t == F64:
        return f"  %word = bitcast double {value} to i64\n"
    if t == F32:
        return f"  %bits = bitcast float {value} to i32\n  %word = zext i32 %bits to i64\n"
    return f"  %word = zext {LLVM_TYPES[t]} {value} to i64\n"


def _entry_text(header: str, heap_base: int, params: tuple[Type, ...], result: Type, traps: bool) -> str:
    """Return the entry of a signature. The stack may be used down to `budget` bytes below here, but not below `floor`."""
    loads = "".join(
        f"  %w{i}.p = getelementptr i64, ptr %block, i64 {i}\n  %w{i} = load i64, ptr %w{i}.p\n{_from_word(t, f'%a{i}', f'%w{i}')}"
        for i, t in enumerate(params)
    )
    arguments = ", ".join(f"{LLVM_TYPES[t]} %a{i}" for i, t in enumerate(params))
    t = LLVM_TYPES[result]
    call = f"  %value = call {t} %target({arguments})\n"
    if traps:
        call = f"  %both = call {{ {t}, i32 }} %target({arguments})\n  %value = extractvalue {{ {t}, i32 }} %both, 0\n"
    status = f"  %status = extractvalue {{ {t}, i32 }} %both, 1\n  ret i32 %status\n" if traps else "  ret i32 0\n"
    return f"""{header}
declare ptr @llvm.frameaddress.p0(i32 immarg)
declare i64 @llvm.usub.sat.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
define i32 @entry(ptr %target, ptr %block, i64 %budget, i64 %floor) #0 {{
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %here = ptrtoint ptr %frame to i64
  %low = call i64 @llvm.usub.sat.i64(i64 %here, i64 %budget)
  %limit = call i64 @llvm.umax.i64(i64 %low, i64 %floor)
  store i64 %limit, ptr {function_at(heap_base + STACK_LIMIT)}
{loads}{call}{_to_word(result, "%value")}  %out = getelementptr i64, ptr %block, i64 {len(params)}
  store i64 %word, ptr %out
{status}}}
{ATTRIBUTES}"""


_stacks = threading.local()


def _stack_floor() -> int:
    """Return the lowest address of this thread's stack that programs may use; looked up once per thread."""
    floor = getattr(_stacks, "floor", None)
    if floor is None:
        floor = _stacks.floor = thread_stack_low()
    return floor


# Programs


class LlvmProgram:
    """A compiled unit.

    For native callers: `address(function)`; the functions in `may_trap` return {value, status}, those in `may_run_long` should run without the GIL;
    if `reset_top`, a call leaves nothing on the heap that is still needed; `calls_host` tells whether host calls occur. For display: `llvm_ir`, `optimized_ir`, `assembly`, `lowered_text`,
    `object_code`, `pipeline` and `timings` (nanoseconds by stage).
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
        depth, mark = backend.depth, heap.mark()
        saved = None if depth == 0 else (heap.words[_SAVED].tolist(), heap.read_word(FUEL), heap.read_word(STACK_LIMIT))
        try:
            backend.depth = depth + 1
            words = heap.encode_many(args, params, self.names)
            block = (ctypes.c_int64 * (len(words) + 1))(*words)
            if fuel is not None:
                heap.write_word(FUEL, fuel)
            heap.write_word(TRAP_SITE, NO_SITE)
            if depth == 0:
                status = entry(address, ctypes.addressof(block), backend.host.limits.stack, _stack_floor())
            else:
                status = entry(address, ctypes.addressof(block), (1 << 64) - 1, heap.read_word(STACK_LIMIT))
            if status:
                raise self._failure(status)
            return heap.decode(block[len(words)], result, self.names)
        finally:
            backend.depth = depth
            backend.reclaim(self, mark)
            if saved is not None:
                words, fuel_left, stack_limit = saved
                heap.write_word(FUEL, fuel_left)
                heap.write_word(STACK_LIMIT, stack_limit)
                for offset, word in enumerate(words, _SAVED.start):
                    heap.words[offset] = word

    def failure(self, status: int) -> BaseException:
        """Return what a call that ended with this status raises: the pending exception of the host, or the trap that the control words tell of."""
        return self._failure(status)

    def _failure(self, status: int) -> BaseException:
        trap = build_trap(status, self.heap.read_word, self.sites)
        pending = self.backend.callbacks.take_pending()
        if pending is None:
            if trap.kind == "interrupted":
                self.backend.callbacks.arm_poll()
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
        if self._code is not None:
            self._code.close()
            self._code = None
            self.backend.callbacks.remove_calls(self._numbers)


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
        self.heap = Heap(host.limits.memory)
        self.callbacks = Callbacks(host, self.heap)
        self.depth = 0
        self._kept = HEAP_START
        """Below this offset may lie what globals refer to."""
        self._globals: tuple[dict[str, tuple[int, Type]], Names] | None = None
        self._own_flag = ctypes.c_int64(0)
        self._flag = getattr(host, "flag_address", None) or ctypes.addressof(self._own_flag)
        header = platform().header
        self._pieces: list[Code] = []
        self._entries: dict[tuple[tuple[Type, ...], Type, bool], Callable[[int, int, int, int], int]] = {}
        self._programs: weakref.WeakSet[LlvmProgram] = weakref.WeakSet()
        support = self._compile(_support_text(header, self.heap.base, self._flag, self.callbacks), ("poll", "host"))
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
            text = _entry_text(self._surroundings.header, self.heap.base, params, result, traps)
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
        """Replace the whole store of globals; called only between outermost calls. Raises: Trap out_of_memory."""
        assert self.depth == 0, "a program is running"
        self._globals = dict(types), names
        lent, self.heap.lent = self.heap.lent, {}
        self.heap.release(HEAP_START)
        words = self.heap.encode_many([values[name] for name in types], [t for _, t in types.values()], names)
        for (slot, _), word in zip(types.values(), words):
            self.heap.write_global(slot, word)
        lent.clear()
        self._kept = self.heap.mark()
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
        if self.depth == 0:
            if heap.lent and not (program.keeps_objects and program.may_keep_arrays):
                heap.lent.clear()
            if program.keeps_objects and heap.mark() > self.compact_at:
                self.compact()

    def compact(self) -> None:
        """Keep on the heap only what globals refer to. An interrupt takes effect when the globals are whole again."""
        if self._globals is None:
            return
        types, names = self._globals
        values = self._read_globals(types, names, as_buffers=True)
        try:
            self.write_globals(values, types, names)
        except KeyboardInterrupt:
            self.write_globals(values, types, names)
            raise

    def close(self) -> None:
        """Free memory and code. Closing twice is fine."""
        for program in list(self._programs):
            program.close()
        self._entries.clear()
        for code in self._pieces:
            code.close()
        self._pieces.clear()
        self._runtime.clear()
        with suppress(AttributeError):
            self.callbacks.close()
        self.heap.close()

"""The Cranelift back end: lowered MIR as WebAssembly, compiled by Cranelift through wasmtime.

A unit is lowered (`passes/lower.py`), written as WebAssembly (`cranelift_rules.py`, `wasm.py`), compiled and instantiated in a store of its own
(`wasmtime_engine.py`), together with the runtime, which is compiled once per process. All stores of a back end share one linear memory: the heap. The
protocol of the functions is that of `native.py`, with the status as a second result; a program runs in its sandbox without traps of the engine.

For native callers each function gets an address that takes machine values: code emitted with LLVM, once per signature, which puts them into a block of
raw values (`call_text`); the function itself is its `context`.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from time import perf_counter_ns

import wasmtime

from ..mir.diagnostics import Diagnostic, LoweringError
from ..mir.model import Module
from ..mir.types import Type, is_signed
from ..passes.lower import lower_runtime
from ..runtime.layout import FLAG, STACK_LIMIT, machine_type
from ..runtime.library import runtime_module
from . import wasm
from .base import Host, Unit
from .callbacks import Callbacks, stack_floor
from .cranelift_emit import wasm_type
from .cranelift_rules import HOST_TYPES, emit_unit, host_functions
from .heap import Heap
from .llvm_calls import support_text
from .llvm_emit import LLVM_TYPES, function_at
from .llvm_jit import NO_PASSES, QUICK, Code, compile_text, platform
from .native import NativeBackend, NativeCode, NativeProgram, lowered_runtime
from .numbers import LIBM
from .traps import SiteTable, bare_trap
from .wasmtime_engine import ENGINE_FAILED, ENGINE_STACK, VALUE_SIZE, Context, LinearMemory, Store, call_address, compile_module, new_engine

UNSUPPORTED: tuple[str, ...] = ()
"""Core operations that this back end refuses by name: none."""
STACK_FACTOR = 4
"""How many bytes of frames are charged for a byte of `Limits.stack`."""
STACK_SLACK = 256 * 1024
"""What the engine uses of the stack for itself."""
MOST_PARAMETERS = 1000
"""What WebAssembly engines take; with the hidden ones of a function."""


@cache
def _runtime_code(pages: int) -> tuple[wasm.Module, bytes]:
    """Return the runtime as one module for memories of this size, and its bytes."""
    module = lower_runtime(runtime_module())
    functions, traps = lowered_runtime()

    def no_text(_text: str) -> int:
        raise AssertionError("the runtime has no texts")

    made = emit_unit(module, traps, {}, SiteTable(), no_text, pages, entries=frozenset(functions), by_name=True)
    return made, made.encode()


class CraneliftProgram(NativeProgram):
    """A compiled unit (see `NativeProgram`). For display: `wat`."""

    backend: CraneliftBackend

    def __init__(self, backend: CraneliftBackend, unit: Unit, level: int) -> None:
        started = perf_counter_ns()
        super().__init__(backend, unit)
        module = self.lowered.module
        functions, traps = lowered_runtime()
        runtime = {name: (function, name in traps) for name, function in functions.items()}
        lowered_at = perf_counter_ns()
        self._numbers = backend.callbacks.add_calls(self.lowered.host_calls, self.names)
        self._store: Store | None = None
        try:
            self.wasm = emit_unit(
                module, self.traps, runtime, self.sites, backend.intern_text, backend.memory.pages, entries=frozenset(self.signatures),
                table=self.lowered.table, host_numbers=self._numbers,
            )  # fmt: skip
            data = self.wasm.encode()
            emitted_at = perf_counter_ns()
            _check_bodies(self.wasm)
            compiled = compile_module(backend.engine, data)
            compiled_at = perf_counter_ns()
            self._store, self._contexts = backend.link(compiled, self.wasm, module)
            compiled.close()
        except BaseException:
            backend.callbacks.remove_calls(self._numbers)
            raise
        self._free = weakref.finalize(self, _free, self._store, backend.callbacks, self._numbers)
        self._free.atexit = False
        done = perf_counter_ns()
        self.timings = {"lower": lowered_at - started, "emit": emitted_at - lowered_at, "compile": compiled_at - emitted_at, "link": done - compiled_at}

    @property
    def stack_budget(self) -> int:
        """A frame is charged by an upper bound (`polls.frame_bytes`), often several times what it takes. The engine's own check must come later."""
        return min(STACK_FACTOR * self.backend.host.limits.stack, ENGINE_STACK - STACK_SLACK)

    def run(self, function: str, words: list[int], is_nested: bool) -> tuple[int, int]:
        assert self._store is not None, "the program is closed"
        values = (ctypes.c_int64 * (2 * max(len(words), 2)))()
        values[: 2 * len(words) : 2] = words
        budget = self.heap.read_word(STACK_LIMIT) if is_nested else self.stack_budget
        status = self._store.call(self._contexts[function], values, budget, stack_floor(), self.heap.base + STACK_LIMIT)
        if status == 0 and function in self.may_trap:
            status = values[2] & 0xFFFFFFFF  # the engine writes four bytes
        return status, values[0]

    def failure(self, status: int) -> BaseException:
        if status != ENGINE_FAILED:
            return super().failure(status)
        assert self._store is not None, "the program is closed"
        is_stack, text = self._store.failure()
        return bare_trap("stack_overflow") if is_stack else RuntimeError(f"the Cranelift back end failed, which is a bug of simple_magic: {text}")

    def native_code(self, function: str) -> NativeCode:
        """The code always returns a status, since the engine may stop a call."""
        params, result = self.signatures[function]
        address = _native_call(tuple(machine_type(t) for t in params), machine_type(result), function in self.may_trap)
        return NativeCode(address, ctypes.addressof(self._contexts[function]), True)

    @property
    def wat(self) -> str:
        """The unit as WebAssembly text."""
        return self.wasm.to_text()

    def close(self) -> None:
        self._free()
        self._store = None


def _check_bodies(module: wasm.Module) -> None:
    for function in module.functions:
        if len(function.type.params) > MOST_PARAMETERS:
            raise LoweringError([Diagnostic("E0607", f"`{function.comment}` has {len(function.type.params)} parameters; the Cranelift back end takes {MOST_PARAMETERS}",
                                            help="pass an array or a struct, or use the llvm back end")])  # fmt: skip
        if len(function.code) > wasm.LARGEST_BODY // 12:
            raise LoweringError([Diagnostic("E0607", f"`{function.comment}` is too large for the Cranelift back end",
                                            help="split the function, or use the llvm back end")])  # fmt: skip


def _free(store: Store, callbacks: Callbacks, numbers: tuple[int, ...]) -> None:
    """Free what a program holds outside of itself."""
    store.close()
    callbacks.remove_calls(numbers)


class CraneliftBackend(NativeBackend[CraneliftProgram]):
    """The Cranelift engine of one manager; see the module docstring. Optimisation levels are taken, and make no difference: Cranelift always optimises."""

    name = "cranelift-jit"

    def __init__(self, host: Host) -> None:
        self.engine = new_engine()
        try:
            self.memory = LinearMemory(self.engine, host.limits.memory)
        except (wasmtime.WasmtimeError, OverflowError) as error:
            raise LoweringError(
                [Diagnostic("E0608", f"there is no room for a heap of {host.limits.memory} bytes: {error}", help="lower Limits.memory")]
            ) from None
        super().__init__(host, Heap(self.memory))
        self._flag = getattr(host, "flag", None)
        if self._flag is not None:
            self._flag.mirror(self.memory.base + FLAG)
        text = support_text(platform().header, self.heap.base, self.memory.base + FLAG, self.callbacks)
        self._support, _ = compile_text(text, QUICK, ("poll", "host"))
        self._addresses = {**LIBM, **self._support.addresses}
        module, data = _runtime_code(self.memory.pages)
        self._runtime_imports = [item.name for item in module.imports]
        self._runtime = compile_module(self.engine, data, keep=True)
        self._is_closed = False

    def make_program(self, unit: Unit, level: int) -> CraneliftProgram:
        return CraneliftProgram(self, unit, level)

    def link(self, compiled: wasmtime.Module, module: wasm.Module, lowered: Module) -> tuple[Store, dict[str, Context]]:
        """Return a store with an instance of a unit, and the contexts of its exported functions."""
        store = Store(self.engine, self.memory)
        host = {name: store.host_function(self._addresses[name], HOST_TYPES[name]) for name in {*self._runtime_imports, *host_functions(lowered)}}
        runtime = store.instantiate(self._runtime, [host[name] for name in self._runtime_imports])
        imports = [host[item.name] if item.module == "host" else store.export(runtime, item.name) for item in module.imports]
        instance = store.instantiate(compiled, imports)
        exported = [(source.name, made.export) for source, made in zip(lowered.functions, module.functions) if made.export is not None]
        return store, {name: store.context(store.export(instance, export)) for name, export in exported}

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.close_programs()
        self._runtime.close()
        self.callbacks.close()
        if self._flag is not None:
            self._flag.forget_mirror(self.memory.base + FLAG)
        self.heap.close()
        self._support.close()
        self.engine.close()


# The native call path

_native_code: list[Code] = []
"""Code that lives as long as the process: one piece per signature."""


@cache
def _native_call(params: tuple[Type, ...], result: Type, has_status: bool) -> int:
    """Return the address of the code that calls functions of a machine signature."""
    code, _ = compile_text(call_text(params, result, has_status), NO_PASSES, ("invoke",))
    _native_code.append(code)
    return code.addresses["invoke"]


def call_text(params: tuple[Type, ...], result: Type, has_status: bool) -> str:
    """Return the IR of `{result, i32} invoke(parameters..., context)`."""
    lines = []
    for index, t in enumerate(params):
        kind, value = LLVM_TYPES[t], f"%a{index}"
        if kind.startswith("i") and kind != "i64":
            lines.append(f"  %w{index} = {'sext' if is_signed(t) else 'zext'} {kind} {value} to i64")
            kind, value = "i64", f"%w{index}"
        lines.append(f"  %p{index} = getelementptr i8, ptr %values, i64 {VALUE_SIZE * index}")
        lines.append(f"  store {kind} {value}, ptr %p{index}")
    t = LLVM_TYPES[result]
    arguments = "".join(f"{LLVM_TYPES[p]} %a{index}, " for index, p in enumerate(params))
    memory = "i32" if wasm_type(result) == wasm.I32 else t
    narrow = f"  %value = {'bitcast' if memory == t else 'trunc'} {memory} %raw to {t}"
    status = "  %own = load i32, ptr %second" if has_status else "  %own = add i32 0, 0"
    return f"""{platform().header}
define {{ {t}, i32 }} @invoke({arguments}ptr %context) {{
  %values = alloca [{max(len(params), 2)} x [{VALUE_SIZE} x i8]], align 16
  %second = getelementptr i8, ptr %values, i64 {VALUE_SIZE}
{chr(10).join(lines)}
  %engine = call i32 {function_at(call_address())}(ptr %context, ptr %values, i64 {max(len(params), 2)})
  %raw = load {memory}, ptr %values
{narrow}
{status}
  %failed = icmp ne i32 %engine, 0
  %status = select i1 %failed, i32 %engine, i32 %own
  %half = insertvalue {{ {t}, i32 }} zeroinitializer, {t} %value, 0
  %both = insertvalue {{ {t}, i32 }} %half, i32 %status, 1
  ret {{ {t}, i32 }} %both
}}
"""

"""Wasmtime, as the Cranelift back end uses it: engines, linear memory, compiled modules, instances, calls without conversions.

The Python API of wasmtime converts every argument and takes 29 microseconds a call; here calls go to `wasmtime_func_call_unchecked`, over blocks of
raw values, through small functions emitted with LLVM (JIT 1.2). What wasmtime keeps behind an underscore and this module needs: `_ffi`, the functions
and structures of its C API, and `Store._context`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from ..mir.diagnostics import Diagnostic, LoweringError
from . import wasm
from .heap import SMALLEST
from .worker import run_in_worker

LARGEST_MEMORY = 65_535 * wasm.PAGE
"""Bytes that 32-bit addresses reach, but for the last page."""
ENGINE_STACK = 6 << 20
"""Bytes of stack at which the engine's own check stops a program, should ours ever be wrong; within the stack that main threads usually have."""
VALUE_SIZE = 16
"""Bytes of a raw value in a block of arguments and results."""

_TYPES = {wasm.I32: wasmtime.ValType.i32, wasm.I64: wasmtime.ValType.i64, wasm.F32: wasmtime.ValType.f32, wasm.F64: wasmtime.ValType.f64}


def new_engine() -> wasmtime.Engine:
    """Return an engine of its own: 64-bit checks by guard pages, one thread per compilation (a pool would not survive a fork)."""
    config = wasmtime.Config()
    config.wasm_threads = True
    config.shared_memory = True
    config.parallel_compilation = False
    config.native_unwind_info = sys.platform == "win32"
    # Nothing runs asynchronously here, but the engine ends the process if this other stack is the smaller one.
    ffi.wasmtime_config_async_stack_size_set(config.ptr(), ENGINE_STACK)
    config.max_wasm_stack = ENGINE_STACK
    return wasmtime.Engine(config)


class LinearMemory:
    """A shared linear memory of at least `limit_bytes`, which every instance of a back end imports. Raises: wasmtime.WasmtimeError, OverflowError."""

    reaches_host = False

    def __init__(self, engine: wasmtime.Engine, limit_bytes: int) -> None:
        size = max(limit_bytes, SMALLEST)
        if size > LARGEST_MEMORY:
            raise OverflowError(f"the Cranelift back end reaches at most {LARGEST_MEMORY} bytes")
        self.pages = -(-size // wasm.PAGE)
        limits = wasmtime.Limits(self.pages, self.pages)
        self.shared = wasmtime.SharedMemory(engine, wasmtime.MemoryType(limits, shared=True))
        self.base = ctypes.cast(self.shared.data_ptr(), ctypes.c_void_p).value or 0
        self.bytes = memoryview((ctypes.c_char * (self.pages * wasm.PAGE)).from_address(self.base)).cast("B")

    def discard(self, start: int, size: int) -> None:
        if sys.platform == "linux":  # elsewhere pages keep their contents
            ctypes.CDLL(None).madvise(ctypes.c_void_p(self.base + start), ctypes.c_size_t(size), 4)

    def close(self) -> None:
        self.bytes.release()
        self.shared.close()


_compiled: dict[tuple[bytes, int], bytes] = {}
"""Compiled artefacts of modules that every back end needs, by their bytes."""


def compile_module(engine: wasmtime.Engine, data: bytes, keep: bool = False) -> wasmtime.Module:
    """Return the machine code of a module. keep: remember it for other engines. Raises: LoweringError, KeyboardInterrupt."""
    key = data, 0

    def work() -> wasmtime.Module:
        try:
            known = _compiled.get(key)
            if known is not None:
                return wasmtime.Module.deserialize(engine, known)
            module = wasmtime.Module(engine, data)
        except wasmtime.WasmtimeError as error:
            raise LoweringError([Diagnostic("E0607", f"Cranelift refused the unit: {str(error)[:500]}")]) from error
        if keep:
            _compiled[key] = bytes(module.serialize())
        return module

    return run_in_worker(work, lambda module: module.close())


# Native helpers, compiled once per process


@cache
def _helpers() -> Mapping[str, int]:
    """Return the addresses of the adapters between raw values and C, and of `enter`."""
    from .llvm_jit import QUICK, compile_text, platform

    def adapter(name: str, params: Sequence[str], result: str) -> str:
        loads = "".join(f"  %p{i} = getelementptr i8, ptr %values, i64 {VALUE_SIZE * i}\n  %a{i} = load {t}, ptr %p{i}\n" for i, t in enumerate(params))
        arguments = ", ".join(f"{t} %a{i}" for i, t in enumerate(params))
        store = "  %wide = zext i32 %r to i64\n  store i64 %wide, ptr %values\n" if result == "i32" else f"  store {result} %r, ptr %values\n"
        return f"""define ptr @{name}(ptr %target, ptr %caller, ptr %values, i64 %count) {{
{loads}  %r = call {result} %target({arguments})
{store}  ret ptr null
}}
"""

    call = ctypes.cast(ffi.dll.wasmtime_func_call_unchecked, ctypes.c_void_p).value
    text = platform().header + f"""
declare ptr @llvm.frameaddress.p0(i32)
declare i64 @llvm.usub.sat.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
{"".join(adapter(adapter_name(t), [_LLVM[p] for p in t.params], _LLVM[t.results[0]]) for t in HOST_SIGNATURES)}
define i32 @enter(ptr %context, ptr %values, i64 %count, i64 %budget, i64 %floor, ptr %stack_word) {{
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %here = ptrtoint ptr %frame to i64
  %low = call i64 @llvm.usub.sat.i64(i64 %here, i64 %budget)
  %limit = call i64 @llvm.umax.i64(i64 %low, i64 %floor)
  %left = call i64 @llvm.usub.sat.i64(i64 %here, i64 %limit)
  store i64 %left, ptr %stack_word
  %status = call i32 @call(ptr %context, ptr %values, i64 %count)
  ret i32 %status
}}
define i32 @call(ptr %context, ptr %values, i64 %count) {{
  %store = load ptr, ptr %context
  %function = getelementptr i8, ptr %context, i64 8
  %cell.p = getelementptr i8, ptr %context, i64 24
  %cell = load ptr, ptr %cell.p
  store ptr null, ptr %cell
  %error = call ptr inttoptr (i64 {call} to ptr)(ptr %store, ptr %function, ptr %values, i64 %count, ptr %cell)
  %trap = load ptr, ptr %cell
  %is_fine = icmp eq ptr %error, null
  %no_trap = icmp eq ptr %trap, null
  %all_fine = and i1 %is_fine, %no_trap
  %error.p = getelementptr i8, ptr %cell, i64 8
  store ptr %error, ptr %error.p
  %status = select i1 %all_fine, i32 0, i32 {ENGINE_FAILED}
  ret i32 %status
}}
"""
    code, _ = compile_text(text, QUICK, ["enter", "call", *map(adapter_name, HOST_SIGNATURES)])
    _kept.append(code)
    return dict(code.addresses)


_kept: list[object] = []
"""Code that lives as long as the process."""
ENGINE_FAILED = -1
"""The status of a call that the engine itself stopped; `Instances.failure` says why."""
_LLVM = {wasm.I32: "i32", wasm.I64: "i64", wasm.F32: "float", wasm.F64: "double"}

_I, _D, _F = wasm.I64, wasm.F64, wasm.F32
HOST_SIGNATURES = (
    wasm.FuncType((_I,), (wasm.I32,)), wasm.FuncType((_I, _I, _I), (wasm.I32,)), wasm.FuncType((_D,), (_D,)), wasm.FuncType((_D, _D), (_D,)),
    wasm.FuncType((_D, _D, _D), (_D,)), wasm.FuncType((_F, _F, _F), (_F,)),
)  # fmt: skip
"""The types of C functions that programs can import."""


def adapter_name(t: wasm.FuncType) -> str:
    return f"adapt_{'_'.join((*t.params, *t.results))}"


def call_address() -> int:
    """Return the address of `i32 call(context, values, count)`, for callers that have set the stack limit word."""
    return _helpers()["call"]


class Context(ctypes.Structure):
    """What a call of one function needs: where it is, and the cell of its store for failures, {trap, error}."""

    _fields_ = [("store", ctypes.c_void_p), ("function", ctypes.c_uint8 * 16), ("cell", ctypes.c_void_p)]


_ENTER = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p
)


@cache
def _enter() -> Any:  # a function of ctypes
    return _ENTER(_helpers()["enter"])


_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))


class Store:
    """A store with instances in it, closed as one."""

    def __init__(self, engine: wasmtime.Engine, memory: LinearMemory) -> None:
        self._store = wasmtime.Store(engine)
        self._context = self._store._context()
        self._memory = memory
        self._cell = (ctypes.c_void_p * 2)()

    def host_function(self, address: int, t: wasm.FuncType) -> ffi.wasmtime_extern_t:
        """Return a C function at an address as something to import."""
        func_type = wasmtime.FuncType([_TYPES[p]() for p in t.params], [_TYPES[r]() for r in t.results])
        callback = ctypes.cast(_helpers()[adapter_name(t)], ffi.wasmtime_func_unchecked_callback_t)
        made = ffi.wasmtime_extern_t()
        made.kind = ffi.WASMTIME_EXTERN_FUNC
        ffi.wasmtime_func_new_unchecked(self._context, func_type.ptr(), callback, ctypes.c_void_p(address), _NO_FINALIZER, ctypes.byref(made.of.func))
        return made

    def instantiate(self, module: wasmtime.Module, imports: Sequence[ffi.wasmtime_extern_t]) -> ffi.wasmtime_instance_t:
        """Return an instance of a module that imports the memory first."""
        externs = (ffi.wasmtime_extern_t * (len(imports) + 1))()
        pointer = self._memory.shared.ptr()
        externs[0].kind = ffi.WASMTIME_EXTERN_SHAREDMEMORY
        externs[0].of.sharedmemory = pointer
        for index, item in enumerate(imports, 1):
            externs[index] = item
        instance, trap = ffi.wasmtime_instance_t(), ctypes.POINTER(ffi.wasm_trap_t)()
        error = ffi.wasmtime_instance_new(self._context, module.ptr(), externs, len(externs), ctypes.byref(instance), ctypes.byref(trap))
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        assert not trap, "instantiating runs no code that can trap"
        return instance

    def export(self, instance: ffi.wasmtime_instance_t, name: str) -> ffi.wasmtime_extern_t:
        """Return an exported function."""
        found, encoded = ffi.wasmtime_extern_t(), name.encode("utf-8", "replace")
        is_there = ffi.wasmtime_instance_export_get(self._context, ctypes.byref(instance), encoded, len(encoded), ctypes.byref(found))
        assert is_there, f"the module exports {name}"
        return found

    def context(self, function: ffi.wasmtime_extern_t) -> Context:
        """Return what calls of an exported function need."""
        made = Context(store=ctypes.cast(self._context, ctypes.c_void_p), cell=ctypes.addressof(self._cell))
        ctypes.memmove(ctypes.addressof(made) + Context.function.offset, ctypes.addressof(function.of.func), 16)
        return made

    def call(self, context: Context, values: ctypes.Array, budget: int, floor: int, stack_word: int) -> int:
        """Call with raw values, at least one; return 0 or ENGINE_FAILED. The stack may be used as with LLVM's entries (`llvm_calls.entry_text`)."""
        return _enter()(ctypes.addressof(context), ctypes.addressof(values), len(values) * 8 // VALUE_SIZE, budget, floor, stack_word)

    def failure(self) -> tuple[bool, str]:
        """Return what stopped the last call: whether it was the end of the stack, and a text."""
        trap, error = self._cell
        self._cell[0] = self._cell[1] = None
        if error:
            return False, str(wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t))))
        found = wasmtime.Trap._from_ptr(ctypes.cast(trap, ctypes.POINTER(ffi.wasm_trap_t)))
        return found.trap_code == wasmtime.TrapCode.STACK_OVERFLOW, found.message

    def close(self) -> None:
        self._store.close()

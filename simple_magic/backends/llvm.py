"""The LLVM back end: lowered MIR as machine code in this process.

A unit is lowered (`passes/lower.py`), printed as IR (`llvm_rules.py`), compiled (`llvm_jit.py`) and called over words in the back end's one `Heap`.
Addresses (heap, flag word, runtime, libm) are constants in the code, so code belongs to its back end. The runtime (`runtime/library.py`) is compiled
once per back end, each function when a unit first needs it. The protocol of the functions is that of `native.py`.

Entries, one per machine signature, take a target and a block of words: arguments, then room for the result.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable
from functools import cached_property
from time import perf_counter_ns

from ..mir.diagnostics import Diagnostic, LoweringError
from ..mir.model import Module
from ..mir.types import Type
from ..runtime.layout import STACK_LIMIT, machine_type
from .base import Host, Unit
from .callbacks import Callbacks, stack_floor
from .heap import Heap, MappedMemory
from .llvm_calls import EntryFunction, entry_text, support_text
from .llvm_emit import Callee, Surroundings, function_at
from .llvm_jit import FOR_RUNTIME, NO_PASSES, QUICK, Code, Pipeline, Views, choose_pipeline, compile_text, platform, view_text
from .llvm_rules import emit_unit, emitted_size
from .native import PUSH_FRAME, NativeBackend, NativeCode, NativeProgram, argument_block, lowered_runtime, runtime_callees
from .numbers import LIBM
from .traps import SiteTable


class LlvmProgram(NativeProgram):
    """A compiled unit (see `NativeProgram`). For display: `llvm_ir`, `optimized_ir`, `assembly`, `object_code`, `pipeline`."""

    backend: LlvmBackend

    def __init__(self, backend: LlvmBackend, unit: Unit, level: int) -> None:
        started = perf_counter_ns()
        super().__init__(backend, unit)
        lowered_at = perf_counter_ns()
        module = self.lowered.module
        surroundings = backend.surroundings(runtime_callees(module.functions))
        runtime_at = perf_counter_ns()
        self._numbers = backend.callbacks.add_calls(self.lowered.host_calls, self.names)
        self._code: Code | None = None
        try:
            entries = frozenset(self.signatures)
            emitted = emit_unit(
                module, self.traps, surroundings, self.sites, entries=entries, table=self.lowered.table, host_numbers=self._numbers,
            )  # fmt: skip
            self._text, self._symbols = emitted.text, {name: emitted.symbols[name] for name in self.signatures}
            emitted_at = perf_counter_ns()
            self.pipeline = choose_pipeline(level, map(emitted_size, module.functions))
            self._code, timings = compile_text(self._text, self.pipeline, self._symbols.values())
        except BaseException:
            backend.callbacks.remove_calls(self._numbers)
            raise
        self._free = weakref.finalize(self, _free, self._code, backend.callbacks, self._numbers)
        self._free.atexit = False
        self.timings = {"lower": lowered_at - started, "runtime": runtime_at - lowered_at, "emit": emitted_at - runtime_at, **timings}

    def address(self, function: str) -> int:
        """Return the address of a function of the unit."""
        assert self._code is not None, "the program is closed"
        return self._code.addresses[self._symbols[function]]

    def native_code(self, function: str) -> NativeCode:
        return NativeCode(self.address(function), 0, function in self.may_trap)

    def run(self, function: str, words: list[int], is_nested: bool) -> tuple[int, int]:
        params, result = self.signatures[function]
        entry = self.backend.entry(tuple(machine_type(t) for t in params), machine_type(result), function in self.may_trap)
        block = argument_block(words)
        if is_nested:
            budget, floor = (1 << 64) - 1, self.heap.read_word(STACK_LIMIT)
        else:
            budget, floor = self.backend.host.limits.stack, stack_floor()
        status = entry(self.address(function), ctypes.addressof(block), budget, floor)
        return status, block[len(words)]

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


class LlvmBackend(NativeBackend[LlvmProgram]):
    """The LLVM engine of one manager; see the module docstring."""

    name = "llvm-jit"

    def __init__(self, host: Host) -> None:
        try:
            heap = Heap(MappedMemory(host.limits.memory))
        except (OSError, OverflowError, ValueError) as error:
            raise LoweringError(
                [Diagnostic("E0608", f"there is no room for a heap of {host.limits.memory} bytes: {error}", help="lower Limits.memory")]
            ) from None
        super().__init__(host, heap)
        self._own_flag = ctypes.c_int64(0)
        self._flag = getattr(host, "flag_address", None) or ctypes.addressof(self._own_flag)
        header = platform().header
        self._pieces: list[Code] = []
        self._entries: dict[tuple[tuple[Type, ...], Type, bool], Callable[[int, int, int, int], int]] = {}
        support = self._compile(support_text(header, self.heap.base, self._flag, self.callbacks), ("poll", "host"))
        self._runtime: dict[str, Callee] = {}
        self._surroundings = Surroundings(
            header, self.heap.base, self._flag, support["poll"], support["host"], self._runtime, LIBM, platform().has_fma, self.intern_text,
        )  # fmt: skip

    def make_program(self, unit: Unit, level: int) -> LlvmProgram:
        return LlvmProgram(self, unit, level)

    def _compile(self, text: str, symbols: Iterable[str], pipeline: Pipeline = QUICK) -> dict[str, int]:
        """Compile code that lives as long as the back end; return its addresses."""
        code, _ = compile_text(text, pipeline, symbols)
        self._pieces.append(code)
        return code.addresses

    def surroundings(self, needed: set[str]) -> Surroundings:
        """Return what code of this back end is made for, with these runtime functions."""
        self._compile_runtime({PUSH_FRAME, *needed})
        return self._surroundings

    def _compile_runtime(self, needed: set[str]) -> None:
        functions, traps = lowered_runtime()
        todo, wanted = list(needed), {}
        while todo:
            name = todo.pop()
            if name not in wanted and name not in self._runtime:
                wanted[name] = functions[name]
                todo += runtime_callees((functions[name],))
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

    def close(self) -> None:
        """Free memory and code. Closing twice is fine."""
        self.close_programs()
        self._entries.clear()
        for code in self._pieces:
            code.close()
        self._pieces.clear()
        self._runtime.clear()
        self.callbacks.close()
        self.heap.close()

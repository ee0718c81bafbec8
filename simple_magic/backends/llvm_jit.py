"""From LLVM IR text to machine code: parse, verify, optimise, generate, link.

One target machine per optimisation setting generates code for the whole process; each piece of code gets a small engine of its own, with a machine of
its own (two engines must not share one), and both vanish when it is closed. IR lives in a context of its own for just as long as it is compiled, since
a context keeps every constant it has ever seen.

LLVM runs in a worker thread: the thread that waits for it stays open to signals. What an interrupted wait leaves behind is thrown away when it is
done.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import llvmlite.binding as llvm
from llvmlite.binding.newpassmanagers import NewPassManager

from ..mir.diagnostics import Diagnostic, LoweringError, printable
from .worker import run_in_worker

T = TypeVar("T")


@dataclass(frozen=True)
class Pipeline:
    """How to optimise. name: for display; codegen: the level of the code generator; passes: names in PASSES, or None for those of O2."""

    name: str
    codegen: int
    passes: tuple[str, ...] | None
    vectorise: bool = False


PASSES: dict[str, Callable[[Any], None]] = {
    "sroa": lambda manager: manager.add_sroa_pass(),
    "instcombine": lambda manager: manager.add_instruction_combine_pass(),
    "simplifycfg": lambda manager: manager.add_simplify_cfg_pass(),
}
"""Passes by name: what adds one to a pass manager."""

NO_PASSES = Pipeline("none", 0, ())
PLAIN = Pipeline("sroa, simplifycfg", 1, ("sroa", "simplifycfg"))
QUICK = Pipeline("sroa, instcombine, simplifycfg", 1, ("sroa", "instcombine", "simplifycfg"))
SCALAR = Pipeline("O2 without vectorisation", 1, None)
FULL = Pipeline("O2", 2, None, vectorise=True)
FOR_RUNTIME = Pipeline("O2 without vectorisation", 2, None)
"""The runtime's loops are short or dominated by memory: vectorising them would only cost time at the first cell."""

LARGEST_FULL, LARGEST_SCALAR, LARGEST_QUICK = 5_000, 15_000, 40_000
"""Instructions, after lowering, of the largest unit for which a pipeline is worth its time: a few seconds."""
MOST_SQUARED_BLOCKS = 3_000_000
"""instcombine sinks a value that only the end of a function needs through one block after the other, so it takes time in the square of the blocks."""
MOST_GENERATED_BLOCKS = 60_000_000
"""So does the code generator when it optimises, with a smaller factor: the same sum of squares."""


def choose_pipeline(level: int, functions: Iterable[tuple[int, int]]) -> Pipeline:
    """Return the pipeline of optimisation level 0..3 for functions of (blocks, instructions), so that compiling takes seconds at most."""
    sizes = list(functions)
    instructions = sum(count for _, count in sizes)
    squared = sum(blocks * blocks for blocks, _ in sizes)
    if level == 0 or instructions > LARGEST_QUICK or squared > MOST_GENERATED_BLOCKS:
        return NO_PASSES
    if squared > MOST_SQUARED_BLOCKS:
        return PLAIN
    if level == 1 or instructions > LARGEST_SCALAR:
        return QUICK
    return SCALAR if instructions > LARGEST_FULL else FULL


@dataclass(frozen=True)
class Platform:
    """The processor that code is made for."""

    target: Any  # llvmlite has no types.
    cpu: str
    features: str
    header: str
    has_fma: bool


@cache
def platform() -> Platform:
    """Return this machine; looked at once."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features()
    layout = target.create_target_machine(jit=True).target_data
    header = f'target datalayout = "{layout}"\ntarget triple = "{target.triple}"\n'
    has_fma = features.get("fma", False) or target.triple.startswith(("aarch64", "arm64"))
    return Platform(target, llvm.get_host_cpu_name(), features.flatten(), header, has_fma)


def _new_machine(codegen: int) -> Any:  # llvmlite has no types.
    here = platform()
    return here.target.create_target_machine(cpu=here.cpu, features=here.features, opt=codegen, jit=True)


_machine = cache(_new_machine)


class _PassBuilder:
    """A pass builder for some runs: llvmlite leaks a part of each builder, and each run leaves callbacks behind in it."""

    RUNS = 32

    def __init__(self, codegen: int, vectorise: bool) -> None:
        self._codegen, self._vectorise = codegen, vectorise
        self._builder: Any = None  # llvmlite has no types.
        self._runs = 0

    def get(self) -> Any:  # llvmlite has no types.
        """Return the builder, a new one from time to time."""
        if self._runs % self.RUNS == 0:
            tuning = llvm.create_pipeline_tuning_options(2)
            tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = self._vectorise
            self._builder = llvm.create_pass_builder(_machine(self._codegen), tuning)
        self._runs += 1
        return self._builder


_pass_builder = cache(_PassBuilder)


def _optimise(module: Any, pipeline: Pipeline) -> None:  # llvmlite has no types.
    if pipeline.passes == ():
        return
    builder = _pass_builder(pipeline.codegen, pipeline.vectorise).get()
    if pipeline.passes is None:
        manager = builder.getModulePassManager()
    else:
        manager = llvm.create_new_module_pass_manager()
        for name in pipeline.passes:
            PASSES[name](manager)
    manager.run(module, builder)
    # llvmlite derives its pass managers from two classes of which the first hides how the second frees them.
    if type(manager)._dispose is llvm.ffi.ObjectRef._dispose:
        NewPassManager._dispose(manager)
        manager.detach()
    else:
        manager.close()


@dataclass(frozen=True)
class Views:
    """What a person may want to see of a compilation."""

    optimized_ir: str
    assembly: str


class _Timer:
    """Nanoseconds by stage."""

    def __init__(self) -> None:
        self.timings: dict[str, int] = {}
        self._start = time.perf_counter_ns()

    def done(self, stage: str) -> None:
        now = time.perf_counter_ns()
        self.timings[stage] = now - self._start
        self._start = now


_compiling = threading.RLock()
"""Held while LLVM works: its pass builders are shared, and a fork must not copy a process whose LLVM is half way."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release)


def _generate(text: str, pipeline: Pipeline, timer: _Timer, make: Callable[[Any, Any], T]) -> T:
    """Return `make(machine, module)` of the optimised module."""
    context = llvm.create_context()
    module = None
    try:
        module = llvm.parse_assembly(text, context)
        timer.done("parse")
        module.verify()
        timer.done("verify")
        _optimise(module, pipeline)
        timer.done("optimise")
        made = make(_machine(pipeline.codegen), module)
        timer.done("codegen")
        return made
    except RuntimeError as error:
        raise LoweringError([Diagnostic("E0607", f"LLVM refused the unit: {printable(str(error))[:500]}")]) from error
    finally:
        if module is not None:
            module.close()
        context.close()


class Code:
    """Machine code in memory: addresses by LLVM symbol, until it is closed."""

    def __init__(self, object_code: bytes, symbols: Iterable[str]) -> None:
        self.object_code = object_code
        empty = llvm.parse_assembly("")
        self._engine = llvm.create_mcjit_compiler(empty, _new_machine(0))
        with llvm.ObjectFileRef.from_data(object_code) as piece:
            self._engine.add_object_file(piece)
        self._engine.finalize_object()
        self.addresses = {symbol: self._engine.get_function_address(symbol) for symbol in symbols}
        missing = [symbol for symbol, address in self.addresses.items() if not address]
        assert not missing, f"no code for {missing}"

    def close(self) -> None:
        """Free the code. Closing twice is fine."""
        self.addresses.clear()
        self._engine.close()


def compile_text(text: str, pipeline: Pipeline, symbols: Iterable[str]) -> tuple[Code, dict[str, int]]:
    """Return the code of an IR module and the nanoseconds of each stage. Raises: LoweringError, KeyboardInterrupt."""

    def work() -> tuple[Code, dict[str, int]]:
        with _compiling:
            timer = _Timer()
            object_code = _generate(text, pipeline, timer, lambda machine, module: machine.emit_object(module))
            code = Code(object_code, symbols)
            timer.done("link")
            return code, timer.timings

    return run_in_worker(work, lambda made: made[0].close())


def view_text(text: str, pipeline: Pipeline) -> Views:
    """Return what becomes of an IR module. Raises: LoweringError, KeyboardInterrupt."""

    def work() -> Views:
        with _compiling:
            return _generate(text, pipeline, _Timer(), lambda machine, module: Views(str(module), machine.emit_assembly(module)))

    return run_in_worker(work, lambda _views: None)

"""Run one function in every combination of back end, optimisation level and semantics model, and say where the answers differ.

Each combination runs on its own copy of the globals, so that no run can see another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ..mir.diagnostics import Trap
from ..passes.semantics import MODELS
from .defaults import ENGINE_NAMES
from .manager import LocalExecutionManager
from .results import ExecutionResult

ENGINES: tuple[tuple[str, int], ...] = (("interpreter", 0), ("llvm", 0), ("llvm", 2), *((("cranelift", 2),) if find_spec("wasmtime") else ()))
"""The executors that a comparison takes by default: back end and optimisation level."""


@dataclass(frozen=True)
class Run:
    """One cell of a comparison."""

    backend: str
    opt_level: int
    semantics: str
    result: ExecutionResult

    @property
    def executor(self) -> str:
        name = ENGINE_NAMES[self.backend]
        return name if self.backend == "interpreter" else f"{name} O{self.opt_level}"

    @property
    def is_timeout(self) -> bool:
        return self.result.trap is not None and self.result.trap.kind == "timeout"

    @property
    def answer(self) -> str:
        """The value, or the trap's kind and line."""
        trap = self.result.trap
        if trap is None:
            return repr(self.result.value)
        return f"trap {trap.kind}" + (f" (line {trap.span.line})" if trap.span else "")


@dataclass(frozen=True)
class Comparison:
    """All runs of one comparison, grouped by semantics model in the order asked for."""

    name: str
    args: tuple[object, ...]
    runs: tuple[Run, ...]

    def of_model(self, semantics: str) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.semantics == semantics)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.semantics for run in self.runs))

    @property
    def executors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.executor for run in self.runs))

    def differing(self) -> tuple[str, ...]:
        """Return the models under which two executors do not agree: always empty, unless a back end is wrong. A run that timed out has no answer."""
        ended = {m: [run for run in self.of_model(m) if not run.is_timeout] for m in self.models}
        return tuple(m for m, runs in ended.items() if any(not same_outcome(runs[0], run) for run in runs))


def same_outcome(a: Run, b: Run) -> bool:
    """Return whether two runs gave the same value bits, output, and trap kind and origin (limits: the kind alone)."""
    if a.result.stdout != b.result.stdout:
        return False
    return same_value(a.result.value, b.result.value) and _same_trap(a.result.trap, b.result.trap)


def _same_trap(a: Trap | None, b: Trap | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.kind == b.kind and a.origin == b.origin


def same_value(a: object, b: object) -> bool:
    """Return whether two results are the same: floats by sign and value with NaN equal to NaN, containers and records by content."""
    todo: list[tuple[Any, Any]] = [(a, b)]
    seen: set[tuple[int, int]] = set()
    while todo:
        x, y = todo.pop()
        if type(x) is not type(y):
            return False
        if isinstance(x, float):
            if not (x == y and math.copysign(1, x) == math.copysign(1, y)) and not (math.isnan(x) and math.isnan(y)):
                return False
            continue
        if (id(x), id(y)) in seen:
            continue
        if isinstance(x, (list, tuple)):
            seen.add((id(x), id(y)))
            if len(x) != len(y):
                return False
            todo.extend(zip(x, y))
        elif isinstance(x, dict):
            seen.add((id(x), id(y)))
            if list(x) != list(y):
                return False
            todo.extend(zip(x.values(), y.values()))
        elif hasattr(x, "__dict__"):
            seen.add((id(x), id(y)))
            todo.append((vars(x), vars(y)))
        elif x != y:
            return False
    return True


def compare(manager: LocalExecutionManager, name: str, args: Sequence[object] = (), *, engines: Sequence[tuple[str, int]] = ENGINES,
            models: Sequence[str] | None = None, fuel: int | None = None, timeout: float | None = None) -> Comparison:  # fmt: skip
    """Run `name(*args)` on every engine under every model (default: all) and return what came out. Raises: MirError, TypeError.

    fuel and timeout bound each run.
    """
    runs = []
    for semantics in models or tuple(MODELS):
        for backend, level in engines:
            with manager.fork(backend) as copy:
                result = copy.execute_captured(name, *args, semantics=semantics, opt_level=level, fuel=fuel, timeout=timeout)
            runs.append(Run(backend, level, semantics, result))
    return Comparison(name, tuple(args), tuple(runs))

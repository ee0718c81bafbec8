"""Random well-typed programs that end, driven by the opcode table.

Every choice goes through a `Chooser`: of numbers from a seed (fast, for many programs) or of a property testing library (which shrinks them). Programs
verify by construction. They end: loops count down, recursion has a guard that counts down. What an operation could trap on (a zero divisor, an index)
is mostly avoided and sometimes not, so that programs get far and traps occur. A part of the batches is scrambled afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..mir.model import Module
from ..passes.semantics import MODELS
from .declare import EXTERNS, Declarations
from .scramble import scramble
from .statements import FunctionWriter
from .values import Chooser, SeededChooser

FUEL = 3000
"""Instructions per call where fuel is counted: most calls need less."""


@dataclass(frozen=True)
class Program:
    """An unresolved module and the calls to make of it, in order: function and argument values."""

    module: Module
    calls: tuple[tuple[str, tuple], ...]


@dataclass(frozen=True)
class Batch:
    """Programs that share no names and are compiled as one unit, the semantics model and the fuel of each call."""

    programs: tuple[Program, ...]
    model: str
    fuel: int | None

    @property
    def module(self) -> Module:
        modules = [p.module for p in self.programs]
        return Module(
            tuple(t for m in modules for t in m.types), tuple(g for m in modules for g in m.globals),
            tuple({e.name: e for m in modules for e in m.externs}.values()), tuple(f for m in modules for f in m.functions),
        )  # fmt: skip


def make_program(chooser: Chooser, size: int = 10, prefix: str = "", has_globals: bool = True, calls: int = 4) -> Program:
    """Return one program. `size` is roughly the number of statements in a function, `calls` the number of calls of each."""
    declared = Declarations(chooser, size, prefix)
    declared.declare(has_globals)
    bodies = tuple(FunctionWriter(declared, index).function() for index in range(len(declared.functions)))
    module = Module(tuple(declared.names.types.values()), tuple(declared.names.globals.values()), EXTERNS, bodies)
    return Program(module, declared.calls(calls))


def make_batch(seed: int, functions: int = 200, calls: int = 60, models: Sequence[str] = tuple(MODELS)) -> Batch:
    """Return the batch of a seed: programs until there are about this many functions. The models take turns."""
    chooser = SeededChooser(seed)
    model = models[seed % len(models)]
    fuel = (None, None, FUEL)[chooser.below(3)]
    has_globals = chooser.below(4) > 0
    is_scrambled = chooser.below(3) == 0
    programs: list[Program] = []
    count = 0
    while count < functions:
        size = (4, 8, 12, 20)[chooser.below(4)]
        program = make_program(chooser, size, f"q{len(programs)}_", has_globals, calls)
        programs.append(replace(program, module=scramble(chooser, program.module)) if is_scrambled else program)
        count += len(programs[-1].module.functions)
    return Batch(tuple(programs), model, fuel)

"""What every executor is, and what it may ask of its manager.

A `Unit` is a closed program: resolved, verified, with the passes for fuel and semantics applied. A back end turns it into a `Program`, whose calls
take and give the values of `values.py`. `Host` is the only way out of a running program: externs, output, interruption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..mir.diagnostics import Origin
from ..mir.model import Module
from ..mir.resolve import Names
from ..mir.types import Type


@dataclass(frozen=True)
class Unit:
    """A closed program, ready for any executor. `key` is its content key; `global_slots` numbers the session's globals."""

    module: Module
    key: str
    global_slots: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Limits:
    """Bounds of one manager, in bytes unless named otherwise."""

    memory: int = 1 << 30
    stack: int = 1 << 20
    frames: int = 100_000
    """Frames of the interpreter."""
    output: int = 10_000_000
    """Characters of output in one outermost call."""
    unit_instructions: int = 200_000
    """Instructions of one unit, as written."""


class Host(Protocol):
    """What a running program may ask for. Everything may raise; the exception surfaces from the outermost call."""

    limits: Limits

    def call_extern(self, name: str, args: Sequence[object], arg_types: Sequence[Type], result: Type, origin: Origin | None = None) -> object:
        """Call the extern with values, return its value. An exception of the host function passes through, with a note that names `origin`."""

    def write(self, text: str) -> None:
        """Append to the output. Raises: Trap output_limit (without an origin)."""

    def poll(self) -> None:
        """Called often. Raises: KeyboardInterrupt, or Trap timeout (without an origin)."""


class Program(Protocol):
    """A compiled unit."""

    def call(self, function: str, args: Sequence[object], fuel: int | None = None) -> object:
        """Call with values. Raises: Trap; whatever an extern raised; KeyboardInterrupt."""

    def close(self) -> None:
        """Free the code; calling afterwards is an error."""


class Backend(Protocol):
    """An executor with its own store of globals, one per manager."""

    name: str
    """"interpreter", "llvm-jit", "cranelift-jit"."""

    def compile(self, unit: Unit, level: int) -> Program:
        """Return the unit as callables. Raises: LoweringError."""

    def read_globals(self, types: Mapping[str, tuple[int, Type]], names: Names) -> dict[str, object]:
        """Return the values of the globals, given (slot, type) by name; objects that are shared stay shared. `names` holds the session's types."""

    def write_globals(self, values: Mapping[str, object], types: Mapping[str, tuple[int, Type]], names: Names) -> None:
        """Replace the store of globals. Those without a value keep theirs, and their objects stay the ones that a running program may hold too."""

    def close(self) -> None:
        """Free memory and code."""

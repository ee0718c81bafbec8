"""The live execution manager: compile cells into a session, run its functions on any back end.

    em = LocalExecutionManager("llvm")
    em.compile(source)                 # MIR text, JSON text or dict, or a Module
    em.execute("main")
    f = em.function("dot"); f(a, b)    # a live callable: redefinitions reach it

A run asks for (function, back end, semantics, optimisation level, fuel or not). The manager takes the unit that holds the function from the session,
applies the passes in the order fuel, semantics, compiles the result with the back end and keeps it under its content key. Globals live in the store
of the back end that ran last and move with a switch.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from typing import Protocol
from warnings import warn

from ..backends.base import Backend, Host, Limits, Program, Unit
from ..backends.engines import INTERNAL_EXTERNS, make_engine
from ..backends.interpreter import zero_value
from ..backends.interrupt import InterruptFlag
from ..backends.isolated import ISOLATED
from ..backends.values import copy_values, detach_lent, from_python, is_lent, to_python
from ..backends.wrapper import CallState
from ..mir.analysis import call_graph, local_types
from ..mir.diagnostics import Diagnostic, LoweringError, MirError, Origin, ParseError, SimpleError, Span, Trap
from ..mir.jsonform import from_json
from ..mir.model import Const, Function, Global, Module, TypeDef
from ..mir.ops import OPS
from ..mir.places import can_hold_array, can_hold_code
from ..mir.resolve import Names, operand_type
from ..mir.text import parse_text
from ..mir.types import Type, format_type
from ..passes.fuel import add_fuel
from ..passes.semantics import MODELS, Site, apply_semantics
from . import externs
from .callables import make_live_callable
from .defaults import ENGINE_NAMES, choose_backend
from .libraries import library_source
from .limits import changed_limits
from .output import Output
from .ownership import Ownership
from .results import CodeInfo, CopiedArrayWarning, ExecutionResult
from .session import Defined, Definition, ResolvedUnit, Session

DEFAULT_SEMANTICS = "reference"
OPT_LEVELS = (0, 1, 2, 3)
MAX_TIMEOUT = 10 * 365 * 24 * 3600.0
"""Seconds: longer than any kernel lives; the system's timers overflow only far beyond."""
UNITS_KEPT = 8
"""How many compiled units are kept although a definition of theirs is no longer current."""
NAMES_SHOWN = 8
"""How many of the newest names a message about an unknown one lists."""


class ExecutionManager(Protocol):
    """What every execution manager offers; `LocalExecutionManager` is the one that runs in this process."""

    @property
    def backend_name(self) -> str: ...
    def compile(self, source: str | Mapping | Module) -> CodeInfo: ...
    def execute(self, name: str, /, *args: object) -> object: ...
    def execute_captured(self, name: str, /, *args: object) -> ExecutionResult: ...
    def has_function(self, name: str) -> bool: ...
    def cleanup(self) -> None: ...


@dataclass(frozen=True)
class RunOptions:
    """How to run: back end (short name), semantics model, optimisation level, whether fuel is counted, and whether in a child process."""

    backend: str
    semantics: str
    opt_level: int
    fuelled: bool = False
    isolated: bool = False
    shared: frozenset[Site] = frozenset()
    """Copies that are left out, of the model or as written: how a cause is tested."""
    copied: frozenset[Site] = frozenset()
    """Copies that are made although the model shares."""

    @property
    def engine(self) -> str:
        """The engine's key: "llvm", or "llvm (isolated)"."""
        return self.backend + ISOLATED * self.isolated

    @property
    def engine_name(self) -> str:
        """What the engine reports itself as: "llvm-jit", or "llvm-jit (isolated)"."""
        return ENGINE_NAMES[self.backend] + ISOLATED * self.isolated


@dataclass
class CompiledUnit:
    """A unit compiled for one set of options."""

    program: Program
    unit: ResolvedUnit
    options: RunOptions
    timings: dict[str, int]
    items: Mapping[str, object]
    written_arrays: Mapping[str, frozenset[Type]]
    """By function, the array types of which it, or what it calls, writes elements: a read-only NumPy array of such a type is refused."""
    keeps_arrays: bool
    """Whether a global of the unit can hold an array, so that a lent one could outlive the call."""


@dataclass
class _Host:
    """What running programs of one manager may ask for (see `backends.base.Host`)."""

    manager: weakref.ref[LocalExecutionManager]
    limits: Limits
    output: Output
    flag: InterruptFlag
    deadline_ns: int | None = None

    @property
    def flag_address(self) -> int:
        return self.flag.address

    def write(self, text: str) -> None:
        self.output.write(text)

    def poll(self) -> None:
        self.flag.poll()
        if self.deadline_ns is not None and time.monotonic_ns() >= self.deadline_ns:
            raise Trap("timeout", "the call ran longer than its timeout")

    def call_extern(self, name: str, args: Sequence[object], arg_types: Sequence[Type], result: Type, origin: Origin | None = None) -> object:
        internal = INTERNAL_EXTERNS.get(name)
        if internal is not None:
            return internal(self, args, arg_types)
        manager = self.manager()
        assert manager is not None, "a program runs while its manager is alive"
        self.output.flush()
        try:
            return externs.call_extern(manager, name, args, arg_types, result)
        except BaseException as error:
            manager.add_origin_note(error, name, origin)
            raise


class LocalExecutionManager:
    """A session of Simple MIR and the engines that run it, in this process.

    backend: "auto", "interpreter", "llvm" or "cranelift". limits: bounds on memory, stack and output. isolated: run in a child process, unless a call
    says otherwise. See the module docstring for the rest.
    A manager runs one outermost call at a time; other threads wait. For parallel native calls use two managers.
    """

    def __init__(self, backend: str = "auto", *, opt_level: int = 2, semantics: str = DEFAULT_SEMANTICS, limits: Limits | None = None,
                 depth: int = 0, allow_files: bool = False, isolated: bool = False) -> None:  # fmt: skip
        self._backend, self.backend_reason = choose_backend(backend)
        self.limits = limits or Limits()
        self.depth = depth
        self.allow_files = allow_files
        self.session = Session()
        self.children = externs.Children()
        self.last_error = ""
        self.ownership = Ownership()
        self._running: RunOptions | None = None
        self.set_isolated(isolated)
        self.set_opt_level(opt_level)
        self.set_semantics(semantics)
        self._host = _Host(weakref.ref(self), self.limits, Output(self.limits.output), InterruptFlag())
        self._call_state: CallState | None = None
        self._make_engine: Callable[[str, Host], Backend] = make_engine
        self._engines: dict[str, Backend] = {}
        self._units: dict[tuple[str, RunOptions, tuple[int, ...]], CompiledUnit] = {}
        self._retired: list[CompiledUnit] = []
        """Units that nobody will call again, but whose code may still be running."""
        self._slots: dict[str, int] = {}
        self._pending_globals: dict[str, object] = {}
        self._globals_in: str | None = None
        self._callables: weakref.WeakSet = weakref.WeakSet()
        self._cells = 0
        self._is_closed = False
        self._prepared: ResolvedUnit | None = None
        self._written: Session = self.session

    @classmethod
    def auto_select(cls, **options: object) -> LocalExecutionManager:
        """Return a manager on the best back end that is installed; `backend_reason` says why."""
        return cls("auto", **options)  # type: ignore[arg-type]

    @classmethod
    def llvm(cls, **options: object) -> LocalExecutionManager:
        return cls("llvm", **options)  # type: ignore[arg-type]

    @classmethod
    def cranelift(cls, **options: object) -> LocalExecutionManager:
        return cls("cranelift", **options)  # type: ignore[arg-type]

    @classmethod
    def interpreter(cls, **options: object) -> LocalExecutionManager:
        return cls("interpreter", **options)  # type: ignore[arg-type]

    # What is there

    @property
    def backend(self) -> str:
        """The short name of the back end that runs by default: "llvm", "cranelift" or "interpreter"."""
        return self._backend

    @property
    def backend_name(self) -> str:
        """The engine that really runs: "llvm-jit", "cranelift-jit" or "interpreter", with " (isolated)" behind it if that is so."""
        return ENGINE_NAMES[self._backend] + ISOLATED * self.isolated

    @property
    def isolated(self) -> bool:
        """Whether calls run in a child process: the default, or what the running call was told, which holds for the calls inside it."""
        return self._isolated if self._running is None or not self.ownership.is_mine else self._running.isolated

    @property
    def opt_level(self) -> int:
        return self._opt_level

    @property
    def semantics(self) -> str:
        return self._semantics

    @property
    def call_state(self) -> CallState:
        """What the native callables of this manager share."""
        if self._call_state is None:
            self._call_state = CallState(self._host.flag)
        return self._call_state

    @property
    def is_busy(self) -> bool:
        """Whether a call is running."""
        return self.ownership.is_held

    def has_function(self, name: str) -> bool:
        return self.session.function(name) is not None

    def functions(self) -> tuple[str, ...]:
        """Return the names of all functions, in the order of their definition."""
        return self.session.functions()

    def result_type(self, name: str) -> Type:
        """Return the declared result type of a function. Raises: MirError for an unknown name."""
        return self._find(name).result

    def globals(self) -> dict[str, object]:
        """Return the session's globals as Python objects."""
        return self.ownership.hold(self._python_globals)

    def _python_globals(self, _outermost: bool) -> dict[str, object]:
        values, names = self._read_globals(), self.session.names()
        return {name: to_python(values[name], t, names) for name, (_, t) in self._global_types().items() if name in values}

    # Settings

    def set_backend(self, backend: str) -> None:
        """Run on another back end from now on; definitions and globals stay. Raises: ValueError."""
        chosen, reason = choose_backend(backend)

        def switch(outermost: bool) -> None:
            if not outermost and chosen != self._backend:
                raise SimpleError("the back end cannot be switched by a function that a running program called")
            self._backend, self.backend_reason = chosen, reason
            self._invalidate_callables()

        self.ownership.hold(switch)

    def set_opt_level(self, level: int) -> None:
        """Set the default optimisation level 0..3. Raises: ValueError."""
        self._opt_level = _known_level(level)
        self._invalidate_callables()

    def set_semantics(self, model: str) -> None:
        """Set the default semantics model. Raises: ValueError naming the models."""
        self._semantics = _known_model(model)
        self._invalidate_callables()

    def set_isolated(self, isolated: bool) -> None:
        """Run in a child process from now on, or no longer; definitions and globals stay."""
        self._isolated = bool(isolated)
        self._invalidate_callables()

    def set_limits(self, limits: Limits) -> None:
        """Set the limits from now on; definitions and globals stay. Another limit on memory means new heaps, so all code is compiled again."""

        def change(outermost: bool) -> None:
            if not outermost:
                raise SimpleError("limits cannot be changed by a function that a running program called")
            if limits.memory != self.limits.memory:
                self._read_into_pending()
                self._globals_in = None
                self._end_engines()
            self._use_limits(limits)
            self._invalidate_callables()

        self.ownership.hold(change)

    @contextmanager
    def limited(self, options: RunOptions | None = None, **changes: int | None) -> Iterator[None]:
        """Change limits for the calls in a `with` block: memory, stack, output, unit_instructions, frames; None changes nothing.

        Raises: ValueError for the memory of a native engine in this process: its heap is reserved once, compiled code knows its address, and globals
        lie in it. An isolated call can have any: it gets a new child process.
        """
        options = options or self.options()
        before = self.limits

        def change(outermost: bool) -> None:
            wanted = changed_limits(before, **changes)
            if wanted.memory != before.memory and not (outermost and (options.isolated or options.backend == "interpreter")):
                raise ValueError(f"the memory of the {options.backend} back end cannot change for one call, because its heap is reserved once and holds the "
                                 "globals; make the call isolated, or change the default (%config SimpleMagics.memory, set_limits)")  # fmt: skip
            self._use_limits(wanted)

        try:
            self.ownership.hold(change)
            yield
        finally:
            self._use_limits(before)

    def _use_limits(self, limits: Limits) -> None:
        self.limits = self._host.limits = limits
        self._host.output.limit = limits.output

    def clear_error(self) -> None:
        self.last_error = ""

    # Compiling

    def compile(self, source: str | Mapping | Module, *, cell: str | None = None) -> CodeInfo:
        """Verify a module and take its definitions into the session.

        source: MIR text, the JSON form (text or dict), or a Module. cell: the name that diagnostics show.
        Raises: MirError with every diagnostic; then nothing has changed.
        """
        with self._reporting():
            timings: dict[str, int] = {}
            self._cells += 1
            cell = cell or f"<mir {self._cells}>"
            start = time.perf_counter_ns()
            module, text = _read(source, cell)
            timings["parse"] = time.perf_counter_ns() - start
            if sum(len(b.instructions) for f in module.functions for b in f.blocks) > self.limits.unit_instructions:
                raise LoweringError([Diagnostic("E0604", f"{cell} holds more than {self.limits.unit_instructions} instructions",
                                                help="split it into several cells")])  # fmt: skip
            defined = self.ownership.hold(lambda outermost: self._define(module, cell, text, timings, outermost))
            entry = "main" if "main" in defined.functions else next(iter(defined.functions), "")
            return CodeInfo(module.name or cell, entry, defined.functions, defined.warnings, defined.notes, timings)

    def _define(self, module: Module, cell: str, text: str | None, timings: dict[str, int], outermost: bool) -> Defined:
        start = time.perf_counter_ns()
        if not outermost:
            self._refuse_changes_in_use(module)
        defined = self.session.define(module, cell, text)
        timings["verify"] = time.perf_counter_ns() - start
        self._adopt_globals(module, defined.reset_globals)
        self._retire_units(outermost)
        self._invalidate_callables()
        return defined

    def _refuse_changes_in_use(self, module: Module) -> None:
        """While a program runs, its memory holds objects and globals of the types that it was compiled with. Raises: MirError."""
        for item in (*module.types, *module.globals):
            known = self.session.definitions.get(item.name)
            if known is not None and not _same_layout(known.item, item):
                raise _in_use(item.name, item.span)

    def use_library(self, name: str) -> CodeInfo:
        """Take a shipped library of MIR into the session, as a cell named after it; a second time changes nothing. Raises: ValueError naming the libraries."""
        return self.compile(library_source(name), cell=f"<{name}>")

    def remove(self, name: str) -> None:
        """Forget a function, type, global or extern. Raises: MirError for an unknown name, or one that a running program may use."""

        def forget(outermost: bool) -> None:
            if name not in self.session.definitions:
                raise self._unknown(name, "nothing is named", tuple(self.session.definitions))
            if not outermost and not isinstance(self.session.definitions[name].item, Function):
                raise _in_use(name, None)
            self._read_into_pending()
            self.session.remove(name)
            self._pending_globals.pop(name, None)
            self._slots.pop(name, None)
            self._retire_units(outermost)
            self._invalidate_callables()

        self.ownership.hold(forget)

    def options(self, *, backend: str | None = None, semantics: str | None = None, opt_level: int | None = None, fuel: int | None = None,
                isolated: bool | None = None) -> RunOptions:  # fmt: skip
        """Return the options of a run: what is given, else the manager's defaults. Raises: ValueError."""
        chosen = self._backend if backend is None else choose_backend(backend)[0]
        level = self._opt_level if opt_level is None else _known_level(opt_level)
        if fuel is not None and (type(fuel) is not int or not 0 <= fuel < 2**63):
            raise ValueError(f"fuel is a number of instructions between 0 and 2**63 - 1, got {fuel!r}")
        model = self._semantics if semantics is None else _known_model(semantics)
        return RunOptions(chosen, model, level, fuel is not None, self.isolated if isolated is None else bool(isolated))

    def compiled(self, name: str, options: RunOptions | None = None) -> CompiledUnit:
        """Return the compiled unit that holds a function. Raises: MirError."""
        options = options or self.options()
        choose_backend(options.backend)
        self._find(name)
        resolved = self._prepared or self.session.unit_of(name)
        # Code knows the slots of its globals, and a global that was removed may have come back in another.
        key = (resolved.key, options, tuple(self._slots[g.name] for g in resolved.module.globals))
        found = self._units.get(key)
        if found is None:
            found = self._units[key] = self._compile_unit(resolved, options)
        return found

    def transformed(self, name: str, options: RunOptions | None = None) -> Module:
        """Return the unit of a function as the back end receives it, after the passes for fuel and semantics."""
        options = options or self.options()
        self._find(name)
        return self._apply_passes(self.session.unit_of(name), options)

    def _apply_passes(self, resolved: ResolvedUnit, options: RunOptions) -> Module:
        module = resolved.module
        if self._prepared is not None:
            return module
        if options.fuelled:
            module = add_fuel(module)
        return apply_semantics(module, options.semantics, Names.of(resolved.module), options.shared, options.copied)

    def _compile_unit(self, resolved: ResolvedUnit, options: RunOptions) -> CompiledUnit:
        size = sum(len(b.instructions) for f in resolved.module.functions for b in f.blocks)
        if size > self.limits.unit_instructions:
            raise LoweringError([Diagnostic("E0604", f"the unit holds {size} instructions; the limit is {self.limits.unit_instructions}",
                                            help="split it into several cells, or raise Limits.unit_instructions")])  # fmt: skip
        start = time.perf_counter_ns()
        module = self._apply_passes(resolved, options)
        timings = {"passes": time.perf_counter_ns() - start}
        start = time.perf_counter_ns()
        program = self._engine(options.engine).compile(Unit(module, resolved.key, dict(self._slots)), options.opt_level)
        timings.update(getattr(program, "timings", {}) or {"compile": time.perf_counter_ns() - start})
        items = {item.name: self.session.definitions[item.name].item for item in resolved.module.items}
        names = Names.of(resolved.module)
        keeps = any(can_hold_array(g.type, names) for g in resolved.module.globals)
        return CompiledUnit(program, resolved, options, timings, items, written_array_types(resolved.module), keeps)

    # Running

    def execute(self, name: str, /, *args: object, semantics: str | None = None, opt_level: int | None = None, fuel: int | None = None,
                timeout: float | None = None, backend: str | None = None, isolated: bool | None = None) -> object:  # fmt: skip
        """Call a function with Python arguments and return its result as a Python object.

        fuel: instructions as written that may run; timeout: seconds; isolated: run in a child process. Raises: MirError, Trap, TypeError and
        OverflowError for arguments that do not fit, KeyboardInterrupt, whatever an extern raised, and CrashError if the child process died.
        """
        with self._reporting():
            options = self.options(backend=backend, semantics=semantics, opt_level=opt_level, fuel=fuel, isolated=isolated)
            return self._run(name, args, options, fuel, timeout)[0]

    def run(self, name: str, args: Sequence[object], options: RunOptions, fuel: int | None = None, timeout: float | None = None) -> tuple[object, dict[str, int]]:
        """Like `execute`, for options that are already made; return (result, nanoseconds by stage)."""
        with self._reporting():
            return self._run(name, args, options, fuel, timeout)

    def execute_captured(self, name: str, /, *args: object, semantics: str | None = None, opt_level: int | None = None, fuel: int | None = None,
                         timeout: float | None = None, backend: str | None = None, isolated: bool | None = None) -> ExecutionResult:  # fmt: skip
        """Like `execute`, but return an ExecutionResult: a trap and the output are part of it instead of being raised and shown.

        The output is what the program prints. What host functions print goes where Python prints: that place belongs to the whole process.
        """
        options = self.options(backend=backend, semantics=semantics, opt_level=opt_level, fuel=fuel, isolated=isolated)
        out, value, trap = StringIO(), None, None
        timings: dict[str, int] = {}
        with self._reporting():
            try:
                value, timings = self._run(name, args, options, fuel, timeout, out)
            except Trap as error:
                self.last_error = str(error)
                trap = error
        return ExecutionResult(value, out.getvalue(), "", trap, options.engine_name, timings)

    def _run(self, name: str, args: Sequence[object], options: RunOptions, fuel: int | None, timeout: float | None,
             sink: StringIO | None = None) -> tuple[object, dict[str, int]]:  # fmt: skip
        function = self._find(name)
        if timeout is not None and not (isinstance(timeout, (int, float)) and 0 < timeout <= MAX_TIMEOUT):
            raise ValueError(f"a timeout is a number of seconds above 0, such as 2.5; got {timeout!r}")
        if len(args) != len(function.params):
            expected = ", ".join(f"{p.name}: {format_type(p.type)}" for p in function.params)
            raise TypeError(f"{name}({expected}) takes {len(function.params)} argument{'s' * (len(function.params) != 1)}, got {len(args)}")
        return self.ownership.hold(lambda outermost: self._run_held(function, args, options, fuel, timeout, sink, outermost))

    def _run_held(self, function: Function, args: Sequence[object], options: RunOptions, fuel: int | None, timeout: float | None,
                  sink: StringIO | None, outermost: bool) -> tuple[object, dict[str, int]]:  # fmt: skip
        host, name = self._host, function.name
        if outermost:
            # An interrupt may have kept an earlier call from putting these back.
            host.deadline_ns = self._running = host.output.sink = None
            self._retire_units(outermost)
        elif self._globals_in not in (None, options.engine):
            raise SimpleError("a function that a running program called must use the same back end as the program, isolated like it or not")
        compiled = self.compiled(name, options)
        names = self.session.names()
        _refuse_code_pointers(function, names)
        shared: dict = {}  # An object given twice arrives as one object.
        writes = compiled.written_arrays[name]
        values = [self._argument(function, index, arg, names, writes, shared) for index, arg in enumerate(args)]
        self._move_globals(options.engine, outermost)
        if outermost:
            host.output.begin()
        lends = any(is_lent(value) for value in values)
        previous, running, outer_sink, timer = host.deadline_ns, self._running, host.output.sink, None
        start = time.perf_counter_ns()
        try:
            self._running = options
            if sink is not None:
                host.output.flush()
                host.output.sink = sink
            if timeout is not None:
                deadline = time.monotonic_ns() + int(timeout * 1e9)
                host.deadline_ns = deadline if previous is None else min(previous, deadline)
                timer = threading.Timer(timeout, host.flag.set)
                timer.daemon = True
                timer.start()
            with host.flag.watching():
                start = time.perf_counter_ns()
                result = compiled.program.call(name, values, fuel)
        except Trap as trap:
            self.locate(trap)
            raise
        finally:
            elapsed = time.perf_counter_ns() - start
            self._running, host.deadline_ns = running, previous
            if timer is not None:
                timer.cancel()
            if previous is not None and time.monotonic_ns() >= previous:
                host.flag.set()  # this call has answered the request that was meant for the one around it
            if outermost or sink is not None:
                host.output.flush()
            host.output.sink = outer_sink
            if lends and compiled.keeps_arrays:
                warn(f"{name} may keep a NumPy array beyond the call: its globals now hold a copy", CopiedArrayWarning, stacklevel=6)
                self._detach(options.engine)
        return to_python(result, function.result, names), {**compiled.timings, "call": elapsed}

    def _argument(self, function: Function, index: int, value: object, names: Names, writes: frozenset[Type], shared: dict) -> object:
        param = function.params[index]
        try:
            return from_python(value, param.type, names, writes=param.type in writes, shared=shared)
        except (TypeError, OverflowError, ValueError) as error:
            raise type(error)(f"{function.name}, argument {param.name}: {error}") from None

    def function(self, name: str) -> Callable[..., object]:
        """Return a live callable: it always runs the current definition on the manager's current back end. Raises: MirError for an unknown name."""
        self._find(name)
        made = make_live_callable(self, name)
        self._callables.add(made)
        return made

    # Globals

    def _global_types(self) -> dict[str, tuple[int, Type]]:
        return {name: (self._slots[name], d.item.type) for name, d in self.session.items(Global)}  # type: ignore[union-attr]

    def _adopt_globals(self, module: Module, reset: Sequence[str]) -> None:
        names = self.session.names()
        for name in (*(g.name for g in module.globals), *reset):
            is_new = name not in self._slots
            if is_new:
                used = set(self._slots.values())
                self._slots[name] = next(i for i in range(len(used) + 1) if i not in used)
            if is_new or name in reset:
                self._pending_globals[name] = _initial_value(self.session.definitions[name].item, names)  # type: ignore[arg-type]

    def _read_globals(self) -> dict[str, object]:
        types = self._global_types()
        stored = {name: where for name, where in types.items() if name not in self._pending_globals}
        values = {}
        if self._globals_in is not None and stored:
            values = self._engine(self._globals_in).read_globals(stored, self.session.names())
        return {**values, **{name: v for name, v in self._pending_globals.items() if name in types}}

    def _read_into_pending(self) -> None:
        self._pending_globals = self._read_globals()

    def _move_globals(self, backend: str, outermost: bool = True) -> None:
        """Bring the globals to a back end. While a program runs they are there, all but the new ones, and may share objects with its locals."""
        if self._globals_in == backend and not self._pending_globals:
            return
        types = self._global_types()
        is_running = not outermost and self._globals_in == backend
        values = {n: v for n, v in self._pending_globals.items() if n in types} if is_running else self._read_globals()
        self._engine(backend).write_globals(values, types, self.session.names())
        self._globals_in, self._pending_globals = backend, {}

    def _detach(self, backend: str) -> None:
        values = self._read_globals()
        detach_lent(values.values())
        self._engine(backend).write_globals(values, self._global_types(), self.session.names())

    def fork(self, backend: str, make: Callable[[str, Host], Backend] = make_engine) -> LocalExecutionManager:
        """Return a new manager with the same definitions and its own copy of the globals: what comparisons run on.

        make: makes the engines, if they are to be others than the usual ones.
        """
        other = LocalExecutionManager(backend, opt_level=self._opt_level, semantics=self._semantics, limits=self.limits, depth=self.depth, isolated=self.isolated)
        other.use_engines(make)

        def copy(_outermost: bool) -> None:
            other.session.definitions = dict(self.session.definitions)
            other.session.sources = dict(self.session.sources)
            other.session.version = self.session.version
            other._slots = dict(self._slots)
            other._pending_globals = copy_values(self._read_globals())

        self.ownership.hold(copy)
        return other

    def use_engines(self, make: Callable[[str, Host], Backend]) -> None:
        """Let engines be made by `make` from now on; those that are there stay."""
        self._make_engine = make

    def prepared(self, module: Module, key: str, backend: str, values: Mapping[str, object]) -> LocalExecutionManager:
        """Return a new manager that runs a module as it stands: made from this session, with every pass applied and verified by the caller.

        key: what tells the module from others. values: what its globals hold (program values), for those that do not start from their definition.
        Traps are located in this session.
        """
        other = LocalExecutionManager(backend, opt_level=self._opt_level, limits=self.limits, depth=self.depth, isolated=self.isolated)
        other.session.definitions = {item.name: Definition(item, "", 1) for item in module.items}
        other.session.version = 1
        other._prepared = ResolvedUnit(module, key, tuple(f.name for f in module.functions))
        other._written = self.session
        other._adopt_globals(module, ())
        other._pending_globals.update(values)
        return other

    def set_global_values(self, values: Mapping[str, object]) -> None:
        """Let globals hold a copy of these program values from now on: back to where a run began."""
        def replace(_outermost: bool) -> None:
            self._pending_globals = copy_values(dict(values))

        self.ownership.hold(replace)

    def global_values(self) -> dict[str, object]:
        """Return a copy of the globals as program values (`backends.values`)."""
        return self.ownership.hold(lambda _outermost: copy_values(self._read_globals()))

    def child(self, backend: str) -> LocalExecutionManager:
        """Return a new, empty manager one level deeper, with the same limits."""
        return LocalExecutionManager(backend, limits=self.limits, depth=self.depth + 1, isolated=self.isolated)

    # Errors

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        self._require_open()
        try:
            yield
        except (SimpleError, TypeError, OverflowError, ValueError) as error:
            self.last_error = str(error)
            raise

    def definition(self, name: str) -> Function:
        """Return a function as written. Raises: MirError for an unknown name."""
        return self._find(name)

    def _find(self, name: str) -> Function:
        function = self.session.function(name) if isinstance(name, str) else None
        if function is None:
            raise self._unknown(name, "no function is named", self.functions())
        return function

    def _unknown(self, name: str, what: str, known: Sequence[str]) -> MirError:
        near = get_close_matches(str(name), known, 1)
        newest = ("..., " if len(known) > NAMES_SHOWN else "") + ", ".join(known[-NAMES_SHOWN:])
        return MirError([Diagnostic("E0602", f"{what} `{name}`", help=f"did you mean `{near[0]}`?" if near else f"there is: {newest or 'nothing yet'}")])

    def locate(self, trap: Trap) -> None:
        """Fill in where a trap and its calls stand in the session's cells."""
        if trap.span is None:
            written = self.session if self._prepared is None else self._written
            trap.span = written.locate(trap.origin)
            trap.frame_spans = tuple(written.locate(frame) for frame in trap.frames)
            trap.sources = written.sources

    def add_origin_note(self, error: BaseException, extern: str, origin: Origin | None) -> None:
        """Tell in a note of a host function's exception which MIR instruction called it."""
        if isinstance(error, Trap) and error.origin is not None:
            return
        span = self.session.locate(origin)
        place = _place(span) or str(origin)
        error.add_note(f"raised by extern `{extern}`, called from {origin.function if origin else '?'} ({place})")

    # Lifetime

    def _engine(self, backend: str) -> Backend:
        self._require_open()
        engine = self._engines.get(backend)
        if engine is None:
            engine = self._engines[backend] = self._make_engine(backend, self._host)
        return engine

    def _retire_units(self, outermost: bool) -> None:
        """Forget compiled units whose definitions are no longer current, but for the last few; free them when none of their code can be running."""
        current = self.session.definitions
        stale = [key for key, unit in list(self._units.items()) if any(_item(current, n) is not item for n, item in unit.items.items())]
        self._retired += filter(None, [self._units.pop(key, None) for key in stale[: max(0, len(stale) - UNITS_KEPT)]])
        while outermost and self._retired:
            self._retired.pop().program.close()

    def _invalidate_callables(self) -> None:
        for live in list(getattr(self, "_callables", ())):
            live.live.invalidate()

    def _require_open(self) -> None:
        if self._is_closed:
            raise SimpleError("this execution manager was closed")

    def cleanup(self) -> None:
        """Free all code and memory and forget every definition; the manager can be used again from the start."""
        self.ownership.hold(self._clean_up)

    def _clean_up(self, outermost: bool) -> None:
        if not outermost:
            raise SimpleError("a manager cannot be cleaned up by a function that its program called")
        self._invalidate_callables()
        for child in self.children.by_handle.values():
            child.close()
        self.children = externs.Children()
        self._end_engines()
        self.session = Session()
        self._slots, self._pending_globals, self._globals_in = {}, {}, None
        self.last_error = ""

    def _end_engines(self) -> None:
        for unit in (*self._units.values(), *self._retired):
            unit.program.close()
        self._units.clear()
        self._retired.clear()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def close(self) -> None:
        """Clean up for good; every further use raises SimpleError. Closing twice is fine."""
        if not self._is_closed:
            self.cleanup()
            self._host.flag.close()
            self._is_closed = True

    def __enter__(self) -> LocalExecutionManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalExecutionManager {self.backend_name}, {len(self.functions())} functions>"


def _item(definitions: Mapping[str, Definition], name: str) -> object:
    definition = definitions.get(name)
    return definition.item if definition else None


def _same_layout(known: object, item: TypeDef | Global) -> bool:
    """Return whether memory that was made for one definition serves the other."""
    if isinstance(item, Global):
        return isinstance(known, Global) and known.type == item.type
    return known == item


def _in_use(name: str, span: Span | None) -> MirError:
    return MirError([Diagnostic("E0613", f"`{name}` cannot be changed now: a program is running, and it may use it", span,
                                help="define it before the call, or give the new one another name")])  # fmt: skip


def _place(span: Span | None) -> str:
    if span is None:
        return ""
    return f"{span.source}:{span.line}" if span.source else f"line {span.line}"


def _known_level(level: object) -> int:
    if type(level) is not int or level not in OPT_LEVELS:
        raise ValueError(f"optimisation level {level!r} is not one of 0, 1, 2, 3")
    return level


def _known_model(model: str) -> str:
    if not isinstance(model, str) or model not in MODELS:
        raise ValueError(f"unknown semantics model {model!r}; choose one of {', '.join(MODELS)}")
    return model


def _read(source: str | Mapping | Module, cell: str) -> tuple[Module, str | None]:
    if isinstance(source, Module):
        return source, None
    if isinstance(source, str) and not source.lstrip().startswith("{"):
        try:
            return parse_text(source, cell), source
        except ParseError as error:
            raise ParseError(error.diagnostics, {cell: source}) from None
    if isinstance(source, (str, Mapping)):
        return from_json(source), None
    raise TypeError(f"expected MIR text, JSON (text or dict) or a Module, got {type(source).__name__}")


def _refuse_code_pointers(function: Function, names: Names) -> None:
    for t in (*(p.type for p in function.params), function.result):
        if can_hold_code(t, names):
            raise MirError([Diagnostic("E0603", f"`{function.name}` cannot be called from Python: {format_type(t)} does not outlive a call",
                                       function.span, help="write a function around it that takes and gives other types")])  # fmt: skip


def _initial_value(declared: Global, names: Names) -> object:
    if isinstance(declared.init, Const) and declared.init.bits is not None:
        return declared.init.value
    return zero_value(declared.type, names)


ARRAY_WRITERS = tuple(name for name, row in OPS.items() if row.form.startswith("p") and row.name != "set_field")
"""The operations that write elements of an array or dict."""


def written_array_types(module: Module) -> dict[str, frozenset[Type]]:
    """Return, for each function, the types of arrays into which it, or a function that it can reach, writes; by type, so never too few."""
    names = Names.of(module)
    found: dict[str, set[Type]] = {}
    for function in module.functions:
        types = local_types(function)
        found[function.name] = {operand_type(ins.args[0], types, names) for block in function.blocks for ins in block.instructions if ins.op in ARRAY_WRITERS}
    graph = call_graph(module)
    callers: dict[str, list[str]] = {}
    for name, reached in graph.items():
        for callee in reached:
            callers.setdefault(callee, []).append(name)
    todo = [name for name, written in found.items() if written]
    while todo:
        name = todo.pop()
        for caller in callers.get(name, ()):
            if not found[name] <= found[caller]:
                found[caller] |= found[name]
                todo.append(caller)
    return {name: frozenset(written) for name, written in found.items()}

"""The experiment: one model, differentiated on several back ends under several semantics models, each run on its own copy of the globals.

    seen = run_experiment(source, "model", {"x": 3.0, "y": 4.0})
    seen.run("interpreter", "value").gradients        # {"x": 0.0, "y": 0.0}
    seen.run("llvm", "reference").trace.events

A run applies fuel and semantics to the program, exempts the driver, and runs it plain and traced; gradients and losses are those of the plain run, and
`is_faithful` says whether the traced one gave the same bits. `Experiment.again` repeats a run with other inputs, or with copies suppressed or forced.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..backends.values import StructValue, parts_of
from ..execution.manager import LocalExecutionManager
from ..execution.session import ResolvedUnit
from ..mir.diagnostics import LoweringError, Origin, ParseError, Span, Trap
from ..mir.model import Instruction, Module
from ..mir.printer import format_instruction
from ..mir.resolve import Names
from ..mir.text import parse_text
from ..passes.fuel import add_fuel
from ..passes.provenance import Fields, find_flow
from ..passes.semantics import MODELS, Site, apply_semantics
from ..passes.shadows import CAPACITY, UNKNOWN, Options
from ..passes.trace import add_trace
from .driver import DRIVER, MARKS, Driver, NodeOptions, make_driver
from .events import Event, Trace
from .recording import Records, make_trace

FUEL = 10**8
DEFAULT_RUNS = (("interpreter", "value"), ("llvm", "reference"))
LIBRARY_NODES = ("Value", "Dense")
MOST_EVENTS = 1 << 23
TRACED_STEPS = 1
"""Of a training, so many steps are traced: what goes wrong with a gradient goes wrong in the first, and hundreds of traces tell the same again."""
CELL = "<model>"
CHUNK = 1 << 16
"""How many events are read out at once."""


@dataclass(frozen=True)
class Run:
    """What one back end gave under one model.

    losses: one for each step and one before the first. gradients: those before the first update, by parameter; numbers, tuples, or None if absent.
    history: the gradients of every step. values: the parameters after the last update. trap: what ended the run early; then losses and gradients are
    empty. trace: of the first evaluations (`TRACED_STEPS`); None if it was not asked for, or cannot be made (`note` says why). is_faithful: whether the
    traced run gave the same bits; None if there is none, or a timeout ended one of the two somewhere. stdout: what the plain run printed.
    """

    backend: str
    semantics: str
    losses: tuple[float, ...] = ()
    gradients: Mapping[str, object] = field(default_factory=dict)
    history: tuple[Mapping[str, object], ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    trap: Trap | None = None
    trace: Trace | None = None
    is_faithful: bool | None = None
    note: str = ""
    stdout: str = ""

    @property
    def loss(self) -> float | None:
        return self.losses[0] if self.losses else None


@dataclass(frozen=True)
class Experiment:
    """All runs of one model. `driver` is the text of the driver, `unit` the program as written with the driver, resolved."""

    model: str
    inputs: Mapping[str, object]
    options: NodeOptions
    runs: tuple[Run, ...]
    driver: str
    unit: Module
    steps: int = 0
    lr: float = 0.0
    bench: Bench | None = field(default=None, repr=False, compare=False)

    def run(self, backend: str, semantics: str) -> Run:
        """Return a run. Raises: KeyError naming the runs."""
        for found in self.runs:
            if (found.backend, found.semantics) == (backend, semantics):
                return found
        raise KeyError(f"no run of {backend} under {semantics}; there is: {', '.join(f'{r.backend}/{r.semantics}' for r in self.runs)}")

    def unit_instructions(self, event: Event) -> tuple[Instruction, ...]:
        """Return the instruction as written that an event names; its origin makes a site for `suppress` and `force`. Empty if it has none."""
        return tuple(i for f in self.unit.functions if f.name == event.function for b in f.blocks if b.label == event.block for i in b.instructions[event.index : event.index + 1])

    def again(self, backend: str, semantics: str, **changes: object) -> Run:
        """Repeat a run with changes: inputs, suppress, force (sites of the semantics pass), trace, steps, lr."""
        assert self.bench is not None, "an experiment that was made by hand cannot run"
        return self.bench.run(backend, semantics, **{"inputs": self.inputs, "steps": self.steps, "lr": self.lr, **changes})  # type: ignore[arg-type]


def run_experiment(source: str | Mapping | Module | None, model: str = "model", inputs: Mapping[str, object] | None = None, *,
                        backends: Iterable[str] | None = None, models: Iterable[str] | None = None, runs: Iterable[tuple[str, str]] | None = None,
                        node: str = "Value", leaf: str = "", backward: str = "", value: str = "data", gradient: str = "grad", reader: str = "", store: str = "",
                        leaves: Mapping[str, str] | None = None, steps: int = 0, lr: float = 0.1, fuel: int | None = FUEL, timeout: float | None = None,
                        trace: bool = True, shares: bool = False, capacity: int = CAPACITY, manager: LocalExecutionManager | None = None,
                        cell: str = CELL) -> Experiment:  # fmt: skip
    """Differentiate a model in several modes; return what each gave.

    source: MIR that defines the model, beside what `manager` (which stays as it is) holds; None if it holds the model already. The node library is there
    unless the program defines the node class itself. inputs: a number, or numbers, for each of the model's parameters.
    backends, models: every pair of them runs; runs: exactly these (back end, model) pairs; default: the interpreter under `value` and LLVM under `reference`.
    node ... leaves: see `driver.NodeOptions`; with a store, backward is `NODE.store_backward` and the reader `NODE.stored_gradient` unless given. steps, lr: gradient descent after the first evaluation. fuel and the manager's limits bound each run.
    cell: what the source is called in messages and traces.
    Raises: MirError for a wrong program or one that does not fit, ValueError and TypeError for wrong options and inputs. A trap is part of its run.
    """
    if store:
        backward, reader = backward or f"{node}.store_backward", reader or f"{node}.stored_gradient"
    options = NodeOptions(node, leaf, backward, value, gradient, reader, store, tuple(sorted((leaves or {}).items())))
    wanted = _pairs(backends, models, runs)
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    if not 0 < capacity <= MOST_EVENTS:
        raise ValueError(f"capacity must be between 1 and {MOST_EVENTS}, got {capacity}")
    base = manager.fork(manager.backend) if manager is not None else LocalExecutionManager("interpreter")
    try:
        _define(base, source, options, cell)
        bench = Bench.of(base, model, options, fuel, timeout, capacity, shares)
        given = bench.inputs(inputs or {})
        done = tuple(bench.run(backend, semantics, inputs=given, steps=steps, lr=lr, trace=trace) for backend, semantics in wanted)
    except BaseException:
        base.close()
        raise
    return Experiment(model, given, options, done, bench.driver.text, bench.unit.module, steps, lr, bench)


def _pairs(backends: Iterable[str] | None, models: Iterable[str] | None, runs: Iterable[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    if runs is None and backends is None and models is None:
        runs = DEFAULT_RUNS
    if runs is None:
        models = tuple(models or ("value", "reference"))
        runs = [(b, m) for b in (backends or ("interpreter", "llvm")) for m in models]
    found = tuple(dict.fromkeys((str(b), str(m)) for b, m in runs))
    for _, semantics in found:
        if semantics not in MODELS:
            raise ValueError(f"unknown semantics model {semantics!r}; choose one of {', '.join(MODELS)}")
    return found


def _define(base: LocalExecutionManager, source: str | Mapping | Module | None, options: NodeOptions, cell: str) -> None:
    """Take in the library, if the nodes are its own, and the program."""
    module = None
    if isinstance(source, str) and not source.lstrip().startswith("{"):
        with suppress(ParseError):  # `compile` tells it with the place.
            module = parse_text(source, cell)
    defines = {t.name for t in module.types} if module is not None else {t.name for t in source.types} if isinstance(source, Module) else set()
    if options.node in LIBRARY_NODES and options.node not in defines and options.node not in base.session.definitions:
        base.use_library("autograd")
    if source is not None:
        base.compile(source, cell=cell)


@dataclass
class Bench:
    """A program with its driver, ready to run in any mode."""

    manager: LocalExecutionManager
    options: NodeOptions
    driver: Driver
    unit: ResolvedUnit
    fuel: int | None
    timeout: float | None
    capacity: int
    shares: bool

    @classmethod
    def of(cls, manager: LocalExecutionManager, model: str, options: NodeOptions, fuel: int | None, timeout: float | None, capacity: int, shares: bool) -> Bench:
        written = manager.definition(model)
        functions = {name: manager.definition(name) for name in manager.functions()}
        driver = make_driver(written, options, manager.session.names(), functions)
        manager.compile(driver.text, cell="<gradient driver>")
        return cls(manager, options, driver, manager.session.unit_of(DRIVER), fuel, timeout, capacity, shares)

    @cached_property
    def is_reader_followed(self) -> bool:
        """Whether what the reader returns may come from the nodes' gradient field or from the store, which traces show."""
        o, module = self.options, self.unit.module
        return (o.reader, "") in find_flow(module, Names.of(module), Fields(o.node, o.gradient, o.value, o.store)).carrying

    def inputs(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the inputs in the order of the parameters. Raises: TypeError."""
        names = [i.name for i in self.driver.inputs]
        if set(given) != set(names):
            missing, unknown = sorted(set(names) - set(given)), sorted(set(given) - set(names))
            raise TypeError(f"the model takes {', '.join(names) or 'nothing'}" + (f"; missing: {', '.join(missing)}" if missing else "")
                            + (f"; unknown: {', '.join(unknown)}" if unknown else ""))  # fmt: skip
        for i in self.driver.inputs:
            if i.is_list and not isinstance(given[i.name], Iterable):
                raise TypeError(f"input {i.name}: expected numbers, got {type(given[i.name]).__name__}")
        return {i.name: tuple(given[i.name]) if i.is_list else given[i.name] for i in self.driver.inputs}  # type: ignore[arg-type]

    def rewritten(self, semantics: str, suppress: frozenset[Site] = frozenset(), force: frozenset[Site] = frozenset()) -> Module:
        """Return the program under a model, its driver as written."""
        module = self.unit.module
        if self.fuel is not None:
            module = add_fuel(module)
        names = Names.of(module)
        done = apply_semantics(module, semantics, names, suppress, force)
        kept = {f.name: f for f in module.functions if f.name in self.driver.functions}
        return replace(done, functions=tuple(kept.get(f.name, f) for f in done.functions))

    def run(self, backend: str, semantics: str, *, inputs: Mapping[str, object], steps: int = 0, lr: float = 0.1, trace: bool = True,
            suppress: Iterable[Site] = (), force: Iterable[Site] = ()) -> Run:  # fmt: skip
        """Run the program plain, and traced if asked for; gradients are those of the plain run."""
        suppressed, forced = frozenset(suppress), frozenset(force)
        module = self.rewritten(semantics, suppressed, forced)
        key = f"{self.unit.key} {semantics} {self.fuel is not None} {sorted(map(str, suppressed))} {sorted(map(str, forced))}"
        args = (*self.inputs(inputs).values(), steps, lr)
        with self.manager.prepared(module, key, backend, self._globals(traced=False)) as plain:
            out, trap, stdout = self._call(plain, args)
        if trap is not None:
            run = Run(backend, semantics, trap=trap, stdout=stdout)
        else:
            losses, history, values = self.driver.read(out, steps)
            run = Run(backend, semantics, tuple(losses), history[0], tuple(history), values, stdout=stdout)
        return self._traced(run, module, key, (*args[:-2], steps if trap else min(steps, TRACED_STEPS), lr), out, trap) if trace else run

    def _call(self, manager: LocalExecutionManager, args: Sequence[object]) -> tuple[list[float], Trap | None, str]:
        """Return what the driver returned, the trap that ended it, and what the program printed."""
        try:
            found = manager.execute_captured(DRIVER, *args, fuel=self.fuel, timeout=self.timeout)
            return found.value or [], found.trap, found.stdout  # type: ignore[return-value]
        except (TypeError, OverflowError, ValueError) as error:
            raise type(error)(str(error).replace(f"{DRIVER}, argument input_", "input ")) from None

    def _traced(self, run: Run, module: Module, key: str, args: Sequence[object], plain: Sequence[float], trap: Trap | None) -> Run:
        o = self.options
        fields = Fields(o.node, o.gradient, o.value, o.store)
        try:
            traced, sites = add_trace(module, Options(fields, MARKS, self.capacity, self.shares), self.unit.module)
        except LoweringError as error:
            return replace(run, note=str(error))
        with self.manager.prepared(traced, f"{key} traced {fields} {self.capacity} {self.shares}", run.backend, self._globals(traced=True)) as manager:
            manager.execute("trace$begin", self.capacity, fuel=_some(self.fuel))
            out, traced_trap, _ = self._call(manager, args)
            records = _read_records(manager, self.capacity, self.fuel)
        names = [i.name for i in self.driver.parameters]
        trace = make_trace(records, sites, names, o.store, self._locate, run.backend, run.semantics)
        note = "" if trap is not None or o.reader or not trace.is_complete else _unfollowed(trace, run.gradients, o.gradient)
        rounds = args[-2] + 1  # type: ignore[operator]
        same = _bits(self.driver.rounds(plain, rounds)) == _bits(self.driver.rounds(out, rounds))
        if "timeout" in (trap and trap.kind, traced_trap and traced_trap.kind):
            return replace(run, trace=trace, note=note)
        return replace(run, trace=trace, note=note, is_faithful=same and _place(trap) == _place(traced_trap))

    def _globals(self, traced: bool) -> Mapping[str, object]:
        """Return a copy of the globals that the program uses; for a traced run, with the hidden field in every node: it is older than the trace."""
        held = {g.name for g in self.unit.module.globals}
        own = {name: value for name, value in self.manager.global_values().items() if name in held}
        todo, seen = list(own.values()) if traced else [], set()
        while todo:
            value = todo.pop()
            if id(value) in seen or isinstance(value, (int, float, str, bool, type(None))):
                continue
            seen.add(id(value))
            todo.extend(parts_of(value))
            if isinstance(value, StructValue) and value.type_name == self.options.node:
                value.slots.append(UNKNOWN)
        return own

    def _locate(self, origin: Origin | None, span: Span | None) -> tuple[str, str, int]:
        """Return (text, cell, line) of an instruction as written."""
        session = self.manager.session
        if span is not None and span.source in session.sources:
            lines = session.sources[span.source].split("\n")
            if 0 < span.line <= len(lines):
                return lines[span.line - 1].partition("#")[0].strip(), span.source, span.line
        function = session.function(origin.function) if origin is not None else None
        block = next((b for b in function.blocks if b.label == origin.block), None) if function is not None and origin is not None else None
        if block is None or origin is None or origin.index >= len(block.instructions):
            return "", "", 0
        return format_instruction(block.instructions[origin.index]).strip(), "", 0


def _read_records(manager: LocalExecutionManager, capacity: int, fuel: int | None) -> Records:
    given = _some(fuel)
    count = int(manager.execute("trace$count", fuel=given))  # type: ignore[call-overload]
    held = min(count, capacity)
    columns: list[list] = [[] for _ in range(7)]
    for first in range(0, held, CHUNK):
        end = min(first + CHUNK, held)
        for number in range(5):
            columns[number] += manager.execute("trace$integers", number, first, end, fuel=given)  # type: ignore[arg-type]
        for number, is_after in ((5, False), (6, True)):
            columns[number] += manager.execute("trace$numbers", is_after, first, end, fuel=given)  # type: ignore[arg-type]
    return Records(count, *columns)


def _unfollowed(trace: Trace, gradients: Mapping[str, object], gradient: str) -> str:
    """Return a sentence if a gradient is not what the last write of it in the trace left there: the program changed it in a way that is not followed."""
    own = {name: node for node, name in reversed(list(trace.names.items()))}
    last: dict[tuple[str, int | None], float | None] = {}
    for event in trace.events:
        if event.step == 0 and (event.is_write or event.kind == "write_back") and event.field == gradient and event.after is not None:
            last[event.object, event.element] = event.after
    for name, node in own.items():
        found = gradients.get(name)
        numbers = found if isinstance(found, tuple) else (found,)
        is_array = any(element is not None for written, element in last if written == node)
        for index, number in enumerate(numbers):
            after = last.get((node, index if is_array else None))
            if isinstance(number, float) and after is not None and _bits((number,)) != _bits((after,)):
                return f"the gradient of {name} was also changed in a way that the trace does not follow"
    return ""


def _some(fuel: int | None) -> int | None:
    """Fuel for the trace's own functions, which charge nothing: the unit is compiled once, with fuel or without."""
    return None if fuel is None else 1


def _bits(numbers: Sequence[float]) -> bytes:
    return b"".join(struct.pack("<d", math.nan if x != x else x) for x in numbers)


def _place(trap: Trap | None) -> object:
    return None if trap is None else (trap.kind, trap.origin)



"""Running the calls of programs on several executors, and telling where these differ.

A call is compared by everything that there is to see of it: its value with sharing and cycles, or its trap with message, origin and frames; its output,
to which the externs write their arguments; arrays that were lent to it, and globals, afterwards.
"""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np

from ..backends import numbers
from ..backends.base import Backend, Limits, Unit
from ..backends.base import Program as Compiled
from ..backends.interpreter import Interpreter, zero_value
from ..backends.interrupt import InterruptFlag
from ..backends.llvm import LlvmBackend
from ..backends.values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue, detach_lent
from ..mir.diagnostics import Origin, Reporter, Trap, VerifyError
from ..mir.model import Module
from ..mir.resolve import Names
from ..mir.types import Type
from ..mir.verify import check
from ..passes.fuel import add_fuel
from ..passes.semantics import apply_semantics
from .generate import Batch
from .values import Lent



def _cranelift(host: RecordingHost) -> Backend:
    from ..backends.cranelift import CraneliftBackend

    return CraneliftBackend(host)


EXECUTORS: dict[str, tuple[Callable[[RecordingHost], Backend], int]] = {
    "interpreter": (Interpreter, 0),
    "llvm-O0": (LlvmBackend, 0),
    "llvm-O2": (LlvmBackend, 2),
    **({"cranelift": (_cranelift, 2)} if find_spec("wasmtime") else {}),
}
"""What can be compared here: back end and optimisation level. The first one defines what is right."""
LIMITS = Limits(memory=16 << 20, frames=20_000, output=20_000)
POLLS = 60
"""How often the interpreter may poll in one call; a program that runs longer is given up."""
CALL_SECONDS = 10.0
"""After so long a native call is stopped: far more than anything takes that ends in time on the interpreter."""
MAX_DEPTH = 2
"""How deep externs may call the program."""
LATE = ("trap", "timeout")
GIVEN_UP = ("out_of_memory", "stack_overflow", "timeout", "output_limit")
"""Limits that executors measure differently: one may reach them where another does not. The calls after it are not comparable."""
MOST_PARTS = 2000
"""Globals with more parts than this end a program's calls: every call compares all of them."""


@dataclass(frozen=True)
class Report:
    """What there is to see of a call. Equal exactly if no difference can be told."""

    end: tuple
    output: str
    lent: tuple
    globals: tuple

    @property
    def is_late(self) -> bool:
        return self.end == LATE

    @property
    def is_given_up(self) -> bool:
        return self.end[0] == "trap" and self.end[1] in GIVEN_UP


@dataclass(frozen=True)
class Difference:
    """The first call of a program at which an executor differs from the first one, or the exception of a failed compilation (`call` is -1)."""

    program: int
    call: int
    executor: str
    expected: Report | None
    got: Report | str

    @property
    def aspect(self) -> str:
        """What differs, in a word or two: the same bug mostly has the same aspect."""
        if self.expected is None or isinstance(self.got, str):
            return str(self.got).strip().split("\n")[-1][:80]
        if self.expected.end != self.got.end:
            ends = [" ".join(str(part) for part in r.end[: 2 if r.end[0] == "trap" else 1]) for r in (self.expected, self.got)]
            return f"{ends[0]}, {ends[1]}"
        return next(name for name in ("output", "lent", "globals") if getattr(self.expected, name) != getattr(self.got, name))


@dataclass(frozen=True)
class Comparison:
    """The calls that all executors have made and that were compared, and where they differ: at most once per program and executor."""

    compared: int
    differences: tuple[Difference, ...]


# The host


@dataclass
class RecordingHost:
    """Serves the externs of generated programs, and writes their arguments to the output."""

    limits: Limits = field(default_factory=lambda: LIMITS)
    output: list[str] = field(default_factory=list)
    written: int = 0
    polls: int = 0
    again: Callable[[], object] | None = None
    """Makes a call of the program that is running, from inside."""
    depth: int = 0
    deadline: float = math.inf
    """When the call that runs is stopped; native code polls only if it is asked to."""
    flag: InterruptFlag = field(default_factory=InterruptFlag)

    @property
    def flag_address(self) -> int:
        return self.flag.address

    def begin(self) -> None:
        self.output.clear()
        self.written = self.polls = self.depth = 0
        self.deadline = time.monotonic() + CALL_SECONDS

    def end(self) -> None:
        self.deadline = math.inf

    def stop_if_late(self) -> None:
        """Let the running call end with a timeout at its next poll."""
        if time.monotonic() > self.deadline:
            self.polls = POLLS
            self.flag.set()

    def write(self, text: str) -> None:
        self.written += len(text)
        if self.written > self.limits.output:
            raise Trap("output_limit")
        self.output.append(text)

    def poll(self) -> None:
        self.polls += 1
        if self.polls > POLLS:
            raise Trap("timeout")
        self.flag.poll()

    def call_extern(self, name: str, args: Sequence[object], arg_types: Sequence[Type], result: Type, origin: Origin | None = None) -> object:
        if name in _INTERNAL:
            return _INTERNAL[name](self, args, arg_types)
        self.write(f"{name}{canonical(tuple(args))} at {origin}\n")
        return self.enter_again(*args) if name == "host_again" else _EXTERN_RULES[name](*args)

    def enter_again(self, x: int) -> int:
        """Call the program from inside, at most `MAX_DEPTH` deep. An even argument lets a trap pass."""
        if self.again is None or self.depth >= MAX_DEPTH:
            return 0
        self.depth += 1
        try:
            self.write(f"again: {canonical(self.again())}\n")
        except Trap as trap:
            if x % 2 == 0 or trap.kind in GIVEN_UP:
                raise
            self.write(f"again: {trap.kind} at {trap.origin} in {trap.frames}\n")
        finally:
            self.depth -= 1
        return self.depth


_INTERNAL: dict[str, Callable[[RecordingHost, Sequence, Sequence[Type]], object]] = {
    "rt_print": lambda host, args, types: host.write(f"{args[0]}\n"),
    "rt_float_text": lambda host, args, types: numbers.float_text(args[0], types[0]),
    "rt_parse_float": lambda host, args, types: numbers.parse_float_option(args[0]),
}


def _check(x: int) -> int:
    if x == 7:
        raise ValueError("seven")
    return x


_EXTERN_RULES: dict[str, Callable] = {
    "host_mix": lambda x, n: x * 0.5 + float(n % 1000),
    "host_note": lambda *_: None,
    "host_pick": lambda xs, default: SomeValue(f"{len(xs.items)}") if len(xs.items) % 2 else default,
    "host_check": _check,
}


# Values


def canonical(value: object) -> tuple:
    """Return a value as a flat tuple that is equal exactly for values that no program can tell apart: NaN is NaN, sharing and cycles show."""
    found: list[object] = []
    numbered: dict[int, int] = {}
    todo = [value]
    while todo:
        v = todo.pop()
        if v is None or isinstance(v, (bool, int, str)):
            found.append((type(v).__name__, v))
        elif isinstance(v, float):
            found.append("nan" if math.isnan(v) else v.hex())
        elif isinstance(v, tuple):
            found.append(("tuple", len(v)))
            todo.extend(reversed(v))
        elif isinstance(v, SomeValue):
            found.append("some")
            todo.append(v.value)
        elif isinstance(v, EnumValue):
            found.append((v.type_name, v.tag, len(v.slots)))
            todo.extend(reversed(v.slots))
        elif id(v) in numbered:
            found.append(("seen", numbered[id(v)]))
        else:
            numbered[id(v)] = len(numbered)
            todo.extend(reversed(_opened(v, found)))
    return tuple(found)


def _opened(v: object, found: list[object]) -> list:
    """Note what kind of object it is; return what is in it."""
    if isinstance(v, ArrayValue):
        found.append(("array", len(v.items)))
        return list(v.items)
    if isinstance(v, DictValue):
        found.append(("dict", len(v.items)))
        return [part for key in sorted(v.items) for part in (key, v.items[key])]
    assert isinstance(v, StructValue), v
    found.append((v.type_name, len(v.slots)))
    return list(v.slots)


# Running


def prepare(module: Module, model: str, fuel: int | None) -> Module:
    """Return the module resolved, and after the passes for fuel and semantics. Raises: VerifyError."""
    reporter = Reporter()
    resolved = check(module, Names.of(module), reporter)
    if reporter.errors():
        raise VerifyError(reporter.errors())
    names = Names.of(resolved)
    return apply_semantics(add_fuel(resolved) if fuel is not None else resolved, model, names)


class Executors:
    """Back ends that stay warm: one instance for all levels of a back end."""

    def __init__(self, names: Sequence[str] = tuple(EXECUTORS)) -> None:
        self.names = tuple(names)
        self._engines: dict[Callable, tuple[Backend, RecordingHost]] = {}
        self._is_over = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, daemon=True)
        self._watchdog.start()

    def _watch(self) -> None:
        while not self._is_over.wait(0.2):
            for _, host in list(self._engines.values()):
                host.stop_if_late()

    def engine(self, name: str) -> tuple[Backend, RecordingHost, int]:
        make, level = EXECUTORS[name]
        if make not in self._engines:
            host = RecordingHost()
            self._engines[make] = make(host), host
        return *self._engines[make], level

    def close(self) -> None:
        self._is_over.set()
        self._watchdog.join()
        for backend, host in self._engines.values():
            backend.close()
            host.flag.close()
        self._engines.clear()

    def compare(self, batch: Batch) -> Comparison:
        """Make all calls on all executors."""
        module = prepare(batch.module, batch.model, batch.fuel)
        unit = Unit(module, "generated", {g.name: index for index, g in enumerate(module.globals)})
        names = Names.of(module)
        first, *others = self.names
        expected = self._run(first, unit, names, batch, None)
        assert not isinstance(expected, str), expected
        differences: list[Difference] = []
        # What takes too long on the first would take for ever on others: they do not poll unless they are asked to.
        counts = [sum(not report.is_late for report in reports) for reports in expected]
        for executor in others:
            got = self._run(executor, unit, names, batch, counts)
            if isinstance(got, str):
                differences.append(Difference(0, -1, executor, None, got))
                continue
            for number, reports in enumerate(got):
                at = next((i for i, (a, b) in enumerate(zip(expected[number], reports)) if a != b), len(reports))
                if at < len(reports) and (reports[at].is_late or not (reports[at].is_given_up or expected[number][at].is_given_up)):
                    differences.append(Difference(number, at, executor, expected[number][at], reports[at]))
                counts[number] = min(counts[number], at)
        return Comparison(sum(counts), tuple(differences))

    def _run(self, name: str, unit: Unit, names: Names, batch: Batch, counts: list[int] | None) -> list[list[Report]] | str:
        """Return what each call of each program did; the exception's text if the unit could not be compiled."""
        backend, host, level = self.engine(name)
        try:
            compiled = backend.compile(unit, level)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        try:
            found = []
            for number, program in enumerate(batch.programs):
                types = {g.name: (unit.global_slots[g.name], names.globals[g.name].type) for g in program.module.globals}
                calls = program.calls[: None if counts is None else counts[number]]
                run = _Run(backend, host, compiled, types, names, batch.fuel)
                found.append(run.make_calls(calls, initial_globals(Names.of(program.module))))
            return found
        finally:
            compiled.close()


@dataclass(frozen=True)
class _Run:
    """One program on one executor."""

    backend: Backend
    host: RecordingHost
    compiled: Compiled
    types: Mapping[str, tuple[int, Type]]
    names: Names
    fuel: int | None

    def make_calls(self, calls: Sequence[tuple[str, tuple]], start: Mapping[str, object]) -> list[Report]:
        """Make calls on a fresh store of the program's globals, until one is given up, or the globals have grown so much that each call costs seconds."""
        self.backend.write_globals(start, self.types, self.names)
        reports: list[Report] = []
        for number, (name, args) in enumerate(pickle.loads(pickle.dumps(tuple(calls)))):
            self.host.begin()
            self.disturb(number)
            reports.append(self.make_call(name, args))
            if reports[-1].is_given_up or len(reports[-1].globals) > MOST_PARTS:
                break
        return reports

    def disturb(self, number: int) -> None:
        """Ask for what happens rarely and must not be seen: a poll, a compaction of the heap."""
        if number % 4 == 1:
            self.host.flag.set()
        if number % 3 == 1 and hasattr(self.backend, "compact_at"):
            self.backend.compact_at = 0

    def make_call(self, name: str, args: tuple) -> Report:
        lent = [ArrayValue(memoryview(np.array(a.items, a.dtype)), growable=False) for a in args if isinstance(a, Lent)]
        waiting = iter(lent)
        values = [next(waiting) if isinstance(a, Lent) else a for a in args]
        kept = pickle.dumps([ArrayValue(list(a.items)) if isinstance(a, Lent) else a for a in args])
        self.host.again = lambda: self.compiled.call(name, pickle.loads(kept), self.fuel)
        end = _end_of(lambda: self.compiled.call(name, values, self.fuel))
        self.host.end()
        if lent and self.types:
            found = self.backend.read_globals(self.types, self.names)
            detach_lent(found.values())
            self.backend.write_globals(found, self.types, self.names)
        stored = self.backend.read_globals(self.types, self.names)
        return Report(end, "".join(self.host.output), tuple(canonical(a) for a in lent), canonical(tuple(stored[g] for g in sorted(stored))))


def initial_globals(names: Names) -> dict[str, object]:
    """Return the values that globals have before the first call."""
    return {g.name: g.init.value if g.init is not None and g.init.bits is not None else zero_value(g.type, names) for g in names.globals.values()}


def _end_of(call: Callable[[], object]) -> tuple:
    """Return how a call ended; an exception that is none of the language is shown as it is."""
    try:
        return "value", canonical(call())
    except Trap as trap:
        if trap.kind in GIVEN_UP:
            return "trap", trap.kind
        return "trap", trap.kind, trap.message, trap.origin, trap.frames, trap.frames_omitted, trap.payload
    except Exception as error:
        return "raised", type(error).__name__, str(error)

"""An engine in a child process: even a crash of machine code costs one child, never the process of the user.

Globals are kept here, as values, and travel with a call when the child does not have them as they are; they come back with the answer. So a child that
is gone takes nothing with it: the next call starts another, which is told again what it needs. Output, externs and signal handlers run here.
During a call, requests go to the child that runs it (it serves them while it waits for an extern), and globals are the child's.

SIGINT is noted while this process waits for the child: the child is asked to stop, and ended if it does not. What the handler raised is raised then.
"""

from __future__ import annotations

import pickle
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from types import FrameType
from typing import Any, NoReturn

from ..mir.diagnostics import CrashError, Diagnostic, LoweringError, Trap
from ..mir.resolve import Names
from ..mir.types import Type
from .base import Host, Unit
from .channel import (
    STOP, Answer, Call, CallEnded, CallExtern, Child, ChildEnded, Close, Compile, Done, Ended, Failed, Open, Output, Raised, ReadGlobals, Store, View,
    WriteGlobals, ending,
)  # fmt: skip
from .packing import Loans, pack, unpack

ISOLATED = " (isolated)"
"""How the name of an isolated engine ends."""
STOP_SECONDS = 0.5
"""How long a child that was asked to stop may go on."""
TIMEOUT_GRACE_SECONDS = 2.0
"""How long a child may go on after the timeout that it should have seen itself."""


class IsolatedProgram:
    """A unit that is compiled in the child, and again in the next child after a crash."""

    calls_host = True
    """Every call passes through the manager."""

    def __init__(self, backend: IsolatedBackend, number: int, unit: Unit, level: int) -> None:
        self.backend = backend
        self.number = number
        self.unit = unit
        self.level = level
        self.uses_globals = bool(unit.module.globals)
        self.timings: Mapping[str, int] = {}

    def call(self, function: str, args: Sequence[object], fuel: int | None = None) -> object:
        """Call with values. Raises: Trap; CrashError; whatever an extern raised; KeyboardInterrupt."""
        return self.backend.call(self, function, args, fuel)

    def close(self) -> None:
        """Let the child free the code, when it is spoken to next."""
        self.backend.forgotten.append(self.number)

    def __getattr__(self, name: str) -> Any:
        if name not in VIEWS:
            raise AttributeError(name)
        value = self.backend.view(self, name)
        if value is None:
            raise AttributeError(name)
        return value


VIEWS = ("llvm_ir", "optimized_ir", "assembly", "lowered_text", "object_code", "wat")
"""What programs show of themselves; the engine in the child decides what there is."""


class _Watch:
    """What to look at while this process waits for the child: a noted interrupt, and when the child counts as hung."""

    def __init__(self, child: Any, deadline: float | None) -> None:
        self.child = child
        self.error: BaseException | None = None
        self.deadline = deadline
        self.is_timeout = False
        self._stop_at: float | None = None
        self._is_told = False
        self._resumed_at = time.monotonic()

    def resume(self) -> None:
        """The child runs from now on."""
        self._resumed_at = time.monotonic()

    def ended(self) -> None:
        """The program has stopped: the child may take its time."""
        self.deadline, self._stop_at, self._is_told = None, None, True

    def look(self) -> None:
        """End the child if it does not do as it should."""
        now = time.monotonic()
        if self.error is not None and not self._is_told:
            self._stop_at = self._stop_at or now + STOP_SECONDS
        self.is_timeout = self.deadline is not None and now >= max(self.deadline, self._resumed_at) + TIMEOUT_GRACE_SECONDS
        if self.is_timeout or (self._stop_at is not None and now >= self._stop_at):
            self.child.kill()

    def tell(self) -> None:
        """Ask the child to stop if an interrupt was noted; not in the middle of another frame."""
        self.look()
        if self.error is not None and not self._is_told:
            self._is_told = True
            self.child.send(STOP, self.look)

    @contextmanager
    def noting_interrupts(self) -> Iterator[None]:
        """Let the handler of SIGINT run, and note what it raises instead of raising it anywhere."""
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(handler):
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                self.error = self.error or error

        try:
            signal.signal(signal.SIGINT, note)
        except ValueError:  # A sub-interpreter handles no signals.
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, handler)


class IsolatedBackend:
    """An engine in a child process; see the module docstring. `short`: its short name; `name`: under which it reports itself."""

    def __init__(self, short: str, name: str, host: Host) -> None:
        self.short = short
        self.name = name
        self.host = host
        self.forgotten: list[int] = []
        """Numbers of programs that nobody needs any more."""
        self._child: Child | None = None
        self._memory = 0
        self._known: set[int] = set()
        """The programs that the child has."""
        self._numbers = count()
        self._depth = 0
        self._values: dict[str, object] = {}
        self._types: Mapping[str, tuple[int, Type]] = {}
        self._names = Names()
        self._is_current = False
        """Whether the child's globals are these; during a call, its are newer."""
        self._failures: list[BaseException] = []
        """What externs raised during the calls that are running."""

    @property
    def pid(self) -> int | None:
        """The process id of the child, if there is one."""
        return self._child.process.pid if self._child is not None else None

    # The child

    def _ready(self) -> Child:
        """Return the child, a new one if there is none."""
        child = self._child
        if child is not None and self._depth == 0 and (not child.is_alive or self._memory != self.host.limits.memory):
            self._drop()
            child = None
        return child or self._start()

    def _start(self) -> Child:
        interrupts = _Watch(None, None)
        with interrupts.noting_interrupts():
            try:
                child = self._child = Child()
            except OSError as error:
                raise LoweringError([Diagnostic("E0620", f"no process for isolated calls can be started: {error}", help="run without isolation")]) from None
            self._memory = self.host.limits.memory
            _tell(child, Open(self.short, self.host.limits))
        if interrupts.error is not None:
            raise interrupts.error
        return child

    def _drop(self) -> None:
        """Let go of the child."""
        child, self._child = self._child, None
        self._known.clear()
        self._is_current = False
        if child is not None:
            child.kill()
            child.end()

    def _ask(self, watch: _Watch, request: object) -> Any:
        """Return the child's answer to a request, after doing what it asks for meanwhile. Raises: ChildEnded."""
        child = watch.child
        try:
            while True:
                with watch.noting_interrupts():
                    child.send(dumps(request), watch.look)
                    watch.resume()
                    message = self._listen(watch)
                if not isinstance(message, CallExtern):
                    return message
                request = self._extern(message) if watch.error is None else self._failed(watch.error)
                if self._child is not child:
                    raise self._failures[request.number] if isinstance(request, Failed) else ChildEnded
        except ChildEnded:
            raise
        except BaseException:
            if self._child is child:
                self._drop()
            raise

    def _listen(self, watch: _Watch) -> Any:
        """Return the next message that wants a reply or is one."""
        while True:
            message = pickle.loads(watch.child.receive(watch.tell))
            if isinstance(message, Output):
                self.host.write(message.text)
            elif isinstance(message, Ended):
                watch.ended()
            else:
                return message

    def _extern(self, message: CallExtern) -> Answer | Failed:
        try:
            value = self.host.call_extern(message.name, unpack(message.args), message.arg_types, message.result, message.origin)
            return Answer(pack([value]))
        except BaseException as error:
            return self._failed(error)

    def _failed(self, error: BaseException) -> Failed:
        self._failures.append(error)
        return Failed(len(self._failures) - 1)

    def _simple(self, request: object, doing: str) -> Any:
        """Return the value that answers a request that is not a call."""
        child = self._ready()
        watch = _Watch(child, None)
        try:
            message = self._ask(watch, request)
        except ChildEnded:
            self._gone(watch, doing)
        if watch.error is not None:
            raise watch.error
        if isinstance(message, Raised):
            raise pickle.loads(message.error)
        assert isinstance(message, Done), message
        return message.value

    def _gone(self, watch: _Watch, doing: str) -> NoReturn:
        """Raise what the end of the child means."""
        child = watch.child
        code, words = child.exit_code(), child.last_words()
        if self._child is child:
            self._drop()
        if watch.error is not None:
            raise watch.error
        if watch.is_timeout:
            raise Trap("timeout", "the call ran longer than its timeout and did not react: its process was ended, globals are as before the call")
        raise CrashError(ending(code), doing, self.short, words) from None

    # Programs

    def compile(self, unit: Unit, level: int) -> IsolatedProgram:
        """Return the unit, compiled in the child. Raises: LoweringError, CrashError."""
        program = IsolatedProgram(self, next(self._numbers), unit, level)
        self._announce(program)
        return program

    def _announce(self, program: IsolatedProgram) -> None:
        """Make sure that the child has a program, and not those that nobody needs."""
        child = self._ready()
        if self.forgotten and self._depth == 0:
            gone, self.forgotten = [n for n in self.forgotten if n in self._known], []
            self._known.difference_update(gone)
            _tell(child, Close(gone))
        if program.number not in self._known:
            program.timings = self._simple(Compile(program.number, program.unit, program.level, self.host.limits), "it compiled the unit")
            self._known.add(program.number)

    def view(self, program: IsolatedProgram, attribute: str) -> object:
        """Return an attribute of a program, or None if the engine has no such thing."""
        self._announce(program)
        return self._simple(View(program.number, attribute), "it showed the unit")

    def call(self, program: IsolatedProgram, function: str, args: Sequence[object], fuel: int | None) -> object:
        """Call a function of a program in the child."""
        try:
            return self._call(program, function, args, fuel)
        finally:
            if self._depth == 0:
                self._failures.clear()

    def _call(self, program: IsolatedProgram, function: str, args: Sequence[object], fuel: int | None) -> object:
        self._announce(program)
        host, child = self.host, self._ready()
        loans = Loans()
        packed = pack(args, loans)
        sends = program.uses_globals and not self._is_current
        deadline_ns = getattr(host, "deadline_ns", None)
        deadline = None if deadline_ns is None else deadline_ns / 1e9
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        request = Call(program.number, function, packed, loans.copies(), fuel, host.limits, seconds, self._store() if sends else None, program.uses_globals)
        self._is_current |= sends
        watch = _Watch(child, deadline)
        is_adopted = False
        self._depth += 1
        try:
            ended = self._ask(watch, request)
            assert isinstance(ended, CallEnded), ended
            if ended.store is not None:
                self._values = dict(zip(self._types, unpack(ended.store)))
            is_adopted = ended.is_current
            loans.write_back(ended.changed)
        except ChildEnded:
            self._gone(watch, f"it ran `{function}`")
        finally:
            self._depth -= 1
            self._is_current &= is_adopted
        if watch.error is not None:
            raise watch.error
        if ended.kind != "value":
            raise self._outcome(ended)
        return unpack(ended.detail)[0]  # type: ignore[arg-type]

    def _outcome(self, ended: CallEnded) -> BaseException:
        """Return what a call in the child ended with."""
        if ended.kind == "host":
            return self._failures[ended.detail]  # type: ignore[call-overload]
        return KeyboardInterrupt() if ended.kind == "stopped" else pickle.loads(ended.detail)  # type: ignore[arg-type]

    # Globals

    def _store(self, given: Sequence[str] | None = None) -> Store:
        return Store(pack([self._values[name] for name in (self._types if given is None else given)]), dict(self._types), Names(types=dict(self._names.types)))

    def read_globals(self, types: Mapping[str, tuple[int, Type]], names: Names) -> dict[str, object]:
        """Return the values of the globals; objects that are shared stay shared."""
        if self._depth and self._is_current:
            packed = self._simple(ReadGlobals(dict(types), Names(types=dict(names.types))), "it read globals")
            return dict(zip(types, unpack(packed)))
        return {name: self._values[name] for name in types if name in self._values}

    def write_globals(self, values: Mapping[str, object], types: Mapping[str, tuple[int, Type]], names: Names) -> None:
        """Replace the store of globals; those without a value keep theirs."""
        kept = {name: self._values[name] for name in types if name in self._values}
        self._values, self._types, self._names = {**kept, **values}, dict(types), names
        if self._depth and self._is_current:
            self._simple(WriteGlobals(self._store(tuple(values)), tuple(values)), "it wrote globals")
        else:
            self._is_current = False

    def close(self) -> None:
        """End the child. Closing twice is fine."""
        self._drop()
        self._values, self._types = {}, {}


def _tell(child: Child, message: object) -> None:
    """Send a message that has no answer; whether the child is gone is seen by whoever wants one."""
    with suppress(ChildEnded):
        child.send(dumps(message), lambda: None)


def dumps(message: object) -> bytes:
    """Return a message as bytes. Raises: LoweringError."""
    try:
        return pickle.dumps(message, 5)
    except RecursionError:
        raise LoweringError([Diagnostic("E0620", "the types of the unit are nested too deeply to be sent to another process")]) from None

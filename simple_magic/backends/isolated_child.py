"""The child process of an isolated engine: it makes the engine and does what the parent's messages say, until its input ends.

The main thread runs programs. A second thread reads: it acts on STOP at once, and ends the process when the parent is gone, whatever the main thread
does. What a program asks of its host goes to the parent, which may answer with further requests first: so a wait for an answer serves requests too.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from ..mir.diagnostics import Origin, SimpleError, Trap
from ..mir.resolve import Names
from ..mir.types import Type
from .base import Backend, Limits, Program
from .channel import (
    HEADER, STOP, Answer, Call, CallEnded, CallExtern, Close, Compile, Done, Ended, Failed, Open, Output, Raised, ReadGlobals, View, WriteGlobals,
)  # fmt: skip
from .engines import INTERNAL_EXTERNS, make_engine
from .interrupt import InterruptFlag
from .packing import Borrowed, Packed, pack, unpack

FLUSH_CHARACTERS = 8192
FLUSH_NS = 20_000_000
"""Output travels when it is that much, or that long after the last."""


class HostFailed(BaseException):
    """An extern raised in the parent, which keeps the exception."""

    def __init__(self, number: int) -> None:
        self.number = number


class ChildHost:
    """What programs may ask for: output and time are counted here, externs run in the parent."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self.server = server
        self.limits = limits
        self.flag = InterruptFlag()
        self.is_stopped = False
        self._deadline: float | None = None
        self._text: list[str] = []
        self._held = self._used = self._flushed_at = 0

    @property
    def flag_address(self) -> int:
        return self.flag.address

    def begin(self) -> None:
        """Start a new outermost call."""
        self._used, self.is_stopped = 0, False

    def stop(self) -> None:
        """Make the running program stop. The reading thread calls this."""
        self.is_stopped = True
        self.flag.set()

    def poll(self) -> None:
        self.flag.poll()
        if self.is_stopped:
            self.is_stopped = False
            raise KeyboardInterrupt
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise Trap("timeout", "the call ran longer than its timeout")

    @contextmanager
    def timeout(self, seconds: float | None) -> Iterator[None]:
        """Let the program end after some time, or with an outer call's timeout if that comes first."""
        if seconds is None:
            yield
            return
        previous, deadline = self._deadline, time.monotonic() + seconds
        self._deadline = deadline if previous is None else min(previous, deadline)
        timer = threading.Timer(seconds, self.flag.set)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._deadline = previous

    def write(self, text: str) -> None:
        self._used += len(text)
        if self._used > self.limits.output:
            raise Trap("output_limit", f"the program wrote more than {self.limits.output} characters")
        self._text.append(text)
        self._held += len(text)
        if self._held >= FLUSH_CHARACTERS or time.monotonic_ns() - self._flushed_at >= FLUSH_NS:
            self.flush()

    def flush(self) -> None:
        if self._text:
            text, self._text, self._held = "".join(self._text), [], 0
            self._flushed_at = time.monotonic_ns()
            self.server.send(Output(text))

    def call_extern(self, name: str, args: Sequence[object], arg_types: Sequence[Type], result: Type, origin: Origin | None = None) -> object:
        internal = INTERNAL_EXTERNS.get(name)
        if internal is not None:
            return internal(self, args, arg_types)
        self.flush()
        self.server.send(CallExtern(name, pack(args), tuple(arg_types), result, origin))
        answer = self.server.serve()
        if isinstance(answer, Failed):
            raise HostFailed(answer.number)
        return unpack(answer.value)[0]


class Server:
    """The engine and its programs by number. `depth` counts the calls that are running."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._inbox: SimpleQueue[bytes] = SimpleQueue()
        self.engine: Backend | None = None
        self.host = ChildHost(self, Limits())
        self.name = ""
        self.programs: dict[int, Program] = {}
        self.depth = 0
        self.globals: tuple[Any, Names] | None = None
        self._is_touched = False

    def read(self) -> None:
        """Take frames from the parent until there is none, and end the process. Runs in a thread of its own."""
        try:
            with open(self._requests, "rb") as file:
                while header := file.read(HEADER.size):
                    (size,) = HEADER.unpack(header)
                    frame = file.read(size)
                    if frame == STOP:
                        self.host.stop()
                    else:
                        self._inbox.put(frame)
        finally:
            os._exit(0)

    def send(self, message: object) -> None:
        data = pickle.dumps(message, 5)
        frame = memoryview(HEADER.pack(len(data)) + data)
        try:
            while frame:
                frame = frame[os.write(self._answers, frame) :]
        except OSError:
            os._exit(0)  # The parent is gone.

    def serve(self) -> Answer | Failed:
        """Do what the parent asks until it answers the last question that was put to it."""
        while True:
            message = pickle.loads(self._inbox.get())
            if isinstance(message, (Answer, Failed)):
                return message
            RULES[type(message)](self, message)

    def open(self, message: Open) -> None:
        self.name, self.host.limits = message.engine, message.limits

    def answer(self, action: Callable[[], object]) -> None:
        """Do something and tell the parent what came of it."""
        try:
            value = action()
        except Exception as error:
            self.send(Raised(pickled(error)))
        else:
            self.send(Done(value))

    def compile(self, message: Compile) -> None:
        def compile_unit() -> object:
            self.host.limits = message.limits
            if self.engine is None:
                self.engine = make_engine(self.name, self.host)
            program = self.programs[message.program] = self.engine.compile(message.unit, message.level)
            return getattr(program, "timings", {})

        self.answer(compile_unit)

    def view(self, message: View) -> None:
        self.answer(lambda: getattr(self.programs[message.program], message.attribute, None))

    def close(self, message: Close) -> None:
        for number in message.programs:
            program = self.programs.pop(number, None)
            if program is not None:
                program.close()

    def read_globals(self, message: ReadGlobals) -> None:
        self.answer(lambda: self._packed_globals(message.types, message.names))

    def _packed_globals(self, types: Any, names: Names) -> Packed:
        assert self.engine is not None, "a call is running"
        read = self.engine.read_globals(types, names)
        return pack([read[name] for name in types])

    def write_globals(self, message: WriteGlobals) -> None:
        self.answer(lambda: self._write(message.store, message.given))

    def _write(self, store: Any, given: Sequence[str] | None = None) -> None:
        assert self.engine is not None, "a call is running, or about to"
        self.globals = None  # In case that it fails.
        self.engine.write_globals(dict(zip(store.types if given is None else given, unpack(store.values))), store.types, store.names)
        self.globals = store.types, store.names

    def call(self, message: Call) -> None:
        host = self.host
        if self.depth == 0:
            host.begin()
            self._is_touched = False
        self._is_touched |= message.uses_globals
        limits, host.limits = host.limits, message.limits
        borrowed = Borrowed(message.lent)
        kind = "value"
        detail: object = None
        self.depth += 1
        try:
            with host.timeout(message.seconds):
                if message.store is not None:
                    self._write(message.store)
                args = unpack(message.args, borrowed.views)
                value = self.programs[message.program].call(message.function, args, message.fuel)
        except HostFailed as failed:
            kind, detail = "host", failed.number
        except KeyboardInterrupt:
            kind = "stopped"
        except Exception as error:
            kind, detail = "raised", pickled(error)
        finally:
            self.depth -= 1
            if self.depth:
                host.limits = limits
        host.flush()
        if kind != "value" or message.seconds is not None:
            self.send(Ended())
        if kind == "value":
            detail = pack([value])
        store = self._packed_globals(*self.globals) if self.depth == 0 and self._is_touched and self.globals else None
        self.send(CallEnded(kind, detail, store, self.globals is not None, borrowed.changed()))


RULES: dict[type, Callable[[Server, Any], None]] = {
    Open: Server.open, Compile: Server.compile, Call: Server.call, View: Server.view, Close: Server.close, ReadGlobals: Server.read_globals,
    WriteGlobals: Server.write_globals,
}  # fmt: skip
"""What each message asks for."""


def pickled(error: Exception) -> bytes:
    """Return an exception as bytes that can be read back; one that is nobody's intention keeps its traceback as a note."""
    if not isinstance(error, SimpleError):
        error.add_note("in the isolated process:\n" + "".join(traceback.format_exception(error)).rstrip())
    try:
        data = pickle.dumps(error, 5)
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"), 5)


def main() -> None:
    """Serve the parent over standard input and output. Whatever else writes to standard output goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    server = Server(requests, answers)
    threading.Thread(target=server.read, name="simple_magic requests", daemon=True).start()
    try:
        server.serve()
    finally:
        traceback.print_exc()
        os._exit(1)

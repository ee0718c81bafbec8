"""A child process with this Python, and frames of bytes to and from it; and the messages that an isolated engine exchanges.

The child is started from nothing (`spawn`), in a session of its own, so that Ctrl-C in a terminal does not reach it. It ends when its standard input
does: with the parent, however that ends. Everything here serves one thread at a time.

A frame is a length and that many bytes: a pickled message, or STOP, which the child's reading thread acts on at once.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from ..mir.diagnostics import Origin
from ..mir.types import Type
from .base import Limits, Unit
from .packing import Copies, Packed
from ..mir.resolve import Names

HEADER = struct.Struct("<Q")
STOP = b"S"
TICK_SECONDS = 0.05
"""How long one wait for the child lasts before the caller looks around."""
END_SECONDS = 1.0
"""How long a child may take to end by itself."""
BOOTSTRAP = "import sys, os; sys.path[:] = sys.argv[1].split(os.pathsep); from simple_magic.backends.isolated_child import main; main()"


# Messages


class Open(NamedTuple):
    """The first message: which engine to make, and its limits."""

    engine: str
    limits: Limits


class Compile(NamedTuple):
    """Compile a unit under a number. Answer: its timings."""

    program: int
    unit: Unit
    level: int
    limits: Limits


class Store(NamedTuple):
    """The whole store of globals."""

    values: Packed
    types: Mapping[str, tuple[int, Type]]
    names: Names


class Call(NamedTuple):
    """Call a function. `store`: write these globals before. `seconds`: what is left of the timeout. Answer: `CallEnded`."""

    program: int
    function: str
    args: Packed
    lent: Copies
    fuel: int | None
    limits: Limits
    seconds: float | None
    store: Store | None
    uses_globals: bool


class View(NamedTuple):
    """Answer: an attribute of a program, or None."""

    program: int
    attribute: str


class Close(NamedTuple):
    """Close programs. No answer."""

    programs: list[int]


class ReadGlobals(NamedTuple):
    """During a call. Answer: the packed values of the globals."""

    types: Mapping[str, tuple[int, Type]]
    names: Names


class WriteGlobals(NamedTuple):
    """During a call: replace the globals. `store` holds values for those in `given`; the others keep theirs."""

    store: Store
    given: Sequence[str]


class Answer(NamedTuple):
    """What an extern returned."""

    value: Packed


class Failed(NamedTuple):
    """An extern raised; the parent keeps the exception under this number."""

    number: int


class Output(NamedTuple):
    """From the child: text that the program wrote."""

    text: str


class CallExtern(NamedTuple):
    """From the child: call an extern."""

    name: str
    args: Packed
    arg_types: tuple[Type, ...]
    result: Type
    origin: Origin | None


class Ended(NamedTuple):
    """From the child: a call failed, or returned within its timeout; what is left to do takes as long as the data is large."""


class Done(NamedTuple):
    """From the child: the answer to any request but Call."""

    value: object


class Raised(NamedTuple):
    """From the child: any request but Call failed; the pickled exception."""

    error: bytes


class CallEnded(NamedTuple):
    """From the child: a call returned or failed.

    kind and detail: "value" and the packed result, "raised" and a pickled exception, "host" and the number of an exception that the parent keeps,
    "stopped" and None. `store`: the globals, if a unit that ran has some. `is_current`: the child has the globals that it was sent.
    `changed`: pieces of the lent memory.
    """

    kind: str
    detail: object
    store: Packed | None
    is_current: bool
    changed: dict[int, bytes]


# The process


class ChildEnded(Exception):
    """The child process is gone."""


class Child:
    """A child process and the pipes to it. Raises: OSError if none can be started."""

    def __init__(self) -> None:
        if not sys.executable:
            raise OSError("Python does not know its own executable")
        options: dict = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join([p for p in sys.path if p and p != package] + [package])
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, bufsize=0, **options,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None, "both are pipes"
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        if sys.platform != "win32":
            os.set_blocking(self._input, False)
        self._received = bytearray()
        self.end = weakref.finalize(self, _end, self.process, self.errors)
        _CHILDREN.add(self)

    @property
    def is_alive(self) -> bool:
        return self.end.alive and self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()

    def send(self, data: bytes, tick: Callable[[], None]) -> None:
        """Send a frame; `tick` is called at every wait. Raises: ChildEnded."""
        frame = memoryview(HEADER.pack(len(data)) + data)
        while frame:
            try:
                frame = frame[os.write(self._input, frame[: 1 << 20]) :]
            except BlockingIOError:
                _wait(self._input, writing=True)
                tick()
            except OSError:
                raise ChildEnded from None

    def receive(self, tick: Callable[[], None]) -> bytes:
        """Return the next frame; `tick` is called at every wait that is long. Raises: ChildEnded."""
        received = self._received
        self._read(HEADER.size, tick)
        size = HEADER.size + HEADER.unpack_from(received)[0]
        self._read(size, tick)
        frame = bytes(memoryview(received)[HEADER.size : size])
        del received[:size]
        return frame

    def _read(self, size: int, tick: Callable[[], None]) -> None:
        received = self._received
        while len(received) < size:
            while not _wait(self._output):
                tick()
            data = os.read(self._output, max(1 << 16, size - len(received)))
            if not data:
                raise ChildEnded
            received += data

    def last_words(self) -> str:
        """Return the first line that the ended child wrote to its standard error."""
        try:
            self.errors.seek(0)
            lines = self.errors.read(4000).decode("utf-8", "replace").split("\n")
        except (OSError, ValueError):
            return ""
        return next((line.strip() for line in lines if line.strip()), "")

    def exit_code(self) -> int:
        """Wait until the process is gone; return its exit code, negative for a signal."""
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def forget(self) -> None:
        """The process belongs to another: this one is its fork."""
        self.end.detach()
        self.process.returncode = 0
        _close_pipes(self.process, self.errors)


if sys.platform == "win32":
    import ctypes
    import msvcrt

    def _wait(fd: int, writing: bool = False) -> bool:
        """Wait a little until a pipe can be read; return whether it can. Anonymous pipes have no other way here than to look again and again."""
        available = ctypes.c_ulong()
        until = time.monotonic() + TICK_SECONDS
        while time.monotonic() < until:
            if not ctypes.windll.kernel32.PeekNamedPipe(msvcrt.get_osfhandle(fd), None, 0, None, ctypes.byref(available), None) or available.value:
                return True  # A broken pipe reads as ended.
            time.sleep(0.0005)
        return False

else:
    import select

    def _wait(fd: int, writing: bool = False) -> bool:
        """Wait a little until a pipe can be read, or written; return whether it can."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT if writing else select.POLLIN)
        return bool(poll.poll(TICK_SECONDS * 1000))


def _close_pipes(process: subprocess.Popen, errors: IO[bytes]) -> None:
    for file in (process.stdin, process.stdout, errors):
        if file is not None:
            file.close()


def _end(process: subprocess.Popen, errors: IO[bytes]) -> None:
    """End a child: its input ends, which it obeys at once unless it hangs."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _close_pipes(process, errors)


_CHILDREN: weakref.WeakSet[Child] = weakref.WeakSet()
"""What a fork of this process must let go of."""


def _forget_after_fork() -> None:
    for child in list(_CHILDREN):
        if child.end.alive:
            child.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def ending(code: int) -> str:
    """Return how a process ended, for the beginning of a sentence."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}" if code < 1 << 16 else f"exit code {code:#x}"

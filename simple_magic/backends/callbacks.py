"""What native code calls in the host: externs, output, polls. The same for every native back end."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Iterable

from ..mir.diagnostics import Trap
from ..mir.resolve import Names
from ..passes.lower import HostCall
from ..passes.lower_calls import FLOAT_TEXT, PARSE_FLOAT, PRINT
from ..runtime.layout import WORD
from .base import Host
from .heap import Heap
from .traps import status_of_kind
from .wrapper import thread_stack_low

INTERNAL_CALLS = frozenset((PRINT, FLOAT_TEXT, PARSE_FLOAT))
"""Host calls that lowering makes by itself: a trap in them is the program's own."""
INTERRUPTED = status_of_kind("interrupted")

POLL, HOST, ANSWER, NUMBER, BLOCK = range(5)
"""The words by which native code and `Callbacks` talk: addresses of the two callbacks, the answer, and the arguments of `host`."""

CallbackFunction = ctypes.CFUNCTYPE(None)


class Callbacks:
    """What native code calls: `poll` and `host`. They answer 1 + status; 0 means that an exception got lost before it could be caught.

    Python runs signal handlers when a function begins, before its first `try`. So the callbacks are generators that wait inside one. A generator
    cannot be entered twice: each depth of nested calls has its own pair.

    `depth` counts the calls that are running, and a poll as one more: the signal handlers that it lets run may call programs.
    `pending` holds the exception behind a status until the call that it ends raises it, and whether it is the host's own, to be raised as it is.
    """

    def __init__(self, host: Host, heap: Heap) -> None:
        self.host = host
        self.heap = heap
        self.depth = 0
        self.pending: tuple[BaseException, bool] | None = None
        self.calls: dict[int, tuple[HostCall, Names]] = {}
        self._numbers = 0
        self._cells = (ctypes.c_int64 * 5)()
        self._levels: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._level = -1
        self.enter(0)

    def cell(self, index: int) -> int:
        """Return the address of one of the words."""
        return ctypes.addressof(self._cells) + index * WORD

    def enter(self, depth: int) -> None:
        """Let native code call the pair of this depth."""
        if depth == self._level:
            return
        while len(self._levels) <= depth:
            self._levels.append((_callback(self._poller()), _callback(self._server())))
        for index, callback in zip((POLL, HOST), self._levels[depth]):
            self._cells[index] = ctypes.cast(callback, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
        self._level = depth

    def renew(self, depth: int) -> None:
        """Make a new pair for this depth: an exception that got lost may have ended the old one."""
        del self._levels[depth:]
        self._level = -1
        self.enter(depth)

    def _poller(self) -> Generator[None, None, None]:
        depth, is_waiting = None, True
        while True:
            try:
                while True:
                    depth, is_waiting = None, True
                    yield
                    is_waiting = False
                    depth = self.depth
                    self.depth = depth + 1
                    self.host.poll()
                    self.depth = depth
                    self._cells[ANSWER] = 1
            except BaseException as error:
                if is_waiting and isinstance(error, GeneratorExit):
                    return
                self.depth = self.depth if depth is None else depth
                self.pending = error, False
                self._cells[ANSWER] = 1 + _status_of(error)

    def _server(self) -> Generator[None, None, None]:
        is_foreign, is_waiting = False, True
        while True:
            try:
                while True:
                    is_foreign, is_waiting = False, True
                    yield
                    is_waiting = False
                    call, names = self.calls[self._cells[NUMBER]]
                    at, count = self._cells[BLOCK] >> 3, len(call.arg_types)
                    args = self.heap.decode_many(self.heap.words[at : at + count].tolist(), call.arg_types, names)
                    is_foreign = call.name not in INTERNAL_CALLS
                    self.heap.return_lent()
                    try:
                        value = self.host.call_extern(call.name, args, call.arg_types, call.result, call.origin)
                    finally:
                        self.heap.take_lent()
                    is_foreign = False
                    self.heap.words[at + count] = self.heap.encode(value, call.result, names)
                    args, value = [], None
                    self._cells[ANSWER] = 1
            except BaseException as error:
                if is_waiting and isinstance(error, GeneratorExit):
                    return
                args, value = [], None
                self.pending = error, is_foreign
                self._cells[ANSWER] = 1 + _status_of(error)

    def add_calls(self, calls: Iterable[HostCall], names: Names) -> tuple[int, ...]:
        """Return the numbers under which native code makes these calls."""
        numbers = []
        for call in calls:
            self.calls[self._numbers] = (call, names)
            numbers.append(self._numbers)
            self._numbers += 1
        return tuple(numbers)

    def remove_calls(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.calls.pop(number, None)

    def take_pending(self) -> tuple[BaseException, bool] | None:
        pending, self.pending = self.pending, None
        return pending

    def close(self) -> None:
        """Break the cycles between this object and its callbacks."""
        self.calls.clear()
        self._levels.clear()


def _callback(generator: Generator[None, None, None]) -> Callable[[], None]:
    """Return a C function that lets the generator, which waits in its first `yield`, go on to the next."""
    next(generator)
    return CallbackFunction(generator.__next__)


def _status_of(error: BaseException) -> int:
    """Return the status that passes up while the exception waits. Only a throw of the program itself may look like one: an `invoke` catches it."""
    if isinstance(error, Trap) and error.kind != "uncaught_throw":
        return status_of_kind(error.kind)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else status_of_kind("extern_error")


_stacks = threading.local()


def stack_floor() -> int:
    """Return the lowest address of this thread's stack that programs may use; looked up once per thread."""
    floor = getattr(_stacks, "floor", None)
    if floor is None:
        floor = _stacks.floor = thread_stack_low()
    return floor

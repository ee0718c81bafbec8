"""The border of native code: callbacks into the host, and the entries by which Python calls machine code over words.

Both sides of each are here: the Python objects, and the IR text of the small functions that go with them.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Iterable

from ..mir.diagnostics import Trap
from ..mir.resolve import Names
from ..mir.types import F32, F64, Type
from ..passes.lower import HostCall
from ..passes.lower_calls import FLOAT_TEXT, PARSE_FLOAT, PRINT
from ..runtime.layout import FRAME_COUNT, STACK_LIMIT, TRAP_SITE, WORD
from .base import Host
from .heap import Heap
from .llvm_emit import ATTRIBUTES, LLVM_TYPES, function_at
from .traps import status_of_kind
from .wrapper import thread_stack_low

INTERNAL_CALLS = frozenset((PRINT, FLOAT_TEXT, PARSE_FLOAT))
"""Host calls that lowering makes by itself: a trap in them is the program's own."""
INTERRUPTED = status_of_kind("interrupted")


# Calling out of native code


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
        depth = None
        while True:
            try:
                while True:
                    depth = None
                    yield
                    depth = self.depth
                    self.depth = depth + 1
                    self.host.poll()
                    self.depth = depth
                    self._cells[ANSWER] = 1
            except GeneratorExit:
                return
            except BaseException as error:
                self.depth = self.depth if depth is None else depth
                self.pending = error, False
                self._cells[ANSWER] = 1 + _status_of(error)

    def _server(self) -> Generator[None, None, None]:
        is_foreign = False
        while True:
            try:
                while True:
                    is_foreign = False
                    yield
                    call, names = self.calls[self._cells[NUMBER]]
                    at, count = self._cells[BLOCK] >> 3, len(call.arg_types)
                    args = self.heap.decode_many(self.heap.words[at : at + count].tolist(), call.arg_types, names)
                    is_foreign = call.name not in INTERNAL_CALLS
                    value = self.host.call_extern(call.name, args, call.arg_types, call.result, call.origin)
                    is_foreign = False
                    self.heap.words[at + count] = self.heap.encode(value, call.result, names)
                    args, value = [], None
                    self._cells[ANSWER] = 1
            except GeneratorExit:
                return
            except BaseException as error:
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


def support_text(header: str, heap_base: int, flag: int, callbacks: Callbacks) -> str:
    """Return `poll` and `host`: the callback, its answer as a status, and the site noted if that is not 0. `host` looks at the flag first."""

    def word(index: int) -> str:
        return function_at(callbacks.cell(index))

    def call(index: int) -> str:
        return f"""
  store i64 0, ptr {word(ANSWER)}
  %callback = load ptr, ptr {word(index)}
  call void %callback()
  %code = load i64, ptr {word(ANSWER)}
  %is_fine = icmp eq i64 %code, 1
  br i1 %is_fine, label %fine, label %failed
fine:
  ret i32 0
failed:
  store i64 %site, ptr {function_at(heap_base + TRAP_SITE)}
  store i64 0, ptr {function_at(heap_base + FRAME_COUNT)}
  %is_lost = icmp eq i64 %code, 0
  %answer = trunc i64 %code to i32
  %status = sub i32 %answer, 1
  %result = select i1 %is_lost, i32 {INTERRUPTED}, i32 %status
  ret i32 %result
}}
"""

    return f"""{header}
define i32 @poll(i64 %site) #0 {{{call(POLL)}
define i32 @host(i64 %number, i64 %block, i64 %site) #0 {{
  %flag = load volatile i64, ptr {function_at(flag)}
  %is_asked = icmp ne i64 %flag, 0
  br i1 %is_asked, label %asked, label %go
asked:
  %stop = call i32 @poll(i64 %site)
  %goes_on = icmp eq i32 %stop, 0
  br i1 %goes_on, label %go, label %stopped
stopped:
  ret i32 %stop
go:
  store i64 %number, ptr {word(NUMBER)}
  store i64 %block, ptr {word(BLOCK)}{call(HOST)}
{ATTRIBUTES}"""


# Entries

EntryFunction = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
"""`status entry(target, block, budget, floor)`; ctypes releases the GIL around it."""


def _from_word(t: Type, name: str, word: str) -> str:
    """Return the IR that makes `name` of type `t` from a word."""
    if LLVM_TYPES[t] == "i64":
        return f"  {name} = add i64 {word}, 0\n"
    if t == F64:
        return f"  {name} = bitcast i64 {word} to double\n"
    if t == F32:
        return f"  {name}.bits = trunc i64 {word} to i32\n  {name} = bitcast i32 {name}.bits to float\n"
    return f"  {name} = trunc i64 {word} to {LLVM_TYPES[t]}\n"


def _to_word(t: Type, value: str) -> str:
    """Return the IR that makes `%word` from a value of type `t`."""
    if LLVM_TYPES[t] == "i64":
        return f"  %word = add i64 {value}, 0\n"
    if t == F64:
        return f"  %word = bitcast double {value} to i64\n"
    if t == F32:
        return f"  %bits = bitcast float {value} to i32\n  %word = zext i32 %bits to i64\n"
    return f"  %word = zext {LLVM_TYPES[t]} {value} to i64\n"


def entry_text(header: str, heap_base: int, params: tuple[Type, ...], result: Type, traps: bool) -> str:
    """Return the entry of a signature. The stack may be used down to `budget` bytes below here, but not below `floor`."""
    loads = "".join(
        f"  %w{i}.p = getelementptr i64, ptr %block, i64 {i}\n  %w{i} = load i64, ptr %w{i}.p\n{_from_word(t, f'%a{i}', f'%w{i}')}"
        for i, t in enumerate(params)
    )
    arguments = ", ".join(f"{LLVM_TYPES[t]} %a{i}" for i, t in enumerate(params))
    t = LLVM_TYPES[result]
    call = f"  %value = call {t} %target({arguments})\n"
    if traps:
        call = f"  %both = call {{ {t}, i32 }} %target({arguments})\n  %value = extractvalue {{ {t}, i32 }} %both, 0\n"
    status = f"  %status = extractvalue {{ {t}, i32 }} %both, 1\n  ret i32 %status\n" if traps else "  ret i32 0\n"
    return f"""{header}
declare ptr @llvm.frameaddress.p0(i32 immarg)
declare i64 @llvm.usub.sat.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)
define i32 @entry(ptr %target, ptr %block, i64 %budget, i64 %floor) #0 {{
  %frame = call ptr @llvm.frameaddress.p0(i32 0)
  %here = ptrtoint ptr %frame to i64
  %low = call i64 @llvm.usub.sat.i64(i64 %here, i64 %budget)
  %limit = call i64 @llvm.umax.i64(i64 %low, i64 %floor)
  store i64 %limit, ptr {function_at(heap_base + STACK_LIMIT)}
{loads}{call}{_to_word(result, "%value")}  %out = getelementptr i64, ptr %block, i64 {len(params)}
  store i64 %word, ptr %out
{status}}}
{ATTRIBUTES}"""


_stacks = threading.local()


def stack_floor() -> int:
    """Return the lowest address of this thread's stack that programs may use; looked up once per thread."""
    floor = getattr(_stacks, "floor", None)
    if floor is None:
        floor = _stacks.floor = thread_stack_low()
    return floor

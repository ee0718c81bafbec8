"""The native call path: Python callables whose body is machine code.

`make_callable` gives an instance of one callable type. Its *vectorcall* function is emitted as LLVM IR text, once per signature and process: it checks
and converts the arguments, takes the manager, calls the target, converts the result. Whatever is unusual (other types, keywords, a busy manager,
a signature without native form) goes to the Python callable `slow` that the instance holds, with the same arguments; so native code never has to explain
an error. A status other than 0 goes to `trapped(status)`, which raises.

The target and everything it needs lie in the instance, so `retarget` and `invalidate` change where the next call goes without new code.
All memory that the fast path touches belongs to whoever holds the GIL: the owner word is tested and set without atomic instructions.

Native forms: every integer type, f64, f32, bool, and as parameters arrays of them, for which a NumPy array of the very element type is lent, or copied
in and back where the target cannot reach its memory.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..mir.types import BOOL, F32, F64, FLOATS, I64, INTEGERS, NUMBERS, U64, UNIT, Array, FixedArray, Type, bit_width, is_integer, is_signed
from ..runtime.layout import ARRAY_SIZE, BORROWED, CAPACITY, DATA, HEAP_LIMIT, HEAP_TOP, KIND_ARRAY, LENGTH, NO_SITE, STACK_LIMIT, TRAP_SITE, element_size
from .interrupt import InterruptFlag, Ticker

_WORD = 8


# What the caller gives


class _CallWords(ctypes.Structure):
    _fields_ = [
        ("thread", ctypes.c_int64), ("stack_low", ctypes.c_uint64), ("compact_at", ctypes.c_int64), ("running", ctypes.c_int64),
        ("ticking", ctypes.c_int64),
    ]  # fmt: skip


class CallState:
    """What all callables of one manager share.

    compact_at: a unit that keeps objects takes the slow path once HEAP_TOP is beyond this offset, so that the manager can compact.
    Native calls that release the GIL in the main thread are interrupted through `flag`, which a `Ticker` sets while one of them runs.
    """

    def __init__(self, flag: InterruptFlag | None = None) -> None:
        self.words = _CallWords(0, 0, (1 << 63) - 1, 0, 0 if flag else 1)
        self.address = ctypes.addressof(self.words)
        self._ticker = Ticker(flag, self._word("running"), self._word("ticking")) if flag else None

    def _word(self, name: str) -> ctypes.c_int64:
        return ctypes.c_int64.from_buffer(self.words, getattr(_CallWords, name).offset)

    @property
    def compact_at(self) -> int:
        return self.words.compact_at

    @compact_at.setter
    def compact_at(self, offset: int) -> None:
        self.words.compact_at = offset

    def adopt_thread(self) -> None:
        """Make the current thread the one whose stack bound is known."""
        self.words.stack_low = thread_stack_low()
        self.words.thread = threading.get_ident()

    def start_ticker(self) -> None:
        assert self._ticker is not None, "without a flag the ticker counts as started"
        self._ticker.start()


@dataclass(frozen=True)
class Target:
    """Where the calls of a callable go.

    address: of the function with the native protocol; has_status: it returns {value, i32} instead of the value alone. context: unless 0, what the
    function gets as a last argument; then the stack limit word holds the bytes that are left, and NumPy's memory, which the function cannot reach, is copied into the heap and back.
    heap: address of offset 0; owner: address of the manager's owner word; state: the manager's CallState.
    stack: bytes that a call may use. resets_heap: the call keeps no object, so HEAP_TOP goes back afterwards; needed for array parameters.
    releases_gil: for functions that loop or recurse; those have a status.
    writes: for each parameter whether the program may write into it. keep: whatever must stay alive.
    """

    address: int
    has_status: bool
    heap: int
    owner: int
    state: CallState
    stack: int = 1 << 20
    context: int = 0
    resets_heap: bool = True
    releases_gil: bool = False
    writes: Sequence[bool] = ()
    keep: object = field(default=None, compare=False)


STACK_RESERVE = 128 * 1024
"""Bytes at the end of every thread's stack that programs leave for what they call."""


def thread_stack_low() -> int:
    """Return the lowest address that programs may use of the current thread's stack."""
    if sys.platform == "win32":
        low, high = ctypes.c_size_t(), ctypes.c_size_t()
        ctypes.windll.kernel32.GetCurrentThreadStackLimits(ctypes.byref(low), ctypes.byref(high))
        return low.value + STACK_RESERVE
    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_void_p
    me = ctypes.c_void_p(libc.pthread_self())
    if sys.platform == "darwin":
        libc.pthread_get_stackaddr_np.restype = ctypes.c_void_p
        libc.pthread_get_stacksize_np.restype = ctypes.c_size_t
        return libc.pthread_get_stackaddr_np(me) - libc.pthread_get_stacksize_np(me) + STACK_RESERVE
    attributes = (ctypes.c_uint64 * 32)()
    start, size = ctypes.c_void_p(), ctypes.c_size_t()
    failed = libc.pthread_getattr_np(me, attributes)
    assert not failed, "the bounds of the thread's stack are not known"
    libc.pthread_attr_getstack(attributes, ctypes.byref(start), ctypes.byref(size))
    libc.pthread_attr_destroy(attributes)
    return (start.value or 0) + STACK_RESERVE


# The callable type

_HEAD = object.__basicsize__
_TYPE_OFFSET = _HEAD - _WORD
"""Where an object's type stands: the last word of the object header."""


class _Instance(ctypes.Structure):
    """An instance behind its object header."""

    _fields_ = [
        ("vectorcall", ctypes.c_void_p), ("dict", ctypes.c_void_p), ("weakrefs", ctypes.c_void_p), ("slow", ctypes.c_void_p),
        ("trapped", ctypes.c_void_p), ("keep", ctypes.c_void_p), ("address", ctypes.c_void_p), ("heap", ctypes.c_void_p),
        ("owner", ctypes.c_void_p), ("state", ctypes.c_void_p), ("stack", ctypes.c_uint64), ("main_thread", ctypes.c_int64),
        ("writes", ctypes.c_uint64), ("context", ctypes.c_uint64), ("resets_heap", ctypes.c_uint8), ("releases_gil", ctypes.c_uint8),
    ]  # fmt: skip


def _offset(name: str) -> int:
    return _HEAD + getattr(_Instance, name).offset


_OWNED = ("dict", "slow", "trapped", "keep")
"""The fields that hold references."""


def _instance(made: object) -> _Instance:
    return _Instance.from_address(id(made) + _HEAD)


def _own(instance: _Instance, name: str, value: object) -> None:
    """Store a reference in a field."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    former = getattr(instance, name)
    setattr(instance, name, id(value))
    if former:
        ctypes.pythonapi.Py_DecRef(ctypes.c_void_p(former))


def _address(name: str) -> int:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def _api(name: str) -> str:
    """Return a function of CPython's C API as an IR constant."""
    return _constant(_address(name))


def _constant(address: int) -> str:
    return f"inttoptr (i64 {address} to ptr)"


def is_supported() -> bool:
    """Return whether this Python has the object layout that the emitted code relies on: a 64-bit CPython with a GIL."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != _WORD or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    number = 1.5
    return (
        _HEAD == 16
        and ctypes.c_void_p.from_address(id(number) + _TYPE_OFFSET).value == id(float)
        and ctypes.c_double.from_address(id(number) + _HEAD).value == number
    )


def _for_ever(value: object) -> object:
    """Return the object, which is never freed from now on: emitted code and C structures refer to its address until the process is gone."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    return value


def _compile(functions: dict[str, str]) -> dict[str, int]:
    """Compile functions, given as IR text by name, and return their addresses.

    The code is never freed, as there is one piece per signature. The text has the form that optimisation would give it: more effort buys nothing.
    """
    from .llvm_jit import NO_PASSES, compile_text

    text = "declare ptr @llvm.frameaddress.p0(i32)\ndeclare i64 @llvm.usub.sat.i64(i64, i64)\ndeclare i64 @llvm.umax.i64(i64, i64)\n"
    text += "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)\n\n"
    code, _ = compile_text(text + "\n".join(functions.values()), NO_PASSES, functions)
    _for_ever(code)
    return code.addresses


def _type_functions() -> dict[str, str]:
    """Return the slots of the callable type, and `slow`, the vectorcall function of a callable without native form."""

    def visit(name: str) -> str:
        return f"""
  %{name}.p = getelementptr i8, ptr %self, i64 {_offset(name)}
  %{name} = load ptr, ptr %{name}.p
  %{name}.null = icmp eq ptr %{name}, null
  br i1 %{name}.null, label %{name}.next, label %{name}.visit
{name}.visit:
  %{name}.r = call i32 %visit(ptr %{name}, ptr %arg)
  %{name}.stop = icmp ne i32 %{name}.r, 0
  br i1 %{name}.stop, label %stop, label %{name}.next
{name}.next:"""

    def drop(name: str) -> str:
        return f"""
  %{name}.p = getelementptr i8, ptr %self, i64 {_offset(name)}
  %{name} = load ptr, ptr %{name}.p
  store ptr null, ptr %{name}.p
  call void {_api("Py_DecRef")}(ptr %{name})"""

    traverse, clear = "".join(map(visit, _OWNED)), "".join(map(drop, _OWNED))
    results = ", ".join(f"[%{name}.r, %{name}.visit]" for name in _OWNED)
    type_pointer = f"""
  %type.p = getelementptr i8, ptr %self, i64 {_TYPE_OFFSET}
  %type = load ptr, ptr %type.p"""
    slow_again = f"""
  %vectorcall.p = getelementptr i8, ptr %self, i64 {_offset("vectorcall")}
  store ptr @slow, ptr %vectorcall.p"""
    return {
        "traverse": f"""define i32 @traverse(ptr %self, ptr %visit, ptr %arg) {{{traverse}{type_pointer}
  %r = call i32 %visit(ptr %type, ptr %arg)
  ret i32 %r
stop:
  %found = phi i32 {results}
  ret i32 %found
}}""",
        "clear": f"define i32 @clear(ptr %self) {{{slow_again}{clear}\n  ret i32 0\n}}",
        "dealloc": f"""define void @dealloc(ptr %self) {{
  call void {_api("PyObject_GC_UnTrack")}(ptr %self)
  %weak.p = getelementptr i8, ptr %self, i64 {_offset("weakrefs")}
  %weak = load ptr, ptr %weak.p
  %weak.null = icmp eq ptr %weak, null
  br i1 %weak.null, label %free, label %weak.clear
weak.clear:
  call void {_api("PyObject_ClearWeakRefs")}(ptr %self)
  br label %free
free:
  %cleared = call i32 @clear(ptr %self){type_pointer}
  call void {_api("PyObject_GC_Del")}(ptr %self)
  call void {_api("Py_DecRef")}(ptr %type)
  ret void
}}""",
        "slow": f"""define ptr @slow(ptr %self, ptr %args, i64 %nargsf, ptr %names) {{
  %slow.p = getelementptr i8, ptr %self, i64 {_offset("slow")}
  %slow = load ptr, ptr %slow.p
  %gone = icmp eq ptr %slow, null
  br i1 %gone, label %dead, label %call
call:
  call void {_api("Py_IncRef")}(ptr %slow)
  %r = call ptr {_api("PyObject_Vectorcall")}(ptr %slow, ptr %args, i64 %nargsf, ptr %names)
  call void {_api("Py_DecRef")}(ptr %slow)
  ret ptr %r
dead:
  call void {_api("PyErr_SetNone")}(ptr {_constant(id(ReferenceError))})
  ret ptr null
}}""",
    }


class _Member(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


class _GetSet(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), *((part, ctypes.c_void_p) for part in ("get", "set", "doc", "closure"))]


class _Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("function", ctypes.c_void_p)]


class _Spec(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int), ("flags", ctypes.c_uint), ("slots", ctypes.c_void_p),
    ]  # fmt: skip


# Numbers of CPython's stable ABI.
_TP_CALL, _TP_CLEAR, _TP_DEALLOC, _TP_TRAVERSE, _TP_MEMBERS, _TP_GETSET = 50, 51, 52, 71, 72, 73
_FLAGS = 1 << 7 | 1 << 11 | 1 << 14 | 1 << 18  # no instantiation from Python, vectorcall, garbage collection, version tag
_SSIZE, _READ_ONLY = 19, 1


@dataclass(frozen=True)
class _CallableType:
    """The type, the addresses of its functions, and the C structures that it may refer to."""

    type: type
    functions: dict[str, int]
    structures: tuple[object, ...]


_LOCK = threading.RLock()
"""Reentrant, since a signal handler may use a manager while the type is in the making; it then makes one for itself."""


def _callable_type() -> _CallableType:
    with _LOCK:
        return _make_callable_type()


@functools.cache
def _make_callable_type() -> _CallableType:
    functions = _compile(_type_functions())
    offsets = {"__vectorcalloffset__": "vectorcall", "__dictoffset__": "dict", "__weaklistoffset__": "weakrefs"}
    members = (_Member * 4)(*(_Member(name.encode(), _SSIZE, _offset(place), _READ_ONLY, None) for name, place in offsets.items()))
    getset = (_GetSet * 2)(_GetSet(b"__dict__", _address("PyObject_GenericGetDict"), _address("PyObject_GenericSetDict"), None, None))
    fillers = {
        _TP_CALL: _address("PyVectorcall_Call"), _TP_TRAVERSE: functions["traverse"], _TP_CLEAR: functions["clear"], _TP_DEALLOC: functions["dealloc"],
        _TP_MEMBERS: ctypes.addressof(members), _TP_GETSET: ctypes.addressof(getset),
    }  # fmt: skip
    slots = (_Slot * (len(fillers) + 1))(*(_Slot(number, address) for number, address in fillers.items()))
    spec = _Spec(b"simple_magic.Function", _HEAD + ctypes.sizeof(_Instance), 0, _FLAGS, ctypes.addressof(slots))
    make = ctypes.pythonapi.PyType_FromSpec
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p,)
    made = make(ctypes.addressof(spec))
    for name, method in _METHODS.items():
        setattr(made, name, method)
    kind = _CallableType(made, functions, (members, getset, slots, spec, _ndarray_type, *_HELPERS))
    _for_ever(kind)
    return kind


def _repr(made: object) -> str:
    return f"<function {getattr(made, '__name__', '?')} of Simple MIR>"


def _refuse_pickle(made: object, *_: object) -> object:
    raise TypeError(f"cannot pickle {made!r}: it is part of a live session; export its MIR instead")


def _same(made: object, *_: object) -> object:
    return made


_METHODS: dict[str, Callable] = {"__repr__": _repr, "__reduce__": _refuse_pickle, "__reduce_ex__": _refuse_pickle, "__copy__": _same, "__deepcopy__": _same}


class PythonFunction:
    """What `make_callable` gives where the native type is not supported: every call is slow."""

    def __init__(self, slow: Callable[..., object]) -> None:
        self._slow = slow

    def __call__(self, *args: object, **named: object) -> object:
        return self._slow(*args, **named)

    __repr__ = _repr
    __reduce__ = __reduce_ex__ = _refuse_pickle  # type: ignore[assignment]
    __copy__ = __deepcopy__ = _same


# One vectorcall function per signature

MACHINE_TYPES: dict[Type, str] = {**{t: f"i{bit_width(t)}" for t in INTEGERS}, F64: "double", F32: "float", BOOL: "i1", UNIT: "i1"}
"""The LLVM types of what crosses natively; an array parameter is an i64, its offset."""

_FORMATS: dict[Type, str] = {
    **{t: {1: "b", 2: "h", 4: "il", 8: "lq"}[bit_width(t) // 8] for t in INTEGERS}, F64: "d", F32: "f", BOOL: "?",
}  # fmt: skip
"""The buffer formats of an element type, together with its size; unsigned ones are upper case."""

_BUFFER_SIZE = 80
_VIEW_BUF, _VIEW_ITEMSIZE, _VIEW_NDIM, _VIEW_FORMAT, _VIEW_SHAPE = 0, 24, 36, 40, 48
_BUF_WRITABLE, _BUF_FORMAT, _BUF_ND = 1, 4, 8
MOST_COPIED = 8
"""Arrays of one call that emitted code copies: it compares each with each."""


def _is_lendable(t: Type) -> bool:
    return isinstance(t, (Array, FixedArray)) and (t.element in NUMBERS or t.element == BOOL)


def has_native_form(params: Sequence[Type], result: Type) -> bool:
    """Return whether calls of the signature need no Python code."""
    return len(params) <= 64 and result in MACHINE_TYPES and all((p in MACHINE_TYPES and p != UNIT) or _is_lendable(p) for p in params)


class _Body:
    """The text of a function that is being written."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def value(self, text: str) -> str:
        """Write an instruction and return the name of its result."""
        self.count += 1
        self.line(f"%t{self.count} = {text}")
        return f"%t{self.count}"

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def require(self, condition: str, otherwise: str) -> None:
        """Go on only if the condition is true."""
        then = self.fresh("ok")
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}")
        self.label(then)

    def load(self, t: str, base: str, offset: int) -> str:
        return self.value(f"load {t}, ptr {self.pointer(base, offset)}")

    def store(self, t: str, value: str, base: str, offset: int) -> None:
        self.line(f"store {t} {value}, ptr {self.pointer(base, offset)}")

    def pointer(self, base: str, offset: int) -> str:
        return self.value(f"getelementptr i8, ptr {base}, i64 {offset}")

    def field(self, t: str, name: str) -> str:
        return self.load(t, "%self", _offset(name))

    def call(self, t: str, function: str, *args: str) -> str:
        return self.value(f"call {t} {_api(function)}({', '.join(args)})")

    def run(self, function: str, *args: str) -> None:
        self.line(f"call void {_api(function)}({', '.join(args)})")

    def equal(self, t: str, a: str, b: str) -> str:
        return self.value(f"icmp eq {t} {a}, {b}")

    def is_set(self, name: str) -> str:
        """Read a flag of the instance."""
        return self.value(f"icmp ne i8 {self.field('i8', name)}, 0")

    def type_of(self, value: str) -> str:
        return self.load("ptr", value, _TYPE_OFFSET)


def _read_integer(b: _Body, t: Type, argument: str) -> str:
    """Write the conversion of an exact int; everything else is slow."""
    b.require(b.equal("ptr", b.type_of(argument), _constant(id(int))), "slow")
    machine = MACHINE_TYPES[t]
    if t == U64:
        wide = b.call("i64", "PyLong_AsUnsignedLongLong", f"ptr {argument}")
        _check_error(b, b.equal("i64", wide, "-1"))
        return wide
    wide = b.call("i64", "PyLong_AsLongLongAndOverflow", f"ptr {argument}", "ptr %overflow")
    b.require(b.equal("i32", b.value("load i32, ptr %overflow"), "0"), "slow")
    if t == I64:
        return wide
    narrow = b.value(f"trunc i64 {wide} to {machine}")
    b.require(b.equal("i64", b.value(f"{'sext' if is_signed(t) else 'zext'} {machine} {narrow} to i64"), wide), "slow")
    return narrow


def _check_error(b: _Body, suspicious: str) -> None:
    """Write: if the suspicious result was an error, forget it and be slow."""
    look, fine = b.fresh("look"), b.fresh("ok")
    b.line(f"br i1 {suspicious}, label %{look}, label %{fine}")
    b.label(look)
    raised = b.call("ptr", "PyErr_Occurred")
    b.line(f"br i1 {b.equal('ptr', raised, 'null')}, label %{fine}, label %error")
    b.label(fine)


def _read_float(b: _Body, t: Type, argument: str) -> str:
    """Write the conversion of an exact float or int."""
    found = b.type_of(argument)
    direct, other, integer, joined = (b.fresh(name) for name in ("float", "other", "int", "joined"))
    b.line(f"br i1 {b.equal('ptr', found, _constant(id(float)))}, label %{direct}, label %{other}")
    b.label(direct)
    exact = b.load("double", argument, _HEAD)
    b.line(f"br label %{joined}")
    b.label(other)
    b.line(f"br i1 {b.equal('ptr', found, _constant(id(int)))}, label %{integer}, label %slow")
    b.label(integer)
    converted = b.call("double", "PyLong_AsDouble", f"ptr {argument}")
    _check_error(b, b.value(f"fcmp oeq double {converted}, -1.0"))
    last = b.fresh("last")
    b.line(f"br label %{last}")
    b.label(last)
    b.line(f"br label %{joined}")
    b.label(joined)
    value = b.value(f"phi double [{exact}, %{direct}], [{converted}, %{last}]")
    return b.value(f"fptrunc double {value} to float") if t == F32 else value


def _read_bool(b: _Body, _t: Type, argument: str) -> str:
    is_true, is_false = b.equal("ptr", argument, _constant(id(True))), b.equal("ptr", argument, _constant(id(False)))
    b.require(b.value(f"or i1 {is_true}, {is_false}"), "slow")
    return is_true


_READERS: dict[Type, Callable[[_Body, Type, str], str]] = {**dict.fromkeys(INTEGERS, _read_integer), **dict.fromkeys(FLOATS, _read_float), BOOL: _read_bool}


@dataclass(frozen=True, slots=True)
class _Buffer:
    """A NumPy array that is lent or copied: values of the emitted code. offset: of its header; copy: pointer to its copy, empty if it is lent."""

    offset: str
    writable: str
    address: str
    nbytes: str
    copy: str = ""


def _read_buffer(b: _Body, t: Array | FixedArray, position: int, number: int, argument: str, free: str) -> tuple[_Buffer, str]:
    """Write the lending of a NumPy array as array header `number` above the heap top, or, if there is a `free` offset, its copying to there.

    Return it, and the next free offset.
    """
    size, view, give_up = element_size(t.element), f"%view{number}", f"release{number}"
    b.require(b.equal("ptr", b.type_of(argument), b.value(f"load ptr, ptr {_constant(ctypes.addressof(_ndarray_type))}")), f"unknown{number}")
    shifted = b.value(f"lshr i64 {b.field('i64', 'writes')}, {position}")
    writable = b.value(f"and i64 {shifted}, {_BUF_WRITABLE}")
    flags = b.value(f"trunc i64 {b.value(f'or i64 {writable}, {_BUF_FORMAT | _BUF_ND}')} to i32")
    b.require(b.equal("i32", b.call("i32", "PyObject_GetBuffer", f"ptr {argument}", f"ptr {view}", f"i32 {flags}"), "0"), f"error{number}")
    b.require(b.equal("i32", b.load("i32", view, _VIEW_NDIM), "1"), give_up)
    b.require(b.equal("i64", b.load("i64", view, _VIEW_ITEMSIZE), str(size)), give_up)
    letters = _FORMATS[t.element]
    format_text = b.load("ptr", view, _VIEW_FORMAT)
    first = b.load("i8", format_text, 0)
    known = "false"
    for letter in letters if is_signed(t.element) or not is_integer(t.element) else letters.upper():
        known = b.value(f"or i1 {known}, {b.equal('i8', first, str(ord(letter)))}")
    b.require(known, give_up)
    b.require(b.equal("i8", b.load("i8", format_text, 1), "0"), give_up)
    address = b.load("i64", view, _VIEW_BUF)
    b.require(b.equal("i64", b.value(f"and i64 {address}, {size - 1}"), "0"), give_up)
    length = b.load("i64", b.load("ptr", view, _VIEW_SHAPE), 0)
    if isinstance(t, FixedArray):
        b.require(b.equal("i64", length, str(t.length)), give_up)
    offset = b.value(f"add i64 %top, {ARRAY_SIZE * number}")
    header = b.value(f"getelementptr i8, ptr %heap, i64 {offset}")
    b.store("i64", str(KIND_ARRAY | BORROWED), header, 0)
    b.store("i64", length, header, LENGTH)
    b.store("i64", length, header, CAPACITY)
    nbytes = b.value(f"mul i64 {length}, {size}")
    if not free:
        b.store("i64", b.value(f"sub i64 {address}, {b.value('ptrtoint ptr %heap to i64')}"), header, DATA)
        return _Buffer(offset, writable, address, nbytes), ""
    padded = b.value(f"and i64 {b.value(f'add i64 {nbytes}, {_WORD - 1}')}, {-_WORD}")
    end = b.value(f"add i64 {free}, {padded}")
    b.require(b.value(f"icmp ule i64 {end}, {b.load('i64', '%heap', HEAP_LIMIT)}"), give_up)
    b.store("i64", free, header, DATA)
    copy = b.value(f"getelementptr i8, ptr %heap, i64 {free}")
    _copy_bytes(b, copy, b.value(f"inttoptr i64 {address} to ptr"), nbytes)
    return _Buffer(offset, writable, address, nbytes, copy), end


def _copy_bytes(b: _Body, to: str, source: str, nbytes: str) -> None:
    b.line(f"call void @llvm.memmove.p0.p0.i64(ptr {to}, ptr {source}, i64 {nbytes}, i1 false)")


def _require_disjoint(b: _Body, buffers: Sequence[_Buffer], otherwise: str) -> None:
    """Write: go on only if no two buffers overlap; copies of them would not."""
    for index, one in enumerate(buffers):
        for other in buffers[:index]:
            after = b.value(f"icmp uge i64 {one.address}, {b.value(f'add i64 {other.address}, {other.nbytes}')}")
            before = b.value(f"icmp uge i64 {other.address}, {b.value(f'add i64 {one.address}, {one.nbytes}')}")
            b.require(b.value(f"or i1 {after}, {before}"), otherwise)


def _copy_back(b: _Body, buffers: Sequence[_Buffer]) -> None:
    """Write: bring to NumPy what the program may have written into copies, also before a trap."""
    for buffer in buffers:
        written, next_one = b.fresh("written"), b.fresh("next")
        b.line(f"br i1 {b.equal('i64', buffer.writable, '0')}, label %{next_one}, label %{written}")
        b.label(written)
        _copy_bytes(b, b.value(f"inttoptr i64 {buffer.address} to ptr"), buffer.copy, buffer.nbytes)
        b.line(f"br label %{next_one}")
        b.label(next_one)


_ndarray_type = ctypes.c_void_p(0)
"""The address of NumPy's array type, once NumPy is there."""


def _notice_numpy(_made: object = None) -> None:
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray"):
        _ndarray_type.value = id(numpy.ndarray)


def _state(made: object) -> CallState:
    return ctypes.cast(_instance(made).keep, ctypes.py_object).value[0]


def _adopt_thread(made: object) -> None:
    _state(made).adopt_thread()


def _start_ticker(made: object) -> None:
    _state(made).start_ticker()


_HELPERS = (_notice_numpy, _adopt_thread, _start_ticker)
"""What emitted code calls with the callable when something has to be prepared; it then tries again."""


def _write_result(b: _Body, t: Type, value: str) -> str:
    """Write the conversion of a result; return the new reference."""
    if t == UNIT:
        none = _constant(id(None))
        b.run("Py_IncRef", f"ptr {none}")
        return none
    if t == BOOL:
        return b.call("ptr", "PyBool_FromLong", f"i64 {b.value(f'zext i1 {value} to i64')}")
    if t in FLOATS:
        wide = b.value(f"fpext float {value} to double") if t == F32 else value
        return b.call("ptr", "PyFloat_FromDouble", f"double {wide}")
    machine = MACHINE_TYPES[t]
    if machine != "i64":
        value = b.value(f"{'sext' if is_signed(t) else 'zext'} {machine} {value} to i64")
    return b.call("ptr", "PyLong_FromLongLong" if is_signed(t) else "PyLong_FromUnsignedLongLong", f"i64 {value}")


def _vectorcall_text(params: Sequence[Type], result: Type, has_status: bool, has_context: bool, functions: dict[str, int]) -> str:
    """Return the vectorcall function `call` of a signature.

    A function without status neither traps, allocates, polls nor calls the host: while it runs, nobody can look at the owner word.
    """
    buffers = [position for position, t in enumerate(params) if t not in MACHINE_TYPES]
    b = _Body()
    b.line("%overflow = alloca i32")
    for number in range(len(buffers)):
        b.line(f"%view{number} = alloca [{_BUFFER_SIZE} x i8], align 8")
    b.line("br label %start")
    b.label("start")
    count = b.value("and i64 %nargsf, 9223372036854775807")
    b.require(b.equal("i64", count, str(len(params))), "slow")
    b.require(b.equal("ptr", "%names", "null"), "slow")
    b.line(f"%owner = load ptr, ptr {b.pointer('%self', _offset('owner'))}")
    b.require(b.equal("i64", b.value("load i64, ptr %owner"), "0"), "slow")
    if has_status:
        b.line(f"%me = call i64 {_api('PyThread_get_thread_ident')}()")
        b.line(f"%state = load ptr, ptr {b.pointer('%self', _offset('state'))}")
        b.require(b.equal("i64", b.load("i64", "%state", _CallWords.thread.offset), "%me"), "adopt")
        b.line(f"%flag = load i8, ptr {b.pointer('%self', _offset('releases_gil'))}")
        b.line("%releases = icmp ne i8 %flag, 0")
        b.line(f"%is_watched = and i1 %releases, {b.equal('i64', '%me', b.field('i64', 'main_thread'))}")
        ticks = b.value(f"icmp ne i64 {b.load('i64', '%state', _CallWords.ticking.offset)}, 0")
        b.require(b.value(f"select i1 %is_watched, i1 {ticks}, i1 true"), "tick")
    if has_status or buffers:
        b.line(f"%heap = load ptr, ptr {b.pointer('%self', _offset('heap'))}")
        b.line(f"%top = load i64, ptr {b.pointer('%heap', HEAP_TOP)}")
        resets = b.is_set("resets_heap")
        room = "true" if buffers else b.value(f"icmp ule i64 %top, {b.load('i64', '%state', _CallWords.compact_at.offset)}")
        b.require(resets if buffers else b.value(f"or i1 {resets}, {room}"), "slow")
    arguments = {p: b.load("ptr", "%args", _WORD * p) for p in range(len(params))}
    values = {p: _READERS[t](b, t, arguments[p]) for p, t in enumerate(params) if t in MACHINE_TYPES}
    if buffers:
        b.line(f"%above = add i64 %top, {ARRAY_SIZE * len(buffers)}")
        b.require(b.value(f"icmp ule i64 %above, {b.load('i64', '%heap', HEAP_LIMIT)}"), "slow")
    lent: list[_Buffer] = []
    free = "%above" if has_context else ""
    for number, position in enumerate(buffers):
        buffer, free = _read_buffer(b, params[position], position, number, arguments[position], free)  # type: ignore[arg-type]
        lent.append(buffer)
        values[position] = buffer.offset
    if has_context and buffers:
        _require_disjoint(b, lent, f"release{len(buffers) - 1}")
    machine = MACHINE_TYPES[result]
    passed = ", ".join(f"{MACHINE_TYPES.get(t, 'i64')} {values[p]}" for p, t in enumerate(params))
    if has_context:
        passed += f"{', ' if params else ''}ptr {b.field('ptr', 'context')}"
    target = b.field("ptr", "address")
    if has_status:
        _write_guarded_call(b, f"{{{machine}, i32}} {target}({passed})", (free or "%above") if buffers else "", has_context)
        answer = b.value(f"extractvalue {{{machine}, i32}} %both, 0")
        status = b.value(f"extractvalue {{{machine}, i32}} %both, 1")
    else:
        answer = b.value(f"call {machine} {target}({passed})")
    if has_context:
        _copy_back(b, lent)
    for number in range(len(buffers)):
        b.run("PyBuffer_Release", f"ptr %view{number}")
    if has_status:
        b.require(b.equal("i32", status, "0"), "trap")
        b.line("store i64 0, ptr %owner")
    b.line(f"ret ptr {_write_result(b, result, answer)}")
    if has_status:
        _write_trap(b, status)
        _write_helper_call(b, "adopt", _adopt_thread, "start")
        _write_helper_call(b, "tick", _start_ticker, "start")
    for number in reversed(range(len(buffers))):
        below = f"release{number - 1}" if number else "slow"
        b.label(f"release{number}")
        b.run("PyBuffer_Release", f"ptr %view{number}")
        b.line(f"br label %{below}")
        b.label(f"error{number}")
        b.run("PyErr_Clear")
        b.line(f"br label %{below}")
        b.label(f"unknown{number}")
        b.line(f"br i1 {b.equal('ptr', b.value(f'load ptr, ptr {_constant(ctypes.addressof(_ndarray_type))}'), 'null')}, label %notice{number}, label %{below}")
        _write_helper_call(b, f"notice{number}", _notice_numpy, below)
    b.label("error")
    b.run("PyErr_Clear")
    b.line("br label %slow")
    b.label("slow")
    unusual = b.value(f"call ptr {_constant(functions['slow'])}(ptr %self, ptr %args, i64 %nargsf, ptr %names)")
    b.line(f"ret ptr {unusual}")
    text = "\n".join(b.lines)
    return f"define ptr @call(ptr %self, ptr %args, i64 %nargsf, ptr %names) {{\nentry:\n{text}\n}}"


def _write_guarded_call(b: _Body, call: str, new_top: str, has_context: bool) -> None:
    """Write the call of a target with status: with the manager taken, the stack bound set, and, if asked for, the GIL released. Defines %both.

    new_top: the heap top during the call, empty if it stays.
    """
    b.line("br label %held")
    b.label("held")
    b.line("store i64 %me, ptr %owner")
    b.line("br i1 %releases, label %free, label %go")
    b.label("free")
    b.store("i64", b.value("zext i1 %is_watched to i64"), "%state", _CallWords.running.offset)
    b.line(f"%kept = load ptr, ptr {b.pointer('%self', _offset('keep'))}")
    b.run("Py_IncRef", "ptr %kept")
    b.line(f"%saved = call ptr {_api('PyEval_SaveThread')}()")
    b.line("br label %go")
    b.label("go")
    b.line("%thread = phi ptr [%saved, %free], [null, %held]")
    b.line("%used = phi ptr [%kept, %free], [null, %held]")
    frame = b.value(f"ptrtoint ptr {b.value('call ptr @llvm.frameaddress.p0(i32 0)')} to i64")
    wanted = b.value(f"call i64 @llvm.usub.sat.i64(i64 {frame}, i64 {b.field('i64', 'stack')})")
    low = b.load("i64", "%state", _CallWords.stack_low.offset)
    limit = b.value(f"call i64 @llvm.umax.i64(i64 {wanted}, i64 {low})")
    b.store("i64", b.value(f"call i64 @llvm.usub.sat.i64(i64 {frame}, i64 {limit})") if has_context else limit, "%heap", STACK_LIMIT)
    b.store("i64", str(NO_SITE), "%heap", TRAP_SITE)
    if new_top:
        b.store("i64", new_top, "%heap", HEAP_TOP)
    b.line(f"%both = call {call}")
    b.line(f"br i1 {b.equal('ptr', '%thread', 'null')}, label %back, label %restore")
    b.label("restore")
    b.run("PyEval_RestoreThread", "ptr %thread")
    b.run("Py_DecRef", "ptr %used")
    b.store("i64", "0", "%state", _CallWords.running.offset)
    b.line("br label %back")
    b.label("back")
    reset, kept = b.fresh("reset"), b.fresh("kept")
    b.line(f"br i1 {b.is_set('resets_heap')}, label %{reset}, label %{kept}")
    b.label(reset)
    b.store("i64", "%top", "%heap", HEAP_TOP)
    b.line(f"br label %{kept}")
    b.label(kept)


def _write_trap(b: _Body, status: str) -> None:
    """Write: let `trapped` raise what the status stands for, while the manager is still ours."""
    b.label("trap")
    number = b.call("ptr", "PyLong_FromLongLong", f"i64 {b.value(f'sext i32 {status} to i64')}")
    handler = b.field("ptr", "trapped")
    answer = b.call("ptr", "PyObject_CallOneArg", f"ptr {handler}", f"ptr {number}")
    b.run("Py_DecRef", f"ptr {number}")
    b.line("store i64 0, ptr %owner")
    b.line(f"ret ptr {answer}")


def _write_helper_call(b: _Body, label: str, helper: Callable[[object], None], then: str) -> None:
    """Write a call of a Python function with the callable; go on at `then` unless it raises."""
    b.label(label)
    answer = b.call("ptr", "PyObject_CallOneArg", f"ptr {_constant(id(helper))}", "ptr %self")
    b.line(f"br i1 {b.equal('ptr', answer, 'null')}, label %{label}.raised, label %{label}.fine")
    b.label(f"{label}.raised")
    b.line("ret ptr null")
    b.label(f"{label}.fine")
    b.run("Py_DecRef", f"ptr {answer}")
    b.line(f"br label %{then}")


@functools.cache
def _vectorcall(params: tuple[Type, ...], result: Type, has_status: bool, has_context: bool) -> int:
    """Return the address of the vectorcall function of a signature."""
    return _compile({"call": _vectorcall_text(params, result, has_status, has_context, _callable_type().functions)})["call"]


# The interface


def make_callable(slow: Callable[..., object], trapped: Callable[[int], object]) -> Callable[..., object]:
    """Return a new callable; until `retarget` every call is `slow(*args, **named)`.

    trapped: gets the status of a native call, raises (or returns the result). Attributes may be set on the callable freely: `__name__`, `__doc__`,
    `__signature__`; it is hashable, can be referenced weakly, and is collected when it is part of a cycle.
    """
    if not is_supported():
        return PythonFunction(slow)
    kind = _callable_type()
    allocate = ctypes.pythonapi.PyType_GenericAlloc
    allocate.restype, allocate.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.c_ssize_t)
    made = allocate(kind.type, 0)
    instance = _instance(made)
    instance.vectorcall = kind.functions["slow"]
    _own(instance, "slow", slow)
    _own(instance, "trapped", trapped)
    return made


def callable_type() -> type:
    """Return the type of all callables; properties may be set on it."""
    return _callable_type().type if is_supported() else PythonFunction


def retarget(made: Callable[..., object], params: Sequence[Type], result: Type, target: Target) -> bool:
    """Let the next calls go to the target; return whether they do. A signature without native form stays slow."""
    if isinstance(made, PythonFunction) or not has_native_form(params, result) or (target.context and sum(map(_is_lendable, params)) > MOST_COPIED):
        return False
    vectorcall = _vectorcall(tuple(params), result, target.has_status, target.context != 0)
    _notice_numpy()
    instance = _instance(made)
    _own(instance, "keep", (target.state, target.keep))
    for name in ("address", "context", "heap", "owner", "resets_heap", "releases_gil"):
        setattr(instance, name, getattr(target, name))
    instance.stack = min(target.stack, (1 << 64) - 1)
    instance.state = target.state.address
    instance.main_thread = threading.main_thread().ident or 0
    instance.writes = sum(1 << position for position, writes in enumerate(target.writes) if writes)
    instance.vectorcall = vectorcall
    return True


def invalidate(made: Callable[..., object]) -> None:
    """Make every call slow from now on. What a running call uses stays alive until the next `retarget`."""
    if not isinstance(made, PythonFunction):
        _instance(made).vectorcall = _callable_type().functions["slow"]

"""The native callable type, with hand-written targets that follow the native protocol."""

import array
import copy
import ctypes
import gc
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import timeit
import weakref

import numpy as np
import pytest

from simple_magic.backends import wrapper
from simple_magic.backends.interrupt import InterruptFlag
from simple_magic.backends.llvm_jit import NO_PASSES, compile_text
from simple_magic.backends.wrapper import (
    CallState, PythonFunction, Target, callable_type, has_native_form, invalidate, make_callable, retarget, thread_stack_low,
)  # fmt: skip
from simple_magic.mir.text import parse_type
from simple_magic.mir.types import BOOL, CHAR, F32, F64, FLOATS, I8, I64, INTEGERS, TEXT, U64, UNIT, Array, FixedArray, format_type, integer_range
from simple_magic.runtime.layout import HEAP_LIMIT, HEAP_START, HEAP_TOP, STACK_LIMIT

pytestmark = pytest.mark.skipif(not wrapper.is_supported(), reason="this Python has another object layout")


class Manager:
    """What the execution manager would hold: a heap, an owner word, a flag, compiled targets."""

    def __init__(self):
        self.words = (ctypes.c_int64 * (HEAP_START // 8 + 64))()
        self.heap = ctypes.addressof(self.words)
        self.words[HEAP_TOP // 8] = HEAP_START
        self.words[HEAP_LIMIT // 8] = ctypes.sizeof(self.words)
        self.owner = ctypes.c_int64(0)
        self.flag = InterruptFlag()
        self.state = CallState(self.flag)
        self.slow_calls = []
        self.statuses = []
        self.code = []

    def slow(self, *args, **named):
        self.slow_calls.append((args, named))
        return "slow"

    def trapped(self, status):
        self.statuses.append((status, self.owner.value))
        raise ArithmeticError(status)

    def target(self, text, has_status, **options):
        libc = ctypes.CDLL(None)
        text = text.replace("HEAP", f"inttoptr (i64 {self.heap} to ptr)").replace("FLAG", f"inttoptr (i64 {self.flag.address} to ptr)")
        text = text.replace("USLEEP", f"inttoptr (i64 {ctypes.cast(libc.usleep, ctypes.c_void_p).value} to ptr)")
        code, _ = compile_text(text, NO_PASSES, ("f",))
        self.code.append(code)
        return Target(code.addresses["f"], has_status, self.heap, ctypes.addressof(self.owner), self.state, keep=code, **options)

    def function(self, params, result, text, has_status=False, **options):
        made = make_callable(self.slow, self.trapped)
        assert retarget(made, params, result, self.target(text, has_status, **options))
        return made

    def was_native(self, answer):
        return answer != "slow" and self.owner.value == 0 and self.words[HEAP_TOP // 8] == HEAP_START


@pytest.fixture(scope="module")
def fresh_type():
    """A callable type on which nobody has set properties."""
    return wrapper._make_callable_type.__wrapped__()


@pytest.fixture
def manager(monkeypatch, fresh_type):
    monkeypatch.setattr(wrapper, "_make_callable_type", lambda: fresh_type)
    made = Manager()
    yield made
    made.flag.close()


LLVM = wrapper.MACHINE_TYPES


def identity(t):
    machine = LLVM[t]
    return f"define {machine} @f({machine} %a) {{\n  ret {machine} %a\n}}"


ADD = "define i64 @f(i64 %a, i64 %b) {\n  %r = add i64 %a, %b\n  ret i64 %r\n}"
STATUS = """define {i64, i32} @f(i64 %a, i64 %s) {
  %status = trunc i64 %s to i32
  %x = insertvalue {i64, i32} zeroinitializer, i64 %a, 0
  %y = insertvalue {i64, i32} %x, i32 %status, 1
  ret {i64, i32} %y
}"""
STACK = f"""define {{i64, i32}} @f() {{
  %p = getelementptr i8, ptr HEAP, i64 {STACK_LIMIT}
  %limit = load i64, ptr %p
  %x = insertvalue {{i64, i32}} zeroinitializer, i64 %limit, 0
  ret {{i64, i32}} %x
}}"""
SLEEP = """define {i64, i32} @f(i64 %us) {
  %n = trunc i64 %us to i32
  %r = call i32 USLEEP(i32 %n)
  ret {i64, i32} zeroinitializer
}"""
SPIN = """define {i64, i32} @f() {
  br label %head
head:
  %flag = load volatile i64, ptr FLAG
  %c = icmp eq i64 %flag, 0
  br i1 %c, label %head, label %done
done:
  ret {i64, i32} {i64 0, i32 21}
}"""


def swap_first_and_last(machine, size):
    """Return a target that swaps the ends of an array and returns its length."""
    return f"""define {{i64, i32}} @f(i64 %a) {{
  %header = getelementptr i8, ptr HEAP, i64 %a
  %length.p = getelementptr i8, ptr %header, i64 8
  %length = load i64, ptr %length.p
  %data.p = getelementptr i8, ptr %header, i64 24
  %data = load i64, ptr %data.p
  %first.p = getelementptr i8, ptr HEAP, i64 %data
  %last.i = sub i64 %length, 1
  %last.o = mul i64 %last.i, {size}
  %last.p = getelementptr i8, ptr %first.p, i64 %last.o
  %empty = icmp eq i64 %length, 0
  br i1 %empty, label %done, label %swap
swap:
  %first = load {machine}, ptr %first.p
  %last = load {machine}, ptr %last.p
  store {machine} %last, ptr %first.p
  store {machine} %first, ptr %last.p
  br label %done
done:
  %x = insertvalue {{i64, i32}} zeroinitializer, i64 %length, 0
  ret {{i64, i32}} %x
}}"""


@pytest.mark.parametrize("t", INTEGERS, ids=format_type)
def test_integers(manager, t):
    f = manager.function((t,), t, identity(t))
    low, high = integer_range(t)
    for x in (low, high, 0, 1, high // 2):
        assert f(x) == x and type(f(x)) is int
    assert not manager.slow_calls
    for x in (low - 1, high + 1, 2**64, -(2**63) - 1, True, 1.0, np.int64(1), "1", None):
        assert f(x) == "slow"
        assert manager.slow_calls.pop() == ((x,), {})


@pytest.mark.parametrize("t", FLOATS, ids=format_type)
def test_floats(manager, t):
    f = manager.function((t,), t, identity(t))
    for x in (1.5, -0.0, float("inf"), 3, -1, -1.0, 2**60):
        assert f(x) == x and type(f(x)) is float
    assert str(f(-0.0)) == "-0.0" and f(float("nan")) != f(float("nan"))
    assert f(0.1) == (0.1 if t == F64 else float(np.float32(0.1)))
    assert f(1e300) == (1e300 if t == F64 else float("inf"))
    assert not manager.slow_calls
    for x in (10**400, True, np.float64(1), "1"):
        assert f(x) == "slow"


def test_bool_and_unit(manager):
    f = manager.function((BOOL,), BOOL, identity(BOOL))
    assert f(True) is True and f(False) is False
    assert f(1) == "slow" and f(None) == "slow"
    g = manager.function((), UNIT, "define i1 @f() {\n  ret i1 false\n}")
    assert g() is None


def test_many_parameters(manager):
    params = (I8, F32, BOOL, U64, F64, I64, I64, I64, I64, I64)
    names = ", ".join(f"{LLVM[t]} %a{i}" for i, t in enumerate(params))
    f = manager.function(params, I64, f"define i64 @f({names}) {{\n  %r = sub i64 %a9, %a8\n  ret i64 %r\n}}")
    assert f(1, 2.0, True, 4, 5.0, 6, 7, 8, 9, 100) == 91
    assert f(1, 2.0, True, 4, 5.0, 6, 7, 8, 9, 10.0) == "slow"


def test_arity_and_keywords_are_slow(manager):
    f = manager.function((I64, I64), I64, ADD)
    assert f(2, 3) == 5 and f(*[2, 3], **{}) == 5
    for args, named in (((), {}), ((1,), {}), ((1, 2, 3), {}), ((1,), {"b": 2}), ((), {"a": 1, "b": 2})):
        assert f(*args, **named) == "slow"
        assert manager.slow_calls.pop() == (args, named)


def test_signatures_without_native_form(manager):
    assert has_native_form((I64, Array(F64), FixedArray(BOOL, 3)), UNIT)
    for params, result in (((TEXT,), I64), ((I64,), TEXT), ((CHAR,), I64), ((Array(TEXT),), I64), ((UNIT,), I64), ((I64,) * 65, I64), ((), Array(F64))):
        assert not has_native_form(params, result)
        f = make_callable(manager.slow, manager.trapped)
        assert not retarget(f, params, result, manager.target(ADD, False))
        assert f(1) == "slow"


def test_a_busy_manager_is_slow(manager):
    for has_status, text in ((False, ADD), (True, STATUS)):
        f = manager.function((I64, I64), I64, text, has_status)
        manager.owner.value = 1
        assert f(2, 0) == "slow"
        assert manager.owner.value == 1
        manager.owner.value = 0
        assert f(2, 0) == 2


def test_status(manager):
    f = manager.function((I64, I64), I64, STATUS, has_status=True)
    assert f(2, 0) == 2 and not manager.statuses
    for status in (1, 21):
        with pytest.raises(ArithmeticError, match=str(status)):
            f(2, status)
        assert manager.statuses.pop() == (status, threading.get_ident()), "the trap is read while nobody else can run the manager"
        assert manager.owner.value == 0
    assert f(2, 0) == 2 and not manager.slow_calls


def test_trapped_may_return_the_result(manager):
    f = make_callable(manager.slow, lambda status: status * 2)
    retarget(f, (I64, I64), I64, manager.target(STATUS, True))
    assert f(1, 8) == 16 and manager.owner.value == 0


def test_the_stack_limit(manager):
    f = manager.function((), I64, STACK, has_status=True, stack=1 << 16)
    low = f()
    assert thread_stack_low() < low
    f = manager.function((), I64, STACK, has_status=True, stack=1 << 70)
    limits = {f() & (2**64 - 1)}
    assert limits == {thread_stack_low()}

    def work():
        limits.add(f() & (2**64 - 1))
        limits.add(thread_stack_low())

    former = threading.stack_size(512 * 1024)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    threading.stack_size(former)
    assert len(limits) == 2, "each thread has its own bound"
    assert f() & (2**64 - 1) == thread_stack_low() and not manager.slow_calls


def test_a_full_heap_is_slow_only_if_the_unit_keeps_objects(manager):
    f = manager.function((I64, I64), I64, STATUS, has_status=True, resets_heap=False)
    assert f(1, 0) == 1
    manager.state.compact_at = HEAP_START - 1
    assert f(1, 0) == "slow"
    g = manager.function((I64, I64), I64, STATUS, has_status=True)
    assert g(1, 0) == 1


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bool"])
def test_arrays(manager, dtype):
    t = parse_type(f"[{dtype.replace('uint', 'u').replace('int', 'i').replace('float', 'f')}]")
    size = np.dtype(dtype).itemsize
    f = manager.function((t,), I64, swap_first_and_last(f"i{8 * size}", size), has_status=True, writes=(True,))
    x = np.array([1, 0, 0], dtype)
    assert manager.was_native(f(x)) and f(x) == 3
    assert f(x) == 3 and x.tolist() == [0, 0, 1]
    assert f(np.empty(0, dtype)) == 0 and not manager.slow_calls
    other = "float64" if dtype != "float64" else "int64"
    for refused in (x.astype(other), x[::-1], np.zeros((1, 3), dtype), np.array(1, dtype), [1, 2], array.array("d"), None, 3):
        assert f(refused) == "slow"
    if size > 1:
        assert f(np.zeros(3, np.dtype(dtype).newbyteorder())) == "slow"
        assert f(np.frombuffer(bytearray(4 * size + 1), np.uint8)[1:].view(dtype)) == "slow"
    x.flags.writeable = False
    assert f(x) == "slow"
    reads = manager.function((t,), I64, swap_first_and_last("i8", 0), has_status=True)
    x = np.frombuffer(bytes(size), dtype)
    assert manager.was_native(reads(x))


def test_several_arrays_and_their_buffers(manager):
    params = (Array(F64), I64, FixedArray(I64, 2))
    text = """define {i64, i32} @f(i64 %a, i64 %n, i64 %b) {
  %status = trunc i64 %n to i32
  %d = sub i64 %b, %a
  %x = insertvalue {i64, i32} zeroinitializer, i64 %d, 0
  %y = insertvalue {i64, i32} %x, i32 %status, 1
  ret {i64, i32} %y
}"""
    f = manager.function(params, I64, text, has_status=True)
    x, y = np.zeros(4), np.zeros(2, np.int64)
    counts = sys.getrefcount(x), sys.getrefcount(y)
    assert f(x, 0, y) == 32
    assert f(x, 0, x) == "slow" and f(x, 0, np.zeros(3, np.int64)) == "slow" and f(y, 0, y) == "slow" and f(x, 0.0, y) == "slow"
    manager.slow_calls.clear()
    with pytest.raises(ArithmeticError):
        f(x, 5, y)
    assert counts == (sys.getrefcount(x), sys.getrefcount(y)), "every buffer was released"
    assert manager.words[HEAP_TOP // 8] == HEAP_START
    manager.words[HEAP_LIMIT // 8] = HEAP_START + 63
    assert f(x, 0, y) == "slow", "no room for two headers"
    keeping = manager.function(params, I64, text, has_status=True, resets_heap=False)
    assert keeping(x, 0, y) == "slow"


def test_a_plain_function_with_an_array(manager):
    text = (
        "define i64 @f(i64 %a) {\n  %p = getelementptr i8, ptr HEAP, i64 %a\n  %q = getelementptr i8, ptr %p, i64 8\n  %n = load i64, ptr %q\n  ret i64 %n\n}"
    )
    f = manager.function((Array(F64),), I64, text)
    assert manager.was_native(f(np.zeros(7))) and f(np.zeros(7)) == 7


def test_numpy_is_noticed_when_it_comes(manager):
    f = manager.function((Array(F64),), I64, swap_first_and_last("i64", 8), has_status=True)
    wrapper._ndarray_type.value = 0
    assert f(np.zeros(3)) == "slow"
    assert f(np.zeros(3)) == 3


def test_retarget_and_invalidate(manager):
    f = make_callable(manager.slow, manager.trapped)
    assert f(1, 2) == "slow"
    assert retarget(f, (I64, I64), I64, manager.target(ADD, False)) and f(1, 2) == 3
    assert retarget(f, (I64, I64), I64, manager.target(ADD.replace("add", "mul"), False)) and f(3, 4) == 12
    invalidate(f)
    assert f(3, 4) == "slow"
    assert retarget(f, (F64,), F64, manager.target(identity(F64), False)) and f(2.5) == 2.5


def test_it_is_a_good_python_object(manager):
    f = manager.function((I64, I64), I64, ADD)
    assert callable(f) and hash(f) == hash(f) and f == f and type(f) is callable_type()
    assert "?" in repr(f)
    f.__name__, f.__doc__ = "add", "Add."
    assert repr(f) == "<function add of Simple MIR>" and inspect.getdoc(f) == "Add."
    f.__signature__ = inspect.Signature([inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in "ab"])
    assert str(inspect.signature(f)) == "(a, b, /)"
    assert vars(f)["__name__"] == "add"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot pickle <function add"):
            pickle.dumps(f, protocol)
    assert copy.copy(f) is f and copy.deepcopy([f])[0] is f
    with pytest.raises(TypeError):
        type(f)()
    with pytest.raises(TypeError):
        type("Sub", (type(f),), {})
    with pytest.raises(AttributeError):
        _ = f.nothing
    assert list(map(f, [1, 2], [3, 4])) == [4, 6] and max([1, 2], key=lambda x: f(x, 0)) == 2


def test_properties_can_be_set_on_the_type(manager):
    callable_type().mir = property(lambda self: f"MIR of {self.__name__}")
    f = manager.function((I64, I64), I64, ADD)
    f.__name__ = "add"
    assert f.mir == "MIR of add" and f(1, 2) == 3


def test_objects_are_freed(manager):
    class Anchor:
        pass

    def new():
        anchor = Anchor()
        made = make_callable(lambda *_: anchor, lambda _: anchor)
        retarget(made, (I64, I64), I64, Target(1, False, 0, 0, manager.state, keep=anchor))
        return made, anchor

    made, anchor = new()
    gone, anchor_gone = weakref.ref(made), weakref.ref(anchor)
    del made, anchor
    assert gone() is None and anchor_gone() is None
    made, anchor = new()
    made.itself, anchor.function = made, made
    gone, anchor_gone = weakref.ref(made), weakref.ref(anchor)
    assert gc.is_tracked(made) and type(made) in gc.get_referents(made)
    del made, anchor
    gc.collect()
    assert gone() is None and anchor_gone() is None


def test_counts_stay_the_same(manager):
    kind, slow = callable_type(), manager.slow
    f = manager.function((I64, I64), I64, STATUS, has_status=True, releases_gil=True)
    g = manager.function((), UNIT, "define i1 @f() {\n  ret i1 false\n}")
    h = manager.function((Array(F64),), I64, swap_first_and_last("i64", 8), has_status=True)
    x = np.zeros(3)

    def work(n):
        for _ in range(n):
            f(1000, 0), g(), h(x), f(1.5, 2), h([1.0])
            with pytest.raises(ArithmeticError):
                f(1, 3)
            weakref.ref(make_callable(slow, manager.trapped))
        manager.slow_calls.clear()
        manager.statuses.clear()

    work(10)
    gc.collect()
    before = [sys.getrefcount(o) for o in (kind, slow, x, manager.state, f, None)]
    blocks = sys.getallocatedblocks()
    work(1000)
    gc.collect()
    after = [sys.getrefcount(o) for o in (kind, slow, x, manager.state, f, None)]
    assert all(abs(a - b) < 50 for a, b in zip(before, after)), (before, after)
    assert abs(sys.getallocatedblocks() - blocks) < 300


def test_exceptions_of_slow_pass_through():
    def slow(*_args):
        raise LookupError("no")

    f = make_callable(slow, slow)
    with pytest.raises(LookupError, match="no"):
        f(1)


def test_other_threads_run_while_the_gil_is_released(manager):
    ticks = []
    f = manager.function((I64,), I64, SLEEP, has_status=True, releases_gil=True)
    thread = threading.Thread(target=lambda: ticks.extend(time.sleep(0.001) or i for i in range(20)))
    thread.start()
    f(200_000)
    assert len(ticks) == 20
    thread.join()
    assert manager.owner.value == 0
    answers = []
    thread = threading.Thread(target=lambda: answers.append(f(100_000)))
    thread.start()
    time.sleep(0.03)
    assert f(1) == "slow", "the other thread is inside"
    thread.join()
    assert answers == [0]


def test_an_endless_loop_is_interrupted(manager):
    def trapped(status):
        assert status == 21
        manager.flag.poll()
        raise AssertionError("no signal was pending")

    f = make_callable(manager.slow, trapped)
    retarget(f, (), I64, manager.target(SPIN, True, releases_gil=True))
    for _ in range(2):
        sent: list[float] = []

        def send(times=sent):
            time.sleep(0.1)
            times.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=send)
        sender.start()
        manager.flag.clear()
        while True:
            try:
                f()
            except KeyboardInterrupt:
                break
            except AssertionError:
                continue
        sender.join()
        assert time.monotonic() - sent[0] < 0.5
        assert manager.owner.value == 0 and not manager.slow_calls


def test_without_the_layout_every_call_is_slow(manager, monkeypatch):
    monkeypatch.setattr(wrapper, "is_supported", lambda: False)
    f = make_callable(manager.slow, manager.trapped)
    assert isinstance(f, PythonFunction) and callable_type() is PythonFunction
    assert not retarget(f, (I64, I64), I64, manager.target(ADD, False))
    invalidate(f)
    assert f(1, b=2) == "slow" and manager.slow_calls == [((1,), {"b": 2})]
    assert copy.copy(f) is f and weakref.ref(f)() is f
    with pytest.raises(TypeError):
        f.__reduce__()


EXIT = """
import sys, threading
sys.path[:0] = {path!r}
from tests.test_wrapper import *
manager = Manager()
f = manager.function((I64, I64), I64, ADD)
other = Manager()
g = other.function((I64,), I64, SLEEP, has_status=True, releases_gil=True)
f.itself = f
g(1)
class Last:
    def __del__(self):
        assert f(1, 2) == 3
last = Last()
last.itself = last
sys.modules["kept"] = f
threading.Thread(target=g, args=(10**7,), daemon=True).start()
print(f(2, 3))
"""


def test_the_process_ends_quietly_with_live_functions():
    path = [os.path.dirname(os.path.dirname(os.path.abspath(__file__))), *sys.path]
    done = subprocess.run([sys.executable, "-c", EXIT.format(path=path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "5", "")


def test_importing_the_module_does_not_import_llvm():
    script = "import simple_magic.backends.wrapper, sys; assert not {'llvmlite', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_a_call_costs_at_most_a_fifth_of_ctypes(manager):
    f = manager.function((I64, I64), I64, ADD)
    g = manager.function((I64, I64), I64, STATUS.replace("trunc i64 %s to i32", "add i32 0, 0"), has_status=True)
    address = manager.code[0].addresses["f"]
    native = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)

    def cost(function):
        return min(timeit.repeat("function(2, 3)", globals={"function": function}, number=20_000, repeat=7))

    reference = cost(native)
    assert cost(f) <= reference / 5
    assert cost(g) <= reference / 5

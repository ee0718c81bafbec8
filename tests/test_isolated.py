"""Isolated calls: the same answers as in process, and nothing but one child process to lose."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filetests import is_same, plain, read_filetest

from simple_magic import CopiedArrayWarning, CrashError, Limits, LocalExecutionManager, MirError, SimpleError, Trap, extern
from simple_magic.backends import isolated
from simple_magic.backends.packing import Borrowed, Loans, pack, unpack
from simple_magic.backends.values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue

ROOT = Path(__file__).parent.parent
FILETESTS = ROOT / "tests" / "filetests"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals end processes on POSIX")

SOURCE = """
extern fn isolated_ask(x: i64) -> i64
global n: i64
global kept: [f64]

fn add(a: i64, b: i64) -> i64:
entry:
  c = add a, b
  ret c

fn spin():
entry:
  store_global @n, 5
  goto again
again:
  goto again

fn peek() -> i64:
entry:
  v = load_global @n
  ret v

fn set(v: i64):
entry:
  store_global @n, v
  ret

fn keep(a: [f64]):
entry:
  store_global @kept, a
  ret

fn total() -> f64:
entry:
  a = load_global @kept
  x = index_get a, 0
  ret x

fn show(k: i64):
entry:
  print "before"
  v = call isolated_ask(k)
  print v
  ret

fn flood():
entry:
  goto again
again:
  print "a line of text"
  goto again

fn deep(k: i64) -> i64:
entry:
  k = add k, 1
  v = call deep(k)
  v = add v, 1
  ret v

fn hoard():
entry:
  a: [i64] = array 1, 2
  goto again
again:
  push a, 7
  goto again
"""

FILL = """
fn fill(a: [f64], k: f64, at: i64):
entry:
  index_set a, 0, k
  index_set a, at, k
  ret
"""


@pytest.fixture(autouse=True)
def answers():
    """What the extern does."""
    table: dict[str, object] = {"do": lambda x: x + 1}
    extern("fn isolated_ask(x: i64) -> i64")(lambda x: table["do"](x))
    return table


@pytest.fixture(scope="module", params=["llvm", "cranelift", "interpreter"])
def shared(request):
    """One manager for all tests that leave its child alone: starting one takes a while."""
    extern("fn isolated_ask(x: i64) -> i64")(lambda x: x + 1)
    with LocalExecutionManager(request.param, isolated=True) as em:
        em.compile(SOURCE)
        em.compile(FILL)
        em.execute("add", 1, 2)
        yield em


@pytest.fixture
def em(shared):
    shared.execute("set", 1)
    return shared


def backend_of(em: LocalExecutionManager) -> isolated.IsolatedBackend:
    return em._engines[em.options(isolated=True).engine]


def pid_of(em: LocalExecutionManager) -> int:
    pid = backend_of(em).pid
    assert pid is not None
    return pid


def soon(action, *args, seconds=0.3) -> threading.Timer:
    timer = threading.Timer(seconds, action, args)
    timer.start()
    return timer


def crash(pid: int) -> None:
    """End a process as a bad memory access would: an engine's own handler lets the first signal pass that no instruction of its code has caused."""
    for _ in range(50):
        try:
            os.kill(pid, signal.SIGSEGV)
        except ProcessLookupError:
            return
        time.sleep(0.05)


# The same answers


def test_what_ran_says_so(em):
    name = {"llvm": "llvm-jit", "cranelift": "cranelift-jit", "interpreter": "interpreter"}[em.backend]
    assert em.backend_name == f"{name} (isolated)"
    assert em.execute_captured("add", 20, 22).backend == f"{name} (isolated)"
    assert em.execute_captured("add", 20, 22).value == 42
    assert pid_of(em) != os.getpid()


def test_one_call_of_a_manager_can_be_isolated_or_not():
    with LocalExecutionManager("llvm") as em:
        em.compile(SOURCE)
        em.execute("set", 3)
        assert em.execute("peek", isolated=True) == 3
        em.execute("set", 4, isolated=True)
        assert em.execute("peek") == 4, "globals move between the engines"
        assert (em.backend_name, em.execute_captured("peek", isolated=True).backend) == ("llvm-jit", "llvm-jit (isolated)")
        em.set_isolated(True)
        live = em.function("add")
        assert (live(1, 2), live(3, 4), em.backend_name) == (3, 7, "llvm-jit (isolated)")


@pytest.mark.parametrize("backend", ["llvm", "cranelift", "interpreter"])
def test_filetests_give_the_same_in_the_child(backend):
    from conftest import new_manager

    chosen = sorted((FILETESTS / "run").glob("*.mir"))[::6] + sorted((FILETESTS / "semantics").glob("*.mir"))[:2]
    inner, traps = new_manager(backend), 0
    with LocalExecutionManager(backend, isolated=True) as outer, inner:
        for path in chosen:
            source = path.read_text(encoding="utf-8")
            for name in tuple(outer.session.definitions):
                outer.remove(name)
                inner.remove(name)
            outer.compile(source)
            inner.compile(source)
            for wanted in read_filetest(source).expectations[::2]:
                arguments = wanted.args()
                options = {"semantics": wanted.model, "fuel": wanted.fuel, "timeout": 20}
                a = inner.execute_captured(wanted.function, *wanted.args(), **options)
                b = outer.execute_captured(wanted.function, *arguments, **options)
                assert is_same(plain(a.value), plain(b.value)), (path.name, wanted.title)
                assert a.stdout == b.stdout
                assert trap_fields(a.trap) == trap_fields(b.trap), (path.name, wanted.title)
                traps += a.trap is not None
    assert traps > 10


def trap_fields(trap: Trap | None) -> object:
    return trap and (trap.kind, trap.message, trap.origin, trap.frames, trap.frames_omitted, trap.payload, trap.span, trap.frame_spans)


def test_views_come_from_the_child(em):
    assert "define" in em.function("add").llvm_ir
    assert "i64.add" in em.function("add").wat


def test_errors_of_compiling_are_raised_here():
    with LocalExecutionManager("llvm", isolated=True, limits=Limits(unit_instructions=3)) as em, pytest.raises(MirError, match="E0604"):
        em.compile(SOURCE)


# Values


def test_packing_keeps_sharing_cycles_and_depth():
    node = StructValue("Node", [1, None])
    node.slots[1] = SomeValue(node)
    pair = (node, SomeValue((node, "x")))
    enum = EnumValue("E", 2, (pair, 1.5))
    table = DictValue({"a": pair, "b": 2})
    head = None
    for k in range(100_000):
        head = SomeValue(StructValue("Node", [k, head]))
    got = unpack(pack([node, pair, enum, table, ArrayValue([1, 2]), ArrayValue([node, None]), head, None, True]))
    a, p, e, t, numbers, nodes, chain, nothing, yes = got
    assert a.slots[1].value is a and p[0] is a and p[1].value == (a, "x") and e.slots[0] is p and t.items["a"] is p and nodes.items == [a, None]
    assert (e.tag, e.slots[1], t.items["b"], numbers.items, nothing, yes, numbers.growable) == (2, 1.5, 2, [1, 2], None, True, True)
    length = 0
    while chain is not None:
        length, chain = length + 1, chain.value.slots[1]
    assert length == 100_000


def test_overlapping_loans_stay_so():
    memory = np.arange(20, dtype=np.float64)
    views = [memory[3:9], memory[6:12], memory[15:], np.zeros(0), np.arange(3, dtype=np.int8)]
    loans = Loans()
    packed = pack([ArrayValue(memoryview(v), growable=False) for v in views], loans)
    borrowed = Borrowed(loans.copies())
    first, second, third, empty, small = unpack(packed, borrowed.views)
    assert [list(v.items) for v in (first, second, third, empty, small)] == [list(v) for v in views]
    assert borrowed.changed() == {}
    first.items[4] = -1.0
    assert second.items[1] == -1.0 and not first.growable
    loans.write_back(borrowed.changed())
    assert memory[7] == -1.0 and memory[6] == 6.0 and list(memory[15:]) == [15, 16, 17, 18, 19]


def test_writes_into_numpy_arrays_are_visible_also_after_a_trap(em):
    a = np.arange(4.0)
    em.execute("fill", a, 9.0, 3)
    assert a.tolist() == [9, 1, 2, 9]
    with pytest.raises(Trap, match="index_out_of_bounds"):
        em.execute("fill", a, 7.0, 100)
    assert a.tolist() == [7, 1, 2, 9]


def test_a_kept_array_is_a_copy(em):
    a = np.arange(3.0) + 1
    with pytest.warns(CopiedArrayWarning):
        em.execute("keep", a)
    a[0] = 50
    assert em.execute("total") == 1.0
    assert em.globals()["kept"] == [1.0, 2.0, 3.0]


def test_sharing_between_globals_survives_calls_and_children():
    source = """
class Node:
  value: i64
  next: Node?
global left: Node?
global right: Node?
fn build():
entry:
  n = new Node(value: 1, next: nil)
  s = some n
  store_global @left, s
  store_global @right, s
  ret
fn poke():
entry:
  s = load_global @left
  n = unwrap s
  set_field n, value, 7
  ret
fn look() -> i64:
entry:
  s = load_global @right
  n = unwrap s
  v = get_field n, value
  ret v
"""
    with LocalExecutionManager("llvm", isolated=True) as em:
        em.compile(source)
        em.execute("build")
        backend_of(em)._child.process.kill()
        backend_of(em)._child.process.wait()
        em.execute("poke")
        em.set_backend("interpreter")
        assert em.execute("look") == 7


def test_globals_that_do_not_fit_are_a_trap_until_they_do():
    source = "global a: [i64]\nfn grow(n: i64):\nentry:\n  i = const 0\n  b: [i64] = array 0\n  goto head\nhead:\n  m = lt i, n\n  if m then body else done\n" \
        "body:\n  push b, i\n  i = add i, 1\n  goto head\ndone:\n  store_global @a, b\n  ret\nfn size() -> i64:\nentry:\n  b = load_global @a\n  n = len b\n  ret n\n"  # fmt: skip
    with LocalExecutionManager("llvm", isolated=True, limits=Limits(memory=16 << 20)) as em:
        em.compile(source)
        em.execute("grow", 500_000)
        with em.limited(memory=1 << 20):
            for _ in range(2):
                assert em.execute_captured("size").trap.kind == "out_of_memory"
        assert em.execute("size") == 500_001
        assert len(em.globals()["a"]) == 500_001


def test_the_deepest_types_can_be_sent():
    deep = "[" * 60 + "i64" + "]" * 60
    with LocalExecutionManager("interpreter", isolated=True) as em:
        em.compile(f"global a: {deep}\nfn f() -> i64:\nentry:\n  b = load_global @a\n  n = len b\n  ret n\n")
        assert em.execute("f") == 0


# Externs and nested calls


def test_externs_run_here_and_output_keeps_its_order(em, answers, capsys):
    seen = []
    answers["do"] = lambda x: seen.append((os.getpid(), x)) or print("asked") or 2 * x
    assert em.execute("show", 21) == em.execute("show", 21)
    assert capsys.readouterr().out == "before\nasked\n42\n" * 2
    assert em.execute_captured("show", 21).stdout == "before\n42\n", "what the host prints is not the program's output"
    assert seen == [(os.getpid(), 21)] * 3


def test_an_exception_of_an_extern_passes_unchanged(em, answers):
    for error in (ValueError("no"), KeyboardInterrupt(), SystemExit(3), Trap("abort", "mine")):

        def fail(_x, error=error):
            raise error

        answers["do"] = fail
        with pytest.raises(type(error)) as caught:
            em.execute("show", 1)
        assert caught.value is error
        assert any("called from show" in note for note in error.__notes__)
        assert em.execute("peek") == 1


def test_nested_calls_run_in_the_same_child(em, answers):
    def nested(x):
        em.execute("set", 10 * x)
        assert em.globals()["n"] == 10 * x
        with pytest.raises(SimpleError, match="isolated like it"):
            em.execute("peek", isolated=False)
        return em.execute("peek") + em.function("add")(1, 2)

    answers["do"] = nested
    assert em.execute_captured("show", 4).stdout == "before\n43\n"
    assert em.execute("peek") == 40


def test_inner_calls_of_one_isolated_call_are_isolated_too(answers):
    with LocalExecutionManager("llvm") as em:
        em.compile(SOURCE)
        answers["do"] = lambda x: (em.execute("set", 8), em.execute("peek"))[1] if em.isolated else -1
        assert em.execute_captured("show", 1, isolated=True).stdout == "before\n8\n"
        assert (em.isolated, em.execute("peek")) == (False, 8)


def test_many_extern_calls_in_one_call(answers):
    source = """
extern fn isolated_ask(x: i64) -> i64
fn main(n: i64) -> i64:
entry:
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  i = call isolated_ask(i)
  goto head
done:
  ret i
"""
    with LocalExecutionManager("llvm", isolated=True) as em:
        em.compile(source)
        assert em.execute("main", 3000) == 3000


# Crashes


@posix
def test_a_crash_costs_one_child(em):
    em.execute("set", 11)
    pid = pid_of(em)
    soon(crash, pid)
    with pytest.raises(CrashError, match=r"SIGSEGV ended the isolated process .* while it ran `spin`") as caught:
        em.execute("spin", timeout=30)
    assert caught.value.ending == "SIGSEGV" and "SIGSEGV" in em.last_error
    assert em.execute("peek") == 11, "globals are as before the call"
    assert em.execute("add", 1, 2) == 3 and pid_of(em) != pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PLANTED = """
import ctypes
from simple_magic.backends import engines, isolated_child

def make_engine(name, host):
    made = engines.make_engine(name, host)
    compiled = made.compile
    def compile(unit, level):
        program = compiled(unit, level)
        called = program.call
        class Broken:
            timings = {}
            def call(self, function, args, fuel=None):
                if args and args[0] == 666:
                    ctypes.string_at(0)
                if args and args[0] == 667:
                    while True:
                        ctypes.pythonapi.PyErr_CheckSignals()
                if args and args[0] == 668:
                    raise AssertionError("planted")
                return called(function, args, fuel)
            def close(self):
                program.close()
        return Broken()
    made.compile = compile
    return made

isolated_child.make_engine = make_engine
isolated_child.main()
"""


@pytest.fixture
def planted(monkeypatch):
    """A manager whose child runs a broken engine."""
    start = "import sys, os; sys.path[:] = sys.argv[1].split(os.pathsep)\n"
    monkeypatch.setattr("simple_magic.backends.channel.BOOTSTRAP", start + PLANTED)
    with LocalExecutionManager("interpreter", isolated=True) as em:
        em.compile(SOURCE)
        em.execute("set", 2)
        yield em


@posix
def test_a_bad_memory_access_in_the_child(planted):
    for _ in range(2):
        with pytest.raises(CrashError, match="SIGSEGV"):
            planted.execute("add", 666, 1)
        assert (planted.execute("add", 1, 1), planted.execute("peek")) == (2, 2)


def test_a_hung_child_is_ended_after_the_timeout(planted, monkeypatch):
    monkeypatch.setattr(isolated, "TIMEOUT_GRACE_SECONDS", 0.2)
    start = time.monotonic()
    result = planted.execute_captured("add", 667, 1, timeout=0.2)
    assert result.trap.kind == "timeout" and time.monotonic() - start < 5
    assert (planted.execute("add", 1, 1), planted.execute("peek")) == (2, 2)


@posix
def test_a_hung_child_is_ended_after_an_interrupt(planted):
    soon(os.kill, os.getpid(), signal.SIGINT)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        planted.execute("add", 667, 1)
    assert time.monotonic() - start < 3
    assert (planted.execute("add", 1, 1), planted.execute("peek")) == (2, 2)


def test_an_exception_in_the_child_names_its_place(planted):
    with pytest.raises(AssertionError, match="planted") as caught:
        planted.execute("add", 668, 1)
    assert "in the isolated process" in caught.value.__notes__[0]
    assert planted.execute("add", 1, 1) == 2


def test_a_child_that_cannot_start_is_one_sentence(monkeypatch):
    with LocalExecutionManager("llvm", isolated=True) as em:
        em.compile(SOURCE)
        monkeypatch.setattr("simple_magic.backends.channel.BOOTSTRAP", "import sys; sys.exit('no such thing')")
        with pytest.raises(CrashError, match=r"exit code 1 .*\n.*no such thing"):
            em.execute("add", 1, 2)
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(MirError, match="E0620"):
            em.execute("add", 1, 2)


@posix
def test_a_child_that_dies_between_calls_is_replaced_silently(em):
    os.kill(pid_of(em), signal.SIGKILL)
    time.sleep(0.1)
    assert (em.execute("peek"), em.execute("add", 1, 2)) == (1, 3)


@posix
def test_a_crash_inside_a_nested_call(em, answers):
    def nested(x):
        soon(crash, pid_of(em))
        try:
            em.execute("spin", timeout=30)
        except CrashError:
            if x:
                raise
        return 1

    answers["do"] = nested
    for x in (0, 1):
        with pytest.raises(CrashError, match="SIGSEGV"):
            em.execute("show", x)
        assert em.execute("peek") == 1


# Stopping


@posix
def test_interrupt(em):
    pid = pid_of(em)
    for _ in range(2):
        soon(os.kill, os.getpid(), signal.SIGINT)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            em.execute("spin", timeout=30)
        assert time.monotonic() - start < 3
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert em.execute("peek") == 5, "the child stopped by itself and told its globals"
    assert pid_of(em) == pid


@posix
def test_interrupts_at_any_moment_lose_nothing(em, answers):
    """What the globals hold here and in the child stays one thing, whatever an interrupt hits."""
    answers["do"] = lambda x: em.execute("set", em.execute("peek") + 1) or x
    for k in range(60):
        timer = threading.Timer(0.003 + k * 0.0002, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while True:
                em.execute_captured("show", k)
        timer.join()
        assert em.execute("peek") == em.globals()["n"]
        em.execute("set", k)
        assert em.execute("peek") == k


@posix
def test_a_handler_that_does_not_raise_does_not_stop_the_program(em):
    seen = []
    previous = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        soon(os.kill, os.getpid(), signal.SIGINT, seconds=0.1)
        assert em.execute_captured("spin", timeout=0.4).trap.kind == "timeout"
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == [1]


@posix
def test_the_childs_own_interrupts_are_ignored(em):
    """What Ctrl-C in a terminal would do to a process group."""
    pid = pid_of(em)
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    assert em.execute("add", 1, 2) == 3 and pid_of(em) == pid


def test_timeout_and_fuel(em):
    result = em.execute_captured("spin", timeout=0.2)
    assert (result.trap.kind, result.trap.span.line) == ("timeout", SOURCE.split("\n").index("again:") + 2)
    assert em.execute_captured("spin", fuel=1000).trap.kind == "out_of_fuel"
    assert em.execute("peek") == 5


def test_calls_in_another_thread(em):
    found = []
    thread = threading.Thread(target=lambda: found.append(em.execute("add", 1, 2)))
    thread.start()
    thread.join(20)
    assert found == [3]


# Limits


@pytest.mark.parametrize("is_isolated", [False, True])
@pytest.mark.parametrize("backend", ["llvm", "cranelift", "interpreter"])
def test_limits_of_some_calls(backend, is_isolated):
    with LocalExecutionManager(backend, isolated=is_isolated) as em:
        em.compile(SOURCE)
        em.execute("set", 6)

        def kind(name: str, *args: object, **changes: int) -> str:
            with em.limited(**changes):
                trap = em.execute_captured(name, *args, timeout=60).trap
            return trap.kind if trap else ""

        assert kind("flood", output=1000) == "output_limit"
        shallow = kind("deep", 0, stack=64 << 10)
        assert shallow == "stack_overflow"
        if backend == "interpreter" or is_isolated:
            assert kind("hoard", memory=8 << 20) == "out_of_memory"
        else:
            with pytest.raises(ValueError, match="reserved once"), em.limited(memory=8 << 20):
                pass
        em.set_limits(Limits(memory=16 << 20))
        assert em.execute_captured("hoard").trap.kind == "out_of_memory"
        assert (em.execute("peek"), em.limits.output) == (6, Limits.output)
        with em.limited(unit_instructions=3), pytest.raises(MirError, match="E0604"):
            em.compile("fn f():\nentry:\n  a = const 1\n  a = const 2\n  a = const 3\n  a = const 4\n  ret\n")


@pytest.mark.parametrize("text, size", [("64M", 64 << 20), ("1 GiB", 1 << 30), ("2kb", 2048), (4096, 4096), ("7", 7)])
def test_sizes(text, size):
    from simple_magic.execution.limits import parse_size

    assert parse_size(text) == size
    for wrong in ("", "0", "-1", "1.5M", "M", "12 apples", True, None):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(wrong)


# The life of a child


@posix
def test_no_child_outlives_its_manager():
    managers = [LocalExecutionManager("interpreter", isolated=True) for _ in range(3)]
    for em in managers:
        em.compile(SOURCE)
        em.execute("add", 1, 2)
    pids = [pid_of(em) for em in managers]
    managers[0].close()
    managers[1].cleanup()
    del em
    managers.clear()
    gc.collect()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_redefinition_frees_code_in_the_child():
    with LocalExecutionManager("interpreter", isolated=True) as em:
        for k in range(40):
            em.compile(f"fn f() -> i64:\nentry:\n  ret {k}\n")
            assert em.execute("f") == k
        assert len(backend_of(em)._known) < 20


EXIT = """
from simple_magic import LocalExecutionManager
em = LocalExecutionManager("llvm", isolated=True)
em.compile("fn f(a: i64) -> i64:\\nentry:\\n  b = add a, 1\\n  ret b\\n")
f = em.function("f")
assert f(1) == 2
print([e.pid for e in em._engines.values()][0], flush=True)
"""

FORK = """
import os
child = os.fork()
if child == 0:
    assert f(2) == 3
    em.close()
    os._exit(42)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 42
assert f(2) == 3
"""

KILLED = """
import threading, os, signal
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
em.compile("fn spin():\\nentry:\\n  goto again\\nagain:\\n  goto again\\n")
em.execute("spin")
"""


def run(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, timeout=100, check=False, env=environment)


def is_gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True  # nobody but init can take it away
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


@posix
@pytest.mark.parametrize("more, code", [("", 0), (FORK, 0), (KILLED, -signal.SIGKILL)])
def test_the_child_ends_with_its_parent_without_noise(more, code):
    done = run(EXIT + more)
    assert (done.returncode, done.stderr) == (code, "")
    assert is_gone(int(done.stdout))


def test_a_compile_limit_holds_for_the_cell_that_has_it_alone():
    small, large = "fn small() -> i64:\nentry:\n  ret 1\n", "fn large() -> i64:\nentry:\n" + "  x = const 1\n" * 20 + "  ret x\n"
    with LocalExecutionManager("llvm", isolated=True) as em:
        em.compile(small)
        em.compile(large)
        with em.limited(unit_instructions=5):
            assert em.execute("small") == 1
            with pytest.raises(MirError, match="the limit is 5"):
                em.execute("large")
        assert em.execute("large") == 1
    with LocalExecutionManager("llvm", isolated=True, limits=Limits(unit_instructions=5)) as em:
        em.compile(small)
        assert em.execute("small") == 1
        with em.limited(unit_instructions=1000):
            em.compile(large)
            assert em.execute("large") == 1

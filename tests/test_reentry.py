"""A manager that is called again while a program of its runs, and interrupts at the worst moments: nothing that runs loses its ground."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from simple_magic import LocalExecutionManager, MirError, SimpleError, Trap, extern
from simple_magic.execution.externs import MAX_CHILDREN

ROOT = Path(__file__).parent.parent
BACKENDS = ("interpreter", "llvm", "cranelift")
HOOK: list = []


@extern("fn reentry_hook() -> i64")
def reentry_hook():
    return HOOK[-1]()


@pytest.fixture(params=BACKENDS)
def em(request):
    with LocalExecutionManager(request.param) as manager:
        yield manager


@pytest.fixture
def hook():
    """Let the extern `reentry_hook` do something."""

    def use(action):
        HOOK.append(action)

    yield use
    HOOK.clear()


PROGRAM = """
extern fn reentry_hook() -> i64
class Point:
  x: i64
global kept: [Point]
global total: i64
fn main() -> i64:
entry:
  p = new Point(x: 1)
  push @kept, p
  r = call reentry_hook()
  set_field p, x, 5
  n = len @kept
  n = sub n, 1
  q = index_get @kept, n
  x = get_field q, x
  ret x
fn spin() -> i64:
entry:
  goto again
again:
  goto again
fn outer() -> i64:
entry:
  r = call reentry_hook()
  goto again
again:
  goto again
"""


@pytest.mark.parametrize("change", ["global kept: i64 = 1234567890123", "class Point:\n  x: text\n  y: [i64]", "struct Point:\n  x: i64"])
def test_what_a_running_program_may_use_cannot_change(em, hook, change):
    em.compile(PROGRAM)

    def attempt():
        with pytest.raises(MirError, match=r"E0613.*program is running"):
            em.compile(change)
        with pytest.raises(MirError, match="E0613"):
            em.remove("kept")
        return 0

    hook(attempt)
    assert em.execute("main") == 5
    assert [p.x for p in em.globals()["kept"]] == [5]


def test_functions_and_new_globals_may_come_while_a_program_runs(em, hook):
    em.compile(PROGRAM)

    def more():
        em.compile("global more: i64 = 3\nfn main() -> i64:\nentry:\n  ret 77\nfn peek() -> i64:\nentry:\n  r = add @more, 0\n  ret r\n")
        return em.execute("peek")

    hook(more)
    assert em.execute("main") == 5, "the new global leaves the sharing of the others alone"
    assert em.execute("main") == 77 and em.globals()["more"] == 3


def test_a_global_that_comes_back_meets_no_old_code(em):
    first = "global a: [i64]\nfn f() -> i64:\nentry:\n  push @a, 5\n  n = len @a\n  ret n\n"
    em.compile(first)
    assert em.execute("f") == 1
    em.remove("f")
    em.remove("a")
    em.compile("global b: i64 = 1234567890123\nfn g() -> i64:\nentry:\n  r = add @b, 0\n  ret r\n")
    assert em.execute("g") == 1234567890123
    em.compile(first)
    assert em.execute("f") == 1 and em.execute("g") == 1234567890123


def test_an_inner_timeout_does_not_use_up_the_outer_one(em, hook):
    em.compile(PROGRAM)

    def inner():
        with pytest.raises(Trap, match="timeout"):
            em.execute("spin")
        return 0

    hook(inner)
    start = time.monotonic()
    with pytest.raises(Trap, match="timeout"):
        em.execute("outer", timeout=0.3)
    assert time.monotonic() - start < 30


def test_a_host_function_may_raise_anything(em, hook):
    em.compile(PROGRAM)
    for error in (GeneratorExit, StopIteration, SystemExit, KeyboardInterrupt, MemoryError):

        def fail(error=error):
            raise error("mine")

        hook(fail)
        with pytest.raises(error, match="mine"):
            em.execute("main")
    hook(lambda: 0)
    assert em.execute("main") == 5


def test_captured_output_stays_with_its_manager():
    stdout = sys.stdout
    source = "fn shout(n: i64):\nentry:\n  goto again\nagain:\n  print n\n  n = sub n, 1\n  more = gt n, 0\n  if more then again else done\ndone:\n  ret\n"
    answers = {}

    def work(name, count):
        with LocalExecutionManager("interpreter") as em:
            em.compile(source)
            answers[name] = em.execute_captured("shout", count).stdout

    threads = [threading.Thread(target=work, args=(n, n * 200)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is stdout
    assert {name: text.count("\n") for name, text in answers.items()} == {n: n * 200 for n in range(1, 5)}


def test_captured_calls_inside_captured_calls(em, hook):
    em.compile(PROGRAM + "fn says() -> i64:\nentry:\n  print 1\n  r = call reentry_hook()\n  print 3\n  ret r\nfn two() -> i64:\nentry:\n  print 2\n  ret 2\n")
    inner = []
    hook(lambda: inner.append(em.execute_captured("two").stdout) or 0)
    assert em.execute_captured("says").stdout == "1\n3\n"
    assert inner == ["2\n"]


def test_a_read_only_array_is_welcome_where_nobody_writes(em):
    em.compile("fn reads(xs: [i64]) -> i64:\nentry:\n  r = index_get xs, 0\n  ret r\nfn writes(xs: [i64]) -> i64:\nentry:\n  index_set xs, 0, 1\n  r = call reads(xs)\n  ret r\n"
               "fn passes(xs: [i64]) -> i64:\nentry:\n  r = call writes(xs)\n  ret r\n")  # fmt: skip
    xs = np.array([7, 8])
    xs.flags.writeable = False
    assert em.execute("reads", xs) == 7
    assert em.function("reads")(xs) == 7
    for name in ("writes", "passes"):
        with pytest.raises(TypeError, match="read-only"):
            em.execute(name, xs)


def test_managers_of_a_program_are_counted(em):
    em.compile('extern fn rt_exec_manager_create(backend: text) -> i64\nextern fn rt_exec_manager_get_last_error(h: i64) -> text\n'
               'fn make() -> i64:\nentry:\n  h = call rt_exec_manager_create("interpreter")\n  ret h\nfn why() -> text:\nentry:\n  t = call rt_exec_manager_get_last_error(0)\n  ret t\n')  # fmt: skip
    handles = [em.execute("make") for _ in range(MAX_CHILDREN)]
    assert all(handles) and em.execute("make") == 0
    assert "rt_exec_manager_cleanup" in em.execute("why")


@pytest.mark.parametrize(("options", "says"), [
    ({"fuel": 1.5}, "fuel"), ({"fuel": "x"}, "fuel"), ({"fuel": True}, "fuel"), ({"fuel": -1}, "fuel"), ({"timeout": "x"}, "timeout"), ({"timeout": 0}, "timeout"),
    ({"timeout": float("nan")}, "timeout"), ({"timeout": -1}, "timeout"), ({"timeout": 1e300}, "timeout"), ({"semantics": []}, "model"),
    ({"semantics": "x"}, "model"), ({"backend": 5}, "back end"), ({"opt_level": True}, "level"), ({"opt_level": 1.0}, "level"),
])  # fmt: skip
def test_options_are_checked(em, options, says):
    em.compile("fn f() -> i64:\nentry:\n  ret 1\n")
    with pytest.raises(ValueError, match=says):
        em.execute("f", **options)
    with pytest.raises(SimpleError, match="E0602"):
        em.execute(5)
    assert em.execute("f") == 1


# In processes of their own: signals


def run(code: str, *args: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=300, check=False, env=environment)


REDEFINED_UNDER_ITS_FEET = """
import signal, sys
from simple_magic import LocalExecutionManager
em = LocalExecutionManager(sys.argv[1])
em.compile('''fn f(n: i64) -> i64:
entry:
  i = const 0
  k = const 1
  goto head
head:
  i = add i, 1
  k = mul k, 6364136223846793005
  k = bit_xor k, i
  more = lt i, n
  if more then head else done
done:
  ret k
''')
f = em.function("f")
assert f(5) == f(5) != 5
seen = []
def handler(*_):
    for i in range(20):
        em.compile(f"fn f(n: i64) -> i64:\\nentry:\\n  ret {i}\\n")
        seen.append(f(1) == f(1) == i)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
assert f(200_000_000) != 19
assert seen and all(seen) and f(1) == 19 and not em.is_busy
"""

INTERRUPTED_ANYWHERE = """
import random, signal, sys, time
from simple_magic import LocalExecutionManager
em = LocalExecutionManager(sys.argv[1])
em.compile("fn f(n: i64) -> i64:\\nentry:\\n  r = add n, 1\\n  ret r\\nfn g(xs: [text]) -> [text]:\\nentry:\\n  ret xs\\n")
live = em.function("f")
em.execute("g", ["a"]), live(1), live(1)
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
pick = random.Random(1)
end, count = time.monotonic() + 4, 0
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, pick.uniform(20e-6, 400e-6))
        while True:
            em.execute("f", 1), em.execute("g", ["a", "b"]), live(1)
    except KeyboardInterrupt:
        count += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert not em.is_busy, f"still held after {count} interrupts"
assert em.execute("f", 1) == 2 and count > 100, count
em.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGALRM")
@pytest.mark.parametrize("backend", ["llvm", "cranelift"])
def test_code_stays_while_it_runs(backend):
    done = run(REDEFINED_UNDER_ITS_FEET, backend)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGALRM")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_at_any_moment_lets_go_of_the_manager(backend):
    done = run(INTERRUPTED_ANYWHERE, backend)
    assert (done.returncode, done.stderr) == (0, "")


# Arrays that are lent to a program while another one runs

LENT = """
extern fn reentry_hook() -> i64
struct Wide:
""" + "".join(f"  f{i}: i64\n" for i in range(16)) + """
fn look(a: [f64]) -> i64:
entry:
  n = len a
  ret n

fn second(a: [f64]) -> i64:
entry:
  index_set a, 1, 20.0
  ret 0

fn around(a: [f64]) -> i64:
entry:
  q = call reentry_hook()
  index_set a, 2, 7.0
  ret q

fn outer(v: i64) -> i64:
entry:
  q = call reentry_hook()
  w = new Wide(""" + ", ".join(f"f{i}: v" for i in range(16)) + """)
  q = call reentry_hook()
  r = get_field w, f3
  ret r
"""


@pytest.mark.parametrize("is_direct", [False, True], ids=["execute", "function"])
def test_what_a_nested_call_was_lent_is_forgotten_with_it(em, hook, is_direct):
    lent, calls = np.zeros(4), []

    def once():
        calls.append(1)
        if len(calls) % 2:
            return em.function("look")(lent) if is_direct else em.execute("look", lent)
        return 0

    hook(once)
    em.compile(LENT)
    for value in (8, 1 << 20, 0x123456789000):
        assert em.execute("outer", value) == value
    assert lent.tolist() == [0.0] * 4


@pytest.mark.parametrize("is_direct", [False, True], ids=["execute", "function"])
def test_an_array_that_is_lent_twice_keeps_every_write(em, hook, is_direct):
    lent = np.zeros(4)
    call = (lambda name: em.function(name)(lent)) if is_direct else (lambda name: em.execute(name, lent))

    def write_and_call():
        lent[0] = 5.0
        return call("second")

    hook(write_and_call)
    em.compile(LENT)
    call("around")
    assert lent.tolist() == [5.0, 20.0, 7.0, 0.0]


def test_a_nested_call_that_is_lent_a_part_leaves_the_rest_as_the_host_wrote_it(em, hook):
    lent = np.zeros(4)

    def write_and_call():
        lent[0] = 5.0
        return em.execute("second", lent[1:3])

    hook(write_and_call)
    em.compile(LENT)
    em.execute("around", lent)
    assert lent.tolist() == [5.0, 0.0, 7.0, 0.0], "`second` wrote 20 where `around` wrote 7 afterwards"


def test_what_the_host_wrote_before_it_raised_stays(em, hook):
    lent = np.zeros(4)

    def write_and_raise():
        lent[0] = 5.0
        raise ValueError("no more")

    hook(write_and_raise)
    em.compile(LENT)
    with pytest.raises(ValueError, match="no more"):
        em.execute("around", lent)
    assert lent.tolist() == [5.0, 0.0, 0.0, 0.0]

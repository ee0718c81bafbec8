"""What must hold over time: redefinition frees memory, forks and exits are quiet. Each case runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CYCLES = 10_000

REDEFINE = f"""
from simple_magic import LocalExecutionManager

def resident_kib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

def mappings():
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)

with LocalExecutionManager(BACKEND, opt_level=0) as em:
    live = None
    for k in range({CYCLES} + 500):
        em.compile(f'fn f(a: i64) -> i64:\\nentry:\\n  b = add a, {{k}}\\n  c = call g(b)\\n  ret c\\n'
                   f'fn g(a: i64) -> i64:\\nentry:\\n  t = const "text {{k % 7}}"\\n  n = len t\\n  d = add a, n\\n  ret d\\n')
        live = live or em.function("f")
        assert live(1) == k + 7
        if k == 500:
            start = resident_kib(), mappings()
    grown = resident_kib() - start[0]
    assert grown < {CYCLES}, f"{{grown}} KiB in {CYCLES} cycles"
    assert abs(mappings() - start[1]) <= 16, f"{{start[1]}} mappings became {{mappings()}}"
    print("grown", grown)
"""

FORK = """
import os
from simple_magic import LocalExecutionManager
em = LocalExecutionManager(BACKEND)
em.compile("fn f(a: i64) -> i64:\\nentry:\\n  b = add a, 1\\n  ret b\\n")
f = em.function("f")
assert f(1) == 2 and f(1) == 2
child = os.fork()
if child == 0:
    assert f(2) == 3
    em.compile("fn f(a: i64) -> i64:\\nentry:\\n  b = add a, 10\\n  ret b\\n")
    assert f(2) == 12
    os._exit(42)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 42
assert f(2) == 3
"""

EXIT = """
import faulthandler
from simple_magic import LocalExecutionManager
if FAULTHANDLER:
    faulthandler.enable()
em = LocalExecutionManager(BACKEND)
em.compile('fn f(n: i64) -> i64:\\nentry:\\n  i = const 0\\n  goto head\\nhead:\\n  m = lt i, n\\n  if m then body else done\\nbody:\\n  i = add i, 1\\n  goto head\\ndone:\\n  ret i\\n')
f = em.function("f")
assert f(10) == f(10) == 10
"""


def run(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False, env=environment)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="resident memory and mappings are read from /proc")
@pytest.mark.parametrize("backend", ["interpreter", "llvm", "cranelift"])
def test_ten_thousand_redefinitions_keep_memory_and_mappings(backend):
    done = run(REDEFINE.replace("BACKEND", repr(backend)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("grown")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("backend", ["llvm", "cranelift"])
def test_fork_after_compile(backend):
    done = run(FORK.replace("BACKEND", repr(backend)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("has_faulthandler", [False, True])
@pytest.mark.parametrize("backend", ["interpreter", "llvm", "cranelift"])
def test_the_interpreter_exits_without_noise(backend, has_faulthandler):
    done = run(EXIT.replace("BACKEND", repr(backend)).replace("FAULTHANDLER", repr(has_faulthandler)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

THREADS = """
import gc, threading
from simple_magic import LocalExecutionManager

COUNT = 'fn count(n: i64) -> i64:\\nentry:\\n  i = const 0\\n  goto head\\nhead:\\n  m = lt i, n\\n  if m then body else done\\nbody:\\n  i = add i, 1\\n  goto head\\ndone:\\n  ret i\\n'
failures = []

def thread(work):
    def body():
        try:
            work()
        except BaseException as error:
            failures.append(error)
    made = threading.Thread(target=body)
    made.start()
    return made

with LocalExecutionManager(BACKEND) as em:
    em.compile(COUNT)
    count = em.function("count")

    def call():
        for k in range(200):
            assert count(k) == k

    def define(name):
        for k in range(15):
            em.compile(f"fn {name}(a: i64) -> i64:\\nentry:\\n  b = call count(a)\\n  c = add b, {k}\\n  ret c\\n")
            assert em.function(name)(5) == 5 + k

    for each in [thread(call), thread(call), thread(lambda: define("one")), thread(lambda: define("two"))]:
        each.join()

    doomed = [em.function("count")]
    running = threading.Event()
    results = []

    def run_doomed():
        function = doomed[0]
        running.set()
        results.append(function(ROUNDS))

    caller = thread(run_doomed)
    running.wait()
    doomed.clear()
    gc.collect()
    em.remove("count")
    gc.collect()
    caller.join()
    assert results in ([ROUNDS], []), results
    # Whoever waits for the manager while the function vanishes is told so.
    assert len(failures) == (not results) and all("no function is named" in str(error) for error in failures), failures
"""

RELOADED = """
import importlib, sys
from IPython.core.interactiveshell import InteractiveShell
import simple_magic

shell = InteractiveShell.instance()
CELL = "fn main(a: i64) -> i64:\\nentry:\\n  b = add a, 1\\n  ret b\\n"

def works():
    shell.run_cell_magic("simple_jit", "", CELL)
    assert shell.user_ns["main"](41) == 42

for load in ("load_ext", "load_ext", "reload_ext", "unload_ext", "load_ext", "reload_ext"):
    shell.run_line_magic(load, "simple_magic")
    if load != "unload_ext":
        works()
old = shell.user_ns["main"]
importlib.reload(simple_magic)
works()
assert old(1) == 2
shell.run_line_magic("reload_ext", "simple_magic")
works()
shell.run_line_magic("unload_ext", "simple_magic")
assert "main" not in shell.user_ns
assert "simple_jit" not in shell.magics_manager.magics["cell"]
"""

NUMBA = """
import numba
from simple_magic import LocalExecutionManager

@numba.njit
def jitted(n):
    total = 0
    for i in range(n):
        total += i * i
    return total

def ours(k):
    em.compile(f"fn f(a: i64) -> i64:\\nentry:\\n  b = mul a, a\\n  c = add b, {k}\\n  ret c\\n")
    assert em.function("f")(7) == 49 + k and em.execute("f", 7) == 49 + k

with LocalExecutionManager(BACKEND) as em:
    ours(1)
    assert jitted(10) == 285
    ours(2)

    @numba.njit
    def another(x):
        return x + 1.5

    assert another(1.0) == 2.5 and jitted(4) == 14
    ours(3)
assert jitted(10) == 285
"""


@pytest.mark.parametrize("backend", ["interpreter", "llvm", "cranelift"])
def test_threads_call_and_compile_and_a_function_vanishes_while_it_runs(backend):
    rounds = 20_000 if backend == "interpreter" else 200_000_000
    done = run(THREADS.replace("BACKEND", repr(backend)).replace("ROUNDS", str(rounds)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_load_unload_and_reload_in_any_order():
    done = run(RELOADED)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["llvm", "cranelift"])
def test_numba_in_the_same_process(backend):
    pytest.importorskip("numba")
    done = run(NUMBA.replace("BACKEND", repr(backend)))
    assert (done.returncode, done.stderr) == (0, "")

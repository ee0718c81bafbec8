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

"""Side-by-side ratios, in one process and one run: python benchmarks/run.py

Every pair does the same work; results are compared before anything is timed. Each figure is the minimum and the median of ROUNDS interleaved rounds,
so a ratio holds when the machine's speed drifts. Nothing here asserts: machines are noisy.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable

import numpy as np

from simple_magic import LocalExecutionManager
from simple_magic.show.html import table

ROUNDS = 11

SOURCE = """
fn add(a: i64, b: i64) -> i64:
entry:
  c = add a, b
  ret c

fn dot(a: [f64], b: [f64]) -> f64:
entry:
  n = len a
  acc = const 0.0
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get a, i
  y = index_get b, i
  xy = mul x, y
  acc = add acc, xy
  i = add i, 1
  goto head
done:
  ret acc

fn axpy(k: f64, a: [f64], b: [f64]):
entry:
  n = len a
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get a, i
  y = index_get b, i
  kx = mul k, x
  z = add kx, y
  index_set b, i, z
  i = add i, 1
  goto head
done:
  ret

fn fib(n: i64) -> i64:
entry:
  small = lt n, 2
  if small then leaf else node
leaf:
  ret n
node:
  a = sub n, 1
  b = sub n, 2
  x = call fib(a)
  y = call fib(b)
  z = add x, y
  ret z
"""


def python_add(a: int, b: int) -> int:
    return a + b


def python_fib(n: int) -> int:
    return n if n < 2 else python_fib(n - 1) + python_fib(n - 2)


def measure(calls: dict[str, Callable[[], object]], repeat: int) -> dict[str, tuple[float, float]]:
    """Return (minimum, median) nanoseconds of one call each, from interleaved rounds of `repeat` calls."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            for _ in range(repeat):
                call()
            times[name].append((time.perf_counter_ns() - start) / repeat)
    return {name: (min(found), statistics.median(found)) for name, found in times.items()}


def report(title: str, calls: dict[str, Callable[[], object]], repeat: int) -> None:
    """Compare the results, time the calls, print them with the ratio to the first."""
    answers = [call() for call in calls.values()]
    assert all(answer == answers[0] for answer in answers), (title, answers)
    found = measure(calls, repeat)
    base = next(iter(found.values()))[0]
    rows = [(name, f"{low:,.1f}", f"{middle:,.1f}", f"{low / base:.2f}") for name, (low, middle) in found.items()]
    print(table(("call", "min ns", "median ns", "ratio of minima"), rows, title), "\n")


def compile_latency() -> None:
    """Print how long one small function takes from text to its first result."""
    rows = []
    for backend, level in (("interpreter", 0), ("llvm", 0), ("llvm", 1), ("llvm", 2)):
        with LocalExecutionManager(backend, opt_level=level) as em:
            em.compile(SOURCE)
            em.execute("add", 1, 2)
            times = []
            for k in range(ROUNDS):
                start = time.perf_counter_ns()
                em.compile(f"fn f(a: i64) -> i64:\nentry:\n  b = add a, {k}\n  ret b\n")
                em.execute("f", 1)
                times.append(time.perf_counter_ns() - start)
            rows.append((f"{em.backend_name} O{level}", f"{min(times) / 1e6:.2f}", f"{statistics.median(times) / 1e6:.2f}"))
    print(table(("engine", "min ms", "median ms"), rows, "define a small function and call it once"), "\n")


def isolated_latency() -> None:
    """Print what a call in a child process costs, and its start."""
    a, b = np.arange(1000.0), np.ones(1000)
    with LocalExecutionManager("llvm") as em:
        em.compile(SOURCE)
        start = time.perf_counter_ns()
        em.execute("add", 1, 2, isolated=True)
        print(f"first isolated call, with the start of the child: {(time.perf_counter_ns() - start) / 1e6:.0f} ms\n")
        report("execute: a call with two integers",
               {"in process": lambda: em.execute("add", 20, 22), "isolated": lambda: em.execute("add", 20, 22, isolated=True)}, 200)  # fmt: skip
        report("execute: dot product of 1,000 elements",
               {"in process": lambda: em.execute("dot", a, b), "isolated": lambda: em.execute("dot", a, b, isolated=True)}, 200)  # fmt: skip


def main() -> None:
    """Run every comparison."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    with LocalExecutionManager("llvm") as em:
        em.compile(SOURCE)
        add, dot, axpy, fib = (em.function(name) for name in ("add", "dot", "axpy", "fib"))
        add(1, 2)
        through_ctypes = prototype(em.compiled("add").program.address("add"))
        report("a call with two integers",
               {"simple_magic": lambda: add(20, 22), "ctypes": lambda: through_ctypes(20, 22), "Python def": lambda: python_add(20, 22)}, 100_000)  # fmt: skip
        a, b = np.arange(8.0), np.ones(8)
        report("dot product of 8 elements", {"simple_magic": lambda: dot(a, b), "numpy": lambda: float(np.dot(a, b))}, 20_000)
        big, ones = np.arange(1e6), np.ones(1_000_000)
        report("dot product of 1,000,000 elements, strict order",
               {"simple_magic": lambda: dot(big, ones), "numpy cumsum (strict order too)": lambda: float(np.cumsum(big * ones)[-1])}, 3)  # fmt: skip
        report("fib(20)", {"simple_magic": lambda: fib(20), "Python def": lambda: python_fib(20)}, 3)
        target = np.zeros(1_000_000)
        report("b += 0 * a over 1,000,000 elements", {"simple_magic": lambda: axpy(0.0, big, target), "numpy": lambda: np.add(target, 0.0 * big, out=target) is None or None}, 5)
    compile_latency()
    isolated_latency()


if __name__ == "__main__":
    main()

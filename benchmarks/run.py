"""Side-by-side ratios, in one process and one run: python benchmarks/run.py

Every pair does the same work; results are compared before anything is timed. Each figure is the minimum and the median of ROUNDS interleaved rounds,
so a ratio holds when the machine's speed drifts. Nothing here asserts: machines are noisy.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from functools import partial

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


KERNELS = """
fn collatz(n: i64) -> i64:
entry:
  best = const 0
  i = const 1
  goto head
head:
  more = lt i, n
  if more then start else done
start:
  k = copy i
  steps = const 0
  goto walk
walk:
  end = le k, 1
  if end then after else step
step:
  bit = bit_and k, 1
  odd = eq bit, 1
  half = shr k, 1
  triple = mul k, 3
  triple = add triple, 1
  k = select odd, triple, half
  steps = add steps, 1
  goto walk
after:
  best = max best, steps
  i = add i, 1
  goto head
done:
  ret best

fn sieve(n: i64) -> i64:
entry:
  composite = array_fill false, n
  count = const 0
  i = const 2
  goto head
head:
  more = lt i, n
  if more then look else done
look:
  c = index_get composite, i
  if c then next else prime
prime:
  count = add count, 1
  j = mul i, i
  goto mark
mark:
  inside = lt j, n
  if inside then strike else next
strike:
  index_set composite, j, true
  j = add j, i
  goto mark
next:
  i = add i, 1
  goto head
done:
  ret count

fn dots(n: i64, times: i64) -> f64:
entry:
  a = array_fill 1.5, n
  b = array_fill 0.5, n
  total = const 0.0
  goto head
head:
  more = gt times, 0
  if more then body else done
body:
  d = call dot(a, b)
  total = add total, d
  times = sub times, 1
  goto head
done:
  ret total

fn matmul(n: i64) -> f64:
entry:
  size = mul n, n
  a = array_fill 1.25, size
  b = array_fill 0.75, size
  c = array_fill 0.0, size
  i = const 0
  goto rows
rows:
  more = lt i, n
  if more then row else done
row:
  base = mul i, n
  k = const 0
  goto inner
inner:
  more = lt k, n
  if more then column else next
column:
  at = add base, k
  x = index_get a, at
  from = mul k, n
  j = const 0
  goto cells
cells:
  more = lt j, n
  if more then cell else after
cell:
  source = add from, j
  target = add base, j
  y = index_get b, source
  z = index_get c, target
  y = mul x, y
  z = add z, y
  index_set c, target, z
  j = add j, 1
  goto cells
after:
  k = add k, 1
  goto inner
next:
  i = add i, 1
  goto rows
done:
  last = sub size, 1
  r = index_get c, last
  ret r

fn mandel(n: i64) -> i64:
entry:
  total = const 0
  p = const 0
  cells = mul n, n
  size: f64 = cast n
  goto head
head:
  more = lt p, cells
  if more then pixel else done
pixel:
  row = div p, n
  column = rem p, n
  cx: f64 = cast column
  cy: f64 = cast row
  cx = div cx, size
  cy = div cy, size
  cx = mul cx, 3.0
  cx = sub cx, 2.0
  cy = mul cy, 2.0
  cy = sub cy, 1.0
  x = const 0.0
  y = const 0.0
  k = const 0
  goto iterate
iterate:
  xx = mul x, x
  yy = mul y, y
  norm = add xx, yy
  inside = lt norm, 4.0
  few = lt k, 100
  go = and inside, few
  if go then step else after
step:
  xy = mul x, y
  x = sub xx, yy
  x = add x, cx
  y = add xy, xy
  y = add y, cy
  k = add k, 1
  goto iterate
after:
  total = add total, k
  p = add p, 1
  goto head
done:
  ret total
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
    answers = [call() for call in calls.values()]  # by now every callable is native
    assert all(answer == answers[0] for answer in answers), (title, answers)
    found = measure(calls, repeat)
    base = next(iter(found.values()))[0]
    rows = [(name, f"{low:,.1f}", f"{middle:,.1f}", f"{low / base:.2f}") for name, (low, middle) in found.items()]
    print(table(("call", "min ns", "median ns", "ratio of minima"), rows, title), "\n")


def small(k: int) -> str:
    """Return a module of one function; a different one for every k."""
    return f"fn f(a: i64) -> i64:\nentry:\n  b = add a, {k}\n  ret b\n"


def medium(k: int) -> str:
    """Return a module with loops, arrays and recursion."""
    return SOURCE + small(k).replace("  ret b", "  a = call fib(5)\n  b = add a, b\n  ret b")


def thousand(k: int) -> str:
    """Return a module of a thousand functions, each of which calls the next."""
    chain = "".join(f"fn g{n}(a: i64) -> i64:\nentry:\n  b = mul a, {n + k}\n  c = call g{n + 1}(b)\n  ret c\n" for n in range(1_000))
    return chain + "fn g1000(a: i64) -> i64:\nentry:\n  ret a\nfn f(a: i64) -> i64:\nentry:\n  b = call g0(a)\n  ret b\n"


def compile_latency() -> None:
    """Print how long modules take from a resolved unit to callable code, on every engine side by side."""
    for title, source, rounds in (("one small function", small, ROUNDS), ("five functions with loops, arrays, recursion", medium, ROUNDS),
                                  ("a thousand functions", thousand, 2)):  # fmt: skip
        times: dict[str, list[float]] = {}
        engines = [("cranelift", 2), ("llvm", 0), ("llvm", 1), ("llvm", 2)]
        managers = {f"{backend} O{level}": LocalExecutionManager(backend, opt_level=level) for backend, level in engines}
        for k in range(rounds + 1):
            answers = set()
            for name, em in managers.items():
                em.compile(source(k))
                em.session.unit_of("f")
                start = time.perf_counter_ns()
                em.compiled("f")
                if k:  # the first one warms up
                    times.setdefault(name, []).append(time.perf_counter_ns() - start)
                answers.add(em.execute("f", 1))
            assert len(answers) == 1, answers
        base = min(times["llvm O2"])
        rows = [(name, f"{min(found) / 1e6:.2f}", f"{statistics.median(found) / 1e6:.2f}", f"{min(found) / base:.2f}") for name, found in times.items()]
        print(table(("engine", "min ms", "median ms", "ratio to llvm O2"), rows, f"compile {title}"), "\n")
        for em in managers.values():
            em.close()


def run_time() -> None:
    """Print the run time of kernels as ratios to our own LLVM; arrays are made by the program, so that no engine copies any."""
    with LocalExecutionManager("llvm") as llvm, LocalExecutionManager("cranelift") as cranelift:
        for em in (llvm, cranelift):
            em.compile(SOURCE + KERNELS)
        for name, args in (("fib", (24,)), ("collatz", (20_000,)), ("sieve", (200_000,)), ("dots", (20_000, 20)), ("matmul", (64,)), ("mandel", (64,))):
            report(name, {em.backend_name: partial(em.function(name), *args) for em in (llvm, cranelift)}, 3)


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
        with LocalExecutionManager("cranelift") as cranelift:
            cranelift.compile(SOURCE)
            cranelift_add = cranelift.function("add")
            report("a call with two integers, by engine", {"llvm-jit": lambda: add(20, 22), "cranelift-jit": lambda: cranelift_add(20, 22)}, 100_000)
    compile_latency()
    run_time()
    isolated_latency()


if __name__ == "__main__":
    main()

"""What tracing costs: python benchmarks/gradients.py

One chain of nodes, differentiated plain and traced, by back end and model; the same bits are checked first. Each figure is the minimum of ROUNDS
interleaved rounds, each in a new manager: as in an experiment, the first call meets memory that nobody touched. Nothing asserts: machines are noisy. The target is 25 ns for an event in native code, and 5 times the interpreter's time.
"""

from __future__ import annotations

import time

from simple_magic.autograd.experiment import run_experiment
from simple_magic.autograd.driver import DRIVER, MARKS
from simple_magic.passes.provenance import Fields
from simple_magic.passes.shadows import CAPACITY, Options
from simple_magic.passes.trace import add_trace
from simple_magic.show.html import table

ROUNDS = 4
CHAIN = """
fn model(x: Value, n: i64) -> Value:
entry:
  y = copy x
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  a = call Value.mul(y, x)
  y = call Value.add(a, x)
  i = add i, 1
  goto head
done:
  ret y
"""
LENGTHS = {"llvm": 10_000, "cranelift": 10_000, "interpreter": 1_000}
MODELS = ("reference", "value")


def measure(backend: str, semantics: str, n: int) -> tuple[str, ...]:
    seen = run_experiment(CHAIN, "model", {"x": 0.5, "n": n}, runs=[(backend, semantics)], fuel=None)
    assert seen.runs[0].is_faithful, "the traced run gives the same bits"
    bench, args = seen.bench, (0.5, n, 0, 0.1)
    module = bench.rewritten(semantics)
    traced, _ = add_trace(module, Options(Fields("Value", "grad", "data"), MARKS), bench.unit.module)
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for which, made in enumerate((module, traced)):
            with bench.manager.prepared(made, "it", backend, {}) as manager:
                manager.compiled(DRIVER)
                if which:
                    manager.execute("trace$begin", CAPACITY)
                start = time.perf_counter()
                manager.execute(DRIVER, *args)
                best[which] = min(best[which], time.perf_counter() - start)
                events = manager.execute("trace$count") if which else 0
    return (backend, semantics, str(n), f"{best[0] * 1e3:.2f}", f"{best[1] * 1e3:.2f}", f"{best[1] / best[0]:.2f}", str(events),
            f"{(best[1] - best[0]) / events * 1e9:.0f}")  # fmt: skip


def main() -> None:
    rows = [measure(backend, semantics, n) for backend, n in LENGTHS.items() for semantics in MODELS]
    print(table(("back end", "model", "operations / 2", "plain ms", "traced ms", "ratio", "events", "ns per event"), rows, "What tracing costs"))


if __name__ == "__main__":
    main()

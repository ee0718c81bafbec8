"""How long the pictures of gradients take: python benchmarks/pictures.py

A chain of products and sums, differentiated by the interpreter under `value` beside LLVM under `reference`; each picture is made ROUNDS times from the
same traces. Minimum and median; nothing asserts: machines are noisy. The target is a graph of 5,000 nodes in under a second. The time to read a trace
(`replay`) is a row of its own, as all pictures share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from gradients import CHAIN

from simple_magic.autograd.replay import replay
from simple_magic.show.gradients.report import GradientReport, gradient_experiment
from simple_magic.show.html import table

ROUNDS = 5
NODES = (6, 60, 1000, 5000)


def made(report: GradientReport) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    trace = report.judged[0].trace
    return {"replay of one run": lambda: replay(trace), "graph": lambda: report.graph().to_svg(), "timeline": lambda: report.timeline().to_svg(),
            "memory": lambda: report.memory().to_svg(), "divergence": lambda: report.divergence().to_svg(), "table": report.table}  # fmt: skip


def rows(nodes: int) -> list[tuple[str, ...]]:
    report = gradient_experiment(CHAIN, "model", {"x": 0.5, "n": (nodes - 2) // 2}, controls=False, fuel=None)
    assert all(run.replayed.trace is run.trace for run in report.judged), "every picture starts from the same reading"
    found = []
    for name, make in made(report).items():
        took = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            make()
            took.append((time.perf_counter() - start) * 1e3)
        found.append((str(nodes), name, f"{min(took):.1f}", f"{median(took):.1f}"))
    return found


def main() -> None:
    print(table(("nodes", "what", "min ms", "median ms"), [row for nodes in NODES for row in rows(nodes)], "What pictures cost"))


if __name__ == "__main__":
    main()

"""The experiment that started the project, in a real kernel: one program, every semantics model, every back end.

The seed program writes a gradient into an object that was read out of an array. Whether the write arrives depends on whether the read copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .kernels import Kernel, running_kernel
from .passes.semantics import MODELS
from .show.html import Table, escape, table, table_html

SEED = """\
{kind} Tensor:
  value: f64
  grad: f64

global grads: {{i64: f64}}

fn Tensor.apply_gradient(self: Tensor, g: f64):
entry:
  old = get_field self, grad
  new_grad = add old, g
  set_field self, grad, new_grad
  ret

fn main() -> f64:
entry:
  t = new Tensor(value: 3.0, grad: 0.0)
  arr = array t
  e = index_get arr, 0
  call Tensor.apply_gradient(e, 2.5)
  index_set @grads, 7, 2.5
  g = get_field t, grad
  ret g
"""
KINDS = ("class", "struct")
ENGINES: tuple[tuple[str, str], ...] = (
    ("interpreter", "--backend interpreter"), ("LLVM O0", "--backend llvm --opt 0"), ("LLVM O2", "--backend llvm --opt 2"),
    *((("Cranelift", "--backend cranelift"),) if find_spec("wasmtime") else ()),
)  # fmt: skip
"""What is installed: name and options of a cell."""


@dataclass(frozen=True)
class Answer:
    """One cell of the demo: kind of Tensor, model, engine, and the gradient that the cell gave (as text) or its error."""

    kind: str
    semantics: str
    engine: str
    gradient: str


def run_demo(kernel: Kernel) -> list[Answer]:
    """Run the seed program as `%%simple_jit` cells in every combination. Raises: RuntimeError if a cell fails."""
    loaded = kernel.run("%load_ext simple_magic")
    if loaded.error:
        raise RuntimeError(f"the extension does not load: {loaded.error[0]}: {loaded.error[1]}")
    answers = []
    for kind in KINDS:
        for semantics in MODELS:
            for engine, options in ENGINES:
                cell = f"%%simple_jit --semantics {semantics} {options} -o gradient\n{SEED.format(kind=kind)}"
                outcome = kernel.run(cell, timeout=120, gradient="gradient")
                if outcome.error:
                    raise RuntimeError(f"{kind}, {semantics}, {engine}: {outcome.error[1]}")
                answers.append(Answer(kind, semantics, engine, outcome.expressions["gradient"]))
    return answers


def demo_table(answers: Sequence[Answer]) -> Table:
    """Return one row per kind and model, one column per engine."""
    found = {(a.kind, a.semantics, a.engine): a.gradient for a in answers}
    engines = [engine for engine, _ in ENGINES]
    rows = []
    for kind in KINDS:
        for semantics in MODELS:
            gradients = [found[kind, semantics, engine] for engine in engines]
            rows.append((kind, semantics, *gradients, "agree" if len(set(gradients)) == 1 else "DISAGREE"))
    return table(("Tensor is a", "semantics", *engines, "the engines"), rows, "t.grad, after main() added 2.5 to the gradient of the object that it read out of [t]")


def report_html(answers: Sequence[Answer]) -> str:
    """Return the demo as one page that needs nothing else."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>simple_magic: where did the gradient go?</title>"
        '<style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}'
        "pre{background:#f4f4f4;color:#111;padding:1rem;overflow-x:auto}td,th{border-bottom:1px solid #ccc}</style></head><body>"
        "<h1>Where did the gradient go?</h1>"
        "<p>The program writes a gradient into an object that was read out of an array. Each cell ran in a real Jupyter kernel; every engine executes "
        "the same MIR, and the semantics model alone decides which instructions copy.</p>"
        f"{table_html(demo_table(answers))}<h2>The program</h2><pre>{escape(SEED.format(kind='class'))}</pre></body></html>\n"
    )


def main(output: str) -> int:
    """Run the demo, print its table, write the report to `output`; return 0 if all engines agree."""
    with running_kernel() as kernel:
        answers = run_demo(kernel)
    shown = demo_table(answers)
    print(shown)
    path = Path(output).resolve()
    path.write_text(report_html(answers), encoding="utf-8")
    print(f"\nreport: {path}")
    return 1 if any("DISAGREE" in row[-1] for row in shown.rows) else 0

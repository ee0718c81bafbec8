"""Upstream's cases in every mode: {interpreter, compiled} x {value, reference} x {gradients in the nodes, gradients in a store}.

Each case counts twice. Its program, under the semantics model from its first line to its last, gives numbers, which are right or not. Its model goes
through an experiment, and every parameter gets a verdict, so it is known what became of what is not right. The negative controls run once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isclose

from ..execution.manager import LocalExecutionManager
from ..mir.diagnostics import Trap
from .cases import ALL, IN_NODES, IN_STORE, Case, Keeping, case_text, model_text, read_out
from .experiment import run_experiment
from .judging import Fired, judge_experiment, run_controls

EVERY_CASE = "every_case"
MODELS = ("value", "reference")
KEEPINGS = (IN_NODES, IN_STORE)


@dataclass(frozen=True)
class CaseResult:
    """One case in one mode. words: of the verdicts on its parameters, if it has any."""

    case: Case
    backend: str
    semantics: str
    kept: str
    is_right: bool
    words: frozenset[str]


@dataclass(frozen=True)
class CaseRuns:
    """The cases in all modes, and whether the instrument that judged them works."""

    results: tuple[CaseResult, ...]
    controls: tuple[Fired, ...]

    @property
    def is_void(self) -> bool:
        return not self.controls or not all(c.is_right for c in self.controls)

    @property
    def is_agreed(self) -> bool:
        """Whether all back ends gave the same."""
        found: dict[tuple[str, str, str], set[tuple[bool, frozenset[str]]]] = {}
        for r in self.results:
            found.setdefault((r.case.name, r.semantics, r.kept), set()).add((r.is_right, r.words))
        return all(len(answers) == 1 for answers in found.values())


def run_cases(backends: Sequence[str], cases: Sequence[Case] = ALL, progress: Callable[[str], object] = lambda name: None) -> CaseRuns:
    """Run the cases on some back ends. progress: is called with the name of each case before it is judged."""
    results = []
    for kept in KEEPINGS:
        with LocalExecutionManager("interpreter") as manager:
            manager.use_library("autograd")
            manager.compile("\n".join([*(case_text(c, kept) for c in cases), _choice(cases), *(model_text(c) for c in cases if c.parameters)]))
            for number, case in enumerate(cases):
                progress(f"{case.name}, gradients {kept.name}")
                words = _words(manager, case, kept, backends)
                results += [CaseResult(case, b, m, kept.name, _is_right(manager, number, case, b, m), words.get((b, m), frozenset()))
                            for b in backends for m in MODELS]  # fmt: skip
    return CaseRuns(tuple(results), run_controls(tuple(backends)))


def _choice(cases: Sequence[Case]) -> str:
    """Return a function that runs the case of a number: so all of them are compiled at once."""
    lines = [f"fn {EVERY_CASE}(number: i64) -> [f64]:", "entry:", f"  switch number [{', '.join(f'{n}: go_{c.name}' for n, c in enumerate(cases))}] else none"]
    for case in cases:
        lines += [f"go_{case.name}:", f"  out_{case.name} = call case_{case.name}()", f"  ret out_{case.name}"]
    return "\n".join([*lines, "none:", "  nothing: [f64] = array", "  ret nothing", ""])


def _is_right(manager: LocalExecutionManager, number: int, case: Case, backend: str, semantics: str) -> bool:
    try:
        out = manager.execute(EVERY_CASE, number, backend=backend, semantics=semantics)
    except Trap:
        return False
    found = read_out(out, case)  # type: ignore[arg-type]
    return all(is_expected(numbers, expected) for numbers, (_, _, expected) in zip(found, case.reads))


def is_expected(numbers: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether a read gave the numbers of its case, but for rounding."""
    return len(numbers) == len(expected) and all(isclose(x, y, rel_tol=1e-12, abs_tol=1e-15) for x, y in zip(numbers, expected))


def _words(manager: LocalExecutionManager, case: Case, kept: Keeping, backends: Sequence[str]) -> dict[tuple[str, str], frozenset[str]]:
    if not case.parameters:
        return {}
    inputs = {name: case.leaves[name][0] for name in case.parameters}
    leaves = {name: f"leaf_{case.name}_{name}" for name in case.parameters}
    seen = run_experiment(None, f"model_{case.name}", inputs, backends=backends, models=MODELS, node="Dense", leaves=leaves, backward=kept.backward,
                          reader=kept.reader, store=kept.store, manager=manager)  # fmt: skip
    judged = judge_experiment(seen, controls=False)
    return {mode: frozenset(v.word for v in verdicts) for mode, verdicts in judged.verdicts.items()}

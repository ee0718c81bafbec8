"""Upstream's cases as tables: how many are right in each mode and what became of their gradients, and each case by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...autograd.case_runs import CaseResult, CaseRuns
from ...autograd.cases import CORE
from ...autograd.verdicts import WORDS
from ..html import Table, table
from .marks import VERDICTS

RIGHT, WRONG = "right", "not right"


def mode_table(runs: CaseRuns) -> Table:
    """Return a row for each mode: back end, semantics model, and where gradients are kept."""
    rows = []
    for (kept, backend, semantics), found in _modes(runs).items():
        arriving = [r for r in found if r.case.is_about_arrival]
        rows.append((kept, backend, semantics, f"{_right(found)} of {len(found)}", f"{_right(arriving)} of {len(arriving)}", _words(found)))
    cases = {r.case.name for r in runs.results}
    core = len(cases & {c.name for c in CORE})
    caption = (f"Upstream's autograd cases: {core} of its core file, {len(cases) - core} of its extended file. A case is right if every number that it reads is; "
               "some read no gradient of a leaf, and prove nothing about one.")  # fmt: skip
    return table(("gradients", "back end", "model", "cases right", "of those that need a gradient", "verdicts: in how many cases"), rows, caption)


def case_table(runs: CaseRuns) -> Table:
    """Return a row for each case, a column for each model and keeping; a back end is named where it gave something else than the others."""
    names = dict.fromkeys(r.case.name for r in runs.results)
    columns = dict.fromkeys((r.kept, r.semantics) for r in runs.results)
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for r in runs.results:
        found.setdefault((r.case.name, r.kept, r.semantics), {})[r.backend] = _cell(r)
    header = ("case", *(f"{semantics}, {kept}" for kept, semantics in columns))
    return table(header, [(name, *(_agreed(found[name, *column]) for column in columns)) for name in names])


def agreement(runs: CaseRuns) -> str:
    """Return whether the back ends gave the same in every case, in a sentence."""
    backends = list(dict.fromkeys(r.backend for r in runs.results))
    if runs.is_agreed:
        return f"{' and '.join(backends)} gave the same in every case" if len(backends) > 1 else f"{backends[0]} alone ran"
    return f"{' and '.join(backends)} DISAGREE: --show-all tells where"


def _agreed(cells: Mapping[str, str]) -> str:
    texts = set(cells.values())
    return texts.pop() if len(texts) == 1 else "; ".join(f"{backend} {text}" for backend, text in cells.items())


def _modes(runs: CaseRuns) -> dict[tuple[str, str, str], list[CaseResult]]:
    found: dict[tuple[str, str, str], list[CaseResult]] = {}
    for result in runs.results:
        found.setdefault((result.kept, result.backend, result.semantics), []).append(result)
    return found


def _right(results: Sequence[CaseResult]) -> int:
    return sum(r.is_right for r in results)


def _words(results: Sequence[CaseResult]) -> str:
    counts = {word: sum(word in r.words for r in results) for word in WORDS}
    return ", ".join(f"{VERDICTS[word].text} {count}" for word, count in counts.items() if count)


def _cell(result: CaseResult) -> str:
    return ": ".join((RIGHT if result.is_right else WRONG, ", ".join(w for w in WORDS if w in result.words))).removesuffix(": ")

"""The parameter table: for every parameter and run the gradient, both oracles, what arrived, the word, the cause and what helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import hypot

from ...autograd.judging import JudgedRun
from ...autograd.verdicts import HOW, Verdict, place
from ..html import Table, table
from .marks import VERDICTS

HEADER = ("parameter", "run", "verdict", "gradient", "derivative", "by differences", "arrived", "first cause", "what helps")

MOST_ELEMENTS = 4
"""So many elements of an array with the same words have their own rows."""


def number_text(x: float | None) -> str:
    """Return a number as it is shown everywhere: six digits, and a dash for none."""
    return "-" if x is None else f"{x:.6g}"


def exact_text(x: float | None) -> str:
    """Return a number with all its digits."""
    return "-" if x is None else repr(x)


def parameter_table(runs: Sequence[JudgedRun]) -> Table:
    """Return the table, the runs of a parameter under each other. A column that would be empty throughout is left out.

    Elements of an array that got the same words in every run are one row for each run, if they are many.
    """
    rows = [_row(run, [run.verdicts[i] for i in group]) for group in _groups(runs) for run in runs]
    kept = [c for c in range(len(HEADER)) if c < 7 or any(row[c] != "-" for row in rows)]
    return table([HEADER[c] for c in kept], [[row[c] for c in kept] for row in rows])


def _groups(runs: Sequence[JudgedRun]) -> list[list[int]]:
    """Return the numbers of the verdicts that share a row."""
    together: dict[object, list[int]] = {}
    for i, v in enumerate(runs[0].verdicts if runs else ()):
        array, bracket, _ = v.parameter.partition("[")
        together.setdefault((array, *(run.verdicts[i].word for run in runs)) if bracket else i, []).append(i)
    return [part for group in together.values() for part in ([group] if len(group) > MOST_ELEMENTS else [[i] for i in group])]


def _row(run: JudgedRun, found: Sequence[Verdict]) -> tuple[str, ...]:
    v = found[0]
    gradient, wanted, difference = ([read(each) for each in found] for read in (_gradient, _wanted, _difference))
    shown = number_text
    if v.word != "ok" and gradient != wanted and _numbers(gradient, shown) == _numbers(wanted, shown):
        shown = exact_text
    name = v.parameter if len(found) == 1 else f"{v.parameter} and {len(found) - 1} more"
    arrived = f"{sum(each.landed for each in found)} of {sum(len(each.contributions) for each in found)}"
    return name, run.name, VERDICTS[v.word].text, _numbers(gradient, shown), _numbers(wanted, shown), _numbers(difference, number_text), arrived, cause_text(v), v.fix or "-"


def _gradient(v: Verdict) -> float | None:
    return v.gradient


def _wanted(v: Verdict) -> float | None:
    return v.wanted.derivative if v.wanted is not None and v.wanted.trap is None else None


def _difference(v: Verdict) -> float | None:
    return v.difference.derivative if v.difference is not None and v.difference.trap is None else None


def _numbers(numbers: Sequence[float | None], shown: Callable[[float | None], str]) -> str:
    """Return one number, or the norm of several."""
    known = [x for x in numbers if x is not None]
    return shown(numbers[0]) if len(numbers) == 1 else f"norm {shown(hypot(*known))}" if known else "-"


def cause_text(v: Verdict) -> str:
    """Return where it started, in a few words; a dash where nothing is to blame."""
    if v.cause is None:
        return "-"
    how = HOW.get(v.cause.position, "")
    more = len(v.chain) - 1
    rest = f", and {more} more cop{'y' if more == 1 else 'ies'}" if more > 0 else ""
    own = {c.event.original for c in v.contributions}
    name = v.parameter if v.cause.original in own else f"node {v.cause.original}"
    return place(v.cause) + (f": {name} {how}" if how else "") + rest


def log_lines(runs: Iterable[JudgedRun]) -> list[str]:
    """Return one line for each parameter and run: all of the verdict, for logs and graders."""
    return [str(v) for run in runs for v in run.verdicts]

"""The parameter table: for every parameter and run the gradient, both oracles, what arrived, the word, the cause and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...autograd.judging import JudgedRun
from ...autograd.verdicts import HOW, Verdict, place
from ..html import Table, table
from .marks import VERDICTS

HEADER = ("parameter", "run", "verdict", "gradient", "derivative", "by differences", "arrived", "first cause", "what helps")


def number_text(x: float | None) -> str:
    """Return a number as it is shown everywhere: six digits, and a dash for none."""
    return "-" if x is None else f"{x:.6g}"


def parameter_table(runs: Sequence[JudgedRun]) -> Table:
    """Return the table, the runs of a parameter under each other. A column that would be empty throughout is left out."""
    verdicts = [[*run.verdicts] for run in runs]
    rows = [_row(run, found[i]) for i in range(len(verdicts[0]) if verdicts else 0) for run, found in zip(runs, verdicts)]
    kept = [c for c in range(len(HEADER)) if c < 7 or any(row[c] != "-" for row in rows)]
    return table([HEADER[c] for c in kept], [[row[c] for c in kept] for row in rows])


def _row(run: JudgedRun, v: Verdict) -> tuple[str, ...]:
    wanted = number_text(v.wanted.derivative) if v.wanted is not None and v.wanted.trap is None else "-"
    difference = number_text(v.difference.derivative) if v.difference is not None and v.difference.trap is None else "-"
    arrived = f"{v.landed} of {len(v.contributions)}"
    return v.parameter, run.name, VERDICTS[v.word].text, number_text(v.gradient), wanted, difference, arrived, cause_text(v), v.fix or "-"


def cause_text(v: Verdict) -> str:
    """Return where it started, in a few words; a dash where nothing is to blame."""
    if v.cause is None:
        return "-"
    how = HOW.get(v.cause.position, "")
    more = len(v.chain) - 1
    rest = f", and {more} more cop{'y' if more == 1 else 'ies'}" if more > 0 else ""
    return place(v.cause) + (f": {v.parameter} {how}" if how else "") + rest


def log_lines(runs: Iterable[JudgedRun]) -> list[str]:
    """Return one line for each parameter and run: all of the verdict, for logs and graders."""
    return [str(v) for run in runs for v in run.verdicts]

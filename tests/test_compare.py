"""`%simple compare`: one function on every executor under every model, each run within the fuel and the time that are given."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from simple_magic import LocalExecutionManager, Trap
from simple_magic.execution.compare import ENGINES, Comparison, Run, compare
from simple_magic.execution.results import ExecutionResult
from simple_magic.passes.semantics import MODELS
from simple_magic.show.views import comparison_table

CELL = """fn count(n: i64) -> i64:
entry:
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  i = add i, 1
  goto head
done:
  ret i
"""
FOREVER = 10**18


@pytest.fixture(scope="module")
def shell():
    made = InteractiveShell()
    made.run_line_magic("load_ext", "simple_magic")
    made.run_cell_magic("simple_jit", "", CELL)
    yield made
    made.run_line_magic("unload_ext", "simple_magic")


def rows(shell, words):
    """Return the answers of each model and what the last column says."""
    found = shell.run_line_magic("simple", f"compare {words}")
    assert [row[0] for row in found.rows] == list(MODELS)
    return [(set(row[1:-1]), row[-1]) for row in found.rows]


@pytest.mark.parametrize("words", ["count 3", "count 3 --fuel 1000 --timeout 60", "--fuel 1000 count --timeout 60 3"])
def test_options_stand_anywhere(shell, words):
    assert rows(shell, words) == [({"3"}, "agree")] * len(MODELS)


def test_fuel_ends_every_run_at_the_same_place(shell):
    for answers, verdict in rows(shell, f"count {FOREVER} --fuel 500"):
        (answer,) = answers
        assert answer.startswith("trap out_of_fuel (line ") and verdict == "agree"


def test_a_timeout_ends_every_run(shell):
    for answers, verdict in rows(shell, f"count {FOREVER} --timeout 0.05"):
        assert all(answer.startswith("trap timeout") for answer in answers) and verdict == "timeout"


@pytest.mark.parametrize(("words", "message"), [
    ("", r"usage: %simple compare F ARG \.\.\. \[--fuel N\] \[--timeout S\]$"), ("count 3 --fuel", "usage: %simple compare"),
    ("count 3 --fuel -1", "fuel is the number"), ("count 3 --fuel x", "fuel is the number"), ("count 3 --timeout 0", "a timeout is"),
    ("count 3 --timeout x", "a timeout is"), ("--fuel 3", "usage: %simple compare"), ("count 3 --fuel 3 --fuel 4", "usage: %simple compare"),
])  # fmt: skip
def test_a_wrong_line_is_one_sentence(shell, words, message):
    with pytest.raises(UsageError, match=message) as caught:
        shell.run_line_magic("simple", f"compare {words}")
    assert "\n" not in str(caught.value)


def made(*results):
    """Return a comparison under one model with these results, a value or a kind of trap."""
    found = [ExecutionResult(None, "", "", Trap(r), "") if isinstance(r, str) else ExecutionResult(r, "", "", None, "") for r in results]
    return Comparison("f", (), tuple(Run(*engine, "reference", result) for engine, result in zip(ENGINES, found)))


@pytest.mark.parametrize(("results", "verdict"), [
    ((1, 1, 1), "agree"), ((1, 1, 2), "DIFFER"), (("timeout", 1, 1), "timeout"), (("timeout", 1, 2), "DIFFER"), ((1, "timeout"), "timeout"),
    (("out_of_fuel", 1), "DIFFER"),
])  # fmt: skip
def test_a_run_without_an_answer_contradicts_nobody(results, verdict):
    found = made(*results)
    assert comparison_table(found).rows[0][-1] == verdict and (found.differing() == ("reference",)) == (verdict == "DIFFER")


def test_limits_hold_in_python():
    with LocalExecutionManager("interpreter") as em:
        em.compile(CELL)
        found = compare(em, "count", [FOREVER], models=["reference"], fuel=500)
        assert {run.result.trap.kind for run in found.runs} == {"out_of_fuel"} and found.differing() == ()

"""The filetests as a whole: every operation and every trap is covered, and the reader of expectations refuses what it does not understand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from filetests import BadExpectation, comments, is_same, plain, read_filetest

from simple_magic.mir.diagnostics import LIMIT_KINDS, TRAP_KINDS
from simple_magic.mir.ops import USER_OPS
from simple_magic.mir.text import parse_text
from simple_magic.passes.semantics import MODELS

FILETESTS = Path(__file__).parent / "filetests"
RUN = sorted((FILETESTS / "run").glob("*.mir"))
NEVER_RAISED = ("extern_error",)
"""An exception of a host function surfaces as itself."""


def test_every_operation_is_executed():
    used = {i.op for path in RUN for f in parse_text(path.read_text(encoding="utf-8")).functions for b in f.blocks for i in b.instructions}
    assert set(USER_OPS) - used == set()


def test_every_trap_is_expected_somewhere():
    expected = {e.trap for path in RUN for e in read_filetest(path.read_text(encoding="utf-8")).expectations}
    assert set(TRAP_KINDS) - {*LIMIT_KINDS, *NEVER_RAISED} - expected == set()


def test_every_model_is_run():
    models = {e.model for path in FILETESTS.glob("semantics/*.mir") for e in read_filetest(path.read_text(encoding="utf-8")).expectations}
    assert models == set(MODELS)


@pytest.mark.parametrize("path", RUN, ids=lambda p: p.stem)
def test_every_expectation_names_a_function_of_its_file(path):
    source = path.read_text(encoding="utf-8")
    arity = {f.name: len(f.params) for f in parse_text(source).functions}
    for expectation in read_filetest(source).expectations:
        assert arity.get(expectation.function) == len(expectation.args()), expectation.title


@pytest.mark.parametrize("comment", [
    "run: f(1)", "run: f(1) == g(2)", "run: f(x) == 1", "run: 1 == 1", "run: f(1) == ", "run: f(x=1) == 1", "run[nothing]: f() == 1", "run: f() == 1 == 2",
    "trap: f(1)", "trap: f(1) divided_by_zero", "trap: f(1) abort @ x", "print: f() 1", "print: f(", "run[fuel=x]: f() == 1", "run: f(open('x')) == 1",
])  # fmt: skip
def test_a_wrong_expectation_is_refused(comment):
    with pytest.raises(BadExpectation, match=r"^line 2: "):
        read_filetest(f"\n# {comment}\n")


def test_options_and_literals():
    source = (
        '# run[value, contract, fuel=7]: T.f(-1, nan, "#)", [1.5], {"a": (None, True)}) == -inf\nx = const 1  # trap: g() abort @ +2\n# print: h("a\\n") "é\\n"'
    )
    value, contract, trap, output = read_filetest(source).expectations
    assert (value.model, value.fuel, contract.model, value.function, value.expected) == ("value", 7, "contract", "T.f", -math.inf)
    assert is_same(value.args(), [-1, math.nan, "#)", [1.5], {"a": (None, True)}])
    assert (trap.kind, trap.line, trap.trap, trap.trap_line, trap.args()) == ("trap", 2, "abort", 4, [])
    assert (output.kind, output.args(), output.expected) == ("print", ["a\n"], "é\n")


def test_comments_are_found_outside_quotes():
    assert list(comments("x = const \"# no\" # yes # all\ny = const '#'\n'\"' # here")) == [(1, " yes # all"), (3, " here")]


def test_results_are_compared_by_type_and_bits():
    class Record:
        def __init__(self, **fields: object) -> None:
            vars(self).update(fields)

    assert is_same(plain([Record(x=1.0, y=Record(z=None))]), [{"x": 1.0, "y": {"z": None}}])
    assert is_same(math.nan, -math.nan)
    for a, b in [(0.0, -0.0), (1, True), (1, 1.0), ([1], (1,)), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ("a", None), ([1], [1, 2])]:
        assert not is_same(a, b)

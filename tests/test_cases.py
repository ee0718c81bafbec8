"""Upstream's cases in every mode: what the table says, and that the instrument behind it sees what it claims."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simple_magic.__main__ import main
from simple_magic.autograd.case_runs import CaseRuns, is_expected, run_cases
from simple_magic.autograd.cases import ALL
from simple_magic.autograd.experiment import run_experiment
from simple_magic.autograd.judging import judge_experiment
from simple_magic.show.gradients.cases import agreement, case_table, mode_table


def case(name):
    return next(c for c in ALL if c.name == name)


@pytest.fixture(scope="module")
def few():
    """A case without a gradient, one with two parameters, one that cuts the graph; interpreted and compiled."""
    return run_cases(("interpreter", "cranelift"), [case("ones"), case("chain"), case("detach")])


def test_value_semantics_loses_what_stands_in_nodes_and_nothing_that_stands_in_a_store(few):
    chain = {(r.kept, r.backend, r.semantics): (r.is_right, r.words) for r in few.results if r.case.name == "chain"}
    assert len(chain) == 8
    for (kept, _, semantics), (is_right, words) in chain.items():
        is_lost = kept == "in the nodes" and semantics == "value"
        assert is_right is not is_lost
        assert ("ok" in words) is not is_lost and words <= ({"lost", "never-written"} if is_lost else {"ok"})


def test_cases_without_a_parameter_to_judge_have_no_words(few):
    others = [r for r in few.results if r.case.name in ("ones", "detach")]
    assert len(others) == 16 and all(r.is_right and not r.words for r in others)


def test_every_control_fired_and_the_back_ends_agree(few):
    assert not few.is_void and few.is_agreed and len(few.controls) == 6
    assert agreement(few) == "interpreter and cranelift gave the same in every case"
    assert CaseRuns(few.results, ()).is_void


def test_a_back_end_that_differs_is_named(few):
    odd = next(r for r in few.results if r.case.name == "chain" and (r.backend, r.semantics) == ("cranelift", "reference"))
    changed = replace(few, results=tuple(replace(r, is_right=False, words=frozenset({"wrong"})) if r is odd else r for r in few.results))
    assert not changed.is_agreed and "DISAGREE" in agreement(changed)
    assert "interpreter right: ok; cranelift not right: wrong" in repr(case_table(changed))


def test_the_table_has_a_row_for_each_mode(few):
    rows = {row[:3]: row[3:] for row in mode_table(few).rows}
    assert len(rows) == 8
    assert rows["in the nodes", "interpreter", "value"] == ("2 of 3", "0 of 1", "\u2717 lost 1, \u2205 never-written 1")
    assert rows["in a store", "cranelift", "value"] == ("3 of 3", "1 of 1", "\u2713 ok 1")


def test_what_counts_as_expected():
    assert is_expected((1.0, 2.0), (1, 2 + 1e-14))
    assert not is_expected((1.0,), (1, 2)) and not is_expected((1.0, 2.0), (1, 2.001)) and not is_expected((), (0.0,))


def test_the_command_prints_all_cases(capsys):
    assert main(["grad", "--cases", "--backends", "interpreter", "--show-all"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].startswith("Upstream's autograd cases: 22 of its core file, 17 of its extended file.")
    rows = [" ".join(line.split()) for line in lines]
    assert "in the nodes interpreter value 10 of 39 0 of 29 \u2717 lost 26, \u2205 never-written 8" in rows
    assert "in the nodes interpreter reference 39 of 39 29 of 29 \u2713 ok 33, \u2227 kink 1" in rows
    for model in ("value", "reference"):
        assert f"in a store interpreter {model} 39 of 39 29 of 29 \u2713 ok 33, \u2227 kink 1" in rows
    assert "diamond not right: never-written right: ok right: ok right: ok" in rows
    assert rows[-2].startswith("negative controls: 3 of 3 fired")


def test_the_command_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["grad", "--cases", "--backends", "gpu"])
    assert ended.value.code == 2 and "no back end" in capsys.readouterr().err


def test_a_store_of_arrays_is_traced_element_by_element():
    source = "fn model(a: Dense, b: Dense) -> Dense:\nentry:\n  s = call Dense.add(a, b)\n  r = call Dense.mul(s, a)\n  ret r\n"
    seen = run_experiment(source, "model", {"a": (2.0, 0.0), "b": (3.0, 0.0)}, node="Dense", backward="Dense.store_backward", reader="Dense.stored_gradient",
                          store="dense_grads", backends=("interpreter", "llvm"), models=("value", "reference"))  # fmt: skip
    judged = judge_experiment(seen, controls=False)
    for run in seen.runs:
        assert run.is_faithful and run.gradients == {"a": (7.0, 0.0), "b": (2.0, 0.0)}
        writes = [(e.object, e.element, e.kind, e.before, e.after) for e in run.trace.writes() if e.element == 0]
        assert [w[2] for w in writes] == ["overwrite", "overwrite", "overwrite", "accumulate", "overwrite"]
        assert {w[0] for w in writes} == {"@dense_grads[0]", "@dense_grads[1]", "@dense_grads[2]", "@dense_grads[3]"}
        found = judged.of(run.backend, run.semantics)
        assert {name: (v.word, v.landed, v.zero) for name, v in found.items()} == {
            "a[0]": ("ok", 2, ""), "a[1]": ("ok", 2, "correct"), "b[0]": ("ok", 1, ""), "b[1]": ("ok", 1, "correct")}  # fmt: skip
    assert tuple(map(repr, seen.run("interpreter", "value").trace.events)) == tuple(map(repr, seen.run("llvm", "value").trace.events))

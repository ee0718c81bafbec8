"""Where two runs part: aligned by instruction and occurrence, cause and symptom marked, equal parts folded into counts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from pictures import HOSTILE, case, check_picture, random_run

from simple_magic.autograd.experiment import Run, run_experiment
from simple_magic.autograd.judging import JudgedRun, judge_experiment, judged_runs
from simple_magic.mir.diagnostics import Trap
from simple_magic.show.gradients.divergence import aligned, divergence_picture

THIRD = """
fn model(x: Value, y: Value) -> Value:
entry:
  r = call Value.mul(x, y)
  r = call Value.add(r, y)
  r = call Value.add(r, y)
  ret r

fn third_time(self: Value):
entry:
  call Value.backward(self)
  parents = array self.parents[1]
  i = const 0
  goto loop
loop:
  p = index_get parents, 0
  is_third = eq i, 2
  if is_third then wrong else next
wrong:
  set_field p, grad, 7.0
  goto next
next:
  i = add i, 1
  more = lt i, 5
  if more then loop else done
done:
  ret
"""


def labels(picture) -> list[str]:
    return [shape.text for shape in picture.shapes if hasattr(shape, "text")]


@pytest.mark.parametrize("name", ["diamond", "dense", "lost", "store"])
def test_what_holds_for_every_picture(name):
    picture = divergence_picture(*case(name))
    check_picture(picture)
    assert picture.to_svg() == divergence_picture(*case(name)).to_svg() and picture.width <= 1000


def test_large_traces_fold():
    picture = divergence_picture(random_run(1000, 0.01, "value"), random_run(1000, 0.0))
    check_picture(picture)
    assert picture.height < 2000


def test_every_event_is_in_one_pair_in_its_order():
    left, right = (run.trace.events for run in case("diamond"))
    pairs = aligned(left, right)
    assert [p.left for p in pairs if p.left is not None] == list(left)
    assert sorted(p.right.time for p in pairs if p.right is not None) == [e.time for e in right]
    assert all(p.left.alignment == p.right.alignment for p in pairs if p.left is not None and p.right is not None)
    assert [p.is_equal for p in aligned(right, right)] == [True] * len(right)


def test_cause_symptom_and_first_number_are_told_apart():
    value, reference = case("diamond")
    picture = divergence_picture(value, reference)
    marks = [m for text in labels(picture) for m in text.split(" and ") if m.startswith("first ")]
    assert sorted(marks) == ["first cause", "first different number", "first event of only one run", "first symptom"]
    assert "first cause, in interpreter/value: event" in picture.description
    causes = [v.cause for v in value.verdicts]
    assert min(c.time for c in causes) == int(re.search(r"first cause, in \S+: event (\d+)", picture.description)[1])


def test_folds_count_every_event_that_is_not_drawn():
    runs = case("diamond")
    picture = divergence_picture(*runs)
    pairs = len(aligned(*(run.trace.events for run in runs)))
    folded = sum(int(n) for n in re.findall(r"\u2026 (\d+) event", picture.text))
    drawn = picture.text.count(f"\n  {runs[1].name}: ")
    assert folded + drawn == pairs


def test_what_came_of_it_names_both_verdicts():
    picture = divergence_picture(*case("lost"))
    assert any(re.match(r"x: \u2717 lost \(0\) in interpreter/value, \u2713 ok \(6\) in interpreter/reference\.", line) for line in picture.text.split("\n"))


def test_equal_runs_do_not_part():
    run = case("diamond")[1]
    picture = divergence_picture(run, run)
    assert "they do not: both made the same copies and wrote the same numbers" in picture.text and "do not part" in picture.description


def test_each_run_has_its_cause():
    seen = run_experiment(THIRD, "model", {"x": 3.0, "y": 4.0}, runs=[("interpreter", "value"), ("interpreter", "reference")], backward="third_time")
    judged = judged_runs(seen, judge_experiment(seen, controls=False))
    clobbered = next(v for v in judged[1].verdicts if v.parameter == "y")
    assert clobbered.word == "clobbered" and clobbered.cause.line == 20
    picture = divergence_picture(*judged)
    check_picture(picture)
    assert "set_field p, grad, 7.0" in picture.text
    assert {"first cause in interpreter/value", "first cause in interpreter/reference"} <= set(" and ".join(labels(picture)).split(" and "))


def test_a_run_without_a_trace_says_why():
    trapped = JudgedRun(Run("llvm", "value", trap=Trap("out_of_fuel", "")), ())
    picture = divergence_picture(trapped, case("diamond")[1])
    check_picture(picture)
    assert "llvm/value: the run ended with trap out_of_fuel" in picture.text


def test_hostile_texts_are_escaped():
    run = case("diamond")[0]
    events = tuple(replace(e, instruction=HOSTILE, path=HOSTILE) for e in run.trace.events)
    drawn = divergence_picture(replace(run, run=replace(run.run, trace=replace(run.run.trace, events=events))), case("diamond")[1]).to_svg()
    ElementTree.fromstring(drawn)
    assert "<img" not in drawn and "\x1b" not in drawn

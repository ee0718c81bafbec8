"""Memory before and after: the frames of a loss, of sharing, of an overwritten number, and of a gradient that arrived."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache

import pytest
from pictures import HOSTILE, NAMES, boxes, case, check_picture
from test_verdicts import EXPECTATIONS, experiment, manager_for

from simple_magic.autograd.experiment import Run
from simple_magic.autograd.judging import JudgedRun, judge_experiment, judged_runs
from simple_magic.mir.diagnostics import Trap
from simple_magic.show.gradients.memory import MOST_COPIES, memory_picture


@cache
def told(file: str, backward: str, semantics: str = "reference") -> JudgedRun:
    """Return the run of the first program in `tests/gradients` with this backward function."""
    wanted = next(e for e in EXPECTATIONS if (e.path.stem, e.options.get("backward", ""), e.semantics) == (file, backward, semantics))
    with manager_for(wanted.path) as em:
        seen = experiment(em, wanted, ("interpreter",))
        return judged_runs(seen, judge_experiment(seen, controls=False))[0]


TOLD = (
    ("copies", "stale"), ("copies", "stale_partly"), ("copies", "merge_late"), ("copies", "lose_twice"), ("copies", "third_turn"), ("buffers", "passing_on"),
    ("handed", "handing_on"), ("overwritten", "assign"), ("overwritten", "clobber_on_the_way"), ("values", "live"), ("mazur", "backward_in_place"),
    ("rules", "first_only"), ("places", "through_places", "value"), ("places", "through_locals", "value"), ("places", "one_of_two", "value"),
)  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, *TOLD], ids=str)
def test_what_holds_for_every_picture(name):
    for run in case(name) if isinstance(name, str) else [told(*name)]:
        for verdict in run.verdicts:
            picture = memory_picture(run, verdict.parameter)
            check_picture(picture)
            assert picture.to_svg() == memory_picture(run, verdict.parameter).to_svg() and picture.width <= 1000
            assert verdict.sentence in picture.description and verdict.word in {text.split()[1].rstrip(":") for *_, text in boxes(picture) if " " in text}


def frames(picture) -> list[str]:
    return [line for line in picture.text.split("\n") if line[:1].isdigit()]


def frame(picture, number: int) -> str:
    """Return what the words say of a frame."""
    return picture.text.partition(f"\n{number}  ")[2].partition(f"\n{number + 1}  ")[0]


def test_a_lost_gradient_is_a_copy_a_write_and_a_death():
    run = case("lost")[0]
    picture = memory_picture(run, "x")
    verdict = next(v for v in run.verdicts if v.parameter == "x")
    assert [f[:12].rstrip(": ") for f in frames(picture)] == ["1  the copy", "2  the write", "3  the death"]
    first, written = verdict.chain[0], verdict.contributions[0].event
    assert written.after == 6.0
    assert f"event {first.time}, " in frame(picture, 1) and first.instruction in frame(picture, 1)
    assert f"copy {written.object} of x" in frame(picture, 2) and "gradient 0 becomes 6" in frame(picture, 2)
    assert f"from the gradient of copy {written.edge} (probe)" in frame(picture, 2)
    assert f"gradient {written.after:.6g}, gone" in frame(picture, 3), "the copy dies with what was written into it"
    assert "x, object 0.1" in frame(picture, 3) and "gradient 0, wanted 6" in frame(picture, 3)


def test_every_copy_stands_in_the_place_that_holds_it():
    picture = memory_picture(case("lost")[0], "x")
    assert "returned: p, line 12 of Probe.leaf" in frame(picture, 1) and "in a new object or array: x, line 21 of probe" in frame(picture, 1)
    assert "read out of an array: self.parents[0], line 30 of Probe.backward_by" in frame(picture, 2)
    assert "copied by the program itself: r.parents[0]" in memory_picture(told("copies", "lose_twice"), "x").text


def test_a_frame_shows_only_objects_that_there_are_by_then():
    run = case("dense")[0]
    picture, verdict = memory_picture(run, "x"), run.verdicts[0]
    late = [e.object for e in verdict.chain if e.time > verdict.symptom.time]
    assert late and not any(f"copy {name} " in frame(picture, 2) for name in late)


def test_many_copies_are_told_by_their_number():
    picture = memory_picture(case("dense")[0], "x")
    chain = [e for e in case("dense")[0].verdicts[0].chain if e.time < case("dense")[0].verdicts[0].symptom.time]
    shown = sum("copy 4." in line for line in frame(picture, 2).split("\n"))
    assert shown == MOST_COPIES and f"\u2026 {len(chain) + 1 - MOST_COPIES} more cop" in frame(picture, 2)


def test_every_lost_contribution_has_its_grave():
    run = case("wide")[0]
    picture = memory_picture(run, "x0")
    lost = next(v for v in run.verdicts if v.parameter == "x0").contributions
    assert all(f"copy {c.event.object} of x0" in frame(picture, 3) for c in lost[:3]) and f"and {len(lost) - 3} more" in frame(picture, 3)


def test_a_zero_that_is_written_says_what_had_been_lost_before():
    picture = memory_picture(case("diamond")[0], "x")
    assert "gradient 0 becomes 0" in picture.text and "which lacks what event " in frame(picture, 2)


def test_a_gradient_lost_on_the_way_shows_the_node_and_what_is_read():
    picture = memory_picture(case("dense")[0], "x[0]")
    assert "copy 4." in frame(picture, 2) and "gradient 0 becomes 0.5" in frame(picture, 2)
    assert "x, object 0.2" in frame(picture, 3) and "no gradient, wanted 0.369981" in frame(picture, 3)


def test_what_the_trace_does_not_know_is_said():
    assert "gradient: not known" in frame(memory_picture(case("dense")[0], "x[0]"), 1)
    run = told("rules", "first_only")
    cut = replace(run, run=replace(run.run, trace=replace(run.trace, dropped=3)))
    assert "wrote nothing" in memory_picture(run, "y").text and "lacks the last events" in memory_picture(cut, "y").text


def test_an_older_copy_stored_over_the_gradient():
    picture = memory_picture(told("copies", "stale"), "x")
    assert frames(picture) == ["1  the copy", "2  the write", "3  the older copy is stored over it"]
    assert "x, object 0 (where it was made, line 22 of Value.leaf): gradient 0 becomes 5" in frame(picture, 2)
    assert "gradient 5 becomes 0" in frame(picture, 3) and "copy 0.1 of x" in frame(picture, 3)
    partly = memory_picture(told("copies", "stale_partly"))
    assert "copy 0.1 of x (copied by the program itself: r.parents[0], line 77 of stale_partly): gradient 0" in frame(partly, 2)


def test_a_contribution_that_arrives_twice():
    picture = memory_picture(told("copies", "merge_late"), "x")
    assert frames(picture) == ["1  the contribution arrives", "2  it arrives again", "3  what the program reads"]
    assert "gradient 5 becomes 10" in frame(picture, 2) and "copy 0.1 of x" in frame(picture, 2) and "gradient 10, wanted 5" in frame(picture, 3)


def test_the_turn_of_a_loop_is_named():
    run = told("copies", "third_turn")
    picture = memory_picture(run, "x")
    assert run.verdicts[0].symptom.occurrence == 2
    assert "event" in frame(picture, 2) and "line 173 of third_turn, time 3" in frame(picture, 2)


def test_the_first_parameter_that_is_not_ok_is_shown():
    assert memory_picture(case("doubled")[0]).title == "memory: y in interpreter/reference"
    assert memory_picture(case("diamond")[1]).title == "memory: x in interpreter/reference"
    with pytest.raises(KeyError, match="no parameter is named z; there is: x, y"):
        memory_picture(case("diamond")[0], "z")


def test_a_shared_buffer_has_its_owners():
    picture = memory_picture(case("doubled")[0], "y")
    assert frames(picture) == ["1  the sharing", "2  the write", "3  what the program reads"]
    assert "x, y -> one gradient, shared: gradient 1" in frame(picture, 1) and "y was given it, from the gradient of object 2 (probe)" in frame(picture, 1)
    assert "gradient 1 becomes 6" in frame(picture, 2) and "+5 for x counts for all of them" in frame(picture, 2)


def test_an_owner_is_only_who_proved_to_be_one():
    """The gradient came from the sum's, but only the jump of another object's number shows one memory."""
    picture = memory_picture(told("handed", "handing_on"), "y")
    owners = {line.strip().partition(" -> ")[0] for line in picture.text.split("\n") if " -> " in line}
    assert owners == {"x, object 2"}
    assert "= 2 from object 2" in frame(picture, 3) and "gradient 2, wanted 1" in frame(picture, 3)


def test_an_overwritten_contribution_arrives_and_goes():
    picture = memory_picture(case("assign")[0], "x")
    assert frames(picture)[:2] == ["1  the contribution arrives", "2  the write"]
    assert "gradient 3 becomes 3" in frame(picture, 2) and "it replaces what event 3 had brought" in frame(picture, 2)


def test_an_overwritten_value_is_what_backward_reads():
    picture = memory_picture(case("in place")[0], "x")
    assert "y, object 1: value 4" in frame(picture, 1) and "value 4 becomes 40" in frame(picture, 2)
    assert "y, object 1: value 40" in frame(picture, 3) and "gradient 40, wanted 4" in frame(picture, 3)


def test_a_gradient_that_arrives_shows_what_it_is_made_of():
    run = case("diamond")[1]
    picture = memory_picture(run, "x")
    (verdict,) = (v for v in run.verdicts if v.parameter == "x")
    assert all(f"event {c.event.time}: +{c.event.delta:.6g} from object {c.event.edge}" in frame(picture, 2) for c in verdict.contributions)
    assert "x, object 0: gradient 0" in frame(picture, 1) and f"gradient {verdict.gradient:.6g}" in frame(picture, 3)
    assert "x, entry @grads[0]: gradient 0\n" in frame(memory_picture(case("store")[0], "x"), 1) + "\n", "before the first write to a store there is nothing"


def test_numbers_that_differ_look_different():
    nearly = next(e for e in EXPECTATIONS if e.model == "nearly")
    with manager_for(nearly.path) as em:
        seen = experiment(em, nearly, ("interpreter",))
        (run,) = judged_runs(seen, judge_experiment(seen, controls=False))
    assert "gradient 2.00000001, wanted 2.0" in memory_picture(run).text


def test_runs_without_a_trace_or_parameters_say_so():
    empty = memory_picture(JudgedRun(Run("llvm", "value", trap=Trap("out_of_fuel", "")), ()))
    check_picture(empty)
    assert "no parameters" in empty.text
    bare = case("diamond")[1]
    untraced = replace(bare, run=replace(bare.run, trace=None))
    check_picture(memory_picture(untraced))
    assert "the trace does not know it" in memory_picture(untraced).text and "the run left no trace" in memory_picture(untraced).text


@pytest.mark.parametrize("more", ["long" * 60, "\u6f22" * 99, "\x1b" * 99], ids=["long", "wide", "control"])
@pytest.mark.parametrize("name", ["diamond", "doubled", "in place", "lost"])
def test_hostile_and_long_texts_are_escaped_and_fit(name, more):
    run = case(name)[0]
    bad = HOSTILE + more
    odd = {id(e): replace(e, instruction=bad, path=bad, function=bad) for e in run.run.trace.events}
    trace = replace(run.run.trace, events=tuple(odd.values()), labels=dict.fromkeys(run.run.trace.labels, bad))
    wrong = {e.time: e for e in trace.events}
    verdicts = tuple(replace(v, sentence=bad, chain=tuple(wrong[e.time] for e in v.chain), cause=v.cause and wrong[v.cause.time],
                             symptom=v.symptom and wrong[v.symptom.time]) for v in run.verdicts)  # fmt: skip
    drawn = memory_picture(replace(run, verdicts=verdicts, run=replace(run.run, trace=trace)))
    ElementTree.fromstring(drawn.to_svg())
    assert "<img" not in drawn.to_svg() and "\x1b" not in drawn.to_svg() and bad in drawn.text
    assert all(left >= 0 and right <= drawn.width and top >= 0 and bottom <= drawn.height for left, top, right, bottom, _ in boxes(drawn))

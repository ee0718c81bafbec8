"""Memory before and after: the frames of a loss, of sharing, of an overwritten number, and of a gradient that arrived."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from pictures import HOSTILE, NAMES, case, check_picture

from simple_magic.autograd.experiment import Run
from simple_magic.autograd.judging import JudgedRun
from simple_magic.mir.diagnostics import Trap
from simple_magic.show.gradients.memory import memory_picture


@pytest.mark.parametrize("name", NAMES)
def test_what_holds_for_every_picture(name):
    for run in case(name):
        for verdict in run.verdicts:
            picture = memory_picture(run, verdict.parameter)
            check_picture(picture)
            assert picture.to_svg() == memory_picture(run, verdict.parameter).to_svg() and picture.width <= 1000
            assert verdict.sentence in picture.description


def frames(picture) -> list[str]:
    return [line for line in picture.text.split("\n") if line[:1].isdigit()]


def test_a_lost_gradient_is_a_copy_a_write_and_a_death():
    run = case("lost")[0]
    picture = memory_picture(run, "x")
    verdict = next(v for v in run.verdicts if v.parameter == "x")
    assert [f[:12].rstrip(": ") for f in frames(picture)] == ["1  the copy", "2  the write", "3  the death"]
    first, written = verdict.chain[0], verdict.contributions[0].event
    assert written.after == 6.0
    assert f"event {first.time}, " in picture.text and first.instruction in picture.text
    assert f"copy {written.object}" in picture.text and f"gradient 0 becomes {written.after:.6g}" in picture.text
    assert f"gradient {written.after:.6g}, gone" in picture.text, "the copy dies with what was written into it"
    assert "x, object" in picture.text and f"gradient 0, wanted {verdict.wanted.derivative:.6g}" in picture.text


def test_the_first_parameter_that_is_not_ok_is_shown():
    assert memory_picture(case("doubled")[0]).title == "memory: y in interpreter/reference"
    assert memory_picture(case("diamond")[1]).title == "memory: x in interpreter/reference"
    with pytest.raises(KeyError, match="no parameter is named z; there is: x, y"):
        memory_picture(case("diamond")[0], "z")


def test_a_shared_buffer_has_its_owners():
    picture = memory_picture(case("doubled")[0], "y")
    assert frames(picture) == ["1  the sharing", "2  the write", "3  what the program reads"]
    assert "x, y" in picture.text and "-> one gradient, shared" in picture.text and "counts for all of them" in picture.text


def test_an_overwritten_contribution_arrives_and_goes():
    picture = memory_picture(case("assign")[0], "x")
    assert frames(picture)[:2] == ["1  the contribution arrives", "2  the write"] and "gradient 3 becomes 3" in picture.text


def test_a_gradient_that_arrives_shows_what_it_is_made_of():
    picture = memory_picture(case("diamond")[1], "x")
    run = case("diamond")[1]
    (verdict,) = (v for v in run.verdicts if v.parameter == "x")
    assert all(f"{c.event.delta:.6g}" in picture.text for c in verdict.contributions) and f"gradient {verdict.gradient:.6g}" in picture.text


def test_runs_without_a_trace_or_parameters_say_so():
    assert "no parameters" in memory_picture(JudgedRun(Run("llvm", "value", trap=Trap("out_of_fuel", "")), ())).text
    bare = case("diamond")[1]
    untraced = replace(bare, run=replace(bare.run, trace=None))
    check_picture(memory_picture(untraced))
    assert "the trace does not know it" in memory_picture(untraced).text


def test_hostile_texts_are_escaped():
    run = case("diamond")[0]
    events = tuple(replace(e, instruction=HOSTILE) for e in run.run.trace.events)
    verdicts = tuple(replace(v, chain=tuple(replace(e, instruction=HOSTILE) for e in v.chain)) for v in run.verdicts)
    drawn = memory_picture(replace(run, verdicts=verdicts, run=replace(run.run, trace=replace(run.run.trace, events=events)))).to_svg()
    ElementTree.fromstring(drawn)
    assert "<img" not in drawn and "\x1b" not in drawn

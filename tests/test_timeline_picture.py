"""The timeline: every write in its place and its look, first cause and first symptom, nothing hidden without a count."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from pictures import HOSTILE, NAMES, case, check_picture, random_run

from simple_magic.autograd.experiment import Run
from simple_magic.autograd.judging import JudgedRun
from simple_magic.mir.diagnostics import Trap
from simple_magic.show.gradients.marks import FATES
from simple_magic.show.gradients.timeline import MOST_COLUMNS, MOST_ROWS, steps_of, timeline_picture
from simple_magic.show.gradients.parts import read
from simple_magic.show.picture import Box, Label



LARGE = {f"{count} nodes, {lost} lost": (random_run(count, lost, "value"), random_run(count, 0.0)) for count, lost in ((60, 0.0), (60, 0.9), (300, 0.01), (1000, 0.5))}
CASES = [*NAMES, *LARGE]


def runs_of(name: str) -> tuple[JudgedRun, ...]:
    return LARGE[name] if name in LARGE else case(name)


@pytest.mark.parametrize("name", CASES)
def test_what_holds_for_every_picture(name):
    picture = timeline_picture(runs_of(name))
    check_picture(picture, has_lines=False)  # A row's line runs behind its cells.
    assert picture.width <= 1300, "a notebook has no room for more"


@pytest.mark.parametrize("name", ["diamond", "doubled", "60 nodes, 0.9 lost"])
def test_equal_runs_give_equal_bytes_of_harmless_elements(name):
    drawn = timeline_picture(runs_of(name)).to_svg()
    assert drawn == timeline_picture(runs_of(name)).to_svg()
    assert {e.tag.rpartition("}")[2] for e in ElementTree.fromstring(drawn).iter()} <= {"svg", "title", "desc", "rect", "text", "polyline", "polygon"}


def test_a_write_has_the_same_column_in_every_run():
    picture = timeline_picture(case("lost"))
    cells = {}
    for shape in picture.shapes:
        if isinstance(shape, Box) and shape.hint.startswith("event"):
            cells.setdefault(shape.hint.split(": ")[1], set()).add(shape.x)
    assert cells and all(len(places) == 1 for places in cells.values())


def test_lost_writes_and_the_lines_of_cause_and_symptom():
    value, reference = case("lost")
    assert {step.mark.word for step in steps_of(read(value))} >= {FATES["lost"].word}
    assert {step.mark.word for step in steps_of(read(reference))} == {FATES["landed"].word}
    picture = timeline_picture((value, reference))
    cause, symptom = (e for v in value.verdicts[:1] for e in (v.cause, v.symptom))
    assert f"first cause: event {cause.time}, " in picture.text and cause.instruction in picture.text
    assert f"first symptom: event {symptom.time}, " in picture.text
    labels = [shape.text for shape in picture.shapes if isinstance(shape, Label)]
    assert sum(label.startswith("first cause") for label in labels) == 1, "only the run that has one names it"
    assert "what differs" in labels and "\u2260" in labels


def test_elements_of_an_array_are_one_step():
    dense = case("dense")[1]
    events = [e for e in dense.trace.events if e.is_write and e.field == "grad" and e.phase in ("seed", "backward")]
    assert len(list(steps_of(read(dense)))) < len(events)


def test_what_is_left_out_is_counted():
    picture = timeline_picture(LARGE["1000 nodes, 0.5 lost"])
    cells = [s for s in picture.shapes if isinstance(s, Box) and s.hint.startswith("event")]
    assert len(cells) <= 2 * MOST_COLUMNS
    total = len({key for run in LARGE["1000 nodes, 0.5 lost"] for key in (step.key for step in steps_of(read(run)))})
    counts = [int(n) for n in re.findall(r"not drawn: (\d+)", picture.text)]
    assert MOST_COLUMNS + sum(counts[:2]) == total
    rows = {s.text for s in picture.shapes if isinstance(s, Label) and s.anchor == "end" and s.text != "event"}
    assert len(rows) <= MOST_ROWS


def test_a_problem_is_drawn_before_anything_else_is():
    runs = LARGE["300 nodes, 0.01 lost"]
    lost = [step for step in steps_of(read(runs[0])) if step.mark is FATES["lost"]]
    drawn = {shape.hint for shape in timeline_picture(runs).shapes if isinstance(shape, Box)}
    assert lost and all(f"event {step.event.time}: {step.event.instruction}" in drawn for step in lost)


def test_a_run_without_a_trace_says_why():
    trapped = JudgedRun(Run("llvm", "value", trap=Trap("out_of_fuel", "")), ())
    assert "the run ended with trap out_of_fuel" in timeline_picture((trapped,)).text
    assert "the run has no trace" in timeline_picture((JudgedRun(Run("llvm", "value"), ()),)).text


def test_hostile_names_are_escaped():
    run = case("diamond")[0]
    trace = replace(run.run.trace, names=dict.fromkeys(run.run.trace.names, HOSTILE))
    drawn = timeline_picture((replace(run, run=replace(run.run, trace=trace)),)).to_svg()
    ElementTree.fromstring(drawn)
    assert "<img" not in drawn and "\x1b" not in drawn

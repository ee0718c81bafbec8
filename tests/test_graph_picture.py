"""The side-by-side graph: complete in words, nothing on top of anything else, dead copies where a contribution was lost, and no problem ever folded."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from pictures import HOSTILE, NAMES, boxes, case, check_picture, random_run

from simple_magic.autograd.events import Event, Trace
from simple_magic.autograd.experiment import Run, run_experiment
from simple_magic.autograd.judging import JudgedRun, judge_experiment, judged_runs
from simple_magic.autograd.replay import DOUBLED
from simple_magic.autograd.verdicts import Verdict
from simple_magic.show.gradients.folding import FIRST_PROBLEMS, FOLD_ABOVE, MANY_PROBLEMS, folded
from simple_magic.show.gradients.graph import MOST_LISTED, graph_picture
from simple_magic.show.gradients.marks import FATES, VERDICTS
from simple_magic.show.picture import Box, Label, Path

LARGE = ((40, 0.2), (60, 0.0), (60, 0.9), (300, 0.0), (300, 0.01), (1000, 0.002), (1000, 0.5))


def pictures():
    """Yield (name, picture) of everything that is tested here."""
    yield from ((name, graph_picture(case(name), "model")) for name in NAMES)
    for count, lost in LARGE:
        yield f"{count} nodes, {lost} lost", graph_picture((random_run(count, lost, "value"), random_run(count, 0.0)), "model")


# What a picture must be


def test_what_holds_for_every_picture():
    for name, picture in pictures():
        try:
            check_picture(picture)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_equal_runs_give_equal_bytes():
    runs = case("diamond")
    again = tuple(JudgedRun(run.run, run.verdicts, run.gradient, run.value) for run in runs)
    first, second = graph_picture(runs, "model"), graph_picture(again, "model")
    assert first.to_svg() == second.to_svg() and first.text == second.text


def test_hostile_names_are_escaped():
    (run,) = case("doubled")
    trace = run.trace
    named = replace(trace, names=dict.fromkeys(trace.names, HOSTILE), labels=dict.fromkeys(trace.labels, HOSTILE * 3))
    hostile = replace(run, run=replace(run.run, trace=named, note=HOSTILE), verdicts=tuple(replace(v, parameter=HOSTILE, sentence=HOSTILE) for v in run.verdicts))
    picture = graph_picture((hostile,), HOSTILE)
    ElementTree.fromstring(picture.to_svg())
    assert "<img" not in picture.to_svg() and "\x1b" not in picture.to_svg() and "\u202e" not in picture.to_svg()


# What it must say


def labels(picture) -> list[str]:
    return [shape.text for shape in picture.shapes if isinstance(shape, Label)]


def test_a_lost_contribution_hangs_off_its_node_by_the_instruction_that_copied():
    value, reference = case("diamond")
    picture = graph_picture((value, reference), "model")
    verdict = value.verdicts[0]
    assert verdict.word == "lost" and reference.verdicts[0].word == "ok"
    lost = verdict.contributions[0]
    assert lost.event.object in picture.text and f"copy of copy {lost.event.object}" in labels(picture)
    assert "was put into a new object:" in labels(picture) and f"line {lost.links[0].line} of {lost.links[0].function}" in labels(picture)
    assert {"\u2717 lost", "\u2713 ok", "wanted 0.964547", "gradient 0.964547", "copy 4.10", "holds gradient 0.741959"} <= set(labels(picture))
    marks = {(shape.stroke, shape.dash) for shape in picture.shapes if isinstance(shape, Path) and shape.has_arrow}
    assert {(FATES[fate].color, FATES[fate].dash) for fate in ("landed", "lost")} <= marks
    assert "x, y" in picture.description and "lost: x, y" in picture.description and "ok: x, y" in picture.description


def test_an_arrow_to_a_lost_contribution_ends_at_the_copy():
    picture = graph_picture(case("lost")[:1], "probe")
    frames = [shape for shape in picture.shapes if isinstance(shape, Box) and shape.dash == FATES["lost"].dash]
    ends = [shape.points[-1] for shape in picture.shapes if isinstance(shape, Path) and shape.has_arrow and shape.stroke == FATES["lost"].color]
    dead = [f for f in frames for text in boxes(picture) if text[4].startswith("copy of copy") and f.x <= text[0] <= f.x + f.width and f.y <= text[1] <= f.y + f.height]
    assert len(ends) == len(dead) == 2
    for x, y in ends:
        assert any(abs(x - (f.x + f.width)) < 0.1 and f.y < y < f.y + f.height for f in dead)


def test_a_doubled_gradient_says_with_whom_it_shares_memory():
    picture = graph_picture(case("doubled"), "probe")
    assert {"\u00d72 doubled", "shares memory with x:"} <= set(labels(picture))
    mark = VERDICTS["doubled"]
    assert any(isinstance(s, Box) and (s.stroke, s.fill, s.dash) == (mark.color, mark.fill, mark.dash) for s in picture.shapes)


def test_a_doubled_contribution_says_how_often_it_arrived():
    (run,) = case("assign")
    contributions = tuple(replace(c, fate=DOUBLED, times=3, by=None) for c in run.verdicts[0].contributions)
    verdict = replace(run.verdicts[0], word="doubled", contributions=contributions)
    picture = graph_picture((replace(run, verdicts=(verdict,)),))
    assert f"{FATES[DOUBLED].glyph} = 3" in labels(picture) and "arrived 3 times" in labels(picture) and "arrived 3 times" in picture.text


def test_an_overwritten_contribution_names_what_overwrote_it():
    (run,) = case("assign")
    picture = graph_picture((run,), "model")
    by = run.verdicts[0].contributions[0].by
    assert "\u2298 = 3" in labels(picture) and f"line {by.line} of assign" in labels(picture) and "\u2298 overwritten" in labels(picture)


def test_a_value_that_was_overwritten_is_told_of_and_blamed():
    found = labels(graph_picture(case("in place"), "model"))
    assert {"value 4", "overwritten by 40", "\u2298 clobbered", "value of y overwritten:"} <= set(found)
    assert found[found.index("value of y overwritten:") + 1].startswith("line ") and found.count("overwritten by 40") == 1
    assert not any(text.startswith("overwritten by") for text in labels(graph_picture(case("steps"), "model"))), "an update is none"


def test_many_parameters_stand_in_several_rows():
    events = [Event(i, "alloc", str(i), chain=(str(i),), after=1.5) for i in range(30)]
    events += [Event(30 + i, "overwrite", str(i), "backward", field="grad", chain=(str(i),), before=0.0, delta=0.123456, after=0.123456, edge="unknown") for i in range(30)]
    run = JudgedRun(Run("llvm", "reference", trace=Trace(tuple(events), names={str(i): f"weight{i}" for i in range(30)})), ())
    picture = graph_picture((run,))
    names = [shape for shape in picture.shapes if isinstance(shape, Label) and shape.text.startswith("weight")]
    assert len(names) == 30 and len({shape.y for shape in names}) == 4 and picture.width < 1300


def test_an_array_is_one_node():
    value, reference = case("dense")
    picture = graph_picture((value, reference), "model")
    assert {"gradient: 2 numbers", "\u2713 2 elements", "\u2205 2 of 2 never-written", "\u2260 differs, first at [0]"} <= set(labels(picture))
    assert sum(text.startswith("x  leaf") for text in labels(picture)) == 2, "once in each run"


def test_what_the_trace_cannot_tell_comes_from_a_question_mark():
    (run,) = case("doubled")
    assert any(e.edge == "unknown" for e in run.trace.events)
    assert "?" in labels(graph_picture((run,))) and "cannot tell" in graph_picture((run,)).text


def test_the_layout_is_the_same_in_every_run():
    for name in ("diamond", "dense"):
        picture = graph_picture(case(name), "model")
        headers = {shape.text: shape for shape in picture.shapes if isinstance(shape, Label)}
        left, right = (headers[run.name] for run in case(name))
        nodes = [shape for shape in picture.shapes if isinstance(shape, Label) and re.fullmatch(r"(#\d+|[xyw])  \w+", shape.text)]
        by_text: dict[str, list[Label]] = {}
        for shape in nodes:
            by_text.setdefault(shape.text, []).append(shape)
        assert by_text and all(len(pair) == 2 for pair in by_text.values())
        assert {(round(b.x - a.x, 6), round(b.y - a.y, 6)) for a, b in by_text.values()} == {(round(right.x - left.x, 6), round(right.y - left.y, 6))}


def test_a_run_without_a_trace_says_so():
    bare = JudgedRun(Run("llvm", "value", note="why"), (Verdict("x", "no-result", "the run ended"),))
    picture = graph_picture((bare,))
    assert "\u2013 no-result" in labels(picture) and "why" in labels(picture) and "no-result: x" in picture.description
    assert graph_picture((JudgedRun(Run("llvm", "value"), ()),)).width > 0


def test_a_store_is_drawn_by_its_entries():
    picture = graph_picture(case("store"), "model")
    assert labels(picture).count("@grads[5]") == 2 and "\u2717 lost" not in labels(picture)


# Folding


def test_what_is_equal_and_ok_folds_into_one():
    picture = graph_picture((random_run(300, 0.0, "value"), random_run(300, 0.0)), "model")
    assert labels(picture).count("297 nodes, all equal") == 2, "all but the result and the parameters"
    assert "297 nodes, all equal" in picture.text and "Not drawn: 297 nodes without a problem" in picture.description
    small = graph_picture((random_run(FOLD_ABOVE, 0.0),))
    assert not any("nodes" in text for text in labels(small))


def test_a_problem_and_its_neighbours_are_never_folded():
    for count, lost in LARGE:
        runs = (random_run(count, lost, "value"), random_run(count, 0.0))
        bad = {e.original for e in runs[0].trace.events if e.kind == "accumulate" and "." in e.object}
        if len(bad) > MANY_PROBLEMS:
            continue
        near = {n for e in runs[0].trace.events if e.kind == "accumulate" for n, o in ((e.edge, e.original), (e.original, e.edge)) if o in bad}
        shown = {text.split()[0] for text in labels(graph_picture(runs))}
        assert {"x" if n == "0" else "y" if n == "1" else f"#{n}" for n in bad | near} <= shown, (count, lost)


def test_what_does_not_fit_is_counted_by_kind():
    runs = (random_run(1000, 0.5, "value"), random_run(1000, 0.0))
    bad = {e.original for e in runs[0].trace.events if e.kind == "accumulate" and "." in e.object}
    picture = graph_picture(runs)
    said = [int(m[1]) for m in re.finditer(r"Not drawn: (\d+) nodes? with problems", picture.description)]
    drawn = sum(f"#{n}" in {text.split()[0] for text in labels(picture)} for n in bad) + len(bad & {"0", "1"})
    assert sum(said) + drawn == len(bad) and drawn >= FIRST_PROBLEMS
    assert "see the table and the trace" in picture.text and "see the table and the trace" in picture.description
    first = next(e for e in runs[0].trace.events if e.kind == "accumulate" and "." in e.object)
    assert f"#{first.original}  add" in labels(picture), "the first symptom"


def test_words_list_a_dozen_dead_copies_of_a_node_and_count_the_rest():
    adds = "\n".join(f"  s{i} = call Value.add(s{i - 1}, x)" for i in range(1, 30))
    source = f"fn model(x: Value, y: Value) -> Value:\nentry:\n  s0 = call Value.mul(x, y)\n{adds}\n  ret s29\n"
    seen = run_experiment(source, "model", {"x": 1.0, "y": 2.0}, runs=[("interpreter", "value")])
    picture = graph_picture(judged_runs(seen, judge_experiment(seen, controls=False)))
    of_x = picture.text.partition("\n  x  ")[2].partition("\n  y  ")[0]
    listed, (more, total) = of_x.count("    dead copy"), re.search(r"and (\d+) more dead copies like these, of (\d+) in all", of_x).groups()
    assert listed + int(more) == int(total) > 29 and listed == MOST_LISTED - 1
    check_picture(picture)


def test_folding_keeps_every_node_somewhere():
    nodes = [str(i) for i in range(200)]
    edges = [(str(i), str(i - 1)) for i in range(1, 190)]
    shown = folded(nodes, edges, {"50": "lost", "120": "lost"}, ["120"], ["0", "189"], frozenset(nodes[190:]))
    assert sorted((*shown.nodes, *(m for f in shown.folds for m in f.members)), key=int) == nodes
    assert {"49", "50", "51", "119", "120", "121", "0", "189"} <= set(shown.nodes)
    assert all(not fold.problems for fold in shown.folds) and len(shown.folds) == 4, "before, between, behind, and what has no edge"


def test_a_large_graph_stays_a_small_picture():
    picture = graph_picture((random_run(5000, 0.3, "value"), random_run(5000, 0.0)), "model")  # benchmarks/pictures.py times it
    assert len(picture.shapes) < 3000 and picture.width < 2700

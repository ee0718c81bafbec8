"""The side-by-side graph: complete in words, nothing on top of anything else, dead copies where a contribution was lost, and no problem ever folded."""

from __future__ import annotations

import random
import re
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache


from simple_magic import gradient_experiment
from simple_magic.autograd.events import Event, Trace
from simple_magic.autograd.experiment import Run
from simple_magic.autograd.judging import PROBE, JudgedRun, judge_experiment, judged_runs
from simple_magic.autograd.replay import DOUBLED
from simple_magic.autograd.verdicts import Verdict
from simple_magic.show.gradients.folding import FIRST_PROBLEMS, FOLD_ABOVE, MANY_PROBLEMS, folded
from simple_magic.show.gradients.graph import graph_picture
from simple_magic.show.gradients.marks import FATES, VERDICTS
from simple_magic.show.picture import Box, Label, Path, text_width

HOSTILE = '<img src=x onerror=alert(1)> "&\u202e\x1b[31m'
DIAMOND = """
fn model(x: Value, y: Value) -> Value:
entry:
  a = call Value.add(x, y)
  b = call Value.mul(x, y)
  r = call Value.add(a, b)
  out = call Value.tanh(r)
  ret out
"""
DENSE = """
fn model(x: Dense, w: Dense) -> Dense:
entry:
  p = call Dense.mul(x, w)
  s = call Dense.sigmoid(p)
  q = call Dense.mul(s, x)
  r = call Dense.mean(q)
  ret r
"""
ASSIGN = """
fn model(x: Value) -> Value:
entry:
  r = call Value.mul(x, x)
  ret r

fn assign(r: Value):
entry:
  set_field r, grad, 1.0
  p = index_get r.parents, 0
  g = get_field r, grad
  part = mul g, 3.0
  set_field p, grad, part
  set_field p, grad, part
  ret
"""
BOTH = [("interpreter", "value"), ("interpreter", "reference")]
REFERENCE = [("interpreter", "reference")]


@cache
def case(name: str) -> tuple[JudgedRun, ...]:
    source, inputs, options = {
        "diamond": (DIAMOND, {"x": 0.2, "y": 0.3}, {"runs": BOTH}),
        "dense": (DENSE, {"x": [1.0, -2.0], "w": [0.5, 3.0]}, {"runs": BOTH, "node": "Dense"}),
        "lost": (PROBE, {"x": 3.0, "y": 4.0}, {"runs": BOTH, "node": "Probe", "backward": "Probe.backward"}),
        "doubled": (PROBE, {"x": 3.0, "y": 4.0}, {"runs": REFERENCE, "node": "Probe", "backward": "Probe.backward_shared"}),
        "assign": (ASSIGN, {"x": 3.0}, {"runs": REFERENCE, "backward": "assign"}),
        "store": (DIAMOND, {"x": 0.2, "y": 0.3}, {"runs": BOTH, "backward": "Value.store_backward", "reader": "Value.stored_gradient", "store": "grads"}),
        "steps": (DIAMOND, {"x": 0.2, "y": 0.3}, {"runs": REFERENCE, "steps": 2}),
    }[name]  # fmt: skip
    model = "probe" if source is PROBE else "model"
    seen = gradient_experiment(source, model, inputs, **options)
    return judged_runs(seen, judge_experiment(seen, controls=False))


@cache
def random_run(count: int, lost: float, name: str = "reference") -> JudgedRun:
    """Return a run of a random graph: each node passes its gradient to the one before it and to another one; some contributions are lost."""
    pick, events, number = random.Random(count), [], [0.0] * count

    def add(kind, node, **more):
        events.append(Event(len(events), kind, node, **{"chain": (node,), **more}))

    write = {"phase": "backward", "field": "grad", "function": "Value.accumulate", "line": 231}
    copies = 0
    for i in range(count):
        add("alloc", str(i), after=pick.random())
    add("overwrite", str(count - 1), **{**write, "phase": "seed"}, before=0.0, delta=1.0, after=1.0)
    for i in range(count - 1, 1, -1):
        for parent in (i - 1, max(0, i - 1 - pick.randrange(1, 9))):
            amount, node, chain, before = pick.random(), str(parent), (str(parent),), number[parent]
            if pick.random() < lost:
                copies += 1
                node, chain = f"{parent}.{copies}", (f"{parent}.{copies}", str(parent))
                add("copy", node, chain=chain, source=str(parent), position="element_read", function="Value.backward", line=298)
            else:
                number[parent] += amount
            add("accumulate", node, chain=chain, before=before, delta=amount, after=before + amount, edge=str(i), **write)
    labels = {str(i): "add" for i in range(count)}
    return JudgedRun(Run("llvm", name, trace=Trace(tuple(events), "llvm", name, root=str(count - 1), names={"0": "x", "1": "y"}, labels=labels)), ())


NAMES = ("diamond", "dense", "lost", "doubled", "assign", "store", "steps")
LARGE = ((40, 0.2), (60, 0.0), (60, 0.9), (300, 0.0), (300, 0.01), (1000, 0.002), (1000, 0.5))


def pictures():
    """Yield (name, picture) of everything that is tested here."""
    yield from ((name, graph_picture(case(name), "model")) for name in NAMES)
    for count, lost in LARGE:
        yield f"{count} nodes, {lost} lost", graph_picture((random_run(count, lost, "value"), random_run(count, 0.0)), "model")


def boxes(picture):
    """Return (left, top, right, bottom, text) of every label."""
    found = []
    for shape in picture.shapes:
        if isinstance(shape, Label):
            width = text_width(shape.text, shape.size)
            left = shape.x - {"start": 0.0, "middle": width / 2, "end": width}[shape.anchor]
            found.append((left, shape.y - shape.size / 2, left + width, shape.y + shape.size / 2, shape.text))
    return found


# What a picture must be


def test_no_two_texts_overlap_and_none_is_cut():
    for name, picture in pictures():
        found = sorted(boxes(picture))
        for index, (left, top, right, bottom, text) in enumerate(found):
            assert left >= 0 and top >= 0 and right <= picture.width and bottom <= picture.height, (name, text)
            for other in found[index + 1 :]:
                if other[0] >= right:
                    break
                assert other[1] >= bottom or other[3] <= top, (name, text, other[4])


def test_texts_lie_within_their_boxes():
    for name, picture in pictures():
        frames = [shape for shape in picture.shapes if isinstance(shape, Box)]
        for left, top, right, bottom, text in boxes(picture):
            for frame in frames:
                is_apart = right <= frame.x or left >= frame.x + frame.width or bottom <= frame.y or top >= frame.y + frame.height
                is_within = left >= frame.x and right <= frame.x + frame.width and top >= frame.y and bottom <= frame.y + frame.height
                assert is_apart or is_within, (name, text)


def test_no_line_runs_through_a_text():
    for name, picture in pictures():
        texts = boxes(picture)
        for shape in picture.shapes:
            if not isinstance(shape, Path):
                continue
            for (x0, y0), (x1, y1) in zip(shape.points, shape.points[1:]):
                for left, top, right, bottom, text in texts:
                    if max(x0, x1) <= left or min(x0, x1) >= right or max(y0, y1) <= top or min(y0, y1) >= bottom:
                        continue
                    assert not crosses((x0, y0), (x1, y1), left, top, right, bottom), (name, text)


def crosses(a, b, left, top, right, bottom) -> bool:
    """Whether a line has a point within a rectangle (Liang and Barsky)."""
    (x0, y0), (x1, y1) = a, b
    low, high = 0.0, 1.0
    for p, q in ((x0 - x1, x0 - left), (x1 - x0, right - x0), (y0 - y1, y0 - top), (y1 - y0, bottom - y0)):
        if p == 0:
            if q <= 0:
                return False
        elif p < 0:
            low = max(low, q / p)
        else:
            high = min(high, q / p)
    return high - low > 1e-6


def test_every_number_stands_in_the_words_too():
    for name, picture in pictures():
        words = set(re.findall(r"[^\s,;()]+", picture.text))
        for *_, text in boxes(picture):
            for part in re.findall(r"[^\s,;()]+", text):
                if any(c.isdigit() for c in part):
                    assert part in words or part.rstrip(":") in {w.rstrip(":") for w in words}, (name, text, part)


def test_svg_is_xml_of_harmless_elements_and_stable():
    for _, picture in pictures():
        root = ElementTree.fromstring(picture.to_svg())
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "title", "desc", "rect", "polyline", "polygon", "text"}
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


def test_folding_keeps_every_node_somewhere():
    nodes = [str(i) for i in range(200)]
    edges = [(str(i), str(i - 1)) for i in range(1, 190)]
    shown = folded(nodes, edges, {"50": "lost", "120": "lost"}, ["120"], ["0", "189"], frozenset(nodes[190:]))
    assert sorted((*shown.nodes, *(m for f in shown.folds for m in f.members)), key=int) == nodes
    assert {"49", "50", "51", "119", "120", "121", "0", "189"} <= set(shown.nodes)
    assert all(not fold.problems for fold in shown.folds) and len(shown.folds) == 4, "before, between, behind, and what has no edge"


def test_five_thousand_nodes_take_under_a_second():
    runs = (random_run(5000, 0.3, "value"), random_run(5000, 0.0))
    for run in runs:
        assert run.replayed.contributions
    took = []
    for _ in range(3):
        start = time.perf_counter()
        picture = graph_picture(runs, "model")
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0 and len(picture.shapes) < 3000, took

"""What pictures of gradients are tested with: small experiments, random traces, and what holds for every picture."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache
from itertools import pairwise

from simple_magic.autograd.events import Event, Trace, number_occurrences
from simple_magic.autograd.experiment import Run, run_experiment
from simple_magic.autograd.judging import PROBE, JudgedRun, judge_experiment, judged_runs
from simple_magic.show.picture import Box, Label, Path, Picture, text_width

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
IN_PLACE = """
fn model(x: Value, y: Value) -> Value:
entry:
  r = call Value.mul(x, y)
  w = mul y.data, 10.0
  set_field y, data, w
  ret r

fn live(r: Value):
entry:
  set_field r, grad, 1.0
  p = index_get r.parents, 0
  q = index_get r.parents, 1
  part = mul r.grad, q.data
  set_field p, grad, part
  part = mul r.grad, p.data
  set_field q, grad, part
  ret
"""
BOTH = [("interpreter", "value"), ("interpreter", "reference")]
REFERENCE = [("interpreter", "reference")]


def wide(count: int) -> str:
    """Return a model that uses each of its parameters once, in one product."""
    lines = [f"  p{i} = call Value.mul(x0, x{i})" for i in range(1, count)]
    lines += ["  s1 = call Value.exp(p1)", *(f"  s{i} = call Value.add(s{i - 1}, p{i})" for i in range(2, count))]
    return f"fn model({', '.join(f'x{i}: Value' for i in range(count))}) -> Value:\nentry:\n" + "\n".join(lines) + f"\n  ret s{count - 1}\n"


@cache
def case(name: str) -> tuple[JudgedRun, ...]:
    source, inputs, options = {
        "diamond": (DIAMOND, {"x": 0.2, "y": 0.3}, {"runs": BOTH}),
        "dense": (DENSE, {"x": [1.0, -2.0], "w": [0.5, 3.0]}, {"runs": BOTH, "node": "Dense"}),
        "lost": (PROBE, {"x": 3.0, "y": 4.0}, {"runs": BOTH, "node": "Probe", "backward": "Probe.backward"}),
        "doubled": (PROBE, {"x": 3.0, "y": 4.0}, {"runs": REFERENCE, "node": "Probe", "backward": "Probe.backward_shared"}),
        "assign": (ASSIGN, {"x": 3.0}, {"runs": REFERENCE, "backward": "assign"}),
        "store": (DIAMOND, {"x": 0.2, "y": 0.3}, {"runs": BOTH, "backward": "Value.store_backward", "reader": "Value.stored_gradient", "store": "grads"}),
        "in place": (IN_PLACE, {"x": 3.0, "y": 4.0}, {"runs": REFERENCE, "backward": "live"}),
        "wide": (wide(9), {f"x{i}": 1.0 + i for i in range(9)}, {"runs": BOTH}),
        "steps": (DIAMOND, {"x": 0.2, "y": 0.3}, {"runs": REFERENCE, "steps": 2}),
    }[name]  # fmt: skip
    model = "probe" if source is PROBE else "model"
    seen = run_experiment(source, model, inputs, **options)
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
    numbered = (replace(event, occurrence=n) for event, n in number_occurrences(events))
    return JudgedRun(Run("llvm", name, trace=Trace(tuple(numbered), "llvm", name, root=str(count - 1), names={"0": "x", "1": "y"}, labels=labels)), ())


NAMES = ("diamond", "dense", "lost", "doubled", "assign", "store", "in place", "wide", "steps")


# What holds for every picture


def check_picture(picture: Picture, has_lines: bool = True) -> None:
    """Check that nothing lies on a text, no text is cut, every number stands in the words, and the SVG is harmless."""
    _check_texts(picture)
    _check_frames(picture)
    if has_lines:
        _check_lines(picture)
    _check_words(picture)
    root = ElementTree.fromstring(picture.to_svg())
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "title", "desc", "rect", "polyline", "polygon", "text"}
    assert picture.title and picture.description


def _check_texts(picture: Picture) -> None:
    found = sorted(boxes(picture))
    for index, (left, top, right, bottom, text) in enumerate(found):
        assert left >= 0 and top >= 0 and right <= picture.width and bottom <= picture.height, text
        for other in found[index + 1 :]:
            if other[0] >= right:
                break
            assert other[1] >= bottom or other[3] <= top, (text, other[4])


def _check_frames(picture: Picture) -> None:
    frames = [shape for shape in picture.shapes if isinstance(shape, Box)]
    for left, top, right, bottom, text in boxes(picture):
        for frame in frames:
            is_apart = right <= frame.x or left >= frame.x + frame.width or bottom <= frame.y or top >= frame.y + frame.height
            is_within = left >= frame.x and right <= frame.x + frame.width and top >= frame.y and bottom <= frame.y + frame.height
            assert is_apart or is_within, text


def _check_lines(picture: Picture) -> None:
    texts = boxes(picture)
    for shape in picture.shapes:
        if not isinstance(shape, Path):
            continue
        for (x0, y0), (x1, y1) in pairwise(shape.points):
            for left, top, right, bottom, text in texts:
                if max(x0, x1) <= left or min(x0, x1) >= right or max(y0, y1) <= top or min(y0, y1) >= bottom:
                    continue
                assert not crosses((x0, y0), (x1, y1), left, top, right, bottom), text


def _check_words(picture: Picture) -> None:
    words = {word.rstrip(":") for word in re.findall(r"[^\s,;()]+", picture.text)}
    for *_, text in boxes(picture):
        for part in re.findall(r"[^\s,;()]+", text):
            if any(c.isdigit() for c in part) and not part.endswith("\u2026"):
                assert part.rstrip(":") in words, (text, part)


def boxes(picture):
    """Return (left, top, right, bottom, text) of every label."""
    found = []
    for shape in picture.shapes:
        if isinstance(shape, Label):
            width = text_width(shape.text, shape.size)
            left = shape.x - {"start": 0.0, "middle": width / 2, "end": width}[shape.anchor]
            found.append((left, shape.y - shape.size / 2, left + width, shape.y + shape.size / 2, shape.text))
    return found


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

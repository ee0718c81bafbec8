"""Random graphs whose backward pass has one known fault, or none: the verdict must name that fault where a gradient is wrong, and its line."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from simple_magic import gradient_experiment
from simple_magic.autograd.verdicts import is_right

NODE = """
class Value:
  data: f64
  grad: f64

global tape: [Value]

fn Value.leaf(x: f64) -> Value:
entry:
  v = new Value(data: x, grad: 0.0)
  push @tape, v
  ret v

"""
WORDS = {
    "none": set(),
    "a write to a copy": {"lost", "partial"},
    "an overwritten sum": {"clobbered"},
    "an overwritten value": {"clobbered"},
    "a copy added back": {"doubled"},
    "a wrong slope": {"wrong"},
    "a forgotten edge": {"wrong", "never-written"},
}
"""What a gradient that is wrong may be called, by the fault."""


@dataclass(frozen=True)
class Program:
    """A model and its backward pass. line: where the fault is; 0 for one that has no cause in memory."""

    source: str
    inputs: dict[str, float]
    line: int


@dataclass(frozen=True)
class Edge:
    """A node, one of its parents, and the derivative: a number, or the value of another node."""

    node: int
    parent: int
    slope: str


def random_program(seed: int, fault: str) -> Program:
    """Return a model of up to seven operations; its backward has the fault at one random edge."""
    pick = random.Random(seed)
    count, edges, lines = pick.randint(1, 3), [], []
    last = count + pick.randint(1, 6)
    for node in range(count, last + 1):
        a, b = node - 1 if node == last else pick.randrange(node), pick.randrange(node)
        op = pick.choice(("add", "sub", "mul", "scale"))
        other = pick.choice(("2.0", "-3.0", "0.5"))
        lines.append(f"  z = mul n{a}.data, {other}" if op == "scale" else f"  z = {op} n{a}.data, n{b}.data")
        lines += [f"  n{node} = new Value(data: z, grad: 0.0)", f"  push @tape, n{node}"]
        slopes = {"add": ("1.0", "1.0"), "sub": ("1.0", "-1.0"), "mul": (f"n{b}.data", f"n{a}.data"), "scale": (other,)}[op]
        edges += [Edge(node, parent, slope) for parent, slope in zip((a, b), slopes)]
    edges.sort(key=lambda edge: -edge.node)
    params = [f"n{i}" for i in range(count)]
    head = [f"fn model({', '.join(f'{p}: Value' for p in params)}) -> Value:", "entry:", *lines, f"  ret n{last}", "", "fn Value.backward(r: Value):", "entry:"]
    body = [*NODE.splitlines(), *head, "  set_field r, grad, 1.0", *(f"  n{i} = index_get @tape, {i}" for i in range(last + 1))]
    products = [i for i, edge in enumerate(edges) if edge.slope.endswith("data")]
    faulty, line = pick.choice((fault == "an overwritten value" and products) or range(len(edges))), 0
    for i, edge in enumerate(edges):
        instructions, bad = backward_of(edge, fault if i == faulty else "none")
        line = len(body) + bad + 1 if bad is not None else line
        body += instructions
    return Program("\n".join([*body, "  ret", ""]), {p: pick.choice((0.5, -1.25, 2.0, 3.0, -0.75)) for p in params}, line)


def backward_of(edge: Edge, fault: str) -> tuple[list[str], int | None]:
    """Return what an edge does in backward, and which of it is the fault."""
    p = f"n{edge.parent}"
    slope = "7.0" if fault == "a wrong slope" else edge.slope
    share = [f"  g = get_field n{edge.node}, grad", f"  part = mul g, {slope}"]
    target = "c" if fault == "a write to a copy" else p
    arrive = [f"  old = get_field {target}, grad", "  sum = add old, part", f"  set_field {target}, grad, sum"]
    match fault:
        case "a write to a copy":
            return [*share, f"  c = aggregate_copy {p}", *arrive], 2
        case "an overwritten sum":
            return [*share, f"  set_field {p}, grad, part"], 2
        case "an overwritten value":
            used = edge.slope.removesuffix(".data") if edge.slope.endswith("data") else p
            return [f"  set_field {used}, data, 9.5", *share, *arrive], 0
        case "a copy added back":
            again = [f"  a = get_field {p}, grad", "  b = get_field c, grad", "  m = add a, b", f"  set_field {p}, grad, m"]
            return [*share, f"  c = aggregate_copy {p}", *arrive, *again], 9
        case "a forgotten edge":
            return [], None
        case _:
            return [*share, *arrive], None


@pytest.mark.parametrize("fault", WORDS)
def test_the_verdict_names_the_fault(fault):
    wrong = 0
    for seed in range(16):
        program = random_program(seed, fault)
        back_end = "llvm" if seed % 8 == 0 else "interpreter"
        report = gradient_experiment(program.source, "model", program.inputs, runs=[(back_end, "reference")], node="Value", controls=False)
        for verdict in report.verdict(back_end, "reference").values():
            if is_right(verdict.gradient, verdict.wanted):
                assert verdict.word == "ok" or "the derivative is zero at these inputs" in verdict.note, (seed, str(verdict))
                continue
            wrong += 1
            assert verdict.word in WORDS[fault], (seed, str(verdict))
            assert not program.line or verdict.cause.line == program.line, (seed, str(verdict))
    assert (wrong == 0) == (fault == "none"), "a fault that shows nowhere tests nothing"

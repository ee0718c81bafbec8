"""Control flow and call graph facts, against small programs and brute force."""

from __future__ import annotations

import random

from simple_magic.mir.analysis import (
    call_graph,
    callees,
    dominators,
    edge_writes,
    is_reducible,
    local_types,
    natural_loops,
    predecessors,
    reachable,
    reads,
    recursive_functions,
    reverse_postorder,
    successors,
    unassigns,
    writes,
)
from simple_magic.mir.model import Block, Function, Instruction, Param, const, local
from simple_magic.mir.text import parse_text
from simple_magic.mir.types import BOOL, F64, I64, UNIT


def graph(**edges: str) -> Function:
    """Return a function whose blocks jump as given: `graph(a="bc", b="a", c="")`."""
    blocks = []
    for label, targets in edges.items():
        match len(targets):
            case 0:
                last = Instruction("ret")
            case 1:
                last = Instruction("goto", labels=(targets,))
            case _:
                cases = tuple(const(I64, i) for i in range(len(targets) - 1))
                last = Instruction("switch", (const(I64, 0),), labels=tuple(targets), cases=cases)
        blocks.append(Block(label, (last,)))
    return Function("f", (), UNIT, tuple(blocks))


NESTED = graph(e="h", h="bx", b="i", i="jk", j="i", k="h", x="")


def test_order_and_reachability() -> None:
    assert reverse_postorder(NESTED)[0] == "e"
    order = reverse_postorder(NESTED)
    assert order.index("h") < order.index("b") < order.index("i") < order.index("k")
    assert reachable(graph(a="b", b="", c="b")) == {"a", "b"}
    assert predecessors(graph(a="bb", b="", c="b")) == {"a": (), "b": ("a", "c"), "c": ()}


def test_loops() -> None:
    loops = {loop.header: loop for loop in natural_loops(NESTED)}
    assert [loop.header for loop in natural_loops(NESTED)] == ["h", "i"]
    assert loops["h"].body == set("hbijk") and loops["h"].latches == ("k",) and (loops["h"].parent, loops["h"].depth) == (None, 1)
    assert loops["i"].body == set("ij") and (loops["i"].parent, loops["i"].depth) == ("h", 2)
    assert is_reducible(NESTED)
    (own,) = natural_loops(graph(a="ab", b=""))
    assert own.body == {"a"} and own.latches == ("a",)
    (two,) = natural_loops(graph(a="b", b="cd", c="b", d="b"))
    assert two.latches == ("c", "d")


def test_irreducible() -> None:
    crossed = graph(a="bc", b="c", c="bd", d="")
    assert not is_reducible(crossed)
    assert natural_loops(crossed) == []


def test_incomplete_functions() -> None:
    assert reverse_postorder(Function("f", (), UNIT, ())) == []
    assert dominators(Function("f", (), UNIT, ())) == {} and natural_loops(Function("f", (), UNIT, ())) == []
    assert successors(Block("a", ())) == () and successors(Block("a", (Instruction("nop"),))) == ()
    assert reachable(graph(a="z")) == {"a"}


def random_graph(source: random.Random) -> Function:
    labels = "abcdefgh"[: source.randrange(1, 9)]
    return graph(**{label: "".join(source.choices(labels, k=source.randrange(0, 4))) for label in labels})


def reach(function: Function, without: str | None = None) -> set[str]:
    edges = {b.label: successors(b) for b in function.blocks}
    seen, todo = set(), [function.blocks[0].label]
    while todo:
        label = todo.pop()
        if label not in seen and label != without:
            seen.add(label)
            todo += edges[label]
    return seen


def test_dominators_and_loops_against_brute_force() -> None:
    source = random.Random(7)
    for _ in range(1_500):
        function = random_graph(source)
        all_blocks = reach(function)
        idom = dominators(function)
        assert set(idom) == all_blocks == reachable(function)
        above = {b: {a for a in all_blocks if a == b or b not in reach(function, without=a)} for b in all_blocks}
        for block, parent in idom.items():
            assert above[block] == {block} | (above[parent] if parent else set())
        edges = {b.label: successors(b) for b in function.blocks}
        back = [(b, t) for b in all_blocks for t in edges[b] if t in above[b]]
        expected = {}
        for latch, header in back:
            body, todo = expected.setdefault(header, {header}), [latch]
            while todo:
                label = todo.pop()
                if label not in body:
                    body.add(label)
                    todo += [p for p in predecessors(function)[label] if p in all_blocks]
        loops = natural_loops(function)
        assert {loop.header: set(loop.body) for loop in loops} == expected
        for loop in loops:
            around = [other for other in loops if other.body > loop.body]
            assert loop.depth == len(around) + 1
            assert loop.parent == (min(around, key=lambda other: len(other.body)).header if around else None)


def test_long_chains_do_not_recurse() -> None:
    n = 5_000
    blocks = [Block(f"b{i}", (Instruction("if", (const(BOOL, True),), labels=(f"b{i + 1}", f"b{max(i - 1, 0)}")),)) for i in range(n)]
    function = Function("f", (), UNIT, (*blocks, Block(f"b{n}", (Instruction("ret"),))))
    assert len(natural_loops(function)) == n - 1 and is_reducible(function) and len(dominators(function)) == n + 1


PROGRAM = parse_text("""
fn even(n: i64) -> bool:
entry:
  r = call odd(n)
  ret r
fn odd(n: i64) -> bool:
entry:
  r = call even(n)
  ret r
fn self(n: i64) -> i64:
entry:
  r = invoke self(n) then good unwind bad(p, t)
good:
  ret r
bad:
  resume p, t
fn leaf(n: i64) -> i64:
entry:
  ret n
fn takes_value(g: fn(i64) -> i64) -> i64:
entry:
  r = call_indirect g(1)
  ret r
fn makes_value() -> i64:
entry:
  g = func back
  r = call takes_value(g)
  ret r
fn back(n: i64) -> i64:
entry:
  r = call makes_value()
  ret r
""")


def test_calls() -> None:
    by_name = {f.name: f for f in PROGRAM.functions}
    assert callees(by_name["makes_value"]) == {"takes_value"}
    assert call_graph(PROGRAM)["takes_value"] == {"back"}
    assert recursive_functions(PROGRAM) == {"even", "odd", "self", "takes_value", "makes_value", "back"}


def test_long_call_chains_do_not_recurse() -> None:
    def calls(index: int) -> Function:
        return Function(f"f{index}", (), UNIT, (Block("entry", (Instruction("call", name=f"f{(index + 1) % 3_000}"), Instruction("ret"))),))

    from simple_magic.mir.model import Module

    assert len(recursive_functions(Module(functions=tuple(calls(i) for i in range(3_000))))) == 3_000


def test_reads_and_writes() -> None:
    source = "fn f(xs: [[i64]], i: i64):\nentry:\n  push xs[i], @g[xs[0][i]]\n  y = copy move i\n  drop xs\n  ret\n"
    push, move, drop, _ = parse_text(source).functions[0].blocks[0].instructions
    assert reads(push) == ("xs", "i", "xs", "i") and writes(push) == ()
    assert (reads(move), writes(move), unassigns(move)) == (("i",), ("y",), ("i",))
    assert (reads(drop), unassigns(drop)) == (("xs",), ("xs",))
    invoke = PROGRAM.functions[2].blocks[0].instructions[0]
    assert writes(invoke) == ("r", "p", "t") and (edge_writes(invoke, 0), edge_writes(invoke, 1)) == (("r",), ("p", "t"))


def test_local_types() -> None:
    add = Instruction("add", (local("a"), local("a")), dest="b", dest_type=I64)
    again = Instruction("const", (const(F64, 1.0),), dest="b", dest_type=F64)
    function = Function("f", (Param("a", I64),), UNIT, (Block("entry", (add, again)),))
    assert local_types(function) == {"a": I64, "b": I64}
    assert local_types(PROGRAM.functions[2]) == {"n": I64, "p": I64, "t": I64}

"""Lowering: what its result consists of, and what it computes on the raw machine. Values and traps of everything are compared by the filetests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest
from raw_machine import RULES, Code, Machine, RawTrap
from samples import SAMPLES

from simple_magic.backends.base import Limits, Unit
from simple_magic.backends.llvm import LlvmBackend
from simple_magic.mir.analysis import local_types, natural_loops, reads
from simple_magic.mir.diagnostics import Reporter
from simple_magic.mir.model import Function, Instruction, Module
from simple_magic.mir.ops import CORE, USER_OPS
from simple_magic.mir.resolve import Names
from simple_magic.mir.text import format_text, parse_text
from simple_magic.mir.types import F64, I64, TEXT, UNIT, is_scalar
from simple_magic.mir.verify import check, verify
from simple_magic.passes import polls
from simple_magic.passes.fuel import add_fuel
from simple_magic.passes.lower import LOWER_RULES, Lowered, lower, lower_runtime, touches_globals
from simple_magic.passes.polls import may_run_long, may_trap
from simple_magic.runtime.library import runtime_module


def checked(source: str) -> Module:
    reporter = Reporter()
    module = check(parse_text(source), Names(), reporter)
    assert not reporter.errors(), reporter.errors()
    return module


def lowered(source: str, fuel: bool = False) -> Lowered:
    module = checked(source)
    if fuel:
        module = add_fuel(module)
    return lower(module, Names.of(module), {g.name: slot for slot, g in enumerate(module.globals)})


def function(low: Lowered, name: str) -> Function:
    return next(f for f in low.module.functions if f.name == name)


def code(f: Function) -> list[Instruction]:
    return [ins for block in f.blocks for ins in block.instructions]


def ops(f: Function) -> list[str]:
    return [ins.op for ins in code(f)]


KINDS = """
class Node:
  value: i64
  next: Node?

struct Pair:
  a: i64
  b: text

struct Deep:
  pairs: [Pair; 2]
  names: {text: [i64]}
  maybe: i16?
  both: (u8, Pair)

enum Tree:
  Leaf
  Fork(left: Tree, right: Tree)
  Value(v: f64, node: Node)

global table: {i64: Deep}

extern fn host(x: f64, ...) -> text

fn everything(d: Deep, t: Tree, n: Node, k: i64, f: fn(i64) -> i64) -> bool:
entry:
  z: Deep = zero
  same = eq z, d
  u: Tree = variant Tree.Fork(right: t, left: t)
  other = ne t, u
  both = and same, other
  index_set @table, k, d
  set_field @table[k].pairs[1], a, 3
  push @table[k].names["x"], d.pairs[k].a
  has = contains @table[k].names["x"], k
  c = aggregate_copy @table[k]
  g = closure helper(k)
  v = call_indirect g(1)
  w = call_indirect f(v)
  s = call host(1.5, w, d, true)
  print s
  print 2.5
  r = invoke host(2.0) then fine unwind bad(p, q)
fine:
  r2 = invoke helper(k, w) then good unwind bad2(p2, q2)
good:
  ret has
bad:
  resume p, q
bad2:
  throw p2, q2

fn helper(a: i64, b: i64) -> i64:
entry:
  x = pow a, b
  y = checked_mul x, b
  z = rem y, a
  ret z
"""


def test_every_operation_has_a_rule() -> None:
    assert set(LOWER_RULES) == {*USER_OPS, "charge"}


@pytest.mark.parametrize("fuel", [False, True])
@pytest.mark.parametrize("source", [*SAMPLES.values(), KINDS])
def test_the_result_is_core_scalar_and_knows_its_origins(source: str, fuel: bool) -> None:
    low = lowered(source, fuel)
    module = low.module
    assert not (module.types or module.globals or module.externs)
    verify(module, internal=True)
    assert parse_text(format_text(module), internal=True) == module
    for f in module.functions:
        assert all(is_scalar(t) and t != UNIT for t in local_types(f).values())
        assert not [ins.op for ins in code(f) if ins.op not in CORE]
        assert not [ins for ins in code(f) if ins.origin is None]
        assert not [a for ins in code(f) for a in ins.args if getattr(a, "hops", ()) or getattr(a, "is_global", False) or getattr(a, "move", False)]
    names = {f.name for f in module.functions}
    assert set(low.table) <= names
    assert set(low.signatures) <= names
    assert {ins.attribute("site") for f in module.functions for ins in code(f) if ins.op == "host_call"} == set(range(len(low.host_calls)))


def test_host_calls_carry_the_static_types() -> None:
    calls = lowered(KINDS).host_calls
    assert [call.name for call in calls] == ["host", "host", "rt_print", "rt_float_text", "rt_print"]
    assert calls[0].arg_types[:2] == (F64, I64)
    assert calls[0].result == TEXT
    assert calls[3].arg_types == (F64,)


def test_function_values_go_through_thunks() -> None:
    low = lowered(KINDS)
    assert low.table == ("thunk$helper$1",)
    assert [p.type for p in function(low, "thunk$helper$1").params] == [I64, I64]


# On the raw machine


def _not(m: Machine, ins: Instruction, values: list[int], types: Mapping[str, object]) -> int:
    return not values[0]


def _or(m: Machine, ins: Instruction, values: list[int], types: Mapping[str, object]) -> int:
    return values[0] or values[1]


def _nothing(m: Machine, ins: Instruction, values: list[int], types: Mapping[str, object]) -> None:
    return None


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a function of a program without floats, texts, externs and function values."""
    for op, rule in (("not", _not), ("or", _or), ("stack_check", _nothing)):
        if op not in RULES:
            monkeypatch.setitem(RULES, op, rule)

    def run_function(source: str, name: str, *args: int) -> int:
        low = lowered(source)
        machine = Machine(Code(Module(functions=(*lower_runtime(runtime_module()).functions, *low.module.functions))), 1 << 20)
        machine.blocks_left = 1_000_000
        return machine.run(function(low, name), args)

    return run_function


EQUAL = """
class Node:
  value: i64

struct Pair:
  a: i32
  n: Node

struct All:
  pairs: [Pair]
  by_key: {i64: [Pair]}
  maybe: i16?
  deep: (u8, Pair)?
  tree: Tree

enum Tree:
  Leaf
  Fork(left: Tree, right: Tree)
  Value(v: i8)

fn make(n: Node, change: i64) -> All:
entry:
  p = new Pair(n: n, a: 1i32)
  is_it = eq change, 1
  other = new Node(value: 1)
  m = select is_it, other, n
  q = new Pair(n: m, a: 1i32)
  pairs = array p, q
  by_key: {i64: [Pair]} = dict
  index_set by_key, 7, pairs
  empty: [Pair] = array
  index_set by_key, -1, empty
  is_it = eq change, 2
  key = select is_it, 9, 8
  index_set by_key, key, empty
  maybe: i16? = some 5i16
  none: i16? = const nil
  is_it = eq change, 3
  maybe = select is_it, none, maybe
  is_it = eq change, 4
  small = select is_it, 3u8, 2u8
  both = tuple small, p
  deep = some both
  leaf = variant Tree.Leaf
  v = variant Tree.Value(v: 4i8)
  is_it = eq change, 5
  v = select is_it, leaf, v
  tree = variant Tree.Fork(left: v, right: leaf)
  r = new All(pairs: pairs, by_key: by_key, maybe: maybe, deep: deep, tree: tree)
  ret r

fn compare(x: i64, y: i64) -> i64:
entry:
  n = new Node(value: 1)
  a = call make(n, x)
  b = call make(n, y)
  same = eq a, b
  different = ne a, b
  several = array a, a
  found = contains several, b
  as_expected = and same, found
  wrong = eq same, different
  if wrong then bad else good
good:
  r: i64 = cast as_expected
  ret r
bad:
  ret -1
"""


@pytest.mark.parametrize("x", range(6))
@pytest.mark.parametrize("y", range(6))
def test_aggregates_are_compared_by_structure(run: Callable[..., int], x: int, y: int) -> None:
    assert run(EQUAL, "compare", x, y) == (x == y and x != 1)


def test_checked_multiplication_of_64_bits(run: Callable[..., int]) -> None:
    source = "fn f(a: i64, b: i64) -> i64:\nentry:\n  r = checked_mul a, b\n  ret r\n"
    low, high = -(1 << 63), (1 << 63) - 1
    for a in (low, low + 1, -(1 << 32), -3, -1, 0, 1, 2, 1 << 31, 1 << 32, high - 1, high):
        for b in (low, -2, -1, 0, 1, 3, 1 << 31, (1 << 32) + 1, high):
            if low <= a * b <= high:
                assert run(source, "f", a, b) == a * b
            else:
                with pytest.raises(RawTrap, match="integer_overflow"):
                    run(source, "f", a, b)


COUNTED = """
fn up(i: i64, n: i64) -> i64:
entry:
  s = const 0
  goto head
head:
  more = lt i, n
  if more then body else out
body:
  s = add s, 1
  i = add i, 1
  goto head
out:
  last: i64 = cast more
  s = sub s, last
  ret s

fn down(i: i64, n: i64) -> i64:
entry:
  s = const 0
  goto head
head:
  more = lt n, i
  if more then body else out
body:
  s = add s, 1
  i = sub i, 1
  goto head
out:
  ret s

fn bottom(i: i64, n: i64) -> i64:
entry:
  s = const 0
  goto head
head:
  s = add s, 1
  i = add i, 1
  more = lt i, n
  if more then head else out
out:
  ret s
"""
CHAINED = """
fn chained(n: i64) -> i64:
entry:
  s = const 0
  i = const 0
  goto first
first:
  more = lt i, n
  if more then one else second
one:
  s = add s, 1
  i = add i, 1
  goto first
second:
  more = gt i, 0
  if more then two else outer
two:
  s = add s, 10
  i = sub i, 1
  goto second
outer:
  j = const 0
  i = add i, 1
  big = gt i, n
  if big then out else inner
inner:
  more = lt j, 4
  if more then three else outer
three:
  s = add s, 100
  j = add j, 1
  goto inner
out:
  ret s
"""
SMALLEST, LARGEST = -(1 << 63), (1 << 63) - 1


@pytest.mark.parametrize("longest", [2, 3, 65_536])
def test_strips_do_not_change_a_loop(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    monkeypatch.setattr(polls, "LONGEST_STRIP", longest)
    monkeypatch.setattr(polls, "SHORTEST_STRIP", 2)
    for low, high in ((0, 0), (0, 1), (0, 10), (5, 1), (LARGEST - 7, LARGEST), (LARGEST, LARGEST), (SMALLEST, SMALLEST + 5)):
        assert run(COUNTED, "up", low, high) == max(0, high - low)
        assert run(COUNTED, "down", high, low) == max(0, high - low)
    assert run(COUNTED, "bottom", 0, 10) == 10
    assert run(CHAINED, "chained", 5) == 5 + 50 + 5 * 400


# Polls and stack checks


def test_counted_loops_poll_outside() -> None:
    low = lowered(COUNTED)
    for f in low.module.functions:
        inner = max(natural_loops(f), key=lambda loop: loop.depth)
        assert inner.depth == 2
        blocks = {block.label: block for block in f.blocks}
        assert "poll" not in [ins.op for label in inner.body for ins in blocks[label].instructions]
        assert ops(f).count("poll") == 1


LOOPS = """
global counter: i64

fn calls(n: i64) -> i64:
entry:
  n = call less(n)
  more = gt n, 0
  if more then entry else out
out:
  ret n

fn less(n: i64) -> i64:
entry:
  m = sub n, 1
  ret m

fn irreducible(n: i64) -> i64:
entry:
  first = gt n, 5
  if first then a else b
a:
  n = sub n, 1
  big = gt n, 5
  if big then b else out
b:
  n = sub n, 2
  big = gt n, 3
  if big then a else out
out:
  ret n

fn pure(n: i64) -> i64:
entry:
  m = mul n, 2
  ret m

fn divides(n: i64) -> i64:
entry:
  m = div 10, n
  ret m

fn passes_on(n: i64) -> i64:
entry:
  m = call divides(n)
  ret m

fn even(n: i64) -> bool:
entry:
  done = le n, 0
  if done then yes else no
yes:
  ret true
no:
  m = sub n, 1
  r = call odd(m)
  ret r

fn odd(n: i64) -> bool:
entry:
  r = call even(n)
  r = not r
  ret r

fn values(f: fn(i64) -> i64) -> i64:
entry:
  r = call_indirect f(1)
  ret r

fn speaks():
entry:
  print 1
  ret
"""


def test_every_cycle_polls() -> None:
    low = lowered(LOOPS + CHAINED + COUNTED)
    for name in ("calls", "irreducible", "chained", "up", "down", "bottom"):
        f = function(low, name)
        bounded = {local for local in local_types(f) if local.startswith(("near$", "limit$"))}
        polling = {block.label for block in f.blocks if any(ins.op == "poll" or bounded & {ins.dest, *reads(ins)} for ins in block.instructions)}
        edges = {block.label: set(block.terminator.labels) - polling for block in f.blocks if block.label not in polling}
        while free := [label for label, targets in edges.items() if not targets & edges.keys()]:
            for label in free:
                del edges[label]
        assert not edges, f"{name} has a cycle without a poll"
        assert f.entry.label not in {label for block in f.blocks for label in block.terminator.labels}


def test_stack_checks() -> None:
    many = "".join(f"  x{i} = add n, {i}\n  n = add n, x{i}\n" for i in range(600))
    low = lowered(LOOPS + f"\nfn many(n: i64) -> i64:\nentry:\n{many}  ret n\n")
    assert {f.name for f in low.module.functions if f.entry.instructions[0].op == "stack_check"} == {"even", "odd", "values", "many"}


def test_a_long_chain_of_calls_is_checked() -> None:
    chain = "".join(f"fn f{i}(n: i64) -> i64:\nentry:\n  m = call f{i + 1}(n)\n  ret m\n" for i in range(100))
    low = lowered(chain + "fn f100(n: i64) -> i64:\nentry:\n  ret n\n")
    checked_ones = [f.entry.instructions[0] for f in low.module.functions if "stack_check" in ops(f)]
    assert 0 < len(checked_ones) < 10
    assert all(0 < ins.attribute("frame") <= 2 * polls.UNCHECKED_BYTES for ins in checked_ones)  # type: ignore[operator]


def test_who_may_trap() -> None:
    low = lowered(LOOPS)
    trapping = may_trap(low.module, may_trap(lower_runtime(runtime_module()), frozenset()))
    assert trapping == {f.name for f in low.module.functions} - {"less", "pure"}


def test_who_may_run_long() -> None:
    assert may_run_long(lowered(LOOPS).module) == {"calls", "irreducible", "even", "odd", "values", "speaks", "_print$0"}


@pytest.mark.parametrize(
    ("body", "touches"),
    [
        ("  x = load_global @n\n", False),
        ("  store_global @n, 5\n", False),
        ("  x = load_global @t\n", False),
        ('  store_global @t, "a"\n', True),
        ("  x = load_global @xs\n", True),
        ("  push @xs, 5\n", True),
        ("  x = index_get @xs, 0\n", True),
    ],
)
def test_who_touches_globals(body: str, touches: bool) -> None:
    source = f"global n: i64\nglobal t: text\nglobal xs: [i64]\nfn f():\nentry:\n{body}  ret\n"
    assert touches_globals(checked(source)) == touches


# What optimisers need


ELEMENTWISE = """
fn multiply(a: [f64], b: [f64], c: [f64], n: i64):
entry:
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else out
body:
  x = index_get a, i
  y = index_get b, i
  z = mul x, y
  index_set c, i, z
  i = add i, 1
  goto head
out:
  ret
"""


def test_headers_are_read_outside_of_loops() -> None:
    f = function(lowered(ELEMENTWISE), "multiply")
    inside = {label for loop in natural_loops(f) for label in loop.body}
    header_reads = [block.label for block in f.blocks for ins in block.instructions if ins.op == "raw_load" and ins.attribute("alias") == "header"]
    assert len(header_reads) == 6
    assert not inside & set(header_reads)


def test_headers_that_change_are_read_again() -> None:
    source = ELEMENTWISE.replace("  index_set c, i, z\n", "  push c, z\n")
    f = function(lowered(source), "multiply")
    inside = {label for loop in natural_loops(f) for label in loop.body}
    assert inside & {block.label for block in f.blocks for ins in block.instructions if ins.op == "raw_load" and ins.attribute("alias") == "header"}


SUM = """
fn sum(a: [i64]) -> i64:
entry:
  i = const 0
  s = const 0
  goto head
head:
  n = len a
  more = lt i, n
  if more then body else out
body:
  x = index_get a, i
  s = add s, x
  i = add i, 1
  goto head
out:
  ret s
"""


class QuietHost:
    """A host for programs that need nothing from it."""

    limits = Limits(memory=1 << 24)

    def call_extern(self, *args: object) -> object:
        raise AssertionError("the program has no externs")

    def write(self, text: str) -> None:
        raise AssertionError("the program prints nothing")

    def poll(self) -> None:
        return None


@pytest.mark.parametrize(("source", "wanted"), [(ELEMENTWISE, r"load <\d+ x double>"), (SUM, r"load <\d+ x i64>")])
def test_llvm_vectorises_checked_polled_loops(source: str, wanted: str) -> None:
    backend = LlvmBackend(QuietHost())
    try:
        program = backend.compile(Unit(checked(source), "key"), 2)
        assert re.search(wanted, program.optimized_ir)
    finally:
        backend.close()

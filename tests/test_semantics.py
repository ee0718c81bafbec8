"""The semantics pass: which copies each model makes, where, and what stays as written. What programs compute is in `filetests/semantics`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from simple_magic import LocalExecutionManager, Trap
from simple_magic.backends.base import Limits, Unit
from simple_magic.backends.interpreter import Interpreter
from simple_magic.mir.diagnostics import Origin, Reporter
from simple_magic.mir.model import Instruction, Module
from simple_magic.mir.ops import OPS
from simple_magic.mir.resolve import Names
from simple_magic.mir.text import format_text, parse_text
from simple_magic.mir.verify import check, verify
from simple_magic.passes.fuel import add_fuel
from simple_magic.passes.semantics import HOPS, KINDS, MODELS, OPERANDS, POSITIONS, RESULTS, apply_semantics

FILES = [p for folder in ("run", "semantics") for p in sorted((Path(__file__).parent / "filetests" / folder).glob("*.mir"))]


def resolved(source: str) -> Module:
    module, reporter = parse_text(source), Reporter()
    found = check(module, Names.of(module), reporter)
    assert not reporter.errors(), reporter.errors()
    return found


def applied(source: str, model: str, **sites) -> Module:
    module = resolved(source)
    rewritten = apply_semantics(module, model, Names.of(module), **sites)
    verify(rewritten, internal=True)
    return rewritten


def instructions(module: Module) -> list[Instruction]:
    return [i for f in module.functions for b in f.blocks for i in b.instructions]


def copies(module: Module) -> list[tuple[str, object]]:
    """Return (position, operand or hop) of every inserted copy."""
    return [(i.attribute("position"), i.attribute("hop", i.attribute("operand"))) for i in instructions(module) if i.attribute("position")]


def run(module: Module, name: str) -> object:
    host = SimpleNamespace(limits=Limits(), poll=lambda: None)
    return Interpreter(host).compile(Unit(module, "key"), 0).call(name, [])


# Models as data


def test_models_say_something_about_every_position():
    for model in MODELS.values():
        assert set(model.copies) == set(POSITIONS), model.name
        assert all(kinds <= set(KINDS) for kinds in model.copies.values())
        assert all(hop in HOPS and kind in KINDS for rule in (model.receivers, model.assignments) for hop, kind in rule.actions)
        assert model.doc
    assert tuple(MODELS) == ("reference", "value", "contract", "interp_2026_02", "interp_2026_08", "jit_2026_09")


def test_positions_belong_to_operations():
    assert {*OPERANDS.values(), *RESULTS.values(), "dict_read"} == set(POSITIONS)
    assert {*OPERANDS, *RESULTS} <= set(OPS)


TYPES = {"struct": "S", "class": "C", "array": "[i64]", "dict": "{i64: i64}"}
PRELUDE = """
struct S:
  n: i64
class C:
  n: i64
struct Box:
  a: T
enum E:
  V(a: T)
extern fn host(x: i64, ...)
fn make() -> T:
entry:
  unreachable
fn take(x: T):
entry:
  unreachable
fn stay(x: T, n: i64):
entry:
  unreachable
"""
LINES = {
    "bind": ["y = copy x", "y = copy move x", "y = select true, x, x"],
    "argument": ["call take(x)", "f = func take\n  call_indirect f(x)", "call host(1, x)", "call take(o.a)"],
    "initialiser": [
        "y = array x",
        "y: [T; 1] = array x",
        "y = array_fill x, 2",
        "y = tuple x",
        "y = new Box(a: x)",
        "y = variant E.V(a: x)",
        "y = some x",
        "y = ref x",
    ],
    "element_write": ["index_set xs, 0, x", "index_set d, 1, x", "push xs, x", "insert xs, 0, x", "store p, x"],
    "field_write": ["set_field o, a, x"],
    "element_read": ["y = index_get xs, 0", "y = payload e, V.a", "y = unwrap s", "y = load p", "y = pop xs", "y = remove xs, 0"],
    "dict_read": ["y = index_get d, 1", "y = remove d, 1"],
    "field_read": ["y = get_field o, a", "y = get_field t, 0"],
    "capture": ["y = closure take(x)"],
}
SHARING = [
    "pop xs",
    "remove d, 1",
    "b = eq x, x",
    "y = slice xs, 0, 0",
    "y = concat xs, xs",
    "y = values d",
    "y = contains xs, x",
    "y = call make()",
    "y = len xs",
    "drop x",
    "y = is_some s",
]


def one_line(kind: str, line: str, result: str = "", end: str = "ret") -> str:
    types = TYPES[kind]
    params = f"x: {types}, xs: [{types}], d: {{i64: {types}}}, o: Box, e: E, t: ({types},), s: {types}?, p: ptr<{types}>"
    return PRELUDE.replace("T", types) + f"fn f({params}){result}:\nentry:\n  {line.replace('T', types)}\n  {end}\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_each_position_copies_the_kinds_of_the_model(model, kind):
    for position, lines in LINES.items():
        for line in lines:
            found = [where for where, _ in copies(applied(one_line(kind, line), model)) if where in POSITIONS]
            wanted = [position] if kind in MODELS[model].copies[position] else []
            assert found == wanted, (model, kind, line)
    for line in SHARING:
        assert copies(applied(one_line(kind, line), model)) == [], (model, kind, line)
    wanted = ["return"] if kind in MODELS[model].copies["return"] else []
    assert [p for p, _ in copies(applied(one_line(kind, "nop", f" -> {TYPES[kind]}", "ret x"), model))] == wanted
    invoke = one_line(kind, "nop", end="invoke take(x) then out unwind out(c, v)\nout:\n  ret")
    assert [p for p, _ in copies(applied(invoke, model))] == (["argument"] if kind in MODELS[model].copies["argument"] else [])


@pytest.mark.parametrize(("kind", "t"), [("struct", "S"), ("array", "[i64]"), ("dict", "{i64: i64}")])
@pytest.mark.parametrize("model", MODELS)
def test_globals(model, kind, t):
    source = f"struct S:\n  n: i64\nglobal g: {t}\nfn f(x: {t}):\nentry:\n  store_global @g, x\n  y = load_global @g\n  ret\n"
    wanted = [position for position in ("global_write", "global_read") if kind in MODELS[model].copies[position]]
    assert [p for p, _ in copies(applied(source, model))] == wanted


def test_what_cannot_be_written_is_never_copied():
    source = """
enum E:
  V(xs: [i64])
fn f(t: text, p: (i64, [i64]), o: [i64]?, e: E, n: i64):
entry:
  a = copy t
  b = copy p
  c = copy o
  d = copy e
  g = array o, o
  h = index_get g, n
  ret
"""
    assert copies(applied(source, "value")) == []


# What the pass keeps


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_programs_stay_as_written(path):
    module = resolved(path.read_text(encoding="utf-8"))
    names = Names.of(module)
    written = instructions(module)
    for model in MODELS:
        rewritten = apply_semantics(module, model, names)
        verify(rewritten, internal=True)
        made: dict[Origin | None, list[str]] = {}
        for ins in instructions(rewritten):
            made.setdefault(ins.origin, []).append(ins.op)
        assert list(made) == [ins.origin for ins in written], "every instruction is there, in order"
        assert all(ins.op in made[ins.origin] for ins in written)
        read_back = parse_text(format_text(rewritten), internal=True)
        assert format_text(read_back) == format_text(rewritten)


def test_reference_changes_nothing():
    module = resolved(FILES[0].read_text(encoding="utf-8"))
    assert apply_semantics(module, "reference", Names.of(module)) is module


def test_fuel_comes_first_and_stays():
    module = resolved("fn f(x: [i64]) -> [i64]:\nentry:\n  y = copy x\n  ret y\n")
    rewritten = apply_semantics(add_fuel(module), "value", Names.of(module))
    verify(rewritten, internal=True)
    assert [i.op for i in instructions(rewritten)] == ["charge", "aggregate_copy", "copy", "aggregate_copy", "ret"]


def test_new_names_avoid_those_that_are_there():
    module = resolved("fn f(x: [i64]) -> [i64]:\nentry:\n  y = copy x\n  z = copy y\n  ret z\n")
    once = apply_semantics(module, "value", Names.of(module))
    twice = apply_semantics(replace(once, name=""), "value", Names.of(module))
    verify(twice, internal=True)


def test_an_unknown_model_is_a_key_error():
    module = resolved("fn f():\nentry:\n  ret\n")
    with pytest.raises(KeyError):
        apply_semantics(module, "values", Names.of(module))


# Suppressing and forcing copies

SEED = """
class Tensor:
  value: f64
  grad: f64

fn Tensor.apply_gradient(self: Tensor, g: f64):
entry:
  old = get_field self, grad
  new_grad = add old, g
  set_field self, grad, new_grad
  ret

fn main() -> f64:
entry:
  t = new Tensor(value: 3.0, grad: 0.0)
  arr = array t
  e = index_get arr, 0
  call Tensor.apply_gradient(e, 2.5)
  g = get_field t, grad
  ret g
"""
INTO_ARRAY = (Origin("main", "entry", 1), "initialiser")
OUT_OF_ARRAY = (Origin("main", "entry", 2), "element_read")


@pytest.mark.parametrize(("suppressed", "gradient"), [((), 0.0), ((INTO_ARRAY,), 0.0), ((OUT_OF_ARRAY,), 0.0), ((INTO_ARRAY, OUT_OF_ARRAY), 2.5)])
def test_the_seed_program_copies_twice(suppressed, gradient):
    """Undoing either copy alone changes nothing."""
    module = applied(SEED, "value", suppress=frozenset(suppressed))
    assert len(copies(module)) == 2 - len(suppressed)
    assert run(module, "main") == gradient


@pytest.mark.parametrize("site", [INTO_ARRAY, OUT_OF_ARRAY])
def test_a_forced_copy_loses_the_gradient(site):
    module = applied(SEED, "reference", force=frozenset((site,)))
    assert [p for p, _ in copies(module)] == [site[1]]
    assert run(module, "main") == 0.0


PLACE = """
struct Inner:
  n: i64
struct Outer:
  inner: Inner
fn main() -> i64:
entry:
  i = new Inner(n: 1)
  o = new Outer(inner: i)
  set_field o.inner, n, 2
  ret i.n
"""
WRITE = Origin("main", "entry", 2)


def test_hops_can_be_suppressed_and_forced():
    initialiser = (Origin("main", "entry", 1), "initialiser")
    assert run(applied(PLACE, "reference"), "main") == 2
    assert run(applied(PLACE, "reference", force=frozenset(((WRITE, "hop"),))), "main") == 1
    shared = frozenset((initialiser,))
    assert run(applied(PLACE, "value", suppress=shared), "main") == 1
    assert run(applied(PLACE, "value", suppress=shared | {(WRITE, "hop")}), "main") == 2


# Places and traps

TRAPPING = """
struct Account:
  entries: [i64]
struct Bank:
  account: Account
global bank: Bank
global accounts: [Account]

fn Account.book(self: Account, amount: i64):
entry:
  push self.entries, amount
  valid = gt amount, 0
  assert valid, "amounts are positive"
  ret

fn open():
entry:
  a: Account = zero
  b = new Bank(account: a)
  store_global @bank, b
  ret

fn book(amount: i64) -> i64:
entry:
  call Account.book(@bank.account, amount)
  n = len @bank.account.entries
  ret n

fn count() -> i64:
entry:
  n = len @bank.account.entries
  ret n
"""


@pytest.mark.parametrize(("model", "after"), [("reference", 2), ("value", 1), ("contract", 1), ("interp_2026_08", 1)])
def test_a_trap_stores_nothing_back(model, after):
    with LocalExecutionManager("interpreter", semantics=model) as manager:
        manager.compile(TRAPPING)
        manager.execute("open")
        assert manager.execute("book", 5) == 1
        with pytest.raises(Trap, match="amounts are positive"):
            manager.execute("book", -5)
        assert manager.execute("count") == after


def test_what_a_losing_hop_hides_is_not_stored_back():
    source = """
struct A:
  n: i64
struct B:
  items: [A]
fn A.set(self: A):
entry:
  set_field self, n, 1
  ret
fn f(b: B):
entry:
  call A.set(b.items[0])
  ret
"""
    late = applied(source, "interp_2026_08")
    early = applied(source, "interp_2026_02")
    hops = [("hop", 1), ("hop", 2)]
    assert copies(late) == copies(early) == hops
    assert [i.op for i in instructions(late)][-3:] == ["index_set", "set_field", "ret"], "innermost first"
    assert [i.op for i in instructions(early)][-2:] == ["call", "ret"]


def test_a_copy_as_written_can_be_left_out_under_every_model():
    source = "class C:\n  x: f64\nfn f(c: C) -> C:\nentry:\n  d = aggregate_copy c\n  ret d\n"
    site = (Origin("f", "entry", 0), "written")
    for model in MODELS:
        kept, shared = applied(source, model), applied(source, model, suppress=frozenset({site}))
        assert instructions(kept)[0].op == "aggregate_copy" and instructions(shared)[0].op == "copy"

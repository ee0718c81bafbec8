"""The trace: the same events on every back end, the same results as without it, and what each event says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from pictures import DENSE, DIAMOND

from simple_magic import LocalExecutionManager, MirError
from simple_magic.autograd.experiment import run_experiment
from simple_magic.autograd.events import Event, Trace, diff, load_trace, trace_from_lines
from simple_magic.mir.resolve import Names
from simple_magic.mir.verify import verify
from simple_magic.passes.provenance import Fields
from simple_magic.passes.semantics import HOP, MODELS
from simple_magic.passes.shadows import Options
from simple_magic.passes.trace import add_trace

BACKENDS = ("interpreter", "llvm", "cranelift")

OWN = """
{kind} Node:
  value: f64
  grad: f64?
  inputs: [Node]

global tape: [Node]

fn leaf(x: f64) -> Node:
entry:
  none: f64? = const nil
  inputs: [Node] = array
  n = new Node(value: x, grad: none, inputs: inputs)
  ret n

fn Node.receive(self: Node, amount: f64):
entry:
  old = get_field self, grad
  has_one = is_some old
  if has_one then more else first
more:
  before = unwrap old
  sum = add amount, before
  new_grad = some sum
  set_field self, grad, new_grad
  ret
first:
  given = some amount
  set_field self, grad, given
  ret

fn twice(x: Node) -> Node:
entry:
  v = get_field x, value
  v = mul v, 2.0
  none: f64? = const nil
  inputs = array x
  n = new Node(value: v, grad: none, inputs: inputs)
  ret n

fn model(x: Node) -> Node:
entry:
  y = call twice(x)
  ret y

fn backward(root: Node):
entry:
  one = some 1.0
  set_field root, grad, one
  inputs = get_field root, inputs
  g = get_field root, grad
  seed = unwrap g
  amount = mul seed, 2.0
  call Node.receive(inputs[0], amount)
  call Node.receive(inputs[0], amount)
  ret
"""


MAIN = ("reference", "contract", "value")


def run_all(source, inputs, models, **options):
    """Run in these models on every back end; unoptimised, which LLVM compiles faster, but for the first case."""
    level = 2 if options.get("steps") else 0
    with LocalExecutionManager("interpreter", opt_level=level) as manager:
        return run_experiment(source, "model", inputs, backends=BACKENDS, models=models, manager=manager, **options)


@pytest.mark.parametrize(
    ("source", "inputs", "models", "options"),
    [(DIAMOND, {"x": 2.0, "y": 3.0}, tuple(MODELS), {"steps": 1, "lr": 0.1}),
      (DIAMOND, {"x": 2.0, "y": 3.0}, MAIN, {"backward": "Value.store_backward", "reader": "Value.stored_gradient", "store": "grads"}),
     (DENSE, {"x": [1.0, -2.0], "w": [0.5, 3.0]}, MAIN, {"node": "Dense"}),
     (OWN.format(kind="class"), {"x": 2.0}, tuple(MODELS), {"node": "Node", "leaf": "leaf", "backward": "backward", "value": "value", "shares": True}),
     (OWN.format(kind="struct"), {"x": 2.0}, MAIN, {"node": "Node", "leaf": "leaf", "backward": "backward", "value": "value"})],
    ids=["diamond", "store", "dense", "own class", "own struct"],
)  # fmt: skip
def test_back_ends_record_the_same_events_under_every_model(source, inputs, models, options):
    seen = run_all(source, inputs, models, **options)
    for semantics in models:
        first, *others = (seen.run(backend, semantics) for backend in BACKENDS)
        assert first.trace is not None and first.trace.events and first.trace.is_complete, (semantics, first.note)
        for run in (first, *others):
            assert run.is_faithful is True and run.trap is None and not run.note, (run.backend, semantics, run.note)
            assert run.trace.events == first.trace.events
            assert (run.gradients, run.losses, run.values) == (first.gradients, first.losses, first.values)
            assert replace(run.trace, backend="") == replace(first.trace, backend="")


def test_reference_gradients_and_edges():
    run = run_experiment(DIAMOND, "model", {"x": 2.0, "y": 3.0}, runs=[("interpreter", "reference")]).runs[0]
    slope = 1 - math.tanh(11.0) ** 2
    assert run.gradients == pytest.approx({"x": 4 * slope, "y": 3 * slope}, rel=1e-9)
    trace = run.trace
    assert trace.names == {"0": "x", "1": "y"} and trace.root == "5"
    assert [trace.labels[str(i)] for i in range(6)] == ["leaf", "leaf", "add", "mul", "add", "tanh"]
    seed, *writes = trace.writes()
    assert (seed.phase, seed.kind, seed.object, seed.edge, seed.after) == ("seed", "overwrite", "5", "", 1.0)
    assert {(e.object, e.edge) for e in writes} == {("4", "5"), ("2", "4"), ("3", "4"), ("0", "3"), ("1", "3"), ("0", "2"), ("1", "2")}
    assert all(e.kind == "accumulate" and e.phase == "backward" and e.after == e.before + e.delta and e.chain == (e.object,) for e in writes)
    assert writes[0].instruction == "set_field self, grad, total" and writes[0].cell == "<autograd>" and writes[0].line > 0
    assert sorted(e.occurrence for e in writes) == list(range(7))


def test_an_allocation_says_the_value_of_its_node():
    for run in run_all(DIAMOND, {"x": 2.0, "y": 3.0}, ("value",)).runs:
        assert [e.after for e in run.trace.events if e.kind == "alloc"] == [2.0, 3.0, 5.0, 6.0, 11.0, math.tanh(11.0)]
    arrays = run_experiment(DENSE, "model", {"x": [1.0], "w": [0.5]}, runs=[("interpreter", "value")], node="Dense").runs[0]
    assert {e.after for e in arrays.trace.events if e.kind == "alloc"} == {None}


def test_value_semantics_shows_the_lost_writes():
    seen = run_experiment(DIAMOND, "model", {"x": 2.0, "y": 3.0})
    value, reference = seen.run("interpreter", "value"), seen.run("llvm", "reference")
    assert value.gradients == {"x": 0.0, "y": 0.0} and reference.gradients["x"] != 0.0
    own = {name: obj for obj, name in value.trace.names.items()}
    for name in "xy":
        writes = list(value.trace.writes(own[name].partition(".")[0], "grad"))
        assert writes and all(e.object != own[name] and own[name] in e.chain for e in writes), "every write is on a copy of the parameter's object"
        made = value.trace.copies()
        assert all(step in made for e in writes for step in e.chain[:-1]), "every copy of the chain is in the trace"
    found = diff(value.trace, reference.trace)
    assert found.cause.left.kind == "copy" and found.cause.left.position == "return" and found.cause.right is None
    assert found.symptom.left.phase == "backward" and found.symptom.left.alignment == found.symptom.right.alignment


def test_a_run_of_the_same_mode_does_not_differ():
    seen = run_experiment(DIAMOND, "model", {"x": 2.0, "y": 3.0}, runs=[("interpreter", "value"), ("llvm", "value")])
    assert not diff(*(run.trace for run in seen.runs))


def test_the_store_names_entries_and_edges():
    seen = run_experiment(DIAMOND, "model", {"x": 2.0, "y": 3.0}, runs=[("interpreter", "value")], backward="Value.store_backward",
                               reader="Value.stored_gradient", store="grads")  # fmt: skip
    seed, first, *_ = seen.runs[0].trace.writes(field="grads")
    assert (seed.phase, seed.object, seed.path, seed.edge) == ("seed", "@grads[5]", "@grads[5]", "")
    assert (first.object, first.edge, first.phase, first.kind) == ("@grads[4]", "@grads[5]", "backward", "overwrite")
    assert {e.kind for e in seen.runs[0].trace.writes("@grads[0]")} == {"overwrite", "accumulate"}


def test_dense_gradients_are_events_by_element():
    run = run_experiment(DENSE, "model", {"x": [1.0, -2.0], "w": [0.5, 3.0]}, runs=[("llvm", "reference")], node="Dense").runs[0]
    writes = list(run.trace.writes("0", "grad"))
    assert [(e.element, e.edge) for e in writes] == [(0, "4"), (1, "4"), (0, "2"), (1, "2")]
    assert [e.kind for e in writes[2:]] == ["accumulate", "accumulate"]
    assert tuple(e.after for e in writes[2:]) == run.gradients["x"]


def test_write_backs_are_recorded_and_traced_to_their_place():
    seen = run_experiment(OWN.format(kind="class"), "model", {"x": 2.0}, runs=[("interpreter", "value"), ("interpreter", "reference")],
                               node="Node", leaf="leaf", backward="backward", value="value")  # fmt: skip
    back = [e for e in seen.runs[0].trace.events if e.kind == "write_back"]
    assert len(back) == 2 and back[0].path == "inputs[0]"
    writes = [e for e in seen.runs[0].trace.writes(field="grad") if e.phase == "backward"]
    assert [e.object for e in writes] == [e.object for e in back]
    assert [e.kind for e in writes] == ["overwrite", "accumulate"] and writes[1].before == writes[0].after == 2.0
    assert seen.runs[0].gradients == {"x": None}
    assert seen.runs[1].gradients == {"x": 4.0}


STEPS = """
class Node:
  value: f64
  grad: f64

fn leaf(x: f64) -> Node:
entry:
  n = new Node(value: x, grad: 0.25)
  ret n

fn model(x: Node) -> Node:
entry:
  v = get_field x, value
  n = new Node(value: v, grad: 0.0)
  @TAPE
  ret n

fn backward(root: Node):
entry:
  @BODY
  ret
"""


def kinds(body, tape="nop"):
    """Return (kind, edge) of the writes that a backward function makes to the leaf, which it finds in a global."""
    source = "global found: [Node]\n" + STEPS.replace("@TAPE", "push @found, x\n  push @found, n").replace("@BODY", "x = index_get @found, 0\n" + body)
    run = run_experiment(source, "model", {"x": 2.0}, runs=[("interpreter", "reference")], node="Node", leaf="leaf", backward="backward", value="value").runs[0]
    assert run.is_faithful
    return [(e.kind, e.edge) for e in run.trace.writes("0", "grad")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = get_field x, grad\n b = get_field root, grad\n c = add a, b\n set_field x, grad, c", ("accumulate", "1")),
        ("a = get_field x, grad\n b = get_field root, grad\n c = add b, a\n set_field x, grad, c", ("accumulate", "1")),
        ("a = get_field x, grad\n b = get_field root, grad\n d = mul b, 2.0\n c = add d, a\n set_field x, grad, c", ("accumulate", "1")),
        ("a = get_field x, grad\n b = get_field root, grad\n c = fma b, 3.0, a\n set_field x, grad, c", ("accumulate", "1")),
        ("b = get_field root, grad\n c = add x.grad, b\n set_field x, grad, c", ("accumulate", "1")),
        ("a = get_field x, grad\n c = add a, 1.0\n set_field x, grad, c", ("accumulate", "unknown")),
        ("a = get_field x, grad\n c = mul a, 0.5\n set_field x, grad, c", ("overwrite", "0")),
        ("a = get_field x, grad\n b = get_field root, grad\n d = mul a, 0.5\n c = add d, b\n set_field x, grad, c", ("overwrite", "unknown")),
        ("b = get_field root, grad\n set_field x, grad, b", ("overwrite", "1")),
        ("set_field x, grad, 0.0", ("overwrite", "")),
        ("a = get_field x, grad\n b = get_field root, grad\n c = sub b, a\n set_field x, grad, c", ("write", "unknown")),
        ("a = get_field x, grad\n b = get_field root, grad\n c = sub a, b\n set_field x, grad, c", ("accumulate", "unknown")),
        ("a = get_field x, grad\n b = get_field root, grad\n d = mul b, 2.0\n c = add a, d\n c = add c, d\n set_field x, grad, c", ("accumulate", "1")),
    ],
)
def test_accumulating_is_told_from_overwriting(body, expected):
    assert kinds(body) == [expected]


def test_the_result_of_the_pass_verifies_under_every_model():
    seen = run_experiment(OWN.format(kind="class"), "model", {"x": 2.0}, runs=[("interpreter", "reference")], node="Node", leaf="leaf",
                               backward="backward", value="value")  # fmt: skip
    for semantics in MODELS:
        module = seen.bench.rewritten(semantics)
        traced, sites = add_trace(module, Options(Fields("Node", "grad", "value")), seen.unit)
        assert sites and not [d for d in verify(traced, Names(), internal=True) if d.code.startswith("E")]


def test_the_cap_is_kept_and_told():
    seen = run_experiment(DIAMOND, "model", {"x": 2.0, "y": 3.0}, runs=[(b, "value") for b in BACKENDS], capacity=20)
    for run in seen.runs:
        assert run.is_faithful and not run.trace.is_complete and run.trace.dropped > 50 and len(run.trace.events) < 20


def test_traces_are_saved_and_read_back(tmp_path):
    trace = run_experiment(DIAMOND, "model", {"x": math.inf, "y": math.nan}, runs=[("llvm", "value")]).runs[0].trace
    trace.save(tmp_path / "run.jsonl")
    again = load_trace(tmp_path / "run.jsonl")
    assert again.to_lines() == trace.to_lines() and len(again.events) == len(trace.events)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "simple_magic.trace", "version": 2}', '{"format": "simple_magic.trace", "version": 1, "x": 0}', "nonsense"])
def test_what_is_no_trace_is_refused(text):
    with pytest.raises(ValueError, match="line 1"):
        trace_from_lines(text)


def test_a_wrong_event_is_refused_by_line():
    lines = Trace((Event(0, "alloc", "0"),)).to_lines()
    with pytest.raises(ValueError, match="line 2: unknown kind"):
        trace_from_lines(lines.replace('"alloc"', '"born"'))
    with pytest.raises(ValueError, match="line 2: missing keys"):
        trace_from_lines(lines.replace('"object": "0", ', ""))


def test_structs_that_are_compared_are_not_traced_but_run():
    source = OWN.format(kind="struct").replace("  y = call twice(x)\n", "  y = call twice(x)\n  z = call same(x)\n  assert z, \"same\"\n") + """
fn same(x: Node) -> bool:
entry:
  y = copy x
  z = eq x.value, y.value
  w = eq x, y
  z = or z, w
  ret z
"""  # fmt: skip
    run = run_experiment(source, "model", {"x": 2.0}, runs=[("interpreter", "reference")], node="Node", leaf="leaf", backward="backward", value="value").runs[0]
    assert run.trace is None and "compares structs" in run.note and run.losses == (4.0,)


def test_a_trap_leaves_the_trace_up_to_it():
    source = DIAMOND.replace("  ret out", "  bad = div 1, 0\n  ret out")
    seen = run_experiment(source, "model", {"x": 2.0, "y": 3.0}, runs=[(b, "value") for b in BACKENDS])
    for run in seen.runs:
        assert run.trap.kind == "division_by_zero" and run.trap.span.line == 8 and run.is_faithful
        assert run.trace.events == seen.runs[0].trace.events and run.trace.events[-1].phase == "forward"


def test_copies_can_be_suppressed_for_a_causal_test():
    seen = run_experiment(DIAMOND, "model", {"x": 2.0, "y": 3.0}, runs=[("interpreter", "value"), ("interpreter", "reference")])
    sites = {(i.origin, position) for e in seen.runs[0].trace.copies().values() for i in seen.unit_instructions(e) for position in (e.position, HOP)}
    again = seen.again("llvm", "value", suppress=sites)
    assert again.gradients == seen.runs[1].gradients


def test_no_node_class_is_an_error():
    with pytest.raises(MirError, match="is no class or struct"):
        run_experiment(OWN.format(kind="class"), "model", {}, node="Nothing")


EVERYTHING = """
class Node:
  value: f64
  grad: [f64]
  inputs: [Node]
  more: (Node, f64)?

global store: {i64: f64}
global total: f64

fn leaf(x: f64) -> Node:
entry:
  grad = array 0.0, 0.0
  inputs: [Node] = array
  none: (Node, f64)? = const nil
  n = new Node(value: x, grad: grad, inputs: inputs, more: none)
  ret move n

fn Node.add_at(self: Node, i: i64, g: f64):
entry:
  old = index_get self.grad, i
  sum = add old, g
  index_set self.grad, i, move sum
  ret

fn twice(g: f64) -> f64:
entry:
  r = mul g, 2.0
  ret r

fn risky(g: f64, n: i64) -> f64:
entry:
  bad = gt n, 1
  if bad then fail else fine
fail:
  throw n, 7
fine:
  r = add g, 1.0
  ret r

fn countdown(n: i64, g: f64) -> f64:
entry:
  done = le n, 0
  if done then out else again
out:
  ret g
again:
  n = sub n, 1
  g = mul g, 0.5
  goto entry

fn model(x: Node, y: Node) -> Node:
entry:
  v = mul x.value, y.value
  grad = array_fill 0.0, 2
  inputs = array x, y, x
  pair = tuple y, 2.0
  more = some pair
  n = new Node(value: v, grad: grad, inputs: inputs, more: more)
  ret n

fn backward(root: Node):
entry:
  index_set root.grad, 0, 1.0
  index_set root.grad, 1, 0.5
  i = const 0
  double = func twice
  goto head
head:
  c = lt i, 2
  if c then body else rest
body:
  g = index_get root.grad, i
  h = call_indirect double(g)
  call Node.add_at(root.inputs[0], i, h)
  k = call twice(g)
  index_set root.inputs[1].grad, i, k
  view = get_field root.inputs[2], grad
  old = index_get view, i
  new_one = add old, g
  index_set view, i, new_one
  q = invoke risky(g, i) then fine unwind caught(p, t)
fine:
  set_field root.inputs[0], value, q
  index_set @store, i, q
  goto next
caught:
  f: f64 = cast t
  index_set @store, i, f
  goto next
next:
  i = add i, 1
  goto head
rest:
  z = call countdown(3, root.grad[0])
  whole = array z, 4.0
  set_field root.inputs[1], grad, whole
  pair = unwrap root.more
  partner = get_field pair, 0
  set_field partner, grad, partner.grad
  part = slice partner.grad, 0, 1
  push part, 3.0
  set_field partner, grad, move part
  other = get_field partner, grad
  copied = concat other, other
  store_global total, copied[1]
  set_field @kept[0], grad, copied
  ret

global kept: [Node]

fn keep():
entry:
  n = call leaf(0.0)
  push @kept, n
  ret
"""


@pytest.mark.parametrize(("kind", "models"), [("class", tuple(MODELS)), ("struct", MAIN)])
def test_a_traced_program_does_what_the_plain_one_does(kind, models):
    source = EVERYTHING.replace("class Node", f"{kind} Node")
    if kind == "struct":
        source = source.replace("  more: (Node, f64)?", "  more: [(Node, f64)]").replace("none: (Node, f64)? = const nil", "none: [(Node, f64)] = array")
        source = source.replace("more = some pair", "more = array pair").replace("pair = unwrap root.more", "pair = index_get root.more, 0")
    source += "\nfn read(n: Node) -> [f64]:\nentry:\n  g = get_field n, grad\n  ret g\n"
    with LocalExecutionManager("interpreter", opt_level=0) as manager:
        manager.compile(source)
        manager.execute("keep")
        seen = run_experiment(None, "model", {"x": 2.0, "y": 3.0}, backends=BACKENDS,
                                   models=models, manager=manager, node="Node", leaf="leaf", value="value", backward="backward", reader="read", store="store",
                                   shares=True)  # fmt: skip
    for semantics in models:
        runs = [seen.run(backend, semantics) for backend in BACKENDS]
        assert all(r.is_faithful and r.trap is None for r in runs), (semantics, [str(r.trap) for r in runs])
        assert all(r.trace.events == runs[0].trace.events for r in runs)
        module = seen.bench.rewritten(semantics)
        traced, _ = add_trace(module, Options(Fields("Node", "grad", "value", "store"), shares=True), seen.unit)
        verify(traced, Names(), internal=True)
    events = seen.run("interpreter", "reference").trace.events
    assert {e.kind for e in events} >= {"alloc", "share", "accumulate", "overwrite"}


ARRAYS = """
class Node:
  value: f64
  grad: [f64]
  inputs: [Node]

fn leaf(x: f64) -> Node:
entry:
  grad = array 0.0, 0.0
  inputs: [Node] = array
  n = new Node(value: x, grad: grad, inputs: inputs)
  ret n

fn model(x: Node) -> Node:
entry:
  v = get_field x, value
  grad = array 1.0, 2.0
  inputs = array x
  n = new Node(value: v, grad: grad, inputs: inputs)
  ret n

fn add_into(target: [f64], i: i64, amount: f64):
entry:
  old = index_get target, i
  sum = add old, amount
  index_set target, i, sum
  ret

fn backward(root: Node):
entry:
  x = index_get root.inputs, 0
  a = index_get root.grad, 0
  @BODY
  ret
"""
READ_THEN_WRITE = "g = get_field x, grad\n  o = index_get g, 1\n  s = add o, a\n  index_set g, 1, s"


def array_run(body, semantics):
    runs = run_experiment(ARRAYS.replace("@BODY", body), "model", {"x": 2.0}, runs=[(b, semantics) for b in ("interpreter", "llvm")], node="Node", leaf="leaf",
                               backward="backward", value="value").runs  # fmt: skip
    assert all(r.is_faithful for r in runs) and runs[0].trace.events == runs[1].trace.events
    return runs[0], [(e.kind, e.object, e.edge, e.element) for e in runs[0].trace.events if e.phase == "backward" and e.kind != "copy"]


def test_a_write_into_a_copied_array_is_on_a_copy_of_its_node():
    shared, events = array_run(READ_THEN_WRITE, "reference")
    assert events == [("accumulate", "0", "1", 1)] and shared.gradients == {"x": (0.0, 1.0)}
    for semantics in ("contract", "value"):
        copied, events = array_run(READ_THEN_WRITE, semantics)
        ((kind, copy, edge, element),) = events
        assert (kind, edge.partition(".")[0], element) == ("accumulate", "1", 1) and copied.trace.names and copy not in copied.trace.names
        event = next(e for e in copied.trace.writes() if e.object == copy)
        assert event.original == "0" and copied.trace.copies()[copy].position == "field_read"


def test_a_copied_array_that_the_program_stores_back_is_written_back():
    run, events = array_run(READ_THEN_WRITE + "\n  set_field x, grad, g", "contract")
    assert {e.source for e in run.trace.events if e.kind == "write_back"} == {"0.1"}
    assert events == [("accumulate", "0.1", "1", 1), ("write_back", "0", "", None), ("write_back", "0", "", 1)]


def test_a_gradient_array_is_followed_into_a_function():
    body = "call add_into(x.grad, 0, a)\n  g = get_field x, grad\n  call add_into(g, 1, a)"
    assert array_run(body, "reference")[1] == [("accumulate", "0", "1", 0), ("accumulate", "0", "1", 1)]
    copied = array_run(body, "contract")[1]
    assert [e[0] for e in copied] == ["accumulate"] * 2 and all(e[1].startswith("0.") for e in copied)


def test_a_change_that_the_trace_does_not_follow_is_told():
    body = "index_set x.grad, 0, 1.0\n  g = get_field x, grad\n  call add_into(g, 0, a)\n  other = array 1.0\n  call add_into(other, 0, a)"
    run, _ = array_run(body, "reference")
    assert run.gradients == {"x": (2.0, 0.0)} and "gradient of x was also changed" in run.note
    assert not array_run(READ_THEN_WRITE, "reference")[0].note

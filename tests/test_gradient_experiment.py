"""The experiment: what it needs, what it leaves alone, what it returns."""

from __future__ import annotations

import math
from unittest.mock import Mock, patch

import pytest

from simple_magic import LocalExecutionManager, MirError
from simple_magic.autograd.experiment import TRACED_STEPS, run_experiment
from simple_magic.autograd.judging import judge_experiment

PRODUCT = """
fn model(x: Value, y: Value) -> Value:
entry:
  p = call Value.mul(x, y)
  ret p
"""

OWN = """
global kept: {i64: f64}

class Own:
  data: f64

fn Own.leaf(x: f64) -> Own:
entry:
  n = new Own(data: x)
  ret n

fn Own.mul(a: Own, b: Own) -> Own:
entry:
  ret a

fn Own.read(self: Own) -> f64:
entry:
  ret 0.0
"""

SQUARE = """
global calls: i64

fn model(x: Value, target: f64) -> Value:
entry:
  n = load_global calls
  n = add n, 1
  store_global calls, n
  minus = neg target
  d = call Value.shift(x, minus)
  r = call Value.mul(d, d)
  ret r
"""


def test_the_default_is_the_question_of_the_project():
    seen = run_experiment(PRODUCT, "model", {"x": 3.0, "y": 4.0})
    assert [(r.backend, r.semantics, dict(r.gradients)) for r in seen.runs] == [
        ("interpreter", "value", {"x": 0.0, "y": 0.0}), ("llvm", "reference", {"x": 4.0, "y": 3.0}),
    ]  # fmt: skip
    assert all(r.loss == 12.0 and r.is_faithful and r.trap is None for r in seen.runs)
    assert "fn gradient_driver(input_x: f64, input_y: f64, steps: i64, rate: f64) -> [f64]:" in seen.driver
    with pytest.raises(KeyError, match="interpreter/value, llvm/reference"):
        seen.run("cranelift", "value")


def test_training_descends_where_gradients_arrive():
    seen = run_experiment(SQUARE, "model", {"x": 5.0, "target": 2.0}, steps=3, lr=0.25, trace=False)
    lost, right = seen.runs
    assert lost.losses == (9.0,) * 4 and lost.values == {"x": 5.0}
    assert right.losses == (9.0, 2.25, 0.5625, 0.140625) and right.values == {"x": 2.375}
    assert [h["x"] for h in right.history] == [6.0, 3.0, 1.5, 0.75]
    assert lost.trace is None and lost.is_faithful is None


def test_the_first_steps_are_traced():
    run = run_experiment(SQUARE, "model", {"x": 5.0, "target": 2.0}, steps=5, runs=[("cranelift", "reference")]).runs[0]
    assert len(run.losses) == 6 and run.is_faithful
    assert {e.step for e in run.trace.events} == set(range(TRACED_STEPS + 1))
    assert list(run.trace.names.values()) == ["x"] * (TRACED_STEPS + 1)
    assert [e.phase for e in run.trace.events if e.step == 1] == ["setup", "forward", "forward", "seed", "backward", "backward", "backward"]


def test_a_step_that_traps_is_traced_too():
    calls = "\n  is_early = lt n, 4\n  assert is_early, \"the fourth call\"\n  store_global"
    run = run_experiment(SQUARE.replace("\n  store_global", calls), "model", {"x": 5.0, "target": 2.0}, steps=9, runs=[("interpreter", "reference")]).runs[0]
    assert run.trap is not None and run.trap.message == "the fourth call" and run.losses == ()
    assert run.is_faithful and {e.step for e in run.trace.events} == {0, 1, 2, 3}


def test_each_run_has_its_own_globals_and_the_manager_keeps_its_own():
    with LocalExecutionManager("llvm") as em:
        em.use_library("autograd")
        em.compile(SQUARE)
        em.compile("fn count() -> i64:\nentry:\n  store_global calls, 41\n  n = load_global calls\n  ret n\n")
        em.execute("count")
        before = em.functions()
        seen = run_experiment(None, "model", {"x": 5.0, "target": 2.0}, manager=em, backends=("interpreter", "llvm", "cranelift"))
        assert [r.losses for r in seen.runs] == [(9.0,)] * 6
        assert em.globals()["calls"] == 41 and em.functions() == before and em.backend == "llvm"


def test_nodes_that_are_older_than_the_run_are_unknown_objects():
    source = """
global kept: [Value]

fn keep():
entry:
  n = call Value.leaf(10.0)
  push @kept, n
  ret

fn model(x: Value) -> Value:
entry:
  old = index_get @kept, 0
  p = call Value.mul(x, old)
  ret p
"""
    with LocalExecutionManager("llvm") as em:
        em.use_library("autograd")
        em.compile(source)
        em.execute("keep")
        for backend in ("interpreter", "llvm", "cranelift"):
            run = run_experiment(None, "model", {"x": 3.0}, manager=em, runs=[(backend, "reference")]).runs[0]
            assert run.is_faithful and run.gradients == {"x": 10.0}
            assert [(e.object, e.after) for e in run.trace.writes() if e.object not in ("0", "1")] == [("?", 3.0)]
        assert em.globals()["kept"][0].grad == 0.0


def test_the_store_of_the_library_needs_no_more_than_its_name():
    seen = run_experiment(PRODUCT, "model", {"x": 3.0, "y": 4.0}, runs=[("interpreter", "value")], store="grads")
    assert seen.runs[0].gradients == {"x": 4.0, "y": 3.0}
    assert (seen.options.backward, seen.options.reader) == ("Value.store_backward", "Value.stored_gradient")


def test_again_runs_on_other_inputs():
    seen = run_experiment(PRODUCT, "model", {"x": 3.0, "y": 4.0}, runs=[("llvm", "reference")])
    step = 6e-6
    high, low = (seen.again("llvm", "reference", inputs={"x": 3.0 + h, "y": 4.0}, trace=False).loss for h in (step, -step))
    assert (high - low) / (2 * step) == pytest.approx(4.0, rel=1e-5)


ENDLESS = PRODUCT.replace("entry:", "entry:\n  goto entry_2\nentry_2:\n  c = gt x.data, 1.0\n  if c then entry_2 else go\ngo:")


def test_fuel_ends_a_run_and_only_it():
    seen = run_experiment(ENDLESS, "model", {"x": 3.0, "y": 4.0}, fuel=10_000, backends=("interpreter", "llvm", "cranelift"), models=("reference",))
    assert [r.trap.kind for r in seen.runs] == ["out_of_fuel"] * 3
    assert all(r.is_faithful and r.losses == () and r.trace.events for r in seen.runs)


def test_a_timeout_bounds_every_run_of_an_experiment_and_proves_nothing_about_the_trace():
    seen = run_experiment(ENDLESS, "model", {"x": 3.0, "y": 4.0}, fuel=None, timeout=0.5, runs=[("interpreter", "value"), ("llvm", "value")])
    assert [(r.trap.kind, r.is_faithful) for r in seen.runs] == [("timeout", None)] * 2
    calls = Mock(side_effect=AssertionError("the oracles would run into the limit again, for every input"))
    with patch("simple_magic.autograd.judging.ask_oracles", calls):
        judged = judge_experiment(seen, controls=False)
    assert judged.words() == {"no-result"} and not calls.called
    assert "differently" not in str(judged) and "void" not in str(judged)


def test_a_timeout_bounds_every_run_of_the_oracles():
    """The model ends for its inputs, and not where a difference moves them."""
    source = ENDLESS.replace("gt x.data, 1.0", "gt x.data, 3.0")
    seen = run_experiment(source, "model", {"x": 3.0, "y": 4.0}, fuel=None, timeout=0.5, runs=[("interpreter", "reference")])
    found = judge_experiment(seen, controls=False).of("interpreter", "reference")
    assert found["x"].difference.trap.kind == "timeout" and found["y"].difference.trap is None and found["y"].word == "ok"


def test_a_long_training_with_many_parameters_stays_within_memory():
    """What the driver gives back grows by a step's numbers, not by everything before it."""
    names = [f"p{i}" for i in range(50)]
    sums = "".join(f"  q{i} = call Value.mul({n}, {n})\n" + (f"  s = call Value.add(s, q{i})\n" if i else "  s = call Value.scale(q0, 1.0)\n") for i, n in enumerate(names))
    source = f"fn model({', '.join(f'{n}: Value' for n in names)}) -> Value:\nentry:\n{sums}  ret s\n"
    run = run_experiment(source, "model", dict.fromkeys(names, 0.1), runs=[("llvm", "reference")], steps=300, lr=0.01, trace=False).runs[0]
    assert run.trap is None and len(run.losses) == 301 and run.losses[-1] == pytest.approx(0.5 * 0.98**600, rel=1e-9)


def test_fuel_is_the_same_with_and_without_the_trace():
    for fuel in (100, 107, 150):
        for run in run_experiment(PRODUCT, "model", {"x": 3.0, "y": 4.0}, fuel=fuel, backends=("interpreter", "llvm"), models=("value",)).runs:
            assert run.is_faithful


def test_non_finite_gradients_come_out_as_they_are():
    source = "fn model(x: Value) -> Value:\nentry:\n  y = call Value.log(x)\n  ret y\n"
    run = run_experiment(source, "model", {"x": 0.0}, runs=[("llvm", "reference")]).runs[0]
    assert run.gradients == {"x": math.inf} and run.losses == (-math.inf,) and run.is_faithful


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (PRODUCT.replace("-> Value:", "-> f64:").replace("ret p", "ret 1.0"), {}, "returns f64, but a model returns a node"),
        (PRODUCT, {"leaf": "Value.nothing"}, "no function is named `Value.nothing`"),
        (PRODUCT, {"leaf": "Value.add"}, "is not a function from f64"),
        (PRODUCT, {"backward": "Value.add"}, "does not take"),
        (PRODUCT, {"gradient": "op"}, "the gradient of `Value` is not"),
        (PRODUCT, {"value": "op"}, "is not f64 or"),
        (PRODUCT, {"store": "gradz", "reader": "Value.stored_gradient"}, "the store `gradz` is no global"),
        (PRODUCT, {"store": "autograd_nodes", "reader": "Value.stored_gradient"}, "`autograd_nodes` is a global of type i64"),
        (PRODUCT.replace("Value", "Own") + OWN, {"store": "kept", "node": "Own"}, "no function is named `Own.stored_gradient`"),
        (PRODUCT.replace("Value", "Own") + OWN, {"store": "kept", "node": "Own", "reader": "Own.read"}, "no function is named `Own.store_backward`"),
        (PRODUCT, {"gradient": "data"}, "cannot be both the value and the gradient"),
        (PRODUCT + "\nfn gradient_put():\nentry:\n  ret\n", {}, "the name of a function of the driver"),
        (PRODUCT.replace("y: Value)", "y: Value, z: text)"), {}, "parameter `z` is text"),
        ("fn other():\nentry:\n  ret\n", {}, "no function is named `model`"),
        ("fn model(", {}, "expected"),
    ],
)
def test_what_does_not_fit_is_told(source, options, message):
    with pytest.raises(MirError, match=message):
        run_experiment(source, "model", {"x": 1.0, "y": 2.0}, **options)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ({"x": 1.0}, {}, TypeError, "missing: y"),
        ({"x": 1.0, "y": 2.0, "z": 3.0}, {}, TypeError, "unknown: z"),
        ({"x": "1", "y": 2.0}, {}, TypeError, "^input x: "),
        ({"x": 1.0, "y": 2.0}, {"models": ("values",)}, ValueError, "unknown semantics model"),
        ({"x": 1.0, "y": 2.0}, {"backends": ("gpu",)}, ValueError, "gpu"),
        ({"x": 1.0, "y": [2.0]}, {}, TypeError, "^input y: "),
        ({"x": 1.0, "y": 2.0}, {"steps": -1}, ValueError, "steps"),
        ({"x": 1.0, "y": 2.0}, {"capacity": 0}, ValueError, "capacity"),
    ],
)
def test_wrong_options_are_told(inputs, options, error, message):
    with pytest.raises(error, match=message):
        run_experiment(PRODUCT, "model", inputs, **options)


WEIGHTS = dict(zip("w1 w2 w3 w4 w5 w6 w7 w8".split(), (0.15, 0.20, 0.25, 0.30, 0.40, 0.45, 0.50, 0.55)))


@pytest.mark.parametrize("backend", ["interpreter", "llvm", "cranelift"])
def test_the_published_example_and_the_write_that_came_too_early(backend):
    with LocalExecutionManager("interpreter", opt_level=1) as em:
        em.use_library("autograd")
        em.use_library("mazur")
        right = run_experiment(None, "mazur", WEIGHTS, manager=em, runs=[(backend, "reference"), (backend, "contract")], steps=1, lr=0.5)
        early = run_experiment(None, "mazur", WEIGHTS, manager=em, runs=[(backend, "reference")], steps=1, lr=0.5, backward="mazur_in_place")
    for run in right.runs:
        assert run.losses == pytest.approx((0.2983711087600027, 0.29102777369359933), rel=1e-14) and run.is_faithful
    (run,) = early.runs
    assert run.losses == pytest.approx((0.2983711087600027, 0.29102792390544197), rel=1e-14) and run.is_faithful
    for weight in ("w5", "w6", "w7", "w8"):
        assert run.gradients[weight] == pytest.approx(right.runs[0].gradients[weight], rel=1e-12)
    assert all(run.gradients[w] != pytest.approx(right.runs[0].gradients[w], rel=1e-3) for w in ("w1", "w2", "w3", "w4"))
    overwritten = [e for e in run.trace.writes(field="data") if e.step == 0]
    assert [run.trace.names[e.object] for e in overwritten] == ["w5", "w6", "w7", "w8"] and all(e.phase == "backward" for e in overwritten)

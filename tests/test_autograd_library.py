"""The node library: upstream's autograd specs, right where nodes are shared; gradients in a store, right everywhere; long chains."""

from __future__ import annotations

import math

import pytest

from simple_magic import LocalExecutionManager, gradient_experiment
from simple_magic.autograd.cases import ALL, CORE, EXTENDED, IN_NODES, IN_STORE, case_text, read_out
from simple_magic.passes.semantics import MODELS

BACKENDS = ("interpreter", "llvm", "cranelift")
SHARING = ("reference", "contract", "jit_2026_09")

SCALAR = """
# sigmoid(x * y + tanh(x)) - relu(y) ** 2 / exp(x)
fn formula(x: Value, y: Value) -> Value:
entry:
  p = call Value.mul(x, y)
  t = call Value.tanh(x)
  s = call Value.add(p, t)
  left = call Value.sigmoid(s)
  on = call Value.relu(y)
  two = call Value.leaf(2.0)
  square = call Value.pow(on, two)
  power = call Value.exp(x)
  right = call Value.div(square, power)
  out = call Value.sub(left, right)
  ret out

fn in_nodes(x0: f64, y0: f64) -> [f64]:
entry:
  x = call Value.leaf(x0)
  y = call Value.leaf(y0)
  z = call formula(x, y)
  call Value.backward(z)
  value = get_field z, data
  dx = call Value.gradient(x)
  dy = call Value.gradient(y)
  out = array value, dx, dy
  ret out

fn in_store(x0: f64, y0: f64) -> [f64]:
entry:
  call autograd_clear_store()
  x = call Value.leaf(x0)
  y = call Value.leaf(y0)
  z = call formula(x, y)
  call Value.store_backward(z)
  value = get_field z, data
  dx = call Value.stored_gradient(x)
  dy = call Value.stored_gradient(y)
  out = array value, dx, dy
  ret out

fn chain(n: i64) -> f64:
entry:
  x = call Value.leaf(1.0)
  y = copy x
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  y = call Value.shift(y, 0.5)
  i = add i, 1
  goto head
done:
  call Value.backward(y)
  g = call Value.gradient(x)
  ret g

fn randoms(seed: i64) -> [f64]:
entry:
  call autograd_seed_random(seed)
  a = call Dense.random(2, 3)
  data = get_field a, data
  ret data
"""


@pytest.fixture(scope="module")
def manager():
    with LocalExecutionManager("interpreter") as em:
        em.use_library("autograd")
        em.compile("\n".join(case_text(c) for c in ALL))
        em.compile(SCALAR)
        yield em


def test_there_are_22_core_cases():
    assert len(CORE) == 22
    assert len(EXTENDED) >= 15


@pytest.mark.parametrize("semantics", ("reference", "contract"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_upstream_specs_are_right_where_classes_are_shared(manager, backend, semantics):
    for case in ALL:
        got = read_out(manager.execute(f"case_{case.name}", backend=backend, semantics=semantics), case)
        for found, (node, what, expected) in zip(got, case.reads, strict=True):
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-15), (case.name, node, what)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dense_gradients_in_a_store_are_right_under_every_model(backend):
    chosen = [c for c in ALL if c.name in ("matmul_2x3", "zero_grad", "no_grad", "diamond", "softmax_first", "mean")]
    with LocalExecutionManager(backend, opt_level=0) as em:
        em.use_library("autograd")
        em.compile("\n".join(case_text(c, IN_STORE) for c in chosen))
        for case in chosen:
            for semantics in MODELS if backend == "interpreter" else ("value", "reference"):
                got = read_out(em.execute(f"case_{case.name}", semantics=semantics), case)
                assert got == [pytest.approx(wanted, rel=1e-12, abs=1e-15) for _, _, wanted in case.reads], (case.name, semantics)


def test_a_case_keeps_its_gradients_where_it_says():
    text = case_text(next(c for c in CORE if c.name == "zero_grad"), IN_STORE)
    assert "call Dense.store_backward(r)" in text and "call Dense.store_zero_grad(x)" in text and "Dense.stored_gradient(x)" in text and ", grad" not in text
    assert "Dense.store" not in case_text(CORE[0], IN_NODES)


def expected(x, y):
    s, t, p = 1 / (1 + math.exp(-(x * y + math.tanh(x)))), math.tanh(x), math.exp(x)
    return [s - y * y / p, s * (1 - s) * (y + 1 - t * t) + y * y / p, s * (1 - s) * x - 2 * y / p]


@pytest.mark.parametrize("backend", BACKENDS)
def test_scalar_nodes_where_classes_are_shared_and_the_store_everywhere(manager, backend):
    for semantics in MODELS:
        stored = manager.execute("in_store", 0.7, 1.3, backend=backend, semantics=semantics)
        assert stored == pytest.approx(expected(0.7, 1.3), rel=1e-12), semantics
        got = manager.execute("in_nodes", 0.7, 1.3, backend=backend, semantics=semantics)
        if semantics in SHARING:
            assert got == pytest.approx(expected(0.7, 1.3), rel=1e-12), semantics
        else:
            assert got[0] == stored[0] and got[1:] == [0.0, 0.0], semantics


@pytest.mark.parametrize(("backend", "length"), [("interpreter", 5_000), ("llvm", 100_000), ("cranelift", 100_000)])
def test_a_long_chain_needs_no_stack(manager, backend, length):
    assert manager.execute("chain", length, backend=backend) == 1.0


def test_random_numbers_are_seeded_and_in_range(manager):
    numbers = manager.execute("randoms", 7)
    assert numbers == manager.execute("randoms", 7, backend="llvm") == manager.execute("randoms", 7, backend="cranelift")
    assert numbers != manager.execute("randoms", 8)
    assert len(set(numbers)) == 6 and all(-1 <= x < 1 for x in numbers)


def test_unknown_library():
    with LocalExecutionManager("interpreter") as em, pytest.raises(ValueError, match="there is: autograd, mazur"):
        em.use_library("numpy")


def test_taking_the_library_twice_changes_nothing():
    with LocalExecutionManager("interpreter") as em:
        first = em.use_library("autograd")
        again = em.use_library("autograd")
        assert first.symbol_names == again.symbol_names and not first.warnings and not again.notes


RULES_AT_THE_EDGE = """
fn quotient(x: Value, y: Value) -> Value:
entry:
  r = call Value.div(x, y)
  ret r

fn power(x: Value, y: Value) -> Value:
entry:
  r = call Value.pow(x, y)
  ret r

fn cube(x: Dense) -> Dense:
entry:
  r = call Dense.pow(x, 3.0)
  ret r

fn flat(x: Dense) -> Dense:
entry:
  r = call Dense.pow(x, 0.0)
  ret r
"""


@pytest.mark.parametrize(("model", "inputs", "wanted"), [
    ("quotient", {"x": 1e200, "y": 1e200}, [1e-200, -1e-200]),  # y**2 is no number.
    ("quotient", {"x": 3.0, "y": 1e-200}, [1e200, -math.inf]),
    ("power", {"x": 0.0, "y": 3.0}, [0.0, 0.0]),  # The logarithm of zero is infinite.
    ("power", {"x": 0.0, "y": 1.0}, [1.0, 0.0]),
    ("power", {"x": 2.0, "y": 0.0}, [0.0, math.log(2.0)]),
    ("power", {"x": 0.0, "y": 0.0}, [0.0, -math.inf]),  # So is zero to the power of minus one.
    ("cube", {"x": [0.0, 2.0]}, [0.0, 12.0]),
    ("flat", {"x": [0.0, 2.0]}, [0.0, 0.0]),
])  # fmt: skip
def test_rules_hold_where_a_factor_is_zero_or_too_large(model, inputs, wanted):
    report = gradient_experiment(RULES_AT_THE_EDGE, model, inputs, runs=[("interpreter", "reference")], node="Dense" if model in ("cube", "flat") else "Value",
                                 controls=False)  # fmt: skip
    found = report.verdict("interpreter", "reference").values()
    assert [v.gradient for v in found] == [v.wanted.derivative for v in found] == wanted

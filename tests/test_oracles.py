"""The oracles: every operation's derivative against differences of the interpreter, what carries a tangent, kinks, and what is refused."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
from gradient_recorder import forward_driver

from simple_magic import LocalExecutionManager, MirError
from simple_magic.autograd.dual import CARRIED, DERIVATIVES, FLAT, REFUSED
from simple_magic.autograd.oracles import TOGETHER, WORTH_COMPILING, ask_oracles, difference_oracle, dual_oracle, numbers_of
from simple_magic.backends.interpreter import run_rules
from simple_magic.mir.ops import OPS
from simple_magic.mir.types import FLOATS

NODES = """
class Value:
  data: f64
  grad: f64
  parents: [Value]

fn Value.leaf(x: f64) -> Value:
entry:
  none: [Value] = array
  v = new Value(data: x, grad: 0.0, parents: none)
  ret v

fn scale(v: Value, by: f64) -> Value:
entry:
  x = get_field v, data
  y = mul x, by
  parents: [Value] = array v
  out = new Value(data: y, grad: 0.0, parents: parents)
  ret out
"""


@pytest.fixture
def em():
    with LocalExecutionManager("interpreter") as manager:
        yield manager


def unary(em, body: str, x: float, semantics: str = "reference"):
    em.compile(f"fn f(x: f64) -> f64:\nentry:\n{body}\n  ret y\n")
    oracle = ask_oracles(em, "f", (x,), semantics)
    return oracle.tangents[0], oracle.differences[0]


def test_every_operation_has_one_fate():
    fates = [set(DERIVATIVES), CARRIED, FLAT, REFUSED]
    assert sorted(op for fate in fates for op in fate) == sorted(run_rules), "each operation of the interpreter in exactly one"


def test_a_pure_operation_on_floats_is_never_just_carried():
    for op in CARRIED - {"select", "const", "copy", "zero"}:
        row = OPS[op]
        assert not any(set(FLOATS) & set(row.classes[name]) for name in ("T",) if row.is_pure), op


POINTS = {
    "add": (0.3, -1.7), "sub": (0.3, -1.7), "mul": (0.3, -1.7), "div": (0.3, -1.7), "rem": (7.3, 2.1), "pow": (1.3, -1.7), "neg": (0.4,),
    "fma": (0.3, 1.1, -2.0), "sqrt": (2.3,), "exp": (1.2,), "log": (0.7,), "sin": (0.6,), "cos": (0.6,), "tan": (0.6,), "tanh": (0.6,),
    "abs": (-0.6,), "min": (0.3, 1.2), "max": (0.3, 1.2),
}  # fmt: skip


@pytest.mark.parametrize("op", sorted(DERIVATIVES.keys() - {"cast"}))
def test_a_row_is_the_derivative_of_its_operation(em, op):
    names = "abc"[: len(POINTS[op])]
    params = ", ".join(f"{n}: f64" for n in names)
    em.compile(f"fn f({params}) -> f64:\nentry:\n  y = {op} {', '.join(names)}\n  ret y\n")
    oracle = ask_oracles(em, "f", POINTS[op], "reference")
    assert len(DERIVATIVES[op]) == len(names)
    for tangent, difference in zip(oracle.tangents, oracle.differences):
        assert tangent.value == difference.value == em.execute("f", *POINTS[op])
        assert tangent.derivative == pytest.approx(difference.derivative, rel=1e-8, abs=1e-9)
        assert not difference.is_kink and not tangent.kinks


def test_a_driver_makes_leaves_and_reads_the_value(em):
    em.compile(NODES)
    em.compile(forward_driver(em, "scale", "drive", node="Value", leaf="Value.leaf", value="data"))
    for semantics in ("reference", "value", "contract"):
        by_v, by_factor = dual_oracle(em, "drive", (3.0, 5.0), semantics)
        assert (by_v.derivative, by_factor.derivative, by_v.value) == (5.0, 3.0, 15.0)


def test_the_model_under_judgement_decides_what_is_differentiated(em):
    """The forward pass itself writes into a shared object: under `value` the result does not depend on the write."""
    em.compile("""
class Box:
  data: f64

fn f(x: f64) -> f64:
entry:
  b = new Box(data: 1.0)
  boxes = array b
  e = index_get boxes, 0
  set_field e, data, x
  y = get_field b, data
  z = mul y, y
  ret z
""")
    assert dual_oracle(em, "f", (3.0,), "reference")[0].derivative == 6.0
    lost = dual_oracle(em, "f", (3.0,), "value")[0]
    assert lost.derivative == 0.0 and not lost.depends
    assert difference_oracle(em, "f", (3.0,), "value")[0].derivative == 0.0
    assert difference_oracle(em, "f", (3.0,), "reference")[0].derivative == pytest.approx(6.0, rel=1e-8)


def test_tangents_go_through_everything_that_holds_numbers(em):
    tangent, difference = unary(em, """\
  xs: [f64] = array x, 1.0
  d: {i64: f64} = dict
  index_set d, 4, x
  p = ref x
  n: (f64, i64) = tuple x, 1
  o: f64? = some x
  a = index_get xs, 0
  b = index_get d, 4
  c = load p
  e = get_field n, 0
  g = unwrap o
  y = add a, b
  y = add y, c
  y = add y, e
  y = mul y, g""", 3.0)  # fmt: skip
    assert tangent.derivative == 24.0 and difference.derivative == pytest.approx(24.0, rel=1e-8)


def test_structures_that_hold_tangents_compare_by_value(em):
    tangent, _ = unary(em, """\
  xs: [f64] = array x
  ys: [f64] = array 3.0
  same = eq xs, ys
  y = select same, x, 0.0""", 3.0)  # fmt: skip
    assert tangent.derivative == 1.0


def test_an_independent_result_is_told_from_a_derivative_of_zero(em):
    assert not unary(em, "  y = const 2.0", 3.0)[0].depends
    zero = unary(em, "  y = mul x, 0.0", 3.0)[0]
    assert zero.depends and zero.derivative == 0.0 and not zero.underflows


def test_underflow_has_its_own_word(em):
    tangent, _ = unary(em, "  a = mul x, 1.0e-200\n  y = mul a, 1.0e-200", 1.0)
    assert tangent.derivative == 0.0 and [o.index for o in tangent.underflows] == [1]


@pytest.mark.parametrize(
    ("body", "x"),
    [("  y = abs x", 0.0), ("  y = max x, 0.0", 0.0), ("  y = floor x", 2.0), ("  a = sub x, 1.0\n  y = min a, 2.0", 3.0)],
)
def test_kinks_are_found_from_both_sides(em, body, x):
    tangent, difference = unary(em, body, x)
    assert difference.is_kink and tangent.kinks


@pytest.mark.parametrize(("body", "x"), [("  y = exp x", 5.0), ("  a = abs x\n  y = mul a, x", 0.0), ("  y = max x, 0.0", 1.0), ("  y = mul x, 1.0e6", 0.1)])
def test_curvature_is_no_kink(em, body, x):
    assert not unary(em, body, x)[1].is_kink


def test_differences_stay_inside_the_domain(em):
    tangent, difference = unary(em, "  y = log x", 1e-6)
    assert tangent.derivative == pytest.approx(1e6) and difference.derivative == pytest.approx(1e6, rel=1e-2)


def test_an_operation_without_a_row_is_refused_by_name(em):
    with pytest.raises(MirError, match="`bitcast` has no derivative"):
        unary(em, "  bits: i64 = bitcast x\n  y: f64 = bitcast bits", 1.0)


def test_an_operation_without_a_row_is_welcome_away_from_the_inputs(em):
    assert unary(em, "  bits: i64 = bitcast 2.0\n  two: f64 = bitcast bits\n  y = mul two, x", 1.0)[0].derivative == 2.0


def test_an_extern_is_refused_only_if_a_tangent_reaches_it(em):
    from simple_magic import extern

    extern("fn oracle_list(xs: [f64]) -> f64")(lambda xs: xs[0])
    em.compile("extern fn oracle_list(xs: [f64]) -> f64\n")
    assert unary(em, "  xs: [f64] = array 2.0\n  a = call oracle_list(xs)\n  y = mul a, x", 1.0)[0].derivative == 2.0
    with pytest.raises(MirError, match="extern `oracle_list`"):
        unary(em, "  xs: [f64] = array x\n  y = call oracle_list(xs)", 1.0)


def test_traps_and_endless_programs_are_results(em):
    tangent, difference = unary(em, "  assert false, \"no\"\n  y = copy x", 1.0)
    assert tangent.trap.kind == difference.trap.kind == "assertion_failed"
    em.compile("fn g(x: f64) -> f64:\nentry:\n  goto entry\n")
    assert dual_oracle(em, "g", (1.0,), "reference", fuel=1000)[0].trap.kind == "out_of_fuel"


def test_oracles_leave_the_session_and_the_output_alone(em, capsys):
    em.compile("global count: i64\nfn f(x: f64) -> f64:\nentry:\n  n = load_global count\n  n = add n, 1\n  store_global count, n\n  print n\n  ret x\n")
    ask_oracles(em, "f", (1.0,), "reference")
    assert capsys.readouterr().out == "" and em.globals()["count"] == 0


def test_non_finite_values_pass_through(em):
    tangent, difference = unary(em, "  y = sqrt x", -1.0)
    assert math.isnan(tangent.value) and math.isnan(tangent.derivative) and math.isnan(difference.derivative)
    assert math.isinf(unary(em, "  y = sqrt x", 0.0)[0].derivative)


def test_where_a_number_stops_being_finite_is_noted(em):
    tangent, _ = unary(em, "  a = sub x, 1.0\n  b = log a\n  y = exp b", 1.0)
    assert [o.index for o in tangent.non_finite] == [1]


# Many inputs at a time

ROOTS = """
fn f(w: [f64], b: f64, c: f64) -> f64:
entry:
  sum = mul b, 2.0
  i = const 0
  n = len w
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get w, i
  size = abs x
  root = sqrt size
  part = mul root, b
  sum = add sum, part
  i = add i, 1
  goto head
done:
  ret sum
"""


@pytest.mark.parametrize("count", [1, WORTH_COMPILING - 3, WORTH_COMPILING - 2, TOGETHER - 2, TOGETHER - 1, 2 * TOGETHER + 1])
def test_numbers_of_arrays_are_inputs_one_by_one(em, count):
    """Passes for many inputs, and compiled differences, give what one input at a time gives."""
    em.compile(ROOTS)
    inputs = ([0.5 + i for i in range(count)], 3.0, 7.0)
    oracle = ask_oracles(em, "f", inputs, "reference")
    assert len(oracle.tangents) == len(oracle.differences) == count + 2 and numbers_of(inputs) == [*inputs[0], 3.0, 7.0]
    roots = [math.sqrt(x) for x in inputs[0]]
    assert [t.derivative for t in oracle.tangents] == pytest.approx([*(3.0 * 0.5 / r for r in roots), 2.0 + sum(roots), 0.0], rel=1e-14)
    assert [t.depends for t in oracle.tangents] == [True] * (count + 1) + [False]
    with patch("simple_magic.autograd.oracles.TOGETHER", 1), patch("simple_magic.autograd.oracles.WORTH_COMPILING", count + 3):
        assert ask_oracles(em, "f", inputs, "reference") == oracle


def test_what_one_input_meets_is_not_said_of_the_others(em):
    em.compile(ROOTS)
    one, other, b, unused = dual_oracle(em, "f", ([0.0, 4.0], 3.0, 7.0), "reference")
    assert math.isinf(one.derivative) and len(one.kinks) == len(one.non_finite) == 1, "the root has an infinite slope at zero"
    assert (other.derivative, b.derivative, unused.derivative) == (0.75, 4.0, 0.0)
    assert not any((t.kinks, t.non_finite, t.underflows) != ((), (), ()) for t in (other, unused)) and not b.kinks


@pytest.mark.parametrize(("large", "x"), [(1e3, 0.0), (1e6, 1.0), (1e9, 1e-3)])
def test_what_cancels_in_the_value_is_noise_in_the_differences(em, large, x):
    em.compile("fn f(a: f64, x: f64) -> f64:\nentry:\n  s = add a, x\n  y = sub s, a\n  ret y\n")
    for tangent, difference in zip(*(getattr(ask_oracles(em, "f", (large, x), "reference"), which) for which in ("tangents", "differences"))):
        assert abs(difference.derivative - tangent.derivative) <= difference.noise < 1e-9 * large


def test_steps_stay_above_the_spacing_of_numbers(em):
    """The end of its domain makes the first step small, and a wave that is shorter still asks for steps that a number near 1 does not have."""
    body = "  a = sub x, 1.0\n  b = add a, 1.0e-8\n  c = sqrt b\n  tiny = mul c, 1.0e-30\n  d = mul a, 1.0e12\n  wave = sin d\n  y = add wave, tiny"
    tangent, difference = unary(em, body, 1.0)
    assert tangent.derivative == pytest.approx(1e12) and math.isfinite(difference.derivative) and difference.step >= 8 * math.ulp(1.0)


def test_a_bend_too_small_for_smaller_steps_is_told_by_a_larger_one(em):
    """Equal logits: the slope of the loss is zero, the softmax takes the larger of two equal numbers, and rounding hides what smaller steps would say."""
    body = "  larger = max x, 2.0\n  a = sub x, larger\n  b = sub 2.0, larger\n  p = exp a\n  q = exp b\n  s = add p, q\n  one = div p, s\n  other = div q, s\n"
    tangent, difference = unary(em, body + "  t = tanh one\n  u = tanh other\n  y = add t, u", 2.0)
    assert tangent.kinks and not difference.is_kink and tangent.derivative == difference.derivative == 0.0
    _, kink = unary(em, "  a = sub x, 2.0\n  b = abs a\n  c = mul b, 1.0e-7\n  y = add c, 1.0", 2.0)
    assert kink.is_kink, "what a larger step leaves as it is"

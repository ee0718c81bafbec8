"""The autograd specs of Simple as data, and as programs that keep their gradients in the nodes or in a store.

22 cases are the core file's, 17 the numeric ones of the extended file, with the expected numbers put right where upstream's are wrong (a comment on
matmul; sum and mean, which must broadcast).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import e, exp, log


@dataclass(frozen=True)
class Keeping:
    """A way to keep gradients: the library's functions for it. An empty `reader`: the gradient stands in the node."""

    name: str
    backward: str
    zero_grad: str
    reader: str = ""
    store: str = ""


IN_NODES = Keeping("in the nodes", "Dense.backward", "Dense.zero_grad")
IN_STORE = Keeping("in a store", "Dense.store_backward", "Dense.store_zero_grad", "Dense.stored_gradient", "dense_grads")


@dataclass(frozen=True)
class Case:
    """leaves: (data, rows, whether it needs a gradient) by name. steps: (result, function of Dense, operands). root: where backward starts, "" for nowhere.

    reads: (node, "data" | "grad" | "needs" | "shape", the numbers expected); an absent gradient reads as no numbers. after: steps after backward.
    """

    name: str
    leaves: dict[str, tuple]
    steps: tuple[tuple, ...]
    root: str
    reads: tuple[tuple[str, str, tuple], ...]
    after: tuple[tuple, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The leaves whose gradients have a verdict: none where nothing is differentiated, or where `detach` cuts what an oracle would follow."""
        is_cut = any(function == "detach" for _, function, *_ in self.steps)
        return tuple(name for name, (_, _, needs) in self.leaves.items() if needs) if self.root and not is_cut else ()

    @property
    def is_about_arrival(self) -> bool:
        """Whether a gradient has to arrive at a leaf; the other cases read only values, the root, or gradients that must be absent."""
        return any(node in self.leaves and what == "grad" and expected for node, what, expected in self.reads)


def leaf(*data: float, rows: int = 1, needs: bool = True) -> tuple:
    return (tuple(float(x) for x in data), rows, needs)


def softmax(*xs: float) -> tuple[float, ...]:
    total = sum(map(exp, xs))
    return tuple(exp(x) / total for x in xs)


CORE = (
    Case("from_data", {"a": leaf(1, 2, 3)}, (), "", (("a", "needs", (1,)), ("a", "data", (1, 2, 3)), ("a", "grad", ()))),
    Case("zeros", {"a": leaf(0, 0, 0, 0, rows=2)}, (), "", (("a", "data", (0, 0, 0, 0)), ("a", "shape", (2, 2)))),
    Case("ones", {"a": leaf(1, 1, 1, needs=False)}, (), "", (("a", "data", (1, 1, 1)), ("a", "needs", (0,)))),
    Case("add", {"a": leaf(2, 3), "b": leaf(4, 5)}, (("r", "add", "a", "b"),), "r", (("a", "grad", (1, 1)), ("b", "grad", (1, 1)))),
    Case("sub", {"a": leaf(5, 6), "b": leaf(1, 2)}, (("r", "sub", "a", "b"),), "r", (("a", "grad", (1, 1)), ("b", "grad", (-1, -1)))),
    Case("mul", {"a": leaf(2, 3), "b": leaf(4, 5)}, (("r", "mul", "a", "b"),), "r", (("a", "grad", (4, 5)), ("b", "grad", (2, 3)))),
    Case("mul_scalar", {"a": leaf(2, 3)}, (("r", "scale", "a", 5.0),), "r", (("a", "grad", (5, 5)),)),
    Case("matmul_2x2", {"a": leaf(1, 2, 3, 4, rows=2), "b": leaf(5, 6, 7, 8, rows=2)}, (("r", "matmul", "a", "b"),), "r",
         (("r", "data", (19, 22, 43, 50)), ("a", "grad", (11, 15, 11, 15)), ("b", "grad", (4, 4, 6, 6)))),
    Case("matmul_2x3", {"a": leaf(1, 2, 3, 4, 5, 6, rows=2), "b": leaf(1, 2, 3, 4, 5, 6, rows=3)}, (("r", "matmul", "a", "b"),), "r",
         (("r", "shape", (2, 2)), ("a", "grad", (3, 7, 11, 3, 7, 11)), ("b", "grad", (5, 5, 7, 7, 9, 9)))),
    Case("relu", {"x": leaf(-2, -1, 0, 1, 2)}, (("r", "relu", "x"),), "r", (("x", "grad", (0, 0, 0, 1, 1)),)),
    Case("relu_both", {"x": leaf(1, -1, 2)}, (("r", "relu", "x"),), "r", (("r", "data", (1, 0, 2)), ("x", "grad", (1, 0, 1)))),
    Case("sum", {"x": leaf(1, 2, 3, 4)}, (("r", "sum", "x"),), "r", (("r", "data", (10,)), ("x", "grad", (1, 1, 1, 1)))),
    Case("mean", {"x": leaf(2, 4, 6, 8)}, (("r", "mean", "x"),), "r", (("r", "data", (5,)), ("x", "grad", (0.25,) * 4))),
    Case("chain", {"x": leaf(2), "y": leaf(3)}, (("s", "add", "x", "y"), ("r", "mul", "s", "x")), "r", (("x", "grad", (7,)), ("y", "grad", (2,)))),
    Case("product_chain", {"x": leaf(1)}, (("a", "scale", "x", 2.0), ("b", "scale", "a", 3.0), ("r", "scale", "b", 4.0)), "r", (("x", "grad", (24,)),)),
    Case("x_plus_x", {"x": leaf(2)}, (("r", "add", "x", "x"),), "r", (("x", "grad", (2,)),)),
    Case("x_times_x", {"x": leaf(3)}, (("r", "mul", "x", "x"),), "r", (("x", "grad", (6,)),)),
    Case("no_grad", {"x": leaf(2, 3, needs=False), "y": leaf(4, 5, needs=False)}, (("r", "mul", "x", "y"),), "r", (("x", "grad", ()), ("y", "grad", ()))),
    Case("detach", {"x": leaf(2)}, (("d", "detach", "x"), ("r", "scale", "d", 3.0)), "r", (("r", "data", (6,)), ("x", "grad", ()))),
    Case("zero_grad", {"x": leaf(2, 3)}, (("r", "scale", "x", 2.0),), "r", (("x", "grad", ()), ("r", "grad", (1, 1))), after=(("", "zero_grad", "x"),)),
    Case("branch", {"x": leaf(2)}, (("a", "scale", "x", 2.0), ("b", "scale", "x", 3.0), ("r", "add", "a", "b")), "r", (("x", "grad", (5,)),)),
    Case("diamond", {"x": leaf(2), "y": leaf(3)}, (("a", "add", "x", "y"), ("b", "mul", "x", "y"), ("r", "add", "a", "b")), "r",
         (("x", "grad", (4,)), ("y", "grad", (3,)))),
)  # fmt: skip
EXTENDED = (
    Case("div_forward", {"a": leaf(6, 8), "b": leaf(2, 4)}, (("r", "div", "a", "b"),), "r", (("r", "data", (3, 2)),)),
    Case("div", {"a": leaf(6), "b": leaf(3)}, (("r", "div", "a", "b"),), "r", (("a", "grad", (1 / 3,)), ("b", "grad", (-2 / 3,)))),
    Case("sigmoid", {"x": leaf(0)}, (("r", "sigmoid", "x"),), "r", (("r", "data", (0.5,)), ("x", "grad", (0.25,)))),
    Case("tanh", {"x": leaf(0)}, (("r", "tanh", "x"),), "r", (("r", "data", (0,)), ("x", "grad", (1,)))),
    Case("exp", {"x": leaf(0)}, (("r", "exp", "x"),), "r", (("r", "data", (1,)), ("x", "grad", (1,)))),
    Case("exp_of_one", {"x": leaf(1)}, (("r", "exp", "x"),), "r", (("r", "data", (e,)), ("x", "grad", (e,)))),
    Case("log_forward", {"x": leaf(1)}, (("r", "log", "x"),), "r", (("r", "data", (0,)),)),
    Case("log", {"x": leaf(2)}, (("r", "log", "x"),), "r", (("r", "data", (log(2),)), ("x", "grad", (0.5,)))),
    Case("neg_forward", {"x": leaf(3, -2)}, (("r", "neg", "x"),), "r", (("r", "data", (-3, 2)),)),
    Case("neg", {"x": leaf(5)}, (("r", "neg", "x"),), "r", (("x", "grad", (-1,)),)),
    Case("pow", {"x": leaf(3)}, (("r", "pow", "x", 4.0),), "r", (("r", "data", (81,)), ("x", "grad", (108,)))),
    Case("mul_scalar_of_zero", {"x": leaf(0, 2)}, (("r", "scale", "x", 5.0),), "r", (("x", "grad", (5, 5)),)),
    Case("softmax", {"x": leaf(1, 2, 3, needs=False)}, (("r", "softmax", "x"),), "r", (("r", "data", softmax(1, 2, 3)),)),
    Case("softmax_first", {"x": leaf(1, 2, 3), "w": leaf(1, 0, 0, needs=False)}, (("y", "softmax", "x"), ("p", "mul", "y", "w"), ("r", "sum", "p")), "r",
         (("x", "grad", tuple(softmax(1, 2, 3)[0] * ((i == 0) - s) for i, s in enumerate(softmax(1, 2, 3)))),)),
    Case("add_sigmoid", {"a": leaf(0), "b": leaf(0)}, (("s", "add", "a", "b"), ("r", "sigmoid", "s")), "r", (("a", "grad", (0.25,)), ("b", "grad", (0.25,)))),
    Case("mul_exp", {"a": leaf(1), "b": leaf(0)}, (("p", "mul", "a", "b"), ("r", "exp", "p")), "r", (("a", "grad", (0,)), ("b", "grad", (1,)))),
    Case("sum_after_mul", {"a": leaf(2, 3), "b": leaf(4, 5)}, (("p", "mul", "a", "b"), ("r", "sum", "p")), "r", (("a", "grad", (4, 5)), ("b", "grad", (2, 3)))),
)  # fmt: skip


ALL = (*CORE, *EXTENDED)


def case_text(case: Case, kept: Keeping = IN_NODES) -> str:
    """Return a function `case_NAME() -> [f64]` that runs the case and gives for each read a count and the numbers."""
    lines = [f"fn case_{case.name}() -> [f64]:", "entry:", "  out: [f64] = array"]
    for name in case.leaves:
        lines += _leaf(case, name)
    lines += [_call(step, kept) for step in case.steps]
    if case.root:
        lines.append(f"  call {kept.backward}({case.root})")
    lines += [_call(step, kept) for step in case.after]
    for number, (node, what, _) in enumerate(case.reads):
        got = f"got_{number}"
        if what == "grad" and kept.reader:
            lines.append(f"  {got} = call {kept.reader}({node})")
        elif what in ("data", "grad"):
            lines.append(f"  {got} = get_field {node}, {what}")
        elif what == "needs":
            lines += [f"  flag_{number} = get_field {node}, needs", f"  number_{number} = select flag_{number}, 1.0, 0.0", f"  {got} = array number_{number}"]
        else:
            lines += [f"  rows_{number} = get_field {node}, rows", f"  cols_{number} = get_field {node}, cols", f"  r_{number}: f64 = cast rows_{number}",
                      f"  c_{number}: f64 = cast cols_{number}", f"  {got} = array r_{number}, c_{number}"]  # fmt: skip
        lines += [f"  n_{number} = len {got}", f"  count_{number}: f64 = cast n_{number}", f"  push out, count_{number}", f"  out = concat out, {got}"]
    return "\n".join([*lines, "  ret out", ""])


def model_text(case: Case) -> str:
    """Return the case as a model: a function `model_NAME` of its parameters, and `leaf_NAME_PARAMETER`, which makes a leaf of the right shape."""
    lines = []
    for name in case.parameters:
        data, rows, _ = case.leaves[name]
        lines += [f"fn leaf_{case.name}_{name}(data: [f64]) -> Dense:", "entry:", f"  leaf = call Dense.matrix(data, {rows}, {len(data) // rows}, true)", "  ret leaf", ""]
    lines += [f"fn model_{case.name}({', '.join(f'{name}: Dense' for name in case.parameters)}) -> Dense:", "entry:"]
    for name in case.leaves:
        lines += _leaf(case, name) if name not in case.parameters else []
    return "\n".join([*lines, *(_call(step, IN_NODES) for step in case.steps), f"  ret {case.root}", ""])


def _leaf(case: Case, name: str) -> list[str]:
    data, rows, needs = case.leaves[name]
    return [f"  {name}_data = array {', '.join(map(repr, data))}", f"  {name} = call Dense.matrix({name}_data, {rows}, {len(data) // rows}, {str(needs).lower()})"]


def _call(step: tuple, kept: Keeping) -> str:
    dest, function, *operands = step
    name = kept.zero_grad if function == "zero_grad" else f"Dense.{function}"
    call = f"call {name}({', '.join(str(o) for o in operands)})"
    return f"  {dest} = {call}" if dest else f"  {call}"


def read_out(out: Sequence[float], case: Case) -> list[tuple[float, ...]]:
    """Return the numbers of each read."""
    found, at = [], 0
    for _ in case.reads:
        count = int(out[at])
        found.append(tuple(out[at + 1 : at + 1 + count]))
        at += 1 + count
    return found

"""The driver of an experiment: a cell of MIR, written for one model, that makes leaves, calls the model, calls backward and reads the gradients.

It is shown on request, and exempt from the semantics pass: under `value` it would lose every gradient itself. What it returns is one flat array:
for every step the loss and the gradients, then the last values; each of these is a count and so many numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..mir.diagnostics import Diagnostic, MirError
from ..mir.model import Function, StructDef
from ..mir.resolve import Names
from ..mir.types import BOOL, F64, I64, Array, Dict, Named, Option, Type, format_type

DRIVER = "gradient_driver"
MARKS = (("gradient_phase", "phase"), ("gradient_leaf", "leaf"), ("gradient_root", "root"))
"""The functions of the driver that the trace pass turns into marks."""
SETUP, FORWARD, BACKWARD, READ = 0, 1, 3, 5
"""The numbers of phases (`events.PHASES`) that the driver announces."""
STORE_TYPES = (Dict(I64, F64), Dict(I64, Array(F64)))
GRADIENT_TYPES = (F64, Array(F64), Option(F64), Option(Array(F64)))

HELPERS = """\
fn gradient_phase(phase: i64, step: i64):
entry:
  ret

fn gradient_leaf(node: {node}, number: i64):
entry:
  ret

fn gradient_root(node: {node}):
entry:
  ret

fn gradient_put(out: [f64], numbers: [f64]):
entry:
  n = len numbers
  count: f64 = cast n
  push out, count
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get numbers, i
  push out, x
  i = add i, 1
  goto head
done:
  ret

fn gradient_descend(numbers: [f64], gradient: [f64], rate: f64) -> [f64]:
entry:
  n = len numbers
  known = len gradient
  out = array_fill 0.0, n
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get numbers, i
  has_one = lt i, known
  if has_one then step else keep
step:
  g = index_get gradient, i
  change = mul rate, g
  x = sub x, change
  goto keep
keep:
  index_set out, i, x
  i = add i, 1
  goto head
done:
  ret out
"""
OPTIONS = {
    Option(F64): """\

fn gradient_given(gradient: f64?) -> [f64]:
entry:
  has_one = is_some gradient
  if has_one then found else none
found:
  g = unwrap gradient
  out = array g
  ret out
none:
  out: [f64] = array
  ret out
""",
    Option(Array(F64)): """\

fn gradient_given(gradient: [f64]?) -> [f64]:
entry:
  has_one = is_some gradient
  if has_one then found else none
found:
  out = unwrap gradient
  ret out
none:
  out: [f64] = array
  ret out
""",
}
HELPER_NAMES = (DRIVER, "gradient_forward", "gradient_phase", "gradient_leaf", "gradient_root", "gradient_put", "gradient_descend", "gradient_given")


@dataclass(frozen=True)
class NodeOptions:
    """What the model's nodes are: the class, its leaf constructor, backward function, value and gradient field.

    leaves: constructors of single parameters. reader: `fn(node) -> gradient` where gradients do not stand in the node; store: the global dict that they
    stand in then, if the trace shall show it.
    """

    node: str = "Value"
    leaf: str = ""
    backward: str = ""
    value: str = "data"
    gradient: str = "grad"
    reader: str = ""
    store: str = ""
    leaves: tuple[tuple[str, str], ...] = ()

    @property
    def leaf_function(self) -> str:
        return self.leaf or f"{self.node}.leaf"

    @property
    def backward_function(self) -> str:
        return self.backward or f"{self.node}.backward"


@dataclass(frozen=True)
class Input:
    """A parameter of the model. `type` is what the driver takes for it; `leaf` the constructor, "" for a number that is passed as it is."""

    name: str
    type: Type
    leaf: str

    @property
    def is_list(self) -> bool:
        return self.type == Array(F64)


@dataclass(frozen=True)
class Driver:
    """The driver's text and how to read what it returns."""

    text: str
    inputs: tuple[Input, ...]
    functions: tuple[str, ...]

    @property
    def parameters(self) -> tuple[Input, ...]:
        """The inputs that have gradients."""
        return tuple(i for i in self.inputs if i.leaf)

    def read(self, out: Sequence[float], steps: int) -> tuple[list[float], list[dict[str, object]], dict[str, object]]:
        """Return (losses, gradients of each step, last values) from what the driver returned. An absent gradient is None."""
        groups = _groups(out)
        losses, gradients = [], []
        for _ in range(steps + 1):
            losses.append(next(groups)[0])
            gradients.append({i.name: _shaped(i, next(groups)) for i in self.parameters})
        return losses, gradients, {i.name: _shaped(i, next(groups)) for i in self.parameters}

    def rounds(self, out: Sequence[float], count: int) -> list[float]:
        """Return the losses and gradients of the first so many evaluations, one after another."""
        return [number for group in itertools.islice(_groups(out), count * (1 + len(self.parameters))) for number in group]


def _groups(out: Sequence[float]) -> Iterator[tuple[float, ...]]:
    at = 0
    while at < len(out):
        count = int(out[at])
        yield tuple(out[at + 1 : at + 1 + count])
        at += 1 + count


def _shaped(parameter: Input, numbers: tuple[float, ...]) -> object:
    if not numbers:
        return None
    return numbers if parameter.is_list or len(numbers) > 1 else numbers[0]


def refuse(message: str, help: str = "") -> MirError:
    return MirError([Diagnostic("E0630", message, help=help)])


def make_driver(model: Function, options: NodeOptions, names: Names, functions: Mapping[str, Function]) -> Driver:
    """Return the driver for a model. Raises: MirError if the model or the node's functions do not fit together."""
    node = names.types.get(options.node)
    if not isinstance(node, StructDef):
        raise refuse(f"`{options.node}` is no class or struct", "name the class of the nodes: node=...")
    clash = sorted(set(HELPER_NAMES) & set(functions))
    if clash:
        raise refuse(f"`{clash[0]}` is the name of a function of the driver", "give the program's function another name")
    node_type = Named(options.node)
    if model.result != node_type:
        raise refuse(f"`{model.name}` returns {format_type(model.result)}, but a model returns a node ({options.node})",
                     f"name the class of the nodes: node=\"{format_type(model.result)}\", in a cell --node {format_type(model.result)}")  # fmt: skip
    fields = {f.name: f.type for f in node.fields}
    gradient, value = _gradient_type(options, fields, functions), fields.get(options.value)
    if value not in (F64, Array(F64)):
        raise refuse(f"`{options.node}.{options.value}` is not f64 or [f64]", "name the field that holds a node's value: value=...")
    if options.gradient == options.value and not options.reader:
        raise refuse(f"`{options.node}.{options.value}` cannot be both the value and the gradient", "name the field that holds the gradient: gradient=...")
    _check_store(options, names)
    _callable(options.backward_function, (node_type,), functions, "backward=...")
    inputs = tuple(_input(p.name, p.type, node_type, options, functions) for p in model.params)
    lines = [f"fn {DRIVER}({''.join(f'input_{i.name}: {format_type(i.type)}, ' for i in inputs)}steps: i64, rate: f64) -> [f64]:", "entry:",
             "  out: [f64] = array", "  step = const 0", *(f"  now_{i.name} = copy input_{i.name}" for i in inputs if i.leaf), "  goto round",
             "round:", f"  call gradient_phase({SETUP}, step)"]  # fmt: skip
    parameters = [i for i in inputs if i.leaf]
    for number, i in enumerate(parameters):
        lines += [f"  leaf_{i.name} = call {i.leaf}(now_{i.name})", f"  call gradient_leaf(leaf_{i.name}, {number})"]
    arguments = ", ".join(f"leaf_{i.name}" if i.leaf else f"input_{i.name}" for i in inputs)
    lines += [f"  call gradient_phase({FORWARD}, step)", f"  loss = call {model.name}({arguments})", "  call gradient_root(loss)",
              f"  call gradient_phase({BACKWARD}, step)", f"  call {options.backward_function}(loss)", f"  call gradient_phase({READ}, step)",
              f"  loss_value = get_field loss, {options.value}"]  # fmt: skip
    if value == F64:
        lines.append("  loss_numbers = array loss_value")
    lines.append(f"  call gradient_put(out, {'loss_numbers' if value == F64 else 'loss_value'})")
    for i in parameters:
        lines.append(f"  gradient_{i.name} = " + (f"call {options.reader}(leaf_{i.name})" if options.reader else f"get_field leaf_{i.name}, {options.gradient}"))
        given = f"gradient_{i.name}" if gradient == Array(F64) else f"given_{i.name}"
        if gradient != Array(F64):
            lines.append(f"  given_{i.name} = " + (f"array gradient_{i.name}" if gradient == F64 else f"call gradient_given(gradient_{i.name})"))
        lines.append(f"  call gradient_put(out, {given})")
    lines += ["  more = lt step, steps", "  if more then update else done", "update:", "  step = add step, 1"]
    for i in parameters:
        given = f"gradient_{i.name}" if gradient == Array(F64) else f"given_{i.name}"
        if i.is_list:
            lines.append(f"  now_{i.name} = call gradient_descend(now_{i.name}, {given}, rate)")
        else:
            lines += [f"  old_{i.name} = array now_{i.name}", f"  new_{i.name} = call gradient_descend(old_{i.name}, {given}, rate)",
                      f"  now_{i.name} = index_get new_{i.name}, 0"]  # fmt: skip
    lines += ["  goto round", "done:"]
    for i in parameters:
        if not i.is_list:
            lines.append(f"  last_{i.name} = array now_{i.name}")
        lines.append(f"  call gradient_put(out, {'now' if i.is_list else 'last'}_{i.name})")
    lines.append("  ret out")
    text = "\n".join(lines) + "\n\n" + HELPERS.format(node=options.node) + (OPTIONS[gradient] if isinstance(gradient, Option) else "")
    return Driver(text, inputs, HELPER_NAMES)


def _gradient_type(options: NodeOptions, fields: Mapping[str, Type], functions: Mapping[str, Function]) -> Type:
    if options.reader:
        found: Type | None = _callable(options.reader, (Named(options.node),), functions, "reader=...").result
    else:
        found = fields.get(options.gradient)
    if found not in GRADIENT_TYPES:
        raise refuse(f"the gradient of `{options.node}` is not f64, [f64] or an option of them",
                     "name the field with gradient=..., or a function that reads it with reader=...")  # fmt: skip
    return found


def _check_store(options: NodeOptions, names: Names) -> None:
    if not options.store:
        return
    assert options.reader, "what is in a store must be read"
    found = names.globals.get(options.store)
    if found is None or found.type not in STORE_TYPES:
        what = "no global" if found is None else f"a global of type {format_type(found.type)}"
        raise refuse(f"the store `{options.store}` is {what}; a store is a global {{i64: f64}} or {{i64: [f64]}}", "name the global dict: store=...")


def _callable(name: str, params: tuple[Type, ...], functions: Mapping[str, Function], option: str) -> Function:
    found = functions.get(name)
    if found is None:
        raise refuse(f"no function is named `{name}`", f"name it: {option}")
    if tuple(p.type for p in found.params) != params:
        raise refuse(f"`{name}` does not take ({', '.join(map(format_type, params))})", f"name another function: {option}")
    return found


def _input(name: str, t: Type, node: Type, options: NodeOptions, functions: Mapping[str, Function]) -> Input:
    if t in (F64, I64, BOOL, Array(F64)):
        return Input(name, t, "")
    if t != node:
        raise refuse(f"the model's parameter `{name}` is {format_type(t)}; a model takes nodes, numbers, bool and [f64]")
    leaf = dict(options.leaves).get(name, options.leaf_function)
    found = functions.get(leaf)
    if found is None:
        raise refuse(f"no function is named `{leaf}`", "name the function that makes a leaf: leaf=...")
    if len(found.params) != 1 or found.params[0].type not in (F64, Array(F64)) or found.result != node:
        raise refuse(f"`{leaf}` is not a function from f64 or [f64] to {format_type(node)}", "name the function that makes a leaf: leaf=...")
    return Input(name, found.params[0].type, leaf)

"""Forward-mode derivatives: the interpreter with a second rule table, in which a number can carry tangents.

A `Dual` is a float that knows how fast it changes with each of the inputs that a pass looks at. The value of every operation comes from the interpreter's own
rule (`run_rules`), so nothing is defined twice; this module only adds what happens to tangents. `DERIVATIVES` has a row per operation on floats: for
each operand the local derivative. `CARRIED` operations hand numbers on as they are, `FLAT` ones have results that stay the same for small changes,
`REFUSED` ones have no derivative that makes sense, and refuse a number with a tangent by name. A test ties the four to the opcode table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ..backends.base import Host, Program, Unit
from ..backends.interpreter import Interpreter, Machine, Step, run_rules
from ..backends.numbers import float_div, floor, libm
from ..backends.values import ArrayValue, DictValue, EnumValue, FnValue, PtrValue, SomeValue, StructValue
from ..mir.diagnostics import Diagnostic, MirError, Origin
from ..mir.types import is_float


Tangents: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.float64]]"
Inputs: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.bool_]]"


class Dual(float):
    """A float with its derivatives (`tangents`), one for each input of the pass.

    magnitudes: the sizes of the terms that were added up for each, which bound its rounding error. inputs: on which of them it depends at all.
    """

    __slots__ = ("inputs", "magnitudes", "tangents")
    tangents: Tangents
    magnitudes: Tangents
    inputs: Inputs

    def __new__(cls, value: float, tangents: Tangents, magnitudes: Tangents, inputs: Inputs) -> Dual:
        self = super().__new__(cls, value)
        self.tangents = tangents
        self.magnitudes = magnitudes
        self.inputs = inputs
        return self


@dataclass
class Notes:
    """What a pass met on its way, and for which inputs: where it stood exactly on a point that may be a kink, where a result was rounded to zero, and
    where finite numbers gave one that is not."""

    kinks: dict[Origin | None, Inputs] = field(default_factory=dict)
    underflows: dict[Origin | None, Inputs] = field(default_factory=dict)
    non_finite: dict[Origin | None, Inputs] = field(default_factory=dict)

    def clear(self) -> None:
        for found in (self.kinks, self.underflows, self.non_finite):
            found.clear()


def _note(found: dict[Origin | None, Inputs], step: Step, inputs: Inputs) -> None:
    if inputs.any():
        found[step.origin] = found[step.origin] | inputs if step.origin in found else inputs


# The rows. A partial derivative is a function of the result and the operands.


def _one(_v: float, *_operands: float) -> float:
    return 1.0


def _minus_one(_v: float, *_operands: float) -> float:
    return -1.0


def _first(_v: float, x: float, *_others: float) -> float:
    return x


def _second(_v: float, _x: float, y: float, *_others: float) -> float:
    return y


def _div_by(v: float, _x: float, y: float) -> float:
    return -float_div(v, y)


def _rem_by(_v: float, x: float, y: float) -> float:
    return -floor(float_div(x, y))


def _pow_base(_v: float, x: float, y: float) -> float:
    return 0.0 if y == 0.0 else y * libm("pow", x, y - 1.0)


def _pow_exponent(v: float, x: float, y: float) -> float:
    return 0.0 if x == 0.0 and y > 0.0 else v * libm("log", x)


def _tan(v: float, _x: float) -> float:
    return 1.0 + v * v


def _tanh(v: float, _x: float) -> float:
    return 1.0 - v * v


def _chosen_first(v: float, x: float, _y: float) -> float:
    return math.nan if v != v else float(v == x)


def _chosen_second(v: float, x: float, _y: float) -> float:
    return math.nan if v != v else float(v != x)


DERIVATIVES: dict[str, tuple[Callable[..., float], ...]] = {
    "add": (_one, _one),
    "sub": (_one, _minus_one),
    "mul": (_second, _first),
    "div": (lambda _v, _x, y: float_div(1.0, y), _div_by),
    "rem": (_one, _rem_by),
    "pow": (_pow_base, _pow_exponent),
    "neg": (_minus_one,),
    "fma": (_second, _first, _one),
    "cast": (_one,),
    "sqrt": (lambda v, _x: float_div(0.5, v),),
    "exp": (lambda v, _x: v,),
    "log": (lambda _v, x: float_div(1.0, x),),
    "sin": (lambda _v, x: libm("cos", x),),
    "cos": (lambda _v, x: -libm("sin", x),),
    "tan": (_tan,),
    "tanh": (_tanh,),
    "abs": (lambda _v, x: math.copysign(1.0, x),),
    "min": (_chosen_first, _chosen_second),
    "max": (_chosen_first, _chosen_second),
}
"""For each operation on floats, the derivative of its result by each operand."""
MAGNITUDES: dict[str, Callable[[float], float]] = {"tanh": lambda v: 1.0 + v * v}
"""How large the terms of a partial derivative are, where they cancel."""

CARRIED = frozenset(
    "const zero copy aggregate_copy nop debug_value drop select array array_fill dict tuple new variant payload get_field set_field index_get "
    "index_set push pop insert remove slice concat values some unwrap call call_indirect invoke func closure load_global store_global alloc load "
    "store gep ref print assert charge goto if switch ret unreachable abort throw resume".split()
)
"""They hand numbers on, or have nothing to do with numbers; a call of an extern refuses arguments with a tangent."""
FLAT = frozenset(
    "floor ceil round trunc eq ne lt le gt ge and or not bit_and bit_or bit_xor bit_not shl shr checked_add checked_sub checked_mul checked_neg "
    "tag len contains keys is_some to_text parse_int parse_float".split()
)
"""Their results are constant between the points where they jump, so their derivative is zero."""
REFUSED = frozenset({"bitcast"})
"""Their results depend on a number's bits."""
CALLS = ("call", "call_indirect", "invoke")

KINKS: dict[str, Callable[..., bool]] = {
    "abs": lambda x: x == 0.0,
    **{op: lambda x, y: x == y for op in ("min", "max", "eq", "ne", "lt", "le", "gt", "ge")},
    **{op: lambda x: x == floor(x) for op in ("floor", "ceil", "trunc", "cast")},
    "round": lambda x: x - floor(x) == 0.5,
    "rem": lambda x, y: y != 0.0 and x / y == floor(x / y),
}
"""Where an operation may have no derivative."""
ROUNDS_TO_ZERO = ("mul", "div", "exp", "pow", "fma")
"""Operations of which a zero result may stand for a number that is too small, although no operand is zero."""


# From rows to rules


def rules(notes: Notes) -> dict[str, Callable[..., object]]:
    """Return the rule table of one pass."""
    table = {}
    for op, primal in run_rules.items():
        if op in DERIVATIVES:
            table[op] = _differentiated(op, primal, notes)
        elif op in CALLS:
            table[op] = _call(primal)
        elif op in CARRIED:
            table[op] = primal
        elif op in FLAT:
            table[op] = _flat(op, primal, notes)
        else:
            table[op] = _refused(op, primal)
    return table


def _differentiated(op: str, primal: Callable[..., Any], notes: Notes) -> Callable[..., object]:
    partials, magnitude_of, is_kink = DERIVATIVES[op], MAGNITUDES.get(op), KINKS.get(op)

    def rule(machine: Machine, step: Step, *operands: Any) -> object:
        value = primal(machine, step, *operands)
        if Dual not in map(type, operands):
            return value
        inputs = _inputs(operands)
        if op == "cast" and not is_float(step.dest_type):  # type: ignore[arg-type]
            _note_kink(op, is_kink, operands, step, notes)
            return value
        tangents, magnitudes = np.zeros(len(inputs)), np.zeros(len(inputs))
        for operand, partial in zip(operands, partials):
            if type(operand) is Dual:
                slope = float(partial(value, *operands))
                terms = slope * operand.tangents
                size = abs(slope) if magnitude_of is None else magnitude_of(value)
                sizes = size * operand.magnitudes
                if not (math.isfinite(slope) and math.isfinite(size)):  # Only for the inputs that the operand depends on: of the others there is no term.
                    terms, sizes = np.where(operand.inputs, terms, 0.0), np.where(operand.inputs, sizes, 0.0)
                if slope != 0.0:
                    _note(notes.underflows, step, (terms == 0.0) & (operand.tangents != 0.0))
                tangents += terms
                magnitudes += sizes
        if op != "cast":
            _note_kink(op, is_kink, operands, step, notes)
        if (value == 0.0 and op in ROUNDS_TO_ZERO and all(x != 0.0 and math.isfinite(x) for x in operands)) or (op == "tanh" and abs(value) == 1.0):
            _note(notes.underflows, step, inputs)
        if all(math.isfinite(x) for x in operands):
            bad = inputs if not math.isfinite(value) else inputs & ~np.isfinite(tangents)
            for operand in operands:
                if type(operand) is Dual:
                    bad = bad & np.isfinite(operand.tangents)
            _note(notes.non_finite, step, bad)
        return Dual(value, tangents, magnitudes, inputs)

    return rule


def _inputs(operands: Sequence[Any]) -> Inputs:
    """Return on which inputs some operands depend; one of them at least is a number with tangents."""
    found = [x.inputs for x in operands if type(x) is Dual]
    return found[0] if len(found) == 1 or found[0] is found[1] else np.logical_or.reduce(found)


def _flat(op: str, primal: Callable[..., Any], notes: Notes) -> Callable[..., object]:
    is_kink = KINKS.get(op)

    def rule(machine: Machine, step: Step, *operands: Any) -> object:
        value = primal(machine, step, *operands)
        if Dual in map(type, operands):
            _note_kink(op, is_kink, operands, step, notes)
        return float(value) if type(value) is Dual else value

    return rule


def _note_kink(op: str, is_kink: Callable[..., bool] | None, operands: Sequence[Any], step: Step, notes: Notes) -> None:
    if is_kink is not None and all(isinstance(x, float) and math.isfinite(x) for x in operands) and is_kink(*operands):
        _note(notes.kinks, step, _inputs(operands))


def _refused(op: str, primal: Callable[..., Any]) -> Callable[..., object]:
    def rule(machine: Machine, step: Step, *operands: Any) -> object:
        if holds_dual(operands):
            raise not_differentiable(f"`{op}` has no derivative", step)
        return primal(machine, step, *operands)

    return rule


def _call(primal: Callable[..., Any]) -> Callable[..., object]:
    def rule(machine: Machine, step: Step, *operands: Any) -> object:
        if step.ins.op == "call_indirect":
            name, args = operands[0].name, (*operands[0].bound, *operands[1:])
        else:
            name, args = step.ins.name, operands
        if name not in machine.program.codes and holds_dual(args):
            raise not_differentiable(f"the extern `{name}` has no derivative", step)
        return primal(machine, step, *operands)

    return rule


def not_differentiable(what: str, step: Step) -> MirError:
    where = f"it is in {step.origin.function}, and its operand depends on an input" if step.origin else "its operand depends on an input"
    return MirError([Diagnostic("E0621", f"{what}; {where}", step.ins.span, help="keep it away from what is to be differentiated")])


def holds_dual(values: Iterable[object]) -> bool:
    """Return whether a number with a tangent is in the values, or in what they lead to."""
    todo, seen = list(values), set()
    while todo:
        value = todo.pop()
        if type(value) is Dual:
            return True
        parts = _parts(value)
        if parts is not None and id(value) not in seen:
            seen.add(id(value))
            todo += parts
    return False


def _parts(value: object) -> Iterable[object] | None:
    match value:
        case ArrayValue(items=items):
            return items if isinstance(items, list) else ()
        case DictValue(items=items):
            return items.values()
        case StructValue(slots=slots) | EnumValue(slots=slots):
            return slots
        case SomeValue(value=inner):
            return (inner,)
        case FnValue(bound=bound):
            return bound
        case PtrValue(block=block):
            return block
        case tuple():
            return value
    return None


def _seeded(args: Sequence[object], seeds: range) -> list[object]:
    """Return the arguments of a call with a tangent of 1 for some of the numbers in them, those of arrays counted one by one."""
    units = np.eye(len(seeds))
    count = itertools.count()

    def seeded(x: object) -> object:
        if isinstance(x, ArrayValue):
            return ArrayValue([seeded(item) for item in x.items], x.growable)
        number = next(count)
        return Dual(x, (unit := units[number - seeds.start]), unit, unit != 0.0) if number in seeds else x  # type: ignore[arg-type]

    return [seeded(arg) for arg in args]


# The engine


class DualEngine(Interpreter):
    """The interpreter for one pass after another: some inputs of every outermost call have a tangent of 1.

    Afterwards `result` is what the call gave, None if that depends on no input, and `notes` what the pass met.
    """

    def __init__(self, host: Host) -> None:
        self.seeds = range(0)
        self.notes = Notes()
        self.result: Dual | None = None
        super().__init__(host, rules(self.notes))

    def begin(self, seeds: range) -> None:
        """Begin a pass for these inputs."""
        self.seeds, self.result = seeds, None
        self.notes.clear()

    def compile(self, unit: Unit, level: int) -> Program:
        return _DualProgram(self, super().compile(unit, level))


@dataclass
class _DualProgram:
    engine: DualEngine
    program: Program

    def call(self, function: str, args: Sequence[object], fuel: int | None = None) -> object:
        seeded = _seeded(args, self.engine.seeds)
        with np.errstate(all="ignore"):  # What is not finite is noted.
            result = self.program.call(function, seeded, fuel)
        self.engine.result = result if isinstance(result, Dual) else None
        return float(result) if isinstance(result, Dual) else result

    def close(self) -> None:
        self.program.close()

    @property
    def timings(self) -> Mapping[str, int]:
        return getattr(self.program, "timings", {})

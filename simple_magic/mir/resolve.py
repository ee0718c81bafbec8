"""Filling in what a program may leave out: the types of locals and of nil.

`resolve` reads a module once, in text order. The type of a local comes from its annotation, wherever in the function it stands, else from its first
assignment; so a local that is read further up in the text than it is first assigned needs an annotation. Afterwards every local has its type on its
first assignment in text order and nowhere else, every nil has a type, and every instruction knows its origin.

Each instruction is typed by `typerules.result_type`, and what is wrong with it is reported here: `verify` adds the rules about definitions, control
flow and assignment. After an error the locals involved have no type and later uses of them are silent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .analysis import writes
from .diagnostics import Diagnostic, Origin, Reporter, Span
from .model import Const, Function, Global, IndexHop, Instruction, Module, Operand, Place
from .ops import OPS
from .places import (
    Names, Rejected, TypeFacts, UnknownType, element_type, enum_of, field_type, hop_type, operand_type, place_types, struct_of, suggestion, variant_of,
)  # fmt: skip
from .text import format_instruction
from .typerules import Use, const_problem, conversion, is_method, result_type, typed_args
from .types import I64, NEVER, UNIT, Option, Type, format_type

__all__ = [
    "Names", "Rejected", "TypeFacts", "UnknownType", "element_type", "enum_of", "field_type", "hop_type", "is_method", "operand_type", "place_types",
    "resolve", "struct_of", "variant_of",
]  # fmt: skip

RESULT_OPTIONAL = frozenset(("call", "call_indirect", "call_table", "invoke", "pop", "remove"))
"""Operations whose result need not be assigned: they are worth running without it."""
MAX_EXTRA_ERRORS = 500
"""Reading on is pointless when this many errors more than can be shown were found."""


@dataclass(frozen=True)
class Shape:
    """Which fields of an instruction an opcode uses: bounds for the operands, the number of labels, and names of further fields."""

    low: int
    high: int | None
    labels: int | None
    uses: frozenset[str]
    named: bool


def _shape(form: str) -> Shape:
    if form == "if":
        return Shape(1, 1, 2, frozenset(("labels",)), False)
    if form == "switch":
        return Shape(1, 1, None, frozenset(("labels", "cases")), False)
    if form == "invoke":
        return Shape(0, None, 2, frozenset(("name", "labels", "unwind")), False)
    low, high, labels, uses, named = 0, 0, 0, set(), False
    unbounded = False
    for token in filter(None, form.split(", ")):
        if token in ("v", "p"):
            low, high = low + 1, high + 1
        elif token == "v?":
            high += 1
        elif token == "v(v*)":
            low, unbounded = low + 1, True
        elif token == "v*":
            unbounded = True
        elif token == "l":
            labels += 1
            uses.add("labels")
        else:
            uses.add({"f": "field", "t": "type", "m": "message"}.get(token, "name"))
            unbounded = unbounded or token.endswith("*)")
            if token.endswith("(f*)"):
                named = True
                uses.add("fields")
    return Shape(low, None if unbounded else high, labels, frozenset(uses), named)


SHAPES: dict[str, Shape] = {name: _shape(row.form) for name, row in OPS.items()}
_SINGLE = ("name", "field", "type", "message")
_MANY = ("labels", "cases", "unwind", "fields")


def shape_problem(ins: Instruction) -> str:
    """Return how the instruction's fields contradict its opcode's form, or "". The text form cannot express most of these."""
    shape = SHAPES[ins.op]
    count = len(ins.args)
    if count < shape.low or (shape.high is not None and count > shape.high):
        wanted = "no operands" if shape.high == 0 else f"{shape.low} operand{'' if shape.low == 1 else 's'}"
        if shape.high is None:
            wanted = f"at least {wanted}"
        elif shape.high != shape.low:
            wanted = f"at most {shape.high} operand{'' if shape.high == 1 else 's'}"
        return f"`{ins.op}` takes {wanted}, but got {count}"
    for name in _SINGLE:
        present = getattr(ins, name) is not None
        if present != (name in shape.uses) and (ins.op, name) != ("trap", "message"):
            return f"`{ins.op}` {'takes no' if present else 'needs a'} {name}"
    for name in _MANY:
        if getattr(ins, name) and name not in shape.uses:
            return f"`{ins.op}` takes no {name}"
    if shape.labels is not None and len(ins.labels) != shape.labels:
        return f"`{ins.op}` needs {shape.labels} label{'' if shape.labels == 1 else 's'}, but got {len(ins.labels)}"
    if shape.labels is None and len(ins.labels) != len(ins.cases) + 1:
        return f"`{ins.op}` needs one label for each case and one for the rest, but got {len(ins.labels)} for {len(ins.cases)} cases"
    if shape.named and len(ins.fields) != count:
        return f"`{ins.op}` needs a field name for each of its {count} operands, but got {len(ins.fields)}"
    if "unwind" in shape.uses and len(set(ins.unwind)) != 2:
        return f"`{ins.op}` needs two different locals for payload and tag"
    return "`const` needs a literal, but got a local" if ins.op == "const" and not isinstance(ins.args[0], Const) else ""


@dataclass
class _Checker:
    """The state of resolving one module."""

    names: Names
    reporter: Reporter
    internal: bool
    facts: TypeFacts
    where: str = ""

    def fail(self, rejected: Rejected, ins: Instruction) -> None:
        span = ins.args[rejected.arg].span if rejected.arg is not None and rejected.arg < len(ins.args) else None
        found = rejected.diagnostic(span or ins.span, context_of(ins))
        self.reporter.report(replace(found, notes=(*found.notes, *self._place(ins))))

    def error(self, code: str, message: str, ins: Instruction, notes: tuple[tuple[str, Span | None], ...] = (), help: str = "") -> None:
        self.reporter.report(Diagnostic(code, message, ins.span, help=help, notes=(*notes, *self._place(ins)), context=context_of(ins)))

    def _place(self, ins: Instruction) -> tuple[tuple[str, Span | None], ...]:
        """Return a note that says where the instruction is, if it has no position in a source."""
        return ((self.where, None),) if ins.span is None and self.where else ()

    def is_hopeless(self) -> bool:
        return self.reporter.dropped > MAX_EXTRA_ERRORS


def context_of(ins: Instruction) -> str:
    """Return the instruction's text for a diagnostic without a span, else ""; only the opcode if it holds a constant that has no text."""
    if ins.span is not None:
        return ""
    todo: list[Operand] = [*ins.args, *ins.cases]
    while todo:
        operand = todo.pop()
        if isinstance(operand, Place):
            todo.extend(hop.index for hop in operand.hops if isinstance(hop, IndexHop))
        elif const_problem(operand):
            return ins.op
    return format_instruction(ins)


def resolve(module: Module, names: Names, reporter: Reporter, internal: bool = False) -> Module:
    """Return the module with all types filled in; report what is wrong with its instructions and initial values.

    `names` are the visible definitions; the module's own win. `internal` admits what passes make.
    """
    names = names.extended(module)
    checker = _Checker(names, reporter, internal, TypeFacts(names))
    globals_ = tuple(_resolve_global(g, checker) for g in module.globals)
    return replace(module, globals=globals_, functions=tuple(_resolve_function(f, checker) for f in module.functions))


def _resolve_global(declared: Global, checker: _Checker) -> Global:
    init = declared.init
    if init is None:
        return declared
    problem = const_problem(init)
    if problem:
        checker.reporter.error("E0114", problem, init.span or declared.span)
        return declared
    if init.type is None and isinstance(declared.type, Option):
        return replace(declared, init=Const(declared.type, None, init.span))
    if init.type != declared.type:
        got = "nil" if init.type is None else format_type(init.type)
        advice = conversion(init, init.type, declared.type) if init.type is not None else ""
        checker.reporter.error("E0406", f"the global `{declared.name}` is {format_type(declared.type)}, but its initial value is {got}",
                               init.span or declared.span, help=advice)  # fmt: skip
    return declared


def _resolve_function(function: Function, checker: _Checker) -> Function:
    checker.where = f"in `{function.name}`"
    locals_: dict[str, Type | None] = {p.name: p.type for p in function.params}
    typed_at: dict[str, Span | None] = {p.name: p.span for p in function.params}
    assigned = set(locals_)
    for block in function.blocks:
        for ins in block.instructions:
            assigned.update(writes(ins))
            if ins.dest is not None and ins.dest_type is not None and ins.dest not in locals_:
                locals_[ins.dest] = ins.dest_type if _is_sound(ins, checker) else None
                typed_at[ins.dest] = ins.span
            for name in ins.unwind:
                locals_.setdefault(name, I64)
    types = _Locals(function, locals_, frozenset(assigned), typed_at)
    seen = {p.name for p in function.params}
    blocks = []
    for block in function.blocks:
        checker.where = f"in `{function.name}`, block `{block.label}`"
        instructions = []
        for index, ins in enumerate(block.instructions):
            args = ins.args if checker.is_hopeless() else _type_instruction(ins, types, checker)
            seen.update(ins.unwind)
            annotation = None
            if ins.dest is not None and ins.dest not in seen:
                seen.add(ins.dest)
                annotation = locals_.get(ins.dest) or ins.dest_type
            origin = ins.origin or Origin(function.name, block.label, index)
            instructions.append(replace(ins, args=args, dest_type=annotation, origin=origin))
        blocks.append(replace(block, instructions=tuple(instructions)))
    return replace(function, blocks=tuple(blocks))


@dataclass
class _Locals:
    """What is known of the locals of one function: a type, or None after an error; a local that is missing has no type yet."""

    function: Function
    types: dict[str, Type | None]
    assigned: frozenset[str]
    typed_at: dict[str, Span | None]


def _is_sound(ins: Instruction, checker: _Checker) -> bool:
    """Report once for each instruction what is wrong with its annotation."""
    t = ins.dest_type
    assert t is not None
    if checker.internal and t == UNIT:
        return True
    try:
        checker.facts.check(t)
    except Rejected as rejected:
        checker.fail(rejected, ins)
        return False
    return True


def _type_instruction(ins: Instruction, known: _Locals, checker: _Checker) -> tuple:
    """Report what is wrong with the instruction, record the type of its result and return its operands with every nil typed."""
    dest, types = ins.dest, known.types
    if dest is not None and ins.dest_type is not None and types.get(dest) not in (None, ins.dest_type):
        checker.error("E0103", f"`{dest}` is {format_type(types[dest])}, but is annotated {format_type(ins.dest_type)} here", ins,  # type: ignore[arg-type]
                      notes=_typed_here(dest, known), help="a local has one type: use another name")  # fmt: skip
    use = Use(ins, known.function, checker.names, checker.facts, types, known.assigned, known.typed_at, types.get(dest or ""), checker.internal, [])
    result: Type | None = None
    try:
        if not _has_shape(ins, checker):
            raise UnknownType
        result = result_type(use)
        _check_result(use, result, known, checker)
    except Rejected as rejected:
        checker.fail(rejected, ins)
        result = None
        _forget_untyped(use, known)
    except UnknownType:
        pass
    if dest is not None and dest not in types:
        types[dest] = result if result not in (UNIT, NEVER) or checker.internal else None
        known.typed_at[dest] = ins.span
    return typed_args(use) if len(use.types) == len(ins.args) else ins.args


def _forget_untyped(use: Use, known: _Locals) -> None:
    """After a complaint about a local whose type is not known yet, say nothing more about it."""
    for operand in use.ins.args:
        if isinstance(operand, Place) and not operand.is_global and operand.root not in known.types and operand.root in known.assigned:
            known.types[operand.root] = None


def _has_shape(ins: Instruction, checker: _Checker) -> bool:
    row = OPS.get(ins.op)
    if row is None:
        checker.error("E0206", f"unknown operation `{ins.op}`", ins, help=suggestion(ins.op, OPS))
        return False
    if not checker.internal and (row.internal or ins.attributes):
        what = f"`{ins.op}` is an internal operation, made by passes" if row.internal else f"`{ins.op}` takes no attributes"
        checker.error("E0190", what, ins, help="write it with ordinary operations")
        return False
    problem = shape_problem(ins)
    if problem:
        checker.error("E0105", problem, ins)
    return not problem


def _check_result(use: Use, result: Type | None, known: _Locals, checker: _Checker) -> None:
    ins, dest = use.ins, use.ins.dest
    gives_nothing = result is None or (result in (UNIT, NEVER) and not checker.internal)
    if dest is None:
        if not gives_nothing and ins.op not in RESULT_OPTIONAL:
            checker.error("E0107", f"`{ins.op}` gives a {_value_of(result)}, but it is not assigned", ins, help=f"write `x = {ins.op} ...`")
        return
    if gives_nothing:
        what = f"`{ins.name}`" if ins.op in ("call", "invoke") and ins.name else f"`{ins.op}`"
        checker.error("E0106", f"{what} gives no value, so nothing can be assigned to `{dest}`", ins, help=f"leave out `{dest} =`")
        return
    wanted = known.types.get(dest)
    if wanted is not None and result != wanted and ins.dest_type in (None, wanted):
        got = format_type(result)  # type: ignore[arg-type]
        advice = conversion(ins.args[0], result, wanted) if ins.op in ("const", "copy") else ""  # type: ignore[arg-type]
        if ins.dest_type == wanted:
            message = f"`{dest}` is annotated {format_type(wanted)}, but `{ins.op}` gives {got}"
        else:
            message = f"`{dest}` is {format_type(wanted)}, but `{ins.op}` gives {got}"
        notes = () if ins.dest_type == wanted else _typed_here(dest, known)
        checker.error("E0103", message, ins, notes=notes, help=advice or "a local has one type: use another name")


def _value_of(t: Type | None) -> str:
    return f"value of type {format_type(t)}" if t is not None else "value"


def _typed_here(name: str, known: _Locals) -> tuple[tuple[str, Span | None], ...]:
    span = known.typed_at.get(name)
    return ((f"`{name}` gets its type here", span),) if span is not None else ()

"""What the trace cannot follow: instructions that may change gradients without an event that says so.

Gradients live in fields of nodes, in arrays that stand there, and in a store. A program may take such an array or the store's dict elsewhere (into another
field, a dict, an option, a pointer, a function value) and write there. `find_unfollowed` is a may-analysis over a whole resolved module: which locals
may be a gradient array or the store, and whether such a thing went where locals are not seen (*escaped*); then everything that is not surely new may be
one. The trace records an event "unfollowed" where an instruction changes such a thing, so that a verdict knows what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..mir.analysis import function_values, local_types
from ..mir.model import Function, Instruction, Module, Operand, Place
from ..mir.resolve import Names, operand_type
from ..mir.types import F64, Array, Option, Type
from .provenance import Fields, Local, gradient_hop, is_store_read

ARRAYS = (Array(F64), Option(Array(F64)))
MUTATORS = ("index_set", "push", "pop", "insert", "remove")
PASSES_ON = ("copy", "aggregate_copy", "select", "some", "unwrap")
MAKES_NEW = ("array", "array_fill", "slice", "concat", "values", "keys", "dict", "zero", "const")
LOOKS_ONLY = (*MUTATORS, "index_get", "len", "slice", "concat", "contains", "keys", "is_some", "eq", "ne", "print", "assert", "debug_value", "drop")
"""They neither keep the array or dict that they are given first, nor give it on."""


@dataclass
class Unfollowed:
    """What `find_unfollowed` finds. `maybe`: locals that may be a gradient array or the store."""

    fields: Fields
    names: Names
    types: dict[str, dict[str, Type]]
    store_type: Type | None
    maybe: set[Local] = field(default_factory=set)
    has_escaped: bool = False

    def changes(self, function: str, ins: Instruction, is_view: bool) -> bool:
        """Whether an instruction may change a gradient without an event of it. `is_view`: its target is a view (`provenance.Flow`)."""
        if ins.op == "store_global":
            return ins.name == self.fields.store
        if ins.op not in MUTATORS or not isinstance(ins.args[0], Place):
            return False
        target = ins.args[0]
        t = operand_type(target, self.types[function], self.names)
        if t == Array(F64):
            if gradient_hop(target, self.types[function], self.names, self.fields) is not None or is_view:
                return ins.op != "index_set"
            return is_store_read(target, self.fields) or self.may_be(function, target)
        if t is None or t != self.store_type:
            return False
        if self.is_store(target):
            return ins.op != "index_set"
        return self.may_be(function, target)

    def replaces(self, function: str, ins: Instruction) -> bool:
        """Whether an instruction puts another dict in the place of the store, one that surely holds nothing of it."""
        return ins.op == "store_global" and ins.name == self.fields.store and not self.is_one(function, ins.args[0])

    def is_store(self, operand: Operand) -> bool:
        return isinstance(operand, Place) and operand.is_global and operand.root == self.fields.store and not operand.hops

    def may_be(self, function: str, operand: Place) -> bool:
        return self.has_escaped if operand.is_global or operand.hops else (function, operand.root) in self.maybe

    def is_one(self, function: str, operand: Operand) -> bool:
        """Whether an operand that is read may be a gradient array or the store."""
        if not isinstance(operand, Place):
            return False
        t = operand_type(operand, self.types[function], self.names)
        if t not in ARRAYS and t != self.store_type:
            return False
        is_known = self.is_store(operand) or is_store_read(operand, self.fields) or gradient_hop(operand, self.types[function], self.names, self.fields) is not None
        return is_known or self.may_be(function, operand)


def find_unfollowed(module: Module, names: Names, fields: Fields) -> Unfollowed:
    """Return what may be a gradient array or the store; see `Unfollowed.changes`."""
    types = {f.name: dict(local_types(f)) for f in module.functions}
    store = names.globals.get(fields.store)
    found = Unfollowed(fields, names, types, store.type if store is not None else None)
    functions = {f.name: f for f in module.functions}
    before = None
    while before != (len(found.maybe), found.has_escaped):
        before = (len(found.maybe), found.has_escaped)
        for function in module.functions:
            for ins in _instructions(function):
                _visit(found, function.name, ins, functions)
        if found.has_escaped:
            indirect = function_values(module.functions)
            found.maybe |= {(f.name, p.name) for f in module.functions if f.name in indirect for p in f.params if _is_held(found, p.type)}
    return found


def _instructions(function: Function) -> Iterator[Instruction]:
    return (ins for block in function.blocks for ins in block.instructions)


def _is_held(found: Unfollowed, t: Type | None) -> bool:
    return t in ARRAYS or (t is not None and t == found.store_type)


def _visit(found: Unfollowed, name: str, ins: Instruction, functions: dict[str, Function]) -> None:
    given = [found.is_one(name, a) for a in ins.args]
    callee = functions.get(ins.name or "") if ins.op in ("call", "invoke") else None
    is_held = ins.dest is not None and _is_held(found, found.types[name].get(ins.dest))
    if callee is not None:
        found.maybe |= {(callee.name, p.name) for p, is_one in zip(callee.params, given) if is_one}
        if is_held and (callee.name, "") in found.maybe:
            found.maybe.add((name, ins.dest))  # type: ignore[arg-type]
        return
    if ins.op == "ret":
        if any(given):
            found.maybe.add((name, ""))
        return
    if is_held and _gives_one(found, name, ins, given):
        found.maybe.add((name, ins.dest))  # type: ignore[arg-type]
    if any(given) and not _keeps_track(found, ins, given):
        found.has_escaped = True


def _gives_one(found: Unfollowed, name: str, ins: Instruction, given: list[bool]) -> bool:
    if ins.op in PASSES_ON:
        return any(given)
    if ins.op == "get_field":
        is_gradient = ins.field == found.fields.gradient and operand_type(ins.args[0], found.types[name], found.names) == found.fields.type
        return is_gradient or found.has_escaped
    if ins.op == "load_global":
        return ins.name == found.fields.store or found.has_escaped
    if ins.op == "index_get":
        return found.is_store(ins.args[0]) or found.has_escaped
    return ins.op not in MAKES_NEW and found.has_escaped


def _keeps_track(found: Unfollowed, ins: Instruction, given: list[bool]) -> bool:
    """Whether a gradient array or the store that an instruction is given stays where it is seen."""
    if ins.op in PASSES_ON:
        return True
    if ins.op == "set_field":
        return ins.field == found.fields.gradient
    if ins.op == "new" and ins.name == found.fields.node:
        return not any(is_one and f != found.fields.gradient for f, is_one in zip(ins.fields, given))
    if ins.op == "store_global":
        return ins.name == found.fields.store
    if ins.op == "index_set" and found.is_store(ins.args[0]):
        return True
    return ins.op in LOOKS_ONLY and not any(given[1:] if ins.op != "concat" else ())

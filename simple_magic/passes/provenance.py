"""Where a number comes from: which locals can hold something computed from a gradient and end up in one.

`find_flow` is a may-analysis over a whole resolved module, by local and not by assignment: a local is *tracked* if a gradient may flow into it (from a
read of the gradient field or the store, through arithmetic, arrays of f64, options, arguments and results) and if it may flow into a write of one. Only
tracked locals get origin shadows in `passes/trace.py`; everything else costs nothing. Numbers that pass through other memory (fields, dicts, globals)
are not followed: there the trace says "unknown".

A tracked local is *based* if it may be a sum, so that one of the summands may be the old value of what it is written into; it is *mixed* if it may be
computed from a gradient instead of being one: a multiple of the old value plus something is no accumulation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..mir.analysis import function_values, local_types
from ..mir.model import FieldHop, Function, IndexHop, Instruction, Module, Operand, Place
from ..mir.resolve import Names, operand_type, place_types
from ..mir.types import F64, Array, Named, Option, Type

NUMBERS = (F64, Array(F64), Option(F64), Option(Array(F64)))
"""The types of locals that are followed, and of gradient fields."""
SUMS = ("add", "sub", "fma")
KEEPS_BASE = ("copy", "select", "some", "unwrap", "aggregate_copy", "index_get", "slice", "array", "array_fill", "const", "pop")
"""Operations that pass a sum on as a sum."""
ELEMENT_WRITES = ("index_set", "push", "insert")
CALLS = ("call", "invoke")


@dataclass(frozen=True)
class Fields:
    """What holds gradients: the class (or struct) of the nodes, its gradient field, its value field, and the name of the gradient store, if any."""

    node: str
    gradient: str
    value: str = ""
    store: str = ""

    @property
    def type(self) -> Type:
        return Named(self.node)


Local = tuple[str, str]
"""A function and one of its locals; its result is the local ""."""
READ, OTHER = ("", "read"), ("", "other")


@dataclass
class Flow:
    """What `find_flow` finds: see the module docstring. `views`: locals that are only ever the gradient array of a node, or a copy of it, and of which
    elements are written, here or in a function that gets them: their shadow is the node, or the copy.
    `indirect`: functions that are called through values, whose callers are unknown. `carrying`: locals that a gradient may flow into."""

    tracked: set[Local] = field(default_factory=set)
    based: set[Local] = field(default_factory=set)
    mixed: set[Local] = field(default_factory=set)
    views: set[Local] = field(default_factory=set)
    indirect: frozenset[str] = frozenset()
    carrying: set[Local] = field(default_factory=set)


def gradient_hop(place: Place, types: dict[str, Type], names: Names, fields: Fields) -> int | None:
    """Return the number of the hop of a place that is a node's gradient field, or None."""
    owners = place_types(place, types, names)
    for index, (hop, owner) in enumerate(zip(place.hops, owners)):
        if isinstance(hop, FieldHop) and hop.field == fields.gradient and owner == fields.type:
            return index
    return None


def is_store_read(place: Place, fields: Fields) -> bool:
    """Whether a place reads an entry of the gradient store."""
    return bool(fields.store) and place.is_global and place.root == fields.store and len(place.hops) == 1 and isinstance(place.hops[0], IndexHop)


def sources(ins: Instruction) -> tuple[Operand, ...]:
    """Return the operands whose numbers can be part of the result; calls, and what reads other memory, give none."""
    match ins.op:
        case "index_get" | "pop" | "unwrap" | "slice" | "array_fill":
            return ins.args[:1]
        case "select":
            return ins.args[1:]
        case "call" | "invoke" | "call_indirect" | "get_field" | "payload" | "load" | "load_global" | "remove" | "values":
            return ()
    return ins.args


class _Search:
    """Grows the sets until nothing is added."""

    def __init__(self, module: Module, names: Names, fields: Fields) -> None:
        self.module, self.names, self.fields = module, names, fields
        self.functions = {f.name: f for f in module.functions}
        self.types = {f.name: local_types(f) for f in module.functions}
        self.edges: list[tuple[Local, Local, bool]] = []
        self.carrying: set[Local] = set()
        self.needed: set[Local] = set()
        self.sums: set[Local] = set()
        self.mixed: set[Local] = set()
        self.views: dict[Local, set[Local]] = {}
        """What each array of numbers is taken from: locals, READ for a gradient as it stands in its node, OTHER for anything else."""
        self.stored_back: set[Local] = set()
        self.writes: list[tuple[Local, Operand]] = []

    def run(self) -> Flow:
        for function in self.module.functions:
            for block in function.blocks:
                for ins in block.instructions:
                    self.instruction(function, ins)
        views = self.find_views()
        for local, value in self.writes:
            if local in views:
                self.needed.add(local)
                self.need(local[0], value)
        self.spread(self.carrying, [(a, b) for a, b, _ in self.edges])
        self.spread(self.needed, [(b, a) for a, b, _ in self.edges])
        passing = [(a, b) for a, b, keeps in self.edges if keeps and b not in views]
        self.spread(self.sums, passing)
        self.spread(self.mixed, passing)
        tracked = self.carrying & self.needed
        return Flow(tracked, self.sums & tracked, self.mixed & tracked, views, frozenset(function_values(self.module.functions)), self.carrying)

    def find_views(self) -> set[Local]:
        """Return the views: taken from views alone, and written."""
        users: dict[Local, list[Local]] = {}
        for local, taken in self.views.items():
            for source in taken:
                users.setdefault(source, []).append(local)
        others = {OTHER, *self.stored_back, *((f, p) for f, p in self.parameters() if f in function_values(self.module.functions))}
        others |= {source for source in users if source != READ and source not in self.views}
        self.spread(others, [(a, b) for a, found in users.items() for b in found])
        written = {local for local, _ in self.writes}
        self.spread(written, [(b, a) for a, found in users.items() for b in found])
        return {local for local in self.views if local not in others and local in written}

    def parameters(self) -> list[Local]:
        return [(f.name, p.name) for f in self.module.functions for p in f.params]

    def view(self, name: str, ins: Instruction, types: dict[str, Type]) -> None:
        """Note what an array of numbers is taken from."""
        if ins.op == "get_field" and self.reads_gradient(ins, types):
            source = READ
        elif ins.op in ("copy", "aggregate_copy"):
            source = self.array_source(name, ins.args[0], types)
        else:
            source = OTHER
        self.views.setdefault((name, ins.dest or ""), set()).add(source)

    def array_source(self, name: str, operand: Operand, types: dict[str, Type]) -> Local:
        if not isinstance(operand, Place) or operand.is_global:
            return OTHER
        if not operand.hops:
            return (name, operand.root)
        hop = gradient_hop(operand, types, self.names, self.fields)
        return READ if hop == len(operand.hops) - 1 else OTHER

    def spread(self, found: set[Local], edges: list[tuple[Local, Local]]) -> None:
        table: dict[Local, list[Local]] = {}
        for a, b in edges:
            table.setdefault(a, []).append(b)
        todo = list(found)
        while todo:
            for target in table.get(todo.pop(), ()):
                if target not in found:
                    found.add(target)
                    todo.append(target)

    def instruction(self, function: Function, ins: Instruction) -> None:
        name, types = function.name, self.types[function.name]
        dest = (name, ins.dest) if ins.dest is not None and types.get(ins.dest) in NUMBERS else None
        if dest is not None:
            if types[dest[1]] == Array(F64):
                self.view(name, ins, types)
            if (ins.op == "get_field" and self.reads_gradient(ins, types)) or self.reads_store(ins):
                self.carrying.add(dest)
            for operand in sources(ins):
                self.link(name, operand, dest, types, ins.op in KEEPS_BASE)
            if ins.op in SUMS:
                self.sums.add(dest)
            if sources(ins) and ins.op not in KEEPS_BASE:
                self.mixed.add(dest)
        if ins.op in ELEMENT_WRITES and isinstance(ins.args[0], Place):
            self.element_write(name, ins.args[0], ins.args[-1], types)
        if ins.op == "set_field" and ins.field == self.fields.gradient and operand_type(ins.args[0], types, self.names) == self.fields.type:
            self.need(name, ins.args[1])
            if isinstance(ins.args[1], Place) and ins.args[1].root.startswith("copied$"):
                self.stored_back.add((name, ins.args[1].root))
        if ins.op in CALLS and ins.name in self.functions:
            callee = self.functions[ins.name]
            for param, arg in zip(callee.params, ins.args):
                if param.type in NUMBERS:
                    self.link(name, arg, (callee.name, param.name), types, True)
                if param.type == Array(F64):
                    self.views.setdefault((callee.name, param.name), set()).add(self.array_source(name, arg, types))
            if dest is not None:
                self.edges.append(((callee.name, ""), dest, True))
        if ins.op == "ret" and ins.args and function.result in NUMBERS:
            self.link(name, ins.args[0], (name, ""), types, True)

    def reads_gradient(self, ins: Instruction, types: dict[str, Type]) -> bool:
        return ins.field == self.fields.gradient and operand_type(ins.args[0], types, self.names) == self.fields.type

    def reads_store(self, ins: Instruction) -> bool:
        store = ins.args[0] if ins.op == "index_get" else None
        return isinstance(store, Place) and store.is_global and store.root == self.fields.store and not store.hops

    def element_write(self, name: str, target: Place, value: Operand, types: dict[str, Type]) -> None:
        if target.is_global:
            if target.root == self.fields.store and not target.hops:
                self.need(name, value)
        elif gradient_hop(target, types, self.names, self.fields) is not None:
            self.need(name, value)
        elif not target.hops and types[target.root] in NUMBERS:
            self.link(name, value, (name, target.root), types, True)
            self.writes.append(((name, target.root), value))

    def need(self, name: str, operand: Operand) -> None:
        if isinstance(operand, Place) and not operand.is_global:
            self.needed.add((name, operand.root))

    def link(self, name: str, operand: Operand, target: Local, types: dict[str, Type], keeps_base: bool) -> None:
        """Note that the operand's number may become part of the target."""
        if not isinstance(operand, Place) or operand_type(operand, types, self.names) not in NUMBERS:
            return
        if is_store_read(operand, self.fields) or gradient_hop(operand, types, self.names, self.fields) is not None:
            self.carrying.add(target)
        elif not operand.is_global and types[operand.root] in NUMBERS:
            self.edges.append(((name, operand.root), target, keeps_base))


def find_flow(module: Module, names: Names, fields: Fields) -> Flow:
    """Return which locals of a resolved module are tracked, and which of them may be sums."""
    return _Search(module, names, fields).run()

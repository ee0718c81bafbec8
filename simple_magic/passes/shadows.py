"""Origin shadows: beside each local that may carry a gradient, which object's gradient was last read into it.

`Shadows` appends ordinary instructions to a function that `passes/trace.py` rewrites. A shadow holds the number of an object (1 + the number of the event
that made it), 0 for none, UNKNOWN where several objects took part, STORE - key for an entry of the gradient store. The parts of a number are (base,
from): `base$x` is the summand that is a gradient as it was read, `from$x` the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..mir.analysis import local_types
from ..mir.diagnostics import Origin, Span
from ..mir.model import Const, Function, Instruction, Module, Operand, Place, const
from ..mir.printer import format_operand
from ..mir.resolve import Names, operand_type
from ..mir.types import BOOL, I64, TEXT, Named, Type
from .provenance import KEEPS_BASE, NUMBERS, Fields, find_flow, gradient_hop, is_store_read, sources
from .unfollowed import find_unfollowed

ID = "trace$id"
"""The hidden field of a node."""
UNKNOWN, STORE = -1, -2
EITHER = 1 << 62
"""Added to the source of a sum of two gradients as they were read: either one may be the old value of what the sum is written into."""
CAPACITY = 1 << 19
"""How many events a trace holds unless told otherwise."""
HEADER = -1
"""The slot of a record that says which array was written as a whole; those of its elements follow."""
ZERO = const(I64, 0)
MARKS = ("phase", "leaf", "root")


@dataclass(frozen=True)
class Options:
    """What to trace. `marks`: which function of the driver marks what (see MARKS). `shares`: record reads and arguments that share a node, too."""

    fields: Fields
    marks: tuple[tuple[str, str], ...] = ()
    capacity: int = CAPACITY
    shares: bool = False


@dataclass(frozen=True)
class Site:
    """What is known about an event before the program runs. `constant`: the written value is a constant, so no gradient took part. `has_value`: the
    record of an allocation holds the new node's value. `is_view`: what is written is the gradient array of a node, or a copy of one (`provenance.Flow`)."""

    kind: str
    origin: Origin | None
    span: Span | None
    path: str = ""
    field: str = ""
    position: str = ""
    label: str = ""
    constant: bool = False
    has_element: bool = False
    has_value: bool = False
    is_view: bool = False

class Tracing:
    """What all functions share while they are rewritten."""

    def __init__(self, module: Module, options: Options, names: Names, written: Module) -> None:
        self.options, self.fields, self.names = options, options.fields, names
        self.functions = {f.name: f for f in module.functions}
        self.flow = find_flow(module, names, options.fields)
        self.unfollowed = find_unfollowed(module, names, options.fields)
        self.marks = dict(options.marks)
        self.sites: list[Site] = []
        self.registers: set[str] = set()
        self.written = {i.origin: i for f in written.functions for b in f.blocks for i in b.instructions if i.op != "charge"}
        self.node_type = Named(options.fields.node)
        fields = {f.name: f.type for f in names.types[options.fields.node].fields}  # type: ignore[union-attr]
        self.field_types: dict[str | int | None, Type] = {f: fields[f] for f in (options.fields.gradient, options.fields.value) if fields.get(f) in NUMBERS}
        self.has_label = fields.get("op") == TEXT

    def site(self, site: Site) -> Const:
        self.sites.append(site)
        return const(I64, len(self.sites) - 1)

    def register(self, name: str) -> str:
        self.registers.add(name)
        return name

class Shadows:
    """Appends instructions to a function, and keeps the shadows of its locals."""

    def __init__(self, module: Tracing, function: Function) -> None:
        self.module, self.function = module, function
        self.fields, self.names, self.flow = module.fields, module.names, module.flow
        self.types: dict[str, Type] = dict(local_types(function))
        self.count = 0
        self.out: list[Instruction] = []
        self.now: Instruction = function.blocks[0].instructions[0]
        self.back: set[str] = set()
        self.definitions: dict[str, list[Instruction]] = {}
        for block in function.blocks:
            for ins in block.instructions:
                if ins.dest is not None:
                    self.definitions.setdefault(ins.dest, []).append(ins)

    # New instructions

    def emit(self, op: str, args: tuple[Operand, ...] = (), t: Type | None = None, dest: str | None = None, **more: object) -> Place:
        """Append an instruction, assigning `dest` or a new local if it has a type; return that local."""
        if t is not None and dest is None:
            self.count += 1
            dest = f"trace${self.count}"
        annotation = t if dest is not None and dest not in self.types else None
        if annotation is not None:
            self.types[dest] = annotation  # type: ignore[index]
        self.out.append(Instruction(op, args, dest, t, origin=self.now.origin, span=self.now.span, **more))  # type: ignore[arg-type]
        return Place(dest or "")

    def event(self, head: Operand, **columns: Operand | None) -> Place:
        """Append the recording of an event; return the local that holds its number + 1."""
        at = self.emit("load_global", (), I64, name="trace$at")
        here = self.emit("min", (at, const(I64, self.module.options.capacity)), I64)
        for name, value in {"head": head, **columns}.items():
            if value is not None and value != ZERO:
                self.emit("index_set", (Place(f"trace${name}", is_global=True), here, value))
        after = self.emit("add", (at, const(I64, 1)), I64)
        self.emit("store_global", (after,), name="trace$at")
        return after

    def id_of(self, node: Operand) -> Place:
        return self.emit("get_field", (still(node),), I64, field=ID)

    def stable(self, operand: Operand) -> Operand:
        """Return an operand that can be read several times and cannot trap."""
        if isinstance(operand, Const) or not (operand.hops or operand.is_global or operand.move):
            return operand
        return self.emit("copy", (operand,), operand_type(operand, self.types, self.names))

    def site(self, kind: str, **more: object) -> Const:
        return self.module.site(Site(kind, self.now.origin, self.now.span, **more))  # type: ignore[arg-type]

    # Shadows

    def is_tracked(self, local: str | None) -> bool:
        return local is not None and (self.function.name, local) in self.flow.tracked

    def is_based(self, local: str) -> bool:
        return (self.function.name, local) in self.flow.based

    def parts(self, operand: Operand) -> tuple[Operand, Operand]:
        """Return (base, from) of a number that is read here."""
        if isinstance(operand, Const):
            return ZERO, ZERO
        if is_store_read(operand, self.fields):
            return ZERO, self.store_object(operand.hops[0].index)  # type: ignore[union-attr]
        hop = gradient_hop(operand, self.types, self.names, self.fields) if operand.hops else None
        if hop is not None:
            return ZERO, self.id_of(replace(operand, hops=operand.hops[:hop]))
        if operand.is_global or not self.is_tracked(operand.root):
            return ZERO, ZERO
        return Place(f"base${operand.root}") if self.is_based(operand.root) else ZERO, Place(f"from${operand.root}")

    def store_object(self, key: Operand) -> Place:
        return self.emit("sub", (const(I64, STORE), still(key)), I64)

    def whole(self, operand: Operand) -> Operand:
        return self.combined(*self.parts(operand))

    def combined(self, a: Operand, b: Operand) -> Operand:
        """Append what two sources have in common: the other if one is none, UNKNOWN if they differ."""
        if a in (ZERO, b):
            return b
        if b == ZERO:
            return a
        is_none = self.emit("eq", (b, ZERO), BOOL)
        either = self.emit("select", (is_none, a, const(I64, UNKNOWN)), I64)
        is_same = self.emit("eq", (a, b), BOOL)
        either = self.emit("select", (is_same, a, either), I64)
        is_none = self.emit("eq", (a, ZERO), BOOL)
        return self.emit("select", (is_none, b, either), I64)

    def is_mixed(self, operand: Operand) -> bool:
        """Whether an operand may be computed from a gradient instead of being one as it was read."""
        return isinstance(operand, Place) and not operand.hops and (self.function.name, operand.root) in self.flow.mixed

    def sum_parts(self, first: Operand, second: Operand, commutes: bool) -> tuple[Operand, Operand]:
        """Return the parts of a sum: its base is a summand that is a gradient as it was read, or the base of a summand that is a sum.

        If both are, the first one is the base and the other one is marked: it may be the base, too. What is subtracted is none.
        """
        base, source = self.parts(first)
        other_base, other = self.parts(second)
        if base == ZERO and not self.is_mixed(first):
            base, source = source, ZERO
        if other_base == ZERO and not self.is_mixed(second):
            other_base, other = other, ZERO
        if not commutes:
            return base, source if other_base == other == ZERO else const(I64, UNKNOWN)
        if base == ZERO or other_base == ZERO:
            return (base if other_base == ZERO else other_base), self.combined(source, other)
        if source == other == ZERO:
            return base, self.emit("add", (other_base, const(I64, EITHER)), I64)
        has_none = self.emit("eq", (base, ZERO), BOOL)
        rest = self.combined(self.combined(source, other), self.emit("select", (has_none, ZERO, other_base), I64))
        return self.emit("select", (has_none, other_base, base), I64), rest

    def is_view(self, operand: Operand | None) -> bool:
        """Whether an operand is the gradient array of a node, or a copy of one, by name."""
        if not isinstance(operand, Place) or operand.hops or operand.is_global:
            return False
        return (self.function.name, operand.root) in self.flow.views and self.is_tracked(operand.root)

    def result_parts(self, ins: Instruction) -> tuple[Operand, Operand]:
        """Return the parts of what an instruction assigns; calls are treated elsewhere."""
        if ins.op == "get_field" and ins.field == self.fields.gradient and self.type_of(ins.args[0]) == self.fields.type:
            return ZERO, self.id_of(ins.args[0])
        if ins.op == "index_get" and isinstance(ins.args[0], Place) and ins.args[0].is_global and ins.args[0].root == self.fields.store:
            return ZERO, self.store_object(ins.args[1])
        if ins.op in ("add", "sub"):
            return self.sum_parts(ins.args[0], ins.args[1], commutes=ins.op == "add")
        if ins.op == "fma":
            base, source = self.parts(ins.args[2])
            if base == ZERO and not self.is_mixed(ins.args[2]):
                base, source = source, ZERO
            return base, self.combined(source, self.combined(self.whole(ins.args[0]), self.whole(ins.args[1])))
        if ins.op == "aggregate_copy" and self.is_view(Place(ins.dest or "")):
            head = self.site("copy", position=str(ins.attribute("position", "written")), path=self.path(ins), has_element=True)
            return ZERO, self.event(head, source=self.whole(ins.args[0]))
        numbers = [a for a in sources(ins) if self.type_of(a) in NUMBERS]
        if ins.op == "select":
            (base_a, from_a), (base_b, from_b) = (self.parts(a) for a in numbers)
            which = still(ins.args[0])
            return tuple(a if a == b else self.emit("select", (which, a, b), I64) for a, b in ((base_a, base_b), (from_a, from_b)))  # type: ignore[return-value]
        if ins.op in KEEPS_BASE and len(numbers) == 1:
            return self.parts(numbers[0])
        found: Operand = ZERO
        for operand in numbers:
            found = self.combined(found, self.whole(operand))
        return ZERO, found

    def set_shadow(self, local: str, base: Operand, source: Operand) -> None:
        if self.is_based(local):
            self.emit("copy", (base,), I64, f"base${local}")
        self.emit("copy", (source,), I64, f"from${local}")

    def path(self, ins: Instruction, field: str | int | None = None) -> str:
        """Return what an instruction acts on as the function calls it, a local that stands for an element written out."""
        written = self.module.written.get(ins.origin, ins)
        operand = int(str(ins.attribute("operand", 0))) if ins.op == "aggregate_copy" else 0
        place = written.args[operand] if operand < len(written.args) else None
        if not isinstance(place, Place):
            return str(written.dest or "")
        text = format_operand(still(place))
        found = self.definitions.get(place.root, [])
        if len(found) == 1 and not place.is_global and place.hops == () and found[0].origin in self.module.written:
            made = self.module.written[found[0].origin]
            if made.op == "index_get" and isinstance(made.args[0], Place):
                text = f"{format_operand(still(made.args[0]))}[{format_operand(still(made.args[1]))}]"
            elif made.op == "get_field" and isinstance(made.args[0], Place):
                text = f"{format_operand(still(made.args[0]))}.{made.field}"
        if ins.op == "aggregate_copy" and ins.attribute("operand") is not None:
            return text
        if written.op == "get_field":
            return f"{text}.{written.field}"
        if written.op == "index_get":
            return f"{text}[{format_operand(still(written.args[1]))}]"
        return f"{text}.{field}" if field is not None and written.op == "set_field" else text

    def type_of(self, operand: Operand) -> Type:
        return operand_type(operand, self.types, self.names)


def still(operand: Operand) -> Operand:
    """Return the operand without the `move`."""
    return replace(operand, move=False) if isinstance(operand, Place) and operand.move else operand

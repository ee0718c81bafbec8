"""Tracing: a program that records what happens to the gradients of its nodes, on every back end alike.

The pass runs after semantics and before lowering, on a resolved module, and inserts ordinary instructions only; the result verifies with
`internal=True` and gives the same values, output, traps and fuel. It inserts

- a hidden field ID in the node class: 1 + the number of the event that made the object (an allocation or a copy), so an object is named by its birth;
- an event (a few words in preallocated columns, `trace.mir`) at every allocation and copy of a node, every write of a gradient or value field, every
  write back of a copied node, every write into the gradient store, and at the driver's marks;
- origin shadows: beside each tracked local (`provenance.py`) `from$x`, the object whose gradient was last read into it (0 none, UNKNOWN several), and,
  where it may be a sum, `base$x`, the same for the first summand. Arguments and results pass theirs through globals.

A record is (head, object, source, base, slot, before, after). `head` is the number of a `Site`, which holds all that does not change from one execution
of the instruction to the next. Entries of a gradient store are objects too: STORE - key.

A copy of a gradient array (`g = get_field node, grad` under a model that copies arrays) whose elements are written is an object, too: a copy of its node.

What it does not follow: numbers that pass through fields, dicts or globals other than the gradient's, and elements written into a gradient array that
a function gets which is also called with other arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from ..mir.analysis import local_types, predecessors
from ..mir.diagnostics import Diagnostic, LoweringError, Origin, Reporter, Span, VerifyError
from ..mir.model import Block, Const, FieldHop, Function, Global, Instruction, Module, Operand, Param, Place, StructDef, const
from ..mir.printer import format_operand
from ..mir.resolve import Names, operand_type, place_types
from ..mir.text import parse_text
from ..mir.types import BOOL, F64, I64, TEXT, Array, Dict, Named, Option, Type, walk
from ..mir.verify import check
from .provenance import CALLS, ELEMENT_WRITES, KEEPS_BASE, NUMBERS, Fields, find_flow, gradient_hop, is_store_read, sources
from .semantics import HOP, OPERANDS, RESULTS

ID = "trace$id"
"""The hidden field of a node."""
UNKNOWN, STORE = -1, -2
EITHER = 1 << 62
"""Added to the source of a sum of two gradients as they were read: either one may be the old value of what the sum is written into."""
CAPACITY = 1 << 19
"""How many events a trace holds unless told otherwise."""
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
    """What is known about an event before the program runs. `constant`: the written value is a constant, so no gradient took part."""

    kind: str
    origin: Origin | None
    span: Span | None
    path: str = ""
    field: str = ""
    position: str = ""
    label: str = ""
    constant: bool = False
    has_element: bool = False


def add_trace(module: Module, options: Options, written: Module | None = None) -> tuple[Module, tuple[Site, ...]]:
    """Return a module that records its events, and the sites that the records name.

    written: the module before the semantics pass, for the paths that a person wrote. Raises: LoweringError if the node type is none, or if comparing
    nodes by structure would see the hidden field.
    """
    names = Names.of(module)
    node = names.types.get(options.fields.node)
    _refuse(module, node, options, names)
    helper = _helpers(options.capacity)
    tracer = _Module(module, options, names, written or module)
    functions = tuple(_Function(tracer, f).traced() for f in module.functions)
    types = tuple(replace(t, fields=(*t.fields, Param(ID, I64))) if t.name == options.fields.node else t for t in module.types)
    registers = tuple(Global(name, I64) for name in sorted(tracer.registers))
    result = replace(module, types=types, globals=(*module.globals, *helper.globals, *registers), functions=(*functions, *helper.functions))
    return result, tuple(tracer.sites)


@cache
def _helpers(capacity: int) -> Module:
    text = files(__package__).joinpath("trace.mir").read_text(encoding="utf-8").replace("$CAPACITY", str(capacity))
    reporter = Reporter()
    resolved = check(parse_text(text, "passes/trace.mir", internal=True), Names(), reporter, internal=True)
    if reporter.errors():
        raise VerifyError(reporter.errors())
    return resolved


def _refuse(module: Module, node: object, options: Options, names: Names) -> None:
    if not isinstance(node, StructDef):
        raise LoweringError([Diagnostic("E0630", f"gradients cannot be traced: `{options.fields.node}` is no class or struct of the program")])
    found = {f.name: f.type for f in node.fields}.get(options.fields.gradient)
    if found not in NUMBERS:
        raise LoweringError([Diagnostic("E0630", f"gradients cannot be traced: `{node.name}.{options.fields.gradient}` is not f64, [f64] or an option of them")])
    if node.is_class:
        return
    for function in module.functions:
        types = local_types(function)
        for block in function.blocks:
            for ins in block.instructions:
                if ins.op in ("eq", "ne", "contains") and not isinstance(ins.args[0], Const):
                    inside = walk(operand_type(ins.args[0], types, names))
                    if any(isinstance(t, Named) for t in inside):
                        raise LoweringError([Diagnostic("E0630", f"gradients cannot be traced: `{function.name}` compares structs, and would see what the trace adds to "
                                                        f"`{node.name}`", ins.span, help="make the node a class, or compare its fields")])  # fmt: skip


class _Module:
    """What all functions share while they are rewritten."""

    def __init__(self, module: Module, options: Options, names: Names, written: Module) -> None:
        self.options, self.fields, self.names = options, options.fields, names
        self.functions = {f.name: f for f in module.functions}
        self.flow = find_flow(module, names, options.fields)
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


class _Function:
    """Rewrites one function."""

    def __init__(self, module: _Module, function: Function) -> None:
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

    def traced(self) -> Function:
        blocks = [self.block(block) for block in self.function.blocks]
        self.out, self.now = [], self.function.blocks[0].instructions[0]
        self.entry()
        if self.out and predecessors(self.function)[self.function.entry.label]:
            self.out.append(Instruction("goto", labels=(self.function.entry.label,), origin=self.now.origin, span=self.now.span))
            blocks.insert(0, Block("trace$entry", tuple(self.out)))
        else:
            blocks[0] = replace(blocks[0], instructions=(*self.out, *blocks[0].instructions))
        return replace(self.function, blocks=tuple(blocks))

    def block(self, block: Block) -> Block:
        self.out = []
        for ins in block.instructions:
            self.now = ins
            self.instruction(ins)
        return replace(block, instructions=tuple(self.out))

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
        return self.emit("get_field", (_still(node),), I64, field=ID)

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
        return self.emit("sub", (const(I64, STORE), _still(key)), I64)

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

    def is_view(self, operand: Operand) -> bool:
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
            return self.sum_parts(*ins.args, commutes=ins.op == "add")
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
            which = _still(ins.args[0])
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

    def entry(self) -> None:
        """Append what a function does first: fetch the shadows of its parameters, and record its mark."""
        name = self.function.name
        for index, param in enumerate(self.function.params):
            if not self.is_tracked(param.name):
                continue
            if name in self.flow.indirect:
                self.set_shadow(param.name, ZERO, const(I64, UNKNOWN))
                continue
            base: Operand = ZERO
            if self.is_based(param.name):
                base = self.emit("load_global", (), I64, name=self.module.register(f"trace$base{index}"))
            self.set_shadow(param.name, base, self.emit("load_global", (), I64, name=self.module.register(f"trace$from{index}")))
        mark = self.module.marks.get(name)
        if mark is not None:
            params = [Place(p.name) for p in self.function.params]
            first = params[0] if mark == "phase" else self.id_of(params[0])
            self.event(self.site(mark), object=first, slot=params[1] if len(params) > 1 else None)

    # Instructions

    def type_of(self, operand: Operand) -> Type:
        return operand_type(operand, self.types, self.names)

    def is_node(self, operand: Operand) -> bool:
        return isinstance(operand, Place) and self.type_of(operand) == self.module.node_type

    def instruction(self, ins: Instruction) -> None:
        if self.module.options.shares:
            self.shared_operands(ins)
        match ins.op:
            case "set_field" if ins.field in self.module.field_types and self.is_node(ins.args[0]):
                self.field_write(ins)
                return
            case "index_set" if self.gradient_array(ins.args[0]) is not None:
                self.element_write(ins)
                return
            case "index_set" if isinstance(ins.args[0], Place) and ins.args[0].is_global and ins.args[0].root == self.fields.store and not ins.args[0].hops:
                self.store_write(ins)
                return
            case "new" if ins.name == self.fields.node:
                self.allocation(ins)
                return
            case "ret" if ins.args and (self.function.name, "") in self.flow.tracked:
                self.pass_on("trace$result", *self.parts(ins.args[0]), is_based=(self.function.name, "") in self.flow.based)
        if ins.op in CALLS:
            self.call(ins)
            return
        tracked = self.is_tracked(ins.dest)
        if tracked:
            self.set_shadow(ins.dest, *self.result_parts(ins))  # type: ignore[arg-type]
        if ins.op in ELEMENT_WRITES and isinstance(ins.args[0], Place) and not ins.args[0].hops and self.is_tracked(ins.args[0].root) \
                and not self.is_view(ins.args[0]):
            root = ins.args[0].root
            base, source = self.parts(ins.args[-1])
            self.set_shadow(root, base, self.combined(Place(f"from${root}"), source))
        self.out.append(ins)
        self.object_results(ins)

    def object_results(self, ins: Instruction) -> None:
        """Append the events of nodes that an instruction made, passed on or stored back."""
        if ins.dest is not None and self.types[ins.dest] == self.module.node_type:
            dest = Place(ins.dest)
            if ins.op == "aggregate_copy":
                position = str(ins.attribute("position", "written"))
                if position == HOP:
                    self.back.add(ins.dest)
                head = self.site("copy", position=position, path=self.path(ins))
                self.emit("set_field", (dest, self.event(head, source=self.id_of(dest))), field=ID)
            elif ins.op == "zero":
                self.emit("set_field", (dest, self.event(self.site("alloc", label=self.function.name))), field=ID)
            elif self.module.options.shares and ins.op in RESULTS and not ins.dest.startswith("shared$"):
                self.event(self.site("share", path=self.path(ins)), object=self.id_of(dest))
        elif ins.op in ("set_field", "index_set") and isinstance(ins.args[-1], Place) and ins.args[-1].root in self.back and not ins.args[-1].hops:
            self.event(self.site("write_back", path=self.path(ins)), object=self.id_of(ins.args[-1]))

    def shared_operands(self, ins: Instruction) -> None:
        if ins.op not in OPERANDS:
            return
        for arg in ins.args:
            if self.is_node(arg) and not arg.root.startswith("copied$"):  # type: ignore[union-attr]
                if arg.hops:  # type: ignore[union-attr]
                    continue
                self.event(self.site("share", path=format_operand(_still(arg))), object=self.id_of(arg))

    def allocation(self, ins: Instruction) -> None:
        """The object is named by the event, which comes after the operands were read."""
        args = tuple(self.stable(a) if isinstance(a, Place) and a.hops else a for a in ins.args)
        label = next((a.bits for f, a in zip(ins.fields, ins.args) if f == "op" and isinstance(a, Const) and self.module.has_label), self.function.name)
        number = self.event(self.site("alloc", label=str(label)))
        self.out.append(replace(ins, args=(*args, number), fields=(*ins.fields, ID)))

    def call(self, ins: Instruction) -> None:
        callee = self.module.functions.get(ins.name or "")
        args = ins.args
        if callee is not None:
            for index, (param, arg) in enumerate(zip(callee.params, args)):
                if (callee.name, param.name) in self.flow.tracked:
                    self.pass_on(f"trace${{}}{index}", *self.parts(arg), is_based=(callee.name, param.name) in self.flow.based)
        tracked = self.is_tracked(ins.dest)
        if ins.op == "invoke" and tracked:
            self.set_shadow(ins.dest, ZERO, const(I64, UNKNOWN))  # type: ignore[arg-type]
        self.out.append(ins)
        if ins.op == "call" and tracked:
            base, source = ZERO, ZERO
            if callee is not None and (callee.name, "") in self.flow.tracked:
                if (callee.name, "") in self.flow.based:
                    base = self.emit("load_global", (), I64, name=self.module.register("trace$result_base"))
                source = self.emit("load_global", (), I64, name=self.module.register("trace$result_from"))
            self.set_shadow(ins.dest, base, source)  # type: ignore[arg-type]
        if ins.op == "call":
            self.object_results(ins)

    def pass_on(self, register: str, base: Operand, source: Operand, is_based: bool) -> None:
        """Append what leaves the parts of a number for the other side of a call."""
        form = register if "{}" in register else register + "_{}"
        if is_based:
            self.emit("store_global", (base,), name=self.module.register(form.format("base")))
        else:
            source = self.combined(base, source)
        self.emit("store_global", (source,), name=self.module.register(form.format("from")))

    # Writes

    def path(self, ins: Instruction, field: str | int | None = None) -> str:
        """Return what an instruction acts on as the function calls it, a local that stands for an element written out."""
        written = self.module.written.get(ins.origin, ins)
        operand = ins.attribute("operand", 0) if ins.op == "aggregate_copy" else 0
        place = written.args[operand] if operand < len(written.args) else None  # type: ignore[operator,index]
        if not isinstance(place, Place):
            return str(written.dest or "")
        text = format_operand(_still(place))
        found = self.definitions.get(place.root, [])
        if len(found) == 1 and not place.is_global and place.hops == () and found[0].origin in self.module.written:
            made = self.module.written[found[0].origin]
            if made.op == "index_get" and isinstance(made.args[0], Place):
                text = f"{format_operand(_still(made.args[0]))}[{format_operand(_still(made.args[1]))}]"
            elif made.op == "get_field" and isinstance(made.args[0], Place):
                text = f"{format_operand(_still(made.args[0]))}.{made.field}"
        if ins.op == "aggregate_copy" and ins.attribute("operand") is not None:
            return text
        if written.op == "get_field":
            return f"{text}.{written.field}"
        if written.op == "index_get":
            return f"{text}[{format_operand(_still(written.args[1]))}]"
        return f"{text}.{field}" if field is not None and written.op == "set_field" else text

    def field_write(self, ins: Instruction) -> None:
        """Record a write of the gradient or the value; of an array, each element."""
        t = self.module.field_types[ins.field]
        node = self.stable(ins.args[0])
        is_back = isinstance(ins.args[1], Place) and (ins.args[1].root.startswith("copied$") and self.copied_for_hop(ins.args[1].root))
        view = self.view_behind(ins.args[1])
        is_view = view is not None
        is_copy = view is not None and all(d.op == "aggregate_copy" for d in self.definitions.get(view.root, ()))
        base, source = self.parts(ins.args[1]) if ins.field == self.fields.gradient else (ZERO, ZERO)
        base, source = self.kept(base, ins.args[1]), self.kept(source, ins.args[1])
        value = self.stable(ins.args[1])
        old: Operand = self.emit("get_field", (node,), t, field=ins.field)
        new = value
        is_array = t in (Array(F64), Option(Array(F64)))
        if isinstance(t, Option):
            helper, inner = ("trace$elements", Array(F64)) if is_array else ("trace$number", F64)
            old, new = (self.emit("call", (x,), inner, name=helper) for x in (old, _still(new)))
        head = self.site("write", path=self.path(ins, ins.field), field=str(ins.field), constant=isinstance(ins.args[1], Const), has_element=is_array)
        if is_array:
            target: Operand = self.id_of(node)
            if is_copy:
                head, target = self.site("write_back", path=self.path(ins, ins.field), field=str(ins.field), has_element=True), Place(f"from${view.root}")  # type: ignore[union-attr]
                self.event(head, object=target, slot=const(I64, -1))
            every = const(BOOL, not (is_back or is_view))
            self.emit("call", (head, target, source, base, old, new, every), name="trace$array")
        else:
            self.event(head, object=self.id_of(node), source=source, base=base, before=old, after=new)
        self.out.append(replace(ins, args=(node, value)))

    def view_behind(self, operand: Operand) -> Place | None:
        """Return the view that an operand is, or is the model's copy of, for a write of the whole array."""
        while isinstance(operand, Place) and not self.is_view(operand):
            found = self.definitions.get(operand.root, ())
            if operand.hops or not operand.root.startswith("copied$") or len(found) != 1 or found[0].attribute("position") == HOP:
                return None
            operand = found[0].args[0]
        return operand if isinstance(operand, Place) else None

    def kept(self, shadow: Operand, value: Operand) -> Operand:
        return shadow if not isinstance(value, Const) else ZERO

    def copied_for_hop(self, local: str) -> bool:
        return any(d.op == "aggregate_copy" and d.attribute("position") == HOP for d in self.definitions.get(local, ()))

    def gradient_array(self, place: Operand) -> Operand | None:
        """Return the node whose gradient array a place is, or the local that stands for the array; None if it is none."""
        if not isinstance(place, Place):
            return None
        if place.hops and isinstance(place.hops[-1], FieldHop) and place.hops[-1].field == self.fields.gradient:
            owner = replace(place, hops=place.hops[:-1])
            is_array = self.module.field_types.get(self.fields.gradient) == Array(F64)
            return owner if is_array and place_types(place, self.types, self.names)[-2] == self.fields.type else None
        return place if self.is_view(place) else None

    def element_write(self, ins: Instruction) -> None:
        target = self.gradient_array(ins.args[0])
        base, source = self.parts(ins.args[2])
        if target is ins.args[0]:
            array, object_id = ins.args[0], Place(f"from${ins.args[0].root}")  # type: ignore[union-attr]
        else:
            node = self.stable(target)  # type: ignore[arg-type]
            array, object_id = self.emit("get_field", (node,), Array(F64), field=self.fields.gradient), self.id_of(node)
        index, value = self.stable(ins.args[1]), self.stable(ins.args[2])
        old = self.emit("index_get", (array, index), F64)
        head = self.site("write", path=self.path(ins), field=self.fields.gradient, constant=isinstance(ins.args[2], Const), has_element=True)
        self.event(head, object=object_id, source=source, base=base, slot=index, before=old, after=value)
        self.out.append(replace(ins, args=(array, index, value)))

    def store_write(self, ins: Instruction) -> None:
        store, key, value = ins.args
        base, source = self.parts(value)
        key, value = self.stable(key), self.stable(value)
        is_store = self.type_of(store) == Dict(I64, F64)
        if is_store:
            old = self.emit("call", (store, key), F64, name="trace$lookup")
            head = self.site("write", path=f"@{self.fields.store}", field=self.fields.store, constant=isinstance(value, Const))
            self.event(head, object=self.store_object(key), source=source, base=base, before=old, after=value)
        self.out.append(replace(ins, args=(store, key, value)))


def _still(operand: Operand) -> Operand:
    """Return the operand without the `move`."""
    return replace(operand, move=False) if isinstance(operand, Place) and operand.move else operand

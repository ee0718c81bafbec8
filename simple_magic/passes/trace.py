"""Tracing: a program that records what happens to the gradients of its nodes, on every back end alike.

The pass runs after semantics and before lowering, on a resolved module, and inserts ordinary instructions only; the result verifies with
`internal=True` and gives the same values, output, traps and fuel. It inserts

- a hidden field ID in the node class: 1 + the number of the event that made the object (an allocation or a copy), so an object is named by its birth;
- an event (a few words in preallocated columns, `trace.mir`) at every allocation and copy of a node, every write of a gradient or value field, every
  write back of a copied node, every write into the gradient store, and at the driver's marks;
- origin shadows: beside each tracked local (`provenance.py`) `from$x`, the object whose gradient was last read into it (0 none, UNKNOWN several), and,
  where it may be a sum, `base$x`, the summand that is a gradient as it was read (`shadows.py`). Arguments and results pass theirs through globals.

A record is (head, object, source, base, slot, before, after). `head` is the number of a `Site`, which holds all that does not change from one execution
of the instruction to the next. Entries of a gradient store are objects too: STORE - key.

A copy of a gradient array (`g = get_field node, grad` under a model that copies arrays) whose elements are written is an object, too: a copy of its node.

What it does not follow: numbers that pass through fields, dicts or globals other than the gradient's; and changes of a gradient array, or of the store, in
another way than these (`unfollowed.py`): there it records that it does not.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import files

from ..mir.analysis import local_types, predecessors
from ..mir.diagnostics import Diagnostic, LoweringError, Reporter, VerifyError
from ..mir.model import Block, Const, FieldHop, Function, Global, Instruction, Module, Operand, Param, Place, StructDef, const
from ..mir.printer import format_operand
from ..mir.resolve import Names, operand_type, place_types
from ..mir.text import parse_text
from ..mir.types import BOOL, F64, I64, Array, Dict, Named, Option, walk
from ..mir.verify import check
from .provenance import CALLS, ELEMENT_WRITES, NUMBERS
from .semantics import HOP, OPERANDS, RESULTS
from .shadows import HEADER, ID, UNKNOWN, ZERO, Options, Shadows, Site, Tracing, still


def add_trace(module: Module, options: Options, written: Module | None = None) -> tuple[Module, tuple[Site, ...]]:
    """Return a module that records its events, and the sites that the records name.

    written: the module before the semantics pass, for the paths that a person wrote. Raises: LoweringError if the node type is none, or if comparing
    nodes by structure would see the hidden field.
    """
    names = Names.of(module)
    _refuse(module, names.types.get(options.fields.node), options, names)
    helper = _helpers(options.capacity)
    tracer = Tracing(module, options, names, written or module)
    functions = tuple(_Function(tracer, f).traced() for f in module.functions)
    types = tuple(replace(t, fields=(*t.fields, Param(ID, I64))) if isinstance(t, StructDef) and t.name == options.fields.node else t for t in module.types)
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

class _Function(Shadows):
    """Rewrites one function."""

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

    def is_node(self, operand: Operand) -> bool:
        return isinstance(operand, Place) and self.type_of(operand) == self.module.node_type

    def instruction(self, ins: Instruction) -> None:
        if self.module.options.shares:
            self.shared_operands(ins)
        if self.module.unfollowed.changes(self.function.name, ins, is_view=self.is_view(ins.args[0] if ins.args else None)):
            position = "replaced" if self.module.unfollowed.replaces(self.function.name, ins) else ""
            path = f"@{ins.name}" if ins.op == "store_global" else self.path(ins)
            self.event(self.site("unfollowed", path=path, position=position))
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
                self.event(self.site("share", path=format_operand(still(arg))), object=self.id_of(arg))

    def allocation(self, ins: Instruction) -> None:
        """The object is named by the event, which comes after the operands were read."""
        args = tuple(self.stable(a) if isinstance(a, Place) and a.hops else a for a in ins.args)
        label = next((a.bits for f, a in zip(ins.fields, ins.args) if f == "op" and isinstance(a, Const) and self.module.has_label), self.function.name)
        value = next((still(a) for f, a in zip(ins.fields, args) if f == self.fields.value and self.type_of(a) == F64), None)
        number = self.event(self.site("alloc", label=str(label), has_value=value is not None), after=value)
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
            base: Operand = ZERO
            source: Operand = ZERO
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

    def field_write(self, ins: Instruction) -> None:
        """Record a write of the gradient or the value; of an array, each element."""
        t = self.module.field_types[ins.field]
        node = self.stable(ins.args[0])
        is_back = isinstance(ins.args[1], Place) and (ins.args[1].root.startswith("copied$") and self.copied_for_hop(ins.args[1].root))
        view = self.view_behind(ins.args[1])
        base, source = self.parts(ins.args[1]) if ins.field == self.fields.gradient else (ZERO, ZERO)
        base, source = self.kept(base, ins.args[1]), self.kept(source, ins.args[1])
        value = self.stable(ins.args[1])
        old: Operand = self.emit("get_field", (node,), t, field=ins.field)
        new = value
        is_array = t in (Array(F64), Option(Array(F64)))
        if isinstance(t, Option):
            helper, inner = ("trace$elements", Array(F64)) if is_array else ("trace$number", F64)
            old, new = (self.emit("call", (x,), inner, name=helper) for x in (old, still(new)))
        head = self.site("write", path=self.path(ins, ins.field), field=str(ins.field), constant=isinstance(ins.args[1], Const), has_element=is_array,
                         is_view=view is not None)  # fmt: skip
        target = self.id_of(node)
        if is_array:
            every: Operand = const(BOOL, not is_back)
            if view is not None:
                base, source = ZERO, Place(f"from${view.root}")
                every = self.emit("ne", (target, source), BOOL)
                self.event(head, object=target, source=source, slot=const(I64, HEADER))
            self.emit("call", (head, target, source, base, old, new, every), name="trace$array")
        else:
            self.event(head, object=target, source=source, base=base, before=old, after=new)
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
        t = self.type_of(store)
        if t in (Dict(I64, F64), Dict(I64, Array(F64))):
            is_array = t != Dict(I64, F64)
            old = self.emit("call", (store, key), Array(F64) if is_array else F64, name="trace$lookup_array" if is_array else "trace$lookup")
            head = self.site("write", path=f"@{self.fields.store}", field=self.fields.store, constant=isinstance(value, Const), has_element=is_array)
            if is_array:
                self.emit("call", (head, self.store_object(key), source, base, old, value, const(BOOL, True)), name="trace$array")
            else:
                self.event(head, object=self.store_object(key), source=source, base=base, before=old, after=value)
        self.out.append(replace(ins, args=(store, key, value)))

"""Bodies of random functions, first layer: writing instructions, and operands of every type."""

from __future__ import annotations

from dataclasses import replace

from ..mir.analysis import operand_reads
from ..mir.model import Const, EnumDef, FieldHop, Hop, IndexHop, Instruction, Operand, Place, StructDef, Variant, const, local
from ..mir.ops import OPS
from ..mir.types import BOOL, CHAR, F64, I32, I64, NUMBERS, TEXT, Array, Dict, FixedArray, Fn, Named, Option, Ptr, Tuple, Type, is_float
from .declare import Declarations
from .values import scalars_of


class OperandWriter:
    """Writes instructions into the body of one function."""

    def __init__(self, generator: Declarations, index: int) -> None:
        self.g = generator
        self.index = index
        self.declared = generator.functions[index]
        self.types: dict[str, Type] = {}
        self.assigned: dict[str, Type] = {p.name: p.type for p in self.declared.params}
        self.constant = {p.name for p in self.declared.params[:1]}
        """Locals that the program's end relies on: they are never assigned."""
        self.pinned: frozenset[str] = frozenset()
        """Locals that must stay assigned."""
        self.held: list[str] = []
        """Locals that operands of the current statement read: each read once more."""
        self.blocks: list[tuple[str, list[Instruction]]] = []
        self.block: list[Instruction] | None = None
        self.labels = 0
        self.left = generator.size
        self.noted: Place | None = None
        """The local into which results are folded; most are not used otherwise."""

    # Writing

    def label(self) -> str:
        self.labels += 1
        return f"b{self.labels}"

    def start(self, label: str) -> None:
        self.block = []
        self.blocks.append((label, self.block))

    def end(self, op: str, *args: Operand, **more: object) -> None:
        self.add(Instruction(op, args, **more))  # type: ignore[arg-type]
        self.block = None

    def add(self, instruction: Instruction) -> None:
        assert self.block is not None, "the block has ended"
        self.block.append(instruction)

    def goto(self, label: str) -> None:
        self.end("goto", labels=(label,))

    def emit(self, op: str, *args: Operand, t: Type | None = None, annotate: bool = False, is_constant: bool = False, **more: object) -> Place:
        """Write an instruction; if it gives a value of type `t`, to a new local or one that has this type. Return the local."""
        if self.g.rarely(32):
            args = self.with_move(op, args)
        if t is None:
            self.add(Instruction(op, args, **more))  # type: ignore[arg-type]
            return local("")
        name = None if is_constant else self.destination(t)
        annotation = None
        if name is None:
            name = self.g.some_name("v", len(self.types))
            if annotate or self.g.below(2):
                annotation = t
            self.types[name] = t
        self.add(Instruction(op, args, dest=name, dest_type=annotation, **more))  # type: ignore[arg-type]
        self.assigned[name] = t
        if is_constant:
            self.constant.add(name)
        return local(name)

    def with_move(self, op: str, args: tuple[Operand, ...]) -> tuple[Operand, ...]:
        """Let one operand un-assign its local, if there is one that may and that no other operand reads."""
        read = [name for a in args for name in operand_reads(a)]
        first = 1 if OPS[op].form.startswith("p") or op == "call" else 0
        for index, a in enumerate(args[first:], first):
            if isinstance(a, Place) and not (a.hops or a.is_global) and read.count(a.root) == self.held.count(a.root) == 1 and self.may_end(a.root):
                del self.assigned[a.root]
                return (*args[:index], replace(a, move=True), *args[index + 1 :])
        return args

    def may_end(self, name: str) -> bool:
        return name in self.assigned and name not in self.pinned and name not in self.constant

    def destination(self, t: Type) -> str | None:
        known = [n for n, other in self.types.items() if other == t and n not in self.constant]
        known += [p.name for p in self.declared.params if p.type == t and p.name not in self.constant]
        return self.g.pick(known) if known and self.g.rarely(3) else None

    def note(self, value: Place, t: Type) -> None:
        """Fold a number into the local for that, so that a wrong one is seen."""
        if self.noted is None or t not in (*NUMBERS, BOOL, CHAR):
            return
        if is_float(t):
            t = I64 if t == F64 else I32
            value = self.emit("bitcast", value, t=t, annotate=True, is_constant=True)
        if t != I64:
            value = self.emit("cast", value, t=I64, annotate=True, is_constant=True)
        self.add(Instruction("mul", (self.noted, const(I64, 31)), dest=self.noted.root))
        self.add(Instruction("add", (self.noted, value), dest=self.noted.root))

    # Operands

    def operand(self, t: Type, nil: bool = False) -> Operand:
        """Return something of type `t`. `nil`: the literal is possible here."""
        found = self.find_operand(t, nil)
        self.held += operand_reads(found)
        return found

    def find_operand(self, t: Type, nil: bool) -> Operand:
        g = self.g
        if isinstance(t, Option) and nil and g.rarely(4):
            return Const(None, None)
        if t in (*NUMBERS, BOOL, CHAR, TEXT) and g.below(3) == 0:
            return const(t, g.pick(scalars_of(t)))
        known = [name for name, other in self.assigned.items() if other == t]
        if known and g.often(6):
            return local(g.pick(known))
        if g.below(2):
            place = self.place_of(t, is_written=False)
            if place is not None:
                return place
        if t in (*NUMBERS, BOOL, CHAR, TEXT):
            return const(t, g.pick(scalars_of(t)))
        return self.make(t)

    def place_of(self, t: Type, is_written: bool) -> Place | None:
        """Return a place of type `t` with hops or in a global, if a walk from some root meets one."""
        g = self.g
        roots = [(name, other, False) for name, other in self.assigned.items() if isinstance(other, (Named, Array, FixedArray, Dict, Tuple))]
        roots += [(d.name, d.type, True) for d in g.names.globals.values()]
        if not roots:
            return None
        root, current, is_global = g.pick(roots)
        hops: tuple[Hop, ...] = ()
        while not (current == t and (hops or is_global)):
            step = self.hop(current, is_written) if len(hops) < 3 else None
            if step is None:
                return None
            hops, current = (*hops, step[0]), step[1]
        return Place(root, hops, is_global)

    def hop(self, t: Type, is_written: bool) -> tuple[Hop, Type] | None:
        g = self.g
        match t:
            case Tuple(elements) if not is_written:
                index = g.below(len(elements))
                return FieldHop(index), elements[index]
            case Array(element):
                return IndexHop(self.index_operand()), element
            case FixedArray(element, length) if length:
                return IndexHop(const(I64, g.below(length))), element
            case Dict(key, value) if g.rarely(3):
                return IndexHop(const(key, g.pick(scalars_of(key)))), value
            case Named(name):
                definition = g.names.types[name]
                if isinstance(definition, StructDef) and definition.fields:
                    declared = g.pick(definition.fields)
                    return FieldHop(declared.name), declared.type
        return None

    def index_operand(self) -> Operand:
        """Return an i64 that is mostly a small index."""
        g = self.g
        if g.often(8):
            return const(I64, (0, 0, 0, 1)[g.below(4)])
        known = [name for name, t in self.assigned.items() if t == I64]
        return local(g.pick(known)) if known and g.below(2) else const(I64, g.pick((0, 1, 2, -1, 7, 2**63 - 1, -(2**63))))

    def writable(self, t: Type) -> Place:
        """Return a place of type `t` that can be written into."""
        found = self.find_writable(t)
        self.held += operand_reads(found)
        return found

    def find_writable(self, t: Type) -> Place:
        known = [name for name, other in self.assigned.items() if other == t]
        if known and self.g.often(4):
            return local(self.g.pick(known))
        return self.place_of(t, is_written=True) or self.make(t)

    def make(self, t: Type, depth: int = 0) -> Place:
        """Write instructions that make a value of type `t`."""
        g = self.g
        if g.rarely(12) and g.has_zero(t):
            return self.emit("zero", t=t, annotate=True)
        match t:
            case Array(element):
                return self.emit("array", *(self.operand(element, nil=True) for _ in range((1, 2, 3, 0)[g.below(4)])), t=t, annotate=True)
            case FixedArray(element, length):
                return self.emit("array", *(self.operand(element, nil=True) for _ in range(length)), t=t, annotate=True)
            case Dict(key, value):
                made = self.emit("dict", t=t, annotate=True)
                for _ in range(g.below(3)):
                    self.emit("index_set", made, const(key, g.pick(scalars_of(key))), self.operand(value, nil=True))
                return made
            case Tuple(elements):
                return self.emit("tuple", *(self.operand(e, nil=True) for e in elements), t=t, annotate=True)
            case Option(inner):
                if g.rarely(4) or depth > 3:
                    return self.emit("const", Const(None, None), t=t, annotate=True)
                return self.emit("some", self.operand(inner), t=t)
            case Fn():
                return self.function_value(t)
            case Ptr(pointee):
                if g.has_zero(pointee) and g.below(2):
                    return self.emit("alloc", const(I64, 1 + g.below(3)), type=pointee, t=t)
                return self.emit("ref", self.operand(pointee), t=t)
            case Named(name):
                definition = g.names.types[name]
                if isinstance(definition, StructDef):
                    return self.new(definition)
                return self.variant(definition, g.pick(definition.variants))
        return self.emit("const", const(t, g.pick(scalars_of(t))), t=t)

    def new(self, definition: StructDef) -> Place:
        fields = list(definition.fields)
        if self.g.rarely(4):
            fields.reverse()
        args = [self.operand(f.type, nil=True) if not _is_self(f.type, definition.name) else self.tail(f.type) for f in fields]
        return self.emit("new", *args, name=definition.name, fields=tuple(f.name for f in fields), t=Named(definition.name))

    def variant(self, definition: EnumDef, variant: Variant) -> Place:
        args = [self.operand(f.type, nil=True) if not _is_self(f.type, definition.name) else self.tail(f.type) for f in variant.fields]
        name = f"{definition.name}.{variant.name}"
        return self.emit("variant", *args, name=name, fields=tuple(f.name for f in variant.fields), t=Named(definition.name))

    def tail(self, t: Type) -> Operand:
        """Return an option of the type that is being made: a known one or nil."""
        known = [name for name, other in self.assigned.items() if other == t]
        if not known or self.g.below(2) == 0:
            return Const(None, None)
        self.held.append(self.g.pick(known))
        return local(self.held[-1])

    def function_value(self, t: Fn) -> Place:
        g = self.g
        found = []
        for number, f in enumerate(g.functions):
            params = tuple(p.type for p in f.params)
            bound = len(params) - len(t.params)
            if bound >= 0 and params[bound:] == t.params and f.result == t.result and not any(isinstance(p, Fn) for p in params[:bound]):
                found.append((number >= self.index, f, params[:bound]))
        found.sort(key=lambda entry: entry[0])
        _, function, bound_types = found[0] if g.often(3) else g.pick(found)
        if not bound_types and g.often(4):
            return self.emit("func", name=function.name, t=t)
        return self.emit("closure", *(self.operand(b, nil=True) for b in bound_types), name=function.name, t=t)


def _is_self(t: Type, name: str) -> bool:
    return isinstance(t, Option) and t.inner == Named(name)

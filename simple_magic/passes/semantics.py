"""Semantics models: which instructions copy.

A program as written only moves references. A `Model` says which copies an engine of Simple makes in addition, as data: `copies` by position and kind
of the object, and for places a `HopRule` each for receivers of method calls and for assignments. `apply_semantics` makes these copies visible: it
inserts `aggregate_copy` (one new object, one level) and never changes what the program itself says, unless it is told to leave a copy out.

Positions: what an instruction does with an object. Operands are copied before the instruction, results after it (`OPERANDS`, `RESULTS`).
Places: what an instruction writes into, and the receiver of a method call. Its root is never copied; for each hop `THROUGH` follows the reference,
`BACK` copies the object, lets the instruction act on the copy and stores the copy back (innermost first, only if the act ends normally), `LOSE` copies
without storing back. A place whose hops all go through stays as it is. Hops of operands that are only read never copy.

Invariants
- each instruction as written occurs once in the result, in order; what is inserted has its origin;
- each inserted copy has the attribute `position` (for a hop: "hop", and `hop`, counted from 1) and, for operands, `operand`;
- operands are still evaluated from left to right, so the same operand traps; the result verifies with `internal=True`;
- new locals and labels contain "$".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..mir.analysis import local_types, operand_reads, unassigns, writes
from ..mir.diagnostics import Origin
from ..mir.model import Block, Const, FieldHop, Function, Hop, IndexHop, Instruction, Module, Operand, Place
from ..mir.ops import OPS
from ..mir.resolve import Names, is_method, operand_type, place_types, struct_of
from ..mir.types import Array, Dict, FixedArray, Type

KINDS = ("struct", "class", "array", "dict")
"""What can be written into, and so what a copy of it can be told from."""
POSITIONS = (
    "bind", "argument", "return", "initialiser", "element_write", "field_write", "global_write", "element_read", "field_read", "dict_read",
    "global_read", "capture",
)  # fmt: skip
HOP = "hop"
"""The position of copies that are made for a hop of a place."""
WRITTEN = "written"
"""The position of an `aggregate_copy` that the program itself says; no model makes one."""
THROUGH, BACK, LOSE = "through", "back", "lose"
HOPS = ("field", "index", "dict")

OPERANDS: dict[str, str] = {
    "copy": "bind", "call": "argument", "call_indirect": "argument", "invoke": "argument", "ret": "return",
    "array": "initialiser", "array_fill": "initialiser", "tuple": "initialiser", "new": "initialiser", "variant": "initialiser", "some": "initialiser",
    "ref": "initialiser", "index_set": "element_write", "push": "element_write", "insert": "element_write", "store": "element_write",
    "set_field": "field_write", "store_global": "global_write", "closure": "capture",
}  # fmt: skip
"""The position of the operands of an operation, but for the place that it writes into."""
RESULTS: dict[str, str] = {
    "select": "bind", "index_get": "element_read", "payload": "element_read", "unwrap": "element_read", "load": "element_read", "pop": "element_read",
    "remove": "element_read", "get_field": "field_read", "load_global": "global_read",
}  # fmt: skip
"""The position of the result of an operation. What comes out of a dict has the position `dict_read`."""


@dataclass(frozen=True)
class HopRule:
    """What the hops of a place do, by (hop, kind of the object that it leads to); what is not listed goes through.

    depth: a place with more hops loses every object that it would copy.
    """

    actions: Mapping[tuple[str, str], str]
    depth: int | None = None

    def action(self, hop: str, kind: str, length: int) -> str:
        """Return what a hop does in a place of `length` hops."""
        found = self.actions.get((hop, kind), THROUGH)
        return LOSE if found == BACK and self.depth is not None and length > self.depth else found


@dataclass(frozen=True)
class Model:
    """A semantics model. `copies` names the kinds that each position copies."""

    name: str
    doc: str
    copies: Mapping[str, frozenset[str]]
    receivers: HopRule
    assignments: HopRule


def _positions(*kinds: str, **others: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Return these kinds for every position, and others for the positions that are named."""
    return {position: frozenset(others.get(position, kinds)) for position in POSITIONS}


def _hops(action: str, kinds: Iterable[str] = KINDS, hops: Iterable[str] = HOPS) -> dict[tuple[str, str], str]:
    kinds = tuple(kinds)
    return {(hop, kind): action for hop in hops for kind in kinds}


_THROUGH = HopRule({})
_BACK = HopRule(_hops(BACK))
_BACK_BUT_CLASSES = HopRule(_hops(BACK, ("struct", "array", "dict")))
_FIELDS_BACK_ELSE_LOST = {**_hops(LOSE), **_hops(BACK, hops=("field",))}
_FIELD_TO_STRUCT_BACK = HopRule({("field", "struct"): BACK})

MODELS: dict[str, Model] = {
    m.name: m
    for m in (
        Model("reference", "No copies: every read and every binding shares the object.", _positions(), _THROUGH, _THROUGH),
        Model("value", "Everything is a value: each binding, read and write copies, and writing through a place changes the place.",
              _positions(*KINDS), _BACK, _BACK),
        Model("contract", "Simple as documented: structs, arrays and dicts are values, classes are shared.",
              _positions("struct", "array", "dict"), _BACK_BUT_CLASSES, _BACK_BUT_CLASSES),
        Model("interp_2026_02", "The interpreter of February 2026: as `value`, but a method called on an element, or deeper than one field, changes a copy that is lost.",
              _positions(*KINDS), HopRule(_FIELDS_BACK_ELSE_LOST, depth=1), HopRule(_FIELDS_BACK_ELSE_LOST, depth=2)),
        Model("interp_2026_08", "The interpreter of August 2026: as `value`, but arrays and dicts passed as arguments are shared.",
              _positions(*KINDS, argument=("struct", "class")), _BACK, _BACK),
        Model("jit_2026_09", "The compiler of September 2026: structs are copied everywhere, arrays when they are bound, the rest is shared.",
              _positions("struct", bind=("struct", "array")), _FIELD_TO_STRUCT_BACK, _FIELD_TO_STRUCT_BACK),
    )
}  # fmt: skip
"""The semantics models by name; `reference` changes nothing."""


def kind_of(t: Type, names: Names) -> str | None:
    """Return the kind of a type, or None for what cannot be written into: scalars, text, tuples, options, enums, functions, pointers."""
    if isinstance(t, (Array, FixedArray)):
        return "array"
    if isinstance(t, Dict):
        return "dict"
    struct = struct_of(t, names)
    return None if struct is None else "class" if struct.is_class else "struct"


Site = tuple[Origin, str]
"""Where a copy is made: the instruction as written, and the position (or `HOP`, or `WRITTEN`)."""


def apply_semantics(module: Module, model: str, names: Names, suppress: frozenset[Site] = frozenset(), force: frozenset[Site] = frozenset()) -> Module:
    """Return a resolved module with the copies of the model made visible.

    suppress: sites that share although the model, or the program itself, copies. force: sites that copy although the model shares (hops: go back); `suppress` wins.
    Raises: KeyError for an unknown model.
    """
    rules = MODELS[model]
    if rules == MODELS["reference"] and not force and not suppress:
        return module
    return replace(module, functions=tuple(_Rewriter(f, rules, names, suppress, force).function() for f in module.functions))


@dataclass
class _Rewritten:
    """What became of one instruction: what goes before, the act itself, and what goes after if it ends normally."""

    before: list[Instruction]
    act: Instruction
    after: list[Instruction] = field(default_factory=list)


class _Rewriter:
    """Rewrites one function."""

    def __init__(self, function: Function, model: Model, names: Names, suppress: frozenset[Site], force: frozenset[Site]) -> None:
        self.written = function
        self.model = model
        self.names = names
        self.suppress = suppress
        self.force = force
        self.types = local_types(function)
        self.taken = {*self.types, *(b.label for b in function.blocks)}
        self.count = 0

    def function(self) -> Function:
        blocks: list[Block] = []
        for block in self.written.blocks:
            blocks += self.block(block)
        return replace(self.written, blocks=tuple(blocks))

    def block(self, block: Block) -> list[Block]:
        """Return the block, and one more if its `invoke` has something to store back on its normal edge."""
        instructions: list[Instruction] = []
        more: list[Block] = []
        for ins in block.instructions:
            done = self.instruction(ins)
            instructions += done.before
            if OPS[ins.op].terminator and done.after:
                label = self.fresh("back", None)
                goto = Instruction("goto", labels=ins.labels[:1], origin=ins.origin, span=ins.span)
                more.append(Block(label, (*done.after, goto), block.span))
                instructions.append(replace(done.act, labels=(label, *ins.labels[1:])))
            else:
                instructions += [done.act, *done.after]
        return [replace(block, instructions=tuple(instructions)), *more]

    def instruction(self, ins: Instruction) -> _Rewritten:
        done = _Rewritten([], ins)
        if ins.op == "aggregate_copy" and (ins.origin, WRITTEN) in self.suppress:
            done.act = replace(ins, op="copy")
        if ins.op in OPERANDS or OPS[ins.op].form.startswith("p"):
            self.operands(ins, done)
        if ins.op in RESULTS and ins.dest is not None:
            self.result(ins, ins.dest, done)
        return done

    # Operands

    def operands(self, ins: Instruction, done: _Rewritten) -> None:
        """Copy operands and expand the place, and read earlier operands beforehand where that keeps them from being read too late."""
        place = self.written_place(ins)
        hops = self.hop_actions(ins, place) if place is not None else ()
        position = OPERANDS.get(ins.op)
        types = [operand_type(arg, self.types, self.names) for arg in ins.args]
        copied = {i for i, t in enumerate(types) if (i > 0 or place is None) and self.is_copied(ins, position, t)}
        early = _read_before(ins.args, copied)
        args = list(ins.args)
        for index, arg in enumerate(ins.args):
            if index == 0 and place is not None and any(action != THROUGH for action in hops):
                args[0] = self.place(ins, place, hops, done)
            elif index in copied:
                args[index] = self.copy(ins, arg, OPERANDS[ins.op], done.before, operand=index)
            elif index in early:
                args[index] = self.assign(ins, "copy", (arg,), types[index], done.before)
        done.act = replace(ins, args=tuple(args))

    def written_place(self, ins: Instruction) -> Place | None:
        """Return the place that the instruction writes into: its `p` operand, or the receiver of a method call."""
        callee = self.names.callable(ins.name or "") if ins.op in ("call", "invoke") else None
        is_written = OPS[ins.op].form.startswith("p") or (callee is not None and is_method(callee))
        return ins.args[0] if is_written and isinstance(ins.args[0], Place) else None

    def is_copied(self, ins: Instruction, position: str | None, t: Type) -> bool:
        kind = kind_of(t, self.names)
        if position is None or kind is None or (ins.origin, position) in self.suppress:
            return False
        return kind in self.model.copies[position] or (ins.origin, position) in self.force

    # Places

    def hop_actions(self, ins: Instruction, place: Place) -> tuple[str, ...]:
        """Return what each hop of a written place does."""
        rule = self.model.assignments if OPS[ins.op].form.startswith("p") else self.model.receivers
        types = place_types(place, self.types, self.names)
        actions = []
        for hop, owner, target in zip(place.hops, types, types[1:]):
            kind = kind_of(target, self.names)
            name = "field" if isinstance(hop, FieldHop) else "dict" if isinstance(owner, Dict) else "index"
            action = THROUGH if kind is None else rule.action(name, kind, len(place.hops))
            if kind is not None and action == THROUGH and (ins.origin, HOP) in self.force:
                action = BACK
            actions.append(THROUGH if (ins.origin, HOP) in self.suppress else action)
        return tuple(actions)

    def place(self, ins: Instruction, place: Place, actions: tuple[str, ...], done: _Rewritten) -> Operand:
        """Read the place hop by hop, copying; return where the act happens, and let what was copied be stored back after it.

        An object outside a hop that loses does not change, so it need not be stored back.
        """
        types = place_types(place, self.types, self.names)
        last_lost = max((i for i, action in enumerate(actions) if action == LOSE), default=-1)
        stores: list[Instruction] = []
        holder = self.stable(ins, Place(place.root, (), place.is_global, place.move, place.span), done.before)
        for index, (hop, action) in enumerate(zip(place.hops, actions)):
            if isinstance(hop, IndexHop):
                hop = IndexHop(self.stable(ins, hop.index, done.before), hop.span)
            value = self.read(ins, holder, hop, types[index + 1], done.before)
            if action != THROUGH:
                value = self.copy(ins, value, HOP, done.before, operand=0, hop=index + 1)
            if action == BACK and index > last_lost:
                stores.append(self.write(ins, holder, hop, value))
            holder = value
        done.after += reversed(stores)
        return holder

    def stable(self, ins: Instruction, operand: Operand, before: list[Instruction]) -> Operand:
        """Return an operand that reads the same after the act: the act may assign or move locals and, by calls, change globals and objects."""
        if isinstance(operand, Const):
            return operand
        changed = {*writes(ins), *unassigns(ins)}
        if not (operand.hops or operand.is_global or operand.root in changed):
            return operand
        return self.assign(ins, "copy", (operand,), operand_type(operand, self.types, self.names), before)

    def read(self, ins: Instruction, holder: Operand, hop: Hop, t: Type, before: list[Instruction]) -> Place:
        if isinstance(hop, FieldHop):
            return self.assign(ins, "get_field", (holder,), t, before, field=hop.field)
        return self.assign(ins, "index_get", (holder, hop.index), t, before)

    def write(self, ins: Instruction, holder: Operand, hop: Hop, value: Operand) -> Instruction:
        if isinstance(hop, FieldHop):
            return Instruction("set_field", (holder, value), field=hop.field, origin=ins.origin, span=ins.span)
        return Instruction("index_set", (holder, hop.index, value), origin=ins.origin, span=ins.span)

    # Results

    def result(self, ins: Instruction, dest: str, done: _Rewritten) -> None:
        position = RESULTS[ins.op]
        if position == "element_read" and ins.args and isinstance(operand_type(ins.args[0], self.types, self.names), Dict):
            position = "dict_read"
        t = self.types[dest]
        if not self.is_copied(ins, position, t):
            return
        shared = self.fresh("shared", t)
        done.act = replace(done.act, dest=shared, dest_type=t)
        attributes = (("position", position),)
        done.after.append(Instruction("aggregate_copy", (Place(shared),), dest, ins.dest_type, attributes=attributes, origin=ins.origin, span=ins.span))

    # New instructions

    def copy(self, ins: Instruction, value: Operand, position: str, before: list[Instruction], **numbers: int) -> Place:
        attributes = tuple(sorted({**numbers, "position": position}.items()))
        return self.assign(ins, "aggregate_copy", (value,), operand_type(value, self.types, self.names), before, attributes=attributes)

    def assign(self, ins: Instruction, op: str, args: tuple[Operand, ...], t: Type, before: list[Instruction], **more: object) -> Place:
        """Append an instruction that assigns a new local, and return the local."""
        name = self.fresh("copied" if op == "aggregate_copy" else "read", t)
        before.append(Instruction(op, args, name, t, origin=ins.origin, span=ins.span, **more))  # type: ignore[arg-type]
        return Place(name)

    def fresh(self, word: str, t: Type | None) -> str:
        """Return a new name; a local gets its type."""
        while True:
            self.count += 1
            name = f"{word}${self.count}"
            if name not in self.taken:
                break
        self.taken.add(name)
        if t is not None:
            self.types[name] = t
        return name


def _read_before(args: tuple[Operand, ...], copied: set[int]) -> set[int]:
    """Return which operands must be read before the act because a later one is: it un-assigns what they read, or both may trap."""
    found: set[int] = set()
    moved: set[str] = set()
    may_trap = False
    for index in reversed(range(len(args))):
        arg = args[index]
        if isinstance(arg, Const):
            continue
        if index in copied:
            may_trap = may_trap or bool(arg.hops)
            moved.update((arg.root,) if arg.move else ())
        elif (arg.hops and may_trap) or not moved.isdisjoint(operand_reads(arg)):
            found.add(index)
    return found

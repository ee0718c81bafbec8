"""Bodies of random functions, second layer: one operation of the opcode table.

An operation that is added to `mir/ops.py` with a signature takes part at once; one with a `custom` rule needs a method in `_CUSTOM`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..mir.model import Const, EnumDef, Extern, Function, Operand, StructDef, const
from ..mir.ops import OPS, USER_OPS, Opcode
from ..mir.resolve import field_type, is_method
from ..mir.typerules import can_cast, substitute, unify
from ..mir.types import BOOL, CHAR, FLOATS, I64, INTEGERS, NEVER, NUMBERS, TEXT, UNIT, Array, Dict, FixedArray, Fn, Named, Option, Ptr, Tuple, Type, bit_width
from .declare import EXTERNS
from .operands import OperandWriter
from .values import TEXTS_TRIED, scalars_of


class OperationWriter(OperandWriter):
    """Writes operations of the table."""

    def operation(self) -> None:
        """Write one operation from the table."""
        for _ in range(4):
            row = self.g.pick(_ROWS)
            rule = _CUSTOM.get(row.custom) if row.custom is not None else None
            if rule is None:
                assert row.custom in (None, "equality", "array_fill"), f"{row.name} needs a method in _CUSTOM"
            if rule(self, row) if rule is not None else self.by_signature(row):
                return

    def known_types(self) -> list[Type]:
        return list(dict.fromkeys((*self.g.palette, *self.assigned.values())))

    def by_signature(self, row: Opcode) -> bool:
        g = self.g
        if not row.signatures:
            self.emit(row.name)
            return True
        signature = g.pick(row.signatures)
        first = signature.params[0] if signature.params else None
        bound: dict[str, Type] = {}
        if first is not None:
            fitting = []
            for t in (*self.known_types(), *(row.classes["T"] if first == Named("T") else ())):
                trial: dict[str, Type] = {}
                if unify(first, t, trial) and all(not row.classes[v] or found in row.classes[v] for v, found in trial.items()):
                    fitting.append((t, trial))
            if not fitting:
                return False
            chosen, bound = g.pick(fitting)
            if row.custom == "equality" and not (row.name == "contains" and isinstance(chosen, Dict)) and g.holds_code(chosen, through_classes=False):
                return False
        for name in [p.name for p in signature.params if isinstance(p, Named) and p.name not in bound]:
            bound[name] = g.pick([t for t in self.known_types() if not row.classes[name] or t in row.classes[name]] or row.classes[name])
        result = None if signature.result is None else substitute(signature.result, bound)
        types = [chosen if i == 0 else substitute(p, bound) for i, p in enumerate(signature.params)]
        assert all(t is not None for t in types), (row.name, bound)
        args = self.careful_operands(row, types)  # type: ignore[arg-type]
        message = g.pick(TEXTS_TRIED) if row.form.endswith("m") else None
        place = self.emit(row.name, *args, t=result, annotate=row.custom is not None, message=message)
        if result is not None and g.below(2):
            self.note(place, result)
        return True

    def careful_operands(self, row: Opcode, types: list[Type]) -> list[Operand]:
        """Return operands of the types; mostly such that the operation does not trap."""
        g = self.g
        args: list[Operand] = []
        wishes = _WISHES.get(row.name)
        prepared = wishes(self, types) if wishes is not None and g.often(6) else {}
        for index, t in enumerate(types):
            if index in prepared:
                args.append(prepared[index])
            elif index == 0 and row.form.startswith("p"):
                args.append(self.writable(t))
            else:
                args.append(self.operand(t, nil=index > 0 and row.name not in ("eq", "ne", "select", "contains")))
        if row.name == "array_fill":
            args[1] = const(I64, (1, 2, 3, 0, -1)[g.below(5)])
        return args

    # Operations whose operands no signature describes

    def callee(self) -> Function | Extern | None:
        """Return something that may be called: an earlier function or an extern."""
        earlier = [f for f in self.g.functions[: self.index] if f.result != NEVER]
        return self.g.pick(earlier) if earlier and self.g.often(3) else self.g.pick(EXTERNS)

    def arguments(self, callee: Function | Extern) -> list[Operand]:
        args: list[Operand] = []
        for index, p in enumerate(callee.params):
            args.append(self.writable(p.type) if index == 0 and is_method(callee) else self.operand(p.type, nil=True))
        if isinstance(callee, Extern) and callee.variadic:
            passable = [t for t in self.known_types() if not self.g.holds_code(t)]
            args += [self.operand(self.g.pick(passable)) for _ in range(self.g.below(3))]
        return args

    def op_const(self, row: Opcode) -> bool:
        t = self.g.pick([t for t in self.known_types() if t in (*NUMBERS, BOOL, CHAR, TEXT) or isinstance(t, Option)])
        value = Const(None, None) if isinstance(t, Option) else const(t, self.g.pick(scalars_of(t)))
        self.emit("const", value, t=t, annotate=True)
        return True

    def op_zero(self, row: Opcode) -> bool:
        self.emit("zero", t=self.g.pick([t for t in self.known_types() if self.g.has_zero(t)]), annotate=True)
        return True

    def op_cast(self, row: Opcode) -> bool:
        g = self.g
        source = g.pick([t for t in self.known_types() if t in (*NUMBERS, BOOL, CHAR)])
        target = g.pick([t for t in (*NUMBERS, CHAR) if can_cast(source, t)])
        operand = self.operand(source)
        if g.often(3) and (target == CHAR or (source in FLOATS and target in INTEGERS)):
            operand = const(source, 97) if source != CHAR else operand
        self.emit("cast", operand, t=target, annotate=True)
        return True

    def op_bitcast(self, row: Opcode) -> bool:
        source = self.g.pick([t for t in self.known_types() if t in NUMBERS])
        self.emit("bitcast", self.operand(source), t=self.g.pick([t for t in NUMBERS if bit_width(t) == bit_width(source)]), annotate=True)
        return True

    def op_local(self, row: Opcode) -> bool:
        free = [n for n in self.assigned if row.name != "drop" or self.may_end(n)]
        if not free:
            return False
        name = self.g.pick(free)
        if row.name == "drop":
            del self.assigned[name]
        self.emit(row.name, name=name)
        return True

    def op_make(self, row: Opcode) -> bool:
        kind = {"array": (Array, FixedArray), "dict": Dict, "tuple": Tuple, "func": Fn, "closure": Fn}[row.name]
        fitting = [t for t in self.known_types() if isinstance(t, kind)]  # type: ignore[arg-type]
        if not fitting:
            return False
        self.make(self.g.pick(fitting))
        return True

    def op_new(self, row: Opcode) -> bool:
        structs = [d for d in self.g.names.types.values() if isinstance(d, StructDef)]
        if structs:
            self.new(self.g.pick(structs))
        return bool(structs)

    def enum(self) -> EnumDef | None:
        enums = [d for d in self.g.names.types.values() if isinstance(d, EnumDef)]
        return self.g.pick(enums) if enums else None

    def op_variant(self, row: Opcode) -> bool:
        enum = self.enum()
        if enum is not None:
            self.variant(enum, self.g.pick(enum.variants))
        return enum is not None

    def op_tag(self, row: Opcode) -> bool:
        enum = self.enum()
        if enum is not None:
            self.emit("tag", self.operand(Named(enum.name)), t=I64)
        return enum is not None

    def op_payload(self, row: Opcode) -> bool:
        enum = self.enum()
        choices = [(v, f) for v in enum.variants for f in v.fields] if enum is not None else []
        if enum is None or not choices:
            return False
        variant, wanted = self.g.pick(choices)
        subject = self.variant(enum, variant) if self.g.often(3) else self.operand(Named(enum.name))
        self.emit("payload", subject, name=f"{variant.name}.{wanted.name}", t=wanted.type)
        return True

    def with_fields(self, *kinds: type) -> list[Type]:
        types = self.g.names.types
        return [t for t in self.known_types() if isinstance(t, kinds) and (not isinstance(t, Named) or isinstance(types[t.name], StructDef))]

    def field(self, t: Type) -> str | int:
        if isinstance(t, Tuple):
            return self.g.below(len(t.elements))
        return self.g.pick(self.g.names.types[t.name].fields).name  # type: ignore[union-attr]

    def op_get_field(self, row: Opcode) -> bool:
        fitting = self.with_fields(Named, Tuple)
        if fitting:
            t = self.g.pick(fitting)
            name = self.field(t)
            self.emit("get_field", self.operand(t), field=name, t=field_type(t, name, self.g.names))
        return bool(fitting)

    def op_set_field(self, row: Opcode) -> bool:
        fitting = self.with_fields(Named)
        if fitting:
            t = self.g.pick(fitting)
            name = self.field(t)
            place = self.writable(t)
            self.emit("set_field", place, self.operand(field_type(t, name, self.g.names), nil=True), field=name)
        return bool(fitting)

    def op_call(self, row: Opcode) -> bool:
        callee = self.callee()
        if callee is not None:
            result = callee.result if callee.result != UNIT and self.g.often(8) else None
            self.emit("call", *self.arguments(callee), name=callee.name, t=result)
        return callee is not None

    def op_call_indirect(self, row: Opcode) -> bool:
        fitting = [t for t in self.known_types() if isinstance(t, Fn) and t.result != NEVER]
        if fitting:
            t = self.g.pick(fitting)
            target = self.operand(t)
            args = [self.operand(p, nil=True) for p in t.params]
            self.emit("call_indirect", target, *args, t=None if t.result == UNIT else t.result)
        return bool(fitting)

    def op_load_global(self, row: Opcode) -> bool:
        declared = list(self.g.names.globals.values())
        if declared:
            chosen = self.g.pick(declared)
            self.emit("load_global", name=chosen.name, t=chosen.type)
        return bool(declared)

    def op_store_global(self, row: Opcode) -> bool:
        declared = list(self.g.names.globals.values())
        if declared:
            chosen = self.g.pick(declared)
            self.emit("store_global", self.operand(chosen.type, nil=True), name=chosen.name)
        return bool(declared)

    def op_alloc(self, row: Opcode) -> bool:
        t = self.g.pick([t for t in self.known_types() if self.g.has_zero(t)])
        self.emit("alloc", const(I64, (1, 2, 3, 0, -1)[self.g.below(5 if self.g.rarely(4) else 3)]), type=t, t=Ptr(t))
        return True

    # What keeps an operation from trapping: operands by position

    def wish_divisor(self, types: list[Type]) -> dict[int, Operand]:
        return {1: const(types[1], (2, 1, 3, 7)[self.g.below(4)])}

    def wish_index(self, types: list[Type]) -> dict[int, Operand]:
        container = types[0]
        if isinstance(container, Dict):
            return self.wish_key(types)
        if container == TEXT:
            return {0: const(TEXT, "abc"), 1: self.index_operand()}
        if isinstance(container, FixedArray):
            return {1: const(I64, self.g.below(max(1, container.length)))}
        return {1: self.index_operand()}

    def wish_key(self, types: list[Type]) -> dict[int, Operand]:
        """Put the key in first."""
        container = types[0]
        assert isinstance(container, Dict)
        place = self.writable(container)
        if place.hops and self.g.below(2):
            return {}
        key = const(container.key, self.g.pick(scalars_of(container.key)))
        self.emit("index_set", place, key, self.operand(container.value, nil=True))
        return {0: place, 1: key}

    def wish_filled(self, types: list[Type]) -> dict[int, Operand]:
        """Push an element first."""
        container = types[0]
        if isinstance(container, Dict):
            return self.wish_key(types)
        assert isinstance(container, Array)
        place = self.writable(container)
        self.emit("push", place, self.operand(container.element, nil=True))
        return {0: place, 1: const(I64, 0)} if len(types) > 1 else {0: place}

    def wish_start(self, types: list[Type]) -> dict[int, Operand]:
        return {1: const(I64, 0)}

    def wish_part(self, types: list[Type]) -> dict[int, Operand]:
        return {1: const(I64, 0), 2: const(I64, self.g.below(2))}

    def wish_some(self, types: list[Type]) -> dict[int, Operand]:
        assert isinstance(types[0], Option)
        return {0: self.emit("some", self.operand(types[0].inner), t=types[0])}

    def wish_pointer(self, types: list[Type]) -> dict[int, Operand]:
        assert isinstance(types[0], Ptr)
        return {0: self.emit("ref", self.operand(types[0].pointee), t=types[0])}

    def wish_step(self, types: list[Type]) -> dict[int, Operand]:
        return {1: const(I64, (1, 0, 2, -1)[self.g.below(4)])}

    def wish_true(self, types: list[Type]) -> dict[int, Operand]:
        return {0: const(BOOL, True)}


_CUSTOM: dict[str, Callable[[OperationWriter, Opcode], bool]] = {
    "const": OperationWriter.op_const, "zero": OperationWriter.op_zero, "cast": OperationWriter.op_cast, "bitcast": OperationWriter.op_bitcast,
    "local": OperationWriter.op_local, "array": OperationWriter.op_make, "dict": OperationWriter.op_make, "tuple": OperationWriter.op_make,
    "func": OperationWriter.op_make, "closure": OperationWriter.op_make, "new": OperationWriter.op_new, "variant": OperationWriter.op_variant,
    "tag": OperationWriter.op_tag, "payload": OperationWriter.op_payload, "get_field": OperationWriter.op_get_field,
    "set_field": OperationWriter.op_set_field, "call": OperationWriter.op_call, "call_indirect": OperationWriter.op_call_indirect,
    "load_global": OperationWriter.op_load_global, "store_global": OperationWriter.op_store_global, "alloc": OperationWriter.op_alloc,
}  # fmt: skip
"""How to write an operation whose row has a custom rule, by that rule; each returns whether it could."""

_WISHES: dict[str, Callable[[OperationWriter, list[Type]], dict[int, Operand]]] = {
    "div": OperationWriter.wish_divisor, "rem": OperationWriter.wish_divisor, "checked_add": OperationWriter.wish_divisor,
    "checked_mul": OperationWriter.wish_divisor, "checked_sub": OperationWriter.wish_divisor,
    "index_get": OperationWriter.wish_index, "index_set": OperationWriter.wish_index, "pop": OperationWriter.wish_filled,
    "remove": OperationWriter.wish_filled, "insert": OperationWriter.wish_start, "slice": OperationWriter.wish_part,
    "unwrap": OperationWriter.wish_some, "load": OperationWriter.wish_pointer, "store": OperationWriter.wish_pointer,
    "gep": OperationWriter.wish_step, "assert": OperationWriter.wish_true,
}  # fmt: skip
"""Operands with which an operation does not trap, by position."""

_OFTEN = {"aggregates": 4, "text": 2, "calls": 2, "pointers": 2, "globals": 2}
"""How often an operation of a group is tried, if not once: many of these find no operand that fits."""
_ROWS = [row for name in USER_OPS if not (row := OPS[name]).terminator for _ in range(_OFTEN.get(row.group, 1))]

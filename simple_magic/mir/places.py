"""Visible definitions, the types of operands and places, and facts about types that need the definitions behind their names.

`resolve`, `verify` and the passes read these; nothing here changes a program. A broken rule is a `Rejected` with its diagnostic; in a verified
module the functions of this file never raise it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .diagnostics import Diagnostic, Span
from .model import Const, EnumDef, Extern, FieldHop, Function, Global, IndexHop, Module, Operand, Place, StructDef, TypeDef, Variant
from .types import (
    DICT_KEYS, I64, NEVER, PRIMITIVES, TEXT, UNIT, Array, Dict, FixedArray, Fn, Named, Option, Primitive, Ptr, Tuple, Type, children, format_type,
    is_scalar, walk,
)  # fmt: skip

MAX_ZERO_PARTS = 1 << 20
"""The most objects and scalars that one zero value may consist of."""
MAX_FIXED_LENGTH = 1 << 32


class Rejected(Exception):
    """A rule of the language is broken. `arg` is the operand at fault; its span is used where `span` is missing."""

    def __init__(self, code: str, message: str, span: Span | None = None, label: str = "", help: str = "", notes: tuple = (), arg: int | None = None) -> None:
        self.code, self.message, self.span, self.label, self.help, self.notes, self.arg = code, message, span, label, help, notes, arg
        super().__init__(message)

    def diagnostic(self, span: Span | None = None, context: str = "") -> Diagnostic:
        """Return the finding; `span` is used where the rule knew no better place."""
        return Diagnostic(self.code, self.message, self.span or span, self.label, self.help, self.notes, context=context)


class UnknownType(Exception):
    """The type of an operand is unknown because of an error that was reported already."""


@dataclass(frozen=True)
class Names:
    """The visible definitions by name."""

    types: Mapping[str, TypeDef] = field(default_factory=dict)
    globals: Mapping[str, Global] = field(default_factory=dict)
    externs: Mapping[str, Extern] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)

    @classmethod
    def of(cls, *modules: Module) -> Names:
        """Return the definitions of all modules; a later one replaces an earlier one of the same name."""
        return cls().extended(*modules)

    def extended(self, *modules: Module) -> Names:
        """Return these definitions and those of the modules, which win."""
        types, global_table, externs, functions = dict(self.types), dict(self.globals), dict(self.externs), dict(self.functions)
        tables: tuple[dict, ...] = (types, global_table, externs, functions)
        for module in modules:
            for item in module.items:
                for table in tables:
                    table.pop(item.name, None)
            types.update((item.name, item) for item in module.types)
            global_table.update((item.name, item) for item in module.globals)
            externs.update((item.name, item) for item in module.externs)
            functions.update((item.name, item) for item in module.functions)
        return Names(types, global_table, externs, functions)

    def callable(self, name: str) -> Function | Extern | None:
        """Return the function or extern of that name."""
        return self.functions.get(name) or self.externs.get(name)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean `x`?" for the known name nearest to `name`, or ""."""
    near = [k for k in known if abs(len(k) - len(name)) <= 3][:500]
    found = difflib.get_close_matches(name, near, n=1)
    return f"did you mean `{found[0]}`?" if found else ""


TYPES_FROM_PYTHON = {
    "int": "i64", "integer": "i64", "long": "i64", "byte": "u8", "float": "f64", "double": "f64", "number": "f64", "str": "text", "string": "text",
    "boolean": "bool", "list": "[f64]", "array": "[f64]", "dict": "{text: i64}", "tuple": "(i64, f64)", "none": "unit", "void": "unit", "optional": "f64?",
}  # fmt: skip
"""What the types of other languages are called here."""
WORDS_FROM_PYTHON = {"True": "did you mean `true`?", "False": "did you mean `false`?", "None": "did you mean `nil`?", "null": "did you mean `nil`?"}

# Operands and places


def struct_of(t: Type, names: Names) -> StructDef | None:
    """Return the definition if `t` is a struct or class."""
    found = names.types.get(t.name) if isinstance(t, Named) else None
    return found if isinstance(found, StructDef) else None


def enum_of(t: Type, names: Names) -> EnumDef | None:
    """Return the definition if `t` is an enum."""
    found = names.types.get(t.name) if isinstance(t, Named) else None
    return found if isinstance(found, EnumDef) else None


def variant_of(enum: EnumDef, name: str) -> Variant | None:
    return next((variant for variant in enum.variants if variant.name == name), None)


def field_type(t: Type, name: str | int, names: Names, span: Span | None = None) -> Type:
    """Return the type of a field of a struct or class, or of a numbered element of a tuple. Raises: Rejected."""
    if isinstance(t, Tuple):
        if isinstance(name, int) and 0 <= name < len(t.elements):
            return t.elements[name]
        size = len(t.elements)
        raise Rejected("E0110", f"a tuple {format_type(t)} has the elements 0 to {size - 1}, but got `{name}`", span, help="write the element's number")
    struct = struct_of(t, names)
    if struct is None:
        enum = enum_of(t, names)
        advice = "read an enum's fields with `payload`" if enum else "unwrap it first" if isinstance(t, Option) else ""
        raise Rejected("E0110", f"a field needs a struct, class or tuple, but got {format_type(t)}", span, help=advice)
    for declared in struct.fields:
        if declared.name == name:
            return declared.type
    known = [declared.name for declared in struct.fields]
    advice = suggestion(str(name), known) or (f"its fields are {', '.join(known)}" if known else "it has no fields")
    raise Rejected("E0110", f"`{t.name}` has no field `{name}`", span, help=advice)  # type: ignore[union-attr]


def element_type(t: Type, index: Type, span: Span | None = None) -> Type:
    """Return the type behind `[index]` on an array or dict. Raises: Rejected."""
    wanted: Type = I64
    match t:
        case Array(element) | FixedArray(element, _):
            pass
        case Dict(key, element):
            wanted = key
        case _:
            raise Rejected("E0111", f"an index needs an array or dict, but got {format_type(t)}", span, help=_instead_of_index(t))
    if index != wanted:
        raise Rejected("E0101", f"the index into {format_type(t)} must be {format_type(wanted)}, but got {format_type(index)}", span)
    return element


def _instead_of_index(t: Type) -> str:
    if isinstance(t, Tuple):
        return "write a tuple's element as `.0`"
    if isinstance(t, Option):
        return "unwrap it first"
    return "read a text with `index_get`" if t == TEXT else ""


def hop_type(t: Type, hop: FieldHop | IndexHop, local_types: Mapping[str, Type | None], names: Names) -> Type:
    """Return the type of what a hop leads to from a value of type `t`. Raises: Rejected; UnknownType."""
    if isinstance(hop, FieldHop):
        return field_type(t, hop.field, names, hop.span)
    return element_type(t, operand_type(hop.index, local_types, names), hop.span or hop.index.span)


def root_type(place: Place, local_types: Mapping[str, Type | None], names: Names) -> Type:
    """Return the type of the local or global that the place starts at. Raises: Rejected; UnknownType."""
    if place.is_global:
        declared = names.globals.get(place.root)
        if declared is None:
            raise unknown_global(place.root, names, place.span)
        return declared.type
    if place.root not in local_types:
        advice = suggestion(place.root, local_types) or WORDS_FROM_PYTHON.get(place.root, "assign it further up, or make it a parameter")
        if place.root in names.globals:
            advice = f"a global is written `@{place.root}`"
        raise Rejected("E0201", f"unknown local `{place.root}`", place.span, help=advice)
    found = local_types[place.root]
    if found is None:
        raise UnknownType
    return found


def operand_type(operand: Operand, local_types: Mapping[str, Type | None], names: Names) -> Type:
    """Return the type of an operand. Raises: Rejected; UnknownType for a local whose type is None."""
    if isinstance(operand, Const):
        if operand.type is None:
            raise Rejected("E0104", "the type of this nil is not known", operand.span)
        return operand.type
    t = root_type(operand, local_types, names)
    for hop in operand.hops:
        t = hop_type(t, hop, local_types, names)
    return t


def place_types(place: Place, local_types: Mapping[str, Type | None], names: Names) -> tuple[Type, ...]:
    """Return the type at the root and behind each hop: one more than there are hops. Raises: Rejected; UnknownType."""
    types = [root_type(place, local_types, names)]
    for hop in place.hops:
        types.append(hop_type(types[-1], hop, local_types, names))
    return tuple(types)


def can_hold_array(t: Type, names: Names) -> bool:
    """Return whether an array can be reached from a value of type `t`."""
    return can_hold(t, (Array, FixedArray), names)


def can_hold_code(t: Type, names: Names) -> bool:
    """Return whether a function or a pointer can be reached from a value of type `t`."""
    return can_hold(t, (Fn, Ptr), names)


def can_hold(t: Type, kinds: tuple[type, ...], names: Names) -> bool:
    """Return whether a value of one of these kinds of types can be reached from a value of type `t`."""
    seen: set[str] = set()
    todo = [t]
    while todo:
        for inner in walk(todo.pop()):
            if isinstance(inner, kinds):
                return True
            if isinstance(inner, Named) and inner.name not in seen:
                seen.add(inner.name)
                definition = names.types[inner.name]
                groups = [definition.fields] if isinstance(definition, StructDef) else [v.fields for v in definition.variants]
                todo.extend(f.type for fields in groups for f in fields)
    return False


def unknown_global(name: str, names: Names, span: Span | None = None) -> Rejected:
    return Rejected("E0204", f"unknown global `{name}`", span, help=suggestion(name, names.globals) or f"declare it: `global {name}: i64`")


# Facts about types


class TypeFacts:
    """What the definitions say about types; answers are kept for the life of the object."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._sound: set[Type] = set()
        self._parts: dict[Type, int | Rejected] = {}
        self._code: dict[tuple[Type, bool], Type | None] = {}

    def check(self, t: Type, span: Span | None = None, is_result: bool = False) -> None:
        """Raise Rejected unless `t` may stand in a program; `is_result`: as the result of a function, where unit and never are allowed."""
        if is_result and t in (UNIT, NEVER):
            return
        if t in self._sound:
            return
        todo: list[tuple[Type, bool]] = [(t, False)]
        while todo:
            current, result = todo.pop()
            self._check_one(current, result, span)
            match current:
                case Fn(params, last):
                    todo.append((last, True))
                    todo.extend((p, False) for p in reversed(params))
                case _:
                    todo.extend((child, False) for child in reversed(children(current)))
        self._sound.add(t)

    def _check_one(self, t: Type, is_result: bool, span: Span | None) -> None:
        match t:
            case Primitive(name):
                if name not in PRIMITIVES:
                    raise Rejected("E0203", f"unknown type `{name}`", span, help=suggestion(name, (*PRIMITIVES, *self.names.types)))
                if t in (UNIT, NEVER) and not is_result:
                    raise Rejected("E0403", f"`{name}` can only be the result of a function: no value has this type", span)
            case Named(name):
                if name not in self.names.types:
                    python = TYPES_FROM_PYTHON.get(name.lower())
                    advice = f"did you mean `{python}`?" if python else suggestion(name, (*PRIMITIVES, *self.names.types))
                    raise Rejected("E0203", f"unknown type `{name}`", span, help=advice or f"define it: `struct {name}:`")
            case Dict(key, _):
                if key not in DICT_KEYS:
                    raise Rejected("E0402", f"the key of a dict must be an integer, bool, char or text, but got {format_type(key)}", span)
            case Tuple(()):
                raise Rejected("E0405", "a tuple type needs at least one element", span)
            case FixedArray(_, length):
                if not 0 <= length <= MAX_FIXED_LENGTH:
                    raise Rejected("E0405", f"the length of a fixed array must be between 0 and {MAX_FIXED_LENGTH}, but got {length}", span)

    def require_zero(self, t: Type, span: Span | None = None) -> None:
        """Raise Rejected unless `t` has a zero value of a sensible size."""
        parts = self._zero_parts(t)
        if isinstance(parts, Rejected):
            raise Rejected(parts.code, parts.message, span, help=parts.help)
        if parts > MAX_ZERO_PARTS:
            raise Rejected("E0407", f"the zero value of {format_type(t)} has more than {MAX_ZERO_PARTS} parts", span,
                           help="use a growable array or a dict and fill it")  # fmt: skip

    def _zero_parts(self, t: Type) -> int | Rejected:
        """Return the number of objects and scalars in the zero value (capped), or why there is none. Iterative: structs may nest deeply."""
        todo = [t]
        open_types: set[Type] = set()
        while todo:
            current = todo[-1]
            if current in self._parts:
                todo.pop()
                continue
            inside = self._zero_inside(current)
            if isinstance(inside, Rejected):
                self._parts[todo.pop()] = inside
                continue
            missing = [child for child in inside if child not in self._parts]
            if any(child in open_types for child in missing):
                self._parts[todo.pop()] = Rejected("E0113", f"{format_type(current)} contains itself, so it has no zero value")
            elif missing:
                open_types.add(current)
                todo.extend(missing)
            else:
                self._parts[todo.pop()] = self._sum(current, inside)
        return self._parts[t]

    def _sum(self, t: Type, inside: tuple[Type, ...]) -> int | Rejected:
        total = 1
        for child in inside:
            parts = self._parts[child]
            if isinstance(parts, Rejected):
                return parts
            total += parts * t.length if isinstance(t, FixedArray) else parts
        return min(total, MAX_ZERO_PARTS + 1)

    def _zero_inside(self, t: Type) -> tuple[Type, ...] | Rejected:
        """Return the types whose zero values the zero value of `t` contains, or why there is none."""
        advice = "use an option, whose zero value is nil"
        match t:
            case FixedArray(element, length):
                return (element,) if length else ()
            case Tuple(elements):
                return elements
            case Fn() | Ptr():
                return Rejected("E0113", f"{format_type(t)} has no zero value", help=advice)
            case Named(name):
                struct = struct_of(t, self.names)
                if struct is None or struct.is_class:
                    kind = "class" if struct else "enum"
                    return Rejected("E0113", f"the {kind} `{name}` has no zero value", help=advice)
                return tuple(declared.type for declared in struct.fields)
        return Rejected("E0113", "`never` has no zero value") if t == NEVER else ()

    def code_inside(self, t: Type, through_classes: bool) -> Type | None:
        """Return a function or pointer type that a value of type `t` can lead to, or None; classes are entered only if asked."""
        key = (t, through_classes)
        if key in self._code:
            return self._code[key]
        found = None
        seen: set[str] = set()
        todo = [t]
        while todo and found is None:
            for inner in walk(todo.pop()):
                if isinstance(inner, (Fn, Ptr)):
                    found = inner
                    break
                if isinstance(inner, Named) and inner.name not in seen:
                    seen.add(inner.name)
                    todo.extend(self._held(inner.name, through_classes))
        self._code[key] = found
        return found

    def _held(self, name: str, through_classes: bool) -> tuple[Type, ...]:
        match self.names.types.get(name):
            case StructDef(fields=fields, is_class=is_class) if through_classes or not is_class:
                return tuple(declared.type for declared in fields)
            case EnumDef(variants=variants):
                return tuple(declared.type for variant in variants for declared in variant.fields)
        return ()


def is_written_as_literal(t: Type) -> bool:
    """Return whether constants of type `t` can be written: numbers, bool, char, text and nil of an option."""
    return (is_scalar(t) and t != UNIT) or t == TEXT or isinstance(t, Option)

"""The typing engine: what type an instruction gives, and whether its operands fit.

`result_type` looks at one instruction (`Use`) whose locals are known: the signatures of its row in `mir/ops.py` are matched by unification of the
type variables T, K, V; what a signature cannot say is a rule in `RULES`, keyed by the row's `custom` name. A broken rule raises `Rejected`, an
operand without a type because of an earlier error raises `UnknownType`. `nil` gets its type here: from the other operands, else from the local
that is assigned (`expected`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .analysis import operand_reads
from .diagnostics import Span
from .model import Const, Extern, Function, IndexHop, Instruction, Operand, Param, Place, decode_bits
from .ops import OPS, Opcode, Signature
from .places import (
    Names, Rejected, TypeFacts, UnknownType, enum_of, field_type, operand_type, place_types, struct_of, suggestion, unknown_global, variant_of,
)  # fmt: skip
from .text import format_operand
from .types import (
    BOOL, CHAR, DICT_KEYS, FLOATS, I64, INTEGERS, NEVER, NUMBERS, TEXT, U8, UNIT, Array, Dict, FixedArray, Fn, Named, Option, Ptr, Tuple, Type,
    bit_width, format_type, integer_range, is_float, is_integer, is_scalar,
)  # fmt: skip

CLASS_NAMES: dict[tuple[Type, ...], str] = {NUMBERS: "a number", INTEGERS: "an integer", FLOATS: "a float", DICT_KEYS: "an integer, bool, char or text"}
ORDINALS = ("first", "second", "third", "fourth")
COUNTS = {1: "one value", 2: "two values", 3: "three values"}


@dataclass
class Use:
    """One instruction while it is typed.

    types: of the operands; None for a nil that is not typed yet. expected: the type of the assigned local, if it is known.
    assigned: every local that the function assigns somewhere. typed_at: where a local got its type.
    """

    ins: Instruction
    function: Function
    names: Names
    facts: TypeFacts
    locals: Mapping[str, Type | None]
    assigned: frozenset[str]
    typed_at: Mapping[str, Span | None]
    expected: Type | None
    internal: bool
    types: list[Type | None]

    @property
    def name(self) -> str:
        return self.ins.name or ""

    def type_at(self, index: int) -> Type:
        """Return the type of an operand that must not be an untyped nil."""
        found = self.types[index]
        if found is None:
            raise self.untyped_nil(index)
        return found

    def untyped(self, message: str, arg: int | None, help: str) -> Rejected:
        """Return the complaint that a type is missing. Raises: UnknownType if it is missing because the annotation is wrong."""
        if self.ins.dest in self.locals and self.expected is None:
            raise UnknownType
        return Rejected("E0104", message, arg=arg, help=help)

    def untyped_nil(self, index: int) -> Rejected:
        return self.untyped("the type of this nil is not known here", index, "assign it first: `t: i64? = const nil`, then use `t`")

    def wrong(self, code: str, message: str, arg: int | None = None, label: str = "", help: str = "") -> Rejected:
        return Rejected(code, message, arg=arg, label=label, help=help)

    def require(self, index: int, wanted: Type, what: str, code: str = "E0101") -> None:
        """Check an operand against one type; a nil takes it."""
        found = self.types[index]
        if found is None and isinstance(wanted, Option):
            self.types[index] = wanted
        elif found != wanted:
            raise self.mismatch(index, wanted, what, code)

    def mismatch(self, index: int, wanted: Type, what: str, code: str = "E0101") -> Rejected:
        operand, found = self.ins.args[index], self.types[index]
        got = "nil" if found is None else format_type(found)
        label = ""
        notes: tuple[tuple[str, Span | None], ...] = ()
        if isinstance(operand, Place):
            label = f"`{spell(operand)}` is {got}"
            at = self.typed_at.get(operand.root)
            if not operand.hops and not operand.is_global and at is not None:
                notes = ((f"`{operand.root}` gets its type here", at),)
        advice = "" if found is None else conversion(operand, found, wanted)
        return Rejected(code, f"{what} must be {format_type(wanted)}, but got {got}", label=label, help=advice, notes=notes, arg=index)


def spell(operand: Operand) -> str:
    """Return an operand as a message names it."""
    return format_operand(replace(operand, move=False) if isinstance(operand, Place) else operand)


def conversion(operand: Operand, found: Type, wanted: Type) -> str:
    """Return the advice how to get a value of type `wanted` from an operand of type `found`, or ""."""
    if isinstance(operand, Const) and found in NUMBERS and wanted in NUMBERS:
        literal = _literal(operand, found, wanted)
        return f"write `{literal}`" if literal else ""
    if isinstance(operand, Const):
        return "assign it with `some` first" if wanted == Option(found) else ""
    name = spell(operand)
    spelled = format_type(wanted)
    if found in NUMBERS and wanted in NUMBERS:
        return f"convert first: `c: {spelled} = cast {name}`"
    if wanted == Option(found):
        return f"wrap it first: `c = some {name}`"
    if found == Option(wanted):
        return f"unwrap it first: `c = unwrap {name}`"
    if wanted == TEXT and is_scalar(found):
        return f"convert first: `c = to_text {name}`"
    if wanted == BOOL and found in NUMBERS:
        return f"compare first: `c = ne {name}, {'0.0' if is_float(found) else '0'}{_suffix(found)}`"
    return ""


def _suffix(t: Type) -> str:
    return "" if t == I64 or format_type(t) == "f64" else format_type(t)


def _literal(operand: Const, found: Type, wanted: Type) -> str:
    value = decode_bits(found, operand.bits)  # type: ignore[arg-type]
    if is_integer(found) and is_float(wanted):
        return f"{value}.0{_suffix(wanted)}" if abs(value) < 1 << 24 else ""  # type: ignore[arg-type]
    if is_integer(found) and is_integer(wanted):
        low, high = integer_range(wanted)
        return f"{value}{_suffix(wanted)}" if low <= value <= high else ""  # type: ignore[operator]
    if is_float(found) and is_float(wanted):
        return f"{value!r}{_suffix(wanted)}" if "e" not in repr(value) and "n" not in repr(value) else ""
    return f"{int(value)}{_suffix(wanted)}" if -1e6 < value < 1e6 and value == int(value) else ""  # type: ignore[call-overload, operator]


# Signatures


def unify(pattern: Type, t: Type, bound: dict[str, Type]) -> bool:
    """Match `t` against a pattern of type variables, extending `bound`."""
    match pattern:
        case Named(name):
            return bound.setdefault(name, t) == t
        case Array(element):
            return isinstance(t, Array) and unify(element, t.element, bound)
        case FixedArray(element, _):
            return isinstance(t, FixedArray) and unify(element, t.element, bound)
        case Dict(key, value):
            return isinstance(t, Dict) and unify(key, t.key, bound) and unify(value, t.value, bound)
        case Option(inner):
            return isinstance(t, Option) and unify(inner, t.inner, bound)
        case Ptr(pointee):
            return isinstance(t, Ptr) and unify(pointee, t.pointee, bound)
    return pattern == t


def substitute(pattern: Type, bound: Mapping[str, Type]) -> Type | None:
    """Return the pattern with its variables replaced; None if one of them is not bound."""
    match pattern:
        case Named(name):
            return bound.get(name)
        case Array(element):
            inner = substitute(element, bound)
            return None if inner is None else Array(inner)
        case Option(element):
            inner = substitute(element, bound)
            return None if inner is None else Option(inner)
        case Ptr(element):
            inner = substitute(element, bound)
            return None if inner is None else Ptr(inner)
        case FixedArray() | Dict():
            return None
    return pattern


def _in_classes(row: Opcode, bound: Mapping[str, Type]) -> bool:
    return all(not row.classes[name] or t in row.classes[name] for name, t in bound.items())


def _try(use: Use, row: Opcode, signature: Signature) -> tuple[int, dict[str, Type]]:
    """Match the operands from left to right; return the index of the first that does not fit (or their number) and the bindings before it."""
    bound: dict[str, Type] = {}
    for index, (pattern, t) in enumerate(zip(signature.params, use.types)):
        if t is None:
            continue
        before = dict(bound)
        if not unify(pattern, t, bound) or not _in_classes(row, bound):
            return index, before
    if signature.result is not None and use.expected is not None and substitute(signature.result, bound) is None:
        trial = dict(bound)
        if unify(signature.result, use.expected, trial) and _in_classes(row, trial):
            bound = trial
    for index, (pattern, t) in enumerate(zip(signature.params, use.types)):
        if t is None and not isinstance(substitute(pattern, bound), Option):
            return index, bound
    return len(signature.params), bound


def by_signature(use: Use, row: Opcode) -> Type | None:
    """Return the result by the first signature that the operands match; None if the operation gives no value."""
    best: tuple[int, dict[str, Type], Signature] | None = None
    for signature in row.signatures:
        index, bound = _try(use, row, signature)
        if index == len(signature.params):
            for position, pattern in enumerate(signature.params):
                if use.types[position] is None:
                    use.types[position] = substitute(pattern, bound)
            return None if signature.result is None else substitute(signature.result, bound)
        if best is None or index > best[0]:
            best = index, bound, signature
    if best is None:
        return None
    raise _no_signature(use, row, *best)


def _towards_float(use: Use, index: int, wanted: Type) -> str:
    """Return the advice for an integer next to a float: the float stays, as the other way round loses its fraction."""
    operand, found = use.ins.args[index], use.types[index]
    assert found is not None
    advice = conversion(operand, found, wanted)
    if isinstance(operand, Place) and not operand.hops and not operand.is_global and operand.root not in {p.name for p in use.function.params}:
        return f"give `{operand.root}` a float where it gets its type, such as `{operand.root} = const 0.0{_suffix(wanted)}`; or {advice}"
    return advice


def _no_signature(use: Use, row: Opcode, index: int, bound: dict[str, Type], signature: Signature) -> Rejected:
    found, pattern = use.types[index], signature.params[index]
    wanted = substitute(pattern, bound)
    if found is None and wanted is None:
        return use.untyped_nil(index)
    got = "nil" if found is None else format_type(found)
    same = [position for position, other in enumerate(signature.params) if other == pattern and isinstance(pattern, Named)]
    if wanted is not None and len(same) > 1 and index != same[0] and len(same) == len(signature.params):
        rejected = use.mismatch(index, wanted, "it", "E0102")
        first = use.types[same[0]]
        rejected.message = f"`{row.name}` needs {COUNTS[len(same)]} of one type, but got {format_type(first or wanted)} and {got}"
        if first is not None and found is not None and is_float(first) != is_float(found) and first in NUMBERS and found in NUMBERS:
            rejected.help = _towards_float(use, *((same[0], found) if is_float(found) else (index, first)))
        return rejected
    if wanted is not None and (len(row.signatures) == 1 or index > 0):
        what = f"the {ORDINALS[index]} operand of `{row.name}`" if len(signature.params) > 1 else f"the operand of `{row.name}`"
        if index > 0 and not isinstance(signature.params[0], Named) and use.types[0] is not None and substitute(signature.params[0], {}) is None:
            what += f" on {format_type(use.types[0])}"
        return use.mismatch(index, wanted, what)
    choices = list(dict.fromkeys(describe(other.params[index], row) for other in row.signatures))
    needed = choices[0] if len(choices) == 1 else ", ".join(choices[:-1]) + " or " + choices[-1]
    what = f" as {ORDINALS[index]} operand" if index else ""
    advice = ""
    if isinstance(found, Option):
        advice = f"unwrap it first: `c = unwrap {spell(use.ins.args[index])}`"
    elif isinstance(pattern, (Array, FixedArray)) and row.form.startswith("p"):
        advice = _why_not_writable(found)
    label = f"`{spell(use.ins.args[index])}` is {got}" if isinstance(use.ins.args[index], Place) else ""
    return use.wrong("E0101", f"`{row.name}` needs {needed}{what}, but got {got}", index, label, advice)


def _why_not_writable(t: Type | None) -> str:
    match t:
        case Tuple():
            return "a tuple cannot be changed: build a new one with `tuple`"
        case FixedArray():
            return "the length of a fixed array cannot change: use a growable array"
    return "text cannot be changed: build a new one with `concat` and `slice`" if t == TEXT else ""


def describe(pattern: Type, row: Opcode) -> str:
    """Return what a pattern of a signature stands for, in words."""
    match pattern:
        case Named(name):
            limit = row.classes[name]
            return CLASS_NAMES.get(limit) or (f"a value ({', '.join(format_type(t) for t in limit)})" if limit else "a value")
        case Array():
            return "an array"
        case FixedArray():
            return "a fixed array"
        case Dict():
            return "a dict"
        case Option():
            return "an option"
        case Ptr():
            return "a pointer"
    return format_type(pattern)


# Rules for what a signature cannot say


def _expected(use: Use) -> Type:
    if use.expected is None:
        example = {"zero": "i64", "dict": "{i64: f64}", "array": "[f64]"}.get(use.ins.op, "f64")
        dest = use.ins.dest or "x"
        operands = " ..." if use.ins.args else ""
        raise use.untyped(f"`{use.ins.op}` needs to know its type, but `{dest}` has no annotation", None,
                          f"write the type: `{dest}: {example} = {use.ins.op}{operands}`")  # fmt: skip
    return use.expected


def _const(use: Use) -> Type:
    operand = use.ins.args[0]
    if not isinstance(operand, Const):
        raise use.wrong("E0101", "`const` needs a literal, but got a local", 0, help=f"write `copy {spell(operand)}`")
    if use.types[0] is None:
        if use.expected is None:
            dest = use.ins.dest or "x"
            raise use.untyped("the type of this nil is not known here", 0, f"write the type: `{dest}: i64? = const nil`")
        if not isinstance(use.expected, Option):
            raise use.wrong("E0103", f"nil is a value of options only, but `{use.ins.dest}` is {format_type(use.expected)}", 0,
                            help=f"make it `{format_type(Option(use.expected))}`")  # fmt: skip
        use.types[0] = use.expected
    if use.internal and use.type_at(0) == TEXT and use.expected == I64:
        return I64  # Lowered: the reference of the interned text.
    return use.type_at(0)


def _zero(use: Use) -> Type:
    t = _expected(use)
    use.facts.require_zero(t)
    return t


def can_cast(source: Type, target: Type) -> bool:
    """Return whether `cast` converts: numbers to numbers, integers to and from char, bool to integers, any of these to itself."""
    if source in NUMBERS:
        return target in NUMBERS or (target == CHAR and source in INTEGERS)
    return (source in (BOOL, CHAR) and target in INTEGERS) or (source == target and source in (BOOL, CHAR))


def _cast(use: Use) -> Type:
    target, source = _expected(use), use.type_at(0)
    if use.internal and is_scalar(source) and is_scalar(target):
        return target
    if not can_cast(source, target):
        name = spell(use.ins.args[0])
        advice = conversion(use.ins.args[0], source, target)
        if target == TEXT:
            advice = f"write `to_text {name}`"
        elif target == CHAR and source in FLOATS:
            advice = "cast to an integer first"
        raise use.wrong("E0112", f"there is no cast from {format_type(source)} to {format_type(target)}", 0,
                        help=advice or "casts convert numbers, and integers to and from char")  # fmt: skip
    return target


def _bitcast(use: Use) -> Type:
    target, source = _expected(use), use.type_at(0)
    if source not in NUMBERS or target not in NUMBERS or bit_width(source) != bit_width(target):
        raise use.wrong("E0112", f"`bitcast` needs two number types of one width, but got {format_type(source)} and {format_type(target)}", 0)
    return target


def _local(use: Use) -> None:
    operand_type(Place(use.name, span=use.ins.span), use.locals, use.names)


def _equality(use: Use) -> Type | None:
    result = by_signature(use, OPS[use.ins.op])
    for index, t in enumerate(use.types):
        if isinstance(t, Dict) and use.ins.op == "contains":
            return result
        code = use.facts.code_inside(t, through_classes=False) if t is not None else None
        if code is not None:
            inside = "" if code == t else f", but {format_type(t)} holds {format_type(code)}"  # type: ignore[arg-type]
            raise use.wrong("E0115", f"functions and pointers cannot be compared{inside}", index)
    return result


def _array(use: Use) -> Type:
    wanted = use.expected
    element = wanted.element if isinstance(wanted, (Array, FixedArray)) else next((t for t in use.types if t is not None), None)
    if element is None:
        operands = " ..." if use.ins.args else ""
        raise use.untyped("the type of this array is not known", None, f"write the type: `{use.ins.dest or 'x'}: [f64] = array{operands}`")
    for index in range(len(use.types)):
        use.require(index, element, f"element {index} of the array")
    if isinstance(wanted, FixedArray):
        if wanted.length != len(use.types):
            raise use.wrong("E0121", f"{format_type(wanted)} has {wanted.length} elements, but {len(use.types)} are given")
        return wanted
    return Array(element)


def _array_fill(use: Use) -> Type:
    wanted = use.expected
    if isinstance(wanted, (Array, FixedArray)):
        use.require(0, wanted.element, "the first operand of `array_fill`")
    use.require(1, I64, "the second operand of `array_fill`")
    if isinstance(wanted, FixedArray):
        count = use.ins.args[1]
        if not isinstance(count, Const) or count.value != wanted.length:
            raise use.wrong("E0121", f"to fill {format_type(wanted)} the count must be the literal {wanted.length}", 1)
        return wanted
    return Array(use.type_at(0))


def _dict(use: Use) -> Type:
    t = _expected(use)
    if not isinstance(t, Dict):
        raise use.wrong("E0103", f"`dict` makes an empty dict, but `{use.ins.dest}` is {format_type(t)}")
    return t


def _tuple(use: Use) -> Type:
    if not use.types:
        raise use.wrong("E0105", "a tuple needs at least one operand, but got none")
    if isinstance(use.expected, Tuple) and len(use.expected.elements) == len(use.types):
        for index, element in enumerate(use.expected.elements):
            use.require(index, element, f"element {index} of the tuple")
    return Tuple(tuple(use.type_at(index) for index in range(len(use.types))))


def _match_fields(use: Use, declared: tuple[Param, ...], what: str) -> None:
    """Check the named operands of `new` and `variant` against the declaration: each field exactly once, of its type."""
    given = use.ins.fields
    types = {param.name: param.type for param in declared}
    for index, name in enumerate(given):
        if name not in types:
            advice = suggestion(name, types) or (f"its fields are {', '.join(types)}" if types else "it has no fields")
            raise use.wrong("E0110", f"{what} has no field `{name}`", index, help=advice)
        if name in given[:index]:
            raise use.wrong("E0122", f"the field `{name}` of {what} is given twice", index)
    missing = [name for name in types if name not in given]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        raise use.wrong("E0122", f"{what} needs every field, but {names} {'is' if len(missing) == 1 else 'are'} missing",
                        help=f"add `{missing[0]}: ...` of type {format_type(types[missing[0]])}")  # fmt: skip
    for index, name in enumerate(given):
        use.require(index, types[name], f"the field `{name}` of {what}")


def _new(use: Use) -> Type:
    t = Named(use.name)
    struct = struct_of(t, use.names)
    if struct is None:
        if use.name in use.names.types:
            raise use.wrong("E0203", f"`new` makes a struct or class, but `{use.name}` is an enum", help=f"write `variant {use.name}.Variant(...)`")
        structs = [name for name in use.names.types if struct_of(Named(name), use.names)]
        raise use.wrong("E0203", f"unknown struct or class `{use.name}`", help=suggestion(use.name, structs))
    _match_fields(use, struct.fields, f"`{use.name}`")
    return t


def _variant(use: Use) -> Type:
    enum_name, _, name = use.name.partition(".")
    enum = enum_of(Named(enum_name), use.names)
    if enum is None:
        if enum_name in use.names.types:
            raise use.wrong("E0203", f"`variant` needs an enum, but `{enum_name}` is a struct or class", help=f"write `new {enum_name}(...)`")
        enums = [known for known in use.names.types if enum_of(Named(known), use.names)]
        raise use.wrong("E0203", f"unknown enum `{enum_name}`", help=suggestion(enum_name, enums))
    found = variant_of(enum, name)
    if found is None:
        known = [variant.name for variant in enum.variants]
        raise use.wrong("E0207", f"the enum `{enum_name}` has no variant `{name}`", help=suggestion(name, known) or f"its variants are {', '.join(known)}")
    _match_fields(use, found.fields, f"`{use.name}`")
    return Named(enum_name)


def _tag(use: Use) -> Type:
    if enum_of(use.type_at(0), use.names) is None:
        raise use.wrong("E0101", f"`tag` needs an enum, but got {format_type(use.type_at(0))}", 0)
    return I64


def _payload(use: Use) -> Type:
    t = use.type_at(0)
    enum = enum_of(t, use.names)
    if enum is None:
        raise use.wrong("E0101", f"`payload` needs an enum, but got {format_type(t)}", 0)
    name, _, wanted = use.name.partition(".")
    found = variant_of(enum, name)
    if found is None:
        known = [variant.name for variant in enum.variants]
        raise use.wrong("E0207", f"the enum `{enum.name}` has no variant `{name}`", help=suggestion(name, known) or f"its variants are {', '.join(known)}")
    for declared in found.fields:
        if declared.name == wanted:
            return declared.type
    fields = [declared.name for declared in found.fields]
    advice = suggestion(wanted, fields) or (f"its fields are {', '.join(fields)}" if fields else "it has no fields")
    raise use.wrong("E0110", f"the variant `{enum.name}.{name}` has no field `{wanted}`", help=advice)


def _field_name(use: Use) -> str | int:
    return "" if use.ins.field is None else use.ins.field


def _get_field(use: Use) -> Type:
    return field_type(use.type_at(0), _field_name(use), use.names)


def _set_field(use: Use) -> None:
    t = use.type_at(0)
    if isinstance(t, Tuple):
        raise use.wrong("E0116", "a tuple cannot be changed", 0, help="build a new one with `tuple`")
    field = _field_name(use)
    use.require(1, field_type(t, field, use.names), f"the field `{field}` of `{format_type(t)}`")


def _callee(use: Use) -> Function | Extern:
    found = use.names.callable(use.name)
    if found is None:
        advice = suggestion(use.name, (*use.names.functions, *use.names.externs))
        if use.name in use.locals:
            advice = f"to call a function value, write `call_indirect {use.name}(...)`"
        raise use.wrong("E0202", f"unknown function `{use.name}`", help=advice or f"define it: `fn {use.name}(...):`, or declare a function of Python: `extern fn {use.name}(...)`")
    return found


def _arguments(use: Use, params: tuple[Type, ...], names: tuple[str, ...], what: str, first: int = 0, variadic: bool = False) -> None:
    given = len(use.types) - first
    if given < len(params) or (given > len(params) and not variadic):
        wanted = f"{'at least ' if variadic else ''}{len(params)} argument{'' if len(params) == 1 else 's'}"
        listed = ", ".join(f"{name}: {format_type(t)}" if name else format_type(t) for name, t in zip(names, params))
        raise use.wrong("E0109", f"{what} takes {wanted}, but got {given}", help=f"its parameters are ({listed})" if params else "")
    for index, t in enumerate(params):
        name = f"argument `{names[index]}`" if names[index] else f"argument {index + 1}"
        use.require(first + index, t, f"{name} of {what}", "E0108")


def _call(use: Use) -> Type | None:
    if use.internal and use.name.startswith("rt.") and use.names.callable(use.name) is None:
        return use.expected or I64
    callee = _callee(use)
    variadic = isinstance(callee, Extern) and callee.variadic
    _arguments(use, tuple(p.type for p in callee.params), tuple(p.name for p in callee.params), f"`{use.name}`", variadic=variadic)
    for index in range(len(callee.params), len(use.types)):
        code = use.facts.code_inside(use.type_at(index), through_classes=True)
        if code is not None and not use.internal:
            raise use.wrong("E0404", f"{format_type(code)} cannot be passed to an extern: no function or pointer leaves the program", index)
    if is_method(callee) and isinstance(use.ins.args[0], Place) and use.ins.args[0].hops:
        _require_writable(use, 0)
    return callee.result


def is_method(callee: Function | Extern) -> bool:
    """Return whether the first argument is a receiver: the callee is `T.name` and its first parameter a T."""
    owner, dot, _ = callee.name.partition(".")
    return bool(dot) and bool(callee.params) and callee.params[0].type == Named(owner)


def _require_fn(use: Use, t: Type, what: str) -> Fn:
    if not isinstance(t, Fn):
        raise use.wrong("E0101", f"{what} needs a function value, but got {format_type(t)}", 0)
    return t


def _call_indirect(use: Use) -> Type:
    t = _require_fn(use, use.type_at(0), "`call_indirect`")
    _arguments(use, t.params, ("",) * len(t.params), f"`{spell(use.ins.args[0])}`", first=1)
    return t.result


def _function(use: Use) -> Function:
    callee = _callee(use)
    if isinstance(callee, Extern):
        raise use.wrong("E0123", f"the extern `{use.name}` cannot become a function value", help=f"write a function that calls `{use.name}`")
    return callee


def _func(use: Use) -> Type:
    function = _function(use)
    return Fn(tuple(p.type for p in function.params), function.result)


def _closure(use: Use) -> Type:
    function = _function(use)
    params = tuple(p.type for p in function.params)
    if len(use.types) > len(params):
        raise use.wrong("E0109", f"`{use.name}` has {len(params)} parameters, but {len(use.types)} are bound")
    for index in range(len(use.types)):
        use.require(index, params[index], f"argument `{function.params[index].name}` of `{use.name}`", "E0108")
    return Fn(params[len(use.types) :], function.result)


def _load_global(use: Use) -> Type:
    declared = use.names.globals.get(use.name)
    if declared is None:
        raise unknown_global(use.name, use.names)
    return declared.type


def _store_global(use: Use) -> None:
    use.require(0, _load_global(use), f"the value of the global `{use.name}`")


def _alloc(use: Use) -> Type:
    element = use.ins.type
    assert element is not None, "the shape was checked"
    use.facts.check(element)
    use.facts.require_zero(element)
    use.require(0, I64, "the count of `alloc`")
    return Ptr(element)


def _switch(use: Use) -> None:
    t = use.type_at(0)
    if t not in (*INTEGERS, BOOL, CHAR):
        advice = "take its number first: `t = tag x`" if enum_of(t, use.names) else ""
        raise use.wrong("E0118", f"`switch` needs an integer, bool or char, but got {format_type(t)}", 0, help=advice)
    seen: set[object] = set()
    for case in use.ins.cases:
        problem = const_problem(case)
        if problem:
            raise Rejected("E0114", problem, case.span)
        if case.type != t:
            got = "nil" if case.type is None else format_type(case.type)
            advice = conversion(case, case.type, t) if case.type is not None else ""
            raise Rejected("E0118", f"the cases of this `switch` must be {format_type(t)}, but got {got}", case.span, help=advice)
        if case.bits in seen:
            raise Rejected("E0119", f"the case {case.value!r} occurs twice" if t != BOOL else f"the case {str(case.value).lower()} occurs twice", case.span)
        seen.add(case.bits)


def _ret(use: Use) -> None:
    function, wanted = use.function, use.function.result
    if wanted == NEVER:
        raise use.wrong("E0120", f"`{function.name}` never returns, so it has no `ret`", help="end with `abort`, `throw` or `unreachable`")
    if not use.types and wanted != UNIT:
        raise use.wrong("E0120", f"`{function.name}` returns {format_type(wanted)}, but this `ret` gives no value", help="write `ret x`")
    if use.types and wanted == UNIT:
        raise use.wrong("E0120", f"`{function.name}` returns no value, but got {'nil' if use.types[0] is None else format_type(use.types[0])}", 0,
                        help=f"write `ret`, or give the function a result: `fn {function.name}(...) -> ...`")  # fmt: skip
    if use.types:
        use.require(0, wanted, f"the result of `{function.name}`", "E0120")


def _raw(use: Use) -> Type | None:
    return RAW_RULES[use.ins.op](use)


def _raw_load(use: Use) -> Type | None:
    use.require(0, I64, "the heap offset")
    return use.ins.type


def _raw_store(use: Use) -> None:
    use.require(0, I64, "the heap offset")
    if use.ins.type is not None:
        use.require(1, use.ins.type, "the stored value")


def _raw_fill(use: Use) -> None:
    for index, t in enumerate((I64, U8, I64)):
        use.require(index, t, f"the {ORDINALS[index]} operand of `raw_fill`")


def _raw_bitcast(use: Use) -> Type:
    target, source = _expected(use), use.type_at(0)
    if not is_scalar(source) or not is_scalar(target) or UNIT in (source, target) or bit_width(source) != bit_width(target):
        raise use.wrong("E0112", f"`raw_bitcast` needs two scalar types of one width, but got {format_type(source)} and {format_type(target)}", 0)
    return target


def _call_table(use: Use) -> Type:
    t = _require_fn(use, use.ins.type or UNIT, "`call_table`")
    use.require(0, I64, "the index into the function table")
    _arguments(use, t.params, ("",) * len(t.params), "this function type", first=1)
    return t.result


def _host_call(use: Use) -> None:
    use.require(0, I64, "the argument block")


RAW_RULES: dict[str, Callable[[Use], Type | None]] = {
    "raw_load": _raw_load, "raw_store": _raw_store, "raw_fill": _raw_fill, "raw_bitcast": _raw_bitcast, "call_table": _call_table,
    "host_call": _host_call,
}  # fmt: skip

RULES: dict[str, Callable[[Use], Type | None]] = {
    "const": _const, "zero": _zero, "cast": _cast, "bitcast": _bitcast, "local": _local, "equality": _equality, "array": _array,
    "array_fill": _array_fill, "dict": _dict, "tuple": _tuple, "new": _new, "variant": _variant, "tag": _tag, "payload": _payload,
    "get_field": _get_field, "set_field": _set_field, "call": _call, "call_indirect": _call_indirect, "func": _func, "closure": _closure,
    "load_global": _load_global, "store_global": _store_global, "alloc": _alloc, "switch": _switch, "ret": _ret, "raw": _raw,
}  # fmt: skip
"""The rule behind each `custom` name of `mir/ops.py`."""


# Operands


def _require_writable(use: Use, index: int) -> None:
    """Check that what stands behind the place can be written: every hop passes through a struct, class, array or dict."""
    place = use.ins.args[index]
    assert isinstance(place, Place)
    for t, hop in zip(place_types(place, use.locals, use.names), place.hops):
        if isinstance(t, Tuple):
            raise Rejected("E0116", "a tuple cannot be written through", hop.span, f"`{place.root}` leads to {format_type(t)}", "build a new tuple", arg=index)


def _check_moves(use: Use) -> None:
    gone: set[str] = set()
    for index, operand in enumerate(use.ins.args):
        if not isinstance(operand, Place):
            continue
        inner = [hop.index for hop in operand.hops if isinstance(hop, IndexHop)]
        if operand.move and (operand.hops or operand.is_global):
            raise use.wrong("E0117", f"only a plain local can be moved, but got `{spell(operand)}`", index)
        while inner:
            place = inner.pop()
            if isinstance(place, Place):
                if place.move:
                    raise use.wrong("E0117", "a local cannot be moved inside an index", index, help="move it into a local first")
                inner += [hop.index for hop in place.hops if isinstance(hop, IndexHop)]
        for name in operand_reads(operand):
            if name in gone:
                raise use.wrong("E0117", f"`{name}` was moved by an operand before this one", index)
        if operand.move:
            gone.add(operand.root)


def const_problem(value: Const) -> str:
    """Return what is wrong with the bits of a constant built by hand, or ""."""
    t, bits = value.type, value.bits
    if bits is None:
        return "" if t is None or isinstance(t, Option) else f"nil is no value of {format_type(t)}"
    if t == TEXT:
        return "" if isinstance(bits, str) and not any(0xD800 <= ord(c) < 0xE000 for c in bits) else "a text constant holds Unicode characters only"
    if t is None or t == UNIT or not is_scalar(t):
        return f"there are no constants of type {'nil' if t is None else format_type(t)}"
    if type(bits) is not int or not 0 <= bits < 1 << bit_width(t):
        return f"the bits of this constant do not fit {format_type(t)}"
    if t == CHAR and not (bits < 0xD800 or 0xE000 <= bits < 0x110000):
        return "a char constant must be a Unicode scalar value"
    return ""


def _type_of(use: Use, operand: Operand) -> Type | None:
    if isinstance(operand, Const):
        problem = const_problem(operand)
        if problem:
            raise Rejected("E0114", problem, operand.span)
        return operand.type
    for name in operand_reads(operand):
        if name not in use.locals and name in use.assigned:
            raise Rejected("E0104", f"the type of `{name}` is not known here: its first assignment comes later in the text", operand.span,
                           help=f"write the type at one of its assignments: `{name}: f64 = ...`")  # fmt: skip
    return operand_type(operand, use.locals, use.names)


def result_type(use: Use) -> Type | None:
    """Type the instruction: fill `use.types`, check every operand and return the type it gives, or None if it gives no value.

    The shape of the instruction (number of operands, names, labels) was checked before. Raises: Rejected; UnknownType.
    """
    ins, row = use.ins, OPS[use.ins.op]
    unknown = False
    for index, operand in enumerate(ins.args):
        try:
            use.types.append(_type_of(use, operand))
        except UnknownType:
            unknown = True
            use.types.append(UNIT)
        except Rejected as rejected:
            rejected.arg = index
            raise
    if unknown:
        raise UnknownType
    _check_moves(use)
    if row.form.startswith("p"):
        target = ins.args[0]
        if not isinstance(target, Place):
            raise use.wrong("E0116", f"`{ins.op}` writes into a place, but got a literal", 0, help="assign it to a local first")
        if target.move:
            raise use.wrong("E0117", f"`{ins.op}` writes into its first operand, which cannot be moved", 0)
        _require_writable(use, 0)
    if row.custom is not None:
        return RULES[row.custom](use)
    if ins.op == "trap":
        for index in range(len(use.types)):
            use.require(index, I64, "the detail of a trap")
    return by_signature(use, row)


def typed_args(use: Use) -> tuple[Operand, ...]:
    """Return the operands with the type of every nil filled in."""
    if all(not isinstance(a, Const) or a.type is not None for a in use.ins.args):
        return use.ins.args
    return tuple(Const(t, None, a.span) if isinstance(a, Const) and a.type is None else a for a, t in zip(use.ins.args, use.types))

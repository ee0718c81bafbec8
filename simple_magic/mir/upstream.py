"""A reader for upstream's self-hosted function JSON, as it stands in the wild.

Upstream writes functions alone: types, globals and externs are numbers into tables it does not write. So nominal types and symbols are supplied beside
the JSON. Accepted: bare constants (`1`, `true`, `"text"`, `"Zero"`) and our tagged ones, `Ret` and `Return`, the three shapes of `CallTerminator`,
instructions bare or wrapped in `{"kind": ...}`. A variant that Simple MIR does not execute is refused by name with the census's reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from .census import RUST, SELF_HOSTED, SELF_HOSTED_BINARY, Fate
from .jsonform import BINARY, CHECKED, UNARY
from .jsonread import MAX_DEPTH, Malformed, bool_of, integer_of, kind_of, list_of, object_of, one_key, read_json, text_of
from .model import Block, Const, EnumDef, Function, Instruction, Module, Operand, Param, Place, StructDef, TypeDef, const
from .text import is_name
from .types import (
    BOOL, CHAR, I64, PRIMITIVES, TEXT, UNIT, Array, Dict, FixedArray, Fn, Named, Ptr, Tuple, Type, integer_range, is_float, is_integer,
)  # fmt: skip

SIMPLE_TYPES = {name.capitalize(): t for name, t in PRIMITIVES.items() if t != TEXT}
TEXT_NAMES = ("text", "str", "String", "Text")
"""Opaque types that mean text upstream."""

BINARY_OPS = {key: op for op, key in BINARY.items()}
CHECKED_OPS = {key: op for op, key in CHECKED.items()}
UNARY_OPS = {key: op for op, key in UNARY.items()}
INTRINSICS = {"print": "print", "println": "print", "len": "len", "min": "min", "max": "max", "abs": "abs", "to_string": "to_text"}
"""Upstream's intrinsics that are opcodes here."""


def read_function(source: str | Mapping, types: Mapping[int, TypeDef] | None = None, symbols: Mapping[int, str] | None = None) -> Module:
    """Return a module of the one function, or the functions of a module, in upstream's JSON, with the given types.

    types: struct, class and enum definitions by upstream's symbol number; symbols: names of globals and functions by number.
    Raises: ParseError with a JSON path.
    """
    known, named = dict(types or {}), dict(symbols or {})

    def read(value: object) -> Module:
        body = object_of(value, "$")
        if "functions" in body and "blocks" not in body:
            functions = [_Reader(f, f"$.functions[{i}]", known, named).read() for i, f in enumerate(list_of(body["functions"], "$.functions"))]
        else:
            functions = [_Reader(body, "$", known, named).read()]
        return Module(types=tuple(known.values()), functions=tuple(functions))

    return read_json(source, read)


def _refuse(path: str, variant: str) -> Malformed:
    found: Fate | None = SELF_HOSTED.get(variant) or SELF_HOSTED_BINARY.get(variant) or RUST.get(variant)
    if found is None:
        return Malformed(path, f"unknown variant {variant[:80]!r}", "E0503")
    return Malformed(path, f"`{variant}` is not executed: {found.how}", "E0508")


class _Reader:
    """Reads one function. Local numbers become names; unnamed ones are called l<id>."""

    def __init__(self, value: object, path: str, types: dict[int, TypeDef], symbols: dict[int, str]) -> None:
        self.parts = object_of(value, path, ("name", "signature", "locals", "blocks"))
        self.path, self.defs, self.symbols = path, types, symbols
        self.names: dict[int, str] = {}
        self.types: dict[int, Type] = {}
        self.labels: dict[int, str] = {}
        self.temporaries = 0

    def read(self) -> Function:
        path = self.path
        name = text_of(self.parts["name"], f"{path}.name")
        if not all(is_name(part) for part in name.split(".")) or name.count(".") > 1:
            raise Malformed(f"{path}.name", f"`{name[:80]}` is not a name", "E0506")
        params, result = self.signature(self.parts["signature"], f"{path}.signature")
        ordered = self.read_locals(params)
        blocks = list_of(self.parts["blocks"], f"{path}.blocks")
        self.read_labels(blocks)
        entry = integer_of(self.parts.get("entry_block", 0), f"{path}.entry_block", 0, 2**31)
        if entry not in self.labels:
            raise Malformed(f"{path}.entry_block", f"there is no block {entry}")
        read = {b["id"]: self.block(b, f"{path}.blocks[{i}]") for i, b in enumerate(blocks)}
        order = [entry, *(number for number in read if number != entry)]
        return Function(name, tuple(Param(self.names[i], self.types[i]) for i in ordered), result, tuple(read[number] for number in order))

    def read_locals(self, params: tuple[Type, ...]) -> list[int]:
        """Read the locals; return the numbers of the parameters in their order."""
        args: dict[int, int] = {}
        taken: set[str] = set()
        for index, entry in enumerate(list_of(self.parts["locals"], f"{self.path}.locals")):
            where = f"{self.path}.locals[{index}]"
            parts = object_of(entry, where, ("id", "type", "kind"))
            number = integer_of(parts["id"], f"{where}.id", 0, 2**31)
            if number in self.names:
                raise Malformed(f"{where}.id", f"local {number} occurs twice")
            given = parts.get("name")
            name = given if isinstance(given, str) and is_name(given) else f"l{number}"
            if name in taken:
                name = f"{name}_{number}"
            taken.add(name)
            self.names[number], self.types[number] = name, self.type(parts["type"], f"{where}.type")
            if isinstance(parts["kind"], Mapping):
                kind, position = one_key(parts["kind"], f"{where}.kind")
                if kind != "Arg":
                    raise Malformed(f"{where}.kind", f"unknown kind {kind[:80]!r}")
                args[integer_of(position, f"{where}.kind.Arg", 0, 2**31)] = number
        if sorted(args) != list(range(len(params))):
            raise Malformed(f"{self.path}.locals", f"the signature has {len(params)} parameters; the locals of kind Arg are {sorted(args)}")
        return [args[i] for i in range(len(params))]

    def read_labels(self, blocks: list) -> None:
        taken: set[str] = set()
        for index, entry in enumerate(blocks):
            where = f"{self.path}.blocks[{index}]"
            parts = object_of(entry, where, ("id", "instructions", "terminator"))
            number = integer_of(parts["id"], f"{where}.id", 0, 2**31)
            if number in self.labels:
                raise Malformed(f"{where}.id", f"block {number} occurs twice")
            given = parts.get("label")
            label = given if isinstance(given, str) and is_name(given) and given not in taken else f"b{number}"
            taken.add(label)
            self.labels[number] = label

    def signature(self, value: object, path: str, depth: int = 0) -> tuple[tuple[Type, ...], Type]:
        parts = object_of(value, path, ("params",))
        if bool_of(parts.get("is_variadic", False), f"{path}.is_variadic"):
            raise Malformed(f"{path}.is_variadic", "a function with a body cannot be variadic")
        params = tuple(self.type(p, f"{path}.params[{i}]", depth) for i, p in enumerate(list_of(parts["params"], f"{path}.params")))
        given = parts.get("return_type")
        return params, UNIT if given is None else self.type(given, f"{path}.return_type", depth)

    def type(self, value: object, path: str, depth: int = 0) -> Type:
        if depth > MAX_DEPTH:
            raise Malformed(path, f"types nest more than {MAX_DEPTH} deep", "E0501")
        if isinstance(value, str):
            if value in SIMPLE_TYPES:
                return SIMPLE_TYPES[value]
            raise Malformed(path, f"unknown type {value[:80]!r}")
        key, body = one_key(value, path)
        inside = f"{path}.{key}"

        def inner(part: object) -> Type:
            return self.type(part, inside, depth + 1)

        if key == "Slice":
            return Array(inner(body))
        if key == "Tuple":
            return Tuple(tuple(inner(part) for part in list_of(body, inside)))
        if key in ("Struct", "Enum"):
            return Named(self.definition(body, inside).name)
        if key == "Opaque" and body in TEXT_NAMES:
            return TEXT
        parts = object_of(body, inside) if key in ("Array", "Dict", "Ptr", "Ref", "FuncPtr") else {}
        if key == "Array" and {"element", "size"} <= set(parts):
            return FixedArray(inner(parts["element"]), integer_of(parts["size"], f"{inside}.size", 0, 2**62))
        if key == "Dict" and {"key", "value"} <= set(parts):
            return Dict(inner(parts["key"]), inner(parts["value"]))
        if key == "Ptr" and "pointee" in parts:
            return Ptr(inner(parts["pointee"]))
        if key == "Ref" and "referent" in parts:
            return Ptr(inner(parts["referent"]))
        if key == "FuncPtr":
            return Fn(*self.signature(parts, inside, depth + 1))
        raise Malformed(path, f"the type {key[:80]!r} has no counterpart here")

    def definition(self, number: object, path: str) -> TypeDef:
        symbol = integer_of(number, path, 0, 2**62)
        if symbol not in self.defs:
            raise Malformed(path, f"the type with symbol {symbol} was not supplied; pass types={{{symbol}: ...}}", "E0509")
        return self.defs[symbol]

    def local(self, value: object, path: str) -> str:
        number = integer_of(value, path, 0, 2**31)
        if number not in self.names:
            raise Malformed(path, f"there is no local {number}")
        return self.names[number]

    def constant(self, value: object, t: Type, path: str) -> Const | None:
        """Return a constant, or None for the zero value of a type that has no constants."""
        if isinstance(value, Mapping):
            tag, value = one_key(value, path)
            if tag not in ("Int", "Float", "Bool", "Str", "Zero", "Char"):
                raise Malformed(path, f"constants of kind {tag[:80]!r} are lost in upstream's JSON")
            value = "Zero" if tag == "Zero" else value
        if value == "Zero" and t != TEXT:
            if is_integer(t) or is_float(t) or t == BOOL:
                return const(t, 0)
            return const(CHAR, "\0") if t == CHAR else None
        if t == TEXT and isinstance(value, str):
            return const(TEXT, text_of(value, path))
        if t == BOOL and value in (True, False, 0, 1):
            return const(BOOL, bool(value))
        if is_integer(t):
            return const(t, integer_of(value, path, *integer_range(t)))
        if is_float(t) and isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                return const(t, float(value))
            except OverflowError:
                raise Malformed(path, "the number is too large", "E0505") from None
        if is_float(t) and isinstance(value, str) and value in ("nan", "inf", "-inf"):
            return const(t, math.nan if value == "nan" else float(value))
        if t == CHAR and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000:
            return const(CHAR, chr(value))
        raise Malformed(path, f"{kind_of(value)} is no constant of this type")

    def operand(self, value: object, path: str) -> tuple[Operand, Type]:
        key, body = one_key(value, path)
        if key in ("Copy", "Move"):
            # Upstream's interpreter never enforced Move, so its functions read moved locals again.
            name = self.local(body, f"{path}.{key}")
            return Place(name), self.types[body]  # type: ignore[index]
        if key == "Const":
            parts = object_of(body, f"{path}.Const", ("value", "type"))
            t = self.type(parts["type"], f"{path}.Const.type")
            read = self.constant(parts["value"], t, f"{path}.Const.value")
            if read is None:
                raise Malformed(f"{path}.Const", "a zero aggregate must be assigned to a local first")
            return read, t
        raise Malformed(path, f"unknown operand {key[:80]!r}")

    def value(self, value: object, path: str) -> Operand:
        return self.operand(value, path)[0]

    def values(self, value: object, path: str) -> tuple[Operand, ...]:
        return tuple(self.value(v, f"{path}[{i}]") for i, v in enumerate(list_of(value, path)))

    def dest(self, parts: Mapping, path: str) -> dict[str, object]:
        number = parts.get("dest")
        if number is None:
            return {}
        name = self.local(number, f"{path}.dest")
        return {} if self.types[number] == UNIT else {"dest": name, "dest_type": self.types[number]}

    def temporary(self, t: Type) -> tuple[str, dict[str, object]]:
        self.temporaries += 1
        name = f"up_{self.temporaries}"
        return name, {"dest": name, "dest_type": t}

    def block(self, entry: Mapping, path: str) -> Block:
        found: list[Instruction] = []
        for index, instruction in enumerate(list_of(entry["instructions"], f"{path}.instructions")):
            found += self.instruction(instruction, f"{path}.instructions[{index}]")
        found += self.terminator(entry["terminator"], f"{path}.terminator")
        return Block(self.labels[entry["id"]], tuple(found))

    def instruction(self, value: object, path: str) -> list[Instruction]:
        if isinstance(value, Mapping) and "kind" in value:
            value = value["kind"]
        if value == "Nop":
            return [Instruction("nop")]
        if isinstance(value, str):
            raise Malformed(path, "upstream's writer lost this instruction", "E0508") if value == "UnsupportedInst" else _refuse(path, value)
        key, body = one_key(value, path)
        if key not in READERS:
            raise _refuse(path, key)
        return READERS[key](self, object_of(body, f"{path}.{key}"), f"{path}.{key}")

    def target(self, value: object, path: str) -> str:
        number = integer_of(value, path, 0, 2**31)
        if number not in self.labels:
            raise Malformed(path, f"there is no block {number}")
        return self.labels[number]

    def terminator(self, value: object, path: str) -> list[Instruction]:
        if value == "Unreachable":
            return [Instruction("unreachable")]
        if isinstance(value, str):
            raise Malformed(path, f"unknown terminator {value[:80]!r}", "E0503")
        key, body = one_key(value, path)
        if key not in TERMINATORS:
            raise Malformed(path, f"unknown terminator {key[:80]!r}", "E0503")
        return TERMINATORS[key](self, body, f"{path}.{key}")

    def condition(self, value: object, path: str) -> tuple[list[Instruction], Operand]:
        operand, t = self.operand(value, path)
        if t == BOOL:
            return [], operand
        if not is_integer(t):
            raise Malformed(path, "a condition is a bool or an integer")
        name, dest = self.temporary(BOOL)
        return [Instruction("ne", (operand, const(t, 0)), **dest)], Place(name)  # type: ignore[arg-type]


def _need(parts: Mapping, path: str, *keys: str) -> None:
    object_of(parts, path, keys)


def _const(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "dest", "value", "type")
    t = r.type(parts["type"], f"{path}.type")
    read = r.constant(parts["value"], t, f"{path}.value")
    return [Instruction("zero", **r.dest(parts, path)) if read is None else Instruction("const", (read,), **r.dest(parts, path))]  # type: ignore[arg-type]


def _copy(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "dest", "src")
    return [Instruction("copy", (Place(r.local(parts["src"], f"{path}.src")),), **r.dest(parts, path))]  # type: ignore[arg-type]


def _operator(table: Mapping[str, str], *keys: str) -> Callable[[_Reader, Mapping, str], list[Instruction]]:
    def read(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
        _need(parts, path, "dest", "op", *keys)
        op = text_of(parts["op"], f"{path}.op")
        if op not in table:
            raise _refuse(f"{path}.op", op)
        return [Instruction(table[op], tuple(r.value(parts[k], f"{path}.{k}") for k in keys), **r.dest(parts, path))]  # type: ignore[arg-type]

    return read


def _cast(op: str) -> Callable[[_Reader, Mapping, str], list[Instruction]]:
    def read(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
        _need(parts, path, "dest", "operand", "target")
        return [Instruction(op, (r.value(parts["operand"], f"{path}.operand"),), **r.dest(parts, path))]  # type: ignore[arg-type]

    return read


def _alloc(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "dest", "type")
    return [Instruction("alloc", (const(I64, 1),), type=r.type(parts["type"], f"{path}.type"), **r.dest(parts, path))]  # type: ignore[arg-type]


def _load(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "dest", "ptr")
    return [Instruction("load", (r.value(parts["ptr"], f"{path}.ptr"),), **r.dest(parts, path))]  # type: ignore[arg-type]


def _store(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "ptr", "value")
    return [Instruction("store", (r.value(parts["ptr"], f"{path}.ptr"), r.value(parts["value"], f"{path}.value")))]


def _gep(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "dest", "base", "indices")
    base, t = r.operand(parts["base"], f"{path}.base")
    indices = r.values(parts["indices"], f"{path}.indices")
    found: list[Instruction] = []
    for position, index in enumerate(indices):
        last = position == len(indices) - 1
        name, dest = ("", r.dest(parts, path)) if last else r.temporary(t)
        found.append(Instruction("gep", (base, index), **dest))  # type: ignore[arg-type]
        base = Place(name)
    return found or [Instruction("copy", (base,), **r.dest(parts, path))]  # type: ignore[arg-type]


def _callee(r: _Reader, value: object, path: str) -> str | None:
    """Return the name of a direct callee, or None for a function value."""
    if not isinstance(value, Mapping) or "Const" not in value:
        return None
    parts = object_of(value["Const"], f"{path}.Const", ("value",))
    name = parts["value"]
    if isinstance(name, Mapping):
        _, name = one_key(name, f"{path}.Const.value")
    if isinstance(name, int) and not isinstance(name, bool) and name in r.symbols:
        name = r.symbols[name]
    text = text_of(name, f"{path}.Const.value")
    if text.count(".") > 1 or not all(is_name(part) for part in text.split(".")):
        raise Malformed(path, f"`{text[:80]}` is not a name", "E0506")
    return text


def _call(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "func", "args")
    name, args = _callee(r, parts["func"], f"{path}.func"), r.values(parts["args"], f"{path}.args")
    if name is None:
        return [Instruction("call_indirect", (r.value(parts["func"], f"{path}.func"), *args), **r.dest(parts, path))]  # type: ignore[arg-type]
    return [Instruction("call", args, name=name, **r.dest(parts, path))]  # type: ignore[arg-type]


def _call_indirect(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "ptr", "args")
    return _call(r, {**parts, "func": parts["ptr"]}, path)


def _intrinsic(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "name", "args")
    name = text_of(parts["name"], f"{path}.name")
    if name not in INTRINSICS:
        raise Malformed(f"{path}.name", f"the intrinsic `{name[:80]}` is not executed: {SELF_HOSTED['Intrinsic'].how}", "E0508")
    return [Instruction(INTRINSICS[name], r.values(parts["args"], f"{path}.args"), **({} if name.startswith("print") else r.dest(parts, path)))]  # type: ignore[arg-type]


def _field(r: _Reader, base: Type, index: object, path: str) -> str | int:
    number = integer_of(index, path, 0, 2**31)
    if isinstance(base, Tuple):
        return number
    defined = next((d for d in r.defs.values() if isinstance(base, Named) and d.name == base.name and isinstance(d, StructDef)), None)
    if defined is None or number >= len(defined.fields):
        raise Malformed(path, f"the base has no field number {number}")
    return defined.fields[number].name


def _get_field(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "dest", "base", "field")
    base, t = r.operand(parts["base"], f"{path}.base")
    return [Instruction("get_field", (base,), field=_field(r, t, parts["field"], f"{path}.field"), **r.dest(parts, path))]  # type: ignore[arg-type]


def _set_field(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "base", "field", "value")
    base, t = r.operand(parts["base"], f"{path}.base")
    return [Instruction("set_field", (base, r.value(parts["value"], f"{path}.value")), field=_field(r, t, parts["field"], f"{path}.field"))]


def _aggregate(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "dest", "kind", "operands")
    args, dest = r.values(parts["operands"], f"{path}.operands"), r.dest(parts, path)
    if parts["kind"] == "Tuple":
        return [Instruction("tuple", args, **dest)]  # type: ignore[arg-type]
    key, body = one_key(parts["kind"], f"{path}.kind")
    if key == "Array":
        return [Instruction("array", args, **dest)]  # type: ignore[arg-type]
    if key == "Struct":
        defined = r.definition(body, f"{path}.kind.Struct")
        if isinstance(defined, StructDef) and len(defined.fields) == len(args):
            return [Instruction("new", args, name=defined.name, fields=tuple(f.name for f in defined.fields), **dest)]  # type: ignore[arg-type]
    if key == "Enum":
        which = object_of(body, f"{path}.kind.Enum", ("symbol", "variant"))
        enum = r.definition(which["symbol"], f"{path}.kind.Enum.symbol")
        if isinstance(enum, EnumDef) and enum.variants:
            variant = enum.variants[integer_of(which["variant"], f"{path}.kind.Enum.variant", 0, len(enum.variants) - 1)]
            if len(variant.fields) == len(args):
                return [Instruction("variant", args, name=f"{enum.name}.{variant.name}", fields=tuple(f.name for f in variant.fields), **dest)]  # type: ignore[arg-type]
    raise Malformed(path, "the operands do not fit the aggregate's definition")


def _debug_value(r: _Reader, parts: Mapping, path: str) -> list[Instruction]:
    _need(parts, path, "local")
    return [Instruction("debug_value", name=r.local(parts["local"], f"{path}.local"))]


READERS: dict[str, Callable[[_Reader, Mapping, str], list[Instruction]]] = {
    "Const": _const,
    "Copy": _copy,
    "Move": _copy,
    "BinOp": _operator(BINARY_OPS, "left", "right"),
    "CheckedBinOp": _operator(CHECKED_OPS, "left", "right"),
    "UnaryOp": _operator(UNARY_OPS, "operand"),
    "Cast": _cast("cast"),
    "Bitcast": _cast("bitcast"),
    "Alloc": _alloc,
    "Load": _load,
    "Store": _store,
    "GetElementPtr": _gep,
    "Call": _call,
    "CallIndirect": _call_indirect,
    "Intrinsic": _intrinsic,
    "GetField": _get_field,
    "SetField": _set_field,
    "Aggregate": _aggregate,
    "DebugValue": _debug_value,
}


def _goto(r: _Reader, body: object, path: str) -> list[Instruction]:
    return [Instruction("goto", labels=(r.target(body, path),))]


def _return(r: _Reader, body: object, path: str) -> list[Instruction]:
    return [Instruction("ret", () if body is None else (r.value(body, path),))]


def _if(r: _Reader, body: object, path: str) -> list[Instruction]:
    parts = object_of(body, path, ("cond", "then", "else"))
    before, condition = r.condition(parts["cond"], f"{path}.cond")
    return [*before, Instruction("if", (condition,), labels=(r.target(parts["then"], f"{path}.then"), r.target(parts["else"], f"{path}.else")))]


def _switch(r: _Reader, body: object, path: str) -> list[Instruction]:
    parts = object_of(body, path, ("value", "targets", "default"))
    operand, t = r.operand(parts["value"], f"{path}.value")
    cases: dict[Const, str] = {}
    for index, entry in enumerate(list_of(parts["targets"], f"{path}.targets")):
        where = f"{path}.targets[{index}]"
        case = object_of(entry, where, ("value", "target"))
        read = r.constant(case["value"], t, f"{where}.value")
        if read is None:
            raise Malformed(where, "a case is an integer, a char or a bool")
        # Upstream scans the cases from the first on, so a later equal one never matched.
        cases.setdefault(read, r.target(case["target"], f"{where}.target"))
    return [Instruction("switch", (operand,), cases=tuple(cases), labels=(*cases.values(), r.target(parts["default"], f"{path}.default")))]


def _call_terminator(r: _Reader, body: object, path: str) -> list[Instruction]:
    parts = object_of(body, path, ("func", "args", "normal"))
    normal = r.target(parts["normal"], f"{path}.normal")
    call = _call(r, parts, path)[0]
    if parts.get("unwind") is None:
        return [call, Instruction("goto", labels=(normal,))]
    if call.op != "call":
        raise Malformed(f"{path}.func", "an unwinding call must name its callee")
    caught = []
    for key in ("unwind_payload_dest", "unwind_type_tag_dest"):
        number = parts.get(key)
        caught.append(r.temporary(I64)[0] if number is None else r.local(number, f"{path}.{key}"))
    return [replace(call, op="invoke", labels=(normal, r.target(parts["unwind"], f"{path}.unwind")), unwind=tuple(caught))]


def _unwinding(op: str) -> Callable[[_Reader, object, str], list[Instruction]]:
    def read(r: _Reader, body: object, path: str) -> list[Instruction]:
        parts = object_of(body, path, ("payload", "type_tag"))
        return [Instruction(op, (r.value(parts["payload"], f"{path}.payload"), r.value(parts["type_tag"], f"{path}.type_tag")))]

    return read


TERMINATORS: dict[str, Callable[[_Reader, object, str], list[Instruction]]] = {
    "Goto": _goto,
    "Return": _return,
    "Ret": _return,
    "If": _if,
    "Switch": _switch,
    "CallTerminator": _call_terminator,
    "Abort": lambda _reader, body, path: [Instruction("abort", message=text_of(body, path))],
    "Throw": _unwinding("throw"),
    "Resume": _unwinding("resume"),
}

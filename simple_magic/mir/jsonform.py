"""The JSON form: the plain image of the model, versioned and loss-free: `from_json(to_json(m)) == m`.

Keys are those of upstream's self-hosted JSON where that loses nothing; the rest is ours:

    module      {"version": 1, "name", "types", "globals", "externs", "functions"}
    function    {"symbol", "name", "signature", "locals": [{"id", "name", "type", "kind"}], "blocks": [{"id", "label", "instructions", "terminator"}],
                "entry_block": 0}; parameters are the first locals
    type        "I64", {"Slice": T} for [T], {"Array": {"element", "size"}}, {"Dict"}, {"Tuple"}, {"Option": T}, {"FuncPtr": signature}, {"Ptr"}, {"Named": name}
    constant    {"Const": {"value": {"Int": 1}, "type": "I64"}}, with {"Float"}, {"Bool"}, {"Char"}, {"Str"}, {"Nil": null}; non-finite floats as text
    operand     {"Copy": id}, {"Move": id}, {"Place": {"local": 3, "projection": [{"Field": "x"}, {"Index": operand}]}} ("global": name for a global)
    instruction {"BinOp": {"dest", "op", "left", "right"}} and so on; what upstream has no key for: {"Instruction": {"op", ...}}

An annotation stands on its instruction ("annotation"). The reader takes nothing on trust: whatever is wrong becomes a diagnostic with a JSON path.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields

from .model import (
    Block, Const, EnumDef, Extern, FieldHop, Function, Global, IndexHop, Instruction, Module, Operand, Param, Place, StructDef, Variant, const,
)  # fmt: skip
from .jsonread import MAX_DEPTH, Malformed, bool_of, integer_of, kind_of, list_of, name_of, object_of, one_key, qualified_of, read_json, text_of
from .ops import OPS
from .types import (
    BOOL, CHAR, F32, F64, PRIMITIVES, TEXT, Array, Dict, FixedArray, Fn, Named, Option, Primitive, Ptr, Tuple, Type, integer_range, is_float, is_integer,
)  # fmt: skip

VERSION = 1

BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "rem": "Rem", "pow": "Pow", "bit_and": "BitAnd", "bit_or": "BitOr", "bit_xor": "BitXor",
    "shl": "Shl", "shr": "Shr", "eq": "Eq", "ne": "Ne", "lt": "Lt", "le": "Le", "gt": "Gt", "ge": "Ge",
}  # fmt: skip
CHECKED = {"checked_add": "Add", "checked_sub": "Sub", "checked_mul": "Mul"}
UNARY = {"neg": "Neg", "not": "Not", "bit_not": "BitNot"}
_FROM_BINARY = {key: op for op, key in BINARY.items()}
_FROM_CHECKED = {key: op for op, key in CHECKED.items()}
_FROM_UNARY = {key: op for op, key in UNARY.items()}


# Writing


def type_to_json(t: Type | None) -> object:
    """Return the JSON of a type; None (not yet known) is null."""
    match t:
        case None:
            return None
        case Primitive(name):
            return name.capitalize()
        case Array(element):
            return {"Slice": type_to_json(element)}
        case FixedArray(element, length):
            return {"Array": {"element": type_to_json(element), "size": length}}
        case Dict(key, value):
            return {"Dict": {"key": type_to_json(key), "value": type_to_json(value)}}
        case Tuple(elements):
            return {"Tuple": [type_to_json(e) for e in elements]}
        case Option(inner):
            return {"Option": type_to_json(inner)}
        case Fn(params, result):
            return {"FuncPtr": _signature(params, result, False)}
        case Ptr(pointee):
            return {"Ptr": {"pointee": type_to_json(pointee), "mutable": True}}
        case Named(name):
            return {"Named": name}
    raise AssertionError(f"not a type: {t!r}")


def _signature(params: tuple[Type, ...], result: Type, variadic: bool) -> dict:
    return {"params": [type_to_json(p) for p in params], "return_type": type_to_json(result), "is_variadic": variadic}


def _const_value(c: Const) -> dict:
    if c.bits is None:
        return {"Nil": None}
    if isinstance(c.bits, str):
        return {"Str": c.bits}
    assert c.type is not None, "only nil has no type"
    if is_integer(c.type):
        return {"Int": c.value}
    if is_float(c.type):
        value = c.value
        assert isinstance(value, float)
        return {"Float": value if math.isfinite(value) else str(value)}
    return {"Char": c.value} if c.type == CHAR else {"Bool": c.value}


def _const(c: Const) -> dict:
    return {"Const": {"value": _const_value(c), "type": type_to_json(c.type)}}


class _FunctionWriter:
    """Writes one function; locals become numbers in the order of their first mention, parameters first."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.locals: dict[str, int] = {}
        self.annotations: dict[str, Type] = {p.name: p.type for p in function.params}
        self.labels: dict[str, int] = {}
        for index, block in enumerate(function.blocks):
            self.labels.setdefault(block.label, index)

    def write(self, symbol: int) -> dict:
        function = self.function
        # Two parameters of one name are the verifier's business; ids must still be positions.
        params = [{"id": i, "name": p.name, "type": type_to_json(p.type), "kind": {"Arg": i}} for i, p in enumerate(function.params)]
        self.next_id = len(params)
        for index, param in enumerate(function.params):
            self.locals.setdefault(param.name, index)
        blocks = [self.block(index, block) for index, block in enumerate(function.blocks)]
        others = [{"id": i, "name": name, "type": type_to_json(self.annotations.get(name)), "kind": "Var"}
                  for name, i in self.locals.items() if i >= len(params)]  # fmt: skip
        return {"symbol": symbol, "name": function.name, "signature": _signature(tuple(p.type for p in function.params), function.result, False),
                "locals": params + others, "blocks": blocks, "entry_block": 0}  # fmt: skip

    def local(self, name: str | None) -> int | None:
        if name is None:
            return None
        if name not in self.locals:
            self.locals[name] = self.next_id
            self.next_id += 1
        return self.locals[name]

    def target(self, label: str) -> int | str:
        return self.labels.get(label, label)

    def block(self, index: int, block: Block) -> dict:
        instructions = list(block.instructions)
        terminator = instructions.pop() if instructions and OPS[instructions[-1].op].terminator else None
        return {"id": index, "label": block.label, "instructions": [self.instruction(i) for i in instructions],
                "terminator": None if terminator is None else self.instruction(terminator)}  # fmt: skip

    def operand(self, operand: Operand) -> dict:
        if isinstance(operand, Const):
            return _const(operand)
        if not operand.hops and not operand.is_global:
            return {"Move" if operand.move else "Copy": self.local(operand.root)}
        hops = [{"Field": h.field} if isinstance(h, FieldHop) else {"Index": self.operand(h.index)} for h in operand.hops]
        root = {"global": operand.root} if operand.is_global else {"local": self.local(operand.root)}
        return {"Place": {**root, "projection": hops, **({"move": True} if operand.move else {})}}

    def instruction(self, i: Instruction) -> object:
        if i.dest is not None and i.dest_type is not None:
            self.annotations.setdefault(i.dest, i.dest_type)
        short = self.short_form(i)
        if short is None:
            return {"Instruction": self.generic(i)}
        if isinstance(short, str):
            return short
        (key, body), = short.items()
        if isinstance(body, dict) and i.dest_type is not None:
            body = {**body, "annotation": type_to_json(i.dest_type)}
        return {key: body}

    def short_form(self, i: Instruction) -> dict | str | None:
        """Return upstream's form of an instruction, or None where upstream has none or would lose something."""
        used = {f.name for f in fields(i) if f.compare and getattr(i, f.name) != f.default} - {"op"}
        args = [self.operand(a) for a in i.args]
        dest = self.local(i.dest)
        binary = BINARY.get(i.op) or CHECKED.get(i.op)
        if binary and len(args) == 2 and used <= {"args", "dest", "dest_type"}:
            return {"BinOp" if i.op in BINARY else "CheckedBinOp": {"dest": dest, "op": binary, "left": args[0], "right": args[1]}}
        if i.op in UNARY and len(args) == 1 and used <= {"args", "dest", "dest_type"}:
            return {"UnaryOp": {"dest": dest, "op": UNARY[i.op], "operand": args[0]}}
        if i.op == "const" and used <= {"args", "dest", "dest_type"} and len(args) == 1 and "Const" in args[0]:
            return {"Const": {"dest": dest, **args[0]["Const"]}}
        if i.op == "copy" and used <= {"args", "dest", "dest_type"} and len(args) == 1 and not {"Const", "Place"} & set(args[0]):
            ((kind, source),) = args[0].items()
            return {kind: {"dest": dest, "src": source}}
        if i.op == "call" and used <= {"args", "dest", "dest_type", "name"} and i.name is not None:
            return {"Call": {"dest": dest, "func": _callee(i.name), "args": args}}
        if i.op == "get_field" and used <= {"args", "dest", "dest_type", "field"} and len(args) == 1:
            return {"GetField": {"dest": dest, "base": args[0], "field": i.field}}
        if i.op == "goto" and used == {"labels"} and len(i.labels) == 1:
            return {"Goto": self.target(i.labels[0])}
        if i.op == "ret" and used <= {"args"} and len(args) <= 1:
            return {"Return": args[0] if args else None}
        if i.op == "if" and used == {"args", "labels"} and len(args) == 1 and len(i.labels) == 2:
            return {"If": {"cond": args[0], "then": self.target(i.labels[0]), "else": self.target(i.labels[1])}}
        if i.op == "abort" and used == {"message"}:
            return {"Abort": i.message}
        if i.op in ("unreachable", "nop") and not used:
            return {"unreachable": "Unreachable", "nop": "Nop"}[i.op]
        if i.op in ("throw", "resume") and used == {"args"} and len(args) == 2:
            return {i.op.capitalize(): {"payload": args[0], "type_tag": args[1]}}
        return None

    def generic(self, i: Instruction) -> dict:
        body: dict[str, object] = {"op": i.op}
        if i.args:
            body["args"] = [self.operand(a) for a in i.args]
        if i.dest is not None:
            body["dest"] = self.local(i.dest)
        if i.dest_type is not None:
            body["annotation"] = type_to_json(i.dest_type)
        for key in ("name", "field", "message"):
            if getattr(i, key) is not None:
                body[key] = getattr(i, key)
        if i.type is not None:
            body["type"] = type_to_json(i.type)
        if i.fields:
            body["fields"] = list(i.fields)
        if i.labels:
            body["labels"] = [self.target(label) for label in i.labels]
        if i.cases:
            body["cases"] = [_const(c)["Const"] for c in i.cases]
        if i.unwind:
            body["unwind"] = [self.local(name) for name in i.unwind]
        if i.attributes:
            body["attributes"] = dict(i.attributes)
        return body


def _callee(name: str) -> dict:
    return {"Const": {"value": {"Str": name}, "type": {"Opaque": "fn"}}}


def _params(params: tuple[Param, ...]) -> list[dict]:
    return [{"name": p.name, "type": type_to_json(p.type)} for p in params]


def to_json(module: Module) -> dict:
    """Return the JSON form of a module as plain dicts and lists."""
    types = [
        {"Struct": {"name": t.name, "is_class": t.is_class, "fields": _params(t.fields)}}
        if isinstance(t, StructDef)
        else {"Enum": {"name": t.name, "variants": [{"name": v.name, "fields": _params(v.fields)} for v in t.variants]}}
        for t in module.types
    ]
    return {
        "version": VERSION,
        "name": module.name,
        "types": types,
        "globals": [{"name": g.name, "type": type_to_json(g.type), "init": None if g.init is None else _const(g.init)["Const"]} for g in module.globals],
        "externs": [{"name": e.name, "params": _params(e.params), "return_type": type_to_json(e.result), "is_variadic": e.variadic} for e in module.externs],
        "functions": [_FunctionWriter(f).write(symbol) for symbol, f in enumerate(module.functions)],
    }


def to_json_text(module: Module) -> str:
    """Return the JSON form as text."""
    return json.dumps(to_json(module), ensure_ascii=False, allow_nan=False, indent=1)


# Reading


def from_json(source: str | Mapping) -> Module:
    """Return the module that JSON text, or a dict of it, describes. Raises: ParseError with a JSON path."""
    return read_json(source, _module)


_PRIMITIVE_BY_JSON = {name.capitalize(): t for name, t in PRIMITIVES.items()}


def type_from_json(value: object, path: str = "$", depth: int = 0) -> Type:
    """Return the type that a piece of JSON describes. Raises: an internal error that `from_json` turns into a diagnostic."""
    if depth > MAX_DEPTH:
        raise Malformed(path, f"types nest more than {MAX_DEPTH} deep", "E0501")
    if isinstance(value, str):
        if value not in _PRIMITIVE_BY_JSON:
            raise Malformed(path, f"unknown type {value[:80]!r}")
        return _PRIMITIVE_BY_JSON[value]
    key, body = one_key(value, path)
    inside = f"{path}.{key}"

    def inner(part: object, where: str) -> Type:
        return type_from_json(part, where, depth + 1)

    if key == "Slice":
        return Array(inner(body, inside))
    if key == "Option":
        return Option(inner(body, inside))
    if key == "Named":
        return Named(name_of(body, inside))
    if key == "Tuple":
        return Tuple(tuple(inner(part, f"{inside}[{i}]") for i, part in enumerate(list_of(body, inside))))
    if key == "Array":
        parts = object_of(body, inside, ("element", "size"), ())
        return FixedArray(inner(parts["element"], f"{inside}.element"), integer_of(parts["size"], f"{inside}.size", 0, 2**62))
    if key == "Dict":
        parts = object_of(body, inside, ("key", "value"), ())
        return Dict(inner(parts["key"], f"{inside}.key"), inner(parts["value"], f"{inside}.value"))
    if key == "Ptr":
        parts = object_of(body, inside, ("pointee",), ("mutable",))
        return Ptr(inner(parts["pointee"], f"{inside}.pointee"))
    if key == "FuncPtr":
        params, result, _ = _read_signature(body, inside, depth + 1)
        return Fn(params, result)
    raise Malformed(path, f"unknown type {key[:80]!r}")


def _read_signature(value: object, path: str, depth: int = 0) -> tuple[tuple[Type, ...], Type, bool]:
    parts = object_of(value, path, ("params",), ("return_type", "is_variadic"))
    params = tuple(type_from_json(p, f"{path}.params[{i}]", depth) for i, p in enumerate(list_of(parts["params"], f"{path}.params")))
    given = parts.get("return_type")
    result = PRIMITIVES["unit"] if given is None else type_from_json(given, f"{path}.return_type", depth)
    return params, result, bool_of(parts.get("is_variadic", False), f"{path}.is_variadic")


def _optional_type(value: object, path: str) -> Type | None:
    return None if value is None else type_from_json(value, path)


def _read_const(value: object, path: str) -> Const:
    parts = object_of(value, path, ("value",), ("type",))
    t = _optional_type(parts.get("type"), f"{path}.type")
    tag, body = one_key(parts["value"], f"{path}.value")
    inside = f"{path}.value.{tag}"
    if tag == "Nil":
        if body is not None or not (t is None or isinstance(t, Option)):
            raise Malformed(inside, "nil is null and has an option type, or none")
        return Const(t, None)
    if tag == "Str":
        if t != TEXT:
            raise Malformed(f"{path}.type", 'a "Str" constant has the type "Text"')
        return Const(TEXT, text_of(body, inside))
    if tag == "Bool":
        if t != BOOL:
            raise Malformed(f"{path}.type", 'a "Bool" constant has the type "Bool"')
        return const(BOOL, bool_of(body, inside))
    if tag == "Char":
        text = text_of(body, inside)
        if t != CHAR or len(text) != 1:
            raise Malformed(inside, 'a "Char" constant is one code point of the type "Char"')
        return const(CHAR, text)
    if tag == "Int" and t is not None and is_integer(t):
        return const(t, integer_of(body, inside, *integer_range(t)))
    if tag == "Float" and t is not None and is_float(t):
        return const(t, _read_float(body, t, inside))
    raise Malformed(inside, f"a {tag[:40]!r} constant does not fit its type")


def _read_float(body: object, t: Type, path: str) -> float:
    if isinstance(body, str):
        if body not in ("nan", "inf", "-inf"):
            raise Malformed(path, 'a float is a number, "nan", "inf" or "-inf"')
        return float(body)
    if isinstance(body, bool) or not isinstance(body, (int, float)):
        raise Malformed(path, f"expected a number, got {kind_of(body)}")
    try:
        value = float(body)
        if not math.isfinite(value):
            raise OverflowError
        return const(t, value).value if t == F32 else value  # type: ignore[return-value]
    except OverflowError:
        raise Malformed(path, f"the number is too large for {'f64' if t == F64 else 'f32'}", "E0505") from None


class _FunctionReader:
    """Reads one function; numbers become the names that "locals" gives them."""

    def __init__(self, value: object, path: str) -> None:
        self.path = path
        keys = ("name", "signature", "locals", "blocks")
        self.parts = object_of(value, path, keys, ("symbol", "entry_block"))
        self.locals: list[tuple[str, Type | None]] = []
        self.labels: list[str] = []

    def read(self) -> Function:
        path = self.path
        name = qualified_of(self.parts["name"], f"{path}.name")
        types, result, variadic = _read_signature(self.parts["signature"], f"{path}.signature")
        if variadic:
            raise Malformed(f"{path}.signature.is_variadic", "a function with a body cannot be variadic")
        params = []
        for index, entry in enumerate(list_of(self.parts["locals"], f"{path}.locals")):
            where = f"{path}.locals[{index}]"
            parts = object_of(entry, where, ("id", "name", "type", "kind"), ())
            if integer_of(parts["id"], f"{where}.id", 0, 2**31) != index:
                raise Malformed(f"{where}.id", f"the id of a local is its position, here {index}")
            local = (name_of(parts["name"], f"{where}.name"), _optional_type(parts["type"], f"{where}.type"))
            if index < len(types):
                if parts["kind"] != {"Arg": index} or local[1] != types[index]:
                    raise Malformed(where, f"local {index} must be parameter {index} of the signature")
                params.append(Param(local[0], types[index]))
            elif parts["kind"] not in ("Var", "Temp"):
                raise Malformed(f"{where}.kind", 'a local that is no parameter has the kind "Var" or "Temp"')
            self.locals.append(local)
        if len(params) != len(types):
            raise Malformed(f"{path}.locals", f"the signature has {len(types)} parameters, locals name {len(params)}")
        blocks = list_of(self.parts["blocks"], f"{path}.blocks")
        for index, entry in enumerate(blocks):
            parts = object_of(entry, f"{path}.blocks[{index}]", ("id", "label", "instructions", "terminator"), ())
            if integer_of(parts["id"], f"{path}.blocks[{index}].id", 0, 2**31) != index:
                raise Malformed(f"{path}.blocks[{index}].id", f"the id of a block is its position, here {index}")
            self.labels.append(name_of(parts["label"], f"{path}.blocks[{index}].label"))
        integer_of(self.parts.get("entry_block", 0), f"{path}.entry_block", 0, 0)
        return Function(name, tuple(params), result, tuple(self.block(i, entry) for i, entry in enumerate(blocks)))

    def block(self, index: int, entry: Mapping) -> Block:
        path = f"{self.path}.blocks[{index}]"
        found = [self.instruction(i, f"{path}.instructions[{k}]") for k, i in enumerate(list_of(entry["instructions"], f"{path}.instructions"))]
        if entry["terminator"] is not None:
            last = self.instruction(entry["terminator"], f"{path}.terminator")
            if not OPS[last.op].terminator:
                raise Malformed(f"{path}.terminator", f"`{last.op}` does not end a block")
            found.append(last)
        return Block(self.labels[index], tuple(found))

    def local(self, value: object, path: str) -> str:
        return self.locals[integer_of(value, path, 0, len(self.locals) - 1)][0]

    def optional_local(self, value: object, path: str) -> str | None:
        return None if value is None else self.local(value, path)

    def target(self, value: object, path: str) -> str:
        if isinstance(value, str):
            return name_of(value, path)
        return self.labels[integer_of(value, path, 0, len(self.labels) - 1)]

    def operand(self, value: object, path: str, depth: int = 0) -> Operand:
        if depth > MAX_DEPTH:
            raise Malformed(path, f"operands nest more than {MAX_DEPTH} deep", "E0501")
        key, body = one_key(value, path)
        inside = f"{path}.{key}"
        if key in ("Copy", "Move"):
            return Place(self.local(body, inside), move=key == "Move")
        if key == "Const":
            return _read_const(body, inside)
        if key != "Place":
            raise Malformed(path, f"unknown operand {key[:80]!r}")
        parts = object_of(body, inside, ("projection",), ("local", "global", "move"))
        if ("local" in parts) == ("global" in parts):
            raise Malformed(inside, 'a place has either "local" or "global"')
        root = self.local(parts["local"], f"{inside}.local") if "local" in parts else name_of(parts["global"], f"{inside}.global")
        hops = []
        for index, hop in enumerate(list_of(parts["projection"], f"{inside}.projection")):
            where = f"{inside}.projection[{index}]"
            kind, what = one_key(hop, where)
            if kind == "Field":
                hops.append(FieldHop(self.field(what, where)))
            elif kind == "Index":
                hops.append(IndexHop(self.operand(what, f"{where}.Index", depth + 1)))
            else:
                raise Malformed(where, f"unknown projection {kind[:80]!r}")
        if len(hops) > MAX_DEPTH:
            raise Malformed(inside, f"a place has more than {MAX_DEPTH} hops", "E0501")
        return Place(root, tuple(hops), "global" in parts, bool_of(parts.get("move", False), f"{inside}.move"))

    def field(self, value: object, path: str) -> str | int:
        return name_of(value, path) if isinstance(value, str) else integer_of(value, path, 0, 2**31)

    def operands(self, value: object, path: str) -> tuple[Operand, ...]:
        return tuple(self.operand(a, f"{path}[{i}]") for i, a in enumerate(list_of(value, path)))

    def instruction(self, value: object, path: str) -> Instruction:
        if isinstance(value, str):
            if value not in ("Nop", "Unreachable"):
                raise Malformed(path, f"unknown instruction {value[:80]!r}")
            return Instruction(value.lower())
        key, body = one_key(value, path)
        if key not in INSTRUCTION_READERS:
            raise Malformed(path, f"unknown instruction {key[:80]!r}", "E0503")
        return INSTRUCTION_READERS[key](self, body, f"{path}.{key}")

    def common(self, parts: Mapping, path: str) -> dict[str, object]:
        return {"dest": self.optional_local(parts.get("dest"), f"{path}.dest"), "dest_type": _optional_type(parts.get("annotation"), f"{path}.annotation")}

    def generic(self, body: object, path: str) -> Instruction:
        known = ("args", "dest", "annotation", "name", "field", "message", "type", "fields", "labels", "cases", "unwind", "attributes")
        parts = object_of(body, path, ("op",), known)
        op = text_of(parts["op"], f"{path}.op")
        if op not in OPS:
            raise Malformed(f"{path}.op", f"unknown opcode {op[:80]!r}", "E0503")
        return Instruction(
            op,
            self.operands(parts.get("args", []), f"{path}.args"),
            name=None if parts.get("name") is None else qualified_of(parts["name"], f"{path}.name"),
            field=None if parts.get("field") is None else self.field(parts["field"], f"{path}.field"),
            type=_optional_type(parts.get("type"), f"{path}.type"),
            message=None if parts.get("message") is None else text_of(parts["message"], f"{path}.message"),
            fields=tuple(name_of(n, f"{path}.fields") for n in list_of(parts.get("fields", []), f"{path}.fields")),
            labels=tuple(self.target(n, f"{path}.labels") for n in list_of(parts.get("labels", []), f"{path}.labels")),
            cases=tuple(_read_const(c, f"{path}.cases[{i}]") for i, c in enumerate(list_of(parts.get("cases", []), f"{path}.cases"))),
            unwind=tuple(self.local(n, f"{path}.unwind") for n in list_of(parts.get("unwind", []), f"{path}.unwind")),
            attributes=tuple(sorted(object_of(parts.get("attributes", {}), f"{path}.attributes").items())),
            **self.common(parts, path),  # type: ignore[arg-type]
        )


def _reader(op_of: dict[str, str], keys: tuple[str, ...]) -> Callable[[_FunctionReader, object, str], Instruction]:
    def read(function: _FunctionReader, body: object, path: str) -> Instruction:
        parts = object_of(body, path, ("dest", "op", *keys), ("annotation",))
        op = text_of(parts["op"], f"{path}.op")
        if op not in op_of:
            raise Malformed(f"{path}.op", f"unknown operator {op[:80]!r}", "E0503")
        args = tuple(function.operand(parts[key], f"{path}.{key}") for key in keys)
        return Instruction(op_of[op], args, **function.common(parts, path))  # type: ignore[arg-type]

    return read


def _read_const_instruction(function: _FunctionReader, body: object, path: str) -> Instruction:
    parts = object_of(body, path, ("dest", "value", "type"), ("annotation",))
    read = _read_const({"value": parts["value"], "type": parts["type"]}, path)
    return Instruction("const", (read,), **function.common(parts, path))  # type: ignore[arg-type]


def _read_copy(move: bool) -> Callable[[_FunctionReader, object, str], Instruction]:
    def read(function: _FunctionReader, body: object, path: str) -> Instruction:
        parts = object_of(body, path, ("dest", "src"), ("annotation",))
        return Instruction("copy", (Place(function.local(parts["src"], f"{path}.src"), move=move),), **function.common(parts, path))  # type: ignore[arg-type]

    return read


def _read_callee(value: object, path: str) -> str:
    key, body = one_key(value, path)
    parts = object_of(body, f"{path}.{key}", ("value",), ("type",)) if key == "Const" else {}
    tag, name = one_key(parts["value"], f"{path}.Const.value") if parts else ("", None)
    if tag != "Str":
        raise Malformed(path, 'a direct callee is {"Const": {"value": {"Str": name}, "type": ...}}')
    return qualified_of(name, f"{path}.Const.value.Str")


def _read_call(function: _FunctionReader, body: object, path: str) -> Instruction:
    parts = object_of(body, path, ("dest", "func", "args"), ("annotation",))
    args = function.operands(parts["args"], f"{path}.args")
    return Instruction("call", args, name=_read_callee(parts["func"], f"{path}.func"), **function.common(parts, path))  # type: ignore[arg-type]


def _read_get_field(function: _FunctionReader, body: object, path: str) -> Instruction:
    parts = object_of(body, path, ("dest", "base", "field"), ("annotation",))
    base = function.operand(parts["base"], f"{path}.base")
    return Instruction("get_field", (base,), field=function.field(parts["field"], f"{path}.field"), **function.common(parts, path))  # type: ignore[arg-type]


def _read_if(function: _FunctionReader, body: object, path: str) -> Instruction:
    parts = object_of(body, path, ("cond", "then", "else"), ())
    labels = (function.target(parts["then"], f"{path}.then"), function.target(parts["else"], f"{path}.else"))
    return Instruction("if", (function.operand(parts["cond"], f"{path}.cond"),), labels=labels)


def _read_unwinding(op: str) -> Callable[[_FunctionReader, object, str], Instruction]:
    def read(function: _FunctionReader, body: object, path: str) -> Instruction:
        parts = object_of(body, path, ("payload", "type_tag"), ())
        return Instruction(op, (function.operand(parts["payload"], f"{path}.payload"), function.operand(parts["type_tag"], f"{path}.type_tag")))

    return read


INSTRUCTION_READERS: dict[str, Callable[[_FunctionReader, object, str], Instruction]] = {
    "BinOp": _reader(_FROM_BINARY, ("left", "right")),
    "CheckedBinOp": _reader(_FROM_CHECKED, ("left", "right")),
    "UnaryOp": _reader(_FROM_UNARY, ("operand",)),
    "Const": _read_const_instruction,
    "Copy": _read_copy(False),
    "Move": _read_copy(True),
    "Call": _read_call,
    "GetField": _read_get_field,
    "Goto": lambda function, body, path: Instruction("goto", labels=(function.target(body, path),)),
    "Return": lambda function, body, path: Instruction("ret", () if body is None else (function.operand(body, path),)),
    "If": _read_if,
    "Abort": lambda function, body, path: Instruction("abort", message=text_of(body, path)),
    "Throw": _read_unwinding("throw"),
    "Resume": _read_unwinding("resume"),
    "Instruction": _FunctionReader.generic,
}


def _read_params(value: object, path: str) -> tuple[Param, ...]:
    found = []
    for index, entry in enumerate(list_of(value, path)):
        parts = object_of(entry, f"{path}[{index}]", ("name", "type"), ())
        found.append(Param(name_of(parts["name"], f"{path}[{index}].name"), type_from_json(parts["type"], f"{path}[{index}].type")))
    return tuple(found)


def _read_type_def(value: object, path: str) -> StructDef | EnumDef:
    key, body = one_key(value, path)
    inside = f"{path}.{key}"
    if key == "Struct":
        parts = object_of(body, inside, ("name", "fields"), ("is_class",))
        is_class = bool_of(parts.get("is_class", False), f"{inside}.is_class")
        return StructDef(name_of(parts["name"], f"{inside}.name"), _read_params(parts["fields"], f"{inside}.fields"), is_class)
    if key == "Enum":
        parts = object_of(body, inside, ("name", "variants"), ())
        variants = []
        for index, entry in enumerate(list_of(parts["variants"], f"{inside}.variants")):
            where = f"{inside}.variants[{index}]"
            variant = object_of(entry, where, ("name",), ("fields",))
            variants.append(Variant(name_of(variant["name"], f"{where}.name"), _read_params(variant.get("fields", []), f"{where}.fields")))
        return EnumDef(name_of(parts["name"], f"{inside}.name"), tuple(variants))
    raise Malformed(path, f"unknown kind of type {key[:80]!r}")


def _module(value: object) -> Module:
    parts = object_of(value, "$", ("version", "functions"), ("name", "types", "globals", "externs"))
    version = integer_of(parts["version"], "$.version", 0, 2**31)
    if version != VERSION:
        raise Malformed("$.version", f"version {version} is not known; this reader knows {VERSION}", "E0507")
    globals_, externs = [], []
    for index, entry in enumerate(list_of(parts.get("globals", []), "$.globals")):
        path = f"$.globals[{index}]"
        g = object_of(entry, path, ("name", "type"), ("init",))
        init = None if g.get("init") is None else _read_const(g["init"], f"{path}.init")
        globals_.append(Global(name_of(g["name"], f"{path}.name"), type_from_json(g["type"], f"{path}.type"), init))
    for index, entry in enumerate(list_of(parts.get("externs", []), "$.externs")):
        path = f"$.externs[{index}]"
        e = object_of(entry, path, ("name", "params", "return_type"), ("is_variadic",))
        externs.append(Extern(qualified_of(e["name"], f"{path}.name"), _read_params(e["params"], f"{path}.params"),
                              type_from_json(e["return_type"], f"{path}.return_type"), bool_of(e.get("is_variadic", False), f"{path}.is_variadic")))  # fmt: skip
    name = parts.get("name", "")
    return Module(
        tuple(_read_type_def(t, f"$.types[{i}]") for i, t in enumerate(list_of(parts.get("types", []), "$.types"))),
        tuple(globals_),
        tuple(externs),
        tuple(_FunctionReader(f, f"$.functions[{i}]").read() for i, f in enumerate(list_of(parts["functions"], "$.functions"))),
        name_of(name, "$.name") if name else "",
    )

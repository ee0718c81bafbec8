"""WebAssembly modules as data, as far as the Cranelift back end needs them: encoded as bytes, printed as text.

An instruction is a tuple of its name and its immediates, e.g. ("i64.const", 7) or ("br_table", (0, 1), 2). INSTRUCTIONS is the one list of what there is;
encoder and printer follow it. Format: the WebAssembly core specification, version 2, with the threads proposal (shared memory, atomic loads).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Instruction: TypeAlias = tuple
I32, I64, F32, F64 = "i32", "i64", "f32", "f64"
MOST_LOCALS = 50_000
"""Locals of one function, parameters included, that an engine has to accept."""
LARGEST_BODY = 7_654_321
"""Bytes of one function body that an engine has to accept."""
DEEPEST_INDENT = 40
"""The text form indents no further: deep nesting would make it quadratic."""
PAGE = 65_536

_TYPE_CODES = {I32: 0x7F, I64: 0x7E, F32: 0x7D, F64: 0x7C}
_NO_VALUES = 0x40


def _numeric(prefix: str, first: int, names: str) -> dict[str, tuple[bytes, str]]:
    return {f"{prefix}.{name}": (bytes([first + index]), "") for index, name in enumerate(names.split())}


INSTRUCTIONS: dict[str, tuple[bytes, str]] = {
    "unreachable": (b"\x00", ""), "block": (b"\x02", "block"), "loop": (b"\x03", "block"), "if": (b"\x04", "block"), "else": (b"\x05", ""),
    "end": (b"\x0b", ""), "br": (b"\x0c", "index"), "br_if": (b"\x0d", "index"), "br_table": (b"\x0e", "table"), "return": (b"\x0f", ""),
    "call": (b"\x10", "index"), "call_indirect": (b"\x11", "indirect"), "drop": (b"\x1a", ""), "select": (b"\x1b", ""),
    "local.get": (b"\x20", "index"), "local.set": (b"\x21", "index"), "local.tee": (b"\x22", "index"),
    "i32.load": (b"\x28", "memory"), "i64.load": (b"\x29", "memory"), "f32.load": (b"\x2a", "memory"), "f64.load": (b"\x2b", "memory"),
    "i32.load8_s": (b"\x2c", "memory"), "i32.load8_u": (b"\x2d", "memory"), "i32.load16_s": (b"\x2e", "memory"), "i32.load16_u": (b"\x2f", "memory"),
    "i32.store": (b"\x36", "memory"), "i64.store": (b"\x37", "memory"), "f32.store": (b"\x38", "memory"), "f64.store": (b"\x39", "memory"),
    "i32.store8": (b"\x3a", "memory"), "i32.store16": (b"\x3b", "memory"),
    "i32.const": (b"\x41", "signed"), "i64.const": (b"\x42", "signed"), "f32.const": (b"\x43", "f32"), "f64.const": (b"\x44", "f64"),
    "i32.eqz": (b"\x45", ""), **_numeric(I32, 0x46, "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
    "i64.eqz": (b"\x50", ""), **_numeric(I64, 0x51, "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
    **_numeric(F32, 0x5B, "eq ne lt gt le ge"), **_numeric(F64, 0x61, "eq ne lt gt le ge"),
    **_numeric(I32, 0x6A, "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u"),
    **_numeric(I64, 0x7C, "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u"),
    **_numeric(F32, 0x8B, "abs neg ceil floor trunc nearest sqrt add sub mul div min max"),
    **_numeric(F64, 0x99, "abs neg ceil floor trunc nearest sqrt add sub mul div min max"),
    "i32.wrap_i64": (b"\xa7", ""), "i64.extend_i32_s": (b"\xac", ""), "i64.extend_i32_u": (b"\xad", ""),
    **_numeric(F32, 0xB2, "convert_i32_s convert_i32_u convert_i64_s convert_i64_u demote_f64"),
    **_numeric(F64, 0xB7, "convert_i32_s convert_i32_u convert_i64_s convert_i64_u promote_f32"),
    "i32.reinterpret_f32": (b"\xbc", ""), "i64.reinterpret_f64": (b"\xbd", ""), "f32.reinterpret_i32": (b"\xbe", ""), "f64.reinterpret_i64": (b"\xbf", ""),
    "i32.extend8_s": (b"\xc0", ""), "i32.extend16_s": (b"\xc1", ""),
    **{f"{to}.trunc_sat_{source}_{sign}": (bytes([0xFC, 4 * (to == I64) + 2 * (source == F64) + (sign == "u")]), "")
       for to in (I32, I64) for source in (F32, F64) for sign in "su"},
    "memory.copy": (b"\xfc\x0a\x00\x00", ""), "memory.fill": (b"\xfc\x0b\x00", ""),
    "i64.atomic.load": (b"\xfe\x11", "memory"),
}  # fmt: skip
"""By name: (opcode, kind of immediates)."""

_SIZES = {"8": 0, "16": 1}


def _alignment(name: str) -> int:
    """Return the binary logarithm of the bytes that a memory instruction moves: its natural alignment."""
    for suffix, exponent in _SIZES.items():
        if name.removesuffix("_s").removesuffix("_u").endswith(suffix):
            return exponent
    return 3 if name.startswith(("i64", "f64")) else 2


def unsigned(number: int) -> bytes:
    """Return the unsigned LEB128 form of a number."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed(number: int) -> bytes:
    """Return the signed LEB128 form of a number."""
    out = bytearray()
    while not -0x40 <= number < 0x40:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0x7F)
    return bytes(out)


def _vector(parts: Iterable[bytes]) -> bytes:
    listed = list(parts)
    return unsigned(len(listed)) + b"".join(listed)


def _name(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return unsigned(len(data)) + data


@dataclass(frozen=True)
class FuncType:
    """The type of a function: value types."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def encode(self) -> bytes:
        return b"\x60" + _vector(bytes((_TYPE_CODES[t],)) for t in self.params) + _vector(bytes((_TYPE_CODES[t],)) for t in self.results)

    def __str__(self) -> str:
        parts = [f"({kind} {' '.join(types)})" for kind, types in (("param", self.params), ("result", self.results)) if types]
        return " ".join(parts)


@dataclass(frozen=True)
class Import:
    """A function from outside; its index is its place in `Module.imports`."""

    module: str
    name: str
    type: FuncType


@dataclass(frozen=True)
class Function:
    """A function. locals: types behind the parameters. export: the name under which it can be found. comment: for the text form, no control characters."""

    type: FuncType
    locals: tuple[str, ...]
    code: tuple[Instruction, ...]
    export: str | None = None
    comment: str = ""


@dataclass(frozen=True)
class Module:
    """A module that imports one shared memory, `host.memory`, of exactly `pages`. table: indices of functions for `call_indirect`."""

    imports: tuple[Import, ...]
    functions: tuple[Function, ...]
    pages: int
    table: tuple[int, ...] = ()

    def types(self) -> dict[FuncType, int]:
        """Return the indices of all function types."""
        found: dict[FuncType, int] = {}
        for item in (*self.imports, *self.functions):
            found.setdefault(item.type, len(found))
        for function in self.functions:
            for instruction in function.code:
                if instruction[0] == "call_indirect":
                    found.setdefault(instruction[1], len(found))
        return found

    def _has_table(self) -> bool:
        """A call through the table needs one, empty as it may be."""
        return bool(self.table) or any(ins[0] == "call_indirect" for function in self.functions for ins in function.code)

    def encode(self) -> bytes:
        """Return the module's binary form."""
        types = self.types()
        shared_memory = b"\x02\x03" + unsigned(self.pages) + unsigned(self.pages)
        imports = [_name("host") + _name("memory") + shared_memory]
        imports += [_name(i.module) + _name(i.name) + b"\x00" + unsigned(types[i.type]) for i in self.imports]
        first = len(self.imports)
        exports = [_name(f.export) + b"\x00" + unsigned(first + index) for index, f in enumerate(self.functions) if f.export is not None]
        sections = [
            (1, _vector(t.encode() for t in types)),
            (2, _vector(imports)),
            (3, _vector(unsigned(types[f.type]) for f in self.functions)),
        ]
        if self._has_table():
            size = unsigned(len(self.table))
            sections.append((4, b"\x01\x70\x01" + size + size))
        sections.append((7, _vector(exports)))
        if self.table:
            sections.append((9, b"\x01\x00\x41\x00\x0b" + _vector(unsigned(index) for index in self.table)))
        sections.append((10, _vector(_body(f, types) for f in self.functions)))
        return b"\0asm\x01\0\0\0" + b"".join(bytes((number,)) + unsigned(len(data)) + data for number, data in sections)

    def to_text(self) -> str:
        """Return the module's text form, indented by nesting; functions are numbered, comments say what they are."""
        lines = ["(module", f'  (import "host" "memory" (memory {self.pages} {self.pages} shared))']
        for index, item in enumerate(self.imports):
            lines.append(f'  (import "{item.module}" "{item.name}" (func $f{index} {item.type}))'.replace(" ))", "))"))
        if self._has_table():
            lines.append(f"  (table {len(self.table)} {len(self.table)} funcref)")
        if self.table:
            lines.append(f"  (elem (i32.const 0) {' '.join(f'$f{index}' for index in self.table)})")
        for index, function in enumerate(self.functions, len(self.imports)):
            lines += _text_of_function(function, index)
        return "\n".join((*lines, ")")) + "\n"


def _locals(types: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return runs of equal types."""
    runs: list[tuple[int, str]] = []
    for t in types:
        if runs and runs[-1][1] == t:
            runs[-1] = runs[-1][0] + 1, t
        else:
            runs.append((1, t))
    return runs


_CODES = {name: code for name, (code, kind) in INSTRUCTIONS.items() if not kind}
_KINDS = {name: (code, kind) for name, (code, kind) in INSTRUCTIONS.items() if kind}


def _body(function: Function, types: dict[FuncType, int]) -> bytes:
    out = bytearray(_vector(unsigned(count) + bytes((_TYPE_CODES[t],)) for count, t in _locals(function.locals)))
    for instruction in function.code:
        plain = _CODES.get(instruction[0])
        if plain is not None:
            out += plain
            continue
        name, *immediates = instruction
        code, kind = _KINDS[name]
        out += code
        if kind == "index":
            out += unsigned(immediates[0])
        elif kind == "signed":
            out += signed(immediates[0])
        elif kind == "memory":
            out += bytes((_alignment(name) if "atomic" in name else 0,)) + unsigned(immediates[0])
        elif kind == "block":
            out.append(_TYPE_CODES[immediates[0]] if immediates else _NO_VALUES)
        elif kind == "table":
            out += _vector(map(unsigned, immediates[0])) + unsigned(immediates[1])
        elif kind == "indirect":
            out += unsigned(types[immediates[0]]) + b"\x00"
        else:
            out += struct.pack("<I" if kind == "f32" else "<Q", immediates[0])
    out += INSTRUCTIONS["end"][0]
    return unsigned(len(out)) + bytes(out)


def _text_of_float(bits: int, kind: str) -> str:
    """Return a float literal of the text form for a bit pattern, exact."""
    value = struct.unpack("<f" if kind == "f32" else "<d", struct.pack("<I" if kind == "f32" else "<Q", bits))[0]
    if not math.isnan(value):
        return "-inf" if value == -math.inf else "inf" if value == math.inf else value.hex()
    mantissa = bits & ((1 << (23 if kind == "f32" else 52)) - 1)
    return f"{'-' if math.copysign(1, value) < 0 else ''}nan:0x{mantissa:x}"


def _text_of(instruction: Instruction) -> str:
    name, *immediates = instruction
    kind = INSTRUCTIONS[name][1]
    if not immediates:
        return name
    if kind == "memory":
        return f"{name} offset={immediates[0]}" + ("" if "atomic" in name or _alignment(name) == 0 else " align=1")
    if kind == "block":
        return f"{name} (result {immediates[0]})"
    if kind == "table":
        return f"{name} {' '.join(map(str, (*immediates[0], immediates[1])))}"
    if kind == "indirect":
        return f"{name} {immediates[0]}"
    if kind in ("f32", "f64"):
        return f"{name} {_text_of_float(immediates[0], kind)}"
    return f"call $f{immediates[0]}" if name == "call" else f"{name} {immediates[0]}"


def _text_of_function(function: Function, index: int) -> list[str]:
    export = f' (export "{function.export}")' if function.export is not None else ""
    heading = f"  (func $f{index}{export} {function.type}".rstrip()
    lines = ["", heading + (f"  ;; {function.comment}" if function.comment else "")]
    if function.locals:
        lines.append(f"    (local {' '.join(function.locals)})")
    depth = 2
    for instruction in function.code:
        if instruction[0] in ("end", "else"):
            depth -= 1
        lines.append("  " * min(depth, DEEPEST_INDENT) + _text_of(instruction))
        if instruction[0] in ("block", "loop", "if", "else"):
            depth += 1
    return [*lines, "  )"]

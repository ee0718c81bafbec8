"""The printer of the text form: the canonical spelling of constants, operands, instructions, items and modules. `mir/text.py` reads it back."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise

from .lexer import HIDDEN, collapsed, is_name
from .model import (
    Const, EnumDef, Extern, FieldHop, Function, Global, Instruction, Item, Module, Operand, Param, StructDef, Trivia, decode_bits,
)  # fmt: skip
from .ops import OPS
from .types import CHAR, F32, F64, I64, UNIT, format_type, is_float, is_integer

_SPELLED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\\": "\\\\"}

_PIECE_WORDS = {
    "v": "value", "p": "place", "v*": "values ...", "v?": "[value]", "f": "field", "l": "label", "t": "type", "m": '"text"', "n": "function", "e": "Variant.field",
    "g": "@global", "x": "local", "n(v*)": "function(values ...)", "n(f*)": "Name(field: value, ...)", "e(f*)": "Enum.Variant(field: value, ...)",
    "v(v*)": "value(values ...)", "if": "value then label else label", "switch": "value [constant: label, ...] else label",
    "invoke": "function(values ...) then label unwind label(payload, tag)",
}  # fmt: skip

FORMS: dict[str, tuple[str, ...]] = {name: tuple(row.form.split(", ")) if row.form else () for name, row in OPS.items()}
"""The operand kinds of every opcode, from left to right."""


def usage(op: str) -> str:
    """Return how an opcode is written, for messages and documentation: `set_field place, field, value`."""
    return " ".join((op, ", ".join(_PIECE_WORDS[piece] for piece in FORMS[op]))).strip()


# Constants and operands


def nearest_f32(text: str) -> float:
    """Return the f32 nearest to a decimal number without sign, ties to even; infinity if it is too large.

    Rounding to f64 first is wrong only if that hits the middle of two f32 values; then the decimal digits decide.
    """
    wide = float(text)
    if wide == float("inf"):
        return wide
    try:
        bits = int.from_bytes(struct.pack("<f", wide), "little")
    except OverflowError:
        # The middle of the largest f32 and what would be the next one: below it the digits round down.
        return _f32(0x7F7FFFFF) if wide == 2.0**128 - 2.0**103 and Decimal(text) < Decimal(wide) else float("inf")
    narrow = _f32(bits)
    if narrow == wide:
        return narrow
    neighbour = _f32(bits + 1) if wide > narrow else _f32(bits - 1)
    if (narrow + neighbour) / 2 != wide:
        return narrow
    exact, middle = Decimal(text), Decimal(wide)
    return narrow if exact == middle else max(narrow, neighbour) if exact > middle else min(narrow, neighbour)


def _f32(bits: int) -> float:
    value = decode_bits(F32, bits)
    assert isinstance(value, float)
    return value


def format_const(c: Const) -> str:
    """Return the literal of a constant."""
    if c.bits is None:
        return "nil"
    if isinstance(c.bits, str):
        return _quoted(c.bits, '"')
    if c.type == CHAR:
        return _quoted(chr(c.bits), "'")
    if c.type is None or c.type == UNIT:
        return "unit"
    value = decode_bits(c.type, c.bits)
    if is_float(c.type):
        assert isinstance(value, float)
        return repr(value) if c.type == F64 else _shortest_f32(value) + "f32"
    if is_integer(c.type):
        return str(value) if c.type == I64 else f"{value}{format_type(c.type)}"
    return "true" if value else "false"


def _shortest_f32(value: float) -> str:
    """Return the fewest decimal digits that read back as this f32."""
    for digits in range(1, 9):
        text = repr(float(f"{value:.{digits}g}"))
        if nearest_f32(text.lstrip("-")) == abs(value):
            return text
    return repr(float(f"{value:.9g}"))


def _quoted(text: str, quote: str) -> str:
    """Return a text or char literal; what a reader could not see or tell from its surroundings is escaped."""
    out = [quote]
    for position, c in enumerate(text):
        if c == quote:
            out.append("\\" + c)
        elif c in _SPELLED:
            out.append(_SPELLED[c])
        elif not c.isprintable() or (position == 0 and unicodedata.category(c)[0] == "M"):
            out.append(f"\\u{{{ord(c):x}}}")
        else:
            out.append(c)
    out.append(quote)
    return "".join(out)


def format_operand(operand: Operand) -> str:
    """Return an operand as it is written."""
    if isinstance(operand, Const):
        return format_const(operand)
    hops = "".join(f".{hop.field}" if isinstance(hop, FieldHop) else f"[{format_operand(hop.index)}]" for hop in operand.hops)
    return f"{'move ' if operand.move else ''}{'@' if operand.is_global else ''}{operand.root}{hops}"


class _Writer:
    """Writes the operands of one instruction; what is missing in a malformed one shows as `?`."""

    def __init__(self, ins: Instruction) -> None:
        self.ins = ins
        self.args: Iterator[Operand] = iter(ins.args)
        self.labels: Iterator[str] = iter(ins.labels)

    def value(self) -> str:
        operand = next(self.args, None)
        return "?" if operand is None else format_operand(operand)

    def values(self) -> str:
        return ", ".join(format_operand(a) for a in self.args)

    def optional_value(self) -> str:
        return self.values()

    def label(self) -> str:
        return next(self.labels, "?")

    def name(self) -> str:
        return self.ins.name or "?"

    def field(self) -> str:
        return "?" if self.ins.field is None else str(self.ins.field)

    def type(self) -> str:
        return "?" if self.ins.type is None else format_type(self.ins.type)

    def message(self) -> str:
        return _quoted(self.ins.message or "", '"')

    def global_name(self) -> str:
        return f"@{self.name()}"

    def call(self) -> str:
        return f"{self.name()}({self.values()})"

    def indirect_call(self) -> str:
        return f"{self.value()}({self.values()})"

    def named_arguments(self) -> str:
        return ", ".join(f"{name}: {self.value()}" for name in self.ins.fields)

    def new(self) -> str:
        return f"{self.name()}({self.named_arguments()})"

    def variant(self) -> str:
        return self.new() if self.ins.fields else self.name()

    def if_(self) -> str:
        return f"{self.value()} then {self.label()} else {self.label()}"

    def switch(self) -> str:
        value = self.value()
        cases = ", ".join(f"{format_const(case)}: {self.label()}" for case in self.ins.cases)
        return f"{value} [{cases}] else {self.label()}"

    def invoke(self) -> str:
        return f"{self.call()} then {self.label()} unwind {self.label()}({', '.join(self.ins.unwind)})"


_WRITERS: dict[str, Callable[[_Writer], str]] = {
    "v": _Writer.value, "p": _Writer.value, "v*": _Writer.values, "v?": _Writer.optional_value, "f": _Writer.field, "l": _Writer.label, "t": _Writer.type,
    "m": _Writer.message, "n": _Writer.name, "e": _Writer.name, "g": _Writer.global_name, "x": _Writer.name, "n(v*)": _Writer.call, "n(f*)": _Writer.new,
    "e(f*)": _Writer.variant, "v(v*)": _Writer.indirect_call, "if": _Writer.if_, "switch": _Writer.switch, "invoke": _Writer.invoke,
}  # fmt: skip


def _attribute(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) and is_name(value) else _quoted(value, '"') if isinstance(value, str) else str(value)


def format_instruction(ins: Instruction) -> str:
    """Return an instruction as one line, without indentation and comments."""
    writer = _Writer(ins)
    pieces = FORMS.get(ins.op, ("v*",))
    parts = [text for text in (_WRITERS[piece](writer) for piece in pieces) if text]
    parts.extend(format_operand(a) for a in writer.args)
    attributes = {name: _attribute(value) for name, value in ins.attributes}
    if ins.message is not None and "m" not in pieces:
        attributes["message"] = _quoted(ins.message, '"')
    words = []
    if ins.dest is not None:
        words.append(f"{ins.dest}: {format_type(ins.dest_type)} =" if ins.dest_type is not None else f"{ins.dest} =")
    words.append(ins.op)
    if parts:
        words.append(", ".join(parts))
    if attributes:
        inside = ", ".join(f"{name}: {value}" for name, value in sorted(attributes.items()))
        words.append(f"{{{inside}}}")
    return " ".join(words)


def _params(params: tuple[Param, ...], variadic: bool = False) -> str:
    shown = [f"{p.name}: {format_type(p.type)}" for p in params] + (["..."] if variadic else [])
    return f"({', '.join(shown)})"


def _signature(item: Function | Extern) -> str:
    variadic = isinstance(item, Extern) and item.variadic
    return f"fn {item.name}{_params(item.params, variadic)}" + ("" if item.result == UNIT else f" -> {format_type(item.result)}")


def _comment_text(text: str) -> str:
    """Return a comment, kept on one line whatever a program built by hand holds."""
    return ("#" + HIDDEN.sub(" ", text)).rstrip()


class _Page:
    """Lines of output, with their comments."""

    def __init__(self, comments: bool) -> None:
        self.comments = comments
        self.lines: list[str] = []

    def before(self, trivia: Trivia, indent: str, keep_blank: bool) -> None:
        """Write the comments that stand above a line; a leading empty line only if `keep_blank`."""
        if not self.comments:
            return
        lines = collapsed(trivia.before)
        for line in lines[1:] if lines and not lines[0] and not keep_blank else lines:
            self.lines.append(indent + _comment_text(line) if line else "")

    def line(self, text: str, trivia: Trivia, indent: str = "", keep_blank: bool = True) -> None:
        """Write one line with its comments."""
        self.before(trivia, indent, keep_blank)
        self.lines.append(indent + text + (f"  {_comment_text(trivia.after)}" if trivia.after and self.comments else ""))

    def item(self, item: Item) -> None:
        """Write an item, without an empty line above it."""
        _WRITE_ITEMS[type(item)](self, item)

    def struct(self, item: StructDef) -> None:
        self.line(f"{'class' if item.is_class else 'struct'} {item.name}:", item.trivia, keep_blank=False)
        for index, f in enumerate(item.fields):
            self.line(f"{f.name}: {format_type(f.type)}", f.trivia, "  ", index > 0)

    def enum(self, item: EnumDef) -> None:
        self.line(f"enum {item.name}:", item.trivia, keep_blank=False)
        for index, v in enumerate(item.variants):
            self.line(v.name + (_params(v.fields) if v.fields else ""), v.trivia, "  ", index > 0)

    def global_(self, item: Global) -> None:
        literal = "" if item.init is None else f" = {format_const(item.init)}"
        self.line(f"global {item.name}: {format_type(item.type)}{literal}", item.trivia, keep_blank=False)

    def extern(self, item: Extern) -> None:
        self.line(f"extern {_signature(item)}", item.trivia, keep_blank=False)

    def function(self, item: Function) -> None:
        self.line(f"{_signature(item)}:", item.trivia, keep_blank=False)
        for index, block in enumerate(item.blocks):
            self.line(f"{block.label}:", block.trivia, "", index > 0)
            for position, ins in enumerate(block.instructions):
                self.line(format_instruction(ins), ins.trivia, "  ", position > 0)


_WRITE_ITEMS: dict[type, Callable[..., None]] = {
    StructDef: _Page.struct, EnumDef: _Page.enum, Global: _Page.global_, Extern: _Page.extern, Function: _Page.function,
}  # fmt: skip


def format_item(item: Item, comments: bool = True) -> str:
    """Return an item in canonical form, without a newline at the end."""
    page = _Page(comments)
    page.item(item)
    return "\n".join(page.lines)


def _position(item: Item) -> tuple[int, int]:
    assert item.span is not None
    return item.span.line, item.span.column


def _in_order(module: Module) -> list[Item]:
    """Return the items as they were written if all have positions in one source, else by kind. Items of one kind never change places."""
    items = list(module.items)
    if len({None if item.span is None else item.span.source for item in items}) == 1 and items[0].span is not None:
        kinds: tuple[tuple[Item, ...], ...] = (module.types, module.globals, module.externs, module.functions)
        if all(_position(a) < _position(b) for kind in kinds for a, b in pairwise(kind)):
            items.sort(key=_position)
    return items


def format_text(module: Module, comments: bool = True) -> str:
    """Return the module in canonical form. `comments=False` leaves comments and empty lines inside items out."""
    page = _Page(comments)
    if module.name:
        page.line(f"module {module.name}", module.trivia, keep_blank=False)
    previous: Item | None = None
    for item in _in_order(module):
        together = isinstance(item, (Global, Extern)) and type(previous) is type(item) and not (comments and item.trivia.before[:1] == ("",))
        if page.lines and not together:
            page.lines.append("")
        page.item(item)
        previous = item
    page.before(module.ending, "", bool(page.lines))
    while page.lines and not page.lines[-1]:
        page.lines.pop()
    return "".join(line + "\n" for line in page.lines)

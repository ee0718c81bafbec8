"""The text form: `parse_text` reads it, `format_text` writes the canonical spelling.

    line    = item | label | instr          a newline ends it, except after ","; "#" outside quotes starts a comment
    item    = "module" NAME
            | ("struct" | "class") NAME ":"     then lines NAME ":" type
            | "enum" NAME ":"                   then lines NAME ["(" NAME ":" type, ... ")"]
            | "global" NAME ":" type ["=" literal]
            | "extern" "fn" QNAME sig           sig may end in "..."
            | "fn" QNAME sig ":"                then labels and instructions
    sig     = "(" [NAME ":" type, ...] ")" ["->" type]                          without "->" the result is unit
    label   = NAME ":" end of line
    instr   = [NAME [":" type] "="] OPCODE [operands] [attributes]              operands as `mir/ops.py` says, separated by ","
    operand = ["move"] place | literal
    place   = (NAME | "@" NAME) {"." (NAME | INDEX) | "[" operand "]"}
    args    = "(" [operand, ...] ")"            named = "(" [NAME ":" operand, ...] ")"
    if      = "if" operand "then" NAME "else" NAME
    switch  = "switch" operand "[" [literal ":" NAME, ...] "]" "else" NAME
    invoke  = "invoke" QNAME args "then" NAME "unwind" NAME "(" NAME "," NAME ")"
    attributes = "{" NAME ":" (integer | NAME | text), ... "}"                  internal operations only
    type    = base {"?"}        base = NAME | "[" type [";" n] "]" | "{" type ":" type "}" | "ptr" "<" type ">"
            | "(" type ")" | "(" type "," [type, ...] ")" | "fn" "(" [type, ...] ")" ["->" type]
    literal = ["-"] number [suffix] | ["-"] ("inf" | "inff32") | "nan" | "nanf32" | "true" | "false" | "nil" | 'c' | "text"
    number  = digits | "0x" hex digits | digits ["." digits] ["e" ["+" | "-"] digits]      1 is i64, 1.5 is f64; 1i32 255u8 0x1f 1.5f32 1f32
    escapes = \\n \\t \\r \\0 \\" \\' \\\\ \\u{1 to 6 hex digits}
    NAME    = letter or "_", then letters, marks, digits, "_", "$"; brought to NFC; "$" only in names made by passes     QNAME = NAME ["." NAME]

The first token decides what a line is: an item keyword; `NAME :` at the end of a line is a label; `NAME :` or `NAME =` starts an assignment;
anything else is an opcode. Indentation means nothing. Item keywords, `true false nil inf nan inff32 nanf32 move` are reserved; opcodes are not.
In `switch x [0: L]` the bracket opens the cases when ":" or "]" follows what stands first in it.

The parser recovers at the next line, so one run reports several errors; it stops after `MAX_ERRORS`. Whatever the input, the result is a module or a
`ParseError`. It keeps missing annotations missing and checks nothing that needs a second line: names, types and control flow are `resolve`'s and
`verify`'s. Comments and single blank lines are trivia of the line that follows; those inside a line continued after a comma move above it.

`parse_text(format_text(m)) == m`, and formatting twice changes nothing. (A `nil` that `resolve` gave a type is written `nil`, which reads back
without one.)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as _fresh
from typing import NoReturn

from .diagnostics import Diagnostic, ParseError, Reporter, Span
from .examples import EXAMPLES
from .lexer import (
    ESCAPES, FLOAT_WORDS, ITEM_KEYWORDS, LITERAL_WORDS, MAX_BAD_LINES, MAX_DEPTH, MAX_ERRORS, MAX_FIELD, MAX_LENGTH, MAX_SOURCE, NEW_LINE, RESERVED, TYPE_WORDS,
    Lexer, LineError, Token, close_word, collapsed, is_name, name_problem, short,
)  # fmt: skip
from .model import (
    NO_TRIVIA, Block, Const, EnumDef, Extern, FieldHop, Function, Global, Hop, IndexHop, Instruction, Module, Operand, Param, Place, StructDef, Trivia,
    Variant, const,
)  # fmt: skip
from .ops import OPS, USER_OPS, Opcode
from .printer import FORMS, format_const, format_instruction, format_item, format_operand, format_text, nearest_f32, usage
from .types import (
    CHAR, F64, I64, NUMBERS, PRIMITIVES, TEXT, UNIT, Array, Dict, FixedArray, Fn, Named, Option, Ptr, Tuple, Type, format_type, integer_range, is_float,
)  # fmt: skip

__all__ = [
    "RESERVED", "TYPE_WORDS", "format_const", "format_instruction", "format_item", "format_operand", "format_text", "format_type", "is_name", "parse_text",
    "parse_type", "usage",
]  # fmt: skip

HINTS = {
    "return": "ret", "br": "goto", "jump": "goto", "jmp": "goto", "branch": "if", "mod": "rem", "xor": "bit_xor", "set": "copy", "mov": "copy",
    "length": "len", "append": "push", "panic": "abort", "cmp": "eq", "struct_new": "new", "index": "index_get", "getfield": "get_field",
    "setfield": "set_field", "match": "switch", "int": "cast", "float": "cast", "ad": "add", "plus": "add", "minus": "sub", "times": "mul", "for": "goto",
    "while": "goto",
}  # fmt: skip
"""Operations as people write them who come from elsewhere."""
ITEM_HINTS = {
    "def": "fn", "func": "fn", "fun": "fn", "function": "fn", "define": "fn", "proc": "fn", "record": "struct", "type": "struct",
}  # fmt: skip
OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "rem", "<": "lt", ">": "gt", "&": "bit_and", "|": "bit_or", "^": "bit_xor"}

COMPARISONS = {"<": "lt", ">": "gt", "=": "eq", "!": "ne"}

_NUMBER = re.compile(r"(?:0[xX](?P<hex>[0-9a-fA-F]*+)|(?P<digits>[0-9]++)(?P<fraction>\.[0-9]++)?(?P<exponent>[eE][+-]?[0-9]++)?)(?P<suffix>.*+)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u\{(?P<hex>[^}]*+)\}|(?P<one>.))", re.DOTALL)
_SUFFIXES: dict[str, Type] = {t.name: t for t in NUMBERS}


@dataclass(slots=True)
class _Open:
    """The item whose lines are being read."""

    keyword: str
    name: str = ""
    span: Span | None = None
    trivia: Trivia = NO_TRIVIA
    params: tuple[Param, ...] = ()
    result: Type = UNIT
    fields: list[Param] = _fresh(default_factory=list)
    variants: list[Variant] = _fresh(default_factory=list)
    blocks: list[tuple[str, Span, Trivia, list[Instruction]]] = _fresh(default_factory=list)
    complained: bool = False


@dataclass(slots=True)
class _Parts:
    """The operands of an instruction, as far as they are read."""

    args: list[Operand] = _fresh(default_factory=list)
    name: str | None = None
    field: str | int | None = None
    type: Type | None = None
    message: str | None = None
    fields: list[str] = _fresh(default_factory=list)
    labels: list[str] = _fresh(default_factory=list)
    cases: list[Const] = _fresh(default_factory=list)
    unwind: tuple[str, ...] = ()
    attributes: dict[str, object] = _fresh(default_factory=dict)


class _Parser(Lexer):
    """Reads a source into the lists of a module."""

    def __init__(self, source: str, name: str, internal: bool) -> None:
        super().__init__(source, name, Reporter(limit=MAX_ERRORS))
        self.internal = internal
        self.module_name = ""
        self.module_span: Span | None = None
        self.module_trivia = NO_TRIVIA
        self.types: list[StructDef | EnumDef] = []
        self.globals: list[Global] = []
        self.externs: list[Extern] = []
        self.functions: list[Function] = []
        self.open: _Open | None = None
        self.header = ""
        self.complained_outside = False

    def module(self) -> Module:
        """Read every line; return the module, meaningful only if nothing was reported."""
        bad_lines = 0
        while len(self.reporter.found) < MAX_ERRORS and bad_lines < MAX_BAD_LINES:
            try:
                if not self.next_line():
                    break
                self._line()
            except LineError:
                bad_lines += 1
                self._after_error()
                self.recover()
        else:
            self.reporter.found[-1] = _stopped(self.reporter.found[-1])
        self._close()
        ending = Trivia(collapsed(self.before)) if any(self.before) else NO_TRIVIA
        return Module(tuple(self.types), tuple(self.globals), tuple(self.externs), tuple(self.functions), self.module_name, self.module_span,
                      self.module_trivia, ending)  # fmt: skip

    def _after_error(self) -> None:
        """If the header of an item could not be read, still read its lines, for their own errors and without complaints about the missing item."""
        keyword, self.header = self.header, ""
        if not self.is_row_readable:
            match = NEW_LINE.match(self.rows[self.row])
            keyword = keyword or (match["item"] if match and match["item"] else "")
        if keyword:
            self._close()
            self.open = _Open(keyword, complained=True) if keyword in _LINES else None
        if self.open is None:
            self.complained_outside = True

    # Lines

    def _line(self) -> None:
        token = self.current
        if token.kind == "name" and token.text in ITEM_KEYWORDS:
            self._close()
            self.header = token.text
            _ITEMS[token.text](self)
            self.header = ""
        elif self.open is not None:
            _LINES[self.open.keyword](self)
        else:
            self._outside()

    def _outside(self) -> None:
        token = self.current
        if self.complained_outside:
            raise LineError
        if token.kind != "name":
            self.unexpected("an item such as `fn main():`")
        close = close_word(token.text, ITEM_HINTS, ITEM_KEYWORDS)
        self.fail(
            "E0013",
            f"`{short(token.text)}` stands outside every item",
            help=f"did you mean `{close}`?" if close else "a program starts with an item such as `fn main():`",
        )

    def _close(self) -> None:
        """Finish the item whose lines were read."""
        item, self.open = self.open, None
        self.complained_outside = False
        if item is None:
            return
        if item.keyword == "enum":
            self.types.append(EnumDef(item.name, tuple(item.variants), item.span, item.trivia))
        elif item.keyword != "fn":
            self.types.append(StructDef(item.name, tuple(item.fields), item.keyword == "class", item.span, item.trivia))
        else:
            if not item.blocks and not item.complained:
                self.reporter.error(
                    "E0015", f"function {short(item.name)} has no body", item.span, help="write a label such as `entry:` and instructions below it"
                )
            blocks = tuple(Block(label, tuple(instructions), span, trivia) for label, span, trivia, instructions in item.blocks)
            self.functions.append(Function(item.name, item.params, item.result, blocks, item.span, item.trivia))

    def _module_item(self) -> None:
        keyword = self.advance()
        token = self.current
        name = self.name_token("a name for the module")
        if self.module_name:
            self.fail("E0016", "the module has a name already", keyword)
        trivia = self.end_line()
        self.module_name, self.module_span, self.module_trivia = name, self.span(token), trivia

    def _type_item(self) -> None:
        item = _Open(self.advance().text)
        token = self.current
        name = self.name_token(f"a name for the {item.keyword}")
        self.expect(":")
        item.trivia = self.end_line()
        item.name, item.span = name, self.span(token)
        self.open = item

    def _global_item(self) -> None:
        self.advance()
        token = self.current
        name = self.name_token("a name for the global")
        self.expect(":")
        t = self.type()
        init = self.literal() if self.accept("=") else None
        trivia = self.end_line()
        self.globals.append(Global(name, t, init, self.span(token), trivia))

    def _extern_item(self) -> None:
        self.advance()
        self.expect_word("fn")
        token = self.current
        name = self.qualified_name("a name for the extern")
        span = self.span(token, self.previous)
        params, variadic = self._params(may_vary=True)
        result = self.type() if self.accept("->") else UNIT
        if self.current.kind == ":":
            self.unexpected("the end of the line", help="an extern has no body")
        trivia = self.end_line()
        self.externs.append(Extern(name, params, result, variadic, span, trivia))

    def _function_item(self) -> None:
        self.advance()
        token = self.current
        item = _Open("fn", self.qualified_name("a name for the function"))
        item.span = self.span(token, self.previous)
        item.params, _ = self._params(may_vary=False)
        item.result = self.type() if self.accept("->") else UNIT
        self.expect(":")
        item.trivia = self.end_line()
        self.open = item

    def _params(self, may_vary: bool) -> tuple[tuple[Param, ...], bool]:
        """Read `(a: A, b: B)`, for an extern also `(a: A, ...)`."""
        params: list[Param] = []
        self.expect("(")
        while self.current.kind != ")":
            if self.current.kind == "...":
                if not may_vary:
                    self.fail("E0010", "only an extern may end in `...`")
                self.advance()
                self.expect(")")
                return tuple(params), True
            params.append(self._param())
            if self.current.kind != ")":
                self.expect(",", "`,` or `)`")
        self.advance()
        return tuple(params), False

    def _param(self) -> Param:
        token = self.current
        name = self.name_token("a name")
        if self.current.kind in (",", ")"):
            self.unexpected("`:`", help=f"a parameter has a type: `{short(name)}: f64`")
        self.expect(":")
        t = self.type()
        return Param(name, t, self.span(token, self.previous))

    def _field_line(self) -> None:
        item = self.open
        assert item is not None
        token = self.current
        name = self.name_token("a field such as `value: f64`")
        self.expect(":")
        t = self.type()
        span = self.span(token, self.previous)
        item.fields.append(Param(name, t, span, self.end_line()))

    def _variant_line(self) -> None:
        item = self.open
        assert item is not None
        token = self.current
        name = self.name_token("a variant such as `Circle(r: f64)`")
        fields = self._params(may_vary=False)[0] if self.current.kind == "(" else ()
        item.variants.append(Variant(name, fields, self.span(token), self.end_line()))

    def _function_line(self) -> None:
        item = self.open
        assert item is not None
        first = self.current
        if first.kind != "name":
            self.unexpected("a label or an instruction")
        self.advance()
        dest: str | None = None
        dest_type: Type | None = None
        word = first
        if self.current.kind == ":":
            self.advance()
            if self.current.kind == "end":
                label = self.check_name(first)
                item.blocks.append((label, self.span(first), self.end_line(), []))
                return
            dest = self.check_name(first)
            dest_type = self.type()
            self.expect("=")
            word = self._opcode_word()
        elif self.current.kind == "=":
            dest = self.check_name(first)
            self.advance()
            word = self._opcode_word()
        if not item.blocks:
            if item.complained:
                item.blocks.append(("", self.span(first), NO_TRIVIA, []))
            else:
                item.complained = True
                self.reporter.error(
                    "E0013", "an instruction stands before the first label", self.span(first), help="begin the function with a label such as `entry:`"
                )
                item.blocks.append(("", self.span(first), NO_TRIVIA, []))
        item.blocks[-1][3].append(self._instruction(first, word, dest, dest_type))

    def _opcode_word(self) -> Token:
        """Return the word behind `=`, which must be an operation."""
        token = self.current
        if token.kind in ("number", "text", "char", "-") or (token.kind == "name" and token.text in LITERAL_WORDS):
            self.unexpected("an operation", help="a constant is assigned by `const`: `x = const 1`")
        if token.kind == "@":
            self.unexpected("an operation", help="a global is read by `load_global` or `copy`")
        if token.kind != "name":
            self.unexpected("an operation")
        return self.advance()

    # Instructions

    def _instruction(self, first: Token, word: Token, dest: str | None, dest_type: Type | None) -> Instruction:
        row = OPS.get(word.text)
        if row is None:
            self._unknown(word, dest)
        if row.internal and not self.internal:
            self.fail("E0012", f"`{row.name}` is an internal operation, made by passes only", word)
        parts = _Parts()
        pieces = FORMS[row.name]
        for index, piece in enumerate(pieces):
            if index and not self.accept(","):
                if self.current.kind in ("end", "{"):
                    self._wrong_count(row, word)
                self.unexpected("`,`", help=self._nested(self.previous) or f"it is written `{usage(row.name)}`")
            if self.current.kind == "end" and piece not in ("v*", "v?"):
                self._wrong_count(row, word)
            _PIECES[piece](self, parts)
        if self.current.kind == "{" and self.internal:
            self._attributes(parts)
        if self.current.kind == "," or (not pieces and self.current.kind in ("name", "number", "text", "char", "@", "-")):
            self._wrong_count(row, self.current)
        if self.current.kind != "end" and parts.args and (help := self._nested(self.previous)):
            self.unexpected("the end of the line", help=help)
        span = self.span(first, self.previous)
        return Instruction(
            row.name, tuple(parts.args), dest, dest_type, parts.name, parts.field, parts.type, parts.message, tuple(parts.fields), tuple(parts.labels),
            tuple(parts.cases), parts.unwind, tuple(sorted(parts.attributes.items())), None, span, self.end_line(),
        )  # fmt: skip

    def _nested(self, word: Token) -> str:
        """Return the help for an operation in the place of an operand, if `word` is one and goes on as if it were, else ""."""
        following = self.current
        is_begun = following.kind in ("name", "number", "text", "char", "-", "@") and following.text not in ("then", "else", "unwind")
        if word.kind != "name" or word.text not in OPS or word.row > self.first_row or not (is_begun or following.kind == "("):
            return ""
        return f"an operand is a local or a literal, not an operation; give the result a name first: `t = {EXAMPLES.get(word.text, word.text).partition('= ')[2] or word.text}`"

    def _wrong_count(self, row: Opcode, token: Token) -> NoReturn:
        self.fail(
            "E0017",
            f"`{row.name}` has {'more' if token is self.current else 'fewer'} operands here than it takes",
            token,
            help=f"it is written `{usage(row.name)}`" + (f", for example `{EXAMPLES[row.name]}`" if row.name in EXAMPLES else ""),
        )

    def _unknown(self, word: Token, dest: str | None) -> NoReturn:
        """Report a word that is not an operation, with the help that fits what follows it."""
        self.check_name(word)
        text, following = short(word.text), self.current
        close = close_word(word.text, HINTS, USER_OPS)
        if dest is None and following.kind == "name" and word.text in ("let", "var", "val", "mut"):
            help = f"an assignment starts with the name: `{short(following.text)} = const 1`"
        elif dest is None and following.kind == "name" and word.text in ITEM_HINTS:
            help = f"did you mean `{ITEM_HINTS[word.text]}`?"
        elif dest is not None and following.text in OPERATORS:
            help = f"arithmetic is written with the operation first: `{short(dest)} = {OPERATORS[following.text]} {text}, ...`"
        elif following.kind in (".", "["):
            row = short(self.line[word.start :].partition("#")[0].strip(), 60)
            help = "to write into a place use `set_field` or `index_set`" if dest is None else f"to read a place write `{short(dest)} = copy {row}`"
        elif close:
            help = f"did you mean `{close}`?"
        else:
            help = f"to assign another local write `{short(dest)} = copy {text}`" if dest is not None and following.kind == "end" else ""
        if word.text in ("for", "while"):
            help = "a loop is a block that ends in `goto head`; `ops syntax` shows one"
        self.fail("E0011", f"`{text}` is not an operation", word, help=help)

    def _value(self, parts: _Parts) -> None:
        parts.args.append(self.operand())

    def _values(self, parts: _Parts) -> None:
        if self.current.kind in ("end", "{"):
            return
        parts.args.append(self.operand())
        while self.accept(","):
            parts.args.append(self.operand())

    def _optional_value(self, parts: _Parts) -> None:
        if self.current.kind not in ("end", "{"):
            parts.args.append(self.operand())

    def _field(self, parts: _Parts) -> None:
        parts.field = self.field()

    def _label(self, parts: _Parts) -> None:
        parts.labels.append(self.name_token("a label"))

    def _type_operand(self, parts: _Parts) -> None:
        parts.type = self.type()

    def _message(self, parts: _Parts) -> None:
        if self.current.kind != "text":
            self.unexpected("a message in quotes")
        parts.message = self.text_value(self.advance())

    def _callee(self, parts: _Parts) -> None:
        parts.name = self.qualified_name("the name of a function")

    def _member(self, parts: _Parts) -> None:
        """`Variant.field` or `Enum.Variant`: the dot is needed."""
        parts.name = self.qualified_name("two names with a dot, such as `Circle.r`")
        if "." not in parts.name:
            self.unexpected("`.`")

    def _global_name(self, parts: _Parts) -> None:
        self.accept("@")
        parts.name = self.name_token("the name of a global")

    def _local_name(self, parts: _Parts) -> None:
        parts.name = self.name_token("the name of a local")

    def _arguments(self, parts: _Parts) -> None:
        self.expect("(")
        while self.current.kind != ")":
            parts.args.append(self.operand())
            if self.current.kind != ")":
                self.expect(",", "`,` or `)`")
        self.advance()

    def _named_arguments(self, parts: _Parts) -> None:
        self.expect("(")
        while self.current.kind != ")":
            parts.fields.append(self.name_token("the name of a field"))
            self.expect(":", "`:` behind the name of the field")
            parts.args.append(self.operand())
            if self.current.kind != ")":
                self.expect(",", "`,` or `)`")
        self.advance()

    def _call(self, parts: _Parts) -> None:
        self._callee(parts)
        self._arguments(parts)

    def _indirect_call(self, parts: _Parts) -> None:
        self._value(parts)
        self._arguments(parts)

    def _new(self, parts: _Parts) -> None:
        parts.name = self.name_token("the name of a struct or class")
        self._named_arguments(parts)

    def _variant(self, parts: _Parts) -> None:
        self._member(parts)
        if self.current.kind == "(":
            self._named_arguments(parts)

    def _if(self, parts: _Parts) -> None:
        self._value(parts)
        if self.current.text in COMPARISONS:
            self.unexpected("`then`", help=f"a condition is a local: `c = {COMPARISONS[self.current.text]} {short(self.previous.text)}, ...`, then `if c then ...`")
        if self.current.text != "then" and (help := self._nested(self.previous)):
            self.unexpected("`then`", help=help)
        self.expect_word("then")
        self._label(parts)
        self.expect_word("else")
        self._label(parts)

    def _switch(self, parts: _Parts) -> None:
        value, case = self._operand_before_cases()
        parts.args.append(value)
        while self.current.kind != "]":
            if case is None and self._at_place():
                self.unexpected("a constant", help=_SWITCH_HELP)
            parts.cases.append(case or self.literal())
            case = None
            self.expect(":")
            self._label(parts)
            if self.current.kind != "]":
                self.expect(",", "`,` or `]`")
        self.advance()
        if self.current.text != "else":
            self.unexpected("`else`", help=_SWITCH_HELP)
        self.advance()
        self._label(parts)

    def _operand_before_cases(self) -> tuple[Operand, Const | None]:
        """Read the operand of `switch` and "["; return it and, if it had to be read to know that the cases began, the first constant."""
        if not self._at_place():
            value = self.literal()
            self.expect("[")
            return value, None
        first = self.current
        move, name, is_global = self._root()
        hops: list[Hop] = []
        while True:
            if self.current.kind == ".":
                hops.append(self._field_hop(len(hops)))
                continue
            end = self.previous
            if self.current.kind != "[":
                self.unexpected("`[`", help=_SWITCH_HELP)
            bracket = self.advance()
            place = Place(name, tuple(hops), is_global, move, self.span(first, end))
            if self.current.kind == "]":
                return place, None
            index = self.operand(1)
            if self.current.kind == ":" and isinstance(index, Const):
                return place, index
            hops.append(self._index_hop(bracket, index, len(hops)))

    def _invoke(self, parts: _Parts) -> None:
        self._call(parts)
        self.expect_word("then")
        self._label(parts)
        self.expect_word("unwind")
        self._label(parts)
        self.expect("(")
        payload = self.name_token("a local for the payload")
        self.expect(",")
        tag = self.name_token("a local for the tag")
        self.expect(")")
        parts.unwind = (payload, tag)

    def _attributes(self, parts: _Parts) -> None:
        self.advance()
        while self.current.kind != "}":
            key = self.name_token("the name of an attribute")
            self.expect(":")
            value = self._attribute_value()
            if key == "message" and parts.message is None and isinstance(value, str):
                parts.message = value
            else:
                parts.attributes[key] = value
            if self.current.kind != "}":
                self.expect(",", "`,` or `}`")
        self.advance()

    def _attribute_value(self) -> object:
        if self.current.kind == "name" and self.current.text not in LITERAL_WORDS:
            return self.name_token("a value")
        found = self.literal()
        return found.value

    # Names, types, operands

    def check_name(self, token: Token) -> str:
        """Return the name that a name token spells, in NFC."""
        text = token.text
        if text in RESERVED:
            self.fail("E0008", f"`{text}` is a reserved word and cannot be a name", token, help=f"call it `{text}_` or something else")
        problem = name_problem(text)
        if problem is not None:
            start = token.start + problem[0]
            self.fail_at(Span(token.row + 1, start + 1, start + 2, self.name), "E0009", problem[1])
        if "$" in text and not self.internal:
            start = token.start + text.index("$")
            self.fail_at(Span(token.row + 1, start + 1, start + 2, self.name), "E0009", "`$` stands only in names made by passes")
        return text if text.isascii() else unicodedata.normalize("NFC", text)

    def name_token(self, wanted: str) -> str:
        """Return the name that stands here."""
        token = self.current
        if token.kind != "name" or (token.text in RESERVED and token.row > self.first_row):
            self.unexpected(wanted)
        name = self.check_name(token)
        self.advance()
        return name

    def qualified_name(self, wanted: str) -> str:
        """Return `NAME` or `NAME.NAME`."""
        name = self.name_token(wanted)
        if self.accept("."):
            name += "." + self.name_token("a name behind the dot")
        return name

    def field(self) -> str | int:
        """Return the name of a field or the number of a tuple element."""
        if self.current.kind != "number":
            return self.name_token("a field")
        text = self.current.text
        if not text.isdecimal():
            self.unexpected("a field")
        if len(text) > 10 or int(text) > MAX_FIELD:
            self.fail("E0007", f"no tuple has an element {short(text)}")
        self.advance()
        return int(text)

    def type(self) -> Type:
        """Return the type that stands here."""
        return self._type(0)[0]

    def _too_deep(self) -> NoReturn:
        self.fail("E0014", f"more than {MAX_DEPTH} levels of nesting", self.previous, help="name a part of it")

    def _type(self, depth: int) -> tuple[Type, int]:
        """Return a type and its height. `depth` counts the types and groups around it."""
        if depth > MAX_DEPTH:
            self._too_deep()
        token = self.current
        read = _TYPES.get(token.text if token.kind == "name" else token.kind)
        found: Type
        if read is None:
            if token.kind != "name":
                self.unexpected("a type")
            name = self.name_token("a type")
            found, height = PRIMITIVES.get(name) or Named(name), 0
        else:
            self.advance()
            found, height = read(self, depth)
        while self.current.kind == "?":
            self.advance()
            found, height = Option(found), height + 1
            if height > MAX_DEPTH:
                self._too_deep()
        if height > MAX_DEPTH:
            self._too_deep()
        return found, height

    def _array_type(self, depth: int) -> tuple[Type, int]:
        element, height = self._type(depth + 1)
        if not self.accept(";"):
            self.expect("]", "`]` or `;`")
            return Array(element), height + 1
        token = self.current
        if token.kind != "number" or not token.text.isdecimal():
            self.unexpected("the length of the array")
        digits = token.text.lstrip("0") or "0"
        if len(digits) > 19 or int(digits) > MAX_LENGTH:
            self.fail("E0007", f"an array cannot have the length {short(token.text)}")
        self.advance()
        self.expect("]")
        return FixedArray(element, int(digits)), height + 1

    def _dict_type(self, depth: int) -> tuple[Type, int]:
        key, key_height = self._type(depth + 1)
        self.expect(":")
        value, value_height = self._type(depth + 1)
        self.expect("}")
        return Dict(key, value), max(key_height, value_height) + 1

    def _types(self, depth: int) -> tuple[list[Type], int, bool]:
        """Read types up to ")"; return them, their greatest height and whether a comma stood behind the last."""
        found: list[Type] = []
        height, comma = 0, False
        while self.current.kind != ")":
            t, its_height = self._type(depth + 1)
            found.append(t)
            height, comma = max(height, its_height), False
            if self.current.kind != ")":
                self.expect(",", "`,` or `)`")
                comma = True
        self.advance()
        return found, height, comma

    def _tuple_type(self, depth: int) -> tuple[Type, int]:
        found, height, comma = self._types(depth)
        return (found[0], height) if len(found) == 1 and not comma else (Tuple(tuple(found)), height + 1)

    def _function_type(self, depth: int) -> tuple[Type, int]:
        self.expect("(")
        params, height, _ = self._types(depth)
        result, result_height = self._type(depth + 1) if self.accept("->") else (UNIT, 0)
        return Fn(tuple(params), result), max(height, result_height) + 1

    def _pointer_type(self, depth: int) -> tuple[Type, int]:
        self.expect("<")
        pointee, height = self._type(depth + 1)
        self.expect(">")
        return Ptr(pointee), height + 1

    def _at_place(self) -> bool:
        return self.current.kind == "@" or (self.current.kind == "name" and self.current.text not in LITERAL_WORDS)

    def _root(self) -> tuple[bool, str, bool]:
        """Read the start of a place: (move, name, is_global)."""
        move = self.current.text == "move" and self.current.kind == "name"
        if move:
            self.advance()
        is_global = self.accept("@")
        return move, self.name_token("the name of a global" if is_global else "a value"), is_global

    def _field_hop(self, count: int) -> FieldHop:
        if count >= MAX_DEPTH:
            self._too_deep()
        self.advance_to_index()
        token = self.current
        return FieldHop(self.field(), self.span(token))

    def _index_hop(self, bracket: Token, index: Operand, count: int) -> IndexHop:
        """Finish `[index]`."""
        if count >= MAX_DEPTH:
            self._too_deep()
        self.expect("]")
        return IndexHop(index, self.span(bracket, self.previous))

    def operand(self, depth: int = 0) -> Operand:
        """Return the operand that stands here."""
        if depth > MAX_DEPTH:
            self._too_deep()
        if not self._at_place():
            return self.literal()
        first = self.current
        move, name, is_global = self._root()
        hops: list[Hop] = []
        while True:
            if self.current.kind == ".":
                hops.append(self._field_hop(len(hops)))
            elif self.current.kind == "[":
                bracket = self.advance()
                hops.append(self._index_hop(bracket, self.operand(depth + 1), len(hops)))
            else:
                return Place(name, tuple(hops), is_global, move, self.span(first, self.previous))

    # Literals

    def literal(self) -> Const:
        """Return the constant that stands here."""
        first = self.current
        if first.kind == "-":
            self.advance()
            if self.current.kind == "name" and self.current.text in ("inf", "inff32"):
                t = FLOAT_WORDS[self.advance().text].type
                assert t is not None
                return const(t, float("-inf"), self.span(first, self.previous))
            if self.current.kind == "name" and self.current.text in FLOAT_WORDS:
                self.unexpected("a number", help="nan has no sign")
            if self.current.kind != "number":
                self.unexpected("a number")
        if self.current.kind == "number":
            return self._number(first, self.advance())
        if first.kind == "text":
            self.advance()
            return Const(TEXT, self.text_value(first), self.span(first))
        if first.kind == "char":
            self.advance()
            value = self.text_value(first)
            if len(value) != 1:
                self.fail("E0005", f"a char holds one code point, this one {len(value)}", first,
                          help="a text stands in double quotes" if value else "write '\\'' for the quote itself")  # fmt: skip
            return Const(CHAR, ord(value), self.span(first))
        if first.kind == "name" and first.text in LITERAL_WORDS:
            word = LITERAL_WORDS[self.advance().text]
            return Const(word.type, word.bits, self.span(first))
        self.unexpected("a value")

    def text_value(self, token: Token) -> str:
        """Return what a text or char token means."""
        body = token.text[1:-1]
        if "\\" not in body:
            return body

        def meaning(match: re.Match[str]) -> str:
            digits, one = match["hex"], match["one"]
            if digits is None and one in ESCAPES:
                return ESCAPES[one]
            start = token.start + 1 + match.start()
            span = Span(token.row + 1, start + 1, start + 1 + len(match.group()), self.name)
            if digits is None:
                self.fail_at(span, "E0004", f"unknown escape `{match.group()}`", help="there are \\n \\t \\r \\0 \\\" \\' \\\\ and \\u{...}")
            if not re.fullmatch(r"[0-9a-fA-F]{1,6}", digits):
                self.fail_at(span, "E0004", "\\u{...} holds 1 to 6 hexadecimal digits")
            code = int(digits, 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                self.fail_at(span, "E0004", f"U+{code:04X} is not a Unicode character")
            return chr(code)

        return _ESCAPE.sub(meaning, body)

    def _number(self, first: Token, token: Token) -> Const:
        """Return the constant of a number token; `first` is the token or the "-" before it."""
        match = _NUMBER.fullmatch(token.text)
        assert match is not None, "every number token starts with a digit"
        negative, span = first is not token, self.span(first, token)
        is_real = match["fraction"] is not None or match["exponent"] is not None
        suffix = match["suffix"]
        t = _SUFFIXES.get(suffix) if suffix else F64 if is_real else I64
        if t is None or match["hex"] == "":
            names = ", ".join(_SUFFIXES)
            self.fail_at(span, "E0006", f"`{short(token.text)}` is not a number", help=f"a suffix is one of {names}" if suffix else "digits are missing")
        if is_float(t) and match["hex"] is None:
            return self._float(t, token.text[: len(token.text) - len(suffix)], negative, span)
        if is_real or is_float(t):
            self.fail_at(span, "E0006", f"`{short(token.text)}` is not a number", help="a fraction, an exponent or a float suffix needs a decimal float")
        low, high = integer_range(t)
        digits = (match["hex"] if match["hex"] is not None else match["digits"]).lstrip("0") or "0"
        value = int(digits, 16 if match["hex"] is not None else 10) if len(digits) <= 20 else high + 2
        if not low <= (-value if negative else value) <= high:
            help = f"{format_type(t)} holds {low} to {high}" + ("; a type is chosen by a suffix, as in 1u64" if not suffix else "")
            self.fail_at(span, "E0007", f"`{'-' if negative else ''}{short(token.text)}` is out of the range of {format_type(t)}", help=help)
        return const(t, -value if negative else value, span)

    def _float(self, t: Type, text: str, negative: bool, span: Span) -> Const:
        value = float(text) if t == F64 else nearest_f32(text)
        if value == float("inf"):
            self.fail_at(span, "E0007", f"`{short(text)}` is out of the range of {format_type(t)}", help="infinity is written inf, or inff32")
        return const(t, -value if negative else value, span)


_SWITCH_HELP = f"it is written `{EXAMPLES['switch']}`"
_TYPES: dict[str, Callable[[_Parser, int], tuple[Type, int]]] = {
    "[": _Parser._array_type, "{": _Parser._dict_type, "(": _Parser._tuple_type, "fn": _Parser._function_type, "ptr": _Parser._pointer_type,
}  # fmt: skip
_ITEMS: dict[str, Callable[[_Parser], None]] = {
    "module": _Parser._module_item, "struct": _Parser._type_item, "class": _Parser._type_item, "enum": _Parser._type_item, "global": _Parser._global_item,
    "extern": _Parser._extern_item, "fn": _Parser._function_item,
}  # fmt: skip
_LINES: dict[str, Callable[[_Parser], None]] = {
    "struct": _Parser._field_line, "class": _Parser._field_line, "enum": _Parser._variant_line, "fn": _Parser._function_line,
}  # fmt: skip
_PIECES: dict[str, Callable[[_Parser, _Parts], None]] = {
    "v": _Parser._value, "p": _Parser._value, "v*": _Parser._values, "v?": _Parser._optional_value, "f": _Parser._field, "l": _Parser._label,
    "t": _Parser._type_operand, "m": _Parser._message, "n": _Parser._callee, "e": _Parser._member, "g": _Parser._global_name, "x": _Parser._local_name,
    "n(v*)": _Parser._call, "n(f*)": _Parser._new, "e(f*)": _Parser._variant, "v(v*)": _Parser._indirect_call, "if": _Parser._if,
    "switch": _Parser._switch, "invoke": _Parser._invoke,
}  # fmt: skip


def _stopped(last: Diagnostic) -> Diagnostic:
    return Diagnostic(last.code, last.message, last.span, last.label, last.help, (*last.notes, ("the parser gave up here", None)))


def parse_text(source: str, name: str = "", internal: bool = False) -> Module:
    """Return the module that `source` spells, unresolved; `name` (a cell or file) becomes the source of every span.

    `internal` admits internal operations and names with "$". Raises: ParseError, with every error found.
    """
    if len(source) > MAX_SOURCE:
        raise ParseError([Diagnostic("E0018", f"the source has {len(source)} characters; at most {MAX_SOURCE} are read")])
    parser = _Parser(source, name, internal)
    module = parser.module()
    if parser.reporter.found:
        raise ParseError(parser.reporter.errors(), {name: source})
    return module


def parse_type(text: str) -> Type:
    """Return the type that `text` spells. Raises: ParseError."""
    parser = _Parser(text, "", True)
    try:
        if not parser.next_line():
            parser.unexpected("a type")
        found = parser.type()
        parser.end_line()
        if parser.next_line():
            parser.unexpected("the end of the type")
    except LineError:
        raise ParseError(parser.reporter.errors(), {"": text}) from None
    return found

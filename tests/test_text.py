"""The text form: what is written comes back, errors point at their place, and no input breaks the parser."""

from __future__ import annotations

import math
import random
import struct
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import SAMPLES

from simple_magic.mir.diagnostics import Diagnostic, ParseError, Span
from simple_magic.mir.lexer import MAX_ERRORS, MAX_NAME
from simple_magic.mir.model import Block, Const, Function, Global, Instruction, Module, Param, Place, StructDef, Trivia, const
from simple_magic.mir.ops import OPS, USER_OPS
from simple_magic.mir.text import (
    RESERVED,
    format_const,
    format_instruction,
    format_item,
    format_operand,
    format_text,
    format_type,
    is_name,
    parse_text,
    parse_type,
    usage,
)  # fmt: skip
from simple_magic.mir.types import (
    BOOL,
    CHAR,
    F32,
    F64,
    I8,
    I64,
    INTEGERS,
    PRIMITIVES,
    TEXT,
    U64,
    UNIT,
    Array,
    Dict,
    FixedArray,
    Fn,
    Named,
    Option,
    Ptr,
    Tuple,
    Type,
    integer_range,
)  # fmt: skip
from simple_magic.runtime import library

ROOT = Path(__file__).resolve().parent.parent


def errors(source: str, internal: bool = False) -> tuple[Diagnostic, ...]:
    """Return what the parser says about a source that it must refuse."""
    with pytest.raises(ParseError) as caught:
        parse_text(source, "cell", internal)
    assert str(caught.value)
    return caught.value.diagnostics


def body(line: str) -> str:
    return f"fn f():\ne:\n  {line}\n"


def parse_line(line: str, internal: bool = False) -> Instruction:
    """Return the one instruction that `line` spells."""
    return parse_text(body(line), "", internal).functions[0].blocks[0].instructions[0]


def parse_literal(text: str) -> Const:
    operand = parse_line(f"x = const {text}").args[0]
    assert isinstance(operand, Const)
    return operand


def read(source: str) -> Module | None:
    """Parse; whatever comes must be a module that survives printing, or a ParseError that can be shown."""
    try:
        module = parse_text(source)
    except ParseError as error:
        assert error.diagnostics and all(d.code.startswith("E00") for d in error.diagnostics)
        str(error)
        return None
    text = format_text(module)
    again = parse_text(text)
    assert again == module
    assert format_text(again) == text
    return module


# Round trips


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_canonical(name: str) -> None:
    module = parse_text(SAMPLES[name])
    assert format_text(module) == SAMPLES[name]
    assert parse_text(format_text(module)) == module


def test_the_samples_hold_every_user_opcode() -> None:
    used = {i.op for text in SAMPLES.values() for f in parse_text(text).functions for b in f.blocks for i in b.instructions}
    assert used == set(USER_OPS)


@pytest.mark.parametrize("name", SAMPLES)
def test_without_comments_the_program_is_the_same(name: str) -> None:
    module = parse_text(SAMPLES[name])
    bare = format_text(module, comments=False)
    assert parse_text(bare) == module
    if name != "syntax":
        return
    assert "# above" not in bare and "# behind" not in bare


FILES = sorted((ROOT / "tests" / "filetests").rglob("*.mir"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_filetest_comes_back(path: Path) -> None:
    source = path.read_text("utf-8")
    assert read(source) is not None or "error[E00" in source


@pytest.mark.parametrize("name", library.FILES)
def test_the_runtime_comes_back(name: str) -> None:
    module = parse_text(library.source(name), internal=True)
    text = format_text(module)
    assert parse_text(text, internal=True) == module
    assert format_text(parse_text(text, internal=True)) == text


OPERAND_BY_PIECE: dict[str, str] = {
    "v": "a.b[0]", "p": "@g.c[x].0", "v*": "a, 1, \"t\"", "v?": "a", "f": "field", "l": "there", "t": "{i64: [f64; 3]}", "m": '"say \\"no\\""', "n": "T.f",
    "e": "V.r", "g": "@g", "x": "a", "n(v*)": "T.f(a, 1.5)", "n(f*)": "T(x: 1, y: a)", "e(f*)": "S.V(r: nil)", "v(v*)": "fs[0](a, b)",
    "if": "a then x else y", "switch": "a[0] [1: x, 2: y] else z", "invoke": "f(a) then x unwind y(p, t)",
}  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_every_opcode_comes_back(op: str) -> None:
    operands = ", ".join(OPERAND_BY_PIECE[piece] for piece in OPS[op].form.split(", ") if piece)
    line = f"{op} {operands}".strip()
    message = "" if "m" in OPS[op].form else 'message: "m", '
    attributes = f'{{alias: header, {message}offset: -8, quoted: "no name", yes: true}}'
    for spelled in (line, f"x = {line}", f"x: i64? = {line}", f"{line} {attributes}"):
        assert format_instruction(parse_line(spelled, internal=True)) == spelled
    assert usage(op).split()[0] == op


def test_a_message_is_an_operand_or_an_attribute() -> None:
    assert parse_line('trap a {kind: abort, message: "m"}', internal=True) == Instruction("trap", (Place("a"),), message="m", attributes=(("kind", "abort"),))
    assert parse_line('abort "a" {message: b}', internal=True) == Instruction("abort", message="a", attributes=(("message", "b"),))


@pytest.mark.parametrize("op", [name for name, row in OPS.items() if row.internal])
def test_internal_operations_are_refused_unless_asked_for(op: str) -> None:
    (error,) = errors(body(op))
    assert (error.code, error.span) == ("E0012", Span(3, 3, 3 + len(op), "cell"))


def test_forms_that_may_be_empty() -> None:
    for line in ("array", "x: [i64] = array", "ret", "tuple", "zero", "call f()", "variant A.B"):
        assert format_instruction(parse_line(line)) == line
    assert format_instruction(parse_line("variant A.B()")) == "variant A.B"
    assert parse_line("load_global g") == parse_line("load_global @g")
    assert parse_line("switch a [] else b").labels == ("b",)
    assert parse_text("struct A:\nenum B:\n") == Module((StructDef("A", ()), *parse_text("enum B:").types))
    assert parse_text("") == Module() == parse_text("\ufeff\r\n # only a comment")


def test_the_bracket_of_switch() -> None:
    ins = parse_line("switch a[i].x[0] [0: one, 'c': two,] else three")
    assert format_operand(ins.args[0]) == "a[i].x[0]"
    assert ins.cases == (const(I64, 0), const(CHAR, "c")) and ins.labels == ("one", "two", "three")
    assert parse_line("switch a[0: one] else two").cases == (const(I64, 0),)
    assert parse_line("switch 3 [3: one] else two").args == (const(I64, 3),)
    assert parse_line("switch true [true: one] else two").args == (const(BOOL, True),)


def test_a_newline_does_not_count_after_a_comma() -> None:
    wide = parse_text("fn f(a: i64, # one\n\n  b: i64):\ne:\n  c = add a, # two\n# three\n  b # four\n  ret\n")
    assert wide == parse_text("fn f(a: i64, b: i64):\ne:\n  c = add a, b\n  ret\n")
    assert format_text(wide) == "# one\nfn f(a: i64, b: i64):\ne:\n  # two\n  # three\n  c = add a, b  # four\n  ret\n"


def test_tuple_fields_are_not_floats() -> None:
    place = parse_line("x = copy t.0.1.2[3].4").args[0]
    assert format_operand(place) == "t.0.1.2[3].4"
    assert parse_line("get_field t, 0").field == 0
    assert parse_line("x = const 0.1").args == (const(F64, 0.1),)


def test_spans() -> None:
    module = parse_text("fn T.f(self: T) -> i64:\nentry:\n\tx: i64 = add self.a[ 1 ].b, -2   # c\n", "cell")
    function = module.functions[0]
    ins = function.entry.instructions[0]
    assert function.span == Span(1, 4, 7, "cell") and function.params[0].span == Span(1, 8, 15, "cell")
    assert function.entry.span == Span(2, 1, 6, "cell") and ins.span == Span(3, 2, 32, "cell")
    place, minus_two = ins.args
    assert isinstance(place, Place) and isinstance(minus_two, Const)
    assert place.span == Span(3, 15, 28, "cell") and minus_two.span == Span(3, 30, 32, "cell")
    assert [hop.span for hop in place.hops] == [Span(3, 20, 21, "cell"), Span(3, 21, 26, "cell"), Span(3, 27, 28, "cell")]


def test_equality_ignores_positions_and_comments() -> None:
    one, two = parse_text("# c\nfn f():\n\n e:  # d\n  ret"), parse_text("fn f( ) :\ne :\nret")
    assert one == two and hash(one) == hash(two)


def test_items_keep_their_order_as_written() -> None:
    source = "fn f():\ne:\n  ret\n\nglobal g: i64\n\nclass C:\n  x: i64\n\nglobal h: i64\n"
    module = parse_text(source)
    assert format_text(module) == source
    swapped = Module(module.types, module.globals[::-1], module.externs, module.functions)
    assert parse_text(format_text(swapped)) == swapped
    bare = Module(functions=(Function("f", (), UNIT, (Block("e", (Instruction("ret"),)),)),), globals=(Global("g", I64),))
    assert format_text(bare) == "global g: i64\n\nfn f():\ne:\n  ret\n"
    assert format_item(bare.functions[0]) == "fn f():\ne:\n  ret"


def test_comments_and_blank_lines() -> None:
    messy = "\n\n#a\n\n\n\n#\n  fn f():#b\n\n\n  e:   #   c\n\n\n\n  nop\n\n\n   # d  \n  ret#\n\n\n\n# end\n\n"
    assert format_text(parse_text(messy)) == "#a\n\n#\nfn f():  #b\ne:  #   c\n  nop\n\n  # d\n  ret  #\n\n# end\n"
    together = "global a: i64\nglobal b: i64\n\n# c\nglobal c: i64\n"
    assert format_text(parse_text(together)) == together
    assert format_text(parse_text("module m # x\nglobal a: i64\nextern fn f()")) == "module m  # x\n\nglobal a: i64\n\nextern fn f()\n"


def test_a_comment_made_by_hand_stays_a_comment() -> None:
    module = Module(globals=(Global("g", I64, trivia=Trivia(("a\nfn f():", "\u202e"), "b\r\n")),))
    assert parse_text(format_text(module)) == module


def test_locals_may_be_called_like_operations_and_notation() -> None:
    assert parse_line("len = len len") == Instruction("len", (Place("len"),), "len")
    assert parse_line("add: i64 = add add, ret").dest_type == I64
    assert parse_line("if then then then else else").labels == ("then", "else")
    assert parse_text("fn f():\nret:\n  goto ret\n").functions[0].entry.label == "ret"


def test_names_are_brought_to_nfc() -> None:
    decomposed, composed = "fn e\u0301():\na\u0308:\n  goto a\u0308\n", "fn \u00e9():\n\u00e4:\n  goto \u00e4\n"
    assert parse_text(decomposed) == parse_text(composed)
    assert format_text(parse_text(decomposed)) == composed
    assert parse_text("fn हिन्दी():\ne:\n  x𝒜 = const 1\n").functions[0].name == "हिन्दी"
    assert is_name("é") and not is_name("e\u0301")
    # A text is not a name: its code points stay as they are.
    assert parse_literal('"e\u0301"').bits == "e\u0301"


@pytest.mark.parametrize("word", ["a", "_", "a1", "t$1", "größe", "len"])
def test_names(word: str) -> None:
    assert is_name(word)


@pytest.mark.parametrize("word", ["", "1a", "a.b", "a b", "$a", "a-b", "a\n", "e\u0301", "\u3164", "a\u200d", "x" * (MAX_NAME + 1), *sorted(RESERVED)])
def test_no_names(word: str) -> None:
    assert not is_name(word)


# Types


TYPES = st.recursive(
    st.sampled_from([*PRIMITIVES.values(), Named("Tensor"), Named("A")]),
    lambda inner: st.one_of(
        st.builds(Array, inner), st.builds(FixedArray, inner, st.integers(0, 2**62)), st.builds(Dict, inner, inner), st.builds(Option, inner),
        st.builds(Tuple, st.lists(inner, max_size=3).map(tuple)), st.builds(Fn, st.lists(inner, max_size=3).map(tuple), inner), st.builds(Ptr, inner),
    ),
    max_leaves=8,
)  # fmt: skip


@given(TYPES)
@settings(max_examples=300, deadline=None)
def test_types_come_back(t: Type) -> None:
    assert parse_type(format_type(t)) == t
    assert parse_text(f"global g: {format_type(t)}").globals[0].type == t


def test_types_by_example() -> None:
    assert parse_type("fn(i64) -> text?") == Fn((I64,), Option(TEXT))
    assert parse_type("(fn(i64) -> text)?") == Option(Fn((I64,), TEXT))
    assert parse_type("(i64)") == I64 and parse_type("(i64,)") == Tuple((I64,)) and parse_type("()") == Tuple(())
    assert parse_type("fn()") == Fn((), UNIT) and parse_type(" [ [ T ; 3 ] ]? # c") == Option(Array(FixedArray(Named("T"), 3)))
    for bad in ("", "[i64", "i64 i64", "{i64}", "[i64; -1]", "fn -> i64", "true", "ptr", "ptr<i64", "i64\nx", "(i64,,)"):
        with pytest.raises(ParseError):
            parse_type(bad)


# Literals


@pytest.mark.parametrize("text, expected", [
    ("1", const(I64, 1)), ("-1", const(I64, -1)), ("0", const(I64, 0)), ("-0", const(I64, 0)), ("1i8", const(I8, 1)), ("-128i8", const(I8, -128)),
    ("0x1f", const(I64, 31)), ("-0x8000000000000000", const(I64, -(2**63))), ("0xffffffffffffffffu64", const(U64, 2**64 - 1)), ("0X1Fi8", const(I8, 31)),
    ("0" * 5000 + "7", const(I64, 7)), ("1.5", const(F64, 1.5)), ("1.5f32", const(F32, 1.5)), ("1f32", const(F32, 1.0)), ("1e10", const(F64, 1e10)),
    ("1E+2", const(F64, 100.0)), ("-0.0", const(F64, -0.0)), ("-0.0f32", const(F32, -0.0)), ("inf", const(F64, math.inf)), ("-inf", const(F64, -math.inf)),
    ("inff32", const(F32, math.inf)), ("-inff32", const(F32, -math.inf)), ("nan", const(F64, math.nan)), ("nanf32", const(F32, math.nan)),
    ("true", const(BOOL, True)), ("false", const(BOOL, False)), ("nil", Const(None, None)), ("'c'", const(CHAR, "c")), ("'\\''", const(CHAR, "'")),
    ("'\"'", const(CHAR, '"')), ("'\\u{1F600}'", const(CHAR, "😀")), ('"\\n\\t\\r\\0\\"\\\'\\\\"', const(TEXT, "\n\t\r\0\"'\\")), ('"# no comment"', const(TEXT, "# no comment")),
    ('"\t"', const(TEXT, "\t")), ("1e-400", const(F64, 0.0)),
])  # fmt: skip
def test_literals(text: str, expected: Const) -> None:
    found = parse_literal(text)
    assert found == expected
    assert parse_literal(format_const(found)) == found


def test_literals_that_look_alike_differ() -> None:
    spelled = ["0.0", "-0.0", "0", "false", "0.0f32", "-0.0f32", "nan", "nanf32", "'0'", '"0"', "nil", "0i8", "0u8"]
    assert len({parse_literal(text) for text in spelled}) == len(spelled)


@pytest.mark.parametrize("t", INTEGERS, ids=lambda t: t.name)
def test_the_range_of_integers(t: Type) -> None:
    low, high = integer_range(t)
    for value in (low, high):
        assert parse_literal(f"{value}{format_type(t)}").value == value
    for value in (low - 1, high + 1, 10**30, -(10**30)):
        (error,) = errors(body(f"x = const {value}{format_type(t)}"))
        assert error.code == "E0007" and str(low) in error.help and str(high) in error.help


@given(st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", bits.to_bytes(8, "little"))[0]) | st.floats())
def test_f64_comes_back(value: float) -> None:
    c = const(F64, value)
    assert parse_literal(format_const(c)) == c


@given(st.integers(0, 2**32 - 1).map(lambda bits: struct.unpack("<f", bits.to_bytes(4, "little"))[0]) | st.floats(width=32))
def test_f32_comes_back(value: float) -> None:
    c = const(F32, value)
    text = format_const(c)
    assert parse_literal(text) == c
    assert len(text.split("e")[0].strip("-0f32.").replace(".", "")) <= 12


def test_f32_is_short_and_rounds_once() -> None:
    assert format_const(const(F32, 0.1)) == "0.1f32" and format_const(const(F32, 16777216.0)) == "16777216.0f32"
    assert format_const(const(F32, 1e-45)) == "1e-45f32"
    # A hair above the middle of 1 and the next f32: through f64 it would be the middle itself, and ties go to even.
    middle = Fraction(1) + Fraction(1, 2**24)
    assert parse_literal("1.000000059604644775390625f32").value == 1.0 == float(middle - Fraction(1, 2**24))
    assert parse_literal("1.0000000596046447753906250000001f32").value == 1.0 + 2.0**-23
    assert parse_literal("1.00000017881393432617187499999f32").value == 1.0 + 2.0**-23
    largest = "340282356779733661637539395458142568447"
    assert parse_literal(f"{largest}f32").value == struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
    assert errors(body(f"x = const {largest[:-1]}8f32"))[0].code == "E0007"
    assert errors(body("x = const 1e39f32"))[0].code == "E0007"


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_texts_come_back(value: str) -> None:
    text = format_const(Const(TEXT, value))
    assert parse_literal(text).bits == value
    assert "\n" not in text and all(c.isprintable() for c in text)


@given(st.characters(exclude_categories=("Cs",)))
def test_chars_come_back(value: str) -> None:
    c = const(CHAR, value)
    assert parse_literal(format_const(c)) == c


# Errors: code and the token under the caret


@pytest.mark.parametrize("code, source, marked", [
    ("E0001", body("x = const \"a\0b\""), "\0"),
    ("E0001", body("nop # \u202e"), "\u202e"),
    ("E0001", body("x = const \"\ud800\""), "\ud800"),
    ("E0001", "fn f():\re:\n  ret", "\r"),
    ("E0001", body("nop\ufeff"), "\ufeff"),
    ("E0002", body("x = add a, %b"), "%"),
    ("E0002", body("x = copy a!"), "!"),
    ("E0003", body("x = const \"abc"), "\"abc"),
    ("E0003", body("x = const 'a"), "'a"),
    ("E0003", body("x = const \"a\\\""), "\"a\\\""),
    ("E0004", body("x = const \"a\\qb\""), "\\q"),
    ("E0004", body("x = const \"\\u{110000}\""), "\\u{110000}"),
    ("E0004", body("x = const \"\\u{d800}\""), "\\u{d800}"),
    ("E0004", body("x = const \"\\u{}\""), "\\u{}"),
    ("E0004", body("x = const \"\\u{0000001}\""), "\\u{0000001}"),
    ("E0004", body("x = const \"\\u{1\""), "\\u"),
    ("E0005", body("x = const 'ab'"), "'ab'"),
    ("E0005", body("x = const ''"), "''"),
    ("E0006", body("x = const 1abc"), "1abc"),
    ("E0006", body("x = const 0x"), "0x"),
    ("E0006", body("x = const 0xg"), "0xg"),
    ("E0006", body("x = const 1.5i32"), "1.5i32"),
    ("E0006", body("x = const 1_000"), "1_000"),
    ("E0006", body("x = const 1e"), "1e"),
    ("E0007", body("x = const 256u8"), "256u8"),
    ("E0007", body("x = const -1u8"), "-1u8"),
    ("E0007", body("x = const 9223372036854775808"), "9223372036854775808"),
    ("E0007", body("x = const 1e400"), "1e400"),
    ("E0007", body("x = copy t.99999999999"), "99999999999"),
    ("E0007", "global g: [i64; 99999999999999999999]", "99999999999999999999"),
    ("E0008", body("true = const 1"), "true"),
    ("E0008", body("goto inf"), "inf"),
    ("E0008", "global module: i64", "module"),
    ("E0008", "fn f(move: i64):\ne:\n  ret", "move"),
    ("E0009", body("a$b = const 1"), "$"),
    ("E0009", body("a\u00a0b = const 1"), "\u00a0"),
    ("E0009", body("x\u3164 = const 1"), "\u3164"),
    ("E0009", body("nop\u00a0"), "\u00a0"),
    ("E0010", body("x = add a b"), "b"),
    ("E0010", body("if c goto d"), "goto"),
    ("E0010", body("ret a b"), "b"),
    ("E0010", body("x = 3"), "3"),
    ("E0010", body("x = const -nan"), "nan"),
    ("E0010", body("variant Shape"), None),
    ("E0010", body("x = copy a."), None),
    ("E0010", body("call f(a b)"), "b"),
    ("E0010", "fn f(a: i64, ...):\ne:\n  ret", "..."),
    ("E0010", "extern fn f():", ":"),
    ("E0010", "struct S:\n  x i64", "i64"),
    ("E0010", "fn f()\ne:\n  ret", None),
    ("E0011", body("x = ad a, b"), "ad"),
    ("E0012", body("raw_load i64, p"), "raw_load"),
    ("E0013", "nop", "nop"),
    ("E0013", "fn f():\n  nop\ne:\n  ret", "nop"),
    ("E0015", "fn f():\n", "f"),
    ("E0016", "module a\nmodule b", "module"),
    ("E0017", body("x = add a"), "add"),
    ("E0017", body("x = add a, b, c"), ","),
    ("E0017", body("goto"), "goto"),
    ("E0017", body("nop 1"), "1"),
])  # fmt: skip
def test_an_error_points_at_its_token(code: str, source: str, marked: str | None) -> None:
    (error,) = errors(source)
    assert error.code == code
    assert error.span is not None
    line = source.split("\n")[error.span.line - 1]
    under = line[error.span.column - 1 : error.span.end_column - 1]
    assert under == (marked or "")
    if marked is None:
        assert (error.span.column, error.span.end_column) == (len(line) + 1, len(line) + 2)


@pytest.mark.parametrize("source, help", [
    (body("x = ad a, b"), "`add`"), (body("x = subb a, b"), "`sub`"), (body("return x"), "`ret`"), (body("x = index_gt a, b"), "`index_get`"),
    (body("x = a + b"), "x = add a, ..."), (body("x = y"), "x = copy y"), (body("x.y = 3"), "set_field"), (body("x = a[0]"), "x = copy a"),
    (body("x = 3"), "`x = const 1`"), (body("def g():"), "`fn`"), (body("let y = 3"), "`y = const 1`"), ("def g():", "`fn`"), ("strct A:", "`struct`"), (body("x = copy 'ab'"), "double quotes"),
    (body("x = @g"), "load_global"), (body("x = const 1e400"), "inf"), (body("x = const 3000000000i32"), "-2147483648 to 2147483647"),
    (body("x = add a,\n  ret x"), "comma"), (body("call f(a,\n  b c)"), "comma"), (body("set_field a, b"), "set_field place, field, value"),
        (body("ret neg x"), "give the result a name first: `t = neg a`"), (body("ret add(x, 1)"), "`t = add a, b`"), (body("x = add neg y, 1"), "`t = neg a`"),
        (body("if lt x, 0 then a else b"), "`t = lt a, b`"), (body("if b > 0 then a else b"), "`c = gt b, ...`"), (body("switch n, 0: a"), "switch a [0: yes"),
        (body("switch n [0: a, b]"), "switch a [0: yes"), (body("switch n [0: a]"), "switch a [0: yes"), (body("x = t.grad # read"), "`x = copy t.grad`"),
        ("fn f(a):", "`a: f64`"), (body("for i"), "goto head"), (body("x = add 1"), "for example `z = add a, b`"),
])  # fmt: skip
def test_help(source: str, help: str) -> None:
    assert help in errors(source)[0].help


def test_one_run_reports_every_bad_line() -> None:
    found = errors(
        'fn f(a: i64:\ne:\n  x = ad a, 1\n  y = add a, 1\n  ret "\n\nstruct S:\n  a: \n  b: i64\n  c: [i64\n\nglobal g i64\nfn ok():\ne:\n  ret 1 2\n'
    )
    assert [(e.code, e.span.line) for e in found if e.span] == [
        ("E0010", 1), ("E0011", 3), ("E0003", 5), ("E0010", 8), ("E0010", 10), ("E0010", 12), ("E0010", 15),
    ]  # fmt: skip


def test_a_comma_too_many_costs_one_line() -> None:
    found = errors("fn f(a: i64):\ne:\n  x = add a,\nfn g(:\ne:\n  y = add a, 1,\n  z = const 1\n  goto\n")
    assert [(e.code, e.span.line) for e in found if e.span] == [("E0010", 4), ("E0010", 4), ("E0017", 6), ("E0017", 8)]


def test_an_unreadable_header_does_not_blame_its_body() -> None:
    for header in ("fn f(:", "fn f(a: i64", "fn \0():", "fn true():", "fn f(a: i64,\n  b: i64:"):
        (error,) = errors(f"struct S:\n  a: i64\n{header}\ne:\n  x = const 1\n  ret\n")
        assert error.span is not None and error.span.line in (3, 4)
    assert len(errors("nop\nnop\nret\nfn f():\n  nop\n  nop\ne:\n  ret\nglobal g = 3\nnop\n")) == 3


def test_the_parser_gives_up_after_many_errors() -> None:
    found = errors("fn f():\ne:\n" + "  x = ad a, b\n" * 1000)
    assert len(found) == MAX_ERRORS and "gave up" in found[-1].notes[-1][0]
    (outside,) = errors("nop\n" * 100_000)
    assert "gave up" in outside.notes[-1][0]


def test_the_first_line_of_a_message_names_the_place() -> None:
    text = str(errors_of(body("x = ad a, b")))
    assert text.split("\n")[0] == "error[E0011]: `ad` is not an operation (cell:3:7)"
    assert "3 |   x = ad a, b\n  |       ^^" in text


def errors_of(source: str) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_text(source, "cell")
    return caught.value


# Hostile input


def test_line_ends_tabs_and_the_byte_order_mark() -> None:
    plain = SAMPLES["syntax"]
    module = parse_text(plain)
    for variant in (plain.replace("\n", "\r\n"), "\ufeff" + plain, plain.replace("  ", "\t"), plain.rstrip("\n"), plain.replace("\n", " \t\n")):
        assert parse_text(variant) == module
        assert format_text(parse_text(variant)) == plain
    (error,) = errors("\ufeffnop")
    assert error.span == Span(1, 2, 5, "cell")


def test_a_caret_counts_code_points() -> None:
    (error,) = errors('fn f():\ne:\n  x = call g("𝄞é", ad?)\n')
    assert error.span == Span(3, 22, 23, "cell")


def test_long_names() -> None:
    name = "n" * 10_000
    module = read(f"fn {name}({name}: i64) -> i64:\n{name}:\n  ret {name}\n")
    assert module is not None and module.functions[0].name == name
    for line in (f"{name} a, b", f"x = {name}", f"goto {name} {name}", f"x = const {'1' * 10_000}{name}", f"x = copy {'n' * (MAX_NAME + 1)}"):
        message = str(errors_of(body(line)))
        assert len(message) < 2000
    # Canonical ordering of marks is quadratic: such a name is refused before it starts.
    begin = time.perf_counter()
    assert errors(body("x" + "\u0301\u0323" * 30_000 + " = const 1"))[0].code == "E0009"
    assert time.perf_counter() - begin < 2


def test_huge_numbers() -> None:
    digits = "1" * 100_000
    begin = time.perf_counter()
    for literal in (digits, f"-{digits}", f"{digits}u64", f"0x{digits}", f"{digits}.5", f"{digits}f32", f"1e{digits}", f"1{digits}.0f32"):
        assert errors(body(f"x = const {literal}"))[0].code == "E0007", literal[:20]
    assert parse_literal(f"0.{digits}f32").value == struct.unpack("<f", struct.pack("<f", 1 / 9))[0]
    assert parse_literal(f"1e-{digits}").value == 0.0 == parse_literal(f"1e-{digits}f32").value
    assert parse_literal(f"0.{'0' * 100_000}1e100001").value == 1.0
    assert errors(body(f"x = get_field t, {digits}"))[0].code == "E0007"
    assert errors(f"global g: [i64; {digits}]")[0].code == "E0007"
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize("opening, inside, closing", [
    ("[", "i64", "]"), ("[", "i64", "; 3]"), ("{i64: ", "i64", "}"), ("(", "i64", ",)"), ("(", "i64", ")"), ("fn(", "", ")"), ("fn() -> ", "i64", ""),
    ("ptr<", "i64", ">"), ("", "i64", "?"), ("[", "i64", "]?"), ("(", "i64", "?)"),
])  # fmt: skip
def test_deep_types(opening: str, inside: str, closing: str) -> None:
    assert parse_type(opening * 30 + inside + closing * 30)
    for depth in (100, 100_000):
        (error,) = errors(f"global g: {opening * depth}{inside}{closing * depth}")
        assert error.code == "E0014"


def test_depth_adds_up_over_groups_and_options() -> None:
    t = "i64" + "?" * 60
    for _ in range(5):
        t = f"[{t}]" + "?" * 30
    assert errors(f"global g: {t}")[0].code == "E0014"
    assert parse_type(f"[i64{'?' * 63}]")
    assert errors(f"global g: [i64{'?' * 64}]")[0].code == "E0014"


def test_deep_places() -> None:
    assert read(body(f"x = copy {'a[' * 60}0{']' * 60}")) is not None
    for line in (f"x = copy {'a[' * 100_000}0", f"x = copy a{'.b' * 100_000}", f"x = copy a{'[0]' * 100_000}", f"switch a{'[0]' * 100_000} [] else b"):
        (error,) = errors(body(line))
        assert error.code == "E0014"


@pytest.mark.parametrize("noise", [
    "(" * 10_000_000, "\0" * 10_000_000, "1e5\n" * 2_500_000, "x\n" * 5_000_000, "a,\n" * 3_300_000, '"\\"' * 3_000_000, "\"" * 9_999_999, "'" * 9_999_999,
    body("x = add " + "a[" * 5_000_000), body("x = const " + "[" * 10_000_000), "fn f():\ne:\n" + "  x = const [\n" * 700_000, "a\u0301" * 5_000_000,
    "fn " * 3_000_000, "fn f(\n" * 1_500_000, "\u202e\n" * 5_000_000, "\ud800" * 10_000_000, "}\n" * 5_000_000,
], ids=lambda noise: repr(noise[:12]))  # fmt: skip
def test_ten_megabytes_of_noise(noise: str) -> None:
    begin = time.perf_counter()
    found = errors(noise)
    assert 1 <= len(found) <= MAX_ERRORS
    assert time.perf_counter() - begin < 20


def test_a_source_has_a_largest_size() -> None:
    (error,) = errors(" " * (64 * 1024 * 1024 + 1))
    assert error.code == "E0018"


def test_random_bytes() -> None:
    generator = random.Random(1)
    for _ in range(300):
        read(generator.randbytes(200).decode("latin-1"))
        read(generator.randbytes(200).decode("utf-8", "surrogateescape"))
        read("".join(chr(generator.choice((generator.randrange(0x110000), generator.randrange(128)))) for _ in range(100)))


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_anywhere(name: str) -> None:
    encoded = SAMPLES[name].encode()
    for end in range(0, len(encoded), 1 if len(encoded) < 1000 else 3):
        read(encoded[:end].decode("utf-8", "surrogateescape"))


def test_bytes_changed_anywhere() -> None:
    generator = random.Random(2)
    encoded = [SAMPLES[name].encode() for name in SAMPLES]
    for _ in range(600):
        changed = bytearray(generator.choice(encoded))
        for _ in range(generator.randrange(1, 4)):
            changed[generator.randrange(len(changed))] = generator.choice((generator.randrange(256), *b"\n,:=()[]{}#\"'.-@?$0ae"))
        read(changed.decode("utf-8", "surrogateescape"))


TOKENS = ["fn", "f", "(", ")", ":", "\n", "e", ",", "->", "i64", "=", "const", "1", "-", "\"t\"", "'c'", "[", "]", "{", "}", "?", "nil", "move", "@", ".", "add",
          "call", "if", "then", "else", "switch", "ret", "goto", "struct", "global", "new", "#", "...", ";", "<", "ptr", "extern", "enum", "0.5", "\\"]  # fmt: skip


@given(st.lists(st.sampled_from(TOKENS), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_row_of_tokens(tokens: list[str]) -> None:
    read("fn f():\ne:\n  " + " ".join(tokens))
    read(" ".join(tokens))


def test_malformed_instructions_still_print() -> None:
    for op in (*OPS, "no_such_op"):
        assert format_instruction(Instruction(op)).startswith(op)
        assert format_instruction(Instruction(op, (Place("a"),) * 5, labels=("x",) * 4)).startswith(op)
    assert format_item(Function("f", (Param("a", I64),), I64, ())) == "fn f(a: i64) -> i64:"

"""The verifier and `resolve`: codes, models without text, what is filled in, and how long it takes. What text can get wrong is in `filetests/errors`."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from simple_magic.mir.codes import CODES, CodeInfo, explain
from simple_magic.mir.diagnostics import Diagnostic, MirError, Origin, ParseError, Reporter, Trap, VerifyError
from simple_magic.mir.jsonform import from_json
from simple_magic.mir.model import Block, Const, Extern, Function, Global, Instruction, Module, Param, Place, StructDef, const, local
from simple_magic.mir.resolve import Names, operand_type, resolve
from simple_magic.mir.text import format_text, parse_text
from simple_magic.mir.types import BOOL, F64, I64, TEXT, U8, UNIT, Array, FixedArray, Named, Option, Ptr, Tuple, Type
from simple_magic.mir.verify import check, verify
from simple_magic.passes.fuel import add_fuel

PACKAGE = Path(__file__).parent.parent / "simple_magic"
ERRORS = Path(__file__).parent / "filetests" / "errors"
I = Instruction  # noqa: E741


def codes(module: Module, **more: bool) -> list[str]:
    """Return the codes of all findings, warnings included."""
    reporter = Reporter()
    check(module, Names(), reporter, **more)
    return [d.code for d in reporter.found]


def function(*instructions: Instruction, params: tuple[Param, ...] = (), result: Type = UNIT, name: str = "f") -> Module:
    """Return a module of one function of one block."""
    return Module(functions=(Function(name, params, result, (Block("entry", instructions),)),))


def errors(module: Module, **more: bool) -> list[Diagnostic]:
    reporter = Reporter()
    check(module, Names(), reporter, **more)
    return list(reporter.errors())


# Codes


def found_by(info: CodeInfo, example: str) -> list[str]:
    """Return the codes that an example of a code gives."""
    try:
        if info.language == "mir":
            return codes(parse_text(example))
        if info.language == "json":
            verify(from_json(example))
        else:
            exec(example, {})
    except MirError as error:
        return [d.code for d in error.diagnostics]
    return []


@pytest.mark.parametrize("code", CODES)
def test_examples_of_a_code(code: str) -> None:
    info = CODES[code]
    assert info.title and info.paragraph.endswith((".", ".)")) and info.language in ("mir", "json", "python")
    if info.wrong:
        assert found_by(info, info.wrong) == [code]
    if info.right:
        assert found_by(info, info.right) == []
    assert explain(code).startswith(f"{code}: {info.title}")


def test_every_code_in_the_source_is_explained_and_no_other() -> None:
    used = {
        code for path in PACKAGE.rglob("*.py") if path.name != "codes.py" for code in re.findall(r"""["']([EW]\d{4})["']""", path.read_text(encoding="utf-8"))
    }
    assert used - set(CODES) == set(), "add them to mir/codes.py"
    assert set(CODES) - used == {"E0605"}, "E0605 is raised by explain itself"


def test_explain_refuses_an_unknown_code() -> None:
    with pytest.raises(MirError, match=r"E0605.*E01"):
        explain("E01")


EXPECTED = re.compile(r"# error\[(E\d{4})\]: (.*)$", re.MULTILINE)
NOT_IN_A_LINE_WITH_A_COMMENT = {"E0001", "E0003"}


def test_error_files_name_code_and_line() -> None:
    covered = set()
    for path in sorted(ERRORS.glob("*.mir")):
        source = path.read_text(encoding="utf-8")
        try:
            found = list(errors(parse_text(source)))
        except ParseError as error:
            found = list(error.diagnostics)
        wanted = [(number, *match.groups()) for number, line in enumerate(source.split("\n"), 1) for match in EXPECTED.finditer(line)]
        got = sorted((d.span.line, d.code) for d in found if d.span)
        assert got == sorted((line, code) for line, code, _ in wanted), path.name
        for line, code, substring in wanted:
            assert any(d.span and d.span.line == line and d.code == code and substring in d.message for d in found), (path.name, line)
        covered.update(code for _, code, _ in wanted)
    reachable = {code for code, info in CODES.items() if info.language == "mir" and code.startswith("E") and code < "E05"}
    assert reachable - covered == NOT_IN_A_LINE_WITH_A_COMMENT


# Messages


def test_a_message_names_what_was_expected_what_came_and_what_to_do() -> None:
    source = "fn f(a: i64, b: f64) -> i64:\nentry:\n  v = add a, b\n  ret v\n"
    (found,) = errors(parse_text(source, "cell"))
    assert found.message == "`add` needs two values of one type, but got i64 and f64"
    assert (found.span.line, found.span.column, found.label) == (3, 14, "`b` is f64")  # type: ignore[union-attr]
    assert found.help == "convert first: `c: f64 = cast a`"
    assert found.notes[0][1].line == 1  # type: ignore[union-attr]
    assert "  |              ^ `b` is f64" in str(VerifyError([found], {"cell": source}))


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("_x = add f, 1", "write `1.0`"),
        ("_x = add n, 1.0", "convert first: `c: f64 = cast n`"),
        ("_x = add n, 1i32", "write `1`"),
        ("_x: i32 = const 1", "write `1i32`"),
        ("_x: f32 = const 0.5", "write `0.5f32`"),
        ("_x: u8 = const 300", "a local has one type: use another name"),
        ("_x = add n, o", "unwrap it first: `c = unwrap o`"),
        ("_x: i64? = copy n", "wrap it first: `c = some n`"),
        ("_x = concat t, n", "convert first: `c = to_text n`"),
        ("_x = not n", "compare first: `c = ne n, 0`"),
        ("_x = add nn, 1", "did you mean `n`?"),
        ("_x = add total, 1", "a global is written `@total`"),
        ("_x = add @totl, 1", "did you mean `total`?"),
        ("_x: Poimt? = const nil", "did you mean `Point`?"),
        ("_x = new Point(y: 1)", "its fields are x"),
        ("call ff()", "did you mean `f`?"),
        ("call g(1)", "to call a function value, write `call_indirect g(...)`"),
        ("_x: text = cast n", "write `to_text n`"),
    ],
)
def test_help(line: str, advice: str) -> None:
    source = f"struct Point:\n  x: i64\nglobal total: i64\nfn f(n: i64, f: f64, o: i64?, t: text, g: fn(i64) -> i64):\nentry:\n  {line}\n  ret\n"
    assert [d.help for d in errors(parse_text(source))] == [advice]


def test_an_error_does_not_breed_others() -> None:
    source = "fn f(a: text) -> i64:\nentry:\n  x = sqrt a\n  y = add x, 1.0\n  z = mul y, x\n  d: {f64: i64} = dict\n  n = len d\n  ret z\n"
    assert [d.code for d in errors(parse_text(source))] == ["E0101", "E0402"]


def test_findings_come_in_text_order_and_are_bounded() -> None:
    lines = "\n".join(f"  _x{i} = sqrt {i}" for i in range(200))
    reporter = Reporter(limit=10)
    check(parse_text(f"fn f():\nentry:\n{lines}\n  ret\n"), Names(), reporter)
    assert [d.span.line for d in reporter.errors()] == list(range(3, 13))  # type: ignore[union-attr]
    assert reporter.errors()[-1].notes[-1][0] == "190 more not shown"


def test_many_warnings_do_not_hide_an_error() -> None:
    lines = "\n".join(f"  x{i} = const {i}" for i in range(200))
    with pytest.raises(VerifyError, match="E0310"):
        verify(parse_text(f"fn f() -> i64:\nentry:\n{lines}\n  goto out\nout:\n  drop x1\n  ret x1\n"))


# Warnings


def test_warnings() -> None:
    source = "fn f(n: i64) -> i64:\nentry:\n  x = const 1\n  _y = const 2\n  z = const 3\n  ret z\nlost:\n  print n\n  unreachable\n"
    found = verify(parse_text(source))
    assert [(d.code, d.span.line) for d in found if d.span] == [("W0302", 3), ("W0301", 7), ("W0303", 9)]
    assert not any(d.is_error for d in found)


def test_unreachable_is_right_after_a_call_that_never_returns_and_alone() -> None:
    source = 'fn stop() -> never:\nentry:\n  abort "no"\nfn f(c: bool):\nentry:\n  if c then a else b\na:\n  call stop()\n  unreachable\nb:\n  unreachable\n'
    assert verify(parse_text(source)) == ()


def test_a_local_written_through_or_dropped_is_used() -> None:
    source = "fn f():\nentry:\n  xs = array 1\n  push xs, 2\n  ys = array 1\n  drop ys\n  ret\n"
    assert verify(parse_text(source)) == ()


# Models built in Python


def test_a_model_without_spans_shows_the_instruction() -> None:
    module = function(I("add", (local("a"), const(F64, 1.0)), dest="x"), I("ret"), params=(Param("a", I64),))
    (found,) = errors(module)
    assert found.span is None and found.context == "x = add a, 1.0"
    assert "  | x = add a, 1.0\n" in str(VerifyError([found])) and "in `f`, block `entry`" in str(VerifyError([found]))


X, ONE = local("x"), const(I64, 1)
SHAPES = {
    "no operand": (I("add", (X,)), "`add` takes 2 operands, but got 1"),
    "operands of goto": (I("goto", (X,), labels=("entry",)), "`goto` takes no operands, but got 1"),
    "no label": (I("goto"), "`goto` needs 1 label, but got 0"),
    "three labels": (I("if", (const(BOOL, True),), labels=("entry",) * 3), "`if` needs 2 labels, but got 3"),
    "labels": (I("add", (X, X), dest="_y", labels=("entry",)), "`add` takes no labels"),
    "no name": (I("call", (X,)), "`call` needs a name"),
    "name": (I("add", (X, X), dest="_y", name="f"), "`add` takes no name"),
    "no field": (I("get_field", (X,), dest="_y"), "`get_field` needs a field"),
    "no type": (I("alloc", (X,), dest="_y"), "`alloc` needs a type"),
    "no message": (I("abort"), "`abort` needs a message"),
    "cases": (I("switch", (X,), labels=("entry",), cases=(ONE,)), "`switch` needs one label for each case and one for the rest, but got 1 for 1 cases"),
    "unwind": (I("invoke", (X,), name="f", labels=("entry", "entry"), unwind=("p", "p")), "`invoke` needs two different locals for payload and tag"),
    "fields": (I("new", (X,), dest="_y", name="P"), "`new` needs a field name for each of its 1 operands, but got 0"),
    "const of a local": (I("const", (X,), dest="_y"), "`const` needs a literal, but got a local"),
    "many values": (I("ret", (X, X)), "`ret` takes at most 1 operand, but got 2"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes(case: str) -> None:
    wrong, message = SHAPES[case]
    instructions = (wrong,) if wrong.op in ("goto", "if", "switch", "invoke", "abort", "ret") else (wrong, I("ret"))
    assert [d.message for d in errors(function(*instructions, params=(Param("x", I64),))) if d.code == "E0105"] == [message]


@pytest.mark.parametrize(
    "bad",
    [Const(U8, 256), Const(U8, -1), Const(BOOL, 2), Const(I64, "1"), Const(TEXT, 1), Const(TEXT, "\ud800"), Const(I64, None), Const(UNIT, 0),
     Const(None, 1), Const(Array(I64), 0), Const(I64, True)],
)  # fmt: skip
def test_constants_that_are_no_values(bad: Const) -> None:
    assert "E0114" in codes(function(I("const", (bad,), dest="_x"), I("ret")))
    assert "E0114" in codes(Module(globals=(Global("g", I64, bad),)))
    assert "E0114" in codes(function(I("switch", (local("x"),), labels=("entry", "entry"), cases=(bad,)), params=(Param("x", I64),)))


def test_structure_of_models() -> None:
    assert codes(Module(functions=(Function("f", (), UNIT, ()),))) == ["E0303"]
    assert codes(Module(functions=(Function("f", (), UNIT, (Block("entry", ()),)),))) == ["E0301"]
    assert codes(function(I("noop"), I("ret"))) == ["E0206"]
    assert codes(function(I("noop"))) == ["E0206"]
    assert codes(function(I("ret"), name="a.b.c")) == ["E0213"]
    assert codes(function(I("ret"), name="a b")) == ["E0213"]
    assert codes(function(I("const", (ONE,), dest="_x$1"), I("ret"))) == ["E0213"]
    assert codes(Module(types=(StructDef("P", (Param("fn", I64),)),))) == ["E0213"]
    assert codes(Module(globals=(Global("g", Tuple(())),))) == ["E0405"]
    assert codes(Module(globals=(Global("g", FixedArray(I64, -1)),))) == ["E0405"]


def test_internal_operations_are_for_passes() -> None:
    charge = I("charge", attributes=(("amount", 1),))
    assert codes(function(charge, I("ret"))) == ["E0190"]
    assert codes(function(charge, I("ret")), internal=True) == []
    assert codes(function(I("nop", attributes=(("a", 1),)), I("ret"))) == ["E0190"]
    runtime_call = function(I("call", (ONE,), name="rt.alloc", dest="o"), I("raw_store", (local("o"), ONE), type=I64), I("ret"))
    assert "E0202" in codes(runtime_call)
    assert codes(runtime_call, internal=True) == []


def test_verify_accepts_what_passes_make() -> None:
    for path in (ERRORS.parent / "run").glob("*.mir"):
        resolved = check(parse_text(path.read_text(encoding="utf-8")), Names(), Reporter())
        verify(add_fuel(resolved), internal=True)


def test_definitions_outside_the_module() -> None:
    session = Module(types=(StructDef("P", (Param("x", I64),)),), externs=(Extern("host", (Param("x", F64),), F64),))
    user = parse_text("fn f(p: P) -> f64:\nentry:\n  _n = get_field p, x\n  y = call host(1.0)\n  ret y\n")
    with pytest.raises(VerifyError, match="E0202"):
        verify(user)
    assert verify(user, Names.of(session)) == ()
    newer = Module(types=(StructDef("P", (Param("z", I64),)),))
    with pytest.raises(VerifyError, match="has no field `x`"):
        verify(user, Names.of(session, newer))


# Resolving

PROGRAM = """
global g: i64? = nil
fn f(c: bool, o: i64?) -> i64?:
entry:
  x = const 1
  if c then a else b
a:
  x: i64 = const 2
  ret nil
b:
  y: i64? = const nil
  y = some x
  e = eq y, nil
  store_global @g, nil
  if e then a else d
d:
  z = select c, nil, o
  ret z
"""


def test_resolve_fills_in_types_once() -> None:
    reporter = Reporter()
    module = parse_text(PROGRAM)
    done = resolve(module, Names.of(module), reporter)
    assert reporter.found == []
    blocks = {b.label: b.instructions for b in done.functions[0].blocks}
    assert [i.dest_type for i in blocks["entry"]] == [I64, None]
    assert blocks["a"][0].dest_type is None, "the annotation stands on the first assignment only"
    assert [i.dest_type for i in blocks["b"][:3]] == [Option(I64), None, BOOL]
    constants = [a for b in done.functions[0].blocks for i in b.instructions for a in i.args if isinstance(a, Const) and a.bits is None]
    assert len(constants) == 5 and {c.type for c in constants} == {Option(I64)}
    assert done.globals[0].init == Const(Option(I64), None)
    assert blocks["b"][1].origin == Origin("f", "b", 1)
    assert resolve(done, Names(), Reporter()) == done
    assert check(parse_text(format_text(done)), Names(), Reporter()) == done


def test_resolve_keeps_origins() -> None:
    kept = Origin("g", "there", 7)
    done = check(function(I("nop", origin=kept), I("ret")), Names(), Reporter())
    assert [i.origin for i in done.functions[0].blocks[0].instructions] == [kept, Origin("f", "entry", 1)]


def test_operand_types() -> None:
    names = Names.of(Module(types=(StructDef("P", (Param("xs", Array(F64)),)),), globals=(Global("g", Array(Named("P"))),)))
    place = parse_text("fn f():\nentry:\n  _x = copy @g[n].xs[0]\n  ret\n").functions[0].blocks[0].instructions[0].args[0]
    assert operand_type(place, {"n": I64}, names) == F64
    assert operand_type(Place("p"), {"p": Ptr(I64)}, names) == Ptr(I64)


# Time and depth


def timed(module: Module, seconds: float) -> list[Diagnostic]:
    start = time.process_time()
    found = errors(module)
    assert time.process_time() - start < seconds
    return found


def chain(n: int, last: tuple[Instruction, ...]) -> Module:
    """Return n blocks, each of which may go on or back."""
    a, c = local("a"), local("c")
    blocks = [Block(f"b{i}", (I("lt", (a, ONE), dest="c"), I("if", (c,), labels=(f"b{i + 1}", f"b{max(0, i - 1)}")))) for i in range(n)]
    return Module(functions=(Function("f", (Param("a", I64),), I64, (*blocks, Block(f"b{n}", last))),))


def test_large_programs_take_seconds() -> None:
    steps = [I("add", (local(f"x{i - 1}" if i else "a"), ONE), dest=f"x{i}") for i in range(20_000)]
    assert timed(function(*steps, I("ret", (local("x19999"),)), params=(Param("a", I64),), result=I64), 5) == []
    assert timed(chain(5_000, (I("ret", (local("a"),)),)), 5) == []
    assert len(timed(chain(5_000, (I("drop", name="a"), I("goto", labels=("b4999",)))), 8)) == 50
    one = function(I("call", (local("a"),), name="f", dest="r"), I("ret", (local("r"),)), params=(Param("a", I64),), result=I64).functions[0]
    assert timed(Module(functions=tuple(replace(one, name=f"f{i}" if i else "f") for i in range(1_000))), 5) == []


def test_types_that_grow_are_refused() -> None:
    """Each struct holds the one before twice: a zero value of 2**60 parts must not be built, nor counted one by one."""
    doubling = tuple(StructDef(f"S{i}", (Param("a", Named(f"S{i - 1}") if i else I64), Param("b", Named(f"S{i - 1}") if i else I64))) for i in range(61))
    assert [d.code for d in timed(Module(types=doubling, globals=(Global("g", Named("S60")),)), 1)] == ["E0407"]
    deep = tuple(StructDef(f"S{i}", (Param("a", Named(f"S{i - 1}") if i else I64),)) for i in range(3_000))
    assert [d.code for d in timed(Module(types=deep), 1)] == ["E0408"]


def test_errors_survive_pickling() -> None:
    import pickle

    with pytest.raises(VerifyError) as info:
        verify(function(I("nop")))
    assert pickle.loads(pickle.dumps(info.value)).diagnostics == info.value.diagnostics
    assert not isinstance(info.value, Trap)

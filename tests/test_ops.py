"""The opcode table: every row is complete, and what it names exists."""

from __future__ import annotations

import pytest

from simple_magic import parse_text, verify
from simple_magic.mir.diagnostics import TRAP_KINDS, Reporter
from simple_magic.mir.examples import EXAMPLES, SYNTAX, example_program
from simple_magic.mir.model import Const, Instruction, const, local
from simple_magic.mir.ops import CORE, GROUPS, OPS, TERMINATORS, USER_OPS, Opcode, Signature
from simple_magic.mir.resolve import RESULT_OPTIONAL, SHAPES, shape_problem
from simple_magic.mir.typerules import RAW_RULES, RULES, describe, substitute, unify
from simple_magic.mir.types import BOOL, I64, Array, Dict, FixedArray, Named, Option, Primitive, Ptr, Type, children, walk

FORM_WORDS = {"v", "p", "v*", "v?", "f", "l", "t", "m", "n", "e", "g", "x", "n(v*)", "n(f*)", "e(f*)", "v(v*)", "if", "switch", "invoke"}
EFFECTS = {"reads", "writes", "allocates", "io", "calls"}
VARIABLES = {"T", "K", "V"}


def pieces(row: Opcode) -> list[str]:
    return row.form.split(", ") if row.form else []


@pytest.mark.parametrize("name", OPS)
def test_row(name: str) -> None:
    row = OPS[name]
    assert row.doc.endswith(".") and len(row.doc) > 5, "a sentence that says what it means"
    assert set(row.traps) <= set(TRAP_KINDS)
    assert row.effects <= EFFECTS
    assert set(pieces(row)) <= FORM_WORDS
    assert row.custom is None or row.custom in RULES, "name a rule of mir/typerules.py"
    assert row.custom is not None or row.signatures or row.form in ("", "l", "m") or row.internal, "nothing says what its operands are"
    for signature in row.signatures:
        check_signature(row, signature)


def check_signature(row: Opcode, signature: Signature) -> None:
    operands = 1 if row.form == "if" else sum(1 for piece in pieces(row) if piece in ("v", "p"))
    assert len(signature.params) == operands, "as many types as operands"
    inside = [t for p in (*signature.params, *((signature.result,) if signature.result else ())) for t in walk(p)]
    assert {t.name for t in inside if isinstance(t, Named)} <= VARIABLES
    bound: dict[str, Type] = {}
    for param in signature.params:
        assert unify(param, example(param), bound), "an example of the pattern matches it"
    if signature.result is not None:
        assert substitute(signature.result, bound) is not None, "the operands determine the result"
    assert all(describe(param, row) for param in signature.params)


def example(pattern: Type) -> Type:
    """Return a type that matches the pattern, with i64 for every variable."""
    match pattern:
        case Named():
            return I64
        case Array(element):
            return Array(example(element))
        case FixedArray(element, _):
            return FixedArray(example(element), 2)
        case Dict(key, value):
            return Dict(example(key), example(value))
        case Option(inner):
            return Option(example(inner))
        case Ptr(pointee):
            return Ptr(example(pointee))
    assert isinstance(pattern, Primitive) and not children(pattern)
    return pattern


def test_groups_and_sets() -> None:
    assert [name for rows in GROUPS.values() for name in (row.name for row in rows)] == list(OPS)
    assert all(OPS[row.name].group == group for group, rows in GROUPS.items() for row in rows)
    assert set(USER_OPS).isdisjoint(row.name for row in GROUPS["internal"])
    assert set(TERMINATORS) >= {"goto", "if", "switch", "ret", "invoke", "throw", "resume", "abort", "unreachable", "trap"}
    assert set(CORE) <= set(OPS)
    assert set(RESULT_OPTIONAL) <= set(OPS)


def test_every_rule_is_named_by_a_row() -> None:
    assert set(RULES) == {row.custom for row in OPS.values()} - {None}
    assert set(RAW_RULES) == {row.name for row in OPS.values() if row.custom == "raw"}


def test_pure_rows_have_no_effect() -> None:
    assert OPS["add"].is_pure and OPS["checked_add"].traps
    assert not any(OPS[name].is_pure for name in ("div", "print", "call", "pop", "goto", "index_get", "charge"))


def test_shapes_follow_the_forms() -> None:
    for name, row in OPS.items():
        shape = SHAPES[name]
        fixed = sum(1 for piece in pieces(row) if piece in ("v", "p"))
        assert shape.low == (1 if row.form in ("if", "switch") else fixed + ("v(v*)" in pieces(row)))
        assert ("name" in shape.uses) == (row.form == "invoke" or any(piece[0] in "negx" for piece in pieces(row)))
    assert shape_problem(Instruction("add", (local("x"), const(I64, 1)), dest="y")) == ""
    assert shape_problem(Instruction("const", (Const(BOOL, 1),), dest="y")) == ""


def test_reporter_counts_errors_and_warnings_apart() -> None:
    reporter = Reporter(limit=2)
    for code in ("W0301", "W0301", "W0301", "E0101", "E0101", "E0101"):
        reporter.error(code, "x")
    assert [d.code for d in reporter.found] == ["W0301", "W0301", "E0101", "E0101"]
    assert reporter.dropped == 1 and len(reporter.errors()) == len(reporter.warnings()) == 2


def test_every_operation_has_an_example() -> None:
    assert set(EXAMPLES) == set(USER_OPS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    module = parse_text(example_program(name))
    verify(module)
    assert module.functions[-1].blocks[0].instructions[0].op == name


def test_the_page_of_the_syntax_is_a_program_that_shows_every_item() -> None:
    module = parse_text(SYNTAX)
    assert not verify(module)
    assert module.types and module.globals and module.externs and all(len(line) <= 150 for line in SYNTAX.splitlines())
    assert {"switch", "invoke", "variant", "payload", "new", "call"} <= {i.op for f in module.functions for b in f.blocks for i in b.instructions}

"""The opcode table: one row per operation, facts only.

What an operation *means* is defined once, by the interpreter's rule (`backends/interpreter.py`); every other consumer has its own rule table and
a completeness test ties it to this one. Parser, printer, JSON, type check, documentation, completion, boundary tests and the random program
generator read the rows and nothing else.

A row:

    op(name, form, *signatures, ...)

`form` is how the operands are written, left to right, separated by commas in the text form:

    v value   p place that is written into   v* any number of values   v? at most one value   f field   l label   t type   m message
    n function   e Enum.Variant-less payload name "Variant.field"   g global   x local
    n(v*) callee with arguments   n(f*) struct with named arguments   e(f*) Enum.Variant with named arguments   v(v*) function value with arguments
    if switch invoke   have their own notation (see `mir/text.py`)

A signature is `sig(argument types, result)`; T, K, V are type variables, FixedArray(T, ANY_LENGTH) matches every length. Several signatures are
tried in order. `classes` limits the variables. `custom` names a rule of `mir/typerules.py` for what a signature cannot say.
`traps` lists the kinds the operation itself can raise; `effects` is a set of words: reads, writes, allocates, io, calls.
`core` marks what native back ends implement: `passes/lower.py` leaves nothing else. `internal` operations are made by passes; a user who writes one
gets an E code.

To add an opcode: (1) a row here; (2) `pytest tests/test_ops.py` lists the missing rules; (3) the interpreter's rule: this is the meaning;
(4) the lowering or the back ends' rules, with the checks its traps need; (5) a filetest with ordinary, boundary and trapping calls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .types import (
    BOOL, CHAR, F64, FLOATS, I64, INTEGERS, NUMBERS, TEXT, U8, DICT_KEYS, Array, Dict, FixedArray, Named, Option, Ptr, Type,
)  # fmt: skip

T, K, V = Named("T"), Named("K"), Named("V")
ANY_LENGTH = -1
"""The length in a signature that matches every fixed array."""

EVERY: tuple[Type, ...] = ()
"""The class of a type variable that may be any type."""
SHOWN = (*NUMBERS, BOOL, CHAR, TEXT)
"""Types that have a text: what `print` and `to_text` take."""


@dataclass(frozen=True, slots=True)
class Signature:
    params: tuple[Type, ...]
    result: Type | None


@dataclass(frozen=True, slots=True)
class Opcode:
    name: str
    group: str
    form: str
    signatures: tuple[Signature, ...]
    classes: dict[str, tuple[Type, ...]]
    custom: str | None
    traps: tuple[str, ...]
    effects: frozenset[str]
    terminator: bool
    core: bool
    internal: bool
    doc: str
    upstream: tuple[str, ...]

    @property
    def is_pure(self) -> bool:
        """No effect and no trap: the same arguments give the same value, and nobody notices a second evaluation."""
        return not self.effects and not self.traps and not self.terminator


def sig(params: tuple[Type, ...] | list[Type], result: Type | None = None) -> Signature:
    return Signature(tuple(params), result)


def op(name: str, form: str, *signatures: Signature, doc: str, T: tuple[Type, ...] = EVERY, K: tuple[Type, ...] = DICT_KEYS, custom: str | None = None,
       traps: str = "", effects: str = "", terminator: bool = False, core: bool = False, internal: bool = False, upstream: str = "") -> Opcode:  # fmt: skip
    """Return a row; see the module docstring. `traps`, `effects` and `upstream` are words separated by blanks."""
    return Opcode(name, "", form, signatures, {"T": T, "K": K, "V": EVERY}, custom, tuple(traps.split()), frozenset(effects.split()), terminator,
                  core, internal, doc, tuple(upstream.split()))  # fmt: skip


SAME = (sig((T, T), T),)
UNARY = (sig((T,), T),)
COMPARE = (sig((T, T), BOOL),)
CONDITION = (sig((BOOL, BOOL), BOOL),)
ALLOCATES = "allocates"

GROUPS: dict[str, tuple[Opcode, ...]] = {
    "constants and moves": (
        op("const", "v", custom="const", core=True, upstream="Const", doc="The constant itself."),
        op("zero", "", custom="zero", effects=ALLOCATES, upstream="Const", doc="The zero value of the annotated type: 0, false, '\\0', \"\", nil, an empty array or dict, an all-zero struct or tuple."),
        op("copy", "v", sig((T,), T), core=True, upstream="Copy Move", doc="The same value; an object is shared, not duplicated. `copy move x` un-assigns x."),
        op("aggregate_copy", "v", sig((T,), T), effects="reads allocates", upstream="AggregateCopy", doc="A new struct, class, array or dict with the same slots: one level, no recursion. Any other value is returned as it is."),
        op("cast", "v", custom="cast", traps="float_to_int invalid_char", core=True, upstream="Cast", doc="Convert to the annotated type. Integers truncate or extend by the source's sign; float to integer truncates and traps outside the range; integer to char traps on non-scalar values."),
        op("bitcast", "v", custom="bitcast", core=True, upstream="Bitcast", doc="The same bits as another number type of equal width; a NaN becomes the canonical NaN first."),
        op("nop", "", core=True, upstream="Nop", doc="Nothing."),
        op("debug_value", "x", custom="local", upstream="DebugValue", doc="Mark a local for debuggers; no effect on the program."),
        op("drop", "x", custom="local", upstream="Drop", doc="Un-assign the local: reading it afterwards is an error."),
        op("select", "v, v, v", sig((BOOL, T, T), T), core=True, doc="The second operand if the first is true, else the third; both are read."),
    ),
    "integer and float arithmetic": (
        op("add", "v, v", *SAME, T=NUMBERS, core=True, upstream="BinOp.Add", doc="x + y. Integers wrap modulo 2**bits."),
        op("sub", "v, v", *SAME, T=NUMBERS, core=True, upstream="BinOp.Sub", doc="x - y. Integers wrap."),
        op("mul", "v, v", *SAME, T=NUMBERS, core=True, upstream="BinOp.Mul", doc="x * y. Integers wrap."),
        op("div", "v, v", *SAME, T=NUMBERS, traps="division_by_zero integer_overflow", core=True, upstream="BinOp.Div", doc="x / y. Integers round towards zero, trap on a zero divisor and on MIN / -1; floats are IEEE 754."),
        op("rem", "v, v", *SAME, T=NUMBERS, traps="division_by_zero integer_overflow", core=True, upstream="BinOp.Rem", doc="Integers: the remainder of div, with the sign of x. Floats: x - floor(x / y) * y, each step rounded."),
        op("pow", "v, v", *SAME, T=NUMBERS, core=True, upstream="BinOp.Pow", doc="x to the power y. Integers wrap, by squaring; 0 pow 0 is 1 and a negative exponent gives 1. Floats: pow of the platform's libm."),
        op("neg", "v", *UNARY, T=NUMBERS, core=True, upstream="UnaryOp.Neg", doc="-x. Integers wrap, so neg of MIN is MIN."),
        op("bit_and", "v, v", *SAME, T=INTEGERS, core=True, upstream="BinOp.BitAnd", doc="Bitwise and."),
        op("bit_or", "v, v", *SAME, T=INTEGERS, core=True, upstream="BinOp.BitOr", doc="Bitwise or."),
        op("bit_xor", "v, v", *SAME, T=INTEGERS, core=True, upstream="BinOp.BitXor", doc="Bitwise exclusive or."),
        op("bit_not", "v", *UNARY, T=INTEGERS, core=True, upstream="UnaryOp.BitNot", doc="Bitwise complement."),
        op("shl", "v, v", *SAME, T=INTEGERS, core=True, upstream="BinOp.Shl", doc="x shifted left; the count is taken modulo the width."),
        op("shr", "v, v", *SAME, T=INTEGERS, core=True, upstream="BinOp.Shr", doc="x shifted right: arithmetic for signed, logical for unsigned types; the count is taken modulo the width."),
        op("checked_add", "v, v", *SAME, T=INTEGERS, traps="integer_overflow", upstream="CheckedBinOp.Add", doc="x + y, trapping on overflow."),
        op("checked_sub", "v, v", *SAME, T=INTEGERS, traps="integer_overflow", upstream="CheckedBinOp.Sub", doc="x - y, trapping on overflow."),
        op("checked_mul", "v, v", *SAME, T=INTEGERS, traps="integer_overflow", upstream="CheckedBinOp.Mul", doc="x * y, trapping on overflow."),
        op("checked_neg", "v", *UNARY, T=INTEGERS, traps="integer_overflow", doc="-x, trapping on overflow."),
    ),
    "float mathematics": (
        op("sqrt", "v", *UNARY, T=FLOATS, core=True, doc="The correctly rounded square root; NaN for a negative operand."),
        op("exp", "v", *UNARY, T=FLOATS, core=True, doc="e to the power x, by the platform's libm."),
        op("log", "v", *UNARY, T=FLOATS, core=True, doc="The natural logarithm, by the platform's libm."),
        op("sin", "v", *UNARY, T=FLOATS, core=True, doc="The sine, by the platform's libm."),
        op("cos", "v", *UNARY, T=FLOATS, core=True, doc="The cosine, by the platform's libm."),
        op("tan", "v", *UNARY, T=FLOATS, core=True, doc="The tangent, by the platform's libm."),
        op("tanh", "v", *UNARY, T=FLOATS, core=True, doc="The hyperbolic tangent, by the platform's libm."),
        op("abs", "v", *UNARY, T=NUMBERS, core=True, doc="The absolute value; abs of the smallest integer wraps to itself."),
        op("floor", "v", *UNARY, T=FLOATS, core=True, doc="Rounded down to an integral value."),
        op("ceil", "v", *UNARY, T=FLOATS, core=True, doc="Rounded up to an integral value."),
        op("round", "v", *UNARY, T=FLOATS, core=True, doc="Rounded to the nearest integral value, ties to even."),
        op("trunc", "v", *UNARY, T=FLOATS, core=True, doc="Rounded towards zero to an integral value."),
        op("min", "v, v", *SAME, T=NUMBERS, core=True, doc="The smaller value; floats by minimum of IEEE 754-2019 (NaN if either is NaN, -0.0 below 0.0)."),
        op("max", "v, v", *SAME, T=NUMBERS, core=True, doc="The larger value; floats by maximum of IEEE 754-2019 (NaN if either is NaN, 0.0 above -0.0)."),
        op("fma", "v, v, v", sig((T, T, T), T), T=FLOATS, core=True, doc="x * y + z with one rounding."),
    ),
    "comparison and logic": (
        op("eq", "v, v", *COMPARE, custom="equality", effects="reads", core=True, upstream="BinOp.Eq", doc="Equality. Structs, arrays, dicts, tuples, options and enums by structure; classes by identity. NaN equals nothing."),
        op("ne", "v, v", *COMPARE, custom="equality", effects="reads", core=True, upstream="BinOp.Ne", doc="Not eq; so true if either is NaN."),
        op("lt", "v, v", *COMPARE, T=SHOWN, core=True, upstream="BinOp.Lt", doc="x < y. Text by code points; false on NaN."),
        op("le", "v, v", *COMPARE, T=SHOWN, core=True, upstream="BinOp.Le", doc="x <= y. Text by code points; false on NaN."),
        op("gt", "v, v", *COMPARE, T=SHOWN, core=True, upstream="BinOp.Gt", doc="x > y. Text by code points; false on NaN."),
        op("ge", "v, v", *COMPARE, T=SHOWN, core=True, upstream="BinOp.Ge", doc="x >= y. Text by code points; false on NaN."),
        op("and", "v, v", *CONDITION, core=True, doc="Logical and; both sides are evaluated."),
        op("or", "v, v", *CONDITION, core=True, doc="Logical or; both sides are evaluated."),
        op("not", "v", sig((BOOL,), BOOL), core=True, upstream="UnaryOp.Not", doc="Logical complement."),
    ),
    "aggregates": (
        op("array", "v*", custom="array", effects=ALLOCATES, upstream="Aggregate.Array", doc="An array of the operands; a fixed array if annotated so."),
        op("array_fill", "v, v", sig((T, I64), Array(T)), custom="array_fill", traps="index_out_of_bounds", effects=ALLOCATES, doc="An array of n times the first operand, shared; traps if n is negative."),
        op("dict", "", custom="dict", effects=ALLOCATES, doc="An empty dict of the annotated type."),
        op("tuple", "v*", custom="tuple", effects=ALLOCATES, upstream="Aggregate.Tuple", doc="A tuple of the operands."),
        op("new", "n(f*)", custom="new", effects=ALLOCATES, upstream="Aggregate.Struct", doc="A new struct or class object; every field is given, in any order."),
        op("variant", "e(f*)", custom="variant", effects=ALLOCATES, upstream="Aggregate.Enum", doc="A value of an enum."),
        op("tag", "v", custom="tag", effects="reads", doc="The variant's number in declaration order, an i64."),
        op("payload", "v, e", custom="payload", traps="wrong_variant", effects="reads", doc="The named payload field; traps if the value is another variant."),
        op("get_field", "v, f", custom="get_field", effects="reads", upstream="GetField", doc="The field of a struct or class, or the numbered element of a tuple."),
        op("set_field", "p, f, v", custom="set_field", effects="writes", upstream="SetField", doc="Write the field of a struct or class."),
        op("index_get", "v, v", sig((Array(T), I64), T), sig((FixedArray(T, ANY_LENGTH), I64), T), sig((Dict(K, V), K), V), sig((TEXT, I64), CHAR), traps="index_out_of_bounds key_missing", effects="reads", doc="The element at the index or key; text by code point."),
        op("index_set", "p, v, v", sig((Array(T), I64, T)), sig((FixedArray(T, ANY_LENGTH), I64, T)), sig((Dict(K, V), K, V)), traps="index_out_of_bounds", effects="writes allocates", doc="Write the element at the index; a dict gains the key if it is new."),
        op("len", "v", sig((Array(T),), I64), sig((FixedArray(T, ANY_LENGTH),), I64), sig((Dict(K, V),), I64), sig((TEXT,), I64), effects="reads", doc="The number of elements; of a text, code points."),
        op("push", "p, v", sig((Array(T), T)), traps="array_not_growable", effects="writes allocates", doc="Append an element."),
        op("pop", "p", sig((Array(T),), T), traps="index_out_of_bounds array_not_growable", effects="writes", doc="Remove and return the last element."),
        op("insert", "p, v, v", sig((Array(T), I64, T)), traps="index_out_of_bounds array_not_growable", effects="writes allocates", doc="Insert before the index; the index may equal the length."),
        op("remove", "p, v", sig((Array(T), I64), T), sig((Dict(K, V), K), V), traps="index_out_of_bounds key_missing array_not_growable", effects="writes", doc="Remove the element at the index or key and return it."),
        op("slice", "v, v, v", sig((Array(T), I64, I64), Array(T)), sig((FixedArray(T, ANY_LENGTH), I64, I64), Array(T)), sig((TEXT, I64, I64), TEXT), traps="index_out_of_bounds", effects="reads allocates", doc="The half-open part [a, b) as a new array or text; traps unless 0 <= a <= b <= len."),
        op("concat", "v, v", sig((Array(T), Array(T)), Array(T)), sig((TEXT, TEXT), TEXT), effects="reads allocates", doc="The elements of both, as a new array or text."),
        op("contains", "v, v", sig((Array(T), T), BOOL), sig((FixedArray(T, ANY_LENGTH), T), BOOL), sig((Dict(K, V), K), BOOL), sig((TEXT, TEXT), BOOL), custom="equality", effects="reads", doc="Whether an element equals (eq) the operand, the key is present, or the text occurs."),
        op("keys", "v", sig((Dict(K, V),), Array(K)), effects="reads allocates", doc="The keys, sorted: numbers by value, false before true, char and text by code points."),
        op("values", "v", sig((Dict(K, V),), Array(V)), effects="reads allocates", doc="The values, in the order of the sorted keys."),
        op("some", "v", sig((T,), Option(T)), effects=ALLOCATES, doc="The option that holds the value."),
        op("is_some", "v", sig((Option(T),), BOOL), doc="Whether the option holds a value."),
        op("unwrap", "v", sig((Option(T),), T), traps="nil_unwrap", effects="reads", doc="The value in the option; traps on nil."),
    ),
    "text": (
        op("to_text", "v", sig((T,), TEXT), T=SHOWN, effects=ALLOCATES, doc="The value as text: shortest digits that read back the same; true, false, nan, inf."),
        op("parse_int", "v", sig((TEXT,), Option(I64)), effects="reads allocates", doc="The text as a decimal i64 with an optional sign and nothing else, or nil."),
        op("parse_float", "v", sig((TEXT,), Option(F64)), effects="reads allocates", doc="The text as a decimal f64 (also nan, inf, -inf) and nothing else, or nil."),
    ),
    "calls": (
        op("call", "n(v*)", custom="call", effects="calls", core=True, upstream="Call", doc="Call a function or an extern by name."),
        op("call_indirect", "v(v*)", custom="call_indirect", effects="calls", upstream="CallIndirect", doc="Call a function value."),
        op("func", "n", custom="func", effects=ALLOCATES, doc="The function as a value."),
        op("closure", "n(v*)", custom="closure", effects=ALLOCATES, doc="The function as a value with its first parameters bound."),
    ),
    "globals": (
        op("load_global", "g", custom="load_global", effects="reads", upstream="LoadGlobal", doc="The value of the global."),
        op("store_global", "g, v", custom="store_global", effects="writes", upstream="StoreGlobal", doc="Assign the global."),
    ),
    "pointers": (
        op("alloc", "t, v", custom="alloc", traps="bad_pointer", effects=ALLOCATES, upstream="Alloc", doc="A pointer to a new block of n zero values; traps if n is negative."),
        op("load", "v", sig((Ptr(T),), T), traps="bad_pointer", effects="reads", upstream="Load", doc="The value that p points at; traps outside the block."),
        op("store", "v, v", sig((Ptr(T), T)), traps="bad_pointer", effects="writes", upstream="Store", doc="Write where p points; traps outside the block."),
        op("gep", "v, v", sig((Ptr(T), I64), Ptr(T)), effects=ALLOCATES, upstream="GetElementPtr", doc="p moved by i elements (wrapping); only load and store check it."),
        op("ref", "v", sig((T,), Ptr(T)), effects=ALLOCATES, upstream="Ref", doc="A pointer to a new one-element block that holds x."),
    ),
    "effects": (
        op("print", "v", sig((T,)), T=SHOWN, effects="io", upstream="Intrinsic.print", doc="Write the value's text and a newline to the output."),
        op("assert", "v, m", sig((BOOL,)), traps="assertion_failed", upstream="Intrinsic.assert", doc="Trap with the message unless the condition is true."),
    ),
    "terminators": (
        op("goto", "l", terminator=True, core=True, upstream="Goto", doc="Continue at the label."),
        op("if", "if", sig((BOOL,)), terminator=True, core=True, upstream="If", doc="Continue at the first label if the condition is true, else at the second."),
        op("switch", "switch", custom="switch", terminator=True, core=True, upstream="Switch", doc="Continue at the label of the equal case, else at the last label."),
        op("ret", "v?", custom="ret", terminator=True, core=True, upstream="Ret Return", doc="Leave the function with its result."),
        op("unreachable", "", terminator=True, traps="unreachable", upstream="Unreachable", doc="Trap: control must not arrive here."),
        op("abort", "m", terminator=True, traps="abort", upstream="Abort", doc="Trap with the message."),
        op("invoke", "invoke", custom="call", terminator=True, effects="calls", core=True, upstream="CallTerminator", doc="Call; continue at the first label, or, if the callee throws, assign payload and tag and continue at the second. Traps are not caught."),
        op("throw", "v, v", sig((I64, I64)), terminator=True, traps="uncaught_throw", core=True, upstream="Throw", doc="Unwind with payload and tag to the nearest invoke that is running."),
        op("resume", "v, v", sig((I64, I64)), terminator=True, traps="uncaught_throw", core=True, upstream="Resume", doc="Unwind further; the origin of the latest throw is kept."),
    ),
    "internal": (
        op("charge", "", internal=True, traps="out_of_fuel", effects="writes", doc="Pay `amount` units of fuel; trap if they are not there."),
        op("trap", "v*", internal=True, core=True, terminator=True, doc="Trap with `kind`; up to two i64 operands become part of the message."),
        op("poll", "", internal=True, core=True, traps="interrupted timeout", effects="io", doc="Stop here if somebody asked for it."),
        op("stack_check", "", internal=True, core=True, traps="stack_overflow", doc="Trap unless a frame of this function still fits on the stack."),
        op("raw_load", "t, v", internal=True, core=True, custom="raw", effects="reads", doc="Read a scalar at heap offset operand + `offset`; `alias` names the kind of memory."),
        op("raw_store", "t, v, v", internal=True, core=True, custom="raw", effects="writes", doc="Write a scalar at heap offset operand + `offset`."),
        op("raw_copy", "v, v, v", sig((I64, I64, I64)), internal=True, core=True, effects="writes", doc="Copy bytes to the first offset from the second; they may overlap."),
        op("raw_fill", "v, v, v", sig((I64, U8, I64)), internal=True, core=True, custom="raw", effects="writes", doc="Fill bytes at the offset with the value."),
        op("raw_bitcast", "v", internal=True, core=True, custom="raw", doc="The same bits as another type of equal width, NaN payload included."),
        op("call_table", "t, v(v*)", internal=True, core=True, custom="raw", effects="calls", doc="Call entry number n of the unit's function table, of the given fn type."),
        op("host_call", "v", internal=True, core=True, custom="raw", traps="extern_error", effects="io writes allocates calls", doc="Let the host execute host call number `site` of the unit with the argument block at the heap offset."),
    ),
}  # fmt: skip


def _table(groups: dict[str, tuple[Opcode, ...]]) -> dict[str, Opcode]:
    rows: dict[str, Opcode] = {}
    for group, members in groups.items():
        for row in members:
            assert row.name not in rows, f"opcode {row.name} has two rows"
            rows[row.name] = replace(row, group=group)
    return rows


OPS: dict[str, Opcode] = _table(GROUPS)
"""Every opcode by name."""
USER_OPS: tuple[str, ...] = tuple(name for name, row in OPS.items() if not row.internal)
"""What a program may write."""
CORE: tuple[str, ...] = tuple(name for name, row in OPS.items() if row.core)
"""What native back ends implement: `lower` leaves nothing else."""
TERMINATORS: tuple[str, ...] = tuple(name for name, row in OPS.items() if row.terminator)
"""What ends a block."""

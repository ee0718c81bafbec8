"""Random well-typed programs that end: `program(draw)` returns MIR text with functions f0, f1, ... of no parameters that print what they compute.

Scalar operations come from the opcode table; control flow, aggregates and calls are spelled here. Loops count down a local that nothing else writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from simple_magic.mir.ops import OPS
from simple_magic.mir.text import format_const
from simple_magic.mir.model import const
from simple_magic.mir.types import BOOL, CHAR, F32, F64, I32, I64, NUMBERS, TEXT, U8, U64, Named, Type, format_type, integer_range, is_integer

SCALARS = (I64, I32, U8, U64, F64, F32, BOOL, CHAR, TEXT)
SHORT = {I64: "i", I32: "j", U8: "b", U64: "u", F64: "x", F32: "y", BOOL: "c", CHAR: "k", TEXT: "t"}
HEAD = """\
struct P:
  n: i64
  x: f64

class Q:
  n: i64
  p: P
  xs: [i64]

enum E:
  A(n: i64)
  B

global total: i64
global kept: [i64]
global table: {i64: i64}

fn thrower(n: i64) -> i64:
entry:
  odd = rem n, 2
  bad = eq odd, 1
  if bad then no else yes
no:
  throw n, 7
yes:
  ret n

fn twice(n: i64, m: i64) -> i64:
entry:
  s = add n, m
  store_global @total, s
  ret s
"""
AGGREGATES = {"p": "P", "q": "Q", "e": "E", "xs": "[i64]", "ys": "[f64]", "d": "{i64: i64}", "o": "i64?", "w": "(i64, f64)", "ps": "[P]"}
START = """\
  p = new P(n: 1, x: 0.5)
  xs = array 1, 2, 3
  ys = array 1.5, -0.0
  q = new Q(n: 2, p: p, xs: xs)
  e = variant E.A(n: 5)
  d: {i64: i64} = dict
  o: i64? = some 3
  w = tuple 4, 2.5
  ps = array p, p
"""
STATEMENTS = (
    "{i} = index_get xs, {I}", "index_set xs, {I}, {I}", "push xs, {I}", "{i} = pop xs", "insert xs, {I}, {I}", "{i} = remove xs, {I}", "{i} = len xs",
    "xs = slice xs, {I}, {I}", "xs = concat xs, xs", "{c} = contains xs, {I}", "{c} = eq xs, xs", "{x} = index_get ys, {I}", "push ys, {X}",
    "index_set d, {I}, {I}", "{i} = index_get d, {I}", "{i} = remove d, {I}", "{c} = contains d, {I}", "xs = keys d", "xs = values d", "{i} = len d",
    "p = new P(n: {I}, x: {X})", "set_field p, n, {I}", "{i} = get_field p, n", "{x} = get_field p, x", "p = get_field q, p", "set_field q, p, p",
    "set_field q.p, n, {I}", "push q.xs, {I}", "{i} = index_get q.xs, {I}", "xs = get_field q, xs", "{i} = len q.xs", "p = copy p", "xs = copy xs",
    "e = variant E.A(n: {I})", "e = variant E.B", "{i} = tag e", "{i} = payload e, A.n", "{c} = eq e, e", "o = some {I}", "o = const nil",
    "{c} = is_some o", "{i} = unwrap o", "{c} = eq o, o", "w = tuple {I}, {X}", "{i} = get_field w, 0", "{x} = get_field w, 1", "{c} = eq w, w",
    "push ps, p", "p = index_get ps, {I}", "set_field ps[{I}], n, {I}", "index_set ps, {I}, p", "{c} = eq ps, ps", "{c} = eq p, p",
    "store_global @kept, xs", "xs = load_global @kept", "push @kept, {I}", "index_set @table, {I}, {I}", "{i} = index_get @table, {I}",
    "store_global @total, {I}", "{i} = load_global @total", "{i} = call twice({I}, {I})", "{i} = call thrower({I})", "print {I}", "print {X}", "print {T}",
    "{k} = index_get {T}, {I}", "{t} = slice {T}, {I}, {I}", "{t} = to_text {X}", "{t} = to_text {I}", "o = parse_int {T}", "{i}: i64 = cast {X}",
    "{x}: f64 = cast {I}", "{b}: u8 = cast {I}", "{j}: i32 = cast {X}", "{k}: char = cast {I}", "{i} = load r", "store r, {I}", "r = gep r, {I}", "{i} = call_indirect g({I})",
)  # fmt: skip


@dataclass
class Writer:
    """The body of one function under construction. Labels and counters are numbered; locals are `SHORT` plus 0 or 1."""

    draw: st.DrawFn
    lines: list[str] = field(default_factory=list)
    labels: int = 0

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def local(self, t: Type) -> str:
        return SHORT[t] + str(self.draw(st.integers(0, 1)))

    def operand(self, t: Type) -> str:
        return self.draw(st.one_of(st.just(self.local(t)), literals(t)))

    def statement(self) -> None:
        if self.draw(st.booleans()):
            self.lines.append("  " + self.spelled(self.draw(st.sampled_from(STATEMENTS))))
        else:
            self.scalar_operation()

    def spelled(self, pattern: str) -> str:
        named = {SHORT[t]: self.local(t) for t in SCALARS}
        parts = pattern.replace("{I}", "\0I").replace("{X}", "\0X").replace("{T}", "\0T")
        text = ""
        for piece in parts.format(**named).split("\0"):
            chosen = {"I": I64, "X": F64, "T": TEXT}.get(piece[:1]) if text or parts.startswith("\0") else None
            text += self.operand(chosen) + piece[1:] if chosen is not None else piece
        return text

    def scalar_operation(self) -> None:
        op, params, result = self.draw(st.sampled_from(SCALAR_OPERATIONS))
        dest = self.local(result)
        self.lines.append(f"  {dest} = {op} {', '.join(self.operand(p) for p in params)}")

    def block(self, depth: int) -> None:
        for _ in range(self.draw(st.integers(1, 6))):
            kind = self.draw(st.sampled_from(("plain", "plain", "plain", "if", "loop", "invoke"))) if depth < 2 else "plain"
            if kind == "if":
                then, other, end = self.label(), self.label(), self.label()
                self.lines.append(f"  if {self.local(BOOL)} then {then} else {other}")
                for label in (then, other):
                    self.lines.append(f"{label}:")
                    self.block(depth + 1)
                    self.lines.append(f"  goto {end}")
                self.lines.append(f"{end}:")
            elif kind == "loop":
                head, body, end = self.label(), self.label(), self.label()
                counter = f"n_{head}"
                rounds = self.draw(st.integers(0, 5))
                self.lines += [f"  {counter} = const 0", f"  goto {head}", f"{head}:", f"  m_{head} = lt {counter}, {rounds}", f"  if m_{head} then {body} else {end}", f"{body}:"]
                self.block(depth + 1)
                self.lines += [f"  {counter} = add {counter}, 1", f"  goto {head}", f"{end}:"]
            elif kind == "invoke":
                fine, caught, end = self.label(), self.label(), self.label()
                self.lines += [f"  i0 = invoke thrower({self.operand(I64)}) then {fine} unwind {caught}(i1, tag_{fine})", f"{fine}:", f"  goto {end}", f"{caught}:", f"  goto {end}", f"{end}:"]
            else:
                self.statement()


def literals(t: Type) -> st.SearchStrategy[str]:
    """Return literals of a scalar type, small ones and boundaries."""
    if is_integer(t):
        low, high = integer_range(t)
        values: st.SearchStrategy = st.one_of(st.integers(max(low, -3), 5), st.sampled_from((low, high)), st.integers(low, high))
    elif t in (F64, F32):
        values = st.one_of(st.sampled_from((0.0, -0.0, 1.0, 0.5, -1.5, float("inf"), float("nan"), 1e30)), st.floats(width=64 if t == F64 else 32))
    elif t == BOOL:
        values = st.booleans()
    elif t == CHAR:
        values = st.sampled_from(("a", "\0", "\u00e9", "\U0001f600"))
    else:
        values = st.sampled_from(("", "a", "ab\u00e9", "12", "-1.5", "\U0001f600x"))
    return values.map(lambda v: format_const(const(t, v)))


def _scalar_operations() -> list[tuple[str, tuple[Type, ...], Type]]:
    found = []
    for row in OPS.values():
        if row.internal or row.terminator or row.custom not in (None, "equality") or row.form not in ("v", "v, v", "v, v, v"):
            continue
        for signature in row.signatures:
            for chosen in row.classes["T"] or (*NUMBERS, BOOL, CHAR, TEXT):
                params = tuple(chosen if p == Named("T") else p for p in signature.params)
                result = chosen if signature.result == Named("T") else signature.result
                if result in SCALARS and all(p in SCALARS for p in params):
                    found.append((row.name, params, result))
    return sorted(set(found), key=str)


SCALAR_OPERATIONS = _scalar_operations()


def _function(draw: st.DrawFn, name: str) -> str:
    writer = Writer(draw)
    first = [f"  {SHORT[t]}{k}: {format_type(t)} = const {draw(literals(t))}" for t in SCALARS for k in (0, 1)]
    writer.block(0)
    shown = [f"  print {SHORT[t]}{k}" for t in SCALARS for k in (0, 1)]
    body = "\n".join([*first, START.rstrip(), "  r = ref i0", "  g = closure twice(3)", *writer.lines, *shown])
    return f"fn {name}() -> ([i64], {{i64: i64}}, P, i64?):\nentry:\n{body}\n  answer = tuple xs, d, p, o\n  ret answer\n"


@st.composite
def programs(draw: st.DrawFn, functions: int = 4) -> str:
    """Return a module of some functions."""
    return HEAD + "\n" + "\n".join(_function(draw, f"f{k}") for k in range(functions))

"""The language by example: one page that shows every construct, and one line for every operation.

`%simple ops syntax` prints the page, `%simple ops NAME` the line. Tests verify both: the page is a program, and each line is an instruction in a function
whose parameters are `PARAMETERS`, next to the page's declarations.
"""

from __future__ import annotations

from .ops import OPS

SYNTAX = """\
# A program is a list of items; a line is an item, a label or an instruction. "#" starts a comment, indentation means nothing.
# Types: i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 bool char text unit   [T] array   [T; 3] fixed array   {K: V} dict   (A, B) tuple   T? option
#        fn(A, B) -> C   ptr<T>   and the names of structs, classes and enums.
# Literals: 1 (i64)  1i32  255u8  0x1f  1.5 (f64)  1.5f32  inf  nan  true  false  nil  'c'  "text"

struct Point:                          # its fields, one a line
  x: f64
  y: f64

class Node:                            # as a struct, but some models share classes where they copy structs
  value: f64
  next: Node?

enum Shape:                            # its variants, with or without fields
  Circle(r: f64)
  Rect(w: f64, h: f64)
  Empty

global counter: i64 = 0                # read and written as @counter
global grads: {i64: f64}               # without a literal: the zero value of the type

extern fn host_log(x: f64) -> f64      # a Python function offered with @extern("fn host_log(x: f64) -> f64")

fn scale(x: f64, k: f64) -> f64:       # parameters have types; without "->" there is no result
entry:                                 # blocks: a label, then instructions, the last of which says where to go on
  y = mul x, k                         # local = operation operands; operands are locals, places or literals, never operations
  ret y

fn Point.move_x(self: Point, by: f64): # a method is a function with a dot in its name
entry:
  old = get_field self, x
  new_x = add old, by                  # the type of a local is that of its first assignment ...
  set_field self, x, new_x
  ret

fn sum(xs: [f64]) -> f64:              # a loop
entry:
  n = len xs
  total: f64 = const 0.0               # ... or is written
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done          # the condition is a local
body:
  v = index_get xs, i
  total = add total, v
  i = add i, 1
  goto head
done:
  ret total

fn area(s: Shape) -> f64:              # an enum: its tag is the variant's number
entry:
  which = tag s
  switch which [0: circle, 1: rect] else other
circle:
  r = payload s, Circle.r
  a = mul r, r
  ret a
rect:
  w = payload s, Rect.w
  h = payload s, Rect.h
  a = mul w, h
  ret a
other:
  ret 0.0

fn fails(x: f64) -> f64:
entry:
  throw 7, 1                           # payload and tag, both i64
fn catches() -> f64:                   # only throw is caught, traps are not
entry:
  y = invoke fails(1.0) then fine unwind failed(code, kind)
fine:
  ret y
failed:
  print code
  print kind
  ret 0.0

fn main() -> f64:
entry:
  p = new Point(x: 1.0, y: 2.0)
  call Point.move_x(p, 0.5)
  points = array p
  set_field points[0], y, 4.0          # a place: a local or @global, then .field or [index]
  index_set @grads, 7, 2.5
  px = copy points[0].x                # reading a place
  logged = call host_log(px)
  s = variant Shape.Rect(w: px, h: logged)
  a = call area(s)
  ret a
"""

PARAMETERS = """a: i64, b: i64, x: f64, y: f64, c: bool, t: text, xs: [f64], ys: [f64], d: {text: i64}, p: Point, s: Shape, o: i64?, pair: (i64, f64),
    f: fn(f64) -> f64, q: ptr<f64>"""
"""The locals of the examples."""

EXAMPLES: dict[str, str] = {
    # constants and moves
    "const": "k = const 1.5", "zero": "n: i64 = zero", "copy": "v = copy xs[0]", "aggregate_copy": "other = aggregate_copy p", "cast": "v: f64 = cast a",
    "bitcast": "bits: u64 = bitcast x", "nop": "nop", "debug_value": "debug_value a", "drop": "drop a", "select": "m = select c, x, y",
    # arithmetic
    **{name: f"z = {name} a, b" for name in ("add", "sub", "mul", "div", "rem", "pow", "bit_and", "bit_or", "bit_xor", "shl", "shr", "checked_add", "checked_sub",
                                             "checked_mul")},
    **{name: f"z = {name} a" for name in ("neg", "bit_not", "checked_neg")},
    **{name: f"z = {name} x" for name in ("sqrt", "exp", "log", "sin", "cos", "tan", "tanh", "abs", "floor", "ceil", "round", "trunc")},
    "min": "z = min x, y", "max": "z = max x, y", "fma": "z = fma x, y, 1.0",
    # comparison and logic
    **{name: f"is_so = {name} a, b" for name in ("eq", "ne", "lt", "le", "gt", "ge")}, "and": "both = and c, true", "or": "one = or c, false", "not": "no = not c",
    # aggregates
    "array": "zs = array 1.0, 2.0, x", "array_fill": "zs = array_fill 0.0, a", "dict": "counts: {text: i64} = dict", "tuple": "two = tuple a, x",
    "new": "v = new Point(x: 1.0, y: 2.0)", "variant": "v = variant Shape.Circle(r: 2.0)", "tag": "n = tag s", "payload": "r = payload s, Circle.r",
    "get_field": "v = get_field p, x", "set_field": "set_field p, x, 1.0", "index_get": "v = index_get xs, 0", "index_set": "index_set xs, 0, 1.0",
    "len": "n = len xs", "push": "push xs, 1.0", "pop": "v = pop xs", "insert": "insert xs, 0, 1.0", "remove": "v = remove xs, 0", "slice": "zs = slice xs, 1, 3",
    "concat": "zs = concat xs, ys", "contains": 'has = contains d, "key"', "keys": "names = keys d", "values": "numbers = values d", "some": "v = some a",
    "is_some": "has = is_some o", "unwrap": "n = unwrap o",
    # text
    "to_text": "shown = to_text x", "parse_int": "n = parse_int t", "parse_float": "v = parse_float t",
    # calls and globals
    "call": "z = call scale(x, 2.0)", "call_indirect": "z = call_indirect f(x)", "func": "g = func sum", "closure": "g = closure scale(2.0)",
    "load_global": "n = load_global @counter", "store_global": "store_global @counter, 1",
    # pointers
    "alloc": "r = alloc f64, 10", "load": "v = load q", "store": "store q, 1.0", "gep": "r = gep q, 1", "ref": "r = ref x",
    # effects
    "print": "print x", "assert": 'assert c, "c must hold"',
    # terminators
    "goto": "goto yes", "if": "if c then yes else no", "switch": "switch a [0: yes, 1: no] else no", "ret": "ret x", "unreachable": "unreachable",
    "abort": 'abort "cannot go on"', "invoke": "z = invoke scale(x, 2.0) then yes unwind no(code, kind)", "throw": "throw 7, 1", "resume": "resume a, b",
}  # fmt: skip
"""A line for every operation that a program may write."""


def example_program(op: str) -> str:
    """Return a whole program around the example of an operation."""
    line = EXAMPLES[op]
    head = " ".join(PARAMETERS.split())
    ending = "" if OPS[op].terminator else "  ret 0.0\n"
    return f"{SYNTAX}\nfn example({head}) -> f64:\nentry:\n  {line}\n{ending}yes:\n  ret 1.0\nno:\n  ret 2.0\n"

"""Programs in the text form, for tests of the parser, the printer, the JSON form and the verifier.

`syntax` holds every notation at least once and every user opcode; each sample is correct and in canonical form.
"""

from __future__ import annotations

SAMPLES: dict[str, str] = {
    "syntax": """\
# A program that uses most of the notation.
module sample

struct Point:
  x: f64
  # above a field
  y: f64  # behind a field

class Node:
  value: i64
  next: Node?
  points: [Point]

enum Shape:
  Circle(r: f64, at: Point)
  Square(side: f64)
  Empty

global grads: {i64: f64}
global scale: f64 = -1.5e-300  # behind a global
global greeting: text = "tab\\t quote\\" \\u{202e} é 𝄞"
global letter: char = '\\''
global nothing: Node? = nil

extern fn host_log(x: f64) -> f64
extern fn host_note(what: text, ...)

fn Node.bump(self: Node, by: i64) -> i64:
entry:
  old = get_field self, value
  sum: i64 = add old, by
  set_field self, value, sum
  ret sum

fn twice(x: i64) -> i64:
entry:
  r = shl x, 1
  ret r

fn numbers(a: i64, b: u8, c: f32) -> f64:
entry:
  s = sub a, 0
  s = mul s, -9223372036854775808
  s = div s, 3
  s = rem s, 7
  s = pow s, 2
  s = neg s
  s = bit_and s, 255
  s = bit_or s, 1
  s = bit_xor s, a
  s = bit_not s
  s = shr s, 2
  s = checked_add s, 1
  s = checked_sub s, 1
  s = checked_mul s, 1
  s = checked_neg s
  s = min s, 5
  s = max s, -5
  s = abs s
  t = add b, 255u8
  w: i32 = cast t
  bits: u32 = bitcast w
  f = add c, 0.1f32
  f = mul f, inff32
  f = add f, nanf32
  f = sub f, -inff32
  d: f64 = cast f
  d = sqrt d
  d = exp d
  d = log d
  d = sin d
  d = cos d
  d = tan d
  d = tanh d
  d = floor d
  d = ceil d
  d = round d
  d = trunc d
  d = fma d, inf, -0.0
  d = add d, nan
  d = add d, 5e-324
  p = eq bits, 0u32
  q = ne d, d
  p = and p, q
  p = or p, true
  p = not p
  q = lt s, 1
  q = le s, 1
  q = gt s, 1
  q = ge s, 1
  d = select q, d, -inf
  debug_value d
  nop
  ret d

fn objects(m: [[f64; 3]], t: (i64, (text,))) -> i64:
entry:
  origin = new Point(x: 0.0, y: -0.0)
  shape = variant Shape.Circle(r: 1.0, at: origin)
  none = variant Shape.Empty
  k = tag none
  at = payload shape, Circle.at
  xs = array origin, at
  n = new Node(value: 1, next: nil, points: xs)
  some_n = some n
  has = is_some some_n
  assert has, "a node\\n"
  again = unwrap some_n
  set_field n.points[0], x, 2.5
  set_field again.points[k], y, m[0][1]
  first = copy move origin
  text_of = get_field t.1, 0
  deep = copy m[0][1]
  zeros = array_fill 0, 4
  none_yet: [i64] = array
  len = len zeros
  push zeros, len
  last = pop zeros
  insert zeros, 0, last
  last = remove zeros, 0
  part = slice zeros, 0, 2
  both = concat part, none_yet
  in = contains both, 3
  table: {text: i64} = dict
  index_set table, "one", 1
  ks = keys table
  vs = values table
  one = index_get table, ks[0]
  index_set @grads, 7, first.x
  same = aggregate_copy at
  pair = tuple one, text_of
  unit_like: i64 = zero
  k = call Node.bump(again, pair.0)
  push vs, unit_like
  drop same
  print in
  print deep
  ret k

fn calls(g: fn(i64) -> i64, h: fn((fn() -> unit)?) -> ptr<i64>?):
entry:
  f = func twice
  node = unwrap @nothing
  c = closure Node.bump(node)
  a = call_indirect f(1)
  a = call_indirect c(a)
  b = call_indirect g(a)
  s = load_global @scale
  store_global @scale, s
  p = alloc i64, 4
  q = gep p, 1
  store q, b
  v = load q
  r = ref v
  v = load r
  t = to_text v
  i = parse_int t
  d = parse_float "1.5"
  x = call host_log(s)
  call host_note("values", v, x, '😀', i, d)
  z = invoke twice(v) then good unwind bad(payload, kind)
good:
  switch z [0: zero, -1: minus, 2: good_enough] else other
zero:
  zero = const 'x'
  switch zero ['x': other, '\\n': minus] else other
minus:
  throw 1, 2
# above a label
good_enough:  # behind a label
  unreachable
bad:
  is_one = eq kind, 1
  if is_one then again else other
again:
  resume payload, kind

other:
  # above an instruction

  # and once more
  goto stop
stop:
  abort "stop"

# at the end
""",
    "loop": """\
fn total(xs: [f64]) -> f64:
entry:
  n = len xs
  acc = const 0.0
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get xs, i
  acc = add acc, x
  i = add i, 1
  goto head
done:
  ret acc
""",
    "names": """\
fn größe(π: f64, then: bool, else: bool) -> bool:
entry:
  len = copy π
  len = add len, 1.0
  goto: f64 = mul len, len
  ret = gt goto, 2.0
  if then then then else else
then:
  ret ret
else:
  ret else
""",
    "switch": """\
fn pick(x: [i64], y: u8) -> i64:
entry:
  switch x[0] [] else small
small:
  switch y [0u8: first, 255u8: last] else last
first:
  ret x[x[0]]
last:
  ret -31
""",
}

"""The interpreter: the meaning of the language, operation by operation, and what ends a program."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from simple_magic.backends.base import Limits, Unit
from simple_magic.backends.interpreter import Budget, Interpreter, InterpreterProgram, run_rules, zero_value
from simple_magic.backends.traps import PassedCalls, SiteTable, build_trap, kind_of_status, status_of_kind, trap_message
from simple_magic.backends.values import ArrayValue, DictValue, SomeValue, StructValue
from simple_magic.mir.diagnostics import TRAP_KINDS, Origin, Reporter, Trap
from simple_magic.mir.ops import USER_OPS
from simple_magic.mir.resolve import Names, resolve
from simple_magic.mir.text import parse_text, parse_type
from simple_magic.mir.types import F64, I64, TEXT
from simple_magic.passes.fuel import add_fuel
from simple_magic.runtime.layout import FRAME_COUNT, FRAMES, THROW_PAYLOAD, THROW_TAG, TRAP_A, TRAP_B, TRAP_SITE


@dataclass
class TestHost:
    """Collects output and extern calls."""

    __test__ = False

    limits: Limits = field(default_factory=lambda: Limits(frames=1000))
    output: list[str] = field(default_factory=list)
    calls: list[tuple] = field(default_factory=list)
    externs: dict = field(default_factory=dict)
    polls: int = 0
    polls_left: int | None = None

    def call_extern(self, name, args, arg_types, result, origin=None):
        self.calls.append((name, list(args), tuple(arg_types), result, origin))
        return self.externs[name](*args)

    def write(self, text):
        if sum(map(len, self.output)) + len(text) > self.limits.output:
            raise Trap("output_limit")
        self.output.append(text)

    def poll(self):
        self.polls += 1
        if self.polls_left is not None and self.polls > self.polls_left:
            raise Trap("timeout")


def compiled(source: str, host: TestHost | None = None, fuel: bool = False) -> InterpreterProgram:
    module = parse_text(source)
    reporter = Reporter()
    module = resolve(module, Names.of(module), reporter)
    assert not reporter.errors(), reporter.errors()
    if fuel:
        module = add_fuel(module)
    return Interpreter(host or TestHost()).compile(Unit(module, "key"), 0)


def run(source: str, *args, name: str = "f", host: TestHost | None = None):
    return compiled(source, host).call(name, list(args))


def trap(source: str, *args, name: str = "f", host: TestHost | None = None) -> Trap:
    with pytest.raises(Trap) as caught:
        run(source, *args, name=name, host=host)
    return caught.value


def expression(params: str, result: str, *lines: str) -> str:
    """Return a function `f` whose last line assigns `r`."""
    return "\n".join([f"fn f({params}) -> {result}:", "entry:", *("  " + line for line in lines), "  ret r", ""])


def test_every_operation_has_a_rule():
    assert set(run_rules) == {*USER_OPS, "charge"}


# Numbers


@pytest.mark.parametrize(
    "line, params, args, expected",
    [
        ("r = add a, b", "a: i8, b: i8", (127, 1), -128),
        ("r = mul a, b", "a: u64, b: u64", (2**63, 3), 2**63),
        ("r = sub a, b", "a: u8, b: u8", (0, 1), 255),
        ("r = neg a", "a: i32", (-(2**31),), -(2**31)),
        ("r = abs a", "a: i64", (-(2**63),), -(2**63)),
        ("r = div a, b", "a: i64, b: i64", (-7, 2), -3),
        ("r = rem a, b", "a: i64, b: i64", (-7, 2), -1),
        ("r = pow a, b", "a: i64, b: i64", (3, -1), 1),
        ("r = shl a, b", "a: i32, b: i32", (1, 33), 2),
        ("r = shr a, b", "a: i64, b: i64", (-8, 65), -4),
        ("r = bit_not a", "a: u8", (0,), 255),
        ("r = bit_xor a, b", "a: i8, b: i8", (-1, 1), -2),
        ("r = min a, b", "a: i64, b: i64", (3, -3), -3),
        ("r = add a, b", "a: f32, b: f32", (16777216.0, 1.0), 16777216.0),
        ("r = div a, b", "a: f64, b: f64", (1.0, 0.0), math.inf),
        ("r = rem a, b", "a: f64, b: f64", (-7.5, 2.0), 0.5),
        ("r = round a", "a: f64", (2.5,), 2.0),
        ("r = fma a, a, a", "a: f64", (3.0,), 12.0),
        ("r = exp a", "a: f64", (1000.0,), math.inf),
        ("r = max a, b", "a: f64, b: f64", (-0.0, 0.0), 0.0),
    ],
)
def test_arithmetic(line, params, args, expected):
    result = params.split(":")[1].split(",")[0].strip()
    assert run(expression(params, result, line), *args) == expected


@pytest.mark.parametrize(
    "line, params, args, kind",
    [
        ("r = div a, b", "a: i64, b: i64", (1, 0), "division_by_zero"),
        ("r = rem a, b", "a: i8, b: i8", (-128, -1), "integer_overflow"),
        ("r = checked_add a, b", "a: u8, b: u8", (255, 1), "integer_overflow"),
        ("r = checked_sub a, b", "a: u8, b: u8", (0, 1), "integer_overflow"),
        ("r = checked_mul a, b", "a: i64, b: i64", (2**62, 2), "integer_overflow"),
        ("r = checked_neg a", "a: i64", (-(2**63),), "integer_overflow"),
        ("r = cast a", "a: f64", (math.nan,), "float_to_int"),
    ],
)
def test_arithmetic_traps(line, params, args, kind):
    result = params.split(":")[1].split(",")[0].strip() if "cast" not in line else "i64"
    if "cast" in line:
        line = line.replace("r =", "r: i64 =")
    found = trap(expression(params, result, "nop", line), *args)
    assert (found.kind, found.origin, found.frames) == (kind, Origin("f", "entry", 1), ())


def test_casts():
    assert run(expression("a: i64", "char", "r: char = cast a"), 65) == "A"
    assert trap(expression("a: i64", "char", "r: char = cast a"), 0xD800).kind == "invalid_char"
    assert run(expression("a: char", "u8", "r: u8 = cast a"), "é") == 233
    assert run(expression("a: f32", "u32", "r: u32 = bitcast a"), math.nan) == 0x7FC00000


def test_comparison_and_logic():
    assert run(expression("a: f64", "bool", "r = ne a, a"), math.nan) is True
    assert run(expression("a: text, b: text", "bool", "r = lt a, b"), "Z", "a") is True
    assert run(expression("a: bool, b: bool", "bool", "c = and a, b", "d = or a, c", "r = not d"), True, False) is False
    assert run(expression("a: bool", "i64", "r = select a, 1, 2"), False) == 2


# Structure

SHAPES = """
class Node:
  value: i64
  next: Node?
struct Pair:
  a: i64
  b: [i64]
enum Shape:
  Circle(r: f64)
  Rect(w: f64, h: f64)
  Point
"""


def test_structs_are_shared_and_copied_one_level():
    source = SHAPES + expression(
        "",
        "i64",
        "xs = array 1, 2",
        "p = new Pair(b: xs, a: 5)",
        "q = copy p",
        "c = aggregate_copy p",
        "set_field q, a, 7",
        "push p.b, 3",
        "m = get_field c, a",
        "ys = get_field c, b",
        "n = len ys",
        "k = get_field p, a",
        "u = mul m, 100",
        "v = mul n, 10",
        "w = add u, v",
        "r = add w, k",
    )
    assert run(source) == 537


def test_structural_equality():
    source = SHAPES + expression(
        "x: f64, y: i64",
        "bool",
        "s = variant Shape.Rect(h: x, w: 1.0)",
        "t = variant Shape.Rect(w: 1.0, h: x)",
        "a = array s, t",
        "b = array t, s",
        "xs = array y",
        "p = new Pair(a: 1, b: xs)",
        "zs = array 3",
        "q = new Pair(a: 1, b: zs)",
        "u = tuple a, p",
        "v = tuple b, q",
        "r = eq u, v",
    )
    assert run(source, 2.0, 3) is True
    assert run(source, 2.0, 4) is False
    assert run(source, math.nan, 3) is False


def test_classes_compare_by_identity():
    source = SHAPES + expression(
        "", "bool", "n: Node? = const nil", "a = new Node(value: 1, next: n)", "b = new Node(value: 1, next: n)", "c = some a", "d = some b", "r = eq c, d"
    )
    assert run(source) is False
    assert run(source.replace("d = some b", "d = some a")) is True


def test_dicts_compare_in_any_order():
    source = expression(
        "",
        "bool",
        "a: {i64: text} = dict",
        "b: {i64: text} = dict",
        'index_set a, 1, "x"',
        'index_set a, 2, "y"',
        'index_set b, 2, "y"',
        'index_set b, 1, "x"',
        "r = eq a, b",
    )
    assert run(source) is True
    assert run(source.replace('index_set b, 1, "x"', 'index_set b, 3, "x"')) is False


CYCLIC = """
struct Knot:
  inner: [Knot]
fn f() -> bool:
entry:
  e: [Knot] = array
  a = new Knot(inner: e)
  push a.inner, a
  d: [Knot] = array
  b = new Knot(inner: d)
  push b.inner, b
  r = eq a, b
  ret r
"""


def test_comparing_cycles_ends():
    found = trap(CYCLIC)
    assert (found.kind, found.origin) == ("stack_overflow", Origin("f", "entry", 6))


def test_enums():
    source = SHAPES + expression("", "f64", "s = variant Shape.Rect(h: 2.0, w: 3.0)", "t = tag s", "x = payload s, Rect.h", "y: f64 = cast t", "r = add x, y")
    assert run(source) == 3.0
    found = trap(source.replace("Rect.h", "Circle.r"))
    assert (found.kind, found.message) == ("wrong_variant", "the value is variant number 1, not number 0")


def test_options():
    source = expression("a: i64?", "i64", "s = is_some a", "x = unwrap a", "r = select s, x, 0")
    assert run(source, SomeValue(4)) == 4
    assert trap(source, None).kind == "nil_unwrap"


# Arrays, dicts, text


def test_array_operations():
    source = expression(
        "xs: [i64]",
        "[i64]",
        "push xs, 4",
        "insert xs, 0, 9",
        "insert xs, 5, 8",
        "a = remove xs, 1",
        "b = pop xs",
        "index_set xs, 0, a",
        "ys = slice xs, 1, 3",
        "zs = concat xs, ys",
        "fill = array_fill b, 2",
        "r = concat zs, fill",
    )
    assert run(source, ArrayValue([1, 2, 3])).items == [1, 2, 3, 4, 2, 3, 8, 8]


@pytest.mark.parametrize(
    "line, message",
    [
        ("r = index_get xs, 3", "index 3 is out of bounds for length 3"),
        ("r = index_get xs, -1", "index -1 is out of bounds for length 3"),
        ("index_set xs, 3, 0", "index 3 is out of bounds for length 3"),
        ("insert xs, 4, 0", "index 4 is out of bounds for length 3"),
        ("r = remove xs, 3", "index 3 is out of bounds for length 3"),
        ("ys = slice xs, 2, 1", "index 1 is out of bounds for length 3"),
        ("ys = slice xs, 4, 5", "index 4 is out of bounds for length 3"),
        ("ys = slice xs, -1, 2", "index -1 is out of bounds for length 3"),
        ("ys = array_fill 1, -2", "index -2 is out of bounds for length 0"),
    ],
)
def test_bounds(line, message):
    xs = ArrayValue([1, 2, 3])
    found = trap(f"fn f(xs: [i64]):\nentry:\n  {line}\n  ret\n", xs)
    assert (found.kind, found.message) == ("index_out_of_bounds", message)
    assert xs.items == [1, 2, 3]


def test_pop_of_nothing():
    assert trap("fn f(xs: [i64]):\nentry:\n  x = pop xs\n  ret\n", ArrayValue([])).message == "index -1 is out of bounds for length 0"


@pytest.mark.parametrize("line", ["push xs, 1", "x = pop xs", "insert xs, 9, 1", "x = remove xs, 9"])
def test_lent_arrays_do_not_grow(line):
    import array

    lent = ArrayValue(memoryview(array.array("q", [])), growable=False)
    assert trap(f"fn f(xs: [i64]):\nentry:\n  {line}\n  ret\n", lent).kind == "array_not_growable"


def test_lent_arrays_are_written_in_place():
    import array

    data = array.array("d", [1.0, 2.0])
    source = expression("xs: [f64]", "[f64]", "index_set xs, 1, 5.0", "ys = slice xs, 0, 2", "index_set xs, 0, 7.0", "r = concat ys, xs")
    assert run(source, ArrayValue(memoryview(data), growable=False)).items == [1.0, 5.0, 7.0, 5.0]
    assert list(data) == [7.0, 5.0]


def test_dict_operations():
    source = expression("d: {text: i64}", "[i64]", 'index_set d, "b", 2', 'a = index_get d, "z"', 'x = remove d, "z"', 'index_set d, "a", x', "r = values d")
    assert run(source, DictValue({"z": 26})).items == [26, 2]
    found = trap(source, DictValue({}))
    assert (found.kind, found.origin) == ("key_missing", Origin("f", "entry", 1))
    assert run(expression("d: {char: bool}", "[char]", "r = keys d"), DictValue({"é": True, "Z": False, "a": True})).items == ["Z", "a", "é"]
    assert run(expression("d: {i8: i64}", "bool", "r = contains d, 3i8"), DictValue({3: 1})) is True


def test_text():
    source = expression(
        "a: text",
        "text",
        'b = concat a, "é"',
        "n = len b",
        "c = index_get b, 1",
        "t = to_text c",
        "s = slice b, 0, 1",
        "m = to_text n",
        "u = concat s, t",
        "r = concat u, m",
    )
    assert run(source, "xy") == "xy3"
    assert trap(source, "").message == "index 1 is out of bounds for length 1"
    assert run(expression("a: text, b: text", "bool", "r = contains a, b"), "häuser", "äu") is True
    assert run(expression("a: text", "i64?", "r = parse_int a"), "-12").value == -12
    assert run(expression("a: text", "f64?", "r = parse_float a"), "1_0") is None


def test_contains_uses_the_languages_equality():
    assert run(expression("xs: [f64], x: f64", "bool", "r = contains xs, x"), ArrayValue([math.nan]), math.nan) is False
    assert run(expression("xs: [[i64]], x: [i64]", "bool", "r = contains xs, x"), ArrayValue([ArrayValue([1])]), ArrayValue([1])) is True


def test_zero_values():
    source = "struct Inner:\n  xs: [f64; 2]\n  t: text\nstruct Outer:\n  a: Inner\n  b: Inner\n" + expression(
        "", "f64", "o: Outer = zero", "index_set o.a.xs, 0, 5.0", "xs = get_field o.b, xs", "r = index_get xs, 0"
    )
    assert run(source) == 0.0


def test_zero_value_of_a_deep_chain_of_structs():
    depth = 3000
    source = "".join(f"struct S{i}:\n  x: S{i + 1}\n" for i in range(depth)) + f"struct S{depth}:\n  x: i64\n"
    value = zero_value(parse_type("S0"), Names.of(parse_text(source)))
    for _ in range(depth):
        value = value.slots[0]
    assert value.slots == [0]


def test_zero_values_respect_the_memory_limit():
    chain = "".join(f"struct S{i}:\n  x: S{i + 1}\n  y: S{i + 1}\n" for i in range(40)) + "struct S40:\n  x: i64\n"
    for spelled in ("[[i64; 1000000000]; 1000000000]", "S0"):
        with pytest.raises(Trap) as caught:
            zero_value(parse_type(spelled), Names.of(parse_text(chain)), Budget(1 << 17).take)
        assert caught.value.kind == "out_of_memory"


# Places and globals


PLACES = """
struct Item:
  w: [f64]
  n: i64
global table: {text: [Item]}
fn touch(item: Item):
entry:
  k = get_field item, n
  k = add k, 1
  set_field item, n, k
  ret
fn f(key: text, i: i64, j: i64) -> i64:
entry:
  ws = array 1.0, 2.0
  one = new Item(w: ws, n: 1)
  items = array one
  index_set @table, "k", items
  index_set @table[key][i].w, j, 9.0
  call touch(@table[key][i])
  at = array i, j
  x = index_get @table[key][at[0]].w, at[1]
  r: i64 = cast x
  n = get_field one, n
  r = add r, n
  ret r
"""


def test_places_are_followed_through():
    assert run(PLACES, "k", 0, 1) == 11


@pytest.mark.parametrize("args, kind", [(("q", 0, 0), "key_missing"), (("k", 1, 0), "index_out_of_bounds"), (("k", 0, 2), "index_out_of_bounds")])
def test_hops_trap_at_their_instruction(args, kind):
    found = trap(PLACES, *args)
    assert (found.kind, found.origin) == (kind, Origin("f", "entry", 4))


def test_globals_live_in_the_store():
    host = TestHost()
    source = "global n: i64 = 5\nglobal t: text\nfn f() -> i64:\nentry:\n  x = load_global n\n  x = add x, 1\n  store_global n, x\n  ret @n\n"
    module = parse_text(source)
    module = resolve(module, Names.of(module), Reporter())
    backend = Interpreter(host)
    program = backend.compile(Unit(module, "key"), 0)
    assert [program.call("f", []), program.call("f", [])] == [6, 7]
    types = {"n": (0, I64), "t": (1, TEXT)}
    assert backend.read_globals(types, Names.of(module)) == {"n": 7, "t": ""}
    backend.write_globals({"n": 40, "t": "x"}, types, Names.of(module))
    assert program.call("f", []) == 41


def test_move_and_drop():
    assert run(expression("a: i64", "i64", "b = copy move a", "a = add b, 1", "c = copy a", "drop c", "debug_value b", "r = add move a, b"), 1) == 3


# Pointers


def test_pointers():
    source = expression("i: i64", "i64", "p = alloc i64, 3", "q = gep p, i", "store q, 7", "x = ref 5", "y = load x", "z = load q", "r = add y, z")
    assert run(source, 2) == 12
    for i in (3, -1, 2**63 - 1):
        assert trap(source, i).kind == "bad_pointer"
    assert trap("fn f():\nentry:\n  p = alloc i64, -1\n  ret\n").kind == "bad_pointer"


# Calls, functions, externs

RECURSION = """
fn fib(n: i64) -> i64:
entry:
  small = lt n, 2
  if small then base else step
base:
  ret n
step:
  a = sub n, 1
  x = call fib(a)
  b = sub n, 2
  y = call fib(b)
  r = add x, y
  ret r
fn deep(n: i64) -> i64:
entry:
  stop = eq n, 0
  if stop then done else more
done:
  r = div 1, n
  ret r
more:
  m = sub n, 1
  r = call deep(m)
  ret r
"""


def test_recursion_and_frames():
    assert run(RECURSION, 15, name="fib") == 610
    found = trap(RECURSION, 2, name="deep")
    assert found.origin == Origin("deep", "done", 0)
    assert found.frames == (Origin("deep", "more", 1),) * 2
    found = trap(RECURSION, 100, name="deep")
    assert (len(found.frames), found.frames_omitted) == (64, 36)


def test_endless_recursion():
    found = trap("fn f():\nentry:\n  call f()\n  ret\n")
    assert found.kind == "stack_overflow" and found.frames_omitted == 999 - 64


def test_function_values():
    source = """
fn add3(a: i64, b: i64, c: i64) -> i64:
entry:
  x = mul a, 100
  y = mul b, 10
  r = add x, y
  r = add r, c
  ret r
fn f() -> i64:
entry:
  g = closure add3(1, 2)
  x = call_indirect g(3)
  h = func add3
  y = call_indirect h(4, 5, 6)
  r = add x, y
  ret r
"""
    assert run(source) == 579


def test_externs():
    source = """
extern fn host_add(a: i64, b: f64, ...) -> f64
fn f(x: i64) -> f64:
entry:
  xs = array x
  r = call host_add(x, 2.5, "t", xs)
  ret r
"""
    host = TestHost(externs={"host_add": lambda a, b, *rest: a + b})
    assert run(source, 4, host=host) == 6.5
    name, args, types, result, origin = host.calls[0]
    assert (name, args[:3], types, result, origin) == ("host_add", [4, 2.5, "t"], (I64, F64, TEXT, parse_type("[i64]")), F64, Origin("f", "entry", 1))


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), MemoryError(), Trap("nil_unwrap", origin=Origin("other", "b", 3))])
def test_exceptions_of_externs_pass_unchanged(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        run("extern fn fail()\nfn f():\nentry:\n  call fail()\n  ret\n", host=TestHost(externs={"fail": fail}))
    assert caught.value is error


# Throwing

THROWING = """
fn thrower(p: i64):
entry:
  throw p, 7
fn middle(p: i64):
entry:
  nop
  call thrower(p)
  ret
fn again(p: i64):
entry:
  invoke middle(p) then fine unwind caught(q, t)
fine:
  ret
caught:
  q = add q, t
  resume q, t
fn f(p: i64) -> i64:
entry:
  invoke again(p) then fine unwind caught(q, t)
fine:
  ret 0
caught:
  r = add q, t
  ret r
fn g(p: i64):
entry:
  call again(p)
  ret
fn value(x: i64) -> i64:
entry:
  ret x
fn h(x: i64) -> i64:
entry:
  r = invoke value(x) then fine unwind caught(q, t)
fine:
  ret r
caught:
  ret q
fn trapping(p: i64) -> i64:
entry:
  invoke divides(p) then fine unwind caught(q, t)
fine:
  ret 0
caught:
  ret 1
fn divides(p: i64):
entry:
  x = div 1, p
  ret
"""


def test_throw_and_resume():
    assert run(THROWING, 10) == 24
    assert run(THROWING, 3, name="h") == 3
    found = trap(THROWING, 10, name="g")
    assert (found.kind, found.payload, found.origin) == ("uncaught_throw", (17, 7), Origin("thrower", "entry", 0))
    assert found.frames == (Origin("middle", "entry", 1), Origin("again", "entry", 0), Origin("g", "entry", 0))


def test_traps_are_not_caught():
    found = trap(THROWING, 0, name="trapping")
    assert (found.kind, found.frames) == ("division_by_zero", (Origin("trapping", "entry", 0),))


# Control and effects


def test_switch():
    source = "fn f(x: i64) -> i64:\nentry:\n  switch x [0: a, -1: b] else c\na:\n  ret 10\nb:\n  ret 20\nc:\n  ret 30\n"
    assert [run(source, x) for x in (0, -1, 5)] == [10, 20, 30]


def test_print_assert_abort_unreachable():
    host = TestHost()
    source = (
        'fn f(x: i64, y: f32):\nentry:\n  print x\n  print y\n  print true\n  print \'c\'\n  c = gt x, 0\n  assert c, "x must be positive"\n  abort "done"\n'
    )
    found = trap(source, 1, 0.10000000149011612, host=host)
    assert "".join(host.output) == "1\n0.1\ntrue\nc\n"
    assert (found.kind, found.message) == ("abort", "done")
    found = trap(source, 0, 1.0)
    assert (found.kind, found.message) == ("assertion_failed", "x must be positive")
    assert trap("fn f():\nentry:\n  unreachable\n").kind == "unreachable"


LOOP = """
fn f(n: i64) -> i64:
entry:
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  i = add i, 1
  goto head
done:
  ret i
"""


def test_fuel_is_charged_per_instruction_as_written():
    program = compiled(LOOP, fuel=True)
    needed = 2 + 4 * 2 + 3 * 2 + 1
    assert program.call("f", [3], needed) == 3
    assert program.call("f", [3], None) == 3
    with pytest.raises(Trap) as caught:
        program.call("f", [3], needed - 1)
    assert (caught.value.kind, caught.value.origin) == ("out_of_fuel", Origin("f", "done", 0))


# Limits


def test_the_host_can_stop_a_loop():
    found = trap(LOOP, 2**62, host=TestHost(polls_left=10))
    assert found.kind == "timeout" and found.origin is not None


@pytest.mark.parametrize(
    "line", ["xs = array_fill 0, 1099511627776", "p = alloc i64, 1099511627776", "xs: [i64; 1000000] = zero", "p = alloc [i64; 1000], 1000"]
)
def test_memory_limit_before_allocating(line):
    assert trap(f"fn f():\nentry:\n  {line}\n  ret\n", host=TestHost(Limits(memory=1 << 20))).kind == "out_of_memory"


def test_memory_limit_of_growing_text():
    source = 'fn f():\nentry:\n  s = const "x"\n  goto again\nagain:\n  s = concat s, s\n  goto again\n'
    assert trap(source, host=TestHost(Limits(memory=1 << 20))).kind == "out_of_memory"


def test_output_limit_has_an_origin():
    source = "fn f():\nentry:\n  print 1\n  goto entry2\nentry2:\n  print 22222\n  goto entry2\n"
    found = trap(source, host=TestHost(Limits(output=50)))
    assert (found.kind, found.origin) == ("output_limit", Origin("f", "entry2", 0))


def test_long_lists_are_compared_and_freed_without_recursion():
    source = """
class Node:
  next: Node?
struct Cons:
  tail: [Cons]
fn f(n: i64) -> bool:
entry:
  a: [Cons] = array
  b: [Cons] = array
  c: Node? = const nil
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = new Cons(tail: a)
  a = array x
  y = new Cons(tail: b)
  b = array y
  z = new Node(next: c)
  c = some z
  i = add i, 1
  goto head
done:
  r = eq a, b
  ret r
"""
    assert run(source, 40_000, host=TestHost(Limits())) is True


def test_comparing_is_polled():
    a, b = ArrayValue([1] * 100_000), ArrayValue([1] * 100_000)
    assert trap(expression("a: [i64], b: [i64]", "bool", "r = eq a, b"), a, b, host=TestHost(polls_left=20)).kind == "timeout"
    assert trap(expression("a: [i64]", "bool", "r = contains a, 2"), a, host=TestHost(polls_left=20)).kind == "timeout"


# Traps as data


def test_every_kind_has_a_message_and_a_status():
    for kind in TRAP_KINDS:
        assert "{" not in trap_message(kind, 1, 2)
        assert kind_of_status(status_of_kind(kind)) == kind
    assert trap_message("abort", message="why") == "why"
    assert trap_message("assertion_failed") == "the assertion does not hold"


@pytest.mark.parametrize("count", [0, 1, 32, 33, 64, 65, 200])
def test_native_frames_are_kept_as_the_interpreter_keeps_them(count):
    sites, passed = SiteTable(), PassedCalls()
    numbers = [sites.add(None, None, Origin("f", "b", i)) for i in range(count)]
    words = {FRAME_COUNT: count, TRAP_SITE: sites.add("index_out_of_bounds", None, Origin("g", "b", 0)), TRAP_A: 5, TRAP_B: 4}
    for i, number in enumerate(numbers):
        words[FRAMES + 8 * (i if i < 32 else 32 + i % 32)] = number
        passed.add(Origin("f", "b", i))
    built = build_trap(status_of_kind("index_out_of_bounds"), lambda at: words.get(at, 0), sites)
    assert (built.frames, built.frames_omitted) == (passed.kept, passed.omitted)
    assert (built.message, built.origin) == ("index 5 is out of bounds for length 4", Origin("g", "b", 0))


def test_native_throw():
    sites = SiteTable()
    words = {TRAP_SITE: sites.add("uncaught_throw", None, Origin("f", "b", 1)), THROW_PAYLOAD: -3, THROW_TAG: 9}
    built = build_trap(status_of_kind("uncaught_throw"), lambda at: words.get(at, 0), sites)
    assert built.payload == (-3, 9) and "payload -3 and tag 9" in built.message


def test_sites_are_shared():
    sites = SiteTable()
    assert sites.add(None, None, None) == sites.add(None, None, None) == 0 and len(sites) == 1


def test_values_are_python_objects():
    made = run(SHAPES + expression("", "Pair", "xs = array 1", "r = new Pair(b: xs, a: 5)"))
    assert isinstance(made, StructValue) and made.type_name == "Pair" and made.slots[0] == 5 and made.slots[1].items == [1]

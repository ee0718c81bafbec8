"""The native back ends: agreement with the interpreter at every level, traps, calls of the host, memory, interruption, and what compiling leaves behind."""

from __future__ import annotations

import ctypes
import gc
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from simple_magic.backends import numbers
from simple_magic.backends.base import Limits, Unit
from simple_magic.backends.cranelift import CraneliftBackend
from simple_magic.backends.cranelift_rules import cranelift_rules
from simple_magic.backends.interpreter import Interpreter
from simple_magic.backends.llvm import LlvmBackend
from simple_magic.backends.llvm_emit import literal
from simple_magic.backends.llvm_jit import FULL, NO_PASSES, PLAIN, QUICK, SCALAR, choose_pipeline
from simple_magic.backends.llvm_rules import llvm_rules
from simple_magic.backends.worker import run_in_worker
from simple_magic.backends.values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue
from simple_magic.mir.diagnostics import LoweringError, Origin, Reporter, Trap
from simple_magic.mir.model import const, encode_bits
from simple_magic.mir.ops import CORE, OPS
from simple_magic.mir.resolve import Names, resolve
from simple_magic.mir.text import parse_text
from simple_magic.mir.typerules import can_cast
from simple_magic.mir.types import BOOL, CHAR, F32, F64, FLOATS, NUMBERS, bit_width, integer_range, is_integer
from simple_magic.passes.fuel import add_fuel
from simple_magic.runtime.layout import FUEL, HEAP_START

LEVELS = (0, 1, 2)
ENGINES = {"llvm": LlvmBackend, "cranelift": CraneliftBackend}


class TestFlag:
    """A flag word with its mirrors, as `InterruptFlag` has them."""

    __test__ = False

    def __init__(self) -> None:
        self._words = {0: ctypes.c_int64(0)}
        self.address = ctypes.addressof(self._words[0])

    def mirror(self, address: int) -> None:
        self._words[address] = ctypes.c_int64.from_address(address)

    def forget_mirror(self, address: int) -> None:
        del self._words[address]

    @property
    def value(self) -> int:
        return self._words[0].value

    @value.setter
    def value(self, value: int) -> None:
        for word in self._words.values():
            word.value = value


@dataclass
class TestHost:
    """Collects output, serves externs, and stops when asked."""

    __test__ = False

    limits: Limits = field(default_factory=lambda: Limits(memory=64 << 20))
    output: list[str] = field(default_factory=list)
    externs: dict = field(default_factory=dict)
    origins: list[Origin | None] = field(default_factory=list)
    flag: TestFlag = field(default_factory=TestFlag)
    stop: BaseException | None = None
    polls: int = 0

    @property
    def flag_address(self) -> int:
        return self.flag.address

    def call_extern(self, name, args, arg_types, result, origin=None):
        self.origins.append(origin)
        internal = {
            "rt_print": lambda text: self.write(f"{text}\n"),
            "rt_float_text": lambda x: numbers.float_text(x, arg_types[0]),
            "rt_parse_float": numbers.parse_float_option,
        }
        return {**internal, **self.externs}[name](*args)

    def write(self, text):
        if sum(map(len, self.output)) + len(text) > self.limits.output:
            raise Trap("output_limit")
        self.output.append(text)

    def poll(self):
        self.polls += 1
        self.flag.value = 0
        if self.stop is not None:
            raise self.stop


def unit_of(source: str, fuel: bool = False) -> Unit:
    module, reporter = parse_text(source), Reporter()
    module = resolve(module, Names.of(module), reporter)
    assert not reporter.errors(), reporter.errors()
    slots = {g.name: index for index, g in enumerate(module.globals)}
    return Unit(add_fuel(module) if fuel else module, "key", slots)


@pytest.fixture
def host():
    return TestHost()


@pytest.fixture(params=sorted(ENGINES))
def engine(request):
    """One of the native back ends."""
    return ENGINES[request.param]


@pytest.fixture
def backend(host, engine):
    made = engine(host)
    yield made
    made.close()


@pytest.fixture
def llvm(host):
    """The LLVM back end, for what only it has."""
    made = LlvmBackend(host)
    yield made
    made.close()


def shape(value: object, seen: dict[int, int] | None = None) -> object:
    """Return a value as something comparable: floats by their bits (NaN is NaN), objects by structure and sharing."""
    seen = {} if seen is None else seen
    if isinstance(value, float):
        return "nan" if value != value else value.hex()
    if value is None or isinstance(value, (bool, int, str)):
        return type(value).__name__, value
    if isinstance(value, tuple):
        return tuple(shape(v, seen) for v in value)
    if isinstance(value, SomeValue):
        return "some", shape(value.value, seen)
    if id(value) in seen:
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, ArrayValue):
        return [shape(v, seen) for v in value.items]
    if isinstance(value, DictValue):
        return {k: shape(value.items[k], seen) for k in sorted(value.items)}
    if isinstance(value, EnumValue):
        return value.type_name, value.tag, [shape(v, seen) for v in value.slots]
    assert isinstance(value, StructValue)
    return value.type_name, [shape(v, seen) for v in value.slots]


def outcome(program, host: TestHost, function: str, args: list[object], fuel: int | None = None) -> object:
    """Return what a call ends with, and its output."""
    host.output.clear()
    try:
        result = "value", shape(program.call(function, args, fuel))
    except Trap as trap:
        result = "trap", trap.kind, trap.message, trap.origin, trap.frames, trap.frames_omitted, trap.payload
    return result, "".join(host.output)


# Tables


def test_there_is_a_rule_for_every_core_operation():
    for rules in (llvm_rules, cranelift_rules):
        assert set(rules) == set(CORE), set(rules) ^ set(CORE)


def test_floats_are_spelled_by_their_bits():
    assert literal(const(F64, 1.0)) == "0x3FF0000000000000"
    for value in (1.0, -0.0, 1.5, 1e-45, -3.4e38, math.inf, math.nan, 2.0**-126, 2.0**-127):
        spelled = literal(const(F32, numbers.round_f32(value)))
        assert int(spelled, 16) == encode_bits(F64, numbers.round_f32(value)) & ~(1 << 63) | int(spelled, 16) & 1 << 63


def test_size_picks_the_pipeline():
    assert choose_pipeline(0, [(1, 1)]) is NO_PASSES
    assert choose_pipeline(1, [(1, 1)]) is QUICK
    assert choose_pipeline(2, [(1, 100)]) is choose_pipeline(3, [(1, 100)]) is FULL
    assert choose_pipeline(2, [(1, 6_000)]) is SCALAR
    assert choose_pipeline(2, [(1, 16_000)]) is QUICK
    assert choose_pipeline(2, [(2_000, 4_000)]) is PLAIN
    assert choose_pipeline(2, [(1, 50_000)]) is NO_PASSES


# Arithmetic: every operation, type and pair of boundary values, against the interpreter


def boundary_values(t) -> list[object]:
    if is_integer(t):
        low, high = integer_range(t)
        return sorted({low, low + 1, max(low, -1), 0, 1, 3, high // 2 + 1, high - 1, high, bit_width(t)})
    if t in FLOATS:
        values = [0.0, -0.0, 1.0, -1.5, 2.5, 0.1, 1e-45, 1e300, -129.0, 255.5, 2.0**31, -(2.0**63), 2.0**64, math.inf, -math.inf, math.nan]
        return [numbers.round_f32(v) for v in values] if t == F32 else values
    return [False, True] if t == BOOL else ["\0", "a", "\ue000", "\U0010ffff"]


def arithmetic() -> tuple[str, list[tuple[str, list[tuple]]]]:
    """Return (source, calls): one function per operation and type."""
    source, calls = [], []

    def add(name: str, params: list, result, op: str, annotated: bool = False) -> None:
        names = "abc"[: len(params)]
        heading = ", ".join(f"{n}: {t.name}" for n, t in zip(names, params))
        note = f": {result.name}" if annotated else ""
        source.append(f"fn {name}({heading}) -> {result.name}:\nentry:\n  r{note} = {op} {', '.join(names)}\n  ret r\n")
        calls.append((name, list(itertools.product(*(boundary_values(t)[:: 1 if len(params) < 3 else 3] for t in params)))))

    groups = ("integer and float arithmetic", "float mathematics", "comparison and logic")
    for op in (row for row in OPS.values() if row.group in groups):
        arity = op.form.count("v")
        for t in (*NUMBERS, BOOL, CHAR):
            allowed = op.classes["T"] or (*NUMBERS, BOOL, CHAR)
            if op.name in ("and", "or", "not"):
                allowed = (BOOL,)
            if t in allowed:
                is_test = op.group == "comparison and logic" and op.name not in ("and", "or", "not")
                add(f"{op.name}_{t.name}", [t] * arity, BOOL if is_test else t, op.name)
    for source_type, target in itertools.product((*NUMBERS, BOOL, CHAR), repeat=2):
        if can_cast(source_type, target):
            add(f"cast_{source_type.name}_{target.name}", [source_type], target, "cast", annotated=True)
        if source_type in NUMBERS and target in NUMBERS and bit_width(source_type) == bit_width(target):
            add(f"bitcast_{source_type.name}_{target.name}", [source_type], target, "bitcast", annotated=True)
    for t in FLOATS:
        source.append(f"fn chain_{t.name}(a: {t.name}, b: {t.name}, c: {t.name}) -> {t.name}:\nentry:\n  p = mul a, b\n  r = add p, c\n  ret r\n")
        calls.append((f"chain_{t.name}", list(itertools.product(boundary_values(t)[::3], repeat=3))))
    return "\n".join(source), calls


@pytest.fixture(scope="module")
def arithmetic_reference():
    source, calls = arithmetic()
    unit, host = unit_of(source), TestHost()
    program = Interpreter(host).compile(unit, 0)
    return unit, [(name, args, outcome(program, host, name, list(args))) for name, cases in calls for args in cases]


@pytest.mark.parametrize("level", LEVELS)
def test_arithmetic_agrees_bit_for_bit(backend, host, arithmetic_reference, level):
    unit, cases = arithmetic_reference
    program = backend.compile(unit, level)
    wrong = [(name, args, wanted, got) for name, args, wanted in cases if (got := outcome(program, host, name, list(args))) != wanted]
    assert not wrong, wrong[:5]


# Programs


PROGRAMS: dict[str, tuple[str, list[tuple[str, list[object]]]]] = {
    "throws pass calls, are caught, and are resumed": (
        """
fn risky(n: i64) -> i64:
entry:
  c = gt n, 2
  if c then bad else good
bad:
  throw n, 7
good:
  ret n

fn middle(n: i64) -> i64:
entry:
  r = call risky(n)
  s = add r, 1
  ret s

fn caught(n: i64) -> i64:
entry:
  r = invoke middle(n) then fine unwind handler(p, t)
fine:
  ret r
handler:
  x = mul p, 100
  y = add x, t
  ret y

fn resumed(n: i64) -> i64:
entry:
  r = invoke middle(n) then fine unwind handler(p, t)
fine:
  ret r
handler:
  q = add p, 1
  resume q, t

fn outer(n: i64) -> i64:
entry:
  r = call resumed(n)
  ret r

fn loops(n: i64) -> i64:
entry:
  i = const 0
  total = const 0
  goto head
head:
  c = lt i, n
  if c then body else done
body:
  r = invoke middle(i) then fine unwind handler(p, t)
fine:
  total = add total, r
  goto next
handler:
  total = add total, p
  total = add total, t
  goto next
next:
  i = add i, 1
  goto head
done:
  ret total

fn never_throws(n: i64) -> i64:
entry:
  ret n

fn invokes_it(n: i64) -> i64:
entry:
  r = invoke never_throws(n) then fine unwind handler(p, t)
fine:
  ret r
handler:
  ret p
""",
        [("caught", [1]), ("caught", [5]), ("resumed", [1]), ("resumed", [5]), ("outer", [9]), ("loops", [7]), ("invokes_it", [3])],
    ),
    "function values": (
        """
fn add3(a: i64, b: i64, c: i64) -> i64:
entry:
  r = add a, b
  r = add r, c
  ret r

fn quotient(a: i64, b: i64) -> i64:
entry:
  r = div a, b
  ret r

fn apply(f: fn(i64) -> i64, x: i64) -> i64:
entry:
  r = call_indirect f(x)
  ret r

fn main(n: i64) -> i64:
entry:
  g = closure add3(10, 20)
  r = call apply(g, n)
  h = closure quotient(100)
  s = call apply(h, n)
  t = add r, s
  ret t
""",
        [("main", [5]), ("main", [0])],
    ),
    "frames of a deep trap": (
        """
fn down(n: i64) -> i64:
entry:
  z = eq n, 0
  if z then bottom else more
bottom:
  assert false, "the \\"bottom\\""
  ret 0
more:
  m = sub n, 1
  r = call down(m)
  s = add r, 1
  ret s
""",
        [("down", [n]) for n in (0, 3, 31, 32, 33, 63, 64, 65, 200)],
    ),
    "objects of every kind": (
        """
class Node:
  value: i64
  next: Node?

struct Mixed:
  x: f64
  y: f32
  b: bool
  c: char
  u: u8

enum Shape:
  Circle(r: f64)
  Rect(w: i32, h: i32)
  Point

fn chain(n: i64) -> Node?:
entry:
  head: Node? = const nil
  i = const 0
  goto top
top:
  c = lt i, n
  if c then body else done
body:
  node = new Node(value: i, next: head)
  head = some node
  i = add i, 1
  goto top
done:
  ret head

fn ring() -> Node:
entry:
  a = new Node(value: 1, next: nil)
  s = some a
  set_field a, next, s
  ret a

fn mixed(u: u8) -> Mixed:
entry:
  p = new Mixed(c: 'é', x: 1.5, y: 2.5f32, b: true, u: u)
  ret p

fn shape(k: i64) -> Shape:
entry:
  switch k [0: a, 1: b] else c
a:
  s = variant Shape.Circle(r: 2.0)
  ret s
b:
  s = variant Shape.Rect(w: -3i32, h: 4i32)
  ret s
c:
  s = variant Shape.Point
  ret s

fn radius(s: Shape) -> f64:
entry:
  r = payload s, Circle.r
  ret r

fn table(n: i64) -> {i64: text}:
entry:
  d: {i64: text} = dict
  i = const 0
  goto top
top:
  c = lt i, n
  if c then body else done
body:
  t = to_text i
  index_set d, i, t
  i = add i, 3
  goto top
done:
  x = index_get d, 3
  print x
  ret d

fn report(t: text) -> ([text], {text: i64}, (i8, f32)?):
entry:
  d: {text: i64} = dict
  index_set d, t, 1
  index_set d, "constant", 2
  ks = keys d
  pair = tuple -3i8, 2.5f32
  o = some pair
  r = tuple ks, d, o
  print true
  print 1.5
  print 'x'
  print 0.1f32
  print -7i8
  ret r

fn arrays(xs: [i32], i: i64) -> [i32]:
entry:
  push xs, 5i32
  y = index_get xs, i
  z = add y, 1i32
  index_set xs, 0, z
  q = pop xs
  s = slice xs, 0, 2
  w = concat s, xs
  ret w

fn fill(n: i64) -> i64:
entry:
  xs = array_fill 1, n
  r = len xs
  ret r

fn number(t: text) -> f64?:
entry:
  r = parse_float t
  ret r
""",
        [
            ("chain", [4]), ("chain", [0]), ("ring", []), ("mixed", [200]), ("shape", [0]), ("shape", [1]), ("shape", [2]), ("table", [30]), ("table", [0]),
            ("report", ["zwölf"]), ("radius", [EnumValue("Shape", 0, (3.0,))]), ("radius", [EnumValue("Shape", 1, (3, 4))]), ("fill", [-1]), ("fill", [100]),
            ("number", ["1e3"]), ("number", ["x"]), *(("arrays", [ArrayValue, list(range(n)), i]) for n, i in ((3, 1), (3, 9), (0, 0), (1, -1))),
        ],
    ),
}  # fmt: skip


def fresh(args: list[object]) -> list[object]:
    """Return the arguments with an array of its own in place of `ArrayValue, list`."""
    return [ArrayValue(list(args[1])), *args[2:]] if args and args[0] is ArrayValue else list(args)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_agree_with_the_interpreter(backend, host, name):
    source, calls = PROGRAMS[name]
    unit, reference_host = unit_of(source), TestHost()
    reference = Interpreter(reference_host).compile(unit, 0)
    for level in LEVELS:
        program = backend.compile(unit, level)
        for function, args in calls:
            wanted = outcome(reference, reference_host, function, fresh(args))
            assert outcome(program, host, function, fresh(args)) == wanted, (level, function, args)
        assert backend.heap.mark() == HEAP_START, "a call has left something on the heap"


SPIN = """
fn spin() -> i64:
entry:
  i = const 0
  goto head
head:
  goto head

fn count(n: i64) -> i64:
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

fn deep(n: i64) -> i64:
entry:
  m = add n, 1
  r = call deep(m)
  s = add r, 1
  ret s
"""


@pytest.mark.parametrize("level", LEVELS)
def test_fuel_is_charged_as_on_the_interpreter(backend, host, level):
    unit = unit_of(SPIN, fuel=True)
    reference = Interpreter(TestHost()).compile(unit, 0)
    program = backend.compile(unit, level)
    for fuel in (0, 1, 2, 3, 10, 11, 12, 1000):
        assert outcome(program, host, "count", [3], fuel) == outcome(reference, TestHost(), "count", [3], fuel)
    program.call("count", [3], 1000)
    left = backend.heap.read_word(FUEL)
    assert outcome(program, host, "count", [3], 1000 - left)[0][0] == "value"
    assert outcome(program, host, "count", [3], 1000 - left - 1)[0][1] == "out_of_fuel"


# Limits


@pytest.mark.parametrize("level", LEVELS)
def test_deep_recursion_is_a_trap_in_any_thread(backend, level):
    program = backend.compile(unit_of(SPIN), level)
    kinds = []

    def attempt() -> None:
        try:
            program.call("deep", [0])
        except Trap as trap:
            kinds.append((trap.kind, trap.frames_omitted > 0, len(trap.frames)))

    attempt()
    previous = threading.stack_size(512 << 10)
    try:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(previous)
    assert kinds == [("stack_overflow", True, 64)] * 2
    assert program.call("count", [5]) == 5


def test_memory_is_bounded_and_the_program_goes_on(backend):
    program = backend.compile(
        unit_of("""
fn hog(n: i64) -> i64:
entry:
  xs = array_fill 0, n
  r = len xs
  ret r

fn slowly() -> i64:
entry:
  xs: [text] = array
  goto head
head:
  push xs, "a"
  goto head
"""),
        2,
    )
    for function, args in (("hog", [2**40]), ("hog", [2**62]), ("hog", [9 << 20]), ("slowly", [])):
        with pytest.raises(Trap) as caught:
            program.call(function, args)
        assert caught.value.kind == "out_of_memory" and caught.value.origin is not None
        assert backend.heap.mark() == HEAP_START
    assert program.call("hog", [1000]) == 1000


def test_arguments_that_do_not_fit_are_a_trap(backend):
    program = backend.compile(unit_of("fn f(xs: [i64]) -> i64:\nentry:\n  n = len xs\n  ret n\n"), 0)
    with pytest.raises(Trap, match="out_of_memory"):
        program.call("f", [ArrayValue([0] * (9 << 20))])
    assert program.call("f", [ArrayValue([0] * 10)]) == 10


def test_a_unit_may_be_too_large(host, engine):
    host.limits = replace(host.limits, unit_instructions=3)
    backend = engine(host)
    with pytest.raises(LoweringError) as caught:
        backend.compile(unit_of(SPIN), 0)
    assert caught.value.diagnostics[0].code == "E0604"
    backend.close()


def test_constants_may_not_fit(host, engine):
    host.limits = replace(host.limits, memory=0)
    backend = engine(host)
    with pytest.raises(LoweringError) as caught:
        backend.compile(unit_of(f'fn f() -> text:\nentry:\n  ret "{"x" * 200_000}"\n'), 0)
    assert caught.value.diagnostics[0].code == "E0606"
    backend.close()


# The host


HOSTED = """
extern fn ext(x: i64) -> i64
extern fn make(n: i64) -> [text]
extern fn show(what: text, ...)

fn once(x: i64) -> i64:
entry:
  r = call ext(x)
  s = add r, 1
  ret s

fn many(n: i64) -> i64:
entry:
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  print i
  i = add i, 1
  goto head
done:
  ret i

fn list(n: i64) -> i64:
entry:
  t = call make(n)
  k = len t
  ret k

fn shows(x: f32):
entry:
  call show("a", x, true, 'c')
  ret
"""


@pytest.mark.parametrize("level", LEVELS)
def test_externs_get_values_and_give_values(backend, host, level):
    seen = []
    host.externs = {"ext": lambda x: x * 2, "make": lambda n: ArrayValue([str(i) for i in range(n)]), "show": lambda *args: seen.append(args)}
    program = backend.compile(unit_of(HOSTED), level)
    assert program.call("once", [21]) == 43
    assert program.call("list", [5]) == 5
    assert program.call("shows", [0.5]) is None and seen == [("a", 0.5, True, "c")]
    assert host.origins[0] == Origin("once", "entry", 0)
    assert backend.heap.mark() == HEAP_START


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), Trap("abort", "inner", Origin("g", "entry", 1)), Trap("timeout")])
def test_exceptions_of_externs_surface_unchanged(backend, host, error):
    def fail(_x: int) -> int:
        raise error

    host.externs = {"ext": fail}
    program = backend.compile(unit_of(HOSTED), 2)
    with pytest.raises(type(error)) as caught:
        program.call("once", [1])
    assert caught.value is error
    assert backend.heap.mark() == HEAP_START and backend.callbacks.pending is None
    assert program.call("many", [1]) == 1


def test_a_trap_of_the_output_is_the_programs_own(backend, host):
    host.limits = replace(host.limits, output=20)
    program = backend.compile(unit_of(HOSTED), 2)
    with pytest.raises(Trap) as caught:
        program.call("many", [100])
    assert (caught.value.kind, caught.value.origin) == ("output_limit", Origin("many", "body", 0))


def test_a_result_that_does_not_fit_is_the_programs_trap(backend, host):
    host.externs = {"make": lambda _n: ArrayValue(["x" * 1000] * (9 << 20))}
    program = backend.compile(unit_of(HOSTED), 0)
    with pytest.raises(Trap) as caught:
        program.call("list", [1])
    assert (caught.value.kind, caught.value.origin) == ("out_of_memory", Origin("list", "entry", 0))


def test_printing_takes_no_memory(host, engine):
    host.limits = replace(host.limits, memory=1 << 18)
    host.write = lambda _text: None
    backend = engine(host)
    assert backend.compile(unit_of(HOSTED), 2).call("many", [20_000]) == 20_000
    backend.close()


def test_an_extern_may_call_programs_again(backend, host):
    program = backend.compile(unit_of(HOSTED), 2)
    thrower = backend.compile(unit_of("fn t(x: i64) -> i64:\nentry:\n  throw x, 2\n"), 2)
    fuelled = backend.compile(unit_of(SPIN, fuel=True), 2)

    def again(x: int) -> int:
        with pytest.raises(Trap):
            thrower.call("t", [x])
        assert fuelled.call("count", [3], 1000) == 3
        return x if x == 0 else program.call("once", [x - 1])

    host.externs = {"ext": again}
    assert program.call("once", [5]) == 6
    assert backend.callbacks.depth == 0


def test_what_a_nested_call_does_leaves_a_caught_throw_alone(backend, host):
    source = """
extern fn ext(x: i64) -> i64

fn risky() -> i64:
entry:
  throw 1, 2

fn f() -> i64:
entry:
  r = invoke risky() then fine unwind handler(p, t)
fine:
  ret r
handler:
  x = call ext(p)
  resume x, t
"""
    program = backend.compile(unit_of(source), 2)
    other = backend.compile(unit_of(PROGRAMS["frames of a deep trap"][0]), 0)

    def nested(x: int) -> int:
        with pytest.raises(Trap):
            other.call("down", [100])
        return x + 10

    host.externs = {"ext": nested}
    with pytest.raises(Trap) as caught:
        program.call("f", [])
    assert caught.value.origin == Origin("risky", "entry", 0) and caught.value.payload == (11, 2)
    assert caught.value.frames == (Origin("f", "entry", 0),)


def test_endless_recursion_through_an_extern_ends(backend, host):
    program = backend.compile(unit_of(HOSTED), 2)
    host.externs = {"ext": lambda x: program.call("once", [x + 1])}
    with pytest.raises((Trap, RecursionError)):
        program.call("once", [0])
    host.externs = {"ext": lambda x: x}
    assert program.call("once", [1]) == 2 and backend.callbacks.depth == 0


# Interruption


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Trap("timeout", "too late")])
def test_an_endless_loop_can_be_stopped(backend, host, level, stop):
    program = backend.compile(unit_of(SPIN), level)
    host.stop = stop
    timer = threading.Timer(0.05, lambda: setattr(host.flag, "value", 1))
    timer.start()
    with pytest.raises(type(stop)) as caught:
        program.call("spin", [])
    if isinstance(stop, Trap):
        assert (caught.value.kind, caught.value.message, caught.value.origin.function) == ("timeout", "too late", "spin")
    else:
        assert caught.value is stop
    host.stop = None
    assert program.call("count", [100]) == 100


def test_a_flag_without_a_reason_changes_nothing(backend, host):
    program = backend.compile(unit_of(HOSTED + SPIN), 2)
    host.flag.value = 1
    assert program.call("count", [300_000]) == 300_000 and host.polls == 1
    host.flag.value = 1
    assert program.call("many", [3]) == 3 and host.polls == 2


def test_a_signal_that_arrives_with_the_poll_is_not_lost(backend, host):
    """The handler runs when the callback begins, which is before any ordinary function could catch what it raises."""
    program = backend.compile(unit_of(SPIN), 2)

    def interrupt() -> None:
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        host.flag.value = 1

    for _ in range(5):
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            program.call("spin", [])


def test_a_signal_that_arrives_with_a_host_call_is_not_lost(backend, host, capfd):
    program = backend.compile(unit_of(HOSTED), 2)
    host.write = lambda _text: None
    for _ in range(10):
        threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            program.call("many", [10**9])
    assert "ignored" not in capfd.readouterr().err


def test_a_signal_handler_may_call_programs(backend, host):
    program = backend.compile(unit_of(HOSTED + SPIN), 2)
    host.write = lambda _text: None
    answers = []

    def handle(_number: int, _frame: object) -> None:
        if host.stop is not None:
            return
        answers.append(program.call("count", [7]))
        answers.append(program.call("many", [3]))
        if len(answers) == 6:
            host.stop = KeyboardInterrupt()
        host.flag.value = 1

    def interrupt() -> None:
        for _ in range(4):
            time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGUSR1)
            host.flag.value = 1

    previous = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            program.call("spin", [])
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert answers[:4] == [7, 3, 7, 3] and backend.callbacks.depth == 0


def test_compiling_can_be_interrupted():
    discarded, release = threading.Event(), threading.Event()

    def work() -> str:
        release.wait(5)
        return "made"

    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_in_worker(work, lambda made: discarded.set() if made == "made" else None)
    release.set()
    assert discarded.wait(5)


def test_the_worker_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        run_in_worker(lambda: 1 // 0, lambda _: None)


# Globals and memory between calls


GLOBAL = """
class Node:
  value: i64
  next: Node?

global head: Node?
global table: {text: [f64]}
global hits: i64
global name: text = "start"
extern fn ext(x: i64) -> i64

fn add_node(v: i64):
entry:
  n = new Node(value: v, next: @head)
  s = some n
  store_global @head, s
  h = load_global @hits
  h = add h, 1
  store_global @hits, h
  ret

fn put(k: text, xs: [f64]):
entry:
  index_set @table, k, xs
  ret

fn garbage(n: i64) -> i64:
entry:
  xs = array_fill 1.5, n
  index_set @table, "g", xs
  r = len xs
  ret r

fn get(k: text) -> f64:
entry:
  xs = index_get @table, k
  x = index_get xs, 0
  ret x

fn calls(x: i64) -> i64:
entry:
  r = call ext(x)
  ret r
"""


def global_types(unit: Unit) -> dict:
    return {g.name: (unit.global_slots[g.name], g.type) for g in unit.module.globals}


def start_globals(backend, unit: Unit) -> None:
    values = {"head": None, "table": DictValue({}), "hits": 0, "name": "start"}
    backend.write_globals(values, global_types(unit), Names.of(unit.module))


def read_globals(backend, unit: Unit) -> dict:
    return backend.read_globals(global_types(unit), Names.of(unit.module))


def test_globals_live_between_calls_and_programs(backend):
    unit = unit_of(GLOBAL)
    start_globals(backend, unit)
    for level in LEVELS:
        program = backend.compile(unit, level)
        program.call("add_node", [level])
        program.close()
    values = read_globals(backend, unit)
    assert values["hits"] == 3 and values["name"] == "start"
    assert [values["head"].value.slots[0], values["head"].value.slots[1].value.slots[0]] == [2, 1]


def test_compaction_keeps_what_globals_reach(host, engine):
    host.limits = replace(host.limits, memory=4 << 20)
    backend = engine(host)
    unit = unit_of(GLOBAL)
    start_globals(backend, unit)
    program = backend.compile(unit, 2)
    program.call("put", ["x", ArrayValue([2.5])])
    for n in range(200):
        program.call("add_node", [n])
        assert program.call("garbage", [10_000]) == 10_000
    assert program.call("get", ["x"]) == 2.5
    values = read_globals(backend, unit)
    count, node = 0, values["head"]
    while node is not None:
        count, node = count + 1, node.value.slots[1]
    assert count == 200 and len(values["table"].items["g"].items) == 10_000
    backend.close()


def test_globals_are_replaced_wholly_or_not_at_all(host, engine):
    host.limits = replace(host.limits, memory=1 << 20)
    backend = engine(host)
    unit = unit_of(GLOBAL)
    start_globals(backend, unit)
    program = backend.compile(unit, 0)
    program.call("put", ["x", ArrayValue([2.5])])
    with pytest.raises(Trap, match="out_of_memory"):
        backend.write_globals(
            {"head": None, "table": DictValue({"y": ArrayValue([1.0] * 10**6)}), "hits": 1, "name": ""}, global_types(unit), Names.of(unit.module)
        )
    assert program.call("get", ["x"]) == 2.5 and read_globals(backend, unit)["hits"] == 0
    backend.close()


def test_globals_written_while_a_program_runs_disturb_nobody(backend, host):
    unit = unit_of(GLOBAL)
    start_globals(backend, unit)
    program = backend.compile(unit, 2)
    program.call("put", ["x", ArrayValue([2.5])])

    def rewrite(x: int) -> int:
        backend.write_globals({**read_globals(backend, unit), "hits": x}, global_types(unit), Names.of(unit.module))
        return x

    host.externs = {"ext": rewrite}
    assert program.call("calls", [41]) == 41
    assert program.call("get", ["x"]) == 2.5 and read_globals(backend, unit)["hits"] == 41


def test_dicts_from_python_are_found_by_programs(backend):
    source = """
fn number(d: {i64: i64}, k: i64) -> i64:
entry:
  r = index_get d, k
  ret r

fn word(d: {text: i64}, k: text) -> i64:
entry:
  r = index_get d, k
  ret r

fn more(d: {text: i64}, k: text) -> {text: i64}:
entry:
  index_set d, k, -1
  ret d
"""
    program = backend.compile(unit_of(source), 0)
    keys = [n * n * 7 - 1000 for n in range(100)]
    numbers_by_key, words = DictValue({k: k + 1 for k in keys}), DictValue({"é" * (k % 23) + str(k): k for k in keys})
    assert all(program.call("number", [numbers_by_key, k]) == k + 1 for k in keys)
    assert all(program.call("word", [words, k]) == v for k, v in words.items.items())
    assert program.call("more", [words, "new"]).items == {**words.items, "new": -1}


def test_an_outer_call_does_not_take_back_what_an_inner_one_keeps(backend, host):
    unit = unit_of(GLOBAL)
    start_globals(backend, unit)
    keeper = backend.compile(unit, 2)
    plain = backend.compile(unit_of(HOSTED), 2)
    assert not plain.reset_top and not keeper.reset_top

    def keep(x: int) -> int:
        keeper.call("put", ["k", ArrayValue([float(x)] * 100)])
        return x

    host.externs = {"ext": keep, "make": lambda n: ArrayValue(["overwrite"] * n)}
    assert plain.call("once", [7]) == 8
    plain.call("list", [1000])
    assert keeper.call("get", ["k"]) == 7.0


def test_lent_memory_is_written_in_place_and_given_back(backend):
    source = """
fn scale(xs: [f64], a: f64):
entry:
  n = len xs
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get xs, i
  y = mul x, a
  index_set xs, i, y
  i = add i, 1
  goto head
done:
  ret

fn grow(xs: [f64]):
entry:
  push xs, 1.0
  ret

fn same(xs: [f64]) -> ([f64], bool):
entry:
  r = tuple xs, true
  ret r
"""
    program = backend.compile(unit_of(source), 2)
    memory = np.arange(1000.0)
    lent = ArrayValue(memoryview(memory), growable=False)
    program.call("scale", [lent, 2.0])
    assert memory[999] == 1998.0
    with pytest.raises(Trap, match="array_not_growable"):
        program.call("grow", [lent])
    assert program.call("same", [lent])[0] is lent
    assert not backend.heap.lent, "nothing holds the array's memory after the call"
    unaligned = np.frombuffer(bytearray(8 * 100 + 1), dtype=np.uint8)[1:].view(np.float64)
    unaligned[:] = 1.0
    program.call("scale", [ArrayValue(memoryview(unaligned), growable=False), 3.0])
    assert (unaligned == 3.0).all()


def test_any_byte_but_zero_is_true(backend):
    program = backend.compile(unit_of("fn f(xs: [bool]) -> bool:\nentry:\n  x = index_get xs, 0\n  y = eq x, true\n  ret y\n"), 2)
    assert program.call("f", [ArrayValue(memoryview(np.array([2], dtype=np.uint8).view(np.bool_)), growable=False)]) is True


def test_elementwise_loops_become_vector_code(llvm):
    source = """
fn add_up(xs: [f64], ys: [f64], zs: [f64]):
entry:
  n = len xs
  i = const 0
  goto head
head:
  more = lt i, n
  if more then body else done
body:
  x = index_get xs, i
  y = index_get ys, i
  s = add x, y
  index_set zs, i, s
  i = add i, 1
  goto head
done:
  ret
"""
    program = llvm.compile(unit_of(source), 2)
    assert " x double>" in program.optimized_ir


# What native callers and people see


def test_facts_for_native_callers(backend):
    program = backend.compile(unit_of(SPIN + HOSTED + "fn plain(a: i64) -> i64:\nentry:\n  b = add a, 1\n  ret b\n"), 2)
    assert {"deep", "once", "spin"} <= program.may_trap and "plain" not in program.may_trap
    assert "spin" in program.may_run_long and "plain" not in program.may_run_long
    assert program.calls_host
    assert backend.compile(unit_of(SPIN), 0).reset_top


def test_views_and_timings(llvm):
    program = llvm.compile(unit_of(SPIN), 2)
    assert "define { i64, i32 } @f0" in program.llvm_ir and "; @f2 is deep" in program.llvm_ir
    assert "define" in program.optimized_ir and "f2:" in program.assembly and "fn deep" in program.lowered_text
    assert set(program.timings) == {"lower", "runtime", "emit", "parse", "verify", "optimise", "codegen", "link"}
    assert all(isinstance(ns, int) and ns >= 0 for ns in program.timings.values())
    assert program.object_code and program.pipeline is FULL


def test_no_name_of_the_user_reaches_llvm(llvm):
    source = 'fn évil_name(ünder: i64) -> text:\nmain_label:\n  local_name = add ünder, 1\n  ret "@llvm.trap text"\n'
    program = llvm.compile(unit_of(source), 0)
    for name in ("vil_name", "nder", "main_label", "local_name", "llvm.trap"):
        assert name not in program._text


def test_closing_twice_is_fine_and_calling_afterwards_is_not(backend):
    program = backend.compile(unit_of(SPIN), 0)
    program.close()
    program.close()
    with pytest.raises(AssertionError):
        program.call("count", [1])


def test_calls_from_several_threads_in_turn(backend):
    program = backend.compile(unit_of(SPIN), 2)
    results = []
    for n in range(5):
        thread = threading.Thread(target=lambda n=n: results.append(program.call("count", [n])))
        thread.start()
        thread.join()
    assert results == list(range(5))


LEAN = """
extern fn ext(x: i64) -> i64

fn once(x: i64) -> i64:
entry:
  r = call ext(x)
  s = add r, 1
  q = div s, s
  print "constant"
  t = mul q, s
  ret t
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_compiling_leaves_nothing_behind():
    """In a process of its own, since other tests make the heap of this one unsteady."""
    script = """
import gc
from test_native import LEAN, LlvmBackend, TestHost, unit_of

def memory():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4

host = TestHost(externs={"ext": lambda x: x})
host.write = lambda text: None
backend = LlvmBackend(host)
for level in (0, 2):
    growth = []
    for rounds in (60, 80, 80, 80):
        before = memory()
        for n in range(rounds):
            unit = unit_of(LEAN.replace("add r, 1", f"add r, {n}"))
            program = backend.compile(unit, level)
            assert program.call("once", [1]) == 1 + n
            program.close()
        growth.append((memory() - before) / rounds)
    # The allocator takes memory from the system in steps, so one round may look worse than it is.
    assert min(growth[1:]) < 1, growth
"""
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(here), here])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_back_end_can_be_closed_with_programs_in_it(host, engine):
    backend = engine(host)
    program = backend.compile(unit_of(SPIN), 0)
    assert program.call("count", [2]) == 2
    backend.close()
    backend.close()
    del backend, program
    gc.collect()


def test_a_heap_may_find_no_room(host):
    host.limits = replace(host.limits, memory=1 << 62)
    with pytest.raises(LoweringError) as caught:
        LlvmBackend(host)
    assert caught.value.diagnostics[0].code == "E0608"

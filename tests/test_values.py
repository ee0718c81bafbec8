"""The boundary between Python objects and MIR values, and copies of values."""

import array
import collections
import enum
import math
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from simple_magic.backends.values import (
    ArrayValue, DictValue, EnumValue, Record, SomeValue, StructValue, copy_values, detach_lent, from_python, is_lent, to_python,
)  # fmt: skip
from simple_magic.mir.resolve import Names
from simple_magic.mir.text import parse_text, parse_type
from simple_magic.mir.types import F32, INTEGERS, format_type, integer_range

NAMES = Names.of(
    parse_text("""
class Node:
  value: i64
  next: Node?
struct Point:
  x: f64
  y: f64
class Odd:
  variant: i64
  type_name: text
  __class__: i64
enum Shape:
  Circle(r: f64)
  Pair(a: Shape, b: Shape)
  Point
class Box:
  shape: Shape
  pairs: [(i64, text)]
  table: {text: Point}
class Rows:
  rows: [[f64]]
""")
)


def read(source, t, **options):
    return from_python(source, parse_type(t), NAMES, **options)


def there_and_back(source, t):
    return to_python(read(source, t), parse_type(t), NAMES)


def fails(source, t, *words, error=TypeError, **options):
    with pytest.raises(error) as caught:
        read(source, t, **options)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("t", INTEGERS, ids=format_type)
def test_integers_are_range_checked(t):
    low, high = integer_range(t)
    name = format_type(t)
    assert read(low, name) == low and read(high, name) == high
    fails(low - 1, name, "does not fit", name, str(low), error=OverflowError)
    fails(high + 1, name, str(high), error=OverflowError)
    fails(10**5000, name, "bits", error=OverflowError)


def test_what_is_an_integer():
    assert read(np.int8(-3), "i64") == -3
    assert type(read(np.uint64(3), "u64")) is int
    assert type(read(enum.IntEnum("E", "A B").A, "i64")) is int
    fails(True, "i64", "bool", "int(x)")
    fails(np.bool_(True), "i64", "expected i64")
    fails(2.0, "i64", "float 2.0", "round(x)")
    fails("2", "i32", "str '2'")
    fails(None, "i64", "None")


def test_floats():
    assert read(3, "f64") == 3.0 and type(read(3, "f64")) is float
    assert type(read(np.float64(1.5), "f64")) is float
    assert read(np.float32(0.1), "f64") == float(np.float32(0.1))
    assert read(np.int32(7), "f64") == 7.0
    assert read(0.1, "f32") == float(np.float32(0.1))
    assert read(1e300, "f32") == math.inf
    assert math.isnan(read(math.nan, "f32"))
    fails(True, "f64", "float(x)")
    fails("1.5", "f64", "float(x)")
    fails(10**400, "f64", "too large", error=OverflowError)
    fails(1j, "f64")


def test_bool_char_text_unit():
    assert read(True, "bool") is True and read(np.bool_(False), "bool") is False
    fails(1, "bool", "x != 0")
    assert read("é", "char") == "é" and read("\U0001f600", "char") == "\U0001f600"
    fails("ab", "char", "2 code points")
    fails("", "char", "0 code points")
    fails("\ud800", "char", "D800")
    assert type(read(np.str_("aé"), "text")) is str
    fails("a\udfff", "text", "U+DFFF", "index 1", "replace")
    fails(b"a", "text", "x.decode()")
    assert read(None, "unit") is None
    fails(0, "unit")


@pytest.mark.parametrize("source", [[1, 2], (1, 2), range(1, 3), collections.deque([1, 2]), array.array("q", [1, 2]), b"\1\2", memoryview(b"\1\2")], ids=lambda source: type(source).__name__)
def test_any_sequence_is_an_array(source):
    value = read(source, "[i64]")
    assert value.items == [1, 2] and value.growable and value.items is not source
    assert there_and_back(source, "[i64]") == [1, 2]


def test_what_is_no_sequence():
    fails("ab", "[char]", "list(x)")
    fails({1: 2}, "[i64]", "list(x)")
    fails({1, 2}, "[i64]", "list(x)")
    fails((i for i in "ab"), "[i64]", "list(x)")
    fails(3, "[i64]", "a list")
    fails([1, 2.5], "[i64]", "element 1")
    fails([1, True], "[i64]", "element 1")
    fails([1, 2**70], "[i64]", "element 1", error=OverflowError)
    fails([[1.0], [2.0, "x"]], "[[f64]]", "element 1: element 1: expected a float")
    fails([1, 2, 3], "[i64; 2]", "2 elements", "got 3")
    assert read([1, 2], "[i64; 2]").items == [1, 2]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bool"])
def test_numpy_arrays_are_lent(dtype):
    source = np.array([1, 0, 1], dtype=dtype)
    t = dtype.replace("uint", "u").replace("int", "i").replace("float", "f")
    value = read(source, f"[{t}]")
    assert isinstance(value.items, memoryview) and not value.growable and is_lent(value)
    value.items[1] = value.items[0]
    assert source[1] == 1
    assert to_python(value, parse_type(f"[{t}]"), NAMES) == [1, 1, 1]
    assert is_lent(read(source, f"[{t}; 3]"))
    fails(source, f"[{t}; 2]", "got 3")


def test_numpy_arrays_that_are_refused():
    x = np.zeros((2, 3))
    fails(x, "[f64]", "shape (2, 3)", "x.ravel()")
    fails(x, "[[f64]]", "x.tolist()")
    fails(np.array(1.0), "[f64]", "x.reshape(1)")
    fails(np.zeros(3, np.float32), "[f64]", "dtype float32", "np.ascontiguousarray(x, dtype=np.float64)")
    fails(np.zeros(3, ">f8"), "[f64]", "byte order", "np.ascontiguousarray(x, dtype=np.float64)")
    fails(np.zeros(3), "[i64]", "np.ascontiguousarray(x, dtype=np.int64)")
    fails(np.zeros(6)[::2], "[f64]", "strides", "np.ascontiguousarray(x, dtype=np.float64)")
    fails(np.zeros(3)[::-1], "[f64]", "np.ascontiguousarray")
    fails(np.ma.masked_array([1.0, 2.0], [0, 1]), "[f64]", "x.filled")
    fails(np.zeros(3, "i8"), "[bool]", "dtype=bool")
    odd = np.frombuffer(bytearray(25), np.uint8)[1:].view(np.float64)
    fails(odd, "[f64]", "aligned", "x.copy()")
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    fails(frozen, "[f64]", "read-only", "x.copy()")
    assert is_lent(read(frozen, "[f64]", writes=False))
    assert read(np.array(["a", "b"]), "[text]").items == ["a", "b"]
    assert is_lent(read(list(np.zeros((2, 3))), "[[f64]]"))


def test_lent_arrays_can_be_detached():
    source = np.arange(3.0)
    value = read({"rows": [source, [1.0]]}, "Rows")
    assert is_lent(value)
    detach_lent([value])
    assert not is_lent(value)
    row = value.slots[0].items[0]
    assert row.items == [0.0, 1.0, 2.0] and row.growable
    assert not is_lent(ArrayValue([None, SomeValue(3)]))


def test_dicts_tuples_options():
    assert there_and_back({2: "b", 1: "a"}, "{i64: text}") == {1: "a", 2: "b"}
    assert list(there_and_back({"b": [1], "a": [2]}, "{text: [i64]}")) == ["a", "b"]
    fails({True: 1}, "{i64: i64}", "key number 1")
    fails({1: "x"}, "{i64: i64}", "key int 1")
    fails([(1, 2)], "{i64: i64}", "a dict")
    assert there_and_back((1, "a"), "(i64, text)") == (1, "a")
    assert there_and_back([1], "(i64,)") == (1,)
    fails((1,), "(i64, text)", "2 elements")
    fails("ab", "(char, char)", "a tuple")
    assert read(None, "i64?") is None
    assert read(3, "i64?").value == 3
    assert there_and_back([None, 3], "[i64?]") == [None, 3]
    assert there_and_back((None, (1, 2)), "((i64, i64)?, (i64, i64)?)") == (None, (1, 2))


def test_structs():
    for source in (Record("Point", x=1, y=2.0), {"x": 1, "y": 2.0}, types.SimpleNamespace(x=1, y=2.0, z=3)):
        value = read(source, "Point")
        assert isinstance(value, StructValue) and value.slots == [1.0, 2.0]
    point = there_and_back({"x": 1, "y": 2}, "Point")
    assert (point.x, point.y, point.type_name) == (1.0, 2.0, "Point")
    assert repr(point) == "Point(x=1.0, y=2.0)"
    assert point == point and point != there_and_back(point, "Point")
    fails({"x": 1}, "Point", "no field y")
    fails({"x": 1, "y": 2, "z": 3}, "Point", "unknown field z")
    fails(types.SimpleNamespace(x=1), "Point", "no field y")
    fails(Record("Shape", "Circle", r=1.0), "Point", "type Shape")
    fails(3.0, "Point", "Point(x: f64, y: f64)", 'simple_magic.Record("Point", x=..., y=...)')
    fails({"x": 1, "y": "2"}, "Point", "field y")
    fails(1, "Nothing", "not defined")


def test_enums():
    assert read(Record("Shape", "Point"), "Shape").tag == 2
    assert read({"variant": "Circle", "r": 2}, "Shape").slots == (2.0,)
    assert read(types.SimpleNamespace(variant="Circle", r=2), "Shape").slots == (2.0,)
    circle = Record("Shape", "Circle", r=1.5)
    pair = there_and_back(Record("Shape", "Pair", a=circle, b=circle), "Shape")
    assert pair.a is pair.b and pair.variant == "Pair" and pair.a.r == 1.5
    assert repr(pair) == "Shape.Pair(a=Shape.Circle(r=1.5), b=Shape.Circle(r=1.5))"
    assert repr(Record("Shape", "Point")) == "Shape.Point"
    fails(Record("Shape", "Square"), "Shape", "Circle, Pair, Point", "Square")
    fails({"r": 1.0}, "Shape", "Circle")
    fails(Record("Shape"), "Shape", "Circle")
    circle.loop = Record("Shape", "Pair", b=circle)
    circle.loop.a = circle.loop
    fails(circle.loop, "Shape", "cannot contain itself")


def test_sharing_in_enums_costs_nothing():
    shape = Record("Shape", "Point")
    for _ in range(200):
        shape = Record("Shape", "Pair", a=shape, b=shape)
    back = there_and_back(shape, "Shape")
    assert back.a is back.b
    assert len(repr(back)) < 10_000


def test_records_keep_every_field_name():
    odd = there_and_back({"variant": 3, "type_name": "t", "__class__": 4}, "Odd")
    assert odd.variant == 3 and odd.type_name == "t" and type(odd) is Record
    assert vars(odd)["__class__"] == 4
    assert there_and_back(odd, "Odd").variant == 3
    with pytest.raises(AttributeError, match="Point has no field 'q'; its fields are x, y"):
        _ = Record("Point", x=1, y=2).q
    assert not hasattr(Record("Point"), "variant")


def test_identity_and_cycles():
    node = Record("Node", value=1, next=None)
    node.next = node
    value = read(node, "Node")
    assert value.slots[1].value is value
    back = to_python(value, parse_type("Node"), NAMES)
    assert back.next is back and "..." in repr(back)
    row = [1.0]
    rows = read([row, row], "[[f64]]")
    assert rows.items[0] is rows.items[1]
    back = to_python(rows, parse_type("[[f64]]"), NAMES)
    assert back[0] is back[1]
    shared: dict = {}
    assert read(node, "Node", shared=shared) is read(node, "Node", shared=shared)


def test_very_deep_values():
    node = None
    for i in range(100_000):
        node = Record("Node", value=i, next=node)
    value = read(node, "Node?")
    copied = copy_values({"a": value})["a"]
    back = to_python(copied, parse_type("Node?"), NAMES)
    assert back.value == 99_999 and back.next.next.value == 99_997
    assert len(repr(back)) < 500 and not is_lent(value)
    deep = Record("Node", value="x", next=None)
    for i in range(1000):
        deep = Record("Node", value=i, next=deep)
    fails(deep, "Node", "field next", "more ...", "field value")


def test_copies_of_values():
    shared = ArrayValue([1.0])
    lent = ArrayValue(memoryview(np.arange(2.0)), growable=False)
    node = StructValue("Node", [1, None])
    node.slots[1] = SomeValue(node)
    values = {"a": shared, "b": (shared, DictValue({1: shared})), "c": EnumValue("Shape", 1, (lent,)), "d": node, "e": None, "f": 3}
    copied = copy_values(values)
    assert copied["b"][0] is copied["a"] is copied["b"][1].items[1] is not shared
    assert copied["c"].slots[0].items == [0.0, 1.0] and copied["c"].slots[0].growable
    assert copied["d"].slots[1].value is copied["d"] is not node
    assert copied["e"] is None and copied["f"] == 3
    copied["a"].items.append(2.0)
    assert shared.items == [1.0]


def test_code_pointers_are_refused():
    fails(len, "fn(i64) -> i64", "cannot cross")
    fails(1, "ptr<i64>", "cannot cross")


def test_numpy_is_not_imported():
    script = "import simple_magic.backends.values as v, sys\nfrom simple_magic.mir.types import *\nfrom simple_magic.mir.resolve import Names\n"
    script += "v.from_python([1.0], Array(F64), Names())\nassert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_f32_arrays_are_rounded():
    assert from_python([0.1], parse_type("[f32]"), NAMES).items == [from_python(0.1, F32, NAMES)]

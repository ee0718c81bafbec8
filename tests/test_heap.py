"""The codec between values and the native heap, and the heap's memory."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest

from simple_magic.backends.heap import Heap, MappedMemory, dict_capacity, hash_text, hash_word
from simple_magic.backends.values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue
from simple_magic.mir.diagnostics import Trap
from simple_magic.mir.resolve import Names
from simple_magic.mir.text import parse_text, parse_type
from simple_magic.runtime.layout import BORROWED, DATA, HEAP_START, HEAP_TOP, LENGTH

NAMES = Names.of(
    parse_text("""
class Node:
  value: i64
  next: Node?

struct Pair:
  left: i8
  right: f32

enum List:
  Cons(head: u8, tail: List)
  Owner(node: Holder)
  Empty

class Holder:
  list: List
""")
)


@pytest.fixture
def heap():
    made = Heap(MappedMemory(64 << 20))
    yield made
    made.close()


def there_and_back(heap: Heap, value: object, t: str) -> object:
    return heap.decode(heap.encode(value, parse_type(t), NAMES), parse_type(t), NAMES)


@pytest.mark.parametrize(
    ("t", "value"),
    [
        ("i8", -128), ("i16", -1), ("i32", 2**31 - 1), ("i64", -(2**63)), ("u8", 255), ("u16", 65535), ("u32", 2**32 - 1), ("u64", 2**64 - 1),
        ("f64", 0.1), ("f64", -math.inf), ("f32", 1.5), ("bool", True), ("bool", False), ("char", "\U0010ffff"), ("char", "\0"),
        ("text", ""), ("text", "zwölf \U0001f600"), ("unit", None), ("i64?", None), ("(i64, (f64, text))", (1, (2.5, "x"))), ("(unit,)", (None,)),
    ],
)  # fmt: skip
def test_scalars_texts_and_tuples(heap, t, value):
    got = there_and_back(heap, value, t)
    assert got == value and type(got) is type(value)


def test_signs_of_zero_and_nan_survive(heap):
    assert math.copysign(1.0, there_and_back(heap, -0.0, "f64")) == -1.0
    assert math.isnan(there_and_back(heap, math.nan, "f32"))


@pytest.mark.parametrize(
    ("t", "items"),
    [
        ("[i8]", [-1, 5]), ("[u64]", [2**64 - 1, 0]), ("[f32]", [0.5, -2.0]), ("[f64]", [0.1] * 1000), ("[bool]", [True, False, True]), ("[char]", ["a", "é"]),
        ("[unit]", [None, None]), ("[text]", ["a", "bc", ""]), ("[i64; 3]", [1, 2, 3]), ("[i64]", []), ("[text]", []),
    ],
)  # fmt: skip
def test_arrays(heap, t, items):
    got = there_and_back(heap, ArrayValue(items), t)
    assert got.items == items and got.growable


@pytest.mark.parametrize(
    ("t", "items"),
    [
        ("{i64: i32}", {n * 7919: -n for n in range(300)}), ("{text: f64}", {f"key number {n}": n / 2 for n in range(50)}), ("{bool: text}", {True: "x", False: "y"}),
        ("{char: u8}", {"ß": 1}), ("{u64: i64}", {2**64 - 1: 1, 0: 2}), ("{i8: unit}", {-1: None}), ("{i64: i64}", {}),
    ],
)  # fmt: skip
def test_dicts(heap, t, items):
    assert there_and_back(heap, DictValue(items), t).items == items


def test_options_are_boxed_where_nil_could_be_confused(heap):
    assert there_and_back(heap, SomeValue(SomeValue(None)), "i64???").value.value is None
    assert there_and_back(heap, SomeValue(0), "i64?").value == 0
    assert there_and_back(heap, SomeValue("x"), "text?").value == "x"
    shared = SomeValue(5)
    before = heap.mark()
    heap.encode(ArrayValue([shared] * 1000), parse_type("[i64?]"), NAMES)
    assert heap.mark() - before == 32 + 8 * 1000 + 16


def test_structs_and_enums(heap):
    pair = there_and_back(heap, StructValue("Pair", [-3, 0.5]), "Pair")
    assert (pair.type_name, pair.slots) == ("Pair", [-3, 0.5])
    cons = there_and_back(heap, EnumValue("List", 0, (7, EnumValue("List", 2, ()))), "List")
    assert (cons.tag, cons.slots[0], cons.slots[1].tag) == (0, 7, 2)


def test_long_lists_need_no_python_stack(heap):
    node = None
    for n in range(1_000_000 // 4):
        node = StructValue("Node", [n, SomeValue(node) if node else None])
    got = there_and_back(heap, node, "Node")
    count = 0
    while got is not None:
        count, got = count + 1, got.slots[1].value if got.slots[1] else None
    assert count == 250_000
    chain = EnumValue("List", 2, ())
    for n in range(100_000):
        chain = EnumValue("List", 0, (n & 255, chain))
    got = there_and_back(heap, chain, "List")
    for _ in range(100_000):
        got = got.slots[1]
    assert got.tag == 2


def test_identity_and_cycles_over_one_encoding(heap):
    node = StructValue("Node", [1, None])
    node.slots[1] = SomeValue(node)
    types = [parse_type("Node"), parse_type("[Node]")]
    words = heap.encode_many([node, ArrayValue([node, node])], types, NAMES)
    first, several = heap.decode_many(words, types, NAMES)
    assert first.slots[1].value is first and several.items[0] is first and several.items[1] is first


def test_an_enum_may_contain_itself_through_a_class(heap):
    holder = StructValue("Holder", [None])
    holder.slots[0] = EnumValue("List", 1, (holder,))
    got = there_and_back(heap, holder, "Holder")
    assert got.slots[0].slots[0] is got


def test_one_python_tuple_may_stand_for_two_types(heap):
    value = (1.5,)
    words = heap.encode_many([value, value], [parse_type("(f64,)"), parse_type("(f32,)")], NAMES)
    assert heap.decode_many(words, [parse_type("(f64,)"), parse_type("(f32,)")], NAMES) == [value, value]


@pytest.mark.parametrize("make", [lambda: np.arange(5.0), lambda: array.array("d", [1, 2, 3]), lambda: np.zeros(0), lambda: np.frombuffer(bytes(16))])
def test_lent_memory_stays_where_it_is(heap, make):
    memory = make()
    lent = ArrayValue(memoryview(memory), growable=False)
    word = heap.encode(lent, parse_type("[f64]"), NAMES)
    assert heap.read_word(word) & BORROWED and heap.read_word(word + LENGTH) == len(memory)
    address = memory.__array_interface__["data"][0] if isinstance(memory, np.ndarray) else memory.buffer_info()[0]
    assert (heap.base + heap.read_word(word + DATA)) % 2**64 == address
    assert heap.decode(word, parse_type("[f64]"), NAMES) is lent


def test_numbers_can_stay_buffers_for_a_copy(heap):
    for t, items in (("[f64]", [1.5, 2.5]), ("[bool]", [True]), ("[char]", ["x"]), ("[unit]", [None] * 3)):
        word = heap.encode(ArrayValue(items), parse_type(t), NAMES)
        (copy,) = heap.decode_many([word], [parse_type(t)], NAMES, as_buffers=True)
        assert isinstance(copy.items, memoryview) and copy.growable
        assert there_and_back(heap, copy, t).items == items


def test_memory_limit_is_all_or_nothing():
    heap = Heap(MappedMemory(1 << 20))
    top = heap.mark()
    with pytest.raises(Trap) as caught:
        heap.encode(ArrayValue([0] * 200_000), parse_type("[i64]"), NAMES)
    assert caught.value.kind == "out_of_memory" and heap.mark() == top
    heap.encode(ArrayValue([0] * 1000), parse_type("[i64]"), NAMES)
    heap.close()


def test_texts_are_interned_at_the_far_end_by_content(heap):
    limit, top = heap.limit, heap.mark()
    first = heap.intern_text("hello")
    assert heap.intern_text("hel" + "lo") == first == heap.limit < limit
    assert heap.encode("hello", parse_type("text"), NAMES) == first and heap.mark() == top
    assert heap.decode(first, parse_type("text"), NAMES) == "hello"
    small = Heap(MappedMemory(0))
    with pytest.raises(Trap):
        small.intern_text("x" * 100_000)
    small.close()


def test_mark_and_release(heap):
    mark = heap.mark()
    assert mark == HEAP_START
    heap.encode(ArrayValue([1.0] * 2_000_000), parse_type("[f64]"), NAMES)
    assert heap.mark() > mark
    heap.release(mark)
    assert heap.mark() == heap.read_word(HEAP_TOP) == mark
    # The pages went back to the system, so they read as zeros.
    assert heap.read_word(mark + (1 << 20)) == 0


def test_giving_back_a_full_heap_keeps_interned_texts():
    heap = Heap(MappedMemory(16 << 20))
    offset = heap.intern_text("kept")
    before = bytes(heap.bytes[offset : heap.limit + 64])
    heap.write_word(HEAP_TOP, heap.limit)
    heap.release(HEAP_START)
    assert bytes(heap.bytes[offset : heap.limit + 64]) == before and heap.intern_text("kept") == offset
    heap.close()


def test_globals_are_words(heap):
    heap.write_global(3, -5)
    assert heap.read_global(3) == -5


def test_dicts_are_at_most_half_full():
    assert [dict_capacity(n) for n in (0, 1, 4, 5, 8, 9)] == [0, 8, 8, 16, 16, 32]
    assert all(hash_word(n) < 0 for n in (0, 1, -1)) and hash_text(b"") < 0

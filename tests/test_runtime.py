"""The runtime's functions against lists, dicts and strings of Python, on the evaluator of `raw_machine.py`."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_machine import Code, Machine, RawTrap

from simple_magic.backends import heap
from simple_magic.backends.numbers import parse_int_text
from simple_magic.backends.traps import SiteTable, build_trap, status_of_kind
from simple_magic.mir.diagnostics import Origin
from simple_magic.mir.model import Module
from simple_magic.mir.ops import CORE
from simple_magic.mir.text import format_text, parse_text
from simple_magic.mir.types import I64
from simple_magic.passes.lower_builder import CONTROL, ELEMENT, HEADER, SLOT
from simple_magic.passes.polls import check_stacks, poll_loops
from simple_magic.runtime import layout
from simple_magic.runtime.layout import (
    ARRAY_SIZE, BORROWED, BOX_VALUE, CAPACITY, DATA, DICT_CAPACITY, DICT_COUNT, DICT_ENTRIES, ENTRY_HASH, ENTRY_KEY, ENTRY_SIZE, FRAME_COUNT,
    FRAMES_KEPT, HEAP_LIMIT, HEAP_START, HEAP_TOP, KIND_ARRAY, KIND_BOX, KIND_DICT, KIND_TEXT, LENGTH, TEXT_BYTES, TEXT_CHARS, TEXT_DATA, TRAP_SITE,
)  # fmt: skip
from simple_magic.runtime.library import FILES, runtime_module, source

MIN64, MAX64 = -(1 << 63), (1 << 63) - 1
SIZES = (1, 2, 4, 8)
WORDS = st.integers(MIN64, MAX64) | st.integers(-3, 3) | st.sampled_from([MIN64, MIN64 + 1, MAX64, MAX64 - 1])
TEXTS = st.text(st.sampled_from("ab") | st.characters(exclude_categories=("Cs",)), max_size=24)
SIGNED_ORDER, UNSIGNED_ORDER, TEXT_ORDER = range(3)

PARAMETERS = {
    "alloc": 1, "push_frame": 1, "object_copy": 2, "pow": 2,
    "array_new": 3, "array_copy": 2, "array_push_slot": 2, "array_pop_slot": 2, "array_insert_slot": 3, "array_remove_check": 2,
    "array_close_gap": 3, "array_slice": 4, "array_concat": 3, "array_fill": 3,
    "text_new": 2, "text_get": 2, "text_slice": 3, "text_concat": 2, "text_compare": 2, "text_eq": 2, "text_contains": 2,
    "text_from_i64": 1, "text_from_u64": 1, "text_from_bool": 1, "text_from_char": 1, "parse_int": 1,
    "dict_new": 0, "dict_copy": 1, "dict_find": 3, "dict_insert_slot": 3, "dict_remove": 3, "dict_keys": 3, "dict_values": 3,
}  # fmt: skip
"""What lowering and native back ends call: functions of i64 to i64."""


def with_polls(module: Module) -> Module:
    return check_stacks(replace(module, functions=tuple(poll_loops(f) for f in module.functions)))


@cache
def code(polls: bool = False) -> Code:
    return Code(with_polls(runtime_module()) if polls else runtime_module())


def machine(size: int = 1 << 17) -> Machine:
    return Machine(code(), size)


def trap_of(m: Machine, function: str, *args: int) -> tuple:
    with pytest.raises(RawTrap) as caught:
        m.call(function, *args)
    return (caught.value.kind, *caught.value.details)


def unsigned(value: int, size: int = 8) -> int:
    return value % (1 << 8 * size)


def store(m: Machine, at: int, value: int, size: int) -> None:
    m.memory[at : at + size] = unsigned(value, size).to_bytes(size, "little")


def array(m: Machine, values: list[int], size: int) -> int:
    a = m.call("array_new", len(values), len(values), size)
    for i, value in enumerate(values):
        store(m, m.word(a + DATA) + i * size, value, size)
    return a


def borrowed(m: Machine, values: list[int], size: int) -> int:
    """An array whose elements lie outside the heap."""
    a = m.call("array_new", len(values), 0, size)
    m.set_word(a, KIND_ARRAY | BORROWED)
    m.set_word(a + CAPACITY, len(values))
    m.set_word(a + DATA, m.outside)
    for i, value in enumerate(values):
        store(m, m.outside + i * size, value, size)
    return a


def elements(m: Machine, a: int, size: int) -> list[int]:
    """The elements as unsigned numbers."""
    assert m.word(a) & 0xFF == KIND_ARRAY
    assert 0 <= m.word(a + LENGTH) <= m.word(a + CAPACITY)
    data = m.word(a + DATA)
    return [int.from_bytes(m.memory[data + i * size : data + (i + 1) * size], "little") for i in range(m.word(a + LENGTH))]


def text(m: Machine, s: str) -> int:
    encoded = s.encode()
    t = m.call("text_new", len(encoded), len(s))
    m.memory[t + TEXT_DATA : t + TEXT_DATA + len(encoded)] = encoded
    return t


def string(m: Machine, t: int) -> str:
    assert m.word(t) == KIND_TEXT and t % 8 == 0
    s = m.memory[t + TEXT_DATA : t + TEXT_DATA + m.word(t + TEXT_BYTES)].decode()
    assert len(s) == m.word(t + TEXT_CHARS)
    return s


# The module


def test_what_lowering_calls_is_there():
    functions = {f.name: f for f in runtime_module().functions}
    for name, count in PARAMETERS.items():
        f = functions["rt." + name]
        assert [p.type for p in f.params] == [I64] * count and f.result == I64, name


def test_the_runtime_is_lowered_code():
    instructions = [ins for f in runtime_module().functions for block in f.blocks for ins in block.instructions]
    assert {ins.op for ins in instructions} <= set(CORE)
    assert {ins.attribute("alias") for ins in instructions if ins.op in ("raw_load", "raw_store")} == {CONTROL, HEADER, ELEMENT, SLOT}
    assert runtime_module() is runtime_module()


@pytest.mark.parametrize("name", FILES)
def test_the_files_read_back(name):
    parsed = parse_text(source(name), internal=True)
    assert parse_text(format_text(parsed), internal=True) == parsed


def test_entries_have_no_room_between():
    assert (ENTRY_HASH, ENTRY_KEY, layout.ENTRY_VALUE, ENTRY_SIZE) == (0, 8, 16, 24)
    assert re.search(r"\$[A-Z]", "".join(source(name) for name in FILES)) is None


# Memory


def test_alloc_rounds_to_words_and_stops_at_the_limit():
    m = machine(64)
    assert [m.call("alloc", size) for size in (1, 8, 9, 0)] == [HEAP_START, HEAP_START + 8, HEAP_START + 16, HEAP_START + 32]
    for size in (33, 40, MAX64, MAX64 - 7, -1, MIN64):
        assert trap_of(m, "alloc", size) == ("out_of_memory",)
    assert m.call("alloc", 32) == HEAP_START + 32
    assert trap_of(m, "alloc", 1) == ("out_of_memory",)
    assert m.call("alloc", 0) == HEAP_START + 64


def test_a_limit_inside_a_word_is_kept():
    m = machine(64)
    m.set_word(HEAP_LIMIT, HEAP_START + 20)
    assert trap_of(m, "alloc", 17) == ("out_of_memory",)
    assert m.call("alloc", 16) == HEAP_START


@pytest.mark.parametrize("count", [1 << 40, 1 << 47, 1 << 48, 1 << 60, 1 << 61, (1 << 61) + 1, MAX64, -1, MIN64])
def test_sizes_do_not_wrap(count):
    m = machine()
    for size in SIZES:
        assert trap_of(m, "array_new", count, count, size) == ("out_of_memory",)
        if count > 0:
            assert trap_of(m, "array_fill", 0, count, size) == ("out_of_memory",)
    assert trap_of(m, "text_new", count, 0) == ("out_of_memory",)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 63, 64, 65, 97, 200])
def test_frames_keep_the_first_and_the_last(count):
    m, sites = machine(), SiteTable()
    origins = [Origin("f", "entry", i) for i in range(count)]
    numbers = [sites.add(None, None, origin) for origin in origins]
    m.set_word(TRAP_SITE, sites.add("abort", None, Origin("g", "entry", 0)))
    for number in numbers:
        m.call("push_frame", number)
    assert m.word(FRAME_COUNT) == count
    trap = build_trap(status_of_kind("abort"), m.word, sites)
    assert trap.frames == (tuple(origins) if count <= 2 * FRAMES_KEPT else (*origins[:FRAMES_KEPT], *origins[-FRAMES_KEPT:]))
    assert trap.frames_omitted == max(0, count - 2 * FRAMES_KEPT)


def test_object_copy():
    m = machine()
    o = m.call("alloc", 24)
    for i in range(3):
        m.set_word(o + 8 * i, 7 + i)
    p = m.call("object_copy", o, 24)
    assert p != o and [m.word(p + 8 * i) for i in range(3)] == [7, 8, 9] and m.top == p + 24


@given(WORDS, WORDS)
def test_pow(base, exponent):
    assert unsigned(machine(0).call("pow", base, exponent)) == pow(base, unsigned(exponent), 1 << 64)


# Arrays


@settings(max_examples=60)
@given(st.sampled_from(SIZES), st.lists(st.tuples(st.sampled_from("push pop insert remove other copy slice concat".split()), WORDS, WORDS), max_size=50))
def test_arrays_are_lists(size, steps):
    m = machine()
    arrays: list[tuple[int, list[int]]] = [(array(m, [], size), [])]
    for action, number, value in steps:
        a, model = arrays[number % len(arrays)]
        value = unsigned(value, size)
        place = number % (len(model) + 3) - 1
        if action == "push":
            store(m, m.call("array_push_slot", a, size), value, size)
            model.append(value)
        elif action == "pop" and model:
            slot = m.call("array_pop_slot", a, size)
            assert m.memory[slot : slot + size] == model.pop().to_bytes(size, "little")
        elif action == "pop":
            assert trap_of(m, "array_pop_slot", a, size) == ("index_out_of_bounds", -1, 0)
        elif action == "insert" and 0 <= place <= len(model):
            store(m, m.call("array_insert_slot", a, place, size), value, size)
            model.insert(place, value)
        elif action == "insert":
            assert trap_of(m, "array_insert_slot", a, place, size) == ("index_out_of_bounds", place, len(model))
        elif action == "remove" and 0 <= place < len(model):
            m.call("array_remove_check", a, place)
            m.call("array_close_gap", a, place, size)
            del model[place]
        elif action == "remove":
            assert trap_of(m, "array_remove_check", a, place) == ("index_out_of_bounds", place, len(model))
        elif action == "other":
            arrays.append((array(m, [value] * (place + 1), size), [value] * (place + 1)))
        elif action == "copy":
            arrays.append((m.call("array_copy", a, size), list(model)))
        elif action == "slice" and model:
            low = value % len(model)
            high = low + place % (len(model) - low + 1)
            arrays.append((m.call("array_slice", a, low, high, size), model[low:high]))
        elif action == "concat":
            b, other = arrays[-1]
            arrays.append((m.call("array_concat", a, b, size), model + other))
        for b, expected in arrays:
            assert elements(m, b, size) == expected


@pytest.mark.parametrize("size", SIZES)
def test_growth_doubles_and_takes_the_end_of_the_heap_in_place(size):
    m = machine()
    a = array(m, [], size)
    data = m.word(a + DATA)
    capacities = set()
    for i in range(100):
        store(m, m.call("array_push_slot", a, size), i, size)
        capacities.add(m.word(a + CAPACITY))
    assert capacities == {4, 8, 16, 32, 64, 128}
    assert m.word(a + DATA) == data and m.top == data + 128 * size
    behind = array(m, [1], size)
    for i in range(100, 200):
        store(m, m.call("array_push_slot", a, size), i, size)
    assert m.word(a + DATA) > behind
    assert elements(m, a, size) == list(range(200)) and elements(m, behind, size) == [1]


@pytest.mark.parametrize("size", SIZES)
def test_slice_bounds(size):
    m = machine()
    a = array(m, [5, 6, 7], size)
    for lo in (MIN64, -1, 0, 1, 2, 3, 4, MAX64):
        for hi in (MIN64, -1, 0, 1, 2, 3, 4, MAX64):
            if not 0 <= lo <= 3:
                assert trap_of(m, "array_slice", a, lo, hi, size) == ("index_out_of_bounds", lo, 3)
            elif not lo <= hi <= 3:
                assert trap_of(m, "array_slice", a, lo, hi, size) == ("index_out_of_bounds", hi, 3)
            else:
                assert elements(m, m.call("array_slice", a, lo, hi, size), size) == [5, 6, 7][lo:hi]


@given(st.sampled_from(SIZES), WORDS, st.integers(0, 20))
def test_array_fill(size, word, n):
    m = machine()
    a = m.call("array_fill", word, n, size)
    assert elements(m, a, size) == [unsigned(word, size)] * n
    assert m.word(a + CAPACITY) == n and m.word(a + DATA) == a + ARRAY_SIZE
    assert trap_of(m, "array_fill", word, -n - 1, size) == ("index_out_of_bounds", -n - 1, 0)


@pytest.mark.parametrize("size", SIZES)
def test_borrowed_arrays_keep_their_length(size):
    m = machine()
    a = borrowed(m, [1, 2, 3], size)
    calls = (("push_slot", size), ("pop_slot", size), ("insert_slot", 0, size), ("insert_slot", 9, size), ("remove_check", 0), ("remove_check", 9))
    for function, *args in calls:
        assert trap_of(m, f"array_{function}", a, *args) == ("array_not_growable",)
    assert trap_of(m, "array_pop_slot", borrowed(m, [], size), size) == ("array_not_growable",)
    copies = [m.call("array_copy", a, size), m.call("array_slice", a, 0, 3, size), m.call("array_concat", a, borrowed(m, [], size), size)]
    for b in copies:
        assert m.word(b) == KIND_ARRAY
        store(m, m.call("array_push_slot", b, size), 4, size)
        assert elements(m, b, size) == [1, 2, 3, 4]
    assert elements(m, a, size) == [1, 2, 3]


# Texts


@given(TEXTS, TEXTS)
def test_pairs_of_texts(x, y):
    m = machine()
    p, q = text(m, x), text(m, y)
    points, others = [ord(c) for c in x], [ord(c) for c in y]
    assert m.call("text_compare", p, q) == (points > others) - (points < others)
    assert m.call("text_eq", p, q) == (x == y)
    assert m.call("text_eq", p, text(m, x)) == m.call("text_eq", p, p) == 1
    assert m.call("text_contains", p, q) == (y in x)
    joined = m.call("text_concat", p, q)
    assert string(m, joined) == x + y
    assert m.call("text_contains", joined, p) == m.call("text_contains", joined, q) == 1


@given(TEXTS, st.integers(-2, 26), st.integers(-2, 26))
def test_parts_of_texts(s, i, j):
    m = machine()
    t = text(m, s)
    if 0 <= i < len(s):
        assert m.call("text_get", t, i) == ord(s[i])
    else:
        assert trap_of(m, "text_get", t, i) == ("index_out_of_bounds", i, len(s))
    if 0 <= i <= j <= len(s):
        assert string(m, m.call("text_slice", t, i, j)) == s[i:j]
    else:
        assert trap_of(m, "text_slice", t, i, j) == ("index_out_of_bounds", j if 0 <= i <= len(s) else i, len(s))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 15, 16, 17])
def test_comparing_looks_at_every_byte_and_no_other(n):
    m = machine()
    base = "é" * (n // 2) + "x" * (n % 2)
    p, same = text(m, base), text(m, base)
    m.memory[p + TEXT_DATA + n : p + TEXT_DATA + layout.align(n)] = b"\xff" * (layout.align(n) - n)
    assert m.call("text_eq", p, same) == 1 and m.call("text_compare", p, same) == 0
    d = m.call("dict_new")
    m.call("dict_insert_slot", d, p, 1)
    assert m.call("dict_find", d, same, 1) != 0
    for i in range(n):
        other = text(m, base)
        m.memory[other + TEXT_DATA + i] += 1
        assert m.call("text_eq", p, other) == 0 and m.call("text_compare", p, other) == -1 and m.call("text_compare", other, p) == 1
        assert m.call("dict_find", d, other, 1) == 0


@given(st.text("ab", max_size=40), st.text("ab", max_size=6))
def test_contains_with_repetition(hay, needle):
    m = machine()
    assert m.call("text_contains", text(m, hay), text(m, needle)) == (needle in hay)


def test_contains_checks_equal_hashes():
    """The words of Thue and Morse: of length 1024 a word and its complement have the same polynomial modulo 2**64, whatever the odd factor."""
    word = "a"
    while len(word) < 1024:
        word += word.translate(str.maketrans("ab", "ba"))
    m = machine()
    assert m.call("text_contains", text(m, word), text(m, word.translate(str.maketrans("ab", "ba")))) == 0


@given(WORDS)
def test_texts_of_integers(value):
    m = machine()
    assert string(m, m.call("text_from_i64", value)) == str(value)
    assert string(m, m.call("text_from_u64", value)) == str(unsigned(value))


@pytest.mark.parametrize("value", [0, 9, 10, -9, -10, 10**18 - 1, 10**18, MIN64, MAX64])
def test_texts_of_integers_at_boundaries(value):
    test_texts_of_integers.hypothesis.inner_test(value)


def test_texts_of_bool_and_char():
    m = machine()
    assert [string(m, m.call("text_from_bool", b)) for b in (0, 1)] == ["false", "true"]
    for c in "\0a\x7f\x80é\u07ff\u0800€\ud7ff\ue000\uffff\U00010000😀\U0010ffff":
        t = m.call("text_from_char", ord(c))
        assert string(m, t) == c and m.call("text_get", t, 0) == ord(c)


NUMERALS = st.from_regex(r"\A[+-]?0{0,3}(92233720368547758[0-9]{2}|[0-9]{0,21})\Z") | WORDS.map(str) | st.text("+-0 9_²x", max_size=5)


@settings(max_examples=300)
@given(NUMERALS)
def test_parse_int(s):
    m = machine()
    box = m.call("parse_int", text(m, s))
    assert (m.word(box + BOX_VALUE) if box else None) == parse_int_text(s)
    assert not box or m.word(box) == KIND_BOX


@pytest.mark.parametrize("s", ["", "-", "+", "--1", "+-1", "1 ", " 1", "1_0", "٣", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
                               "-9223372036854775809", "18446744073709551616", "-18446744073709551616", "-0", "+7", "0" * 50 + "12"])  # fmt: skip
def test_parse_int_at_boundaries(s):
    test_parse_int.hypothesis.inner_test(s)


# Dicts


def check_dict(m: Machine, d: int, expected: dict[int, int], is_text: int) -> None:
    """The dict holds the expected words under the expected keys, and its entries keep the rules."""
    assert m.word(d) == KIND_DICT and m.word(d + DICT_COUNT) == len(expected)
    capacity, entries = m.word(d + DICT_CAPACITY), m.word(d + DICT_ENTRIES)
    assert capacity & (capacity - 1) == 0 and 2 * len(expected) <= capacity
    used = [e for e in range(entries, entries + capacity * ENTRY_SIZE, ENTRY_SIZE) if m.word(e + ENTRY_HASH) != 0]
    assert len(used) == len(expected)
    assert all(m.word(e + ENTRY_HASH) < 0 for e in used), "a hash has its top bit"
    for key, value in expected.items():
        slot = m.call("dict_find", d, key, is_text)
        assert slot and m.word(slot) == value


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["insert"] * 3 + ["remove"] * 2 + ["find"]), st.integers(0, 40) | WORDS, WORDS), max_size=120))
def test_dicts_of_words(steps):
    m = machine()
    d, model = m.call("dict_new"), {}
    for action, key, value in steps:
        if action == "insert":
            slot = m.call("dict_insert_slot", d, key, 0)
            assert m.word(slot) == model.get(key, 0)
            m.set_word(slot, value)
            model[key] = value
        elif action == "remove":
            assert m.call("dict_remove", d, key, 0) == (model.pop(key, None) is not None)
        else:
            assert bool(m.call("dict_find", d, key, 0)) == (key in model)
    check_dict(m, d, model, 0)
    other = m.call("dict_copy", d)
    check_dict(m, other, model, 0)
    m.set_word(m.call("dict_insert_slot", d, 12345, 0), 1)
    check_dict(m, other, model, 0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["insert", "insert", "remove"]), st.text("aé", max_size=3) | TEXTS, WORDS), max_size=40))
def test_dicts_of_texts(steps):
    m = machine()
    d, model = m.call("dict_new"), {}
    for action, key, value in steps:
        if action == "insert":
            m.set_word(m.call("dict_insert_slot", d, text(m, key), 1), value)
            model[key] = value
        else:
            assert m.call("dict_remove", d, text(m, key), 1) == (model.pop(key, None) is not None)
    check_dict(m, d, {text(m, key): value for key, value in model.items()}, 1)
    keys, values = m.call("dict_keys", d, TEXT_ORDER, 8), m.call("dict_values", d, TEXT_ORDER, 8)
    assert [string(m, t) for t in elements(m, keys, 8)] == sorted(model)
    assert elements(m, values, 8) == [unsigned(model[key]) for key in sorted(model)]


def test_a_key_that_comes_back_has_a_zero_slot():
    m = machine()
    d = m.call("dict_new")
    m.set_word(m.call("dict_insert_slot", d, 5, 0), -1)
    assert m.call("dict_remove", d, 5, 0) == 1
    assert m.word(m.call("dict_insert_slot", d, 5, 0)) == 0


def test_texts_with_equal_hashes_are_different_keys():
    """A word can be chosen so that it undoes the difference that the word before it has made."""

    def step(x: int) -> int:
        x = x * 0x9E3779B97F4A7C15 % (1 << 64)
        return x ^ x >> 32

    m = machine()
    d = m.call("dict_new")
    first = [int.from_bytes(word, "little") for word in (b"somebody", b"nobody__")]
    difference = step(16 ^ first[0]) ^ step(16 ^ first[1])
    keys = []
    for i in range(2):
        t = m.call("text_new", 16, 16)
        store(m, t + TEXT_DATA, first[i], 8)
        store(m, t + TEXT_DATA + 8, difference * i, 8)
        m.set_word(m.call("dict_insert_slot", d, t, 1), i + 1)
        keys.append(t)
    assert m.call("hash_text", keys[0]) == m.call("hash_text", keys[1])
    check_dict(m, d, {keys[0]: 1, keys[1]: 2}, 1)


def keys_with_home(m: Machine, home: int, capacity: int, count: int) -> list[int]:
    found, key = [], 0
    while len(found) < count:
        if m.call("hash_word", key) % capacity == home:
            found.append(key)
        key += 1
    return found


@pytest.mark.parametrize("homes", [(15, 15, 15, 0, 0, 1), (14, 15, 15, 0, 2, 2), (3, 3, 3, 3, 4, 6), (15, 14, 13, 15, 14, 13)])
def test_removal_from_clusters_that_wrap_around(homes):
    m = machine(1 << 22)
    pools = {home: keys_with_home(m, home, 16, 6) for home in set(homes)}
    keys = [pools[home].pop() for home in homes]
    for first in range(len(keys)):
        d = m.call("dict_new")
        model = {}
        for key in keys:
            m.set_word(m.call("dict_insert_slot", d, key, 0), key + 1)
            model[key] = key + 1
        assert m.word(d + DICT_CAPACITY) == 16
        for key in keys[first:] + keys[:first]:
            assert m.call("dict_remove", d, key, 0) == 1 and m.call("dict_remove", d, key, 0) == 0
            del model[key]
            check_dict(m, d, model, 0)


@settings(max_examples=60)
@given(st.sampled_from([(size, order) for size in SIZES for order in (SIGNED_ORDER, UNSIGNED_ORDER)]), st.lists(WORDS, max_size=40), WORDS)
def test_keys_and_values_are_sorted(kind, numbers, value):
    size, order = kind
    bits = 8 * size
    keys = {n % (1 << bits) - (1 << bits if order == SIGNED_ORDER and n >> (bits - 1) & 1 else 0) for n in numbers}
    m = machine()
    d = m.call("dict_new")
    for key in keys:
        word = key - (1 << 64) if key > MAX64 else key
        m.set_word(m.call("dict_insert_slot", d, word, 0), unsigned(key ^ value) - (1 << 63))
    listed = m.call("dict_keys", d, order, size)
    assert m.top == layout.align(listed + ARRAY_SIZE + size * len(keys)), "the memory of the sort is given back"
    assert elements(m, listed, size) == [unsigned(key, size) for key in sorted(keys)]
    for width in SIZES:
        values = elements(m, m.call("dict_values", d, order, width), width)
        assert values == [unsigned(unsigned(key ^ value) - (1 << 63), width) for key in sorted(keys)]


def test_hashes_of_regular_keys_do_not_cluster():
    m = machine(1 << 16)
    for step in (1, 8, 24, 1 << 20, 1 << 32, 1 << 50, 1 << 56):
        homes = {m.call("hash_word", i * step - (1 << 64 if i * step > MAX64 else 0)) % 1024 for i in range(min(256, (1 << 64) // step))}
        assert len(homes) > 200, step


@given(WORDS, TEXTS)
def test_the_heap_encodes_with_the_same_hashes(word, s):
    m = machine()
    assert m.call("hash_word", word) == heap.hash_word(word)
    assert m.call("hash_text", text(m, s)) == heap.hash_text(s.encode())


# Failure


ALLOCATING = {
    "object_copy": (24,), "array_copy": (8,), "array_push_slot": (8,), "array_insert_slot": (1, 8), "array_slice": (0, 3, 8), "array_concat": (None, 8),
    "text_slice": (1, 3), "text_concat": (None,), "text_from_i64": (), "text_from_char": (), "parse_int": (), "dict_copy": (),
    "dict_insert_slot": (77, 0), "dict_keys": (0, 8), "dict_values": (0, 8),
}  # fmt: skip
"""Functions that allocate, with the arguments behind the first; None repeats the first."""


def first_argument(m: Machine, function: str) -> int:
    family = function.partition("_")[0]
    if function.startswith("text_from"):
        return 65
    if family in ("text", "parse"):
        return text(m, "12345")
    if family == "dict":
        d = m.call("dict_new")
        for key in range(4):
            m.call("dict_insert_slot", d, key, 0)
        return d
    return array(m, [1, 2, 3], 8)


@pytest.mark.parametrize("function", ALLOCATING)
def test_out_of_memory_changes_nothing(function):
    """The machine checks that a call that traps leaves what was there; here with every amount of free memory up to enough."""
    for free in range(0, 4096, 8):
        m = machine()
        subject = first_argument(m, function)
        args = [subject if arg is None else arg for arg in ALLOCATING[function]]
        m.set_word(HEAP_LIMIT, m.top + free)
        try:
            m.call(function, subject, *args)
        except RawTrap as trap:
            assert trap.kind == "out_of_memory"
            m.set_word(HEAP_LIMIT, m.outside)
            m.call(function, subject, *args)
        else:
            assert free > 0
            return
    raise AssertionError("never enough")


def polled() -> Machine:
    return Machine(code(polls=True), 1 << 17)


def test_polled_functions_compute_the_same():
    m = polled()
    d, model = m.call("dict_new"), {}
    for key in [7 * i % 64 - 20 for i in range(64)]:
        m.set_word(m.call("dict_insert_slot", d, key, 0), key)
        model[key] = key
    for key in range(-20, 20, 3):
        assert m.call("dict_remove", d, key, 0) == (model.pop(key, None) is not None)
    check_dict(m, d, model, 0)
    assert elements(m, m.call("dict_keys", d, SIGNED_ORDER, 8), 8) == [unsigned(key) for key in sorted(model)]
    assert string(m, m.call("text_from_i64", MIN64)) == str(MIN64)
    assert m.call("text_contains", text(m, "ab" * 20 + "ac"), text(m, "bac")) == 1


def test_interruption_changes_nothing():
    """Growing, sorting and searching by text poll in their loops; wherever they are stopped, the machine checks what was there."""
    for polls in range(200):
        m = polled()
        d = m.call("dict_new")
        for i in range(8):
            m.set_word(m.call("dict_insert_slot", d, text(m, f"key {i}"), 1), i)
        new = text(m, "another key")
        m.polls_left = polls
        try:
            m.call("dict_insert_slot", d, new, 1)
            m.call("dict_keys", d, TEXT_ORDER, 8)
        except RawTrap as trap:
            assert trap.kind == "interrupted"
        else:
            assert polls > 20
            return
    raise AssertionError("never finished")


def test_out_of_memory_in_the_middle_leaves_a_usable_array():
    m = machine(ARRAY_SIZE + 4 * 8 + 40)
    a = array(m, [], 8)
    with pytest.raises(RawTrap):
        for i in range(100):
            store(m, m.call("array_push_slot", a, 8), i, 8)
    length = m.word(a + LENGTH)
    assert length > 0 and elements(m, a, 8) == list(range(length))
    assert m.call("array_pop_slot", a, 8) == m.word(a + DATA) + 8 * (length - 1)
    assert m.word(HEAP_TOP) <= m.word(HEAP_LIMIT)

"""The JSON form is loss-free, and its reader answers hostile input with a diagnostic and a path."""

from __future__ import annotations

import json
import random

import pytest
from samples import SAMPLES

from simple_magic import MirError, from_json, parse_text, to_json
from simple_magic.mir.jsonform import to_json_text
from simple_magic.mir.model import StructDef
from simple_magic.mir.text import parse_type
from simple_magic.mir.upstream import read_function
from simple_magic.mir.verify import verify


@pytest.mark.parametrize("name", SAMPLES)
def test_from_json_of_to_json_is_the_module(name):
    module = parse_text(SAMPLES[name])
    assert from_json(to_json(module)) == module
    assert from_json(to_json_text(module)) == module


def small() -> dict:
    return to_json(parse_text("struct P:\n  x: f64\nglobal g: [i64; 3]\nfn f(a: i64, p: P) -> f64:\nentry:\n  b = mul a, 3\n  c = get_field p, x\n  ret c\n"))


def test_keys_are_upstreams_where_that_loses_nothing():
    f = to_json(parse_text("fn add(a: i64, b: i64) -> i64:\nentry:\n  c = add a, b\n  ret c\n"))["functions"][0]
    assert f["signature"] == {"params": ["I64", "I64"], "return_type": "I64", "is_variadic": False}
    assert f["blocks"][0]["instructions"] == [{"BinOp": {"dest": 2, "op": "Add", "left": {"Copy": 0}, "right": {"Copy": 1}}}]
    assert f["blocks"][0]["terminator"] == {"Return": {"Copy": 2}}


def paths(value, at=()):
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*at, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from paths(value[index], (*at, index))


WRONG = [None, -1, 10**30, 1.5, "x", "@llvm.trap", "\ud800", "__class__", True, [], {}, [[]], {"Int": 1}, {"Copy": 99}, "Zero", float("nan")]


def test_every_piece_replaced_by_anything_is_a_diagnostic_or_a_module():
    generator = random.Random(1)
    outcomes = set()
    for path in list(paths(small())):
        for wrong in generator.sample(WRONG, 6):
            source = small()
            target = source
            for step in path[:-1]:
                target = target[step]
            if path:
                target[path[-1]] = wrong
            else:
                source = wrong
            try:
                module = from_json(source) if isinstance(source, dict) else from_json(json.dumps(source))
                outcomes.add("read")
                try:
                    verify(module)
                except MirError:
                    pass
            except MirError as error:
                assert error.diagnostics[0].path.startswith("$")
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 100_000, "1" * 5000, '{"version": ' + "9" * 5000 + "}", '{"version": 1, "version": 1, "functions": []}', "NaN", "", "{", "\0",
        '{"version": 2, "functions": []}', '{"version": 1, "functions": [], "surprise": 1}', "\ud800",
    ],
)  # fmt: skip
def test_hostile_text_is_a_diagnostic(text):
    with pytest.raises(MirError) as caught:
        from_json(text)
    assert caught.value.diagnostics[0].code.startswith("E05")


def test_ten_megabytes_of_noise():
    noise = random.Random(2).randbytes(10_000_000).decode("latin-1")
    with pytest.raises(MirError):
        from_json(noise)


def test_every_truncation_is_a_diagnostic():
    text = to_json_text(parse_text("fn f() -> i64:\nentry:\n  x = const -1\n  ret x\n"))
    for end in range(len(text)):
        with pytest.raises(MirError):
            from_json(text[:end])


UPSTREAM_ADD = """{"symbol":1,"name":"add","signature":{"params":["I64","I64"],"return_type":"I64","is_variadic":false},
 "locals":[{"id":0,"name":"_return","type":"I64","kind":"Return"},{"id":1,"name":"a","type":"I64","kind":{"Arg":0}},
  {"id":2,"name":"b","type":"I64","kind":{"Arg":1}},{"id":3,"name":null,"type":"I64","kind":"Temp"}],
 "blocks":[{"id":0,"label":"entry","instructions":[{"BinOp":{"dest":3,"op":"Add","left":{"Copy":1},"right":{"Copy":2}}}],
  "terminator":{"Return":{"Copy":3}}}],"entry_block":0}"""


def test_upstreams_own_sample_is_read_and_verifies():
    module = read_function(UPSTREAM_ADD)
    verify(module)
    assert [p.name for p in module.functions[0].params] == ["a", "b"]
    whole = read_function({"name": "m", "functions": [json.loads(UPSTREAM_ADD)]})
    assert whole == module


def upstream(instructions, terminator, locals_=(), result="I64") -> dict:
    slots = [{"id": i, "name": None, "type": t, "kind": "Temp"} for i, t in enumerate(locals_)]
    blocks = [{"id": 0, "label": None, "instructions": instructions, "terminator": terminator},
              {"id": 1, "label": None, "instructions": [], "terminator": "Unreachable"}]  # fmt: skip
    return {"name": "f", "signature": {"params": [], "return_type": result, "is_variadic": False}, "locals": slots, "blocks": blocks, "entry_block": 0}


@pytest.mark.parametrize("key", ["Ret", "Return"])
def test_ret_and_return_and_bare_constants(key):
    body = upstream([{"Const": {"dest": 0, "value": 7, "type": "I64"}}], {key: {"Copy": 0}}, ["I64"])
    verify(read_function(body))
    wrapped = upstream([{"kind": {"Const": {"dest": 0, "value": {"Int": 7}, "type": "I64"}}}], {key: {"Copy": 0}}, ["I64"])
    assert read_function(wrapped) == read_function(body)


CALL = {"dest": 0, "func": {"Const": {"value": "g", "type": {"Opaque": "fn"}}}, "args": [], "normal": 1}


@pytest.mark.parametrize(
    ("extra", "op"),
    [
        ({"unwind": None}, "call"),
        ({"unwind": None, "unwind_contract": "NoUnwind"}, "call"),
        ({"unwind": 1, "unwind_contract": "MayUnwind"}, "invoke"),
        ({"unwind": 1, "unwind_payload_dest": 1, "unwind_type_tag_dest": 2}, "invoke"),
    ],
)
def test_the_three_shapes_of_call_terminator(extra, op):
    module = read_function(upstream([], {"CallTerminator": {**CALL, **extra}}, ["I64", "I64", "I64"]))
    assert op in [i.op for i in module.functions[0].blocks[0].instructions]


def test_nominal_types_are_supplied_beside():
    body = upstream([{"Const": {"dest": 1, "value": 1.5, "type": "F64"}}, {"Aggregate": {"dest": 0, "kind": {"Struct": 9}, "operands": [{"Copy": 1}]}},
                     {"GetField": {"dest": 1, "base": {"Copy": 0}, "field": 0}}], {"Return": {"Copy": 1}}, [{"Struct": 9}, "F64"], "F64")  # fmt: skip
    module = parse_text("struct P:\n  x: f64\n")
    verify(read_function(body, types={9: module.types[0]}))
    assert isinstance(module.types[0], StructDef)
    with pytest.raises(MirError, match="symbol 9"):
        read_function(body)


@pytest.mark.parametrize(("instruction", "reason"), [({"GpuBarrier": {"scope": 1}}, "GPU"), ("UnsupportedInst", "lost"), ({"Await": {"dest": 0}}, "actors"),
                                                     ({"BinOp": {"dest": 0, "op": "MatMul", "left": {"Copy": 0}, "right": {"Copy": 0}}}, "tensors")])  # fmt: skip
def test_refused_variants_are_named_with_the_reason(instruction, reason):
    with pytest.raises(MirError, match=reason):
        read_function(upstream([instruction], {"Return": {"Copy": 0}}, ["I64"]))


def test_types_print_as_they_are_spelled():
    for text in ("[i64]", "[f64; 3]", "{text: [i64]}", "(i64,)", "(i64, f64)?", "fn(i64) -> i64?", "(fn(i64) -> i64)?", "ptr<i64>??"):
        t = parse_type(text)
        module = parse_text(f"fn f(x: {text}):\nentry:\n  ret\n")
        assert from_json(to_json(module)).functions[0].params[0].type == t

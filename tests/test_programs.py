"""Random programs: all executors agree under every model, and every form reads back. More examples: SIMPLE_MAGIC_EXAMPLES=2000."""

from __future__ import annotations

import os
import random
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_child import NativeChild
from programs import programs

from simple_magic import MirError, format_text, from_json, parse_text, to_json, verify
from simple_magic.passes.semantics import MODELS

EXAMPLES = int(os.environ.get("SIMPLE_MAGIC_EXAMPLES", "30"))
FUNCTIONS = ["f0", "f1", "f2", "f3"]
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.filter_too_much]


@pytest.fixture(scope="module")
def child():
    found = NativeChild()
    yield found
    found.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW, print_blob=True)
@given(source=programs(), model=st.sampled_from(sorted(MODELS)))
def test_all_executors_agree(child, source, model):
    answer = child.run(source, FUNCTIONS, model)
    assert "error" not in answer, answer["error"]
    interpreter, *others = answer.items()
    for name, outcomes in others:
        for function, expected, got in zip(FUNCTIONS, interpreter[1], outcomes):
            assert got == expected, f"{function} under {model}: {name} and the interpreter differ"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW)
@given(source=programs(functions=2))
def test_generated_programs_verify_and_read_back(source):
    module = parse_text(source)
    verify(module)
    assert parse_text(format_text(module)) == module
    assert from_json(to_json(module)) == module


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW)
@given(source=programs(functions=1), seed=st.integers(0, 2**32))
def test_a_mutated_program_is_refused_or_still_agrees(child, source, seed):
    generator = random.Random(seed)
    lines = source.split("\n")
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(lines))
        kind = generator.randrange(4)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, generator.choice(lines))
        elif kind == 2:
            other = generator.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            words = lines[at].split(" ")
            words[generator.randrange(len(words))] = generator.choice(" ".join(lines).split(" "))
            lines[at] = " ".join(words)
    mutated = "\n".join(lines)
    try:
        module = parse_text(mutated)
        verify(module)
    except MirError:
        return
    names = [f.name for f in module.functions if not f.params]
    answer = child.run(mutated, names, "reference")
    if "error" in answer:
        return
    outcomes = list(answer.values())
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_dead_child_is_noticed_and_replaced():
    child = NativeChild()
    source = "fn f() -> i64:\nentry:\n  ret 1\n"
    try:
        assert child.run(source, ["f"], "reference")["llvm O2"][0][0] == "1"
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises((AssertionError, BrokenPipeError)):
            child.run(source, ["f"], "reference")
        child.close()
        assert child.run(source, ["f"], "reference")["llvm O2"][0][0] == "1"
    finally:
        child.close()

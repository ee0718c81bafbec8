"""Differential testing: executors agree on random programs, findings are made small and written, readers survive damage. SIMPLE_MAGIC_FUZZ_MINUTES: longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from filetests import read_filetest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simple_magic import format_text, from_json, parse_text, to_json, verify
from simple_magic.__main__ import main
from simple_magic.backends import llvm_rules
from simple_magic.fuzz import campaign, compare, mutate
from simple_magic.fuzz.child import Child, ChildDied
from simple_magic.fuzz.compare import EXECUTORS, Comparison, Executors
from simple_magic.fuzz.generate import Batch, Program, make_batch, make_program
from simple_magic.fuzz.shrink import shrink, verifies
from simple_magic.fuzz.values import SeededChooser
from simple_magic.mir.ops import USER_OPS
from simple_magic.passes.semantics import MODELS

MINUTES = float(os.environ.get("SIMPLE_MAGIC_FUZZ_MINUTES", "0"))
EXAMPLES = 15 if not MINUTES else 200
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.filter_too_much]


class DrawnChooser:
    """Choices of Hypothesis."""

    def __init__(self, draw) -> None:
        self._draw = draw

    def below(self, count: int) -> int:
        return self._draw(st.integers(0, count - 1)) if count > 1 else 0


@st.composite
def programs(draw, size: int = 6):
    return make_program(DrawnChooser(draw), size)


@pytest.fixture(scope="module")
def child():
    found = Child()
    yield found
    found.close()


# Agreement


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW, print_blob=True)
@given(program=programs(), model=st.sampled_from(sorted(MODELS)), fuel=st.sampled_from((None, 100)))
def test_all_executors_agree(child, program, model, fuel):
    assert campaign.outcome(Batch((program,), model, fuel), child.compare) is None, format_text(program.module)


def test_seeded_programs_agree():
    said: list[str] = []
    options = campaign.Options(seed=1, minutes=MINUTES or 0.2, functions=60, calls=8, count=0 if MINUTES else 1500)
    summary = campaign.run(options, said.append)
    assert not summary.findings, "\n".join(said)
    assert summary.cases > 100


def test_seeded_programs_use_every_operation_and_model():
    batches = [make_batch(seed, 60) for seed in range(12)]
    used = Counter(i.op for batch in batches for f in batch.module.functions for b in f.blocks for i in b.instructions)
    assert set(USER_OPS) - set(used) == set()
    assert {b.model for b in batches} == set(MODELS)
    assert {b.fuel is None for b in batches} == {True, False}


@pytest.mark.parametrize("seed", range(20))
def test_generated_programs_verify_and_read_back(seed):
    module = make_program(SeededChooser(seed)).module
    verify(module)
    assert parse_text(format_text(module)) == module
    assert from_json(to_json(module)) == module
    assert make_batch(seed, 10).module == make_batch(seed, 10).module


# Findings


@pytest.fixture
def wrong_negation(monkeypatch):
    """Executors of which LLVM takes `neg` for `copy`; the runtime negates where it prints numbers."""
    monkeypatch.setattr(compare, "CALL_SECONDS", 0.5)
    monkeypatch.setitem(llvm_rules.llvm_rules, "neg", lambda f, ins: f.value(ins.args[0]))
    executors = Executors(("interpreter", "llvm-O0"))
    yield executors
    executors.close()


def test_a_planted_bug_is_found_made_small_and_written(wrong_negation):
    findings = []
    for seed in range(20):
        batch = make_batch(seed, 20, models=("reference",))
        findings = list(campaign.examine(batch, seed, wrong_negation.compare, seconds=10))
        if findings:
            break
    assert findings
    finding = min(findings, key=lambda f: len(f.text))
    (program,) = finding.batch.programs
    instructions = [i for f in program.module.functions for b in f.blocks for i in b.instructions]
    assert len(instructions) <= 6, finding.text
    assert len(program.calls) == 1
    module = parse_text(finding.text)
    verify(module)
    assert len(read_filetest(finding.text).expectations) == 1


def test_a_call_that_does_not_end_natively_is_a_finding(monkeypatch):
    monkeypatch.setattr(compare, "CALL_SECONDS", 0.3)
    rules = llvm_rules.llvm_rules
    monkeypatch.setitem(rules, "fma", lambda f, ins: f.value(ins.args[2]))
    source = "fn f() -> f64:\nentry:\n  x = const 0.0\n  goto more\nmore:\n  x = fma 1.0, 1.0, x\n  less = lt x, 9.0\n  if less then more else done\ndone:\n  ret x\n"
    executors = Executors(("interpreter", "llvm-O0"))
    found = executors.compare(Batch((Program(parse_text(source), (("f", ()),)),), "reference", None))
    executors.close()
    assert [d.aspect for d in found.differences] == ["value, trap timeout"]


def test_globals_that_grow_end_the_calls_of_a_program():
    source = """
global kept: [i64]

fn f(n: i64):
entry:
  more = array_fill 7, n
  old = load_global kept
  all = concat old, more
  store_global kept, all
  ret
"""
    calls = tuple(("f", (compare.MOST_PARTS // 4,)) for _ in range(50))
    executors = Executors(("interpreter", "llvm-O0"))
    found = executors.compare(Batch((Program(parse_text(source), calls),), "reference", None))
    executors.close()
    assert not found.differences and 0 < found.compared < 10


def test_shrinking_keeps_what_fails_and_stays_sound():
    batch = next(b for b in (Batch((make_program(SeededChooser(seed), 12),), "value", 500) for seed in range(99)) if "fma" in format_text(b.module))

    def fails(candidate: Batch) -> bool:
        assert verifies(candidate.module)
        return any(i.op == "fma" for f in candidate.module.functions for b in f.blocks for i in b.instructions)

    small = shrink(batch, fails, 20)
    assert (small.model, small.fuel, len(small.programs[0].calls)) == ("reference", None, 1)
    assert fails(small) and sum(len(b.instructions) for f in small.module.functions for b in f.blocks) <= 4


def test_a_dead_child_is_noticed_and_replaced(child):
    request = (3, 10, 2)
    assert isinstance(child.compare(request), Comparison)
    os.kill(child.pid, signal.SIGSTOP)
    pid = child.pid
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ChildDied, match="status -9"):
        child.compare(request)
    assert isinstance(child.compare(request), Comparison)
    assert child.pid != pid


def test_a_child_that_hangs_is_noticed_and_replaced(child):
    hasty = Child(timeout=0.2)
    try:
        pid = hasty.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ChildDied, match="no answer"):
            hasty.compare((3, 10, 2))
        hasty.timeout = 60
        assert isinstance(hasty.compare((3, 10, 2)), Comparison)
        assert hasty.pid != pid
    finally:
        hasty.close()


def test_a_crash_is_a_finding():
    """Whatever kills the child is isolated to one program of the batch."""
    batch = make_batch(5, 20, models=("reference",))

    def dies(candidate: Batch) -> Comparison:
        if any(i.op == "print" for p in candidate.programs for f in p.module.functions for b in f.blocks for i in b.instructions):
            raise ChildDied("the process died with status -11\n")
        return Comparison(1, ())

    findings = list(campaign.examine(batch, 5, dies, seconds=5))
    assert [f.aspect for f in findings] == [campaign.CRASH]
    assert sum(len(b.instructions) for f in findings[0].batch.module.functions for b in f.blocks) <= 3
    assert "print" in findings[0].text


# Readers


def test_damaged_programs_are_read_or_refused():
    readings = mutate.run(seed=1, minutes=MINUTES or 0.1, count=0 if MINUTES else 1500)
    assert not readings.failures, str(readings)
    assert {"text refused", "JSON refused", "text read", "JSON read"} <= set(readings.counts)


# The command


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "simple_magic", "fuzz", "--count", "20", "--functions", "8", "--calls", "2", "--save", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0 and "0 findings" in done.stdout, done.stdout + done.stderr
    done = subprocess.run([*command[:4], "--executors", "abacus"], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 2 and "abacus" in done.stderr and next(iter(EXECUTORS)) in done.stderr


@pytest.mark.parametrize("words", [("--minutes", "-1"), ("--jobs", "0"), ("--minutes", "nan"), ("--count", "-5")])
def test_the_command_refuses_numbers_that_make_no_sense(words, capsys):
    assert main(["fuzz", *words]) == 2
    assert "1 or more" in capsys.readouterr().err

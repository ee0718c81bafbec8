"""Verdicts: every `verdict` in `tests/gradients/*.mir`. The format: `tests/gradients/README.mir`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from filetests import comments
from gradient_recorder import forward_driver, record

from simple_magic import LocalExecutionManager
from simple_magic.autograd.causes import STORE, causal_test
from simple_magic.autograd.events import Event
from simple_magic.autograd.experiment import Run, run_experiment
from simple_magic.autograd.judging import Control, Fired, JudgedRun, Judgement, judge_experiment, judged_runs, run_controls
from simple_magic.autograd.oracles import ask_oracles
from simple_magic.autograd.verdicts import WORDS, Verdict, judge
from simple_magic.passes.semantics import MODELS

FOLDER = Path(__file__).parent / "gradients"
NODES = FOLDER / "nodes.mir"
_LINE = re.compile(r"\s*verdict\[(?P<options>[^\]]*)\]:\s*(?P<model>\w+)\((?P<inputs>[^)]*)\)\s*(?P<wanted>.*)")


@dataclass(frozen=True)
class Wanted:
    """What is expected of one parameter."""

    parameter: str
    word: str
    details: dict[str, str]


@dataclass(frozen=True)
class Expectation:
    """One `verdict` line, for one semantics model."""

    path: Path
    line: int
    model: str
    inputs: tuple[float, ...]
    semantics: str
    options: dict[str, str]
    wanted: tuple[Wanted, ...]

    def __str__(self) -> str:
        return f"{self.path.stem}-{self.line}-{self.model}-{self.semantics}"


def read(path: Path) -> list[Expectation]:
    found = []
    for line, comment in comments(path.read_text(encoding="utf-8")):
        match = _LINE.fullmatch(comment)
        if match is None:
            assert not comment.strip().startswith("verdict"), f"{path.name}:{line} cannot be read"
            continue
        words = [w.strip() for w in match["options"].split(",")]
        models = [w for w in words if w in MODELS]
        options = dict(w.partition("=")[::2] for w in words if w not in MODELS)
        assert set(options) <= {"backward", "reader", "leaf", "fuel", "store"} and models, (path, line)
        wanted = tuple(_wanted(part.split()) for part in match["wanted"].split(","))
        inputs = tuple(float(x) for x in match["inputs"].split(","))
        found += [Expectation(path, line, match["model"], inputs, m, options, wanted) for m in models]
    return found


def _wanted(words: list[str]) -> Wanted:
    assert words[1] in WORDS, words
    return Wanted(words[0], words[1], dict(zip(words[2::2], words[3::2])))


FILES = sorted(p for p in FOLDER.glob("*.mir") if p != NODES)
EXPECTATIONS = [e for path in FILES for e in read(path)]


def manager_for(path: Path) -> LocalExecutionManager:
    em = LocalExecutionManager("interpreter", opt_level=0)
    em.compile(NODES.read_text(encoding="utf-8"), cell="nodes")
    em.compile(path.read_text(encoding="utf-8"), cell="cell")
    return em


@pytest.fixture(scope="module")
def managers():
    """One session per file: nothing that a run does outlives it."""
    made = {path: manager_for(path) for path in FILES}
    yield made
    for manager in made.values():
        manager.close()


def verdicts(em: LocalExecutionManager, e: Expectation, shared=frozenset()) -> dict[str, Verdict]:
    options = {"backward": e.options.get("backward", "backward"), "reader": e.options.get("reader", "grad"), "leaf": e.options.get("leaf", "Value.leaf")}
    if "store" in e.options:
        options |= {"backward": "backward_store", "reader": "stored"}
    node = em.definition(e.model).params[0].type.name
    driver = f"forward_{e.model}"
    if not em.has_function(driver):
        em.compile(forward_driver(em, e.model, driver, node=node, leaf=options["leaf"], value="data"))
    trace, gradients, trap = record(em, e.model, e.inputs, e.semantics, shared=shared, fuel=int(e.options.get("fuel", 10**6)), node=node, **options)
    return {v.parameter: v for v in judge(trace, gradients, ask_oracles(em, driver, e.inputs, e.semantics), trap=trap)}


KNOWN_TO_BOTH = [e for e in EXPECTATIONS if e.path.stem not in ("places", "handed", "writebacks", "unfollowed", "values", "mazur")]
"""The second recorder (`gradient_recorder.py`) knows neither places as homes nor arrays that are handed on or written back; the experiment's own is judged on all below."""


@pytest.mark.parametrize("expectation", KNOWN_TO_BOTH, ids=str)
def test_verdict(managers, expectation):
    check(expectation, verdicts(managers[expectation.path], expectation))


@pytest.mark.parametrize("expectation", EXPECTATIONS, ids=str)
def test_verdict_of_the_experiment(managers, expectation):
    """The same, from events that the program records of itself, interpreted and compiled."""
    is_compiled = EXPECTATIONS.index(expectation) % COMPILED_EVERY == 0
    seen = experiment(managers[expectation.path], expectation, ("interpreter", "llvm") if is_compiled else ("interpreter",))
    judged = judge_experiment(seen, controls=False)
    for run in seen.runs:
        assert run.is_faithful, run
        check(expectation, judged.of(run.backend, run.semantics))
    assert len({tuple(map(repr, run.trace.events)) for run in seen.runs}) == 1


COMPILED_EVERY = 5
"""Every so many expectations are compiled too: that the traces of all back ends are equal is tested elsewhere."""


def experiment(em: LocalExecutionManager, e: Expectation, backends: tuple[str, ...]):
    definition = em.definition(e.model)
    options = {"backward": e.options.get("backward", "backward"), "reader": e.options.get("reader", ""), "leaf": e.options.get("leaf", "")}
    if "store" in e.options:
        options |= {"backward": e.options.get("backward", "backward_store"), "reader": "stored", "store": "grads"}
    inputs = dict(zip([p.name for p in definition.params], e.inputs))
    return run_experiment(None, e.model, inputs, runs=[(b, e.semantics) for b in backends], node=definition.params[0].type.name,
                               fuel=int(e.options.get("fuel", 10**6)), manager=em, **options)  # fmt: skip


def check(expectation: Expectation, found: dict[str, Verdict]) -> None:
    for wanted in expectation.wanted:
        verdict = found[wanted.parameter]
        assert verdict.word == wanted.word, verdict
        for what, value in wanted.details.items():
            assert value in shown(verdict, what), (what, value, shown(verdict, what), str(verdict))


def shown(verdict: Verdict, what: str) -> set[str]:
    """Return what an expectation may say about a verdict."""
    if what == "zero":
        return {verdict.zero}
    if what == "landed":
        return {f"{verdict.landed}/{len(verdict.contributions)}"}
    event: Event | None = getattr(verdict, what)
    if event is None:
        return set()
    line = {str(event.line), f"{event.line}#{event.occurrence + 1}"} if event.cell == "cell" else set()
    return {event.function, *line}


def test_every_word_is_expected_somewhere():
    assert {w.word for e in EXPECTATIONS for w in e.wanted} == set(WORDS)
    assert len({(e.path, e.model, e.semantics, e.inputs, *e.options.items()) for e in EXPECTATIONS}) >= 40


# Causes


def case(file: str, model: str, semantics: str, backward: str = "backward", inputs: tuple[float, ...] = (3.0,)):
    """Return (verdicts, a function that judges again without certain copies)."""
    path = FOLDER / file
    expectation = Expectation(path, 0, model, inputs, semantics, {"backward": backward}, ())
    em = manager_for(path)
    return verdicts(em, expectation), lambda shared: verdicts(em, expectation, shared)


def test_a_copy_as_written_is_the_cause_and_taking_it_away_is_the_fix():
    found, rejudge = case("copies.mir", "scaled", "reference", "lose")
    test = causal_test(found["x"], rejudge)
    assert (test.word, test.whole, test.is_confirmed, test.final) == ("lost", "ok", True, "ok")
    assert [t.word for t in test.links] == ["ok"] and "line 24 of lose: tried, and x is ok" in test.fix


def test_a_chain_of_two_copies_has_no_single_fix():
    """The seed of the project: undoing either copy alone changes nothing."""
    found, rejudge = case("copies.mir", "scaled", "reference", "lose_twice")
    test = causal_test(found["x"], rejudge)
    assert test.is_confirmed and test.whole == test.final == "ok"
    assert [t.word for t in test.links] == ["lost", "lost"] and test.fix == STORE


def test_under_value_semantics_the_chain_goes_through_callees_and_arrays():
    found, rejudge = case("README.mir", "product", "value", inputs=(3.0, 4.0))
    test = causal_test(found["x"], rejudge)
    assert test.is_confirmed and test.final == "ok" and len(test.links) >= 2 and test.fix == STORE, str(test)
    assert {t.word for t in test.links} <= {"lost", "partial"}


def test_what_comes_to_light_is_shared_too():
    found, rejudge = case("right.mir", "curve", "value", inputs=(0.7,))
    test = causal_test(found["x"], rejudge)
    assert test.is_confirmed and test.final == "ok" and test.shared > found["x"].sites, str(test)


def test_a_verdict_that_blames_no_copy_is_not_tested():
    found, rejudge = case("rules.mir", "half_square", "reference")
    assert causal_test(found["x"], rejudge) is None


def test_the_loss_of_one_turn_is_fixed_where_it_copies():
    found, rejudge = case("copies.mir", "four", "reference", "third_turn", inputs=(1.0,))
    assert "line 167 of third_turn" in causal_test(found["x"], rejudge).fix


# A case that everybody can check


@pytest.mark.parametrize("backend", ["interpreter", "llvm"])
@pytest.mark.parametrize(("in_place", "after"), [(False, 0.29102777369359933), (True, 0.29102792390544197)])
def test_both_numbers_of_mazurs_network(managers, backend, in_place, after):
    with managers[FOLDER / "mazur.mir"].fork(backend) as em:
        assert em.execute("mazur_step", in_place) == (0.2983711087600027, after)


# Controls


def test_controls_fire_on_every_back_end():
    fired = run_controls(("interpreter", "llvm"))
    assert [(f.control.name, f.got) for f in fired] == [("broken rule", "wrong"), ("lost write", "lost"), ("shared buffer", "doubled")] * 2


def test_a_judgement_is_void_unless_every_control_fires():
    control = Control("c", "backward", "value", "x", "lost")
    assert Judgement({}).is_void, "no control was run"
    assert Judgement({}, (Fired(control, "llvm", "ok"),)).is_void and "VOID" in str(Judgement({}, (Fired(control, "llvm", "ok"),)))
    assert not Judgement({}, (Fired(control, "llvm", "lost"),)).is_void


def test_an_experiment_is_judged_with_its_controls_and_fixes(managers):
    e = Expectation(FOLDER / "copies.mir", 0, "scaled", (3.0,), "reference", {"backward": "lose"}, ())
    judged = judge_experiment(experiment(managers[e.path], e, ("interpreter",)), try_fix=True)
    assert not judged.is_void and judged.words() == {"lost"}
    verdict = judged.of("interpreter", "reference")["x"]
    assert "aggregate_copy" in verdict.fix and "line 24 of lose" in verdict.fix and judged.tests["interpreter", "reference", "x"].is_confirmed
    cause, symptom = judged.first("interpreter", "reference")
    assert (cause.line, symptom.line) == (24, 27)


def test_judged_runs_carry_what_pictures_need(managers):
    e = Expectation(FOLDER / "copies.mir", 0, "scaled", (3.0,), "reference", {"backward": "lose"}, ())
    seen = experiment(managers[e.path], e, ("interpreter",))
    judged = judge_experiment(seen, controls=False)
    (run,) = judged_runs(seen, judged)
    assert run.name == "interpreter/reference" and run.verdicts == judged.verdicts["interpreter", "reference"]
    assert (run.gradient, run.value) == (seen.options.gradient, seen.options.value)
    (home,) = run.trace.names
    assert run.replayed is run.replayed and run.replayed.fates((home, None)) == run.verdicts[0].contributions


def test_a_judged_run_is_the_first_step_and_knows_the_entries_of_a_store():
    source = "fn model(x: Value) -> Value:\nentry:\n  r = call Value.mul(x, x)\n  ret r\n"
    seen = run_experiment(source, "model", {"x": 3.0}, runs=[("interpreter", "value")], backward="Value.store_backward", reader="Value.stored_gradient",
                               store="grads", steps=2)  # fmt: skip
    (run,) = judged_runs(seen, judge_experiment(seen, controls=False))
    assert list(run.trace.names.items()) == [("@grads[0]", "x")] and {e.step for e in run.trace.events} == {0}
    assert len(run.trace.events) < len(seen.runs[0].trace.events)
    bare = JudgedRun(Run("llvm", "value"), ())
    assert bare.trace.events == () and bare.replayed.contributions == {}


# The shipped library


@pytest.mark.parametrize(("semantics", "word"), [("reference", "ok"), ("contract", "ok"), ("value", "never-written"), ("interp_2026_02", "never-written")])
def test_dense_nodes_get_a_verdict_for_each_element(semantics, word):
    """Backward skips nodes without a gradient: where the first one is lost, the parameters never get any."""
    source = """
fn model(a: Dense, b: Dense) -> Dense:
entry:
  c = call Dense.mul(a, b)
  d = call Dense.sigmoid(c)
  s = call Dense.sum(d)
  ret s
"""
    seen = run_experiment(source, "model", {"a": (0.5, -1.0), "b": (2.0, 3.0)}, runs=[("interpreter", semantics)], node="Dense")
    judged = judge_experiment(seen, controls=False)
    found = judged.of("interpreter", semantics)
    assert list(found) == ["a[0]", "a[1]", "b[0]", "b[1]"] and {v.word for v in found.values()} == {word}, str(judged)
    assert all((v.gradient is None) == (word != "ok") for v in found.values())
    if word != "ok":
        assert all(v.cause is not None and v.symptom is not None and v.symptom.original not in ("0", "1") for v in found.values()), "blame what was lost before"


def test_what_made_backward_skip_a_parameter_is_found_by_running_without_it():
    source = "fn model(a: Dense) -> Dense:\nentry:\n  c = call Dense.exp(a)\n  s = call Dense.sum(c)\n  ret s\n"
    seen = run_experiment(source, "model", {"a": (0.5,)}, runs=[("interpreter", "value")], node="Dense")
    judged = judge_experiment(seen, controls=False, try_fix=True)
    test = judged.tests["interpreter", "value", "a[0]"]
    assert (test.word, test.final) == ("never-written", "ok") and test.fix == STORE, str(judged) + str(test)


def test_a_shared_buffer_is_fixed_by_a_copy_that_was_tried(managers):
    e = Expectation(FOLDER / "buffers.mir", 0, "sums", (3.0, 4.0), "reference", {"backward": "passing_on", "reader": "first", "leaf": "Cell.leaf"}, ())
    judged = judge_experiment(experiment(managers[e.path], e, ("interpreter",)), controls=False, try_fix=True)
    found = judged.of("interpreter", "reference")
    assert found["y"].word == "doubled" and found["y"].fix == "copy what line 45 of passing_on stores: tried, and y is ok"
    assert found["x"].word == "ok" and found["x"].fix == ""


def test_a_trace_that_reached_its_cap_proves_no_loss():
    source = "fn model(x: Value) -> Value:\nentry:\n  r = call Value.mul(x, x)\n  ret r\n"
    seen = run_experiment(source, "model", {"x": 3.0}, runs=[("interpreter", "value"), ("interpreter", "reference")], capacity=3)
    judged = judge_experiment(seen, controls=False)
    assert judged.of("interpreter", "value")["x"].word == "inconclusive" and judged.of("interpreter", "reference")["x"].word == "ok"


def test_a_lost_gradient_says_what_it_would_have_been(managers):
    e = Expectation(FOLDER / "copies.mir", 0, "scaled", (3.0,), "reference", {"backward": "lose"}, ())
    assert "would be 5.0" in verdicts(managers[e.path], e)["x"].note


def test_a_lost_zero_where_the_derivative_is_zero_says_that_the_number_is_right(managers):
    e = Expectation(FOLDER / "zeros.mir", 0, "times_zero", (3.0, 0.0), "value", {}, ())
    x, y = verdicts(managers[e.path], e).values()
    assert x.wanted.derivative == 0.0 and "the derivative is zero at these inputs" in x.note
    assert y.wanted.derivative == 3.0 and "zero at these inputs" not in y.note


@pytest.mark.parametrize("at", [0.0, 2.0])
def test_a_loss_at_a_kink_says_that_there_is_one(managers, at):
    e = Expectation(FOLDER / "zeros.mir", 0, "relu", (at,), "value", {}, ())
    (verdict,) = verdicts(managers[e.path], e).values()
    assert verdict.word == "lost" and ("no derivative here: 0 from the left, 1 from the right" in verdict.note) == (at == 0.0)


def test_the_verdicts_of_training_are_those_of_the_first_step():
    source = "fn model(x: Value, scale: f64) -> Value:\nentry:\n  a = call Value.mul(x, x)\n  r = call Value.scale(a, scale)\n  ret r\n"
    seen = run_experiment(source, "model", {"x": 3.0, "scale": -2.5}, runs=[("interpreter", "reference")], steps=3)
    (verdict,) = judge_experiment(seen, controls=False).verdicts["interpreter", "reference"]
    assert (verdict.word, verdict.gradient, verdict.landed) == ("ok", -15.0, 2)


def test_of_several_copies_the_run_finds_the_one_that_matters(managers):
    """The leaf was copied into the registry, too; but the reader looks there, so only the read of the element loses."""
    e = Expectation(FOLDER / "places.mir", 0, "both", (3.0, 4.0), "value", {"backward": "through_locals", "leaf": "registered", "reader": "in_place"}, ())
    judged = judge_experiment(experiment(managers[e.path], e, ("interpreter",)), controls=False, try_fix=True)
    test = judged.tests["interpreter", "value", "x"]
    assert {t.event.function: t.word for t in test.links}["through_locals"] == "ok", str(test)
    assert "read out of an array (line 45 of through_locals): tried, and x is ok" in judged.of("interpreter", "value")["x"].fix


def test_each_element_has_its_own_word():
    source = "fn model(a: Dense) -> Dense:\nentry:\n  r = call Dense.relu(a)\n  ret r\n"
    seen = run_experiment(source, "model", {"a": (-1.0, 0.0, 2.0)}, runs=[("interpreter", "reference")], node="Dense")
    found = judge_experiment(seen, controls=False).verdicts["interpreter", "reference"]
    assert [(v.parameter, v.word, v.zero) for v in found] == [("a[0]", "ok", "correct"), ("a[1]", "kink", ""), ("a[2]", "ok", "")]


MISFIT = """
class Bag:
  data: f64
  grad: [f64]
  parents: [Bag]

fn Bag.leaf(x: f64) -> Bag:
entry:
  grad: [f64] = array 0.0
  parents: [Bag] = array
  b = new Bag(data: x, grad: grad, parents: parents)
  ret b

fn product(x: Bag, y: Bag) -> Bag:
entry:
  p = mul x.data, y.data
  grad: [f64] = array 0.0
  parents: [Bag] = array x, y
  b = new Bag(data: p, grad: grad, parents: parents)
  ret b

# Both gradients go into x, none into y.
fn Bag.backward(self: Bag):
entry:
  x = index_get self.parents, 0
  y = index_get self.parents, 1
  both: [f64] = array y.data, x.data
  set_field x, grad, both
  ret
"""


def test_a_gradient_of_another_length_is_wrong_and_moves_nobody_else():
    seen = run_experiment(MISFIT, "product", {"x": 3.0, "y": 4.0}, node="Bag", runs=[("interpreter", "reference")])
    found = judge_experiment(seen, controls=False).of("interpreter", "reference")
    assert {name: v.word for name, v in found.items()} == {"x": "wrong", "y": "never-written"}
    assert found["x"].sentence == "the gradient has 2 numbers, the parameter 1"


SHIFTED = """
fn shifted(x: Value) -> Value:
entry:
  v = get_field x, data
  square = mul v, v
  high = add square, 1000000000000000.0
  parents: [Value] = array x
  slopes: [f64] = array v
  r = new Value(data: high, grad: 0.0, parents: parents, slopes: slopes, op: "shifted", id: 7)
  ret r
"""


def test_the_size_of_the_result_excuses_nothing():
    seen = run_experiment(SHIFTED, "shifted", {"x": 3.0}, runs=[("interpreter", "reference")])
    verdict = judge_experiment(seen, controls=False).of("interpreter", "reference")["x"]
    assert (verdict.gradient, verdict.wanted.derivative) == (3.0, 6.0) and verdict.word in ("wrong", "inconclusive")

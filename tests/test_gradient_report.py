"""The report of a gradient experiment: its words, tables and data; the cell magic and the command that make one."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from simple_magic import MirError, Trap, gradient_experiment
from simple_magic.__main__ import main
from simple_magic.autograd.events import load_trace
from simple_magic.autograd.judging import PROBE, Judgement
from simple_magic.magics import ExpectationError
from simple_magic.show.gradients.curves import curves_picture, loss_table, shown_steps, value_table
from simple_magic.show.gradients.options import call_inputs, split_call
from simple_magic.show.gradients.report import SECTIONS

MODEL = """
fn model(x: Value, y: Value) -> Value:
entry:
  product = call Value.mul(x, y)
  sum = call Value.add(product, x)
  ret sum
"""
CELL = MODEL.lstrip("\n")
SQUARE = """
fn square(x: Value) -> Value:
entry:
  r = call Value.mul(x, x)
  ret r
"""


@pytest.fixture(scope="module")
def report():
    return gradient_experiment(MODEL, "model", {"x": 3.0, "y": 4.0}, try_fix=True)


@pytest.fixture(scope="module")
def training():
    return gradient_experiment(SQUARE, "square", {"x": 3.0}, steps=25, lr=0.25, controls=False)


# The report


def test_the_answer_is_one_sentence_a_run(report):
    assert report.title == "gradients of model(x=3, y=4) = 15"
    assert report.answer == "interpreter/value: both gradients are \u2717 lost\nllvm/reference: both gradients are \u2713 ok"
    assert report.words() == {"lost", "ok"} and not report.is_void
    assert report.control_text == "negative controls: 6 of 6 fired (broken rule, lost write, shared buffer)"
    assert report.verdict("interpreter", "value")["x"].word == "lost"
    assert report.run("llvm", "reference").gradients == {"x": 5.0, "y": 3.0}
    with pytest.raises(KeyError, match="interpreter/value, llvm/reference"):
        report.verdict("llvm", "value")


def test_the_table_has_a_row_for_each_parameter_and_run(report):
    found = report.table()
    rows = [dict(zip(found.header, row)) for row in found.rows]
    assert [(r["parameter"], r["run"], r["verdict"], r["gradient"], r["derivative"], r["arrived"]) for r in rows] == [
        ("x", "interpreter/value", "\u2717 lost", "0", "5", "0 of 2"), ("x", "llvm/reference", "\u2713 ok", "5", "5", "2 of 2"),
        ("y", "interpreter/value", "\u2717 lost", "0", "3", "0 of 1"), ("y", "llvm/reference", "\u2713 ok", "3", "3", "1 of 1"),
    ]  # fmt: skip
    assert rows[0]["first cause"] == "line 5 of model: x was passed as an argument, and 2 more copies"
    assert rows[0]["what helps"].startswith("no single edit helps")
    assert all(float(r["by differences"]) == pytest.approx(float(r["derivative"]), rel=1e-5) for r in rows)


def test_the_text_names_the_first_cause_and_the_first_symptom_with_their_instructions(report):
    text = repr(report)
    assert "interpreter/value: first cause, for x: event " in text and "sum = call Value.add(product, x)  (here x was passed as an argument)" in text
    assert "first symptom, for y: event " in text and "set_field self, grad, total  (accumulate: 0 became 1 on object 2." in text, "the first number that was lost, on the way to y"
    assert "negative controls: 6 of 6" in text


def test_a_wrong_rule_has_a_symptom_and_no_cause():
    report = gradient_experiment(PROBE, "probe", {"x": 3.0, "y": 4.0}, node="Probe", backward="Probe.backward_broken",
                                 runs=[("interpreter", "reference"), ("interpreter", "value")], controls=False)  # fmt: skip
    first, _ = report.to_json()["runs"]
    assert first["first_cause"] is None and first["first_symptom"]["function"] == "Probe.backward_by"
    lines = [line for line in report.first_text().split("\n") if line.startswith("interpreter/reference")]
    assert [line.split(": ")[1] for line in lines] == ["first symptom, for x"]
    timeline, divergence = report.timeline().text, report.divergence().text
    assert (timeline.count("first cause: event"), timeline.count("first symptom: event")) == (1, 2)
    assert "first symptom in interpreter/reference" in divergence and "first cause in" not in divergence


def test_runs_that_are_alike_are_said_together_and_drawn_once():
    report = gradient_experiment(MODEL, "model", {"x": 3.0, "y": 4.0}, backends=("interpreter", "cranelift"), models=("value", "reference"), controls=False)
    assert report.alike == {"cranelift/value": "interpreter/value", "cranelift/reference": "interpreter/reference"}
    assert [run.name for run in report.drawn] == ["interpreter/value", "interpreter/reference"]
    assert report.answer.split("\n")[0] == "interpreter/value, cranelift/value: both gradients are \u2717 lost"
    assert report.first_text().split("\n")[0].startswith("interpreter/value, cranelift/value: first cause, for x: ")
    assert "cranelift/value: the same as interpreter/value, event by event" in report.notes()
    assert "cranelift" not in report.graph().text and len(report.table().rows) == 8


def test_elements_with_the_same_words_are_one_row():
    source = "fn model(a: Dense) -> Dense:\nentry:\n  r = call Dense.relu(a)\n  ret r\n"
    report = gradient_experiment(source, "model", {"a": [1.0, 0.0, 2.0, 3.0, 0.0, 4.0, 5.0]}, node="Dense", runs=[("interpreter", "reference")], controls=False)
    rows = [row[:4] for row in report.table().rows]
    assert rows == [
        ("a[0] and 4 more", "interpreter/reference", "\u2713 ok", "norm 2.23607"),
        ("a[1]", "interpreter/reference", "\u2227 kink", "0"),
        ("a[4]", "interpreter/reference", "\u2227 kink", "0"),
    ]  # fmt: skip
    assert report.table().rows[0][6] == "5 of 5"


def test_numbers_that_look_alike_and_differ_are_shown_with_all_digits():
    source = PROBE.replace("call Probe.backward_by(self, 1.0)", "call Probe.backward_by(self, 2.0000001)")
    report = gradient_experiment(source, "probe", {"x": 3.0, "y": 4.0}, node="Probe", backward="Probe.backward_broken", runs=[("interpreter", "reference")],
                                 controls=False)  # fmt: skip
    assert [row[2:5] for row in report.table().rows] == [("\u2260 wrong", "6.0000003", "6.0"), ("\u2713 ok", "1", "1")]


def test_the_table_blames_the_node_that_was_copied():
    source = "fn model(a: Dense) -> Dense:\nentry:\n  c = call Dense.exp(a)\n  s = call Dense.sum(c)\n  ret s\n"
    report = gradient_experiment(source, "model", {"a": [0.5]}, node="Dense", runs=[("interpreter", "value")], controls=False)
    (verdict,) = report.judged[0].verdicts
    assert verdict.word == "never-written" and verdict.cause.original == "1"
    assert ": node 1 was " in report.table().rows[0][-1]


def test_a_report_without_its_controls_is_void(report):
    bare = replace(report, judgement=Judgement(report.judgement.verdicts))
    assert bare.is_void and "VOID: the negative controls were not run" in repr(bare)
    silent = replace(report.judgement.controls[0], got="ok")
    wrong = replace(report, judgement=replace(report.judgement, controls=(silent,)))
    assert wrong.is_void and "VOID: the control `broken rule` on interpreter was to be wrong and is ok" in repr(wrong)


def test_data_is_complete_and_plain(report):
    data = json.loads(report.to_json_text())
    assert (data["format"], data["version"], data["is_void"], len(data["controls"])) == ("simple_magic.gradients", 1, False, 6)
    lost, right = data["runs"]
    assert lost["gradients"] == {"x": 0.0, "y": 0.0} and right["gradients"] == {"x": 5.0, "y": 3.0}
    x = lost["verdicts"][0]
    assert (x["word"], x["derivative"], x["landed"], len(x["contributions"])) == ("lost", 5.0, 0, 2)
    assert {c["fate"] for c in x["contributions"]} == {"lost"} and all(e["kind"] == "copy" for e in x["chain"])
    assert lost["first_cause"]["instruction"] == "sum = call Value.add(product, x)" and right["first_cause"] is None


def test_numbers_that_json_lacks_are_words():
    found = gradient_experiment("fn f(x: Value) -> Value:\nentry:\n  y = call Value.log(x)\n  ret y\n", "f", {"x": 0.0}, controls=False, runs=[("interpreter", "reference")])
    data = json.loads(found.to_json_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert data["runs"][0]["losses"] == ["-inf"] and data["runs"][0]["verdicts"][0]["word"] == "non-finite"


def test_traces_are_saved_by_run(report, tmp_path):
    paths = report.save_traces(tmp_path / "traces")
    assert [p.name for p in paths] == ["model-interpreter-value.jsonl", "model-llvm-reference.jsonl"]
    assert load_trace(paths[0]) == report.runs[0].trace


def test_the_first_different_number_stands_beside_the_first_cause_and_symptom(report):
    """The cause is a copy, the symptom the write that did not do what it should; the first number that differs between the runs is another question."""
    lines = report.first_text().split("\n")
    assert [line.partition(":")[0] for line in lines][:2] == ["interpreter/value"] * 2 and lines[-1].startswith("first different number: ")
    left, right = report.first_difference.left, report.first_difference.right
    assert (left or right).is_write and (left is None or right is None or left.after != right.after)
    data = report.to_json()["first_difference"]
    assert [e and e["time"] for e in data] == [left and left.time, right and right.time]
    alone = gradient_experiment(MODEL, "model", {"x": 3.0, "y": 4.0}, runs=[("llvm", "reference")], controls=False)
    assert alone.first_difference is None and alone.first_text() == "" and alone.to_json()["first_difference"] is None


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"steps": 2.5}, TypeError, "^steps must be a whole number, got 2.5$"), ({"steps": "2"}, TypeError, "^steps must be a whole number, got '2'$"),
    ({"leaves": {"z": "Value.leaf"}}, ValueError, "^leaves: z is no input of the model; the inputs given are x, y$"),
    ({"runs": [("llvm", "value")], "models": ["value"]}, ValueError, "leave out models$"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused_before_anything_runs(monkeypatch, options, error, message):
    monkeypatch.setattr("simple_magic.show.gradients.report.run_experiment", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(error, match=message):
        gradient_experiment(MODEL, "model", {"x": 3.0, "y": 4.0}, **options)


def test_steps_may_be_a_number_of_numpy():
    assert gradient_experiment(SQUARE, "square", {"x": 3.0}, steps=np.int64(1), runs=[("interpreter", "reference")], controls=False).experiment.steps == 1


# Training


def test_losses_at_the_steps_that_tell(training):
    assert shown_steps(26) == (0, 1, 2, 5, 10, 20, 25) and shown_steps(1) == (0,) and shown_steps(0) == ()
    rows = {row[0]: row[1:] for row in loss_table(training.judged).rows}
    assert rows["interpreter/value"] == ("9",) * 7
    assert rows["llvm/reference"][:4] == ("9", "2.25", "0.5625", "0.0087890625")
    assert dict(row[:2] for row in value_table(training.judged).rows) == {"x": "3"}


def test_curves_show_every_run_and_say_so(training):
    drawn = curves_picture(training.judged, "square")
    assert drawn.to_svg() == curves_picture(training.judged, "square").to_svg()
    texts = [t.text or "" for t in ElementTree.fromstring(drawn.to_svg()).iter("{http://www.w3.org/2000/svg}text")]
    assert {"interpreter/value", "llvm/reference"} <= set(texts) and any("logarithmic" in t for t in texts)
    for text in texts:
        for word in text.split():
            if word[0].isdigit():
                assert word in drawn.text.replace(",", " ").split(), f"{word} is not in the text twin"
    assert drawn.description.startswith("interpreter/value: from 9 to 9; llvm/reference: from 9 to ")


def test_names_of_curves_that_end_together_do_not_overlap(training):
    labels = [s for s in curves_picture(training.judged * 4).shapes if getattr(s, "text", "") in ("interpreter/value", "llvm/reference")]
    heights = sorted(label.y for label in labels)
    assert len(labels) == 8 and all(b - a >= 14 for a, b in pairwise(heights))


def test_a_training_that_trapped_at_once_says_so(training):
    ended = [replace(j, run=replace(j.run, losses=(), trap=Trap("out_of_fuel"))) for j in training.judged]
    assert curves_picture(ended, "square").title == "no loss: no run came to the end of a step on square"
    assert list(loss_table(ended).rows) == [("interpreter/value", "trap out_of_fuel"), ("llvm/reference", "trap out_of_fuel")]


@pytest.mark.parametrize("losses", [(), (1.0,), (math.inf, math.nan, 1.0), (0.0, 0.0), (-3.0, 5.0), (1e300, 1e-300)])
def test_curves_of_any_losses(training, losses):
    odd = [replace(j, run=replace(j.run, losses=losses)) for j in training.judged]
    ElementTree.fromstring(curves_picture(odd).to_svg())
    assert "nan" not in curves_picture(odd).to_svg()


# The cell magic


@pytest.fixture(scope="module")
def shell():
    made = InteractiveShell()
    made.run_line_magic("load_ext", "simple_magic")
    made.user_ns["twice"] = {"x": 1.0}
    yield made
    made.run_line_magic("unload_ext", "simple_magic")


def grad(shell, line, cell=CELL):
    return shell.run_cell_magic("simple_grad", line, cell)


def test_a_cell_gives_the_report_and_leaves_nothing_behind(shell, tmp_path):
    found = grad(shell, f"model(x=3.0, y=4.0) --expect lost,ok -o seen --json {tmp_path}/report.json --traces {tmp_path}/traces")
    assert found.words() == {"lost", "ok"} and shell.user_ns["seen"] is found
    assert json.loads((tmp_path / "report.json").read_text())["model"] == "model" and len(list((tmp_path / "traces").iterdir())) == 2
    assert "model" not in shell.user_ns
    with pytest.raises(MirError, match="no function is named `model`"):
        shell.run_line_magic("simple_grad", "model(x=3.0, y=4.0)")


def test_lines_count_as_the_editor_does(shell):
    found = grad(shell, "model(x=3.0, y=4.0)")
    cause = found.verdict("interpreter", "value")["x"].cause
    assert (cause.line, cause.instruction) == (5, "sum = call Value.add(product, x)") and cause.cell.startswith("In[")
    with pytest.raises(MirError, match=r":4:13\)\n.*\n4 \|   product = kall"):
        grad(shell, "model(x=3.0, y=4.0)", CELL.replace("= call Value.mul", "= kall Value.mul"))


def test_a_line_takes_what_the_notebook_has_defined_and_its_variables(shell):
    shell.run_cell_magic("simple_jit", "--use autograd", SQUARE.replace("square", "squared"))
    shell.user_ns["start"] = 5.0
    shell.user_ns["inputs"] = {"x": np.float64(5.0)}
    for call in ("squared(x=start)", "squared(**inputs)"):
        found = shell.run_line_magic("simple_grad", f"{call} --runs cranelift/contract --expect ok")
        assert found.runs[0].gradients == {"x": 10.0}


@pytest.mark.parametrize(("line", "message"), [
    ("", "name the model and its inputs"), ("--steps 3", "name the model"), ("model(3.0, 4.0)", "name every input"), ("model(x=3.0, **more)", "no variable of this name holds a dict"), ("model(x=1.0, **twice)", "input x is given twice"),
    ("model(x=3.0)", "missing: y"), ("model(x=3.0, y=4.0, z=1.0)", "unknown: z"), ("model(x=3.0, y=nobody)", "no variable is named nobody"),
    ("model(x=3.0, y=1+)", "is no call"), ("model(x=3.0, y=4.0) --runs llvm", "is no run"), ("model(x=3.0, y=4.0) --models values", "is no semantics model"),
    ("model(x=3.0, y=4.0) --show all", "is no section"), ("model(x=3.0, y=4.0) --steps -1", "number of steps"), ("model(x=3.0, y=4.0) -o print", "a name of Python"),
    ("model(x=3.0, y=4.0) --expect good", "is no verdict"), ("model(x='3', y=4.0)", "input x"), ("model(x=3.0, y=4.0) --fuel x", "fuel"),
    ("model(x=3.0, y=__import__('os'))", "neither a literal"), ("model(x=3.0, x=4.0, y=4.0)", "input x is given twice"),
    ("model(x=3.0, y=4.0) --leaves z=Value.leaf", "^--leaves: z is no input of the model; the inputs given are x, y$"),
    ("model(x=3.0, y=4.0) --leaves x=Value.leaf,x=Value.exp", "each parameter once"),
    ("model(x=3.0, y=4.0) --runs llvm/value --backends llvm", "^--runs names the back end and the model of each run: leave out --backends$"),
    ("model(x=3.0, y=4.0) --models value --runs llvm/value --backends llvm", "leave out --backends and --models$"),
])  # fmt: skip
def test_a_wrong_line_is_one_sentence(shell, line, message):
    with pytest.raises(UsageError, match=message) as caught:
        grad(shell, line)
    assert "\n" not in str(caught.value)


def test_other_words_than_expected_fail_the_cell(shell):
    with pytest.raises(ExpectationError, match="the verdicts are lost, ok, expected ok"):
        grad(shell, "model(x=3.0, y=4.0) --expect ok")


def test_a_trap_is_a_result(shell):
    found = grad(shell, "f(x=1.0) --runs interpreter/reference", "fn f(x: Value) -> Value:\nentry:\n  assert false, \"no\"\n  ret x\n")
    assert found.words() == {"no-result"} and "trap assertion" in repr(found)


def test_calls_are_read_to_their_end():
    name, call, rest = split_call("f(x=(1.0), y=[1, 2], name=')') --steps 3")
    assert (name, rest) == ("f", " --steps 3") and call_inputs(call, {}) == {"x": 1.0, "y": [1, 2], "name": ")"}
    assert split_call("Net.loss --steps 3") == ("Net.loss", None, " --steps 3")


# The command


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.mir"
    path.write_text(MODEL)
    return str(path)


def test_the_command_prints_a_line_for_every_gradient(file, capsys):
    assert main(["grad", file, "model", "x=3.0", "y=4.0"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split(" ")[:3] for line in lines[:4]] == [
        ["x", "[interpreter/value]:", "lost"], ["y", "[interpreter/value]:", "lost"], ["x", "[llvm/reference]:", "ok"], ["y", "[llvm/reference]:", "ok"]]  # fmt: skip


@pytest.mark.parametrize(("words", "status"), [("lost", 1), ("doubled", 0), ("any", 1), ("doubled,lost", 1), ("doubled,any", 1)])
def test_the_command_fails_on_words(file, capsys, words, status):
    assert main(["grad", file, "model", "x=3.0", "y=4.0", "--fail-on", words, "--runs", "interpreter/value"]) == status


def test_the_command_is_void_if_a_control_does_not_fire(file, capsys, monkeypatch):
    from simple_magic.autograd import judging

    monkeypatch.setattr(judging, "CONTROLS", (replace(judging.CONTROLS[0], word="ok"),))
    assert main(["grad", file, "model", "x=3.0", "y=4.0"]) == 1
    assert "VOID: the control `broken rule`" in capsys.readouterr().out


def test_the_command_writes_what_it_is_asked_for(file, capsys, tmp_path):
    assert main(["grad", file, "model", "x=3", "y=4", "--steps", "2", "--json", "-", "--svg", f"{tmp_path}/losses.svg", "--png", f"{tmp_path}/losses.png",
                 "--traces", f"{tmp_path}/traces"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert (tmp_path / "losses.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "losses.svg").read_text().startswith("<svg")
    assert len(list((tmp_path / "traces").iterdir())) == 2


@pytest.mark.parametrize(("words", "message"), [
    (["x=3.0"], "missing: y"), (["x=3.0", "y=q"], "'q' is not a Python literal"), (["x=3.0", "4.0"], "NAME=NUMBER"), (["x=3.0", "y=text"], "not a Python literal"),
    (["x=3.0", "y=4.0", "x=3.0"], "input x is given twice"), (["x=3.0", "y=4.0", "--leaves", "z=Value.leaf"], "--leaves: z is no input"),
    (["x=3.0", "y=4.0", "--runs", "llvm/value", "--models", "value"], "leave out --models"),
])  # fmt: skip
def test_wrong_inputs_of_the_command_are_one_sentence(file, capsys, words, message):
    assert main(["grad", file, "model", *words]) == 2
    found = capsys.readouterr()
    assert message in found.err and found.out == "" and "Traceback" not in found.err


def test_a_display_has_every_form_and_png_on_request(report, training):
    found = report._repr_mimebundle_()
    assert list(found) == ["text/plain", "text/html", "image/svg+xml"]
    assert report._repr_mimebundle_(include={"image/png"})["image/png"][:4] == b"\x89PNG"
    for seen in (report, training):
        page = seen._repr_mimebundle_()["text/html"]
        assert page.count("<svg") == page.count("</svg>") >= 4 and "<script" not in page and "<style" not in page
        assert ElementTree.fromstring(f"<p>{page}</p>".replace("<br>", "<br/>")) is not None
    assert training.hero().title.startswith("loss over 25 steps") and report.hero().title.startswith("Gradients of model")


def test_every_section_can_be_shown(report):
    for section in SECTIONS:
        shown = replace(report, sections=(section,))
        assert repr(getattr(report, section)()) in repr(shown) and shown._repr_mimebundle_()["text/html"]
    with pytest.raises(ValueError, match="no parameter is named z; there is: x, y"):
        report.memory("z")


def test_hostile_names_are_escaped_everywhere(tmp_path):
    hostile = 'fn f(x: Value) -> Value:\nentry:\n  assert false, "<img src=x onerror=alert(1)>"\n  ret x\n'
    found = gradient_experiment(hostile, "f", {"x": 1.0}, controls=False)
    assert "<img" not in found._repr_mimebundle_()["text/html"] and "<img" not in found.to_html()


def test_what_a_model_prints_is_part_of_the_report(capsys):
    source = MODEL.replace("entry:\n", 'entry:\n  print "<b>once</b>"\n', 1)
    found = gradient_experiment(source, "model", {"x": 3.0, "y": 4.0}, controls=False)
    assert capsys.readouterr().out == "" and [run.stdout for run in found.runs] == ["<b>once</b>\n"] * 2
    assert "interpreter/value, llvm/reference printed:\n<b>once</b>" in repr(found)
    assert "&lt;b&gt;once" in found.to_html() and "<b>once" not in found.to_html()


def test_a_forgotten_model_is_told(file, capsys):
    assert main(["grad", file, "x=3.0", "y=4.0"]) == 2
    assert "the model's name comes before it" in capsys.readouterr().err
    assert main(["grad", file, "model", "x=3.0", "y=abc"]) == 2
    assert "input y: 'abc' is not a Python literal" in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    ["model", "x=3.0", "y=4.0", "--steps", "many"], ["model", "x=3.0", "y=4.0", "--nonsense"],
    ["model", "x=3.0", "y='4'"], ["model", "x=3.0", "y=4.0", "z=5.0"],
    ["mdel", "x=3.0", "y=4.0"], ["model", "x=3.0", "y=4.0", "--backward", "nobody"], ["model", "x=3.0", "y=4.0", "--value", "nothing"],
])  # fmt: skip
def test_a_wrong_command_line_has_another_status_than_a_finding(file, capsys, words):
    try:
        status = main(["grad", file, *words, "--fail-on", "any"])
    except SystemExit as stopped:
        status = stopped.code
    found = capsys.readouterr()
    assert status == 2 and found.err and found.out == "" and "Traceback" not in found.err


def test_a_wrong_program_and_a_file_that_is_missing_have_the_status_of_the_other_commands(capsys, tmp_path):
    wrong = tmp_path / "wrong.mir"
    wrong.write_text(MODEL.replace("ret sum", "ret nothing"))
    for path in (str(wrong), "no/such/file.mir"):
        assert main(["grad", path, "model", "x=3.0", "y=4.0"]) == main(["run", path]) == main(["check", path]) == 1
        assert "Traceback" not in capsys.readouterr().err

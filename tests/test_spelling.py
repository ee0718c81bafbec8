"""Hints name arguments of Python where Python reads them, options and commands of the notebook in a cell, options alone in a shell."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from simple_magic import LocalExecutionManager, MirError, gradient_experiment
from simple_magic.__main__ import main
from simple_magic.mir.diagnostics import Diagnostic
from simple_magic.spelling import CELL, SHELL, spelled

MODEL = "fn model(x: Value) -> Value:\nentry:\n  r = call Value.mul(x, x)\n  ret r\n"
NUMBER = "fn model(x: f64) -> f64:\nentry:\n  ret x\n"
GRADIENT_HINTS = [
    (MODEL, {"backward": "nobody"}, "name it: backward=...", "name it: --backward NAME"),
    (MODEL, {"leaf": "nobody"}, "leaf: leaf=...", "leaf: --leaf NAME"),
    (MODEL, {"value": "op"}, "value: value=...", "value: --value NAME"),
    (MODEL, {"gradient": "op"}, "gradient=..., or a function that reads it with reader=...", "--gradient NAME, or a function that reads it with --reader NAME"),
    (NUMBER, {}, 'node="f64"', "name the class of the nodes: --node f64\n"),
]


@pytest.fixture(scope="module")
def shell():
    made = InteractiveShell()
    made.run_line_magic("load_ext", "simple_magic")
    yield made
    made.run_line_magic("unload_ext", "simple_magic")


@pytest.fixture
def fails(shell):
    """Return what a cell or line says when it fails."""

    def run(magic, line, cell=None):
        with pytest.raises(MirError) as caught:
            shell.run_line_magic(magic, line) if cell is None else shell.run_cell_magic(magic, line, cell)
        return f"{caught.value}\n"

    return run


@pytest.mark.parametrize(("source", "options", "in_python", "elsewhere"), GRADIENT_HINTS, ids=[str(i) for i in range(len(GRADIENT_HINTS))])
def test_options_of_an_experiment(fails, tmp_path, capsys, source, options, in_python, elsewhere):
    with pytest.raises(MirError) as caught:
        gradient_experiment(source, "model", {"x": 1.0}, **options)
    assert in_python in str(caught.value)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert elsewhere in fails("simple_grad", f"model(x=1.0) {' '.join(words)}", source)
    path = tmp_path / "model.mir"
    path.write_text(source)
    assert main(["grad", str(path), "model", "x=1.0", *words]) == 2
    assert elsewhere in capsys.readouterr().err


def test_names_that_a_session_does_not_have(fails, tmp_path, capsys):
    with LocalExecutionManager("interpreter") as em:
        with pytest.raises(MirError, match="there is: nothing yet"):
            em.execute("f")
        em.compile("global total: f64\n" + "".join(f"fn half_{i}():\nentry:\n  ret\n\n" for i in range(9)))
        with pytest.raises(MirError, match=r"there is: \.\.\., half_1, half_2, half_3, half_4, half_5, half_6, half_7, half_8$"):
            em.execute("xyz")
        with pytest.raises(MirError, match=r"`total`\n.*there is"):
            em.execute("total")
        with pytest.raises(MirError, match="did you mean `total`"):
            em.remove("totl")
    path = tmp_path / "model.mir"
    path.write_text(MODEL)
    assert main(["grad", str(path), "qqq", "x=1.0"]) == 2
    err = capsys.readouterr().err
    assert "%" not in err and err.endswith(", model\n")


def test_a_name_of_another_kind(fails, shell, tmp_path, capsys):
    with LocalExecutionManager("interpreter") as em:
        em.compile("global kept: i64")
        with pytest.raises(MirError, match=r'remove the old one first: remove\("kept"\)'):
            em.compile("fn kept():\nentry:\n  ret\n")
    shell.run_cell_magic("simple_jit", "", "global kept: i64\n")
    assert "remove the old one first: %simple rm kept\n" in fails("simple_jit", "", "fn kept():\nentry:\n  ret\n")
    shell.run_line_magic("simple", "rm kept")
    path = tmp_path / "model.mir"
    path.write_text(f"global Dense: i64\n\n{MODEL}")
    assert main(["grad", str(path), "model", "x=1.0"]) == 1
    err = capsys.readouterr().err
    assert "help: choose another name\n" in err and "%" not in err


def test_the_node_library(fails, tmp_path, capsys):
    with LocalExecutionManager("interpreter") as em, pytest.raises(MirError) as caught:
        em.compile(MODEL)
    assert str(caught.value).count('help: use the node library: use_library("autograd")') == 3
    assert fails("simple_jit", "", MODEL).count("help: use the node library: --use autograd\n") == 3
    own = f"class Own:\n  data: f64\n\n{MODEL}"
    assert fails("simple_grad", "model(x=1.0) --node Own", own).count("help: use the node library: %%simple_jit --use autograd\n") == 3
    path = tmp_path / "model.mir"
    path.write_text(MODEL)
    for command, status in (["check", str(path)], 1), (["run", str(path)], 1):
        assert main(command) == status
        found = capsys.readouterr()
        assert (found.out + found.err).count("help: it is of the node library, which `grad` takes in for --node Value or Dense\n") == 3
        assert "--use" not in found.out + found.err


@pytest.mark.parametrize("source", [
    "fn f(x: Values):\nentry:\n  ret\n", "fn f():\nentry:\n  call Value.mull()\n  ret\n", "fn f():\nentry:\n  call autograd_number()\n  ret\n",
    "fn f():\nentry:\n  x = variant Value.A()\n  ret\n", "class Value:\n  data: f64\n\nfn f(x: Value):\nentry:\n  call Value.mul(x, x)\n  ret\n",
])  # fmt: skip
def test_other_unknown_names_are_not_of_the_node_library(fails, source):
    assert "node library" not in fails("simple_jit", "", source)


def test_lines_of_the_notebook_have_its_hints(fails):
    assert "there is" in fails("simple", "show nobody") and "there is" in fails("simple", "rm nobody")


@pytest.mark.parametrize(("hint", "in_cell", "in_shell"), [
    ("split it into several cells", "split it into several cells", "make the program smaller"),
    ("split it into several cells, or raise Limits.unit_instructions", "split it into several cells, or raise %config SimpleMagics.compile_limit",
     "make the program smaller"),
    ("split it into several cells, or run it with the interpreter", "split it into several cells, or run it with the interpreter",
     "make the program smaller, or run it with the interpreter"),
])  # fmt: skip
def test_a_limit_of_the_compiler(hint, in_cell, in_shell):
    found = Diagnostic("E0604", "the unit holds 5 instructions", help=hint)
    assert (spelled(found, CELL).help, spelled(found, SHELL).help) == (in_cell, in_shell)


def test_other_hints_stay_as_they_are():
    found = Diagnostic("E0103", "a local has one type", help="write `x=...`")
    assert spelled(found, CELL) == spelled(found, SHELL) == found

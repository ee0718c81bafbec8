"""The extension in real kernels, through jupyter_client."""

from __future__ import annotations

import os
import signal
import time

import pytest

from simple_magic.kernels import running_kernel

ADD = "%%simple_jit\nfn main(a: i64, b: i64) -> i64:\nentry:\n  c = add a, b\n  ret c\n"


@pytest.fixture(scope="module")
def kernel():
    with running_kernel() as running:
        assert running.run("%load_ext simple_magic").error is None
        yield running


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "kernel" in request.fixturenames:
        request.getfixturevalue("kernel").run("%simple reset")


def test_a_cell_runs_and_its_functions_are_python_callables(kernel):
    outcome = kernel.run("%%simple_jit main --args 20 22 -o answer\nfn main(a: i64, b: i64) -> i64:\nentry:\n  c = add a, b\n  ret c\n", v="answer", again="main(1, 2)")
    assert outcome.error is None
    assert outcome.expressions == {"v": "42", "again": "3"}
    assert "main() = 42" in outcome.text or "main" in outcome.text


def test_an_error_cell_fails_with_our_lines_alone(kernel):
    outcome = kernel.run("%%simple_jit\nfn f() -> i64:\nentry:\n  x = add 1, 2.5\n  y = frobnicate 1\n  ret x\n")
    assert outcome.error is not None
    _, value, traceback = outcome.error
    shown = "\n".join(traceback)
    assert "frobnicate" in shown and "^" in shown
    assert "Traceback" not in shown and ".py" not in shown
    assert "5" in value.split("\n")[0], "the first line alone names the line"


def test_carets_count_lines_as_the_editor_does(kernel):
    outcome = kernel.run("%%simple_jit\n\nfn main() -> i64:\nentry:\n  x = const 0\n  y = div 1, x\n  ret y\n")
    shown = "\n".join(outcome.error[2])
    assert "6 |   y = div 1, x" in shown
    assert "division_by_zero" in outcome.error[1].split("\n")[0]


def test_redefinition_reaches_callers(kernel):
    kernel.run("%%simple_jit\nfn callee() -> i64:\nentry:\n  ret 1\n")
    kernel.run("%%simple_jit\nfn caller() -> i64:\nentry:\n  x = call callee()\n  ret x\n")
    assert kernel.run("", v="caller()").expressions == {"v": "1"}
    kernel.run("%%simple_jit\nfn callee() -> i64:\nentry:\n  ret 2\n")
    assert kernel.run("", v="caller()").expressions == {"v": "2"}


def test_a_users_name_is_never_taken(kernel):
    kernel.run("total = 'mine'")
    outcome = kernel.run("%%simple_jit\nfn total() -> i64:\nentry:\n  ret 1\nfn print() -> i64:\nentry:\n  ret 2\n", v="total", p="print is __builtins__.print")
    assert outcome.expressions == {"v": "'mine'", "p": "True"}
    assert "not bound" in outcome.text
    assert kernel.run("x = %simple call total", v="x").expressions == {"v": "1"}


@pytest.mark.parametrize("backend", ["llvm", "cranelift", "interpreter"])
def test_interrupt_during_an_endless_loop(kernel, backend):
    kernel.run("%%simple_jit\nglobal g: i64\nfn spin():\nentry:\n  store_global @g, 5\n  goto again\nagain:\n  goto again\nfn peek() -> i64:\nentry:\n  v = load_global @g\n  ret v\n")
    for _ in range(2):
        message = kernel.start(f"%simple backend {backend}\nspin()")
        time.sleep(0.7)
        start = time.monotonic()
        kernel.interrupt()
        outcome = kernel.finish(message, timeout=20)
        elapsed = time.monotonic() - start
        assert outcome.error is not None and outcome.error[0] == "KeyboardInterrupt"
        assert elapsed < 10
    assert kernel.run("", v="peek()").expressions == {"v": "5"}
    kernel.run("%simple backend auto")


def test_options_that_are_wrong_are_one_line(kernel):
    for cell in (ADD.replace("jit", "jit --backend gcc", 1), ADD.replace("jit", "jit --show nonsense", 1), "%simple frobnicate", "%simple show", "%simple explain E9999"):
        outcome = kernel.run(cell)
        assert outcome.error is not None and outcome.error[0] == "UsageError", cell


def test_expectation_fails_the_cell(kernel):
    good = "fn main() -> f64:\nentry:\n  ret 0.5\n"
    assert kernel.run("%%simple_jit --expect 0.5\n" + good).error is None
    outcome = kernel.run("%%simple_jit --expect 0.25\n" + good)
    assert outcome.error[0] == "ExpectationError"


def test_numpy_arrays_are_passed_without_a_copy(kernel):
    kernel.run("import numpy as np\nxs = np.arange(4.0)")
    cell = "%%simple_jit\nfn scale(xs: [f64], k: f64):\nentry:\n  x = index_get xs, 3\n  x = mul x, k\n  index_set xs, 3, x\n  ret\n"
    assert kernel.run(cell).error is None
    assert kernel.run("scale(xs, 2.0)", v="xs.tolist()").expressions == {"v": "[0.0, 1.0, 2.0, 6.0]"}


@pytest.mark.parametrize("command", ["status", "ls", "ops", "ops add", "explain E0101", "doctor", "show main", "show main unit model lowered ir ll asm wat cfg timings json",
                                     "call main 1 2", "compare main 1 2", "export main", "semantics value", "semantics reference", "opt 1", "opt 2"])  # fmt: skip
def test_every_subcommand_answers(kernel, command):
    kernel.run(ADD)
    outcome = kernel.run(f"%simple {command}")
    assert outcome.error is None, outcome.error
    assert outcome.text


def test_names_of_programs_arrive_escaped_in_html(kernel):
    outcome = kernel.run('%%simple_jit\nfn main() -> text:\nentry:\n  ret "<img src=x onerror=alert(1)>"\n')
    html = outcome.displayed[-1]["text/html"]
    assert "<img" not in html and "&lt;img" in html


def test_help_is_there(kernel):
    message = kernel.start("%%simple_jit?")
    kernel.finish(message)
    reply = kernel.client.inspect("%%simple_jit", reply=True, timeout=20)
    assert "--semantics" in str(reply["content"]["data"])


def test_completion_inside_a_cell(kernel):
    code = "%%simple_jit\nfn f():\nentry:\n  x = checked_"
    reply = kernel.client.complete(code, len(code), reply=True, timeout=20)
    assert any("checked_add" in match for match in reply["content"]["matches"])


def test_unload_and_reload_leave_nothing_behind():
    with running_kernel() as kernel:
        kernel.run("before = set(globals()) | {'before'}; magics = {k: sorted(v) for k, v in get_ipython().magics_manager.magics.items()}; matchers = len(get_ipython().Completer.custom_matchers)")
        for _ in range(2):
            assert kernel.run("%load_ext simple_magic").error is None
            assert kernel.run(ADD).error is None
            assert kernel.run("%unload_ext simple_magic").error is None
            outcome = kernel.run("", left="'main' in globals()", same="{k: sorted(v) for k, v in get_ipython().magics_manager.magics.items()} == magics",
                                 matchers="len(get_ipython().Completer.custom_matchers) == matchers")  # fmt: skip
            assert outcome.expressions == {"left": "False", "same": "True", "matchers": "True"}
        assert kernel.run("%load_ext simple_magic\n%reload_ext simple_magic").error is None
        assert kernel.run(ADD, v="main(1, 2)").expressions == {"v": "3"}
        assert kernel.run("x = 1", v="x").expressions == {"v": "1"}


def test_two_kernels_at_once_do_not_see_each_other():
    with running_kernel() as one, running_kernel() as two:
        for kernel, value in ((one, 1), (two, 2)):
            kernel.run("%load_ext simple_magic")
            kernel.run(f"%%simple_jit\nfn f() -> i64:\nentry:\n  ret {value}\n")
        assert one.run("", v="f()").expressions == {"v": "1"}
        assert two.run("", v="f()").expressions == {"v": "2"}


CRASH_ME = "%%simple_jit spin --backend llvm --isolated\nglobal iso: i64\nfn spin():\nentry:\n  store_global @iso, 5\n  goto again\nagain:\n  goto again\nfn iso_peek() -> i64:\nentry:\n  v = load_global @iso\n  ret v\n"
PID = "next(e.pid for e in __import__('simple_magic').current_manager()._engines.values() if hasattr(e, 'pid'))"


def test_isolated_cells_survive_a_crash_and_an_interrupt(kernel):
    outcome = kernel.run("%%simple_jit iso_set --backend llvm --isolated --args 3\nglobal iso: i64\nfn iso_set(v: i64):\nentry:\n  store_global @iso, v\n  ret\n", pid=PID)
    assert outcome.error is None and "-jit (isolated)" in outcome.text
    pid = int(outcome.expressions["pid"])
    message = kernel.start(CRASH_ME)
    time.sleep(0.7)
    os.kill(pid, signal.SIGSEGV)
    outcome = kernel.finish(message)
    assert outcome.error is not None and outcome.error[0] == "CrashError" and "SIGSEGV" in outcome.error[1]
    assert "Traceback" not in "\n".join(outcome.error[2])
    assert kernel.run("", v="iso_peek()").expressions == {"v": "3"}, "what the crashed call wrote is gone, everything else is there"
    message = kernel.start(CRASH_ME)
    time.sleep(1)
    start = time.monotonic()
    kernel.interrupt()
    outcome = kernel.finish(message, timeout=20)
    assert outcome.error is not None and outcome.error[0] == "KeyboardInterrupt"
    assert time.monotonic() - start < 10
    assert kernel.run("", v="iso_peek()").expressions == {"v": "5"}


def test_limits_of_a_cell_and_of_the_settings(kernel):
    flood = "fn flood():\nentry:\n  goto again\nagain:\n  print 1\n  goto again\n"
    hoard = "fn hoard():\nentry:\n  a: [i64] = array 1\n  goto again\nagain:\n  push a, 7\n  goto again\n"
    deep = "fn deep(k: i64) -> i64:\nentry:\n  v = call deep(k)\n  v = add v, 1\n  ret v\n"
    spin = "fn spin():\nentry:\n  goto again\nagain:\n  goto again\n"
    for options, source, expected in (
        ("flood --output-limit 100", flood, "output_limit"), ("hoard --memory 8M --isolated", hoard, "out_of_memory"), ("spin --timeout 0.2", spin, "timeout"),
        ("deep --stack 32k --args 1", deep, "stack_overflow"), ("spin --compile-limit 1", spin, "E0604"), ("hoard --memory 8M", hoard, "reserved once"),
        ("hoard --memory x", hoard, "is not a size"), ("hoard --memory 8M --backend interpreter", hoard, "out_of_memory"),
    ):  # fmt: skip
        outcome = kernel.run(f"%%simple_jit {options}\n{source}")
        assert outcome.error is not None and expected in outcome.error[1].split("\n")[0], (options, outcome)
        assert kernel.run("x = 1").error is None
    for setting, source, call, expected in (
        ("timeout = 0.2", spin, "spin", "timeout"), ("output_limit = '1k'", flood, "flood", "output_limit"), ("memory = '16M'", hoard, "hoard", "out_of_memory"),
        ("compile_limit = 1", spin, "spin", "E0604"), ("isolated = True", "fn f() -> i64:\nentry:\n  ret 1\n", "f", ""),
    ):  # fmt: skip
        name = setting.split()[0]
        assert kernel.run(f"%config SimpleMagics.{setting}").error is None
        outcome = kernel.run(f"%%simple_jit {call}\n{source}")
        if expected:
            assert outcome.error is not None and expected in outcome.error[1].split("\n")[0], (setting, outcome)
        else:
            assert "(isolated)" in outcome.text
        kernel.run(f"from simple_magic.magics import current_magics\n_m = current_magics(get_ipython()); _m.{name} = _m.traits()[{name!r}].default_value")
    assert "is not a size" in kernel.run("%config SimpleMagics.memory = 'much'").stderr
    assert "isolated" in kernel.run("print(get_ipython().find_cell_magic('simple_jit').__doc__)").stdout


MISTAKES = {
    "%simple backend gcc": "choose one of auto, interpreter, llvm",
    "%simple semantics valu": "did you mean value?",
    "%simple opt 9": "choose one of 0, 1, 2, 3",
    "%simple opt -1": "choose one of 0, 1, 2, 3",
    "%simple opt x": "choose one of 0, 1, 2, 3",
    "%simple export main --to mir /nonexistent/x": "/nonexistent/x: No such file or directory",
    "%simple status x": "usage: %simple status",
    "%simple ls x": "usage: %simple ls",
    "%simple doctor x": "usage: %simple doctor",
    "%simple call main p_q 1": "no notebook variable is named p_q",
    "%simple call 'x": "No closing quotation",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_wrong_word_is_one_line(kernel, line):
    kernel.run(ADD)
    outcome = kernel.run(line)
    assert outcome.error is not None and outcome.error[0] == "UsageError", outcome.error
    assert MISTAKES[line] in outcome.error[1] and "\n" not in outcome.error[1]


OPTIONS = {
    "--timeout 0": "a number of seconds above 0",
    "--timeout -1": "a number of seconds above 0",
    "--timeout nan": "a number of seconds above 0",
    "--timeout 1e200": "a number of seconds above 0",
    "--fuel -3": "the number of instructions",
    "--fuel 1.5": "the number of instructions",
    "'x": "No closing quotation",
    "-o 'a b'": "the name of one notebook variable",
    "-o print": "a name of Python",
    "-m mine": "a variable of the notebook",
    "-m os": "a module",
    "-o os": "a module",
    "--help": "%%simple_jit? explains the options",
    "main --args x 2": "no Python literal",
    "main --args mine 2": "write -i mine",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_a_wrong_option_is_one_line_and_takes_no_name(kernel, options):
    kernel.run("import os; mine = 'kept'")
    outcome = kernel.run(ADD.replace("jit", f"jit {options}", 1))
    assert outcome.error is not None and outcome.error[0] == "UsageError", outcome.error
    assert OPTIONS[options].replace("no Python", "not a Python") in outcome.error[1]
    assert kernel.run("", kept="(mine, type(os).__name__)").expressions == {"kept": "('kept', 'module')"}


def test_arguments_may_hold_blanks_inside_brackets(kernel):
    cell = "%%simple_jit main --args [1.0, 2.0] 'a b' --expect 2\nfn main(xs: [f64], t: text) -> i64:\nentry:\n  n = len xs\n  ret n\n"
    assert kernel.run(cell).error is None
    assert kernel.run("n = %simple call main [1.0, 2.0, 3.0] 'a b'", n="n").expressions == {"n": "3"}


def test_an_expectation_names_the_call(kernel):
    outcome = kernel.run(ADD.replace("jit", "jit --args 1 2 --expect 4", 1))
    assert outcome.error[:2] == ("ExpectationError", "main(1, 2) = 3, expected 4")


def test_json_cells_are_read_as_json(kernel):
    outcome = kernel.run("%%simple_jit --json\n" + ADD.partition("\n")[2])
    assert outcome.error is not None and "E0501" in outcome.error[1]
    kernel.run(ADD)
    kernel.run("text = get_ipython().run_line_magic('simple', 'show main json').parts[0].text")
    assert kernel.run("get_ipython().run_cell_magic('simple_jit', '--json --args 2 3 --expect 5', text)").error is None


def test_a_setting_without_a_word_shows_its_choices(kernel):
    assert "contract" in kernel.run("%simple semantics").text and "machine code" in kernel.run("%simple backend").text and "3" in kernel.run("%simple opt").text


COMPLETIONS = {
    "%simple ": "compare",
    "%simple sh": "show",
    "%simple show ma": "main",
    "%simple show main lo": "lowered",
    "%simple semantics ": "contract",
    "%simple semantics interp_2026_0": "interp_2026_08",
    "%simple backend l": "llvm",
    "%simple ops ind": "index_get",
    "%simple explain E01": "E0101",
    "%simple export main --to l": "lowered",
    "%simple rm ma": "main",
    "%simple call main mi": "mine",
    "%simple compare main 1 --fu": "--fuel",
    "x = 1\nv = %simple sh": "show",
    "%%simple_jit --se": "--semantics",
    "%%simple_jit --semantics ": "jit_2026_09",
    "%%simple_jit --backend l": "llvm",
    "%%simple_jit --show mir,l": "lowered",
    "%%simple_jit -i mi": "mine",
    "%%simple_jit ma": "main",
    "%%simple_grad ma": "main",
    "%%simple_grad main(": "a=",
    "%%simple_grad main(a=1, ": "b=",
    "%%simple_grad main(a=mi": "mine",
    "%%simple_grad main(a=1, b=mi": "mine",
    "%%simple_grad model(x=3.0) --ba": "--backward",
    "%%simple_grad model(x=3.0) --runs interpreter/value,llvm/ref": "llvm/reference",
    "%%simple_grad model(x=3.0) --models v": "value",
    "%%simple_grad model(x=3.0) --show ti": "timeline",
    "%%simple_grad model(x=3.0) --expect ok,lo": "lost",
    "%%simple_grad model(x=3.0) --backward ma": "main",
    "%%simple_grad model(x=3.0) -o mi": "mine",
    "r = %simple_grad main(a=1) --ste": "--steps",
    "%%simple_grad model(x=3.0)\nfn f():\nentry:\n  chec": "checked_add",
    "%%simple_jit\nfn f():\nentry:\n  chec": "checked_add",
    "%%simple_jit\nfn f():\nentry:\n  x = call ma": "main",
}


@pytest.mark.parametrize("code", COMPLETIONS)
def test_completion(kernel, code):
    kernel.run("mine = 1")
    kernel.run(ADD)
    reply = kernel.client.complete(code, len(code), reply=True, timeout=20)["content"]
    completed = {code[: reply["cursor_start"]] + match for match in reply["matches"]}
    start = max(code.rfind(c) for c in " ,=(") + 1
    assert code[:start] + COMPLETIONS[code] in completed, reply
    assert not any(match.startswith("%%") for match in reply["matches"])


@pytest.mark.parametrize("call", ["main('x', 1)", "main(1)", "main(a=1, c=2)", "main(2**70, 1)"])
def test_a_wrong_argument_shows_the_callers_line_and_one_sentence(kernel, call):
    kernel.run(ADD)
    outcome = kernel.run(f"y = 1\ny = {call}")
    assert outcome.error[0] in ("TypeError", "OverflowError") and outcome.error[1].startswith("main")
    shown = "\n".join(outcome.error[2])
    assert "callables.py" not in shown and shown.endswith(f"   called from line 2: y = {call}")


def test_the_frames_of_an_extern_stay_in_its_traceback(kernel):
    kernel.run("from simple_magic import extern\n@extern('fn fails_on_host()')\ndef fails_on_host():\n    raise TypeError('mine')")
    kernel.run("%%simple_jit\nextern fn fails_on_host()\nfn run():\nentry:\n  call fails_on_host()\n  ret\n")
    outcome = kernel.run("run()")
    assert outcome.error[:2] == ("TypeError", "mine")
    assert "raised by extern" in "\n".join(outcome.error[2])


def test_a_cell_uses_a_library(kernel):
    cell = """%%simple_jit --use autograd --semantics {model} --args 2.0 3.0 -o gradient
fn main(a: f64, b: f64) -> f64:
entry:
  x = call Value.leaf(a)
  y = call Value.leaf(b)
  p = call Value.mul(x, y)
  call Value.backward(p)
  g = call Value.gradient(x)
  ret g
"""
    for model, expected in (("reference", "3.0"), ("value", "0.0")):
        outcome = kernel.run(cell.format(model=model), g="gradient")
        assert outcome.error is None and outcome.expressions == {"g": expected}

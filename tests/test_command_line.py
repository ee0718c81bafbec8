"""The command line, as a user runs it: exit status, standard output, standard error, never a Python traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from simple_magic.__main__ import main
from simple_magic.demo import ENGINES

GOOD = "fn main() -> i64:\nentry:\n  ret 42\n\nfn half(x: f64) -> f64:\nentry:\n  y = div x, 2.0\n  ret y\n"


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.mir"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.mir"
    path.write_text("fn main() -> i64:\nentry:\n  x = add 1, 2.0\n  frobnicate\n  ret x\n")
    return str(path)


@pytest.mark.parametrize("backend", ["interpreter", "llvm", "cranelift"])
def test_run(good, capsys, backend):
    assert main(["run", good, "--backend", backend]) == 0
    assert capsys.readouterr().out == "42\n"
    assert main(["run", good, "half", "3.0", "--backend", backend]) == 0
    assert capsys.readouterr().out == "1.5\n"


def test_run_reports_wrong_arguments_and_unknown_functions(good, capsys):
    assert main(["run", good, "half"]) == 2
    assert "takes 1 argument" in capsys.readouterr().err
    assert main(["run", good, "hafl", "1.0"]) == 2
    assert "did you mean `half`" in capsys.readouterr().err


def test_run_reports_a_trap_with_its_place(tmp_path, capsys):
    path = tmp_path / "trap.mir"
    path.write_text("fn main() -> i64:\nentry:\n  x = div 1, 0\n  ret x\n")
    assert main(["run", str(path)]) == 3
    assert "division_by_zero" in capsys.readouterr().err


def test_check_reports_every_mistake(good, bad, capsys):
    assert main(["check", good]) == 0
    assert main(["check", good, bad]) == 1
    out = capsys.readouterr().out
    assert "good.mir: ok" in out and "frobnicate" in out and "^" in out


def test_fmt_keeps_comments_and_is_stable(tmp_path, capsys):
    path = tmp_path / "f.mir"
    path.write_text("# what it does\nfn f( )->i64 :\nentry :\n ret   1   # one\n")
    assert main(["fmt", "--check", str(path)]) == 1
    assert main(["fmt", str(path)]) == 0
    text = path.read_text()
    assert "# what it does" in text and "# one" in text
    assert main(["fmt", "--check", str(path)]) == 0
    assert path.read_text() == text


def test_json_there_and_back(good, tmp_path, capsys):
    assert main(["json", good]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["version"] == 1
    path = tmp_path / "good.json"
    path.write_text(text)
    assert main(["json", "--back", str(path)]) == 0
    assert capsys.readouterr().out.strip() == GOOD.strip()
    assert main(["run", str(path)]) == 0


def test_ops_explain_doctor(capsys):
    assert main(["ops"]) == 0
    assert main(["ops", "checked_add"]) == 0
    assert "integer_overflow" in capsys.readouterr().out
    assert main(["ops", "chekced_add"]) == 1
    assert "checked_add" in capsys.readouterr().err
    assert main(["explain", "e0101"]) == 0
    assert "Wrong" in capsys.readouterr().out
    assert main(["explain", "E9999"]) == 1
    assert main(["doctor"]) == 0
    assert "works" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["run", "no/such/file.mir"], ["check", "no/such/file.mir"], ["fmt", "no/such/file.mir"], ["json", "no/such/file.mir"]])
def test_a_missing_file_is_one_line(arguments):
    done = subprocess.run([sys.executable, "-m", "simple_magic", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no/such/file.mir" in done.stderr + done.stdout and "Traceback" not in done.stderr


def test_standard_input():
    done = subprocess.run([sys.executable, "-m", "simple_magic", "run", "-"], input=GOOD, capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


def test_the_demo_prints_the_table_and_the_path_of_its_report(tmp_path, capsys):
    report = tmp_path / "report.html"
    assert main(["demo", "--output", str(report)]) == 0
    out = capsys.readouterr().out
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in out.splitlines() if line.startswith(("class", "struct"))}
    assert rows["class", "value"] == ["0.0"] * len(ENGINES) + ["agree"]
    assert rows["class", "reference"] == rows["class", "contract"] == ["2.5"] * len(ENGINES) + ["agree"]
    assert rows["struct", "contract"] == ["0.0"] * len(ENGINES) + ["agree"]
    assert len(rows) == 12 and str(report) in out
    html = report.read_text()
    assert "<table>" in html and "http" not in html and "<script" not in html


def test_options_may_stand_anywhere_among_the_arguments(good, capsys):
    assert main(["run", good, "half", "--opt", "3", "3.0"]) == 0
    assert main(["run", good, "half", "-1e3", "--backend", "interpreter"]) == 0
    assert main(["run", good, "half", "-inf"]) == 0
    assert main(["run", good, "half", "nan"]) == 0
    assert capsys.readouterr().out == "1.5\n-500.0\n-inf\nnan\n"


@pytest.mark.parametrize("options", [["--timeout", "0"], ["--timeout", "-1"], ["--timeout", "nan"], ["--fuel", "-3"], ["--fuel", "x"], ["--semantics", "foo"], ["--nonsense"]])
def test_a_wrong_option_of_run_is_refused(good, capsys, options):
    with pytest.raises(SystemExit) as stopped:
        main(["run", good, *options])
    assert stopped.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize("words", [["[1.0,2.0]"], ["20", "22"], ["-inf"], ["nan"], ["True"], ["'text'"], ["x=3"]])
def test_an_argument_in_the_place_of_the_function_is_explained(good, capsys, words):
    assert main(["run", good, *words]) == 2
    err = capsys.readouterr().err
    assert err == f"the function's name is missing before {words[0]}: run FILE FUNCTION ARGUMENTS; {good} defines main, half\n"


def test_a_function_that_is_not_there_and_one_that_was_not_named(good, tmp_path, capsys):
    assert main(["run", good, "Unknown.thing", "1"]) == 2
    assert capsys.readouterr().err == f"{good} defines no function `Unknown.thing`; it defines main, half: run FILE FUNCTION ARGUMENTS\n"
    path = tmp_path / "half.mir"
    path.write_text(GOOD.partition("\n\n")[2])
    assert main(["run", str(path)]) == 2
    assert capsys.readouterr().err == "half(x: f64) takes 1 argument, got 0; no function is named, so `half` runs: run FILE FUNCTION ARGUMENTS\n"
    assert main(["run", str(path), "half"]) == 2
    assert capsys.readouterr().err == "half(x: f64) takes 1 argument, got 0\n"


def test_files_that_cannot_be_read_are_one_line_and_the_others_are_checked(good, tmp_path, capsys):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF\xff\xfe" * 100)
    assert main(["check", str(tmp_path), str(binary), "nope.mir", good]) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4 and "Is a directory" in out[0] and "not UTF-8 text" in out[1] and out[2] == "nope.mir: No such file or directory" and out[3].endswith("ok")


def test_help_shows_how_things_are_written(capsys):
    assert main(["ops", "switch"]) == 0
    assert "switch a [0: yes, 1: no] else no" in capsys.readouterr().out
    assert main(["ops", "syntax"]) == 0
    assert "extern fn" in capsys.readouterr().out
    assert main(["ops", "frobnicate"]) == 1
    assert "did you mean" not in capsys.readouterr().err
    assert main(["explain"]) == 0
    assert "E0101" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["run"], ["check"], ["grad"], ["grad", "--cases"], ["fuzz"]])
def test_the_help_tells_the_exit_statuses(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0 and "exit status: 0 success; 1 the program is wrong" in out and "2 the command line is wrong" in out


@pytest.mark.parametrize("words", [
    ["run", "FILE", "--sem", "value"], ["run", "FILE", "--isol"], ["grad", "FILE", "main", "--back", "llvm"], ["grad", "FILE", "main", "--fail", "any"],
    ["grad", "--cases", "--show"], ["fmt", "FILE", "--std"], ["json", "FILE", "--bac"], ["fuzz", "--count", "1", "--see", "2"], ["demo", "--out", "FILE"],
    ["explain", "--hel"],
])  # fmt: skip
def test_an_abbreviated_option_is_refused(good, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main([good if word == "FILE" else word for word in words])
    assert stopped.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err

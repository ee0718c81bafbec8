"""The command line: python -m simple_magic demo|run|grad|check|fmt|json|fuzz|ops|explain|doctor."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from .execution.defaults import BACKENDS
from .execution.libraries import suggest_library
from .mir.codes import explain
from .mir.diagnostics import MirError, ParseError, SimpleError, Trap, render
from .mir.jsonform import from_json, to_json_text
from .mir.model import Module
from .mir.text import format_text, parse_text
from .mir.verify import verify
from .passes.semantics import MODELS
from .spelling import SHELL, spelled, spelling
from .words import fuel, literal, option, seconds

STATUSES = """exit status: 0 success; 1 the program is wrong, a file cannot be read or written, or something was found (check, fmt --check, grad --fail-on,
grad --cases, fuzz) or a result is void; 2 the command line is wrong, or names what the program does not have; 3 the program trapped (run); 130 interrupted"""
UNFIT = {"E0602", "E0630"}
"""The codes of a right program that is not what the command line says it is."""
RUN_USAGE = "run FILE FUNCTION ARGUMENTS"


class CommandLineError(ValueError):
    """A wrong word on the command line that argparse cannot know of."""


def _read(path: str) -> tuple[str, str]:
    """Return (name, content) of a file, or of standard input for "-". Raises: ValueError, OSError."""
    name = "<stdin>" if path == "-" else path
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        return name, data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not UTF-8 text (byte {error.start})") from None


def _sentence(error: Exception) -> str:
    """Return one sentence about an error: `nope.mir: No such file or directory`, without Python's error number."""
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def _module(path: str) -> tuple[Module, dict[str, str]]:
    name, content = _read(path)
    if content.lstrip().startswith("{"):
        return from_json(content), {}
    try:
        return parse_text(content, name), {name: content}
    except ParseError as error:
        raise ParseError(error.diagnostics, {name: content}) from None


def _run(options: argparse.Namespace) -> int:
    from .execution.manager import LocalExecutionManager

    name, content = _read(options.file)
    with LocalExecutionManager(options.backend, opt_level=options.opt, semantics=options.semantics, isolated=options.isolated) as manager:
        info = manager.compile(content, cell=name)
        for warning in info.warnings:
            print(render(warning, {name: content}), file=sys.stderr)
        entry = options.entry or info.entry_point
        if not entry:
            print(f"{name} defines no function", file=sys.stderr)
            return 1
        if not manager.has_function(entry):
            raise CommandLineError(_no_function(name, entry, info.symbol_names))
        try:
            result = manager.execute(entry, *(_literal(word) for word in options.args), fuel=options.fuel, timeout=options.timeout)
        except (TypeError, OverflowError, ValueError) as error:
            raise CommandLineError(f"{error}" if options.entry else f"{error}; no function is named, so `{entry}` runs: {RUN_USAGE}") from None
    if result is not None:
        print(repr(result))
    return 0


def _no_function(file: str, word: str, names: Sequence[str]) -> str:
    """Return what is wrong with the word that stands where a function's name belongs."""
    near = get_close_matches(word, names, 1)
    if near:
        return f"{file} defines no function `{word}`; did you mean `{near[0]}`?"
    defined = ", ".join(names[:20])
    if isinstance(_literal(word), str) and word.replace(".", "_").isidentifier():
        return f"{file} defines no function `{word}`; it defines {defined}: {RUN_USAGE}"
    return f"the function's name is missing before {word}: {RUN_USAGE}; {file} defines {defined}"


def _literal(word: str) -> object:
    """Return the value of a literal; any other word is a text, as a shell takes the quotes away."""
    try:
        return literal(word)
    except ValueError:
        return word


def _check(options: argparse.Namespace) -> int:
    status = 0
    for path in options.files:
        try:
            module, sources = _module(path)
        except (MirError, OSError, ValueError) as error:
            print(_sentence(error))
            status = 1
            continue
        try:
            for warning in verify(module):
                print(render(warning, sources))
            print(f"{path}: ok")
        except MirError as error:
            defined = {item.name for item in module.items}
            print(type(error)([spelled(suggest_library(d, defined), SHELL) for d in error.diagnostics], sources))
            status = 1
    return status


def _fmt(options: argparse.Namespace) -> int:
    status = 0
    for path in options.files:
        name, content = _read(path)
        try:
            formatted = format_text(parse_text(content, name))
        except ParseError as error:
            raise ParseError(error.diagnostics, {name: content}) from None
        if options.check:
            if formatted != content:
                print(f"{path}: not in canonical form")
                status = 1
        elif path == "-" or options.stdout:
            sys.stdout.write(formatted)
        elif formatted != content:
            Path(path).write_text(formatted, encoding="utf-8")
            print(f"{path}: formatted")
    return status


def _json(options: argparse.Namespace) -> int:
    module, _ = _module(options.file)
    name_is_json = options.back
    print(format_text(module) if name_is_json else to_json_text(module))
    return 0


def _ops(options: argparse.Namespace) -> int:
    from .show.views import opcode_table

    print(opcode_table(options.name))
    return 0


def _explain(options: argparse.Namespace) -> int:
    if options.code is None:
        from .show.views import code_table

        print(code_table())
    else:
        print(explain(options.code.upper()))
    return 0


def _doctor(_options: argparse.Namespace) -> int:
    from .doctor import report

    print(report())
    return 0


def _demo(options: argparse.Namespace) -> int:
    from .demo import main

    return main(options.output)


def _grad(options: argparse.Namespace) -> int:
    from .show.gradients.options import experiment_options, word_inputs
    from .show.gradients.report import gradient_experiment
    from .show.gradients.table import log_lines

    if "=" in options.model:
        raise CommandLineError(f"{options.model!r} is an input; the model's name comes before it: grad FILE MODEL x=3.0 ...")
    name, content = _read(options.file)
    try:
        inputs = word_inputs(options.inputs)
        report = gradient_experiment(content, options.model, inputs, cell=name, **experiment_options(options, inputs))
    except (TypeError, OverflowError, ValueError) as error:
        raise CommandLineError(str(error)) from None
    if options.json == "-":
        print(report.to_json_text(), end="")
    else:
        sections = [repr(getattr(report, section)()) for section in options.show]
        firsts = [text for text in (report.first_text(), *report.notes(), report.control_text) if text]
        print("\n".join([*log_lines(report.judged), *sections, *firsts]))
    if options.json and options.json != "-":
        Path(options.json).write_text(report.to_json_text(), encoding="utf-8")
    if options.html:
        Path(options.html).write_text(report.to_html(), encoding="utf-8")
    if options.svg:
        Path(options.svg).write_text(report.hero().to_svg(), encoding="utf-8")
    if options.png:
        Path(options.png).write_bytes(report.hero().to_png())
    if options.traces:
        report.save_traces(options.traces)
    failing = report.words() - {"ok"} if "any" in options.fail_on else report.words() & set(options.fail_on)
    return 1 if report.is_void or failing else 0


def _cases(options: argparse.Namespace) -> int:
    from .autograd.case_runs import run_cases
    from .execution.defaults import choose_backend
    from .show.gradients.cases import agreement, case_table, mode_table
    from .show.gradients.report import control_text

    backends = tuple(dict.fromkeys(choose_backend(name)[0] for name in options.backends or ("interpreter", "auto")))
    show_progress = sys.stderr.isatty()
    found = run_cases(backends, progress=lambda name: print(f"\r\x1b[K{name}", end="", file=sys.stderr, flush=True) if show_progress else None)
    if show_progress:
        print("\r\x1b[K", end="", file=sys.stderr)
    print("\n\n".join([repr(mode_table(found)), *([repr(case_table(found))] if options.show_all else []), f"{agreement(found)}\n{control_text(found.controls)}"]))
    return 0 if found.is_agreed and not found.is_void else 1


def _fuzz(options: argparse.Namespace) -> int:
    from .fuzz import campaign, mutate
    from .fuzz.compare import EXECUTORS

    unknown = sorted({*options.executors} - {*EXECUTORS} | {*options.models} - {*MODELS})
    if unknown:
        raise CommandLineError(f"unknown: {', '.join(unknown)}; executors: {', '.join(EXECUTORS)}; models: {', '.join(MODELS)}")
    if not (options.minutes >= 0 and options.count >= 0 and options.jobs > 0 and options.functions > 0 and options.calls > 0):
        raise CommandLineError("--minutes and --count are 0 or more, --jobs, --functions and --calls 1 or more")
    if options.readers:
        print(mutate.run(options.seed, options.minutes, options.count))
        return 0
    summary = campaign.run(campaign.Options(
        options.seed, options.minutes, options.count, tuple(options.executors or EXECUTORS), tuple(options.models), options.functions, options.calls, options.jobs,
        options.save,
    ))  # fmt: skip
    print(summary)
    return 1 if summary.findings else 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m simple_magic", description="Simple MIR: run, check and format it.", epilog=STATUSES, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, action: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, epilog=STATUSES, allow_abbrev=False)
        made.set_defaults(action=action)
        return made

    demo = command("demo", _demo, "Run the seed program in a real kernel, in every model on every back end; print the table, write a report.")
    demo.add_argument("--output", default="simple_magic_report.html", help="where the HTML report goes")
    run = command("run", _run, "Compile a file of MIR (text or JSON) and run a function.")
    run.add_argument("file", help="a file, or - for standard input")
    run.add_argument("entry", nargs="?", help="the function to run; default: main, else the first")
    run.add_argument("args", nargs="*", help="arguments as Python literals")
    run.add_argument("--backend", default="auto", choices=BACKENDS, help="the back end; default: auto, the best one that is installed")
    run.add_argument("--opt", type=int, default=2, choices=(0, 1, 2, 3), help="the optimisation level of native back ends; default: 2")
    run.add_argument("--semantics", default="reference", choices=tuple(MODELS), help="the semantics model: which instructions copy; default: reference")
    run.add_argument("--fuel", type=option(fuel), help="how many instructions may run; default: no limit")
    run.add_argument("--timeout", type=option(seconds), help="how many seconds the run may take; default: no limit")
    run.add_argument("--isolated", action="store_true", help="run in a child process: should a back end crash, only the child is lost")
    _add_grad(command("grad", _grad, "Differentiate a model in interpreter and compiled mode; print what happened to every gradient, a line each."))
    check = command("check", _check, "Verify files and print every diagnostic.")
    check.add_argument("files", nargs="+")
    fmt = command("fmt", _fmt, "Rewrite files in canonical form; comments stay.")
    fmt.add_argument("files", nargs="+")
    fmt.add_argument("--check", action="store_true", help="change nothing; fail if a file is not in canonical form")
    fmt.add_argument("--stdout", action="store_true", help="print instead of rewriting")
    as_json = command("json", _json, "Print a file's JSON form; with --back, its text form.")
    as_json.add_argument("file")
    as_json.add_argument("--back", action="store_true")
    fuzz = command("fuzz", _fuzz, "Compare random programs on all executors; findings are made small and saved as filetests.")
    fuzz.add_argument("--minutes", type=float, default=1.0, help="when to stop; 0: never")
    fuzz.add_argument("--count", type=int, default=0, help="stop after so many cases; 0: never")
    fuzz.add_argument("--seed", type=int, default=0)
    fuzz.add_argument("--executors", nargs="+", default=[], help="the first one is right; default: all that are installed")
    fuzz.add_argument("--models", nargs="+", default=list(MODELS))
    fuzz.add_argument("--functions", type=int, default=200, help="functions compiled at a time")
    fuzz.add_argument("--calls", type=int, default=60, help="calls of each function")
    fuzz.add_argument("--jobs", type=int, default=1, help="child processes")
    fuzz.add_argument("--save", type=Path, help="folder for filetests of the findings")
    fuzz.add_argument("--readers", action="store_true", help="instead, damage text and JSON and check that the readers refuse it properly")
    ops = command("ops", _ops, "List the opcodes, show one, or, with `syntax`, the page that shows every construct.")
    ops.add_argument("name", nargs="?")
    explain_ = command("explain", _explain, "Explain a diagnostic code, or list all.")
    explain_.add_argument("code", nargs="?")
    command("doctor", _doctor, "Show what is installed and what works.")
    return top


def _add_grad(grad: argparse.ArgumentParser) -> None:
    from .show.gradients.options import OPTIONS, read_fail_on

    grad.add_argument("file", help="a file of MIR (text or JSON) that defines the model, or - for standard input")
    grad.add_argument("model", help="the model's function")
    grad.add_argument("inputs", nargs="*", help="its inputs: x=3.0 y=[1,2]")
    grad.add_argument("--fail-on", type=option(read_fail_on), default=(), help="exit with 1 if one of these words comes out (lost,doubled,...), or anything but ok: any")
    grad.add_argument("--json", help="write the report as JSON to this file; - prints it instead of the lines")
    grad.add_argument("--html", help="write the report as a page")
    grad.add_argument("--svg", help="write the graph (of a training: the losses) as SVG")
    grad.add_argument("--png", help="the same as PNG")
    grad.add_argument("--traces", help="write the trace of each run into this folder, as JSON lines")
    grad.add_argument("--cases", action="store_true", help="instead of a file: run upstream's autograd cases in every mode; grad --cases --help tells more")
    for flags, settings in OPTIONS:
        grad.add_argument(*flags, **settings)


def _cases_parser() -> argparse.ArgumentParser:
    """Return the parser of `grad --cases`, which needs no file."""
    from .show.gradients.options import BACKEND_LIST

    cases = argparse.ArgumentParser(prog="python -m simple_magic grad --cases", description=(
        "Run upstream's autograd cases in {interpreter, compiled} x {value, reference} x {gradients in the nodes, in a store}; takes about a minute."),
        epilog=STATUSES, allow_abbrev=False)  # fmt: skip
    cases.add_argument("--cases", action="store_true", help=argparse.SUPPRESS)
    cases.add_argument("--show-all", action="store_true", help="print each case, too")
    cases.add_argument("--backends", **BACKEND_LIST, help="default: the interpreter and the best compiled one that is installed")
    cases.set_defaults(action=_cases)
    return cases


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the words of the command line. For `run`, options may stand before, between and after the arguments, which a program takes as they are."""
    if words[:1] == ["grad"] and "--cases" in words:
        return _cases_parser().parse_args(words[1:])
    if words[:1] != ["run"]:
        return parser().parse_args(words)
    return parser().parse_args(["run", *_options_first(words[1:])])


RUN_OPTIONS = ("--backend", "--opt", "--semantics", "--fuel", "--timeout")


def _options_first(words: Sequence[str]) -> list[str]:
    """Return the words with the options of `run` in front and `--` before the rest, so that -inf and -1e3 are arguments too."""
    options: list[str] = []
    rest: list[str] = []
    todo = iter(words)
    for word in todo:
        if word == "--":
            rest += todo
        elif word in RUN_OPTIONS:
            options += [word, *([value] if (value := next(todo, None)) is not None else [])]
        elif word.startswith("--") or word == "-h":
            options.append(word)
        else:
            rest.append(word)
    return [*options, "--", *rest]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status, see `STATUSES`. Failures of programs are printed, never a Python traceback."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        with spelling(SHELL):
            return options.action(options)
    except Trap as trap:
        print(trap, file=sys.stderr)
        return 3
    except CommandLineError as error:
        print(error, file=sys.stderr)
        return 2
    except (SimpleError, ValueError, OSError, RuntimeError) as error:
        print(_sentence(error), file=sys.stderr)
        return 2 if isinstance(error, MirError) and {d.code for d in error.diagnostics} <= UNFIT else 1
    except KeyError as error:
        print(f"unknown: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

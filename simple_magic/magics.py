"""The magics: parse the line, call the library, return an object; nothing else.

`load_ipython_extension` gives the kernel one live manager, shared by all cells; `unload_ipython_extension` removes every trace.
"""

from __future__ import annotations

import builtins
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_cell_magic, line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring
from traitlets import Bool, Enum, Float, Integer, TraitError, TraitType, observe

from .backends.base import Limits
from .completion import Completions, matcher
from .doctor import report as doctor_report
from .execution.compare import compare, same_value
from .execution.defaults import BACKENDS
from .execution.export import export
from .execution.libraries import LIBRARIES
from .execution.limits import changed_limits, parse_size
from .execution.manager import LocalExecutionManager, RunOptions
from .mir.jsonform import from_json
from .passes.semantics import MODELS
from .show.gradients.options import OPTIONS as GRADIENT_OPTIONS, call_inputs, experiment_options, read_words, split_call
from .show.gradients.report import GradientReport, gradient_experiment
from .show.html import Code, Sections, Table, table
from .show.views import (
    VIEWS, CellResult, code_table, comparison_table, explanation, function_view, listing, opcode_table, signature_text, status, timings_table, views_of,
)  # fmt: skip
from .spelling import CELL, GRADIENT_CELL, spelling
from .words import fuel, literal, option, seconds, whole_words

R = TypeVar("R")


class ExpectationError(AssertionError):
    """The cell's value is not the one that `--expect` demands."""

    def _render_traceback_(self) -> list[str]:
        return [f"ExpectationError: {self}"]


class Size(TraitType):
    """A number of bytes or characters, or text such as "64M"."""

    info_text = "a number above 0, or a text such as '64M' or '1G'"

    def validate(self, _owner: object, value: object) -> int:
        try:
            return parse_size(value)  # type: ignore[arg-type]
        except ValueError as error:
            raise TraitError(str(error)) from None


LIMITS = {"memory": "memory", "stack": "stack", "output_limit": "output", "compile_limit": "unit_instructions"}
"""Settings that are limits: trait and option by what `Limits` calls it."""


def gradient_arguments(magic: Callable) -> Callable:
    """Give a magic the options of a gradient experiment."""
    for flags, settings in reversed(GRADIENT_OPTIONS):
        magic = argument(*flags, **{**settings, "help": settings["help"].replace("%", "%%")})(magic)
    return magic_arguments()(magic)


@magics_class
class SimpleMagics(Magics):
    """Simple MIR in cells. `%config SimpleMagics` shows the settings."""

    backend = Enum(BACKENDS, default_value="auto", help="The back end of new cells.").tag(config=True)
    opt_level = Integer(2, min=0, max=3, help="The optimisation level of native back ends.").tag(config=True)
    semantics = Enum(tuple(MODELS), default_value="reference", help="The semantics model: which instructions copy.").tag(config=True)

    isolated = Bool(False, help="Run in a child process: a crash of a back end then costs no kernel.").tag(config=True)
    timeout = Float(None, allow_none=True, help="How many seconds a cell's run may take; None: as long as it wants.").tag(config=True)
    memory = Size(Limits.memory, help="Bytes that programs may use, such as '2G'; a change compiles everything again.").tag(config=True)
    stack = Size(Limits.stack, help="Bytes of stack of native programs; the interpreter gets frames in proportion.").tag(config=True)
    output_limit = Size(Limits.output, help="Characters that one call may write.").tag(config=True)
    compile_limit = Size(Limits.unit_instructions, help="Instructions that one cell, or one function with all it reaches, may hold.").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.ip = shell
        self.manager = LocalExecutionManager(self.backend, opt_level=self.opt_level, semantics=self.semantics, isolated=self.isolated, limits=self._limits())
        self.bound: dict[str, object] = {}
        self.matcher: Callable | None = None

    def _limits(self) -> Limits:
        return changed_limits(Limits(), **{field: getattr(self, trait) for trait, field in LIMITS.items()})

    @observe("backend", "opt_level", "semantics", "isolated", *LIMITS)
    def _settings_changed(self, change: dict) -> None:
        manager = getattr(self, "manager", None)
        if manager is None:
            return
        apply: dict[str, Callable[..., None]] = {
            "backend": manager.set_backend, "opt_level": manager.set_opt_level, "semantics": manager.set_semantics, "isolated": manager.set_isolated,
        }  # fmt: skip
        try:
            if change["name"] in LIMITS:
                _as_usage(manager.set_limits, self._limits())
            else:
                _as_usage(apply[change["name"]], change["new"])
        except UsageError:
            setattr(self, change["name"], change["old"])
            raise

    @magic_arguments()
    @argument("entry", nargs="?", help="The function to run; default: main, if the cell defines it.")
    @argument("--backend", "-b", choices=BACKENDS, help="The back end of this run.")
    @argument("--opt", type=int, choices=(0, 1, 2, 3), help="The optimisation level of this run.")
    @argument("--semantics", "-s", choices=tuple(MODELS), help="The semantics model of this run: which instructions copy.")
    @argument("--args", nargs="*", default=None, help="Arguments of the entry function, as Python literals.")
    @argument("-i", "--input", help="Arguments of the entry function, as names of notebook variables: -i a,b")
    @argument("-o", "--output", help="Assign the result to this notebook variable.")
    @argument("-m", "--module", help="Bind the functions as attributes of this notebook variable, not one by one.")
    @argument("--show", default="", help=f"Views to add, separated by commas: {', '.join(VIEWS)}.")
    @argument("--expect", help="A Python literal; the cell fails if the result is another.")
    @argument("--fuel", type=option(fuel), help="How many instructions may run.")
    @argument("--timeout", type=option(seconds), help="How many seconds the run may take.")
    @argument("--isolated", action="store_true", default=None, help="Run in a child process: should a back end crash, the kernel and its state live on.")
    @argument("--memory", help="Bytes that the run may use, such as 64M: with --isolated or the interpreter. Else the heap, which holds the globals, "
              "is reserved once: %%config SimpleMagics.memory = '64M'.")  # fmt: skip
    @argument("--stack", help="Bytes of stack of this run, such as 256k, within the thread's own (8M on most systems).")
    @argument("--output-limit", help="Characters that the run may write.")
    @argument("--compile-limit", help="Instructions that the cell, or one function with all it reaches, may hold.")
    @argument("--use", action="append", default=[], choices=tuple(LIBRARIES), help="A library of MIR that the cell builds on, such as autograd: differentiable nodes.")
    @argument("--json", action="store_true", help="The cell holds the JSON form, not text.")
    @no_var_expand
    @needs_local_scope
    @cell_magic
    @spelling(CELL)
    def simple_jit(self, line: str, cell: str, local_ns: dict | None = None) -> CellResult:
        """Verify a cell of Simple MIR, compile it, bind its functions as Python callables, and run `main` or the named entry.

        Example:

            %%simple_jit --args 20 22
            fn main(a: i64, b: i64) -> i64:
            entry:
              c = add a, b
              ret c
        """
        options = self._options(line)
        wanted = [view for view in options.show.split(",") if view]
        for view in wanted:
            if view not in VIEWS:
                raise UsageError(f"--show {view}: choose among {', '.join(VIEWS)}")
        run_options = _as_usage(lambda: self.manager.options(backend=options.backend, semantics=options.semantics, opt_level=options.opt, fuel=options.fuel,
                                                             isolated=options.isolated))  # fmt: skip
        limits = _as_usage(lambda: {field: parse_size(size) for trait, field in LIMITS.items() if (size := getattr(options, trait)) is not None})
        with _limited(self.manager, run_options, limits):
            return self._run_cell(line, cell, options, run_options, wanted, local_ns or {})

    def _run_cell(self, line: str, cell: str, options: Namespace, run_options: RunOptions, wanted: Sequence[str], local_ns: dict) -> CellResult:
        arguments = self._arguments(options, local_ns)
        name = f"In[{self.ip.displayhook.prompt_count}]"
        for library in options.use:
            self.manager.use_library(library)
        if options.json:
            info = self.manager.compile(from_json(cell), cell=name)
        else:
            # The magic's own line is line 1 of the cell, as the editor counts.
            info = self.manager.compile("\n" + cell, cell=name)
            self.manager.session.show_source(name, f"%%simple_jit {line}".rstrip() + "\n" + cell)
        bound = self._bind(info.symbol_names, options.module)
        entry = options.entry or self._implicit_entry(info.symbol_names, arguments)
        if not entry and arguments:
            raise UsageError("arguments are given, but the cell defines no `main` and no entry is named")
        value: object = None
        timings: Mapping[str, int] = {}
        if entry:
            value, timings = self._run(entry, arguments, run_options, options)
        if options.output:
            self.ip.user_ns[options.output] = value
        views = views_of(self.manager, [entry] if entry else info.symbol_names, [v for v in wanted if v != "timings"], run_options)
        timings = {**info.timings, **timings}
        if "timings" in wanted:
            views = (*views, timings_table(timings))
        return CellResult(value, bool(entry), _call_text(entry, arguments), run_options.engine_name, run_options.semantics, info, bound, timings, views)

    def _options(self, line: str) -> Namespace:
        """Read the magic's line. Raises: UsageError, before anything is compiled, also for names that a result must not take."""
        try:
            words = shlex.split(line, posix=False)
            if "--help" in words or "-h" in words:
                raise UsageError("%%simple_jit? explains the options")
            options = parse_argstring(self.simple_jit, line)
        except ValueError as error:
            raise UsageError(f"%%simple_jit: {error}") from None
        self._check_target("-o", options.output)
        self._check_target("-m", options.module)
        return options

    def _check_target(self, flag: str, name: str | None) -> None:
        """Raise UsageError for a name that a result must not take."""
        if name is None:
            return
        if not name.isidentifier() or iskeyword(name):
            raise UsageError(f"{flag} {name}: write the name of one notebook variable, such as {flag} result")
        current = self.ip.user_ns.get(name)
        is_foreign = name in self.ip.user_ns and current is not self.bound.get(name)
        if hasattr(builtins, name) or isinstance(current, ModuleType) or (flag == "-m" and is_foreign):
            what = "a name of Python" if hasattr(builtins, name) else "a module" if isinstance(current, ModuleType) else "a variable of the notebook"
            raise UsageError(f"{flag} {name}: {name} is {what} already; choose another name")

    def _implicit_entry(self, names: Sequence[str], arguments: Sequence[object]) -> str:
        """Return "main" if the cell defines it and it can run: without arguments a `main` that wants some is only defined."""
        if "main" not in names:
            return ""
        return "main" if arguments or not self.manager.definition("main").params else ""

    def _run(self, entry: str, arguments: Sequence[object], run_options: RunOptions, options: Namespace) -> tuple[object, dict[str, int]]:
        timeout = self.timeout if options.timeout is None else options.timeout
        value, timings = _as_usage(self.manager.run, entry, arguments, run_options, options.fuel, timeout)
        if options.expect is not None and not same_value(value, _as_usage(literal, options.expect)):
            raise ExpectationError(f"{_call_text(entry, arguments)} = {value!r}, expected {options.expect}")
        return value, timings

    def _argument(self, word: str) -> object:
        try:
            return literal(word)
        except ValueError as error:
            advice = f"; for the notebook variable {word} write -i {word}" if word in self.ip.user_ns else "; notebook variables go with -i"
            raise UsageError(f"--args: {error}{advice}") from None

    def _arguments(self, options: Namespace, local_ns: dict) -> list[object]:
        values = [self._argument(word) for word in whole_words(options.args or ())]
        for name in (options.input or "").split(","):
            if not name:
                continue
            if name in local_ns:
                values.append(local_ns[name])
            elif name in self.ip.user_ns:
                values.append(self.ip.user_ns[name])
            else:
                raise UsageError(f"-i {name}: no notebook variable has this name")
        return values

    def _bind(self, names: Sequence[str], module: str | None) -> tuple[tuple[str, str, str], ...]:
        """Bind functions where that takes nobody's name away; return (name, signature, remark) of each."""
        rows = []
        if module:
            self.ip.user_ns[module] = self.bound[module] = Namespace(**{n.replace(".", "_"): self.manager.function(n) for n in names})
        for name in names:
            function = self.manager.session.function(name)
            assert function is not None, "it was just compiled"
            remark = f"as {module}.{name.replace('.', '_')}" if module else self._bind_one(name)
            rows.append((name, signature_text(function), remark))
        return tuple(rows)

    def _bind_one(self, name: str) -> str:
        elsewhere = f'%simple call {name} ..., or simple_magic.current_manager().function("{name}")'
        if "." in name:
            return "(a method: not bound as a Python name)"
        if not name.isidentifier() or hasattr(builtins, name) or iskeyword(name):
            return f"(not bound: {name} is a word of Python; use {elsewhere})"
        current = self.ip.user_ns.get(name)
        if name in self.ip.user_ns and current is not self.bound.get(name):
            return f"(not bound: the notebook has its own {name}; use {elsewhere})"
        if name not in self.bound:
            self.bound[name] = self.manager.function(name)
        self.ip.user_ns[name] = self.bound[name]
        return ""

    @gradient_arguments
    @argument("-o", "--output", help="Assign the report to this notebook variable.")
    @argument("--json", help="Write the report as JSON to this file.")
    @argument("--traces", help="Write the trace of each run into this folder, as JSON lines.")
    @argument("--expect", type=option(read_words), help="The verdict words that must come out, such as lost,ok; the cell fails if they are others.")
    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    @spelling(GRADIENT_CELL)
    def simple_grad(self, line: str, cell: str | None = None, local_ns: dict | None = None) -> GradientReport:
        """Differentiate a model in interpreter and compiled mode, and show what happened to every gradient.

        The cell defines `fn model(x: Value, y: Value) -> Value` with the nodes of the library, which `%%simple_jit --use autograd` brings too, or its own node
        class with its own backward. As a line, `%simple_grad model(x=3.0)`, it takes what the notebook has defined. Inputs are literals or names of notebook
        variables; `model(**start)` takes them from a dict.
        Every run works on its own copy of the globals; what the cell defines is gone afterwards.

        Example:

            %%simple_grad model(x=3.0, y=4.0)
            fn model(x: Value, y: Value) -> Value:
            entry:
              product = call Value.mul(x, y)
              sum = call Value.add(product, x)
              ret sum
        """
        try:
            model, call, rest = split_call(line)
            shlex.split(rest, posix=False)
            options = parse_argstring(self.simple_grad, rest)
            inputs = call_inputs(call, {**self.ip.user_ns, **(local_ns or {})})
        except ValueError as error:
            raise UsageError(f"%%simple_grad: {error}") from None
        self._check_target("-o", options.output)
        name = f"In[{self.ip.displayhook.prompt_count}]"
        # The magic's own line is line 1 of the cell, as the editor counts.
        source = "\n" + cell if cell else None
        report = _as_usage(lambda: gradient_experiment(source, model, inputs, manager=self.manager, cell=name, **experiment_options(options, inputs)))
        report = replace(report, sections=options.show)
        if options.json:
            _as_usage(Path(options.json).write_text, report.to_json_text(), "utf-8")
        if options.traces:
            _as_usage(report.save_traces, options.traces)
        if options.output:
            self.ip.user_ns[options.output] = report
        if options.expect is not None and report.words() != set(options.expect):
            raise ExpectationError(f"the verdicts are {', '.join(sorted(report.words()))}, expected {', '.join(options.expect)}\n{report.answer}")
        return report

    @no_var_expand
    @line_magic
    @spelling(CELL)
    def simple(self, line: str) -> object:
        """Look after the live execution manager.

        %simple status                      what is in force
        %simple backend [NAME]              show or switch the back end
        %simple semantics [MODEL]           show or switch the semantics model
        %simple opt [0-3]                   show or set the optimisation level
        %simple ls                          everything that is defined
        %simple rm NAME                     forget a definition
        %simple show F [VIEW ...]           mir unit model json lowered ir ll asm wat cfg timings
        %simple call F ARG ...              call with Python literals or notebook variables
        %simple compare F ARG ...           every executor under every model; [--fuel N] [--timeout S] bound each run
        %simple ops [NAME]                  the opcodes; one with its example; `ops syntax`: functions, types, globals, externs
        %simple explain [CODE]              the paragraph behind an error code, or all codes
        %simple export F [--to FORM] [FILE] mir unit model json lowered ir ll asm wat o
        %simple reset                       forget every definition and global; back end, model and level stay
        %simple doctor                      what is installed
        """
        command = line.split()[0] if line.strip() else "status"
        try:
            # Arguments of a call are Python literals, so their quotes stay.
            rest = list(whole_words(shlex.split(line, posix=False)) if command in ("call", "compare") else shlex.split(line))[1:]
        except ValueError as error:
            raise UsageError(f"%simple: {error}") from None
        if command not in SUBCOMMANDS:
            near = get_close_matches(command, SUBCOMMANDS, 1)
            raise UsageError(f"%simple {command}: unknown; " + (f"did you mean {near[0]}?" if near else f"choose among {', '.join(SUBCOMMANDS)}"))
        return _as_usage(SUBCOMMANDS[command], self, rest)

    def value_of(self, word: str) -> object:
        """Return a Python literal, or the notebook variable of that name. Raises: ValueError."""
        if word.isidentifier() and word in self.ip.user_ns:
            return self.ip.user_ns[word]
        try:
            return literal(word)
        except ValueError as error:
            raise ValueError(f"no notebook variable is named {word}" if word.isidentifier() else str(error)) from None

    def forget(self) -> None:
        """Remove what the cells bound, unless the user has put something else there."""
        for name, value in self.bound.items():
            if self.ip.user_ns.get(name) is value:
                del self.ip.user_ns[name]
        self.bound.clear()


def _call_text(entry: str, arguments: Sequence[object]) -> str:
    return f"{entry}({', '.join(shorten(repr(a), 40) for a in arguments)})"


def _as_usage(action: Callable[..., R], *args: object) -> R:
    """Call, and turn what a wrong word of the user leads to into one line; what a function of the user raised has a note and stays as it is."""
    try:
        return action(*args)
    except (ValueError, TypeError, OverflowError, TraitError, OSError) as error:
        if hasattr(error, "__notes__"):
            raise
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise UsageError(text) from None


@contextmanager
def _limited(manager: LocalExecutionManager, run_options: RunOptions, limits: Mapping[str, int]) -> Iterator[None]:
    """Let limits hold for a cell. Raises: UsageError for one that cannot change for a cell."""
    with ExitStack() as stack:
        _as_usage(lambda: stack.enter_context(manager.limited(run_options, **limits)))
        yield


def shorten(text: str, width: int) -> str:
    """Return `text` on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _exactly(words: Sequence[str], count: int, usage: str) -> None:
    if len(words) != count:
        raise ValueError(f"usage: %simple {usage}")


BACKEND_MEANINGS = {
    "auto": "the best one that is installed", "interpreter": "slow and simple: the definition of the language", "llvm": "compiled to machine code by LLVM",
    "cranelift": "compiled to machine code by Cranelift, through wasmtime: compiles fast, in a sandbox",
}  # fmt: skip
MODEL_MEANINGS = {name: model.doc for name, model in MODELS.items()}
OPT_MEANINGS = {"0": "quick to compile, slow to run", "1": "some optimisation", "2": "the default", "3": "most optimisation"}


def _setting(name: str, choices: Mapping[str, str], read: Callable[[str], object] = str) -> Callable[[SimpleMagics, list[str]], Table]:
    """Return the command that shows a trait with what it may be, or sets it and shows the status."""

    def setting(magics: SimpleMagics, words: list[str]) -> Table:
        if not words:
            current = str(getattr(magics, name))
            return table(("", name, "meaning"), [("*" if choice == current else "", choice, meaning) for choice, meaning in choices.items()])
        if len(words) > 1 or words[0] not in choices:
            near = get_close_matches(words[0], choices, 1) if len(words) == 1 else []
            raise ValueError(f"{name} {' '.join(words)}: " + (f"did you mean {near[0]}? " if near else "") + f"choose one of {', '.join(choices)}")
        setattr(magics, name, read(words[0]))
        return status(magics.manager)

    return setting


def _report(show: Callable[[SimpleMagics], object], usage: str) -> Callable[[SimpleMagics, list[str]], object]:
    """Return a command that takes no words."""

    def report(magics: SimpleMagics, words: list[str]) -> object:
        _exactly(words, 0, usage)
        return show(magics)

    return report


def _remove(magics: SimpleMagics, words: list[str]) -> Table:
    _exactly(words, 1, "rm NAME")
    magics.manager.remove(words[0])
    value = magics.bound.pop(words[0], None)
    if value is not None and magics.ip.user_ns.get(words[0]) is value:
        del magics.ip.user_ns[words[0]]
    return listing(magics.manager)


def _show(magics: SimpleMagics, words: list[str]) -> object:
    if not words:
        raise ValueError("usage: %simple show F [VIEW ...]")
    return Sections(tuple(function_view(magics.manager, words[0], view) for view in (words[1:] or ["mir"])))


def _call(magics: SimpleMagics, words: list[str]) -> object:
    if not words:
        raise ValueError("usage: %simple call F ARG ...")
    return magics.manager.execute(words[0], *(magics.value_of(word) for word in words[1:]))


def _taken(words: list[str], flag: str, read: Callable[[str], R], usage: str) -> R | None:
    """Take an option out of the words of a line; return its value, None if it is not there. Raises: ValueError."""
    if flag not in words:
        return None
    at = words.index(flag)
    if at + 1 >= len(words) or words.count(flag) > 1:
        raise ValueError(f"usage: %simple {usage}")
    value = read(words[at + 1])
    del words[at : at + 2]
    return value


def _compare(magics: SimpleMagics, words: list[str]) -> Table:
    usage = "compare F ARG ... [--fuel N] [--timeout S]"
    most, longest = _taken(words, "--fuel", fuel, usage), _taken(words, "--timeout", seconds, usage)
    if not words:
        raise ValueError(f"usage: %simple {usage}")
    return comparison_table(compare(magics.manager, words[0], [magics.value_of(word) for word in words[1:]], fuel=most, timeout=longest))


def _ops(_magics: SimpleMagics, words: list[str]) -> object:
    if len(words) > 1:
        raise ValueError("usage: %simple ops [NAME]")
    return opcode_table(words[0] if words else None)


def _explain(_magics: SimpleMagics, words: list[str]) -> Code | Table:
    if not words:
        return code_table()
    _exactly(words, 1, "explain CODE")
    return explanation(words[0])


def _export(magics: SimpleMagics, words: list[str]) -> object:
    usage = "export F [--to FORM] [FILE]"
    form = _taken(words, "--to", str, usage) or "unit"
    if not 1 <= len(words) <= 2:
        raise ValueError(f"usage: %simple {usage}")
    content = export(magics.manager, words[0], form)
    if len(words) == 1:
        if isinstance(content, bytes):
            raise ValueError("an object file needs a FILE to go to")
        return Code(f"{form} of {words[0]}", content)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    with open(words[1], "wb") as file:
        file.write(data)
    return f"{len(data)} bytes written to {words[1]}"


def _reset(magics: SimpleMagics, words: list[str]) -> Table:
    _exactly(words, 0, "reset")
    magics.manager.cleanup()
    magics.forget()
    return status(magics.manager)


SUBCOMMANDS: dict[str, Callable[[SimpleMagics, list[str]], object]] = {
    "status": _report(lambda magics: status(magics.manager), "status"),
    "backend": _setting("backend", BACKEND_MEANINGS),
    "semantics": _setting("semantics", MODEL_MEANINGS),
    "opt": _setting("opt_level", OPT_MEANINGS, int),
    "ls": _report(lambda magics: listing(magics.manager), "ls"),
    "rm": _remove,
    "show": _show,
    "call": _call,
    "compare": _compare,
    "ops": _ops,
    "explain": _explain,
    "export": _export,
    "reset": _reset,
    "doctor": _report(lambda magics: doctor_report(), "doctor"),
}


def current_magics(shell: InteractiveShell) -> SimpleMagics | None:
    """Return the loaded extension of a shell, or None."""
    found = shell.magics_manager.registry.get(SimpleMagics.__name__)
    return found if isinstance(found, SimpleMagics) else None


def load(shell: InteractiveShell) -> None:
    """Register the magics with a shell; a second load changes nothing."""
    if current_magics(shell) is not None:
        return
    magics = SimpleMagics(shell)
    shell.register_magics(magics)
    if shell.Completer is not None:
        variables = lambda: [name for name in shell.user_ns if not name.startswith("_")]  # noqa: E731
        parsers = {"simple_jit": magics.simple_jit.parser, "simple_grad": magics.simple_grad.parser}
        magics.matcher = matcher(Completions(magics.manager, SUBCOMMANDS, parsers, variables))
        shell.Completer.custom_matchers.append(magics.matcher)


def unload(shell: InteractiveShell) -> None:
    """Remove the magics, free the manager and every name that the cells bound."""
    magics = current_magics(shell)
    if magics is None:
        return
    magics.forget()
    magics.manager.close()
    if magics.matcher is not None and magics.matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(magics.matcher)
    registry = shell.magics_manager
    for kind, names in magics.magics.items():
        for name in names:
            registry.magics[kind].pop(name, None)
    registry.registry.pop(SimpleMagics.__name__, None)
    if magics in shell.configurables:
        shell.configurables.remove(magics)

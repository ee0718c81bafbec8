"""What TAB offers on the lines of `%simple`, `%%simple_jit` and `%%simple_grad`, and inside a cell of Simple MIR."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from .autograd.verdicts import WORDS
from .execution.defaults import BACKENDS
from .execution.export import FORMS
from .execution.manager import OPT_LEVELS, LocalExecutionManager
from .mir.codes import CODES
from .mir.model import Function, Global, Param, StructDef
from .mir.ops import USER_OPS
from .passes.semantics import MODELS
from .show.gradients.report import SECTIONS
from .show.views import VIEWS

LEVELS = tuple(map(str, OPT_LEVELS))
ITEMS = ("fn", "struct", "class", "enum", "global", "extern")
_MAGIC = re.compile(r"(?:^|.*=)\s*%(?P<cell>%?)(?P<name>simple_jit|simple_grad)\b(?P<rest>.*)", re.DOTALL)
_SIMPLE = re.compile(r"(?:^|.*=)\s*%simple\s+(?P<rest>.*)", re.DOTALL)
_FIXED: dict[str, Sequence[str]] = {
    "backend": BACKENDS, "--backend": BACKENDS, "-b": BACKENDS, "semantics": tuple(MODELS), "--semantics": tuple(MODELS), "-s": tuple(MODELS),
    "opt": LEVELS, "--opt": LEVELS, "ops": (*USER_OPS, "syntax"), "explain": tuple(CODES), "--show": VIEWS, "--to": tuple(FORMS),
}  # fmt: skip
"""What can follow a subcommand or an option, where that does not depend on the notebook."""
_FIXED_OF_GRAD: dict[str, Sequence[str]] = {
    "--runs": tuple(f"{backend}/{model}" for backend in BACKENDS for model in MODELS), "--backends": BACKENDS, "--models": tuple(MODELS), "--show": SECTIONS,
    "--expect": WORDS,
}  # fmt: skip
_COMPARE_OPTIONS = ("--fuel", "--timeout")
_FUNCTIONS_OF_GRAD = ("--leaf", "--backward", "--reader", "--leaves")
_FUNCTION_FIRST = ("show", "call", "compare", "export")


class Completions:
    """The words for one notebook. `variables` gives the names of the user's variables."""

    def __init__(self, manager: LocalExecutionManager, subcommands: Iterable[str], options: Mapping[str, ArgumentParser], variables: Callable[[], Iterable[str]]) -> None:
        self.manager = manager
        self.subcommands = tuple(subcommands)
        self.options = {magic: tuple(sorted(flag for action in parser._actions for flag in action.option_strings)) for magic, parser in options.items()}
        self.variables = variables

    def words(self, line: str, token: str, magic: str, at_top: bool) -> list[str]:
        """Return what can stand for `token` at the end of `line`. magic: that of the cell, "" for none; at_top: the line is the cell's first."""
        before = line[: len(line) - len(token)] if token and line.endswith(token) else line
        simple, own = _SIMPLE.match(before), _MAGIC.match(before)
        if magic and not at_top:
            known = self._code_words(before)
        elif own and own["name"] == "simple_grad":
            known = self._grad_words(own["rest"], token)
        elif own and own["cell"]:
            known = self._option_words(before, token)
        elif simple:
            known = self._simple_words(simple["rest"].split())
        else:
            return []
        return [word for word in dict.fromkeys(known) if word.startswith(token)]

    def _simple_words(self, words: list[str]) -> Iterable[str]:
        if not words:
            return self.subcommands
        command, *given = words
        if given and given[-1] == "--to":
            return _FIXED["--to"]
        if command == "compare" and given and given[-1] in _COMPARE_OPTIONS:
            return ()
        if command in _FUNCTION_FIRST:
            if not given:
                return self.manager.functions()
            return {"show": VIEWS, "export": ("--to",), "compare": (*self.variables(), *_COMPARE_OPTIONS)}.get(command, self.variables())
        if given:
            return ()
        return tuple(self.manager.session.definitions) if command == "rm" else _FIXED.get(command, ())

    def _option_words(self, before: str, token: str) -> Iterable[str]:
        """The words of the magic's own line. A comma goes on with the same option."""
        last = _last_option(before)
        if last in ("-i", "--input", "-o", "--output"):
            return self.variables()
        if last in _FIXED:
            return _FIXED[last]
        return (*self.options["simple_jit"], *self.manager.functions(), *(("main",) if not token.startswith("-") else ()))

    def _grad_words(self, before: str, token: str) -> Iterable[str]:
        """The words of `%%simple_grad`: the model, the names of its inputs and variables for them, then options."""
        name, opening, inputs = before.partition("(")
        if not before.strip():
            return (*self._names(Function), "model")
        if opening and ")" not in inputs and "--" not in name:
            return self.variables() if inputs.rstrip().endswith("=") else (f"{p.name}=" for p in self._parameters(name.strip()))
        last = _last_option(before)
        if last in ("-o", "--output"):
            return self.variables()
        if last in _FUNCTIONS_OF_GRAD:
            return self._names(Function)
        if last in ("--node", "--store"):
            return self._names(StructDef if last == "--node" else Global)
        return _FIXED_OF_GRAD.get(last, self.options["simple_grad"])

    def _names(self, kind: type) -> tuple[str, ...]:
        return tuple(name for name, definition in self.manager.session.definitions.items() if isinstance(definition.item, kind))

    def _parameters(self, model: str) -> Sequence[Param]:
        found = self.manager.session.function(model)
        return found.params if found is not None else ()

    def _code_words(self, before: str) -> Iterable[str]:
        if not before.strip():
            return (*USER_OPS, *ITEMS)
        return USER_OPS if before.rstrip().endswith("=") else tuple(self.manager.session.definitions)


def _last_option(before: str) -> str:
    """Return the word that what is written next belongs to: a comma goes on with the same option."""
    words = before.replace("=", " ").split()
    if words and words[-1].endswith(","):
        return words[-2] if len(words) > 1 else ""
    return words[-1] if words else ""


def matcher(completions: Completions) -> Callable:
    """Return a completion matcher (IPython's matcher API, version 2)."""

    @context_matcher()
    def simple_magic_matcher(context: CompletionContext) -> SimpleMatcherResult:
        cell = re.match(r"\s*%%(simple_jit|simple_grad)\b", context.full_text)
        first = next((number for number, row in enumerate(context.full_text.split("\n")) if row.strip()), 0)
        line = context.full_text.split("\n")[context.cursor_line][: context.cursor_position]
        # The token ends at a "-"; options are completed with their dashes.
        token = re.search(r"[^\s,=(]*$", line).group()  # type: ignore[union-attr]
        found = completions.words(line, token, cell[1] if cell else "", context.cursor_line == first)
        kept = len(token) - len(context.token) if token.endswith(context.token) else 0
        return {"completions": [SimpleCompletion(text=word[max(0, kept) :], type="keyword") for word in found], "suppress": bool(found)}

    return simple_magic_matcher

"""What TAB offers on the lines of `%simple` and `%%simple_jit`, and inside a cell of Simple MIR."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from .execution.defaults import BACKENDS
from .execution.export import FORMS
from .execution.manager import OPT_LEVELS, LocalExecutionManager
from .mir.codes import CODES
from .mir.ops import USER_OPS
from .passes.semantics import MODELS
from .show.views import VIEWS

LEVELS = tuple(map(str, OPT_LEVELS))
ITEMS = ("fn", "struct", "class", "enum", "global", "extern")
_SIMPLE = re.compile(r"(?:^|.*=)\s*%simple\s+(?P<rest>.*)", re.DOTALL)
_FIXED: dict[str, Sequence[str]] = {
    "backend": BACKENDS, "--backend": BACKENDS, "-b": BACKENDS, "semantics": tuple(MODELS), "--semantics": tuple(MODELS), "-s": tuple(MODELS),
    "opt": LEVELS, "--opt": LEVELS, "ops": (*USER_OPS, "syntax"), "explain": tuple(CODES), "--show": VIEWS, "--to": tuple(FORMS),
}  # fmt: skip
"""What can follow a subcommand or an option, where that does not depend on the notebook."""
_FUNCTION_FIRST = ("show", "call", "compare", "export")


class Completions:
    """The words for one notebook. `variables` gives the names of the user's variables."""

    def __init__(self, manager: LocalExecutionManager, subcommands: Iterable[str], options: ArgumentParser, variables: Callable[[], Iterable[str]]) -> None:
        self.manager = manager
        self.subcommands = tuple(subcommands)
        self.options = tuple(sorted(flag for action in options._actions for flag in action.option_strings))
        self.variables = variables

    def words(self, line: str, token: str, in_cell: bool, at_top: bool) -> list[str]:
        """Return what can stand for `token` at the end of `line`; `at_top`: the line is the cell's first."""
        before = line[: len(line) - len(token)] if token and line.endswith(token) else line
        simple = _SIMPLE.match(before)
        if in_cell:
            known = self._option_words(before, token) if at_top else self._code_words(before)
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
        if command in _FUNCTION_FIRST:
            if not given:
                return self.manager.functions()
            return {"show": VIEWS, "export": ("--to",)}.get(command, self.variables())
        if given:
            return ()
        return tuple(self.manager.session.definitions) if command == "rm" else _FIXED.get(command, ())

    def _option_words(self, before: str, token: str) -> Iterable[str]:
        """The words of the magic's own line. A comma goes on with the same option."""
        words = before.replace("=", " ").split()
        last = next((word for word in reversed(words) if not word.endswith(",")), "")
        if words and words[-1].endswith(","):
            last = words[-2] if len(words) > 1 else ""
        if last in ("-i", "--input", "-o", "--output"):
            return self.variables()
        if last in _FIXED:
            return _FIXED[last]
        return (*self.options, *self.manager.functions(), *(("main",) if not token.startswith("-") else ()))

    def _code_words(self, before: str) -> Iterable[str]:
        if not before.strip():
            return (*USER_OPS, *ITEMS)
        return USER_OPS if before.rstrip().endswith("=") else tuple(self.manager.session.definitions)


def matcher(completions: Completions) -> Callable:
    """Return a completion matcher (IPython's matcher API, version 2)."""

    @context_matcher()
    def simple_magic_matcher(context: CompletionContext) -> SimpleMatcherResult:
        in_cell = context.full_text.lstrip().startswith("%%simple_jit")
        first = next((number for number, row in enumerate(context.full_text.split("\n")) if row.strip()), 0)
        line = context.full_text.split("\n")[context.cursor_line][: context.cursor_position]
        # The token ends at a "-"; options are completed with their dashes.
        token = re.search(r"[^\s,=(]*$", line).group()  # type: ignore[union-attr]
        found = completions.words(line, token, in_cell, context.cursor_line == first)
        kept = len(token) - len(context.token) if token.endswith(context.token) else 0
        return {"completions": [SimpleCompletion(text=word[max(0, kept) :], type="keyword") for word in found], "suppress": bool(found)}

    return simple_magic_matcher

"""How hints are spelled where they are read: messages name arguments and methods of Python; a cell and a shell have options, a notebook has commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from .mir.diagnostics import Diagnostic, MirError

Spelling = tuple[tuple[tuple[str, ...], str, str], ...]
"""What is said otherwise: codes of diagnostics, a pattern in their help, and what stands there instead."""

_OPTIONS: Spelling = ((("E0630",), r'(\w+)="([^"]*)", in a cell --\1 \2', r"--\1 \2"), (("E0630",), r"(\w+)=\.\.\.", r"--\1 NAME"))
_LIBRARY = r'use_library\("autograd"\)'
_NOTEBOOK: Spelling = (
    *_OPTIONS,
    (("E0601",), r'remove\("(.*)"\)', r"%simple rm \1"),
    (("E0604",), r"Limits\.unit_instructions", "%config SimpleMagics.compile_limit"),
)
CELL: Spelling = (*_NOTEBOOK, (("E0202", "E0203"), _LIBRARY, "--use autograd"))
GRADIENT_CELL: Spelling = (*_NOTEBOOK, (("E0202", "E0203"), _LIBRARY, "%%simple_jit --use autograd"))
SHELL: Spelling = (
    *_OPTIONS,
    (("E0601",), r', or remove the old one first: remove\(".*"\)', ""),
    (("E0604",), r"split it into several cells(, or raise Limits\.unit_instructions)?", "make the program smaller"),
    (("E0202", "E0203"), f"use the node library: {_LIBRARY}", "it is of the node library, which `grad` takes in for --node Value or Dense"),
)


def spelled(diagnostic: Diagnostic, spelling: Spelling) -> Diagnostic:
    """Return a diagnostic whose help is spelled for a place."""
    help = diagnostic.help
    for codes, pattern, instead in spelling:
        if diagnostic.code in codes:
            help = re.sub(pattern, instead, help)
    return replace(diagnostic, help=help)


@contextmanager
def spelling(wanted: Spelling) -> Iterator[None]:
    """Let the hints of a MirError that leaves be spelled for a place. It decorates functions, too."""
    try:
        yield
    except MirError as error:
        error.diagnostics = tuple(spelled(d, wanted) for d in error.diagnostics)
        raise

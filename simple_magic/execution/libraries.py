"""The libraries of MIR that ship with the package: plain cells that any session may take in."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import replace
from importlib.resources import files

from ..mir.diagnostics import Diagnostic

LIBRARIES = {"autograd": "autograd/library.mir", "mazur": "autograd/mazur.mir"}
"""Where the text of each library stands in the package; `mazur` is an example and needs `autograd`."""


def library_source(name: str) -> str:
    """Return the text of a library. Raises: ValueError naming the libraries."""
    if name not in LIBRARIES:
        raise ValueError(f"unknown library {name!r}; there is: {', '.join(LIBRARIES)}")
    return files(__package__.partition(".")[0]).joinpath(LIBRARIES[name]).read_text(encoding="utf-8")


NODES = ("Value", "Dense")
"""The classes of nodes of the library `autograd`; its functions that begin with them are their methods."""
_UNKNOWN = re.compile(r"unknown (?:function|type|struct or class) `(.*)`")
_DEFINED = r"^(?:fn|class) {}\b(?!\.)"


def suggest_library(diagnostic: Diagnostic, defined: Container[str]) -> Diagnostic:
    """Add to what is said of an unknown name that the node library has it, unless the program defines a class of nodes with that name itself."""
    unknown = _UNKNOWN.fullmatch(diagnostic.message) if diagnostic.code in ("E0202", "E0203") else None
    if unknown is None:
        return diagnostic
    node = unknown[1].partition(".")[0]
    if node not in NODES or node in defined or not re.search(_DEFINED.format(re.escape(unknown[1])), library_source("autograd"), re.MULTILINE):
        return diagnostic
    return replace(diagnostic, help='use the node library: use_library("autograd")')

"""The libraries of MIR that ship with the package: plain cells that any session may take in."""

from __future__ import annotations

from importlib.resources import files

LIBRARIES = {"autograd": "autograd/library.mir", "mazur": "autograd/mazur.mir"}
"""Where the text of each library stands in the package; `mazur` is an example and needs `autograd`."""


def library_source(name: str) -> str:
    """Return the text of a library. Raises: ValueError naming the libraries."""
    if name not in LIBRARIES:
        raise ValueError(f"unknown library {name!r}; there is: {', '.join(LIBRARIES)}")
    return files(__package__.partition(".")[0]).joinpath(LIBRARIES[name]).read_text(encoding="utf-8")

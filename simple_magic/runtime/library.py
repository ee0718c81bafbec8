"""The runtime as a module: the functions `rt.*` of the `.mir` files beside this one, over the layout of `layout.py`.

In the files, `$NAME` stands for the number of that name in `layout.py`, so the layout is written once.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from ..mir.diagnostics import Reporter, VerifyError
from ..mir.model import Module
from ..mir.resolve import Names
from ..mir.text import parse_text
from ..mir.verify import check
from . import layout

FILES = ("memory", "arrays", "text", "numbers", "dicts")
CONSTANTS: dict[str, int] = {name: value for name, value in vars(layout).items() if name.isupper() and isinstance(value, int)}
CONSTANTS["FRAMES_MASK"] = layout.FRAMES_KEPT - 1
assert layout.FRAMES_KEPT & layout.FRAMES_KEPT - 1 == 0, "rt.push_frame takes the number of a call modulo FRAMES_KEPT by a mask"


def source(name: str) -> str:
    """Return the text of one file of the runtime, numbers filled in. Raises: KeyError for a number that the layout does not have."""
    text = (files(__package__) / f"{name}.mir").read_text(encoding="utf-8")
    return re.sub(r"\$([A-Z_]+)", lambda match: str(CONSTANTS[match[1]]), text)


@cache
def runtime_module() -> Module:
    """Return all runtime functions, resolved and verified."""
    parsed = [parse_text(source(name), f"runtime/{name}.mir", internal=True) for name in FILES]
    reporter = Reporter()
    module = Module(functions=tuple(function for part in parsed for function in part.functions), name="runtime")
    resolved = check(module, Names(), reporter, internal=True)
    if reporter.found:
        raise VerifyError(reporter.found)
    return resolved

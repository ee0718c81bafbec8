"""Simple MIR in notebook cells and in Python: verified, compiled, alive, callable.

    %load_ext simple_magic            in a notebook: %%simple_jit cells and %simple
    from simple_magic import LocalExecutionManager

The names below are the public API. They are imported when first used, so that loading the extension costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .execution.manager import LocalExecutionManager

_HOMES = {
    "parse_text": "mir.text",
    "format_text": "mir.text",
    "to_json": "mir.jsonform",
    "from_json": "mir.jsonform",
    "verify": "mir.verify",
    "explain": "mir.codes",
    "Trap": "mir.diagnostics",
    "MirError": "mir.diagnostics",
    "CrashError": "mir.diagnostics",
    "SimpleError": "mir.diagnostics",
    "Limits": "backends.base",
    "Record": "backends.values",
    "LocalExecutionManager": "execution.manager",
    "ExecutionManager": "execution.manager",
    "ExecutionResult": "execution.results",
    "CodeInfo": "execution.results",
    "CopiedArrayWarning": "execution.results",
    "compare": "execution.compare",
    "gradient_experiment": "show.gradients.report",
    "GradientReport": "show.gradients.report",
    "load_trace": "autograd.events",
    "extern": "execution.externs",
    "set_jit_backend": "execution.defaults",
    "get_jit_backend": "execution.defaults",
}
"""Where each public name lives."""

__all__ = sorted([*_HOMES, "current_manager", "load_ipython_extension", "unload_ipython_extension"])


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Give the kernel one live execution manager and its magics."""
    from .magics import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics, the manager and every name that cells bound."""
    from .magics import unload

    unload(shell)


def current_manager() -> LocalExecutionManager:
    """Return the manager of the running notebook. Raises: RuntimeError outside one, or before `%load_ext simple_magic`."""
    from IPython import get_ipython

    from .magics import current_magics

    shell = get_ipython()
    magics = current_magics(shell) if shell is not None else None
    if magics is None:
        raise RuntimeError("no live manager: run `%load_ext simple_magic` in a notebook first")
    return magics.manager

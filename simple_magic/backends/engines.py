"""Every engine by its short name: one function for the manager, and for the child process of an isolated engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..mir.diagnostics import Diagnostic, LoweringError
from ..mir.types import Type
from . import numbers
from .base import Backend, Host
from .interpreter import Interpreter
from .isolated import ISOLATED, IsolatedBackend

ENGINE_NAMES = {"interpreter": "interpreter", "llvm": "llvm-jit", "cranelift": "cranelift-jit"}
"""The name under which each engine reports itself."""


def make_engine(name: str, host: Host) -> Backend:
    """Return a new engine for a short name such as "llvm", or for "llvm (isolated)": the same one in a child process."""
    short = name.removesuffix(ISOLATED)
    if short != name:
        return IsolatedBackend(short, ENGINE_NAMES[short] + ISOLATED, host)
    if name == "interpreter":
        return Interpreter(host)
    if name == "cranelift":
        try:
            from .cranelift import CraneliftBackend
        except (ImportError, OSError) as error:  # Found, but broken: the wheel of another platform, or half an installation.
            raise LoweringError([Diagnostic("E0609", f"the Cranelift back end cannot be loaded: {error}", help="pip install -U 'simple_magic[cranelift]'")]) from None
        return CraneliftBackend(host)
    assert name == "llvm", name
    from .llvm import LlvmBackend

    return LlvmBackend(host)


def _print(host: Host, args: Sequence[object], _types: Sequence[Type]) -> None:
    host.write(f"{args[0]}\n")


INTERNAL_EXTERNS: dict[str, Callable[[Host, Sequence[object], Sequence[Type]], object]] = {
    "rt_print": _print,
    "rt_float_text": lambda _host, args, types: numbers.float_text(args[0], types[0]),  # type: ignore[arg-type]
    "rt_parse_float": lambda _host, args, _types: numbers.parse_float_option(args[0]),  # type: ignore[arg-type]
}
"""Host functions that `lower` calls by itself; programs cannot declare them."""

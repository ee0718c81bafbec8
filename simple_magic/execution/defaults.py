"""The process's default back end: what `auto` and a manager without an explicit back end use."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ..backends.engines import ENGINE_NAMES

__all__ = ["BACKENDS", "ENGINE_NAMES", "choose_backend", "get_jit_backend", "normalise_backend", "set_jit_backend"]

BACKENDS = ("auto", "interpreter", "llvm", "cranelift")
"""What a user may ask for."""

_default = "auto"


def normalise_backend(name: str) -> str:
    """Return the short name of a back end ("llvm-jit" is "llvm"). Raises: ValueError naming the choices."""
    short = name.strip().lower().removesuffix("-jit") if isinstance(name, str) else ""
    if short not in BACKENDS:
        raise ValueError(f"unknown back end {name!r}; choose one of {', '.join(BACKENDS)}")
    return short


def set_jit_backend(name: str) -> bool:
    """Set the process's default back end; return False (and change nothing) for an unknown name, or one that is not installed."""
    global _default
    try:
        short = normalise_backend(name)
        if short != "auto":
            choose_backend(short)
    except ValueError:
        return False
    _default = short
    return True


def get_jit_backend() -> str:
    """Return the process's default back end: "auto", "interpreter", "llvm" or "cranelift"."""
    return _default


WASMTIME_SINCE = 45
CRANELIFT_MISSING = "the Cranelift back end needs wasmtime, which is not installed: pip install 'simple_magic[cranelift]'"


@cache
def wasmtime_version() -> str:
    """Return the installed version, "" if nothing of that name says one. Looked up once: every call of a program asks for its back end."""
    try:
        return version("wasmtime")
    except PackageNotFoundError:
        return ""


def cranelift_problem() -> str:
    """Return why Cranelift cannot be used, in one sentence; "" if it can."""
    if find_spec("wasmtime") is None:
        return CRANELIFT_MISSING
    found = wasmtime_version()
    if not found.partition(".")[0].isdecimal() or int(found.partition(".")[0]) < WASMTIME_SINCE:
        return f"the Cranelift back end needs wasmtime {WASMTIME_SINCE} or later, there is {found or 'another package of that name'}: pip install -U 'simple_magic[cranelift]'"
    return ""


def choose_backend(name: str) -> tuple[str, str]:
    """Return (back end, reason) for a request; `auto` takes the process's default, then what is installed. Raises: ValueError."""
    wanted = normalise_backend(name)
    reason = "asked for"
    if wanted == "auto" and _default != "auto":
        wanted, reason = _default, f"auto: set_jit_backend({_default!r}) is in force"
    has_llvm, problem = find_spec("llvmlite") is not None, cranelift_problem()
    if wanted == "auto" and not has_llvm:
        return "interpreter", "auto: llvmlite is not installed"
    if wanted == "auto":
        if not problem:
            return "cranelift", "auto: cranelift, because wasmtime is installed"
        return "llvm", "auto: llvm, because wasmtime is not installed" if problem == CRANELIFT_MISSING else f"auto: llvm, because {problem}"
    if wanted == "cranelift" and problem:
        raise ValueError(problem)
    return wanted, reason

"""The process's default back end: what `auto` and a manager without an explicit back end use."""

from __future__ import annotations

from importlib.util import find_spec

from ..backends.engines import ENGINE_NAMES

__all__ = ["BACKENDS", "ENGINE_NAMES", "choose_backend", "get_jit_backend", "normalise_backend", "set_jit_backend"]

BACKENDS = ("auto", "interpreter", "llvm", "cranelift")
"""What a user may ask for."""

_default = "auto"


def normalise_backend(name: str) -> str:
    """Return the short name of a back end ("llvm-jit" is "llvm"). Raises: ValueError naming the choices."""
    short = name.strip().lower().removesuffix("-jit")
    if short not in BACKENDS:
        raise ValueError(f"unknown back end {name!r}; choose one of {', '.join(BACKENDS)}")
    return short


def set_jit_backend(name: str) -> bool:
    """Set the process's default back end; return False (and change nothing) for an unknown name."""
    global _default
    try:
        _default = normalise_backend(name)
    except ValueError:
        return False
    return True


def get_jit_backend() -> str:
    """Return the process's default back end: "auto", "interpreter", "llvm" or "cranelift"."""
    return _default


CRANELIFT_MISSING = "the Cranelift back end is not part of this version; use llvm, interpreter or auto"


def choose_backend(name: str) -> tuple[str, str]:
    """Return (back end, reason) for a request; `auto` takes the process's default, then what is installed. Raises: ValueError."""
    wanted = normalise_backend(name)
    if wanted == "auto" and _default != "auto":
        wanted = _default
        reason = f"auto: set_jit_backend({_default!r}) is in force"
    elif wanted == "auto":
        if find_spec("llvmlite") is None:
            return "interpreter", "auto: llvmlite is not installed"
        return "llvm", "auto: llvm, because the Cranelift back end is not part of this version"
    else:
        reason = "asked for"
    if wanted == "cranelift":
        raise ValueError(CRANELIFT_MISSING)
    return wanted, reason

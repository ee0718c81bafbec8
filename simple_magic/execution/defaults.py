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
    short = name.strip().lower().removesuffix("-jit") if isinstance(name, str) else ""
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


CRANELIFT_MISSING = "the Cranelift back end needs wasmtime, which is not installed: pip install 'simple_magic[cranelift]'"


def choose_backend(name: str) -> tuple[str, str]:
    """Return (back end, reason) for a request; `auto` takes the process's default, then what is installed. Raises: ValueError."""
    wanted = normalise_backend(name)
    reason = "asked for"
    if wanted == "auto" and _default != "auto":
        wanted, reason = _default, f"auto: set_jit_backend({_default!r}) is in force"
    has_llvm, has_cranelift = find_spec("llvmlite") is not None, find_spec("wasmtime") is not None
    if wanted == "auto" and not has_llvm:
        return "interpreter", "auto: llvmlite is not installed"
    if wanted == "auto":
        return ("cranelift", "auto: cranelift, because wasmtime is installed") if has_cranelift else ("llvm", "auto: llvm, because wasmtime is not installed")
    if wanted == "cranelift" and not has_cranelift:
        raise ValueError(CRANELIFT_MISSING)
    return wanted, reason

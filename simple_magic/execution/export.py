"""A function's unit in another form: MIR, JSON, LLVM IR, assembly, WebAssembly text or an object file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..mir.jsonform import to_json_text
from ..mir.text import format_item, format_text

if TYPE_CHECKING:
    from .manager import LocalExecutionManager, RunOptions


def mir_text(manager: LocalExecutionManager, name: str, options: RunOptions) -> str:
    """Return the function as written."""
    manager.compiled(name, options)
    return format_item(manager.session.definitions[name].item)


def unit_text(manager: LocalExecutionManager, name: str, _options: RunOptions) -> str:
    """Return the whole unit, resolved: it can be compiled elsewhere as it stands."""
    manager.result_type(name)
    return format_text(manager.session.unit_of(name).module)


def model_text(manager: LocalExecutionManager, name: str, options: RunOptions) -> str:
    """Return the unit after the passes for fuel and semantics: with the copies that the model makes."""
    return format_text(manager.transformed(name, options))


def json_text(manager: LocalExecutionManager, name: str, _options: RunOptions) -> str:
    manager.result_type(name)
    return to_json_text(manager.session.unit_of(name).module)


def _program_attribute(attribute: str, backend: str | None = None) -> Callable[[LocalExecutionManager, str, RunOptions], str]:
    """Return the form that a program shows as an attribute. backend: the one whose form it is, whatever back end runs; None is any native one."""

    def view(manager: LocalExecutionManager, name: str, options: RunOptions) -> str:
        program = manager.compiled(name, replace(options, backend=backend) if backend else options).program
        text = getattr(program, attribute, None)
        if text is None:
            raise ValueError(f"the {options.backend} executes MIR as it is; choose the llvm or cranelift back end to see it lowered")
        return text

    return view


FORMS: dict[str, Callable[[LocalExecutionManager, str, RunOptions], str]] = {
    "mir": mir_text,
    "unit": unit_text,
    "model": model_text,
    "json": json_text,
    "lowered": _program_attribute("lowered_text"),
    "ir": _program_attribute("llvm_ir", "llvm"),
    "ll": _program_attribute("optimized_ir", "llvm"),
    "asm": _program_attribute("assembly", "llvm"),
    "wat": _program_attribute("wat", "cranelift"),
}
"""Forms that are text, by name. The forms of one back end are made with it, whichever runs."""


def export(manager: LocalExecutionManager, name: str, form: str = "unit", options: RunOptions | None = None) -> str | bytes:
    """Return a function's unit in one of FORMS as text, or as the bytes of an object file ("o"). Raises: ValueError for an unknown form, MirError."""
    options = options or manager.options()
    if form == "o":
        return manager.compiled(name, replace(options, backend="llvm")).program.object_code  # type: ignore[attr-defined]
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; choose one of {', '.join((*FORMS, 'o'))}")
    return FORMS[form](manager, name, options)

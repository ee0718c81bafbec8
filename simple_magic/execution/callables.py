"""Live callables: what `em.function(name)` returns.

They are instances of the native callable type (`backends/wrapper.py`) and always run the current definition: when definitions or settings change, the
manager invalidates them; the next call goes through the manager, compiles what is needed, and points the callable at the new machine code. Calls that
the native path cannot serve (other argument types, units that print or call externs or keep objects, the interpreter) stay with the manager.
"""

from __future__ import annotations

import inspect
import linecache
import os
import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from ..backends.wrapper import Target, callable_type, invalidate, make_callable, retarget
from ..mir.diagnostics import SimpleError, Trap
from ..mir.model import Function, Place
from ..mir.ops import OPS
from ..mir.types import UNIT, format_type
from .export import export

if TYPE_CHECKING:
    from .manager import CompiledUnit, LocalExecutionManager


class LiveFunction:
    """What stands behind one callable: the manager and the name. The callable holds it, and shows it as `live`."""

    def __init__(self, manager: LocalExecutionManager, name: str) -> None:
        self.manager = manager
        self.name = name
        self._callable: weakref.ref[Callable[..., object]] | None = None
        self._compiled: CompiledUnit | None = None

    def make(self) -> Callable[..., object]:
        """Return the callable."""
        made = make_callable(self.slow, self.trapped)
        made.live = self  # type: ignore[attr-defined]
        made.__name__ = made.__qualname__ = self.name
        self._callable = weakref.ref(made)
        return made

    def slow(self, *args: object, **named: object) -> object:
        """Call through the manager, and let the next calls be native if that is possible."""
        try:
            if named:
                args = self._bind(args, named)
            value = self.manager.execute(self.name, *args)
        except (TypeError, OverflowError) as error:
            if not hasattr(error, "__notes__"):
                _show_without_frames(error, sys._getframe(1))
            raise
        made = self._callable() if self._callable else None
        if made is not None:
            self.manager.ownership.hold(lambda _outermost: self._retarget(made))
        return value

    def _bind(self, args: tuple[object, ...], named: dict[str, object]) -> tuple[object, ...]:
        names = [p.name for p in self.function.params]
        shown = f"{self.name}{signature_of(self.function)}"
        for name in named:
            if name not in names:
                raise TypeError(f"{self.name} has no parameter {name}; it is {shown}")
            if name in names[: len(args)]:
                raise TypeError(f"{self.name} got two values for {name}; it is {shown}")
        if len(args) + len(named) != len(names):
            missing = [name for name in names[len(args) :] if name not in named]
            raise TypeError(f"{self.name} needs a value for {', '.join(missing)}; it is {shown}" if missing else f"{self.name} got too many values; it is {shown}")
        return (*args, *(named[name] for name in names[len(args) :]))

    def _retarget(self, made: Callable[..., object]) -> None:
        manager = self.manager
        if manager.backend == "interpreter":
            return
        compiled = manager.compiled(self.name)
        target = native_target(manager, compiled, self.name)
        if target is not None:
            self._compiled = compiled
            retarget(made, [p.type for p in self.function.params], self.function.result, target)

    def trapped(self, status: int) -> object:
        """Raise what a native call ended with."""
        assert self._compiled is not None, "only a native call ends with a status"
        failure = self._compiled.program.failure(status)  # type: ignore[attr-defined]
        if isinstance(failure, Trap):
            self.manager.locate(failure)
            self.manager.last_error = str(failure)
        raise failure

    def invalidate(self) -> None:
        """The definitions or the settings changed: the next call goes through the manager."""
        made = self._callable() if self._callable else None
        if made is not None:
            invalidate(made)

    @property
    def function(self) -> Function:
        return self.manager.definition(self.name)


def _show_without_frames(error: Exception, caller: FrameType) -> None:
    """Let a notebook show an error about arguments as one sentence and the caller's line, without the frames of this package.

    What a function of the host raised has a note; its frames are the user's own and stay.
    """
    where, line = caller.f_code.co_filename, caller.f_lineno
    place = f"line {line}" if caller.f_globals.get("__name__") == "__main__" else f"{os.path.basename(where)}:{line}"
    source = linecache.getline(where, line, caller.f_globals).strip()
    shown = [f"{type(error).__name__}: {error}", f"   called from {place}" + (f": {source}" if source else "")]
    error._render_traceback_ = lambda: shown  # type: ignore[attr-defined]


def native_target(manager: LocalExecutionManager, compiled: CompiledUnit, name: str) -> Target | None:
    """Return where native calls of a compiled function go, or None if every call has to pass through the manager."""
    program = compiled.program
    if program.calls_host or not program.reset_top:  # type: ignore[attr-defined]
        return None
    code = program.native_code(name)  # type: ignore[attr-defined]
    return Target(
        address=code.address,
        context=code.context,
        has_status=code.has_status,
        heap=program.heap.base,  # type: ignore[attr-defined]
        owner=manager.ownership.address,
        state=manager.call_state,
        stack=program.stack_budget,  # type: ignore[attr-defined]
        resets_heap=True,
        releases_gil=name in program.may_run_long,  # type: ignore[attr-defined]
        writes=[p.type in compiled.written_arrays[name] for p in manager.definition(name).params],
        keep=compiled,
    )


def signature_of(function: Function) -> inspect.Signature:
    """Return the Python signature of a MIR function; annotations are MIR types as text."""
    params = [inspect.Parameter(p.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=format_type(p.type)) for p in function.params]
    returned = inspect.Signature.empty if function.result == UNIT else format_type(function.result)
    return inspect.Signature(params, return_annotation=returned)


def _documentation(live: LiveFunction) -> str:
    function = live.function
    comments = "\n".join(line.strip() for line in function.trivia.before)
    place = live.manager.session.definitions[live.name].cell
    return "\n\n".join(part for part in (comments, f"A function of Simple MIR, defined in {place}.", copying_note(function), export(live.manager, live.name, "mir")) if part)  # type: ignore[misc]


WRITERS = frozenset(name for name, row in OPS.items() if row.form.startswith("p"))


def copying_note(function: Function) -> str:
    """Return what a caller in Python must know about the parameters that the function itself writes into, or ""."""
    roots = {i.args[0].root for b in function.blocks for i in b.instructions if i.op in WRITERS and isinstance(i.args[0], Place) and not i.args[0].is_global}
    written = [p.name for p in function.params if p.name in roots]
    if not written:
        return ""
    return (f"Writes into {', '.join(written)}. Python sees that in a NumPy array of the element's dtype alone; "
            "lists, dicts and records are copied in: return what you want to see.")  # fmt: skip


def _form(form: str) -> property:
    return property(lambda self: export(self.live.manager, self.live.name, form), doc=f"The function's unit in the form {form!r}.")


def _lenient(read: Callable[[LiveFunction], object], otherwise: object) -> property:
    """Return a property that survives a function which is gone."""

    def get(self: object) -> object:
        try:
            return read(self.live)  # type: ignore[attr-defined]
        except SimpleError:
            return otherwise

    return property(get)


PROPERTIES: dict[str, object] = {
    "mir": _form("mir"),
    "llvm_ir": _form("ir"),
    "assembly": _form("asm"),
    "wat": _form("wat"),
    "__signature__": _lenient(lambda live: signature_of(live.function), None),
    "__doc__": _lenient(_documentation, "This function is no longer defined."),
    "__repr__": lambda self: f"<simple_magic function {self.live.name}{_shown_signature(self.live)}>",
}


def _shown_signature(live: LiveFunction) -> str:
    try:
        return str(signature_of(live.function))
    except SimpleError:
        return " (no longer defined)"


def make_live_callable(manager: LocalExecutionManager, name: str) -> Callable[..., object]:
    """Return a live callable for a function of the manager."""
    kind = callable_type()
    if "mir" not in vars(kind):
        for attribute, value in PROPERTIES.items():
            setattr(kind, attribute, value)
    return LiveFunction(manager, name).make()

"""The extern table: what a program can call outside itself.

`@extern("fn host_log(x: f64) -> f64")` offers a Python callable to every manager of the process; a program declares
`extern fn host_log(x: f64) -> f64` and calls it. The execution manager itself stands in the same table (`rt_exec_manager_*`), so a MIR program can
compile and run another one. Conventions of that group, as upstream: handle 0 is a failure, "" is success, and the reason of a failure is always
readable through `rt_exec_manager_get_last_error`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..backends.values import ArrayValue, from_python, to_python
from ..mir.diagnostics import Diagnostic, MirError, SimpleError
from ..mir.model import Extern
from ..mir.text import format_item, parse_text
from ..mir.types import BOOL, F64, I64, TEXT, UNIT, Array, Type, format_type
from .defaults import get_jit_backend, set_jit_backend

if TYPE_CHECKING:
    from .manager import LocalExecutionManager


@dataclass(frozen=True)
class ExternFunction:
    """A callable with its declaration. Calling it calls the Python function."""

    declaration: Extern
    function: Callable[..., object]

    def __call__(self, *args: object) -> object:
        return self.function(*args)

    @property
    def name(self) -> str:
        return self.declaration.name


_OFFERED: dict[str, ExternFunction] = {}
"""Offered with `@extern`, by name: process-wide, like the functions themselves."""


def parse_declaration(declaration: str) -> Extern:
    """Return the extern that `fn name(x: T, ...) -> R` declares; parameter names may be left out. Raises: MirError."""
    text = declaration.strip()
    text = text.removeprefix("extern").strip()
    module = parse_text(f"extern {_with_names(text)}", "<extern>")
    if len(module.externs) != 1 or len(module.items) != 1:
        raise MirError([Diagnostic("E0610", f"expected one declaration such as `fn f(x: f64) -> f64`, got `{declaration}`")])
    return module.externs[0]


def _with_names(text: str) -> str:
    """Return the declaration with names for parameters that are only types: `fn f(f64)` becomes `fn f(p0: f64)`."""
    start, depth, parts, current = text.find("("), 0, [], ""
    if start < 0:
        return text
    for position, c in enumerate(text[start:], start):
        if c in "([{<":
            depth += 1
        elif c in ")]}" or (c == ">" and text[position - 1] != "-"):
            depth -= 1
        if depth == 0:
            end = position
            break
        if c == "," and depth == 1:
            parts.append(current)
            current = ""
        elif not (c == "(" and depth == 1):
            current += c
    else:
        return text
    if current.strip():
        parts.append(current)
    named = [p.strip() if _is_named(p) or p.strip() == "..." else f"p{i}: {p.strip()}" for i, p in enumerate(parts)]
    return f"{text[: start + 1]}{', '.join(named)}{text[end:]}"


def _is_named(parameter: str) -> bool:
    name, colon, _ = parameter.partition(":")
    return bool(colon) and name.strip().isidentifier()


def extern(declaration: str) -> Callable[[Callable[..., object]], ExternFunction]:
    """Offer a Python callable to MIR programs under the declared name and types.

    >>> @extern("fn twice_on_host(x: f64) -> f64")
    ... def twice(x):
    ...     return 2 * x

    An exception that it raises surfaces unchanged from the call into MIR. Raises: MirError for a declaration that cannot be read.
    """
    declared = parse_declaration(declaration)

    def offer(function: Callable[..., object]) -> ExternFunction:
        offered = ExternFunction(declared, function)
        _OFFERED[declared.name] = offered
        return offered

    return offer


def find_extern(name: str) -> Extern | None:
    """Return the declaration behind an extern name, or None if nothing is registered."""
    if name in RT_FUNCTIONS:
        return RT_FUNCTIONS[name].declaration
    offered = _OFFERED.get(name)
    return offered.declaration if offered else None


def extern_names() -> tuple[str, ...]:
    """Return every name a program may declare as extern, sorted."""
    return tuple(sorted({*RT_FUNCTIONS, *_OFFERED}))


def check_declaration(declared: Extern) -> Diagnostic | None:
    """Return what is wrong with a program's declaration of an extern, or None."""
    known = find_extern(declared.name)
    if known is None:
        return Diagnostic("E0611", f"no extern `{declared.name}` is registered", declared.span, label="declared here",
                          help=f'offer a Python function: @extern("{_signature(declared)}")')  # fmt: skip
    same = [p.type for p in known.params] == [p.type for p in declared.params] and known.result == declared.result
    if same and known.variadic == declared.variadic:
        return None
    listed = [*(p.type for p in known.params), Array(I64)]
    if declared.name in RT_FUNCTIONS and known.variadic and [p.type for p in declared.params] == listed and declared.result == known.result:
        return None
    return Diagnostic("E0612", f"extern `{declared.name}` is registered as `{_signature(known)}`", declared.span, label="declared differently here",
                      help=f"write: extern {_signature(known)}")  # fmt: skip


def declaration_text(name: str) -> str | None:
    """Return the line that declares a registered extern in a program, or None."""
    known = find_extern(name)
    return f"extern {_signature(known)}" if known else None


def _signature(declared: Extern) -> str:
    return format_item(declared).strip().removeprefix("extern").strip()


def call_extern(manager: LocalExecutionManager, name: str, args: Sequence[object], arg_types: Sequence[Type], result: Type) -> object:
    """Call an extern with values of running programs and return its value. Raises: whatever the function raises."""
    if name in RT_FUNCTIONS:
        return RT_FUNCTIONS[name].function(manager, args, arg_types)
    offered = _OFFERED.get(name)
    if offered is None:
        raise MirError([Diagnostic("E0611", f"no extern `{name}` is registered")])
    names = manager.session.names()
    answer = offered.function(*(to_python(value, t, names) for value, t in zip(args, arg_types)))
    if result == UNIT:
        return None
    try:
        return from_python(answer, result, names)
    except (TypeError, OverflowError, ValueError) as error:
        raise type(error)(f"extern `{name}` must return {format_type(result)}: {error}") from None


MAX_DEPTH = 8
"""How deep managers may create managers."""
MAX_CHILDREN = 64
"""How many managers the programs of one manager may have at a time: each holds memory and a file descriptor."""


class Children:
    """The managers that programs of one manager created, by handle."""

    def __init__(self) -> None:
        self.by_handle: dict[int, LocalExecutionManager] = {}
        self.next_handle = 1
        self.last_error = ""


def _create(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> int:
    children = manager.children
    if manager.depth + 1 > MAX_DEPTH:
        children.last_error = f"execution managers nest at most {MAX_DEPTH} deep"
        return 0
    if len(children.by_handle) >= MAX_CHILDREN:
        children.last_error = f"there are {MAX_CHILDREN} execution managers already; free one with rt_exec_manager_cleanup"
        return 0
    try:
        child = manager.child(str(args[0]))
    except (SimpleError, ValueError, OSError) as error:
        children.last_error = str(error)
        return 0
    handle = children.next_handle
    children.next_handle += 1
    children.by_handle[handle] = child
    return handle


def _child(manager: LocalExecutionManager, handle: object) -> LocalExecutionManager | None:
    child = manager.children.by_handle.get(handle)  # type: ignore[call-overload]
    if child is None:
        manager.children.last_error = f"{handle} is not the handle of a live execution manager"
    return child


def _compile(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> str:
    child = _child(manager, args[0])
    if child is None:
        return manager.children.last_error
    try:
        child.compile(str(args[1]))
    except SimpleError as error:
        child.last_error = str(error)
        return child.last_error
    return ""


def _refuse(reason: str) -> Callable[[LocalExecutionManager, Sequence[object], Sequence[Type]], str]:
    def refuse(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> str:
        child = _child(manager, args[0])
        if child is None:
            return manager.children.last_error
        child.last_error = reason
        return reason

    return refuse


def _compile_file(manager: LocalExecutionManager, args: Sequence[object], types: Sequence[Type]) -> str:
    child = _child(manager, args[0])
    if child is None or not manager.allow_files:
        return _refuse("compile_file is off: set `allow_files` on the manager to let programs read files")(manager, args, types)
    try:
        with open(str(args[1]), encoding="utf-8") as file:
            source = file.read()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        child.last_error = str(error)
        return child.last_error
    return _compile(manager, (args[0], source), types)


def _execute(wanted: Type) -> Callable[[LocalExecutionManager, Sequence[object], Sequence[Type]], object]:
    failures: dict[Type, object] = {I64: 0, F64: 0.0, TEXT: "", BOOL: False}
    failure = failures[wanted]

    def execute(manager: LocalExecutionManager, args: Sequence[object], types: Sequence[Type]) -> object:
        child = _child(manager, args[0])
        if child is None:
            return failure
        values, value_types = list(args[2:]), list(types[2:])
        names = manager.session.names()
        if value_types == [Array(I64)] and isinstance(values[0], ArrayValue):
            given: list[object] = list(values[0].items)
        else:
            given = [to_python(v, t, names) for v, t in zip(values, value_types)]
        name = str(args[1])
        try:
            returns = child.result_type(name)
            if wanted not in (BOOL, returns):
                child.last_error = f"`{name}` returns {format_type(returns)}, not {format_type(wanted)}"
                return failure
            result = child.execute(name, *given)
        except (SimpleError, TypeError, OverflowError, ValueError) as error:
            child.last_error = str(error)
            return failure
        return True if wanted == BOOL else result

    return execute


def _with_child(failure: object, action: Callable[..., object]) -> Callable[[LocalExecutionManager, Sequence[object], Sequence[Type]], object]:
    def apply(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> object:
        child = _child(manager, args[0])
        return failure if child is None else action(child, *args[1:])

    return apply


def _list_functions(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> ArrayValue:
    child = _child(manager, args[0])
    return ArrayValue([] if child is None else list(child.functions()))


def _cleanup(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> None:
    child = manager.children.by_handle.pop(args[0], None)  # type: ignore[call-overload]
    if child is not None:
        child.close()


def _set_opt_level(child: LocalExecutionManager, level: object) -> bool:
    try:
        child.set_opt_level(level)  # type: ignore[arg-type]
    except ValueError as error:
        child.last_error = str(error)
        return False
    return True


def _last_error(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> str:
    child = manager.children.by_handle.get(args[0])  # type: ignore[call-overload]
    return manager.children.last_error if child is None else child.last_error


def _clear_error(manager: LocalExecutionManager, args: Sequence[object], _types: Sequence[Type]) -> None:
    manager.children.last_error = ""
    child = manager.children.by_handle.get(args[0])  # type: ignore[call-overload]
    if child is not None:
        child.clear_error()


def _rt(declaration: str, function: Callable[..., object]) -> tuple[str, ExternFunction]:
    declared = parse_declaration(declaration)
    return declared.name, ExternFunction(declared, function)


RT_FUNCTIONS: dict[str, ExternFunction] = dict(
    (
        _rt("fn rt_exec_manager_create(backend: text) -> i64", _create),
        _rt("fn rt_exec_manager_compile(h: i64, mir: text) -> text", _compile),
        _rt("fn rt_exec_manager_compile_mir(h: i64, mir: text) -> text", _compile),
        _rt("fn rt_exec_manager_compile_file(h: i64, path: text) -> text", _compile_file),
        _rt("fn rt_exec_manager_compile_source(h: i64, source: text) -> text",
            _refuse("compile_source is not available: there is no front end for Simple source; pass MIR to rt_exec_manager_compile_mir")),
        _rt("fn rt_exec_manager_execute(h: i64, name: text, ...) -> i64", _execute(I64)),
        _rt("fn rt_exec_manager_execute_f64(h: i64, name: text, ...) -> f64", _execute(F64)),
        _rt("fn rt_exec_manager_execute_string(h: i64, name: text, ...) -> text", _execute(TEXT)),
        _rt("fn rt_exec_manager_execute_void(h: i64, name: text, ...) -> bool", _execute(BOOL)),
        _rt("fn rt_exec_manager_has_function(h: i64, name: text) -> bool", _with_child(False, lambda child, name: child.has_function(name))),
        _rt("fn rt_exec_manager_list_functions(h: i64) -> [text]", _list_functions),
        _rt("fn rt_exec_manager_backend_name(h: i64) -> text", _with_child("", lambda child: child.backend_name)),
        _rt("fn rt_exec_manager_is_valid(h: i64) -> bool", lambda manager, args, _types: args[0] in manager.children.by_handle),
        _rt("fn rt_exec_manager_set_opt_level(h: i64, level: i64) -> bool", _with_child(False, _set_opt_level)),
        _rt("fn rt_exec_manager_get_opt_level(h: i64) -> i64", _with_child(-1, lambda child: child.opt_level)),
        _rt("fn rt_exec_manager_get_last_error(h: i64) -> text", _last_error),
        _rt("fn rt_exec_manager_clear_error(h: i64)", _clear_error),
        _rt("fn rt_exec_manager_cleanup(h: i64)", _cleanup),
        _rt("fn rt_set_jit_backend(backend: text) -> bool", lambda _manager, args, _types: set_jit_backend(str(args[0]))),
        _rt("fn rt_get_jit_backend() -> text", lambda _manager, _args, _types: get_jit_backend()),
    )
)  # fmt: skip

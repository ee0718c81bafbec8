"""Lowering: from the language to the core operations that native back ends implement.

Input: resolved, verified MIR after the passes for fuel and semantics. Output: `Lowered`, where

- every operation is core (`mir/ops.py`), every local is a scalar, a reference is an i64 offset (`runtime/layout.py`), unit is a bool;
- functions keep their names and the order of their parameters; synthesized ones (`_eq$n`, `_contains$n`, `_print$n`, `_zero$n`, `thunk$f$k`) follow;
- every check that the language demands stands before the operation that needs it and ends in a `trap`, so back ends have no undefined behaviour;
- each instruction carries the origin of the instruction it was made for;
- headers of objects that a loop does not change are read before it (`hoist.py`);
- loops poll and deep calls check the stack (`polls.py`);
- large functions have few locals (`share.py`).

`LOWER_RULES` has a rule for every operation a program may hold here; a rule appends instructions to a `Builder` and returns the value to assign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..mir.analysis import local_types
from ..mir.diagnostics import Diagnostic, LoweringError, Origin
from ..mir.model import Function, Module, Param, Place, StructDef
from ..mir.resolve import Names
from ..mir.types import I64, TEXT, Named, Type, is_scalar
from ..runtime.layout import machine_type
from .hoist import hoist_headers
from .lower_builder import Builder, Rule
from .lower_calls import CALL_RULES, THUNK, thunk_body
from .lower_equality import EQUALITY_RULES
from .lower_numbers import NUMBER_RULES
from .lower_objects import OBJECT_RULES
from .polls import POLLED_RUNTIME, check_stacks, poll_loops
from .share import share_locals

LARGEST_UNIT = 250_000
"""Instructions, after lowering, of the largest unit: compiling takes some seconds at most."""

LOWER_RULES: dict[str, Rule] = {**NUMBER_RULES, **EQUALITY_RULES, **OBJECT_RULES, **CALL_RULES}


@dataclass(frozen=True, slots=True)
class HostCall:
    """One place that calls the host: `host_call {site: k}` stands for entry k of `Lowered.host_calls`."""

    name: str
    arg_types: tuple[Type, ...]
    result: Type
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Lowered:
    """A unit in core operations.

    table: the functions that `call_table` reaches, by number. signatures: parameter types and result of the user's functions at source level.
    """

    module: Module
    table: tuple[str, ...]
    host_calls: tuple[HostCall, ...]
    signatures: dict[str, tuple[tuple[Type, ...], Type]]


@dataclass
class Lowering:
    """What the functions of one unit share while they are lowered. Bodies of synthesized functions wait in `pending`."""

    names: Names
    global_slots: Mapping[str, int]
    room: int = LARGEST_UNIT
    """How many instructions may still be made."""
    host_calls: list[HostCall] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)
    synthesized: dict[tuple[str, Type], str] = field(default_factory=dict)
    pending: list[tuple[str, tuple[Type, ...], Type, Origin | None, Callable[[Builder, tuple[Place, ...]], None]]] = field(default_factory=list)

    def struct(self, t: Type) -> StructDef:
        """Return the definition of a struct or class."""
        assert isinstance(t, Named)
        definition = self.names.types[t.name]
        assert isinstance(definition, StructDef)
        return definition

    def host_site(self, name: str, arg_types: tuple[Type, ...], result: Type, origin: Origin | None) -> int:
        """Return the number of a new host call."""
        self.host_calls.append(HostCall(name, arg_types, result, origin))
        return len(self.host_calls) - 1

    def synthesize(self, kind: str, t: Type, params: tuple[Type, ...], result: Type, origin: Origin | None,
                   body: Callable[[Builder, Type, tuple[Place, ...]], None]) -> str:  # fmt: skip
        """Return the name of the function `kind` for type `t`; its body is built later, once."""
        name = self.synthesized.get((kind, t))
        if name is None:
            name = self.synthesized[kind, t] = f"{kind}${len(self.synthesized)}"
            self.pending.append((name, params, result, origin, lambda b, places: body(b, t, places)))
        return name

    def table_index(self, function: str, captured: int, origin: Origin | None) -> int:
        """Return the number of the thunk that calls `function` with `captured` values from the function value."""
        name = f"{THUNK}{function}${captured}"
        if name in self.table:
            return self.table[name]
        callee = self.names.functions.get(function) or self.names.externs[function]
        types = tuple(p.type for p in callee.params)
        params = (I64, *(machine_type(t) for t in types[captured:]))
        self.pending.append((name, params, machine_type(callee.result), origin, lambda b, places: thunk_body(b, function, types, captured, places)))
        self.table[name] = len(self.table)
        return self.table[name]

    def function(self, function: Function) -> Function:
        """Return a user's function, lowered."""
        types = local_types(function)
        b = Builder(self, types, {name: machine_type(t) for name, t in types.items()}, labels={block.label for block in function.blocks})
        for block in function.blocks:
            b.start(block.label)
            for ins in block.instructions:
                b.origin = ins.origin
                if b.size > self.room:
                    raise LoweringError([Diagnostic("E0604", f"the unit becomes more than {LARGEST_UNIT} machine operations, which would take long to compile",
                                                    help="split it into several cells, or run it with the interpreter")])  # fmt: skip
                value = LOWER_RULES[ins.op](b, ins)
                if ins.dest is not None and value is not None:
                    b.assign(ins.dest, value)
        self.room -= b.size
        params = tuple(Param(p.name, machine_type(p.type)) for p in function.params)
        return b.finish(function.name, params, machine_type(function.result))

    def next_synthesized(self) -> Function:
        """Return the first function whose body is still to be built."""
        name, types, result, origin, body = self.pending.pop(0)
        params = tuple(Param(f"p${index}", t) for index, t in enumerate(types))
        b = Builder(self, {}, {p.name: p.type for p in params}, origin=origin)
        b.start("entry")
        body(b, tuple(Place(p.name) for p in params))
        return b.finish(name, params, result)


def lower(module: Module, names: Names, global_slots: Mapping[str, int]) -> Lowered:
    """Return the module in core operations. Raises: LoweringError if it becomes too large. `names`: every definition the module may use; `global_slots`: the number of each global."""
    unit = Lowering(names, global_slots)
    functions = [unit.function(f) for f in module.functions]
    while unit.pending:
        functions.append(unit.next_synthesized())
    signatures = {f.name: (tuple(p.type for p in f.params), f.result) for f in module.functions}
    lowered = check_stacks(Module(functions=tuple(share_locals(poll_loops(hoist_headers(f))) for f in functions), name=module.name))
    return Lowered(lowered, tuple(unit.table), tuple(unit.host_calls), signatures)


def lower_runtime(module: Module) -> Module:
    """Return the runtime's module, whose functions are in core operations from the start, with polls where they may take long, and stack checks."""
    return check_stacks(replace(module, functions=tuple(poll_loops(f) if f.name in POLLED_RUNTIME else f for f in module.functions)))


def touches_globals(module: Module, names: Names | None = None) -> bool:
    """Return whether calls may leave references to new objects in globals: stores of references, loads of what can be written into.

    `module` is resolved and not lowered; `names` are its own definitions unless given.
    """
    names = names or Names.of(module)
    for function in module.functions:
        for block in function.blocks:
            for ins in block.instructions:
                roots = [arg.root for arg in ins.args if isinstance(arg, Place) and arg.is_global]
                if ins.op in ("load_global", "store_global"):
                    t = names.globals[ins.name or ""].type
                    if not is_scalar(t) and (ins.op == "store_global" or t != TEXT):
                        return True
                if any(not is_scalar(t) and t != TEXT for t in (names.globals[root].type for root in roots)):
                    return True
    return False

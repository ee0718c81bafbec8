"""Further runs of an experiment, in the interpreter, with rules that look on or change something: what a trace cannot show is asked of the program itself.

`store_entries` tells which entry of a gradient store belongs to which parameter, `gradients_with_old_values` what the gradients would be if backward saw
the values that were overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ..backends.base import Host
from ..backends.interpreter import Interpreter, Machine, Step, run_rules
from ..backends.values import StructValue
from .driver import BACKWARD, DRIVER, FORWARD, READ
from .experiment import Experiment

InstructionSite = tuple[str, str, int]
"""An instruction as written: (function, block, index)."""


class _Phased(Interpreter):
    """The interpreter, knowing the driver's phase (`driver.FORWARD`, ...)."""

    def __init__(self, host: Host, rules: Mapping[str, Callable]) -> None:
        self.phase = 0
        super().__init__(host, {**run_rules, "call": self.call, **rules})

    def call(self, machine: Machine, step: Step, *args: object) -> object:
        if step.origin is not None and step.origin.function == DRIVER:
            if step.ins.name == "gradient_phase":
                self.phase = args[0]  # type: ignore[assignment]
            self.called(step.ins.name or "")
        return run_rules["call"](machine, step, *args)

    def called(self, name: str) -> None:
        """Take note that the driver calls a function."""


def _rerun(seen: Experiment, semantics: str, make: Callable[[Host], Interpreter], what: str) -> Mapping[str, object]:
    """Run the driver for one step, on the experiment's inputs and a copy of the globals; return the gradients, none if it ended with a trap."""
    bench = seen.bench
    assert bench is not None, "an experiment that was made by hand cannot run"
    held = {g.name for g in bench.unit.module.globals}
    values = {name: value for name, value in bench.manager.global_values().items() if name in held}
    prepared = bench.manager.prepared(bench.rewritten(semantics), f"{bench.unit.key} {semantics} {what}", "interpreter", values)
    with prepared as manager:
        manager.use_engines(lambda _backend, host: make(host))
        found = manager.execute_captured(DRIVER, *bench.inputs(seen.inputs).values(), 0, 0.0, fuel=bench.fuel, timeout=bench.timeout)
    return bench.driver.read(found.value, 0)[1][0] if found.trap is None else {}  # type: ignore[arg-type]


# Which entry of a store belongs to which parameter


class _Noting(_Phased):
    """`keys` are those of the store that were looked up in the phase of reading, in turn, by the number of the reader's call."""

    def __init__(self, host: Host, store: str, reader: str) -> None:
        self.store, self.reader, self.calls = store, reader, -1
        self.keys: dict[int, object] = {}
        super().__init__(host, {"index_get": self._index_get, "contains": self._contains})

    def _note(self, machine: Machine, looked_in: object, key: object) -> None:
        if self.phase == READ and looked_in is machine.program.globals.get(self.store):
            self.keys.setdefault(self.calls, key)

    def _index_get(self, machine: Machine, step: Step, x: object, key: object) -> object:
        self._note(machine, x, key)
        return run_rules["index_get"](machine, step, x, key)

    def _contains(self, machine: Machine, step: Step, x: object, key: object) -> object:
        self._note(machine, x, key)
        return run_rules["contains"](machine, step, x, key)

    def called(self, name: str) -> None:
        self.calls += name == self.reader


def store_entries(seen: Experiment, semantics: str) -> dict[str, str]:
    """Return the parameter that each entry of the store belongs to, by the entry's name in traces ("@grads[7]").

    A parameter's gradient is whatever the reader looks up, and the driver calls the reader for one parameter after another.
    """
    store, engines = seen.options.store, []

    def make(host: Host) -> _Noting:
        engines.append(_Noting(host, store, seen.options.reader))
        return engines[-1]

    _rerun(seen, semantics, make, "readers")
    keys = engines[0].keys if engines else {}
    parameters = seen.bench.driver.parameters  # type: ignore[union-attr]
    return {f"@{store}[{keys[n]}]": p.name for n, p in enumerate(parameters) if n in keys}


# What the gradients would be if no value had been overwritten


class _Restoring(_Phased):
    """Undoes writes of nodes' values for backward: what forward overwrote is restored when backward begins, and in backward nothing is overwritten."""

    def __init__(self, host: Host, node: str, value: str, sites: Collection[InstructionSite]) -> None:
        self.node, self.value, self.sites = node, value, sites
        self.old: dict[int, tuple[StructValue, int, object]] = {}
        super().__init__(host, {"set_field": self._set_field})

    def _set_field(self, machine: Machine, step: Step, x: StructValue, value: object) -> object:
        at = step.origin
        if at is None or x.type_name != self.node or step.ins.field != self.value or (at.function, at.block, at.index) not in self.sites:
            return run_rules["set_field"](machine, step, x, value)
        if self.phase == BACKWARD:
            return None
        if self.phase == FORWARD:
            self.old.setdefault(id(x), (x, step.detail, x.slots[step.detail]))
        return run_rules["set_field"](machine, step, x, value)

    def called(self, name: str) -> None:
        if self.phase == BACKWARD:
            for x, slot, old in self.old.values():
                x.slots[slot] = old
            self.old.clear()


def gradients_with_old_values(seen: Experiment, semantics: str, sites: Collection[InstructionSite]) -> Mapping[str, object]:
    """Return the gradients of a run in which backward sees the values that these instructions had overwritten; none if it ends with a trap."""
    o = seen.options
    return _rerun(seen, semantics, lambda host: _Restoring(host, o.node, o.value, frozenset(sites)), f"old values {sorted(sites)}")

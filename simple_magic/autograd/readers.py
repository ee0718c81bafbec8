"""Which entry of a gradient store belongs to which parameter: asked of the program itself, not guessed from numbers.

Where gradients are kept in a global dict, a parameter's gradient is whatever its reader looks up. The driver calls the reader for one parameter after
another, so the program is run once in the interpreter, with a rule that notes the keys.
"""

from __future__ import annotations

from ..backends.base import Host
from ..backends.interpreter import Interpreter, Machine, Step, run_rules
from .driver import DRIVER, READ
from .experiment import Experiment


class _Noting(Interpreter):
    """The interpreter; `keys` are those of the store that were looked up in the phase of reading, in turn, by the number of the reader's call."""

    def __init__(self, host: Host, store: str, reader: str) -> None:
        self.store, self.reader = store, reader
        self.phase, self.calls = 0, -1
        self.keys: dict[int, object] = {}
        super().__init__(host, {**run_rules, "index_get": self._index_get, "contains": self._contains, "call": self._call})

    def _note(self, machine: Machine, looked_in: object, key: object) -> None:
        if self.phase == READ and looked_in is machine.program.globals.get(self.store):
            self.keys.setdefault(self.calls, key)

    def _index_get(self, machine: Machine, step: Step, x: object, key: object) -> object:
        self._note(machine, x, key)
        return run_rules["index_get"](machine, step, x, key)

    def _contains(self, machine: Machine, step: Step, x: object, key: object) -> object:
        self._note(machine, x, key)
        return run_rules["contains"](machine, step, x, key)

    def _call(self, machine: Machine, step: Step, *args: object) -> object:
        if step.origin is not None and step.origin.function == DRIVER:
            if step.ins.name == "gradient_phase":
                self.phase = args[0]  # type: ignore[assignment]
            self.calls += step.ins.name == self.reader
        return run_rules["call"](machine, step, *args)


def store_entries(seen: Experiment, semantics: str) -> dict[str, str]:
    """Return the parameter that each entry of the store belongs to, by the entry's name in traces ("@grads[7]")."""
    bench = seen.bench
    assert bench is not None, "an experiment that was made by hand cannot run"
    store, engines = seen.options.store, []

    def make(_backend: str, host: Host) -> _Noting:
        engines.append(_Noting(host, store, seen.options.reader))
        return engines[-1]

    held = {g.name for g in bench.unit.module.globals}
    values = {name: value for name, value in bench.manager.global_values().items() if name in held}
    prepared = bench.manager.prepared(bench.rewritten(semantics), f"{bench.unit.key} {semantics} readers", "interpreter", values)
    with prepared as manager:
        manager.use_engines(make)
        manager.execute_captured(DRIVER, *bench.inputs(seen.inputs).values(), 0, 0.0, fuel=bench.fuel)
    keys = engines[0].keys if engines else {}
    return {f"@{store}[{keys[n]}]": p.name for n, p in enumerate(bench.driver.parameters) if n in keys}

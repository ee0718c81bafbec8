"""A second recorder of gradient events: rules around the interpreter's, so that verdicts are tested, and traces compared, without the trace pass.

It knows scalar nodes (a class with a value and a gradient field) and stores of gradients in global dicts. Numbers that come out of a gradient remember
it, wherever they go, so an edge is never unknown here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace

from simple_magic import LocalExecutionManager, Trap
from simple_magic.autograd.events import Event, Trace, number_occurrences
from simple_magic.backends.base import Unit
from simple_magic.backends.interpreter import Interpreter, Step, run_rules
from simple_magic.backends.values import ArrayValue, DictValue, StructValue
from simple_magic.mir.types import F64, Dict, Named
from simple_magic.passes.semantics import WRITTEN


class Tracked(float):
    """A number with the gradients that it comes from (`edges`), and those that it is a sum of (`terms`)."""

    def __new__(cls, value, edges=(), terms=frozenset()):
        self = super().__new__(cls, value)
        self.edges = edges
        self.terms = terms
        return self


def _edges(operands) -> tuple[str, ...]:
    return tuple(dict.fromkeys(e for x in operands if isinstance(x, Tracked) for e in x.edges))


class Recorder(Interpreter):
    """The interpreter, with a list of events. node: the class of nodes; driver: the function that is exempt from the semantics model."""

    def __init__(self, host, node="Value", gradient="grad", value="data", driver=None, backward="backward", unresolved=None, stores=()):
        self.node, self.gradient, self.value = node, gradient, value
        self.driver, self.backward, self.unresolved, self.stores = driver, backward, unresolved, stores
        self.events: list[Event] = []
        self.objects: dict[int, str] = {}
        self.alive: list[object] = []
        self.owners: dict[int, str] = {}
        self.copied: dict[str, int] = {}
        self.chains: dict[str, tuple[str, ...]] = {}
        self.phase = "setup"
        self.returned: list[str] = []
        self.leaves: list[str] = []
        special = {
            "new": self.new, "aggregate_copy": self.copy, "get_field": self.get_field, "set_field": self.set_field, "index_get": self.index_get,
            "index_set": self.index_set, "call": self.call, "ret": self.ret,
        }  # fmt: skip
        super().__init__(host, {op: special.get(op) or self.plain(op, rule) for op, rule in run_rules.items()})

    def compile(self, unit: Unit, level: int):
        exempt = {f.name: f for f in self.unresolved.functions if f.name == self.driver}
        functions = tuple(exempt.get(f.name, f) for f in unit.module.functions)
        return super().compile(replace(unit, module=replace(unit.module, functions=functions)), level)

    def plain(self, op, rule):
        def run(m, s: Step, *operands):
            value = rule(m, s, *operands)
            if type(value) is float and any(isinstance(x, Tracked) for x in operands):
                terms = frozenset().union(*(x.terms for x in operands if isinstance(x, Tracked))) if op in ("add", "copy", "const") else frozenset()
                return Tracked(value, _edges(operands), terms)
            return value

        return run

    def emit(self, s: Step, kind, name, **more):
        origin = s.origin
        span = s.ins.span
        event = Event(len(self.events), kind, name, self.phase, 0, origin.function, origin.block, origin.index, s.ins.op, span.source if span else "",
                      span.line if span else 0, chain=self.chains.get(name, (name,)), **more)  # fmt: skip
        self.events.append(event)

    def name(self, value):
        return self.objects.get(id(value), "?")

    def slot_name(self, value: StructValue, index: int) -> str:
        return self.fields[index] if value.type_name == self.node else ""

    @property
    def fields(self):
        definition = next(t for t in self.unresolved.types if t.name == self.node)
        return [f.name for f in definition.fields]

    def new(self, m, s, *given):
        value = run_rules["new"](m, s, *given)
        if value.type_name == self.node:
            name = str(sum(1 for e in self.events if e.kind == "alloc"))
            self.objects[id(value)] = name
            self.alive.append(value)
            self.chains[name] = (name,)
            self.emit(s, "alloc", name)
        return value

    def copy(self, m, s, x):
        value = run_rules["aggregate_copy"](m, s, x)
        if isinstance(x, StructValue) and x.type_name == self.node and id(x) in self.objects:
            source = self.name(x)
            root = self.chains[source][-1]
            self.copied[root] = self.copied.get(root, 0) + 1
            name = f"{root}.{self.copied[root]}"
            self.objects[id(value)] = name
            self.alive.append(value)
            self.chains[name] = (name, *self.chains[source])
            self.emit(s, "copy", name, source=source, position=str(s.ins.attribute("position", WRITTEN)), path=s.ins.name or s.ins.op)
        return value

    def get_field(self, m, s, x):
        value = run_rules["get_field"](m, s, x)
        if isinstance(x, StructValue) and x.type_name == self.node and self.slot_name(x, s.detail) == self.gradient and isinstance(value, float):
            return Tracked(value, (self.name(x),), frozenset({self.name(x)}))
        if isinstance(x, StructValue) and self.slot_name(x, s.detail) == self.gradient and isinstance(value, ArrayValue):
            self.owners[id(value)] = self.name(x)
            self.alive.append(value)
        return value

    def set_field(self, m, s, x, value):
        name = self.slot_name(x, s.detail)
        if name == self.gradient and isinstance(value, ArrayValue):
            old, owner = x.slots[s.detail].items, self.owners.get(id(value))
            for i, number in enumerate(value.items):
                if owner is not None and not isinstance(number, Tracked):
                    number = Tracked(number, (owner,))
                self.write(s, self.name(x), name, old[i] if i < len(old) else 0.0, number, i)
                value.items[i] = float(number)
        if name in (self.gradient, self.value) and isinstance(value, float):
            self.write(s, self.name(x), name, x.slots[s.detail], value)
            return run_rules["set_field"](m, s, x, float(value))
        if s.ins.dest is None and isinstance(value, StructValue) and id(value) in self.objects and s.ins.args[1:] and "$" in getattr(s.ins.args[1], "root", ""):
            self.emit(s, "write_back", self.name(value))
        return run_rules["set_field"](m, s, x, value)

    def write(self, s, name, field, before, value, element=None):
        edges = _edges([value])
        is_sum = isinstance(value, Tracked) and name in value.terms
        others = [e for e in edges if e != name or not is_sum]
        before, after = (None if before is None else float(before)), float(value)
        if self.phase == "backward" and not any(e.phase == "seed" for e in self.events) and field == self.gradient:
            self.phase = "seed"
        self.emit(s, "accumulate" if is_sum else "overwrite", name, path=field, field=field, before=before, after=after,
                  delta=None if before is None else after - before, edge=others[-1] if others else "", element=element)  # fmt: skip
        self.phase = "backward" if self.phase == "seed" else self.phase

    def store_entry(self, m, x, index):
        found = [name for name in self.stores if m.program.globals[name] is x]
        return f"@{found[0]}[{index}]" if found else None

    def index_get(self, m, s, x, index):
        value = run_rules["index_get"](m, s, x, index)
        if id(x) in self.owners and isinstance(value, float):
            owner = self.owners[id(x)]
            return Tracked(value, (owner,), frozenset({owner}))
        name = self.store_entry(m, x, index) if isinstance(x, DictValue) else None
        return Tracked(value, (name,), frozenset({name})) if name else value

    def index_set(self, m, s, x, index, value):
        name = self.store_entry(m, x, index) if isinstance(x, DictValue) else None
        if id(x) in self.owners:
            self.write(s, self.owners[id(x)], self.gradient, x.items[index], value, index)
            value = float(value)
        elif name:
            self.write(s, name, self.gradient, x.items.get(index), value)
            value = float(value)
        elif isinstance(value, StructValue) and id(value) in self.objects and "$" in getattr(s.ins.args[2], "root", ""):
            self.emit(s, "write_back", self.name(value))
        return run_rules["index_set"](m, s, x, index, value)

    def call(self, m, s, *args):
        if s.origin.function == self.driver:
            self.phase = "backward" if s.ins.name == self.backward else "setup" if s.ins.name.endswith("leaf") else "forward"
            if self.phase == "setup":
                self.returned.append("")
        run_rules["call"](m, s, *args)

    def ret(self, m, s, *value):
        frame = m.frame
        if frame.call is not None and frame.call.origin.function == self.driver and value and id(value[0]) in self.objects:
            (self.leaves if self.phase == "setup" else self.returned).append(self.name(value[0]))
        run_rules["ret"](m, s, *value)


def experiment_driver(em: LocalExecutionManager, name: str, model: str, leaf: str, backward: str, reader: str, node: str = "Value") -> str:
    """Return a driver that makes leaves, runs the model and backward, and returns the gradients that the reader reads."""
    names = [p.name for p in em.definition(model).params]
    lines = [f"  leaf_{n}: {node} = call {leaf}({n})" for n in names]
    lines += [f"  result: {node} = call {model}({', '.join('leaf_' + n for n in names)})", f"  call {backward}(result)"]
    lines += [f"  g_{n}: f64 = call {reader}(leaf_{n})" if reader != "grad" else f"  g_{n}: f64 = get_field leaf_{n}, grad" for n in names]
    lines += [f"  gradients: [f64] = array {', '.join('g_' + n for n in names)}", "  ret gradients"]
    return "\n".join([f"fn {name}({', '.join(n + ': f64' for n in names)}) -> [f64]:", "entry:", *lines, ""])


def record(em: LocalExecutionManager, model: str, inputs: Sequence[float], semantics: str, *, leaf: str = "Value.leaf", backward: str = "backward",
           reader: str = "grad", shared=frozenset(), fuel: int = 10**6, node: str = "Value"):  # fmt: skip
    """Return (trace, gradients by parameter, trap) of one run."""
    driver = f"record_{model}_{backward}"
    if not em.has_function(driver):
        em.compile(experiment_driver(em, driver, model, leaf, backward, reader, node))
    engines = []
    unresolved = em.session.unit_of(driver).module
    stores = tuple(g.name for g in unresolved.globals if isinstance(g.type, Dict) and g.type.value == F64)
    node_type = em.definition(model).params[0].type
    assert isinstance(node_type, Named)

    def make(_backend, host):
        engines.append(Recorder(host, node=node_type.name, driver=driver, backward=backward, unresolved=unresolved, stores=stores))
        return engines[-1]

    options = replace(em.options(backend="interpreter", semantics=semantics, fuel=0, isolated=False), shared=shared)
    names = [p.name for p in em.definition(model).params]
    gradients, trap = [None] * len(names), None
    with em.fork("interpreter", make) as copy, redirect_stdout(io.StringIO()):
        try:
            gradients = copy.run(driver, inputs, options, fuel)[0]
        except Trap as error:
            trap = error
        recorder = engines[0]
    events = tuple(replace(e, occurrence=n) for e, n in number_occurrences(recorder.events))
    homes = dict(zip(recorder.leaves, names))
    if reader != "grad" and stores:
        homes = {f"@{stores[0]}[{i}]": n for i, n in enumerate(names)}
    trace = Trace(events, "interpreter", semantics, root=recorder.returned[-1] if recorder.returned else "", names=homes)
    return trace, dict(zip(names, gradients)), trap


def forward_driver(manager: LocalExecutionManager, model: str, name: str, *, node: str, leaf: str, value: str) -> str:
    """Return the MIR of a driver for the oracles: a function `name` from f64 inputs to the value of the model's result, around parameters that are nodes or f64."""
    function = manager.definition(model)
    lines, args = [], []
    for param in function.params:
        if param.type == Named(node):
            lines.append(f"  leaf_{param.name}: {node} = call {leaf}({param.name})")
            args.append(f"leaf_{param.name}")
        else:
            args.append(param.name)
    inputs = ", ".join(f"{p.name}: f64" for p in function.params)
    lines += [f"  result: {node} = call {model}({', '.join(args)})", f"  result_value: f64 = get_field result, {value}", "  ret result_value"]
    return "\n".join([f"fn {name}({inputs}) -> f64:", "entry:", *lines, ""])

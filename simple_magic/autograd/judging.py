"""Judge an experiment: oracles for each semantics model, verdicts for each run, causes and fixes by further runs, and controls that must fail.

    seen = run_experiment(source, "model", {"x": 3.0, "y": 4.0})
    judged = judge_experiment(seen)
    judged.of("interpreter", "value")     # verdicts by parameter
    judged.is_void                        # a control did not fire: believe nothing

The controls are three programs whose verdict is known: a wrong rule, a lost write, a shared buffer. They go through everything that the experiment went
through, on the same back ends; an instrument that calls one of them ok would call anything ok.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..execution.manager import LocalExecutionManager
from ..mir.diagnostics import LIMIT_KINDS, MirError, Trap
from ..mir.model import Const, const
from ..mir.printer import format_operand
from ..mir.types import F64, I64, Array, Type, format_type
from ..passes.semantics import Site
from .causes import CausalTest, causal_test, copy_fix
from .driver import Driver
from .events import Event, Trace
from .experiment import Experiment, Run, run_experiment
from .oracles import FUEL, Difference, Oracle, Tangent, ask_oracles, numbers_of
from .reruns import InstructionSite, gradients_with_old_values, store_entries
from .replay import Replay, replay
from .verdicts import Gradient, Verdict, first_of, is_right, judge, place

FORWARD = "gradient_forward"
"""The driver of the oracles: the model's value alone, as a function of every number that a gradient is wanted for."""


@dataclass(frozen=True)
class Control:
    """A program that must not be ok: under `semantics`, `parameter` must get `word`."""

    name: str
    backward: str
    semantics: str
    parameter: str
    word: str


@dataclass(frozen=True)
class Fired:
    """What a control got on a back end."""

    control: Control
    backend: str
    got: str

    @property
    def is_right(self) -> bool:
        return self.got == self.control.word


@dataclass(frozen=True)
class Judgement:
    """All verdicts of an experiment: by (back end, semantics model), in the order of the parameters. tests: the causal tests, by (back end, model, parameter)."""

    verdicts: Mapping[tuple[str, str], tuple[Verdict, ...]]
    controls: tuple[Fired, ...] = ()
    tests: Mapping[tuple[str, str, str], CausalTest] = ()  # type: ignore[assignment]

    @property
    def is_void(self) -> bool:
        """Whether a control did not fire, or none was run: then no verdict can be believed."""
        return not self.controls or not all(c.is_right for c in self.controls)

    def of(self, backend: str, semantics: str) -> dict[str, Verdict]:
        return {v.parameter: v for v in self.verdicts[backend, semantics]}

    def words(self) -> frozenset[str]:
        return frozenset(v.word for found in self.verdicts.values() for v in found)

    def first(self, backend: str, semantics: str) -> tuple[Event | None, Event | None]:
        """Return the first cause and the first symptom of a run; None where there is none."""
        return first_of(self.verdicts[backend, semantics])

    def __str__(self) -> str:
        lines = [str(v) for found in self.verdicts.values() for v in found]
        lines += [f"VOID: control {c.control.name} on {c.backend} gave {c.got}, not {c.control.word}" for c in self.controls if not c.is_right]
        return "\n".join(lines)


@dataclass(frozen=True)
class JudgedRun:
    """A run with its verdicts. gradient, value: the fields of a node that hold them."""

    run: Run
    verdicts: tuple[Verdict, ...]
    gradient: str = "grad"
    value: str = "data"

    @property
    def name(self) -> str:
        return f"{self.run.backend}/{self.run.semantics}"

    @cached_property
    def trace(self) -> Trace:
        """The run's trace up to the second training step; empty if it has none."""
        return first_step(self.run.trace or Trace((), self.run.backend, self.run.semantics))

    @cached_property
    def replayed(self) -> Replay:
        return replay(self.trace, self.gradient, self.value)


def judged_runs(seen: Experiment, judged: Judgement) -> tuple[JudgedRun, ...]:
    """Return every run with its verdicts, its trace with the parameters' objects that the verdicts are about."""
    found = []
    for run in seen.runs:
        named = run if run.trace is None else replace(run, trace=replace(run.trace, names=judged_trace(seen, run).names))
        found.append(JudgedRun(named, judged.verdicts[run.backend, run.semantics], seen.options.gradient, seen.options.value))
    return tuple(found)


def judge_experiment(seen: Experiment, *, controls: bool = True, try_fix: bool = False) -> Judgement:
    """Return the verdicts of every run of an experiment.

    controls: run the negative controls too; without them the result is void. try_fix: test the causes, and offer what a run showed to help.
    Raises: MirError for a program that cannot be differentiated.
    """
    oracles: dict[str, Oracle] = {}
    verdicts, tests = {}, {}
    for run in seen.runs:
        if run.semantics not in oracles and not _reached_a_limit(run):
            oracles[run.semantics] = oracle_of(seen, run.semantics)
        found = judge_run(seen, run, oracles.get(run.semantics) or _no_oracle(seen, run.trap))
        if try_fix:
            found, tried = _try_fixes(seen, run, found)
            tests.update(tried)
        verdicts[run.backend, run.semantics] = found
    fired = run_controls(tuple(dict.fromkeys(r.backend for r in seen.runs))) if controls else ()
    return Judgement(verdicts, fired, tests)


# One run


def oracle_of(seen: Experiment, semantics: str, shared: frozenset[Site] = frozenset(), copied: frozenset[Site] = frozenset()) -> Oracle:
    """Return what the oracles say of the model under a semantics model, without the copies in `shared` and with those in `copied`."""
    bench = seen.bench
    assert bench is not None, "an experiment that was made by hand cannot run"
    with bench.manager.fork("interpreter") as manager:
        manager.compile(forward_source(seen), cell="<forward driver>")
        return ask_oracles(manager, FORWARD, _given(bench.driver, seen.inputs), semantics, bench.fuel or FUEL, shared, copied, bench.timeout)


def _reached_a_limit(run: Run) -> bool:
    return run.trap is not None and run.trap.kind in (*LIMIT_KINDS, "out_of_fuel")


def _no_oracle(seen: Experiment, trap: Trap | None) -> Oracle:
    """Return what stands for the oracles of a model of which every run reached a limit: they would run into it, too, again and again."""
    nan, count = math.nan, len(numbers_of(_given(_driver(seen), seen.inputs)))
    return Oracle(nan, (Tangent(nan, nan, True, nan, trap=trap),) * count, (Difference(nan, nan, nan, nan, nan, nan, trap=trap),) * count)


def judge_run(seen: Experiment, run: Run, oracle: Oracle) -> tuple[Verdict, ...]:
    """Return the verdicts of a run, on the gradients before the first update."""
    driver = _driver(seen)
    gradients = {i.name: run.gradients.get(i.name) for i in driver.parameters}
    absent = {name for name, found in gradients.items() if found is None} if run.trap is None else set()
    given: dict[str, Gradient] = {}
    misfits: dict[str, str] = {}
    for i in driver.parameters:
        size = len(seen.inputs[i.name]) if i.is_list else None  # type: ignore[arg-type]
        given[i.name] = _missing(size, run.trap) if gradients[i.name] is None else _fitted(gradients[i.name], size)
        if gradients[i.name] is not None and _length(gradients[i.name]) != (size if i.is_list else 1):
            misfits[i.name] = f"the gradient has {_length(gradients[i.name])} numbers, the parameter {size if i.is_list else 1}"
    found = judge(judged_trace(seen, run), given, oracle, trap=run.trap, gradient=seen.options.gradient, value=seen.options.value,
                  unseen=_unseen(seen))  # fmt: skip
    found = tuple(replace(v, word="wrong", sentence=misfits[name]) if (name := v.parameter.partition("[")[0]) in misfits else v for v in found)
    found = _with_old_values(seen, run, found)
    return tuple(_noted(v, run, v.parameter.partition("[")[0] in absent) for v in found)


MOST_SUSPECTS = 8
"""How many instructions that overwrite values are tried alone."""


def _with_old_values(seen: Experiment, run: Run, found: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Return the verdicts with "clobbered" for "wrong" where the gradient is right as soon as backward sees the values that were overwritten."""
    suspects = {e.time: e for v in found for e in v.suspects}
    if not suspects:
        return found
    sites = tuple(dict.fromkeys(e.site for _, e in sorted(suspects.items())))
    runs = {tried: gradients_with_old_values(seen, run.semantics, tried) for tried in dict.fromkeys((sites, *((s,) for s in sites[:MOST_SUSPECTS])))}
    return tuple(_clobbered(v, runs) if v.suspects else v for v in found)


def _clobbered(verdict: Verdict, runs: Mapping[tuple[InstructionSite, ...], Mapping[str, object]]) -> Verdict:
    tangent = verdict.wanted
    assert tangent is not None
    helping = [sites for sites, gradients in runs.items() if (number := _number_of(gradients, verdict.parameter)) is not None and is_right(number, tangent)]
    if not helping:
        return replace(verdict, note=_and(verdict.note, "with the values that were overwritten it is wrong, too: tried"), suspects=())
    blamed = min(helping, key=len)
    first = next(e for e in verdict.suspects if e.site in blamed)
    reader = next((c.event for c in verdict.contributions if c.event.time > first.time), None)
    sentence = f"event {first.time} ({place(first)}) overwrote the value of {first.object} before backward was done with it"
    if len(blamed) > 1:
        sentence += f", and {len(blamed) - 1} more did the like"
    return replace(verdict, word="clobbered", sentence=sentence, evidence=tuple(e.time for e in (first, reader) if e is not None), cause=first, symptom=reader,
                   note=_and(verdict.note, f"with the old {'value' if len(blamed) == 1 else 'values'} it is the derivative: tried"), suspects=())  # fmt: skip


def _number_of(gradients: Mapping[str, object], parameter: str) -> float | None:
    """Return the number of a parameter, or of one of its elements ("x[2]")."""
    name, _, index = parameter.partition("[")
    found = gradients.get(name)
    if index:
        at = int(index.rstrip("]"))
        found = found[at] if isinstance(found, tuple) and at < len(found) else found if at == 0 else None
    return found if isinstance(found, float) else None


def _and(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def judged_trace(seen: Experiment, run: Run) -> Trace:
    """Return the trace that a run is judged by: its first step, the parameters' objects those whose gradients are read."""
    trace = first_step(run.trace or Trace((), run.backend, run.semantics, dropped=1))
    if seen.options.store and run.trap is None:
        return replace(trace, names=store_entries(seen, run.semantics))
    return replace(trace, names=with_stored_copies(trace)) if seen.options.reader else trace


def _unseen(seen: Experiment) -> str:
    """Return why traces do not show the memory that the reader reads; "" if they do."""
    options, bench = seen.options, seen.bench
    if not options.reader or bench is None or bench.is_reader_followed:
        return ""
    kept = f"neither the field `{options.gradient}` nor `@{options.store}`" if options.store else f"not the field `{options.gradient}`; if it is a global dict, name it as the store"
    return f"the trace does not show where `{options.reader}` reads: {kept}"


def _length(gradient: object) -> int:
    return len(gradient) if isinstance(gradient, tuple) else 1


def _fitted(gradient: object, size: int | None) -> Gradient:
    """Return as many numbers as the parameter has, so that every other parameter is held against its own oracle."""
    numbers: list = list(gradient) if isinstance(gradient, tuple) else [gradient]
    if size is None:
        return numbers[0]
    return (numbers + [0.0] * size)[:size]


def _missing(size: int | None, trap: Trap | None) -> Gradient:
    """Return what stands for a gradient that is absent: nobody wrote one, so there is nothing of it."""
    number = None if trap is not None else 0.0
    return number if size is None else [number] * size


def _noted(verdict: Verdict, run: Run, is_absent: bool) -> Verdict:
    notes = [verdict.note] if verdict.note else []
    if is_absent:
        notes.append("the gradient is absent, not a number")
    if run.is_faithful is False:
        notes.append("the traced run gave other bits than the plain one: what the trace says is void")
    if run.note:
        notes.append(run.note)
    return replace(verdict, note="; ".join(notes), gradient=None if is_absent else verdict.gradient)


def first_step(trace: Trace) -> Trace:
    """Return the part of a trace before the second training step, with the parameters' objects of the first."""
    events = tuple(e for e in trace.events if e.step == 0)
    names: dict[str, str] = {}
    for home, name in trace.names.items():
        if name not in names.values():
            names[home] = name
    return replace(trace, events=events, names=names, dropped=0 if len(events) < len(trace.events) else trace.dropped)


def with_stored_copies(trace: Trace) -> dict[str, str]:
    """Return the parameters' objects with the copies of them that were stored back: a reader may find the parameter in a place that holds one now."""
    names = dict(trace.names)
    by_original = {e.original: trace.names[e.object] for e in trace.events if e.object in trace.names}
    for event in reversed(trace.events):
        if event.kind == "write_back" and not event.source and event.original in by_original:
            names.setdefault(event.object, by_original[event.original])
    return names


def rejudged(seen: Experiment, run: Run, shared: frozenset[Site], copied: frozenset[Site] = frozenset()) -> dict[str, Verdict]:
    """Run again without some copies and with others, and judge that, against oracles that do the same."""
    again = seen.again(run.backend, run.semantics, suppress=shared, force=copied)
    return {v.parameter: v for v in judge_run(seen, again, oracle_of(seen, run.semantics, shared, copied))}


def _try_fixes(seen: Experiment, run: Run, found: tuple[Verdict, ...]) -> tuple[tuple[Verdict, ...], dict[tuple[str, str, str], CausalTest]]:
    tests: dict[tuple[str, str, str], CausalTest] = {}
    known: dict[tuple[frozenset[Site], frozenset[Site]], dict[str, Verdict]] = {}

    def rejudge(shared: frozenset[Site], copied: frozenset[Site] = frozenset()) -> dict[str, Verdict]:
        if (shared, copied) not in known:
            known[shared, copied] = rejudged(seen, run, shared, copied)
        return known[shared, copied]

    fixed = []
    for verdict in found:
        test = causal_test(verdict, rejudge)
        if test is not None:
            tests[run.backend, run.semantics, verdict.parameter] = test
            verdict = replace(verdict, fix=test.fix)
        elif verdict.word == "doubled":
            verdict = replace(verdict, fix=copy_fix(verdict, rejudge))
        fixed.append(verdict)
    return tuple(fixed), tests


# The forward driver


def _driver(seen: Experiment) -> Driver:
    assert seen.bench is not None, "an experiment that was made by hand cannot be judged"
    return seen.bench.driver


def _given(driver: Driver, inputs: Mapping[str, object]) -> list[float | Sequence[float]]:
    """Return what the oracles' driver is called with: what a gradient is wanted for."""
    return [list(map(float, inputs[i.name])) if i.is_list else float(inputs[i.name]) for i in driver.parameters]  # type: ignore[call-overload, arg-type]


def forward_source(seen: Experiment) -> str:
    """Return the MIR of the oracles' driver. Inputs without a gradient are constants in it; the value of an array is the sum, as backward's seed of ones says."""
    driver, node, value = _driver(seen), seen.options.node, seen.options.value
    params, lines, args = [], [], []
    for i in driver.inputs:
        args.append(f"arg_{i.name}")
        if not i.leaf:
            lines.append(f"  arg_{i.name}: {format_type(i.type)} = {_literal(i.type, seen.inputs[i.name])}")
            continue
        params.append(f"in_{i.name}: {'[f64]' if i.is_list else 'f64'}")
        lines.append(f"  arg_{i.name}: {node} = call {i.leaf}(in_{i.name})")
    lines += [f"  result: {node} = call {seen.model}({', '.join(args)})", f"  value = get_field result, {value}"]
    lines += ["  ret value"] if _value_type(seen) == F64 else ["  sum = const 0.0", "  i = const 0", "  n = len value", "  goto head", "head:",
              "  more = lt i, n", "  if more then body else done", "body:", "  x = index_get value, i", "  sum = add sum, x", "  i = add i, 1", "  goto head",
              "done:", "  ret sum"]  # fmt: skip
    return "\n".join([f"fn {FORWARD}({', '.join(params)}) -> f64:", "entry:", *lines, ""])


def _literal(t: Type, value: object) -> str:
    if t == Array(F64):
        return "array " + ", ".join(_literal(F64, x).removeprefix("const ") for x in value)  # type: ignore[attr-defined]
    number: Const = const(t, float(value) if t == F64 else int(value) if t == I64 else value)  # type: ignore[call-overload, arg-type]
    return f"const {format_operand(number)}"


def _value_type(seen: Experiment) -> Type:
    definition = next(t for t in seen.unit.types if t.name == seen.options.node)
    return next(f.type for f in definition.fields if f.name == seen.options.value)  # type: ignore[union-attr]


# Controls

CONTROLS = (
    Control("broken rule", "Probe.backward_broken", "reference", "x", "wrong"),
    Control("lost write", "Probe.backward", "value", "x", "lost"),
    Control("shared buffer", "Probe.backward_shared", "reference", "y", "doubled"),
)
PROBE = """\
# Negative controls: r = x * x + y, and three ways to get it wrong.
class Probe:
  data: f64
  grad: [f64]
  parents: [Probe]

fn Probe.leaf(x: f64) -> Probe:
entry:
  grad: [f64] = array 0.0
  parents: [Probe] = array
  p = new Probe(data: x, grad: grad, parents: parents)
  ret p

fn probe(x: Probe, y: Probe) -> Probe:
entry:
  a = get_field x, data
  b = get_field y, data
  square = mul a, a
  sum = add square, b
  grad: [f64] = array 0.0
  parents: [Probe] = array x, y
  r = new Probe(data: sum, grad: grad, parents: parents)
  ret r

fn Probe.backward_by(self: Probe, factor: f64):
entry:
  one: [f64] = array 1.0
  set_field self, grad, one
  g = index_get self.grad, 0
  x = index_get self.parents, 0
  by_x = mul factor, x.data
  part = mul g, by_x
  for_x: [f64] = array part
  set_field x, grad, for_x
  y = index_get self.parents, 1
  for_y: [f64] = array g
  set_field y, grad, for_y
  ret

# Right, where objects are shared.
fn Probe.backward(self: Probe):
entry:
  call Probe.backward_by(self, 2.0)
  ret

# The derivative of a square, without its 2.
fn Probe.backward_broken(self: Probe):
entry:
  call Probe.backward_by(self, 1.0)
  ret

# The result's buffer serves both parents, and x adds to it.
fn Probe.backward_shared(self: Probe):
entry:
  one: [f64] = array 1.0
  set_field self, grad, one
  buffer = get_field self, grad
  x = index_get self.parents, 0
  y = index_get self.parents, 1
  set_field x, grad, buffer
  set_field y, grad, buffer
  old = index_get x.grad, 0
  by_x = mul 2.0, x.data
  less = sub by_x, 1.0
  new = add old, less
  index_set x.grad, 0, new
  ret
"""


def run_controls(backends: Sequence[str]) -> tuple[Fired, ...]:
    """Run every control on every back end."""
    return tuple(_fired(control, backend) for backend in backends for control in CONTROLS)


def _fired(control: Control, backend: str) -> Fired:
    try:
        with LocalExecutionManager(backend, opt_level=0) as manager:  # Compiling is most of the time.
            seen = run_experiment(PROBE, "probe", {"x": 3.0, "y": 4.0}, runs=((backend, control.semantics),), node="Probe", backward=control.backward,
                                       manager=manager)  # fmt: skip
            judged = judge_experiment(seen, controls=False)
        return Fired(control, backend, judged.of(backend, control.semantics)[control.parameter].word)
    except (MirError, Trap) as error:
        return Fired(control, backend, f"{type(error).__name__}: {error}")

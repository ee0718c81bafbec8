"""The result of a gradient experiment: one object that says in words, tables and pictures what happened to every gradient.

    seen = gradient_experiment(source, "model", {"x": 3.0, "y": 4.0})
    seen                                          # in a notebook: the answer, the table, the graph, and more to unfold
    seen.verdict("interpreter", "value")["x"]     # word, evidence, cause, fix
    seen.graph(), seen.timeline(), seen.memory("x"), seen.divergence(), seen.table(), seen.curves()
    seen.to_json(), seen.save_traces("folder")

The JSON form (`to_json`) is an object with

    format, version       "simple_magic.gradients", 1
    model, inputs         the model's name, and its inputs
    steps, lr             of the training
    is_void, controls     whether a negative control did not fire; for each its name, back end, and the words it had to get and got
    first_difference      the first write of which the first two runs have different numbers, or that only one made: [event or null, event or null]; or null
    runs                  a list: backend, semantics, losses, gradients (by parameter), history (of all steps), values (after the last), trap (kind,
                          message, function, line) or null, is_faithful, note, stdout, events (how many the trace holds), dropped, first_cause and first_symptom
                          (an event or null), verdicts
    verdicts              of each run a list: parameter, word, sentence, gradient, derivative, difference, landed, contributions (event, fate, times, by),
                          chain (events), cause and symptom (event or null), zero, note, fix

Events are the objects of `autograd/events.py`. Numbers that JSON lacks are the strings "nan", "inf", "-inf".
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from ...autograd.events import Divergence, Event, diff
from ...autograd.experiment import Experiment, Run, run_experiment
from ...autograd.judging import Fired, JudgedRun, Judgement, judge_experiment, judged_runs
from ...autograd.verdicts import HOW, Verdict, place
from ...mir.diagnostics import Trap
from ...mir.model import Module
from ..html import Code, Table, code_html, escape, pre_html, table_html
from ..picture import Picture
from .curves import curves_picture, loss_table, value_table
from .marks import VERDICTS
from .table import log_lines, number_text, parameter_table

FORMAT = "simple_magic.gradients"
VERSION = 1
SECTIONS = ("table", "graph", "timeline", "memory", "divergence", "curves", "driver", "tests")
"""What can be shown of a report, by the names of its methods."""


def gradient_experiment(source: str | Mapping | Module | None, model: str = "model", inputs: Mapping[str, object] | None = None, *,
                        controls: bool = True, try_fix: bool = False, **options: object) -> GradientReport:  # fmt: skip
    """Differentiate a model in several modes, judge every gradient, and return what happened to it.

    source: MIR that defines the model (text, JSON or a Module); None: the model is one of the `manager` given. model: its name. inputs: a number, or
    numbers, for each of its parameters. controls: run the programs that must be found wrong, too; without them the result is void.
    try_fix: run again without each copy that is blamed, and offer as a fix what then was right.
    options: backends, models, runs, node, leaf, leaves, backward, value, gradient, reader, store, steps, lr, fuel, timeout, manager, as
    `autograd.experiment.run_experiment` explains them.
    Raises: MirError for a wrong program or one that does not fit, ValueError and TypeError for wrong options and inputs. A trap is part of its run.
    """
    check_options(inputs or {}, options)
    seen = run_experiment(source, model, inputs, **options)  # type: ignore[arg-type]
    return GradientReport(seen, judge_experiment(seen, controls=controls, try_fix=try_fix))


def check_options(inputs: Mapping[str, object], options: Mapping[str, Any], dashes: str = "") -> None:
    """Refuse options of an experiment that contradict each other or its inputs. dashes: what stands before an option's name in messages.

    Raises: ValueError; TypeError for a number of steps that is not whole.
    """
    steps = options.get("steps", 0)
    if not hasattr(steps, "__index__"):
        raise TypeError(f"{dashes}steps must be a whole number, got {steps!r}")
    others = [f"{dashes}{name}" for name in ("backends", "models") if options.get(name) is not None]
    if options.get("runs") is not None and others:
        raise ValueError(f"{dashes}runs names the back end and the model of each run: leave out {' and '.join(others)}")
    unknown = sorted(set(options.get("leaves") or ()) - set(inputs))
    if unknown:
        raise ValueError(f"{dashes}leaves: {unknown[0]} is no input of the model; the inputs given are {', '.join(inputs) or 'none'}")


@dataclass(frozen=True)
class GradientReport:
    """What a gradient experiment found; the module docstring shows its use."""

    experiment: Experiment
    judgement: Judgement
    sections: tuple[str, ...] = ()
    """What is shown unfolded beside the answer."""

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.experiment.runs

    @cached_property
    def judged(self) -> tuple[JudgedRun, ...]:
        """The runs with their verdicts."""
        return judged_runs(self.experiment, self.judgement)

    @cached_property
    def alike(self) -> dict[str, str]:
        """The runs that did the same as an earlier one, event by event and gradient by gradient: its name, by theirs."""
        first: dict[object, str] = {}
        found = {}
        for run in self.judged:
            same = first.setdefault((repr(run.run.gradients), str(run.run.trap), run.trace.events), run.name)
            if same != run.name and run.run.trace is not None:
                found[run.name] = same
        return found

    @property
    def drawn(self) -> tuple[JudgedRun, ...]:
        """The runs that pictures show: all of two; of more, one of those that are alike."""
        return self.judged if len(self.judged) <= 2 else tuple(run for run in self.judged if run.name not in self.alike)

    @property
    def is_void(self) -> bool:
        """Whether a negative control did not fire, or none was run: then nothing here can be believed."""
        return self.judgement.is_void

    def run(self, backend: str, semantics: str) -> Run:
        """Return a run. Raises: KeyError naming the runs."""
        return self.experiment.run(backend, semantics)

    def verdict(self, backend: str, semantics: str) -> dict[str, Verdict]:
        """Return the verdicts of a run by parameter. Raises: KeyError naming the runs."""
        self.run(backend, semantics)
        return self.judgement.of(backend, semantics)

    def words(self) -> frozenset[str]:
        """Return the words of all verdicts."""
        return self.judgement.words()

    # Views

    def table(self) -> Table:
        return parameter_table(self.judged)

    def graph(self) -> Picture:
        from .graph import graph_picture

        return graph_picture(self.drawn, self.experiment.model)

    def timeline(self) -> Picture:
        from .timeline import timeline_picture

        return timeline_picture(self.drawn)

    def memory(self, parameter: str = "") -> Picture:
        """Show the memory before and after, of the first run in which the parameter is not ok. Raises: ValueError naming the parameters."""
        from .memory import memory_picture

        names = [v.parameter for v in self.judged[0].verdicts]
        if parameter and parameter not in names:
            raise ValueError(f"no parameter is named {parameter}; there is: {', '.join(names)}")
        wanted = (r for r in self.judged if any(v.word != "ok" and parameter in ("", v.parameter) for v in r.verdicts))
        return memory_picture(next(wanted, self.judged[0]), parameter)

    def divergence(self) -> Picture | Code:
        """Show where the first two runs part."""
        if len(self.judged) < 2:
            return Code("first divergence", "there is one run: nothing to compare it with")
        from .divergence import divergence_picture

        return divergence_picture(self.judged[0], self.judged[1])

    def curves(self) -> Picture:
        return curves_picture(self.judged, self.experiment.model)

    def driver(self) -> Code:
        """Show the MIR that makes the leaves, calls the model and backward, and reads the gradients."""
        return Code("driver (MIR)", self.experiment.driver)

    def tests(self) -> Code:
        """Show what leaving out the blamed copies changed."""
        found = "\n".join(f"{backend}/{semantics} {test}" for (backend, semantics, _), test in dict(self.judgement.tests).items())
        return Code("causal tests", found or "none was run: ask for them with try_fix (--try-fix)")

    # In words

    @cached_property
    def answer(self) -> str:
        """One sentence for each run, or for those that gave the same: which gradients arrived, and what became of the others."""
        runs_by_text: dict[str, list[str]] = {}
        for run in self.judged:
            groups = [(word, [v.parameter for v in found]) for word, found in _by_word(run.verdicts)]
            if not groups:
                text = "no parameter has a gradient"
            elif len(groups) == 1:
                word, names = groups[0]
                text = f"{_count(len(names))} {VERDICTS[word].text}"
            else:
                text = "; ".join(f"{VERDICTS[word].text}: {_names(names)}" for word, names in groups)
            runs_by_text.setdefault(text, []).append(run.name)
        return "\n".join(f"{', '.join(names)}: {text}" for text, names in runs_by_text.items())

    @property
    def title(self) -> str:
        given = ", ".join(f"{name}={_short(value)}" for name, value in self.experiment.inputs.items())
        losses = dict.fromkeys(number_text(r.loss) for r in self.runs if r.loss is not None)
        return f"gradients of {self.experiment.model}({given})" + (f" = {' or '.join(losses)}" if losses else "")

    @property
    def control_text(self) -> str:
        return control_text(self.judgement.controls)

    def first_text(self) -> str:
        """Return the first cause and the first symptom of every run that has them, with the instructions."""
        runs_by_text: dict[tuple[str, ...], list[str]] = {}
        for run in self.judged:
            text = []
            for what, event in zip(("cause", "symptom"), self.judgement.first(run.run.backend, run.run.semantics)):
                if event is not None:
                    names = [v.parameter for v in run.verdicts if getattr(v, what) == event]
                    text.append(f"first {what}, for {_names(names, 3)}: event {event.time}, {place(event)}: {event.instruction}{_why(event)}")
            runs_by_text.setdefault(tuple(text), []).append(run.name)
        lines = [f"{', '.join(names)}: {line}" for text, names in runs_by_text.items() for line in text]
        return "\n".join(filter(None, [*lines, self.first_difference_text()]))

    @cached_property
    def first_difference(self) -> Divergence | None:
        """The first write of which the first two runs have different numbers, or that only one of them has; None if there is none."""
        return diff(self.judged[0].trace, self.judged[1].trace).symptom if len(self.judged) > 1 else None

    def first_difference_text(self) -> str:
        found = self.first_difference
        if found is None:
            return ""
        event = found.left or found.right
        assert event is not None
        sides = (f"{run.name} wrote {number_text(e.after)}" if e is not None else f"{run.name} wrote nothing"
                 for run, e in zip(self.judged, (found.left, found.right)))  # fmt: skip
        return f"first different number: {place(event)}: {event.instruction}  ({', '.join(sides)})"

    def notes(self) -> list[str]:
        """Return what else there is to say of the runs and verdicts."""
        return [
            *dict.fromkeys(f"{r.name}: {r.run.note}" for r in self.judged if r.run.note),
            *(f"{r.name}: the traced run gave other bits than the plain one: what the trace says is void" for r in self.judged if r.run.is_faithful is False),
            *(f"{', '.join(name for name, other in self.alike.items() if other == same)}: the same as {same}, event by event"
              for same in dict.fromkeys(self.alike.values())),
        ]  # fmt: skip

    def printed(self) -> str:
        """Return what the runs printed, under their names; the same text once."""
        texts: dict[str, list[str]] = {}
        for run in self.judged:
            if run.run.stdout:
                texts.setdefault(run.run.stdout, []).append(run.name)
        return "\n".join(f"{', '.join(names)} printed:\n{text.rstrip()}" for text, names in texts.items())

    def __repr__(self) -> str:
        parts = [self.title, self.answer, repr(self.table())]
        if self.experiment.steps:
            parts += [repr(loss_table(self.judged)), *([repr(value_table(self.judged))] if any(r.values for r in self.runs) else [])]
        whys = [f"{v.parameter} [{r.name}] {v.word}: {v.sentence}" + (f"; {v.note}" if v.note else "") for r in self.judged for v in r.verdicts if v.word != "ok"]
        parts += ["\n".join(whys), self.first_text(), "\n".join(self.notes()), self.control_text, self.printed()]
        parts += [repr(getattr(self, name)()) for name in self.sections if name != "table"]
        return "\n\n".join(part for part in parts if part)

    def hero(self) -> Picture:
        """Return the picture that answers: the graph, or the losses of a training."""
        return self.curves() if self.experiment.steps else self.graph()

    def to_html(self) -> str:
        """Return the report as a page that needs nothing else."""
        return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(self.title)}</title><body style="font-family:sans-serif">{self._html()}</body></html>\n'

    def _repr_mimebundle_(self, include: Container[str] | None = None, exclude: Container[str] | None = None) -> dict[str, object]:
        """Return every form that was asked for; without a wish all but PNG, which would make a saved notebook five times as large."""
        hero = self.hero()
        forms = {"text/plain": self.__repr__, "text/html": self._html, "image/svg+xml": hero.to_svg}
        if include and "image/png" in include:
            forms["image/png"] = hero.to_png  # type: ignore[assignment]
        return {kind: make() for kind, make in forms.items() if (not include or kind in include) and kind not in (exclude or ())}

    def _html(self) -> str:
        parts = [f"<p><b>{escape(self.title)}</b></p>", "<p>" + "<br>".join(map(escape, self.answer.split("\n"))) + "</p>"]
        if self.is_void:
            parts.append(f"<p><b>{escape(self.control_text)}</b></p>")
        if self.experiment.steps:
            parts += [self.curves().to_svg(), table_html(loss_table(self.judged))]
        parts += [table_html(self.table()), *(pre_html(text) for text in (self.first_text(), "\n".join(self.notes())) if text)]
        if not self.experiment.steps:
            parts.append(self.graph().to_svg())
        shown = ("table", "curves") if self.experiment.steps else ("table", "graph")
        folded = [*(["graph"] if self.experiment.steps else []), "timeline", *(["divergence"] if len(self.runs) > 1 else []), "memory", *(["tests"] if dict(self.judgement.tests) else [])]
        parts += [_section_html(name, getattr(self, name)(), is_open=True) for name in self.sections if name not in shown]
        whys = "\n".join(log_lines(self.judged))
        parts.append(code_html("every verdict in one line", whys))
        if self.printed():
            parts.append(code_html("output of the runs", self.printed()))
        if self.experiment.steps and any(r.values for r in self.runs):
            parts.append(_section_html("values after the last step", value_table(self.judged)))
        parts += [_section_html(name, getattr(self, name)()) for name in folded if name not in self.sections]
        parts.append(code_html("driver (MIR): makes the leaves, calls the model and backward, reads the gradients", self.experiment.driver))
        if not self.is_void:
            parts.append(f"<p><small>{escape(self.control_text)}</small></p>")
        return "".join(parts)

    # As data

    def to_json(self) -> dict[str, object]:
        """Return everything as data; the module docstring explains it."""
        controls = [{"name": c.control.name, "backend": c.backend, "wanted": c.control.word, "got": c.got} for c in self.judgement.controls]
        return _json({"format": FORMAT, "version": VERSION, "model": self.experiment.model, "inputs": self.experiment.inputs, "steps": self.experiment.steps,
                      "lr": self.experiment.lr, "is_void": self.is_void, "controls": controls,
                      "first_difference": [_event_json(e) for e in (d.left, d.right)] if (d := self.first_difference) is not None else None,
                      "runs": [self._run_json(r) for r in self.judged]})  # type: ignore[return-value]  # fmt: skip

    def to_json_text(self) -> str:
        """Return `to_json` as text."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"

    def _run_json(self, judged: JudgedRun) -> dict[str, object]:
        run = judged.run
        cause, symptom = self.judgement.first(run.backend, run.semantics)
        return {"backend": run.backend, "semantics": run.semantics, "losses": run.losses, "gradients": run.gradients, "history": run.history,
                "values": run.values, "trap": _trap_json(run.trap), "is_faithful": run.is_faithful, "note": run.note, "stdout": run.stdout,
                "events": len(run.trace.events) if run.trace else 0, "dropped": run.trace.dropped if run.trace else 0,
                "first_cause": _event_json(cause), "first_symptom": _event_json(symptom),
                "verdicts": [_verdict_json(v) for v in judged.verdicts]}  # fmt: skip

    def save_traces(self, folder: str | Path) -> list[Path]:
        """Write the trace of each run as JSON lines (`autograd/events.py`); return the files. A run without a trace has none."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        written = []
        for run in self.runs:
            if run.trace is not None:
                written.append(Path(folder) / f"{self.experiment.model}-{run.backend}-{run.semantics}.jsonl")
                run.trace.save(written[-1])
        return written


def control_text(controls: Sequence[Fired]) -> str:
    """Return whether the negative controls fired, in a sentence."""
    if not controls:
        return "VOID: the negative controls were not run"
    silent = [c for c in controls if not c.is_right]
    if silent:
        return "VOID: " + "; ".join(f"the control `{c.control.name}` on {c.backend} was to be {c.control.word} and is {c.got}" for c in silent)
    names = ", ".join(dict.fromkeys(c.control.name for c in controls))
    return f"negative controls: {len(controls)} of {len(controls)} fired ({names})"


def _by_word(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, list[Verdict]]]:
    """Yield the verdicts of each word, in the order of the words' first parameters."""
    order = list(dict.fromkeys(v.word for v in verdicts))
    for word, found in groupby(sorted(verdicts, key=lambda v: order.index(v.word)), key=lambda v: v.word):
        yield word, list(found)


def _count(number: int) -> str:
    return "the gradient is" if number == 1 else "both gradients are" if number == 2 else f"all {number} gradients are"


def _names(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{x:g}" for x in value[:4]) + (f", ... {len(value)} numbers" if len(value) > 4 else "") + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _why(event: Event) -> str:
    if event.kind == "copy":
        return f"  (here {event.path or event.source} {HOW.get(event.position, 'was copied')})"
    return f"  ({event.kind.replace('_', ' ')}: {number_text(event.before)} became {number_text(event.after)} on object {event.object})" if event.is_write else ""


def _section_html(title: str, view: Picture | Table | Code, *, is_open: bool = False) -> str:
    if isinstance(view, Code):
        return code_html(view.title, view.text, is_open=is_open)
    body = view.to_svg() if isinstance(view, Picture) else table_html(view)
    return f"<details{' open' if is_open else ''}><summary>{escape(TITLES.get(title, title))}</summary>{body}</details>"


TITLES = {"timeline": "timeline: what was written when", "divergence": "where the first two runs part", "memory": "memory: the copy, the write, the death",
          "curves": "losses", "graph": "graph: every contribution of the first step"}  # fmt: skip


def _event_json(event: Event | None) -> dict | None:
    return None if event is None else asdict(event)


def _trap_json(trap: Trap | None) -> dict | None:
    if trap is None:
        return None
    return {"kind": trap.kind, "message": trap.message, "function": trap.origin.function if trap.origin else "", "line": trap.span.line if trap.span else 0}


def _verdict_json(v: Verdict) -> dict[str, object]:
    contributions = [{"event": _event_json(c.event), "fate": c.fate, "times": c.times, "by": _event_json(c.by)} for c in v.contributions]
    return {"parameter": v.parameter, "word": v.word, "sentence": v.sentence, "gradient": v.gradient,
            "derivative": v.wanted.derivative if v.wanted is not None and v.wanted.trap is None else None,
            "difference": v.difference.derivative if v.difference is not None and v.difference.trap is None else None,
            "landed": v.landed, "contributions": contributions, "chain": [_event_json(e) for e in v.chain], "cause": _event_json(v.cause),
            "symptom": _event_json(v.symptom), "zero": v.zero, "note": v.note, "fix": v.fix}  # fmt: skip


def _json(value: object) -> object:
    """Return a value of dicts, lists, numbers and text only, fit for every reader of JSON."""
    if isinstance(value, Mapping):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value

"""Views of a function, a cell and a manager: functions from data to `Table`, `Code` and `Sections`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ..execution.compare import Comparison
from ..execution.export import export
from ..execution.externs import extern_names
from ..execution.manager import LocalExecutionManager, RunOptions
from ..execution.results import CodeInfo
from ..mir.analysis import predecessors, successors
from ..mir.codes import CODES, explain
from ..mir.diagnostics import render
from ..mir.examples import EXAMPLES, SYNTAX
from ..mir.model import EnumDef, Extern, Function, Global, StructDef
from ..mir.ops import GROUPS, OPS, USER_OPS
from ..mir.printer import format_instruction, usage
from ..mir.types import format_type
from .html import Code, Sections, Table, code_html, escape, pre_html, table

VIEWS = ("mir", "unit", "model", "json", "lowered", "ir", "ll", "asm", "wat", "cfg", "timings")
"""What `--show` and `%simple show` can show of a function."""


def function_view(manager: LocalExecutionManager, name: str, view: str, options: RunOptions | None = None) -> Code | Table:
    """Return one view of a function. Raises: ValueError for an unknown view, MirError."""
    options = options or manager.options()
    if view == "cfg":
        return control_flow(manager, name)
    if view == "timings":
        return timings_table(manager.compiled(name, options).timings)
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}; choose among {', '.join(VIEWS)}")
    text = export(manager, name, view, options)
    assert isinstance(text, str)
    return Code(f"{TITLES[view]} of {name}", text)


TITLES = {"mir": "MIR", "unit": "unit (resolved MIR)", "model": "MIR with the model's copies", "json": "JSON", "lowered": "lowered MIR",
          "ir": "LLVM IR as emitted", "ll": "LLVM IR after optimisation", "asm": "assembly (LLVM)",
          "wat": "WebAssembly, as Cranelift gets it"}  # fmt: skip


def control_flow(manager: LocalExecutionManager, name: str) -> Table:
    """Return the blocks of a function with their neighbours and terminators."""
    manager.result_type(name)
    function = manager.session.function(name)
    assert function is not None, "result_type found it"
    before = predecessors(function)
    rows = [(block.label, len(block.instructions), ", ".join(before[block.label]) or "-", ", ".join(successors(block)) or "-",
             format_instruction(block.terminator)) for block in function.blocks]  # fmt: skip
    return table(("block", "instructions", "from", "to", "terminator"), rows, f"control flow of {name}")


def timings_table(timings: Mapping[str, int]) -> Table:
    """Return stages with their times in microseconds."""
    rows = [(stage, f"{elapsed / 1000:,.1f}") for stage, elapsed in timings.items()]
    return table(("stage", "microseconds"), rows, "time per stage")


def status(manager: LocalExecutionManager) -> Table:
    """Return what is in force: engine, reason, level, model, counts. Takes no lock."""
    counts = {kind: sum(1 for _ in manager.session.items(kind)) for kind in (Function, StructDef, EnumDef, Global, Extern)}
    rows = [
        ("back end", manager.backend_name),
        ("why", manager.backend_reason),
        ("optimisation level", manager.opt_level),
        ("semantics", manager.semantics),
        ("functions", counts[Function]),
        ("types", counts[StructDef] + counts[EnumDef]),
        ("globals", counts[Global]),
        ("externs declared", counts[Extern]),
        ("externs available", ", ".join((*(name for name in extern_names() if not name.startswith("rt_")), "rt_* (the execution manager itself)"))),
        ("running", "yes" if manager.is_busy else "no"),
        ("last error", manager.last_error.split("\n")[0] or "-"),
    ]
    return table(("setting", "value"), rows)


def listing(manager: LocalExecutionManager) -> Table:
    """Return every definition with its cell. Takes no lock."""
    rows = []
    for name, definition in manager.session.definitions.items():
        item = definition.item
        if isinstance(item, (Function, Extern)):
            kind, shape = ("function" if isinstance(item, Function) else "extern"), signature_text(item)
        elif isinstance(item, StructDef):
            kind, shape = ("class" if item.is_class else "struct"), ", ".join(f"{f.name}: {format_type(f.type)}" for f in item.fields)
        elif isinstance(item, EnumDef):
            kind, shape = "enum", ", ".join(v.name for v in item.variants)
        else:
            kind, shape = "global", format_type(item.type)
        rows.append((name, kind, shape, definition.cell))
    return table(("name", "kind", "type", "defined in"), rows) if rows else table(("name", "kind", "type", "defined in"), [("-", "", "nothing is defined yet", "")])


def signature_text(item: Function | Extern) -> str:
    """Return `(a: i64) -> f64`."""
    params = ", ".join(f"{p.name}: {format_type(p.type)}" for p in item.params)
    result = format_type(item.result)
    return f"({params})" + ("" if result == "unit" else f" -> {result}")


def opcode_table(name: str | None = None) -> Table | Sections | Code:
    """Return the documentation of one opcode, the page of the syntax for "syntax", or a list of all. Raises: ValueError with near names."""
    if name is None:
        listed = [table(("opcode", "example", "meaning"), [(row.name, EXAMPLES[row.name], row.doc) for row in rows], group)
                  for group, rows in GROUPS.items() if group != "internal"]  # fmt: skip
        return Sections((*listed, Code("more", f"ops NAME tells more of one operation; ops {SYNTAX_PAGE} shows how functions, types, globals and externs are written")))
    if name == SYNTAX_PAGE:
        return Code("Simple MIR by example", SYNTAX)
    if name not in OPS:
        near = get_close_matches(name, (*USER_OPS, SYNTAX_PAGE), 3, 0.7)
        raise ValueError(f"no opcode {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "; ops without a name lists them all"))
    row = OPS[name]
    shapes = [f"({', '.join(format_type(p) for p in s.params)})" + (f" -> {format_type(s.result)}" if s.result else "") for s in row.signatures]
    limits = [f"{variable}: {', '.join(format_type(t) for t in allowed)}" for variable, allowed in row.classes.items()
              if allowed and any(variable in shape for shape in shapes)]  # fmt: skip
    rows = [("written", usage(name)), ("example", EXAMPLES.get(name, "-")), ("types", "\n".join(shapes)), ("where", "; ".join(limits)), ("meaning", row.doc),
            ("traps", ", ".join(row.traps) or "never"), ("effects", ", ".join(sorted(row.effects)) or "none"),
            ("in Simple's own MIR", ", ".join(row.upstream))]  # fmt: skip
    return table((name, ""), [(key, value.replace("\n", " | ")) for key, value in rows if value])


SYNTAX_PAGE = "syntax"
"""The word that asks for the page about the syntax."""


def explanation(code: str) -> Code:
    """Return the paragraph behind a code. Raises: ValueError."""
    wanted = code.strip().upper()
    if wanted not in CODES:
        raise ValueError(f"no code {code!r}; codes look like E0101, and explain without a code lists them")
    return Code(wanted, explain(wanted))


def code_table() -> Table:
    """Return every code with its title."""
    return table(("code", "means"), [(code, info.title) for code, info in CODES.items()])


def comparison_table(comparison: Comparison) -> Table:
    """Return a comparison with one row per model and one column per executor; the last one says whether those agree that had the time to answer."""
    rows = []
    differing = comparison.differing()
    for model in comparison.models:
        runs = comparison.of_model(model)
        answers = {run.executor: run.answer for run in runs}
        verdict = "DIFFER" if model in differing else "timeout" if any(run.is_timeout for run in runs) else "agree"
        rows.append((model, *(answers[e] for e in comparison.executors), verdict))
    args = ", ".join(map(repr, comparison.args))
    return table(("semantics", *comparison.executors, "executors"), rows, f"{comparison.name}({args})")


@dataclass(frozen=True)
class CellResult:
    """What a `%%simple_jit` cell gives back: the value of its entry function, and everything there is to say about it."""

    value: object
    has_value: bool
    entry: str
    """The call that ran, such as `main(20, 22)`."""
    engine: str
    semantics: str
    info: CodeInfo
    signatures: tuple[tuple[str, str, str], ...]
    timings: Mapping[str, int]
    views: tuple[Code | Table, ...] = ()

    def _lines(self) -> list[str]:
        lines = [f"{self.entry} = {self.value!r}   [{self.engine}, {self.semantics}]"] if self.has_value else []
        lines += [f"{name}{shape}" + (f"   {remark}" if remark else "") for name, shape, remark in self.signatures]
        lines += [render(w) for w in self.info.warnings]
        lines += [f"note: {note}" for note in self.info.notes]
        return lines

    def __repr__(self) -> str:
        return "\n\n".join(["\n".join(self._lines()) or "(nothing defined)", *(repr(view) for view in self.views)])

    def _repr_html_(self) -> str:
        parts = []
        if self.has_value:
            parts.append(f"<div><code>{escape(self.entry)}</code> = <b><code>{escape(repr(self.value))}</code></b> "
                         f"<small>{escape(self.engine)}, {escape(self.semantics)}</small></div>")  # fmt: skip
        if self.signatures:
            parts.append("<div>" + "<br>".join(f"<code>{escape(n)}{escape(s)}</code> {escape(r)}" for n, s, r in self.signatures) + "</div>")
        messages = [render(w) for w in self.info.warnings] + [f"note: {n}" for n in self.info.notes]
        if messages:
            parts.append(pre_html("\n".join(messages)))
        parts += [view._repr_html_() if isinstance(view, Table) else code_html(view.title, view.text, is_open=True) for view in self.views]
        return "".join(parts) or "<div>(nothing defined)</div>"


def views_of(manager: LocalExecutionManager, names: Sequence[str], wanted: Sequence[str], options: RunOptions | None = None) -> tuple[Code | Table, ...]:
    """Return the wanted views of every named function."""
    return tuple(function_view(manager, name, view, options) for view in wanted for name in names)

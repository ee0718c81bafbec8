"""The timeline: nodes down, the writes of backward across, one panel for each run and, of two runs, one for what differs.

A column is one write, at the same place in every panel if the runs have it in common (the same instruction, for the same time). A cell says by fill,
glyph and number what became of it. Two lines per panel mark where the first cause and the first symptom lie between the writes. Long timelines leave
out writes that landed with the same number in all runs, and the nodes that only had such; what else does not fit is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...autograd.events import Event
from ...autograd.judging import JudgedRun
from ...autograd.replay import LANDED
from ...autograd.verdicts import first_of, place
from ..picture import BACKGROUND, FAINT, INK, Box, Label, Path, Picture, Shape, shorten, text_width
from .marks import FATES, VERDICTS, Mark
from .parts import Reading, amount, node_of, read

SIZE, SMALL = 11, 10
ROW = 20.0
PAD, MARGIN = 8.0, 16.0
MOST_COLUMNS, MOST_ROWS = 40, 24
WITH_NUMBERS = 900.0
"""Up to this width columns have room for the numbers; beyond, a cell shows its glyph."""
NARROW = 22.0
ROUNDING = 1.04
"""Pixels are whole: characters may be drawn so much wider than they are."""
NAME = 22
BACK = Mark("written back", "\u21a9", "#00509a", "#e2eefb", "3 2")
RESET = Mark("brings nothing in", "0", "#4f4f4f", "#efefef", "2 3")
SAME = Mark("the same in both", "\u00b7", "#4f4f4f", BACKGROUND)
DIFFERENT = Mark("not the same", "\u2260", INK, "#fbf0db")
ONLY = Mark("only in the one run", "1", INK, "#e2eefb")


@dataclass(frozen=True, slots=True)
class Step:
    """One write of backward: to which node, what became of it, and what it brought."""

    event: Event
    node: str
    mark: Mark
    amount: str

    @property
    def key(self) -> tuple[object, ...]:
        return (*self.event.alignment, self.node)


@dataclass
class _Panel:
    reading: Reading
    steps: dict[tuple[object, ...], Step]
    firsts: tuple[Event | None, Event | None] = (None, None)
    names: dict[str, str] = field(default_factory=dict)


def steps_of(reading: Reading) -> Iterator[Step]:
    """Yield the writes of backward in their order; the elements of an array that one instruction wrote in one go are one."""
    flows = {part.event.time: flow for flow in reading.flows for part in flow.parts}
    replayed = reading.run.replayed
    for event in reading.run.trace.events:
        if event.phase not in ("seed", "backward"):
            continue
        flow = flows.get(event.time)
        if flow is not None:
            if event.time == flow.event.time:
                yield Step(event, flow.target, FATES[flow.fate], flow.amount)
        elif event.is_write and replayed.is_gradient(event) and event.element in (None, 0):
            yield Step(event, node_of(replayed, event.original), RESET, amount(event))
        elif event.kind == "write_back" and event.element is None:
            yield Step(event, node_of(replayed, event.original), BACK, BACK.glyph)


def timeline_picture(runs: Sequence[JudgedRun]) -> Picture:
    """Return the timeline of the runs."""
    panels = [_panel(run) for run in runs]
    columns = _columns(panels)
    plain = [key for key in columns if _is_plain(panels, key)]
    shown = columns if len(columns) <= MOST_COLUMNS else [key for key in columns if key not in set(plain)]
    folded, left_out = len(columns) - len(shown), max(0, len(shown) - MOST_COLUMNS)
    shown = shown[:MOST_COLUMNS]
    nodes = _nodes(panels, shown)
    hidden_rows = max(0, len(nodes) - MOST_ROWS)
    nodes = nodes[:MOST_ROWS]
    notes = _notes(folded, left_out, hidden_rows)
    drawing = _Drawing(panels, shown, nodes, notes)
    title = "gradients as they were written: " + " beside ".join(run.name for run in runs)
    return drawing.picture(title, _description(panels), _twin(title, panels, shown, notes))


def _panel(run: JudgedRun) -> _Panel:
    reading = read(run)
    steps = {step.key: step for step in steps_of(reading)}
    return _Panel(reading, steps, first_of(run.verdicts), reading.names)


def _columns(panels: Sequence[_Panel]) -> list[tuple[object, ...]]:
    """Return the columns of all panels: those of the first, and what others have more behind what it follows there."""
    columns: list[tuple[object, ...]] = []
    for panel in panels:
        at, known = 0, {key: i for i, key in enumerate(columns)}
        more: dict[int, list[tuple[object, ...]]] = {}
        for key in panel.steps:
            if key in known:
                at = known[key] + 1
            else:
                more.setdefault(at, []).append(key)
        columns = [key for i in range(len(columns) + 1) for key in (*more.get(i, ()), *columns[i : i + 1])]
    return columns


def _is_plain(panels: Sequence[_Panel], key: tuple[object, ...]) -> bool:
    """Whether a write landed in every run, with the same number."""
    found = [panel.steps.get(key) for panel in panels]
    return all(step is not None and step.mark is FATES[LANDED] for step in found) and len({step.amount for step in found if step is not None}) == 1


def _nodes(panels: Sequence[_Panel], shown: Sequence[tuple[object, ...]]) -> list[str]:
    """Return the nodes of the shown writes: parameters first, then in the order they were written."""
    written = list(dict.fromkeys(panel.steps[key].node for key in shown for panel in panels if key in panel.steps))
    named = list(dict.fromkeys(node for panel in panels for node in panel.names if node in written))
    return named + [node for node in written if node not in named]


def _notes(folded: int, left_out: int, hidden_rows: int) -> list[str]:
    found = [f"writes that landed with the same number in all runs and are not drawn: {folded}"] if folded else []
    if left_out:
        found.append(f"more writes, not drawn: {left_out} (the trace holds them)")
    if hidden_rows:
        found.append(f"more nodes, not drawn: {hidden_rows} (the trace holds them)")
    return found


def _row_name(panels: Sequence[_Panel], node: str) -> str:
    for panel in panels:
        if node in panel.names:
            return panel.names[node]
    label = next((panel.reading.labels[node] for panel in panels if node in panel.reading.labels), "")
    return f"#{node} {label}".rstrip() if not node.startswith("@") else node


def _difference(a: Step | None, b: Step | None) -> Mark | None:
    if a is None and b is None:
        return None
    if a is None or b is None:
        return ONLY
    return SAME if (a.mark, a.amount) == (b.mark, b.amount) else DIFFERENT


@dataclass
class _Drawing:
    panels: Sequence[_Panel]
    columns: Sequence[tuple[object, ...]]
    nodes: Sequence[str]
    notes: Sequence[str]
    shapes: list[Shape] = field(default_factory=list)
    used: dict[str, Mark] = field(default_factory=dict)
    y: float = 0.0

    def picture(self, title: str, description: str, text: str) -> Picture:
        names = [shorten(_row_name(self.panels, node), NAME) for node in self.nodes]
        self.left = MARGIN + max([text_width(name, SIZE) for name in names] + [60.0]) + PAD
        widest = max((text_width(self.cell_text(step, True), SMALL) for panel in self.panels for step in panel.steps.values()), default=0.0)
        wide = max(46.0, widest + 10)
        has_numbers = wide * len(self.columns) <= WITH_NUMBERS
        self.width = wide if has_numbers else NARROW
        self.has_numbers = has_numbers
        right = self.left + self.width * max(1, len(self.columns))
        self.shapes.append(Label(MARGIN, 22, title, 14, is_bold=True))
        self.y = 44.0
        for panel in self.panels:
            self.draw_panel(panel, names)
        if len(self.panels) == 2:
            self.draw_differences(names)
        self.draw_legend()
        labels = [shape for shape in self.shapes if isinstance(shape, Label)]
        reach = max(shape.x + ROUNDING * text_width(shape.text, shape.size) * {"start": 1.0, "middle": 0.5, "end": 0.0}[shape.anchor] for shape in labels)
        return Picture(max(right, reach) + MARGIN, self.y + MARGIN - PAD, title, description, tuple(self.shapes), text)

    def cell_text(self, step: Step, has_numbers: bool) -> str:
        if not has_numbers or step.amount == step.mark.glyph:
            return step.mark.glyph
        return f"{step.mark.glyph} {step.amount}"

    def x(self, column: int) -> float:
        return self.left + self.width * column

    def draw_panel(self, panel: _Panel, names: Sequence[str]) -> None:
        self.shapes.append(Label(MARGIN, self.y, panel.reading.run.name, 12, is_bold=True))
        self.y += 16
        if not panel.steps:
            self.shapes.append(Label(MARGIN, self.y, _nothing(panel), SMALL, FAINT))
            self.y += 26
            return
        top = self.draw_lines(panel)
        self.draw_head([str(panel.steps[key].event.time) if key in panel.steps else "" for key in self.columns])
        start = self.y
        for node, name in zip(self.nodes, names):
            self.draw_row(name)
            for column, key in enumerate(self.columns):
                step = panel.steps.get(key)
                if step is not None and step.node == node:
                    self.draw_cell(column, step.mark, self.cell_text(step, self.has_numbers), f"event {step.event.time}: {step.event.instruction}")
            self.y += ROW
        for x, color, dash in top:
            self.shapes.append(Path(((x, start - 14), (x, self.y)), color, dash, 1.6))
        self.y += 16

    def draw_lines(self, panel: _Panel) -> list[tuple[float, str, str]]:
        """Name the first cause and the first symptom above a panel; return their lines."""
        found = []
        looks = (("first cause", VERDICTS["lost"].color, "5 3"), ("first symptom", VERDICTS["doubled"].color, "2 2"))
        for event, (what, color, dash) in zip(panel.firsts, looks):
            if event is None:
                continue
            before = sum(1 for key in self.columns if key in panel.steps and panel.steps[key].event.time < event.time)
            positions = [i for i, key in enumerate(self.columns) if key in panel.steps]
            column = positions[before] if before < len(positions) else len(self.columns)
            x = self.x(column) - (2 if what == "first cause" else 0)
            where = f"{what}: event {event.time}, {place(event)}"
            self.shapes += [Path(((self.left - 34, self.y), (self.left - 12, self.y)), color, dash, 1.6), Label(self.left - 6, self.y, where, SMALL, color)]
            self.y += 14
            found.append((x, color, dash))
        return found

    def draw_head(self, labels: Sequence[str]) -> None:
        """Number the columns; in narrow ones only those that there is room for."""
        self.shapes.append(Label(self.left - PAD, self.y, "event", SMALL, FAINT, "end"))
        free = self.left
        for column, label in enumerate(labels):
            middle = self.x(column) + self.width / 2
            half = text_width(label, SMALL) / 2
            if label and middle - half >= free:
                self.shapes.append(Label(middle, self.y, label, SMALL, FAINT, "middle"))
                free = middle + half + 4
        self.y += 10

    def draw_row(self, name: str) -> None:
        middle = self.y + ROW / 2
        self.shapes += [Label(self.left - PAD, middle, name, SIZE, INK, "end"),
                        Path(((self.left, middle), (self.x(max(1, len(self.columns))), middle)), "#d9d9d9", line_width=0.7)]  # fmt: skip

    def draw_cell(self, column: int, mark: Mark, text: str, hint: str) -> None:
        self.used[mark.word] = mark
        x = self.x(column)
        self.shapes += [Box(x + 2, self.y + 2, self.width - 4, ROW - 4, mark.fill, mark.color, mark.dash, 1.2, hint=hint),
                        Label(x + self.width / 2, self.y + ROW / 2, text, SMALL, mark.color, "middle")]  # fmt: skip

    def draw_differences(self, names: Sequence[str]) -> None:
        left, right = self.panels
        self.shapes.append(Label(MARGIN, self.y, "what differs", 12, is_bold=True))
        self.y += 14
        for node, name in zip(self.nodes, names):
            self.draw_row(name)
            for column, key in enumerate(self.columns):
                a, b = left.steps.get(key), right.steps.get(key)
                mark = _difference(a, b)
                known = a or b
                if mark is not None and known is not None and known.node == node:
                    self.draw_cell(column, mark, mark.glyph, mark.word)
            self.y += ROW
        self.y += 16

    def draw_legend(self) -> None:
        x = MARGIN
        for mark in self.used.values():
            text = mark.text
            if x > MARGIN and x + 34 + text_width(text, SMALL) > 1000:
                x, self.y = MARGIN, self.y + 18
            self.shapes += [Box(x, self.y - 7, 22, 14, mark.fill, mark.color, mark.dash, 1.2), Label(x + 28, self.y, text, SMALL, mark.color)]
            x += 28 + text_width(text, SMALL) + 18
        self.y += 18
        for note in ("+ is added, = replaces what was there", *self.notes):
            self.shapes.append(Label(MARGIN, self.y, note, SMALL, FAINT))
            self.y += 14


def _nothing(panel: _Panel) -> str:
    run = panel.reading.run.run
    if run.trap is not None:
        return f"the run ended with trap {run.trap.kind}"
    return run.note or ("backward wrote no gradient" if run.trace is not None else "the run has no trace")


def _step_line(step: Step, panels: Sequence[_Panel]) -> str:
    name = _row_name(panels, step.node)
    copy = f", on the copy {step.event.object}" if "." in step.event.object and step.mark is not FATES[LANDED] else ""
    return f"  event {step.event.time}, {place(step.event)}: {name} {step.mark.glyph} {step.amount} ({step.mark.word}{copy}): {step.event.instruction}"


def _twin(title: str, panels: Sequence[_Panel], shown: Sequence[tuple[object, ...]], notes: Sequence[str]) -> str:
    lines = [title]
    for panel in panels:
        lines.append(panel.reading.run.name)
        lines += [f"  {what}: event {e.time}, {place(e)}: {e.instruction}" for what, e in zip(("first cause", "first symptom"), panel.firsts) if e is not None]
        lines += [_step_line(panel.steps[key], panels) for key in shown if key in panel.steps] or [f"  {_nothing(panel)}"]
    if len(panels) == 2:
        differing = [key for key in shown if _difference(*(p.steps.get(key) for p in panels)) in (DIFFERENT, ONLY)]
        lines.append(f"{len(differing)} of the {len(shown)} writes shown differ")
    return "\n".join([*lines, *notes])


def _description(panels: Sequence[_Panel]) -> str:
    parts = []
    for panel in panels:
        words = itertools.groupby(sorted(panel.reading.run.verdicts, key=lambda v: v.word), key=lambda v: v.word)
        parts.append(f"{panel.reading.run.name}: " + ("; ".join(f"{word}: {', '.join(v.parameter for v in found)}" for word, found in words) or "no verdicts"))
    return ". ".join(parts)

"""The side-by-side graph: the same layout for every run, and in it what became of each contribution.

The result is at the top and gradients flow down to the parameters. A node shows its name, operation, value and gradient; an arrow is one contribution,
with a pill that names its fate and number. What was lost hangs beside its node: the dead copy, by a line that names the instruction which made it.
`parts.py` reads the runs, `graph_panel.py` says what each shows, `graph_layout.py` where it stands; here are the whole picture, its legend, and its words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ...autograd.judging import JudgedRun
from ..picture import FAINT, INK, Box, Label, Path, Picture, Shape, shorten, text_width
from .folding import Shown
from .graph_layout import PanelDrawing, Plan
from .graph_panel import DIFFERENT, ROW, SIZE, STUB_WORDS, Key, Panel, Pill, event_line, filled, panel_of, title_of, what_is_shown
from .marks import FATES, VERDICTS, Mark
from .parts import NOWHERE, STUBS, Reading, counted, gradient_text, read

MARGIN, GUTTER = 16, 40
WIDEST = 2600
"""Runs that do not fit beside each other in this width stand under each other."""
MOST_LISTED = 12
"""So many dead copies of a node are listed one by one in words."""


def graph_picture(runs: Sequence[JudgedRun], model: str = "") -> Picture:
    """Return the graphs of some runs of one model, all in the same layout; two in a row where they fit. model: its name, for the title."""
    readings = [read(run) for run in runs]
    names = " beside ".join(r.run.name for r in readings)
    title = f"Gradients of {model}: {names}" if model else f"Gradients: {names}"
    shown = what_is_shown(readings)
    panels = [panel_of(reading, readings, shown) for reading in readings]
    plan = Plan.of(panels, shown)
    text = "\n".join([title, *(line for panel in panels for line in ("", *_twin(panel, shown))), "", *_legend_lines(panels)])
    return _drawn(title, _description(readings, shown), panels, plan, text)


def _drawn(title: str, description: str, panels: Sequence[Panel], plan: Plan, text: str) -> Picture:
    headers = [[panel.reading.run.name, *(part for line in panel.header for part in _long(line, plan.width))] for panel in panels]
    width = max(plan.width, *(text_width(line, 13 if not i else SIZE) for lines in headers for i, line in enumerate(lines)), 160.0)
    columns = 2 if len(panels) > 1 and 2 * width + GUTTER <= WIDEST else 1
    head = 24 + max(len(lines) for lines in headers) * ROW
    shapes: list[Shape] = [Label(MARGIN, MARGIN + 8, shorten(title, 120), 15, is_bold=True)]
    top = MARGIN + 34.0
    for i, panel in enumerate(panels):
        left = MARGIN + (i % columns) * (width + GUTTER)
        for n, line in enumerate(headers[i]):
            shapes.append(Label(left, top + n * ROW + 4, line, SIZE if n else 13, INK if not n else FAINT, is_bold=not n))
        shapes += PanelDrawing(panel, plan, left, top + head).draw()
        if i % columns == 0 and i + 1 < len(panels) and columns == 2:
            x = left + width + GUTTER / 2
            shapes.append(Path(((x, top - 6), (x, top + head + plan.height)), "#c9c9c9", line_width=1))
        if i % columns == columns - 1 or i == len(panels) - 1:
            top += head + plan.height + 30
    whole = max(2 * MARGIN + columns * width + (columns - 1) * GUTTER, 2 * MARGIN + text_width(shorten(title, 120), 15), 420.0)
    legend, top = _legend(panels, MARGIN, top, whole - 2 * MARGIN)
    return Picture(whole, top + MARGIN, title, description, (*shapes, *legend), text)


def _long(line: str, width: float) -> list[str]:
    """Return a note in lines that fit into a width."""
    return filled(line.split(), max(40, int(width / text_width("x", SIZE))))


# The legend


def _used(panels: Sequence[Panel]) -> tuple[list[Mark], list[Mark]]:
    """Return the marks of verdicts and of fates that are in the picture."""
    words = {v.word for panel in panels for v in panel.reading.run.verdicts}
    fates = {f.fate for panel in panels for f in panel.reading.flows}
    verdicts = [mark for word, mark in VERDICTS.items() if word in words]
    if any(DIFFERENT.text in line for panel in panels for text in panel.boxes.values() for line in text.lines):
        verdicts.append(DIFFERENT)
    return verdicts, [mark for fate, mark in FATES.items() if fate in fates]


def _notes(panels: Sequence[Panel]) -> list[str]:
    notes = ["+ is added, = replaces what was there"] if any(panel.pills for panel in panels) else []
    if DIFFERENT in _used(panels)[0]:
        notes.append("\u2260 differs: the gradient is not the same in all runs shown here")
    if any(panel.copies for panel in panels):
        notes.append("dotted line: a dead copy and the instruction that made it")
    if any(key[0] == NOWHERE for panel in panels for key in panel.pills):
        notes.append("?: the trace cannot tell where the number comes from")
    return notes


def _legend_lines(panels: Sequence[Panel]) -> list[str]:
    verdicts, fates = _used(panels)
    return [f"gradients: {', '.join(m.text for m in verdicts)}", f"contributions: {', '.join(m.text for m in fates)}", *_notes(panels)]


def _legend(panels: Sequence[Panel], left: float, top: float, width: float) -> tuple[list[Shape], float]:
    shapes: list[Shape] = []
    verdicts, fates = _used(panels)
    for heading, marks, is_line in (("gradients", verdicts, False), ("contributions", fates, True)):
        if not marks:
            continue
        x, y = left + text_width("contributions", SIZE) + 14, top + 8
        shapes.append(Label(left, y, heading, SIZE, is_bold=True))
        start = x
        for mark in marks:
            wide = 36 + text_width(mark.text, SIZE)
            if x + wide > left + width and x > start:
                x, y = start, y + 20
            shapes.append(Path(((x, y), (x + 26, y)), mark.color, mark.dash, 2) if is_line else Box(x, y - 7, 26, 14, mark.fill, mark.color, mark.dash))
            shapes.append(Label(x + 32, y, mark.text, SIZE, mark.color))
            x += wide + 18
        top = y + 14
    for note in _notes(panels):
        for line in _long(note, width):
            shapes.append(Label(left, top + 8, line, SIZE, FAINT))
            top += ROW
    return shapes, top + 6


# In words


def _twin(panel: Panel, shown: Shown) -> Iterator[str]:
    """Yield everything that the picture shows of a run."""
    reading = panel.reading
    yield reading.run.name
    yield from (f"  {line}" for line in panel.header)
    incoming: dict[str, list[tuple[Key, Pill]]] = defaultdict(list)
    for key, pill in panel.pills.items():
        incoming[key[1]].append((key, pill))
    folds = {fold.name: fold for fold in shown.folds}
    for name in (*shown.nodes, *folds):
        text = panel.boxes[name]
        yield "  " + ", ".join((f"{title_of(reading, name)}", *text.lines[1:]) if name in shown.nodes and len(title_of(reading, name)) > 24 else text.lines)
        copies = reading.copies.get(name, ()) if name in shown.nodes else ()
        listed = copies if len(copies) <= MOST_LISTED else copies[: MOST_LISTED - 1]
        for copy in listed:
            yield f"    dead {copy.title}: {copy.origin}; holds {gradient_text(copy.holds)}"
        if len(listed) < len(copies):
            yield f"    and {len(copies) - len(listed)} more dead copies like these, of {len(copies)} in all: the trace holds them"
        for drawn in panel.copies.get(name, ()):
            if len(drawn.objects) > 1:
                yield f"    {', '.join(drawn.text.lines)}"
        for (source, _, _), pill in incoming[name]:
            origin = STUB_WORDS.get(source) or (title_of(reading, source) if source in shown.nodes else panel.boxes[source].lines[0])
            if len(pill.flows) > 1:
                yield f"    from {origin}: {', '.join(pill.lines)}"
            for flow in pill.flows if name in shown.nodes and (source in STUBS or source in shown.nodes) else pill.flows if len(pill.flows) == 1 else ():
                went = f" to {flow.copy}" if flow.copy else ""
                times = f", arrived {flow.parts[0].times} times" if flow.parts[0].times > 1 else ""
                yield f"    from {origin}: {FATES[flow.fate].glyph} {event_line(flow)}{went}{times}"


def _description(readings: Sequence[Reading], shown: Shown) -> str:
    """Return every verdict in words, the reasons of the first that are not ok, and what is folded."""
    parts = []
    for reading in readings:
        by_word: dict[str, list[str]] = defaultdict(list)
        for v in reading.run.verdicts:
            by_word[v.word].append(v.parameter)
        words = "; ".join(f"{word}: {', '.join(names)}" for word, names in by_word.items())
        reasons = [f"{v.parameter}: {v.sentence}" for v in reading.run.verdicts if v.word != "ok"][:8]
        parts.append(f"{reading.run.name}: {words or 'no verdicts'}." + "".join(f" {reason}." for reason in reasons))
    for fold in shown.folds:
        kinds = ", ".join(f"{count} {word}" for word, count in sorted(fold.problems.items(), key=lambda item: (-item[1], item[0])))
        what = f" with problems ({kinds}); see the table and the trace." if kinds else " without a problem."
        parts.append(f"Not drawn: {counted(len(fold.members), 'node')}{what}")
    return "\n".join(parts)

"""The side-by-side graph: the same layout for every run, and in it what became of each contribution.

The result is at the top and gradients flow down to the parameters. A node shows its name, operation, value and gradient; an arrow is one contribution,
with a pill that names its fate and number. What was lost hangs beside its node: the dead copy, by a line that names the instruction which made it.

One layout serves all runs: it holds every node and every contribution of any of them, pills included, so that nothing can lie on anything else; arrows
are only bent between its rows. `parts.py` reads the runs, `folding.py` says what is drawn of a large graph.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...autograd.judging import JudgedRun
from ...autograd.replay import DOUBLED, ERASED, LANDED, LOST, STALE
from ...autograd.verdicts import Verdict, place
from ..layers import Layout, layered
from ..picture import FAINT, INK, Box, Label, Path, Picture, Shape, shorten, text_width
from .folding import Fold, Shown, folded
from .marks import FATES, VERDICTS, Mark
from .parts import (
    CONSTANT,
    ITSELF,
    NOWHERE,
    OLDER,
    SEED,
    STUBS,
    DeadCopy,
    Flow,
    Numbers,
    Reading,
    apart,
    counted,
    first_difference,
    gradient_text,
    is_array,
    node_of,
    number,
    read,
)

SIZE, SMALL = 11, 10
ROW, SMALL_ROW = 15, 13
PAD = 7
MARGIN, GUTTER = 16, 40
GAP_ACROSS, GAP_DOWN = 14, 20
WIDEST = 2600
"""Runs that do not fit beside each other in this width stand under each other."""
WIDE_ROW = 1200
"""Nodes that pass nothing on stand in several rows if one would be wider than this."""
WRAP = 26
"""Characters in a line that names an instruction."""
MOST_ALONE, MOST_COPIES, FEW_COPIES = 3, 3, 2
"""So many contributions between the same two nodes, and dead copies of a node, are drawn one by one; of a graph with folds, fewer copies."""
MOST_LISTED = 12
"""So many dead copies of a node are listed one by one in words."""
WORST = (LOST, STALE, ERASED, DOUBLED)
DIFFERENT = Mark("differs", "\u2260", INK, "#ffffff")
"""The gradient is not the same in all runs of the picture."""
OK_HERE = "ok here, but not in all runs"
STUB_WORDS = {SEED: "seed", CONSTANT: "constant", NOWHERE: "?", ITSELF: "itself"}
STUB_HINTS = {SEED: "the write that starts backward", CONSTANT: "no gradient took part", NOWHERE: "unknown: the trace cannot tell where this number comes from",
              ITSELF: "the node's own gradient, changed"}  # fmt: skip
Key = tuple[str, str, int]
"""A pill: (source, target, which of the contributions between them)."""


@dataclass(frozen=True, slots=True)
class _Text:
    """A block of lines in a frame. mark: how the frame looks; bold: lines of which the whole text stands out."""

    lines: tuple[str, ...]
    mark: Mark
    bold: frozenset[int] = frozenset()
    colored: frozenset[int] = frozenset()
    hint: str = ""

    @property
    def width(self) -> float:
        return max(text_width(line, SIZE) for line in self.lines) + 2 * PAD

    @property
    def height(self) -> float:
        return len(self.lines) * ROW + PAD


@dataclass(frozen=True, slots=True)
class _Pill:
    """The mark of one contribution, or of several. stub: what stands for a source that is no node."""

    lines: tuple[str, ...]
    mark: Mark
    flows: tuple[Flow, ...]
    stub: str = ""

    @property
    def width(self) -> float:
        return max(*(text_width(line, SIZE) for line in self.lines), text_width(self.stub, SMALL)) + 12

    @property
    def height(self) -> float:
        return len(self.lines) * ROW + 3 + (SMALL_ROW + 9 if self.stub else 0)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A dead copy: the lines of the label on the edge to it, and its box."""

    label: tuple[str, ...]
    text: _Text
    objects: tuple[str, ...]

    @property
    def width(self) -> float:
        return max(*(text_width(line, SMALL) for line in self.label), self.text.width)

    @property
    def height(self) -> float:
        return len(self.label) * SMALL_ROW + 4 + self.text.height + 8


@dataclass
class _Panel:
    """Everything one run shows: boxes by node or fold, pills by key, dead copies by node."""

    reading: Reading
    boxes: dict[str, _Text] = field(default_factory=dict)
    pills: dict[Key, _Pill] = field(default_factory=dict)
    copies: dict[str, list[_Copy]] = field(default_factory=dict)
    header: tuple[str, ...] = ()


def graph_picture(runs: Sequence[JudgedRun], model: str = "") -> Picture:
    """Return the graphs of some runs of one model, all in the same layout; two in a row where they fit. model: its name, for the title."""
    readings = [read(run) for run in runs]
    names = " beside ".join(r.run.name for r in readings)
    title = f"Gradients of {model}: {names}" if model else f"Gradients: {names}"
    shown = _shown(readings)
    panels = [_panel(reading, readings, shown) for reading in readings]
    plan = _Plan.of(panels, shown)
    text = "\n".join([title, *(line for panel in panels for line in ("", *_twin(panel, shown))), "", *_legend_lines(panels)])
    return _drawn(title, _description(readings, shown), panels, plan, text)


# What is drawn


def _order(node: str) -> tuple[int, int, str]:
    digits = node.rpartition("[")[2].rstrip("]")
    return (node == OLDER, int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else 1 << 62, node)


def _shown(readings: Sequence[Reading]) -> Shown:
    nodes = sorted(set().union(*(r.nodes for r in readings)), key=_order)
    pairs = dict.fromkeys((f.source, f.target) for r in readings for f in r.flows if f.source not in STUBS)
    problems = _problems(readings, nodes)
    roots = {node_of(r.run.replayed, r.run.trace.root) for r in readings if r.run.trace.root}
    kept = roots | {node for r in readings for node in r.names} | {f.target for r in readings for f in r.flows} | {n for pair in pairs for n in pair} | set(problems)
    parameters = [node for node in nodes if any(node in r.names for r in readings)]
    first = []
    for which in ("cause", "symptom"):
        events = [event for r in readings for v in r.run.verdicts if (event := getattr(v, which)) is not None]
        first += [event.original for event in sorted(events, key=lambda e: e.time)[:2]]
    first += [node for node in problems if any(node in r.names for r in readings)][:2]
    return folded(nodes, list(pairs), problems, first, [n for n in nodes if n in roots] + parameters, frozenset(n for n in nodes if n not in kept))


def _problems(readings: Sequence[Reading], nodes: Sequence[str]) -> dict[str, str]:
    """Return the kind of problem of each node that has one, in the order of the run."""
    late = math.inf
    found: list[tuple[float, str, str]] = []
    for reading in readings:
        for node in reading.verdicts:
            word = reading.word(node)
            if word != "ok":
                event = next((v.symptom or v.cause for v in reading.verdicts[node] if v.symptom or v.cause), None)
                found.append((event.time if event else late, node, word))
        found += [(f.event.time, f.target, FATES[f.fate].word) for f in reading.flows if f.fate != LANDED]
    for node in nodes:
        gradients = [reading.gradient(node) for reading in readings]
        if any(first_difference(gradients[0], other)[0] for other in gradients[1:]):
            found.append((late, node, "different"))
        elif any(x is not None and not math.isfinite(x) for x in gradients[0].values()):
            found.append((late, node, "non-finite"))
    words: dict[str, str] = {}
    for _, node, word in sorted(found, key=lambda f: f[0]):
        if word in VERDICTS or node not in words:
            words.setdefault(node, word)
    return words


def _panel(reading: Reading, readings: Sequence[Reading], shown: Shown) -> _Panel:
    panel = _Panel(reading, header=tuple(_header(reading)))
    by_target: dict[str, list[Flow]] = defaultdict(list)
    for flow in reading.flows:
        by_target[flow.target].append(flow)
    for node in shown.nodes:
        panel.boxes[node] = _node_box(reading, readings, node, by_target[node])
        if node in reading.copies:
            panel.copies[node] = _copies(reading.copies[node], by_target[node], FEW_COPIES if shown.folds else MOST_COPIES)
    for fold in shown.folds:
        panel.boxes[fold.name] = _fold_box(reading, readings, fold, by_target)
    groups: dict[tuple[str, str], list[Flow]] = defaultdict(list)
    for flow in reading.flows:
        source = flow.source if flow.source in STUBS else shown.box[flow.source]
        target = shown.box[flow.target]
        if source != target and (source not in STUBS or target in shown.nodes):
            groups[source, target].append(flow)
    for (source, target), flows in groups.items():
        is_plain = target in shown.nodes and (source in STUBS or source in shown.nodes)
        alone = (len(flows) if len(flows) <= MOST_ALONE + 1 else MOST_ALONE) if is_plain else 0
        stub = STUB_WORDS.get(source, "")
        for k, flow in enumerate(flows[:alone]):
            panel.pills[source, target, k] = _pill((flow,), stub)
        if flows[alone:]:
            panel.pills[source, target, alone] = _pill(tuple(flows[alone:]), stub)
    return panel


def _header(reading: Reading) -> Iterator[str]:
    run = reading.run.run
    words = Counter(v.word for v in reading.run.verdicts)
    yield ", ".join(f"{count} {VERDICTS[word].text}" for word, count in words.items()) or "no verdicts"
    if run.trap is not None:
        yield f"the run ended with trap {run.trap.kind}"
    if run.trace is None:
        yield "there is no trace of this run: only what was read of the parameters is known"
    elif not reading.run.trace.is_complete:
        yield f"the trace reached its cap: it lacks {reading.run.trace.dropped} events"
    if run.is_faithful is False:
        yield "the traced run gave other bits than the plain one: what the trace says is void"
    if run.note:
        yield run.note


def _title(reading: Reading, node: str, length: int = 1 << 30) -> str:
    name = "older than the trace" if node == OLDER else reading.names.get(node) or (node if node.startswith("@") else f"#{node}")
    return shorten(name, length)


def _node_box(reading: Reading, readings: Sequence[Reading], node: str, flows: Sequence[Flow]) -> _Text:
    known = next((r for r in (reading, *readings) if node in r.names), reading)
    name, label = _title(known, node, 24), shorten(reading.labels.get(node, ""), 16)
    heading = f"{name}  {label}" if label else name
    if node not in reading.nodes and node not in reading.verdicts:
        return _Text((heading, "not in this run"), Mark("", "", FAINT, "#ffffff", "2 3"), frozenset({0}))
    lines = [heading]
    if node in reading.values:
        lines.append(f"value {number(reading.values[node])}")
    if node in reading.changed:
        lines.append(f"overwritten by {number(reading.changed[node])}")
    gradient = reading.gradient(node)
    others = [r.gradient(node) for r in readings]
    differs = [first_difference(gradient, other) for other in others]
    is_different = any(d for d, _ in differs)
    wrong = reading.wrong(node)
    lines += _gradient_lines(gradient, others, is_different, wrong)
    first_mark = len(lines)
    if is_different:
        elements = [e for d, e in differs if d and e is not None]
        lines.append(DIFFERENT.text + (f", first at [{min(elements)}]" if elements and is_array(gradient) else ""))
    word = reading.word(node)
    verdicts = reading.verdicts.get(node, ())
    bad = next((fate for fate in WORST if any(f.fate == fate for f in flows)), None)
    mark = VERDICTS[word] if word else FATES[bad] if bad else DIFFERENT if is_different else Mark("", "", FAINT, "#ffffff")
    counts = Counter(v.word for v in verdicts)
    for each, count in sorted(counts.items(), key=lambda item: tuple(VERDICTS).index(item[0])):
        lines.append(VERDICTS[each].text if len(verdicts) == 1 else f"{VERDICTS[each].glyph} {count} of {len(verdicts)} {each}")
    for v in verdicts[:1]:
        lines += _because(reading, v, node)
    return _Text(tuple(lines), mark, frozenset({0, *range(first_mark, len(lines))}), frozenset(range(first_mark + is_different, len(lines))),
                 hint="; ".join(v.sentence for v in verdicts[:3]))  # fmt: skip


def _gradient_lines(gradient: Numbers, others: Sequence[Numbers], is_different: bool, wrong: Mapping[int | None, tuple[float | None, float]]) -> list[str]:
    shown = gradient_text(gradient)
    if is_different and not is_array(gradient) and any(other is not gradient and gradient_text(other) == shown and other != gradient for other in others):
        shown = f"gradient {next(iter(gradient.values()))!r}"
    if not wrong:
        return shown.split(", ")
    element, (got, wanted) = next(iter(wrong.items()))
    if is_array(gradient):
        texts = ("none", number(wanted)) if got is None else apart(got, wanted)
        return [*shown.split(", "), f"first wrong: [{element}] {texts[0]}", f"wanted {texts[1]}"]
    if got is None:
        return [shown, f"wanted {number(wanted)}"]
    texts = apart(got, wanted)
    return [f"gradient {texts[0]}" if texts[0] != number(got) else shown, f"wanted {texts[1]}"]


def _because(reading: Reading, verdict: Verdict, node: str) -> list[str]:
    """Return the lines that say what another node did to a parameter: shared its memory, or lost its value before backward was done with it."""
    shared, erased = verdict.symptom, verdict.cause
    if verdict.word == "doubled" and shared is not None and shared.original != node:
        return [f"shares memory with {_title(reading, shared.original, 24)}:", *_wrapped(place(shared))]
    if verdict.word == "clobbered" and erased is not None and erased.field == reading.run.value:
        return [f"value of {_title(reading, erased.original, 24)} overwritten:", *_wrapped(place(erased))]
    return []


def _fold_box(reading: Reading, readings: Sequence[Reading], fold: Fold, by_target: Mapping[str, Sequence[Flow]]) -> _Text:
    members = fold.members
    nodes = counted(len(members), "node")
    flows = [flow for member in members for flow in by_target.get(member, ())]
    if fold.problems:
        kinds = Counter(_kind(reading, member, by_target.get(member, ())) for member in members)
        lines = [f"{len(members)} more node{'s' * (len(members) > 1)}, not drawn"]
        lines += [f"{count} {word}" for word, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
        fates = Counter(flow.fate for flow in flows)
        lines += [f"{FATES[fate].glyph} {counted(count, 'contribution')} {FATES[fate].word}" for fate, count in sorted(fates.items()) if fate != LANDED]
        return _Text((*lines, "see the table and the trace"), DIFFERENT if set(kinds) == {OK_HERE} else FATES[LOST], frozenset({0}))
    if not flows and not any(by_target.get(m) for m in members) and not any(m in r.verdicts for r in readings for m in members):
        return _Text((nodes, "without a contribution"), Mark("", "", FAINT, "#ffffff"), frozenset({0}))
    known = [x for member in members for x in reading.gradient(member).values() if x is not None]
    lines = [f"{nodes}, " + ("all equal" if len(readings) > 1 else "nothing lost")]
    if known:
        lines += ["gradients from", f"{number(min(known))} to {number(max(known))}"]
    judged = sum(member in reading.verdicts for member in members)
    if judged:
        lines.append(f"{VERDICTS['ok'].glyph} {counted(judged, 'parameter')} ok")
    if flows:
        lines.append(f"{FATES[LANDED].glyph} {counted(len(flows), 'contribution')} landed")
    return _Text(tuple(lines), Mark("", "", FAINT, "#f4f4f4"), frozenset({0}))


def _kind(reading: Reading, node: str, flows: Sequence[Flow]) -> str:
    """Return the problem that a node has in one run, of which some run has one."""
    word = reading.word(node)
    bad = next((fate for fate in WORST if any(f.fate == fate for f in flows)), None)
    return word if word not in ("", "ok") else FATES[bad].word if bad else OK_HERE


def _copies(copies: Sequence[DeadCopy], flows: Sequence[Flow], most: int) -> list[_Copy]:
    alone = copies if len(copies) <= most else copies[: most - 1]
    mark = FATES[LOST]
    found = []
    for copy in alone:
        lines = copy.title.split(", ")
        held = gradient_text(copy.holds)
        lines += ["its number is not known"] if held == "no gradient" else f"holds {held}".split(", ")
        found.append(_Copy(tuple(_wrapped(copy.origin)), _Text(tuple(lines), mark, frozenset({0})), (copy.object,)))
    rest = copies[len(alone) :]
    if rest:
        objects = {c.object: None for c in rest}
        lost = sum(f.copy in objects for f in flows)
        lines = [f"{len(rest)} more dead copies", f"hold {counted(lost, 'lost contribution')}", "see the table and the trace"]
        found.append(_Copy(tuple(_wrapped("copied likewise, first: " + rest[0].origin)), _Text(tuple(lines), mark, frozenset({0})), tuple(objects)))
    return found


def _pill(flows: tuple[Flow, ...], stub: str) -> _Pill:
    if len(flows) > 1:
        fates = Counter(f.fate for f in flows)
        worst = next((fate for fate in WORST if fate in fates), LANDED)
        lines = [f"{FATES[fate].glyph} {count} {FATES[fate].word}" for fate, count in sorted(fates.items(), key=lambda i: (i[0] != worst, i[0]))]
        return _Pill(tuple(lines), FATES[worst], flows, stub)
    (flow,) = flows
    mark, part = FATES[flow.fate], flow.parts[0]
    lines = f"{mark.glyph} {flow.amount}".split(", ")
    if part.times > 2:
        lines.append(f"arrived {part.times} times")
    if part.by is not None and flow.fate in (ERASED, STALE):
        lines += _wrapped(f"{mark.word}: {place(part.by)}" if flow.fate == ERASED else f"undone: {place(part.by)}")
    return _Pill(tuple(lines), mark, flows, stub)


def _wrapped(text: str) -> list[str]:
    """Return the words that name an instruction in short lines, broken after colons too."""
    parts = re.split(r"(?<=:) ", text)
    return [line for part in parts for line in _filled(re.findall(r"time \d+|\S+", part), WRAP)] or [""]


def _filled(words: Sequence[str], most: int) -> list[str]:
    """Return words in lines of at most `most` characters; a longer word ends in an ellipsis."""
    lines: list[str] = []
    for word in words:
        word = shorten(word, most)
        if lines and len(lines[-1]) + 1 + len(word) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


# The layout


@dataclass(frozen=True)
class _Plan:
    """Where everything is, for all runs. box, stack: sizes of a node's box and of the dead copies beside it; rows: upper and lower edge by centre."""

    layout: Layout
    edges: Mapping[tuple[Key, bool], int]
    box: Mapping[str, tuple[float, float]]
    cell: Mapping[str | Key, tuple[float, float]]
    channels: Mapping[str, int]
    rows: Mapping[float, tuple[float, float]]
    width: float
    height: float

    @classmethod
    def of(cls, panels: Sequence[_Panel], shown: Shown) -> _Plan:
        last = {**{node: _order(node) for node in shown.nodes}, **{fold.name: _order(fold.members[-1]) for fold in shown.folds}}
        names = sorted(last, key=last.__getitem__, reverse=True)  # Gradients come from the nodes that were made last.
        at = {name: i for i, name in enumerate((*STUBS, *names))}
        keys = sorted({key for panel in panels for key in panel.pills}, key=lambda k: (at[k[0]], at[k[1]], k[2]))
        box: dict[str, tuple[float, float]] = {}
        cell: dict[str | Key, tuple[float, float]] = {}
        channels: dict[str, int] = {}
        for name in names:
            texts = [panel.boxes[name] for panel in panels]
            box[name] = (max(t.width for t in texts), max(t.height for t in texts))
            stacks = [panel.copies[name] for panel in panels if name in panel.copies]
            channels[name] = max((len(s) for s in stacks), default=0)
            across = max((c.width for s in stacks for c in s), default=0.0)
            down = max((sum(c.height for c in s) for s in stacks), default=0.0)
            cell[name] = (box[name][0] + (30 + across + 10 + 8 * channels[name] if stacks else 0), max(box[name][1], down))
        for key in keys:
            pills = [panel.pills[key] for panel in panels if key in panel.pills]
            cell[key] = (max(p.width for p in pills), max(p.height for p in pills))
        pairs: list[tuple[str | Key, str | Key]] = []
        edges: dict[tuple[Key, bool], int] = {}
        for key in keys:
            if key[0] not in STUBS:
                edges[key, True] = len(pairs)
                pairs.append((key[0], key))
            edges[key, False] = len(pairs)
            pairs.append((key, key[1]))
        items: list[str | Key] = [*names, *keys]
        sizes = {item: (h, w) for item, (w, h) in cell.items()}
        layout = layered(items, pairs, sizes, gap_x=GAP_DOWN, gap_y=GAP_ACROSS, longest_bent=len(cell))
        more = _in_more_rows(layout, names, keys, cell)
        if more:
            layout = layered(items, [*pairs, *more], sizes, gap_x=GAP_DOWN, gap_y=GAP_ACROSS, longest_bent=len(cell))
        layout = _mirrored(layout)
        rows: dict[float, tuple[float, float]] = {}
        for item, (y, _) in layout.centres.items():
            half = cell[item][1] / 2
            top, bottom = rows.get(y, (y, y))
            rows[y] = (min(top, y - half), max(bottom, y + half))
        return cls(layout, edges, box, cell, channels, rows, layout.height, layout.width)

    def corner(self, item: str | Key) -> tuple[float, float]:
        """Return the left upper corner of what an item takes up."""
        y, x = self.layout.centres[item]
        width, height = self.cell[item]
        return x - width / 2, y - height / 2

    def row(self, item: str | Key) -> tuple[float, float]:
        return self.rows[self.layout.centres[item][0]]

    def bends(self, key: Key, is_upper: bool) -> list[tuple[float, float]]:
        return [(x, y) for y, x in self.layout.bends[self.edges[key, is_upper]]]


def _in_more_rows(layout: Layout[str | Key], names: Sequence[str], keys: Sequence[Key],
                  cell: Mapping[str | Key, tuple[float, float]]) -> list[tuple[str, str | Key]]:  # fmt: skip
    """Return edges that are not drawn, by which those nodes of a row that pass nothing on stand in several rows if one would be too wide."""
    sources = {key[0] for key in keys}
    rows: dict[float, list[str]] = defaultdict(list)
    for name in names:
        if name not in sources:
            rows[layout.centres[name][0]].append(name)
    pushed: list[tuple[str, str | Key]] = []
    for row in rows.values():
        width = sum(cell[name][0] + GAP_ACROSS for name in row)
        count = math.ceil(len(row) / math.ceil(width / WIDE_ROW))
        row.sort(key=lambda name: layout.centres[name][1], reverse=True)
        for i, name in enumerate(row[count:], count):
            above = row[i - count]
            pushed += [(above, key) for key in keys if key[1] == name] or [(above, name)]
    return pushed


def _mirrored(layout: Layout[str | Key]) -> Layout[str | Key]:
    """Return the layout with left and right exchanged: what was made first is to the left."""
    width = layout.height
    centres = {item: (y, width - x) for item, (y, x) in layout.centres.items()}
    bends = {number: tuple((y, width - x) for y, x in points) for number, points in layout.bends.items()}
    return replace(layout, centres=centres, bends=bends)


class _Drawing:
    """The shapes of one run at a place."""

    def __init__(self, panel: _Panel, plan: _Plan, left: float, top: float) -> None:
        self.panel, self.plan, self.left, self.top = panel, plan, left, top
        self.lines: list[Shape] = []
        self.shapes: list[Shape] = []

    def draw(self) -> list[Shape]:
        for name, text in self.panel.boxes.items():
            x, y = self.plan.corner(name)
            self.frame(text, x, y, *self.plan.box[name])
            self.stack(name, x + self.plan.box[name][0], y)
        ports = self.ports()
        for key, pill in self.panel.pills.items():
            self.pill(key, pill)
            self.arrow(key, pill, ports)
        return [*self.lines, *self.shapes]

    def box(self, x: float, y: float, width: float, height: float, mark: Mark, hint: str = "", radius: float = 4) -> None:
        self.shapes.append(Box(self.left + x, self.top + y, width, height, mark.fill, mark.color, mark.dash, 1.5, radius, hint))

    def label(self, x: float, y: float, text: str, size: float, color: str = INK, anchor: str = "start", is_bold: bool = False) -> None:
        self.shapes.append(Label(self.left + x, self.top + y, text, size, color, anchor, is_bold))

    def path(self, points: Sequence[tuple[float, float]], mark: Mark, has_arrow: bool, hint: str = "") -> None:
        moved = [(self.left + x, self.top + y) for x, y in points]
        kept = [p for i, p in enumerate(moved) if not i or p != moved[i - 1]]
        self.lines.append(Path(tuple(kept), mark.color, mark.dash, 1.5, has_arrow, hint))

    def frame(self, text: _Text, x: float, y: float, width: float, height: float) -> None:
        self.box(x, y, width, height, text.mark, text.hint)
        for i, line in enumerate(text.lines):
            color = text.mark.color if i in text.colored else INK
            self.label(x + PAD, y + PAD / 2 + (i + 0.5) * ROW, line, SIZE, color, is_bold=i in text.bold)

    def stack(self, name: str, right: float, top: float) -> None:
        """Draw the dead copies of a node, each hanging off it by an edge that names what made it."""
        y = top
        for copy in self.panel.copies.get(name, ()):
            for line in copy.label:
                self.label(right + 30, y + SMALL_ROW / 2, line, SMALL, FAINT)
                y += SMALL_ROW
            y += 4
            middle = y + copy.text.height / 2
            way = [(right, top + 12), (right + 14, top + 12), (right + 14, middle), (right + 30, middle)]
            self.path(way, Mark("", "", FAINT, "none", "2 2"), True, copy.text.lines[0])
            self.frame(copy.text, right + 30, y, copy.text.width, copy.text.height)
            y += copy.text.height + 8

    def pill(self, key: Key, pill: _Pill) -> None:
        centre = self.plan.layout.centres[key][1]
        x, y = centre - pill.width / 2, self.plan.corner(key)[1]
        if pill.stub:
            width = text_width(pill.stub, SMALL) + 8
            self.box(centre - width / 2, y, width, SMALL_ROW + 2, Mark("", "", FAINT, "#ffffff", "2 2" if key[0] == NOWHERE else ""), STUB_HINTS[key[0]], 7)
            self.label(centre, y + SMALL_ROW / 2 + 1, pill.stub, SMALL, anchor="middle")
            y += SMALL_ROW + 2
            self.path([(centre, y), (centre, y + 7)], pill.mark, False)
            y += 7
        height = len(pill.lines) * ROW + 3
        self.box(x, y, pill.width, height, Mark("", "", pill.mark.color, pill.mark.fill), "; ".join(_event_line(f) for f in pill.flows[:3]), 7)
        for i, line in enumerate(pill.lines):
            self.label(centre, y + 1.5 + (i + 0.5) * ROW, line, SIZE, pill.mark.color, "middle")

    def is_down(self, a: str | Key, b: str | Key) -> bool:
        return self.plan.layout.centres[a][0] <= self.plan.layout.centres[b][0]

    def ports(self) -> dict[tuple[Key, bool], float]:
        """Return where along a node's edge each arrow begins or ends: in the order of where they come from."""
        sides: dict[tuple[str, bool], list[tuple[float, Key, bool]]] = defaultdict(list)
        for key, pill in self.panel.pills.items():
            here = self.plan.layout.centres[key][1]
            if key[0] not in STUBS:
                bends = self.plan.bends(key, True)
                sides[key[0], self.is_down(key[0], key)].append((bends[0][0] if bends else here, key, True))
            if self.dead(key, pill) is None:
                bends = self.plan.bends(key, False)
                sides[key[1], not self.is_down(key, key[1])].append((bends[-1][0] if bends else here, key, False))
        found = {}
        for (name, _), ends in sides.items():
            x, width = self.plan.corner(name)[0], self.plan.box[name][0]
            for i, (_, key, is_upper) in enumerate(sorted(ends)):
                found[key, is_upper] = x + width * (i + 1) / (len(ends) + 1)
        return found

    def dead(self, key: Key, pill: _Pill) -> int | None:
        """Return which dead copy a contribution went to; None if it went to the node."""
        objects = {flow.copy for flow in pill.flows}
        if objects == {""}:
            return None
        copies = self.panel.copies.get(key[1], ())
        return next((i for i, copy in enumerate(copies) if objects & set(copy.objects)), None)

    def leg(self, item: str | Key, x: float, is_lower: bool, y: float) -> list[tuple[float, float]]:
        """Return the way from the edge of an item straight to the edge of its row."""
        return [(x, y), (x, self.plan.row(item)[is_lower])]

    def arrow(self, key: Key, pill: _Pill, ports: Mapping[tuple[Key, bool], float]) -> None:
        source, target, _ = key
        middle, (_, top) = self.plan.layout.centres[key][1], self.plan.corner(key)
        bottom = top + pill.height
        hint = "; ".join(_event_line(f) for f in pill.flows[:3])
        if source not in STUBS:
            is_down = self.is_down(source, key)
            edge = self.plan.corner(source)[1] + (self.plan.box[source][1] if is_down else 0)
            start = self.leg(source, ports[key, True], is_down, edge)
            end = self.leg(key, middle, not is_down, top if is_down else bottom)
            self.path([*start, *self.plan.bends(key, True), *reversed(end)], pill.mark, False, hint)
        is_down = self.is_down(key, target)
        start = self.leg(key, middle, is_down, bottom if is_down else top)
        dead = self.dead(key, pill)
        if dead is None:
            edge = self.plan.corner(target)[1] + (0 if is_down else self.plan.box[target][1])
            end = self.leg(target, ports[key, False], not is_down, edge)
            self.path([*start, *self.plan.bends(key, False), *reversed(end)], pill.mark, True, hint)
            return
        x, y = self.plan.corner(target)
        right = x + self.plan.box[target][0] + 30
        channel = x + self.plan.cell[target][0] - 4 - 8 * (self.plan.channels[target] - 1 - dead)
        copies = self.panel.copies[target]
        y += sum(c.height for c in copies[:dead]) + len(copies[dead].label) * SMALL_ROW + 4 + copies[dead].text.height / 2
        end = [(channel, self.plan.row(target)[not is_down]), (channel, y), (right + copies[dead].text.width, y)]
        self.path([*start, *self.plan.bends(key, False), *end], pill.mark, True, hint)


def _drawn(title: str, description: str, panels: Sequence[_Panel], plan: _Plan, text: str) -> Picture:
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
        shapes += _Drawing(panel, plan, left, top + head).draw()
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
    return _filled(line.split(), max(40, int(width / text_width("x", SIZE))))


# The legend


def _used(panels: Sequence[_Panel]) -> tuple[list[Mark], list[Mark]]:
    """Return the marks of verdicts and of fates that are in the picture."""
    words = {v.word for panel in panels for v in panel.reading.run.verdicts}
    fates = {f.fate for panel in panels for f in panel.reading.flows}
    verdicts = [mark for word, mark in VERDICTS.items() if word in words]
    if any(DIFFERENT.text in line for panel in panels for text in panel.boxes.values() for line in text.lines):
        verdicts.append(DIFFERENT)
    return verdicts, [mark for fate, mark in FATES.items() if fate in fates]


def _notes(panels: Sequence[_Panel]) -> list[str]:
    notes = ["+ is added, = replaces what was there"] if any(panel.pills for panel in panels) else []
    if DIFFERENT in _used(panels)[0]:
        notes.append("\u2260 differs: the gradient is not the same in all runs shown here")
    if any(panel.copies for panel in panels):
        notes.append("dotted line: a dead copy and the instruction that made it")
    if any(key[0] == NOWHERE for panel in panels for key in panel.pills):
        notes.append("?: the trace cannot tell where the number comes from")
    return notes


def _legend_lines(panels: Sequence[_Panel]) -> list[str]:
    verdicts, fates = _used(panels)
    return [f"gradients: {', '.join(m.text for m in verdicts)}", f"contributions: {', '.join(m.text for m in fates)}", *_notes(panels)]


def _legend(panels: Sequence[_Panel], left: float, top: float, width: float) -> tuple[list[Shape], float]:
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


def _event_line(flow: Flow) -> str:
    where = f"event {flow.event.time}, {place(flow.event)}"
    by = flow.parts[0].by
    return f"{flow.amount} {FATES[flow.fate].word} ({where}" + (f"; by event {by.time}, {place(by)}" if by is not None else "") + ")"


def _twin(panel: _Panel, shown: Shown) -> Iterator[str]:
    """Yield everything that the picture shows of a run."""
    reading = panel.reading
    yield reading.run.name
    yield from (f"  {line}" for line in panel.header)
    incoming: dict[str, list[tuple[Key, _Pill]]] = defaultdict(list)
    for key, pill in panel.pills.items():
        incoming[key[1]].append((key, pill))
    folds = {fold.name: fold for fold in shown.folds}
    for name in (*shown.nodes, *folds):
        text = panel.boxes[name]
        yield "  " + ", ".join((f"{_title(reading, name)}", *text.lines[1:]) if name in shown.nodes and len(_title(reading, name)) > 24 else text.lines)
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
            origin = STUB_WORDS.get(source) or (_title(reading, source) if source in shown.nodes else panel.boxes[source].lines[0])
            if len(pill.flows) > 1:
                yield f"    from {origin}: {', '.join(pill.lines)}"
            for flow in pill.flows if name in shown.nodes and (source in STUBS or source in shown.nodes) else pill.flows if len(pill.flows) == 1 else ():
                went = f" to {flow.copy}" if flow.copy else ""
                times = f", arrived {flow.parts[0].times} times" if flow.parts[0].times > 1 else ""
                yield f"    from {origin}: {FATES[flow.fate].glyph} {_event_line(flow)}{went}{times}"


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

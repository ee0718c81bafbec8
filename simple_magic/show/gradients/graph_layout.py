"""Where everything of the side-by-side graph stands, and the shapes of one run there.

One layout serves all runs: it holds every node and every contribution of any of them, pills included, so that nothing can lie on anything else; arrows
are only bent between its rows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..layers import Layout, layered
from ..picture import FAINT, INK, Box, Label, Path, Shape, text_width
from .folding import Shown
from .graph_panel import PAD, ROW, SIZE, SMALL, SMALL_ROW, Key, Panel, Pill, Text, event_line, node_order
from .marks import Mark
from .parts import CONSTANT, ITSELF, NOWHERE, SEED, STUBS

GAP_ACROSS, GAP_DOWN = 14, 20
WIDE_ROW = 1200
"""Nodes that pass nothing on stand in several rows if one would be wider than this."""
STUB_HINTS = {SEED: "the write that starts backward", CONSTANT: "no gradient took part", NOWHERE: "unknown: the trace cannot tell where this number comes from",
              ITSELF: "the node's own gradient, changed"}  # fmt: skip


@dataclass(frozen=True)
class Plan:
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
    def of(cls, panels: Sequence[Panel], shown: Shown) -> Plan:
        last = {**{node: node_order(node) for node in shown.nodes}, **{fold.name: node_order(fold.members[-1]) for fold in shown.folds}}
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


class PanelDrawing:
    """The shapes of one run at a place."""

    def __init__(self, panel: Panel, plan: Plan, left: float, top: float) -> None:
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

    def frame(self, text: Text, x: float, y: float, width: float, height: float) -> None:
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

    def pill(self, key: Key, pill: Pill) -> None:
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
        self.box(x, y, pill.width, height, Mark("", "", pill.mark.color, pill.mark.fill), "; ".join(event_line(f) for f in pill.flows[:3]), 7)
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

    def dead(self, key: Key, pill: Pill) -> int | None:
        """Return which dead copy a contribution went to; None if it went to the node."""
        objects = {flow.copy for flow in pill.flows}
        if objects == {""}:
            return None
        copies = self.panel.copies.get(key[1], ())
        return next((i for i, copy in enumerate(copies) if objects & set(copy.objects)), None)

    def leg(self, item: str | Key, x: float, is_lower: bool, y: float) -> list[tuple[float, float]]:
        """Return the way from the edge of an item straight to the edge of its row."""
        return [(x, y), (x, self.plan.row(item)[is_lower])]

    def arrow(self, key: Key, pill: Pill, ports: Mapping[tuple[Key, bool], float]) -> None:
        source, target, _ = key
        middle, (_, top) = self.plan.layout.centres[key][1], self.plan.corner(key)
        bottom = top + pill.height
        hint = "; ".join(event_line(f) for f in pill.flows[:3])
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

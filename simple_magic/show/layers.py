"""Layered layout of directed graphs (Sugiyama, Tagawa, Toda 1981): deterministic, without recursion, for thousands of nodes.

1. edges that would close a cycle are turned around;  2. a node's layer is the longest way to it;  3. an edge over several layers gets bend points;
4. sweeps down and up order each layer by the mean place of its neighbours;  5. places across the layers are spread so that nothing overlaps.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

N = TypeVar("N", bound=Hashable)
SWEEPS = 6
LONGEST_BENT = 40
"""Edges over more layers than this go straight unless asked for: bend points for all of them would be most of the graph."""


@dataclass(frozen=True)
class Layout(Generic[N]):
    """Centres of nodes and bend points of edges, by number of the edge, from source to target; layers lie along x."""

    centres: Mapping[N, tuple[float, float]]
    bends: Mapping[int, tuple[tuple[float, float], ...]]
    width: float
    height: float


def layered(nodes: Sequence[N], edges: Sequence[tuple[N, N]], sizes: Mapping[N, tuple[float, float]], gap_x: float = 60, gap_y: float = 18,
            longest_bent: int = LONGEST_BENT) -> Layout[N]:  # fmt: skip
    """Return a layout in which layers go from left to right. sizes: (width, height) of each node. Edges between unknown nodes are an error.

    Of a cycle those edges are turned around that lead back to what comes first in `nodes`. longest_bent: edges over more layers go straight.
    """
    index = {node: number for number, node in enumerate(nodes)}
    pairs = _without_cycles(len(nodes), [(index[a], index[b]) for a, b in edges])
    layer = _layers(len(nodes), pairs)
    count = max(layer, default=-1) + 1
    heights = [sizes[node][1] for node in nodes]
    owners: list[int] = []
    chains: list[list[int]] = []
    for number, (a, b) in enumerate(pairs):
        chain = [a]
        if 1 < layer[b] - layer[a] <= longest_bent:
            for between in range(layer[a] + 1, layer[b]):
                chain.append(len(layer))
                layer.append(between)
                heights.append(gap_y / 2)
                owners.append(number)
        chains.append([*chain, b])
    rows: list[list[int]] = [[] for _ in range(count)]
    for point, where in enumerate(layer):
        rows[where].append(point)
    before: list[list[int]] = [[] for _ in layer]
    after: list[list[int]] = [[] for _ in layer]
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            after[a].append(b)
            before[b].append(a)
    _order(rows, before, after)
    places = _places(rows, before, after, heights, gap_y)
    lefts, x = [], 0.0
    widths = [max((sizes[nodes[p]][0] for p in row if p < len(nodes)), default=0.0) for row in rows]
    for width in widths:
        lefts.append(x)
        x += width + gap_x
    middles = [left + width / 2 for left, width in zip(lefts, widths)]
    top = min((places[p] - heights[p] / 2 for p in range(len(layer))), default=0.0)
    centre = [(middles[layer[p]], places[p] - top) for p in range(len(layer))]
    bends = {}
    for number, (chain, (a, _)) in enumerate(zip(chains, edges)):
        inner = chain[1:-1]
        points = [(x, centre[p][1]) for p in inner for x in (lefts[layer[p]], lefts[layer[p]] + widths[layer[p]])]
        bends[number] = tuple(points if chain[0] == index[a] else reversed(points))
    bottom = max((places[p] + heights[p] / 2 - top for p in range(len(layer))), default=0.0)
    return Layout({node: centre[index[node]] for node in nodes}, bends, max(0.0, x - gap_x), bottom)


def _without_cycles(count: int, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the edges with those turned around that lead back on a depth-first walk; a loop at one node goes nowhere."""
    targets: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs:
        targets[a].append(b)
    state = [0] * count
    back: set[tuple[int, int]] = set()
    for root in range(count):
        stack = [(root, iter(targets[root]))] if not state[root] else []
        while stack:
            node, rest = stack[-1]
            state[node] = 1
            for target in rest:
                if state[target] == 1:
                    back.add((node, target))
                elif not state[target]:
                    stack.append((target, iter(targets[target])))
                    break
            else:
                state[node] = 2
                stack.pop()
    return [(b, a) if (a, b) in back else (a, b) for a, b in pairs]


def _layers(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Return the length of the longest way to each node; sources then move next to what they lead to."""
    targets: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in pairs:
        if a != b:
            targets[a].append(b)
            waiting[b] += 1
    is_source = [not n for n in waiting]
    layer = [0] * count
    todo = [node for node in range(count) if not waiting[node]]
    for node in todo:
        for target in targets[node]:
            layer[target] = max(layer[target], layer[node] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                todo.append(target)
    for node in range(count):
        if is_source[node] and targets[node]:
            layer[node] = min(layer[t] for t in targets[node]) - 1
    return layer


def _order(rows: list[list[int]], before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> None:
    """Sort each layer by the mean place of its neighbours in the layer before, then behind, some times."""
    place: dict[int, float] = {point: where for row in rows for where, point in enumerate(row)}
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = before if downwards else after
        for row in rows if downwards else reversed(rows):
            means = {p: sum(place[n] for n in neighbours[p]) / len(neighbours[p]) if neighbours[p] else place[p] for p in row}
            row.sort(key=means.__getitem__)
            for where, point in enumerate(row):
                place[point] = where


def _places(rows: list[list[int]], before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], heights: Sequence[float], gap: float) -> list[float]:
    """Return the middle of each point across its layer: near its neighbours, in order, with gaps."""
    place = [0.0] * len(heights)
    for row in rows:
        y = 0.0
        for point in row:
            place[point] = y + heights[point] / 2
            y += heights[point] + gap
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = []
            for point in row:
                near = [*before[point], *after[point]]
                wanted.append(sum(place[n] for n in near) / len(near) if near else place[point])
            _settle(row, wanted, place, heights, gap)
    return place


def _settle(row: Sequence[int], wanted: Sequence[float], place: list[float], heights: Sequence[float], gap: float) -> None:
    """Give the points of a layer the places closest to the wanted ones in the least squares (blocks that touch move as one)."""
    blocks: list[tuple[float, int, list[int]]] = []
    offsets, reach = [], 0.0
    for position, point in enumerate(row):
        if position:
            reach += (heights[row[position - 1]] + heights[point]) / 2 + gap
        offsets.append(reach)
    for position, point in enumerate(row):
        total, count, members = wanted[position] - offsets[position], 1, [point]
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            other, other_count, others = blocks.pop()
            total, count, members = total + other, count + other_count, others + members
        blocks.append((total, count, members))
    position = 0
    for total, count, members in blocks:
        for point in members:
            place[point] = total / count + offsets[position]
            position += 1

"""Which nodes of a large graph are drawn, and what stands for the others.

Equal and all-ok parts fold, each connected part into one, apart from what lies before and behind the next drawn nodes. A node with a problem never folds
as long as there is room, nor do its neighbours. If there are more problems than a picture can show, the first ones stay: where the verdicts say it started
and where it first showed, then in the order of the run; what folds then is counted by kind and said to be a problem.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FOLD_ABOVE = 60
"""Up to so many nodes a graph is drawn whole."""
MANY_PROBLEMS = 16
"""Up to so many nodes with problems are all drawn."""
FIRST_PROBLEMS = 4
"""So many are drawn, with their neighbours, of more."""
MOST_NEIGHBOURS = 4
"""Of the first problems of many; a picture that no screen holds shows nothing."""
MOST_LANDMARKS = 12
"""Of an all-ok graph the result and the parameters are drawn, if they are not more than this."""
MOST_ALONE = 6
"""Parts of a single node are drawn as they are, if they are not more than this."""
MOST_PARTS = 12
"""If more connected parts fold than this, those of one sort and between the same drawn nodes become one, in the end all of one sort."""


@dataclass(frozen=True)
class Fold:
    """Nodes that one box stands for. problems: how many have which problem; empty if all are equal and ok."""

    name: str
    members: tuple[str, ...]
    problems: Mapping[str, int]


@dataclass(frozen=True)
class Shown:
    """The nodes that are drawn, the folded parts, and the box that each node is in."""

    nodes: tuple[str, ...]
    folds: tuple[Fold, ...]
    box: Mapping[str, str]


def folded(nodes: Sequence[str], edges: Sequence[tuple[str, str]], problems: Mapping[str, str], first: Sequence[str], landmarks: Sequence[str],
           lonely: frozenset[str]) -> Shown:  # fmt: skip
    """Return what is drawn.

    nodes: in order. problems: the kind of problem of each node that has one, in the order of the run. first: nodes with problems to keep before
    all others. landmarks: the result and the parameters. lonely: nodes without an edge and without a problem, which always fold.
    """
    near: dict[str, list[str]] = defaultdict(list)
    for a, b in edges:
        near[a].append(b)
        near[b].append(a)
    drawn = _drawn(nodes, near, problems, first, lonely)
    if len(landmarks) <= MOST_LANDMARKS and len(drawn) <= FOLD_ABOVE // 2:
        drawn.update(landmarks)
    stretches = _stretches(nodes, near, drawn)
    parts = _parts([n for n in nodes if n not in drawn and n not in lonely], near, {n: (n in problems, stretches[n]) for n in nodes})
    alone = [part for part in parts if len(part) == 1]
    if len(alone) <= MOST_ALONE:
        drawn.update(node for part in alone for node in part)
        parts = [part for part in parts if len(part) > 1]
    if lonely:
        parts.insert(0, tuple(n for n in nodes if n in lonely))
    folds = tuple(Fold(f"fold {i}", members, Counter(problems[m] for m in members if m in problems)) for i, members in enumerate(parts))
    box = {n: n for n in drawn}
    box.update({member: fold.name for fold in folds for member in fold.members})
    return Shown(tuple(n for n in nodes if n in drawn), folds, box)


def _drawn(nodes: Sequence[str], near: Mapping[str, list[str]], problems: Mapping[str, str], first: Sequence[str], lonely: frozenset[str]) -> set[str]:
    if len(nodes) - len(lonely) <= FOLD_ABOVE and len(problems) <= MANY_PROBLEMS:
        return set(nodes) - lonely
    kept = problems
    if len(problems) > MANY_PROBLEMS:
        kept = dict.fromkeys(list(dict.fromkeys((*(n for n in first if n in problems), *problems)))[:FIRST_PROBLEMS], "")
    drawn = set(kept)
    for node in kept:
        for other in near.get(node, ()):
            if len(problems) <= MANY_PROBLEMS or len(drawn) < FIRST_PROBLEMS + MOST_NEIGHBOURS:
                drawn.add(other)
    return drawn


def _parts(rest: Sequence[str], near: Mapping[str, list[str]], sort: Mapping[str, tuple[bool, int]]) -> list[tuple[str, ...]]:
    """Return the connected parts of one sort each; all of one sort as one part if there are too many, in the end all that have problems or none."""
    left, parts = dict.fromkeys(rest), []
    for node in rest:
        if node not in left:
            continue
        del left[node]
        part = [node]
        for member in part:
            for other in near.get(member, ()):
                if other in left and sort[other] == sort[node]:
                    del left[other]
                    part.append(other)
        parts.append(part)
    if len(parts) > MOST_PARTS:
        parts = _merged(parts, sort.__getitem__)
    if len(parts) > MOST_PARTS:
        parts = _merged(parts, lambda node: sort[node][0])
    order = {node: at for at, node in enumerate(rest)}
    return [tuple(sorted(part, key=order.__getitem__)) for part in parts]


def _merged(parts: Sequence[list[str]], key: Callable[[str], object]) -> list[list[str]]:
    found: dict[object, list[str]] = defaultdict(list)
    for part in parts:
        found[key(part[0])] += part
    return list(found.values())


def _stretches(nodes: Sequence[str], near: Mapping[str, list[str]], drawn: set[str]) -> dict[str, int]:
    """Return how many drawn regions stand before each node in order: so what folds lies between them, and no arrow has to go back."""
    order = {node: at for at, node in enumerate(nodes)}
    left, middles = set(drawn), []
    for node in nodes:
        if node not in left:
            continue
        left.remove(node)
        region = [node]
        for member in region:
            found = [other for other in near.get(member, ()) if other in left]
            left.difference_update(found)
            region += dict.fromkeys(found)
        middles.append(sum(order[member] for member in region) / len(region))
    middles.sort()
    return {node: bisect(middles, at) for node, at in order.items()}

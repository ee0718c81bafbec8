"""From a graph of blocks to the nested control flow of WebAssembly.

The order is that of the dominator tree (Ramsey, "Beyond Relooper", 2022), with every block treated as a merge point: a block is followed by the
blocks that it alone dominates, each behind the end of a `block` that its predecessors branch out of; the header of a loop stands behind a `loop`.

    visit(X):  block for each dominated Y outside the loop of X, the last first
               loop, if X is a header
               block for each other dominated Y, the last first
               code of X
               for each Y in order: end, visit(Y);  after those of the loop: end of the loop

This needs a reducible graph: `reducible` gives a loop with several entries a single one first, which switches on a local that says where to go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..mir.analysis import dominators, is_reducible, local_types, natural_loops, reverse_postorder, successors
from ..mir.model import Block, Function, Instruction, Place, const
from ..mir.types import I64
from ..passes.lower_builder import annotate, retarget
from ..passes.polls import components

BLOCK, LOOP, END, CODE = "block", "loop", "end", "code"
"""Kinds of steps. `block` and `loop` open a construct: a branch to the label leaves the block or repeats the loop; `code` stands for the MIR block."""


@dataclass(frozen=True, slots=True)
class Step:
    kind: str
    label: str = ""


def structured(function: Function) -> list[Step]:
    """Return the nested form of a reducible function: every label is in scope, as BLOCK or LOOP, wherever its predecessors' code stands."""
    number = {label: index for index, label in enumerate(reverse_postorder(function))}
    below: dict[str, list[str]] = {label: [] for label in number}
    for label, parent in dominators(function).items():
        if parent is not None:
            below[parent].append(label)
    bodies = {loop.header: loop.body for loop in natural_loops(function)}
    steps: list[Step] = []
    todo: list[Step] = [Step("visit", function.entry.label)]
    while todo:
        step = todo.pop()
        if step.kind != "visit":
            steps.append(step)
            continue
        label = step.label
        children = sorted(below[label], key=number.__getitem__)
        body = bodies.get(label)
        inside = children if body is None else [c for c in children if c in body]
        outside = [] if body is None else [c for c in children if c not in body]
        plan = [Step(BLOCK, c) for c in reversed(outside)]
        if body is not None:
            plan.append(Step(LOOP, label))
        plan += [Step(BLOCK, c) for c in reversed(inside)]
        plan.append(Step(CODE, label))
        for c in inside:
            plan += [Step(END), Step("visit", c)]
        if body is not None:
            plan.append(Step(END))
        for c in outside:
            plan += [Step(END), Step("visit", c)]
        todo += reversed(plan)
    return steps


# Loops with several entries


def reducible(function: Function) -> Function:
    """Return the function with one entry to every loop. A local may then be read where only the former graph shows that it was assigned.

    No block may lead to the function's entry (`polls.poll_loops` sees to that).
    """
    if is_reducible(function):
        return function
    blocks = {block.label: block for block in function.blocks}
    types = local_types(function)
    regions = [set(reverse_postorder(function))]
    count = 0
    while regions:
        region = regions.pop()
        inner = {label: tuple(t for t in successors(blocks[label]) if t in region) for label in region}
        for component in components(inner):
            members = set(component)
            if len(component) == 1 and component[0] not in inner[component[0]]:
                continue
            entries = _entries(blocks, members)
            if len(entries) == 1:
                regions.append(members - {entries[0]})
                continue
            way = Place(f"way${count}")
            types[way.root] = I64
            regions.append(members | _dispatch(blocks, members, entries, f"dispatch${count}", way))
            count += 1
    return replace(function, blocks=annotate(list(blocks.values()), types, function.params))


def _entries(blocks: Mapping[str, Block], members: set[str]) -> list[str]:
    """Return the members that control can reach from outside of them."""
    found: set[str] = set()
    for label, block in blocks.items():
        if label not in members:
            found |= members.intersection(successors(block))
    return sorted(found)


def _dispatch(blocks: dict[str, Block], members: set[str], entries: list[str], header: str, way: Place) -> set[str]:
    """Lead every edge to an entry through a new block `header`; return what the loop has gained, but for the header."""
    gained: set[str] = set()
    sources = list(blocks)
    for index, entry in enumerate(entries):
        origin = blocks[entry].instructions[0].origin
        for is_inside in (False, True):
            leading = [label for label in sources if (label in members) == is_inside and entry in successors(blocks[label])]
            if not leading:
                continue
            between = f"{header}.{index}.{'again' if is_inside else 'enter'}"
            for label in leading:
                blocks[label] = retarget(blocks[label], entry, between)
            set_way = Instruction("const", (const(I64, index),), dest=way.root, origin=origin)
            blocks[between] = Block(between, (set_way, Instruction("goto", labels=(header,), origin=origin)))
            if is_inside:
                gained.add(between)
    cases = tuple(const(I64, index) for index in range(len(entries) - 1))
    origin = blocks[entries[0]].instructions[0].origin
    blocks[header] = Block(header, (Instruction("switch", (way,), labels=tuple(entries), cases=cases, origin=origin),))
    return gained

"""Sharing locals in large lowered functions: two locals of one type that are never needed at the same time become one.

A back end without optimisation gives each local a place on the stack, and lowering makes several for each instruction as written. So a long function
that calls nothing would overflow the stack at once, or exceed what an engine can number. Small functions stay as they are: there optimisers do better.

A local is needed from its first to its last mention in the order of the blocks. If a loop begins or ends in between, its whole body counts, unless all
mentions lie in one region, a tree of blocks that control enters only at the top: what is read there was written there. (Blocks that only leave the function stand behind the one that enters them.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from heapq import heappop, heappush

from ..mir.analysis import local_types, reads, reverse_postorder, successors, writes
from ..mir.model import Block, Function, Instruction, Operand, Place
from ..mir.types import Type
from .lower_builder import annotate

LAST = 1 << 62
MOST_LOCALS = 2_000
"""Functions with more locals share them."""


def share_locals(function: Function) -> Function:
    """Return the lowered function with few locals, if it has many."""
    types = local_types(function)
    if len(types) <= MOST_LOCALS:
        return function
    needed = _needed(_in_order(function))
    params = {p.name for p in function.params}
    renamed = _rename({name: span for name, span in needed.items() if name not in params}, types)
    blocks = [Block(b.label, tuple(_renamed(ins, renamed) for ins in b.instructions), b.span) for b in function.blocks]
    return replace(function, blocks=annotate(blocks, {**types, **{new: types[old] for old, new in renamed.items()}}, function.params))


def _in_order(function: Function) -> list[Block]:
    """Return the blocks, those that only leave the function right behind the first that enters them."""
    blocks = {block.label: block for block in function.blocks}
    order: dict[str, Block] = {}
    for label in reverse_postorder(function):
        block = blocks[label]
        if label in order or not (targets := successors(block)):
            continue
        order[label] = block
        order.update((target, blocks[target]) for target in targets if target not in order and not successors(blocks[target]))
    return [*order.values(), *(block for label, block in blocks.items() if label not in order)]


def _needed(blocks: list[Block]) -> dict[str, tuple[int, int]]:
    """Return the first and the last position at which each local is needed."""
    position, starts, ends = 0, {}, {}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    home: dict[str, str | None] = {}
    region = _regions(blocks)
    for block in blocks:
        starts[block.label] = position
        here = region[block.label]
        for ins in block.instructions:
            for names, is_write in ((reads(ins), False), (writes(ins), True)):
                for name in names:
                    if name not in first:
                        first[name] = position
                        home[name] = here if is_write else None
                    elif home[name] != here:
                        home[name] = None
                    last[name] = position
            position += 1
        ends[block.label] = position - 1
    loops = _merged([(starts[t], ends[b.label]) for b in blocks for t in successors(b) if starts[t] <= starts[b.label]])
    return {name: (first[name], last[name]) if home[name] else _widened(first[name], last[name], loops) for name in first}


def _regions(blocks: list[Block]) -> dict[str, str]:
    """Return the region of each block, by the label of its first block: a tree of blocks that control enters only there."""
    sources: dict[str, list[str]] = defaultdict(list)
    for block in blocks:
        for target in successors(block):
            sources[target].append(block.label)
    region: dict[str, str] = {}
    for block in blocks:
        (*_, source) = sources[block.label] or [""]
        region[block.label] = region.get(source, block.label) if len(sources[block.label]) == 1 else block.label
    return region


def _merged(loops: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return disjoint intervals that cover the loops."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(loops):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def _widened(first: int, last: int, bodies: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the interval with the loops, disjoint and sorted, that its ends lie in."""
    low = bisect_right(bodies, (first, LAST)) - 1
    if low >= 0 and bodies[low][1] >= first:
        first = bodies[low][0]
    high = bisect_right(bodies, (last, LAST)) - 1
    if high >= 0 and bodies[high][1] >= last:
        last = bodies[high][1]
    return first, last


def _rename(needed: Mapping[str, tuple[int, int]], types: Mapping[str, Type]) -> dict[str, str]:
    """Return which local each one becomes: of those of its type that are free by then, any."""
    free: dict[Type, list[str]] = defaultdict(list)
    busy: list[tuple[int, str]] = []
    renamed: dict[str, str] = {}
    for name, (start, end) in sorted(needed.items(), key=lambda item: item[1]):
        while busy and busy[0][0] < start:
            done = heappop(busy)[1]
            free[types[done]].append(done)
        if free[types[name]]:
            renamed[name] = free[types[name]].pop()
        else:
            renamed[name] = name
        heappush(busy, (end, renamed[name]))
    return renamed


def _renamed(ins: Instruction, names: Mapping[str, str]) -> Instruction:
    def operand(arg: Operand) -> Operand:
        return replace(arg, root=names.get(arg.root, arg.root)) if isinstance(arg, Place) else arg

    return replace(ins, args=tuple(map(operand, ins.args)), dest=ins.dest and names.get(ins.dest, ins.dest), unwind=tuple(names.get(n, n) for n in ins.unwind))  # type: ignore[arg-type]

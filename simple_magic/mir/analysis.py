"""Facts about control flow, calls and locals, as functions of the model.

Everything returns new mappings keyed by label or function name; nothing is cached on the model. The functions accept what a user may build by hand:
blocks without instructions or terminators, labels that do not exist (they are ignored) and labels that occur twice (the first one counts).
No function recurses over the control-flow graph or the call graph.

Locals: an instruction first reads its operands from left to right, then assigns `dest`. `invoke` assigns on its edges, see `edge_writes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .model import Block, Function, IndexHop, Instruction, Module, Operand, Place
from .ops import OPS
from .types import I64, Type

NAMES_A_LOCAL = frozenset(name for name, row in OPS.items() if "x" in row.form.split(", "))
"""Operations whose `name` is a local: drop and debug_value."""
CALLS_BY_NAME = frozenset(("call", "invoke"))
MAKES_FUNCTION_VALUE = frozenset(("func", "closure"))
CALLS_A_VALUE = frozenset(("call_indirect", "call_table"))


# Locals


def operand_reads(operand: Operand) -> list[str]:
    """Return the locals that reading the operand reads, the root first, then those in its index hops."""
    if not isinstance(operand, Place):
        return []
    found = [] if operand.is_global else [operand.root]
    for hop in operand.hops:
        if isinstance(hop, IndexHop):
            found += operand_reads(hop.index)
    return found


def reads(ins: Instruction) -> tuple[str, ...]:
    """Return the locals that the instruction reads, in order; a place that is written into reads its root. `drop` and `debug_value` name a local."""
    found = [name for operand in ins.args for name in operand_reads(operand)]
    if ins.op in NAMES_A_LOCAL and ins.name is not None:
        found.append(ins.name)
    return tuple(found)


def writes(ins: Instruction) -> tuple[str, ...]:
    """Return the locals that the instruction assigns; for `invoke`, on whichever edge."""
    return ins.unwind if ins.dest is None else (ins.dest, *ins.unwind)


def unassigns(ins: Instruction) -> tuple[str, ...]:
    """Return the locals that have no value after the operands were read: by `move x` or `drop x`."""
    found = tuple(a.root for a in ins.args if isinstance(a, Place) and a.move and not a.hops and not a.is_global)
    return (*found, ins.name) if ins.op == "drop" and ins.name is not None else found


def edge_writes(ins: Instruction, target: int) -> tuple[str, ...]:
    """Return the locals that a terminator assigns on the edge to `labels[target]`: the result on the normal edge, payload and tag on the other."""
    if ins.op != "invoke":
        return ()
    if target == 0:
        return () if ins.dest is None else (ins.dest,)
    return ins.unwind


def local_types(function: Function) -> dict[str, Type]:
    """Return the type of every local that has one: parameters, annotated locals (the first annotation counts), unwind locals (i64)."""
    types = {p.name: p.type for p in function.params}
    for block in function.blocks:
        for ins in block.instructions:
            if ins.dest is not None and ins.dest_type is not None:
                types.setdefault(ins.dest, ins.dest_type)
            for name in ins.unwind:
                types.setdefault(name, I64)
    return types


# Control flow


def block_table(function: Function) -> dict[str, Block]:
    """Return the blocks by label, in text order."""
    table: dict[str, Block] = {}
    for block in function.blocks:
        table.setdefault(block.label, block)
    return table


def successors(block: Block) -> tuple[str, ...]:
    """Return the targets of the block's terminator, each once, in order; none if it has no terminator."""
    if not block.instructions:
        return ()
    last = block.instructions[-1]
    row = OPS.get(last.op)
    return tuple(dict.fromkeys(last.labels)) if row is not None and row.terminator else ()


def _edges(function: Function) -> dict[str, tuple[str, ...]]:
    table = block_table(function)
    return {label: tuple(target for target in successors(block) if target in table) for label, block in table.items()}


def predecessors(function: Function) -> dict[str, tuple[str, ...]]:
    """Return for every label the labels of the blocks that may jump to it, in text order."""
    edges = _edges(function)
    found: dict[str, list[str]] = {label: [] for label in edges}
    for label, targets in edges.items():
        for target in targets:
            found[target].append(label)
    return {label: tuple(sources) for label, sources in found.items()}


def _postorder(edges: Mapping[str, tuple[str, ...]], entry: str) -> list[str]:
    order: list[str] = []
    seen = {entry}
    stack = [(entry, iter(edges[entry]))]
    while stack:
        label, rest = stack[-1]
        for target in rest:
            if target not in seen:
                seen.add(target)
                stack.append((target, iter(edges[target])))
                break
        else:
            order.append(label)
            stack.pop()
    return order


def reverse_postorder(function: Function) -> list[str]:
    """Return the reachable labels so that, back edges aside, every block comes after its predecessors; the entry is first."""
    if not function.blocks:
        return []
    order = _postorder(_edges(function), function.blocks[0].label)
    order.reverse()
    return order


def live_after(function: Function, op: str) -> dict[tuple[str, int], tuple[str, ...]]:
    """Return, for each instruction of an operation, given as (label, index), the locals that may still be read behind it, in order of assignment."""
    number: dict[str, int] = {p.name: index for index, p in enumerate(function.params)}
    for block in function.blocks:
        for ins in block.instructions:
            for name in (*writes(ins), *reads(ins)):
                number.setdefault(name, len(number))
    bit = {name: 1 << index for name, index in number.items()}

    def before(block: Block, live: int, first: int = 0) -> int:
        """Return what is live before instruction `first`, given what is live at the end."""
        for ins in reversed(block.instructions[first:]):
            for name in writes(ins):
                live &= ~bit[name]
            for name in reads(ins):
                live |= bit[name]
        return live

    blocks, sources = block_table(function), predecessors(function)
    at_end = dict.fromkeys(blocks, 0)
    todo = dict.fromkeys(reversed(blocks))
    while todo:
        label = next(iter(todo))
        del todo[label]
        live = before(blocks[label], at_end[label])
        for source in sources[label]:
            if at_end[source] | live != at_end[source]:
                at_end[source] |= live
                todo[source] = None
    found = {}
    for label, block in blocks.items():
        for index, ins in enumerate(block.instructions):
            if ins.op == op:
                live = before(block, at_end[label], index + 1)
                found[label, index] = tuple(name for name, mask in bit.items() if live & mask)
    return found


def reachable(function: Function) -> set[str]:
    """Return the labels that control can arrive at from the entry."""
    return set(reverse_postorder(function))


def dominators(function: Function) -> dict[str, str | None]:
    """Return the immediate dominator of every reachable block; the entry has None.

    Source: Cooper, Harvey, Kennedy, "A simple, fast dominance algorithm".
    """
    order = reverse_postorder(function)
    if not order:
        return {}
    number = {label: index for index, label in enumerate(order)}
    sources = predecessors(function)
    incoming = [[number[p] for p in sources[label] if p in number] for label in order]
    idom = [-1] * len(order)
    idom[0] = 0
    changed = True
    while changed:
        changed = False
        for index in range(1, len(order)):
            best = -1
            for source in incoming[index]:
                if idom[source] < 0:
                    continue
                other, best = source, source if best < 0 else best
                while other != best:
                    while other > best:
                        other = idom[other]
                    while best > other:
                        best = idom[best]
            if idom[index] != best:
                idom[index] = best
                changed = True
    return {label: None if index == 0 else order[idom[index]] for index, label in enumerate(order)}


@dataclass(frozen=True, slots=True)
class Loop:
    """A natural loop: the target of one or more back edges, and every block that reaches one of their sources without passing the header.

    `parent` is the header of the innermost loop around this one, `depth` is 1 for an outermost loop. `layout` lists the blocks of all loops so that
    those of this one are `layout[start:end]`: bodies of nested loops take no space of their own.
    """

    header: str
    latches: tuple[str, ...]
    parent: str | None
    depth: int
    layout: tuple[str, ...] = field(repr=False)
    start: int = field(repr=False)
    end: int = field(repr=False)

    @property
    def body(self) -> frozenset[str]:
        """The blocks of the loop, the header and those of inner loops included; made anew each time."""
        return frozenset(self.layout[self.start : self.end])


class _Dominance:
    """Answers "does a dominate b" in constant time, by the interval of a walk over the dominator tree."""

    def __init__(self, idom: Mapping[str, str | None]) -> None:
        below: dict[str, list[str]] = {label: [] for label in idom}
        for label, parent in idom.items():
            if parent is not None:
                below[parent].append(label)
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        clock = 0
        todo: list[tuple[str, bool]] = [(label, False) for label, parent in idom.items() if parent is None]
        while todo:
            label, left = todo.pop()
            clock += 1
            if left:
                self.last[label] = clock
                continue
            self.first[label] = clock
            todo.append((label, True))
            todo.extend((child, False) for child in below[label])

    def dominates(self, a: str, b: str) -> bool:
        return self.first[a] <= self.first[b] and self.last[b] <= self.last[a]


def natural_loops(function: Function) -> list[Loop]:
    """Return the natural loops, an outer loop before those inside it; back edges with one header make one loop."""
    order = reverse_postorder(function)
    dominance = _Dominance(dominators(function))
    sources = predecessors(function)
    latches: dict[str, tuple[str, ...]] = {}
    inside: dict[str, list[str]] = {}
    parent: dict[str, str] = {}
    outermost = {label: label for label in order}

    def representative(label: str) -> str:
        """Return the header of the outermost loop found so far that holds the block, or the block itself."""
        while outermost[label] != label:
            outermost[label] = outermost[outermost[label]]
            label = outermost[label]
        return label

    for header in reversed(order):
        back = tuple(p for p in sources[header] if p in outermost and dominance.dominates(header, p))
        if not back:
            continue
        latches[header], inside[header] = back, []
        todo = [representative(p) for p in back]
        while todo:
            label = todo.pop()
            if label == header or label in parent:
                continue
            parent[label] = outermost[label] = header
            inside[header].append(label)
            todo.extend(representative(p) for p in sources[label] if p in outermost)
    return _loop_tree(order, latches, inside, parent)


def _loop_tree(order: list[str], latches: dict[str, tuple[str, ...]], inside: dict[str, list[str]], parent: dict[str, str]) -> list[Loop]:
    layout: list[str] = []
    start: dict[str, int] = {}
    end: dict[str, int] = {}
    depth: dict[str, int] = {}
    todo = [(header, False) for header in reversed(order) if header in latches and header not in parent]
    while todo:
        label, done = todo.pop()
        if done:
            end[label] = len(layout)
            continue
        if label in latches:
            start[label] = len(layout)
            depth[label] = depth[parent[label]] + 1 if label in parent else 1
            todo.append((label, True))
            todo.extend((member, False) for member in inside[label])
        layout.append(label)
    blocks = tuple(layout)
    return [Loop(h, latches[h], parent.get(h), depth[h], blocks, start[h], end[h]) for h in order if h in latches]


def is_reducible(function: Function) -> bool:
    """Return whether every cycle is entered at one block only, which dominates it."""
    order = reverse_postorder(function)
    number = {label: index for index, label in enumerate(order)}
    dominance = _Dominance(dominators(function))
    edges = _edges(function)
    return all(number[target] > number[label] or dominance.dominates(target, label) for label in order for target in edges[label])


# Calls


def callees(function: Function) -> set[str]:
    """Return the names that the function calls directly (functions and externs)."""
    return {ins.name for block in function.blocks for ins in block.instructions if ins.op in CALLS_BY_NAME and ins.name is not None}


def function_values(functions: Iterable[Function]) -> set[str]:
    """Return the names that become function values by `func` or `closure`."""
    return {
        ins.name for function in functions for block in function.blocks for ins in block.instructions if ins.op in MAKES_FUNCTION_VALUE and ins.name is not None
    }


def call_graph(module: Module) -> dict[str, set[str]]:
    """Return for every function of the module the functions of the module that it may call; a call of a value may reach every function value."""
    known = {function.name for function in module.functions}
    values = function_values(module.functions) & known
    graph: dict[str, set[str]] = {}
    for function in module.functions:
        targets = callees(function) & known
        if any(ins.op in CALLS_A_VALUE for block in function.blocks for ins in block.instructions):
            targets |= values
        graph[function.name] = targets
    return graph


def recursive_functions(module: Module) -> set[str]:
    """Return the functions that lie on a cycle of the call graph.

    Source: Tarjan, "Depth-first search and linear graph algorithms", with an explicit stack.
    """
    graph = call_graph(module)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    pending: list[str] = []
    on_stack: set[str] = set()
    found: set[str] = set()
    for root in graph:
        if root in number:
            continue
        number[root] = low[root] = len(number)
        pending.append(root)
        on_stack.add(root)
        stack = [(root, iter(graph[root]))]
        while stack:
            name, rest = stack[-1]
            for target in rest:
                if target not in number:
                    number[target] = low[target] = len(number)
                    pending.append(target)
                    on_stack.add(target)
                    stack.append((target, iter(graph[target])))
                    break
                if target in on_stack:
                    low[name] = min(low[name], number[target])
            else:
                stack.pop()
                if stack:
                    caller = stack[-1][0]
                    low[caller] = min(low[caller], low[name])
                if low[name] == number[name]:
                    component: list[str] = []
                    while not component or component[-1] != name:
                        component.append(pending.pop())
                        on_stack.discard(component[-1])
                    if len(component) > 1 or name in graph[name]:
                        found.update(component)
    return found

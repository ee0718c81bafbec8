"""Stopping lowered code: polls in loops, stack checks in functions; and what a function can do, for those who call it.

Every cycle of a function's blocks gets a poll on its back edges. An innermost loop without expensive calls is strip-mined: a counter of its own ends
the inner loop after a bounded number of rounds, and only the loop around it polls. The inner loop then has no effect that the user's body did
not have, so an optimiser may hoist and vectorise as if there were no poll.

    entering edges -> begin: count = 0 -> strip: limit = count + STRIP -> head ... latch: count += 1; if count < limit goto head, else poll; goto strip

(`strip` must not be empty, or an optimiser takes the two loops for one.)

A function on a cycle of the call graph, one that calls through the table, and one whose frame or whose chain of unchecked callees is large checks
the stack when it is entered; the check covers the deepest chain of unchecked callees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..mir.analysis import callees, local_types, predecessors, reads, reverse_postorder, successors, writes
from ..mir.diagnostics import Origin
from ..mir.model import Block, Function, Instruction, Module, Operand, Place, const
from ..mir.ops import OPS
from ..mir.types import BOOL, I64, Type, integer_range
from .lower_builder import ONE, ZERO, annotate, retarget

LONGEST_STRIP, SHORTEST_STRIP = 65_536, 64
"""Rounds of a strip-mined loop between two polls."""
STRIP_INSTRUCTIONS = 1 << 22
"""Lowered instructions between two polls, about."""
CHEAP_RUNTIME = frozenset({"rt.alloc", "rt.object_copy", "rt.array_push_slot", "rt.array_pop_slot", "rt.array_remove_check", "rt.pow"})
"""Runtime functions that take a bounded time, or do on the average of many calls."""
POLLED_RUNTIME = frozenset({"rt.array_fill", "rt.text_contains", "rt.dict_grow", "rt.dict_sorted"})
"""Runtime functions that may take long and have written nothing that the program can see while they loop, so they may stop there."""

SLOT_BYTES, FRAME_BYTES = 16, 256
"""Estimate of a frame: a slot per local, spilled or not, and the rest."""
RUNTIME_FRAMES = 4_096
"""Bytes for runtime functions called from a frame: none of them recurses."""
UNCHECKED_BYTES = 8_192
"""Functions and chains of callees with smaller frames need no check of their own; back ends keep more than this below the stack limit."""

MAY_TRAP = ("trap", "poll", "stack_check", "host_call", "throw", "resume", "call_table")


def instructions(function: Function) -> Iterable[Instruction]:
    for block in function.blocks:
        yield from block.instructions


def uses_table(function: Function) -> bool:
    return any(ins.op == "call_table" for ins in instructions(function))


def retreating_edges(function: Function) -> list[tuple[str, str]]:
    """Return edges so that every cycle of the blocks has one: those that do not lead forward in reverse postorder."""
    number = {label: index for index, label in enumerate(reverse_postorder(function))}
    return [(b.label, target) for b in function.blocks if b.label in number for target in successors(b) if number[target] <= number[b.label]]


def components(edges: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Return the strongly connected components, callees before callers (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    found: list[list[str]] = []
    path: list[str] = []
    on_path: set[str] = set()
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            node, following = work[-1]
            target = next(following, None)
            if target is not None:
                if target not in index:
                    index[target] = low[target] = len(index)
                    path.append(target)
                    on_path.add(target)
                    work.append((target, iter(edges[target])))
                elif target in on_path:
                    low[node] = min(low[node], index[target])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[node])
            if low[node] == index[node]:
                component: list[str] = []
                while not component or component[-1] != node:
                    component.append(path.pop())
                    on_path.discard(component[-1])
                found.append(component)
    return found


# Polls


def loop_body(head: str, latches: Iterable[str], incoming: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the blocks from which a latch can be reached without passing the head, and the head."""
    body, todo = {head}, list(latches)
    while todo:
        label = todo.pop()
        if label not in body:
            body.add(label)
            todo.extend(incoming[label])
    return body


def _is_expensive(ins: Instruction) -> bool:
    return ins.op in ("host_call", "call_table", "invoke") or (ins.op == "call" and ins.name not in CHEAP_RUNTIME)


@dataclass(frozen=True)
class Counter:
    """How a loop `while i < n` counts: by 1, or `while i > n` by -1. `test` stands in the head, right before its `if`."""

    local: str
    bound: Operand
    test: Instruction
    rising: bool


def counter_of(head: Block, latch: Block, body: set[str], code: list[Instruction], types: Mapping[str, Type]) -> Counter | None:
    """Return how the loop counts, if its head does nothing but find out whether it goes on, as often as one likes, and its latch counts by one."""
    *others, end = head.instructions
    if end.op != "if" or not others or end.labels[0] not in body or end.labels[1] in body:
        return None
    test = others[-1]
    if test.op not in ("lt", "gt") or end.args != (Place(test.dest or ""),):
        return None
    steps = [(ins, rising) for ins in latch.instructions if ins.dest is not None for rising in (True, False) if _is_step(ins, rising)]
    for step, rising in steps:
        i = Place(step.dest or "")
        first, second = test.args if (test.op == "lt") == rising else reversed(test.args)
        if first == i and second != i and types[i.root] == I64 and sum(i.root in writes(ins) for ins in code) == 1 and _is_repeatable(others):
            return Counter(i.root, second, test, rising)
    return None


def _is_step(ins: Instruction, rising: bool) -> bool:
    """Return whether the instruction is `i = add i, 1` or `i = sub i, -1`, and the other way round."""
    one, minus_one = (ONE, const(I64, -1)) if rising else (const(I64, -1), ONE)
    return ins.args == (Place(ins.dest or ""), one if ins.op == "add" else minus_one) and ins.op in ("add", "sub")


def _is_repeatable(code: list[Instruction]) -> bool:
    """Return whether running the instructions twice is running them once."""
    later: set[str] = set()
    for ins in reversed(code):
        later.update(writes(ins))
        if not (OPS[ins.op].is_pure or ins.op in ("raw_load", "cast")) or later.intersection(reads(ins)):
            return False
    return True


SMALLEST, LARGEST = integer_range(I64)


@dataclass
class _Strips:
    """Builds the blocks around one strip-mined loop."""

    number: int
    head: str
    rounds: int
    start: Origin | None
    end: Origin | None
    types: dict[str, Type]

    def name(self, kind: str, t: Type | None = None) -> str:
        """Return the name of a new label or, given its type, of a new local."""
        name = f"{kind}${self.number}"
        if t is not None:
            self.types[name] = t
        return name

    def goto(self, label: str, origin: Origin | None) -> Instruction:
        return Instruction("goto", labels=(label,), origin=origin)

    def again(self) -> Block:
        """Poll between two strips."""
        return Block(self.name("again"), (Instruction("poll", origin=self.end), self.goto(self.name("strip"), self.end)))

    def by_rounds(self) -> tuple[list[Block], list[Block]]:
        """Return the blocks before the head and the new latch: a local of its own counts the rounds."""
        count, limit, more = self.name("count", I64), self.name("limit", I64), self.name("more", BOOL)
        begin = Block(self.name("begin"), (Instruction("const", (ZERO,), dest=count, origin=self.start), self.goto(self.name("strip"), self.start)))
        bound = Instruction("add", (Place(count), const(I64, self.rounds)), dest=limit, origin=self.start)
        latch = Block(self.name("latch"), (
            Instruction("add", (Place(count), ONE), dest=count, origin=self.end),
            Instruction("lt", (Place(count), Place(limit)), dest=more, origin=self.end),
            Instruction("if", (Place(more),), labels=(self.head, self.name("again")), origin=self.end),
        ))  # fmt: skip
        return [begin, Block(self.name("strip"), (bound, self.goto(self.head, self.start)))], [latch, self.again()]

    def before_counted(self, counter: Counter) -> Block:
        """Return the block before the head of a counted loop: `far` is where the strip ends, or the last number."""
        fits, reach, far = self.name("fits", BOOL), self.name("reach", I64), self.name("far", I64)
        i, last = Place(counter.local), LARGEST if counter.rising else SMALLEST
        edge = last - self.rounds if counter.rising else last + self.rounds
        instructions = (
            Instruction("lt" if counter.rising else "gt", (i, const(I64, edge)), dest=fits, origin=self.start),
            Instruction("add" if counter.rising else "sub", (i, const(I64, self.rounds)), dest=reach, origin=self.start),
            Instruction("select", (Place(fits), Place(reach), const(I64, last)), dest=far, origin=self.start),
            self.goto(self.head, self.start),
        )
        return Block(self.name("strip"), instructions)

    def counted(self, counter: Counter, head: Block) -> tuple[Block, list[Block]]:
        """Return the head, which now stops at `far` if the loop's own bound is farther, and the blocks that tell whether it was."""
        near, test = self.name("near", I64), counter.test
        *others, end = head.instructions
        here = (
            Instruction("min" if counter.rising else "max", (counter.bound, Place(self.name("far"))), dest=near, origin=test.origin),
            Instruction("lt" if counter.rising else "gt", (Place(counter.local), Place(near)), dest=test.dest, origin=test.origin),
            replace(end, labels=(end.labels[0], self.name("stop"))),
        )
        stop = Block(self.name("stop"), (test, replace(end, labels=(self.name("again"), end.labels[1]))))
        return replace(head, instructions=(*others[:-1], *here)), [stop, self.again()]


def poll_loops(function: Function) -> Function:
    """Return the function with a poll on every cycle, and an entry that no block goes back to."""
    blocks = {block.label: block for block in function.blocks}
    entry = function.entry.label
    latches: dict[str, list[str]] = {}
    for source, target in retreating_edges(function):
        latches.setdefault(target, []).append(source)
    if not latches:
        return function
    incoming = predecessors(function)
    types = local_types(function)
    redirected: dict[tuple[str, str], str] = {}
    counters: dict[str, tuple[_Strips, Counter]] = {}
    before: dict[str, list[Block]] = {}
    after: list[Block] = []
    for number, (head, sources) in enumerate(latches.items()):
        body = loop_body(head, sources, incoming)
        code = [ins for label in body for ins in blocks[label].instructions]
        start, end = blocks[head].instructions[0].origin, blocks[sources[0]].terminator.origin
        is_natural_and_innermost = (entry not in body or head == entry) and len(body & latches.keys()) == 1
        if not is_natural_and_innermost or any(_is_expensive(ins) for ins in code):
            latch = Block(f"latch${number}", (Instruction("poll", origin=end), Instruction("goto", labels=(head,), origin=end)))
            after.append(latch)
            redirected |= {(source, head): latch.label for source in sources}
            continue
        rounds = max(SHORTEST_STRIP, min(LONGEST_STRIP, STRIP_INSTRUCTIONS // len(code)))
        strips = _Strips(number, head, rounds, start, end, types)
        counter = counter_of(blocks[head], blocks[sources[0]], body, code, types) if len(sources) == 1 else None
        if counter is not None:
            counters[head] = strips, counter
            before[head] = [strips.before_counted(counter)]
        else:
            before[head], behind = strips.by_rounds()
            after += behind
            redirected |= {(source, head): behind[0].label for source in sources}
        redirected |= {(source, head): before[head][0].label for source in incoming[head] if source not in sources}
    for source, target in redirected:
        blocks[source] = retarget(blocks[source], target, redirected[source, target])
    for head, (strips, counter) in counters.items():
        blocks[head], behind = strips.counted(counter, blocks[head])
        after += behind
    ordered: list[Block] = []
    if incoming[entry] and entry not in before:
        origin = function.entry.instructions[0].origin
        ordered.append(Block("entry$", (Instruction("goto", labels=(entry,), origin=origin),)))
    for label, block in blocks.items():
        ordered += [*before.get(label, ()), block]
    return replace(function, blocks=annotate(ordered + after, types, function.params))


# Stack checks


def frame_bytes(function: Function) -> int:
    """Return an estimate, on the safe side, of the stack that one activation takes."""
    return FRAME_BYTES + SLOT_BYTES * len(local_types(function))


def check_stacks(module: Module) -> Module:
    """Return the module with `stack_check` at the entry of the functions that need it."""
    functions = {f.name: f for f in module.functions}
    calls = {name: tuple(sorted(callees(f) & functions.keys())) for name, f in functions.items()}
    unchecked: dict[str, int] = {}
    frames: dict[str, int] = {}
    for component in components(calls):
        for name in component:
            function = functions[name]
            deepest = max((unchecked.get(callee, 0) for callee in calls[name]), default=0)
            need = frame_bytes(function) + max(deepest, RUNTIME_FRAMES if callees(function) - functions.keys() else 0)
            cyclic = len(component) > 1 or name in calls[name]
            if cyclic or uses_table(function) or need > UNCHECKED_BYTES:
                frames[name] = need
            else:
                unchecked[name] = need
    return replace(module, functions=tuple(_check_stack(f, frames[f.name]) if f.name in frames else f for f in module.functions))


def _check_stack(function: Function, frame: int) -> Function:
    check = Instruction("stack_check", attributes=(("frame", frame),), origin=function.entry.instructions[0].origin)
    entry = replace(function.entry, instructions=(check, *function.entry.instructions))
    return replace(function, blocks=(entry, *function.blocks[1:]))


# What functions can do


def _spread(module: Module, seeds: set[str], ignored: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the functions of the module that are in `seeds` or call one of the result, directly or not."""
    callers: dict[str, list[str]] = {}
    for function in module.functions:
        for callee in callees(function) - ignored:
            callers.setdefault(callee, []).append(function.name)
    found, todo = set(seeds), list(seeds)
    while todo:
        for caller in callers.get(todo.pop(), ()):
            if caller not in found:
                found.add(caller)
                todo.append(caller)
    return frozenset(found & {f.name for f in module.functions})


def may_trap(module: Module, runtime_may_trap: frozenset[str]) -> frozenset[str]:
    """Return the functions of a lowered module that return a status beside their value.

    `runtime_may_trap`: what this function returned for the runtime's module; empty when that is the module in question.
    """
    own = {f.name for f in module.functions if any(ins.op in MAY_TRAP for ins in instructions(f))}
    return _spread(module, own | set(runtime_may_trap))


def may_run_long(module: Module) -> frozenset[str]:
    """Return the functions of a lowered module with a loop, recursion, a host call, a call through the table or an expensive runtime call, direct or not."""
    functions = {f.name: f for f in module.functions}
    own: set[str] = set()
    for name, function in functions.items():
        code = list(instructions(function))
        polls = any(ins.op in ("poll", "host_call", "call_table") for ins in code)
        if polls or any(callee not in functions and callee not in CHEAP_RUNTIME for callee in callees(function)):
            own.add(name)
    calls = {name: tuple(sorted(callees(f) & functions.keys())) for name, f in functions.items()}
    for component in components(calls):
        if len(component) > 1 or component[0] in calls[component[0]]:
            own.update(component)
    return _spread(module, own)

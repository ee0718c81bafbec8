"""The verifier: every rule of the language that can be checked before a program runs.

Definitions
- functions, types, globals and externs share one namespace; parameters, fields, variants and labels are unique; names are well formed;
- types exist; unit and never are results only; dict keys are integers, bool, char or text;
- a struct does not contain itself by value, and structs nest at most MAX_NESTING deep;
- no function and no pointer in the type of a global or an extern, however deep;
- a global without an initial value has a zero value.

Instructions (reported by `resolve`)
- known operations, of the right shape; operands and results by the table; one type per local; arity; fields and variants; `ret` by the signature;
  switch cases unique; places that can be written; moves of plain locals only; internal operations only if asked for.

Control flow
- a function has a block; a block ends in its only terminator; targets exist;
- a local is assigned on every path before it is read; `move x` and `drop x` un-assign; an `invoke` assigns its result on the normal edge only, payload
  and tag on the unwind edge only.

Warnings: blocks that are never reached, locals that are never read, `unreachable` after an ordinary instruction.

Every error that can be found is reported. The work is linear in the size of the program but for nested loops; nothing recurses over control flow.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .analysis import block_table, edge_writes, reads, reverse_postorder, unassigns, writes
from .diagnostics import Diagnostic, Reporter, Span, VerifyError
from .model import Block, EnumDef, Extern, Function, Global, Instruction, Item, Module, Param, Place, StructDef, TypeDef
from .ops import OPS
from .places import Names, Rejected, TypeFacts, struct_of, suggestion
from .resolve import context_of, resolve
from .text import RESERVED, TYPE_WORDS, is_name
from .types import NEVER, FixedArray, Named, Tuple, Type, format_type

MAX_NESTING = 64
SHOWN_PATH = 8
"""Longer paths are shown by their ends."""


def verify(module: Module, names: Names | None = None, internal: bool = False) -> tuple[Diagnostic, ...]:
    """Return the warnings. `names` are definitions outside the module; `internal` admits what passes make. Raises: VerifyError with every error."""
    reporter = Reporter()
    check(module, names or Names(), reporter, internal)
    if reporter.errors():
        raise VerifyError(reporter.errors())
    return reporter.warnings()


def check(module: Module, names: Names, reporter: Reporter, internal: bool = False) -> Module:
    """Report everything that is wrong with the module, in text order; return it resolved. The module's own definitions win over `names`."""
    found = Reporter(reporter.limit)
    visible = names.extended(module)
    checker = _Checker(visible, found, internal, TypeFacts(visible))
    _check_definitions(module, checker)
    sound = [_check_structure(function, checker) for function in module.functions]
    resolved = resolve(module, visible, found, internal)
    for function, is_sound in zip(resolved.functions, sound):
        if is_sound:
            _check_flow(function, checker)
    for diagnostic in sorted(found.found, key=_position):
        reporter.report(diagnostic)
    reporter.dropped += found.dropped
    return resolved


def _position(diagnostic: Diagnostic) -> tuple[int, int]:
    return (diagnostic.span.line, diagnostic.span.column) if diagnostic.span else (0, 0)


@dataclass
class _Checker:
    """The state of verifying one module."""

    names: Names
    reporter: Reporter
    internal: bool
    facts: TypeFacts
    good_names: set[str] = field(default_factory=set)

    def error(self, code: str, message: str, span: Span | None, **more: object) -> None:
        self.reporter.report(Diagnostic(code, message, span, **more))  # type: ignore[arg-type]

    def at(self, code: str, message: str, ins: Instruction, function: Function, block: Block, span: Span | None = None, **more: object) -> None:
        """Report at an instruction, or at its text if it has no position."""
        if ins.span is None and span is None:
            more["notes"] = (*more.get("notes", ()), (f"in `{function.name}`, block `{block.label}`", None))  # type: ignore[misc]
        self.error(code, message, span or ins.span, context=context_of(ins), **more)

    def attempt(self, span: Span | None, rule: Callable[..., None], *args: object, **more: object) -> bool:
        """Run a rule that raises Rejected, and report what it says."""
        try:
            rule(*args, **more)
        except Rejected as rejected:
            self.reporter.report(rejected.diagnostic(span))
            return False
        return True

    def name(self, name: str, what: str, span: Span | None, dotted: bool = False) -> None:
        """Report a name that the text form could not carry."""
        if name in self.good_names:
            return
        problem = self._name_problem(name, dotted)
        if problem:
            self.error("E0213", f"`{name}` cannot be the name of a {what}: {problem}", span)
        elif not dotted:
            self.good_names.add(name)

    def _name_problem(self, name: str, dotted: bool) -> str:
        parts = name.split(".") if dotted else [name]
        if any(part in RESERVED for part in parts):
            return "the word is reserved"
        if len(parts) > 2 or not all(is_name(part) for part in parts):
            return f"a name is a letter or _, then letters, digits and _{'; a function may have one dot' if dotted else ''}"
        if "$" in name and not self.internal:
            return "`$` marks names made by passes"
        if dotted and parts[0] == "rt" and len(parts) == 2 and not self.internal:
            return "`rt.` belongs to the runtime"
        return ""


# Definitions


def _unique(items: Iterable[Item | Param | Block], code: str, what: str, checker: _Checker) -> None:
    first: dict[str, Span | None] = {}
    for item in items:
        name = item.label if isinstance(item, Block) else item.name
        if name in first:
            at = first[name]
            notes = ((f"`{name}` is first defined here", at),) if at else ()
            checker.error(code, f"the {what} `{name}` is defined twice", item.span, notes=notes, help="rename one of them")
        else:
            first[name] = item.span


def _check_definitions(module: Module, checker: _Checker) -> None:
    written = sorted(module.items, key=lambda item: (item.span.line, item.span.column) if item.span else (0, 0))
    _unique(written, "E0210", "name", checker)
    for definition in module.types:
        checker.name(definition.name, "type", definition.span)
        if definition.name in TYPE_WORDS:
            checker.error("E0213", f"`{definition.name}` cannot be the name of a type: it is built in", definition.span)
        if isinstance(definition, StructDef):
            _check_params(definition.fields, "field", checker)
        else:
            _check_enum(definition, checker)
    _check_recursion(module.types, checker)
    for declared in module.globals:
        _check_global(declared, checker)
    callables: tuple[Function | Extern, ...] = (*module.externs, *module.functions)
    for item in callables:
        checker.name(item.name, "function", item.span, dotted=True)
        _check_params(item.params, "parameter", checker)
        checker.attempt(item.span, checker.facts.check, item.result, is_result=True)
    for extern in module.externs:
        _check_extern(extern, checker)


def _check_params(params: tuple[Param, ...], what: str, checker: _Checker) -> None:
    _unique(params, "E0211", what, checker)
    for param in params:
        checker.name(param.name, what, param.span)
        checker.attempt(param.span, checker.facts.check, param.type)


def _check_enum(enum: EnumDef, checker: _Checker) -> None:
    first: set[str] = set()
    for variant in enum.variants:
        checker.name(variant.name, "variant", variant.span)
        if variant.name in first:
            checker.error("E0211", f"the variant `{variant.name}` of `{enum.name}` is defined twice", variant.span, help="rename one of them")
        first.add(variant.name)
        _check_params(variant.fields, "field", checker)


def _check_global(declared: Global, checker: _Checker) -> None:
    checker.name(declared.name, "global", declared.span)
    if not checker.attempt(declared.span, checker.facts.check, declared.type):
        return
    code = checker.facts.code_inside(declared.type, through_classes=True)
    if code is not None:
        inside = "" if code == declared.type else f", but {format_type(declared.type)} can hold {format_type(code)}"
        checker.error("E0404", f"no function and no pointer outlives a call, so none may be in a global{inside}", declared.span)
    elif declared.init is None:
        checker.attempt(declared.span, checker.facts.require_zero, declared.type)


def _check_extern(extern: Extern, checker: _Checker) -> None:
    for what, t, span in [*((f"the parameter `{p.name}`", p.type, p.span) for p in extern.params), ("the result", extern.result, extern.span)]:
        code = checker.facts.code_inside(t, through_classes=True)
        if code is not None:
            inside = "" if code == t else f", which can hold {format_type(code)}"
            checker.error("E0404", f"no function and no pointer leaves the program, but {what} of the extern `{extern.name}` is {format_type(t)}{inside}",
                          span or extern.span)  # fmt: skip


def _parts_by_value(t: Type) -> Iterator[Named]:
    """Yield the named types that a value of type `t` contains without indirection."""
    todo = [t]
    while todo:
        match todo.pop():
            case Named() as named:
                yield named
            case Tuple(elements):
                todo.extend(elements)
            case FixedArray(element, length) if length:
                todo.append(element)


def _value_edges(name: str, names: Names) -> list[tuple[Param, str]]:
    struct = struct_of(Named(name), names)
    if struct is None or struct.is_class:
        return []
    return [(declared, part.name) for declared in struct.fields for part in _parts_by_value(declared.type)]


def _check_recursion(types: tuple[TypeDef, ...], checker: _Checker) -> None:
    """Report structs that contain themselves by value, once for each cycle, and those that nest too deeply."""
    depth: dict[str, int] = {}
    for definition in types:
        if definition.name in depth:
            continue
        path = [definition.name]
        on_path = {definition.name: 0}
        fields: list[Param] = []
        stack = [iter(_value_edges(definition.name, checker.names))]
        deepest = [0]
        while stack:
            for declared, target in stack[-1]:
                if target in on_path:
                    _report_cycle(path[on_path[target] :], [*fields, declared][on_path[target] :], checker)
                elif target in depth:
                    deepest[-1] = max(deepest[-1], depth[target])
                else:
                    on_path[target] = len(path)
                    path.append(target)
                    fields.append(declared)
                    stack.append(iter(_value_edges(target, checker.names)))
                    deepest.append(0)
                    break
            else:
                stack.pop()
                name, below = path.pop(), deepest.pop()
                del on_path[name]
                depth[name] = below + 1
                if deepest:
                    deepest[-1] = max(deepest[-1], depth[name])
                    fields.pop()
                if depth[name] == MAX_NESTING + 1:
                    found = checker.names.types.get(name)
                    checker.error("E0408", f"`{name}` nests structs more than {MAX_NESTING} deep", found.span if found else None, help="use classes")


def _report_cycle(path: list[str], fields: list[Param], checker: _Checker) -> None:
    shown = " -> ".join([*path, path[0]] if len(path) < SHOWN_PATH else [*path[:3], "...", path[-1], path[0]])
    how = f"through its field `{fields[0].name}`" if len(path) == 1 else f"by its field `{fields[0].name}` ({shown})"
    checker.error("E0401", f"the struct `{path[0]}` would contain itself {how}", fields[0].span,
                  help=f"use an option `{path[0]}?`, an array, or make `{path[0]}` a class")  # fmt: skip


# Blocks


def _check_structure(function: Function, checker: _Checker) -> bool:
    """Report what is wrong with blocks and labels; return whether control flow can be followed."""
    before = _errors_so_far(checker)
    if not function.blocks:
        checker.error("E0303", f"the function `{function.name}` has no blocks", function.span, help="begin its body with `entry:`")
    _unique(function.blocks, "E0212", "label", checker)
    table = block_table(function)
    for block in function.blocks:
        checker.name(block.label, "label", block.span)
        _check_block(block, function, checker)
        for ins in block.instructions:
            for name in writes(ins):
                checker.name(name, "local", ins.span)
            for label in dict.fromkeys(ins.labels):
                if label not in table:
                    advice = suggestion(label, table) or f"add the block `{label}:`"
                    checker.at("E0205", f"unknown label `{label}`", ins, function, block, help=advice)
    return _errors_so_far(checker) == before and all(block.instructions[-1].op in OPS for block in function.blocks)


def _errors_so_far(checker: _Checker) -> int:
    return len(checker.reporter.errors()) + checker.reporter.dropped


def _check_block(block: Block, function: Function, checker: _Checker) -> None:
    if not block.instructions:
        checker.error(
            "E0301",
            f"the block `{block.label}` of `{function.name}` is empty",
            block.span or function.span,
            help="end it with `ret`, `goto` or another terminator",
        )
        return
    for index, ins in enumerate(block.instructions[:-1]):
        row = OPS.get(ins.op)
        if row is not None and row.terminator:
            after = block.instructions[index + 1]
            checker.at("E0302", f"nothing can stand after `{ins.op}`, which ends the block `{block.label}`", after, function, block,
                       help="remove it, or begin a new block with a label")  # fmt: skip
            return
    last = block.instructions[-1]
    row = OPS.get(last.op)
    if row is not None and not row.terminator:
        checker.at("E0301", f"the block `{block.label}` must end with a terminator, but ends with `{last.op}`", last, function, block,
                   help="add `ret`, `goto` or another terminator after it")  # fmt: skip


# Assignment


@dataclass(frozen=True)
class _Transfer:
    """What a block does to the set of assigned locals, from its entry to just before its edges: `effects` holds the last word for each local."""

    effects: dict[str, bool]
    gained: int
    lost: int


def _transfer(block: Block, bits: dict[str, int]) -> _Transfer:
    effects: dict[str, bool] = {}
    for ins in block.instructions:
        for name in unassigns(ins):
            effects[name] = False
        if ins.dest is not None and ins.op != "invoke":
            effects[ins.dest] = True
    gained = _mask(bits[name] for name, assigned in effects.items() if assigned and name in bits)
    lost = _mask(bits[name] for name, assigned in effects.items() if not assigned and name in bits)
    return _Transfer(effects, gained, lost)


def _mask(numbers: Iterable[int]) -> int:
    found = bytearray()
    for number in numbers:
        if number >> 3 >= len(found):
            found.extend(bytes((number >> 3) + 1 - len(found)))
        found[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(found, "little")


def _check_flow(function: Function, checker: _Checker) -> None:
    """Check that locals are assigned before they are read, and give the warnings."""
    blocks = block_table(function)
    order = reverse_postorder(function)
    bits: dict[str, int] = {}
    for name in [*(p.name for p in function.params), *(name for b in function.blocks for ins in b.instructions for name in writes(ins))]:
        bits.setdefault(name, len(bits))
    transfers = {label: _transfer(blocks[label], bits) for label in order}
    at_entry = _assigned_at_entry(function, blocks, order, transfers, bits)
    for label in order:
        _check_reads(function, blocks[label], at_entry[label], transfers, blocks, bits, checker)
    _warn_unreachable(function, set(order), checker)
    _warn_unused(function, checker)


def _assigned_at_entry(function: Function, blocks: dict[str, Block], order: list[str], transfers: dict[str, _Transfer], bits: dict[str, int]) -> dict[str, int]:
    """Return the set of locals, as a bit mask, that are assigned on every path to each reachable block.

    Sweeps go forward and backward by turns, each over the blocks that changed, so that news travel along a chain of jumps in one sweep.
    """
    number = {label: index for index, label in enumerate(order)}
    found = dict.fromkeys(order, (1 << len(bits)) - 1)
    found[order[0]] = _mask(bits[p.name] for p in function.params)
    sweep, later, direction = list(range(len(order))), set[int](), 1
    while sweep:
        waiting = set(sweep)
        while sweep:
            current = heapq.heappop(sweep) * direction
            label = order[current]
            waiting.discard(current * direction)
            transfer = transfers[label]
            out = (found[label] & ~transfer.lost) | transfer.gained
            last = blocks[label].instructions[-1]
            for index, target in enumerate(last.labels):
                extra = edge_writes(last, index)
                merged = found[target] & (out | _mask(bits[name] for name in extra) if extra else out)
                if merged == found[target]:
                    continue
                found[target] = merged
                key = number[target] * direction
                if key <= current * direction:
                    later.add(-key)
                elif key not in waiting:
                    waiting.add(key)
                    heapq.heappush(sweep, key)
        sweep, later, direction = sorted(later), set(), -direction
    return found


def _check_reads(function: Function, block: Block, at_entry: int, transfers: dict[str, _Transfer], blocks: dict[str, Block], bits: dict[str, int],
                 checker: _Checker) -> None:  # fmt: skip
    assigned: dict[str, bool] = {}
    gone: dict[str, Instruction] = {}
    for ins in block.instructions:
        for name in reads(ins):
            if name not in bits:
                continue
            if name not in assigned:
                assigned[name] = bool(at_entry >> bits[name] & 1)
            if not assigned[name]:
                assigned[name] = True
                _report_unassigned(name, ins, gone.get(name), function, block, transfers, blocks, checker)
        for name in unassigns(ins):
            assigned[name] = False
            gone[name] = ins
        if ins.dest is not None and ins.op != "invoke":
            assigned[ins.dest] = True


def _report_unassigned(name: str, ins: Instruction, gone: Instruction | None, function: Function, block: Block, transfers: dict[str, _Transfer],
                       blocks: dict[str, Block], checker: _Checker) -> None:  # fmt: skip
    span = next((a.span for a in ins.args if isinstance(a, Place) and a.root == name and not a.is_global and a.span), None)
    if gone is not None:
        how = "dropped" if gone.op == "drop" else "moved"
        notes = ((f"it is {how} here", gone.span),) if gone.span else ()
        checker.at(
            "E0310",
            f"`{name}` has no value here: it was {how} before",
            ins,
            function,
            block,
            span,
            notes=notes,
            help=f"read it before it is {how}, or use `copy {name}`",
        )
        return
    if checker.reporter.dropped:
        checker.reporter.dropped += 1
        return
    path, lost = _path_without(name, function, block.label, transfers, blocks)
    if lost:
        message = f"`{name}` is not assigned on every path to here: block `{path[0]}` moves or drops it, then control comes by {_shown(path)}"
    elif len(path) == 1:
        message = f"`{name}` is read before it is assigned"
    else:
        message = f"`{name}` is not assigned on every path to here: not on {_shown(path)}"
    help_text = f"assign `{name}` on that path" if len(path) > 1 else f"assign `{name}` first"
    checker.at("E0310", message, ins, function, block, span, help=help_text)


def _shown(path: list[str]) -> str:
    labels = path if len(path) <= SHOWN_PATH else [*path[: SHOWN_PATH // 2], "...", *path[-3:]]
    return " -> ".join(labels)


def _path_without(name: str, function: Function, goal: str, transfers: dict[str, _Transfer], blocks: dict[str, Block]) -> tuple[list[str], bool]:
    """Return a shortest path of blocks to `goal` on which the local is not assigned, and whether it begins where the local is un-assigned."""
    came_from: dict[str, str | None] = {}
    waiting: deque[str] = deque()
    entry = function.blocks[0].label
    if all(p.name != name for p in function.params):
        came_from[entry] = None
        waiting.append(entry)
    starts = [label for label, transfer in transfers.items() if transfer.effects.get(name) is False]
    while True:
        while waiting and goal not in came_from:
            label = waiting.popleft()
            if transfers[label].effects.get(name) is not True:
                _follow(label, name, came_from, waiting, blocks)
        if goal in came_from or not starts:
            break
        _follow(starts.pop(), name, came_from, waiting, blocks)
    path, on_path = [goal], {goal}
    while (before := came_from.get(path[-1])) is not None:
        path.append(before)
        if before in on_path:
            break
        on_path.add(before)
    path.reverse()
    return path, path[0] != entry or any(p.name == name for p in function.params)


def _follow(label: str, name: str, came_from: dict[str, str | None], waiting: deque[str], blocks: dict[str, Block]) -> None:
    last = blocks[label].instructions[-1]
    for index, target in enumerate(last.labels):
        if target not in came_from and name not in edge_writes(last, index):
            came_from[target] = label
            waiting.append(target)


# Warnings


def _warn_unreachable(function: Function, reached: set[str], checker: _Checker) -> None:
    for block in function.blocks:
        if block.label not in reached:
            checker.error(
                "W0301", f"the block `{block.label}` of `{function.name}` is never reached", block.span or function.span, help="remove it, or jump to it"
            )
        last = block.instructions[-1]
        if last.op == "unreachable" and len(block.instructions) > 1:
            before = block.instructions[-2]
            callee = checker.names.callable(before.name or "") if before.op == "call" else None
            if callee is None or callee.result != NEVER:
                checker.at("W0303", f"`unreachable` comes right after `{before.op}`: control does arrive there and traps", last, function, block,
                           help="end the block with `ret` or `goto`, or give the callee the result `never`")  # fmt: skip


def _warn_unused(function: Function, checker: _Checker) -> None:
    used = {name for block in function.blocks for ins in block.instructions for name in reads(ins)}
    used.update(p.name for p in function.params)
    for block in function.blocks:
        for ins in block.instructions:
            name = ins.dest
            if name is None or name in used or name.startswith("_") or "$" in name:
                continue
            used.add(name)
            checker.at("W0302", f"the local `{name}` of `{function.name}` is never read", ins, function, block, help=f"remove it, or call it `_{name}`")

"""Making a failing program small: try smaller programs, keep each that still verifies and fails.

The reductions go from coarse to fine: fewer calls; no fuel, the reference model; fewer functions and items; branches and blocks; instructions (left
out, or replaced by a constant of their type); parameters and results; operands and arguments. They are repeated until none helps or the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from ..backends.values import ArrayValue, DictValue, EnumValue, SomeValue, StructValue
from ..mir.analysis import local_types, predecessors, reachable
from ..mir.diagnostics import Reporter
from ..mir.model import Block, Const, Function, Instruction, Module, Operand, Place, const
from ..mir.resolve import Names
from ..mir.types import BOOL, CHAR, I64, NUMBERS, TEXT, UNIT
from ..mir.verify import check
from .generate import Batch
from .values import Lent, scalars_of

SCALARS = (*NUMBERS, BOOL, CHAR, TEXT)


def shrink(batch: Batch, fails: Callable[[Batch], bool], seconds: float = 60.0) -> Batch:
    """Return a smaller batch of one program for which `fails` still holds; the batch itself if it cannot be made smaller in this time."""
    deadline = time.monotonic() + seconds
    (program,) = batch.programs
    current = replace(batch, programs=(replace(program, module=annotated(program.module)),))
    before = None
    while current != before and time.monotonic() < deadline:
        before = current
        for reduction in REDUCTIONS:
            current = _reduce(current, reduction, fails, deadline)
    return current


def _reduce(current: Batch, reduction: Callable[[Batch], Iterator[Batch]], fails: Callable[[Batch], bool], deadline: float) -> Batch:
    tried = 0
    while True:
        for candidate in islice(reduction(current), tried, None):
            if time.monotonic() > deadline:
                return current
            if candidate != current and verifies(candidate.module) and fails(candidate):
                current = candidate
                break
            tried += 1
        else:
            return current


def verifies(module: Module) -> bool:
    reporter = Reporter()
    check(module, Names.of(module), reporter)
    return not reporter.errors()


def annotated(module: Module) -> Module:
    """Return the module with a type at every assignment, so that leaving one out takes no type away; without origins."""
    resolved = check(module, Names.of(module), Reporter())
    functions = []
    for function in resolved.functions:
        types = local_types(function)
        blocks = (replace(b, instructions=tuple(replace(i, dest_type=types.get(i.dest or ""), origin=None) for i in b.instructions)) for b in function.blocks)
        functions.append(replace(function, blocks=tuple(blocks)))
    return replace(module, functions=tuple(functions))


# Rebuilding


def _with_program(batch: Batch, **changes: object) -> Batch:
    return replace(batch, programs=(replace(batch.programs[0], **changes),))  # type: ignore[arg-type]


def _with_module(batch: Batch, **changes: object) -> Batch:
    return _with_program(batch, module=replace(batch.module, **changes))  # type: ignore[arg-type]


def _with_function(batch: Batch, index: int, function: Function) -> Batch:
    functions = batch.module.functions
    return _with_module(batch, functions=(*functions[:index], function, *functions[index + 1 :]))


def _with_blocks(batch: Batch, index: int, blocks: tuple[Block, ...]) -> Batch:
    function = replace(batch.module.functions[index], blocks=blocks)
    kept = reachable(function)
    return _with_function(batch, index, replace(function, blocks=tuple(b for b in blocks if b.label in kept)))


def _with_instructions(batch: Batch, function: int, block: int, instructions: tuple[Instruction, ...]) -> Batch:
    blocks = batch.module.functions[function].blocks
    return _with_blocks(batch, function, (*blocks[:block], replace(blocks[block], instructions=instructions), *blocks[block + 1 :]))


def _blocks(batch: Batch) -> Iterator[tuple[int, int, Function, Block]]:
    """All blocks, the last ones first: what comes late is needed least."""
    for index in reversed(range(len(batch.module.functions))):
        function = batch.module.functions[index]
        for number in reversed(range(len(function.blocks))):
            yield index, number, function, function.blocks[number]


def _without(items: tuple) -> Iterator[tuple]:
    """Leave out large pieces first, then single items; from the end."""
    size = len(items)
    while size:
        for end in range(len(items), 0, -size):
            yield (*items[: max(0, end - size)], *items[end:])
        size //= 2


# Reductions


def fewer_calls(batch: Batch) -> Iterator[Batch]:
    for calls in _without(batch.programs[0].calls):
        if calls:
            yield _with_program(batch, calls=calls)


def plainer_mode(batch: Batch) -> Iterator[Batch]:
    yield replace(batch, fuel=None)
    yield replace(batch, model="reference")


def fewer_items(batch: Batch) -> Iterator[Batch]:
    called = {name for name, _ in batch.programs[0].calls}
    functions = batch.module.functions
    if any(f.name not in called for f in functions):
        yield _with_module(batch, functions=tuple(f for f in functions if f.name in called))
    for index in reversed(range(len(functions))):
        if functions[index].name not in called:
            yield _with_module(batch, functions=(*functions[:index], *functions[index + 1 :]))
        yield _with_function(batch, index, replace(functions[index], blocks=(Block("entry", (Instruction("unreachable"),)),)))
    for kind in ("globals", "externs", "types"):
        for items in _without(getattr(batch.module, kind)):
            yield _with_module(batch, **{kind: items})


def fewer_branches(batch: Batch) -> Iterator[Batch]:
    for index, number, function, block in _blocks(batch):
        *body, last = block.instructions
        targets = [Instruction("goto", labels=(label,)) for label in dict.fromkeys(last.labels)] if last.op != "goto" else []
        for target in targets:
            yield _with_instructions(batch, index, number, (*body, target))
            if last.op == "invoke":
                call = replace(last, op="call", labels=(), unwind=())
                yield _with_instructions(batch, index, number, (*body, call, target))
        if last.op not in ("ret", "unreachable"):
            yield _with_instructions(batch, index, number, (*body, Instruction("unreachable")))
        if last.op != "ret" and function.result == UNIT:
            yield _with_instructions(batch, index, number, (*body, Instruction("ret")))
        before = predecessors(function).get(block.label, ())
        if len(before) == 1 and before[0] != block.label:
            blocks = {b.label: b for b in function.blocks}
            earlier = blocks[before[0]]
            if earlier.terminator.op == "goto":
                joined = replace(earlier, instructions=(*earlier.instructions[:-1], *block.instructions))
                yield _with_blocks(batch, index, tuple(joined if b is earlier else b for b in function.blocks if b is not block))


def fewer_instructions(batch: Batch) -> Iterator[Batch]:
    for index, number, _, block in _blocks(batch):
        *body, last = block.instructions
        for rest in _without(tuple(body)):
            yield _with_instructions(batch, index, number, (*rest, last))


def plainer_instructions(batch: Batch) -> Iterator[Batch]:
    """Replace what an instruction computes by a constant or a zero value; end blocks early."""
    for index, number, function, block in _blocks(batch):
        types = local_types(function)
        for at in reversed(range(len(block.instructions) - 1)):
            ins, before, after = block.instructions[at], block.instructions[:at], block.instructions[at + 1 :]
            if ins.dest is not None and ins.op not in ("const", "zero"):
                t = types[ins.dest]
                plain = Instruction("const", (const(t, scalars_of(t)[0]),), ins.dest, t) if t in SCALARS else Instruction("zero", dest=ins.dest, dest_type=t)
                yield _with_instructions(batch, index, number, (*before, plain, *after))
            for operand in ins.args if ins.dest is not None else ():
                if isinstance(operand, Place) and not operand.hops and types.get(operand.root) == types[ins.dest or ""]:
                    changed = _with_instructions(batch, index, number, (*before, *after))
                    yield _with_function(changed, index, _renamed(changed.module.functions[index], ins.dest or "", operand.root))
            if len(after) > 1:
                yield _with_instructions(batch, index, number, (*before, ins, Instruction("unreachable")))


def _renamed(function: Function, old: str, new: str) -> Function:
    """Return the function with plain reads of one local turned into reads of another."""
    blocks = []
    for block in function.blocks:
        instructions = (replace(i, args=tuple(replace(a, root=new) if a == Place(old) else a for a in i.args)) for i in block.instructions)
        blocks.append(replace(block, instructions=tuple(instructions)))
    return replace(function, blocks=tuple(blocks))


def fewer_parameters(batch: Batch) -> Iterator[Batch]:
    """Leave out parameters, if nothing in the module reads them or calls the function; let functions return nothing."""
    for index, function in enumerate(batch.module.functions):
        if function.result != UNIT:
            blocks = tuple(replace(b, instructions=tuple(replace(i, args=()) if i.op == "ret" else i for i in b.instructions)) for b in function.blocks)
            yield _with_function(batch, index, replace(function, result=UNIT, blocks=blocks))
        for at in reversed(range(len(function.params))):
            changed = _with_function(batch, index, replace(function, params=(*function.params[:at], *function.params[at + 1 :])))
            calls = tuple((name, (*args[:at], *args[at + 1 :]) if name == function.name else args) for name, args in batch.programs[0].calls)
            yield _with_program(changed, calls=calls)


def plainer_operands(batch: Batch) -> Iterator[Batch]:
    for index, number, function, block in _blocks(batch):
        for at, ins in enumerate(block.instructions):
            for position, operand in enumerate(ins.args):
                for plain in _plainer_operands(operand, function):
                    changed = replace(ins, args=(*ins.args[:position], plain, *ins.args[position + 1 :]))
                    yield _with_instructions(batch, index, number, (*block.instructions[:at], changed, *block.instructions[at + 1 :]))


def _plainer_operands(operand: Operand, function: Function) -> Iterator[Operand]:
    if isinstance(operand, Const):
        if operand.type in SCALARS:
            yield from _before(operand, [const(operand.type, v) for v in scalars_of(operand.type)[:3]])
        return
    if operand.move:
        yield replace(operand, move=False)
    if operand.hops:
        yield replace(operand, hops=operand.hops[:-1])
        yield from (const(t, scalars_of(t)[0]) for t in (I64, *SCALARS))
    else:
        t = local_types(function).get(operand.root) if not operand.is_global else None
        if t in SCALARS:
            yield from (const(t, v) for v in scalars_of(t)[:2])  # type: ignore[arg-type]


def _before(item: object, items: list) -> list:
    return items[: items.index(item)] if item in items else items


def plainer_arguments(batch: Batch) -> Iterator[Batch]:
    calls = batch.programs[0].calls
    for number, (name, args) in enumerate(calls):
        for position, value in enumerate(args):
            for plain in plainer_values(value):
                changed = (name, (*args[:position], plain, *args[position + 1 :]))
                yield _with_program(batch, calls=(*calls[:number], changed, *calls[number + 1 :]))


def plainer_values(value: object) -> Iterator[object]:
    """Values of the same type that are simpler: in one part at most."""
    match value:
        case bool():
            yield from [False] if value else []
        case int():
            yield from _before(value, [0, 1])
        case float():
            yield from [0.0, 1.0] if repr(value) not in ("0.0", "1.0") else []
        case str():
            yield from ([""] if value and len(value) != 1 else []) + ([value[: len(value) // 2]] if len(value) > 1 else [])
        case SomeValue(value=inner):
            yield None
            yield from map(SomeValue, plainer_values(inner))
        case Lent(dtype=dtype, items=items):
            yield ArrayValue(list(items))
            yield from (Lent(dtype, rest) for rest in _without(items) if rest)
        case ArrayValue():
            yield from (ArrayValue(list(rest)) for rest in _without(tuple(value.items)))
            yield from map(ArrayValue, _in_one(value.items))
        case DictValue():
            yield from (DictValue(dict(rest)) for rest in _without(tuple(value.items.items())))
        case StructValue():
            yield from (StructValue(value.type_name, slots) for slots in _in_one(value.slots))
        case EnumValue():
            yield from (EnumValue(value.type_name, value.tag, tuple(slots)) for slots in _in_one(value.slots))
        case tuple():
            yield from map(tuple, _in_one(value))


def _in_one(items: list | tuple) -> Iterator[list]:
    """The items with one of them simpler. Arguments nest as deep as their types do, so this may recurse."""
    for index, item in enumerate(items):
        for plain in plainer_values(item):
            yield [*items[:index], plain, *items[index + 1 :]]


REDUCTIONS = (
    fewer_calls, plainer_mode, fewer_items, fewer_branches, fewer_instructions, plainer_instructions, fewer_items, fewer_parameters, plainer_operands,
    plainer_arguments,
)  # fmt: skip

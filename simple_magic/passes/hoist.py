"""Hoisting reads of object headers out of loops.

The length and the data offset of an array are read again for every element. An optimiser may not move such a read past the bounds check of another
array, because it cannot know that reading early is harmless. Here it is: whatever an i64 holds that is a base of header reads, it is an object or 0,
and both lie in the heap. So a loop that writes no header and calls nothing that might has its invariant header reads made once, before it.
"""

from __future__ import annotations

from dataclasses import replace

from ..mir.analysis import local_types, natural_loops, predecessors, writes
from ..mir.model import Block, Function, Instruction, Place
from ..mir.types import I64
from .lower_builder import HEADER, annotate, retarget

READ_ONLY_RUNTIME = frozenset({"rt.pow", "rt.text_eq", "rt.text_compare", "rt.text_get", "rt.text_contains", "rt.dict_find"})
"""Runtime functions that write no object."""


def _may_write_headers(ins: Instruction) -> bool:
    if ins.op == "raw_store":
        return ins.attribute("alias") == HEADER
    return ins.op in ("invoke", "call_table", "host_call", "raw_copy", "raw_fill") or (ins.op == "call" and ins.name not in READ_ONLY_RUNTIME)


def _header_read(ins: Instruction) -> tuple[str, object] | None:
    """Return (base, offset) of an i64 header read from a local."""
    if ins.op != "raw_load" or ins.type != I64 or ins.attribute("alias") != HEADER:
        return None
    (base,) = ins.args
    return (base.root, ins.attribute("offset", 0)) if isinstance(base, Place) else None


def hoist_headers(function: Function) -> Function:
    """Return the lowered function with invariant header reads in front of the outermost loop that they are invariant in."""
    loops = natural_loops(function)
    if not loops:
        return function
    blocks = {block.label: block for block in function.blocks}
    position = {label: index for index, label in enumerate(blocks)}
    sources = predecessors(function)
    types = local_types(function)
    before: dict[str, Block] = {}
    for number, loop in enumerate(loops):
        body = sorted(loop.body, key=position.__getitem__)
        code = [ins for label in body for ins in blocks[label].instructions]
        if any(_may_write_headers(ins) for ins in code):
            continue
        written = {name for ins in code for name in writes(ins)}
        hoisted: dict[tuple[str, object], Instruction] = {}
        for label in body:
            changed = []
            for ins in blocks[label].instructions:
                read = _header_read(ins)
                if read is not None and read[0] not in written:
                    if read not in hoisted:
                        name = f"h${number}${len(hoisted)}"
                        types[name] = I64
                        hoisted[read] = replace(ins, dest=name)
                    ins = replace(ins, op="copy", args=(Place(hoisted[read].dest or ""),), type=None, attributes=())
                changed.append(ins)
            blocks[label] = replace(blocks[label], instructions=tuple(changed))
        if not hoisted:
            continue
        entering = f"pre${number}"
        origin = blocks[loop.header].instructions[0].origin
        before[loop.header] = Block(entering, (*hoisted.values(), Instruction("goto", labels=(loop.header,), origin=origin)))
        for label in sources[loop.header]:
            if label not in loop.latches:
                blocks[label] = retarget(blocks[label], loop.header, entering)
    ordered = [b for label, block in blocks.items() for b in ((before[label], block) if label in before else (block,))]
    return replace(function, blocks=annotate(ordered, types, function.params))

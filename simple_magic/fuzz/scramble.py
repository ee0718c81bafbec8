"""Small random edits of a sound module, each kept if it stays sound: shapes that the generator does not write by itself, such as odd flow of control.

An edited program may loop for ever; the comparison gives such calls up.
"""

from __future__ import annotations

from dataclasses import replace

from ..mir.diagnostics import Reporter
from ..mir.model import Function, Instruction, Module
from ..mir.ops import OPS, USER_OPS
from ..mir.resolve import Names
from ..mir.verify import check
from .values import Chooser

_LIKE = {name: [other for other in USER_OPS if (OPS[other].form, OPS[other].terminator) == (row.form, row.terminator)] for name, row in OPS.items()}
"""Operations that are written alike."""


def scramble(chooser: Chooser, module: Module, edits: int = 6) -> Module:
    """Return the module with up to so many edits."""
    names = Names.of(module)
    functions = list(module.functions)
    for _ in range(edits):
        index = chooser.below(len(functions))
        edited = _edit(chooser, functions[index])
        if edited != functions[index] and _is_sound(edited, names):
            functions[index] = edited
    return replace(module, functions=tuple(functions))


def _is_sound(function: Function, names: Names) -> bool:
    reporter = Reporter()
    check(Module(functions=(function,)), names, reporter)
    return not reporter.errors()


def _edit(chooser: Chooser, function: Function) -> Function:
    """Return the function with one edit, which may make it unsound."""
    blocks = [list(b.instructions) for b in function.blocks]
    block = blocks[chooser.below(len(blocks))]
    at = chooser.below(len(block))
    ins = block[at]
    other_block = blocks[chooser.below(len(blocks))]
    other = other_block[chooser.below(len(other_block))]
    kind = chooser.below(8)
    if kind == 0 and ins.args:
        block[at] = replace(ins, args=ins.args[::-1])
    elif kind == 1:
        block[at] = replace(ins, op=_LIKE[ins.op][chooser.below(len(_LIKE[ins.op]))])
    elif kind == 2 and ins.args and other.args:
        position = chooser.below(len(ins.args))
        block[at] = replace(ins, args=(*ins.args[:position], other.args[chooser.below(len(other.args))], *ins.args[position + 1 :]))
    elif kind == 3 and at < len(block) - 1:
        del block[at]
    elif kind == 4 and not OPS[other.op].terminator:
        block.insert(at, other)
    elif kind == 5 and at + 2 < len(block):
        block[at], block[at + 1] = block[at + 1], block[at]
    elif kind == 6 and other.dest is not None and ins.dest is not None:
        block[at] = replace(ins, dest=other.dest, dest_type=None)
    elif kind == 7:
        _retarget(chooser, block, [b.label for b in function.blocks])
    return replace(function, blocks=tuple(replace(b, instructions=tuple(i)) for b, i in zip(function.blocks, blocks)))


def _retarget(chooser: Chooser, block: list[Instruction], labels: list[str]) -> None:
    """Let the terminator lead to another block."""
    last = block[-1]
    if last.labels:
        position = chooser.below(len(last.labels))
        block[-1] = replace(last, labels=(*last.labels[:position], labels[chooser.below(len(labels))], *last.labels[position + 1 :]))

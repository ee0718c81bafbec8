"""Fuel: every block pays, on entry, for its instructions as written.

The pass runs first, so semantics models and back ends that add instructions spend the same. The count stands in attribute `amount` of `charge`,
whose origin is the block's first instruction: that is where `out_of_fuel` is reported.
"""

from __future__ import annotations

from dataclasses import replace

from ..mir.model import Block, Function, Instruction, Module


def add_fuel(module: Module) -> Module:
    """Return a resolved module with `charge` first in every block."""
    return replace(module, functions=tuple(_charged_function(f) for f in module.functions))


def _charged_function(function: Function) -> Function:
    return replace(function, blocks=tuple(_charged_block(b) for b in function.blocks))


def _charged_block(block: Block) -> Block:
    first = block.instructions[0]
    charge = Instruction("charge", attributes=(("amount", len(block.instructions)),), origin=first.origin, span=first.span)
    return replace(block, instructions=(charge, *block.instructions))

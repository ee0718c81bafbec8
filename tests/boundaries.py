"""Every scalar opcode x type x tuple of boundary values, on every executor: `python tests/boundaries.py` prints what differs and how many cases agreed.

Driven by the opcode table alone: an opcode that is added takes part at once. Runs in a process of its own, so that a crash is a failing test.
"""

from __future__ import annotations

import itertools
import math
import struct
import sys
from collections.abc import Iterator

from filetests import EXECUTORS

from simple_magic import LocalExecutionManager, Trap
from simple_magic.mir.ops import OPS, SHOWN, Signature
from simple_magic.mir.types import BOOL, CHAR, F32, F64, INTEGERS, NUMBERS, TEXT, Named, Type, bit_width, format_type, integer_range, is_integer

FLOAT_VALUES = [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 3.0, 5e-324, 2.2250738585072014e-308, 1e-45, 1.7976931348623157e308, 3.4028234663852886e38, math.inf, -math.inf,
                math.nan, 2.0**31, 2.0**63, -(2.0**63), 2.0**64, 2.0**53 + 2, 2147483647.0, -2147483649.0, 255.0, 256.0, -0.9, 65536.5]  # fmt: skip
CHAR_VALUES = ["\0", "a", "Z", "\ud7ff", "\ue000", "\U0010ffff"]
TEXT_VALUES = ["", "a", "ab", "\u00e9", "a\0b", "\U0001f600", "12", "-1.5"]


def values_of(t: Type, few: bool = False) -> list[object]:
    """Return the boundary values of a scalar type; `few` for operations with three operands."""
    if is_integer(t):
        low, high = integer_range(t)
        bits = bit_width(t)
        found = {low, low + 1, -1, 0, 1, 2, 3, 7, bits - 1, bits, bits + 1, high - 1, high, 0xD800, 0x10FFFF}
        chosen = sorted(v for v in found if low <= v <= high)
        return chosen[:: 2] if few else chosen
    if t == F64:
        return FLOAT_VALUES[:: 3] if few else FLOAT_VALUES
    if t == F32:
        rounded = [v if not math.isfinite(v) or abs(v) > 3.4028234663852886e38 else struct.unpack("<f", struct.pack("<f", v))[0] for v in FLOAT_VALUES]
        return [v for v in (rounded[:: 3] if few else rounded) if not math.isfinite(v) or abs(v) <= 3.4028234663852886e38]
    return {BOOL: [False, True], CHAR: CHAR_VALUES, TEXT: TEXT_VALUES}[t]  # type: ignore[index]


def substituted(t: Type | None, chosen: Type) -> Type | None:
    return chosen if t == Named("T") else t


def functions() -> Iterator[tuple[str, tuple[Type, ...], str]]:
    """Yield (name, parameter types, text) of one function per opcode and type."""
    number = 0
    for row in OPS.values():
        if row.internal or row.terminator or row.custom not in (None, "equality") or row.form not in ("v", "v, v", "v, v, v"):
            continue
        for signature in row.signatures:
            for chosen in row.classes["T"] or SHOWN:
                if scalar := scalar_types(signature, chosen):
                    number += 1
                    yield one_function(f"f{number}", row.name, *scalar)
    for source, target in itertools.product((*NUMBERS, BOOL, CHAR), (*NUMBERS, CHAR)):
        castable = (source in NUMBERS and target in NUMBERS) or (source == BOOL and target in INTEGERS) or (CHAR in (source, target) and (
            source in INTEGERS or target in INTEGERS or source == target))  # fmt: skip
        if castable:
            number += 1
            yield one_function(f"f{number}", "cast", (source,), target)
        if source in NUMBERS and target in NUMBERS and bit_width(source) == bit_width(target):
            number += 1
            yield one_function(f"f{number}", "bitcast", (source,), target)


def scalar_types(signature: Signature, chosen: Type) -> tuple[tuple[Type, ...], Type] | None:
    params = tuple(substituted(p, chosen) for p in signature.params)
    result = substituted(signature.result, chosen)
    allowed = (*NUMBERS, BOOL, CHAR, TEXT)
    return (params, result) if result in allowed and all(p in allowed for p in params) else None  # type: ignore[return-value]


def one_function(name: str, op: str, params: tuple[Type, ...], result: Type) -> tuple[str, tuple[Type, ...], str]:
    head = ", ".join(f"p{i}: {format_type(p)}" for i, p in enumerate(params))
    operands = ", ".join(f"p{i}" for i in range(len(params)))
    text = f"fn {name}({head}) -> {format_type(result)}:\nentry:\n  r: {format_type(result)} = {op} {operands}\n  ret r\n"
    return name, params, text


def bits(value: object) -> object:
    """Return something equal exactly if two results are the same value: floats by bits, any NaN as one."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return type(value), value


def outcome(em: LocalExecutionManager, name: str, args: tuple, level: int) -> object:
    try:
        return bits(em.execute(name, *args, opt_level=level))
    except Trap as trap:
        return trap.kind, trap.origin, trap.message


def main() -> int:
    """Compare everything; return 1 if anything differs."""
    made = list(functions())
    source = "\n".join(text for _, _, text in made)
    managers = {backend: LocalExecutionManager(backend) for backend, _ in EXECUTORS}
    for em in managers.values():
        em.compile(source)
    cases, traps, different = 0, 0, []
    for name, params, text in made:
        for args in itertools.product(*(values_of(p, few=len(params) == 3) for p in params)):
            found = [outcome(managers[backend], name, args, level) for backend, level in EXECUTORS]
            cases += 1
            traps += isinstance(found[0], tuple) and len(found[0]) == 3
            if any(other != found[0] for other in found):
                different.append((text.splitlines()[2].strip(), args, found))
    for line, args, found in different[:20]:
        print(f"{line} with {args}: {found}")
    print(f"{len(made)} functions, {cases} cases, {traps} traps, {len(different)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())

"""Values as flat data, for the pipes between a process and its isolated child.

Values are graphs of any depth with sharing and cycles; pickling such a graph recurses. So `pack` makes a table with one row per object, in which rows
refer to rows by number, and `unpack` builds the same graph from it. Objects that can change have numbers from 0, immutable ones from -1 downwards, each
after those it consists of: a cycle always leads through an object that can change.

A lent NumPy array cannot travel as memory: `Loans` copies it in before the call and back after it.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from .heap import address_of
from .values import LEAVES, ArrayValue, DictValue, EnumValue, FnValue, SomeValue, StructValue, parts_of

IMMUTABLE = (tuple, SomeValue, EnumValue, FnValue)
ALIGNMENT = 16
"""Copies of lent memory keep their address modulo this."""


class Row(NamedTuple):
    """One object: its class, what is not a value about it, and its parts, of which those at `positions` are numbers of rows."""

    kind: str
    info: Any
    parts: list
    positions: Sequence[int]


class Packed(NamedTuple):
    """A packed sequence of values: the rows of objects that can change, of immutable ones, and a row for the sequence itself."""

    mutable: list[Row]
    immutable: list[Row]
    values: Row


class Copies(NamedTuple):
    """Lent memory on its way: pieces of it, and where in them each array lies, as (piece, offset, bytes, format)."""

    pieces: list[bytes]
    places: list[tuple[int, int, int, str]]


class Loans:
    """The lent arrays of one call. Arrays that overlap stay so: they are copied as one piece."""

    def __init__(self) -> None:
        self.views: list[memoryview] = []
        self._starts: list[tuple[int, int]] = []

    def add(self, view: memoryview) -> int:
        """Return the number of a lent array."""
        self.views.append(view)
        return len(self.views) - 1

    def copies(self) -> Copies:
        """Return what the arrays hold now."""
        pieces: list[bytearray] = []
        places: list[tuple[int, int, int, str]] = [(0, 0, 0, view.format) for view in self.views]
        addresses = [address_of(view) if view.nbytes else 0 for view in self.views]
        self._starts, end = [], -1
        for number in sorted(range(len(self.views)), key=addresses.__getitem__):
            view, address = self.views[number], addresses[number]
            if not view.nbytes:
                continue
            if address >= end:
                padding = address % ALIGNMENT
                self._starts.append((address, padding))
                pieces.append(bytearray(padding))
                end = address
            start, padding = self._starts[-1]
            offset = padding + address - start
            places[number] = (len(pieces) - 1, offset, view.nbytes, view.format)
            pieces[-1] += view.cast("B")[end - address :]
            end = max(end, address + view.nbytes)
        return Copies([bytes(piece) for piece in pieces], places)

    def write_back(self, changed: Mapping[int, bytes]) -> None:
        """Put pieces that the program has written into back to where they came from."""
        for piece, data in changed.items():
            start, padding = self._starts[piece]
            ctypes.memmove(start, data[padding:], len(data) - padding)


class Borrowed:
    """The other end of `Loans`: memory in this process for a call, and what of it has changed."""

    def __init__(self, copies: Copies) -> None:
        self._before = copies.pieces
        self._pieces = [bytearray(piece) for piece in copies.pieces]
        whole = [memoryview(piece) for piece in self._pieces]
        self.views = [(whole[n][at : at + size] if size else memoryview(b"")).cast(form) for n, at, size, form in copies.places]  # type: ignore[call-overload]

    def changed(self) -> dict[int, bytes]:
        return {n: bytes(now) for n, (now, before) in enumerate(zip(self._pieces, self._before)) if now != before}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage collection waits: what is made here stays, and to look at all of it again and again would take most of the time."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


def pack(values: Sequence[object], loans: Loans | None = None) -> Packed:
    """Return values as flat data. With `loans`, lent arrays go there; else they are copied. Raises: TypeError for a pointer."""
    if LEAVES.issuperset(map(type, values)):
        return Packed([], [], Row("values", None, list(values), ()))
    with _no_collection():
        packer = _Packer(loans)
        row = packer.row("values", None, values)
        packer.finish()
        return Packed(packer.mutable, packer.immutable, row)


class _Packer:
    def __init__(self, loans: Loans | None) -> None:
        self.loans = loans
        self.numbers: dict[int, int] = {}
        self.todo: list[object] = []
        self.mutable: list[Row] = []
        self.immutable: list[Row] = []

    def row(self, kind: str, info: object, values: Sequence[object]) -> Row:
        parts = list(values)
        if LEAVES.issuperset(map(type, parts)):
            return Row(kind, info, parts, ())
        positions = [position for position, part in enumerate(parts) if type(part) not in LEAVES]
        for position in positions:
            parts[position] = self.number(parts[position])
        return Row(kind, info, parts, positions)

    def number(self, value: object) -> int:
        known = self.numbers.get(id(value))
        if known is not None:
            return known
        if isinstance(value, IMMUTABLE):
            return self.add_immutable(value)
        self.numbers[id(value)] = number = len(self.todo)
        self.todo.append(value)
        return number

    def add_immutable(self, value: object) -> int:
        """Add a value after the immutable ones inside it; return its number."""
        stack = [value]
        while stack:
            top = stack[-1]
            if id(top) not in self.numbers:
                inside = [part for part in parts_of(top) if isinstance(part, IMMUTABLE) and id(part) not in self.numbers]
                if inside:
                    stack += inside
                    continue
                row = self.object_row(top)
                self.immutable.append(row)
                self.numbers[id(top)] = -len(self.immutable)
            stack.pop()
        return self.numbers[id(value)]

    def finish(self) -> None:
        for value in self.todo:  # It grows meanwhile.
            self.mutable.append(self.object_row(value))

    def object_row(self, value: object) -> Row:
        match value:
            case ArrayValue(items=memoryview() as view):
                if self.loans is not None and not value.growable:
                    return Row("lent", self.loans.add(view), [], ())
                return Row("copy", (view.format, view.tobytes()), [], ())
            case ArrayValue(items=items):
                return self.row("array", None, items)
            case DictValue(items=items):
                return self.row("dict", list(items), list(items.values()))
            case StructValue():
                return self.row("struct", value.type_name, value.slots)
            case tuple():
                return self.row("tuple", None, value)
            case SomeValue():
                return self.row("some", None, (value.value,))
            case EnumValue():
                return self.row("enum", (value.type_name, value.tag), value.slots)
            case FnValue():
                return self.row("fn", value.name, value.bound)
        raise TypeError(f"a {type(value).__name__} cannot leave its process")


def unpack(packed: Packed, lent: Sequence[memoryview] = ()) -> list[object]:
    """Return the values; arrays that were lent work in `lent`."""
    if not packed.values.positions:
        return packed.values.parts
    with _no_collection():
        mutable = [_SHELLS[row.kind](row, lent) for row in packed.mutable]
        immutable: list[object] = []

        def fill(row: Row) -> list:
            parts = row.parts
            for position in row.positions:
                number = parts[position]
                parts[position] = mutable[number] if number >= 0 else immutable[-1 - number]
            return parts

        for row in packed.immutable:
            immutable.append(_IMMUTABLES[row.kind](row.info, fill(row)))
        for value, row in zip(mutable, packed.mutable):
            parts = fill(row)
            if row.kind == "dict":
                value.items = dict(zip(row.info, parts))
        return fill(packed.values)


def _copied(row: Row, _lent: Sequence[memoryview]) -> ArrayValue:
    form, data = row.info
    return ArrayValue(memoryview(data).cast(form).tolist())


_SHELLS: dict[str, Any] = {
    "array": lambda row, _lent: ArrayValue(row.parts),
    "lent": lambda row, lent: ArrayValue(lent[row.info], growable=False),
    "copy": _copied,
    "dict": lambda _row, _lent: DictValue({}),
    "struct": lambda row, _lent: StructValue(row.info, row.parts),
}
"""How an object that can change begins; the parts of arrays and structs are filled in where they are."""
_IMMUTABLES: dict[str, Any] = {
    "tuple": lambda _info, parts: tuple(parts),
    "some": lambda _info, parts: SomeValue(parts[0]),
    "enum": lambda info, parts: EnumValue(info[0], info[1], tuple(parts)),
    "fn": lambda info, parts: FnValue(info, tuple(parts)),
}

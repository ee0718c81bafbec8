"""The one object layout of native back ends: offsets, in bytes, in a heap whose base is offset 0.

A heap is one piece of memory: control words, one word per session global, the flag's page, then objects. A reference is the 8-byte offset of an object; 0 is nil.
Texts that occur as constants are interned at the far end, downwards from the limit.

    value of type                            in a local       in a slot of 8 bytes
    integers, floats, bool, char, unit       itself           its own width at the start of the slot
    option of a reference that is never nil  the reference    the reference
    any other option                         0 or a box       0 or a box {header, value}
    everything else                          the reference    the reference

    array, fixed array   {header, length, capacity, data}    data: offset of the elements, each ELEMENT size (1, 2, 4 or 8 bytes)
    dict                 {header, count, capacity, entries}  open addressing, capacity 0 or a power of two; entry {hash or 0, key word, value slot}
    text                 {header, bytes, code points, UTF-8 ...}
    struct, class, tuple {header, slot, slot, ...}
    enum                 {header, tag, slot, ...}
    box                  {header, slot}
    function value       {header, index into the unit's function table, captured slot, ...}
    pointer              {header, block, index}              block {header, count, slot, ...}

The data of an array may lie outside the heap (a lent NumPy buffer; the offset is then any 64-bit number): its header carries BORROWED and it cannot grow.
"""

from __future__ import annotations

from ..mir.types import (
    BOOL, CHAR, I64, NUMBERS, TEXT, UNIT, Array, Dict, FixedArray, Fn, Named, Ptr, Tuple, Type, bit_width, is_scalar,
)  # fmt: skip

WORD = 8

# Control words. "Status" is what a native function returns beside its value: 0, or 1 + the index in TRAP_KINDS.
HEAP_TOP = 8
HEAP_LIMIT = 16
STACK_LIMIT = 24
FUEL = 32
TRAP_SITE = 40
TRAP_A = 48
TRAP_B = 56
THROW_PAYLOAD = 64
THROW_TAG = 72
FRAME_COUNT = 80
FRAMES = 128
FRAMES_KEPT = 32
"""The first FRAMES_KEPT call sites lie at FRAMES, the last ones in a ring of the same size behind them."""
NO_SITE = -1
"""TRAP_SITE at the start of an outermost call: nothing was thrown yet."""


def site_of_caller(site: int) -> int:
    """Return what TRAP_SITE is when a trap belongs to the call of the function where it began, and the other way round: `site` counts if nobody called."""
    return NO_SITE - 1 - site

GLOBALS = 1024
MAX_GLOBALS = 15_000
POLL_SAVED = GLOBALS + WORD * MAX_GLOBALS
"""Where a program may keep the locals that live on while it polls."""
FLAG = 128 * 1024
"""Where the flag word of the manager appears on a page of its own, for back ends that reach nothing outside of the heap. Pages have up to 16 KiB."""
HEAP_START = FLAG + 16 * 1024
MOST_POLL_SAVED = (FLAG - POLL_SAVED) // WORD

# Object headers: kind in the low byte, flags above it.
KIND_ARRAY, KIND_DICT, KIND_TEXT, KIND_STRUCT, KIND_CLASS, KIND_ENUM, KIND_TUPLE, KIND_BOX, KIND_FN, KIND_PTR, KIND_BLOCK = range(1, 12)
BORROWED = 0x100

LENGTH, CAPACITY, DATA, ARRAY_SIZE = 8, 16, 24, 32
DICT_COUNT, DICT_CAPACITY, DICT_ENTRIES, DICT_SIZE = 8, 16, 24, 32
ENTRY_HASH, ENTRY_KEY, ENTRY_VALUE, ENTRY_SIZE = 0, 8, 16, 24
TEXT_BYTES, TEXT_CHARS, TEXT_DATA = 8, 16, 24
SLOTS = 8
ENUM_TAG, ENUM_SLOTS = 8, 16
BOX_VALUE, BOX_SIZE = 8, 16
FN_INDEX, FN_SLOTS = 8, 16
PTR_BLOCK, PTR_INDEX, PTR_SIZE = 8, 16, 24
BLOCK_COUNT, BLOCK_SLOTS = 8, 16


def machine_type(t: Type) -> Type:
    """Return the scalar type that holds a value of `t` in lowered MIR: itself, or i64 for a reference. unit becomes bool (false)."""
    if t == UNIT:
        return BOOL
    return t if is_scalar(t) else I64


def element_size(t: Type) -> int:
    """Return the bytes of one array element: the width NumPy uses for numbers and bool, 4 for char, 8 for references."""
    if t in NUMBERS:
        return bit_width(t) // 8
    if t in (BOOL, UNIT):
        return 1
    return 4 if t == CHAR else 8


def is_never_nil(t: Type) -> bool:
    """Return whether a reference of type `t` is never 0, so that `t?` needs no box."""
    return t == TEXT or isinstance(t, (Array, FixedArray, Dict, Named, Tuple, Fn, Ptr))


def option_is_boxed(inner: Type) -> bool:
    """Return whether an option of `inner` holds its value in a box."""
    return not is_never_nil(inner)


def align(size: int) -> int:
    """Return `size` rounded up to whole words."""
    return (size + 7) & ~7

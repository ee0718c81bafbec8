"""Traps, the same on every executor: one text per kind, one way to keep the calls passed through, one mapping between kinds and native statuses.

A native function returns a status beside its value: 0, or 1 + the index of the kind in TRAP_KINDS. What else there is to know lies in the control
words of the heap (`runtime/layout.py`): the site of the trap, up to two details, the sites of the calls it passed. `build_trap` puts it together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..mir.diagnostics import TRAP_KINDS, Origin, Trap
from ..runtime.layout import FRAME_COUNT, FRAMES, FRAMES_KEPT, NO_SITE, THROW_PAYLOAD, THROW_TAG, TRAP_A, TRAP_B, TRAP_SITE, WORD, site_of_caller

_STATUSES = {kind: 1 + index for index, kind in enumerate(TRAP_KINDS)}

_MESSAGES = {
    "division_by_zero": "division by zero",
    "integer_overflow": "the result does not fit its integer type",
    "float_to_int": "the float is NaN or outside the range of the integer type",
    "invalid_char": "the number is not a Unicode scalar value",
    "index_out_of_bounds": "index {a} is out of bounds for length {b}",
    "key_missing": "the dict does not hold the key",
    "nil_unwrap": "unwrap of nil",
    "wrong_variant": "the value is variant number {a}, not number {b}",
    "bad_pointer": "the pointer is outside its block, or the block's size is negative",
    "array_not_growable": "the array belongs to the caller's NumPy array, so it can neither grow nor shrink",
    "out_of_fuel": "the fuel is used up",
    "assertion_failed": "the assertion does not hold",
    "abort": "the program gave up",
    "unreachable": "control arrived at `unreachable`",
    "uncaught_throw": "no invoke catches the throw of payload {a} and tag {b}",
    "extern_error": "a function of the host failed",
    "stack_overflow": "calls or values are nested too deeply",
    "out_of_memory": "the program needs more memory than its limit",
    "timeout": "the call ran longer than its timeout",
    "output_limit": "the program wrote more than its limit",
    "interrupted": "the program was interrupted",
}


def status_of_kind(kind: str) -> int:
    """Return the native status of a trap kind."""
    return _STATUSES[kind]


def kind_of_status(status: int) -> str:
    """Return the trap kind of a native status other than 0."""
    assert 0 < status <= len(TRAP_KINDS), status
    return TRAP_KINDS[status - 1]


def trap_message(kind: str, a: int = 0, b: int = 0, message: str | None = None) -> str:
    """Return the text of a trap. `a` and `b` are its details; `message` is what an `assert` or `abort` was given."""
    if message and kind in ("assertion_failed", "abort"):
        return message
    return _MESSAGES[kind].format(a=a, b=b)


def bare_trap(kind: str, a: int = 0, b: int = 0, message: str | None = None) -> Trap:
    """Return a trap that does not know its origin yet; the executor adds it."""
    return Trap(kind, trap_message(kind, a, b, message))


@dataclass
class PassedCalls:
    """The call instructions that a trap or throw passed through, innermost first: all are counted, the first and the last FRAMES_KEPT are kept."""

    first: list[Origin | None] = field(default_factory=list)
    last: deque[Origin | None] = field(default_factory=lambda: deque(maxlen=FRAMES_KEPT))
    count: int = 0

    def add(self, origin: Origin | None) -> None:
        if self.count < FRAMES_KEPT:
            self.first.append(origin)
        else:
            self.last.append(origin)
        self.count += 1

    @property
    def kept(self) -> tuple[Origin, ...]:
        return (*self.first, *self.last)  # type: ignore[arg-type]

    @property
    def omitted(self) -> int:
        return self.count - len(self.first) - len(self.last)


@dataclass(frozen=True, slots=True)
class Site:
    """An instruction that may trap or be passed through. `kind` and `message` are known only where the instruction itself traps."""

    kind: str | None
    message: str | None
    origin: Origin | None


@dataclass
class SiteTable:
    """Numbers the sites of a program; equal sites share a number."""

    sites: list[Site] = field(default_factory=list)
    numbers: dict[Site, int] = field(default_factory=dict)

    def add(self, kind: str | None, message: str | None, origin: Origin | None) -> int:
        """Return the number of a site."""
        site = Site(kind, message, origin)
        number = self.numbers.setdefault(site, len(self.sites))
        if number == len(self.sites):
            self.sites.append(site)
        return number

    def __getitem__(self, number: int) -> Site:
        return self.sites[number]

    def __len__(self) -> int:
        return len(self.sites)

    def origin(self, number: int) -> Origin | None:
        """Return the origin of a site; None for a number that no site has."""
        return self.sites[number].origin if 0 <= number < len(self.sites) else None


def build_trap(status: int, read_word: Callable[[int], int], sites: SiteTable) -> Trap:
    """Return the trap that a native call ended with.

    status: what the outermost function returned, not 0. read_word: gives the signed 64-bit control word at a heap offset.
    """
    kind = kind_of_status(status)
    number = read_word(TRAP_SITE)
    if number < NO_SITE:
        number = site_of_caller(number)
    site = sites[number] if 0 <= number < len(sites) else None
    payload = None
    a, b = read_word(TRAP_A), read_word(TRAP_B)
    if kind == "uncaught_throw":
        a, b = payload = read_word(THROW_PAYLOAD), read_word(THROW_TAG)
    count = read_word(FRAME_COUNT)
    first = range(min(count, FRAMES_KEPT))
    last = range(max(FRAMES_KEPT, count - FRAMES_KEPT), count)
    slots = [*first, *(FRAMES_KEPT + index % FRAMES_KEPT for index in last)]
    frames = tuple(sites.origin(read_word(FRAMES + WORD * slot)) for slot in slots)
    message, origin = (site.message, site.origin) if site else (None, None)
    return Trap(kind, trap_message(kind, a, b, message), origin, frames, count - len(slots), payload)  # type: ignore[arg-type]

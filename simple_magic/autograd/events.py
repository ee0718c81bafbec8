"""What happened to every gradient, as data: events, traces, their file form and their difference.

A `Trace` is one run of a model on one back end under one semantics model. The instrumentation pass (`passes/trace.py`) makes a program record its
events, `autograd/recording.py` turns the records into this form. Pictures and verdicts are functions of traces; nothing here runs a program.

An `Event` explains itself without its neighbours:

    time       its number in the run, from 0; a trace that reached its cap (`Trace.dropped` > 0) lacks the last ones
    step       the training step, from 0
    phase      "setup" (leaves are made), "forward", "seed" (the write that starts backward), "backward", "update", "read"
    kind       alloc       the program made a node
               copy        the semantics model copied a node: `object` is the new one, `source` the old one, `position` why
               share       an instruction passed a node on without copying it (recorded only if asked for)
               write_back  the model stored a copied node back to where it came from: `object` is what was stored; or the program stored a gradient
                           array that the model had copied, back into a node: `object` is the node, `source` the copy: one event without `element`,
                           and one for each element that this changed
               accumulate  a write of (the same field of the same object) + something; `delta` is what `after` adds to `before`
               overwrite   any other write
               write       a write of which the pass cannot tell whether it accumulates
               unfollowed  backward changed what may be gradients in a way that is not followed: `path` is what it changed; position "replaced" where
                           the whole store was, by one that holds nothing of it
               drop        an object's life ended (reserved: nothing records it yet)
    function block index   the instruction as written, by origin; `instruction` its text, `cell` and `line` where it stands (cell "" and line 0: unknown)
    occurrence how many events of this kind, path and element this instruction made before, from 0
    object     the node: "3" is the fourth node that the program allocated, "3.2" the second copy made of it or of its copies (also of its gradient
               array alone, if elements of that copy are written), "@grads[7]" an entry of
               a gradient store, "?" a node that is older than the trace
    chain      `object`, what it was copied from, ..., the original: ("3.2", "3.1", "3")
    source     for copy and share: the object that was copied or shared; for write_back: see there; else ""
    position   for copy: the position of the semantics model ("argument", "element_read", "hop", ...); else ""
    path       what was written, as the function calls it: "parents[i].grad"; for copy, share and write_back: what was read or written
    field      the written field: the gradient's or the value's; else ""
    element    the index in a gradient that is an array, else None
    before after delta     the numbers of a write, bit for bit (delta = after - before); for alloc, `after` is the new node's value, where that is a
               number; else None
    edge       for a write: the object whose gradient was last read into what was written, "unknown" where the pass cannot tell, "" where it knows
               that no gradient took part (a seed, a zero)

The file form is JSON lines, UTF-8: the first line is the header

    {"format": "simple_magic.trace", "version": 1, "backend": ..., "semantics": ..., "dropped": 0, "root": "5", "names": {"0": "x"}, "labels": {...}}

and each further line one event, an object with exactly the keys of `Event`. Numbers read back with the same bits; not-a-number and the infinities are
the strings "nan", "inf", "-inf". A reader refuses a version that it does not know.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

FORMAT = "simple_magic.trace"
VERSION = 1
PHASES = ("setup", "forward", "seed", "backward", "update", "read")
KINDS = ("alloc", "copy", "share", "write_back", "accumulate", "overwrite", "write", "unfollowed", "drop")
WRITES = ("accumulate", "overwrite", "write")
"""The kinds that change a field."""
UNKNOWN = "unknown"
"""The edge of a write of which the pass cannot tell where its value comes from."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a node; the module docstring explains every field."""

    time: int
    kind: str
    object: str
    phase: str = "forward"
    step: int = 0
    function: str = ""
    block: str = ""
    index: int = 0
    instruction: str = ""
    cell: str = ""
    line: int = 0
    occurrence: int = 0
    chain: tuple[str, ...] = ()
    source: str = ""
    position: str = ""
    path: str = ""
    field: str = ""
    element: int | None = None
    before: float | None = None
    delta: float | None = None
    after: float | None = None
    edge: str = ""

    @property
    def is_write(self) -> bool:
        return self.kind in WRITES

    @property
    def original(self) -> str:
        """The object that the program allocated, of which this one is a copy; itself if it is none."""
        return self.chain[-1] if self.chain else self.object

    @property
    def site(self) -> tuple[str, str, int]:
        """The instruction as written: (function, block, index)."""
        return (self.function, self.block, self.index)

    @property
    def alignment(self) -> tuple[str | int | None, ...]:
        """What the same event of another run has in common: the instruction, what it did there, and for which time."""
        what = ("write", self.field, self.element) if self.is_write else (self.kind, self.position, self.path)
        return (*self.site, *what, self.occurrence)


@dataclass(frozen=True, slots=True)
class Trace:
    """All events of one run.

    dropped: how many events came after the cap. names: the parameter's name of each leaf, by object. labels: what made a node (a function's name), by
    object. root: the object that the model returned, "" if it returned none.
    """

    events: tuple[Event, ...]
    backend: str = ""
    semantics: str = ""
    dropped: int = 0
    root: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return self.dropped == 0

    def writes(self, original: str | None = None, field: str | None = None) -> Iterator[Event]:
        """Yield the writes, of one original object and its copies or of one field if asked."""
        return (e for e in self.events if e.is_write and original in (None, e.original) and field in (None, e.field))

    def copies(self) -> dict[str, Event]:
        """Return the event that made each copy, by the copy's object."""
        return {e.object: e for e in self.events if e.kind == "copy"}

    def save(self, path: str | Path) -> None:
        """Write the file form; see the module docstring."""
        Path(path).write_text(self.to_lines(), encoding="utf-8")

    def to_lines(self) -> str:
        """Return the file form."""
        header = {"format": FORMAT, "version": VERSION, "backend": self.backend, "semantics": self.semantics, "dropped": self.dropped, "root": self.root,
                  "names": dict(self.names), "labels": dict(self.labels)}  # fmt: skip
        lines = [json.dumps(header, ensure_ascii=False)]
        lines += [json.dumps({k: _written(v) for k, v in asdict(e).items()}, ensure_ascii=False) for e in self.events]
        return "\n".join(lines) + "\n"


def load_trace(path: str | Path) -> Trace:
    """Read what `Trace.save` wrote. Raises: ValueError naming the line."""
    return trace_from_lines(Path(path).read_text(encoding="utf-8"))


def trace_from_lines(text: str) -> Trace:
    """Return the trace of a file form. Raises: ValueError naming the line."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError("line 1: expected the header of a trace, got nothing")
    header = _object(*lines[0])
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise ValueError(f"line 1: expected {FORMAT} version {VERSION}, got {header.get('format')!r} version {header.get('version')!r}")
    del header["format"], header["version"]
    unknown = set(header) - {f.name for f in fields(Trace)}
    if unknown:
        raise ValueError(f"line 1: unknown keys {sorted(unknown)}")
    return Trace(tuple(_event(number, _object(number, line)) for number, line in lines[1:]), **header)


def _object(number: int, line: str) -> dict:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"line {number}: expected an object, got {type(found).__name__}")
    return found


_NUMBERS = ("before", "delta", "after")
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_KEYS = {f.name for f in fields(Event)}


def _written(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _event(number: int, found: dict) -> Event:
    if set(found) != _KEYS:
        raise ValueError(f"line {number}: missing keys {sorted(_KEYS - set(found))}, unknown keys {sorted(set(found) - _KEYS)}")
    if found["kind"] not in KINDS or found["phase"] not in PHASES:
        raise ValueError(f"line {number}: unknown kind {found['kind']!r} or phase {found['phase']!r}")
    for name in _NUMBERS:
        value = found[name]
        if value is not None and not isinstance(value, (int, float)) and value not in _WORDS:
            raise ValueError(f"line {number}: {name} is {value!r}, not a number")
        found[name] = value if value is None else _WORDS[value] if isinstance(value, str) else float(value)
    return Event(**{**found, "chain": tuple(found["chain"])})


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two runs differ: the event of each; None where a run has no such event."""

    left: Event | None
    right: Event | None


@dataclass(frozen=True, slots=True)
class Difference:
    """How two traces differ. `cause`: the first copy, share, write back or allocation that only one run made. `symptom`: the first write of which the
    numbers differ, or that only one run made. Either may be None: a cause without a symptom did no harm."""

    cause: Divergence | None
    symptom: Divergence | None

    def __bool__(self) -> bool:
        return self.cause is not None or self.symptom is not None


def diff(left: Trace, right: Trace) -> Difference:
    """Align two traces by (instruction, occurrence) and return where they first differ, in the order of the run that has the event."""
    return Difference(_first(left, right, writes=False), _first(left, right, writes=True))


def _first(left: Trace, right: Trace, writes: bool) -> Divergence | None:
    mine = {e.alignment: e for e in left.events if e.is_write == writes and e.kind != "drop"}
    other = {e.alignment: e for e in right.events if e.is_write == writes and e.kind != "drop"}
    candidates: list[tuple[int, int, Divergence]] = []
    for a, b, is_left in ((mine, other, True), (other, mine, False)):
        for key, event in a.items():
            match = b.get(key)
            if match is None or (writes and not same_numbers(event, match)):
                pair = Divergence(event, match) if is_left else Divergence(match, event)
                candidates.append((event.time if match is None else min(event.time, match.time), 0 if is_left else 1, pair))
                break
    return min(candidates, key=lambda c: c[:2])[2] if candidates else None


def same_numbers(a: Event, b: Event) -> bool:
    """Whether two writes changed the same bits to the same bits; a NaN equals every NaN."""
    return _bits(a.before) == _bits(b.before) and _bits(a.after) == _bits(b.after)


def _bits(value: float | None) -> object:
    return value if value is None else "nan" if math.isnan(value) else struct.pack("<d", value)


def number_occurrences(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """Yield each event with how many events with the same alignment (its own occurrence left aside) came before it."""
    seen: Counter = Counter()
    for event in events:
        key = event.alignment[:-1]
        yield event, seen[key]
        seen[key] += 1

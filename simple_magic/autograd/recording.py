"""From the records of a traced run to a `Trace`: names objects, tells accumulating from overwriting, joins what the sites know.

A record's `base` is the object of which the first summand is the gradient as it was read, `source` the object whose gradient is in the rest
(`passes/trace.py`). So a write accumulates if its base is the written object, or an object that it was copied from; the edge is the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..mir.diagnostics import Origin, Span
from ..passes.shadows import EITHER, HEADER, STORE, UNKNOWN, Site
from .driver import BACKWARD
from .events import PHASES, UNKNOWN as UNKNOWN_EDGE, Event, Trace, number_occurrences

NONE = 0


@dataclass(frozen=True)
class Records:
    """The columns of a traced run; `count` is how many events there were, of which the columns hold the first."""

    count: int
    head: Sequence[int]
    object: Sequence[int]
    source: Sequence[int]
    base: Sequence[int]
    slot: Sequence[int]
    before: Sequence[float]
    after: Sequence[float]


Locate = Callable[[Origin | None, Span | None], tuple[str, str, int]]
"""Gives (instruction text, cell, line) of an instruction as written."""


def make_trace(records: Records, sites: Sequence[Site], parameters: Sequence[str], store: str, locate: Locate, backend: str, semantics: str) -> Trace:
    """Return the trace of a run."""
    reader = _Reader(records, sites, parameters, store, locate)
    events = [e for i in range(len(records.head)) if (e := reader.event(i)) is not None]
    numbered = tuple(replace(e, time=time, occurrence=n) for time, (e, n) in enumerate(number_occurrences(events)))
    return Trace(numbered, backend, semantics, records.count - len(records.head), reader.root, reader.names, reader.labels)


@dataclass
class _Reader:
    """Reads the records in order."""

    records: Records
    sites: Sequence[Site]
    parameters: Sequence[str]
    store: str
    locate: Locate
    born: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """The chain of each object, by the number that it carries."""
    copies: dict[str, int] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)
    """The node of each copied gradient array: what is read from the copy is that node's gradient."""
    names: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    root: str = ""
    phase: int = 0
    step: int = 0
    is_seeding: bool = False
    this_root: str = ""
    allocated: int = 0
    places: dict[int, tuple[str, str, int]] = field(default_factory=dict)

    def chain(self, code: int) -> tuple[str, ...]:
        if code < UNKNOWN:
            return (f"@{self.store}[{STORE - code}]",)
        return self.born.get(code, ("?",))

    def event(self, i: int) -> Event | None:
        r = self.records
        site = self.sites[r.head[i]]
        if site.kind in ("phase", "leaf", "root"):
            self.mark(site.kind, r.object[i], r.slot[i])
            return None
        if site.kind == "alloc":
            chain: tuple[str, ...] = (str(self.allocated),)
            self.allocated += 1
            self.born[i + 1] = chain
            self.labels[chain[0]] = site.label
            return self.made(i, site, chain, after=r.after[i] if site.has_value else None)
        if site.kind == "copy":
            source = self.chain(r.source[i])
            number = self.copies[source[-1]] = self.copies.get(source[-1], 0) + 1
            chain = (f"{source[-1]}.{number}", *source)
            self.born[i + 1] = chain
            if site.has_element:
                self.owners[i + 1] = self.owners.get(r.source[i], r.source[i])
            return self.made(i, site, chain, source=source[0])
        chain = self.chain(r.object[i])
        if site.kind == "write":
            return self.array_write(i, site, chain) if site.is_view else self.write(i, site, chain)
        return self.made(i, site, chain, source=chain[0] if site.kind == "share" else "")

    def mark(self, kind: str, value: int, slot: int) -> None:
        if kind == "phase":
            self.phase, self.step = value, slot
            self.is_seeding = value == BACKWARD
        elif kind == "leaf":
            self.names[self.chain(value)[0]] = self.parameters[slot]
        else:
            self.this_root = self.chain(value)[0]
            self.root = self.root or self.this_root

    def made(self, i: int, site: Site, chain: tuple[str, ...], kind: str = "", **more: object) -> Event:
        head = self.records.head[i]
        if head not in self.places:
            self.places[head] = self.locate(site.origin, site.span)
        text, cell, line = self.places[head]
        at = site.origin or Origin("", "", 0)
        return Event(0, kind or site.kind, chain[0], PHASES[self.phase], self.step, at.function, at.block, at.index, text, cell, line, 0, chain,
                     position=site.position, path=site.path, field=site.field, **more)  # type: ignore[arg-type]

    def array_write(self, i: int, site: Site, chain: tuple[str, ...]) -> Event | None:
        """Return the event of a gradient array that was stored in a node: stored back, if the model had copied it from there, else handed on."""
        r = self.records
        stored = self.chain(r.source[i])
        is_back = stored[-1] == chain[-1] and stored[0] != chain[0]
        if r.slot[i] == HEADER:
            return self.made(i, site, chain, "write_back", source=stored[0]) if is_back else None
        before, after = r.before[i], r.after[i]
        if not is_back:
            return self.write(i, site, chain)
        if before == after:
            return None
        return self.made(i, site, chain, "write_back", source=stored[0], element=r.slot[i], before=before, delta=after - before, after=after)

    def write(self, i: int, site: Site, chain: tuple[str, ...]) -> Event:
        r = self.records
        kind, edge = self.meaning(site, chain, r.base[i], r.source[i])
        before, after = r.before[i], r.after[i]
        found = self.made(i, site, chain, kind, element=r.slot[i] if site.has_element else None, before=before, delta=after - before, after=after, edge=edge)
        if chain[0].startswith("@"):
            found = replace(found, path=chain[0])
        if self.is_seeding and (edge in ("", UNKNOWN_EDGE)) and (chain[0].startswith("@") or chain[-1] == self.this_root.partition(".")[0]):
            return replace(found, phase="seed")
        self.is_seeding = False
        return found

    def meaning(self, site: Site, chain: tuple[str, ...], base: int, source: int) -> tuple[str, str]:
        """Return (kind, edge) of a write."""
        if site.constant:
            return "overwrite", ""
        is_either = source > EITHER // 2
        source -= EITHER if is_either else 0
        base, source = self.owners.get(base, base), self.owners.get(source, source)
        if base not in (NONE, UNKNOWN) and self.chain(base)[0] in chain:
            return "accumulate", self.edge(source)
        if is_either and source not in (NONE, UNKNOWN) and self.chain(source)[0] in chain:
            return "accumulate", self.edge(base)
        edge = self.edge(source if base in (NONE, source) else base if source == NONE else UNKNOWN)
        is_open = UNKNOWN in (base, source)  # What several gradients took part in, the written one may be among.
        return ("write" if is_open else "overwrite"), edge

    def edge(self, code: int) -> str:
        return UNKNOWN_EDGE if code in (NONE, UNKNOWN) else self.chain(code)[0]

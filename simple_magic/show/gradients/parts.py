"""What a picture of a graph is about, read from one judged run: nodes, contributions and the dead copies that hold what was lost.

A node is an object that the program allocated (or an entry of a gradient store); its copies count as itself. Its *home* is the object whose gradient
counts: the one the program reads for a parameter, the model's result, the one that backward last read before passing on, else the object itself.
A `Flow` is one contribution, or those elements of one array contribution that met the same fate. Where it comes from is an edge of the trace, never
guessed: SEED, CONSTANT and NOWHERE stand for no node.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...autograd.events import UNKNOWN, Event
from ...autograd.judging import JudgedRun
from ...autograd.replay import LOST, Contribution, Replay
from ...autograd.verdicts import HOW, RELATIVE, WORDS, Verdict, place

SEED, CONSTANT, NOWHERE, ITSELF = "seed", "constant", "?", "itself"
STUBS = (SEED, CONSTANT, NOWHERE, ITSELF)
"""Sources that are no node; a node's name never is one of these."""
OLDER = "older"
"""The node of all objects that are older than the trace."""
Numbers = Mapping[int | None, float | None]
"""A gradient by element; None for a number that is no array."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A contribution from `source` to `target`, both nodes; copy: the dead object that it went to, "" if it reached the node itself."""

    source: str
    target: str
    parts: tuple[Contribution, ...]
    copy: str = ""

    @property
    def fate(self) -> str:
        return self.parts[0].fate

    @property
    def event(self) -> Event:
        return self.parts[0].event

    @property
    def amount(self) -> str:
        """What it brings: "+2" is added, "= 2" replaces what was there."""
        events = [part.event for part in self.parts]
        if events[0].element is None or (len(events) == 1 and events[0].element == 0):
            return amount(events[0])
        return f"{counted(len(events), 'element')}, norm {number(norm(brought(e) for e in events))}"


@dataclass(frozen=True, slots=True)
class DeadCopy:
    """An object that holds a lost contribution. links: the copies that lead to it from the node; holds: its gradient."""

    object: str
    links: tuple[Event, ...]
    holds: Numbers

    @property
    def origin(self) -> str:
        """The instruction that made it, in words; the first one of several."""
        if not self.links:
            return "the trace does not say how it came to be"
        first = self.links[0]
        return f"{HOW.get(first.position, 'was copied')}: {place(first)}"

    @property
    def title(self) -> str:
        kind = "object" if "." not in self.object else "copy" if len(self.links) < 2 else "copy of copy"
        return f"{kind} {self.object}" + (f", {len(self.links)} links" if len(self.links) > 1 else "")


@dataclass
class Reading:
    """One run, read: everything by node."""

    run: JudgedRun
    names: dict[str, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    """What a value was overwritten with before the gradients were read."""
    flows: list[Flow] = field(default_factory=list)
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    copies: dict[str, list[DeadCopy]] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)

    def gradient(self, node: str) -> Numbers:
        """Return the gradient that counts: what was read of a parameter, of any other node what its home held at last."""
        judged = self.verdicts.get(node, ())
        if judged:
            return {_element(v.parameter): v.gradient for v in judged}
        return held(self.run.replayed, self.homes.get(node, node))

    def wrong(self, node: str) -> dict[int | None, tuple[float | None, float]]:
        """Return (gradient, wanted gradient) of a parameter, by element, where they differ."""
        found: dict[int | None, tuple[float | None, float]] = {}
        for v in self.verdicts.get(node, ()):
            wanted = v.wanted
            if wanted is None or wanted.trap is not None:
                continue
            exact = wanted.derivative
            if v.gradient is None or not (v.gradient == exact or abs(v.gradient - exact) <= RELATIVE * abs(exact)):
                found[_element(v.parameter)] = (v.gradient, exact)
        return found

    def word(self, node: str) -> str:
        """Return the verdict of a parameter, the worst of its elements; "" for any other node."""
        words = {v.word for v in self.verdicts.get(node, ())}
        return next((w for w in WORDS if w in words and w != "ok"), "ok" if words else "")


def read(run: JudgedRun) -> Reading:
    """Return what a picture needs of a run."""
    found, replayed, trace = Reading(run), run.replayed, run.trace
    for home, name in trace.names.items():
        node = node_of(replayed, home)
        found.names[node] = name
        found.homes.setdefault(node, home)
    if trace.root:
        found.homes.setdefault(node_of(replayed, trace.root), trace.root)
    last: dict[str, str] = {}
    for event in replayed.contributions.values():
        if event.edge not in ("", UNKNOWN):
            last[node_of(replayed, event.edge)] = event.edge
    found.homes = {**last, **found.homes}
    found.labels = dict(trace.labels)
    for event in trace.events:
        if event.kind == "alloc":
            found.nodes.add(event.object)
            if event.after is not None:
                found.values[event.object] = event.after
    for event in replayed.value_writes:
        is_here = event.element is None and event.object == found.homes.get(event.original, event.original)
        if is_here and event.after is not None and event.phase != "update" and event.before != event.after:
            found.changed[event.original] = event.after
    owners = {name: node for node, name in found.names.items()}
    for verdict in run.verdicts:
        name, _ = _parted(verdict.parameter)
        found.verdicts.setdefault(owners.get(name, name), []).append(verdict)
        found.names.setdefault(owners.get(name, name), name)
    _read_flows(found)
    found.nodes |= set(found.verdicts) | set(found.homes) | {f.target for f in found.flows} | {f.source for f in found.flows if f.source not in STUBS}
    if any(node.startswith("@") for node in found.nodes):  # Gradients are in a store: its entries are the graph.
        found.nodes = {node for node in found.nodes if node.startswith("@") or node in found.names or any(node in (f.source, f.target) for f in found.flows)}
    return found


def node_of(replayed: Replay, name: str) -> str:
    return OLDER if name.startswith("?") else replayed.original(name)


def _read_flows(found: Reading) -> None:
    replayed = found.run.replayed
    judged = {c.event.time: c for v in found.run.verdicts for c in v.contributions}
    for original, elements in replayed.families.items():
        node = node_of(replayed, original)
        home = found.homes.get(node, original)
        fates: list[Contribution] = []
        for element, events in elements.items():
            known = [judged.get(e.time) for e in events]
            fates += replayed.fates((home, element)) if None in known else known  # type: ignore[arg-type]
        fates.sort(key=lambda c: c.event.time)
        copies: dict[str, DeadCopy] = {}
        for parts in _joined(fates):
            event = parts[0].event
            is_dead = parts[0].fate == LOST and event.object != home
            if is_dead and event.object not in copies:
                links = parts[0].links
                own = tuple(e for e in links if e in replayed.descent(event.object)) if node not in found.names else links
                copies[event.object] = DeadCopy(event.object, own or links, held(replayed, event.object))
            found.flows.append(Flow(_source(replayed, event, node), node, parts, event.object if is_dead else ""))
        if copies:
            found.copies[node] = list(copies.values())
    found.flows.sort(key=lambda f: f.event.time)


def _source(replayed: Replay, event: Event, node: str) -> str:
    if event.phase == "seed":
        return SEED
    if event.edge == UNKNOWN:
        return NOWHERE
    if event.edge == "":
        return CONSTANT
    source = node_of(replayed, event.edge)
    return ITSELF if source == node else source


def _joined(fates: Iterable[Contribution]) -> list[tuple[Contribution, ...]]:
    """Return the elements of an array that one instruction wrote in one go and that met the same fate as one."""
    found: list[list[Contribution]] = []
    open_ones: dict[tuple[object, ...], list[Contribution]] = {}
    for part in fates:
        event = part.event
        key = (event.site, event.object, event.edge, event.kind, part.fate, part.times)
        group = open_ones.get(key)
        if group is None or event.element is None or group[-1].event.element is None or group[-1].event.element >= event.element:
            group = open_ones[key] = []
            found.append(group)
        group.append(part)
    return [tuple(group) for group in found]


def held(replayed: Replay, name: str) -> Numbers:
    """Return the gradient that an object held at last, as far as the trace knows it."""
    slots = [(name, element) for element in replayed.elements.get(name, ())]
    return {slot[1]: replayed.numbers[slot][0] for slot in slots if slot in replayed.numbers}


def _element(parameter: str) -> int | None:
    return _parted(parameter)[1]


def _parted(parameter: str) -> tuple[str, int | None]:
    """Return the name and the element of what a verdict is about: "w[2]" or "w"."""
    name, bracket, index = parameter.rpartition("[")
    digits = index.removesuffix("]")
    return (name, int(digits)) if bracket and digits.isdecimal() and index != digits else (parameter, None)


# Numbers as text


def number(x: float) -> str:
    """Return a number in the short form that pictures show."""
    return f"{x:.6g}"


def apart(x: float, y: float) -> tuple[str, str]:
    """Return two numbers as texts that differ if they do."""
    short = (number(x), number(y))
    return short if short[0] != short[1] else (repr(x), repr(y))


def amount(event: Event) -> str:
    """Return what a write brings: "+2" is added, "= 2" replaces what was there."""
    if event.kind == "accumulate":
        return "+?" if event.delta is None else number(event.delta) if event.delta < 0 else f"+{number(event.delta)}"
    return "= ?" if event.after is None else f"= {number(event.after)}"


def brought(event: Event) -> float:
    return (event.delta if event.kind == "accumulate" else event.after) or 0.0


def norm(numbers: Iterable[float]) -> float:
    """Return the Euclidean norm."""
    return math.hypot(*numbers)


def is_array(numbers: Numbers) -> bool:
    return any(element not in (None, 0) for element in numbers)


def gradient_text(numbers: Numbers) -> str:
    """Return a gradient as one line: the number, or how many there are and their norm."""
    known = [x for x in numbers.values() if x is not None]
    if not known:
        return "no gradient"
    if not is_array(numbers):
        return f"gradient {number(known[0])}"
    return f"gradient: {len(known)} numbers, norm {number(norm(known))}"


def first_difference(a: Numbers, b: Numbers) -> tuple[bool, int | None]:
    """Return whether two gradients differ, and the first element that does."""
    for element in sorted(set(a) | set(b), key=lambda e: -1 if e is None else e):
        x, y = a.get(element), b.get(element)
        if (x is None) != (y is None) or (x is not None and y is not None and x != y and not (math.isnan(x) and math.isnan(y))):
            return True, element
    return False, None


def counted(count: int, what: str) -> str:
    """Return "1 node", "2 nodes"."""
    return f"{count} {what}" + "s" * (count != 1)

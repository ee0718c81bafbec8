"""What became of every write to a gradient: a trace, replayed.

A *contribution* is a write to a node's gradient that brings something in: an accumulation, a seed, or an assignment of a value that comes from another
node. The replay keeps, for each object, which contributions its gradient is made of; copies inherit them, assignments from a copy of the same node move
or merge them, other assignments erase them. At the end a contribution to a node has, seen from one object of it (its *home*, which the program reads),

    landed    it is part of the home's gradient
    doubled   it is part of it more than once
    erased    it was, until a store whose value does not derive from it
    stale     it was, until a store of an older copy of the same node
    lost      it never was: it was made on a copy that nobody carried back

All of this follows from events. No number decides anything here, and least of all a zero; numbers only show where a gradient changed although no event
says so (`Jump`): then something else is the same memory.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .events import UNKNOWN, Event, Trace

LANDED, DOUBLED, ERASED, STALE, LOST = "landed", "doubled", "erased", "stale", "lost"
BACKWARD = ("seed", "backward")
"""The phases in which gradients are written; a reset in any other one starts anew and erases nothing."""
SMALL = 64
"""Of larger gradients it is not kept what each contribution read."""
Slot = tuple[str, int | None]
"""One number: an object's gradient, or one element of it."""


@dataclass(frozen=True)
class Contribution:
    """A contribution and its fate, seen from one home. by: the event that erased it. links: the copies that lead from the home to where it was made."""

    event: Event
    fate: str
    times: int = 1
    by: Event | None = None
    links: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Jump:
    """The gradient of an object changed between two events of it. through: the write to another object that made the change, if one fits."""

    slot: Slot
    since: int
    until: int
    before: float
    after: float
    through: Event | None = None


@dataclass
class Replay:
    """A trace with the contents of every gradient; made by `replay`.

    contents: the contributions (times of events) by slot. reached: every contribution that a slot ever held. erasers: what removed a contribution from a
    slot. read: what the edge's gradient consisted of when a contribution read it. numbers: the last known number by slot.
    """

    trace: Trace
    gradient: str
    contributions: dict[int, Event] = field(default_factory=dict)
    contents: dict[Slot, list[int]] = field(default_factory=lambda: defaultdict(list))
    reached: dict[Slot, set[int]] = field(default_factory=lambda: defaultdict(set))
    erasers: dict[tuple[Slot, int], Event] = field(default_factory=dict)
    read: dict[int, tuple[int, ...]] = field(default_factory=dict)
    numbers: dict[Slot, tuple[float, int]] = field(default_factory=dict)
    jumps: list[Jump] = field(default_factory=list)
    value_writes: list[Event] = field(default_factory=list)
    unfollowed: list[Event] = field(default_factory=list)
    """Where backward changed what may be gradients, and the trace does not say how."""
    copies: dict[str, Event] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    elements: dict[str, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    """The elements of each object's gradient that anything is known of; None for a gradient that is a number."""
    handed: dict[str, str] = field(default_factory=dict)
    """The object whose gradient array each object's own was last replaced by: where nothing copies, they are one."""
    uncertain: set[int] = field(default_factory=set)
    """Contributions of which the trace does not say whether they replaced what was there."""

    @cached_property
    def families(self) -> dict[str, dict[int | None, list[Event]]]:
        """The contributions to each node, on whatever copy, by the node's original and the element."""
        found: dict[str, dict[int | None, list[Event]]] = defaultdict(lambda: defaultdict(list))
        for event in self.contributions.values():
            found[event.original][event.element].append(event)
        return found

    def of(self, original: str, element: int | None) -> Sequence[Event]:
        """Return the contributions to a node, on whatever copy."""
        return self.families.get(original, {}).get(element, ())

    def slot(self, home: str, element: int | None) -> Slot:
        """Return where a gradient is that is read as one number: an array of one element is one, too."""
        return (home, 0) if element is None and set(self.families.get(self.original(home), ())) == {0} else (home, element)

    def is_gradient(self, event: Event) -> bool:
        """Whether a write is one of a gradient: in a node, or in a store."""
        return event.field == self.gradient or event.object.startswith("@")

    def original(self, name: str) -> str:
        """Return the object that the program allocated, of which this one is a copy."""
        return self.originals.get(name, name.partition(".")[0] if not name.startswith("@") else name)

    def fates(self, slot: Slot) -> tuple[Contribution, ...]:
        """Return the contributions to a home's node, in the order they were made."""
        home, element = slot
        content, ever = self.contents.get(slot, []), self.reached.get(slot, set())
        found = []
        for event in self.of(self.original(home), element):
            times = content.count(event.time)
            by = self.erasers.get((slot, event.time)) if not times and event.time in ever else None
            if times:
                fate = LANDED if times == 1 else DOUBLED
            elif by is not None:
                is_older_copy = by.kind == "write_back" or self.original(by.edge) == self.original(home)
                fate = STALE if is_older_copy else ERASED
            else:
                fate = LOST
            found.append(Contribution(event, fate, times, by, self.links(home, event.object)))
        return tuple(found)

    def links(self, home: str, written: str) -> tuple[Event, ...]:
        """Return the events of the copies that separate two objects of a node, from where they were one on: the chain to blame."""
        to_home, to_written = self.descent(home), self.descent(written)
        shared = {e.time for e in to_home} & {e.time for e in to_written}
        return tuple(e for e in (*to_home, *to_written) if e.time not in shared)

    def descent(self, name: str) -> list[Event]:
        """Return the copies that made an object, from the original on."""
        steps: list[Event] = []
        while name in self.copies and (not steps or self.copies[name].time < steps[-1].time):
            steps.append(self.copies[name])
            name = steps[-1].source
        return steps[::-1]

    def missing(self, contribution: Event) -> tuple[list[Event], list[Event]]:
        """Return what the gradient that a contribution read had not got: (contributions made earlier, contributions made later)."""
        if contribution.edge in ("", UNKNOWN) or contribution.time not in self.read:
            return [], []
        held = set(self.read[contribution.time])
        everything = self.families.get(self.original(contribution.edge), {}).values()
        family = sorted((e for part in everything for e in part if e.time not in held and e.time != contribution.time), key=lambda e: e.time)
        return [e for e in family if e.time < contribution.time], [e for e in family if e.time > contribution.time]


def replay(trace: Trace, gradient: str = "grad", value: str = "data") -> Replay:
    """Return the trace with what every gradient consists of. gradient, value: the fields of a node."""
    state = Replay(trace, gradient)
    elements = state.elements
    for event in trace.events:
        if event.chain:
            state.originals[event.object] = event.original
        if event.kind == "copy":
            state.copies[event.object] = event
            for element in elements.get(event.source, {None}):
                _inherit(state, (event.source, element), (event.object, element), event)
            elements[event.object] |= elements.get(event.source, set())
        elif event.kind == "unfollowed":
            if event.phase in BACKWARD and (state.contributions or event.position != "replaced"):
                state.unfollowed.append(event)
        elif event.kind == "write_back" and event.source and event.element is None:
            _store_back(state, event)
        elif event.kind == "write_back" and event.source:
            _check_number(state, (event.object, event.element), event)
        elif event.is_write and event.field == value:
            state.value_writes.append(event)
        elif event.is_write and state.is_gradient(event):
            elements[event.object].add(event.element)
            _write(state, event)
    return state


def _inherit(state: Replay, source: Slot, target: Slot, event: Event) -> None:
    if source in state.contents:
        state.contents[target] = list(state.contents[source])
        state.reached[target] = set(state.contents[source])
    if source in state.numbers:
        state.numbers[target] = (state.numbers[source][0], event.time)


def _store_back(state: Replay, event: Event) -> None:
    """A copied gradient array became the node's own: what it held is there now, and what came to the node meanwhile is not."""
    for element in state.elements.get(event.source, set()) | state.elements.get(event.object, set()):
        slot, stored = (event.object, element), state.contents.get((event.source, element), [])
        for time in set(state.contents[slot]) - set(stored):
            state.erasers[slot, time] = event
        state.contents[slot] = list(stored)
        state.reached[slot].update(stored)
        state.elements[event.object].add(element)


def _write(state: Replay, event: Event) -> None:
    slot = (event.object, event.element)
    _check_number(state, slot, event)
    content = state.contents[slot]
    is_own = event.edge not in ("", UNKNOWN) and state.original(event.edge) == event.original
    other: Slot = (event.edge, event.element)
    if event.edge not in ("", UNKNOWN):
        read = state.elements.get(event.edge, {None})
        if len(read) <= SMALL:
            state.read[event.time] = tuple(time for element in read for time in state.contents.get((event.edge, element), ()))
    if event.kind == "overwrite" and event.element is not None and event.edge not in ("", UNKNOWN):
        _check_handed(state, other, event)
        state.handed[event.object] = event.edge
    if event.kind == "accumulate":
        added = list(state.contents.get(other, ())) if is_own and event.edge != event.object else [event.time]
        content += added
    elif event.kind == "overwrite" and event.edge == event.object:  # Its own gradient, changed: nothing is gone, and something may have come.
        added = [] if event.before == event.after else [event.time]
        state.uncertain.update(added)
        content += added
    elif event.kind == "write":
        state.uncertain.add(event.time)
        added = [event.time]
        content += added
    else:
        is_reset = event.edge == "" and event.after == 0.0  # A zero that comes from no gradient brings nothing in.
        added = list(state.contents.get(other, ())) if is_own else [] if is_reset else [event.time]
        if is_reset and event.phase not in BACKWARD:
            for time in content:
                state.contributions.pop(time, None)
        else:
            for time in set(content) - set(added):
                state.erasers[slot, time] = event
        state.contents[slot] = list(added)
    if event.time in added:
        state.contributions[event.time] = event
    state.reached[slot].update(added)


def _check_number(state: Replay, slot: Slot, event: Event) -> None:
    known = state.numbers.get(slot)
    if known is not None and event.before is not None and not same_number(known[0], event.before):
        state.jumps.append(explained(state, Jump(slot, known[1], event.time, known[0], event.before)))
    if event.after is not None:
        state.numbers[slot] = (event.after, event.time)


def _check_handed(state: Replay, edge: Slot, event: Event) -> None:
    """Note that the gradient which an object was given had changed since it was last written, if that was a write to another owner of the same array."""
    known = state.numbers.get(edge)
    if known is None or event.after is None or same_number(known[0], event.after):
        return
    jump = explained(state, Jump(edge, known[1], event.time, known[0], event.after))
    if jump.through is not None and _is_one_array(state.handed, edge[0], jump.through.object):
        state.jumps.append(jump)


def _is_one_array(handed: Mapping[str, str], a: str, b: str) -> bool:
    """Whether two objects were given the same gradient array, or one that of the other."""
    return handed.get(a) == b or handed.get(b) == a or (a in handed and handed[a] == handed.get(b))


def explained(state: Replay, jump: Jump) -> Jump:
    """Return the jump with the write to another object that left exactly this number meanwhile, if there is one."""
    home = state.original(jump.slot[0])
    for event in reversed(state.trace.events):
        fits = event.is_write and state.is_gradient(event) and event.element == jump.slot[1] and event.original != home
        if not fits or not jump.since < event.time < jump.until or event.before is None or event.after is None:
            continue
        if same_number(event.after, jump.after) and not same_number(event.before, event.after):
            return Jump(jump.slot, jump.since, jump.until, jump.before, jump.after, event)
    return jump


def same_number(a: float, b: float) -> bool:
    """Whether two numbers are equal, where NaN equals NaN."""
    return a == b or (math.isnan(a) and math.isnan(b))

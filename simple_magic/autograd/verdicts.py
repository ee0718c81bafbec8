"""One word for every gradient, with the evidence for it.

`judge` compares what a run read as gradients with what the oracles say, and explains every difference by the trace: `replay.py` knows what became of
each contribution. The words:

    ok             the number is the derivative (relative error at most 1e-9), or a zero that the trace explains
    lost           contributions were made, on copies that nobody carried back
    partial        some arrived, some were lost
    never-written  the result depends on the parameter, but backward never wrote a gradient for it
    doubled        a contribution arrived more than once
    clobbered      a contribution was overwritten, or a value that backward needs was, before backward read it (`judging.py` tries that by a run)
    wrong          everything arrived, and the number is still not the derivative: the rules are wrong, not the memory
    non-finite     the gradient, the derivative or the result itself is infinite or not a number
    kink           the function has no derivative here
    inconclusive   the oracles disagree, or the trace does not explain the number
    no-result      the run trapped or reached a limit

A zero proves nothing. A gradient of zero is ok only if its contributions arrived (`zero` says whether they are zero or underflowed), or if the result
does not depend on the parameter. The absolute error may excuse a number, never accuse it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..mir.diagnostics import Origin, Trap
from ..passes.semantics import WRITTEN, Site
from .events import UNKNOWN, Event, Trace
from .oracles import AGREEMENT, Difference, Oracle, Tangent, agree
from .replay import DOUBLED, ERASED, LANDED, LOST, STALE, Contribution, Jump, Replay, Slot, explained, replay, same_number

WORDS = ("ok", "lost", "partial", "never-written", "doubled", "clobbered", "wrong", "non-finite", "kink", "inconclusive", "no-result")
RELATIVE = 1e-9
"""How much a gradient may differ from the dual oracle."""
EXCUSED = 1e-13
"""An absolute error that is excused, by the size of the terms that the derivative is a sum of: rounding may have made it. The size of the result says nothing."""

Gradient: TypeAlias = float | Sequence[float | None] | None
"""What a run read as a parameter's gradient: a number, the numbers of an array, or nothing."""
HOW = {
    "bind": "was bound to a variable", "argument": "was passed as an argument", "return": "was returned", "initialiser": "was put into a new object",
    "element_write": "was put into an array", "field_write": "was put into a field", "global_write": "was put into a global",
    "element_read": "was read out of an array", "dict_read": "was read out of a dict", "field_read": "was read out of a field",
    "global_read": "was read out of a global", "capture": "was captured by a closure", "hop": "was on the way of a place that is written",
    WRITTEN: "is copied by the program itself",
}  # fmt: skip
"""What happens where a semantics model copies, by position."""


@dataclass(frozen=True)
class Verdict:
    """What happened to the gradient of one parameter in one run.

    wanted, difference: the oracles. evidence: numbers of events. chain: the copies from the parameter's object to the written one. cause: where it
    started; symptom: the first write that did not do what it should. zero: "correct", "underflow", "independent" or "". fix: what helps, only if it was run.
    suspects: of a wrong gradient, the writes that overwrote nodes' values before it was complete; only a run can tell whether it is their fault.
    """

    parameter: str
    word: str
    sentence: str
    backend: str = ""
    semantics: str = ""
    gradient: float | None = None
    wanted: Tangent | None = None
    difference: Difference | None = None
    contributions: tuple[Contribution, ...] = ()
    evidence: tuple[int, ...] = ()
    chain: tuple[Event, ...] = ()
    cause: Event | None = None
    symptom: Event | None = None
    zero: str = ""
    note: str = ""
    fix: str = ""
    suspects: tuple[Event, ...] = ()

    @property
    def landed(self) -> int:
        return sum(c.fate in (LANDED, DOUBLED) for c in self.contributions)

    @property
    def sites(self) -> frozenset[Site]:
        """The copies to blame: those of every contribution that was lost, and the chain."""
        blamed = [*self.chain, *(link for c in self.contributions if c.fate in (LOST, STALE) for link in c.links)]
        return frozenset(site(e) for e in blamed)

    def __str__(self) -> str:
        name = f"{self.parameter} [{self.backend}/{self.semantics}]"
        numbers = "" if self.gradient is None or self.wanted is None else f" {self.gradient!r}, wanted {self.wanted.derivative!r}"
        count = f"; {self.landed} of {len(self.contributions)} contributions landed"
        return f"{name}: {self.word}{numbers}{count}; {self.sentence}" + (f"; {self.note}" if self.note else "") + (f"; fix: {self.fix}" if self.fix else "")


def site(event: Event) -> Site:
    """Return where a copy was made, as the semantics pass names it."""
    return Origin(event.function, event.block, event.index), event.position


def place(event: Event) -> str:
    """Return where an event's instruction stands, in words; the occurrence tells one turn of a loop from another."""
    where = f"line {event.line} of {event.function}" if event.line else f"{event.function}/{event.block}[{event.index}]"
    return where + (f", time {event.occurrence + 1}" if event.occurrence else "")


def judge(trace: Trace, gradients: Mapping[str, Gradient], oracle: Oracle, *, trap: Trap | None = None, gradient: str = "grad", value: str = "data",
          unseen: str = "") -> tuple[Verdict, ...]:  # fmt: skip
    """Return a verdict per parameter.

    gradients: what the run read, by parameter, in the order of the oracle's inputs: numbers, or the numbers of an array, each of which is an input and
    gets a verdict (None: nothing was read). trap: what ended the run.
    gradient, value: the fields of a node. unseen: why the trace does not show the memory that the gradients were read from, if so.
    """
    replayed = replay(trace, gradient, value)
    homes: dict[str, list[str]] = {}
    for home, name in trace.names.items():
        homes.setdefault(name, []).append(home)
    verdicts = []
    for (name, element, number), tangent, difference in zip(_numbers(gradients), oracle.tangents, oracle.differences):
        case = _Case(replayed, name, homes.get(name, []), element, number, tangent, difference, unseen)
        found = case.no_result(trap) if trap is not None or number is None else case.verdict()
        verdicts.append(replace(found, backend=trace.backend, semantics=trace.semantics))
    return tuple(verdicts)


def _numbers(gradients: Mapping[str, Gradient]) -> Iterator[tuple[str, int | None, float | None]]:
    for name, found in gradients.items():
        if isinstance(found, Sequence):
            yield from ((name, i, x) for i, x in enumerate(found))
        else:
            yield name, None, found


# Numbers


def is_right(number: float, tangent: Tangent) -> bool:
    """Whether a gradient is the derivative, by its relative error."""
    return number == tangent.derivative or abs(number - tangent.derivative) <= RELATIVE * abs(tangent.derivative)


def is_excused(number: float, tangent: Tangent) -> bool:
    """Whether rounding alone may have made the difference."""
    return abs(number - tangent.derivative) <= max(EXCUSED * tangent.magnitude, 1e-300)


def oracles_agree(tangent: Tangent, difference: Difference) -> bool:
    return agree(tangent.derivative, difference.derivative, difference.noise)


# One parameter


@dataclass
class _Case:
    """Everything about one parameter. `home` is the object whose gradient is read; of several the first that holds the number that was read."""

    replayed: Replay
    name: str
    homes: Sequence[str]
    element: int | None
    number: float | None
    tangent: Tangent
    difference: Difference
    unseen: str = ""

    def __post_init__(self) -> None:
        slots = [self.replayed.slot(home, self.element) for home in self.homes]
        read = (s for s in slots if self.number is not None and s in self.replayed.numbers and same_number(self.replayed.numbers[s][0], self.number))
        self.slot = next(read, next((s for s in slots if s in self.replayed.contents), slots[0] if slots else ("", None)))
        self.home = self.slot[0]
        self.contributions = self.replayed.fates(self.slot) if self.home else ()
        self.name += "" if self.element is None else f"[{self.element}]"

    def by(self, *fates: str) -> list[Contribution]:
        return [c for c in self.contributions if c.fate in fates]

    def make(self, word: str, sentence: str, evidence: Iterable[Event] = (), cause: Event | None = None, symptom: Event | None = None, **more) -> Verdict:
        numbers = tuple(dict.fromkeys(e.time for e in evidence))
        return Verdict(self.name, word, sentence, "", "", self.number, self.tangent, self.difference, self.contributions, numbers, cause=cause,
                       symptom=symptom, **more)  # fmt: skip

    def no_result(self, trap: Trap | None) -> Verdict:
        reason = f"the run ended with trap {trap.kind}" + (f" in {trap.origin.function}" if trap.origin else "") if trap else "no gradient was read"
        return self.make("no-result", reason)

    def verdict(self) -> Verdict:
        number, tangent = self.number, self.tangent
        assert number is not None
        if not math.isfinite(number) or (tangent.trap is None and not (math.isfinite(tangent.derivative) and (math.isfinite(tangent.value) or not tangent.depends))):
            return self.non_finite(number)
        known = tangent.trap is None
        right = known and is_right(number, tangent)
        if right and number != 0.0 and not self.is_kink:
            return self.by_accident() or self.ok(number)
        if not self.replayed.trace.is_complete:
            return self.make("inconclusive", self.incomplete())
        if self.unseen and (tangent.depends or number != 0.0):
            return self.make("inconclusive", self.unseen)
        found = self.by_fate() or self.by_jump(number)
        if found is not None:
            if self.is_kink:
                found = replace(found, note="; ".join(filter(None, [found.note, self.sides()])))
            return self.doubted(self.of_zero(found) if right else found, right)
        if known and self.is_kink and (self.is_between(number) or not self.contributions):
            return self.make("kink", self.sides(), self.events())
        is_silent = not tangent.depends and not math.isfinite(tangent.value)  # Where the result itself is not a number, differences say nothing.
        if not known or not (self.is_kink or is_silent or oracles_agree(tangent, self.difference)):
            return self.make("inconclusive", self.disagreement(), self.events())
        if not self.contributions:
            if tangent.depends:
                return self.unfollowed() or (self.of_zero(self.never()) if right else self.never())
            if number == 0.0:
                return self.make("ok", "the result does not depend on it", zero="independent")
            return self.make("wrong", "the result does not depend on it")
        if right:
            return self.ok(number)
        found = self.upstream()
        if found is None and is_excused(number, tangent):
            return self.ok(number)
        return self.doubted(found, right) if found is not None else self.unfollowed() or self.hidden(number) or self.wrong()

    def sides(self) -> str:
        return f"the function has no derivative here: {self.difference.left:.6g} from the left, {self.difference.right:.6g} from the right"

    def of_zero(self, found: Verdict) -> Verdict:
        """Return a verdict on a number that is right with a note if it is zero: then it may be so because nothing else was possible here."""
        note = "the derivative is zero at these inputs: at others the number may be wrong" if self.number == 0.0 else ""
        return replace(found, note="; ".join(filter(None, [found.note, note])))

    def by_accident(self) -> Verdict | None:
        """Return that a right number is a sum of what counts twice and what does not count at all, if the log shows both."""
        if not self.replayed.trace.is_complete or self.replayed.unfollowed or self.unseen:
            return None
        twice, missing = ([c for c in found if c.event.delta] for found in (self.by(DOUBLED), self.by(LOST, STALE, ERASED)))
        found = self.by_fate() if twice and missing else None
        return replace(found, note="the number is the derivative by accident: what is lost and what counts twice cancel") if found is not None else None

    # What the trace does not show

    def incomplete(self) -> str:
        trace = self.replayed.trace
        return f"the trace reached its cap: it lacks the last {_count(trace.dropped, 'event')}" if trace.events else "there is no trace that says what arrived"

    def unfollowed(self) -> Verdict | None:
        """Return that the trace does not say enough, if the program changed what may be this gradient in a way that is not followed."""
        if not self.replayed.unfollowed:
            return None
        first = self.replayed.unfollowed[0]
        return self.make("inconclusive", f"{self.doubt(first)}; write to the node's gradient, or through the store's own name", [first], symptom=first)

    def doubt(self, event: Event) -> str:
        return f"event {event.time} ({place(event)}) changed {event.path}, which may hold gradients, in a way that the trace does not follow"

    def doubted(self, found: Verdict, is_right: bool) -> Verdict:
        """Return a verdict that follows from the log with what the log may lack; where the number is right nothing is blamed then."""
        if not self.replayed.unfollowed:
            return found
        if is_right:
            return self.unfollowed() or found
        return replace(found, note="; ".join(filter(None, [found.note, self.doubt(self.replayed.unfollowed[0])])))

    @property
    def is_kink(self) -> bool:
        """Whether the function has a kink here: the differences show one, and an instruction stands on a point where it may have one."""
        return self.difference.is_kink and bool(self.tangent.kinks)

    def events(self) -> list[Event]:
        return [c.event for c in self.contributions]

    def ok(self, number: float) -> Verdict:
        zero = "" if number != 0.0 else "underflow" if self.tangent.underflows else "correct"
        astray = self.by(LOST, STALE)
        words = {"underflow": "the derivative is too small for a number, and so is the gradient", "correct": "the derivative is zero, and so is what arrived"}
        notes = [f"it is right without {_count(len(astray), 'write')} that went to copies"] if astray else []
        if not is_right(number, self.tangent):
            notes.append("the difference is within rounding")
        if self.difference.trap is None and (not oracles_agree(self.tangent, self.difference) or self.difference.noise > abs(self.tangent.derivative) > 0.0):
            notes.append("the differences do not confirm it")
        if self.difference.trap is not None:
            notes.append(f"the differences could not be made: a run on moved inputs ended with trap {self.difference.trap.kind}")
        if not self.replayed.trace.is_complete:
            notes.append(self.incomplete())
        if self.unseen:
            notes.append(self.unseen)
        return self.make("ok", words.get(zero, "the gradient is the derivative"), self.events(), zero=zero, note="; ".join(notes))

    def is_between(self, number: float) -> bool:
        """Whether a gradient lies between the one-sided derivatives: at a kink any such number may be meant."""
        low, high = sorted((self.difference.left, self.difference.right))
        slack = AGREEMENT * max(abs(low), abs(high)) + self.difference.noise
        return low - slack <= number <= high + slack

    def never(self) -> Verdict:
        """Backward did not come here: perhaps because a node before it never saw what was written for it."""
        read = {time for times in self.replayed.read.values() for time in times}
        latest = {event.original: name for name, event in self.replayed.copies.items()}
        for event in self.replayed.contributions.values():
            chain = self.replayed.links(latest.get(event.original, event.object), event.object) or tuple(self.replayed.descent(event.object))
            if event.time in read or not chain:
                continue
            sentence = f"backward did not come here: what event {event.time} ({place(event)}) wrote to {event.object} was read by nobody; "
            return self.make("never-written", sentence + describe_chain(f"node {event.original}", chain), [*chain, event], chain[0], event, chain=chain)
        return self.make("never-written", "backward never wrote a gradient for it, although the result depends on it")

    def disagreement(self) -> str:
        trap = self.tangent.trap or self.difference.trap
        if trap is not None:
            return f"the function cannot be differentiated here: an oracle's run ended with trap {trap.kind}"
        if math.isnan(self.difference.derivative):
            return "the differences do not confirm the derivative: close to these inputs the function is not a number"
        return f"the oracles disagree: {self.told()}"

    def told(self) -> str:
        return f"{self.tangent.derivative!r} by dual numbers, {self.difference.derivative!r} by differences"

    def hidden(self, number: float) -> Verdict | None:
        """Return that rounding hides whether a number is wrong, if the differences are too coarse to tell."""
        if self.difference.noise < abs(number - self.tangent.derivative):
            return None
        sentence = f"rounding hides whether it is wrong: {self.told()}, give or take {self.difference.noise:.1g}"
        return self.make("inconclusive", sentence, self.events())

    def non_finite(self, number: float) -> Verdict:
        bad = [e for e in self.replayed.trace.events if e.is_write and e.after is not None and not math.isfinite(e.after)]
        own = [e for e in bad if self.home and e.original == self.replayed.original(self.home)]
        if not math.isfinite(number):
            sentence = f"the gradient is {number}" + (f", first seen at event {bad[0].time} ({place(bad[0])})" if bad else "")
        elif not math.isfinite(self.tangent.derivative):
            sentence = f"the derivative is {self.tangent.derivative}"
        else:
            sentence = f"the result itself is {self.tangent.value}: a derivative of it means nothing"
        if self.tangent.non_finite:
            sentence += f"; in the function itself the first such number is made by {self.tangent.non_finite[0]}"
        return self.make("non-finite", sentence, [*bad[:1], *own[:1]], cause=bad[0] if bad else None, symptom=own[0] if own else None)

    # What the log says about the parameter itself

    def by_fate(self) -> Verdict | None:
        landed, lost, erased, doubled = self.by(LANDED, DOUBLED), self.by(LOST, STALE), self.by(ERASED), self.by(DOUBLED)
        if doubled:
            first = doubled[0]
            merge = self.merge(first.event)
            return self.make("doubled", f"the contribution of event {first.event.time} ({place(first.event)}) arrived {first.times} times",
                             [first.event, *([merge] if merge else [])], merge or first.event, merge or first.event)  # fmt: skip
        if lost:
            found = self.lost(lost, "partial" if landed else "lost")
            return found if any(c.event.delta != 0.0 for c in self.contributions) else self.lost_before(found) or found
        if erased:
            return self.erased(erased)
        return None

    def lost(self, lost: list[Contribution], word: str) -> Verdict:
        first = lost[0]
        count = f"{len(lost)} of {_count(len(self.contributions), 'contribution')}"
        if first.fate == STALE:
            assert first.by is not None
            sentence = f"{count} arrived and went again: event {first.by.time} ({place(first.by)}) stored an older copy of {self.name} over it"
            return self.make(word, sentence, [first.event, first.by], first.by, first.by, chain=self.replayed.links(self.home, first.by.edge or first.by.source or first.by.object))
        sentence = f"{count} went to a copy that nobody carried back: event {first.event.time} ({place(first.event)}) wrote to {first.event.object}"
        if first.links:
            sentence += "; " + describe_chain(self.name, first.links)
        evidence = [e for c in lost for e in (*c.links, c.event)]
        whole = self.number + sum(c.event.delta or 0.0 for c in lost)  # type: ignore[operator]
        note = f"with what was lost it would be {whole!r}, the derivative" if self.tangent.trap is None and is_right(whole, self.tangent) and whole != 0.0 else ""
        return self.make(word, sentence, evidence, first.links[0] if first.links else first.event, first.event, chain=first.links, note=note)

    def merge(self, contribution: Event) -> Event | None:
        """Return the first write to a node that brought its own gradient in once more, after a contribution that arrived more than once."""
        writes = self.replayed.trace.writes(contribution.original, self.replayed.gradient)
        return next((e for e in writes if e.time > contribution.time and e.time not in self.replayed.contributions), None)

    def lost_before(self, own: Verdict) -> Verdict | None:
        """Return, of a loss of nothing but zeros, the loss on the way that made them zero; None if there is none."""
        found = self.upstream()
        if found is None or found.word not in ("lost", "partial"):
            return None
        return replace(found, word=own.word, note=f"what reached {self.name} was zero therefore, and went to copies as well: {describe_chain(self.name, own.chain)}")

    def erased(self, erased: list[Contribution]) -> Verdict:
        first = erased[0]
        assert first.by is not None
        sentence = f"event {first.by.time} ({place(first.by)}) overwrote what event {first.event.time} ({place(first.event)}) had added"
        return self.make("clobbered", sentence, [e for c in erased for e in (c.event, c.by) if e is not None], first.by, first.by)

    def by_jump(self, number: float) -> Verdict | None:
        """Look for changes that no event of the parameter made: another object is the same memory."""
        replayed, slot = self.replayed, self.slot
        jumps = [j for j in replayed.jumps if j.slot == slot]
        known = replayed.numbers.get(slot)
        if known is not None and not same_number(known[0], number):
            jumps.append(explained(replayed, Jump(slot, known[1], len(replayed.trace.events), known[0], number)))
        elif known is None and number != 0.0 and self.home:
            jumps.append(explained(replayed, Jump(slot, -1, len(replayed.trace.events), 0.0, number)))
        for jump in jumps:
            if jump.through is not None:
                through = jump.through
                sentence = f"event {through.time} ({place(through)}) wrote the gradient of {through.object}, and {self.name} has the same memory: it counts for both"
                return self.make("doubled", sentence, [through], self.sharing(through, self.slot) or through, through)
        if jumps:
            return self.unfollowed() or self.make("inconclusive", f"its gradient went from {jumps[0].before!r} to {jumps[0].after!r}, and no event says why", self.events())
        return None

    def sharing(self, through: Event, slot: Slot) -> Event | None:
        """Return the assignment that made a gradient and the one that was written the same memory: the last one to either before the write."""
        owners = (slot, (through.object, through.element))
        found = [e for e in self.replayed.trace.events if e.kind == "overwrite" and (e.object, e.element) in owners and e.edge and e.time < through.time]
        return found[-1] if found else None

    # What the log says about the nodes before it

    def upstream(self) -> Verdict | None:
        """Everything arrived, but it was not right: follow the edges to what had not arrived before it was passed on."""
        todo, seen, lost, late, twice = [c.event for c in self.contributions], set(), [], [], []
        empty = 0
        while todo:
            event = todo.pop(0)
            if event.time in seen:
                continue
            seen.add(event.time)
            earlier, later = self.replayed.missing(event)
            lost += [(e, event) for e in earlier]
            late += [(e, event) for e in later]
            read = self.replayed.read.get(event.time, ())
            twice += [(self.replayed.contributions[t], event) for t, times in Counter(read).items() if times > 1 and t in self.replayed.contributions]
            empty += bool(earlier) and not self.replayed.read[event.time]
            todo += [self.replayed.contributions[t] for t in read if t in self.replayed.contributions]
            todo += earlier
        if lost:
            first, reader = min(lost, key=lambda pair: (pair[0].delta == 0.0, pair[0].time, pair[1].time))
            eraser = self.replayed.erasers.get(((reader.edge, first.element), first.time))
            if eraser is not None:
                return self.make("clobbered", f"on the way, at {reader.edge}: event {eraser.time} ({place(eraser)}) overwrote what event {first.time} had added",
                                 [first, eraser, reader], eraser, eraser)  # fmt: skip
            chain = self.replayed.links(reader.edge, first.object)
            word = "lost" if empty >= len(self.contributions) else "partial"
            sentence = f"on the way, at {reader.edge}: event {first.time} ({place(first)}) wrote to the copy {first.object}, and event {reader.time} read another one"
            if chain:
                sentence += "; " + describe_chain(f"node {chain[0].source}", chain)
            return self.make(word, sentence, [*chain, first, reader], chain[0] if chain else first, first, chain=chain)
        twice = [pair for pair in twice if pair[0].delta]
        if twice:
            first, reader = min(twice, key=lambda pair: (pair[0].time, pair[1].time))
            merge = self.merge(first)
            return self.make("doubled", f"on the way, at {reader.edge}: the contribution of event {first.time} ({place(first)}) had arrived more than once "
                             f"when event {reader.time} ({place(reader)}) read it", [first, *([merge] if merge else []), reader], merge or first, merge or reader)  # fmt: skip
        jump = next((j for j in self.replayed.jumps if j.through is not None and any(j.slot[0] == self.replayed.contributions[t].edge for t in seen)), None)
        if jump is not None and jump.through is not None:
            shared = self.sharing(jump.through, jump.slot)
            return self.make("doubled", f"on the way, at {jump.slot[0]}: event {jump.through.time} ({place(jump.through)}) changed its gradient through the same memory",
                             [*([shared] if shared else []), jump.through], shared or jump.through, jump.through)  # fmt: skip
        if late:
            first, reader = min(late, key=lambda pair: pair[1].time)
            return self.make("wrong", f"{reader.edge} passed its gradient on at event {reader.time} ({place(reader)}) before event {first.time} ({place(first)}) added to it",
                             [reader, first], reader, reader)  # fmt: skip
        return None

    def wrong(self) -> Verdict:
        """Everything arrived: then the rules are wrong, or they were given values that were overwritten meanwhile (`Verdict.suspects`)."""
        open_writes = [e for e in self.events() if e.kind == "write" and e.edge == UNKNOWN]
        if open_writes:
            first = open_writes[0]
            return self.make("inconclusive", f"the trace does not say whether event {first.time} ({place(first)}) adds to the gradient or replaces it",
                             self.events(), symptom=first)  # fmt: skip
        last = max(e.time for e in self.events())
        suspects = tuple(e for e in self.replayed.value_writes if e.time < last and e.before != e.after)
        note = "the trace does not say of every write whether it adds or replaces" if self.replayed.uncertain & {e.time for e in self.events()} else ""
        sentence = f"all of {_count(len(self.contributions), 'contribution')} arrived, and the sum is {self.beside()}"
        return self.make("wrong", sentence, self.events(), None, self.contributions[-1].event, note=note, suspects=suspects)

    def beside(self) -> str:
        """Return the number beside the derivative, in words."""
        derivative = self.tangent.derivative
        return f"{self.number / derivative:.6g} times the derivative" if derivative else f"{self.number!r}, where the derivative is zero"  # type: ignore[operator]


def describe_chain(name: str, chain: Iterable[Event]) -> str:
    """Return the copies of a chain as a sentence."""
    return f"{name} " + ", then ".join(f"{HOW.get(e.position, 'was copied')} ({place(e)})" for e in chain)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def first_of(verdicts: Iterable[Verdict]) -> tuple[Event | None, Event | None]:
    """Return the earliest cause and the earliest symptom of all verdicts; None where there is none: a wrong rule has no cause in memory."""
    found = tuple(verdicts)
    causes, symptoms = [v.cause for v in found if v.cause is not None], [v.symptom for v in found if v.symptom is not None]
    return min(causes, key=lambda e: e.time, default=None), min(symptoms, key=lambda e: e.time, default=None)

"""Is the blamed copy really the cause? Run without it and look again.

A loss has a *chain* of copies: from the parameter's object to the one that was written. Undoing one link alone often changes nothing, because the
others still copy. So the test shares the whole chain, which must change the verdict, and then each link alone. If a loss further up comes to light, its
chain is added and the run repeated. Nothing is called a fix that was not run and found ok.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..mir.diagnostics import Origin
from ..passes.semantics import WRITTEN, Site
from .events import Event
from .verdicts import HOW, Verdict, place, site


class Rejudge(Protocol):
    """Run the experiment without the copies in `shared`, and with those in `copied`; return the verdicts by parameter."""

    def __call__(self, shared: frozenset[Site], copied: frozenset[Site] = frozenset()) -> Mapping[str, Verdict]: ...


ROUNDS = 12
"""How many further chains may come to light."""
LINKS = 24
"""How many links are tried alone."""
STORE = "no single edit helps; keep gradients in a store"


@dataclass(frozen=True)
class LinkTest:
    """One copy of the chain, left out alone: the word that comes out then."""

    event: Event
    word: str

    @property
    def is_sufficient(self) -> bool:
        return self.word == "ok"


@dataclass(frozen=True)
class CausalTest:
    """What leaving out copies did to the verdict of a parameter.

    word: the verdict as it was. whole: after sharing its whole chain. is_confirmed: that this changed the verdict, or where the loss is. final: after
    sharing also what came to light then (`shared`: every copy that was left out at last). fix: what helps, or that no single edit does.
    """

    parameter: str
    word: str
    whole: str
    is_confirmed: bool
    final: str
    shared: frozenset[Site]
    links: tuple[LinkTest, ...]
    fix: str

    def __str__(self) -> str:
        tried = "; ".join(f"without the copy at {place(t.event)}: {t.word}" for t in self.links)
        state = "confirmed" if self.is_confirmed else "NOT confirmed"
        return f"{self.parameter}: {self.word}, without its chain of copies {self.whole} ({state}), in the end {self.final}; {tried}; {self.fix}"


def causal_test(verdict: Verdict, rejudge: Rejudge) -> CausalTest | None:
    """Return what sharing the copies to blame changes; None for a verdict that blames no copy."""
    sites = verdict.sites
    if verdict.word == "ok" or not sites:
        return None
    after = rejudge(sites)[verdict.parameter]
    whole, is_confirmed = after.word, _blames(after) != _blames(verdict)
    shared = sites
    for _ in range(ROUNDS):
        if after.word == "ok" or after.sites <= shared:
            break
        shared |= after.sites
        after = rejudge(shared)[verdict.parameter]
    links = tuple(LinkTest(event, rejudge(frozenset({site(event)}))[verdict.parameter].word) for event in _copies(verdict)[:LINKS])
    return CausalTest(verdict.parameter, verdict.word, whole, is_confirmed, after.word, shared, links, _fix(verdict, links))


def copy_fix(verdict: Verdict, rejudge: Rejudge) -> str:
    """Return where a copy helps against a contribution that counts twice, if it was run and did; else ""."""
    event = verdict.cause
    if verdict.word != "doubled" or event is None:
        return ""
    for position in ("field_write", "element_write"):
        place_of_copy = (Origin(event.function, event.block, event.index), position)
        if rejudge(frozenset(), frozenset({place_of_copy}))[verdict.parameter].word == "ok":
            return f"copy what {place(event)} stores: tried, and {verdict.parameter} is ok"
    return ""


def _blames(verdict: Verdict) -> tuple[object, ...]:
    return (verdict.word, verdict.landed, verdict.sites)


def _copies(verdict: Verdict) -> list[Event]:
    """Return one event per copy to blame, the chain's first."""
    events = [*verdict.chain, *(link for c in verdict.contributions for link in c.links)]
    found = {site(event): event for event in reversed(events) if site(event) in verdict.sites}
    return sorted(found.values(), key=lambda e: e.time)


def _fix(verdict: Verdict, links: tuple[LinkTest, ...]) -> str:
    helping = next((t.event for t in links if t.is_sufficient), None)
    if helping is None:
        return STORE
    if helping.position == WRITTEN:
        return f"take away the `aggregate_copy` at {place(helping)}: tried, and {verdict.parameter} is ok"
    return f"do not copy where {verdict.parameter} {HOW.get(helping.position, 'is copied')} ({place(helping)}): tried, and {verdict.parameter} is ok"

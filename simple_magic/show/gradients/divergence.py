"""Where two runs part: their events beside each other, aligned by instruction and occurrence, around the first cause and the first symptom.

What both did alike is folded into a count. Four rows can be marked: the first event that only one run has, which may do no harm; the first cause, the
copy or write that a verdict blames; the first symptom, the first write that did not do what it should; and the first write of which the numbers differ
(`autograd/events.py`, `diff`). Below stands what came of it: the parameters that the two runs are judged differently about.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...autograd.events import UNKNOWN, Difference, Divergence, Event, diff, same_numbers
from ...autograd.judging import JudgedRun
from ...autograd.verdicts import HOW, Verdict, first_of, place
from ..picture import BACKGROUND, FAINT, INK, Box, Label, Path, Picture, Shape, shorten, text_width
from .marks import VERDICTS
from .parts import number

BEFORE, AFTER = 2, 2
SIZE, SMALL = 11, 10
MARGIN, COLUMN, GAP = 16.0, 470.0, 22.0
ROW, LINE = 46.0, 14.0
LETTERS = 64
"""Characters of an instruction that a column has room for."""
WRAP = 120
MOST_CONSEQUENCES = 8
PARTING, CAUSE, SYMPTOM, NUMBERS = "first event of only one run", "first cause", "first symptom", "first different number"
CAUSE_COLOR, SYMPTOM_COLOR = VERDICTS["lost"].color, VERDICTS["doubled"].color
CAUSE_FILL, SYMPTOM_FILL = VERDICTS["lost"].fill, VERDICTS["doubled"].fill


@dataclass(frozen=True, slots=True)
class Pair:
    """The events of both runs that stand for the same; None where a run has none."""

    left: Event | None
    right: Event | None

    @property
    def is_equal(self) -> bool:
        if self.left is None or self.right is None:
            return False
        return not self.left.is_write or same_numbers(self.left, self.right)


def aligned(left: Sequence[Event], right: Sequence[Event]) -> list[Pair]:
    """Return the events of two runs in the order they happened, those that match (instruction and occurrence) in pairs."""
    other = {e.alignment: i for i, e in enumerate(right)}
    pairs, at = [], 0
    taken = {other[e.alignment] for e in left if e.alignment in other}
    for event in left:
        match = other.get(event.alignment)
        if match is None:
            pairs.append(Pair(event, None))
            continue
        while at < match:
            if at not in taken:
                pairs.append(Pair(None, right[at]))
            at += 1
        pairs.append(Pair(event, right[match]))
        at = max(at, match + 1)
    return pairs + [Pair(None, right[i]) for i in range(at, len(right)) if i not in taken]


def divergence_picture(left: JudgedRun, right: JudgedRun) -> Picture:
    """Return the two runs beside each other where they part."""
    difference = diff(left.trace, right.trace)
    pairs = aligned(left.trace.events, right.trace.events)
    found = _marks(left, right, difference)
    marked: dict[int, list[str]] = {}
    for what, place_of in found.items():
        marked.setdefault(_index(pairs, place_of), []).append(what)
    drawing = _Drawing(left, right)
    title = f"where {left.name} and {right.name} part"
    drawing.head(title, _reasons(left, right, bool(pairs), bool(marked)))
    drawing.rows(pairs, marked)
    consequences = _consequences(left, right)
    drawing.consequences(consequences)
    text = "\n".join([title, *drawing.words, *consequences])
    return Picture(2 * MARGIN + 2 * COLUMN + GAP, drawing.y + MARGIN, title, _description(left, right, found), tuple(drawing.shapes), text)


def _marks(left: JudgedRun, right: JudgedRun, difference: Difference) -> dict[str, Divergence]:
    """Return what is marked, by what it is called: an event of both runs or of one. Where both runs have a cause, each is called by its run."""
    firsts = {run.name: first_of(run.verdicts) for run in (left, right)}
    found: dict[str, Divergence] = {}
    if difference.cause is not None:
        found[PARTING] = difference.cause
    for number_, what in enumerate((CAUSE, SYMPTOM)):
        events = [(run, event) for run in (left, right) if (event := firsts[run.name][number_]) is not None]
        for run, event in events:
            found[what if len(events) == 1 else f"{what} in {run.name}"] = Divergence(event, None) if run is left else Divergence(None, event)
    if difference.symptom is not None:
        found[NUMBERS] = difference.symptom
    return found


def _index(pairs: Sequence[Pair], found: Divergence) -> int:
    times = (found.left and found.left.time, found.right and found.right.time)
    for index, pair in enumerate(pairs):
        if found.left is not None and pair.left is not None and pair.left.time == times[0]:
            return index
        if found.left is None and pair.right is not None and pair.right.time == times[1]:
            return index
    raise AssertionError("every event is in a pair")


def _reasons(left: JudgedRun, right: JudgedRun, has_events: bool, is_marked: bool) -> list[str]:
    """Return what is to be said where there is nothing to draw."""
    missing = [f"{r.name}: " + (f"the run ended with trap {r.run.trap.kind}" if r.run.trap else r.run.note or "the run has no trace")
               for r in (left, right) if not r.trace.events]  # fmt: skip
    if missing:
        return missing
    if has_events and not is_marked:
        return ["they do not: both made the same copies and wrote the same numbers"]
    return []


def _shown(count: int, marked: Sequence[int]) -> list[int]:
    """Return the rows around what is marked."""
    return sorted({i for m in marked for i in range(max(0, m - BEFORE), min(count, m + AFTER + 1))})


def _object(event: Event) -> str:
    return f"object {event.object}"


def describe(event: Event) -> str:
    """Return what an event did, with its numbers."""
    if event.kind == "copy":
        return f"copy {event.object} of {event.source}: {event.path or 'it'} {HOW.get(event.position, 'was copied')}"
    if event.kind == "alloc":
        return f"new {_object(event)}" + (f" with value {number(event.after)}" if event.after is not None else "")
    if event.is_write and event.before is not None and event.after is not None:
        source = {"": "from no gradient", UNKNOWN: "from an unknown place"}.get(event.edge, f"from the gradient of {event.edge}")
        element = "" if event.element is None else f"[{event.element}]"
        return f"{event.field}{element} of {event.object}: {number(event.before)} became {number(event.after)}, {source}"
    return f"{event.kind.replace('_', ' ')}: {_object(event)}"


@dataclass
class _Drawing:
    left: JudgedRun
    right: JudgedRun
    shapes: list[Shape] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    y: float = 22.0

    @property
    def columns(self) -> tuple[tuple[float, JudgedRun], ...]:
        return (MARGIN, self.left), (MARGIN + COLUMN + GAP, self.right)

    def head(self, title: str, reasons: Sequence[str]) -> None:
        self.shapes.append(Label(MARGIN, self.y, title, 14, is_bold=True))
        self.y += 26
        for x, run in self.columns:
            self.shapes.append(Label(x, self.y, run.name, 12, is_bold=True))
        self.y += 18
        for line in (part for reason in reasons for part in textwrap.wrap(reason, WRAP)):
            self.shapes.append(Label(MARGIN, self.y, line, SIZE, FAINT))
            self.y += 16
        self.words += reasons

    def rows(self, pairs: Sequence[Pair], marked: dict[int, list[str]]) -> None:
        shown = _shown(len(pairs), list(marked))
        last = -1
        for index in shown:
            self.fold(pairs[last + 1 : index])
            self.row(pairs[index], marked.get(index, []))
            last = index
        if shown:
            self.fold(pairs[last + 1 :])

    def fold(self, pairs: Sequence[Pair]) -> None:
        """Say how many events are not drawn, and how many of them are not alike."""
        if not pairs:
            return
        different = sum(not p.is_equal for p in pairs)
        text = f"\u2026 {len(pairs)} event{'s' * (len(pairs) != 1)}, " + (f"{different} of them not alike" if different else "all alike") + " \u2026"
        self.shapes.append(Label(MARGIN + COLUMN + GAP / 2, self.y + 8, text, SMALL, FAINT, "middle"))
        self.words.append(text)
        self.y += 22

    def row(self, pair: Pair, marks: Sequence[str]) -> None:
        color, fill = (CAUSE_COLOR, CAUSE_FILL) if any(mark.startswith(CAUSE) for mark in marks) else (SYMPTOM_COLOR, SYMPTOM_FILL) if marks else (FAINT, BACKGROUND)
        if marks:
            text = " and ".join(marks)
            self.shapes.append(Label(MARGIN, self.y + 5, text, SMALL, color, is_bold=True))
            self.words.append(text)
            self.y += LINE
        sign = "=" if pair.is_equal else "\u2260"
        for (x, run), event in zip(self.columns, (pair.left, pair.right)):
            self.shapes.append(Box(x, self.y, COLUMN, ROW - 4, fill, color, "" if marks else "2 3", 1.6 if marks else 1.0))
            self.event(x, event, run)
        self.shapes.append(Label(MARGIN + COLUMN + GAP / 2, self.y + ROW / 2 - 2, sign, SIZE, color if marks else INK, "middle"))
        self.y += ROW

    def event(self, x: float, event: Event | None, run: JudgedRun) -> None:
        if event is None:
            self.shapes.append(Label(x + 8, self.y + ROW / 2 - 2, "no such event in this run", SMALL, FAINT))
            self.words.append(f"  {run.name}: no such event")
            return
        where = f"{event.time}  {place(event)}"
        lines = ((shorten(where, LETTERS + 6), FAINT), (shorten(event.instruction or event.kind, LETTERS + 6), INK), (shorten(describe(event), LETTERS + 6), INK))
        for number_, (text, color) in enumerate(lines):
            self.shapes.append(Label(x + 8, self.y + 8 + 13 * number_, text, SMALL, color, is_bold=number_ == 1))
        self.words.append(f"  {run.name}: event {where}: {event.instruction}: {describe(event)}")

    def consequences(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self.y += 8
        self.shapes += [Path(((MARGIN, self.y), (MARGIN + 2 * COLUMN + GAP, self.y)), "#d9d9d9", line_width=1.0), Label(MARGIN, self.y + 14, "what came of it", 12, is_bold=True)]
        self.y += 32
        for line in lines:
            for part in textwrap.wrap(line, int((2 * COLUMN + GAP) / text_width("x", SMALL)), subsequent_indent="  "):
                self.shapes.append(Label(MARGIN, self.y, part, SMALL))
                self.y += LINE


def _consequences(left: JudgedRun, right: JudgedRun) -> list[str]:
    """Return the verdicts in which the runs differ."""
    pairs = [(a, b) for a, b in zip(left.verdicts, right.verdicts) if (a.word, a.gradient) != (b.word, b.gradient)]
    lines = [f"{a.parameter}: {_short(a)} in {left.name}, {_short(b)} in {right.name}. {(a if a.word != 'ok' else b).sentence}" for a, b in pairs[:MOST_CONSEQUENCES]]
    return lines + ([f"{len(pairs) - MOST_CONSEQUENCES} more parameters differ: see the table"] if len(pairs) > MOST_CONSEQUENCES else [])


def _short(verdict: Verdict) -> str:
    return VERDICTS[verdict.word].text + ("" if verdict.gradient is None else f" ({number(verdict.gradient)})")


def _description(left: JudgedRun, right: JudgedRun, marks: Mapping[str, Divergence]) -> str:
    parts = []
    for what, found in marks.items():
        event = found.left or found.right
        assert event is not None, "what is marked is an event of one run at least"
        parts.append(f"{what}, in {left.name if found.left else right.name}: event {event.time}, {place(event)}: {describe(event)}")
    return ". ".join(parts) or f"{left.name} and {right.name} do not part"

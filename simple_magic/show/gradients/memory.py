"""Memory before and after: three frames that show where the gradient of one parameter went.

Where objects are copied, a frame is a stack of boxes, each object inside the place that holds it: the copy, the write, the death. Where they are shared it
is owners with arrows to one object: the sharing, the write, what is read in the end. Every word and number comes from the events; where the trace does
not know a number, the box says so. Owners are only those of which the numbers prove that they are the same memory.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...autograd.events import UNKNOWN, Event
from ...autograd.judging import JudgedRun
from ...autograd.replay import DOUBLED, LANDED, LOST, STALE, Contribution, same_number
from ...autograd.verdicts import HOW, Verdict, place
from ...mir.diagnostics import printable, text_cells
from ...passes.semantics import WRITTEN
from ..picture import BACKGROUND, FAINT, INK, Box, Label, Path, Picture, Shape, shorten, text_width
from .marks import FATES, VERDICTS, Mark
from .parts import amount, apart, counted, number

SIZE, SMALL = 11, 10
MARGIN, FRAME, GAP, LEAST = 16.0, 300.0, 24.0, 640.0
PITCH, STEP, SPACE = 15.0, 30.0, 18.0
"""Heights: of a line, of an owner, of the gap between two boxes."""
LETTERS = 49
"""How many small letters fit in a frame."""
MOST_COPIES, MOST_DEAD, MOST_LINES, MOST_OWNERS = 4, 3, 5, 6
HOLDERS = {
    "bind": "in a variable", "argument": "passed as an argument", "return": "returned", "initialiser": "in a new object or array",
    "element_write": "in an array", "field_write": "in a field", "global_write": "in a global", "element_read": "read out of an array",
    "dict_read": "read out of a dict", "field_read": "read out of a field", "global_read": "read out of a global", "capture": "in a closure",
    "hop": "on the way to a write", WRITTEN: "copied by the program itself",
}  # fmt: skip
"""Where a copy lives, by the position of the semantics model that made it."""
PLAIN = Mark("", "", FAINT, BACKGROUND)
GONE = Mark("gone", "\u2020", FAINT, "#f4f4f4", "2 3")
NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Thing:
    """An object in a frame; without lines a remark. holder: where it lives, empty where it is shared; owners: the names with an arrow to it."""

    title: str
    lines: tuple[str, ...] = ()
    holder: tuple[str, ...] = ()
    mark: Mark = PLAIN
    owners: tuple[str, ...] = ()
    is_copy_of_above: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment: what happens, the instruction, and the memory then."""

    title: str
    event: Event | None
    things: tuple[Thing, ...]
    remark: str = ""


def memory_picture(run: JudgedRun, parameter: str = "") -> Picture:
    """Return the memory at three moments. parameter: "" for the first that is not ok, else the first. Raises: KeyError for one that there is not."""
    verdict = _chosen(run, parameter)
    if verdict is None:
        return _picture(f"memory: {run.name}", "", INK, (Frame("nothing to show: the run has no parameters", None, ()),), "the run has no parameters", "")
    story, reason = _Story(run, verdict), verdict.sentence + (f"; {verdict.note}" if verdict.note else "")
    mark, description = VERDICTS[verdict.word], f"{verdict.parameter}: {verdict.word}. {reason}"
    title = f"memory: {verdict.parameter} in {run.name}"
    return _picture(title, f"{mark.text}: {story.read_line()}", mark.color, tuple(story.frames()), description, f"{verdict.parameter}: {reason}")


def _picture(title: str, answer: str, color: str, frames: tuple[Frame, ...], description: str, caption: str) -> Picture:
    drawing = _Drawing(max(LEAST, MARGIN + len(frames) * (FRAME + GAP)))
    drawing.draw(title, answer, color, frames, caption)
    return Picture(drawing.width, drawing.bottom + MARGIN, title, description, tuple(drawing.shapes), _twin(title, answer, frames, description))


def _chosen(run: JudgedRun, parameter: str) -> Verdict | None:
    if not parameter:
        return next((v for v in run.verdicts if v.word != "ok"), run.verdicts[0] if run.verdicts else None)
    found = next((v for v in run.verdicts if parameter in (v.parameter, v.parameter.partition("[")[0])), None)
    if found is None:
        raise KeyError(f"no parameter is named {parameter}; there is: {', '.join(v.parameter for v in run.verdicts)}")
    return found


@dataclass
class _Story:
    """The frames of one verdict. home: the object whose gradient the program reads, "" if the trace does not know it."""

    run: JudgedRun
    verdict: Verdict

    def __post_init__(self) -> None:
        name, bracket, index = self.verdict.parameter.partition("[")
        self.replayed, self.events = self.run.replayed, {e.time: e for e in self.run.trace.events}
        self.copies = self.replayed.copies
        self.element = int(index.rstrip("]")) if bracket else None
        homes = [home for home, known in self.run.trace.names.items() if known == name]
        judged = (h for h in homes if self.replayed.fates(self.replayed.slot(h, self.element)) == self.verdict.contributions)
        self.home = next(judged, homes[0] if homes else "")
        self.writes: dict[tuple[str, bool], list[Event]] = {}
        for event in self.run.trace.events:
            if event.is_write and event.element in ((None, 0) if self.element is None else (self.element,)):
                self.writes.setdefault((event.object, self.replayed.is_gradient(event)), []).append(event)

    def frames(self) -> Iterator[Frame]:
        v = self.verdict
        erased = next((c for c in v.contributions if c.fate == STALE), None)
        lost = [c for c in v.contributions if c.fate == LOST]
        if not self.home or not self.events:
            yield Frame("the trace does not know it", None, (), "" if self.events else "the run left no trace")
        elif v.word in ("lost", "partial") and erased is not None and erased.by is v.cause:
            yield from self.undone(erased, v.chain)
        elif lost and lost[0].links and v.word in ("lost", "partial"):
            yield from self.copied(lost[0].links, lost[0].event, [c.event for c in lost])
        elif v.chain and v.symptom is not None:
            reader = self.events.get(v.evidence[-1]) if v.evidence and v.evidence[-1] != v.symptom.time else None
            yield from self.copied(v.chain, v.symptom, [v.symptom], reader)
        elif v.word == "doubled" and v.symptom is not None and v.symptom.time in self.replayed.contributions:
            yield from self.shared(v.cause if v.cause is not v.symptom else None, v.symptom)
        elif v.word == "doubled" and v.symptom is not None:
            yield from self.merged(next(c for c in v.contributions if c.fate == DOUBLED), v.symptom)
        elif v.word == "clobbered" and v.cause is not None:
            yield from self.overwritten(v.cause)
        else:
            yield from self.arrived()

    # Numbers

    def at(self, name: str, time: int, is_gradient: bool = True) -> float | None:
        """Return the number that an object held before an event, None where the trace does not know."""
        writes = self.writes.get((name, is_gradient), [])
        last = next((e for e in reversed(writes) if e.time < time), None)
        if last is not None:
            return last.after
        born = self.copies.get(name)
        inherited = self.at(born.source, born.time, is_gradient) if born is not None and born.time < time else None
        if inherited is not None:
            return inherited
        if writes:
            return writes[0].before
        return self.verdict.gradient if name == self.home and is_gradient else None

    def text(self, name: str, time: int) -> str:
        return _text("gradient", self.at(name, time))

    def change(self, event: Event) -> str:
        """Return what a write did to a number."""
        word = "gradient" if self.replayed.is_gradient(event) else "value"
        if event.after is None or event.before is None:
            return _text(word, event.after)
        return f"{word} {number(event.before)} becomes {number(event.after)}"

    def read_line(self) -> str:
        v = self.verdict
        wanted = None if v.wanted is None or v.wanted.trap is not None or v.word == "ok" else v.wanted.derivative
        if v.gradient is None:
            return "no gradient" + (f", wanted {number(wanted)}" if wanted is not None else "")
        return f"gradient {number(v.gradient)}" if wanted is None else "gradient {}, wanted {}".format(*apart(v.gradient, wanted))

    # Objects

    def name(self, object_: str) -> str:
        known, original = self.run.trace.names.get(object_), self.replayed.original(object_)
        kind = "entry" if object_.startswith("@") else "copy" if object_ in self.copies and not known else "object"
        if known:
            return f"{known}, {kind} {object_}"
        of = next((name for home, name in self.run.trace.names.items() if self.replayed.original(home) == original), "")
        label = self.run.trace.labels.get(original, "")
        if of:
            return f"{kind} {object_} of {of}" if kind == "copy" else f"{kind} {object_}, the original of {of}"
        return f"{kind} {object_}" + (f" ({label})" if label else "")

    def owner(self, object_: str) -> str:
        return self.run.trace.names.get(object_, object_ if object_.startswith("@") else f"object {object_}")

    def holder(self, object_: str) -> tuple[str, ...]:
        born = self.copies.get(object_)
        if born is not None:
            return (f"{HOLDERS.get(born.position, 'a copy')}: {born.path or NOT_KNOWN}", place(born))
        made = next((e for e in self.run.trace.events if e.kind == "alloc" and e.object == object_), None)
        return ("where it was made", place(made) if made is not None else f"line: {NOT_KNOWN}")

    def thing(self, object_: str, line: str, mark: Mark = PLAIN, above: str = "") -> Thing:
        born = self.copies.get(object_)
        shown = f"{mark.glyph} {line}" if mark.glyph else line
        return Thing(self.name(object_), (shown,), self.holder(object_), mark, (), born is not None and above != "" and born.source == above)

    def read_thing(self, *more: str, has_holder: bool = False) -> Thing:
        """Return what the program reads in the end."""
        mark = VERDICTS[self.verdict.word]
        return Thing(self.name(self.home), (*more, f"{mark.glyph} {self.read_line()}"), self.holder(self.home) if has_holder else (), mark)

    def moment(self, object_: str, write: Event, above: str) -> Thing:
        """Return an object as it is when a write is lost."""
        if object_ == write.object:
            return self.thing(object_, self.change(write), FATES[LOST], above)
        return self.thing(object_, self.text(object_, write.time), above=above)

    def pair(self, first: Event, last: Event) -> tuple[Thing, Thing]:
        """Return an original and a copy of it, each as it is when the copy is made."""
        original = self.thing(first.source, self.text(first.source, first.time))
        return original, self.thing(last.object, self.text(last.object, last.time + 1), above=first.source)

    # Stories

    def copied(self, chain: Sequence[Event], write: Event, dead: Sequence[Event], reader: Event | None = None) -> Iterator[Frame]:
        """A write to a copy: the first copy, the write to the last one, what is read. dead: all lost writes; reader: what passed on another copy."""
        first, end = chain[0], len(self.events)
        objects = list(dict.fromkeys([first.source, *(e.object for e in chain if e.time < write.time), write.object]))
        which = "1  the copy" + (f": the first of {len(chain)}" if len(chain) > 1 else "")
        yield Frame(which, first, self.pair(first, first))
        left_out = max(0, len(objects) - MOST_COPIES)
        upper, lower = (objects[:2], objects[2 + left_out :]) if left_out else (objects, [])
        things = [self.moment(name, write, above) for above, name in zip(["", *upper], upper)]
        things += [Thing(f"\u2026 {left_out} more {'copy' if left_out == 1 else 'copies'} \u2026")] if left_out else []
        things += [self.moment(name, write, above) for above, name in zip(["", *lower], lower)]
        yield Frame("2  the write", write, tuple(things), self.brings(write))
        things = [self.read_thing(has_holder=True)]
        graves = list(dict.fromkeys(e.object for e in dead))
        if reader is not None:
            things.append(self.thing(reader.edge, f"{self.text(reader.edge, reader.time)}, passed on"))
        things += [self.thing(o, f"{self.text(o, end)}, gone with the copy", GONE) for o in graves[:MOST_DEAD]]
        remark = f"and {len(graves) - MOST_DEAD} more; " if len(graves) > MOST_DEAD else ""
        if reader is not None:
            remark += f"event {reader.time} passed on {reader.edge} instead"
        else:
            remark += "no event carries it back" if len(graves) == 1 else "no event carries them back"
        yield Frame("3  the death: what the program reads", None, tuple(things), remark)

    def brings(self, write: Event) -> str:
        """Return what a write brings and where from; of a zero, why it is one if what was passed on had been lost before."""
        if write.edge in ("", UNKNOWN):
            return amount(write)
        lacking, _ = self.replayed.missing(write)
        reason = f", which lacks what event {lacking[0].time} wrote to {lacking[0].object}" if lacking else ""
        return f"{amount(write)}, from the gradient of {self.name(write.edge)}{reason}"

    def undone(self, contribution: Contribution, chain: Sequence[Event]) -> Iterator[Frame]:
        """A contribution arrived, then an older copy was stored over it."""
        by, write = contribution.by, contribution.event
        assert by is not None
        if chain:
            yield Frame("1  the copy", chain[0], self.pair(chain[0], chain[-1]))
        then, later = ((self.thing(chain[-1].object, self.text(chain[-1].object, time)),) if chain else () for time in (write.time, by.time))
        yield Frame(f"{1 + bool(chain)}  the write", write, (self.thing(write.object, self.change(write)), *then), self.brings(write))
        things = [self.read_thing(self.change(by), has_holder=True) if by.after is not None else self.read_thing(has_holder=True)]
        yield Frame(f"{2 + bool(chain)}  the older copy is stored over it", by, (*things, *later), f"what event {write.time} had added is gone")

    def shared(self, cause: Event | None, write: Event) -> Iterator[Frame]:
        """Several owners of one memory: the assignment, a write through one of them, what is read."""
        jumps = [j for j in self.replayed.jumps if j.through is not None and j.through.time == write.time]
        slot = self.replayed.slot(self.home, self.element)
        known = self.replayed.numbers.get(slot)
        is_home = not jumps or (known is not None and self.verdict.gradient is not None and not same_number(known[0], self.verdict.gradient))
        objects = dict.fromkeys([*([self.home] if is_home else []), write.object, *(j.slot[0] for j in jumps)])
        names = [self.owner(o) for o in sorted(objects, key=lambda o: (o not in self.run.trace.names, o))]
        owners = (*names[:MOST_OWNERS], *([f"and {len(names) - MOST_OWNERS} more"] if len(names) > MOST_OWNERS else []))
        one = "one gradient, shared"
        origin = "the trace does not say where it began" if cause is None else ""
        if cause is not None and cause.edge not in ("", UNKNOWN):
            origin = f"{self.owner(cause.object)} was given it, from the gradient of {self.name(cause.edge)}"
        before = write.before if cause is None else cause.after
        yield Frame("1  the sharing", cause, (Thing(one, (_text("gradient", before),), owners=owners),), origin)
        mark = FATES[DOUBLED]
        yield Frame("2  the write", write, (Thing(one, (f"{mark.glyph} {self.change(write)}",), owners=owners, mark=mark),),
                    f"{amount(write)} for {self.owner(write.object)} counts for all of them")  # fmt: skip
        passed = next((c.event for c in self.verdict.contributions if c.event.edge in objects and c.event.time > write.time), None)
        given = (f"{amount(passed)} from {self.owner(passed.edge)}",) if passed is not None and not is_home else ()
        yield Frame("3  what the program reads", passed if given else None, (self.read_thing(*given),))

    def merged(self, contribution: Contribution, merge: Event) -> Iterator[Frame]:
        """A contribution was added once more, out of a copy that held it already."""
        write = contribution.event
        yield Frame("1  the contribution arrives", write, (self.thing(write.object, self.change(write)),), self.brings(write))
        copy = merge.edge if merge.edge in self.copies else ""
        more = (self.thing(copy, self.text(copy, merge.time)),) if copy else ()
        merged = self.thing(merge.object, self.change(merge), FATES[DOUBLED])
        yield Frame("2  it arrives again", merge, (merged, *more), f"what event {write.time} brought is in both")
        yield Frame("3  what the program reads", None, (self.read_thing(has_holder=True),))

    def overwritten(self, cause: Event) -> Iterator[Frame]:
        """A number that was replaced too early: a value that backward needs, or a contribution."""
        is_gradient = self.replayed.is_gradient(cause)
        word, name, mark = "gradient" if is_gradient else "value", self.name(cause.object), VERDICTS["clobbered"]
        earlier = self.events.get(self.verdict.evidence[0]) if is_gradient and self.verdict.evidence else None
        if earlier is not None and earlier.time < cause.time:
            yield Frame("1  the contribution arrives", earlier, (Thing(self.name(earlier.object), (self.change(earlier),)),), self.brings(earlier))
            remark = f"it replaces what event {earlier.time} had brought"
        else:
            yield Frame("1  before", None, (Thing(name, (_text(word, cause.before),)),))
            remark = "backward still needs the number that was here"
        yield Frame("2  the write", cause, (Thing(name, (f"{mark.glyph} {self.change(cause)}",), mark=mark),), remark)
        later = next((c.event for c in self.verdict.contributions if c.event.time > cause.time), None)
        other = (Thing(name, (_text(word, cause.after),)),) if cause.object != self.home else ()
        given = (f"{amount(later)} is written",) if later is not None else ()
        yield Frame("3  what the program reads", later, (*other, self.read_thing(*given)))

    def arrived(self) -> Iterator[Frame]:
        """No copy and no sharing is to blame: what was written, and what is read."""
        made = self.verdict.contributions
        first = made[0].event if made else None
        yield Frame("1  before", None, (Thing(self.name(self.home), (self.text(self.home, first.time) if first is not None else "no gradient written yet",)),))
        if first is not None:
            lines = [self.contribution_line(c) for c in made[:MOST_LINES]]
            lines += [f"and {counted(len(made) - MOST_LINES, 'more write')}"] if len(made) > MOST_LINES else []
            mark = FATES[LANDED] if {c.fate for c in made} == {LANDED} else PLAIN
            yield Frame("2  the write" + "s" * (len(made) > 1), first, (Thing(self.name(self.home), tuple(lines), mark=mark),))
        else:
            is_whole = self.run.trace.is_complete
            yield Frame("2  no write", None, (), "backward wrote nothing for it" if is_whole else "the trace shows none, but it lacks the last events")
        yield Frame("3  what the program reads", None, (self.read_thing(),))

    def contribution_line(self, c: Contribution) -> str:
        where = "" if c.event.object == self.home else f" to {c.event.object}" + (", carried back" if c.fate == LANDED else "")
        source = "" if c.event.edge in ("", UNKNOWN) else f" from {self.owner(c.event.edge)}"
        return f"{FATES[c.fate].glyph} event {c.event.time}: {amount(c.event)}{source}{where}"


def _text(word: str, known: float | None) -> str:
    return f"{word} {number(known)}" if known is not None else f"{word}: {NOT_KNOWN}"


@dataclass
class _Drawing:
    width: float
    shapes: list[Shape] = field(default_factory=list)
    bottom: float = 0.0

    def draw(self, title: str, answer: str, color: str, frames: Sequence[Frame], caption: str) -> None:
        room = self.width - 2 * MARGIN
        self.shapes.append(Label(MARGIN, 22, shorten(title, int(room / text_width("x", 14))), 14, is_bold=True))
        if answer:
            self.shapes.append(Label(MARGIN, 43, shorten(answer, int(room / text_width("x", 12))), 12, color, is_bold=True))
        top = 72.0 if answer else 48.0
        heads = [self._head(frame) for frame in frames]
        below = top + 16 + PITCH * max(len(lines) for lines in heads)
        bottoms = []
        for index, (frame, lines) in enumerate(zip(frames, heads)):
            x = MARGIN + index * (FRAME + GAP)
            self.shapes.append(Label(x, top, frame.title, 12, is_bold=True))
            for row, (line, ink) in enumerate(lines):
                self.shapes.append(Label(x, top + 18 + PITCH * row, line, SMALL, ink))
            bottoms.append(self._things(x, below, frame))
        self.bottom = max(bottoms)
        for index in range(1, len(frames)):
            x = MARGIN + index * (FRAME + GAP) - GAP / 2
            self.shapes.append(Path(((x, top - 8), (x, self.bottom)), "#d9d9d9", line_width=1.0))
        for line in _wrapped(caption, int(room / text_width("x", SIZE))):
            self.shapes.append(Label(MARGIN, self.bottom + 14, line, SIZE))
            self.bottom += PITCH

    def _head(self, frame: Frame) -> list[tuple[str, str]]:
        if frame.event is None:
            return []
        where = _wrapped(f"event {frame.event.time}, {place(frame.event)}", LETTERS)[:2]
        return [*((line, FAINT) for line in where), (shorten(frame.event.instruction, LETTERS), INK)]

    def _things(self, x: float, y: float, frame: Frame) -> float:
        for index, thing in enumerate(frame.things):
            if not thing.lines:
                self.shapes.append(Label(x + 20, y, thing.title, SMALL, FAINT))
                y += SPACE - 2
            elif thing.owners:
                y = self._owned(x, y, thing)
            else:
                if thing.is_copy_of_above and index:
                    self.shapes.append(Path(((x + 24, y - SPACE + 1), (x + 24, y - 1)), FAINT, has_arrow=True))
                y = self._held(x, y, thing)
        for line in _wrapped(frame.remark, LETTERS):
            self.shapes.append(Label(x, y, line, SMALL, FAINT))
            y += 14
        return y

    def _held(self, x: float, y: float, thing: Thing) -> float:
        """Draw an object, in the place that holds it if it has one; return where the next one begins."""
        if not thing.holder:
            return y + self._object(x, y, FRAME, thing) + SPACE
        inner = PITCH * (1 + len(thing.lines)) + 8
        height = 14 * len(thing.holder) + 6 + inner + 8
        self.shapes.append(Box(x, y, FRAME, height, BACKGROUND, FAINT, line_width=1.0))
        for row, line in enumerate(thing.holder):
            self.shapes.append(Label(x + 8, y + 11 + 14 * row, shorten(line, LETTERS - 3), SMALL, FAINT))
        self._object(x + 8, y + 14 * len(thing.holder) + 6, FRAME - 16, thing)
        return y + height + SPACE

    def _object(self, x: float, y: float, width: float, thing: Thing, height: float = 0.0) -> float:
        room = int((width - 12) / text_width("x", SIZE))
        height = max(height, PITCH * (1 + len(thing.lines)) + 8)
        self.shapes += [Box(x, y, width, height, thing.mark.fill, thing.mark.color, thing.mark.dash, 1.5),
                        Label(x + 6, y + 12, shorten(thing.title, room), SIZE, is_bold=True)]  # fmt: skip
        for row, line in enumerate(thing.lines, 1):
            self.shapes.append(Label(x + 6, y + 12 + PITCH * row, shorten(line, room), SIZE, INK if thing.mark is PLAIN else thing.mark.color))
        return height

    def _owned(self, x: float, y: float, thing: Thing) -> float:
        """Draw owners at the left, each with an arrow to the one object at the right."""
        width = max(text_width(shorten(o, 12), SIZE) for o in thing.owners) + 12
        left = x + width + 30
        for index, owner in enumerate(thing.owners):
            top = y + STEP * index
            self.shapes += [Box(x, top, width, 22, BACKGROUND, FAINT, line_width=1.0), Label(x + 6, top + 11, shorten(owner, 12), SIZE),
                            Path(((x + width, top + 11), (left, top + 11)), INK, has_arrow=True)]  # fmt: skip
        height = self._object(left, y, FRAME - width - 30, thing, STEP * len(thing.owners) - 8)
        return y + max(height, STEP * len(thing.owners)) + SPACE


def _wrapped(text: str, letters: int) -> list[str]:
    """Return the text as lines that fit in so many letters."""
    shown = printable(text)
    return textwrap.wrap(shown, letters if text_cells(shown) == len(shown) else letters // 2)


def _twin(title: str, answer: str, frames: Sequence[Frame], description: str) -> str:
    lines = [title, *([answer] if answer else [])]
    for frame in frames:
        lines.append(frame.title)
        if frame.event is not None:
            lines.append(f"  event {frame.event.time}, {place(frame.event)}: {frame.event.instruction}" + _how(frame.event))
        for thing in frame.things:
            owners = f"{', '.join(thing.owners)} -> " if thing.owners else ""
            holder = f" ({', '.join(thing.holder)})" if thing.holder else ""
            lines.append(f"  {owners}{thing.title}{holder}" + (f": {'; '.join(thing.lines)}" if thing.lines else ""))
        if frame.remark:
            lines.append(f"  {frame.remark}")
    return "\n".join([*lines, description])


def _how(event: Event) -> str:
    return f": {event.path or 'it'} {HOW.get(event.position, 'was copied')}" if event.kind == "copy" else ""

"""Memory before and after: three frames that show where the gradient of one parameter went.

Where objects are copied, a frame is a stack of boxes, each object inside the place that holds it: the copy, the write, the death. Where they are shared it
is owners with arrows to one object: the sharing, the write, what is read in the end. Every word and number comes from the events; where the trace does
not know a number, the box says so.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...autograd.events import UNKNOWN, Event
from ...autograd.judging import JudgedRun
from ...autograd.replay import DOUBLED, LANDED, LOST
from ...autograd.verdicts import HOW, Verdict, place
from ..picture import BACKGROUND, FAINT, INK, Box, Label, Path, Picture, Shape, shorten, text_width
from .marks import FATES, VERDICTS, Mark
from .parts import amount, number

SIZE, SMALL = 11, 10
MARGIN, FRAME, GAP = 16.0, 300.0, 24.0
INNER, OUTER = 36.0, 58.0
LETTERS = 46
MOST_COPIES = 4
HOLDERS = {
    "bind": "a variable", "argument": "a parameter", "return": "returned", "initialiser": "in a new object or array", "element_write": "in an array",
    "field_write": "in a field", "global_write": "in a global", "element_read": "read out of an array", "dict_read": "read out of a dict",
    "field_read": "read out of a field", "global_read": "read out of a global", "capture": "in a closure", "hop": "on the way to a write",
}  # fmt: skip
"""Where a copy lives, by the position of the semantics model that made it."""
PLAIN = Mark("", "", FAINT, BACKGROUND)
GONE = Mark("gone", "", "#595959", "#f4f4f4", "2 3")


@dataclass(frozen=True, slots=True)
class Thing:
    """An object in a frame. holder: where it lives, "" where it is shared; owners: the names with an arrow to it."""

    title: str
    line: str
    holder: str = ""
    mark: Mark = PLAIN
    owners: tuple[str, ...] = ()


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
    title = f"memory: {verdict.parameter} in {run.name}" if verdict else f"memory: {run.name}"
    frames = tuple(_Story(run, verdict).frames()) if verdict else (Frame("nothing to show: the run has no parameters", None, ()),)
    drawing = _Drawing()
    drawing.draw(title, frames)
    description = f"{verdict.parameter}: {verdict.word}. {verdict.sentence}" if verdict else "the run has no parameters"
    width = MARGIN + max(1, len(frames)) * (FRAME + GAP)
    return Picture(max(width, text_width(title, 14) * 1.04 + 2 * MARGIN), drawing.bottom + MARGIN, title, description, tuple(drawing.shapes), _twin(title, frames, description))


def _chosen(run: JudgedRun, parameter: str) -> Verdict | None:
    if not parameter:
        return next((v for v in run.verdicts if v.word != "ok"), run.verdicts[0] if run.verdicts else None)
    found = next((v for v in run.verdicts if parameter in (v.parameter, v.parameter.partition("[")[0])), None)
    if found is None:
        raise KeyError(f"no parameter is named {parameter}; there is: {', '.join(v.parameter for v in run.verdicts)}")
    return found


@dataclass
class _Story:
    """The frames of one verdict."""

    run: JudgedRun
    verdict: Verdict

    def __post_init__(self) -> None:
        name, bracket, index = self.verdict.parameter.partition("[")
        self.element = int(index.rstrip("]")) if bracket else None
        self.home = next((home for home, known in self.run.trace.names.items() if known == name), "")
        self.copies = self.run.replayed.copies

    def frames(self) -> Iterator[Frame]:
        v = self.verdict
        stray = next((c.event for c in v.contributions if c.fate == LOST), None)
        if not self.home or not self.run.trace.events:
            yield Frame("the trace does not know it", None, (), v.sentence)
        elif v.chain and (stray is not None or v.symptom is not None) and all(e.kind == "copy" for e in v.chain):
            yield from self.copied(v.chain, stray or v.symptom)  # type: ignore[arg-type]
        elif v.word == "doubled" and v.cause is not None and v.symptom is not None and v.cause is not v.symptom:
            yield from self.shared(v.cause, v.symptom)
        elif v.word == "clobbered" and v.cause is not None:
            yield from self.overwritten(v.cause, v.symptom)
        else:
            yield from self.arrived()

    # Numbers

    def at(self, name: str, time: int, field_: str) -> float | None:
        """Return the number that an object's field held before an event, None where the trace does not know."""
        writes = [e for e in self.run.trace.events if e.is_write and e.object == name and e.field in (field_, "") and e.element in self._elements(name)]
        last = next((e for e in reversed(writes) if e.time < time), None)
        if last is not None:
            return last.after
        born = self.copies.get(name)
        if born is not None and born.time < time:
            inherited = self.at(born.source, born.time, field_)
            if inherited is not None:
                return inherited
        if writes:
            return writes[0].before
        return self.verdict.gradient if name == self.home and field_ == self.run.gradient else None

    def _elements(self, name: str) -> tuple[int | None, ...]:
        return (None, 0) if self.element is None else (self.element,)

    def text(self, name: str, time: int, field_: str = "") -> str:
        found = self.at(name, time, field_ or self.run.gradient)
        return f"{self._word(field_)} {number(found)}" if found is not None else f"{self._word(field_)}: not known"

    def _word(self, field_: str) -> str:
        return "value" if field_ == self.run.value else "gradient"

    def name(self, object_: str) -> str:
        known = self.run.trace.names.get(object_)
        if known:
            return f"{known}, object {object_}"
        label = self.run.trace.labels.get(object_, "")
        return f"{'copy' if object_ in self.copies else 'object'} {object_}" + (f", {label}" if label else "")

    def read_line(self) -> str:
        v = self.verdict
        got = "no gradient" if v.gradient is None else f"gradient {number(v.gradient)}"
        wanted = "" if v.wanted is None or v.wanted.trap is not None or v.gradient == v.wanted.derivative else f", wanted {number(v.wanted.derivative)}"
        return got + wanted

    # Stories

    def copied(self, chain: Sequence[Event], write: Event) -> Iterator[Frame]:
        """A write to a copy: the copies, the write to the last of them, their end."""
        first = chain[0]
        shown, more = list(chain[:MOST_COPIES]), len(chain) - MOST_COPIES
        if more > 0:
            shown[-1] = chain[-1]
        objects = [first.source, *(e.object for e in shown)]
        if write.object not in objects:
            objects.append(write.object)
        end = len(self.run.trace.events)
        remark = f"{more} more copies in between" if more > 0 else ""
        yield Frame("1  the copy" + ("" if len(chain) == 1 else f": the first of {len(chain)}"), first, tuple(
            self.thing(o, first.time + 1 if o == objects[1] else first.time, PLAIN) for o in objects[:2]), "")
        yield Frame("2  the write", write, tuple(
            Thing(self.name(o), f"{self.text(o, write.time)} becomes {number(write.after)}" if o == write.object and write.after is not None else self.text(o, write.time),
                  self.holder(o), FATES[LOST] if o == write.object else PLAIN) for o in objects), remark)  # fmt: skip
        mark = VERDICTS[self.verdict.word]
        things = [Thing(self.name(self.home), self.read_line(), self.holder(self.home), mark)]
        things += [Thing(self.name(o), f"{self.text(o, end)}, gone", self.holder(o), GONE) for o in objects if o != self.home]
        yield Frame("3  the death: what the program reads", None, tuple(things), remark)

    def thing(self, name: str, time: int, mark: Mark) -> Thing:
        return Thing(self.name(name), self.text(name, time), self.holder(name), mark)

    def holder(self, name: str) -> str:
        born = self.copies.get(name)
        if born is None:
            return "where it was made"
        return f"{HOLDERS.get(born.position, 'a copy')}: {place(born)}"

    def shared(self, cause: Event, write: Event) -> Iterator[Frame]:
        """Several owners of one memory: the assignment, a write through one of them, what is read."""
        one = "one gradient, shared"
        yield Frame("1  the sharing", cause, (Thing(one, _after(cause), owners=self.owners(cause, cause.time)),))
        changed = f"gradient {number(write.before)} becomes {number(write.after)}" if write.before is not None and write.after is not None else "not known"
        owners = self.owners(cause, write.time)
        yield Frame("2  the write", write, (Thing(one, changed, owners=owners, mark=FATES[DOUBLED]),), f"{amount(write)} for {self.owner(write.object)} counts for all of them")
        yield Frame("3  what the program reads", None, (Thing(self.name(self.home), self.read_line(), mark=VERDICTS[self.verdict.word]),), self.verdict.sentence)

    def owners(self, cause: Event, until: int) -> tuple[str, ...]:
        """Return the objects that own the gradient of the cause's object at a time: it was handed from one to the other."""
        found = [cause.object]
        handed = [e for e in self.run.trace.events if e.kind == "overwrite" and e.edge not in ("", UNKNOWN) and e.time <= until]
        for _ in range(len(handed)):
            new = [o for e in handed if (e.object in found) != (e.edge in found) for o in (e.object, e.edge) if o not in found]
            if not new:
                break
            found += dict.fromkeys(new)
        return tuple(self.owner(o) for o in sorted(found, key=lambda o: (o not in self.run.trace.names, o)))

    def owner(self, object_: str) -> str:
        return self.run.trace.names.get(object_, f"object {object_}")

    def overwritten(self, cause: Event, symptom: Event | None) -> Iterator[Frame]:
        """A number that was replaced too early: a value that backward needs, or a contribution."""
        before = f"{self._word(cause.field)} {number(cause.before)}" if cause.before is not None else "not known"
        contribution = next((c.event for c in self.verdict.contributions if c.by is not None and c.by.time == cause.time), None)
        title = "1  the contribution arrives" if contribution is not None else "1  before"
        yield Frame(title, contribution, (Thing(self.name(cause.object), before),))
        after = f"{before} becomes {number(cause.after)}" if cause.after is not None else "not known"
        yield Frame("2  the write", cause, (Thing(self.name(cause.object), after, mark=VERDICTS["clobbered"]),))
        read = symptom if symptom is not None and symptom.time > cause.time else None
        yield Frame("3  what the program reads", read, (Thing(self.name(self.home), self.read_line(), mark=VERDICTS[self.verdict.word]),))

    def arrived(self) -> Iterator[Frame]:
        """No copy and no sharing is to blame: what was written, and what is read."""
        events = [c.event for c in self.verdict.contributions]
        first = events[0] if events else None
        yield Frame("1  before", None, (Thing(self.name(self.home), self.text(self.home, first.time) if first is not None else "no gradient written yet"),))
        if events:
            sums = ", ".join(amount(e) for e in events[:6]) + (f", and {len(events) - 6} more" if len(events) > 6 else "")
            fates = {c.fate for c in self.verdict.contributions}
            yield Frame("2  the write" + ("s" if len(events) > 1 else ""), first, (Thing(self.name(self.home), sums, mark=FATES[LANDED] if fates == {LANDED} else PLAIN),))
        else:
            yield Frame("2  no write", None, (), "backward wrote nothing for it")
        yield Frame("3  what the program reads", None, (Thing(self.name(self.home), self.read_line(), mark=VERDICTS[self.verdict.word]),), "" if self.verdict.word == "ok" else self.verdict.sentence)


def _after(event: Event) -> str:
    return f"gradient {number(event.after)}" if event.after is not None else "not known"


@dataclass
class _Drawing:
    shapes: list[Shape] = field(default_factory=list)
    bottom: float = 0.0

    def draw(self, title: str, frames: Sequence[Frame]) -> None:
        self.shapes.append(Label(MARGIN, 22, title, 14, is_bold=True))
        heads = [self._head(frame) for frame in frames]
        top = 46.0 + 15 * max(len(lines) for lines in heads) + 18
        for index, (frame, lines) in enumerate(zip(frames, heads)):
            x = MARGIN + index * (FRAME + GAP)
            if index:
                self.shapes.append(Path(((x - GAP / 2, 40), (x - GAP / 2, top)), "#d9d9d9", line_width=1.0))
            self.shapes.append(Label(x, 48, frame.title, 12, is_bold=True))
            for row, (line, color) in enumerate(lines):
                self.shapes.append(Label(x, 66 + 15 * row, line, SMALL, color))
            self.bottom = max(self.bottom, self._things(x, top + 6, frame))

    def _head(self, frame: Frame) -> list[tuple[str, str]]:
        if frame.event is None:
            return []
        return [(shorten(f"event {frame.event.time}, {place(frame.event)}", LETTERS), FAINT), (shorten(frame.event.instruction, LETTERS), INK)]

    def _things(self, x: float, y: float, frame: Frame) -> float:
        for thing in frame.things:
            if thing.owners:
                y = self._owned(x, y, thing)
                continue
            if thing.holder:
                self.shapes += [Box(x, y, FRAME, OUTER, BACKGROUND, FAINT, line_width=1.0), Label(x + 8, y + 10, shorten(thing.holder, LETTERS), SMALL, FAINT)]
                self._object(x + 8, y + 19, FRAME - 16, thing)
                y += OUTER + 10
            else:
                self._object(x, y, FRAME, thing)
                y += INNER + 10
        for line in textwrap.wrap(frame.remark, LETTERS + 4):
            self.shapes.append(Label(x, y + 6, line, SMALL, FAINT))
            y += 14
        return y

    def _object(self, x: float, y: float, width: float, thing: Thing) -> None:
        room = int((width - 12) / text_width("x", SIZE))
        self.shapes += [Box(x, y, width, INNER, thing.mark.fill, thing.mark.color, thing.mark.dash, 1.5),
                        Label(x + 6, y + 10, shorten(thing.title, room), SIZE, INK, is_bold=True),
                        Label(x + 6, y + 26, shorten(thing.line, room), SIZE, thing.mark.color if thing.mark is not PLAIN else INK)]  # fmt: skip

    def _owned(self, x: float, y: float, thing: Thing) -> float:
        """Draw owners at the left, each with an arrow to the one object at the right."""
        width = max(text_width(shorten(o, 14), SIZE) for o in thing.owners) + 16
        height = len(thing.owners) * 30.0
        left = x + width + 34
        middle = y + height / 2
        for index, owner in enumerate(thing.owners):
            top = y + 30 * index
            self.shapes += [Box(x, top, width, 22, BACKGROUND, FAINT, line_width=1.0), Label(x + 8, top + 11, shorten(owner, 14), SIZE),
                            Path(((x + width, top + 11), (left, middle)), INK, has_arrow=True)]  # fmt: skip
        self._stacked(left, middle, FRAME - width - 34, thing)
        return y + max(height, 56.0) + 10

    def _stacked(self, x: float, middle: float, width: float, thing: Thing) -> None:
        room = int((width - 12) / text_width("x", SIZE))
        lines = [*textwrap.wrap(thing.title, room), *textwrap.wrap(thing.line, room)]
        titles = len(textwrap.wrap(thing.title, room))
        height = 15.0 * len(lines) + 8
        top = middle - height / 2
        self.shapes.append(Box(x, top, width, height, thing.mark.fill, thing.mark.color, thing.mark.dash, 1.5))
        for index, line in enumerate(lines):
            color = INK if index < titles or thing.mark is PLAIN else thing.mark.color
            self.shapes.append(Label(x + 6, top + 12 + 15 * index, line, SIZE, color, is_bold=index < titles))


def _twin(title: str, frames: Sequence[Frame], description: str) -> str:
    lines = [title]
    for frame in frames:
        lines.append(frame.title)
        if frame.event is not None:
            lines.append(f"  event {frame.event.time}, {place(frame.event)}: {frame.event.instruction}" + _how(frame.event))
        for thing in frame.things:
            owners = f"{', '.join(thing.owners)} -> " if thing.owners else ""
            lines.append(f"  {owners}{thing.title}" + (f" (in {thing.holder})" if thing.holder else "") + f": {thing.line}")
        if frame.remark:
            lines.append(f"  {frame.remark}")
    return "\n".join([*lines, description])


def _how(event: Event) -> str:
    return f": {event.path or 'it'} {HOW.get(event.position, 'was copied')}" if event.kind == "copy" else ""

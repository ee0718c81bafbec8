"""What one run shows in the side-by-side graph: a box for each node or fold, a pill for each contribution, and the dead copies of a node.

Everything here is text and its size; `graph_layout.py` says where it stands. What is drawn of a large graph says `folding.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...autograd.replay import DOUBLED, ERASED, LANDED, LOST, STALE
from ...autograd.verdicts import Verdict, place
from ..picture import FAINT, INK, shorten, text_width
from .folding import Fold, Shown, folded
from .marks import FATES, VERDICTS, Mark
from .parts import (
    CONSTANT,
    ITSELF,
    NOWHERE,
    OLDER,
    SEED,
    STUBS,
    DeadCopy,
    Flow,
    Numbers,
    Reading,
    apart,
    counted,
    first_difference,
    gradient_text,
    is_array,
    node_of,
    number,
)

SIZE, SMALL = 11, 10
ROW, SMALL_ROW = 15, 13
PAD = 7
WRAP = 26
"""Characters in a line that names an instruction."""
MOST_ALONE, MOST_COPIES, FEW_COPIES = 3, 3, 2
"""So many contributions between the same two nodes, and dead copies of a node, are drawn one by one; of a graph with folds, fewer copies."""
WORST = (LOST, STALE, ERASED, DOUBLED)
DIFFERENT = Mark("differs", "\u2260", INK, "#ffffff")
"""The gradient is not the same in all runs of the picture."""
OK_HERE = "ok here, but not in all runs"
STUB_WORDS = {SEED: "seed", CONSTANT: "constant", NOWHERE: "?", ITSELF: "itself"}
Key = tuple[str, str, int]
"""A pill: (source, target, which of the contributions between them)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A block of lines in a frame. mark: how the frame looks; bold: lines of which the whole text stands out."""

    lines: tuple[str, ...]
    mark: Mark
    bold: frozenset[int] = frozenset()
    colored: frozenset[int] = frozenset()
    hint: str = ""

    @property
    def width(self) -> float:
        return max(text_width(line, SIZE) for line in self.lines) + 2 * PAD

    @property
    def height(self) -> float:
        return len(self.lines) * ROW + PAD


@dataclass(frozen=True, slots=True)
class Pill:
    """The mark of one contribution, or of several. stub: what stands for a source that is no node."""

    lines: tuple[str, ...]
    mark: Mark
    flows: tuple[Flow, ...]
    stub: str = ""

    @property
    def width(self) -> float:
        return max(*(text_width(line, SIZE) for line in self.lines), text_width(self.stub, SMALL)) + 12

    @property
    def height(self) -> float:
        return len(self.lines) * ROW + 3 + (SMALL_ROW + 9 if self.stub else 0)


@dataclass(frozen=True, slots=True)
class Copy:
    """A dead copy: the lines of the label on the edge to it, and its box."""

    label: tuple[str, ...]
    text: Text
    objects: tuple[str, ...]

    @property
    def width(self) -> float:
        return max(*(text_width(line, SMALL) for line in self.label), self.text.width)

    @property
    def height(self) -> float:
        return len(self.label) * SMALL_ROW + 4 + self.text.height + 8


@dataclass
class Panel:
    """Everything one run shows: boxes by node or fold, pills by key, dead copies by node."""

    reading: Reading
    boxes: dict[str, Text] = field(default_factory=dict)
    pills: dict[Key, Pill] = field(default_factory=dict)
    copies: dict[str, list[Copy]] = field(default_factory=dict)
    header: tuple[str, ...] = ()


# What is drawn


def node_order(node: str) -> tuple[int, int, str]:
    digits = node.rpartition("[")[2].rstrip("]")
    return (node == OLDER, int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else 1 << 62, node)


def what_is_shown(readings: Sequence[Reading]) -> Shown:
    nodes = sorted(set().union(*(r.nodes for r in readings)), key=node_order)
    pairs = dict.fromkeys((f.source, f.target) for r in readings for f in r.flows if f.source not in STUBS)
    problems = _problems(readings, nodes)
    roots = {node_of(r.run.replayed, r.run.trace.root) for r in readings if r.run.trace.root}
    kept = roots | {node for r in readings for node in r.names} | {f.target for r in readings for f in r.flows} | {n for pair in pairs for n in pair} | set(problems)
    parameters = [node for node in nodes if any(node in r.names for r in readings)]
    first = []
    for which in ("cause", "symptom"):
        events = [event for r in readings for v in r.run.verdicts if (event := getattr(v, which)) is not None]
        first += [event.original for event in sorted(events, key=lambda e: e.time)[:2]]
    first += [node for node in problems if any(node in r.names for r in readings)][:2]
    return folded(nodes, list(pairs), problems, first, [n for n in nodes if n in roots] + parameters, frozenset(n for n in nodes if n not in kept))


def _problems(readings: Sequence[Reading], nodes: Sequence[str]) -> dict[str, str]:
    """Return the kind of problem of each node that has one, in the order of the run."""
    late = math.inf
    found: list[tuple[float, str, str]] = []
    for reading in readings:
        for node in reading.verdicts:
            word = reading.word(node)
            if word != "ok":
                event = next((v.symptom or v.cause for v in reading.verdicts[node] if v.symptom or v.cause), None)
                found.append((event.time if event else late, node, word))
        found += [(f.event.time, f.target, FATES[f.fate].word) for f in reading.flows if f.fate != LANDED]
    for node in nodes:
        gradients = [reading.gradient(node) for reading in readings]
        if any(first_difference(gradients[0], other)[0] for other in gradients[1:]):
            found.append((late, node, "different"))
        elif any(x is not None and not math.isfinite(x) for x in gradients[0].values()):
            found.append((late, node, "non-finite"))
    words: dict[str, str] = {}
    for _, node, word in sorted(found, key=lambda f: f[0]):
        if word in VERDICTS or node not in words:
            words.setdefault(node, word)
    return words


def panel_of(reading: Reading, readings: Sequence[Reading], shown: Shown) -> Panel:
    panel = Panel(reading, header=tuple(_header(reading)))
    by_target: dict[str, list[Flow]] = defaultdict(list)
    for flow in reading.flows:
        by_target[flow.target].append(flow)
    for node in shown.nodes:
        panel.boxes[node] = _node_box(reading, readings, node, by_target[node])
        if node in reading.copies:
            panel.copies[node] = _copies(reading.copies[node], by_target[node], FEW_COPIES if shown.folds else MOST_COPIES)
    for fold in shown.folds:
        panel.boxes[fold.name] = _fold_box(reading, readings, fold, by_target)
    groups: dict[tuple[str, str], list[Flow]] = defaultdict(list)
    for flow in reading.flows:
        source = flow.source if flow.source in STUBS else shown.box[flow.source]
        target = shown.box[flow.target]
        if source != target and (source not in STUBS or target in shown.nodes):
            groups[source, target].append(flow)
    for (source, target), flows in groups.items():
        is_plain = target in shown.nodes and (source in STUBS or source in shown.nodes)
        alone = (len(flows) if len(flows) <= MOST_ALONE + 1 else MOST_ALONE) if is_plain else 0
        stub = STUB_WORDS.get(source, "")
        for k, flow in enumerate(flows[:alone]):
            panel.pills[source, target, k] = _pill((flow,), stub)
        if flows[alone:]:
            panel.pills[source, target, alone] = _pill(tuple(flows[alone:]), stub)
    return panel


def _header(reading: Reading) -> Iterator[str]:
    run = reading.run.run
    words = Counter(v.word for v in reading.run.verdicts)
    yield ", ".join(f"{count} {VERDICTS[word].text}" for word, count in words.items()) or "no verdicts"
    if run.trap is not None:
        yield f"the run ended with trap {run.trap.kind}"
    if run.trace is None:
        yield "there is no trace of this run: only what was read of the parameters is known"
    elif not reading.run.trace.is_complete:
        yield f"the trace reached its cap: it lacks {reading.run.trace.dropped} events"
    if run.is_faithful is False:
        yield "the traced run gave other bits than the plain one: what the trace says is void"
    if run.note:
        yield run.note


def title_of(reading: Reading, node: str, length: int = 1 << 30) -> str:
    name = "older than the trace" if node == OLDER else reading.names.get(node) or (node if node.startswith("@") else f"#{node}")
    return shorten(name, length)


def _node_box(reading: Reading, readings: Sequence[Reading], node: str, flows: Sequence[Flow]) -> Text:
    known = next((r for r in (reading, *readings) if node in r.names), reading)
    name, label = title_of(known, node, 24), shorten(reading.labels.get(node, ""), 16)
    heading = f"{name}  {label}" if label else name
    if node not in reading.nodes and node not in reading.verdicts:
        return Text((heading, "not in this run"), Mark("", "", FAINT, "#ffffff", "2 3"), frozenset({0}))
    lines = [heading]
    if node in reading.values:
        lines.append(f"value {number(reading.values[node])}")
    if node in reading.changed:
        lines.append(f"overwritten by {number(reading.changed[node])}")
    gradient = reading.gradient(node)
    others = [r.gradient(node) for r in readings]
    differs = [first_difference(gradient, other) for other in others]
    is_different = any(d for d, _ in differs)
    wrong = reading.wrong(node)
    lines += _gradient_lines(gradient, others, is_different, wrong)
    first_mark = len(lines)
    if is_different:
        elements = [e for d, e in differs if d and e is not None]
        lines.append(DIFFERENT.text + (f", first at [{min(elements)}]" if elements and is_array(gradient) else ""))
    word = reading.word(node)
    verdicts = reading.verdicts.get(node, ())
    bad = next((fate for fate in WORST if any(f.fate == fate for f in flows)), None)
    mark = VERDICTS[word] if word else FATES[bad] if bad else DIFFERENT if is_different else Mark("", "", FAINT, "#ffffff")
    counts = Counter(v.word for v in verdicts)
    for each, count in sorted(counts.items(), key=lambda item: tuple(VERDICTS).index(item[0])):
        lines.append(VERDICTS[each].text if len(verdicts) == 1 else f"{VERDICTS[each].glyph} {count} of {len(verdicts)} {each}")
    for v in verdicts[:1]:
        lines += _because(reading, v, node)
    return Text(tuple(lines), mark, frozenset({0, *range(first_mark, len(lines))}), frozenset(range(first_mark + is_different, len(lines))),
                 hint="; ".join(v.sentence for v in verdicts[:3]))  # fmt: skip


def _gradient_lines(gradient: Numbers, others: Sequence[Numbers], is_different: bool, wrong: Mapping[int | None, tuple[float | None, float]]) -> list[str]:
    shown = gradient_text(gradient)
    if is_different and not is_array(gradient) and any(other is not gradient and gradient_text(other) == shown and other != gradient for other in others):
        shown = f"gradient {next(iter(gradient.values()))!r}"
    if not wrong:
        return shown.split(", ")
    element, (got, wanted) = next(iter(wrong.items()))
    if is_array(gradient):
        texts = ("none", number(wanted)) if got is None else apart(got, wanted)
        return [*shown.split(", "), f"first wrong: [{element}] {texts[0]}", f"wanted {texts[1]}"]
    if got is None:
        return [shown, f"wanted {number(wanted)}"]
    texts = apart(got, wanted)
    return [f"gradient {texts[0]}" if texts[0] != number(got) else shown, f"wanted {texts[1]}"]


def _because(reading: Reading, verdict: Verdict, node: str) -> list[str]:
    """Return the lines that say what another node did to a parameter: shared its memory, or lost its value before backward was done with it."""
    shared, erased = verdict.symptom, verdict.cause
    if verdict.word == "doubled" and shared is not None and shared.original != node:
        return [f"shares memory with {title_of(reading, shared.original, 24)}:", *_wrapped(place(shared))]
    if verdict.word == "clobbered" and erased is not None and erased.field == reading.run.value:
        return [f"value of {title_of(reading, erased.original, 24)} overwritten:", *_wrapped(place(erased))]
    return []


def _fold_box(reading: Reading, readings: Sequence[Reading], fold: Fold, by_target: Mapping[str, Sequence[Flow]]) -> Text:
    members = fold.members
    nodes = counted(len(members), "node")
    flows = [flow for member in members for flow in by_target.get(member, ())]
    if fold.problems:
        kinds = Counter(_kind(reading, member, by_target.get(member, ())) for member in members)
        lines = [f"{len(members)} more node{'s' * (len(members) > 1)}, not drawn"]
        lines += [f"{count} {word}" for word, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
        fates = Counter(flow.fate for flow in flows)
        lines += [f"{FATES[fate].glyph} {counted(count, 'contribution')} {FATES[fate].word}" for fate, count in sorted(fates.items()) if fate != LANDED]
        return Text((*lines, "see the table and the trace"), DIFFERENT if set(kinds) == {OK_HERE} else FATES[LOST], frozenset({0}))
    if not flows and not any(by_target.get(m) for m in members) and not any(m in r.verdicts for r in readings for m in members):
        return Text((nodes, "without a contribution"), Mark("", "", FAINT, "#ffffff"), frozenset({0}))
    known = [x for member in members for x in reading.gradient(member).values() if x is not None]
    lines = [f"{nodes}, " + ("all equal" if len(readings) > 1 else "nothing lost")]
    if known:
        lines += ["gradients from", f"{number(min(known))} to {number(max(known))}"]
    judged = sum(member in reading.verdicts for member in members)
    if judged:
        lines.append(f"{VERDICTS['ok'].glyph} {counted(judged, 'parameter')} ok")
    if flows:
        lines.append(f"{FATES[LANDED].glyph} {counted(len(flows), 'contribution')} landed")
    return Text(tuple(lines), Mark("", "", FAINT, "#f4f4f4"), frozenset({0}))


def _kind(reading: Reading, node: str, flows: Sequence[Flow]) -> str:
    """Return the problem that a node has in one run, of which some run has one."""
    word = reading.word(node)
    bad = next((fate for fate in WORST if any(f.fate == fate for f in flows)), None)
    return word if word not in ("", "ok") else FATES[bad].word if bad else OK_HERE


def _copies(copies: Sequence[DeadCopy], flows: Sequence[Flow], most: int) -> list[Copy]:
    alone = copies if len(copies) <= most else copies[: most - 1]
    mark = FATES[LOST]
    found = []
    for copy in alone:
        lines = copy.title.split(", ")
        held = gradient_text(copy.holds)
        lines += ["its number is not known"] if held == "no gradient" else f"holds {held}".split(", ")
        found.append(Copy(tuple(_wrapped(copy.origin)), Text(tuple(lines), mark, frozenset({0})), (copy.object,)))
    rest = copies[len(alone) :]
    if rest:
        objects = {c.object: None for c in rest}
        lost = sum(f.copy in objects for f in flows)
        lines = [f"{len(rest)} more dead copies", f"hold {counted(lost, 'lost contribution')}", "see the table and the trace"]
        found.append(Copy(tuple(_wrapped("copied likewise, first: " + rest[0].origin)), Text(tuple(lines), mark, frozenset({0})), tuple(objects)))
    return found


def _pill(flows: tuple[Flow, ...], stub: str) -> Pill:
    if len(flows) > 1:
        fates = Counter(f.fate for f in flows)
        worst = next((fate for fate in WORST if fate in fates), LANDED)
        lines = [f"{FATES[fate].glyph} {count} {FATES[fate].word}" for fate, count in sorted(fates.items(), key=lambda i: (i[0] != worst, i[0]))]
        return Pill(tuple(lines), FATES[worst], flows, stub)
    (flow,) = flows
    mark, part = FATES[flow.fate], flow.parts[0]
    lines = f"{mark.glyph} {flow.amount}".split(", ")
    if part.times > 2:
        lines.append(f"arrived {part.times} times")
    if part.by is not None and flow.fate in (ERASED, STALE):
        lines += _wrapped(f"{mark.word}: {place(part.by)}" if flow.fate == ERASED else f"undone: {place(part.by)}")
    return Pill(tuple(lines), mark, flows, stub)


def _wrapped(text: str) -> list[str]:
    """Return the words that name an instruction in short lines, broken after colons too."""
    parts = re.split(r"(?<=:) ", text)
    return [line for part in parts for line in filled(re.findall(r"time \d+|\S+", part), WRAP)] or [""]


def filled(words: Sequence[str], most: int) -> list[str]:
    """Return words in lines of at most `most` characters; a longer word ends in an ellipsis."""
    lines: list[str] = []
    for word in words:
        word = shorten(word, most)
        if lines and len(lines[-1]) + 1 + len(word) <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def event_line(flow: Flow) -> str:
    where = f"event {flow.event.time}, {place(flow.event)}"
    by = flow.parts[0].by
    return f"{flow.amount} {FATES[flow.fate].word} ({where}" + (f"; by event {by.time}, {place(by)}" if by is not None else "") + ")"

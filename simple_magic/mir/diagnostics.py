"""Positions, diagnostics and every exception of the package.

A `Diagnostic` is data; text is made on display. One error tree:

    SimpleError
      MirError            the program is wrong (carries `diagnostics`)
        ParseError        it cannot be read
        VerifyError       it can be read, but breaks a rule
        LoweringError     a back end cannot do it
      Trap                a run-time failure that the language defines
      CrashError          the process of an isolated call died

`codes.py` beside this file holds the paragraph behind each code.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of one source line. Lines and columns count from 1, in code points; `end_column` is exclusive.

    `source` names the cell or file ("" where there is none).
    """

    line: int
    column: int
    end_column: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: a stable code (E0101, W0301), a message and where it applies.

    `label` is the short text behind the caret, `help` tells what to do, `notes` are further positions with a word each.
    `path` is a JSON path when the program came as JSON. `context` is printed instruction text when there is no source.
    """

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    help: str = ""
    notes: tuple[tuple[str, Span | None], ...] = ()
    path: str = ""
    context: str = ""

    @property
    def is_error(self) -> bool:
        return self.code.startswith("E")


class SimpleError(Exception):
    """Any failure that the package reports."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows instead of a Python traceback: our lines alone."""
        return [*str(self).split("\n"), *getattr(self, "__notes__", ())]


class MirError(SimpleError):
    """A program that is wrong. `diagnostics` says why; `sources` maps source names to text for the carets."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...] | list[Diagnostic], sources: dict[str, str] | None = None) -> None:
        self.diagnostics = tuple(diagnostics)
        self.sources = dict(sources or {})
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n\n".join(render(d, self.sources) for d in self.diagnostics)

    def __reduce__(self):
        return type(self), (self.diagnostics, self.sources)


class ParseError(MirError):
    """The text or JSON cannot be read."""


class VerifyError(MirError):
    """The program can be read, but breaks a rule of the language."""


class LoweringError(MirError):
    """A back end cannot execute the program."""


class CrashError(SimpleError):
    """The child process of an isolated call died: a bug in a back end, or somebody ended it.

    ending: "SIGSEGV" or "exit code 1"; doing: what the child did; last_words: the first line that it wrote to standard error.
    """

    def __init__(self, ending: str, doing: str, backend: str, last_words: str = "") -> None:
        self.ending = ending
        self.doing = doing
        self.backend = backend
        self.last_words = last_words
        super().__init__(ending, doing, backend, last_words)

    def __str__(self) -> str:
        other = "llvm" if self.backend == "interpreter" else "interpreter"
        text = (
            f"{self.ending} ended the isolated process of the {self.backend} back end while {self.doing}: definitions are kept, globals are as before "
            f"the call, and the next isolated call starts a new process; if it happens again, run with the {other} back end and report the program"
        )
        return f"{text}\n  = note: the process said: {printable(self.last_words)}" if self.last_words else text


TRAP_KINDS = (
    "division_by_zero", "integer_overflow", "float_to_int", "invalid_char", "index_out_of_bounds", "key_missing", "nil_unwrap",
    "wrong_variant", "bad_pointer", "array_not_growable", "out_of_fuel", "assertion_failed", "abort", "unreachable", "uncaught_throw",
    "extern_error", "stack_overflow", "out_of_memory", "timeout", "output_limit", "interrupted",
)  # fmt: skip
LIMIT_KINDS = ("stack_overflow", "out_of_memory", "timeout", "output_limit", "interrupted")


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """An instruction as written: function, block label and index in that block."""

    function: str
    block: str
    index: int

    def __str__(self) -> str:
        return f"{self.function}/{self.block}[{self.index}]"


class Trap(SimpleError):
    """A run-time failure defined by the language: the same kind and origin on every back end.

    `frames` holds the call instructions it passed through, innermost first (the first and the last 32; `frames_omitted` counts the rest).
    `span` and `source` are filled in by the session, which knows the cells.
    """

    def __init__(self, kind: str, message: str = "", origin: Origin | None = None, frames: tuple[Origin, ...] = (), frames_omitted: int = 0,
                 payload: tuple[int, int] | None = None) -> None:  # fmt: skip
        assert kind in TRAP_KINDS, kind
        self.kind = kind
        self.message = message or kind.replace("_", " ")
        self.origin = origin
        self.frames = frames
        self.frames_omitted = frames_omitted
        self.payload = payload
        self.span: Span | None = None
        self.frame_spans: tuple[Span | None, ...] = ()
        self.sources: dict[str, str] = {}
        super().__init__(kind, self.message, origin)

    def __str__(self) -> str:
        head = Diagnostic("trap " + self.kind, self.message, self.span)
        lines = [render(head, self.sources)]
        if self.span is None and self.origin is not None:
            lines.append(f"  --> {self.origin}")
        spans = self.frame_spans or (None,) * len(self.frames)
        for index, (frame, span) in enumerate(zip(self.frames, spans)):
            if self.frames_omitted and index == 32:
                lines.append(f"   ... {self.frames_omitted} calls omitted ...")
            place = f"{span.source}:{span.line}" if span and span.source else f"line {span.line}" if span else str(frame)
            lines.append(f"   called from {frame.function} ({place})")
        return "\n".join(lines)

    def __reduce__(self):
        return type(self), (self.kind, self.message, self.origin, self.frames, self.frames_omitted, self.payload)


@dataclass
class Reporter:
    """Collects diagnostics; at most `limit` errors and as many warnings, so that noise stays readable. `dropped` counts further errors."""

    limit: int = 50
    found: list[Diagnostic] = field(default_factory=list)
    dropped: int = 0
    _kept: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})

    def report(self, diagnostic: Diagnostic) -> None:
        kind = diagnostic.is_error
        if self._kept[kind] < self.limit:
            self._kept[kind] += 1
            self.found.append(diagnostic)
        else:
            self.dropped += kind

    def error(self, code: str, message: str, span: Span | None = None, **more) -> None:
        self.report(Diagnostic(code, message, span, **more))

    def errors(self) -> tuple[Diagnostic, ...]:
        found = tuple(d for d in self.found if d.is_error)
        if self.dropped and found:
            found = (*found[:-1], replace(found[-1], notes=(*found[-1].notes, (f"{self.dropped} more not shown", None))))
        return found

    def warnings(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.found if not d.is_error)


def printable(text: str) -> str:
    """Return `text` with control characters, bidirectional marks and lone surrogates spelled out, so that a message shows what is there."""
    return "".join(c if c.isprintable() or c == " " else f"\\u{{{ord(c):x}}}" for c in text)


def _cells(text: str) -> int:
    """Return how many terminal columns `text` takes: wide characters two, combining marks none."""
    width = 0
    for c in text:
        if unicodedata.combining(c):
            continue
        width += 2 if unicodedata.east_asian_width(c) in "WF" else 1
    return width


MAX_LINE = 160


def _excerpt(line: str, span: Span) -> tuple[str, int, int]:
    """Return (text to show, caret column, caret width), with tabs as one blank and a long line cut around the span."""
    line = line.replace("\t", " ")
    start = min(max(span.column - 1, 0), len(line))
    end = min(max(span.end_column - 1, start), len(line))
    cut = 0
    if len(line) > MAX_LINE:
        cut = max(0, start - MAX_LINE // 3)
        line = line[cut : cut + MAX_LINE]
        start, end = start - cut, min(end - cut, len(line))
    prefix = "..." if cut else ""
    shown = prefix + printable(line)
    before = len(prefix) + _cells(printable(line[:start]))
    return shown, before, max(1, _cells(printable(line[start:end])))


def render(diagnostic: Diagnostic, sources: dict[str, str] | None = None) -> str:
    """Return the diagnostic as text: first line with code and position, then the source line with a caret, notes and help.

    The first line alone is enough to find the place: logs and graders keep no more.
    """
    d, sources = diagnostic, sources or {}
    trap = d.code.startswith("trap ")
    head = f"{d.code}: {d.message}" if trap else f"{'error' if d.is_error else 'warning'}[{d.code}]: {d.message}"
    if d.span:
        place = f"{d.span.source}:{d.span.line}:{d.span.column}" if d.span.source else f"line {d.span.line}, column {d.span.column}"
        head += f" ({place})"
    elif d.path:
        head += f" (at {printable(d.path)})"
    lines = [printable(head)]
    source = sources.get(d.span.source) if d.span else None
    if d.span and source is not None:
        rows = source.split("\n", d.span.line)
        if 1 <= d.span.line <= len(rows):
            shown, before, width = _excerpt(rows[d.span.line - 1].rstrip("\r"), d.span)
            gutter = len(str(d.span.line))
            lines.append(f"{' ' * gutter} |")
            lines.append(f"{d.span.line} | {shown}")
            lines.append(f"{' ' * gutter} | {' ' * before}{'^' * min(width, MAX_LINE)} {printable(d.label)}".rstrip())
    elif d.context:
        lines.append("  | " + printable(d.context))
        if d.label:
            lines.append("  | " + printable(d.label))
    for text, span in d.notes:
        place = "" if span is None else f" ({span.source + ':' if span.source else 'line '}{span.line})"
        lines.append(printable(f"  = note: {text}{place}"))
    if d.help:
        lines.append(printable(f"  = help: {d.help}"))
    return "\n".join(lines)

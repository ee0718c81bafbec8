"""Text tables and HTML from the same rows. Everything a program can name is escaped here and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ..mir.diagnostics import printable


def escape(text: object) -> str:
    """Return text that is safe in HTML, with control characters spelled out."""
    lines = str(text).split("\n")
    return html.escape("\n".join(printable(line) for line in lines), quote=True)


@dataclass(frozen=True)
class Table:
    """Rows under a header; every cell is text. `caption` says what the table shows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __repr__(self) -> str:
        return table_text(self)

    def _repr_html_(self) -> str:
        return table_html(self)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Table:
    """Return a Table; cells become text."""
    return Table(tuple(header), tuple(tuple(str(cell) for cell in row) for row in rows), caption)


def table_text(t: Table) -> str:
    """Return the table as aligned columns, for terminals, logs and screen readers."""
    lines = [[printable(cell) for cell in row] for row in (t.header, *t.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(t.header))]
    drawn = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    drawn.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(([t.caption] if t.caption else []) + drawn)


CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"


def table_html(t: Table) -> str:
    """Return a plain HTML table: no script, no class, no colour that a theme could hide."""
    head = "".join(f'<th scope="col" style="{CELL}">{escape(h)}</th>' for h in t.header)
    body = "".join("<tr>" + "".join(f'<td style="{CELL}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in t.rows)
    caption = f'<caption style="text-align:left;caption-side:top">{escape(t.caption)}</caption>' if t.caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


PRE = "font-family:monospace;line-height:1.35;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;margin:4px 0"


def pre_html(text: str) -> str:
    """Return text as a block of fixed width; themes of notebooks restyle a bare `pre`."""
    return f'<pre style="{PRE}">{escape(text)}</pre>'


def code_html(title: str, text: str, *, is_open: bool = False) -> str:
    """Return a foldable block of code that works without script."""
    return f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>{pre_html(text)}</details>"


@dataclass(frozen=True)
class Code:
    """A titled piece of code or text."""

    title: str
    text: str

    def __repr__(self) -> str:
        return f"{printable(self.title)}\n{self.text.rstrip()}"

    def _repr_html_(self) -> str:
        return code_html(self.title, self.text, is_open=True)


@dataclass(frozen=True)
class Sections:
    """Several views under each other."""

    parts: tuple[Table | Code, ...]

    def __repr__(self) -> str:
        return "\n\n".join(repr(part) for part in self.parts)

    def _repr_html_(self) -> str:
        return "".join(part._repr_html_() for part in self.parts)

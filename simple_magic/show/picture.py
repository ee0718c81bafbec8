"""Static pictures as data: a list of shapes that is drawn as SVG or as PNG, and says everything in words too.

A picture needs nothing from outside: no scripts, style elements, classes, ids or references, and its background is opaque, so it looks the same in a
notebook, in an exported page and on a dark theme. A text is as wide as its number of characters in a monospaced font, and the SVG says so
(`textLength`): what was laid out without overlaps has none on any machine. Coordinates are rounded, so equal data gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TypeAlias

from ..mir.diagnostics import printable, text_cells
from .html import escape

FONT = "DejaVu Sans Mono, Menlo, Consolas, monospace"
CHARACTER = 0.602
"""Width of a character as a part of the font size."""
LINE = 1.35
"""Height of a line as a part of the font size."""
BACKGROUND, INK, FAINT = "#ffffff", "#1b1b1b", "#595959"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle. dash: lengths of stroke and gap, as in SVG. hint: what a pointer over it tells."""

    x: float
    y: float
    width: float
    height: float
    fill: str = "none"
    stroke: str = INK
    dash: str = ""
    line_width: float = 1.5
    radius: float = 4
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Path:
    """A polyline, perhaps with an arrow head at its end."""

    points: tuple[tuple[float, float], ...]
    stroke: str = INK
    dash: str = ""
    line_width: float = 1.5
    has_arrow: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """One line of text; `y` is its middle. anchor: "start", "middle" or "end"."""

    x: float
    y: float
    text: str
    size: float = 12
    color: str = INK
    anchor: str = "start"
    is_bold: bool = False


Shape: TypeAlias = Box | Path | Label


def text_width(text: str, size: float) -> float:
    """Return the width of a line of text."""
    return text_cells(printable(text)) * size * CHARACTER


def shorten(text: str, length: int) -> str:
    """Return the text, or its beginning with an ellipsis, as wide as at most `length` letters."""
    shown = printable(text)
    if text_cells(shown) <= length:
        return shown
    kept = shown[: max(0, length - 1)]
    while text_cells(kept) > max(0, length - 1):
        kept = kept[:-1]
    return kept + "\u2026"


@dataclass(frozen=True)
class Picture:
    """Shapes on an opaque ground. title, description: what the picture shows, complete in words. text: its twin in plain text."""

    width: float
    height: float
    title: str
    description: str
    shapes: Sequence[Shape] = field(repr=False)
    text: str = field(repr=False, default="")

    def to_svg(self) -> str:
        """Return the picture as an SVG document that needs nothing else."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_number(self.width)}" height="{_number(self.height)}" '
            f'viewBox="0 0 {_number(self.width)} {_number(self.height)}" role="img" font-family="{FONT}">'
        )
        parts = [head, f"<title>{escape(self.title)}</title>", f"<desc>{escape(self.description)}</desc>",
                 f'<rect x="0" y="0" width="{_number(self.width)}" height="{_number(self.height)}" fill="{BACKGROUND}"/>']  # fmt: skip
        parts += [_svg(shape) for shape in self.shapes]
        return "\n".join((*parts, "</svg>", ""))

    def to_png(self, scale: float = 2.0) -> bytes:
        """Return the picture as PNG; `scale`: pixels per unit."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        dots = 72.0
        figure = Figure(figsize=(self.width / dots, self.height / dots), dpi=dots * scale, facecolor=BACKGROUND)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.axis("off")
        for order, shape in enumerate(self.shapes):
            _draw(axes, shape, order)
        out = BytesIO()
        figure.savefig(out, format="png", dpi=dots * scale, facecolor=BACKGROUND, metadata={"Software": None})
        return out.getvalue()

    def __repr__(self) -> str:
        return self.text or f"{self.title}\n{self.description}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        return {"text/plain": repr(self), "image/svg+xml": self.to_svg()}


# SVG


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0")


def _svg(shape: Shape) -> str:
    match shape:
        case Box():
            dash = f' stroke-dasharray="{shape.dash}"' if shape.dash else ""
            body = (
                f'<rect x="{_number(shape.x)}" y="{_number(shape.y)}" width="{_number(shape.width)}" height="{_number(shape.height)}" '
                f'rx="{_number(shape.radius)}" fill="{shape.fill}" stroke="{shape.stroke}" stroke-width="{_number(shape.line_width)}"{dash}'
            )
            return body + (f"><title>{escape(shape.hint)}</title></rect>" if shape.hint else "/>")
        case Path():
            dash = f' stroke-dasharray="{shape.dash}"' if shape.dash else ""
            points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
            line = f'<polyline points="{points}" fill="none" stroke="{shape.stroke}" stroke-width="{_number(shape.line_width)}"{dash}'
            line += f"><title>{escape(shape.hint)}</title></polyline>" if shape.hint else "/>"
            if shape.has_arrow:
                tip = " ".join(f"{_number(x)},{_number(y)}" for x, y in arrow_head(shape.points))
                line += f'<polygon points="{tip}" fill="{shape.stroke}"/>'
            return line
        case Label():
            weight = ' font-weight="bold"' if shape.is_bold else ""
            text = printable(shape.text)
            width = _number(text_width(text, shape.size))
            # The middle of a line is about a third of its size above the base line.
            return (
                f'<text x="{_number(shape.x)}" y="{_number(shape.y + 0.35 * shape.size)}" font-size="{_number(shape.size)}" fill="{shape.color}" '
                f'text-anchor="{shape.anchor}" textLength="{width}" lengthAdjust="spacingAndGlyphs"{weight} xml:space="preserve">{escape(text)}</text>'
                if text
                else ""
            )


def arrow_head(points: Sequence[tuple[float, float]], size: float = 7.0) -> tuple[tuple[float, float], ...]:
    """Return the triangle at the end of a polyline."""
    (x0, y0), (x1, y1) = points[-2], points[-1]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5 or 1.0
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    back, half = size, size * 0.45
    return (x1, y1), (x1 - back * ux + half * uy, y1 - back * uy - half * ux), (x1 - back * ux - half * uy, y1 - back * uy + half * ux)


# PNG


def _draw(axes, shape: Shape, order: int) -> None:
    from matplotlib.patches import FancyBboxPatch, Polygon

    match shape:
        case Box():
            style = f"round,pad=0,rounding_size={min(shape.radius, shape.width / 2, shape.height / 2)}" if shape.radius else "square,pad=0"
            axes.add_patch(FancyBboxPatch(
                (shape.x, shape.y), shape.width, shape.height, boxstyle=style, facecolor=shape.fill, edgecolor=shape.stroke, linewidth=shape.line_width,
                linestyle=_dashes(shape.dash, shape.line_width), zorder=order, mutation_aspect=1,
            ))  # fmt: skip
        case Path():
            xs, ys = zip(*shape.points)
            axes.plot(xs, ys, color=shape.stroke, linewidth=shape.line_width, linestyle=_dashes(shape.dash, shape.line_width), zorder=order,
                      solid_capstyle="butt", dash_capstyle="butt")  # fmt: skip
            if shape.has_arrow:
                axes.add_patch(Polygon(arrow_head(shape.points), closed=True, facecolor=shape.stroke, edgecolor="none", zorder=order))
        case Label():
            anchor = {"start": "left", "middle": "center", "end": "right"}[shape.anchor]
            axes.text(shape.x, shape.y, printable(shape.text), fontsize=shape.size, color=shape.color, ha=anchor, va="center_baseline", zorder=order,
                      family="DejaVu Sans Mono", weight="bold" if shape.is_bold else "normal", parse_math=False)  # fmt: skip


def _dashes(dash: str, line_width: float) -> object:
    """Return a dash pattern as matplotlib takes it: in parts of the line width."""
    return (0, tuple(float(part) / line_width for part in dash.split())) if dash else "-"

"""Training: the loss of every run over the steps, as a picture and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...autograd.judging import JudgedRun
from ..html import Table, table
from ..picture import FAINT, INK, Box, Label, Path, Picture, Shape, text_width
from .table import number_text

STEPS = (0, 1, 2, 5, 10, 20)
"""The steps of the table, with the last one."""
DIGITS = 9
"""Of a loss in the table: two ways to train may differ late."""
WIDTH, HEIGHT = 560.0, 280.0
LEFT, TOP, BOTTOM = 74.0, 44.0, 46.0
COLORS = ("#00509a", "#a8320a", "#00624a", "#7d2f77", "#7d5200", "#4f4f4f")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 3")
GAP = 15.0
"""The least distance between the names of two curves."""


def shown_steps(count: int) -> tuple[int, ...]:
    """Return the steps that tables show, of `count` losses."""
    return tuple(dict.fromkeys([s for s in STEPS if s < count] + ([count - 1] if count else [])))


def loss_table(runs: Sequence[JudgedRun]) -> Table:
    """Return the losses at some steps, a row for each run; a run that ended early has none."""
    steps = shown_steps(max((len(r.run.losses) for r in runs), default=0) or 1)
    rows = [(r.name, *(f"{r.run.losses[s]:.{DIGITS}g}" if s < len(r.run.losses) else _end(r) for s in steps)) for r in runs]
    return table(("loss after step", *map(str, steps)), rows)


def value_table(runs: Sequence[JudgedRun]) -> Table:
    """Return what each parameter was after the last step."""
    names = list(dict.fromkeys(name for r in runs for name in r.run.values))
    return table(("parameter at the end", *(r.name for r in runs)), [(n, *(_value(r.run.values.get(n)) for r in runs)) for n in names])


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(number_text(x) for x in value[:6]) + (", ..." if len(value) > 6 else "") + "]"
    return number_text(value)  # type: ignore[arg-type]


def _end(run: JudgedRun) -> str:
    return f"trap {run.run.trap.kind}" if run.run.trap else "-"


def curves_picture(runs: Sequence[JudgedRun], model: str = "") -> Picture:
    """Return the losses over the steps. The scale is logarithmic if all losses are above zero and span more than two decades."""
    points = [[(s, x) for s, x in enumerate(r.run.losses) if math.isfinite(x)] for r in runs]
    losses = [x for line in points for _, x in line]
    last = max([0, *(len(r.run.losses) - 1 for r in runs)])
    is_log = bool(losses) and min(losses) > 0 and max(losses) > 100 * min(losses)
    scale = _Scale(losses, is_log)
    names = max((text_width(r.name, 12) for r in runs), default=0.0)
    width = LEFT + WIDTH + 16 + names + 24
    what = f"loss over {last} step{'s' * (last != 1)} of gradient descent" if any(r.run.losses for r in runs) else "no loss: no run came to the end of a step"
    title = what + (f" on {model}" if model else "")
    shapes: list[Shape] = [Label(12, 20, title, 14, is_bold=True), Box(LEFT, TOP, WIDTH, HEIGHT, stroke=FAINT, line_width=1, radius=0)]
    for tick in scale.ticks():
        y = scale.y(tick)
        shapes += [Path(((LEFT, y), (LEFT + WIDTH, y)), "#d9d9d9", line_width=0.7), Label(LEFT - 6, y, number_text(tick), 11, FAINT, "end")]
    for step in _step_ticks(last):
        shapes.append(Label(_x(step, last), TOP + HEIGHT + 14, str(step), 11, FAINT, "middle"))
    shapes.append(Label(LEFT + WIDTH / 2, TOP + HEIGHT + 34, "step" + (" (losses on a logarithmic scale)" if is_log else ""), 12, INK, "middle"))
    for number, (run, line) in enumerate(zip(runs, points)):
        color, dash = COLORS[number % len(COLORS)], DASHES[number % len(DASHES)]
        drawn = tuple((_x(s, last), scale.y(x)) for s, x in line)
        if len(drawn) > 1:
            shapes.append(Path(drawn, color, dash, 2.0, hint=run.name))
        elif drawn:
            shapes.append(Box(drawn[0][0] - 2, drawn[0][1] - 2, 4, 4, fill=color, stroke=color))
    shapes += _names(runs, points, scale, last)
    return Picture(width, TOP + HEIGHT + BOTTOM, title, _description(runs), tuple(shapes), f"{title}\n{loss_table(runs)!r}\n{_scale_text(scale, last)}")


def _names(runs: Sequence[JudgedRun], points: Sequence[Sequence[tuple[int, float]]], scale: _Scale, last: int) -> list[Shape]:
    """Return a name at the end of each curve, moved apart where curves end close together, with a line back to its curve."""
    wanted = [(scale.y(line[-1][1]) if line else TOP + HEIGHT, number) for number, line in enumerate(points)]
    shapes: list[Shape] = []
    y = TOP - GAP
    placed = []
    for end, number in sorted(wanted):
        y = max(y + GAP, end)
        placed.append((y, end, number))
    over = max(0.0, placed[-1][0] - (TOP + HEIGHT)) if placed else 0.0
    for y, end, number in placed:
        color = COLORS[number % len(COLORS)]
        name = runs[number].name + ("" if points[number] else f" ({_end(runs[number])})")
        shapes += [Path(((LEFT + WIDTH, end), (LEFT + WIDTH + 12, y - over)), color, DASHES[number % len(DASHES)], 1.2),
                   Label(LEFT + WIDTH + 16, y - over, name, 12, color)]  # fmt: skip
    return shapes


class _Scale:
    """From losses to heights."""

    def __init__(self, losses: Sequence[float], is_log: bool) -> None:
        self.is_log = is_log
        low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
        if is_log:
            self.low, self.high = float(math.floor(math.log10(low))), float(math.ceil(math.log10(high)))
        else:
            room = (high - low) or abs(high) or 1.0
            self.low, self.high = (0.0 if 0 <= low < room else low - 0.1 * room), high + 0.1 * room

    def y(self, loss: float) -> float:
        at = math.log10(loss) if self.is_log else loss
        return TOP + HEIGHT * (1 - (at - self.low) / (self.high - self.low))

    def ticks(self) -> list[float]:
        if self.is_log:
            every = max(1, round((self.high - self.low) / 6))
            return [10.0**p for p in range(int(self.low), int(self.high) + 1, every)]
        raw = (self.high - self.low) / 5
        size = 10.0 ** math.floor(math.log10(raw))
        step = next((m * size for m in (1, 2, 5) if m * size >= raw), 10 * size)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _step_ticks(last: int) -> list[int]:
    every = next(e for e in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**4, 10**5, 10**6, 10**9) if last / e <= 10)
    return list(range(0, last + 1, every))


def _x(step: int, last: int) -> float:
    return LEFT + WIDTH * step / max(1, last)


def _scale_text(scale: _Scale, last: int) -> str:
    ticks = ", ".join(number_text(t) for t in scale.ticks())
    return f"scale of losses: {ticks}{' (logarithmic)' if scale.is_log else ''}; of steps: {', '.join(map(str, _step_ticks(last)))}"


def _description(runs: Sequence[JudgedRun]) -> str:
    parts = []
    for r in runs:
        losses = r.run.losses
        parts.append(f"{r.name}: from {number_text(losses[0])} to {number_text(losses[-1])}" if losses else f"{r.name}: {_end(r)}")
    return "; ".join(parts)

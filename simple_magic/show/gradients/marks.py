"""How a verdict and the fate of a contribution look, the same in every picture and table: a colour, a dash, a glyph and a word.

A colour never stands alone: whoever cannot tell two of them apart has the glyph, the dash and the word. All are dark enough to be read as text on the
pictures' white ground and on their own pale fill.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...autograd.replay import DOUBLED, ERASED, LANDED, LOST, STALE


@dataclass(frozen=True, slots=True)
class Mark:
    """word: what it means. dash: as in SVG, "" for an unbroken line."""

    word: str
    glyph: str
    color: str
    fill: str
    dash: str = ""

    @property
    def text(self) -> str:
        return f"{self.glyph} {self.word}"


_GREEN, _RED, _AMBER, _BLUE, _PURPLE, _GREY = "#00624a", "#a8320a", "#7d5200", "#00509a", "#7d2f77", "#4f4f4f"

VERDICTS = {
    mark.word: mark
    for mark in (
        Mark("ok", "\u2713", _GREEN, "#e3f4ee"),
        Mark("lost", "\u2717", _RED, "#fdeae3", "6 3"),
        Mark("partial", "\u25d0", _AMBER, "#fbf0db", "8 3 2 3"),
        Mark("never-written", "\u2205", _GREY, "#efefef", "2 3"),
        Mark("doubled", "\u00d72", _BLUE, "#e2eefb", "10 3"),
        Mark("clobbered", "\u2298", _PURPLE, "#f6e8f5", "4 2 1 2"),
        Mark("wrong", "\u2260", _RED, "#fdeae3", "1 2"),
        Mark("non-finite", "\u221e", _AMBER, "#fbf0db", "3 3"),
        Mark("kink", "\u2227", _BLUE, "#e2eefb", "5 2"),
        Mark("inconclusive", "?", _GREY, "#efefef", "4 4"),
        Mark("no-result", "\u2013", _GREY, "#efefef", "1 4"),
    )
}
"""By the verdict's word."""

FATES = {
    LANDED: Mark("landed", "\u2713", _GREEN, "#e3f4ee"),
    LOST: Mark("lost", "\u2717", _RED, "#fdeae3", "6 3"),
    DOUBLED: Mark("doubled", "\u00d72", _BLUE, "#e2eefb", "10 3"),
    ERASED: Mark("overwritten", "\u2298", _PURPLE, "#f6e8f5", "4 2 1 2"),
    STALE: Mark("undone by an older copy", "\u21ba", _AMBER, "#fbf0db", "8 3 2 3"),
}
"""By what became of a contribution (`autograd/replay.py`)."""

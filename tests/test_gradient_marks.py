"""Marks of verdicts: complete, told apart without colour, readable on light and dark pages."""

from __future__ import annotations

import pytest

from simple_magic.autograd.replay import DOUBLED, ERASED, LANDED, LOST, STALE
from simple_magic.autograd.verdicts import WORDS
from simple_magic.show.gradients.marks import FATES, VERDICTS
from simple_magic.show.picture import BACKGROUND


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG 2.1, 1.4.3."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_every_word_has_a_mark():
    assert tuple(VERDICTS) == WORDS
    assert set(FATES) == {LANDED, LOST, DOUBLED, ERASED, STALE}


@pytest.mark.parametrize("marks", [VERDICTS, FATES], ids=["verdicts", "fates"])
def test_marks_differ_without_their_colour(marks):
    assert len({m.glyph for m in marks.values()}) == len({m.dash for m in marks.values()}) == len({m.word for m in marks.values()}) == len(marks)


@pytest.mark.parametrize("mark", [*VERDICTS.values(), *FATES.values()], ids=lambda m: m.word)
def test_marks_are_readable(mark):
    assert contrast(mark.color, BACKGROUND) >= 4.5 and contrast(mark.color, mark.fill) >= 4.5


def test_the_measure_of_contrast():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)

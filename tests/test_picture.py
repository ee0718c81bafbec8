"""Pictures as data: SVG that is safe and complete, equal bytes for equal data, layouts without overlaps."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree

import pytest

from simple_magic.show.layers import layered
from simple_magic.show.picture import Box, Label, Path, Picture, shorten, text_width
import itertools

HOSTILE = '<img src=x onerror=alert(1)> "&\u202e\x1b[31m'
FORBIDDEN = ("script", "style", "foreignObject", "image", "use", "a", "animate", "set", "iframe")


def sample(text: str = HOSTILE) -> Picture:
    shapes = (Box(10, 10, 120, 40, "#eef", dash="4 2", hint=text), Path(((130, 30), (180, 30), (200, 60)), has_arrow=True, hint=text),
              Label(20, 30, text[:12]), Label(70, 80, "middle", anchor="middle", is_bold=True))  # fmt: skip
    return Picture(240, 100, f"title {text}", f"what it shows {text}\nmore", shapes, "the twin")


def test_svg_is_xml_of_harmless_elements():
    root = ElementTree.fromstring(sample().to_svg())
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert not set(names) & set(FORBIDDEN)
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on") and "href" not in name and name not in ("class", "id", "style"), name
            assert "url(" not in value
    assert root[0].tag.endswith("title") and root[1].tag.endswith("desc") and root[2].attrib["fill"] == "#ffffff"
    assert "<img" not in sample().to_svg() and "\x1b" not in sample().to_svg() and "\u202e" not in sample().to_svg()


def test_equal_data_gives_equal_bytes():
    assert sample().to_svg() == sample().to_svg()
    assert sample("plain").to_png() == sample("plain").to_png()
    assert sample("plain").to_png()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_text_is_as_wide_as_it_says():
    root = ElementTree.fromstring(Picture(10, 10, "t", "d", (Label(0, 0, "abc", 10),)).to_svg())
    text = root.find("{http://www.w3.org/2000/svg}text")
    assert float(text.attrib["textLength"]) == pytest.approx(text_width("abc", 10), abs=0.05)
    assert shorten("abcdef", 4) == "abc\u2026" and shorten("abc", 4) == "abc"


def test_a_picture_shows_itself_in_words_too():
    bundle = sample()._repr_mimebundle_()
    assert bundle["text/plain"] == "the twin" and bundle["image/svg+xml"].startswith("<svg")


def graph(seed: int, count: int, edges: int, has_cycles: bool = False):
    pick = random.Random(seed)
    pairs = []
    for _ in range(edges):
        a, b = pick.randrange(count), pick.randrange(count)
        pairs.append((a, b) if has_cycles or a < b else (b, a))
    return list(range(count)), [p for p in pairs if has_cycles or p[0] != p[1]]


@pytest.mark.parametrize(("count", "edges", "has_cycles"), [(0, 0, False), (1, 0, False), (2, 3, True), (12, 20, False), (40, 80, True), (300, 500, False)])
def test_nodes_never_overlap(count, edges, has_cycles):
    nodes, pairs = graph(count, count, edges if count > 1 else 0, has_cycles)
    sizes = {node: (40.0 + node % 7, 20.0 + node % 5) for node in nodes}
    made = layered(nodes, pairs, sizes)
    boxes = []
    for node in nodes:
        (x, y), (w, h) = made.centres[node], sizes[node]
        assert w / 2 - 0.01 <= x <= made.width - w / 2 + 0.01 and h / 2 - 0.01 <= y <= made.height - h / 2 + 0.01
        boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    boxes.sort()
    for index, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[index + 1 :]:
            if other[0] >= right:
                break
            assert other[1] >= bottom - 0.01 or other[3] <= top + 0.01 or other[0] >= right or other[2] <= left
    assert made == layered(nodes, pairs, sizes)
    if not has_cycles:
        assert all(made.centres[a][0] < made.centres[b][0] for a, b in pairs)


def test_long_chains_need_no_recursion():
    nodes = list(range(5_000))
    made = layered(nodes, list(itertools.pairwise(nodes)), dict.fromkeys(nodes, (10.0, 10.0)))
    assert len({y for _, y in made.centres.values()}) == 1


def test_a_long_edge_bends_around_what_is_between():
    nodes = ["a", "b", "c"]
    made = layered(nodes, [("a", "b"), ("b", "c"), ("a", "c")], dict.fromkeys(nodes, (50.0, 20.0)))
    (_, y), *_ = made.bends[2]
    assert abs(y - made.centres["b"][1]) >= 10 and not made.bends[0]


def test_a_shortened_text_is_no_wider_than_its_letters():
    for text in ("short", "long" * 9, "\u6f22" * 9, "\x1b" * 9, "a\u6f22" * 9):
        for length in range(1, 12):
            assert text_width(shorten(text, length), 10) <= text_width("x" * length, 10), (text, length)

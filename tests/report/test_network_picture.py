import re
from itertools import pairwise

import pytest

from neurodeploy.report.charts import network

CHAIN = [f"c{index}" for index in range(9)]
PICTURES = {
    "chain": (CHAIN, list(pairwise(CHAIN))),
    "skip": (["in", "a", "b", "sum"], [("in", "a"), ("a", "b"), ("a", "sum"), ("b", "sum")]),
    "uneven branches": (
        ["in", "l1", "m1", "m2", "r1", "r2", "r3", "join"],
        [
            ("in", "l1"),
            ("in", "m1"),
            ("in", "r1"),
            ("m1", "m2"),
            ("r1", "r2"),
            ("r2", "r3"),
            ("l1", "join"),
            ("m2", "join"),
            ("r3", "join"),
        ],
    ),
    "two inputs": (["in", "a", "in 2", "b", "join"], [("in", "a"), ("in 2", "b"), ("a", "join"), ("b", "join")]),
    "loop": (["in", "a", "back", "out"], [("in", "a"), ("a", "back"), ("back", "a"), ("a", "out"), ("out", "out")]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_box_covers_another_and_no_long_arrow_crosses_one(name):
    boxes, arrows = PICTURES[name]
    svg = network({box: ["8 x 10 x 10 neurons"] for box in boxes}, arrows)
    places = [tuple(map(float, found)) for found in re.findall(r'class="box" x="([\d.]+)" y="([\d.]+)"', svg)]
    assert len(set(places)) == len(places) == len(boxes)
    assert svg.count('class="arrow"') == len(arrows)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    assert all(x + 138 <= width and y + 74 <= height for x, y in places)
    lanes = [float(level) for level in re.findall(r"([\d.]+) H", svg)]
    assert bool(lanes) == (name in ("skip", "uneven branches", "loop"))
    assert all(level <= y or level >= y + 74 for level in lanes for _, y in places)
    assert all(level < height for level in lanes)


def test_a_branch_keeps_its_row():
    boxes, arrows = PICTURES["uneven branches"]
    svg = network({box: [] for box in boxes}, arrows)
    rows = {name: float(y) for y, name in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)">([^<]+)', svg)}
    assert rows["l1"] < rows["m1"] == rows["m2"] < rows["r1"] == rows["r2"] == rows["r3"]

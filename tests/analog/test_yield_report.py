"""The statement, the picture and the page of a yield say the same numbers."""

import csv
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from neurodeploy.analog.yield_report import Yield, check_level, default_level, yield_picture
from neurodeploy.errors import ConfigError


def result(accuracies, nominal=0.95, **changes):
    chips = len(accuracies)
    values = np.asarray(accuracies, np.float64)
    return Yield("bss2", nominal, np.arange(chips), values, np.zeros(chips), 200, {"seed": 0}, **changes)


def test_the_share_and_its_interval():
    found = result([0.9] * 92 + [0.8] * 8)
    assert found.share_above(0.85) == 0.92
    assert found.share_above(0.9) == 0.92
    assert found.share_above(0.8) == 1
    # Wilson's interval of 92 of 100, from the closed form evaluated by hand: (0.8500, 0.9589).
    assert found.interval(0.85) == pytest.approx((0.85003, 0.95893), abs=1e-4)
    assert result([0.9] * 10).interval(0.5)[1] == pytest.approx(1)
    assert found.reached_by(0.92) == 0.9
    assert found.reached_by(0.95) == 0.8
    assert found.statement(0.85).startswith("92.0% of 100 virtual bss2 chips stay above 85.0% (95 % interval")


def test_levels():
    assert default_level(0.95) == pytest.approx(0.93)
    assert default_level(0.01) == 0
    check_level(0.0)
    with pytest.raises(ConfigError, match=r"above is 90\."):
        check_level(90)


def test_files_agree(tmp_path):
    rng = np.random.default_rng(0)
    found = result(
        0.95 - rng.gamma(2, 0.01, 300), causes={"time constants": np.array([0.9, 0.92])}, assumptions=["x < y"]
    )
    found.save(tmp_path, 0.92)
    content = json.loads((tmp_path / "yield.json").read_text())
    assert content["statement"] == found.statement(0.92)
    assert content["causes"] == {"time constants": pytest.approx(0.91)}
    rows = list(csv.DictReader((tmp_path / "yield.csv").open()))
    assert [float(row["accuracy"]) for row in rows] == found.accuracies.tolist()
    assert [int(row["serial"]) for row in rows] == list(range(300))
    page = (tmp_path / "yield.html").read_text()
    assert found.statement(0.92) in page
    assert "x &lt; y" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("accuracies", [[0.5], [1.0, 1.0], [0.0, 0.3, 0.31, 0.9]])
def test_the_picture_is_one_step_down_per_chip(accuracies):
    found = result(accuracies, nominal=accuracies[0])
    root = ElementTree.fromstring(yield_picture(found, 0.4))
    path = next(part for part in root if part.tag.endswith("path")).attrib["d"]
    heights = [float(y) for _, y in re.findall(r"([\d.]+),([\d.]+)", path)]
    assert len(heights) == 2 * len(accuracies) + 2
    assert heights == sorted(heights)  # the share only falls
    bars = [part for part in root if part.tag.endswith("rect") and len(part)]
    assert sum(int(bar[0].text.split()[0]) for bar in bars) == len(accuracies)

"""What stands in the report: the network as it is, and names as text."""

import re
from itertools import pairwise

import pytest

from neurodeploy.events.dataset import save_npz
from neurodeploy.graph.file import save_graph
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Flatten, Input, Linear, Output
from neurodeploy.report.charts import network
from neurodeploy.report.robustness import robustness_section
from tests.cli.conftest import chain, neuron, weights


@pytest.fixture
def page(tmp_path, cli, recordings):
    def report(graph):
        save_graph(graph, tmp_path / "model.onnx")
        save_npz(tmp_path / "data.npz", recordings)
        assert cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run").code == 0
        options = ["--data", tmp_path / "data.npz", "--runs", "event_driven"]
        assert cli("validate", tmp_path / "run", *options).code == 0
        assert cli("report", tmp_path / "run").code == 0
        return (tmp_path / "run" / "report.html").read_text()

    return report


def branching(*names):
    """Stem -> left -> sum, stem -> sum, sum -> last."""
    stem, left, last = names
    nodes = {"input": Input((2, 12, 12)), stem: Conv2d(weights(4, 2, 3, 3)), "stem spikes": neuron()}
    nodes |= {left: Conv2d(weights(4, 4, 3, 3), padding=(1, 1)), "left spikes": neuron(), "sum": Add()}
    nodes |= {"flat": Flatten(), last: Linear(weights(3, 400)), "last spikes": neuron(), "output": Output()}
    edges = [("input", stem), (stem, "stem spikes"), ("stem spikes", left), (left, "left spikes")]
    edges += [("left spikes", "sum"), ("stem spikes", "sum"), ("sum", "flat"), ("flat", last)]
    return Graph(nodes, (*edges, (last, "last spikes"), ("last spikes", "output")))


def test_tables_of_layers_are_in_network_order():
    trial = {"name": "a", "accuracy": 1.0, "answers_changed": 0, "spikes_changed": {"11": 0.5, "2": None, "0": 0.1}}
    found = {"recordings": 1, "recordings_changed": [], "answers_changed": 0.0, "accuracy": 1.0, "trials": [trial]}
    section = robustness_section(found, ("0", "2", "11"))
    assert (section["layers"], section["rows"][0]["spikes"]) == (["0", "2", "11"], ["10.00%", "", "50.00%"])


def test_names_are_text(page):
    names = "<script>alert(1)</script>", 'a"b & [bold]c', "events"
    text = page(branching(*names))
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
    assert "a&quot;b &amp; [bold]c" in text or "a&#34;b &amp; [bold]c" in text


def test_branches_are_drawn(page):
    svg = re.search(r'<div class="wide">(.*?)</div>', page(branching("stem", "left", "last")), re.DOTALL)[1]
    assert len(re.findall('class="arrow"', svg)) == 4  # events -> stem, stem -> left, left -> last, stem -> last
    assert len(re.findall('class="box"', svg)) == 4


def test_every_layer_that_takes_the_events_has_their_arrow(page):
    nodes = {"input": Input((2, 12, 12)), "first": Conv2d(weights(4, 2, 3, 3), padding=(1, 1)), "spikes": neuron()}
    nodes |= {"both": Concat(), "second": Conv2d(weights(4, 6, 12, 12)), "last spikes": neuron(), "output": Output()}
    edges = [("input", "first"), ("first", "spikes"), ("input", "both"), ("spikes", "both"), ("both", "second")]
    graph = Graph(nodes, (*edges, ("second", "last spikes"), ("last spikes", "output")))
    svg = re.search(r'<div class="wide">(.*?)</div>', page(graph), re.DOTALL)[1]
    assert len(re.findall('class="arrow"', svg)) == 3  # events -> first, events -> second, first -> second


def test_a_chain_is_wrapped_and_branches_stand_below_each_other():
    def places(svg):
        return [(int(x), int(y)) for x, y in re.findall(r'class="box" x="(\d+)" y="(\d+)"', svg)]

    names = [str(index) for index in range(8)]
    rows = [y for _, y in places(network({name: [] for name in names}, list(pairwise(names))))]
    assert len(set(rows[:6])) == len(set(rows[6:])) == 1
    assert rows[0] < rows[6]
    (_, a), (b_x, b), (c_x, c), (_, d) = places(network(dict.fromkeys("abcd", ()), ["ab", "ac", "bd", "cd"]))
    assert b_x == c_x
    assert a == b == d < c


def test_many_classes(page):
    text = page(chain(Conv2d(weights(4, 2, 12, 12)), neuron(), Conv2d(weights(700, 4, 1, 1)), neuron()))
    assert "700 x 1 x 1 neurons" in text
    assert len(text) < 200_000

import nir
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.graph.nir_reader import read_nir
from neurodeploy.graph.nir_writer import save_nir
from tests.graph.random_graphs import random_graph


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.sampled_from(["euler", "zoh", "exp_delta"]))
def test_random_graphs_survive(tmp_path_factory, seed, layers, scheme):
    graph = random_graph(seed, layers)
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    report = save_nir(graph, path, dt_us=1000.0, scheme=scheme)
    assert read_nir(path) == graph
    assert {entry.node for entry in report} <= set(graph.nodes)
    nir.read(path, type_check=False)

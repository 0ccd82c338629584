import pytest

import neurodeploy as nd
from neurodeploy.targets.dynapcnn import samna_adapter
from tests.cli.command_line import CommandLine
from tests.cli.conftest import chain, neuron, recordings, small_graph, weights
from tests.deploy.fake_samna import Board, fake_samna

__all__ = ["chain", "neuron", "recordings", "small_graph", "weights"]


@pytest.fixture
def cli(monkeypatch, capsys):
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def samna(board, monkeypatch, tmp_path):
    """The substitute with one kit, no waiting, and locks of its own."""
    fake = fake_samna(("Speck2fDevKit", board))
    monkeypatch.setattr(samna_adapter, "load_samna", lambda: fake)
    monkeypatch.setattr(samna_adapter.SamnaVendor.__init__, "__kwdefaults__", {"sleep": lambda seconds: None})
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    return fake


@pytest.fixture
def deployment(small_graph):
    return nd.compile(small_graph, target="speck2f", monitor_layers=["n0", "n4"])

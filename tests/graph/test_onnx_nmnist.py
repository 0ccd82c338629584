"""The NIR paper's network on real recordings: our graph, ONNX Runtime on our file, and sinabs agree in every bin."""

import numpy as np
import pytest

from neurodeploy.events.dataset import load_npz
from neurodeploy.events.raster import events_to_raster
from neurodeploy.graph.file import load_graph, save_graph
from neurodeploy.graph.load import load
from neurodeploy.quantize import quantize
from neurodeploy.quantize.integers import with_v_min
from tests.graph.onnx_runs import session
from tests.shared_data import SHARED, needs_shared
from tests.sinabs_oracle import needs_sinabs

torch = pytest.importorskip("torch")
from neurodeploy.graph.torch_writer import to_torch  # noqa: E402

NETWORK = SHARED / "speck-reference" / "cnn_sinabs.nir"
pytestmark = [needs_shared, needs_sinabs]


@pytest.mark.parametrize("v_min", [None, "-threshold"])
def test_equal_spikes_in_every_time_bin(v_min, tmp_path):
    import nir
    from sinabs.nir import from_nir

    graph = with_v_min(load(NETWORK), v_min)
    integers = quantize(graph).graph
    save_graph(graph, tmp_path / "graph.onnx")
    save_graph(integers, tmp_path / "quantized.onnx")
    assert load_graph(tmp_path / "graph.onnx") == graph
    assert load_graph(tmp_path / "quantized.onnx") == integers
    floats, counts = session(tmp_path / "graph.onnx"), session(tmp_path / "quantized.onnx")
    ours, ours_integer = to_torch(graph), to_torch(integers)
    sinabs = from_nir(nir.read(str(NETWORK)), batch_size=1)  # sets v_min to -threshold
    layers = [module for module in sinabs.modules() if hasattr(module, "min_v_mem")]
    if v_min is None:
        for layer in layers:
            layer.min_v_mem = None
    dataset = load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 34))
    for row in range(5):
        events, label = dataset[row]
        raster = events_to_raster(events, (2, 34, 34), dt_us=1000)
        batch = torch.from_numpy(raster.astype(np.float32)[None])
        expected = ours(batch).numpy()
        assert np.array_equal(floats.run(["output"], {"input": batch.numpy()})[0], expected)
        for layer in layers:
            layer.reset_states()
        with torch.no_grad():
            assert np.array_equal(sinabs(batch[0])[0].numpy(), expected[0])
        found = counts.run(["output"], {"input": raster[None]})[0]
        assert np.array_equal(found, ours_integer(batch).numpy())
        assert (expected[0].sum(0).argmax(), found[0].sum(0).argmax()) == (label, label)

"""``neurodeploy emulate``: pieces, probes, switches, load; and ``validate`` with other orders, up to the report."""

import json

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.events.dataset import save_npz
from neurodeploy.events.formats import write_events
from neurodeploy.graph.file import save_graph


@pytest.fixture
def run_folder(tmp_path, cli, small_graph, recordings):
    save_graph(small_graph, tmp_path / "model.onnx")
    save_npz(tmp_path / "data.npz", recordings)
    write_events(tmp_path / "one.npz", recordings[0][0], sensor_size=(2, 12, 12))
    assert cli("compile", tmp_path / "model.onnx", "-o", tmp_path / "run").code == 0
    return tmp_path / "run"


def as_json(result):
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_pieces_change_nothing(run_folder, cli, recordings, tmp_path):
    whole = nd.open(run_folder).emulate(recordings[0][0])
    options = ["--events", tmp_path / "one.npz", "--load", "--json"]
    results = []
    for chunk in (1, 7, 300, 1 << 20):
        out = ["-o", tmp_path / "spikes.npz", "--probe", "n0:1,2,3", "--probe", "n4:0,0,0"]
        results.append(as_json(cli("emulate", run_folder, *options, *out, "--chunk-events", chunk)))
        with np.load(tmp_path / "spikes.npz") as written:
            assert np.array_equal(written["spikes"], whole.spikes)
            assert (str(written["probe0_layer"]), written["probe0_neurons"].tolist()) == ("n0", [[1, 2, 3]])
            v = written["probe0_v"]
            assert v.shape == (300, 1)
            assert written["probe0_t_us"].tolist() == recordings[0][0]["t"].tolist()
    assert all(result == results[0] for result in results)
    assert results[0]["output_counts"] == whole.output_counts.tolist()
    load = results[0]["load"]
    assert sum(load["cores"][0]["synops"]) == whole.stats["layers"]["n0"]["synops"]
    assert load["energy"]["pj_per_synop"] is None
    assert load["energy"]["dynamic_uj"] is None


def test_events_are_those_of_the_recording_however_many_cores_take_them(run_folder, cli, tmp_path):
    options = ["--layer2core-map", "n0[0:2]=0,n0[2:4]=1,n4=2", "-o", tmp_path / "split"]
    assert cli("compile", tmp_path / "model.onnx", *options).code == 0
    result = as_json(cli("emulate", tmp_path / "split", "--events", tmp_path / "one.npz", "--json"))
    assert result["stats"]["layers"]["n0"]["events"] == 600
    assert result["events"] == 300


def test_switches_reach_the_emulator(run_folder, cli, recordings, tmp_path):
    options = ["--events", tmp_path / "one.npz", "--json"]
    lost = as_json(cli("emulate", run_folder, *options, "--switch", "lost_events=1", "--switch", "seed=3"))
    assert lost["stats"]["lost"] == lost["events"] == 300
    order = as_json(cli("emulate", run_folder, *options, "--switch", "emission_order=f_y_x"))
    expected = nd.open(run_folder).emulate(recordings[0][0], switches={"emission_order": "f_y_x"})
    assert order["stats"]["layers"] == expected.stats["layers"]
    limited = cli("emulate", run_folder, "--events", tmp_path / "one.npz", "--work-limit", 100)
    assert limited.code == 2
    assert "100 updates" in limited.err
    for wrong in ("nonsense", "nonsense=1", "lost_events=2", "zero_weight_touches=perhaps"):
        assert cli("emulate", run_folder, *options, "--switch", wrong).code == 2
    for wrong in ("n0", "n0:1,2", "n0:a,b,c", "n9:0,0,0", "n0:99,0,0"):
        result = cli("emulate", run_folder, *options, "--probe", wrong)
        assert result.code == 2
        assert "Remedy" in result.err


def test_the_energy_of_ones_own_measurement(run_folder, cli, tmp_path):
    options = ["--events", tmp_path / "one.npz", "--load", "--load-out", tmp_path / "load.json", "--json"]
    result = as_json(cli("emulate", run_folder, *options, "--pj-per-synop", 10, "--pj-per-spike", 5))
    stats = result["stats"]
    assert result["load"]["energy"]["dynamic_uj"] == pytest.approx((stats["synops"] * 10 + stats["spikes"] * 5) * 1e-6)
    assert json.loads((tmp_path / "load.json").read_text()) == result["load"]
    text = cli("emulate", run_folder, "--events", tmp_path / "one.npz", "--load").out
    assert "not published" in text
    assert "Richter" in text or "Yao" in text


def test_orders_imperfect_chips_and_load_stand_in_the_report(run_folder, cli, tmp_path):
    options = ["--data", tmp_path / "data.npz", "--runs", "event_driven", "--threads", 2, "--json"]
    result = as_json(cli("validate", run_folder, *options, "--orders", 3, "--lost-events", 0.3, "--chips", 2))
    orders = [trial["name"] for trial in result["order_robustness"]["trials"]]
    assert orders == ["depth_first", "breadth_first", "random_0"]
    assert [trial["name"] for trial in result["monte_carlo"]["trials"]] == ["chip_0", "chip_1"]
    assert cli("report", run_folder).code == 0
    page = (run_folder / "report.html").read_text()
    for text in ("Order of delivery", "random_0", "Imperfect chips", "Load, latency and energy", "not published"):
        assert text in page
    plain = as_json(cli("validate", run_folder, *options))
    assert plain["order_robustness"] is plain["monte_carlo"] is None
    assert cli("report", run_folder).code == 0
    assert "Order of delivery" not in (run_folder / "report.html").read_text()


def test_a_sweep_in_the_folder_stands_in_the_report(run_folder, cli, tmp_path):
    options = ["--data", tmp_path / "data.npz", "--v-min", "-1", "--v-min", "lowest", "-o", run_folder]
    assert cli("sweep", tmp_path / "model.onnx", *options).code == 0
    assert cli("report", run_folder).code == 0
    page = (run_folder / "report.html").read_text()
    assert "Compiled in other ways" in page
    assert "<td>lowest</td>" in page
    (run_folder / "sweep.json").write_text('{"rows": 3}')
    result = cli("report", run_folder)
    assert result.code == 2
    assert "sweep.json: not what neurodeploy sweep writes" in result.err

"""What compiles a network again does so with the options it was compiled with."""

from pathlib import Path

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.compile_options import CompileOptions, load_options
from neurodeploy.deployment import Deployment
from neurodeploy.errors import ProgramError, ValidationError
from neurodeploy.quantize.calibration import LayerCalibration
from neurodeploy.validation.waterfall import GapRuns
from tests.validation.test_sweep import small

OPTIONS = CompileOptions(settings={"decimators": {"n0": 2}}, bias_bits=16)


def decimated(deployment: Deployment) -> bool:
    return deployment.layers["n0"].output_decimator_interval == 0


def test_a_deployment_is_compiled_again_with_all_options_but_those_given(tmp_path: Path) -> None:
    graph, _ = small()
    first = nd.compile(graph, settings=OPTIONS.settings, bias_bits=16, layer2core_map={"n0": 5}, target="speck2e")
    first.save(tmp_path)
    again = nd.open(tmp_path).recompile(v_min="lowest")
    assert decimated(again)
    assert again.layers["n0"].core == 5
    assert again.target == "speck2e"
    assert again.quantized.spec.bias_bits == 16
    assert again.layers["n0"].threshold_low == -32768
    assert first.layers["n0"].threshold_low != -32768


def test_the_waterfall_keeps_the_settings() -> None:
    graph, _ = small()
    deployment = nd.compile(graph, settings=OPTIONS.settings)
    runs = GapRuns(deployment, deployment.graph, {"event_driven": deployment})
    lifted = [work for work in runs.missing.values() if isinstance(work, Deployment)]
    assert len(lifted) == 1
    assert decimated(lifted[0])
    assert lifted[0].layers["n0"].threshold_low == -32768


def test_sweeps_and_calibrations_compile_with_the_options() -> None:
    pytest.importorskip("torch")
    graph, data = small()
    (row,) = nd.sweep(graph, data, options=OPTIONS).rows
    alone = nd.validate(nd.compile(graph, settings=OPTIONS.settings), data, runs=["event_driven"])
    assert row.spikes == {"n0": alone.runs["event_driven"].layers["n0"].mean_spikes}
    (plain,) = nd.sweep(graph, data).rows
    assert row.spikes != plain.spikes
    result = nd.calibrate(graph, data, dt_us=500, weight_ranges=[1.0], options=OPTIONS)
    assert result.layers[0].rate_before == pytest.approx(row.spikes["n0"])
    with pytest.raises(ValidationError, match="swept"):
        nd.sweep(graph, data, options=CompileOptions(v_min="lowest"))
    with pytest.raises(ValidationError, match="looked for"):
        nd.calibrate(graph, data, dt_us=500, options=CompileOptions(calibration={}))


def test_options_are_read_back(tmp_path: Path) -> None:
    given = CompileOptions(
        v_min=-1.5,
        bias_bits=16,
        calibration={"n0": LayerCalibration(0.5, 1.25)},
        layer2core_map={"n0[0:2]": np.int64(3), 1: 4},
        split="never",
        monitor_layers=("n0",),
        settings={"dvs": {"sensor_size": (34, 34)}, "synops": {"n0": np.float64(2)}},
        allow_recurrence=True,
    )
    given.save(tmp_path / "compile.json")
    read = load_options(tmp_path / "compile.json")
    assert read.calibration == given.calibration
    assert read.layer2core_map == given.layer2core_map
    assert read.settings == {"dvs": {"sensor_size": [34, 34]}, "synops": {"n0": 2.0}}
    assert (read.v_min, read.split, read.monitor_layers) == (-1.5, "never", ["n0"])
    (tmp_path / "compile.json").write_text('{"calibration": null, "layer2core_map": "auto", "else": 1}')
    with pytest.raises(ProgramError) as refused:
        load_options(tmp_path / "compile.json")
    assert refused.value.code == "compile-options"

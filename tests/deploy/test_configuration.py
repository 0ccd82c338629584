"""Programs as the vendor's object: what it then holds is the program, and any other value is found."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from neurodeploy.errors import DeviceError, ProgramError
from neurodeploy.target import load_target
from neurodeploy.targets.dynapcnn.dvs import DvsLayer, EventFilter
from neurodeploy.targets.dynapcnn.program import Entry, InputPort, ReadoutProgram, cnn_layer
from neurodeploy.targets.dynapcnn.samna_adapter import SamnaVendor
from neurodeploy.targets.dynapcnn.samna_configuration import SCALARS, TENSORS, differences, write_configuration
from tests.deploy.fake_samna import SpeckConfiguration, program_of, sensor_of
from tests.targets.programs import core, program, random_program, with_random_inputs


def fields(one):
    """A core as comparable values, without its name."""
    values = {name: value for name, value in vars(one).items() if name != "layer"}
    initial = values["neurons_initial_value"]
    values["neurons_initial_value"] = np.zeros(one.output_shape, np.int16) if initial is None else initial
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


@pytest.mark.parametrize("seed", range(25))
def test_the_object_holds_the_program(seed):
    wanted = random_program(np.random.default_rng(seed))
    configuration = SpeckConfiguration()
    write_configuration(wanted, configuration)
    assert differences(wanted, configuration) == []
    held = {one.core: fields(one) for one in program_of(configuration, wanted.entry_core).cores}
    assert held == {one.core: fields(one) for one in wanted.cores}


@pytest.mark.parametrize("seed", range(25))
def test_the_object_holds_inputs_and_decimators(seed):
    rng = np.random.default_rng(seed)
    wanted = with_random_inputs(rng, random_program(rng))
    configuration = SpeckConfiguration()
    write_configuration(wanted, configuration)
    assert differences(wanted, configuration) == []
    held = {one.core: fields(one) for one in program_of(configuration, wanted.entry_core).cores}
    assert held == {one.core: fields(one) for one in wanted.cores}
    sensor = next((port for port in wanted.inputs if port.dvs), None)
    ends = [end.layer for end in configuration.dvs_layer.destinations if end.enable]
    assert ends == ([entry.core for entry in sensor.entries] if sensor else [])
    if sensor:
        assert sensor_of(configuration) == sensor.dvs


def test_the_object_holds_the_readout_and_the_event_filter():
    one = core(np.arange(9).reshape(1, 1, 3, 3), (1, 5, 5), number=2)
    dvs = DvsLayer(cut=(4, 4), merge=True, event_filter=EventFilter("noise", (3, 5), 7))
    readout = ReadoutProgram(2, 9, 32, "selected", 4, True)
    wanted = replace(program(one), ports=(InputPort("in", (2, 5, 5), (Entry(2),), dvs),), readout=readout)
    configuration = SpeckConfiguration()
    write_configuration(wanted, configuration)
    assert differences(wanted, configuration) == []
    found = configuration.dvs_filter.plain()
    assert (found["enable"], found["filter_size"], found["threshold"]) == (True, {"x": 5, "y": 3}, 7)
    held = configuration.readout.plain()
    assert (held["enable"], held["threshold"], held["output_mode_sel"], held["output_neuron_num"]) == (True, 9, 2, 4)
    flags = ("low_pass_filter32_not16", "low_pass_filter_disable", "monitor_enable")
    assert [held[name] for name in flags] == [True, False, True]
    end = {"enable": True, "layer": 12, "pooling": 1, "feature_shift": 0}
    assert configuration.cnn_layers[2].destinations[0].plain() == end
    held_flag = configuration.readout.threshold = 8
    assert differences(wanted, configuration) == [f"readout.threshold: {held_flag} instead of 9"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cnn_layers.2.threshold_high", 99),
        ("cnn_layers.2.threshold_low", 0),
        ("cnn_layers.2.return_to_zero", True),
        ("cnn_layers.2.monitor_enable", False),
        ("cnn_layers.2.leak_enable", True),
        ("cnn_layers.2.destinations.0.pooling", 2),
        ("cnn_layers.2.destinations.1.enable", True),
        ("cnn_layers.2.dimensions.stride.x", 2),
        ("cnn_layers.2.dimensions.input_shape.size.y", 9),
        ("cnn_layers.2.output_decimator_enable", True),
        ("cnn_layers.2.input_congestion_balancer_enable", True),
        ("cnn_layers.2.biases", [1]),
        ("cnn_layers.2.neurons_initial_value", [[[1, 0, 0], [0, 0, 0], [0, 0, 0]]]),
        ("cnn_layers.2.weights", [[[[0]]]]),
        ("cnn_layers.5.destinations.0.enable", True),
        ("cnn_layers.5.monitor_enable", True),
        ("dvs_layer.pass_sensor_events", True),
        ("dvs_layer.destinations.1.enable", True),
    ],
)
def test_every_other_value_is_found_and_named(path, value):
    wanted = program(core(np.arange(9).reshape(1, 1, 3, 3), (1, 5, 5), number=2))
    configuration = SpeckConfiguration()
    write_configuration(wanted, configuration)
    *way, last = path.split(".")
    place = configuration
    for name in way:
        place = place[int(name)] if name.isdigit() else getattr(place, name)
    setattr(place, last, value)
    (line,) = differences(wanted, configuration)
    assert line.replace("[", ".").replace("]", "").startswith(path + ": ")


def test_tensors_are_transposed():
    weights = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2)
    configuration = SpeckConfiguration()
    write_configuration(program(core(weights, (3, 4, 5))), configuration)
    assert configuration.cnn_layers[0].weights[1][2][1][0] == weights[1, 2, 0, 1]
    assert configuration.cnn_layers[0].dimensions.input_shape.plain() == {"feature_count": 3, "size": {"x": 5, "y": 4}}


def test_files_of_the_vendor(samna, deployment):
    files = SamnaVendor(load_target("speck2f").chip).files(deployment.program)
    held = json.loads(files.configuration)["value0"]["cnn_layers"]
    assert [layer["threshold_high"] for layer in held if layer["threshold_high"]] == [
        one.threshold_high for one in sorted(deployment.program.cores, key=lambda one: one.core)
    ]
    assert files.flash == bytes([1, 2, 255])
    del samna.speck2f.configuration_to_flash_binary
    assert SamnaVendor(load_target("speck2f").chip).files(deployment.program).flash is None


def test_what_the_library_refuses_is_one_message(samna, deployment):
    vendor = SamnaVendor(load_target("speck2f").chip)
    first, *rest = deployment.program.cores
    small = replace(first, destinations=(replace(first.destinations[0], pooling=1),))
    with pytest.raises(ProgramError, match=r"refuses the program: .* do not match") as caught:
        vendor.configuration(replace(deployment.program, cores=(small, *rest)))
    assert caught.value.code == "samna-refused"
    with pytest.raises(ProgramError, match="does not take the program: 40000 is not an integer") as caught:
        vendor.configuration(replace(deployment.program, cores=(replace(first, threshold_high=40000), *rest)))
    assert caught.value.code == "samna-field"


def test_a_chip_without_the_optional_fields_is_configured(samna, deployment):
    layer = type(SpeckConfiguration().cnn_layers[0])
    kept = dict(layer.FIELDS)
    try:
        for name in ("input_congestion_balancer_enable", "output_decimator_enable", "leak_internal_slow_clk_enable"):
            del layer.FIELDS[name]
        configuration = SamnaVendor(load_target("speck2f").chip).configuration(deployment.program)
        assert not hasattr(configuration.cnn_layers[0], "output_decimator_enable")
    finally:
        layer.FIELDS.clear()
        layer.FIELDS.update(kept)


def test_a_chip_whose_root_class_has_another_name(samna, deployment):
    samna.dynapcnn = SimpleNamespace(**vars(samna.speck2f))
    samna.dynapcnn.configuration = SimpleNamespace(DynapcnnConfiguration=SpeckConfiguration)
    vendor = SamnaVendor(load_target("dynapcnndevkit").chip)
    assert differences(deployment.program, vendor.configuration(deployment.program)) == []


def test_a_chip_without_a_module_is_refused(samna, deployment):
    made_up = load_target("speck2f").chip.model_copy(update={"name": "mine", "samna_module": None})
    with pytest.raises(DeviceError, match="no module for the chip mine; it is not a chip of the vendor's"):
        SamnaVendor(made_up).files(deployment.program)
    with pytest.raises(DeviceError, match=r"no module for the chip speck2e \(samna.speck2e\)"):
        SamnaVendor(load_target("speck2e").chip).files(deployment.program)


def test_nothing_of_a_program_is_left_out():
    """A new field of the program must reach the chip, or this list must say why it does not."""
    one = program(core(np.zeros((1, 1, 1, 1)), (1, 1, 1)))
    assert set(one.to_dict()) == {"target", "entry_core", "layers", "cnn_layers"}
    assert set(cnn_layer(one.cores[0])) == {"dimensions", "destinations", *TENSORS, *SCALARS}
    assert set(cnn_layer(one.cores[0])["destinations"][0]) == {
        "enable",
        "layer",
        "pooling",
        "feature_shift",
    }

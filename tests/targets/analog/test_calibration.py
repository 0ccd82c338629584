"""Calibration brings circuits back to what the program asks for, as far as words and measurements allow."""

import json
from dataclasses import replace

import numpy as np
import pytest

from neurodeploy.errors import ConfigError, ProgramError
from neurodeploy.targets.analog.calibration import calibrate, read_calibration, targets_of
from neurodeploy.targets.analog.dac import value_of
from neurodeploy.targets.analog.virtual_chip import VirtualChip
from tests.targets.analog.chips import chip_of, program_on

#: Shares of the uncalibrated spread that calix accepts on hardware (test_neuron_distribution.py), and for the gains,
#: which it does not test, the share of the description.
ACCEPTED = {
    **{"leak": 0.30, "reset": 0.20, "threshold": 0.35, "tau_mem": 0.45, "tau_syn_exc": 0.20, "tau_syn_inh": 0.20},
    **{"gain_exc": 0.45, "gain_inh": 0.45},
}


def trimmed_std(values):
    """Standard deviation without the outer 5 % on either side."""
    values = np.sort(values.reshape(-1))
    cut = len(values) // 20
    return values[cut:-cut].std()


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_search_leaves_no_more_than_hardware_tests_accept(name):
    before, after = [], []
    for serial in range(8):
        chip, program = VirtualChip(chip_of("bss2"), serial), program_on("bss2")
        layer = program.layers[0]
        target = targets_of(layer, program.acceleration)[name][:, None]
        words = calibrate(chip, program, "search", seed=serial).words[layer.name][name]
        dac = getattr(chip.chip.parameters, name).dac
        before.append(chip.of_circuits(name, layer.neuron_sites, target))
        after.append(chip.of_circuits(name, layer.neuron_sites, value_of(dac, words)))
    bias = np.mean(after) / target[0, 0] - 1
    assert trimmed_std(np.array(after)) <= ACCEPTED[name] * trimmed_std(np.array(before))
    assert abs(bias) < 0.02


@pytest.mark.parametrize("mode", ["residual", "search"])
def test_a_calibrated_chip_is_closer_to_the_program(mode):
    chip, program = VirtualChip(chip_of("bss2"), 5), program_on("bss2", merged=2)
    calibration = calibrate(chip, program, mode)
    raw, trimmed = (chip.describe(program, one)["layers"][0]["spread"] for one in (None, calibration))
    for name in ("tau_mem", "tau_syn_exc", "tau_syn_inh", "threshold_shift", "reset_shift", "gain_exc", "gain_inh"):
        assert trimmed[name]["sd"] < 0.6 * raw[name]["sd"], name
    assert trimmed["weight"] == raw["weight"]


def test_the_residual_is_that_of_the_description():
    chip, program = VirtualChip(chip_of("bss2"), 5), program_on("bss2")
    calibration = calibrate(chip, program, "residual")
    assert calibration.words == {}
    raw, trimmed = (chip.deviations(program, one)[0].tau_mem for one in (None, calibration))
    s = np.sqrt(np.log(1.04))
    assert np.allclose(np.log(trimmed) + (0.45 * s) ** 2 / 2, 0.45 * (np.log(raw) + s**2 / 2), rtol=0, atol=1e-14)


def test_measurements_depend_on_the_seed_alone():
    chip, program = VirtualChip(chip_of("bss2"), 5), program_on("bss2")
    one, again, other = (calibrate(chip, program, "search", seed).to_dict() for seed in (1, 1, 2))
    assert one == again
    assert one["words"] != other["words"]


def test_a_calibration_survives_its_file(tmp_path):
    chip, program = VirtualChip(chip_of("bss2"), 5), program_on("bss2", merged=2)
    for mode in ("residual", "search"):
        calibration = calibrate(chip, program, mode)
        calibration.save(tmp_path / "calibration.json")
        again = read_calibration(tmp_path / "calibration.json")
        assert again.to_dict() == calibration.to_dict()
        assert chip.realise(program, again) == chip.realise(program, calibration)


def test_new_weights_keep_the_calibration():
    chip, program = VirtualChip(chip_of("bss2"), 5), program_on("bss2")
    calibration = calibrate(chip, program, "search")
    layer = program.layers[0]
    changed = replace(layer, nominal=replace(layer.nominal, weight=2 * layer.nominal.weight))
    chip.realise(replace(program, layers=(changed, *program.layers[1:])), calibration)


def test_a_calibration_of_something_else_is_refused():
    chip, program = VirtualChip(chip_of("bss2"), 5), program_on("bss2")
    calibration = calibrate(chip, program, "search")
    layer = program.layers[0]
    slower = replace(layer, nominal=replace(layer.nominal, tau_mem=1.5 * layer.nominal.tau_mem))
    other = chip.chip.with_mismatch(0.1)
    for virtual_chip, asked, what in (
        (VirtualChip(chip.chip, 6), program, "serial number"),
        (VirtualChip(other, 5), program, "chip description"),
        (VirtualChip(chip.chip, 5, scale=0.5), program, "scale of the spreads"),
        (chip, replace(program, layers=(slower, *program.layers[1:])), "set of circuits and targets"),
        (chip, program_on("bss2", merged=2), "set of circuits and targets"),
    ):
        with pytest.raises(ProgramError, match=f"belongs to another {what}"):
            virtual_chip.realise(asked, calibration)
    with pytest.raises(ProgramError, match="words for t_ref of layer0"):
        chip.realise(program, replace(calibration, words={"layer0": {"t_ref": np.zeros((64, 1, 2), np.int64)}}))
    with pytest.raises(ProgramError, match="words for tau_mem of layer0"):
        chip.realise(program, replace(calibration, words={"layer0": {"tau_mem": np.zeros((64, 2, 2), np.int64)}}))


@pytest.mark.parametrize("mode", ["residual", "search"])
def test_a_chip_without_trims_stays_as_it_is_with_a_warning(mode):
    chip, program = VirtualChip(chip_of("dynapse2"), 5), program_on("dynapse2")
    with pytest.warns(UserWarning, match="dynapse2 has no parameter that can be set circuit by circuit"):
        calibration = calibrate(chip, program, mode)
    assert calibration.words == {}
    assert chip.realise(program, calibration) == chip.realise(program)


def test_arguments_are_checked():
    chip, program = VirtualChip(chip_of("bss2"), 5), program_on("bss2")
    with pytest.raises(ConfigError, match="mode is 'best'"):
        calibrate(chip, program, "best")
    with pytest.raises(ConfigError, match="seed is -1"):
        calibrate(chip, program, "search", -1)
    with pytest.raises(ProgramError, match="the program is for 'dynapse2'"):
        calibrate(chip, program_on("dynapse2"))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(schema=2),
        lambda data: data.update(mode="best"),
        lambda data: data.update(serial="5"),
        lambda data: data.update(words=3),
        lambda data: data.update(words={"layer0": 3}),
        lambda data: data.update(words={"layer0": {"tau_mem": [1, 2]}}),
        lambda data: data.update(words={"layer0": {"tau_mem": [[[1.5, 2]]]}}),
        lambda data: data.update(words={"layer0": {"tau_mem": [[[1], [1, 2]]]}}),
        lambda data: data.pop("seed"),
        lambda data: data.update(extra=1),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change):
    calibration = calibrate(VirtualChip(chip_of("bss2"), 5), program_on("bss2"), "residual")
    calibration.save(tmp_path / "calibration.json")
    data = json.loads((tmp_path / "calibration.json").read_text())
    change(data)
    (tmp_path / "calibration.json").write_text(json.dumps(data))
    with pytest.raises(ProgramError, match="is not a calibration of version 1"):
        read_calibration(tmp_path / "calibration.json")

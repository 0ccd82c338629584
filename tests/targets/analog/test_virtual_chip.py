"""Virtual chips: deviations belong to physical sites, have the sizes of the description, and never change."""

import hashlib
from dataclasses import fields, replace
from statistics import NormalDist

import numpy as np
import pytest

from neurodeploy.errors import ConfigError, ProgramError
from neurodeploy.targets.analog.chip import Fact, LogNormal
from neurodeploy.targets.analog.deviations import chip_key, deviation
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.virtual_chip import LOWEST_THRESHOLD, VirtualChip
from tests.targets.analog.chips import chip_of, program_on


def same(first, second):
    return all(one == two for one, two in zip(first, second, strict=True))


def with_spread(chip, name, **changes):
    parameter = getattr(chip.parameters, name)
    parameters = chip.parameters.model_copy(update={name: parameter.model_copy(update=changes)})
    return chip.model_copy(update={"parameters": parameters})


def test_the_ideal_chip_computes_what_the_program_says():
    program = program_on("ideal")
    realised = VirtualChip(chip_of("ideal"), 3).realise(program)
    assert same(realised, [layer.nominal for layer in program.layers])


@pytest.mark.parametrize("name", ["bss2", "dynapse2"])
def test_a_serial_number_is_a_chip(name):
    chip, program = chip_of(name), program_on(name)
    assert same(VirtualChip(chip, 7).realise(program), VirtualChip(chip, 7).realise(program))
    one, other = VirtualChip(chip, 7).realise(program)[0], VirtualChip(chip, 8).realise(program)[0]
    for field in fields(LayerParameters):
        if (name, field.name) not in (("bss2", "t_ref"), ("dynapse2", "v_reset")):  # a counter; the smallest current
            assert (getattr(one, field.name) != getattr(other, field.name)).mean() > 0.9, field.name


def test_the_bytes_are_those_of_every_machine():
    """The digest was written down on one machine; a difference elsewhere is a difference in the numbers' bits."""
    found = hashlib.sha256()
    for name in ("bss2", "dynapse2"):
        for layer in VirtualChip(chip_of(name), 2026).realise(program_on(name)):
            for field in fields(LayerParameters):
                found.update(getattr(layer, field.name).astype("<f8").tobytes())
    assert found.hexdigest() == "34ded604f00f3e533377fcf62f6d3f7a83e4b660f529f0df9ca4100e3b3800b1"


def test_deviations_belong_to_sites():
    chip, program = chip_of("bss2"), program_on("bss2")
    layer = program.layers[0]
    order = np.random.default_rng(0).permutation(layer.neurons)
    moved = replace(
        layer, neuron_sites=layer.neuron_sites[order].copy(), synapse_sites=layer.synapse_sites[:, order].copy()
    )
    there = VirtualChip(chip, 1).deviations(replace(program, layers=(moved, *program.layers[1:])))[0]
    here = VirtualChip(chip, 1).deviations(program)[0]
    for name, row in vars(here).items():
        assert np.array_equal(getattr(there, name), row[..., order]), name


def test_halving_the_spread_keeps_the_circuits():
    spread = chip_of("bss2").parameters.tau_mem.spread
    sites = np.arange(1000)
    whole, half = (np.log(deviation(spread, 5, "tau_mem", sites, scale)) for scale in (1.0, 0.5))
    s = np.sqrt(np.log(1.04))
    assert np.allclose(half + s**2 / 8, (whole + s**2 / 2) / 2, rtol=0, atol=1e-14)
    assert np.array_equal(deviation(spread, 5, "tau_mem", sites, 0.0), np.ones(1000))


def test_factors_have_mean_one_and_the_given_spread():
    count = 200_000
    spread = chip_of("bss2").parameters.tau_mem.spread
    factors = deviation(spread, 11, "tau_mem", np.arange(count))
    # Five standard errors; a log-normal factor with cv 0.2 has an excess kurtosis of 0.68.
    assert abs(factors.mean() - 1) < 5 * 0.2 / np.sqrt(count)
    assert abs(factors.var() - 0.04) < 5 * 0.04 * np.sqrt(2.68 / count)
    logarithms = np.log(factors)
    skewness = ((logarithms - logarithms.mean()) ** 3).mean() / logarithms.std() ** 3
    assert abs(skewness) < 5 * np.sqrt(6 / count)
    shifts = deviation(chip_of("bss2").parameters.leak.spread, 11, "leak", np.arange(count))
    assert abs(shifts.mean()) < 5 * 15 / np.sqrt(count)
    assert abs(shifts.std() - 15) < 5 * 15 / np.sqrt(2 * count)


def distance_to_normal(numbers):
    """The statistic of Kolmogorov and Smirnov: the largest distance between two distribution functions."""
    expected = np.array([NormalDist().cdf(number) for number in np.sort(numbers)])
    steps = np.arange(len(numbers) + 1) / len(numbers)
    return max(np.abs(expected - steps[:-1]).max(), np.abs(expected - steps[1:]).max())


@pytest.mark.parametrize("along", ["sites", "serial numbers", "scattered sites"])
def test_logarithms_are_normal_along_sites_and_serial_numbers(along):
    chip, count = chip_of("bss2"), 4000
    spread = chip.parameters.tau_mem.spread
    if along == "serial numbers":
        keys = [chip_key(chip, serial) for serial in range(count)]
        factors = np.array([deviation(spread, key, "tau_mem", np.array([17]))[0] for key in keys])
    else:
        sites = np.arange(count) * (1 if along == "sites" else 2**50 + 12345)
        factors = deviation(spread, 1, "tau_mem", sites)
    s = np.sqrt(np.log(1.04))
    # 1.95 / sqrt(n) is exceeded by one of 1,000 samples; these are the same ones at every run.
    assert distance_to_normal((np.log(factors) + s**2 / 2) / s) < 1.95 / np.sqrt(count)


def test_the_tail_is_a_share_of_the_circuits():
    count = 200_000
    spread = chip_of("dynapse2").parameters.tau_mem.spread
    factors = deviation(spread, 12, "tau_mem", np.arange(count))
    bare = deviation(spread.model_copy(update={"tail": None}), 12, "tau_mem", np.arange(count))
    outliers = factors != bare
    assert abs(outliers.mean() - 0.05) < 5 * np.sqrt(0.05 * 0.95 / count)
    assert abs(factors[outliers].std() - 0.3) < 0.02
    assert abs(factors[~outliers].std() - 0.1) < 0.002
    assert abs(factors.mean() - 1) < 5 * 0.12 / np.sqrt(count)


def test_quantities_and_chips_are_independent():
    count = 50_000
    spread = chip_of("bss2").parameters.tau_mem.spread
    rows = [deviation(spread, key, name, np.arange(count)) for key in (1, 2) for name in ("tau_mem", "weight")]
    correlations = np.corrcoef(rows) - np.eye(4)
    assert np.abs(correlations).max() < 5 / np.sqrt(count)
    keys = {chip_key(chip_of(name), serial) for name in ("bss2", "dynapse2") for serial in range(100)}
    assert len(keys) == 200


def test_merged_circuits_share_a_membrane():
    chip = chip_of("bss2")
    merged = program_on("bss2", merged=2)
    alone = VirtualChip(chip, 4).deviations(program_on("bss2", circuits=True))[0]
    found = VirtualChip(chip, 4).deviations(merged)[0]
    pairs = {name: row.reshape(-1, 2) for name, row in vars(alone).items() if name != "weight"}
    conductance = 1 / pairs["tau_mem"]
    assert np.allclose(1 / found.tau_mem, conductance.mean(1), rtol=1e-14)
    for name in ("tau_syn_exc", "tau_syn_inh", "gain_exc", "gain_inh"):
        assert np.allclose(getattr(found, name), pairs[name].mean(1), rtol=1e-14), name
    # The comparator of the first circuit decides; the rest is where the currents of both leaks cancel.
    unit = merged.layers[0].potential_unit
    key = chip_key(chip, 4)
    sites = merged.layers[0].neuron_sites
    leak = deviation(chip.parameters.leak.spread, key, "leak", sites)
    rest = (leak * conductance).sum(1) / conductance.sum(1)
    for name, shift in (("threshold", found.threshold_shift), ("reset", found.reset_shift)):
        own = deviation(getattr(chip.parameters, name).spread, key, name, sites)[:, 0]
        assert np.allclose(shift, (own - rest) / unit, rtol=0, atol=1e-12), name


def test_a_receptor_has_its_own_gain_and_time_constant():
    program = program_on("bss2")
    nominal = program.layers[0].nominal
    deviations = VirtualChip(chip_of("bss2"), 9).deviations(program)[0]
    realised = deviations.apply(nominal)
    inhibits = nominal.weight < 0
    assert 0 < inhibits.mean() < 1
    gain = np.where(inhibits, deviations.gain_inh, deviations.gain_exc)
    assert np.array_equal(realised.weight, nominal.weight * deviations.weight * gain)
    assert not np.array_equal(realised.tau_syn_exc, realised.tau_syn_inh)
    assert np.array_equal(nominal.tau_syn_exc, nominal.tau_syn_inh)


def test_a_threshold_below_the_rest_is_raised_and_counted():
    chip, program = chip_of("bss2"), program_on("bss2")
    rough = VirtualChip(chip, 1, scale=6.0)
    thresholds = rough.realise(program)[0].threshold
    lowest = thresholds == LOWEST_THRESHOLD * program.layers[0].nominal.threshold
    assert lowest.any()
    assert rough.describe(program)["layers"][0]["firing_without_input"] == lowest.sum()
    assert VirtualChip(chip, 1, scale=0.1).describe(program)["layers"][0]["firing_without_input"] == 0


def test_describe_says_what_was_drawn():
    program = program_on("bss2")
    chip = VirtualChip(chip_of("bss2"), 1)
    report = chip.describe(program)
    assert (report["chip"], report["serial"], report["calibration"]) == ("bss2", 1, None)
    row = chip.realise(program)[0].tau_mem / program.layers[0].nominal.tau_mem
    spread = report["layers"][0]["spread"]["tau_mem"]
    assert spread["sd"] == pytest.approx(row.std(), rel=1e-12)
    assert spread["largest"] == pytest.approx(row.max(), rel=1e-12)
    assert "parameters.tau_mem.spread.cv" in report["assumptions"]


def test_the_temperature_is_a_factor_for_all_circuits():
    chip = chip_of("bss2")
    with pytest.raises(ConfigError, match="no temperature coefficient"):
        VirtualChip(chip, 1, temperature_c=40.0)
    made_up = {
        name: Fact[float](value=value, source="made up")
        for name, value in (("tau_tempco", 0.01), ("gain_tempco", -0.02))
    }
    warm = chip.model_copy(update={"environment": chip.environment.model_copy(update=made_up)})
    program = program_on("bss2")
    cold, hot = (VirtualChip(warm, 1, temperature_c=at).realise(program)[0] for at in (25.0, 35.0))
    assert np.allclose(hot.tau_mem, 1.1 * cold.tau_mem, rtol=1e-14)
    assert np.allclose(hot.tau_syn_inh, 1.1 * cold.tau_syn_inh, rtol=1e-14)
    assert np.allclose(hot.weight, 0.8 * cold.weight, rtol=1e-14)
    assert np.array_equal(hot.t_ref, cold.t_ref)
    with pytest.raises(ConfigError, match="would not be positive"):
        VirtualChip(warm, 1, temperature_c=80.0)


def test_uniform_mismatch_replaces_all_spreads():
    chip = chip_of("bss2").with_mismatch(0.2)
    program = program_on("bss2")
    report = VirtualChip(chip, 1).describe(program)["layers"][0]["spread"]
    assert report["threshold_shift"]["sd"] == report["reset_shift"]["sd"] == report["gain_exc"]["sd"] == 0
    assert report["weight"]["sd"] == pytest.approx(0.2, rel=0.1)
    assert report["threshold"]["sd"] > 0
    ideal = chip_of("ideal").with_mismatch(0.2)
    assert isinstance(ideal.synapses.weight, LogNormal)
    assert VirtualChip(ideal, 1).describe(program_on("ideal"))["layers"][0]["spread"]["tau_mem"]["sd"] > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"serial": -1}, "serial is -1"), ({"serial": 2**63}, "serial is"), ({"serial": 0, "scale": -1.0}, "scale is -1")],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ConfigError, match=message):
        VirtualChip(chip_of("bss2"), **arguments)


def test_a_program_for_another_chip_is_refused():
    with pytest.raises(ProgramError, match="the program is for 'dynapse2', the virtual chip is 'bss2'"):
        VirtualChip(chip_of("bss2"), 1).realise(program_on("dynapse2"))


def test_a_parameter_without_spread_is_that_of_the_program():
    chip = with_spread(chip_of("bss2"), "tau_mem", spread=None, trim=None)
    program = program_on("bss2")
    assert np.array_equal(VirtualChip(chip, 1).realise(program)[0].tau_mem, program.layers[0].nominal.tau_mem)

"""Parameter converters: the nearest word, what it gives, and errors that are said aloud."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import QuantizeError
from neurodeploy.targets.analog.chip import Fact
from neurodeploy.targets.analog.dac import finest_gear, setting, value_of
from tests.targets.analog.chips import chip_of


def every_word(dac):
    if dac.kind == "linear":
        first, second = range(1 if dac.law == "inverse" else 0, dac.top.value + 1), range(len(dac.gears.value))
    else:
        first, second = range(dac.coarse_codes.value), range(dac.fine_top.value + 1)
    return np.array([(one, two) for one in first for two in second], np.int64)


@pytest.mark.parametrize(
    ("chip", "parameter", "low", "high"),
    [
        ("bss2", "tau_mem", 0.5e-6, 60e-6),
        ("bss2", "tau_syn_inh", 0.3e-6, 30e-6),
        ("bss2", "leak", 50.0, 160.0),
        ("dynapse2", "tau_mem", 1e-6, 0.2),
        ("dynapse2", "weight_current", 1e-12, 3e-6),
    ],
)
@settings(deadline=None)
@given(st.floats(0, 1))
def test_no_word_is_nearer(chip, parameter, low, high, at):
    value = low * (high / low) ** at
    dac = getattr(chip_of(chip).parameters, parameter).dac
    found = setting(chip_of(chip), parameter, value, allow_error=True)
    have = value_of(dac, every_word(dac))
    assert abs(found.value - value) == np.abs(have - value).min()
    assert value_of(dac, found.words) == found.value
    assert found.error == pytest.approx(abs(found.value - value) / value, rel=1e-12)


def test_the_laws_are_those_of_the_description():
    bss2, dynapse2 = chip_of("bss2").parameters, chip_of("dynapse2").parameters
    assert value_of(bss2.tau_mem.dac, np.array([1022, 1])) == 3e-6
    assert value_of(bss2.tau_mem.dac, np.array([511, 1])) == pytest.approx(6e-6, rel=1e-15)
    assert value_of(bss2.tau_mem.dac, np.array([511, 0])) == pytest.approx(6e-6 / 8, rel=1e-15)
    assert value_of(bss2.tau_mem.dac, np.array([0, 1])) == np.inf
    assert value_of(bss2.leak.dac, np.array([511, 0])) == pytest.approx(127.5, rel=1e-15)
    currents = value_of(dynapse2.weight_current.dac, np.array([[0, 0], [0, 255], [1, 255], [5, 255]]))
    assert np.allclose(currents, [1e-12, 73e-12, 577e-12, 1e-12 + 72e-12 * 8**5], rtol=1e-15)
    tau = value_of(dynapse2.tau_mem.dac, np.array([1, 255]))
    assert tau == pytest.approx(3e-12 * (0.025 / 0.7) / 577e-12, rel=1e-12)


@pytest.mark.parametrize("requested", [0.2, 0.5, 1.0, 4.0])
def test_a_slow_time_constant_is_refused_not_replaced(requested):
    """The smallest current of DYNAP-SE2 bounds its time constants: 3 pF * 35.7 mV / 1 pA = 107 ms."""
    with pytest.raises(
        QuantizeError, match=r"tau_mem: .* s was asked for and 0\.107143 is the nearest.*limit is 5 %"
    ) as caught:
        setting(chip_of("dynapse2"), "tau_mem", requested)
    assert caught.value.code == "analog-error"
    found = setting(chip_of("dynapse2"), "tau_mem", requested, allow_error=True)
    assert found.value == pytest.approx(0.107143, rel=1e-5)
    assert found.largest_error == pytest.approx(1 - 0.107143 / requested, rel=1e-4)


def test_common_time_constants_are_met():
    taus = np.array([1e-3, 2e-3, 5e-3, 1e-2, 2e-2])
    assert setting(chip_of("dynapse2"), "tau_mem", taus).largest_error < 0.05
    assert setting(chip_of("bss2"), "tau_mem", taus / 1000).largest_error < 0.002
    assert setting(chip_of("bss2"), "tau_syn_exc", taus[1:] / 1000).largest_error < 0.05


def test_a_value_outside_the_range_is_refused_even_if_errors_are_allowed():
    for value in (0.4e-6, 61e-6, np.nan, np.inf):
        with pytest.raises(QuantizeError, match=r"tau_mem is .* bss2 has 5e-07 to 6e-05") as caught:
            setting(chip_of("bss2"), "tau_mem", value, allow_error=True)
        assert caught.value.code == "analog-range"


def test_a_counter_has_one_clock_for_all():
    found = setting(chip_of("bss2"), "t_ref", [30e-6, 1e-6])
    assert found.words[:, 1].tolist() == [4, 4]  # 2^5 periods of 250 MHz are 128 ns, and 255 of them 32.6 us
    assert np.allclose(found.value, [234 * 128e-9, 8 * 128e-9], rtol=1e-14)
    alone = setting(chip_of("bss2"), "t_ref", 1e-6)
    assert alone.words.tolist() == [125, 0]
    assert alone.error == pytest.approx(0, abs=1e-12)
    with pytest.raises(QuantizeError, match=r"t_ref: 4e-08 s was asked for and 1\.28e-07"):
        setting(chip_of("bss2"), "t_ref", [30e-6, 0.04e-6])


def test_a_table_of_ones_own_need_not_rise():
    table = Fact[tuple[tuple[float, ...], ...]](value=((1e-12, 5e-12, 4e-12), (4e-12, 9e-12, 2e-11)), source="made up")
    chip = chip_of("dynapse2")
    parameter = chip.parameters.weight_current
    sizes = {"coarse_codes": 2, "fine_top": 2}
    changes = {name: Fact[int](value=value, source="made up") for name, value in sizes.items()}
    dac = parameter.dac.model_copy(update={**changes, "currents_a": table})
    parameters = chip.parameters.model_copy(update={"weight_current": parameter.model_copy(update={"dac": dac})})
    own = chip.model_copy(update={"parameters": parameters})
    found = setting(own, "weight_current", [4e-12, 5.1e-12, 3e-11], allow_error=True)
    assert found.words.tolist() == [[0, 2], [0, 1], [1, 2]]  # of two equal ones the first
    assert found.value.tolist() == [4e-12, 5e-12, 2e-11]


def test_an_exact_parameter_keeps_its_value():
    found = setting(chip_of("ideal"), "tau_mem", [0.0123, 4.0])
    assert found.value.tolist() == [0.0123, 4.0]
    assert found.largest_error == 0
    assert setting(chip_of("ideal"), "tau_mem", []).largest_error == 0


@pytest.mark.parametrize(
    ("chip", "parameter", "words"),
    [
        ("bss2", "tau_mem", [1023, 0]),
        ("bss2", "tau_mem", [3, 3]),
        ("bss2", "t_ref", [0, 0]),
        ("bss2", "t_ref", [256, 0]),
        ("dynapse2", "tau_mem", [6, 0]),
        ("dynapse2", "tau_mem", [0, 256]),
        ("dynapse2", "tau_mem", [-1, 0]),
    ],
)
def test_words_that_the_converter_does_not_have_are_refused(chip, parameter, words):
    with pytest.raises(QuantizeError, match="words must be"):
        value_of(getattr(chip_of(chip).parameters, parameter).dac, np.array(words))


def test_an_unknown_parameter_is_refused():
    with pytest.raises(QuantizeError, match=r"dynapse2 has no parameter 'leak'.*choose one of: tau_mem"):
        setting(chip_of("dynapse2"), "leak", 1.0)


def test_the_finest_gear_leaves_room():
    dac = chip_of("bss2").parameters.tau_mem.dac  # 0.375, 3 and 24 us at the highest code
    taus = np.array([0.5e-6, 0.7e-6, 4e-6, 5.1e-6, 39e-6, 41e-6])
    gears = finest_gear(dac, taus)
    assert gears.tolist() == [0, 0, 0, 1, 1, 2]
    gain = chip_of("bss2").parameters.gain_exc.dac
    assert finest_gear(gain, np.array([1.0, 1.9])).tolist() == [0, 0]

"""The descriptions of analog chips: three profiles, a file of one's own, and every wrong field by name."""

import pickle

import pytest
import yaml

from neurodeploy.errors import ConfigError
from neurodeploy.target import TARGETS, load_target
from tests.targets.analog.chips import chip_of

CODES = {"kind": "linear", "law": "inverse"}


def fact(value):
    return {"value": value, "source": "made up"}


def write(path, **changes):
    path.write_text(yaml.safe_dump({"family": "analog", "name": "mine", "title": "Mine", **changes}))
    return path


@pytest.mark.parametrize("name", ["ideal", "bss2", "dynapse2"])
def test_every_number_has_a_source(name):
    chip = chip_of(name)
    assert chip.name == name
    assert all(len(source) >= 3 for source in chip.sources().values())
    assert set(chip.assumptions()) < set(chip.sources())


def test_what_no_figure_was_found_for_is_marked():
    assert chip_of("ideal").assumptions() == {}
    bss2 = chip_of("bss2").assumptions()
    for name in ("tau_mem", "tau_syn_exc", "tau_syn_inh"):
        assert f"parameters.{name}.spread.cv" in bss2
    assert "parameters.leak.spread.sigma" in bss2
    assert "parameters.leak.trim.residual" not in bss2
    assert "parameters.gain_exc.spread.cv" in bss2
    assert "parameters.tau_mem.spread.tail.share" in chip_of("dynapse2").assumptions()


def test_the_profiles_have_the_published_limits():
    bss2, dynapse2 = chip_of("bss2"), chip_of("dynapse2")
    assert (bss2.fabric.neurons, bss2.fabric.fan_in.value, bss2.weights.magnitude_bits.value) == (512, 128, 6)
    assert (dynapse2.fabric.neurons, dynapse2.fabric.fan_in.value, dynapse2.fabric.tag_bits.value) == (1024, 64, 11)
    assert bss2.parameters.tau_mem.scope == "neuron"
    assert all(parameter.scope == "core" for _, parameter in dynapse2.parameters.items())
    assert [chip_of(name).calibratable for name in ("ideal", "bss2", "dynapse2")] == [False, True, False]
    assert chip_of("ideal").fabric.neurons is None


def test_a_chip_of_ones_own_is_laid_over_the_chip_without_limits(tmp_path):
    spread = {"distribution": "lognormal", "cv": fact(0.1)}
    target = load_target(write(tmp_path / "mine.yaml", parameters={"tau_mem": {"spread": spread}}))
    assert target.chip.parameters.tau_mem.spread.cv.value == 0.1
    assert target.chip.parameters.tau_syn_exc == chip_of("ideal").parameters.tau_syn_exc


def test_the_example_of_the_readme_is_a_chip(tmp_path):
    text = (TARGETS / "analog" / "README.md").read_text()
    (tmp_path / "mychip.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    chip = load_target(tmp_path / "mychip.yaml").chip
    assert chip.synapses.weight.cv.value == 0.07
    assert chip.sources()["parameters.tau_mem.spread.cv"] == "measured on 3 chips"


def test_the_digest_is_that_of_the_numbers(tmp_path):
    def chip(**changes):
        return load_target(write(tmp_path / "mine.yaml", **changes)).chip

    same = chip(title="Another title", environment={"temperature_c": {"value": 25.0, "source": "another source"}})
    assert same.digest == chip().digest
    noisier = chip(trial_noise={"threshold_cv": fact(0.1)})
    assert noisier.digest != chip().digest
    assert noisier.silicon == chip().silicon  # the same circuits
    assert chip(name="other").silicon != chip().silicon
    assert chip(fabric={"cores": fact(2)}).silicon != chip().silicon


@pytest.mark.parametrize("name", ["ideal", "bss2", "dynapse2"])
def test_a_description_travels_to_other_processes(name):
    again = pickle.loads(pickle.dumps(chip_of(name)))
    assert again == chip_of(name)
    assert (again.digest, again.silicon) == (chip_of(name).digest, chip_of(name).silicon)


NOT_A_TIME = {"distribution": "normal", "sigma": fact(0.1)}
LOGNORMAL = {"distribution": "lognormal", "cv": fact(0.1)}
TRIM = {"residual": fact(0.5), "noise": fact(0.1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 3}, "speed: Extra"),
        ({"time": {"acceleration": {"value": 0.0, "source": "x"}}}, "time.acceleration.value: "),
        ({"time": {"acceleration": {"value": "fast", "source": "x"}}}, "time.acceleration.value: "),
        ({"time": {"acceleration": {"value": 2.0}}}, "time.acceleration.source: "),
        ({"time": {"acceleration": {"value": 2.0, "source": ""}}}, "time.acceleration.source: "),
        ({"neuron": {"reset": fact("subtract")}}, "neuron.reset.value: "),
        ({"weights": {"magnitude_bits": fact(6)}}, "weights: .*must be null for continuous"),
        ({"weights": {"levels": fact("uniform")}}, "weights: .*must be null for continuous"),
        ({"fabric": {"chips": fact(2)}}, "fabric: .*2 different places"),
        (
            {"parameters": {"tau_mem": {"spread": NOT_A_TIME}}},
            "parameters: .*tau_mem: the spread must be log-normal",
        ),
        ({"parameters": {"tau_mem": {"trim": TRIM}}}, "parameters.tau_mem: .*trim needs a spread"),
        ({"parameters": {"tau_mem": {"spread": LOGNORMAL, "trim": TRIM}}}, "parameters.tau_mem: .*linear converter"),
        ({"parameters": {"tau_mem": {"range": fact([2.0, 1.0])}}}, "parameters.tau_mem: .*range must rise"),
        ({"parameters": {"tau_mem": None}}, "parameters.tau_mem: "),
        ({"parameters": {"reset": {"spread": LOGNORMAL}}}, "parameters: .*reset: the spread must be normal"),
        ({"parameters": {"tau_mem": {"dac": {"kind": "magic"}}}}, "parameters.tau_mem.dac: "),
        ({"parameters": {"tau_mem": {"dac": CODES}}}, "parameters.tau_mem.dac.linear.top: "),
        ({"synapses": {"weight": NOT_A_TIME}}, "synapses.weight.distribution: "),
        ({"synapses": {"weight": {**LOGNORMAL, "cv": fact(-0.1)}}}, "synapses.weight.cv.value: "),
        ({"operating_point": {"leak": fact(1.0)}}, "operating_point: .*above the leak"),
        (
            {"synapses": {"weight": {**LOGNORMAL, "tail": {"share": fact(2.0), "factor": fact(3.0)}}}},
            "tail.share.value",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_target(write(tmp_path / "mine.yaml", **changes))
    assert "mine.yaml" in str(caught.value)
    assert caught.value.code == "chip-yaml"


def test_a_bias_table_must_have_all_currents(tmp_path):
    dac = {
        "kind": "coarse_fine",
        "law": "proportional",
        "coarse_codes": fact(2),
        "fine_top": fact(1),
        "first_range_a": fact(1.0e-9),
        "ratio": fact(8.0),
        "floor_a": fact(1.0e-12),
        "factor": fact(1.0),
    }
    for table, message in (
        ([[1.0e-12, 2.0e-9]], "2 rows"),
        ([[1.0e-12], [2.0e-9]], "2 currents for each"),
        ([[1.0e-12, 0.0], [1.0e-9, 2.0e-9]], "currents_a.value"),
    ):
        changes = {"pulse": {"unit": "A", "scope": "core", "dac": {**dac, "currents_a": fact(table)}}}
        with pytest.raises(ConfigError, match=message):
            load_target(write(tmp_path / "mine.yaml", parameters=changes))
    changes = {"pulse": {"unit": "s", "scope": "core", "dac": {**dac, "law": "inverse"}}}
    with pytest.raises(ConfigError, match="capacity_f and voltage_v belong to the law 'inverse'"):
        load_target(write(tmp_path / "mine.yaml", parameters=changes))

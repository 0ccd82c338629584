"""Finding chips: one folder with one file is a chip, and a bad file says which field is wrong."""

import subprocess
import sys

import pytest
import yaml

from neurodeploy.errors import ConfigError
from neurodeploy.target import TARGETS, load_target, target_names

SPECK = yaml.safe_load((TARGETS / "speck2f" / "chip.yaml").read_text())


def chip_folder(folder, name="mychip", **changes):
    (folder / name).mkdir()
    text = yaml.safe_dump({**SPECK, "name": name, **changes})
    (folder / name / "chip.yaml").write_text(text)
    return folder


def test_the_chips_are_listed_and_the_family_is_not():
    assert target_names() == [
        "bss2",
        "dynapcnndevkit",
        "dynapse2",
        "ideal",
        "speck2cmini",
        "speck2dmini",
        "speck2e",
        "speck2f",
    ]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"no target 'speck3'.*Remedy: choose one of: .*speck2e, speck2f; or give"
    ) as caught:
        load_target("speck3")
    assert caught.value.code == "unknown-target"


@pytest.mark.parametrize("name", ["dynapcnn", "", "../targets/speck2f", "speck2f/"])
def test_only_chips_can_be_loaded(name):
    with pytest.raises(ConfigError, match="there is no target"):
        load_target(name)


def test_a_chip_is_one_file_laid_over_its_family(tmp_path):
    limits = {"kernel_size": {"value": 8, "source": "made up"}}
    folder = chip_folder(tmp_path, limits=limits)
    assert target_names(folder) == ["mychip"]
    target = load_target("mychip", folder)
    assert target.family_name == "dynapcnn"
    assert target.chip.limits.kernel_size.value == 8
    assert target.chip.limits.padding == load_target("speck2f").chip.limits.padding
    assert "1 to 8" in next(rule.text for rule in target.family.rules(target.chip) if rule.code == "kernel-size")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"limits": {"kernel_size": {"value": "big"}}}, "limits.kernel_size.value: "),
        ({"limits": {"kernel_size": {"value": -1}}}, "limits.kernel_size.value: "),
        ({"limits": {"kernel_size": {"value": 4, "source": ""}}}, "limits.kernel_size.source: "),
        ({"limits": {"kernel": {"value": 4, "source": "x"}}}, "limits.kernel: "),
        ({"limits": {"strides": {"value": [2, 4], "source": "x"}}}, "limits: .*must allow 1"),
        ({"cores": {"memories": []}}, "cores.memories: "),
        ({"cores": {"memories": [{"kernel": 1, "neuron": 1}]}}, "cores.memories.0.bias: "),
        ({"speed": 3}, "speed: "),
        ({"samna_module": ""}, "samna_module: "),
        ({"limits": {"kernel_size": {"value": 4}}}, "limits.kernel_size.source: "),
        ({"limits": {"poolings": {"value": [1, 8], "source": "x"}}}, "limits.poolings.value.1: "),
        ({"limits": {"destinations": {"value": 3, "source": "x"}}}, "limits.destinations.value: "),
    ],
)
def test_a_wrong_field_is_named(tmp_path, changes, field):
    with pytest.raises(ConfigError, match=field) as caught:
        load_target("mychip", chip_folder(tmp_path, **changes))
    assert "mychip/chip.yaml" in str(caught.value)
    assert caught.value.code == "chip-yaml"


@pytest.mark.parametrize("family", [None, "", 3, "nochip", "../x", "speck2e", "os.path"])
def test_a_wrong_family_is_refused(tmp_path, family):
    with pytest.raises(ConfigError, match="names no chip family"):
        load_target("mychip", chip_folder(tmp_path, family=family))


def test_name_and_folder_agree(tmp_path):
    (chip_folder(tmp_path) / "mychip").rename(tmp_path / "other")
    with pytest.raises(ConfigError, match="the chip is called 'mychip', its folder 'other'"):
        load_target("other", tmp_path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "", "\x00", "!!python/object/apply:os.getcwd []"])
def test_a_damaged_file_is_refused_and_hides_no_other_chip(tmp_path, text):
    folder = chip_folder(tmp_path)
    (folder / "bad").mkdir()
    (folder / "bad" / "chip.yaml").write_text(text)
    assert target_names(folder) == ["bad", "mychip"]
    assert load_target("mychip", folder).name == "mychip"
    with pytest.raises(ConfigError, match=r"bad/chip\.yaml"):
        load_target("bad", folder)


def test_every_number_has_a_source():
    chip = load_target("speck2f").chip
    for group in (chip.limits, chip.quantization, chip.routing, chip.throughput, chip.energy):
        for name in type(group).model_fields:
            assert len(getattr(group, name).source) > 5


def test_listing_chips_imports_nothing_heavy():
    code = (
        "import sys; from neurodeploy.target import target_names; target_names();"
        "print([m for m in ('torch', 'pydantic', 'nir', 'matplotlib', 'samna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compiling_imports_no_torch():
    code = (
        "import sys; import neurodeploy.program_file; from neurodeploy.target import load_target;"
        "load_target('speck2f'); import neurodeploy.targets.dynapcnn.emulator;"
        "print([m for m in ('torch', 'nir', 'matplotlib', 'samna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

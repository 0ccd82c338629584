"""A chip of the user's own is one file, named by its path wherever a chip is named."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

import neurodeploy as nd
from neurodeploy.errors import ConfigError, ConstraintError, MappingError, ProgramError
from neurodeploy.target import TARGET_FILE, load_target
from tests.targets.networks import as_float, chain
from tests.targets.test_contract import events, golden

SMALL = {"kernel": 4096, "neuron": 1024, "bias": 16}


def write(path, **changes):
    cores = {"source": "made up", "memories": [SMALL] * 3}
    path.write_text(yaml.safe_dump({"family": "dynapcnn", "name": "tiny", "title": "Tiny", "cores": cores, **changes}))
    return path


def test_the_file_is_laid_over_the_family(tmp_path):
    path = write(tmp_path / "chip.yaml")
    for target in (load_target(path), load_target(str(path))):
        assert (target.name, target.family_name, target.file) == ("tiny", "dynapcnn", path)
        assert len(target.chip.cores.memories) == 3
        assert target.chip.limits == load_target("speck2f").chip.limits


def test_a_network_is_compiled_saved_and_read_back(tmp_path):
    path = write(tmp_path / "chip.yaml")
    deployment = nd.compile(golden(), target=path)
    spikes = deployment.emulate(events()).spikes
    assert np.array_equal(spikes, nd.compile(golden(), target="speck2f").emulate(events()).spikes)
    deployment.save(tmp_path / "run")
    path.unlink()  # the run folder has its own copy
    again = nd.open(tmp_path / "run")
    assert again.target == "tiny"
    assert np.array_equal(again.emulate(events()).spikes, spikes)


def test_a_program_without_its_chip_is_refused(tmp_path):
    nd.compile(golden(), target=write(tmp_path / "chip.yaml")).save(tmp_path / "run")
    copy = tmp_path / "run" / TARGET_FILE
    text = copy.read_text()
    copy.write_text(text.replace("neuron: 1024", "neuron: 2048", 1))
    with pytest.raises(ProgramError, match=r"target\.yaml: is not what was written"):
        nd.open(tmp_path / "run")
    copy.write_text(text.replace("name: tiny", "name: other"))
    with pytest.raises(ProgramError, match=r"no target 'tiny'.*describes 'other'"):
        nd.open(tmp_path / "run")
    copy.unlink()
    with pytest.raises(ProgramError, match="no target 'tiny'"):
        nd.open(tmp_path / "run")


def test_its_limits_hold(tmp_path):
    path = write(tmp_path / "chip.yaml", limits={"kernel_size": {"value": 2, "source": "made up"}})
    with pytest.raises(ConstraintError, match="conv: A side of the kernel is 1 to 2"):
        nd.compile(golden(), target=path)
    with pytest.raises(MappingError, match="4 layers, the chip has 3 cores"):
        nd.compile(as_float(chain((1, 8, 8), [(1, 1, 1, 0, 1)] * 4)), target=write(path))


@pytest.mark.parametrize("name", ["speck2f", "dynapcnndevkit"])
def test_the_name_of_a_known_chip_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"there is another chip called '{name}'"):
        load_target(write(tmp_path / "chip.yaml", name=name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml cannot be read"):
        load_target(tmp_path / "nothing.yaml")


def test_a_core_without_bias_memory_says_so():
    target = load_target("speck2cmini")
    graph = chain((2, 16, 16), [(4, 3, 1, 1, 1)] * 3)
    conv = {name: node for name, node in graph.nodes.items() if name.startswith("conv")}
    biased = graph.with_nodes({name: replace(node, bias=np.full(4, -3, np.int16)) for name, node in conv.items()})
    assert [layer.core for layer in target.family.map(graph, target.chip).layers.values()] == [0, 1, 2]
    with pytest.raises(MappingError, match="core 0, 1, 2: bias 4 words, the core has none"):
        target.family.map(biased, target.chip)
